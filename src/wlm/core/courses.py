"""Courses that a population may have taken between the times at which it was observed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from wlm.core.chains import chain, links, spline
from wlm.core.populations import Array

#: Positions (k, n, d) at wanted times (k,) of the chains (T, n, d) through the cells of the observed times (T,).
Path = Callable[[Array, Array, Array], Array]


def straight(times: Array, chains: Array, wanted: Array) -> Array:
    """Straight lines through the cells; past the last time they go on."""
    k = np.clip(np.searchsorted(times, wanted, side="right") - 1, 0, len(times) - 2)
    share = ((wanted - times[k]) / (times[k + 1] - times[k]))[:, None, None]
    return (1 - share) * chains[k] + share * chains[k + 1]


def smooth(times: Array, chains: Array, wanted: Array) -> Array:
    """Natural cubic splines through the cells; past the last time they go on straight."""
    curve, last = spline(times, chains), times[-1]
    beyond = np.clip(wanted - last, 0, None)[:, None, None]
    return curve(np.minimum(wanted, last)) + beyond * curve(last, 1)


#: What leads cells from one observed time to the next, where nothing is trained.
PATHS: tuple[Path, ...] = (straight, smooth)


def redrawn(x: Array, n: int, rng: np.random.Generator, w: Array | None = None) -> np.ndarray:
    """Rows (n,) of other cells of the population ``x`` (m, d), weights ``w`` (m,): a bootstrap sample."""
    return rng.choice(len(x), size=n, p=None if w is None else w / w.sum())


def course(times: Array, clouds: Sequence[Array], wanted: Array, path: Path) -> Array:
    """A course (k, n, d) at ``wanted`` times (k,) through the ``clouds``, T arrays (n, d), along one kind of path."""
    clouds = [np.asarray(cloud, dtype=np.float64) for cloud in clouds]
    return path(times, chain(clouds, links(clouds)), wanted)
