"""Scores of models on held-out times beside those of the baselines."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from wlm.pl._basis import finish

#: Okabe and Ito's colours for methods; baselines are grey, told apart by their markers.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
MARKERS = {"previous": "<", "next": ">", "pooled": "s", "ot_midpoint": "D", "spline": "^", "relaxed_midpoint": "v"}
NAMES = {
    "previous": "previous time",
    "next": "next time",
    "pooled": "both, mixed",
    "ot_midpoint": "OT midpoint",
    "spline": "OT spline",
    "relaxed_midpoint": "semi-relaxed midpoint",
    "floor": "floor (half against half)",
}


def evaluation(
    table: pd.DataFrame,
    *,
    metric: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Any:
    """Draw what :func:`wlm.tl.evaluate` returned: scores at each held-out time, and differences to the baselines.

    Parameters
    ----------
    table
        The table, of one condition.
    metric
        Column to draw; by default the first metric.
    ax
        Axes to draw the scores on; the differences are then left out.
    show
        Show the figure; by default in interactive mode only.
    return_fig
        Return the figure.

    Returns
    -------
    The figure, or the axes, or None if the figure was shown. On the left each point is a fit (a dot for each seed),
    grey markers are the baselines, and a dashed line is the floor, what a perfect prediction of half as many cells
    would reach. On the right, with intervals only: mean difference to each baseline with its 95 % interval; left of
    zero the model is better.

    Raises
    ------
    KeyError, ValueError
        If it is not such a table, or of several conditions.
    """
    needed = {"time", "model", "seed", "n_observed", "n_predicted"}
    if not isinstance(table, pd.DataFrame) or not needed <= set(table.columns):
        raise ValueError(
            "table must be what wlm.tl.evaluate returns; run table = wlm.tl.evaluate(adata, time_key) first"
        )
    if "condition" in table and table["condition"].nunique() > 1:
        names = list(table["condition"].unique())
        raise ValueError(f"draw one condition at a time: table[table['condition'] == {names[0]!r}]; found {names}")
    metrics = [c for c in table.columns if c not in needed | {"condition"}]
    metric = metrics[0] if metric is None else metric
    if metric not in metrics:
        raise KeyError(f"metric {metric!r} is not in the table, which has {metrics}")
    models, n_times = set(table["model"]), table["time"].nunique()
    conditions = set(table["condition"]) if "condition" in table else {None}
    differences = [
        row
        for row in table.attrs.get("differences", [])
        if row["metric"] == metric
        and "low" in row
        and row.get("condition") in conditions
        and {row["model"], row["baseline"]} <= models
    ]
    if sum({row["kind"]: row["n_times"] for row in differences}.values()) != n_times:
        differences = []  # the differences are over other times than those that are left in the table
    if ax is None and differences:
        figure, (ax, right) = plt.subplots(
            1, 2, figsize=(8.4, 3.6), layout="constrained", gridspec_kw={"width_ratios": (3, 2)}
        )
        _draw_differences(right, differences, metric, _methods(table))
        axes: Any = np.array([ax, right], dtype=object)
    else:
        if ax is None:
            ax = plt.subplots(figsize=(5.2, 3.6), layout="constrained")[1]
        figure, axes = ax.get_figure(root=True), ax  # type: ignore[assignment]
    _draw_scores(ax, table, metric)
    return finish(figure, axes, show, return_fig)


def _methods(table: pd.DataFrame) -> list[str]:
    return [name for name in dict.fromkeys(table["model"]) if name not in (*MARKERS, "floor")]


def _draw_scores(ax: Axes, table: pd.DataFrame, metric: str) -> None:
    times = np.sort(table["time"].unique())
    place = {t: k for k, t in enumerate(times)}
    methods = _methods(table)
    shown = [*(b for b in MARKERS if b in set(table["model"])), *methods]
    offset = dict(zip(shown, np.linspace(-0.28, 0.28, len(shown)) if len(shown) > 1 else [0.0], strict=True))
    for t in times:
        floor = table.loc[(table["time"] == t) & (table["model"] == "floor"), metric]
        if len(floor):
            label = NAMES["floor"] if t == times[0] else "_"  # one entry in the legend
            ax.hlines(floor.mean(), place[t] - 0.4, place[t] + 0.4, color="0.45", lw=1, ls="--", label=label)
    for name in shown:
        rows = table[table["model"] == name]
        x = rows["time"].map(place).to_numpy(dtype=float) + offset[name]
        if name in MARKERS:
            ax.scatter(x, rows[metric], s=32, marker=MARKERS[name], color="0.6", label=NAMES[name], zorder=2)
            continue
        color = COLORS[methods.index(name) % len(COLORS)]
        ax.scatter(x, rows[metric], s=12, color=color, alpha=0.6, lw=0, zorder=3)
        means = rows.groupby("time")[metric].mean()
        ax.scatter(
            [place[t] + offset[name] for t in means.index],
            means,
            s=42,
            facecolor="none",
            edgecolor=color,
            lw=1.6,
            label=name,
        )
    ax.set_xticks(range(len(times)), [f"{t:g}" for t in times])
    ax.set_xlim(-0.6, len(times) - 0.4)
    if metric != "coverage":
        ax.set_ylim(bottom=0)
    else:
        ax.axhline(0.95, color="black", lw=0.8, ls=":", label="nominal 95 %")
    ax.set_xlabel(f"held-out {table.attrs.get('time', 'time')}")
    ax.set_ylabel(_label(metric))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)


def _draw_differences(ax: Axes, differences: list[dict[str, Any]], metric: str, methods: list[str]) -> None:
    for k, row in enumerate(differences):
        color = COLORS[methods.index(row["model"]) % len(COLORS)]
        ax.plot([row["low"], row["high"]], [k, k], color=color, lw=1.6)
        ax.scatter([row["difference"]], [k], s=36, color=color, zorder=3)
    ax.axvline(0, color="black", lw=0.8)
    kinds = {row["kind"] for row in differences}
    labels = [
        f"{row['model']} - {NAMES.get(row['baseline'], row['baseline'])}"
        + (f" ({row['kind']})" if len(kinds) > 1 else "")
        for row in differences
    ]
    ax.set_yticks(range(len(labels)), labels, fontsize="small")
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.set_xlabel(f"difference in {_label(metric).split(' (')[0]}")
    ax.set_title("left of zero: the model is better", fontsize="small")
    ax.spines[["top", "right"]].set_visible(False)


def _label(metric: str) -> str:
    names = {"w1": "W1 (units of the embedding)", "w2": "W2 (units of the embedding)", "mmd": "MMD²"}
    names |= {"energy": "energy distance", "coverage": "coverage", "composition": "error of the composition"}
    return names.get(metric, metric)
