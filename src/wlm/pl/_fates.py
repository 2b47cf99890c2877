"""Where the cells of each type end, as a Sankey diagram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from numpy.typing import NDArray

from wlm._adata.columns import read_column, read_obs_labels
from wlm._adata.mudata import get_target
from wlm._adata.times import find_observed, read_labels
from wlm._store.fit import StoredFit, open_fit
from wlm._store.group import fit_key
from wlm._store.results import read_result
from wlm.pl._arguments import Labels, styled
from wlm.pl._basis import time_label
from wlm.pl._colors import OBSERVED, label_colors, name_colors
from wlm.pl._facets import by_condition
from wlm.pl._style import Style

#: Width of a bar, space between two of them above each other, and beside each other.
_BAR, _GAP, _ASIDE = 0.05, 0.025, 0.02
#: Inches that the two lines of text beside a bar take.
_TEXT = 0.27
#: What small shares are put together as.
OTHER = "other"


@styled(
    Labels,
    without=("legend_loc",),
    palette="Colours of the labels: a colormap's name, a list, or a dict; by default ``uns['<groupby>_colors']``, if "
    "there.",
    legend_fontsize="Size of the text, in points or as matplotlib names it.",
)
@by_condition
def fates(
    adata: Any,
    groupby: str,
    *,
    key: str = "wlm",
    condition: str | None = None,
    time: Any = None,
    min_share: float = 0.02,
    mod: str | None = None,
    **style: Unpack[Labels],
) -> Any:
    """Draw in which terminal states the cells of each type end, as a Sankey diagram.

    The bars on the left are the cells of a time, by their labels. A band is as wide as the share of the cells that are
    to end in a state, the sum of their probabilities (:func:`wlm.tl.fates`), and has the colour of where it comes from.
    On the right there are three bars: the ends of these paths, the observed cells of the last training time, and where
    the free rollout of the fit leads from the first time. Paths are led through the observed cells, so that the first
    two agree; if the third one does not, the fit does not explain what is observed, and the figure says so.

    Of a fit with growth, bands are lineages, each of the founders once, which need not agree with what is observed; or
    their descendants, where :func:`wlm.tl.fates` has counted cells.

    These are the paths of the model, not lineages that were observed: populations at each time can be right where paths
    between them are not.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit, after :func:`wlm.tl.fates`.
    groupby
        Column of ``obs`` with labels, such as cell types; ``uns["<groupby>_colors"]`` are used if they are there.
    key
        Name of the fit; of fits by condition, that of all of them or of one.
    condition
        Of fits by condition, which one to draw; by default all of them, a panel or block of panels for each, with the
        same axes and colours.
    time
        The observed time on the left, as a number or label; by default the first training time.
    min_share
        Types and fates with a smaller share are drawn together as "other".
    mod
        Modality of a MuData that was fitted; without it, the fit of its joint representation.

    Returns
    -------
    The axes (of several conditions a list), the figure with ``return_fig``, or None if it was shown.

    Raises
    ------
    KeyError
        If there is no fit, no fates or no such column.
    ValueError
        If the column holds numbers or missing labels, ``time`` was not observed, or fates are those of another fit.
    """
    key = fit_key(adata, key, condition, mod)
    look = Style(**style)
    cells, fit = open_fit(adata, key, mod, columns=[groupby])
    target = get_target(adata, mod)
    times = fit.times(cells)
    note = read_result(target, fit, "fates", "fates")
    if not 0 <= min_share < 1:
        raise ValueError(f"min_share must be at least 0 and below 1, found {min_share!r}")
    labels, colors = read_obs_labels(cells, groupby), label_colors(cells, groupby, target, look.palette)
    start = float(fit.training[0])
    if time is not None:
        asked = read_labels(time, fit.style, "time")
        if len(asked) != 1:
            raise ValueError(f"time must be one observed time, found {time!r}")
        start = find_observed(float(asked[0]), fit.observed, "time")
    here = np.flatnonzero(times == start)
    if len(here) == 0:
        raise ValueError(f"adata has no cells of time {start:g}")
    p = np.asarray(target.obsm[f"{key}_fates"])[target.obs_names.get_indexer(cells.obs_names[here])]
    weights = fit.weights_of(cells)
    mass = np.ones(len(here)) if weights is None else weights[here]
    counted = str(note.get("count", "lineages")) if fit.dynamics.grows else None
    if counted == "cells":
        rows = target.obs_names.get_indexer(cells.obs_names[here])
        mass = mass * read_column(target, f"{key}_fate_descendants").to_numpy(dtype=float)[rows]
    names = [str(name) for name in np.ravel(note["names"])]
    flows = _flows(labels[here], p, mass / mass.sum(), [name for name in colors if name in set(labels[here])])
    ends = {name: np.array([note[k][i] for k in ("observed", "predicted")]) for i, name in enumerate(names)}
    flows, ends = _pooled(flows, dict(zip(names, ends.values(), strict=True)), min_share)

    rows = max(len(flows), len(ends))
    ax = look.one((7.2, max(3.4, 0.45 * rows + 1.4)))
    own = name_colors(target, fit, names) | {OTHER: OBSERVED}
    _draw(ax, flows, ends, colors | {OTHER: OBSERVED}, own)
    _explain(ax, fit, note, start, counted)
    ax.set(xlim=(-0.5, 1.75), ylim=(-0.02, 1.0))
    ax.axis("off")
    if look.legend_fontsize is not None:
        for text in ax.texts:
            text.set_fontsize(look.legend_fontsize)
    return look.finish([ax], ax)


def _flows(
    labels: NDArray[Any], p: NDArray[np.float32], mass: NDArray[np.float64], names: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Shares (f,) of all cells that go from each label to each fate."""
    return {name: (mass[labels == name] @ p[labels == name]).astype(np.float64) for name in names}


