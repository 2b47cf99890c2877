"""The course of training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Unpack

import anndata as ad
import numpy as np
from matplotlib.axes import Axes

from wlm._adata.mudata import get_target
from wlm._adata.times import with_unit
from wlm._store.fit import StoredFit, get_fit
from wlm._store.group import fit_key
from wlm.pl._arguments import Legends, styled
from wlm.pl._colors import OBSERVED, PREDICTED, SECOND
from wlm.pl._facets import by_condition
from wlm.pl._legend import legend, under
from wlm.pl._style import AUTO, Style

#: Numbers on the axis of the loss, at least.
N_TICKS = 3


@styled(Legends, ax="Axes to draw the loss on, alone; friction or misfit goes on a twin axis.")
@by_condition
def training(
    adata: ad.AnnData,
    *,
    key: str = "wlm",
    condition: str | None = None,
    mod: str | None = None,
    **style: Unpack[Legends],
) -> Any:
    """Draw the training loss, with its running median, friction or misfit, and how near the training times are met.

    Beside the course of training stands the W1 of a free rollout from the first time to the cells that were trained on,
    with the distance of two samples of these; after :func:`wlm.tl.diagnose` also that of what is predicted for each
    time from its neighbours.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit.
    key
        Name of the fit; of fits by condition, that of all of them or of one.
    condition
        Of fits by condition, which one to draw; by default all of them, a panel or block of panels for each, with the
        same axes and colours.
    mod
        Modality of a MuData that was fitted; without it, the fit of its joint representation.

    Returns
    -------
    The axes (of several conditions a list), the figure with ``return_fig``, or None if it was shown.
    """
    key = fit_key(adata, key, condition, mod)
    look = Style(**style)
    fit = get_fit(adata, key, mod)
    history = {k: np.asarray(v, dtype=float) for k, v in fit.uns["history"].items()}
    two = look.ax is None and "training_times" in fit.uns
    if two:
        _, (ax, second_panel) = look.axes(2, (4.5, 3.2), ncols=2, width_ratios=(5, 4))
    else:
        ax, second_panel = look.one((5, 3.2)), None
    step, loss = history["step"], history["loss"]
    window = max(1, len(loss) // 25)
    median = np.array([np.median(loss[max(0, i - window) : i + window + 1]) for i in range(len(loss))])
    ax.plot(step, loss, color=PREDICTED, alpha=0.25, lw=0.8, label="loss")
    ax.plot(step, median, color=PREDICTED, lw=1.8, label="running median")
    # Logarithmic, but linear around zero: the estimate of a small divergence from two batches can be negative.
    around = look.common("loss", 0.0, max(1e-3, float(np.median(np.abs(median)))))
    look.later(lambda: _scale(ax, float(around.vmax or 0.0)))
    ax.set_xlabel("training step")
    ax.set_ylabel("loss (standard units)", color=PREDICTED)
    ax.spines["top"].set_visible(False)
    axes = [ax]
    second = {name: (1.0, label) for name, label in fit.dynamics.method.scalars.items()}
    for name, quantity in fit.dynamics.model.constants().items():
        one = replace(quantity, value=1.0)
        unit = quantity.unit(f"{fit.use_rep} units", fit.unit or "time unit")
        second[name] = one.in_data(fit.dynamics.units), f"{name} ({unit})"
    for name, (scale, label) in second.items():
        if name in history:
            twin = ax.twinx()
            twin.plot(step, history[name] * scale, color=SECOND, lw=1.8, ls="--")
            twin.set_ylabel(label, color=SECOND)
            twin.set_ylim(bottom=min(0, history[name].min() * scale), top=1.15 * max(history[name].max() * scale, 1e-6))
            twin.spines["top"].set_visible(False)
            axes.append(twin)
    if second_panel is not None:
        _by_time(second_panel, fit, bridged=get_target(adata, mod).uns.get(f"{key}_diagnosis", {}).get("bridged_w1"))
        axes.append(second_panel)
    panels = [ax] if second_panel is None else [ax, second_panel]
    handles = [handle for panel in panels for handle in panel.get_legend_handles_labels()[0]]
    if look.ax is not None and look.place == AUTO:
        under(ax, handles=handles, ncols=2, frameon=False, fontsize=look.fontsize)  # beside is the twin
    else:
        legend(look, panels, handles, below=5)
    return look.finish(panels, axes)


def _scale(ax: Axes, around: float) -> None:
    """Logarithmic, but linear ``around`` zero; with two numbers on the axis or more, however flat the loss is."""
    ax.set_yscale("symlog", linthresh=around)
    low, high = ax.get_ylim()
    there = [t for t in ax.get_yticks() if low <= t <= high]
    if len(there) < N_TICKS:
        scale = ax.yaxis.get_transform()
        turned = scale.transform(np.array([low, high]))
        even = scale.inverted().transform(np.linspace(turned[0], turned[1], 7)[1:-1])
        ticks = sorted({float(f"{t:.2g}") for t in even if low <= float(f"{t:.2g}") <= high})
        ax.set_yticks(ticks, [f"{t:g}" for t in ticks])
        ax.set_yticks([], minor=True)


def _by_time(ax: Axes, fit: StoredFit, bridged: Any) -> None:
    """W1 to the cells of each training time after the first."""
    found = {name: np.asarray(values, dtype=float) for name, values in fit.uns["training_times"].items()}
    ax.plot(found["times"], found["w1"], "o-", color=PREDICTED, label="free rollout")
    if bridged is not None:
        ax.plot(found["times"], np.asarray(bridged, dtype=float)[1:], "s-", color=SECOND, label="from its neighbours")
    ax.plot(found["times"], found["floor"], "--", color=OBSERVED, label="two samples of the cells")
    ax.set_ylim(0, 1.08 * max(ax.dataLim.y1, 1e-6))
    ax.set_xlabel(with_unit(fit.time_key, fit.unit))
    ax.set_ylabel(f"W1 to the cells ({fit.use_rep} units)")
    ax.spines[["top", "right"]].set_visible(False)
