"""Cell types through observed and unseen times."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from wlm._adata.columns import read_obs_labels
from wlm._adata.mudata import get_target
from wlm._adata.times import read_labels
from wlm._random import RNG
from wlm._store.fit import open_fit
from wlm.pl._basis import COLORS, LABEL_ROWS, finish, label_colors
from wlm.tl import composition as compute
from wlm.tl._trend import between


def composition(
    adata: Any,
    groupby: str | None = None,
    *,
    key: str = "wlm",
    times: Any = None,
    count: str = "cells",
    n_cells: int | None = 2000,
    mod: str | None = None,
    rng: RNG = 0,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Any:
    """Draw the shares of cell types over time, observed as bars and predicted as areas between them.

    What is drawn is the table of :func:`wlm.tl.composition`: give it that table, or an object with a fit, of which it
    is made for all observed times and a grid between them. Areas are predicted cells, after the last training time
    pale. Bars are observed cells: wide ones at training times, where the areas are made of the same cells, and narrow
    ones at held-out times, where bar and area can be compared.

    Parameters
    ----------
    adata
        The table of :func:`wlm.tl.composition`, or an AnnData or MuData with a fit.
    groupby
        Of an object: column of ``obs`` with labels, such as cell types; ``uns["<groupby>_colors"]`` are used if they
        are there.
    key
        Of an object: name of the fit; of fits by condition, the key of one.
    times
        Of an object: times to include besides the observed ones and a grid between them, as numbers or labels;
        forecasts for example.
    count
        Of an object: ``"cells"``, or ``"lineages"`` of the cells of the first time, as in :func:`wlm.tl.composition`;
        of lineages there are no bars after the first time.
    n_cells
        Of an object: predicted cells for each time; None for all.
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
        If the column holds numbers or missing labels, a time cannot be predicted, or a table is not one of
        :func:`wlm.tl.composition`.
    """
    if isinstance(adata, pd.DataFrame):
        table, colors = adata, _table_colors(adata)
    elif groupby is None:
        raise ValueError("groupby must name a column of obs with labels, such as cell types")
    else:
        cells, fit = open_fit(adata, key, mod, columns=[groupby])
        read_obs_labels(cells, groupby)
        colors = label_colors(cells, groupby, get_target(adata, mod))
        wanted = between(cells, fit, np.empty(0) if times is None else read_labels(times, fit.style))
        table = compute(adata, groupby, wanted, key=key, count=count, n_cells=n_cells, rng=rng, mod=mod)
    names = [name for name in colors if name in set(table["label"])]
    if ax is None:
        rows = -(-len(names) // LABEL_ROWS)
        ax = plt.subplots(figsize=(5 + 1.4 * rows, 3.4), layout="constrained")[1]
    _draw(ax, table, names, colors)
    handles = [Patch(color=colors[name], label=name) for name in reversed(names)]
    ax.legend(
        handles=handles,
        title=table.attrs.get("label_key"),
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        fontsize="small",
        ncols=-(-len(names) // LABEL_ROWS),
    )
    return finish(ax.get_figure(root=True), ax, show, return_fig)  # type: ignore[arg-type]


def _draw(ax: Axes, table: pd.DataFrame, names: list[str], colors: dict[str, Any]) -> None:
    """Areas and bars of a table."""
    observed, predicted = (
        table.pivot(index="time", columns="label", values=k)[names] for k in ("observed", "predicted")
    )
    kind = table.groupby("time")["kind"].first()
    at = observed.index.to_numpy()
    trained = (kind == "training").to_numpy()
    # At training times, from which predictions start, areas are the observed cells.
    own = trained[:, None] & np.isfinite(observed.to_numpy())
    share = np.where(own, observed.to_numpy(), predicted.to_numpy())  # (T, labels)
    fill, last = [colors[name] for name in names], at[trained].max() if trained.any() else at[0]
    for inside, alpha in ((at <= last, 0.55), (at >= last, 0.25)):
        if inside.sum() > 1:
            ax.stackplot(at[inside], share[inside].T, colors=fill, alpha=alpha, linewidth=0)
    if at[-1] > last:
        ax.axvline(last, color="black", linewidth=0.8, linestyle=":")
    span = float(np.ptp(at)) or 1.0
    for t, own in zip(at, observed.to_numpy(), strict=True):
        if np.isfinite(own).all():
            width = (0.03 if kind[t] == "training" else 0.012) * span
            bottoms = np.concatenate([[0], own.cumsum()[:-1]])
            ax.bar(t, own, width=width, bottom=bottoms, color=fill, edgecolor="black", linewidth=0.6, zorder=3)
    margin = 0.03 * span
    xlabel = table.attrs.get("time_label", "time")
    of = "founders' lineages" if table.attrs.get("count") == "lineages" else "cells"
    ax.set(xlim=(at[0] - margin, at[-1] + margin), ylim=(0, 1), xlabel=xlabel, ylabel=f"share of {of}")
    ax.spines[["top", "right"]].set_visible(False)


def _table_colors(table: pd.DataFrame) -> dict[str, Any]:
    """Colours of the labels of a table, which has none of its own."""
    wanted = {"time", "label", "kind", "predicted", "observed"}
    if not wanted <= set(table.columns):
        raise ValueError(f"this is no table of wlm.tl.composition: the columns {sorted(wanted)} are wanted")
    labels = pd.DataFrame({"label": pd.Categorical(table["label"])})
    if labels["label"].nunique() <= len(COLORS):
        return dict(zip(labels["label"].cat.categories, COLORS, strict=False))
    from scanpy.plotting.palettes import default_102

    return dict(zip(labels["label"].cat.categories, default_102, strict=False))
