"""What perturbed genes changed, beside what random genes of equal size change."""

from __future__ import annotations

from typing import Any, Unpack

import anndata as ad
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from wlm.pl._arguments import Legends, styled
from wlm.pl._colors import PREDICTED
from wlm.pl._legend import legend
from wlm.pl._style import Style

#: What the horizontal axis holds.
AXES = {
    "distance": "W1 to the cells left alone\n(units of the embedding)",
    "composition": "change in share of cells",
    "genes": "change in decoded mean\n(units of expression)",
}


@styled(Legends, ax="Axes to draw on; of a perturbation the genes are then left out.")
def perturbation(
    found: ad.AnnData | pd.DataFrame,
    *,
    key: str = "wlm",
    name: str | None = None,
    time: float | None = None,
    n_genes: int = 10,
    **style: Unpack[Legends],
) -> Any:
    """Draw what :func:`wlm.tl.perturb` found: effects as points, and grey bars for random genes of equal size.

    Parameters
    ----------
    found
        A perturbation (AnnData), or a screen (DataFrame).
    key
        Name of the fit that predicted the perturbation.
    name
        Of a screen: the label whose share is drawn, ``""`` for the distance; by default the label that changes most.
    time
        Predicted time to draw; the last one by default.
    n_genes
        Genes to draw of a perturbation, those that change most.

    Returns
    -------
    The axes, the figure with ``return_fig``, or None if it was shown. Of a perturbation: the shares of labels (or the
    distance where there are none), and the genes that change most. Of a screen: a row for each perturbation, ordered by
    effect. Points are effects by the first model, filled where they are beyond the bars; lines are the range over the
    models of an ensemble; bars hold 95 % of the effects of random genes of equal size.

    Raises
    ------
    KeyError, ValueError
        If it is neither, or has no such name or time.
    """
    look = Style(**style)
    table, title = _read(found, key)
    times = np.unique(table["time"])
    at = float(times[-1]) if time is None else float(time)
    if at not in times:
        raise ValueError(f"time {at:g} was not predicted; the times are {times.tolist()}")
    table = table[table["time"] == at]
    if "perturbation" in table:
        panels = [_screened(table, name)]
    else:
        if name is not None:
            raise ValueError("name chooses the label of a screen; a perturbation is drawn with all of them")
        own = table[table["statistic"] == ("composition" if "composition" in set(table["statistic"]) else "distance")]
        genes = table[table["statistic"] == "genes"].sort_values("effect", key=np.abs, ascending=False)
        panels = [own.assign(row=lambda part: part["name"].replace("", "population"))]
        panels += (
            [genes.head(n_genes).assign(row=lambda part: part["name"])]
            if look.ax is None and n_genes > 0 and len(genes)
            else []
        )
    rows = max(len(panel) for panel in panels)
    figure, axes = look.axes(len(panels), (4.2, 1.7 + 0.24 * rows), ncols=len(panels))
    if look.ax is None and look.title is None:
        figure.suptitle(f"{title or 'seen '}at {at:g}", fontsize="medium")
    for panel, part in zip(axes, panels, strict=True):
        _draw(panel, part)
    legend(look, axes, axes[0].get_legend_handles_labels()[0], below=len(panels))
    return look.finish(axes, axes if len(axes) > 1 else axes[0])


def _read(found: Any, key: str) -> tuple[pd.DataFrame, str]:
    """The effects, and what was done."""
    if isinstance(found, ad.AnnData):
        if f"{key}_perturbation" not in found.uns:
            raise KeyError(f"uns[{key + '_perturbation'!r}] is missing; draw what wlm.tl.perturb returns")
        note = found.uns[f"{key}_perturbation"]
        levels = zip(note["genes"], note["before"], note["levels"], strict=True)
        done = ", ".join(f"{name} {before:.2g} → {level:.2g}" for name, before, level in levels)
        return pd.DataFrame(dict(note["effects"])), f"{done} at {note['at']:g}, seen "
    if not isinstance(found, pd.DataFrame) or not {"perturbation", "statistic", "effect"} <= set(found.columns):
        raise ValueError("found must be what wlm.tl.perturb returns; run it first")
    return found, ""


def _screened(table: pd.DataFrame, name: str | None) -> pd.DataFrame:
    """A row of each perturbation of a screen, for one label."""
    shares = table[table["statistic"] == "composition"]
    if name is None:
        name = "" if shares.empty else shares.loc[shares["effect"].abs().idxmax(), "name"]
    rows = table[table["name"] == name]
    if rows.empty:
        raise KeyError(f"{name!r} is no label of the screen, which has {sorted(set(shares['name']))}")
    return rows.sort_values("effect").assign(row=lambda part: part["perturbation"], label=name)


def _draw(ax: Axes, rows: pd.DataFrame) -> None:
    y = np.arange(len(rows))[::-1]
    ax.axvline(0, color="0.5", lw=0.8)
    ax.use_sticky_edges = False  # points at the end of a bar need room
    if rows["null_low"].notna().any():
        width = rows["null_high"] - rows["null_low"]
        ax.barh(y, width, left=rows["null_low"], height=0.7, color="0.88", label="95 % of random genes of equal size")
    if rows["low"].notna().any():
        ax.hlines(y, rows["low"], rows["high"], color=PREDICTED, lw=1.4, label="models of the ensemble")
    beyond = rows["effect"].abs() > rows["null_high"]
    face = np.where(beyond, PREDICTED, "white")
    ax.scatter(
        rows["effect"],
        y,
        s=32,
        facecolor=face,
        edgecolor=PREDICTED,
        lw=1.4,
        zorder=3,
        label="effect (filled: beyond the bar)",
    )
    ax.set_yticks(y, rows["row"], fontsize="small")
    ax.set_ylim(-0.7, len(rows) - 0.3)
    kind = rows["statistic"].iloc[0]
    label = f"change in share of {rows['label'].iloc[0]}" if "label" in rows and kind == "composition" else AXES[kind]
    ax.set_xlabel(label)
    ax.spines[["top", "right"]].set_visible(False)
