"""The embeddings that are drawn: coordinates of cells, limits, sizes of points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import anndata as ad
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from wlm._adata.columns import dense
from wlm._adata.neighbours import onto
from wlm._store.fit import StoredFit
from wlm.pl._style import BEYOND

#: From coordinates of the fitted representation (n, d) to the two that are drawn (n, 2).
Projection = Callable[[NDArray[np.float32]], NDArray[np.float32]]

#: Area that all points of a panel cover together, as a share of it, and the least and most of one in square points.
COVERED, LEAST, MOST = 0.35, 1.5, 18.0
#: Room around the observed cells, as a share of their range.
MARGIN = 0.04


@dataclass(frozen=True)
class Embedding:
    """Cells in the plane: ``points`` (n_obs, 2), the projection of predicted ones into it, and names of the axes.

    ``linear`` is whether it is a linear map of the representation. ``within`` (m, 2) are the cells that the axes hold,
    where these are more than the ``points``.
    """

    points: NDArray[np.float32]
    project: Projection
    labels: tuple[str, str]
    linear: bool = True
    within: NDArray[np.float32] | None = None

    @property
    def limits(self) -> NDArray[np.float64]:
        """Of the axes, (2, 2), by the observed cells alone: low and high of each."""
        held = self.points if self.within is None else self.within
        low, high = held.min(axis=0), held.max(axis=0)
        margin = MARGIN * np.maximum(high - low, 1e-12)
        return np.stack([low - margin, high + margin])

    def beyond(self, points: NDArray[Any]) -> int:
        """How many of the points (n, 2), or of paths (n, T, 2), are outside of the axes, or leave them."""
        low, high = self.limits
        return int(((points < low) | (points > high)).reshape(len(points), -1).any(axis=1).sum())

    def frame(self, ax: Axes, title: str = "", predicted: NDArray[Any] | None = None, what: str = "predicted") -> None:
        """Axes within the limits of the observed cells, whose title says how many points lie beyond."""
        low, high = self.limits
        ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        missed = 0 if predicted is None or len(predicted) == 0 else self.beyond(predicted)
        lines = [title] if title else []
        if missed and predicted is not None:
            lines.append(f"{missed} of {len(predicted)} {what} {BEYOND}")
        ax.set_title("\n".join(lines), fontsize="medium")
        bare(ax, self.labels)


def embedding(
    adata: ad.AnnData, fit: StoredFit, basis: str | None, components: tuple[int, int], whole: Any = None
) -> Embedding:
    """The cells of a fit in two dimensions.

    Those of the fitted representation are drawn as they are, and of an embedding that is a linear map of it predicted
    cells as that map has them. In any other a predicted cell is put at the observed one that is nearest to it in the
    representation (:func:`wlm._adata.neighbours.onto`). The axes are as wide as the cells, or as those of the ``whole``
    object.
    """
    key = fit.use_rep if basis is None else basis if basis in adata.obsm else f"X_{basis}"
    if key not in adata.obsm:
        raise KeyError(f"basis {basis!r} is neither in obsm as it is nor as {key!r}; obsm has {list(adata.obsm)}")
    i, j = components
    shown = dense(adata.obsm[key], f"obsm[{key!r}]")
    if max(components) >= shown.shape[1] or min(components) < 0:
        raise ValueError(f"components {components} do not exist in obsm[{key!r}] with {shown.shape[1]} dimensions")
    shown = shown[:, [i, j]]
    within = None if whole is None or key not in whole.obsm else dense(whole.obsm[key])[:, [i, j]]
    name = key.removeprefix("X_").replace("pca", "PC").replace("umap", "UMAP").replace("tsne", "tSNE")
    labels = (f"{name}{i + 1}", f"{name}{j + 1}")
    if key == fit.use_rep:
        if max(components) >= fit.n_dims:
            raise ValueError(f"components {components} are not among the {fit.n_dims} dimensions that were fitted")
        return Embedding(shown, lambda x: x[..., [i, j]], labels, within=within)

    x = dense(adata.obsm[fit.use_rep])[:, : fit.n_dims]
    project, linear = onto(x, shown)
    return Embedding(shown, project, labels, linear=linear, within=within)


def point_size(ax: Axes, n: int) -> float:
    """Area of each of ``n`` points, in square points: the more there are, the smaller."""
    box = ax.get_position()
    figure: Any = ax.get_figure(root=True)
    width, height = figure.get_size_inches()
    area = 72.0**2 * width * height * box.width * box.height
    return float(np.clip(COVERED * area / max(n, 1), LEAST, MOST))


def dots(ax: Axes, points: NDArray[Any], color: Any, size: float, alpha: float | None = None, **more: Any) -> Any:
    """Points (n, 2) without edges, as pixels in files of vectors."""
    x, y = points.T
    return ax.scatter(x, y, c=color, s=size, alpha=alpha, linewidths=0, rasterized=True, **more)


def some(a: NDArray[Any], n: int, rng: np.random.Generator) -> NDArray[Any]:
    """At most ``n`` rows of ``a``, at random."""
    return a if len(a) <= n else a[rng.permutation(len(a))[:n]]


def time_label(fit: StoredFit) -> str:
    """The key of the times with their unit, for an axis."""
    return fit.time_label


def bare(ax: Axes, labels: Sequence[str]) -> None:
    """Axes of an embedding: labelled, without ticks, whose numbers mean nothing."""
    ax.set(xlabel=labels[0], ylabel=labels[1], xticks=[], yticks=[])
    ax.spines[["top", "right"]].set_visible(False)
