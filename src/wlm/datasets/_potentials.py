"""Gradient flows without noise in fifteen potentials of the plane: the benchmark of JKOnet* and iJKOnet."""

from __future__ import annotations

import math
from collections.abc import Callable

import anndata as ad
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, cos, exp, sin

from wlm._random import RNG, as_seed

#: Half the side of the square that particles start in.
SIDE = 4.0


def _friedman(x: Tensor, y: Tensor) -> Tensor:
    a, b = 2 * (x - 7), y - 7
    bumps = 10 * sin(math.pi * a * b) + 20 * (a * sin(b) - 0.5) ** 2
    return (bumps + 10 * (a * cos(b) - 1) ** 2 + 0.1 * b * sin(a)) / 100


#: Potentials of positions x, y (n,), after Terpin et al. 2024, appendix F; by name.
JKO_POTENTIALS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "styblinski_tang": lambda x, y: 0.5 * (x**4 - 16 * x**2 + 5 * x + y**4 - 16 * y**2 + 5 * y),
    "holder_table": lambda x, y: 10 * (sin(x) * cos(y) * exp((1 - torch.hypot(x, y) / math.pi).abs())).abs(),
    "zigzag_ridge": lambda x, y: (x - y) ** 2 + cos(x) * (x + y) + x**2 * y,
    "oakley_ohagan": lambda x, y: 5 * (sin(x) + cos(x) + x**2 + x + sin(y) + cos(y) + y**2 + y),
    "watershed": lambda x, y: (x + x**2 * (y + 4)) / 10,
    "ishigami": lambda x, y: sin(x) + 7 * sin(y) ** 2 + 0.1 * ((x + y) / 2) ** 4 * sin(x),
    "friedman": _friedman,
    "sphere": lambda x, y: -10 * (x**2 + y**2),
    "bohachevsky": lambda x, y: 10 * (x**2 + 2 * y**2 - 0.3 * cos(3 * math.pi * x) - 0.4 * cos(4 * math.pi * y)),
    "flowers": lambda x, y: x + 2 * sin(x.abs() ** 1.2) + y + 2 * sin(y.abs() ** 1.2),
    "wavy_plateau": lambda x, y: (
        cos(math.pi * x) + 0.5 * x**4 - 3 * x**2 + 1 + cos(math.pi * y) + 0.5 * y**4 - 3 * y**2 + 1
    ),
    "double_exp": lambda x, y: (
        200 * (exp(-((x - 3) ** 2 + (y - 3) ** 2) / 20) + exp(-((x + 3) ** 2 + (y + 3) ** 2) / 20))
    ),
    "relu": lambda x, y: -50 * (x.clamp_min(0) + y.clamp_min(0)),
    "rotational": lambda x, y: -500 * (torch.atan2(y + 5, x + 5) + math.pi).clamp_min(0),
    "flat": lambda x, y: 0 * (x + y),
}


def potential_flow(
    potential: str = "wavy_plateau",
    n_cells: int = 1000,
    *,
    n_times: int = 6,
    dt: float = 0.01,
    paired: bool = False,
    rng: RNG = 0,
) -> ad.AnnData:
    r"""Simulate :math:`\dot x = -\nabla V(x)` in the plane, from a uniform square.

    The benchmark of the papers on JKOnet* and iJKOnet: one explicit Euler step per snapshot, no noise.

    Parameters
    ----------
    potential
        One of ``styblinski_tang``, ``holder_table``, ``zigzag_ridge``, ``oakley_ohagan``, ``watershed``, ``ishigami``,
        ``friedman``, ``sphere``, ``bohachevsky``, ``flowers``, ``wavy_plateau``, ``double_exp``, ``relu``,
        ``rotational`` and ``flat``.
    n_cells
        Particles per time.
    n_times, dt
        Number of snapshots, the initial one included, and the time between them.
    paired
        Follow the same particles through all times; else each snapshot is of particles of its own.
    rng
        Seed, numpy Generator or SeedSequence.

    Returns
    -------
    AnnData of shape (n_cells * n_times, 0) with ``obsm["X_position"]`` and ``obsm["true_drift"]``, float32 (n, 2),
    ``obs["true_potential"]``, and ``obs["time"]`` 0, dt, 2 dt, ...

    Examples
    --------
    >>> import wlm
    >>> wlm.datasets.potential_flow("flat", 50, n_times=3).shape
    (150, 0)
    """
    if potential not in JKO_POTENTIALS:
        raise ValueError(f"potential must be one of {sorted(JKO_POTENTIALS)}, found {potential!r}")
    if n_cells < 2 or n_times < 2:
        raise ValueError(f"at least 2 particles and 2 times are needed, found {n_cells} and {n_times}")
    if not dt > 0:
        raise ValueError(f"dt must be positive, found {dt}")
    seed = as_seed(rng)
    snapshots = []
    for k in range(1 if paired else n_times):
        x = np.random.default_rng([seed, k]).uniform(-SIDE, SIDE, (n_cells, 2))
        path = [x]
        for _ in range(n_times - 1 if paired else k):
            x = x - dt * slope(potential, x)[1]
            path.append(x)
        snapshots += path if paired else [x]
    x = np.concatenate(snapshots)
    value, gradient = slope(potential, x)
    times = np.repeat(np.arange(n_times) * dt, n_cells)
    names = [f"t{k // n_cells}_{k % n_cells}" for k in range(len(x))]
    obs = pd.DataFrame({"time": times, "true_potential": value}, index=names)
    return ad.AnnData(obs=obs, obsm={"X_position": x.astype(np.float32), "true_drift": (-gradient).astype(np.float32)})


def slope(potential: str, x: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values (n,) and gradients (n, 2) of a potential at positions ``x`` (n, 2), in float64."""
    z = torch.tensor(np.asarray(x, dtype=np.float64), requires_grad=True)
    value = JKO_POTENTIALS[potential](z[:, 0], z[:, 1])
    (gradient,) = torch.autograd.grad(value.sum(), z)
    return value.detach().numpy(), gradient.numpy()
