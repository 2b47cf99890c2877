"""Expression of genes over time, observed and predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from wlm._adata.mudata import get_target
from wlm._random import RNG, as_seed
from wlm._store.fit import StoredFit, open_fit
from wlm.pl._basis import COLORS, LABEL_ROWS, OBSERVED, PREDICTED, finish, label_colors, time_label
from wlm.tl import gene_trends
from wlm.tl._gene_trends import observed_expression

#: Median of observed cells.
_DARK = "#404040"
#: Points of observed cells at each time.
_MAX_POINTS = 150
#: R² below which the title says that the gene is poorly decoded.
_POOR = 0.1


def genes(
    adata: ad.AnnData,
    genes: str | Sequence[str],
    *,
    groupby: str | None = None,
    key: str = "wlm",
    times: Any = None,
    layer: str | None = None,
    n_cells: int | None = None,
    mod: str | None = None,
    rng: RNG = 0,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Any:
    """Draw the expression of genes over time, observed and predicted, a panel for each gene.

    What is drawn is the table of :func:`wlm.tl.gene_trends`. The line is the median over predicted cells, dashed after
    the last training time; the bands are 25-75 % and 5-95 %. The cells are those of :func:`wlm.tl.predict` between and
    after the training times, and at the training times, from which predictions start, the observed ones, decoded like
    the predicted ones. Decoding leaves out what the principal components do not hold, so that bands are narrower than
    the spread of observed cells: the title has the R² of decoding (``var["K_decode_r2"]``). Points are observed cells,
    with their median and 25-75 %, hollow at held-out times.

    Parameters
    ----------
    adata
        An object with a fit on principal components.
    genes
        One or several of ``var_names``.
    groupby
        Column of ``obs`` with labels, or ``"fates"``: a line for each type or fate, see :func:`wlm.tl.gene_trends`.
        Lines and points are then means, which say more than medians of genes that most cells do not express, and the
        bands are the middle half of the predicted cells. ``uns["<groupby>_colors"]`` are used if they are there.
    key
        Name of the fit.
    times
        Times to include besides the observed ones and a grid between them, as numbers or labels; forecasts
        for example, to which the trend is then continued.
    layer
        Where to read observed expression: a key of ``layers``, or ``"X"``; by default the matrix that the
        PCA was computed on. To name its copy if it was changed since.
    n_cells
        Predicted cells for each time, see :func:`wlm.tl.predict`; all by default.
    mod
        Modality of a MuData that was fitted.
    rng
        Seed of the prediction and of the choice of points.
    ax
        Axes to draw on, for one gene.
    show
        Show the figure; by default in interactive mode only.
    return_fig
        Return the figure.

    Returns
    -------
    The figure, or the axes (n_genes,), or None if the figure was shown.

    Raises
    ------
    KeyError
        If there is no fit, gene, layer or column of that name.
    ValueError
        If genes cannot be decoded, the layer does not hold what the PCA was computed on, the column holds numbers or
        missing labels, or ``ax`` is given for several genes.
    """
    names = list(dict.fromkeys([genes] if isinstance(genes, str) else genes))
    if ax is not None and len(names) > 1:
        raise ValueError(f"ax holds one panel, found {len(names)} genes; leave ax out, or draw each gene on its own")
    seed = as_seed(rng)
    table = gene_trends(
        adata, names, groupby=groupby, key=key, times=times, layer=layer, n_cells=n_cells, mod=mod, rng=seed
    )
    cells, fit = open_fit(
        adata, key, mod, columns=[groupby] if groupby is not None and groupby in get_target(adata, mod).obs else []
    )
    colors = {} if groupby is None else _group_colors(cells, groupby, table.attrs["groups"], get_target(adata, mod))
    figure, axes, columns = _panels(len(names), ax)
    for k, panel in enumerate(axes):
        rows = table[table["gene"] == names[k]]
        if groupby is None:
            _draw_predicted(panel, rows, table.attrs["last"])
            _draw_observed(panel, cells, fit, rows, np.random.default_rng(seed))
        else:
            _draw_groups(panel, rows, table.attrs["last"], colors)
        r2 = table.attrs["decode_r2"][names[k]]
        panel.set_title(f"{names[k]}\nR² {r2:.2f}" + (": poorly decoded" if r2 < _POOR else ""), fontsize="medium")
        panel.set_xlabel(time_label(fit))
        if k % columns == 0:
            panel.set_ylabel(f"expression ({table.attrs['layer']})")
        panel.spines[["top", "right"]].set_visible(False)
    there = set(table["kind"])
    handles = _handles(held_out="held out" in there, forecast="forecast" in there, colors=colors)
    if ax is not None:
        ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize="small")
    elif groupby is not None:
        columns = -(-len(handles) // LABEL_ROWS)
        figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize="small", ncols=columns)
    else:
        n = -(-len(handles) // 2) if columns > 2 else 2  # two rows where there is room
        figure.legend(handles=handles, loc="outside lower center", ncols=n, frameon=False, fontsize="small")
    return finish(figure, axes, show, return_fig)


def _panels(n: int, ax: Axes | None) -> tuple[Figure, NDArray[np.object_], int]:
    """The figure, ``n`` axes on it, and how many stand in a row."""
    if ax is not None:
        return ax.get_figure(root=True), np.array([ax], dtype=object), 1  # type: ignore[return-value]
    columns = 3 if n in (3, 5, 6, 9) else min(n, 4)  # few empty places in the last row
    rows = -(-n // columns)
    size = (max(4.6, 2.9 * columns), 2.6 * rows + 0.7)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for extra in grid.ravel()[n:]:
        extra.set_visible(False)
    return figure, grid.ravel()[:n], columns


def _draw_predicted(ax: Axes, rows: pd.DataFrame, last: float) -> None:
    """The bands and the line of one gene over all cells; dashed after the time ``last``."""
    rows = rows[rows["kind"].isin(["predicted", "forecast"])]
    times = rows["time"].to_numpy()
    for low, high, alpha in (("q05", "q95", 0.15), ("q25", "q75", 0.3)):
        ax.fill_between(times, rows[low], rows[high], color=PREDICTED, alpha=alpha, lw=0)
    for part, style in ((times <= last, "-"), (times >= last, "--")):
        ax.plot(times[part], rows["median"].to_numpy()[part], color=PREDICTED, lw=1.8, ls=style)


def _draw_observed(ax: Axes, adata: ad.AnnData, fit: StoredFit, rows: pd.DataFrame, rng: np.random.Generator) -> None:
    """Observed cells of one gene, with median and 25-75 % at each time."""
    index = [int(adata.var_names.get_loc(rows["gene"].iloc[0]))]
    values = observed_expression(adata, fit, rows.attrs["layer"], index)[:, 0]
    cell_times = fit.times(adata)
    width = 0.12 * np.diff(fit.observed).min()
    for row in rows[rows["kind"].isin(["observed", "held out"])].itertuples():
        some = rng.permutation(np.flatnonzero(cell_times == row.time))[:_MAX_POINTS]
        at = row.time + rng.uniform(-width, width, len(some))
        ax.scatter(at, values[some], s=2, color=OBSERVED, alpha=0.5, linewidths=0, rasterized=True, zorder=1)
        fill = _DARK if row.kind == "observed" else "white"
        around = [[row.median - row.q25], [row.q75 - row.median]]
        ax.errorbar(row.time, row.median, around, fmt="o", color=_DARK, ms=5, lw=1.2, mfc=fill, zorder=4)


def _draw_groups(ax: Axes, rows: pd.DataFrame, last: float, colors: dict[str, Any]) -> None:
    """The mean of one gene in each group, with the middle half of its predicted cells."""
    for name, color in colors.items():
        own = rows[rows["group"] == name]
        line, points = (own[own["kind"].isin(kinds)] for kinds in (["predicted", "forecast"], ["observed", "held out"]))
        times = line["time"].to_numpy()
        ax.fill_between(times, line["q25"], line["q75"], color=color, alpha=0.15, lw=0)
        for part, style in ((times <= last, "-"), (times >= last, "--")):
            ax.plot(times[part], line["mean"].to_numpy()[part], color=color, lw=1.8, ls=style)
        for kind, fill in (("observed", color), ("held out", "white")):
            some = points[points["kind"] == kind]
            ax.plot(some["time"], some["mean"], "o", color=color, mfc=fill, ms=5, zorder=4)


def _group_colors(cells: ad.AnnData, groupby: str, groups: list[str], whole: Any) -> dict[str, Any]:
    """A colour for each group: those of the column, or of fates, which are no column, those that differ most."""
    if groupby in cells.obs:
        own = label_colors(cells, groupby, whole)
        return {name: own[name] for name in own if name in groups}
    return {name: COLORS[k % len(COLORS)] for k, name in enumerate(groups)}


def _handles(*, held_out: bool, forecast: bool, colors: dict[str, Any]) -> list[Any]:
    """What the legend explains."""
    line, color = ("mean", _DARK) if colors else ("median", PREDICTED)
    lines = {f"predicted, {line}": "-"} | ({f"forecast, {line}": "--"} if forecast else {})
    dots = {"observed, trained on": _DARK} | ({"observed, held out": "white"} if held_out else {})
    out: list[Any] = [Patch(color=c, label=name) for name, c in colors.items()]
    out += [Line2D([], [], color=color, lw=1.8, ls=style, label=text) for text, style in lines.items()]
    out.append(Patch(color=color, alpha=0.2 if colors else 0.4, lw=0, label="25-75 % of cells"))
    if not colors:
        out.append(Patch(color=color, alpha=0.15, lw=0, label="5-95 %"))
    out += [Line2D([], [], marker="o", color=_DARK, mfc=c, ms=5, lw=1.2, label=text) for text, c in dots.items()]
    if colors:
        for handle in out[-len(dots) :]:
            handle.set_linestyle("")
        return out
    return [*out, Line2D([], [], marker="o", ls="", ms=2.5, color=OBSERVED, label="observed cell")]
