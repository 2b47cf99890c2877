"""Couplings of two clouds of cells: exact, one to one, and drawn partners. POT and scipy are imported when called."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wlm.core.populations import Array

#: Cells a side of a part in which large populations are coupled, and where there would be many such parts.
PART, SMALL_PART = 4000, 1000


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


def _parts(n: int, parts: int, rng: np.random.Generator) -> list[NDArray[np.intp]]:
    """Random parts of ``range(n)``, each with at least one member."""
    if n >= parts:
        return np.array_split(rng.permutation(n), parts)
    return [rng.integers(n, size=1) for _ in range(parts)]
