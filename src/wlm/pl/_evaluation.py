"""Scores of models on held-out times beside those of naive answers."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from wlm.core.methods import DEFAULT, METHODS
from wlm.pl._arguments import Labels, styled
from wlm.pl._colors import chosen_colors, model_colors
from wlm.pl._facets import facets
from wlm.pl._legend import legend
from wlm.pl._style import Style

#: Naive answers are grey, told apart by their markers.
MARKERS = {
    "previous": "<",
    "next": ">",
    "pooled": "s",
    "ot_midpoint": "D",
    "spline": "^",
    "relaxed_midpoint": "v",
    "others": "s",
    "shifted": "D",
}
NAMES = {
    "previous": "previous time",
    "next": "next time",
    "pooled": "both, mixed",
    "ot_midpoint": "OT midpoint",
    "spline": "OT spline",
    "relaxed_midpoint": "semi-relaxed midpoint",
    "others": "other samples",
    "shifted": "shifted as the others",
    "floor": "floor (half against half)",
}


@styled(
    Labels,
    palette="Colours of the models: a colormap's name, a list, or a dict. By default a method has the same in every "
    "figure.",
    ax="Axes to draw the scores on; the differences are then left out.",
)
def evaluation(
    table: pd.DataFrame, *, metric: str | None = None, condition: str | None = None, **style: Unpack[Labels]
) -> Any:
    """Draw what :func:`wlm.tl.evaluate` returned: scores at each held-out time, and what decides between answers.

    Scores are in per cent of that of the best naive answer at each time, which is below the name of the time; coverage,
    and metrics whose best score is not above zero, are drawn as they are.

    Parameters
    ----------
    table
        The table.
    metric
        Column to draw; by default the first metric.
    condition
        Of a table of several conditions, which one to draw; by default all of them, with the same axes and colours.

    Returns
    -------
    The axes, the figure with ``return_fig``, or None if it was shown. On the left each point is a fit (a dot for each
    seed), grey markers are the naive answers, and a dashed line is the floor, what a perfect prediction of half as many
    cells would reach. On the right, with intervals only: mean difference to each naive answer with its 95 % interval,
    in per cent of the mean score of the best one. The difference to that one decides, as in the verdict of the table,
    and is drawn full; left of zero the model is better. Of samples left out (``group_key``), means are over samples.

    Raises
    ------
    KeyError, ValueError
        If it is not such a table, or has no such metric or condition.
    """
    needed = {"time", "model", "seed", "n_observed", "n_predicted"}
    if not isinstance(table, pd.DataFrame) or not needed <= set(table.columns):
        raise ValueError(
            "table must be what wlm.tl.evaluate returns; run table = wlm.tl.evaluate(adata, time_key) first"
        )
    metrics = [c for c in table.columns if c not in needed | {"condition", "group"}]
    metric = metrics[0] if metric is None else metric
    if metric not in metrics:
        raise KeyError(f"metric {metric!r} is not in the table, which has {metrics}")
    known = [str(name) for name in table["condition"].unique()] if "condition" in table else []
    if condition is not None:
        if condition not in known:
            raise ValueError(f"condition {condition!r} is not in the table, which has {known or 'none'}")
        table = table[table["condition"].astype(str) == condition]
    elif len(known) > 1:
        parts = {name: table[table["condition"].astype(str) == name] for name in known}
        # Times held out are places along x, and answers along y, which conditions need not have in common.
        return facets({name: functools.partial(_draw, part, metric) for name, part in parts.items()}, style, ("y", "x"))
    return _draw(table, metric, **style)


def _draw(table: pd.DataFrame, metric: str, **style: Any) -> Any:
    """The table of one condition."""
    look = Style(**style)
    methods = [name for name in dict.fromkeys(table["model"]) if name not in (*MARKERS, "floor")]
    colors = _model_colors(methods) if look.palette is None else chosen_colors(methods, look.palette)
    scores = _Scores.of(table, metric, methods)
    differences = _differences(table, metric)
    if look.ax is None and differences:
        _, axes = look.axes(2, (4.9, 3.8), ncols=2, width_ratios=(5, 4))
        _draw_differences(axes[1], differences, scores, colors)
    else:
        axes = [look.one((5.4, 3.8))]
    _draw_scores(axes[0], scores, colors, table.attrs.get("time", "time"))
    # The entries of differences are named where they are drawn.
    legend(look, axes, axes[0].get_legend_handles_labels()[0], below=4 if len(axes) > 1 else 3)
    return look.finish(axes, axes if len(axes) > 1 else axes[0])


def _model_colors(methods: Sequence[str]) -> dict[str, str]:
    """The usual colours, of which the default method has the first."""
    return model_colors(methods, sorted(METHODS, key=lambda name: name != DEFAULT))


@dataclass(frozen=True)
class _Scores:
    """Scores of one metric by time, model and seed, and the best naive one at each time: (T,), NaN if unscaled."""

    rows: pd.DataFrame
    metric: str
    methods: Sequence[str]
    times: np.ndarray
    best: np.ndarray

    @classmethod
    def of(cls, table: pd.DataFrame, metric: str, methods: Sequence[str]) -> _Scores:
        rows = table.assign(score=table[metric])
        times = np.sort(rows["time"].unique())
        naive = rows[rows["model"].isin(list(MARKERS))]
        best = np.array([_best(naive[naive["time"] == t]) for t in times])
        if metric == "coverage" or not (best > 0).all():
            best = np.full(len(times), np.nan)
        return cls(rows, metric, methods, times, best)

    @property
    def relative(self) -> bool:
        """Whether scores are per cent of the best naive one."""
        return bool(np.isfinite(self.best).all())

    def shown(self, rows: pd.DataFrame) -> np.ndarray:
        """The scores of some rows, as they are drawn."""
        values = rows["score"].to_numpy(dtype=float)
        return 100 * values / self.best[np.searchsorted(self.times, rows["time"])] if self.relative else values

    def reference(self, row: Mapping[str, Any], kinds: set[str]) -> tuple[str, float]:
        """The naive answer that decides on a difference, the one with the best mean, and that mean."""
        kind = row["kind"]
        if "group" in self.rows:
            return self._over_groups(row["model"])
        last = self.times[-1]
        forecast = {"forecast": [last], "interpolation": [t for t in self.times if t != last]}
        times = list(self.times) if len(kinds) == 1 else forecast.get(kind, list(self.times))
        part = self.rows[self.rows["time"].isin(times) & self.rows["model"].isin(list(MARKERS))]
        means = part.groupby(["model", "time"])["score"].mean().groupby("model").mean()
        return str(means.idxmin()), float(means.min())

    def _over_groups(self, model: str) -> tuple[str, float]:
        """The same of samples left out: by means over samples of the means of each, where both answers are there."""
        by_time = self.rows.groupby(["model", "group", "time"])["score"].mean()
        naive = [name for name in MARKERS if name in by_time.index]
        both = {name: (by_time[model] - by_time[name]).dropna() for name in naive}
        best = max(both, key=lambda name: _over(both[name]))
        return best, _over(by_time[best][both[best].index])


def _over(scores: pd.Series) -> float:
    """The mean over groups of the means over their times."""
    return float(scores.groupby("group").mean().mean())


def _best(naive: pd.DataFrame) -> float:
    """The score of the best naive answer at one time; of several groups by its mean over those that have them all."""
    if len(naive) == 0:
        return np.nan
    if "group" not in naive:
        return float(naive["score"].min())
    by_group = naive.pivot_table(index="group", columns="model", values="score")
    complete = by_group.dropna()
    return float((complete if len(complete) else by_group).mean().min())


def _differences(table: pd.DataFrame, metric: str) -> list[Mapping[str, Any]]:
    """The differences with intervals between what is in the table, if they are over its times."""
    models, n_times = set(table["model"]), table["time"].nunique()
    conditions = set(table["condition"]) if "condition" in table else {None}
    found = [
        row
        for row in table.attrs.get("differences", [])
        if row["metric"] == metric
        and "low" in row
        and row.get("condition") in conditions
        and {row["model"], row["baseline"]} <= models
    ]
    # Otherwise they are over other times than those that are left in the table.
    return found if sum({row["kind"]: row["n_times"] for row in found}.values()) == n_times else []


def _draw_scores(ax: Axes, scores: _Scores, colors: Mapping[str, Any], time_label: str) -> None:
    times, rows = scores.times, scores.rows
    shown = [*(b for b in MARKERS if b in set(rows["model"])), *scores.methods]
    offset = dict(zip(shown, np.linspace(-0.28, 0.28, len(shown)) if len(shown) > 1 else [0.0], strict=True))
    floor = rows[rows["model"] == "floor"]
    for k, t in enumerate(times):
        here = floor[floor["time"] == t]
        if len(here):
            label = NAMES["floor"] if k == 0 else "_"  # one entry in the legend
            ax.hlines(scores.shown(here).mean(), k - 0.4, k + 0.4, color="0.45", lw=1, ls="--", label=label)
    if scores.relative:
        ax.axhline(100, color="black", lw=0.8, zorder=1)
    for name in shown:
        part = rows[rows["model"] == name]
        x = np.searchsorted(times, part["time"]) + offset[name]
        if name in MARKERS:
            ax.scatter(x, scores.shown(part), s=32, marker=MARKERS[name], color="0.6", label=NAMES[name], zorder=2)
            continue
        ax.scatter(x, scores.shown(part), s=12, color=colors[name], alpha=0.6, lw=0, zorder=3)
        means = part.groupby("time", as_index=False)["score"].mean()
        x = np.searchsorted(times, means["time"]) + offset[name]
        ring: dict[str, Any] = {"s": 42, "facecolor": "none", "edgecolor": colors[name], "lw": 1.6, "label": name}
        ax.scatter(x, scores.shown(means), **ring)
    names = [f"{t:g}" for t in times]
    if scores.relative:
        names = [f"{name}\n{best:.3g}" for name, best in zip(names, scores.best, strict=True)]
    ax.set_xticks(range(len(times)), names)
    ax.set_xlim(-0.6, len(times) - 0.4)
    if scores.metric == "coverage":
        ax.axhline(0.95, color="black", lw=0.8, ls=":", label="nominal 95 %")
    elif scores.relative:
        ax.set_ylim(0, 1.08 * max(ax.dataLim.y1, 100))
    name = _label(scores.metric)
    below = f"\nbelow: 100 % as {name.split(' (')[0]}" if scores.relative else ""
    ax.set_xlabel(f"held-out {time_label}{below}")
    ax.set_ylabel(f"{name.split(' (')[0]}, % of the best naive answer" if scores.relative else name)
    ax.spines[["top", "right"]].set_visible(False)


def _draw_differences(
    ax: Axes, differences: Sequence[Mapping[str, Any]], scores: _Scores, colors: Mapping[str, Any]
) -> None:
    """Intervals, of which those that decide are full and the others pale."""
    kinds = {row["kind"] for row in differences}
    labels = []
    for k, row in enumerate(differences):
        best, mean = scores.reference(row, kinds)
        scale = 100 / mean if scores.relative else 1.0
        decides = row["baseline"] == best
        strong: dict[str, Any] = {"color": colors[row["model"]], "alpha": 1.0 if decides else 0.45}
        ax.plot([scale * row["low"], scale * row["high"]], [k, k], lw=2.6 if decides else 1.4, **strong)
        ax.scatter([scale * row["difference"]], [k], s=42 if decides else 22, zorder=3, lw=0, **strong)
        name = f"{row['model']} - {NAMES.get(row['baseline'], row['baseline'])}"
        labels.append(name + (f" ({row['kind']})" if len(kinds) > 1 else "") + (", decides" if decides else ""))
    ax.axvline(0, color="black", lw=0.8)
    ax.set_yticks(range(len(labels)), labels, fontsize="small")
    for tick, label in zip(ax.get_yticklabels(), labels, strict=True):
        tick.set_fontweight("bold" if label.endswith("decides") else "normal")
    ax.set_ylim(len(labels) - 0.4, -0.6)
    unit = ", % of the best naive" if scores.relative else ""
    text = f"difference in {_label(scores.metric).split(' (')[0]}{unit}\n95 % intervals; left of 0: better"
    ax.set_xlabel(text, fontsize="small")
    ax.spines[["top", "right"]].set_visible(False)


def _label(metric: str) -> str:
    names = {"w1": "W1 (units of the embedding)", "w2": "W2 (units of the embedding)", "mmd": "MMD²"}
    names |= {"energy": "energy distance", "coverage": "coverage", "composition": "error of the composition"}
    return names.get(metric, metric)
