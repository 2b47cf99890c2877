"""Cell types through observed and unseen times."""

from __future__ import annotations

from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from wlm._adata.columns import read_obs_labels
from wlm._adata.mudata import get_target
from wlm._adata.neighbours import from_neighbours
from wlm._adata.times import read_labels
from wlm._random import RNG, as_seed
from wlm._store.fit import open_fit
from wlm.pl._basis import LABEL_ROWS, finish, label_colors, time_label
from wlm.pl._trend import Floats, Population, trend
from wlm.tl import predict


def composition(
    adata: Any,
    groupby: str,
    *,
    key: str = "wlm",
    times: Any = None,
    n_cells: int | None = 2000,
    mod: str | None = None,
    rng: RNG = 0,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Any:
    """Draw the shares of cell types over time, observed as bars and predicted as areas between them.

    The areas are the cells of :func:`wlm.tl.predict`, each with the label that weighs most among its 15 nearest cells
    of the training times; after the last training time they are pale. Bars are observed cells with their own labels:
    wide ones at training times, where the areas are made of the same cells, and narrow ones at held-out times, where
    bar and area can be compared. Shares are by weight where the fit has weights.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit.
    groupby
        Column of ``obs`` with labels, such as cell types; ``uns["<groupby>_colors"]`` are used if they are there.
    key
        Name of the fit; of fits by condition, the key of one.
    times
        Times to include besides the observed ones and a grid between them, as numbers or labels; forecasts for example.
    n_cells
        Predicted cells for each time, see :func:`wlm.tl.predict`; None for all.
    mod
        Modality of a MuData that was fitted; without it, the fit of its joint representation.
    rng
        Seed of the prediction.
    ax
        Axes to draw on; the legend is to their right, for which ``layout="constrained"`` makes room.
    show
        Show the figure; by default in interactive mode only.
    return_fig
        Return the figure.

    Returns
    -------
    The figure, or the axes, or None if the figure was shown.

    Raises
    ------
    KeyError
        If there is no fit or no such column.
    ValueError
        If the column holds numbers or missing labels, or a time cannot be predicted.
    """
    cells, fit = open_fit(adata, key, mod, columns=[groupby])
    labels, colors = read_obs_labels(cells, groupby), label_colors(cells, groupby, get_target(adata, mod))
    wanted = np.empty(0) if times is None else read_labels(times, fit.style)
    ask = partial(predict, adata, key=key, n_cells=n_cells, rng=as_seed(rng), mod=mod)
    populations = trend(cells, fit, wanted, ask)
    names = [name for name in colors if name in set(labels)]
    known = np.concatenate([p.rows for p in populations if p.rows is not None])
    x = np.concatenate([p.x for p in populations if p.rows is not None])

    def shares(p: Population) -> Floats:
        there = labels[p.rows] if p.rows is not None else from_neighbours(x, labels[known], p.x)
        return np.array([np.average(there == name, weights=p.w) for name in names])

    at = np.array([p.time for p in populations])
    share = np.stack([shares(p) for p in populations])
    trained = at[[p.observed for p in populations]]

    if ax is None:
        rows = -(-len(names) // LABEL_ROWS)
        ax = plt.subplots(figsize=(5 + 1.4 * rows, 3.4), layout="constrained")[1]
    fill = [colors[name] for name in names]
    for inside, alpha in ((at <= trained[-1], 0.55), (at >= trained[-1], 0.25)):
        if inside.sum() > 1:
            ax.stackplot(at[inside], share[inside].T, colors=fill, alpha=alpha, linewidth=0)
    if at[-1] > trained[-1]:
        ax.axvline(trained[-1], color="black", linewidth=0.8, linestyle=":")
    cell_times, weights = fit.times(cells), fit.weights_of(cells)
    span = np.ptp(at)
    for t in fit.observed[(fit.observed >= at[0]) & np.isin(fit.observed, cell_times)]:
        there = np.flatnonzero(cell_times == t)
        own = shares(Population(t, True, x[:0], None if weights is None else weights[there], there))
        width = (0.03 if t in trained else 0.012) * span
        bottoms = np.concatenate([[0], own.cumsum()[:-1]])
        ax.bar(t, own, width=width, bottom=bottoms, color=fill, edgecolor="black", linewidth=0.6, zorder=3)
    margin = 0.03 * span
    ax.set(xlim=(at[0] - margin, at[-1] + margin), ylim=(0, 1), xlabel=time_label(fit), ylabel="share of cells")
    ax.spines[["top", "right"]].set_visible(False)
    handles = [Patch(color=colors[name], label=name) for name in reversed(names)]
    ax.legend(
        handles=handles,
        title=groupby,
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        fontsize="small",
        ncols=-(-len(names) // LABEL_ROWS),
    )
    return finish(ax.get_figure(root=True), ax, show, return_fig)  # type: ignore[arg-type]
