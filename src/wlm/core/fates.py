"""Fates as absorption: the chance of each end, pulled back through the populations, and how much of it is decided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wlm.core.populations import Array
from wlm.core.transport import shares

#: Share of what there is to know of a fate at which it counts as decided.
DECIDED = 0.5


def pull_back(steps: Sequence[Any], ends: Array) -> list[NDArray[np.float64]]:
    """Probabilities (n_k, f) of each end for the cells of all populations but the last, from the first on.

    ``steps`` are the transitions (n_k, n_(k+1)) from each population to the next, rows of which sum to one, sparse or
    dense; ``ends`` (n_K, f) the probabilities of the last.
    """
    found, probabilities = [], ends
    for step in reversed(steps):
        probabilities = step @ probabilities
        found.append(probabilities)
    return found[::-1]


def entropy(p: Array) -> NDArray[np.float64]:
    """Entropy (...) of probabilities (..., f), in bits: 0 for one certain end, 1 for the toss of a coin."""
    p = np.asarray(p, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(p > 0, p * np.log2(p), 0.0)
    # A sum of probabilities is one to rounding only, and so is the largest of them.
    return np.maximum(-parts.sum(-1), 0.0)


def decided(p: Array, w: Array | None = None) -> float:
    r"""How much of a fate is decided in a population: :math:`1 - \overline{H(p_i)} / H(\bar p)`, between 0 and 1.

    Mutual information of where a cell is and how it ends, over the entropy of the ends: 0 where every cell has the
    same chances ``p`` (n, f), 1 where each has one end. NaN where there is one end only. ``w`` (n,) are weights.
    """
    w = shares(w, len(p))
    total = float(entropy(w @ p))
    return float(np.clip(1 - w @ entropy(p) / total, 0, 1)) if total > 1e-9 else np.nan


def decided_at(times: Array, share: Array, level: float = DECIDED) -> float:
    """The first time at which ``share`` (T,) reaches ``level``, between ``times`` (T,) by lines; NaN if it never does.

    Before the first time nothing is known: a fate that is decided then has this time.
    """
    for k, value in enumerate(share):
        if value >= level:
            if k == 0 or not np.isfinite(share[k - 1]):
                return float(times[k])
            part = (level - share[k - 1]) / (value - share[k - 1])
            return float(times[k - 1] + part * (times[k] - times[k - 1]))
    return float("nan")
