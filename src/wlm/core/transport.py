"""Couplings of two clouds of cells: exact, one to one, drawn partners, and sparse ones with noise.

POT and scipy are imported when called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from wlm.core.populations import Array

if TYPE_CHECKING:
    from scipy.sparse import csr_array

#: Cells a side of a part in which large populations are coupled, and where there would be many such parts.
PART, SMALL_PART = 4000, 1000
#: Cells a side by which the residual of a coupling is measured; iterations of a sparse coupling at most, and the error
#: of the marginals at which these end.
N_RESIDUAL, N_ITER, TOLERANCE = 1000, 300, 1e-3
#: Cells a side between which nearest ones are sought at once; of more, in random parts of ``PART`` cells.
EXACT = 20_000
#: Of the semi-relaxed coupling: blur, and the price of rows whose sums are not the weights of their cells, in median
#: squared distances of the first cloud.
RELAXED_BLUR, RELAXED_PRICE = 0.02, 0.1


def shares(w: Array | None, n: int) -> NDArray[np.float64]:
    """Weights (n,) that sum to one; equal ones by default."""
    w = np.ones(n) if w is None else np.asarray(w, dtype=np.float64)
    return w / w.sum()


def coupling(
    x: Array, y: Array, a: Array | None = None, b: Array | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Optimal coupling of ``x`` (n, d) and ``y`` (m, d) for squared distance: row and column indices, masses.

    ``a`` (n,) and ``b`` (m,) are weights, by default equal.
    """
    import ot

    cost = ot.dist(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64), metric="sqeuclidean")
    plan = ot.emd(shares(a, len(x)), shares(b, len(y)), cost, numItermax=100_000_000)
    i, j = np.nonzero(plan)
    return i, j, plan[i, j]


def assignment(x: Array, y: Array, metric: str = "sqeuclidean") -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The optimal one-to-one coupling of ``x`` (n, d) and ``y`` (n, d): the partner (n,) of each, and its cost (n,)."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    cost = cdist(x, y, metric)
    # Clouds about the same centre have the same optimum for squared distance, which is found in half the time.
    centred = cdist(x - x.mean(0), y - y.mean(0), metric) if metric == "sqeuclidean" else cost
    rows, columns = linear_sum_assignment(centred)
    return columns, cost[rows, columns]


def partners(
    x: Array,
    y: Array,
    rng: np.random.Generator,
    a: Array | None = None,
    b: Array | None = None,
    size: int | None = None,
) -> Array:
    """A cell of ``y`` for each of ``x`` (n, d), drawn from the optimal coupling for the weights ``a`` and ``b``."""
    return y[partner_index(x, y, rng, a, b, size)].astype(x.dtype)


def partner_index(
    x: Array,
    y: Array,
    rng: np.random.Generator,
    a: Array | None = None,
    b: Array | None = None,
    size: int | None = None,
) -> NDArray[np.intp]:
    """A row of ``y`` (m, d) for each of ``x`` (n, d), drawn from the optimal coupling for the weights ``a``, ``b``.

    Large populations are coupled in random parts of at most ``size`` cells: ``PART``, or ``SMALL_PART`` where there
    would be many, since the time of a part grows faster than with the square of its size.
    """
    largest = max(len(x), len(y))
    if size is None:
        size = PART if largest <= 5 * PART else SMALL_PART
    n_parts = int(np.ceil(largest / size))
    out = np.empty(len(x), dtype=np.intp)
    for i, j in zip(np.array_split(rng.permutation(len(x)), n_parts), _parts(len(y), n_parts, rng), strict=True):
        rows, columns, mass = coupling(x[i], y[j], None if a is None else a[i], None if b is None else b[j])
        # One draw per row, in proportion to mass: the first of exponential clocks that run at that rate.
        order = np.lexsort((rng.exponential(size=len(mass)) / mass, rows))
        first = order[np.insert(np.diff(rows[order]) > 0, 0, True)]
        out[i[rows[first]]] = j[columns[first]]
    return out


def interpolate(
    x: Array, y: Array, share: float, *, a: Array | None = None, b: Array | None = None, seed: int = 0
) -> Array:
    """Linear interpolation of optimal transport: cells ``x`` (n, d) moved by ``share`` towards partners in ``y``.

    ``a`` (n,) and ``b`` (m,) are weights, by default equal.
    """
    return x + share * (partners(x, y, np.random.default_rng(seed), a, b) - x)


