"""Friction and energies of a diagnosed fit."""

from __future__ import annotations

from typing import Any, Unpack

import anndata as ad
import numpy as np

from wlm._adata.mudata import get_target
from wlm._store.fit import StoredFit, get_fit
from wlm._store.group import fit_key
from wlm.pl._arguments import Legends, styled
from wlm.pl._basis import time_label
from wlm.pl._colors import OBSERVED, PREDICTED, SECOND
from wlm.pl._facets import by_condition
from wlm.pl._legend import legend
from wlm.pl._style import Style


@styled(Legends)
@by_condition
def energy(
    adata: ad.AnnData,
    *,
    key: str = "wlm",
    condition: str | None = None,
    mod: str | None = None,
    **style: Unpack[Legends],
) -> Any:
    """Draw kinetic, potential and dissipated energy along the rollout; dotted lines are observed times.

    Of a fit with growth also the energy that growth has brought; the sum is less that, so that it stays as it was.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit that :func:`wlm.tl.diagnose` has seen.
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
    fit, found = _diagnosis(adata, key, mod)
    ax = look.one()
    times = np.asarray(found["times"])
    parts = {name: np.asarray(found[f"{name}_path"]) for name in ("kinetic", "potential", "dissipated")}
    for (name, values), color in zip(parts.items(), (PREDICTED, "#009E73", SECOND), strict=True):
        ax.plot(times, values, color=color, lw=1.8, label=name)
    total = sum(parts.values())
    if fit.dynamics.grows and "grown_path" in found:
        grown = np.asarray(found["grown_path"])
        ax.plot(times, grown, color="#CC79A7", lw=1.8, label="by growth")
        total = total - grown
    ax.plot(times, total, color="black", lw=1, ls="--", label="sum")
    for t in fit.observed[fit.observed >= times[0]]:
        ax.axvline(t, color=OBSERVED, lw=0.6, ls=":", zorder=0)
    ax.set_xlabel(time_label(fit))
    ax.set_ylabel(f"energy per cell ({_length(fit)}²/{fit.unit or 'time'}²)")
    ax.spines[["top", "right"]].set_visible(False)
    legend(look, [ax], ax.get_legend_handles_labels()[0])
    return look.finish([ax], ax)


@styled(Legends)
@by_condition
def friction(
    adata: ad.AnnData,
    *,
    key: str = "wlm",
    condition: str | None = None,
    mod: str | None = None,
    **style: Unpack[Legends],
) -> Any:
    """Draw how the friction was learned, and the friction of fits with other seeds.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit; if :func:`wlm.tl.diagnose` has seen it, its seeds are drawn as well.
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
    history = fit.uns["history"]
    if "friction" not in history:
        raise ValueError(f"uns[{key!r}] has no friction; draw a fit of method='wlm'")
    ax = look.one()
    step, scale = np.asarray(history["step"], dtype=float), 1 / fit.dynamics.units.time
    values = np.asarray(history["friction"], dtype=float) * scale
    ax.plot(step, values, color=SECOND, lw=1.8, label="while training")
    kept = float(fit.uns["friction"])
    right = step[-1] * 1.04
    others = np.asarray(get_target(adata, mod).uns.get(f"{key}_diagnosis", {}).get("friction_seeds", [kept]))[1:]
    if len(others):
        ax.scatter(np.full(len(others), right), others, s=22, color=OBSERVED, label="other seeds", zorder=3)
    ax.scatter([right], [kept], s=30, color="black", label="this fit", zorder=4)
    ax.set_ylim(0, 1.15 * max(values.max(), kept, *others, 1e-6))
    ax.set_xlim(0, step[-1] * 1.08)
    ax.set_xlabel("training step")
    ax.set_ylabel(f"friction (1/{fit.unit or 'time unit'})")
    ax.spines[["top", "right"]].set_visible(False)
    legend(look, [ax], ax.get_legend_handles_labels()[0])
    return look.finish([ax], ax)


def _diagnosis(adata: Any, key: str, mod: str | None) -> tuple[StoredFit, Any]:
    fit = get_fit(adata, key, mod)
    uns = get_target(adata, mod).uns
    if f"{key}_diagnosis" not in uns:
        raise KeyError(f"uns['{key}_diagnosis'] is missing; run wlm.tl.diagnose(adata, key={key!r}) first")
    return fit, uns[f"{key}_diagnosis"]


def _length(fit: StoredFit) -> str:
    name = fit.use_rep.removeprefix("X_")
    return "PC" if name == "pca" else name
