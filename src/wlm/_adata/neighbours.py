"""Labels and numbers of observed cells for predicted ones, by their neighbours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wlm.core.transport import EXACT
from wlm.core.transport import nearest as nearest_cells

#: Neighbours by which predicted cells get their labels.
N_NEIGHBOURS = 15


def from_neighbours(x: Any, values: NDArray[Any], y: Any) -> NDArray[Any]:
    """Values (m,) for cells at ``y`` (m, d) from those (n,) at ``x`` (n, d): labels by the weight of the nearest 15.

    Closer neighbours weigh more (by one over the distance). Numbers are averaged. Many cells find their neighbours in
    random parts of the others, see :func:`wlm.core.transport.nearest`.
    """
    from scipy.sparse import csr_matrix
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    kind = KNeighborsRegressor if np.asarray(values).dtype.kind in "biuf" else KNeighborsClassifier
    k = min(N_NEIGHBOURS, len(x))
    if len(x) <= EXACT:  # to the last digit: a cell at the place of another has its value
        return kind(k, weights="distance").fit(x, values).predict(y)
    distances, rows = nearest_cells(y, x, k)
    graph = csr_matrix((distances.ravel(), rows.ravel(), np.arange(len(y) + 1) * rows.shape[1]), shape=(len(y), len(x)))
    # Of distances among the cells at ``x``, which nobody asks for, those to themselves are enough.
    none = csr_matrix((np.zeros(len(x)), np.arange(len(x)), np.arange(len(x) + 1)))
    return kind(k, weights="distance", metric="precomputed").fit(none, values).predict(graph)


def projection(x: NDArray[Any], shown: NDArray[Any]) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    """From positions (..., d) to the mean of ``shown`` (n, k) over the 15 nearest of ``x`` (n, d), by closeness."""
    from scipy.spatial import cKDTree

    tree = cKDTree(x)

    def project(y: NDArray[Any]) -> NDArray[np.float32]:
        flat = y.reshape(-1, y.shape[-1])
        distance, index = tree.query(flat, k=min(N_NEIGHBOURS, tree.n), workers=-1)
        distance, index = distance.reshape(len(flat), -1), index.reshape(len(flat), -1)
        weight = np.exp(-0.5 * np.square(distance / np.maximum(distance[:, -1:], 1e-12)) * 4)
        near = (weight[..., None] * shown[index]).sum(1) / weight.sum(1, keepdims=True)
        return near.reshape(*y.shape[:-1], shown.shape[1]).astype(np.float32)

    return project


def nearest(x: NDArray[Any], shown: NDArray[Any]) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    """From positions (..., d) to the place in ``shown`` (n, k) of the nearest of ``x`` (n, d)."""
    from scipy.spatial import cKDTree

    tree = cKDTree(x)

    def project(y: NDArray[Any]) -> NDArray[np.float32]:
        index = tree.query(y.reshape(-1, y.shape[-1]), workers=-1)[1]
        return shown[index].reshape(*y.shape[:-1], shown.shape[1]).astype(np.float32)

    return project


def onto(x: NDArray[Any], shown: NDArray[Any]) -> tuple[Callable[[NDArray[Any]], NDArray[np.float32]], bool]:
    """From positions (..., d) to places in an embedding ``shown`` (n, k) of cells at ``x`` (n, d), and if it is linear.

    A linear map of the positions is carried out. In any other embedding, such as UMAP, a position gets the place of the
    nearest cell: between the islands of a UMAP there is nothing, and an average of neighbours on two of them would put
    a cell where none can be.
    """
    mapped = linear_map(x, shown)
    return (nearest(x, shown), False) if mapped is None else (mapped, True)


def linear_map(x: NDArray[Any], shown: NDArray[Any]) -> Callable[[NDArray[Any]], NDArray[np.float32]] | None:
    """The linear map with a constant that leads ``x`` (n, d) to ``shown`` (n, k), or None if there is none.

    It holds if what it misses is below a thousandth of the spread, of more cells than it has coefficients to fit.
    """
    if len(x) < 2 * (x.shape[1] + 1):
        return None
    middle = x.mean(axis=0, dtype=np.float64)
    design = np.column_stack([x - middle, np.ones(len(x))])
    found = np.linalg.lstsq(design, shown.astype(np.float64), rcond=None)[0]
    if np.abs(design @ found - shown).max() > 1e-3 * max(float(shown.std()), 1e-12):
        return None

    def project(y: NDArray[Any]) -> NDArray[np.float32]:
        return ((y - middle) @ found[:-1] + found[-1]).astype(np.float32)

    return project