def _pooled(
    flows: Mapping[str, NDArray[np.float64]], ends: Mapping[str, NDArray[np.float64]], least: float
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
    """Types and fates with less than ``least`` put together: shares (f,) by type, and (3,) by fate.

    Of a fate these are the share of the paths, of the observed cells and of the free rollout.
    """
    paths = np.sum(list(flows.values()), axis=0)
    shares = {name: np.array([paths[i], *end]) for i, (name, end) in enumerate(ends.items())}
    large = [i for i, s in enumerate(shares.values()) if s.max() >= least]
    small = [i for i in range(len(shares)) if i not in large]
    kept = {name: s for i, (name, s) in enumerate(shares.items()) if i in large}
    if small:
        kept[OTHER] = np.sum([s for i, s in enumerate(shares.values()) if i in small], axis=0)
    pooled = {
        name: np.append(flow[large], flow[small].sum()) if small else flow
        for name, flow in flows.items()
        if flow.sum() >= least
    }
    rest = [flow for name, flow in flows.items() if name not in pooled]
    if rest:
        total = np.sum(rest, axis=0)
        pooled[OTHER] = np.append(total[large], total[small].sum()) if small else total
    return pooled, kept


def _scale(columns: Sequence[Sequence[float]], least: float) -> float:
    """Height of a share of one: as large as the columns allow, whose bars have room for ``least`` each."""

    def height(scale: float) -> float:
        return max(sum(max(share * scale, least) + _GAP for share in column) - _GAP for column in columns)

    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if height(middle) <= 1 else (low, middle)
    return low


def _draw(
    ax: Axes,
    flows: Mapping[str, NDArray[np.float64]],
    ends: Mapping[str, NDArray[np.float64]],
    colors: Mapping[str, Any],
    own: Mapping[str, Any],
) -> None:
    """Bars from the top down, and the bands between them."""
    figure: Any = ax.get_figure(root=True)
    inches = figure.get_figheight() * ax.get_position().height
    least = min(_TEXT / inches, 0.9 / max(len(flows), len(ends)) - _GAP)
    scale = _scale([[flow.sum() for flow in flows.values()], [share.max() for share in ends.values()]], least)
    top, begin = 1.0, {}
    for name, flow in flows.items():
        height = float(flow.sum()) * scale
        begin[name] = top
        ax.add_patch(Rectangle((-_BAR / 2, top - height), _BAR, height, color=colors[name], lw=0, zorder=3))
        text = f"{name} {flow.sum():.0%}"
        ax.text(-_BAR, top - height / 2, text, ha="right", va="center", fontsize="small")
        top -= max(height, least) + _GAP
    top = 1.0
    for k, (name, share) in enumerate(ends.items()):
        for j, s in enumerate(share):
            x = 1 - _BAR / 2 + j * (_BAR + _ASIDE)
            style: dict[str, Any] = {"hatch": "////" if j == 1 else None, "alpha": 0.45 if j == 2 else 1.0}
            bar = Rectangle((x, top - s * scale), _BAR, s * scale, fc=own[name], ec="white", lw=0, zorder=3, **style)
            ax.add_patch(bar)
        end = top
        for label, flow in flows.items():
            height = float(flow[k]) * scale
            if height > 0:
                _band(ax, begin[label], end, height, colors[label])
                begin[label] -= height
                end -= height
        height = float(share.max()) * scale
        x, y = 1 + 2.5 * _BAR + 3 * _ASIDE, top - max(height, least * 0.8) / 2
        ax.text(x, y, f"{name} {share[0]:.0%}", ha="left", va="bottom", fontsize="small")
        second = f"observed {share[1]:.0%}, free {share[2]:.0%}"
        ax.text(x, y, second, ha="left", va="top", fontsize="x-small", color="0.35")
        top -= max(height, least) + _GAP


def _explain(ax: Axes, fit: StoredFit, note: Mapping[str, Any], start: float, counted: str | None) -> None:
    """What the bars are, above them, and below whether the fit misses what is observed."""
    unit, last, at = time_label(fit), float(fit.training[-1]), float(note["at"])
    left = {None: "observed", "lineages": "observed", "cells": "by descendants"}[counted]
    paths = {None: "paths", "lineages": "lineages", "cells": "descendants"}[counted]
    ax.text(0, 1.03, f"{unit} {start:.4g}\n{left}", ha="center", va="bottom", fontsize="small")
    ends = f"{unit} {at:.4g}" if at == last else f"{unit} {at:.4g}, observed {last:.4g}"
    x = 1 - _BAR / 2
    ax.text(
        x, 1.03, f"{ends}\n{paths}, observed (hatched), free rollout (pale)", ha="left", va="bottom", fontsize="small"
    )
    if float(note["missed"]) > float(note["tolerated"]):
        text = f"the free rollout puts {float(note['missed']):.0%} of the cells into another state than observed"
        ax.text(0.6, -0.06, text, ha="center", va="top", fontsize="small", color="#B22222")


def _band(ax: Axes, left: float, right: float, height: float, color: Any) -> None:
    """A band from the left to the right, whose upper edge goes from ``left`` to ``right``."""
    x0, x1 = _BAR / 2, 1 - _BAR / 2
    middle = (x0 + x1) / 2
    upper = [(x0, left), (middle, left), (middle, right), (x1, right)]
    lower = [(x1, right - height), (middle, right - height), (middle, left - height), (x0, left - height)]
    codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
    ax.add_patch(PathPatch(Path([*upper, *lower, upper[0]], codes), facecolor=color, alpha=0.45, lw=0))
