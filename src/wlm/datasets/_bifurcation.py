"""A simulated developmental bifurcation, with everything known."""

from __future__ import annotations

from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from wlm._random import RNG, as_seed

Array = NDArray[np.float64]

#: Drift of progress per day, pull towards a branch, progress at which the valley splits and how sharply, noise.
_SPEED, _PULL, _SPLIT, _SLOPE, _NOISE = 0.25, 1.8, 0.25, 4.0, 0.12
#: Step of the latent path and of the kinetics, in days.
_DT = 0.05


def _split(progress: Array) -> Array:
    """How far the valley has split: below 0 one valley at 0, above it two at +-sqrt(split)."""
    return np.tanh(_SLOPE * (progress - _SPLIT))


def potential(z: Array) -> Array:
    r"""True potential :math:`\Psi(s, b) = -vs + w(b^4/4 - \mu(s)b^2/2)` of latent states ``z`` (n, 2), in 1/day."""
    s, b = z.T
    return -_SPEED * s + _PULL * (b**4 / 4 - _split(s) * b**2 / 2)


def _drift(z: Array) -> Array:
    s, b = z.T
    mu = _split(s)
    return np.stack([_SPEED + _PULL * _SLOPE * (1 - mu**2) * b**2 / 2, -_PULL * (b**3 - mu * b)], axis=1)


def bifurcation(
    n_cells: int = 2000,
    *,
    n_genes: int = 150,
    days: Sequence[float] = (0, 1, 2, 3, 4),
    leave_out: Sequence[float] = (),
    noise: bool = True,
    rng: RNG = 0,
) -> ad.AnnData:
    r"""Simulate cells that develop along a valley which splits in two.

    A latent state :math:`z = (s, b)`, progress and branch, follows
    :math:`dz = -\nabla\Psi(z)dt + \sigma dW`. It sets the transcription rate of each gene, from which
    unspliced and spliced molecules arise by :math:`\dot u = \alpha(z) - \beta u,\ \dot s = \beta u - \gamma s`;
    molecule numbers are Poisson given the path (exact for these kinetics), thinned by a capture rate
    of each cell. Every day is a fresh set of cells.

    Parameters
    ----------
    n_cells
        Cells per day.
    n_genes
        Genes: progress, branch and housekeeping genes in proportions 2:2:1.
    days
        Sampling times, not negative.
    leave_out
        Days to leave out of the result; the remaining cells are the same as without it.
    noise
        Draw molecule numbers; if False, the expected ones are returned.
    rng
        Seed, numpy Generator or SeedSequence.

    Returns
    -------
    AnnData of shape (n_cells * n_days, n_genes), float32:

    ``X``, ``layers["spliced"]``, ``layers["unspliced"]``
        Counts; ``X`` is ``spliced``, sparse.
    ``layers["true_velocity"]``
        Expected change of the spliced counts per day.
    ``obs["day"]``, ``obs["fate"]``, ``obs["latent_time"]``, ``obs["true_potential"]``
        Sampling time; the branch where the cell would have been on the last day (``"A"``, ``"B"``);
        progress; potential (1/day).
    ``obsm["latent"]``, ``obsm["latent_velocity"]``
        State and drift :math:`-\nabla\Psi` per day, shape (n, 2).
    ``var["program"]``
        What the gene follows: ``"progress"``, ``"branch"`` or ``"housekeeping"``.

    Examples
    --------
    >>> import wlm
    >>> wlm.datasets.bifurcation(100, leave_out=[2]).obs["day"].unique().tolist()
    [0.0, 1.0, 3.0, 4.0]
    """
    if n_cells < 2 or n_genes < 5:
        raise ValueError(f"at least 2 cells a day and 5 genes are needed, found {n_cells} and {n_genes}")
    times = np.unique(np.asarray(days, dtype=np.float64))
    if len(times) != len(days) or times[0] < 0:
        raise ValueError(f"days must be distinct and not negative, found {list(days)}")
    missing = sorted(set(map(float, leave_out)) - set(times))
    if missing:
        raise ValueError(f"leave_out names {missing}, which are not among the days {list(times)}")
    seed = as_seed(rng)
    genes = _Genes(n_genes, np.random.default_rng([seed, 0]))
    keep = [(k, t) for k, t in enumerate(times) if t not in set(map(float, leave_out))]
    # Each day has its own stream, so that leaving one out does not change the others.
    parts = [_day(t, times[-1], n_cells, genes, np.random.default_rng([seed, k + 1]), noise=noise) for k, t in keep]
    obs = pd.concat([p[0] for p in parts], ignore_index=True)
    obs["fate"] = pd.Categorical(obs["fate"], categories=["A", "B"])
    obs.index = [f"d{day:g}_{i}" for day, i in zip(obs["day"], obs.groupby("day").cumcount(), strict=True)]
    latent, spliced, unspliced, velocity = (np.concatenate([p[i] for p in parts]) for i in range(1, 5))
    return ad.AnnData(
        csr_matrix(spliced),
        obs=obs,
        var=pd.DataFrame({"program": pd.Categorical(genes.program)}, index=[f"gene{i:03d}" for i in range(n_genes)]),
        layers={"spliced": csr_matrix(spliced), "unspliced": csr_matrix(unspliced), "true_velocity": velocity},
        obsm={"latent": latent.astype(np.float32), "latent_velocity": _drift(latent).astype(np.float32)},
    )


