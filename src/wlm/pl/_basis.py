"""What the plots share: coordinates to draw in, axes to draw on, and what to return."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from wlm._adata import dense
from wlm._stored import StoredFit

#: Okabe and Ito's colours, distinguishable with every kind of colour vision.
OBSERVED, PREDICTED, PATH = "#9a9a9a", "#0072B2", "#D55E00"

#: From coordinates of the fitted representation (n, d) to the two that are drawn (n, 2).
Projection = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def embedding(
    adata: ad.AnnData, fit: StoredFit, basis: str | None, components: tuple[int, int]
) -> tuple[NDArray[np.float32], Projection, tuple[str, str]]:
    """Coordinates of the cells, the projection of predicted ones into them, and axis labels.

    In the fitted representation two dimensions are drawn. In any other embedding a predicted cell is
    put at the mean of its 15 nearest observed cells, weighted by closeness.
    """
    key = fit.use_rep if basis is None else basis if basis in adata.obsm else f"X_{basis}"
    if key not in adata.obsm:
        raise KeyError(f"basis {basis!r} is neither in obsm as it is nor as {key!r}; obsm has {list(adata.obsm)}")
    i, j = components
    shown = dense(adata.obsm[key])
    if max(components) >= shown.shape[1] or min(components) < 0:
        raise ValueError(f"components {components} do not exist in obsm[{key!r}] with {shown.shape[1]} dimensions")
    shown = shown[:, [i, j]]
    name = key.removeprefix("X_").replace("pca", "PC").replace("umap", "UMAP").replace("tsne", "tSNE")
    labels = (f"{name}{i + 1}", f"{name}{j + 1}")
    if key == fit.use_rep:
        if max(components) >= fit.n_dims:
            raise ValueError(f"components {components} are not among the {fit.n_dims} dimensions that were fitted")
        return shown, lambda x: x[..., [i, j]], labels

    from scipy.spatial import cKDTree

    tree = cKDTree(dense(adata.obsm[fit.use_rep])[:, : fit.n_dims])

    def project(x: NDArray[np.float32]) -> NDArray[np.float32]:
        flat = x.reshape(-1, x.shape[-1])
        distance, index = tree.query(flat, k=min(15, tree.n), workers=-1)
        distance, index = distance.reshape(len(flat), -1), index.reshape(len(flat), -1)
        weight = np.exp(-0.5 * np.square(distance / np.maximum(distance[:, -1:], 1e-12)) * 4)
        near = (weight[..., None] * shown[index]).sum(1) / weight.sum(1, keepdims=True)
        return near.reshape(*x.shape[:-1], 2).astype(np.float32)

    return shown, project, labels


def finish(figure: Figure, axes: Any, show: bool | None, return_fig: bool) -> Any:  # noqa: FBT001
    """Return the figure, or show it and return nothing, or return the axes, as scanpy's plots do."""
    if return_fig:
        return figure
    if show is None:
        show = plt.isinteractive()
    if show:
        plt.show()
        return None
    return axes


def new_axes(ax: Axes | None, figsize: tuple[float, float] = (4.5, 3.5)) -> Axes:
    """``ax``, or the axes of a new figure."""
    if ax is not None:
        return ax
    return plt.subplots(figsize=figsize, layout="constrained")[1]


def bare(ax: Axes, labels: Sequence[str]) -> None:
    """Axes of an embedding: labelled, without ticks, whose numbers mean nothing."""
    ax.set(xlabel=labels[0], ylabel=labels[1], xticks=[], yticks=[])
    ax.spines[["top", "right"]].set_visible(False)
