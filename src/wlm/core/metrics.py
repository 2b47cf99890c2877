"""Distances between point clouds, for scoring: exact, in float64, on the CPU, by POT (imported when called)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wlm.core.populations import Array
from wlm.core.transport import shares


def w1(x: Array, y: Array, a: Array | None = None, b: Array | None = None) -> float:
    """Earth mover's distance: exact optimal transport with Euclidean cost between ``x`` (n, d) and ``y`` (m, d).

    ``a`` (n,) and ``b`` (m,) are weights, by default equal.
    """
    return _exact(x, y, a, b, "euclidean")


def w2(x: Array, y: Array, a: Array | None = None, b: Array | None = None) -> float:
    """2-Wasserstein distance: square root of exact optimal transport with squared Euclidean cost."""
    return float(np.sqrt(_exact(x, y, a, b, "sqeuclidean")))


def _exact(x: Array, y: Array, a: Array | None, b: Array | None, metric: str) -> float:
    import ot

    cost = ot.dist(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64), metric=metric)
    value, log = ot.emd2(shares(a, len(x)), shares(b, len(y)), cost, numItermax=100_000_000, log=True)
    if log["warning"] is not None:
        raise RuntimeError(f"optimal transport did not converge: {log['warning']}")
    return float(value)


def mmd(x: Array, y: Array, a: Array | None = None, b: Array | None = None) -> float:
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
    signed = np.concatenate([shares(a, n), -shares(b, m)])
    return float(signed @ kernel @ signed)


def energy(x: Array, y: Array, a: Array | None = None, b: Array | None = None) -> float:
    r"""Energy distance :math:`2 E|x - y| - E|x - x'| - E|y - y'|`, biased (pairs of a cell with itself count)."""
    from scipy.spatial.distance import cdist

    both = np.concatenate([x, y]).astype(np.float64)
    signed = np.concatenate([shares(a, len(x)), -shares(b, len(y))])
    return float(-signed @ cdist(both, both) @ signed)


#: Metrics by name.
METRICS: dict[str, Callable[..., float]] = {"w1": w1, "w2": w2, "mmd": mmd, "energy": energy}
