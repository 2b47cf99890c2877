r"""Moves of cells that give genes another level: the smallest ones, and others of the same size to compare with.

Genes are linear functions of positions, :math:`g(x) = Wx + c` (decoding by PCA). Many moves :math:`\Delta` give them
other values; the smallest in standard deviations of the cells, :math:`\Delta^\top\Sigma^{-1}\Delta`, is the change of
position that goes with the change of the genes among these cells, :math:`\Sigma W^\top(W\Sigma W^\top)^{-1}\delta`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wlm.core.populations import Array
from wlm.core.uncertainty import OUTSIDE, outside

Floats = NDArray[np.float64]

#: Variance that is added in every direction, as a share of the mean one: there are directions without any.
RIDGE = 1e-3
#: Largest condition number of the covariance of genes that can be set one by one.
SINGULAR = 1e8
#: Shares of a move at which is looked whether cells stay inside the data.
SHARES = np.linspace(0, 1, 11)


def covariance(x: Array, w: Array | None = None) -> Floats:
    """Covariance (d, d) of cells ``x`` (n, d), weights ``w`` (n,), made positive definite."""
    found = np.atleast_2d(np.cov(np.asarray(x, dtype=np.float64).T, aweights=w))
    return found + RIDGE * np.trace(found) / len(found) * np.eye(len(found))


def least_move(wanted: Array, weights: Array, sigma: Floats) -> Floats:
    """The smallest moves (n, d) that change genes by ``wanted`` (n, k); ``weights`` (k, d) are those of the genes.

    Raises
    ------
    ValueError
        If the genes go together, so that no move gives each its own level.
    """
    w = np.asarray(weights, dtype=np.float64)
    among = w @ sigma @ w.T  # (k, k)
    scale = np.sqrt(np.maximum(np.diag(among), np.finfo(np.float64).tiny))
    if np.linalg.cond(among / np.outer(scale, scale)) > SINGULAR:
        raise ValueError("these genes follow the same components, so that they cannot be set one by one; name one")
    return np.asarray(wanted, dtype=np.float64) @ np.linalg.solve(among, w @ sigma)


def size(moves: Floats, sigma: Floats) -> Floats:
    """Length (n,) of moves (n, d) in standard deviations of the cells."""
    return np.sqrt(np.maximum((moves * np.linalg.solve(sigma, moves.T).T).sum(axis=1), 0.0))


def random_move(sizes: Floats, weights: Array, sigma: Floats, rng: np.random.Generator) -> Floats:
    """Moves (n, d) of the given ``sizes`` (n,) that turn genes with ``weights`` (k, d) up or down at random."""
    spread = np.sqrt(np.einsum("kd,de,ke->k", weights, sigma, weights))
    move = least_move((rng.choice([-1.0, 1.0], len(spread)) * spread)[None], weights, sigma)
    return sizes[:, None] * move / size(move, sigma)


def reach(x: Array, moves: Floats, observed: Array) -> tuple[float, float]:
    """Share of cells that are inside the data after the whole move, and share of the move that keeps them there.

    Cells ``x`` (n, d) are inside where they are as near to ``observed`` ones (m, d) as these to each other; some are
    not even without a move. The move keeps them there up to where the share outside grows by five times its usual 1 %.
    """
    out = np.array([outside(x + s * moves, observed).mean() for s in SHARES])
    within = out <= out[0] + 5 * OUTSIDE
    first = len(out) if within.all() else int(np.argmin(within))
    return float(1 - out[-1]), float(SHARES[first - 1])
