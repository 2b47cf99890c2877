"""What the plots share: coordinates to draw in, axes to draw on, and what to return."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from wlm._adata.columns import dense, read_column, read_obs_labels
from wlm._adata.neighbours import projection
from wlm._store.fit import StoredFit

#: Okabe and Ito's colours, distinguishable with every kind of colour vision.
OBSERVED, PREDICTED, PATH = "#9a9a9a", "#0072B2", "#D55E00"

#: The same, for up to eight labels without colours of their own.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")

#: Labels in a column of a legend.
LABEL_ROWS = 14

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
    shown = dense(adata.obsm[key], f"obsm[{key!r}]")
    if max(components) >= shown.shape[1] or min(components) < 0:
        raise ValueError(f"components {components} do not exist in obsm[{key!r}] with {shown.shape[1]} dimensions")
    shown = shown[:, [i, j]]
    name = key.removeprefix("X_").replace("pca", "PC").replace("umap", "UMAP").replace("tsne", "tSNE")
    labels = (f"{name}{i + 1}", f"{name}{j + 1}")
    if key == fit.use_rep:
        if max(components) >= fit.n_dims:
            raise ValueError(f"components {components} are not among the {fit.n_dims} dimensions that were fitted")
        return shown, lambda x: x[..., [i, j]], labels

    x = dense(adata.obsm[fit.use_rep])[:, : fit.n_dims]
    return shown, projection(x, shown), labels


def label_colors(cells: Any, column: str, whole: Any) -> dict[str, Any]:
    """The colour of each label in a column of ``obs``: those of ``uns["<column>_colors"]``, as scanpy keeps them.

    Without them, colours that are told apart with every kind of colour vision for up to eight labels, which more cannot
    be: these get scanpy's palettes of 20, 28 and 102. Labels are those of the ``whole`` object, so that the cells of
    each condition have the same colours.
    """
    uns, series = whole.uns, read_column(whole if column in whole.obs else cells, column)
    categorical = isinstance(series.dtype, pd.CategoricalDtype)
    names = [str(c) for c in (series.cat.categories if categorical else sorted(series.dropna().unique(), key=str))]
    own = [str(c) for c in np.ravel(uns.get(f"{column}_colors", []))]
    if categorical and len(own) >= len(names):
        return dict(zip(names, own, strict=False))
    if len(names) <= len(COLORS):
        return dict(zip(names, COLORS, strict=False))
    from scanpy.plotting.palettes import default_20, default_28, default_102

    chosen = next((p for p in (default_20, default_28, default_102) if len(names) <= len(p)), ["grey"] * len(names))
    return dict(zip(names, chosen, strict=False))


def name_colors(target: Any, fit: StoredFit, names: Sequence[str]) -> dict[str, Any]:
    """The colour of each fate: that of its label, where terminal states are labels of a column of ``obs``.

    Others have colours that the first labels of a column have not, so that the two are told apart.
    """
    column = target.uns.get(f"{fit.key}_terminal", {}).get("label_key")
    known = {} if column is None or str(column) not in target.obs else label_colors(target, str(column), target)
    rest = [name for name in names if name not in known and name != "undecided"]
    return {"undecided": OBSERVED} | known | {name: COLORS[(k + 3) % len(COLORS)] for k, name in enumerate(rest)}


@dataclass(frozen=True)
class Coloring:
    """Colours of cells by a column of ``obs``: its ``values`` (n_obs,), and those of labels, or None for numbers."""

    column: str
    values: NDArray[Any]
    labels: dict[str, Any] | None

    @classmethod
    def of(cls, adata: Any, column: str, whole: Any) -> Coloring:
        """Of the cells ``adata``, which are some of the ``whole`` object."""
        series = read_column(adata, column)
        if pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series):
            values = series.to_numpy(dtype=float)
            if not np.isfinite(values).all():
                raise ValueError(f"obs[{column!r}] has numbers that are missing or infinite; leave these cells out")
            return cls(column, values, None)
        return cls(column, read_obs_labels(adata, column), label_colors(adata, column, whole))

    @property
    def _scale(self) -> ScalarMappable:
        """From numbers to colours, between their 1 and 99 % quantiles."""
        low, high = np.quantile(self.values, (0.01, 0.99))
        return ScalarMappable(Normalize(low, high), "viridis")

    def rgba(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Colours (n, 4) of ``values`` (n,)."""
        if self.labels is None:
            return self._scale.to_rgba(values)
        return np.array([to_rgba(self.labels[v]) for v in values]).reshape(-1, 4)

    def explain(self, figure: Any, axes: Any) -> None:
        """A legend, or a colour bar, to the right of ``axes``."""
        if self.labels is None:
            figure.colorbar(self._scale, ax=list(axes), label=self.column, shrink=0.8)
            return
        there = set(self.values)
        handles = [Patch(color=c, label=name) for name, c in self.labels.items() if name in there]
        figure.legend(
            handles=handles,
            title=self.column,
            loc="outside right upper",
            frameon=False,
            fontsize="small",
            ncols=-(-len(handles) // LABEL_ROWS),
        )


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


def legend_beside(ax: Axes, *, alone: bool) -> None:
    """A legend to the right of axes that are ``alone`` in their figure; within those of somebody else."""
    place = {"loc": "center left", "bbox_to_anchor": (1, 0.5)} if alone else {"loc": "best"}
    ax.legend(frameon=False, fontsize="small", **place)


def time_label(fit: StoredFit) -> str:
    """The key of the times with their unit, for an axis."""
    return fit.time_label


def bare(ax: Axes, labels: Sequence[str]) -> None:
    """Axes of an embedding: labelled, without ticks, whose numbers mean nothing."""
    ax.set(xlabel=labels[0], ylabel=labels[1], xticks=[], yticks=[])
    ax.spines[["top", "right"]].set_visible(False)
