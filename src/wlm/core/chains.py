"""Chains of cells through all populations, and the natural cubic splines through them.

Consecutive populations are coupled by optimal transport, which gives chains of cells through all times. The natural
cubic spline through a chain is, of all paths through its cells, the one of least squared acceleration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wlm.core.populations import BLOCK, Array, Populations
from wlm.core.transport import assignment

if TYPE_CHECKING:
    from scipy.interpolate import CubicSpline

#: Most chains from which velocities are taken.
N_CHAINS = 1000
#: Neighbours whose velocities a cell outside the chains gets the mean of.
N_NEIGHBOURS = 5


def draw(populations: Populations, n: int) -> list[Array]:
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


def links(clouds: Sequence[Array]) -> list[NDArray[np.intp]]:
    """The partner (n,) of each cell in the next cloud, by optimal transport."""
    return [assignment(x, y)[0] for x, y in zip(clouds[:-1], clouds[1:], strict=True)]


def chain(clouds: Sequence[Array], partners: Sequence[NDArray[np.intp]]) -> Array:
    """Paths (T, n, d) of the cells of the first cloud along their partners."""
    index = np.arange(len(clouds[0]))
    chains = [clouds[0]]
    for cloud, partner in zip(clouds[1:], partners, strict=True):
        index = partner[index]
        chains.append(cloud[index])
    return np.stack(chains)


def spline(times: Array, chains: Array) -> CubicSpline:
    """The natural cubic spline through ``chains`` (T, n, d)."""
    from scipy.interpolate import CubicSpline

    return CubicSpline(times, chains, bc_type="natural")


def to_cells(populations: Populations, chains: Array, velocities: Array) -> tuple[Array, ...]:
    """Velocities of all cells, given those (T, m, d) of ``chains`` (T, m, d).

    Returns
    -------
    T arrays of shape (n_k, d), float32. Cells outside the chains get the mean of the nearest ``N_NEIGHBOURS`` that are
    in one.
    """
    from scipy.spatial import cKDTree

    out = []
    for x, z, v in zip(populations.positions, chains, velocities.astype(np.float32), strict=True):
        tree = cKDTree(z)
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


def spline_interpolation(populations: Populations, t: float, n: int = N_CHAINS) -> Array:
    """Where the splines through at most ``n`` chains are at time ``t``: a naive prediction (m, d) of the population."""
    clouds = draw(populations, n)
    return spline(np.asarray(populations.times, dtype=np.float64), chain(clouds, links(clouds)))(t)
