"""Do cells keep their velocity? What the populations say of it alone, and the velocities that follow.

Consecutive populations are coupled by optimal transport, which gives chains of cells through all times. The natural
cubic spline through a chain is, of all paths through its cells, the one of least squared acceleration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wlm.core.populations import BLOCK, Array, Populations
from wlm.core.transport import assignment

if TYPE_CHECKING:
    from scipy.interpolate import CubicSpline

#: Most chains by which a left-out population is predicted, and from which velocities are taken.
N_TEST, N_CHAINS = 500, 1000
#: Fewer cells at a time, which is all that chains can then be, say nothing.
N_LEAST = 10
#: Splines have to predict left-out populations this much better than straight lines before their velocities are used.
#: On gradient flows, embryoid bodies and other cells without inertia the ratio was 0.96 to 1.23, on a vortex 0.75 where
#: cells turn by a right angle between times (``benchmarks/inertia.py``).
INERTIAL = 0.9
#: Neighbours whose velocities a cell outside the chains gets the mean of.
N_NEIGHBOURS = 5


@dataclass(frozen=True)
class Inertia:
    """How well each inner population is predicted from all others.

    ``times`` (k,); ``straight`` and ``spline`` (k,): W1 between the population and the straight lines between its
    neighbours, or the splines through all others.
    """

    times: Array
    straight: Array
    spline: Array

    @property
    def found(self) -> bool:
        """Whether splines predict so much better, at most of the times, that velocities can be taken from them."""
        better = self.spline < self.straight
        return bool(2 * better.sum() > len(better) and self.spline.mean() < INERTIAL * self.straight.mean())


def measure_inertia(populations: Populations) -> Inertia | None:
    """Leave out each inner population and predict it by straight lines and by splines.

    The same for the same populations. None for fewer than four times (without one of three, splines are straight lines)
    and for a time with fewer than ``N_LEAST`` cells.
    """
    times = np.asarray(populations.times, dtype=np.float64)
    if len(times) < 4 or min(x.shape[0] for x in populations.positions) < N_LEAST:
        return None
    clouds = _draw(populations, N_TEST)

    @cache
    def link(i: int, j: int) -> NDArray[np.intp]:
        return assignment(clouds[i], clouds[j])[0]

    straight, spline = [], []
    for k in range(1, len(times) - 1):
        seen = [i for i in range(len(times)) if i != k]
        chains = _chain([clouds[i] for i in seen], [link(i, j) for i, j in zip(seen[:-1], seen[1:], strict=True)])
        share = (times[k] - times[k - 1]) / (times[k + 1] - times[k - 1])
        middle = (1 - share) * chains[k - 1] + share * chains[k]
        straight.append(_w1(middle, clouds[k]))
        spline.append(_w1(_spline(times[seen], chains)(times[k]), clouds[k]))
    return Inertia(times[1:-1], np.array(straight), np.array(spline))


def spline_velocities(populations: Populations) -> tuple[Array, ...]:
    """Velocities of all cells: those of the splines through their chains, in the units of the populations.

    Returns
    -------
    T arrays of shape (n_k, d), float32. There are as many chains as the smallest population has cells, at most
    ``N_CHAINS``, and cells outside them get the mean of the nearest ``N_NEIGHBOURS`` that are in one.
    """
    from scipy.spatial import cKDTree

    times, chains = _chains(populations, N_CHAINS)
    spline = _spline(times, chains)
    out = []
    for k, x in enumerate(populations.positions):
        tree, v = cKDTree(chains[k]), spline(times[k], 1).astype(np.float32)
        of_cells = np.empty(x.shape, dtype=np.float32)
        for start in range(0, len(x), BLOCK):
            block = x[start : start + BLOCK]
            distance, near = tree.query(block, k=range(1, min(N_NEIGHBOURS, len(v)) + 1), workers=-1)
            # A cell in a chain has the velocity of that chain; if it was drawn by its weight, the mean of its chains.
            weights = np.where(distance[:, :1] == 0, distance == 0, True).astype(np.float32)
            total = sum(weights[:, j, None] * v[near[:, j]] for j in range(weights.shape[1]))
            of_cells[start : start + BLOCK] = total / weights.sum(1, keepdims=True)
        out.append(of_cells)
    return tuple(out)


def spline_interpolation(populations: Populations, t: float, n: int = N_CHAINS) -> Array:
    """Where the splines through at most ``n`` chains are at time ``t``: a naive prediction (m, d) of the population."""
    return _spline(*_chains(populations, n))(t)


def _chains(populations: Populations, n: int) -> tuple[Array, Array]:
    """Times (T,) and at most ``n`` chains (T, m, d) through the populations."""
    clouds = _draw(populations, n)
    partners = [assignment(x, y)[0] for x, y in zip(clouds[:-1], clouds[1:], strict=True)]
    return np.asarray(populations.times, dtype=np.float64), _chain(clouds, partners)


def _draw(populations: Populations, n: int) -> list[Array]:
    """Equally many cells of each population, at most ``n``, by their weights, of those that are trained on."""
    populations, rng = populations.sampled(), np.random.default_rng(0)
    n = min(n, *map(len, populations.positions))
    shares: Sequence[Array | None] = [None] * len(populations.times)
    if populations.weights is not None:
        shares = [w / w.sum() for w in populations.weights]
    return [
        x[rng.choice(len(x), n, replace=p is not None, p=p)].astype(np.float64)
        for x, p in zip(populations.positions, shares, strict=True)
    ]


def _chain(clouds: Sequence[Array], partners: Sequence[NDArray[np.intp]]) -> Array:
    """Paths (T, n, d) of the cells of the first cloud along their partners."""
    index = np.arange(len(clouds[0]))
    chains = [clouds[0]]
    for cloud, partner in zip(clouds[1:], partners, strict=True):
        index = partner[index]
        chains.append(cloud[index])
    return np.stack(chains)


def _spline(times: Array, chains: Array) -> CubicSpline:
    """The natural cubic spline through ``chains`` (T, n, d)."""
    from scipy.interpolate import CubicSpline

    return CubicSpline(times, chains, bc_type="natural")


def _w1(x: Array, y: Array) -> float:
    """W1 of two clouds of equally many cells."""
    return float(assignment(x, y, "euclidean")[1].mean())
