"""Observed and predicted populations side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from wlm._adata.cells import read_rep
from wlm._adata.mudata import get_target
from wlm._adata.neighbours import from_neighbours
from wlm._adata.times import read_labels
from wlm._random import RNG, as_seed
from wlm._store.fit import check_representation, open_fit
from wlm.pl._basis import OBSERVED, PATH, PREDICTED, Coloring, bare, embedding, finish, time_label
from wlm.tl import predict


def rollout(
    adata: ad.AnnData,
    *,
    key: str = "wlm",
    times: Any = None,
    basis: str | None = None,
    color: str | None = None,
    components: tuple[int, int] = (0, 1),
    n_paths: int = 60,
    max_cells: int = 2000,
    ax: Sequence[Axes] | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    rng: RNG = 0,
    mod: str | None = None,
) -> Any:
    """Draw observed and predicted populations, a panel for each time, and paths of cells in the last panel.

    The predicted cells of each panel are those of :func:`wlm.tl.predict`: they start from the observed cells of the
    training time before, so that errors do not add up. The paths of the last panel run freely from the first time.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit.
    key
        Name of the fit; of fits by condition, the key of one.
    times
        Times to draw, as numbers or labels; the first training time is always drawn. By default all
        observed ones and, in intervals without a held-out time that are longer than the typical one,
        their middle.
    basis
        Embedding to draw in, for example ``"umap"``; by default the fitted representation. Predicted
        cells are placed in other embeddings by their nearest observed cells.
    color
        Column of ``obs`` to colour the first population and the predicted ones by, labels or numbers: a predicted cell
        has those of its 15 nearest cells of the training times. Labels have the colours of ``uns["<color>_colors"]``.
    components
        The two dimensions to draw.
    n_paths
        Paths of the rollout from the first time to draw.
    max_cells
        Points of each kind drawn in a panel.
    ax
        Axes to draw on: one for each time and one for the paths.
    show
        Show the figure; by default in interactive mode only.
    return_fig
        Return the figure.
    rng
        Seed of the prediction and of the choice of points.
    mod
        Modality of a MuData that was fitted; without it, the fit of its joint representation.

    Returns
    -------
    The figure, or the axes (n_panels,), or None if the figure was shown.
    """
    cells, fit = open_fit(adata, key, mod, columns=[] if color is None else [color])
    x = read_rep(cells, fit.use_rep, fit.n_dims)
    check_representation(cells, fit, x)
    cell_times = fit.times(cells)
    shown, project, labels = embedding(cells, fit, basis, components)
    first = fit.training[0]
    wanted = _default_times(fit.observed, fit.training) if times is None else read_labels(times, fit.style)
    wanted = np.unique(wanted[wanted > first])
    if len(wanted) == 0:
        raise ValueError(f"times must hold one after the first training time {first:g}, found {times!r}")
    coloring = None if color is None else Coloring.of(cells, color, get_target(adata, mod))
    known = np.isin(cell_times, fit.training)
    seed = as_seed(rng)
    n_cells = None if cells.n_obs <= 10 * max_cells else max_cells  # of many cells a sample is drawn
    predicted = predict(adata, wanted, key=key, n_cells=n_cells, rng=seed, mod=mod)
    positions = np.asarray(predicted.obsm[fit.use_rep])
    generator = np.random.default_rng(seed)

    figure, axes = _panels(len(wanted) + 2, ax)
    for panel, t in zip(axes, [first, *wanted], strict=False):
        panel.scatter(*_some(shown, max_cells, generator).T, s=2, color="#e6e6e6", linewidths=0, rasterized=True)
        seen = np.flatnonzero(cell_times == t)
        some = _some(seen, max_cells, generator)
        own = OBSERVED if coloring is None or t != first else coloring.rgba(coloring.values[some])
        panel.scatter(*shown[some].T, s=6, c=own, linewidths=0, rasterized=True)
        here = _some(positions[predicted.obs[fit.time_key].to_numpy() == t], max_cells, generator)
        if len(here):
            near: Any = PREDICTED
            if coloring is not None:
                near = coloring.rgba(from_neighbours(x[known], coloring.values[known], here))
            panel.scatter(*project(here).T, s=4, c=near, alpha=0.6, linewidths=0, rasterized=True)
        panel.set_title(_fill(f"{fit.time_key} {t:.4g}, {_role(t, fit.training, seen)}"), fontsize="medium")
        bare(panel, labels)

    paths = axes[-1]
    paths.scatter(*_some(shown, max_cells, generator).T, s=2, color="#e6e6e6", linewidths=0, rasterized=True)
    lines = project(np.asarray(fit.uns["rollout"]["positions"])).transpose(1, 0, 2)
    lines = _some(lines, n_paths, generator)
    paths.add_collection(LineCollection(list(lines), colors=PATH, linewidths=0.7, alpha=0.7))
    paths.scatter(*lines[:, 0].T, s=8, color="black", linewidths=0, zorder=3)
    paths.set_title(_fill(f"paths from {time_label(fit)} {first:.4g}"), fontsize="medium")
    bare(paths, labels)
    if ax is None:
        _explain(figure, axes, coloring)
    return finish(figure, axes, show, return_fig)


def _panels(n_panels: int, ax: Sequence[Axes] | None) -> tuple[Any, np.ndarray]:
    """A figure with so many panels, or the axes that were given."""
    if ax is None:
        columns = 3 if n_panels in (5, 6, 9) else min(n_panels, 4)  # few empty places in the last row
        rows = -(-n_panels // columns)
        figure, grid = plt.subplots(
            rows,
            columns,
            figsize=(2.9 * columns, 2.7 * rows + 0.4),
            sharex=True,
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        axes = grid.ravel()
        for extra in axes[n_panels:]:
            extra.set_visible(False)
        axes = axes[:n_panels]
    else:
        axes = np.asarray(ax, dtype=object).ravel()
        if len(axes) != n_panels:
            raise ValueError(
                f"ax must hold {n_panels} axes, one for each time and one for the paths; found {len(axes)}"
            )
        figure = axes[0].figure
    return figure, axes


def _role(t: float, training: np.ndarray, seen: np.ndarray) -> str:
    """What the fit knows of the time ``t``, at which there are the cells ``seen``."""
    if t == training[0]:
        return "start"
    if t in training:
        return "trained on"
    return "held out" if len(seen) else "not observed"


def _explain(figure: Any, axes: np.ndarray, coloring: Coloring | None) -> None:
    """A legend below the panels."""
    handles = [
        Line2D([], [], marker="o", ls="", ms=4, color=c, label=text)
        for c, text in (
            ("#e6e6e6", "all cells"),
            (OBSERVED, "observed at that time"),
            (PREDICTED, "predicted from the time before"),
            ("black", "start of a path"),
        )
    ]
    handles.insert(3, Line2D([], [], color=PATH, lw=1.2, label="path"))
    if coloring is not None:
        handles[2] = Line2D([], [], marker="o", ls="", ms=4, mfc="none", mec="black", label="coloured: predicted")
        coloring.explain(figure, axes)
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False, fontsize="small")


def _default_times(observed: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Observed times, and the middle of training intervals that are clearly longer than usual and empty."""
    gaps = np.diff(training)
    middles = [
        (a + b) / 2
        for a, b, gap in zip(training[:-1], training[1:], gaps, strict=True)
        if gap > 1.5 * np.median(gaps) and not ((observed > a) & (observed < b)).any()
    ]
    return np.unique(np.concatenate([observed, middles]))


def _some(a: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """At most ``n`` rows of ``a``, at random."""
    return a if len(a) <= n else a[rng.permutation(len(a))[:n]]


def _fill(title: str) -> str:
    """A title in lines that fit over a panel: keys of ``obs`` can be long."""
    return textwrap.fill(title, 28)
