"""Numbers and times of a fit in words, the same everywhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from wlm._store.fit import StoredFit

#: How many floors a free rollout may be away from the cells of a training time before a fit is warned about.
UNMET = 3.0


def number(value: float) -> str:
    """Three digits, or a dash where there is no number."""
    return f"{value:.3g}" if np.isfinite(value) else "-"


def percent(share: float) -> str:
    """A share in per cent."""
    return f"{100 * share:.3g} %" if np.isfinite(share) else "-"


def at(fit: StoredFit, t: float) -> str:
    """A time with its column: day 2.5."""
    return f"{fit.time_key} {t:g}"


def several(items: Iterable[Any], limit: int = 8) -> str:
    """a, b and c; no more than ``limit`` of them."""
    shown = [str(item) for item in items]
    if len(shown) > limit:
        return f"{', '.join(shown[:limit])} and {len(shown) - limit} more"
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))


def per_time(fit: StoredFit) -> str:
    """The unit of time, or what stands for it."""
    return fit.unit or "time unit"


def duration(fit: StoredFit, length: float) -> str:
    """A length of time with its unit."""
    return f"{number(length)} {fit.unit}" if fit.unit else f"{number(length)} (in the unit of obs['{fit.time_key}'])"


def constants(fit: StoredFit) -> list[tuple[str, float, str]]:
    """Name, value and unit of the numbers that the dynamics have, such as friction."""
    length = f"{fit.use_rep} units"
    return [
        (name, float(q.in_data(fit.dynamics.units)), q.unit(length, per_time(fit)).replace("1/", "per "))
        for name, q in fit.dynamics.model.constants().items()
    ]


def meets(fit: StoredFit) -> tuple[str, str]:
    """Whether a free rollout meets the cells that were trained on, as a tone and a sentence."""
    found = fit.uns.get("training_times")
    if found is None:
        return "note", "How near the fit comes to its training times was not measured: it was made by an earlier wlm."
    times, w1, floor = (np.asarray(found[name], dtype=float) for name in ("times", "w1", "floor"))
    if not np.isfinite(w1 / floor).all():
        return "note", "Too few cells were given to tell how near the fit comes to its training times."
    ratio = w1 / np.maximum(floor, 1e-12)
    worst = int(np.argmax(ratio))
    if (ratio > UNMET).any():
        missed = several(at(fit, t) for t in times[ratio > UNMET])
        return "bad", (
            f"The fit does not meet its training data at {missed}: let go at the first time, cells end up "
            f"{number(ratio[worst])} times as far from the observed ones as two samples of these are from each other "
            f"(more than {UNMET:g} is too far). Give it more n_steps, or predict from a time nearby."
        )
    return "good", (
        f"The fit meets its training data: let go at the first time, cells stay within {number(ratio[worst])} times "
        f"the distance that two samples of the observed ones have from each other (up to {UNMET:g} is accepted), at "
        "every training time."
    )
