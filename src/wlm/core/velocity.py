"""How given velocities compare with the displacement of the populations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wlm.core.populations import Array, Populations
from wlm.core.transport import coupling

#: Cells of each population that are coupled; the exact coupling of 1000 with 1000 takes 0.1 s.
N_COUPLED = 1000
#: Coupled cells whose drift is averaged for a cell: a coupling of samples is noisy cell by cell.
N_NEIGHBORS = 10


@dataclass(frozen=True)
class Agreement:
    """Velocities beside the observed drift.

    Parameters
    ----------
    scale
        Factor that turns the given velocities into the best linear prediction of the displacement between
        populations; negative where they point backwards.
    cells
        Cosine between velocity and drift of each cell, one array (n_k,) float32 per time; NaN where
        velocities are missing or zero.
    """

    scale: float
    cells: tuple[NDArray[np.float32], ...]


def agreement(populations: Populations, *, seed: int = 0) -> Agreement:
    r"""Compare the velocities of ``populations`` with the optimal transport between them.

    The scale is the c that minimises the mean of :math:`|y - x - c\,\tfrac{\Delta t}{2}(v(x) + v(y))|^2` over
    coupled cells x, y of consecutive times: the trapezoidal rule for the displacement, so that paths may
    bend between two times. Where velocities are noise, c tends to zero. The cosines compare each cell's
    velocity with the drift at its place, the difference between the images of its neighbours at the times
    after and before, over the time between them (one-sided at both ends).

    Parameters
    ----------
    populations
        Training populations, with velocities.
    seed
        Seeds the choice of the cells that are coupled.

    Raises
    ------
    ValueError
        If there are no velocities at any two consecutive times, or all of them are zero.
    """
    velocities = populations.velocities
    if velocities is None:
        raise ValueError("the populations have no velocities to compare")
    rng = np.random.default_rng(seed)
    chosen = [np.sort(rng.permutation(len(x))[:N_COUPLED]) for x in populations.positions]
    x = [np.asarray(p[i], dtype=np.float64) for p, i in zip(populations.positions, chosen, strict=True)]
    v = [np.asarray(u[i], dtype=np.float64) for u, i in zip(velocities, chosen, strict=True)]
    w = [None if populations.weights is None else populations.weights[k][i] for k, i in enumerate(chosen)]
    times = np.asarray(populations.times, dtype=np.float64)
    forward: list[Array] = list(x)
    backward: list[Array] = list(x)
    product = square = 0.0
    for k, dt in enumerate(np.diff(times)):
        i, j, mass = coupling(x[k], x[k + 1], w[k], w[k + 1])
        forward[k] = _image(i, j, mass, x[k + 1], len(x[k]))
        backward[k + 1] = _image(j, i, mass, x[k], len(x[k + 1]))
        pace = (v[k][i] + v[k + 1][j]) / 2
        if np.isfinite(pace).all():
            product += float(mass @ ((x[k + 1][j] - x[k][i]) * pace).sum(1)) * dt
            square += float(mass @ np.square(pace).sum(1)) * dt**2
    if square == 0:
        raise ValueError("there are no velocities other than zero at two consecutive times")

    cosines = []
    for k, given in enumerate(velocities):
        after, before = min(k + 1, len(times) - 1), max(k - 1, 0)
        drift = _smooth(x[k], (forward[k] - backward[k]) / (times[after] - times[before]), populations.positions[k])
        norm = np.linalg.norm(given, axis=1) * np.linalg.norm(drift, axis=1)
        cosine = np.full(len(given), np.nan, dtype=np.float32)
        moving = norm > 0  # also false for NaN
        cosine[moving] = (given * drift).sum(1)[moving] / norm[moving]
        cosines.append(cosine)
    return Agreement(product / square, tuple(cosines))


def _image(rows: NDArray, columns: NDArray, mass: Array, y: Array, n: int) -> Array:
    """Mean partner (n, d) in ``y`` of each row of a coupling."""
    total = np.bincount(rows, mass, n)
    return np.stack([np.bincount(rows, mass * y[columns, c], n) for c in range(y.shape[1])], axis=1) / total[:, None]


def _smooth(x: Array, values: Array, at: Array) -> Array:
    """Mean of ``values`` (n, d) over the nearest of ``x`` (n, d), for the points ``at`` (m, d)."""
    from scipy.spatial import cKDTree

    k = min(N_NEIGHBORS, len(x))
    nearest = cKDTree(x).query(at, k=k)[1].reshape(len(at), k)
    return values[nearest].mean(axis=1)
