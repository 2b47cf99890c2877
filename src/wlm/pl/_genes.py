"""Expression of genes over time, observed and predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import anndata as ad
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from wlm._adata.mudata import get_target
from wlm._random import RNG, as_seed
from wlm._store.fit import StoredFit, open_fit
from wlm._store.group import fit_key
from wlm.pl._arguments import LabelPanels, styled
from wlm.pl._basis import time_label
from wlm.pl._colors import COLORS, OBSERVED, PREDICTED, chosen_colors, label_colors
from wlm.pl._facets import by_condition
from wlm.pl._legend import legend, room
from wlm.pl._style import Style, default_columns
from wlm.tl import gene_trends
from wlm.tl._gene_trends import observed_expression

#: Mean of observed cells.
_DARK = "#404040"
#: Points of observed cells at each time.
_MAX_POINTS = 150
#: R² below which the title says that the gene is poorly decoded.
_POOR = 0.1


@styled(
    LabelPanels,
    palette="Colours of the groups: a colormap's name, a list, or a dict; by default ``uns['<groupby>_colors']``, if "
    "there.",
    ax="Axes to draw on, one for each gene.",
)
@by_condition
def genes(
    adata: ad.AnnData,
    genes: str | Sequence[str],
    *,
    groupby: str | None = None,
    key: str = "wlm",
    condition: str | None = None,
    times: Any = None,
    layer: str | None = None,
    n_cells: int | None = None,
    mod: str | None = None,
    rng: RNG = 0,
    **style: Unpack[LabelPanels],
) -> Any:
    """Draw the expression of genes over time, observed and predicted, a panel for each gene.

    What is drawn is the table of :func:`wlm.tl.gene_trends`. The line is the mean over predicted cells, dashed after
    the last training time; the bands are 25-75 % and 5-95 %. Means say more than medians of genes that most cells do
    not express. The cells are those of :func:`wlm.tl.predict` between and
    after the training times, and at the training times, from which predictions start, the observed ones, decoded like
    the predicted ones. Decoding leaves out what the principal components do not hold, so that bands are narrower than
    the spread of observed cells: the title has the R² of decoding (``var["K_decode_r2"]``). Points are observed cells,
    with their mean, hollow at held-out times, and a bar from 25 to 75 %.

    Parameters
    ----------
    adata
        An object with a fit on principal components.
    genes
        One or several of ``var_names``.
    groupby
        Column of ``obs`` with labels, or ``"fates"``: a line for each type or fate, see :func:`wlm.tl.gene_trends`.
        Bands are then the middle half of the predicted cells, and single observed cells are left out.
    key
        Name of the fit; of fits by condition, that of all of them or of one.
    condition
        Of fits by condition, which one to draw; by default all of them, a panel or block of panels for each, with the
        same axes and colours.
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

    Returns
    -------
    A list of the axes (n_genes,), the figure with ``return_fig``, or None if it was shown.

    Raises
    ------
    KeyError
        If there is no fit, gene, layer or column of that name.
    ValueError
        If genes cannot be decoded, the layer does not hold what the PCA was computed on, the column holds numbers or
        missing labels, or ``ax`` holds fewer axes than there are genes.
    """
    key = fit_key(adata, key, condition, mod)
    look = Style(**style)
    names = list(dict.fromkeys([genes] if isinstance(genes, str) else genes))
    if groupby is None:
        look.refuse(("palette",), "is of groups, and there is no groupby=")
    seed = as_seed(rng)
    table = gene_trends(
        adata, names, groupby=groupby, key=key, times=times, layer=layer, n_cells=n_cells, mod=mod, rng=seed
    )
    cells, fit = open_fit(
        adata, key, mod, columns=[groupby] if groupby is not None and groupby in get_target(adata, mod).obs else []
    )
    target, groups = get_target(adata, mod), table.attrs["groups"]
    colors = {} if groupby is None else _group_colors(cells, groupby, groups, target, look.palette)
    wide = min(look.ncols or default_columns(len(names)), len(names))
    _, axes = look.axes(len(names), (max(2.9, 4.6 / wide), 2.6), extra=0.7, right=room(colors))
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
        if k % wide == 0:
            panel.set_ylabel(f"expression ({table.attrs['layer']})")
        panel.spines[["top", "right"]].set_visible(False)
    there = set(table["kind"])
    handles = _handles(held_out="held out" in there, forecast="forecast" in there, colors=colors)
    # Below, in two rows where there is room; groups are many.
    legend(look, axes, handles, below=0 if colors else -(-len(handles) // 2) if wide > 2 else 2)
    return look.finish(axes, axes)


def _draw_predicted(ax: Axes, rows: pd.DataFrame, last: float) -> None:
    """The bands and the line of one gene over all cells; dashed after the time ``last``."""
    rows = rows[rows["kind"].isin(["predicted", "forecast"])]
    times = rows["time"].to_numpy()
    for low, high, alpha in (("q05", "q95", 0.15), ("q25", "q75", 0.3)):
        ax.fill_between(times, rows[low], rows[high], color=PREDICTED, alpha=alpha, lw=0)
    for part, style in ((times <= last, "-"), (times >= last, "--")):
        ax.plot(times[part], rows["mean"].to_numpy()[part], color=PREDICTED, lw=1.8, ls=style)


def _draw_observed(ax: Axes, adata: ad.AnnData, fit: StoredFit, rows: pd.DataFrame, rng: np.random.Generator) -> None:
    """Observed cells of one gene, with mean and 25-75 % at each time."""
    index = [int(adata.var_names.get_loc(rows["gene"].iloc[0]))]
    values = observed_expression(adata, fit, rows.attrs["layer"], index)[:, 0]
    cell_times = fit.times(adata)
    width = 0.12 * np.diff(fit.observed).min()
    for row in rows[rows["kind"].isin(["observed", "held out"])].itertuples():
        some = rng.permutation(np.flatnonzero(cell_times == row.time))[:_MAX_POINTS]
        at = row.time + rng.uniform(-width, width, len(some))
        ax.scatter(at, values[some], s=2, color=OBSERVED, alpha=0.5, linewidths=0, rasterized=True, zorder=1)
        fill = _DARK if row.kind == "observed" else "white"
        ax.vlines(row.time, row.q25, row.q75, color=_DARK, lw=1.2, zorder=4)
        ax.plot(row.time, row.mean, "o", color=_DARK, ms=5, mfc=fill, zorder=5)


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


def _group_colors(cells: ad.AnnData, groupby: str, groups: list[str], whole: Any, palette: Any) -> dict[str, Any]:
    """A colour for each group: those of the column, or of fates, which are no column, those that differ most."""
    if groupby in cells.obs:
        own = label_colors(cells, groupby, whole, palette)
        return {name: own[name] for name in own if name in groups}
    return chosen_colors(groups, [COLORS[k % len(COLORS)] for k in range(len(groups))] if palette is None else palette)


def _handles(*, held_out: bool, forecast: bool, colors: dict[str, Any]) -> list[Any]:
    """What the legend explains."""
    color = _DARK if colors else PREDICTED
    lines = {"predicted, mean": "-"} | ({"forecast, mean": "--"} if forecast else {})
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
