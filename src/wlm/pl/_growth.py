"""Where cells multiply, and where they die."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Unpack

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from wlm._adata.mudata import get_target
from wlm._store.group import fit_key
from wlm.pl._arguments import Clouds, styled
from wlm.pl._coloring import Coloring, read_colorings
from wlm.pl._colors import OBSERVED
from wlm.pl._facets import by_condition
from wlm.pl._legend import legend, under
from wlm.pl._plane import Plane, read_plane
from wlm.pl._style import NONE, Style

#: Share of the cells whose rates have colours of their own; those beyond have the last colour of their side.
SHOWN = 0.98
#: Behind the cells, as white is a rate.
GROUND = "#e8e8e8"


@styled(
    Clouds,
    color="Columns of ``obs`` or genes to compare the rates with: a panel for each beside that of the rates.",
    cmap="Colormap for numbers, of the rates too.",
    vmin="Number with the first colour, in all panels with numbers or of a list in each; by default of the rates as "
    "far below zero as ``vmax`` is above.",
    vmax="The same of the last colour; by default 98 % of the rates are within.",
)
@by_condition
def growth(
    adata: Any,
    *,
    key: str = "wlm",
    condition: str | None = None,
    basis: str | None = None,
    components: tuple[int, int] = (0, 1),
    times: Any = None,
    max_cells: int = 4000,
    mod: str | None = None,
    **style: Unpack[Clouds],
) -> Any:
    """Draw the net rate at which each cell multiplies (``obs["K_growth"]``) on an embedding.

    Red cells multiply faster than the mean of their time, blue ones more slowly or die; where the fit has totals, white
    is a rate of zero. Of an ensemble, cells are grey on whose sign the models do not agree.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit with growth.
    key
        Name ``K`` of the fit; of fits by condition, that of all of them or of one.
    condition
        Of fits by condition, which one to draw; by default all of them, a panel or block of panels for each, with the
        same axes and colours.
    basis
        Embedding to draw in, for example ``"umap"``; by default the fitted representation.
    components
        The two dimensions to draw.
    times
        Observed times whose cells are drawn; all by default.
    max_cells
        Points drawn at most.
    mod
        Modality of a MuData that was fitted; without it, the fit of its joint representation.

    Returns
    -------
    The axes (of several panels or conditions a list), the figure with ``return_fig``, or None if it was shown.

    Raises
    ------
    KeyError
        If there is no fit, or its rates are missing.
    ValueError
        If the fit conserves cells.
    """
    key = fit_key(adata, key, condition, mod)
    look = Style(**style)
    _, fit, colorings = read_colorings(adata, key, mod, look, before=1, numbers=True)
    target = get_target(adata, mod)
    if "growth" not in fit.uns:
        raise ValueError(f"uns[{key!r}] conserves cells; run wlm.tl.fit(adata, ..., growth=True) for rates of growth")
    column = f"{fit.group}_growth"
    if column not in target.obs:
        raise KeyError(f"obs[{column!r}] is missing; run wlm.tl.fit again")
    pairs = look.pairs(components)
    planes = [read_plane(adata, key, basis, pair, times, mod) for pair in pairs]
    n = 1 + len(colorings)
    figure, axes = look.axes(n * len(pairs), (5.2 + max((c.room(look) for c in colorings), default=0.0), 4))
    for k, plane in enumerate(planes):
        first, *others = axes[k * n : (k + 1) * n]
        rates = target.obs[column].to_numpy(dtype=float)[plane.target_rows]
        agreed = np.ones(len(rates), dtype=bool)
        if (sign := f"{column}_agreement") in target.obs and fit.others:
            agreed = target.obs[sign].to_numpy(dtype=float)[plane.target_rows] == 1
        _draw(first, plane, rates, agreed, look, max_cells)
        for ax, coloring in zip(others, colorings, strict=True):
            names = plane.scatter(ax, coloring.values[plane.rows], coloring, look, max_cells)
            plane.frame(ax)
            coloring.explain(look, [ax], [names], several=True)
    return look.finish(axes, axes if len(axes) > 1 else axes[0])


def _draw(ax: Axes, plane: Plane, rates: np.ndarray, agreed: np.ndarray, look: Style, max_cells: int) -> None:
    """Cells coloured by their rates (n,), those whose sign is not ``agreed`` (n,) below them in grey."""
    limit = float(np.quantile(np.abs(rates), SHOWN)) or 1.0
    relative = bool(plane.fit.uns["growth"]["relative"])
    of = "relative to the mean of each time" if relative else "births less deaths"
    label = f"net growth rate (1/{plane.fit.unit or 'time'})\n{of}"
    coloring = Coloring.numbers(label, rates, look, cmap="RdBu_r", vmin=-limit, vmax=limit)
    if not agreed.all():
        grey = Coloring("", np.full(len(rates), "grey"), {"grey": OBSERVED})
        replace(plane, points=plane.points[~agreed]).scatter(ax, grey.values[~agreed], grey, look, max_cells)
    replace(plane, points=plane.points[agreed]).scatter(ax, rates[agreed], coloring, look, max_cells)
    ax.set_facecolor(GROUND)
    plane.frame(ax)
    coloring.explain(look, [ax], [(None, None)])
    if not agreed.all() and look.place != NONE:
        handles = [Patch(color=OBSERVED, label=f"{1 + len(plane.fit.others)} models disagree on the sign")]
        if look.place in ("auto", "right margin", "on data"):
            under(ax, handles=handles, frameon=False, fontsize=look.fontsize)
        else:
            legend(look, [ax], handles)
