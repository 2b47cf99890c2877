"""What differs between conditions, when, and how sure that is."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from wlm.pl._arguments import LabelPanels, styled
from wlm.pl._colors import COLORS, chosen_colors
from wlm.pl._legend import legend
from wlm.pl._style import Style

#: Titles of the statistics, and the unit of their effects.
STATISTICS = {
    "distance": ("observed cells", "W1, across − within\n(units of the embedding)"),
    "predicted": ("predicted cells", "W1, across − within\n(units of the embedding)"),
    "mean": ("means of the components", "distance, across − within\n(units of the embedding)"),
    "composition": ("composition", "difference in shares,\nacross − within"),
    "genes": ("means of the genes", "distance, across − within\n(units of expression)"),
    "speed": ("speed", "difference in speed\n(units of the embedding / time)"),
    "kinetic": ("kinetic energy", "difference in energy per cell\n(units of the embedding² / time²)"),
    "energy": ("landscape", "difference in energy,\nacross − within"),
    "growth": ("growth", "difference in rates (1 / time)"),
}
#: The same of one component, label or gene.
NAMED = {"mean": "difference in mean\n(units of the embedding)", "composition": "difference in share of cells"}
NAMED |= {"genes": "difference in mean\n(units of expression)"}
NAMED |= {"growth": "difference in births less deaths\n(per cell of all and time)"}


@styled(
    LabelPanels,
    palette="Colours of the conditions: a colormap's name, a list, or a dict.",
    ax="Axes to draw on, one for each statistic.",
)
def comparison(
    table: pd.DataFrame,
    *,
    statistic: str | None = None,
    name: str | None = None,
    **style: Unpack[LabelPanels],
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

    Returns
    -------
    The axes, the figure with ``return_fig``, or None if it was shown. A colour for each condition other than the
    reference: effects (of a statistic as a whole, how much farther samples of different conditions are apart than
    samples of the same) with their 95 % intervals over samples, filled where the adjusted p-value is below the
    level of the comparison, hollow where it is not or where there is none.

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
    look = Style(**style)
    size = (3.1 + 0.8 / len(shown), 3.4)
    _, axes = look.axes(len(shown), size, ncols=len(shown) if len(shown) <= 6 else None)
    colors = _colors(table, look)
    for panel, kind in zip(axes, shown, strict=True):
        _draw(panel, rows[rows["statistic"] == kind], table.attrs, kind, name, colors)
    legend(look, axes, _handles(table, colors), below=2 if len(axes) > 1 else 1)
    return look.finish(axes, axes if len(axes) > 1 else axes[0])


def _colors(table: pd.DataFrame, look: Style) -> dict[str, Any]:
    """A colour for each condition."""
    names = [str(c) for c in dict.fromkeys(table["condition"])]
    chosen = [COLORS[k % len(COLORS)] for k in range(len(names))] if look.palette is None else look.palette
    return chosen_colors(names, chosen)


def _draw(ax: Axes, rows: pd.DataFrame, attrs: Any, kind: str, name: str | None, colors: dict[str, Any]) -> None:
    conditions = list(dict.fromkeys(rows["condition"]))
    times = np.sort(rows["time"].unique())
    gap = np.diff(times).min() if len(times) > 1 else 1.0
    ax.axhline(0, color="0.5", lw=0.8)
    for k, condition in enumerate(conditions):
        part = rows[rows["condition"] == condition]
        x = part["time"].to_numpy() + 0.12 * gap * (k - (len(conditions) - 1) / 2)
        color, effect = colors[str(condition)], part["effect"].to_numpy()
        sure = (part["p_adj"] < attrs.get("alpha", 0.05)).to_numpy()
        ax.plot(x, effect, color=color, lw=0.8, alpha=0.5)
        ax.vlines(x, part["low"], part["high"], color=color, lw=1.4)
        ax.scatter(x, effect, s=36, facecolor=np.where(sure, color, "white"), edgecolor=color, lw=1.4, zorder=3)
    title, unit = STATISTICS.get(kind, (kind, "effect"))
    ax.set_title(title if name is None else name, fontsize="medium")
    ax.set_ylabel(unit if name is None else NAMED.get(kind, unit))
    ax.set_xlabel(attrs.get("time", "time"))
    ax.spines[["top", "right"]].set_visible(False)


def _handles(table: pd.DataFrame, colors: dict[str, Any]) -> list[Any]:
    """What the points are: sure ones filled."""
    alpha, handles = table.attrs.get("alpha", 0.05), []
    for name, color in colors.items():
        label = f"{name} against {table['reference'].iloc[0]}"
        dot: dict[str, Any] = {"marker": "o", "ls": "", "ms": 6, "mec": color, "mew": 1.4}
        handles.append(Line2D([], [], **dot, mfc=color, label=f"{label}, adjusted p < {alpha:g}"))
        handles.append(Line2D([], [], **dot, mfc="white", label=f"{label}, not sure"))
    return handles