class _Genes:
    """Kinetics of the genes: rates per day, and the transcription rate as a function of the latent state."""

    def __init__(self, n: int, rng: np.random.Generator):
        self.program = np.resize(["progress", "progress", "branch", "branch", "housekeeping"], n)
        self.beta = rng.uniform(4, 12, n)
        self.gamma = rng.uniform(1, 3, n)
        level = rng.lognormal(1.5, 0.7, n)
        self.base = level * np.where(self.program == "housekeeping", 1.0, 0.1) * self.gamma
        self.gain = level * (self.program != "housekeeping") * self.gamma
        sign = rng.choice([-1.0, 1.0], n)
        steep = rng.uniform(4, 8, n)
        self.slope_s = np.where(self.program == "progress", sign * steep, 0.0)
        self.slope_b = np.where(self.program == "branch", sign * steep, 0.0)
        # Progress genes switch anywhere along the way, branch genes once a cell has left the middle.
        self.offset = np.where(self.program == "progress", self.slope_s * rng.uniform(-0.1, 1.1, n), 0.5 * steep)

    def alpha(self, z: Array) -> Array:
        """Transcription rates (n_cells, n_genes), molecules per day."""
        argument = z[:, :1] * self.slope_s + z[:, 1:] * self.slope_b - self.offset
        return self.base + self.gain / (1 + np.exp(-argument))


def _day(
    day: float, last: float, n: int, genes: _Genes, rng: np.random.Generator, *, noise: bool
) -> tuple[pd.DataFrame, Array, NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Simulate the cells sampled on one day, and their latent future until the last."""
    z = np.stack([rng.normal(0, 0.06, n), rng.normal(0, 0.15, n)], axis=1)
    alpha = genes.alpha(z)
    u, s = alpha / genes.beta, alpha / genes.gamma
    steps = round(day / _DT)
    sampled = z
    for i in range(round(last / _DT)):
        if i < steps:
            # Exact for rates held fixed over the step.
            u_inf = alpha / genes.beta
            eb, eg = np.exp(-genes.beta * _DT), np.exp(-genes.gamma * _DT)
            s = (
                alpha / genes.gamma
                + (s - alpha / genes.gamma) * eg
                + (genes.beta * (u - u_inf) / (genes.gamma - genes.beta) * (eb - eg))
            )
            u = u_inf + (u - u_inf) * eb
        z = z + _drift(z) * _DT + _NOISE * np.sqrt(_DT) * rng.normal(size=z.shape)
        if i < steps:
            alpha = genes.alpha(z)
        if i == steps - 1:
            sampled = z
    fate = np.where(z[:, 1] > 0, "A", "B")
    capture = np.exp(rng.normal(0, 0.2, (n, 1))) if noise else np.ones((n, 1))
    velocity = (genes.beta * u - genes.gamma * s) * capture
    u, s = u * capture, s * capture
    if noise:
        u, s = rng.poisson(u).astype(float), rng.poisson(s).astype(float)
    obs = pd.DataFrame(
        {"day": float(day), "fate": fate, "latent_time": sampled[:, 0], "true_potential": potential(sampled)}
    )
    return obs, sampled, s.astype(np.float32), u.astype(np.float32), velocity.astype(np.float32)
