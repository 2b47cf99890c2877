"""Where cells multiply, and where they die."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from wlm._adata.mudata import get_target
from wlm.pl._basis import OBSERVED, bare, finish, new_axes
from wlm.pl._plane import read_plane

#: Share of the cells whose rates have colours of their own; those beyond have the last colour of their side.
SHOWN = 0.98


def growth(
    adata: Any,
    *,
    key: str = "wlm",
    basis: str | None = None,
    components: tuple[int, int] = (0, 1),
    times: Any = None,
    max_cells: int = 4000,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    mod: str | None = None,
) -> Any:
    """Draw the net rate at which each cell multiplies (``obs["K_growth"]``) on an embedding.

    Red cells multiply faster than the mean of their time, blue ones more slowly or die; where the fit has totals, white
    is a rate of zero. Of an ensemble, cells are grey on whose sign the models do not agree.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit with growth.
    key
        Name ``K`` of the fit; of fits by condition, the key of one.
    basis
        Embedding to draw in, for example ``"umap"``; by default the fitted representation.
    components
        The two dimensions to draw.
    times
        Observed times whose cells are drawn; all by default.
    max_cells
        Points drawn at most.
    ax
        Axes to draw on.
    show
        Show the figure; by default in interactive mode only.
    return_fig
        Return the figure.
    mod
        Modality of a MuData that was fitted; without it, the fit of its joint representation.

    Returns
    -------
    The figure, or the axes, or None if the figure was shown.

    Raises
    ------
    KeyError
        If there is no fit, or its rates are missing.
    ValueError
        If the fit conserves cells.
    """
    plane = read_plane(adata, key, basis, components, times, mod)
    fit, target = plane.fit, get_target(adata, mod)
    if "growth" not in fit.uns:
        raise ValueError(f"uns[{key!r}] conserves cells; run wlm.tl.fit(adata, ..., growth=True) for rates of growth")
    column = f"{fit.group}_growth"
    if column not in target.obs:
        raise KeyError(f"obs[{column!r}] is missing; run wlm.tl.fit again")
    ax = new_axes(ax, (5.2, 4))
    some = np.random.default_rng(0).permutation(len(plane.points))[:max_cells]
    rates = target.obs[column].to_numpy(dtype=float)[plane.rows]
    limit = float(np.quantile(np.abs(rates), SHOWN)) or 1.0
    agreed = np.ones(len(some), dtype=bool)
    if (sign := f"{column}_agreement") in target.obs and fit.others:
        agreed = target.obs[sign].to_numpy(dtype=float)[plane.rows[some]] == 1
    x, y = plane.points[some].T
    style: dict[str, Any] = {"s": 7, "linewidths": 0, "rasterized": True}
    ax.scatter(x[~agreed], y[~agreed], c=OBSERVED, **style)
    drawn = ax.scatter(x[agreed], y[agreed], c=rates[some][agreed], cmap="RdBu_r", vmin=-limit, vmax=limit, **style)
    ax.set_facecolor("#e8e8e8")  # white is a rate
    relative = bool(fit.uns["growth"]["relative"])
    of = "relative to the mean of each time" if relative else "births less deaths"
    ax.figure.colorbar(drawn, ax=ax, label=f"net growth rate (1/{fit.unit or 'time'})\n{of}", shrink=0.8, extend="both")
    if not agreed.all():
        handles = [Patch(color=OBSERVED, label=f"{1 + len(fit.others)} models disagree on the sign")]
        ax.legend(handles=handles, frameon=False, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1))
    bare(ax, plane.labels)
    return finish(ax.get_figure(root=True), ax, show, return_fig)  # type: ignore[arg-type]
