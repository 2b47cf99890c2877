"""Where the cells of each type are predicted to go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch, PathPatch, Rectangle
from matplotlib.path import Path
from numpy.typing import NDArray

from wlm._adata.cells import read_rep
from wlm._adata.columns import read_obs_labels
from wlm._adata.mudata import get_target
from wlm._adata.neighbours import from_neighbours
from wlm._adata.times import find_observed, read_labels
from wlm._random import RNG, as_seed
from wlm._store.fit import check_representation, open_fit
from wlm.core.dynamics import CHUNK
from wlm.pl._basis import finish, label_colors, time_label
from wlm.tl import predict

#: Width of a bar, and space between two of them over and above each other, as shares of the axes.
_BAR, _GAP = 0.035, 0.02
#: Smallest share of a bar that gets its name beside it.
_NAMED = 0.015


def fates(
    adata: Any,
    groupby: str,
    *,
    key: str = "wlm",
    times: Any = None,
    mod: str | None = None,
    rng: RNG = 0,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Any:
    """Draw where the cells of each type at a first time are predicted to go, as a Sankey diagram.

    Cells start from an observed time and move to the later ones (:func:`wlm.tl.predict` with ``from_time``). There each
    has the label that weighs most among its 15 nearest cells of the training times. A band is as wide as the share of
    cells that go from one label to another, and has the colour of where it comes from.

    These are the paths of the model, not lineages that were observed: populations at each time can be right where paths
    between them are not.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit.
    groupby
        Column of ``obs`` with labels, such as cell types; ``uns["<groupby>_colors"]`` are used if they are there.
    key
        Name of the fit; of fits by condition, the key of one.
    times
        An observed time to start from, and one or more later ones, as numbers or labels; by default the first training
        time and the last observed one.
    mod
        Modality of a MuData that was fitted; without it, the fit of its joint representation.
    rng
        Seed of the prediction.
    ax
        Axes to draw on.
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
        If the column holds numbers or missing labels, or ``times`` are not an observed one and later ones.
    """
    cells, fit = open_fit(adata, key, mod, columns=[groupby])
    labels, colors = read_obs_labels(cells, groupby), label_colors(cells, groupby, get_target(adata, mod))
    x = read_rep(cells, fit.use_rep, fit.n_dims)
    check_representation(cells, fit, x)
    wanted = np.array([fit.training[0], fit.observed[-1]]) if times is None else np.sort(read_labels(times, fit.style))
    if len(wanted) < 2:
        raise ValueError(f"times must hold a start and at least one later time, found {times!r}")
    start = find_observed(float(wanted[0]), fit.observed, "the first of times")
    cell_times = fit.times(cells)
    known = np.isin(cell_times, fit.training)
    n_cells = None if (cell_times == start).sum() <= CHUNK else CHUNK  # of many cells a sample is drawn
    predicted = predict(adata, wanted[1:], key=key, from_time=start, n_cells=n_cells, rng=as_seed(rng), mod=mod)
    at = predicted.obs[fit.time_key].to_numpy()
    origin = cells.obs_names.astype(str).get_indexer(predicted.obs["origin"][at == wanted[1]])
    stages = [labels[origin]]
    for t in wanted[1:]:
        positions = np.asarray(predicted.obsm[fit.use_rep])[at == t]
        stages.append(from_neighbours(x[known], labels[known], positions))
    weights = fit.weights_of(cells)
    # Cells of a sample were drawn in proportion to their weights, and count the same.
    mass = np.ones(len(origin)) if weights is None or n_cells is not None else weights[origin]
    present = {name for stage in stages for name in stage}
    names = [name for name in colors if name in present]
    if ax is None:
        height = max(3.2, 0.28 * len(names) + 1)
        ax = plt.subplots(figsize=(2.4 + 2.2 * len(wanted), height), layout="constrained")[1]
    named = _sankey(ax, stages, mass / mass.sum(), names, colors)
    handles = [Patch(color=colors[name], label=name) for name in names if name not in named]
    if handles:  # of labels that have no name beside a bar
        ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize="small")
    unit = time_label(fit)
    for k, t in enumerate(wanted):
        state = "observed" if k == 0 else "predicted"
        ax.text(k, 1.03, f"{unit} {t:.4g}\n{state}", ha="center", va="bottom", fontsize="small")
    ax.set(xlim=(-0.55, len(wanted) - 0.45), ylim=(-0.01, 1.0))
    ax.axis("off")
    return finish(ax.get_figure(root=True), ax, show, return_fig)  # type: ignore[arg-type]


def _sankey(
    ax: Axes, stages: Sequence[NDArray[Any]], mass: NDArray[np.float64], names: Sequence[str], colors: dict[str, Any]
) -> set[str]:
    """Bars of labels at each stage, from the top down, and the bands of cells between them; the labels with a name."""
    named = set()
    scale = 1 - _GAP * (len(names) - 1)
    tops: list[dict[str, float]] = []
    for k, stage in enumerate(stages):
        top, tops_here = 1.0, {}
        for name in names:
            share = float(mass[stage == name].sum())
            tops_here[name] = top
            height = share * scale
            if share > 0:
                ax.add_patch(Rectangle((k - _BAR / 2, top - height), _BAR, height, color=colors[name], lw=0, zorder=3))
                if share >= _NAMED and k in (0, len(stages) - 1):
                    side = -1 if k == 0 else 1
                    named.add(name)
                    ax.text(
                        k + side * _BAR,
                        top - height / 2,
                        f"{name} {share:.0%}",
                        ha="right" if k == 0 else "left",
                        va="center",
                        fontsize="small",
                    )
                top -= height + _GAP
        tops.append(tops_here)
    for k, (left, right) in enumerate(zip(stages[:-1], stages[1:], strict=True)):
        flows = pd.Series(mass).groupby([left, right]).sum()
        begin, end = dict(tops[k]), dict(tops[k + 1])
        for a in names:
            for b in names:
                height = float(flows.get((a, b), 0.0)) * scale
                if height > 0:
                    _band(ax, k, begin[a], end[b], height, colors[a])
                    begin[a] -= height
                    end[b] -= height
    return named


def _band(ax: Axes, k: int, left: float, right: float, height: float, color: Any) -> None:
    """A band from the ``k``-th stage to the next, whose upper edge goes from ``left`` to ``right``."""
    x0, x1 = k + _BAR / 2, k + 1 - _BAR / 2
    middle = (x0 + x1) / 2
    upper = [(x0, left), (middle, left), (middle, right), (x1, right)]
    lower = [(x1, right - height), (middle, right - height), (middle, left - height), (x0, left - height)]
    codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
    ax.add_patch(PathPatch(Path([*upper, *lower, upper[0]], codes), facecolor=color, alpha=0.45, lw=0))
