"""The velocities of the cells, averaged over those that are near in the plane drawn."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
from matplotlib.axes import Axes

from wlm._store.group import fit_key
from wlm.pl._arguments import Clouds, styled
from wlm.pl._basis import time_label
from wlm.pl._coloring import Coloring, read_colorings
from wlm.pl._facets import by_condition
from wlm.pl._plane import N_ARROWS, N_GRID, Grid, Plane, draw_arrows, read_plane
from wlm.pl._style import Style, broadcast


@styled(
    Clouds,
    color="Column of ``obs`` or gene to colour the cells by, their times by default; of a list a panel for each.",
    cmap="Colormap for numbers, and for the times of the cells.",
)
@by_condition
def velocity(
    adata: Any,
    *,
    key: str = "wlm",
    condition: str | None = None,
    basis: str | None = None,
    components: tuple[int, int] = (0, 1),
    times: Any = None,
    kind: str = "stream",
    max_cells: int = 4000,
    mod: str | None = None,
    **style: Unpack[Clouds],
) -> Any:
    """Draw the velocities that the fit gives to the cells (``obsm["K_velocity"]``), averaged over neighbours.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit.
    key
        Name ``K`` of the fit; of fits by condition, that of all of them or of one.
    condition
        Of fits by condition, which one to draw; by default all of them, a panel or block of panels for each, with the
        same axes and colours.
    basis
        Embedding to draw in, for example ``"umap"``; by default the fitted representation. In other embeddings an
        arrow points to where the neighbours of the cell's next position are: a direction, not a speed.
    components
        The two dimensions to draw.
    times
        Observed times whose cells are drawn; all by default. Cells that pass the same place at different times with
        different velocities are averaged: draw them time by time to tell them apart.
    kind
        ``"stream"`` lines, which are wider where cells are faster, or ``"quiver"`` arrows on a grid, whose lengths are
        relative to the longest.
    max_cells
        Points drawn at most; averages are over the nearest of all cells.
    mod
        Modality of a MuData that was fitted; without it, the fit of its joint representation.

    Returns
    -------
    The axes (of several panels or conditions a list), the figure with ``return_fig``, or None if it was shown.
    """
    key = fit_key(adata, key, condition, mod)
    if kind not in ("stream", "quiver"):
        raise ValueError(f"kind must be 'stream' or 'quiver', found {kind!r}")
    look = Style(**style)
    _, _, colorings = read_colorings(adata, key, mod, look, numbers=not look.colors)
    views = broadcast(colorings or [None], look.pairs(components))
    planes = {pair: read_plane(adata, key, basis, pair, times, mod) for pair in dict.fromkeys(p for _, p in views)}
    _, axes = look.axes(len(views), (5.2 + max(c.room(look) if c else 0.0 for c, _ in views), 4))
    for ax, (coloring, pair) in zip(axes, views, strict=True):
        plane = planes[pair]
        values = plane.times if coloring is None else coloring.values[plane.rows]
        if coloring is None:
            ends = {"vmin": plane.times.min(), "vmax": plane.times.max()}
            coloring = Coloring.numbers(time_label(plane.fit), plane.times, look, **ends)
        names = plane.scatter(ax, values, coloring, look, max_cells, 0.5)
        _draw(ax, plane, kind)
        plane.frame(ax)
        coloring.explain(look, [ax], [names], several=len(views) > 1)
    return look.finish(axes, axes if len(axes) > 1 else axes[0])


def _draw(ax: Axes, plane: Plane, kind: str) -> None:
    """Lines or arrows along the mean velocities."""
    if kind == "quiver":
        grid = Grid.over(plane.points, N_ARROWS)
        draw_arrows(ax, grid, grid.average(plane.points, plane.velocity), "black")
        return
    grid = Grid.over(plane.points, N_GRID)
    field = grid.average(plane.points, plane.velocity)
    speed = np.linalg.norm(field, axis=-1)
    width = 0.4 + 1.6 * np.nan_to_num(speed / np.nanmax(speed))
    x, y = grid.axes
    ax.streamplot(x, y, field[..., 0], field[..., 1], density=1.3, color="black", linewidth=width, arrowsize=0.9)
