"""Cell types through observed and unseen times."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch
from numpy.typing import NDArray

from wlm._adata.columns import read_obs_labels
from wlm._adata.mudata import get_target
from wlm._adata.times import read_labels
from wlm._random import RNG
from wlm._store.fit import open_fit
from wlm._store.group import fit_key
from wlm.pl._arguments import Labels, styled
from wlm.pl._colors import FAINT, chosen_colors, default_colors, label_colors
from wlm.pl._facets import by_condition
from wlm.pl._fates import OTHER
from wlm.pl._legend import legend, room
from wlm.pl._style import Style
from wlm.tl import composition as compute
from wlm.tl._trend import between

#: Width of a bar as a share of the shortest time between two pairs, and the inches it needs to hold a number.
_WIDE, _ROOM = 0.3, 0.17
#: The smallest share whose number is written.
_NUMBER = 0.07
#: Opacity of predicted bars, and of areas.
_PALE, _AREA = 0.55, 0.3


@styled(
    Labels,
    palette="Colours of the labels: a colormap's name, a list, or a dict; by default ``uns['<groupby>_colors']``, if "
    "there.",
)
@by_condition
def composition(
    adata: Any,
    groupby: str | None = None,
    *,
    key: str = "wlm",
    condition: str | None = None,
    times: Any = None,
    count: str = "cells",
    n_cells: int | None = 2000,
    min_share: float = 0.02,
    mod: str | None = None,
    rng: RNG = 0,
    **style: Unpack[Labels],
) -> Any:
    """Draw the shares of cell types over time, predicted beside observed ones.

    What is drawn is the table of :func:`wlm.tl.composition`: give it that table, or an object with a fit, of which it
    is made for all observed times and a grid between them. At each observed time the right bar are the observed cells
    and the left, pale one those predicted from the training time before; the share above them is how many of the cells
    would have to change their label for the two to agree. Areas are predicted shares in between, which start from the
    observed cells of each training time.

    Parameters
    ----------
    adata
        The table of :func:`wlm.tl.composition`, or an AnnData or MuData with a fit.
    groupby
        Of an object: column of ``obs`` with labels, such as cell types; ``uns["<groupby>_colors"]`` are used if they
        are there.
    key
        Of an object: name of the fit; of fits by condition, that of all of them or of one.
    condition
        Of fits by condition, which one to draw; by default all of them, a panel or block of panels for each, with the
        same axes and colours.
    times
        Of an object: times to include besides the observed ones and a grid between them, as numbers or labels;
        forecasts for example.
    count
        Of an object: ``"cells"``, or ``"lineages"`` of the cells of the first time, as in :func:`wlm.tl.composition`;
        of lineages there are no bars after the first time.
    n_cells
        Of an object: predicted cells for each time; None for all.
    min_share
        Labels whose share is smaller at all times are drawn together as "other".
    mod
        Modality of a MuData that was fitted; without it, the fit of its joint representation.
    rng
        Seed of the prediction.

    Returns
    -------
    The axes (of several conditions a list), the figure with ``return_fig``, or None if it was shown.

    Raises
    ------
    KeyError
        If there is no fit or no such column.
    ValueError
        If the column holds numbers or missing labels, a time cannot be predicted, or a table is not one of
        :func:`wlm.tl.composition`.
    """
    if not isinstance(adata, pd.DataFrame):
        key = fit_key(adata, key, condition, mod)
    elif condition is not None:
        raise ValueError("condition= is of an object with fits by condition, and this is a table; leave it out")
    look = Style(**style)
    if isinstance(min_share, bool) or not isinstance(min_share, (int, float)) or not 0 <= min_share < 1:
        raise ValueError(f"min_share must be at least 0 and below 1, found {min_share!r}")
    if isinstance(adata, pd.DataFrame):
        table, colors = adata, _table_colors(adata, look)
    elif groupby is None:
        raise ValueError("groupby must name a column of obs with labels, such as cell types")
    else:
        cells, fit = open_fit(adata, key, mod, columns=[groupby])
        read_obs_labels(cells, groupby)
        colors = label_colors(cells, groupby, get_target(adata, mod), look.palette)
        wanted = between(cells, fit, np.empty(0) if times is None else read_labels(times, fit.style))
        table = compute(adata, groupby, wanted, key=key, count=count, n_cells=n_cells, rng=rng, mod=mod)
    shares = _Shares.of(table, [name for name in colors if name in set(table["label"])], min_share)
    colors = colors | {OTHER: FAINT}
    n = int(np.isfinite(shares.observed).all(axis=1).sum())
    ax = look.one((max(4.6, 1.0 + 0.85 * n) + room([*shares.names, "right: observed"]), 3.6))
    handles = [Patch(color=colors[name], label=name) for name in reversed(shares.names)]
    handles += [
        Patch(fc="0.6", ec="none", alpha=_PALE, label="left: predicted"),
        Patch(fc="0.6", ec="black", label="right: observed"),
    ]
    legend(look, [ax], handles, title=table.attrs.get("label_key"))
    # After the legend, which may have made the axes too narrow for numbers.
    _draw(ax, shares, [colors[name] for name in shares.names])
    xlabel = table.attrs.get("time_label", "time")
    of = "founders' lineages" if table.attrs.get("count") == "lineages" else "cells"
    ax.set(ylim=(0, 1), xlabel=xlabel, ylabel=f"share of {of}")
    ax.spines[["top", "right"]].set_visible(False)
    return look.finish([ax], ax)


@dataclass(frozen=True)
class _Shares:
    """Shares (T, labels) at ``times`` (T,), NaN where there are none; ``names`` are those of the labels."""

    times: NDArray[np.float64]
    names: list[str]
    observed: NDArray[np.float64]
    predicted: NDArray[np.float64]
    trained: NDArray[np.bool_]

    @classmethod
    def of(cls, table: pd.DataFrame, names: list[str], least: float) -> _Shares:
        """Of a table, labels with less than ``least`` everywhere put together."""
        observed, predicted = (
            table.pivot(index="time", columns="label", values=k)[names] for k in ("observed", "predicted")
        )
        most = np.fmax(observed.max(), predicted.max())
        small = [name for name in names if most[name] < least or name == OTHER]
        if small:
            for part in (observed, predicted):
                part[OTHER] = part[small].sum(axis=1, skipna=False)
            names = [name for name in names if name not in small] + [OTHER]
        trained = (table.groupby("time")["kind"].first() == "training").to_numpy()
        at = observed.index.to_numpy(dtype=float)
        return cls(at, names, observed[names].to_numpy(), predicted[names].to_numpy(), trained)


def _draw(ax: Axes, shares: _Shares, fill: list[Any]) -> None:
    """Areas, pairs of bars, and numbers where there is room."""
    at, known = shares.times, np.isfinite(shares.observed).all(axis=1)
    span = float(np.ptp(at)) or 1.0
    last = at[shares.trained].max() if shares.trained.any() else at[0]
    gap = float(np.diff(at[known]).min()) if known.sum() > 1 else span
    width = min(_WIDE * gap, 0.06 * span)
    for begin, end in itertools.pairwise([*np.flatnonzero(shares.trained), len(at) - 1]):
        if end > begin:
            own = shares.observed[begin]  # of lineages only the first time has them
            part = np.vstack(
                [own if np.isfinite(own).all() else shares.predicted[begin], shares.predicted[begin + 1 : end + 1]]
            )
            alpha = _AREA if at[begin] < last else _AREA / 2
            ax.stackplot(at[begin : end + 1], part.T, colors=fill, alpha=alpha, linewidth=0)
    if at[-1] > last:
        ax.axvline(last, color="black", linewidth=0.8, linestyle=":")
    margin = max(0.03 * span, 1.2 * width)
    ax.set_xlim(at[0] - margin, at[-1] + margin)
    figure: Any = ax.get_figure(root=True)
    inches = figure.get_figwidth() * ax.get_position().width
    numbers = inches * width / (span + 2 * margin) >= _ROOM
    for t, own, other in zip(at, shares.observed, shares.predicted, strict=True):
        if not np.isfinite(own).all():
            continue
        _bar(ax, t + width / 2, own, width, fill, numbers=numbers, edgecolor="black", linewidth=0.6)
        if np.isfinite(other).all():
            _bar(ax, t - width / 2, other, width, fill, numbers=numbers, alpha=_PALE, linewidth=0)
            missed = np.abs(own - other).sum() / 2
            if numbers:
                ax.text(t, 1.015, f"{missed:.0%}", ha="center", va="bottom", fontsize="x-small")
    if numbers:
        ax.text(0, 1.075, "share with another label:", transform=ax.transAxes, va="bottom", fontsize="x-small")


def _bar(
    ax: Axes, x: float, shares: NDArray[np.float64], width: float, fill: list[Any], *, numbers: bool, **style: Any
) -> None:
    """Shares (labels,) above each other, the larger ones in per cent."""
    bottoms = np.concatenate([[0], shares.cumsum()[:-1]])
    for share, bottom, color in zip(shares, bottoms, fill, strict=True):
        ax.bar(x, share, width=width, bottom=bottom, color=color, zorder=3, **style)
        if numbers and share >= _NUMBER:
            dark = np.dot(to_rgb(color), (0.299, 0.587, 0.114)) < 0.55 and style.get("alpha", 1) == 1
            text = f"{100 * share:.0f}"
            ink = "white" if dark else "black"
            ax.text(x, bottom + share / 2, text, ha="center", va="center", fontsize="x-small", color=ink, zorder=4)


def _table_colors(table: pd.DataFrame, look: Style) -> dict[str, Any]:
    """Colours of the labels of a table, which has none of its own."""
    wanted = {"time", "label", "kind", "predicted", "observed"}
    if not wanted <= set(table.columns):
        raise ValueError(f"this is no table of wlm.tl.composition: the columns {sorted(wanted)} are wanted")
    names = [str(name) for name in pd.Categorical(table["label"]).categories]
    return default_colors(names) if look.palette is None else chosen_colors(names, look.palette)
