"""The course of training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from wlm._store.fit import get_fit
from wlm.pl._basis import PATH, PREDICTED, finish


def training(
    adata: ad.AnnData,
    *,
    key: str = "wlm",
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    mod: str | None = None,
) -> Any:
    """Draw the training loss, with its running median, and friction or misfit where there is one.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit.
    key
        Name of the fit; of fits by condition, the key of one.
    ax
        Axes to draw the loss on; friction or misfit goes on a twin axis.
    show
        Show the figure; by default in interactive mode only.
    return_fig
        Return the figure.
    mod
        Modality of a MuData that was fitted; without it, the fit of its joint representation.

    Returns
    -------
    The figure, or the axes, or None if the figure was shown.
    """
    fit = get_fit(adata, key, mod)
    history = {k: np.asarray(v, dtype=float) for k, v in fit.uns["history"].items()}
    if ax is None:
        figure, ax = plt.subplots(figsize=(5, 3.2), layout="constrained")
    else:
        figure = ax.get_figure(root=True)  # type: ignore[assignment]
    step, loss = history["step"], history["loss"]
    window = max(1, len(loss) // 25)
    median = np.array([np.median(loss[max(0, i - window) : i + window + 1]) for i in range(len(loss))])
    ax.plot(step, loss, color=PREDICTED, alpha=0.25, lw=0.8)
    ax.plot(step, median, color=PREDICTED, lw=1.8)
    # Logarithmic, but linear around zero: the estimate of a small divergence from two batches can be negative.
    ax.set_yscale("symlog", linthresh=max(1e-3, float(np.median(np.abs(median)))))
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
            twin.plot(step, history[name] * scale, color=PATH, lw=1.8, ls="--")
            twin.set_ylabel(label, color=PATH)
            twin.set_ylim(bottom=min(0, history[name].min() * scale), top=1.15 * max(history[name].max() * scale, 1e-6))
            twin.spines["top"].set_visible(False)
            axes.append(twin)
    return finish(figure, axes, show, return_fig)
