"""Do cells keep their velocity? What the populations say of it alone, and the velocities that follow."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from wlm.core.chains import N_CHAINS, chain, draw, links, spline, to_cells
from wlm.core.populations import Array, Populations
from wlm.core.transport import assignment

#: Most chains by which a left-out population is predicted.
N_TEST = 500
#: Fewer cells at a time, which is all that chains can then be, say nothing.
N_LEAST = 10
#: Splines have to predict left-out populations this much better than straight lines before their velocities are used.
#: On gradient flows, embryoid bodies and other cells without inertia the ratio was 0.96 to 1.23, on a vortex 0.75 where
#: cells turn by a right angle between times (``benchmarks/inertia.py``).
INERTIAL = 0.9


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
    clouds = draw(populations, N_TEST)

    @cache
    def link(i: int, j: int) -> NDArray[np.intp]:
        return assignment(clouds[i], clouds[j])[0]

    straight, smooth = [], []
    for k in range(1, len(times) - 1):
        seen = [i for i in range(len(times)) if i != k]
        chains = chain([clouds[i] for i in seen], [link(i, j) for i, j in zip(seen[:-1], seen[1:], strict=True)])
        share = (times[k] - times[k - 1]) / (times[k + 1] - times[k - 1])
        middle = (1 - share) * chains[k - 1] + share * chains[k]
        straight.append(_w1(middle, clouds[k]))
        smooth.append(_w1(spline(times[seen], chains)(times[k]), clouds[k]))
    return Inertia(times[1:-1], np.array(straight), np.array(smooth))


def spline_velocities(populations: Populations) -> tuple[Array, ...]:
    """Velocities of all cells: those of the splines through their chains, in the units of the populations.

    Returns
    -------
    T arrays of shape (n_k, d), float32. There are as many chains as the smallest population has cells, at most
    ``N_CHAINS``, and cells outside them get the mean of the nearest that are in one.
    """
    times, clouds = np.asarray(populations.times, dtype=np.float64), draw(populations, N_CHAINS)
    chains = chain(clouds, links(clouds))
    return to_cells(populations, chains, spline(times, chains)(times, 1))


def _w1(x: Array, y: Array) -> float:
    """W1 of two clouds of equally many cells."""
    return float(assignment(x, y, "euclidean")[1].mean())
