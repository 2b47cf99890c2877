"""Distances between point clouds, for scoring: exact, in float64, on the CPU.

They need POT, which is imported when they are called: training does without it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wlm.core.populations import Array


def w1(x: Array, y: Array) -> float:
    """Earth mover's distance: exact optimal transport with Euclidean cost between ``x`` (n, d) and ``y`` (m, d)."""
    return _exact(x, y, "euclidean")


def w2(x: Array, y: Array) -> float:
    """2-Wasserstein distance: square root of exact optimal transport with squared Euclidean cost."""
    return float(np.sqrt(_exact(x, y, "sqeuclidean")))


def _exact(x: Array, y: Array, metric: str) -> float:
    import ot

    cost = ot.dist(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64), metric=metric)
    a, b = np.full(len(x), 1 / len(x)), np.full(len(y), 1 / len(y))
    value, log = ot.emd2(a, b, cost, numItermax=100_000_000, log=True)
    if log["warning"] is not None:
        raise RuntimeError(f"optimal transport did not converge: {log['warning']}")
    return float(value)


def mmd(x: Array, y: Array) -> float:
    r"""Squared maximum mean discrepancy, biased, with five Gaussian kernels.

    Bandwidths are :math:`\bar h\, 2^{-2..2}`, where :math:`\bar h` is the mean squared distance between
    different points of both clouds together (the measure of the iJKOnet paper's 100-dimensional table).
    """
    from scipy.spatial.distance import cdist

    n, m = len(x), len(y)
    both = np.concatenate([x, y]).astype(np.float64)
    square = cdist(both, both, "sqeuclidean")
    bandwidth = square.sum() / ((n + m) * (n + m - 1))
    if bandwidth == 0:
        return 0.0
    kernel = sum(np.exp(-square / (bandwidth * 2.0**k)) for k in range(-2, 3))
    return float(kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean())


#: Metrics by name.
METRICS: dict[str, Callable[[Array, Array], float]] = {"w1": w1, "w2": w2, "mmd": mmd}


def coupling(x: Array, y: Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Optimal coupling of ``x`` (n, d) and ``y`` (m, d) for squared distance: row and column indices, masses."""
    import ot

    cost = ot.dist(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64), metric="sqeuclidean")
    plan = ot.emd(np.full(len(x), 1 / len(x)), np.full(len(y), 1 / len(y)), cost, numItermax=100_000_000)
    i, j = np.nonzero(plan)
    return i, j, plan[i, j]