def semi_relaxed(
    x: Array, y: Array, *, a: Array | None = None, b: Array | None = None, price: float = RELAXED_PRICE
) -> NDArray[np.float64]:
    """The coupling (n, m) of ``x`` (n, d) and ``y`` (m, d) that lets cells of ``x`` have more or fewer descendants.

    Columns sum to the weights ``b`` (m,), by default equal; rows are held to the weights ``a`` (n,) at a ``price``
    only, by the Kullback-Leibler divergence, in median squared distances within ``x``. A row sum over its weight is the
    number of descendants of a cell, 1 on average, without any model of how cells move (unbalanced transport: Chizat et
    al. 2018; Schiebinger et al. 2019).
    """
    from scipy.spatial.distance import cdist
    from scipy.special import logsumexp

    within = np.median(cdist(x, x, "sqeuclidean"))
    cost = cdist(x, y, "sqeuclidean") / (RELAXED_BLUR * (within if within > 0 else 1.0))
    log_a, log_b = np.log(shares(a, len(x))), np.log(shares(b, len(y)))
    f, g = np.zeros(len(x)), np.zeros(len(y))
    give = price / (price + RELAXED_BLUR)  # below one, so that the iterations contract
    for _ in range(N_ITER):
        g = -logsumexp(log_a[:, None] + f[:, None] - cost, axis=0)
        old, f = f, -give * logsumexp(log_b + g - cost, axis=1)
        if np.abs(f - old).max() < TOLERANCE:
            break
    g = -logsumexp(log_a[:, None] + f[:, None] - cost, axis=0)
    return np.exp(log_a[:, None] + log_b + f[:, None] + g - cost)


def relaxed_midpoint(
    x: Array, y: Array, share: float, *, a: Array | None = None, b: Array | None = None, seed: int = 0
) -> tuple[Array, NDArray[np.float64]]:
    """Cells ``x`` (n, d) moved by ``share`` towards partners in ``y`` (m, d) under the semi-relaxed coupling.

    With their weights (n,) by then: those of the start, times descendants to the power of ``share``.
    """
    plan, start = semi_relaxed(x, y, a=a, b=b), shares(a, len(x))
    rng, sums = np.random.default_rng(seed), plan.sum(1)
    steps = np.cumsum(plan, axis=1)
    drawn = rng.random(len(x)) * sums
    partner = np.minimum((steps < drawn[:, None]).sum(1), len(y) - 1)
    w = start * np.maximum(sums / start, 1e-12) ** share
    return (x + share * (y[partner] - x)).astype(x.dtype), w / w.mean()


def residual(x: Array, y: Array, *, a: Array | None = None, b: Array | None = None, seed: int = 0) -> float:
    r"""How far predicted cells are from observed ones: the square root of :math:`W_2^2 / d`.

    What the rollout of cells ``x`` (n, d) leaves of the way to ``y`` (m, d), in each dimension, under the optimal
    coupling of at most ``N_RESIDUAL`` a side; ``a`` (n,) and ``b`` (m,) are weights.
    """
    rng = np.random.default_rng(seed)
    i, j = (rng.permutation(len(z))[:N_RESIDUAL] for z in (x, y))
    a, b = (w if w is None else w[k] for w, k in ((a, i), (b, j)))
    rows, columns, mass = coupling(x[i], y[j], a, b)
    square = ((x[i][rows] - y[j][columns]) ** 2).sum(1, dtype=np.float64)  # (nnz,)
    return float(np.sqrt(mass @ square / x.shape[1]))


