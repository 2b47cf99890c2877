"""A gene circuit that oscillates, seen by its transcripts alone."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd

from wlm._random import RNG, as_seed

#: Transcription under full repression and without any, Hill exponent, and how fast proteins follow their transcripts.
LEAK, RATE, HILL, FOLLOW = 0.1, 12.0, 3, 1.0
#: Step and noise of the simulation, and noise of the measurement (of the logarithm).
STEP, NOISE, MEASURED = 0.01, 0.05, 0.05


def repressilator(n_cells: int = 300, *, n_times: int = 11, duration: float = 20.0, rng: RNG = 0) -> ad.AnnData:
    r"""Simulate three genes that repress each other in a ring (Elowitz and Leibler 2000); proteins are not measured.

    Transcripts m and proteins p obey :math:`dm_i = (\alpha/(1 + p_{i-1}^n) + \alpha_0 - m_i)dt` and
    :math:`dp_i = (m_i - p_i)dt` with a little noise, so that transcripts alone do not determine their own velocity.

    Parameters
    ----------
    n_cells
        Cells per time; each time has cells of its own.
    n_times, duration
        Number of times, the first included, and the time from first to last, in lifetimes of a transcript.
    rng
        Seed, numpy Generator or SeedSequence.

    Returns
    -------
    AnnData of shape (n_cells * n_times, 3):

    ``X``
        float32, log(1 + transcripts), with measurement noise.
    ``obsm["X_genes"]``
        The same, to fit in (``use_rep``).
    ``obsm["true_velocity"]``
        float32, velocity of log(1 + transcripts) without noise.
    ``obs["time"]``
        0, 1, 2, ...: numbers of the times, ``duration / (n_times - 1)`` lifetimes apart.

    Examples
    --------
    >>> import wlm
    >>> wlm.datasets.repressilator(20, n_times=3).shape
    (60, 3)
    """
    if n_cells < 2 or n_times < 2:
        raise ValueError(f"at least 2 cells and 2 times are needed, found {n_cells} and {n_times}")
    if not duration > 0:
        raise ValueError(f"duration must be positive, found {duration}")
    seed, interval = as_seed(rng), duration / (n_times - 1)
    n_steps = max(1, round(interval / STEP))
    h = interval / n_steps
    x, v = [], []
    for k in range(n_times):
        stream = np.random.default_rng([seed, k])
        m = np.abs(stream.normal([3.0, 0.5, 0.5], [0.4, 0.2, 0.2], (n_cells, 3)))
        p = np.abs(stream.normal([1.5, 2.0, 0.5], [0.3, 0.3, 0.2], (n_cells, 3)))
        for _ in range(k * n_steps):
            kicks = np.sqrt(h) * NOISE * stream.normal(size=(2, n_cells, 3))
            m, p = np.abs(m + h * _production(m, p) + kicks[0]), np.abs(p + h * FOLLOW * (m - p) + kicks[1])
        x.append(np.log1p(m) + MEASURED * stream.normal(size=m.shape))
        v.append(_production(m, p) / (1 + m) * interval)
    positions = np.concatenate(x).astype(np.float32)
    obs = pd.DataFrame({"time": np.repeat(np.arange(n_times, dtype=float), n_cells)})
    obs.index = pd.Index([f"cell{i}" for i in range(len(obs))])
    var = pd.DataFrame(index=["lacI", "tetR", "cI"])
    obsm = {"X_genes": positions.copy(), "true_velocity": np.concatenate(v).astype(np.float32)}
    return ad.AnnData(positions, obs=obs, var=var, obsm=obsm)


def _production(m: np.ndarray, p: np.ndarray) -> np.ndarray:
    """dm/dt (n, 3), each gene repressed by the protein of the one before."""
    return RATE / (1 + np.roll(p, 1, axis=1) ** HILL) + LEAK - m
