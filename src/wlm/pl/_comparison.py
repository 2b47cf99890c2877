"""What differs between conditions, when, and how sure that is."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from wlm.pl._basis import COLORS, finish

#: Titles of the statistics, and the unit of their effects.
STATISTICS = {
    "distance": ("observed cells", "W1, across − within\n(units of the embedding)"),
    "predicted": ("predicted cells", "W1, across − within\n(units of the embedding)"),
    "mean": ("means of the components", "distance, across − within\n(units of the embedding)"),
    "composition": ("composition", "difference in shares,\nacross − within"),
    "genes": ("means of the genes", "distance, across − within\n(units of expression)"),
    "speed": ("speed", "difference in speed\n(units of the embedding / time)"),
}
#: The same of one component, label or gene.
NAMED = {"mean": "difference in mean\n(units of the embedding)", "composition": "difference in share of cells"}
NAMED |= {"genes": "difference in mean\n(units of expression)"}


def comparison(
    table: pd.DataFrame,
    *,
    statistic: str | None = None,
    name: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Any:
    """Draw what :func:`wlm.tl.compare` returned: effects over time with their intervals, filled where they are sure.

    Parameters
    ----------
    table
        The table.
    statistic
        Statistic to draw; by default a panel for each.
    name
        Component, label or gene to draw, of one ``statistic``; by default the statistic as a whole.
    ax
        Axes to draw on, for one statistic.
    show
        Show the figure; by default in interactive mode only.
    return_fig
        Return the figure.

    Returns
    -------
    The figure, or the axes, or None if the figure was shown. A colour for each condition other than the reference:
    effects (of a statistic as a whole, how much farther samples of different conditions are apart than samples of the
    same) with their 95 % intervals over samples, filled where the adjusted p-value is below the level of the
    comparison, hollow where it is not or where there is none.

    Raises
    ------
    KeyError, ValueError
        If it is not such a table, or has no such statistic or name, or ``ax`` is given for several statistics.
    """
    needed = {"condition", "reference", "statistic", "name", "time", "effect", "low", "high", "p_adj"}
    if not isinstance(table, pd.DataFrame) or not needed <= set(table.columns):
        raise ValueError(
            "table must be what wlm.tl.compare returns; run "
            "table = wlm.tl.compare(adata, time_key, condition_key, sample_key=...) first"
        )
    there = list(dict.fromkeys(table["statistic"]))
    if statistic is not None and statistic not in there:
        raise KeyError(f"statistic {statistic!r} is not in the table, which has {there}")
    if name is not None and statistic is None:
        raise ValueError(f"name {name!r} is one of a statistic; name the statistic too, one of {there}")
    rows = table[table["time"].notna() & (table["name"] == ("" if name is None else name))]
    shown = there if statistic is None else [statistic]
    if not set(shown) <= set(rows["statistic"]):
        known = [n for n in dict.fromkeys(table.loc[table["statistic"] == statistic, "name"]) if n]
        raise KeyError(f"{name!r} is no name of {statistic!r}, which has {known}")
    if ax is not None and len(shown) > 1:
        raise ValueError(f"ax holds one statistic, the table has {shown}; name one with statistic=")
    if ax is None:
        figure, grid = plt.subplots(
            1, len(shown), figsize=(0.8 + 3.1 * len(shown), 3.4), layout="constrained", squeeze=False
        )
        axes: Any = grid[0]
    else:
        figure, axes = ax.get_figure(root=True), np.array([ax], dtype=object)  # type: ignore[assignment]
    for panel, kind in zip(axes, shown, strict=True):
        _draw(panel, rows[rows["statistic"] == kind], table.attrs, kind, name)
    _explain(figure, axes[0], table, own=ax is None)
    return finish(figure, axes if len(shown) > 1 else axes[0], show, return_fig)


def _draw(ax: Axes, rows: pd.DataFrame, attrs: Any, kind: str, name: str | None) -> None:
    conditions = list(dict.fromkeys(rows["condition"]))
    times = np.sort(rows["time"].unique())
    gap = np.diff(times).min() if len(times) > 1 else 1.0
    ax.axhline(0, color="0.5", lw=0.8)
    for k, condition in enumerate(conditions):
        part = rows[rows["condition"] == condition]
        x = part["time"].to_numpy() + 0.12 * gap * (k - (len(conditions) - 1) / 2)
        color, effect = COLORS[k % len(COLORS)], part["effect"].to_numpy()
        sure = (part["p_adj"] < attrs.get("alpha", 0.05)).to_numpy()
        ax.plot(x, effect, color=color, lw=0.8, alpha=0.5)
        ax.vlines(x, part["low"], part["high"], color=color, lw=1.4)
        ax.scatter(x, effect, s=36, facecolor=np.where(sure, color, "white"), edgecolor=color, lw=1.4, zorder=3)
    title, unit = STATISTICS.get(kind, (kind, "effect"))
    ax.set_title(title if name is None else name, fontsize="medium")
    ax.set_ylabel(unit if name is None else NAMED.get(kind, unit))
    ax.set_xlabel(attrs.get("time", "time"))
    ax.spines[["top", "right"]].set_visible(False)


def _explain(figure: Any, ax: Axes, table: pd.DataFrame, *, own: bool) -> None:
    """A legend below all panels, or in the axes of somebody else."""
    alpha = table.attrs.get("alpha", 0.05)
    handles = []
    for k, condition in enumerate(dict.fromkeys(table["condition"])):
        label = f"{condition} against {table['reference'].iloc[0]}"
        color = COLORS[k % len(COLORS)]
        handles.append(
            ax.scatter([], [], s=36, facecolor=color, edgecolor=color, label=f"{label}, adjusted p < {alpha:g}")
        )
        handles.append(ax.scatter([], [], s=36, facecolor="white", edgecolor=color, label=f"{label}, not sure"))
    where: Any = {"loc": "outside lower center", "ncols": 2 if len(figure.axes) > 1 else 1} if own else {"loc": "best"}
    (figure if own else ax).legend(handles=handles, frameon=False, fontsize="small", **where)