def nearest(x: Array, y: Array, k: int) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Distances (n, k) from each cell of ``x`` (n, d) to its ``k`` nearest of ``y`` (m, d), and their rows (n, k).

    Where both have more than ``EXACT`` cells, each cell finds its nearest among a random part of ``y`` that stands for
    the whole, as in couplings: time then grows with the number of cells, and not with its square. Parts are the same in
    both directions, and from ``x`` to itself a cell is in its own.
    """
    x, y = np.asarray(x, dtype=np.float32), np.asarray(y, dtype=np.float32)
    fewer = min(len(x), len(y))
    if fewer <= EXACT:
        return _nearest(x, y, k)
    n_parts = int(np.ceil(fewer / PART))
    k = min(k, len(y) // n_parts)
    distances, rows = np.empty((len(x), k), dtype=np.float32), np.empty((len(x), k), dtype=np.intp)
    orders = (np.random.default_rng(0).permutation(len(z)) for z in (x, y))
    for i, j in zip(*(np.array_split(order, n_parts) for order in orders), strict=True):
        distances[i], found = _nearest(x[i], y[j], k)
        rows[i] = j[found]
    return distances, rows


def _nearest(x: NDArray[np.float32], y: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """As :func:`nearest`, all at once."""
    to, chunks = torch.as_tensor(y), torch.as_tensor(x).split(max(1, 2**25 // len(y)))  # 128 MB at a time
    found = [torch.cdist(part, to).topk(min(k, len(y)), largest=False) for part in chunks]
    return torch.cat([f.values for f in found]).numpy(), torch.cat([f.indices for f in found]).numpy()


def among_neighbours(x: Array, y: Array, k: int, *, b: Array | None = None) -> csr_array:
    """Each cell of ``x`` (n, d) as the mean of its ``k`` nearest of ``y`` (m, d): sparse (n, m), rows sum to one.

    ``b`` (m,) are weights of the latter, by default equal.
    """
    from scipy.sparse import csr_array

    index = nearest(x, y, k)[1]
    values = np.ones(index.shape) if b is None else np.asarray(b, dtype=np.float64)[index]
    values /= values.sum(1, keepdims=True)
    ends = np.arange(0, index.size + 1, index.shape[1])
    return csr_array((values.ravel(), index.ravel(), ends), shape=(len(x), len(y)))


def neighbourhoods(x: Array, k: int, *, w: Array | None = None) -> csr_array:
    """Each cell of ``x`` (n, d) as a mean of cells around it: sparse (n, n), rows sum to one, and the whole is kept.

    Pairs of which one is among the ``k`` nearest of the other (itself included) have weights so that every cell counts
    as much in the means as it does in the population, where ``w`` (n,) are the weights, by default equal.
    """
    from scipy.sparse import coo_array, csr_array

    n, index = len(x), nearest(x, x, k)[1]
    i = np.concatenate([np.repeat(np.arange(n), index.shape[1]), np.arange(n)])
    j = np.concatenate([index.ravel(), np.arange(n)])
    pairs = np.unique(np.concatenate([i * n + j, j * n + i]))
    graph = csr_array(coo_array((np.ones(len(pairs)), (pairs // n, pairs % n)), shape=(n, n)))
    w = shares(w, n)
    scale = np.sqrt(w)
    for _ in range(N_ITER):  # Sinkhorn's iterations of a symmetric matrix
        sums = scale * (graph @ scale)
        if np.abs(sums - w).sum() < TOLERANCE:
            break
        scale = scale * np.sqrt(w / sums)
    graph = graph.tocoo()
    out = csr_array((scale[graph.row] * scale[graph.col], (graph.row, graph.col)), shape=(n, n))
    sums = np.asarray(out.sum(axis=1))
    out.data /= np.repeat(sums, np.diff(out.indptr))
    return out


def noisy_coupling(
    x: Array, y: Array, sigma: float, k: int, *, a: Array | None = None, b: Array | None = None
) -> csr_array:
    r"""Where predicted cells ``x`` (n, d) are among observed ones ``y`` (m, d), if predictions have noise ``sigma``.

    The Schrödinger bridge from one population to the other whose reference is Gaussian: the plan with the marginals
    ``a`` (n,) and ``b`` (m,), by default equal, closest to :math:`\exp(-|x_i - y_j|^2 / 2\sigma^2)`, which is the
    entropic coupling with :math:`\epsilon = 2\sigma^2` (Léonard 2014). It is sought among pairs of which one is one of
    the ``k`` nearest of the other, by Sinkhorn's iterations.

    Returns
    -------
    Probabilities (n, m), sparse: each row is one predicted cell and sums to one. Columns sum to the marginal as far as
    the pairs allow.
    """
    from scipy.sparse import coo_array, csr_array

    n, m = len(x), len(y)
    ahead, back = nearest(x, y, k), nearest(y, x, k)
    i = np.concatenate([np.repeat(np.arange(n), ahead[1].shape[1]), back[1].ravel()])
    j = np.concatenate([ahead[1].ravel(), np.repeat(np.arange(m), back[1].shape[1])])
    square = np.concatenate([ahead[0].ravel(), back[0].ravel()]).astype(np.float64) ** 2
    pairs, first = np.unique(i * m + j, return_index=True)
    i, j, log_k = pairs // m, pairs % m, -square[first] / (2 * max(sigma, 1e-12) ** 2)
    rows, columns = _Groups(i, n), _Groups(j, m)
    log_a, log_b = np.log(shares(a, n)), np.log(shares(b, m))
    f, g = np.zeros(n), np.zeros(m)
    for _ in range(N_ITER):
        g = log_b - columns.logsumexp(log_k + f[i])
        out = rows.logsumexp(log_k + g[j])
        if np.abs(np.exp(f + out) - np.exp(log_a)).sum() < TOLERANCE:
            break
        f = log_a - out
    log_p = log_k + g[j]
    p = np.exp(log_p - rows.logsumexp(log_p)[i])
    return csr_array(coo_array((p, (i, j)), shape=(n, m)))


class _Groups:
    """Entries that belong to ``n`` groups, ``index`` (nnz,), each of which has one at least."""

    def __init__(self, index: NDArray[np.intp], n: int):
        self.order = np.argsort(index, kind="stable")
        self.starts = np.searchsorted(index[self.order], np.arange(n))
        self.index = index

    def logsumexp(self, values: Array) -> Array:
        """Of the values (nnz,) of each group: (n,)."""
        ordered = values[self.order]
        largest = np.maximum.reduceat(ordered, self.starts)
        return largest + np.log(np.add.reduceat(np.exp(ordered - largest[self.index[self.order]]), self.starts))


def _parts(n: int, parts: int, rng: np.random.Generator) -> list[NDArray[np.intp]]:
    """Random parts of ``range(n)``, each with at least one member."""
    if n >= parts:
        return np.array_split(rng.permutation(n), parts)
    return [rng.integers(n, size=1) for _ in range(parts)]
