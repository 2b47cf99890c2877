"""Predictions against sisters: how near, and how far probabilities can be believed."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from wlm.core.methods import DEFAULT, METHODS
from wlm.pl._arguments import Labels, styled
from wlm.pl._colors import chosen_colors, model_colors
from wlm.pl._legend import legend
from wlm.pl._style import Style

#: What the answers are called that are no method.
NAMES = {
    "fates": "wlm.tl.fates",
    "itself": "cell itself",
    "transport": "optimal transport",
    "majority": "majority",
    "neighbours": "neighbours, taught",
    "regression": "regression, taught",
}


@styled(
    Labels,
    palette="Colours of the answers: a colormap's name, a list, or a dict. By default a method has the same in every "
    "figure.",
    ax="Axes to draw the metric on; the calibration curve is then left out.",
)
def clones(table: pd.DataFrame, *, metric: str = "distance", **style: Unpack[Labels]) -> Any:
    """Draw what :func:`wlm.tl.evaluate_clones` returned: a score of every answer, and calibration curves.

    Parameters
    ----------
    table
        The table.
    metric
        ``"distance"``, ``"accuracy"``, ``"brier"``, ``"auroc"`` or ``"calibration"``.

    Returns
    -------
    The axes, a list of both where there are two, the figure with ``return_fig``, or None if it was shown. Left: the
    score with its 95 % interval over clones; answers that were taught by other clones are marked. Right, where labels
    were scored: of the cells to which an answer gives a probability, the share of sisters that have the label, with its
    interval; on the diagonal probabilities can be believed. Points are larger where more probabilities are in a bin.

    Raises
    ------
    KeyError, ValueError
        If it is not such a table, or has no such metric.
    """
    if not isinstance(table, pd.DataFrame) or not {"model", "distance", "n_clones"} <= set(table.columns):
        raise ValueError("table must be what wlm.tl.evaluate_clones returns; run that first")
    metrics = [c.removesuffix("_low") for c in table.columns if c.endswith("_low")]
    if metric not in metrics:
        raise KeyError(f"metric {metric!r} is not in the table, which has {metrics}")
    rows = table[np.isfinite(table[metric].astype(float))]  # of a file, a column of nothing holds None
    if rows.empty:
        raise ValueError(f"no answer has a {metric}: it needs labels, run wlm.tl.evaluate_clones(label_key=...)")
    look, curve = Style(**style), table.attrs.get("curve") or {}
    both = bool(curve) and look.ax is None
    _, panels = look.axes(2 if both else 1, (3.9, 3.4))
    names = rows["model"].tolist()
    colors = _colors(names, look)
    _scores(panels[0], rows, metric, colors, table.attrs)
    if both:
        told = [name for name in curve if name in colors]
        _curves(panels[1], {name: curve[name] for name in told}, colors)
        legend(look, panels, panels[1].get_legend_handles_labels()[0])
    return look.finish(panels, panels if both else panels[0])


def _colors(names: list[str], look: Style) -> dict[str, Any]:
    """A colour for each answer: that of its method, and greys for those that are none."""
    if look.palette is not None:
        return chosen_colors(names, look.palette)
    ours = [name for name in names if name in METHODS]
    others = [name for name in names if name not in METHODS]
    greys = np.linspace(0.15, 0.75, max(1, len(others)))
    known = sorted(METHODS, key=lambda name: name != DEFAULT)
    return model_colors(ours, known) | {name: str(round(g, 2)) for name, g in zip(others, greys, strict=False)}


def _scores(ax: Axes, rows: pd.DataFrame, metric: str, colors: dict[str, Any], attrs: Any) -> None:
    places = np.arange(len(rows))[::-1]
    for y, (_, row) in zip(places, rows.iterrows(), strict=True):
        color = colors[row["model"]]
        ax.hlines(y, row[f"{metric}_low"], row[f"{metric}_high"], color=color, lw=2)
        ax.plot(row[metric], y, "o", color=color, ms=7)
        ax.annotate(f"{row[metric]:.2f}", (row[metric], y), xytext=(0, 6), textcoords="offset points", ha="center")
    ax.set_yticks(places, [NAMES.get(name, name) for name in rows["model"]])
    ax.set_ylim(-0.6, len(rows) - 0.4)
    better = {"accuracy": "higher is better", "auroc": "higher is better, 0.5 is chance"}
    what = {"distance": "distance to sisters / to all"}.get(metric, metric)
    ax.set_xlabel(f"{what}\n({better.get(metric, 'lower is better')})")
    span = f"{attrs.get('time', 'time')} {attrs.get('start', np.nan):g} to {attrs.get('end', np.nan):g}"
    ax.set_title(f"{span}, {int(rows['n_clones'].iloc[0])} clones", fontsize="medium")
    ax.spines[["top", "right"]].set_visible(False)


def _curves(ax: Axes, curves: dict[str, Any], colors: dict[str, Any]) -> None:
    ax.plot([0, 1], [0, 1], color="0.6", lw=1, ls=":")
    most = max(max(one["n"]) for one in curves.values())
    for name, one in curves.items():
        found = pd.DataFrame(one)
        found = found[found["n"] > 0]
        color = colors[name]
        ax.plot(found["probability"], found["share"], color=color, lw=1.2, label=NAMES.get(name, name))
        ax.vlines(found["probability"], found["share_low"], found["share_high"], color=color, lw=1, alpha=0.6)
        ax.scatter(found["probability"], found["share"], s=15 + 60 * found["n"] / most, color=color, zorder=3)
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    ax.set_xlabel("probability of a label")
    ax.set_ylabel("share of sisters that have it")
    ax.spines[["top", "right"]].set_visible(False)
