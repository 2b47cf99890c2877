"""A simulated bifurcation in which one branch divides faster, with everything known."""

from __future__ import annotations

from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._random import RNG, as_seed

Array = NDArray[np.float64]

#: Progress at which the valley ends and at which it splits, how sharply, and where the branches then are.
_END, _SPLIT, _SLOPE, _BRANCH = 3.2, 1.0, 3.0, 1.5
#: Speed along the valley and pull across it per day, noise per root of a day, spread at the start and in dimensions
#: without signal, step of the simulation in days.
_SPEED, _PULL, _NOISE, _SPREAD, _DT = 1.2, 1.5, 0.25, 0.3, 0.05
#: Births a day before the split, and in the branches A and B; deaths a day.
_BEFORE, _A, _B, _DEATH = 0.6, 0.9, 0.3, 0.1
_N_NOISE = 3


def _split(z: Array) -> Array:
    """How far the valley has split (n,) at states ``z`` (n, 2): 0 before, 1 after."""
    return 1 / (1 + np.exp(-2 * _SLOPE * (z[:, 0] - _SPLIT)))


def _drift(z: Array) -> Array:
    """Deterministic velocity (n, 2) per day."""
    x, y = z.T
    mu = 2 * _split(z) - 1
    return np.stack([_SPEED * np.tanh(2 * (_END - x)), _PULL * (mu * y - y**3 / _BRANCH**2)], axis=1)


def birth_rate(z: Array, *, equal: bool = False) -> Array:
    """Births a day (n,) of a cell at ``z`` (n, 2)."""
    if equal:
        return np.full(len(z), _BEFORE)
    side = np.tanh(2 * z[:, 1])
    branch = (_A + _B) / 2 + (_A - _B) / 2 * side
    return _BEFORE + _split(z) * (branch - _BEFORE)


def branching_growth(
    n_cells: int = 400,
    *,
    days: Sequence[float] = (0, 1, 2, 3, 4, 5),
    equal: bool = False,
    n_founders: int = 4000,
    rng: RNG = 0,
) -> ad.AnnData:
    r"""Simulate cells that develop along a valley which splits in two, and divide three times faster in one branch.

    A state :math:`z = (x, y)`, progress and branch, moves by :math:`dz = b(z)dt + \sigma dW`; a cell divides at a rate
    that depends on its state (0.6 a day before the split, 0.9 in branch A, 0.3 in branch B) and dies at 0.1 a day, a
    linear birth-death process. Its daughters are where it was. Half of the founders go either way, so that all that
    shifts the proportions of the branches is growth. Every day is a fresh sample of the population.

    Parameters
    ----------
    n_cells
        Cells sampled per day, without replacement.
    days
        Sampling times, not negative.
    equal
        The control: every cell divides at 0.6 a day, wherever it is.
    n_founders
        Cells of the population on day 0, at least ``n_cells``.
    rng
        Seed, numpy Generator or SeedSequence.

    Returns
    -------
    AnnData of shape (n_cells * n_days, 0):

    ``obs["day"]``, ``obs["branch"]``, ``obs["true_growth"]``
        Sampling time; the side of the valley, ``"A"`` or ``"B"``; births less deaths a day in the state of the cell.
    ``obsm["X_position"]``
        The state and three dimensions of noise, float32, shape (n, 5).
    ``uns["truth"]`` : dict
        Of the whole population, sampled or not: ``days`` (T,), ``sizes`` (T,), ``share_A`` (T,); and ``fate_A``, the
        share of the founders that would end in A on the last day if none divided or died.

    Raises
    ------
    ValueError
        If there are fewer than two cells or more than founders, or days are not distinct and not negative.

    Examples
    --------
    >>> import wlm
    >>> adata = wlm.datasets.branching_growth(100, n_founders=1000)
    >>> adata.uns["truth"]["share_A"].round(1).tolist()
    [0.5, 0.5, 0.6, 0.7, 0.8, 0.9]
    """
    times = np.unique(np.asarray(days, dtype=np.float64))
    if len(times) != len(days) or times[0] < 0:
        raise ValueError(f"days must be distinct and not negative, found {list(days)}")
    if not 2 <= n_cells <= n_founders:
        raise ValueError(f"n_cells must be between 2 and n_founders, {n_founders}, found {n_cells}")
    generator = np.random.default_rng(as_seed(rng))
    z = generator.normal(0, _SPREAD, (n_founders, 2))
    alone = z.copy()  # the founders, if none divided or died
    sampled, sizes, shares, t = [], [], [], 0.0
    for wanted in times:
        for h in steps_of(wanted - t, _DT):
            z, alone = _moved(z, h, generator), _moved(alone, h, generator)
            z = multiplied(z, birth_rate(z, equal=equal), _DEATH, h, generator)
        t = wanted
        sampled.append(z[generator.choice(len(z), n_cells, replace=False)])
        sizes.append(len(z))
        shares.append(float((z[:, 1] > 0).mean()))
    latent, day = np.concatenate(sampled), np.repeat(times, n_cells)
    noise = generator.normal(0, _SPREAD, (len(latent), _N_NOISE))
    obs = pd.DataFrame(
        {
            "day": day,
            "branch": pd.Categorical(np.where(latent[:, 1] > 0, "A", "B"), categories=["A", "B"]),
            "true_growth": birth_rate(latent, equal=equal) - _DEATH,
        },
        index=[f"d{t:g}_{i % n_cells}" for i, t in enumerate(day)],
    )
    fate = float((alone[:, 1] > 0).mean())
    truth = {"days": times, "sizes": np.array(sizes), "share_A": np.array(shares), "fate_A": fate}
    position = np.concatenate([latent, noise], axis=1).astype(np.float32)
    return ad.AnnData(obs=obs, obsm={"X_position": position}, uns={"truth": truth})


def steps_of(duration: float, longest: float) -> list[float]:
    """Equal steps of at most ``longest`` that add up to ``duration``."""
    n = int(np.ceil(duration / longest - 1e-9))
    return [duration / n] * n if n else []


def _moved(z: Array, h: float, rng: np.random.Generator) -> Array:
    """Cells ``z`` (n, 2) a step ``h`` later (Euler and Maruyama)."""
    return z + h * _drift(z) + _NOISE * np.sqrt(h) * rng.normal(size=z.shape)


def multiplied(z: Array, birth: Array, death: float, h: float, rng: np.random.Generator) -> Array:
    """The cells of ``z`` (n, d) that are there after a step ``h``: each has died, stayed or divided.

    Rates of ``birth`` (n,) and ``death`` are held fixed.
    """
    happens = rng.random(len(z)) < 1 - np.exp(-(birth + death) * h)
    dies = happens & (rng.random(len(z)) < death / (birth + death))
    return np.concatenate([z[~dies], z[happens & ~dies]])
