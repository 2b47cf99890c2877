"""The velocities of the cells, averaged over those that are near in the plane drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from wlm.pl._basis import bare, finish, new_axes, time_label
from wlm.pl._plane import N_ARROWS, N_GRID, Grid, draw_arrows, read_plane


def velocity(
    adata: Any,
    *,
    key: str = "wlm",
    basis: str | None = None,
    components: tuple[int, int] = (0, 1),
    times: Any = None,
    color: str | None = None,
    kind: str = "stream",
    max_cells: int = 4000,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    mod: str | None = None,
) -> Any:
    """Draw the velocities that the fit gives to the cells (``obsm["K_velocity"]``), averaged over neighbours.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit.
    key
        Name ``K`` of the fit; of fits by condition, the key of one.
    basis
        Embedding to draw in, for example ``"umap"``; by default the fitted representation. In other embeddings an
        arrow points to where the neighbours of the cell's next position are: a direction, not a speed.
    components
        The two dimensions to draw.
    times
        Observed times whose cells are drawn; all by default. Cells that pass the same place at different times with
        different velocities are averaged: draw them time by time to tell them apart.
    color
        Column of ``obs`` with labels or numbers to colour the cells by; their times by default.
    kind
        ``"stream"`` lines, which are wider where cells are faster, or ``"quiver"`` arrows on a grid, whose lengths are
        relative to the longest.
    max_cells
        Points drawn at most; averages are over the nearest of all cells.
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
    """
    if kind not in ("stream", "quiver"):
        raise ValueError(f"kind must be 'stream' or 'quiver', found {kind!r}")
    plane = read_plane(adata, key, basis, components, times, mod)
    ax = new_axes(ax, (5.2, 4))
    some = np.random.default_rng(0).permutation(len(plane.points))[:max_cells]
    x, y = plane.points[some].T
    coloring = plane.coloring(adata, key, color, mod)
    own: Any = plane.times[some] if coloring is None else coloring.rgba(coloring.values[plane.rows[some]])
    drawn = ax.scatter(x, y, c=own, s=6, cmap="viridis", alpha=0.5, linewidths=0, rasterized=True)
    if kind == "stream":
        grid = Grid.over(plane.points, N_GRID)
        field = grid.average(plane.points, plane.velocity)
        speed = np.linalg.norm(field, axis=-1)
        width = 0.4 + 1.6 * np.nan_to_num(speed / np.nanmax(speed))
        x, y = grid.axes
        ax.streamplot(x, y, field[..., 0], field[..., 1], density=1.3, color="black", linewidth=width, arrowsize=0.9)
    else:
        grid = Grid.over(plane.points, N_ARROWS)
        draw_arrows(ax, grid, grid.average(plane.points, plane.velocity), "black")
    if coloring is None:
        bar = ax.figure.colorbar(drawn, ax=ax, label=time_label(plane.fit), shrink=0.8)
        bar.solids.set_alpha(1)  # type: ignore[union-attr]
    else:
        coloring.explain(ax.get_figure(root=True), [ax])
    bare(ax, plane.labels)
    return finish(ax.get_figure(root=True), ax, show, return_fig)  # type: ignore[arg-type]
