"""Simulated particles with known laws: gradient flows with noise, and flocks."""

from __future__ import annotations

from collections.abc import Callable

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from wlm._random import RNG, as_seed

Array = NDArray[np.float64]

#: Potentials (paper, eq. 41-45) with their gradients, positions (n, 2) to (n,) and (n, 2).
POTENTIALS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "quadratic": (lambda x: 0.5 * (x**2).sum(1), lambda x: x),
    "styblinski_tang": (
        lambda x: 0.5 * (x**4 - 16 * x**2 + 5 * x).sum(1),
        lambda x: 2 * x**3 - 16 * x + 2.5,
    ),
    "oakley_ohagan": (
        lambda x: (x + x**2).sum(1) + x[:, 0] * x[:, 1],
        lambda x: 1 + 2 * x + x[:, ::-1],
    ),
    "wavy_plateau": (lambda x: np.sin(x).sum(1), np.cos),
    "bohachevsky": (
        lambda x: (
            x[:, 0] ** 2
            + 2 * x[:, 1] ** 2
            - 0.3 * np.cos(3 * np.pi * x[:, 0])
            - 0.4 * np.cos(4 * np.pi * x[:, 1])
            + 0.7
        ),
        lambda x: np.stack(
            [
                2 * x[:, 0] + 0.9 * np.pi * np.sin(3 * np.pi * x[:, 0]),
                4 * x[:, 1] + 1.6 * np.pi * np.sin(4 * np.pi * x[:, 1]),
            ],
            axis=1,
        ),
    ),
}
#: Variance of the initial normal distribution of the gradient flows, and Euler-Maruyama steps per snapshot.
_VARIANCE, _INNER = 0.2, 10


def gradient_flow_sde(
    potential: str = "quadratic",
    n_cells: int = 1000,
    *,
    n_times: int = 20,
    dt: float = 0.01,
    sigma: float = 1.0,
    paired: bool = False,
    rng: RNG = 0,
) -> ad.AnnData:
    r"""Simulate :math:`dX = -\nabla\Psi(X)dt + \sigma dW` in the plane, from :math:`\mathcal N(0, 0.2 I)`.

    The gradient-flow benchmark of the WLM paper (appendix C.1), by Euler-Maruyama with ten steps per
    snapshot.

    Parameters
    ----------
    potential
        ``"quadratic"``, ``"styblinski_tang"``, ``"oakley_ohagan"``, ``"wavy_plateau"`` or ``"bohachevsky"``.
    n_cells
        Particles per time.
    n_times, dt
        Number of snapshots, the initial one included, and the time between them.
    sigma
        Square root of twice the diffusion constant.
    paired
        Follow the same particles through all times; else each snapshot is of particles of its own.
    rng
        Seed, numpy Generator or SeedSequence.

    Returns
    -------
    AnnData of shape (n_cells * n_times, 0):

    ``obsm["X_position"]``
        float32, (n, 2).
    ``obsm["velocity"]``
        Canonical velocity :math:`-\nabla\Psi - \tfrac{\sigma^2}{2}\nabla\log\rho` at the first time, where
        the density is known; NaN later.
    ``obsm["true_drift"]``, ``obs["true_potential"]``
        :math:`-\nabla\Psi` and :math:`\Psi`.
    ``obs["time"]``
        0, dt, 2 dt, ...

    Examples
    --------
    >>> import wlm
    >>> wlm.datasets.gradient_flow_sde("bohachevsky", 50, n_times=3).obs["time"].unique().tolist()
    [0.0, 0.01, 0.02]
    """
    if potential not in POTENTIALS:
        raise ValueError(f"potential must be one of {sorted(POTENTIALS)}, found {potential!r}")
    if n_cells < 2 or n_times < 2:
        raise ValueError(f"at least 2 particles and 2 times are needed, found {n_cells} and {n_times}")
    if not dt > 0 or not sigma >= 0:
        raise ValueError(f"dt must be positive and sigma not negative, found {dt} and {sigma}")
    energy, gradient = POTENTIALS[potential]
    seed = as_seed(rng)
    snapshots = []
    for k in range(1 if paired else n_times):
        stream = np.random.default_rng([seed, k])
        x = stream.normal(0, np.sqrt(_VARIANCE), (n_cells, 2))
        path = [x]
        for _ in range((n_times - 1 if paired else k) * _INNER):
            h = dt / _INNER
            x = x - h * gradient(x) + sigma * np.sqrt(h) * stream.normal(size=x.shape)
            path.append(x)
        snapshots += path[::_INNER] if paired else [x]
    x = np.concatenate(snapshots)
    start = np.arange(len(x)) < n_cells
    velocity = np.where(start[:, None], -gradient(x) + 0.5 * sigma**2 / _VARIANCE * x, np.nan)
    adata = _particles(x, np.repeat(np.arange(n_times) * dt, n_cells), n_cells, velocity)
    adata.obsm["true_drift"] = (-gradient(x)).astype(np.float32)
    adata.obs["true_potential"] = energy(x)
    return adata


