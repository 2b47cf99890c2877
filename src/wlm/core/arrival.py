r"""Do measured velocities tell how cells arrive? Cubic curves with the velocities at both ends, against straight lines.

Both are tried without any training on the training times: each inner one is predicted from its two neighbours. Twice
the spacing makes a curve look worse than it is, never better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wlm.core.metrics import w1
from wlm.core.populations import Array, Populations
from wlm.core.transport import assignment

#: Most cells of a population that are tried.
N_CELLS = 500
#: Fewest training times and cells of each.
N_TIMES, N_LEAST = 3, 10
#: Logarithm of the error of straight lines over that of the curves from which on velocities are trusted.
TRUSTED = 0.1


def arrival(populations: Populations, choice: str | None = None) -> dict[str, Any] | None:
    """Whether cells are to arrive at the next population with the velocities measured there.

    Parameters
    ----------
    populations
        With velocities of all cells.
    choice
        ``"velocities"`` or ``"rollout"``, if that is decided already; by default by the evidence.

    Returns
    -------
    A note for ``uns``: ``path``, ``"velocities"`` if cells arrive with them and ``"rollout"`` if they only start with
    them; the ``evidence``, the logarithm of the error of straight lines over that of the curves; and ``words``. None
    where a time has no velocities, fewer than ``N_LEAST`` cells, or there are fewer than ``N_TIMES`` times.
    """
    populations = populations.sampled()
    velocities = populations.velocities
    n = min(N_CELLS, *map(len, populations.positions))
    if velocities is None or len(populations.times) < N_TIMES or n < N_LEAST:
        return None
    if not all(np.isfinite(v).all() for v in velocities):
        return None
    rng = np.random.default_rng(0)
    weights: Sequence[Array | None] = populations.weights or [None] * len(velocities)
    cells = []
    for x, v, w in zip(populations.positions, velocities, weights, strict=True):
        i = rng.choice(len(x), n, replace=w is not None, p=None if w is None else w / w.sum())
        cells.append((x[i].astype(np.float64), v[i].astype(np.float64)))
    times, inner = populations.times, range(1, len(cells) - 1)
    curved, straight = np.mean([_errors(times[k - 1 : k + 2], *cells[k - 1 : k + 2]) for k in inner], axis=0)
    evidence = float(np.log(straight / max(curved, 1e-300)))
    trusted = evidence > TRUSTED if choice is None else choice == "velocities"
    words = (
        f"cells {'arrive' if trusted else 'start'} with their measured velocities: cubic curves with these at both "
        f"ends predict training times left out with {curved / straight:.2f} times the W1 of straight lines"
    )
    return {"path": "velocities" if trusted else "rollout", "evidence": evidence, "words": words}


def agreed(choices: Sequence[Mapping[str, Any]]) -> str | None:
    """The ``path`` of several conditions by their mean evidence; None if they agree."""
    if len({choice["path"] for choice in choices}) < 2:
        return None
    return "velocities" if np.mean([choice["evidence"] for choice in choices]) > TRUSTED else "rollout"


def cubic(times: Array, start: tuple[Array, Array], end: tuple[Array, Array], t: float) -> Array:
    """Positions (n, d) at ``t`` between two ``times`` of cells with positions and velocities (n, d) at both ends.

    Partners are those that meet half way, each at its velocity.
    """
    from scipy.interpolate import CubicHermiteSpline

    (x, v), (y, u) = start, end
    half = (times[1] - times[0]) / 2
    i = assignment(x + half * v, y - half * u)[0]
    return CubicHermiteSpline(times, np.stack([x, y[i]]), np.stack([v, u[i]]))(t)


def _errors(
    times: Array, before: tuple[Array, Array], at: tuple[Array, Array], after: tuple[Array, Array]
) -> tuple[float, float]:
    """W1 to the cells in the middle of three times: of cubic curves between the others, and of straight lines."""
    x, y = before[0], after[0]
    j = assignment(x, y)[0]
    share = (times[1] - times[0]) / (times[2] - times[0])
    return w1(cubic(times[[0, 2]], before, after, times[1]), at[0]), w1(x + share * (y[j] - x), at[0])
