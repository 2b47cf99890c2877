"""A simulated switch of two genes whose cells divide as one of them says, with everything known."""

from __future__ import annotations

from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._random import RNG, as_seed
from wlm.datasets._growth import multiplied, steps_of

Array = NDArray[np.float64]

#: How strongly genes 1, 2 and 3 activate themselves and repress the others, basal activation, decay per unit of time.
_SELF, _OTHER, _BASAL, _DECAY = (0.5, 1.0, 1.0), (0.5, 1.0, 10.0), 1.0, 0.4
#: Noise per root of a unit of time, levels at which founders start (one of the two), their spread, step.
_NOISE, _STARTS, _SPREAD, _DT = 0.05, ((2.0, 0.2, 0.0), (0.0, 0.0, 2.0)), 0.1, 0.2
#: Net rate per unit of time at a high level of gene 2, and deaths.
_RATE, _DEATH = 0.05, 0.01


def _drift(x: Array) -> Array:
    """Deterministic velocity (n, 3) of the levels ``x`` (n, 3)."""
    own, other = np.array(_SELF) * x**2, np.array(_OTHER) * x**2
    made = np.stack(
        [
            (own[:, 0] + _BASAL) / (1 + own[:, 0] + other[:, 1] + other[:, 2] + _BASAL),
            (own[:, 1] + _BASAL) / (1 + own[:, 1] + other[:, 0] + other[:, 2] + _BASAL),
            own[:, 2] / (1 + own[:, 2]),
        ],
        axis=1,
    )
    return made - _DECAY * x


def net_rate(x: Array) -> Array:
    """Births less deaths per unit of time (n,) of a cell with levels ``x`` (n, 3)."""
    return _RATE * x[:, 1] ** 2 / (1 + x[:, 1] ** 2)


def gene_toggle(
    n_cells: int = 400,
    *,
    times: Sequence[float] = (0, 8, 16, 24, 32),
    n_founders: int = 4000,
    rng: RNG = 0,
) -> ad.AnnData:
    r"""Simulate two genes that repress each other, in cells that divide the faster the more they have of the second.

    Levels of three genes with self-activation, mutual repression and noise (Sha et al. 2024; Zhang et al. 2025):

    .. math::

        \dot x_1 = \frac{a_1x_1^2 + b}{1 + a_1x_1^2 + c_2x_2^2 + c_3x_3^2 + b} - \delta x_1, \quad
        \dot x_2 = \frac{a_2x_2^2 + b}{1 + c_1x_1^2 + a_2x_2^2 + c_3x_3^2 + b} - \delta x_2, \quad
        \dot x_3 = \frac{a_3x_3^2}{1 + a_3x_3^2} - \delta x_3.

    Half of the founders have gene 1 and switch to gene 2; the others have gene 3, which represses both, and rest. A
    cell dies at 0.01 and divides so that its net rate is :math:`0.05\,x_2^2/(1 + x_2^2)` per unit of time, a linear
    birth-death process; its daughters have its levels. Every time is a fresh sample of the population.

    Parameters
    ----------
    n_cells
        Cells sampled per time, without replacement.
    times
        Sampling times, not negative.
    n_founders
        Cells of the population at time 0, at least ``n_cells``.
    rng
        Seed, numpy Generator or SeedSequence.

    Returns
    -------
    AnnData of shape (n_cells * n_times, 3), whose ``X`` (float32) holds the levels of the genes:

    ``obs["time"]``, ``obs["state"]``, ``obs["true_growth"]``
        Sampling time; the gene with the highest level, ``"gene 1"``, ``"gene 2"`` or ``"gene 3"``; births less deaths
        per unit of time at the levels of the cell.
    ``obsm["X_position"]``
        The levels, float32, shape (n, 3).
    ``uns["truth"]`` : dict
        Of the whole population: ``times`` (T,) and ``sizes`` (T,).

    Raises
    ------
    ValueError
        If there are fewer than two cells or more than founders, or times are not distinct and not negative.

    Examples
    --------
    >>> import wlm
    >>> adata = wlm.datasets.gene_toggle(100, n_founders=1000)
    >>> adata.obs.groupby("time")["true_growth"].mean().is_monotonic_increasing
    True
    """
    wanted = np.unique(np.asarray(times, dtype=np.float64))
    if len(wanted) != len(times) or wanted[0] < 0:
        raise ValueError(f"times must be distinct and not negative, found {list(times)}")
    if not 2 <= n_cells <= n_founders:
        raise ValueError(f"n_cells must be between 2 and n_founders, {n_founders}, found {n_cells}")
    generator = np.random.default_rng(as_seed(rng))
    starts = np.array(_STARTS)[np.arange(n_founders) % 2]
    x = np.maximum(starts + generator.normal(0, _SPREAD, (n_founders, 3)), 0)
    sampled, sizes, t = [], [], 0.0
    for until in wanted:
        for h in steps_of(until - t, _DT):
            moved = x + h * _drift(x) + _NOISE * np.sqrt(h) * generator.normal(size=x.shape)
            x = np.maximum(moved, 0)
            x = multiplied(x, net_rate(x) + _DEATH, _DEATH, h, generator)
        t = until
        sampled.append(x[generator.choice(len(x), n_cells, replace=False)])
        sizes.append(len(x))
    levels, time = np.concatenate(sampled), np.repeat(wanted, n_cells)
    genes = [f"gene {k}" for k in (1, 2, 3)]
    obs = pd.DataFrame(
        {
            "time": time,
            "state": pd.Categorical.from_codes(levels.argmax(1), categories=genes),
            "true_growth": net_rate(levels),
        },
        index=[f"t{t:g}_{i % n_cells}" for i, t in enumerate(time)],
    )
    truth = {"times": wanted, "sizes": np.array(sizes)}
    position = levels.astype(np.float32)
    return ad.AnnData(
        position.copy(), obs=obs, var=pd.DataFrame(index=genes), obsm={"X_position": position}, uns={"truth": truth}
    )