def boids(
    n_cells: int = 1000,
    *,
    n_times: int = 100,
    dt: float = 0.5,
    radius: float = 1.0,
    separation_radius: float = 0.3,
    cohesion: float = 0.005,
    separation: float = 0.1,
    alignment: float = 0.3,
    boundary: float = 0.5,
    limit: float = 5.0,
    rng: RNG = 0,
) -> ad.AnnData:
    """Simulate a flock in the plane: cohesion, alignment, separation, and a boundary that turns it back.

    The emergent dynamics of the WLM paper (appendix C.4; after Reynolds 1987). Positions and velocities
    start as standard normal numbers, and each step is ``v += dt * acceleration; x += dt * v``.

    Parameters
    ----------
    n_cells
        Boids.
    n_times, dt
        Number of snapshots, the initial one included, and the time between them.
    radius, separation_radius
        How far a boid sees flockmates that it joins, and those that it avoids.
    cohesion
        Weight of the mean relative position of the flockmates in sight.
    separation
        Weight of the summed relative positions of those too close, away from them.
    alignment
        Weight of the mean relative velocity of the flockmates in sight.
    boundary, limit
        Weight of the force back to the origin on boids further than ``limit`` from it (as a unit vector).
    rng
        Seed, numpy Generator or SeedSequence.

    Returns
    -------
    AnnData of shape (n_cells * n_times, 0) with ``obsm["X_position"]`` and ``obsm["velocity"]``, float32
    (n, 2), and ``obs["time"]`` 0, dt, 2 dt, ... The same boids are in every snapshot, in the same order.

    Examples
    --------
    >>> import wlm
    >>> wlm.datasets.boids(20, n_times=3).shape
    (60, 0)
    """
    if n_cells < 2 or n_times < 2:
        raise ValueError(f"at least 2 boids and 2 times are needed, found {n_cells} and {n_times}")
    if not dt > 0 or not radius > 0 or not 0 <= separation_radius <= radius:
        raise ValueError(
            "dt and radius must be positive and separation_radius between 0 and radius, "
            f"found {dt}, {radius}, {separation_radius}"
        )
    stream = np.random.default_rng(as_seed(rng))
    x, v = stream.normal(size=(2, n_cells, 2))
    xs, vs = [x], [v]
    for _ in range(n_times - 1):
        a = (
            -boundary
            * x
            / np.linalg.norm(x, axis=1, keepdims=True)
            * (np.linalg.norm(x, axis=1, keepdims=True) > limit)
        )
        i, j = cKDTree(x).query_pairs(radius, output_type="ndarray").T
        i, j = np.concatenate([i, j]), np.concatenate([j, i])
        apart = x[j] - x[i]
        count = np.bincount(i, minlength=n_cells).clip(1)[:, None]
        a += cohesion * _total(i, apart, n_cells) / count + alignment * _total(i, v[j] - v[i], n_cells) / count
        near = np.linalg.norm(apart, axis=1) < separation_radius
        a -= separation * _total(i[near], apart[near], n_cells)
        v = v + dt * a
        x = x + dt * v
        xs.append(x)
        vs.append(v)
    return _particles(np.concatenate(xs), np.repeat(np.arange(n_times) * dt, n_cells), n_cells, np.concatenate(vs))


def _total(i: NDArray[np.intp], values: Array, n: int) -> Array:
    """Sum of ``values`` (m, 2) for each index (n, 2)."""
    return np.stack([np.bincount(i, weights=column, minlength=n) for column in values.T], axis=1)


def _particles(x: Array, times: Array, n: int, velocity: Array) -> ad.AnnData:
    obs = pd.DataFrame({"time": times}, index=[f"t{k // n}_{k % n}" for k in range(len(x))])
    return ad.AnnData(obs=obs, obsm={"X_position": x.astype(np.float32), "velocity": velocity.astype(np.float32)})
