"""The learned landscape, averaged over the cells that are near in the plane drawn."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from wlm._adata.cells import read_rep
from wlm._store.fit import open_fit
from wlm.pl._basis import OBSERVED, PREDICTED, bare, finish, new_axes
from wlm.pl._plane import N_ARROWS, N_GRID, Grid, Plane, draw_arrows, read_plane


def potential(
    adata: Any,
    *,
    key: str = "wlm",
    basis: str | None = None,
    components: tuple[int, int] = (0, 1),
    times: Any = None,
    color: str | None = None,
    forces: bool = True,
    uncertainty: bool = False,
    projection: str = "2d",
    max_cells: int = 4000,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    mod: str | None = None,
) -> Any:
    """Draw the learned energy landscape: contours of the cells' energy, the cells, and the forces on them.

    The landscape has as many dimensions as the representation. What is drawn at a point of the plane is the mean
    over the cells near it of their energies in their own populations (``obs["K_potential"]``), so nothing is drawn
    where there are no cells. Of a gradient flow without interaction, forces point down this landscape. Of
    ``method="wlm"`` the contours are each cell's share of the energy of its population, and a force is the slope of the
    whole: arrows need not point downhill. Draw one of the ``times`` to see one population.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit.
    key
        Name ``K`` of the fit; of fits by condition, the key of one.
    basis
        Embedding to draw in, for example ``"umap"``; by default the fitted representation.
    components
        The two dimensions to draw.
    times
        Observed times whose cells are drawn; all by default.
    color
        Column of ``obs`` with labels or numbers to colour the cells by; black by default.
    forces
        Draw arrows along ``obsm["K_force"]``, averaged in the same way; their length is relative.
    uncertainty
        Draw in place of the energy how much the models of an ensemble (``n_models`` of :func:`wlm.tl.fit`) differ in
        it: the standard deviation over them, each less its mean over the cells drawn, as constants mean nothing.
    projection
        ``"2d"``; ``"3d"`` for the landscape as a surface, without arrows; ``"1d"`` for a slice along the first of
        ``components``: the mean energy of the cells that are near in it, of an ensemble with the standard deviation
        over its models, and below how many cells there are.
    max_cells
        Points drawn at most; averages are over the nearest of all cells.
    ax
        Axes to draw on; three-dimensional ones for ``projection="3d"``.
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
    if projection not in ("1d", "2d", "3d"):
        raise ValueError(f"projection must be '1d', '2d' or '3d', found {projection!r}")
    plane = read_plane(adata, key, basis, components, times, mod)
    if uncertainty and not plane.fit.others:
        raise ValueError(f"uns[{key!r}] holds one model; run wlm.tl.fit with n_models=5 for example, for uncertainty")
    fit, grid = plane.fit, Grid.over(plane.points, N_GRID)
    energies = _energies(adata, plane, key, mod) if uncertainty or projection == "1d" else None
    energy = energies.std(axis=0, ddof=1) if uncertainty and energies is not None else plane.potential
    values = grid.average(plane.points, energy[:, None])[..., 0]
    name = fit.use_rep.removeprefix("X_").replace("pca", "PC")
    unit = fit.unit or "time"
    order = "²" if fit.dynamics.model.order == 2 else ""
    label = f"energy ({name}²/{unit}{order})"
    if projection == "1d" and energies is not None:
        ax = _slice(new_axes(ax), plane, energies, label)
        return finish(ax.get_figure(root=True), ax, show, return_fig)  # type: ignore[arg-type]
    if uncertainty:
        label = f"sd over {1 + len(fit.others)} models of the {label}"
    if projection == "3d":
        return finish(*_surface(ax, grid, values, plane.labels, label), show, return_fig)
    ax = new_axes(ax, (5.2, 4))
    levels = MaxNLocator(12).tick_values(*np.nanquantile(values, (0.02, 0.98)))
    drawn = ax.contourf(*grid.mesh, values, levels=levels, cmap="viridis", extend="both")
    ax.contour(*grid.mesh, values, levels=levels, colors="white", linewidths=0.3)
    some = np.random.default_rng(0).permutation(len(plane.points))[:max_cells]
    x, y = plane.points[some].T
    coloring = plane.coloring(adata, key, color, mod)
    own = "black" if coloring is None else coloring.rgba(coloring.values[plane.rows[some]])
    ax.scatter(x, y, s=2 if color is None else 5, c=own, alpha=0.35 if color is None else 0.8, lw=0, rasterized=True)
    if coloring is not None:
        coloring.explain(ax.get_figure(root=True), [ax])
    if forces:
        arrows = Grid.over(plane.points, N_ARROWS)
        draw_arrows(ax, arrows, arrows.average(plane.points, plane.force), "white", "black")
    ax.figure.colorbar(drawn, ax=ax, label=label, shrink=0.8)
    bare(ax, plane.labels)
    return finish(ax.get_figure(root=True), ax, show, return_fig)  # type: ignore[arg-type]


def _surface(
    ax: Any, grid: Grid, values: NDArray[np.float64], labels: tuple[str, str], label: str
) -> tuple[Figure, Any]:
    """The landscape in three dimensions."""
    if ax is None:
        ax = plt.figure(figsize=(5.6, 4.4), layout="constrained").add_subplot(projection="3d")
    if not hasattr(ax, "plot_surface"):
        raise ValueError("projection='3d' needs three-dimensional axes: plt.subplots(subplot_kw={'projection': '3d'})")
    height = np.ma.masked_invalid(values)
    # Round limits, as those of contours: the colours and their scale do not hang on the last digits of two cells.
    low, *_, high = MaxNLocator(8).tick_values(height.min(), height.max())
    shading = {"cmap": "viridis", "vmin": low, "vmax": high}
    drawn = ax.plot_surface(*grid.mesh, height, lw=0, antialiased=True, rasterized=True, **shading)
    ax.figure.colorbar(drawn, ax=ax, label=label, shrink=0.6, pad=0.02)
    ax.set(xlabel=labels[0], ylabel=labels[1], xticks=[], yticks=[], zticks=[])
    return ax.get_figure(root=True), ax


def _energies(adata: Any, plane: Plane, key: str, mod: str | None) -> NDArray[np.float64]:
    """Energies (m, n) of each cell in the plane by each model, whose mean is 0, as constants mean nothing."""
    cells, fit = open_fit(adata, key, mod)
    x, cell_times, w = read_rep(cells, fit.use_rep, fit.n_dims), fit.times(cells), fit.weights_of(cells)
    energies = [plane.potential]
    for other in fit.others:
        energy = np.full(len(x), np.nan)
        for t in np.unique(plane.times):
            here = np.flatnonzero(cell_times == t)
            energy[here] = other.dynamics.energy(x[here], t, w=None if w is None else w[here])
        energies.append(energy[plane.rows])
    return np.stack([e - e.mean() for e in energies])


def _slice(ax: Axes, plane: Plane, energies: NDArray[np.float64], label: str) -> Axes:
    """Mean energy along the first of the two dimensions, with its standard deviation over the models."""
    x = plane.points[:, 0]
    first, last = np.quantile(x, (0.005, 0.995))
    at = np.linspace(first, last, N_GRID)
    weight = np.exp(-0.5 * ((at[:, None] - x) / (np.ptp(at) / 25)) ** 2)
    each = weight @ energies.T / weight.sum(axis=1, keepdims=True)
    mean = each.mean(axis=1)
    if len(energies) > 1:
        sd = each.std(axis=1, ddof=1)
        ax.fill_between(at, mean - sd, mean + sd, color=PREDICTED, alpha=0.3, lw=0, label=f"sd, {len(energies)} models")
    ax.plot(at, mean, color=PREDICTED, lw=1.8, label="mean over cells")
    low, high = ax.get_ylim()
    count, edges = np.histogram(x, bins=40, range=(at[0], at[-1]))
    height = 0.18 * (high - low) * count / count.max()
    ax.bar(edges[:-1], height, np.diff(edges), low - 0.2 * (high - low), align="edge", color=OBSERVED, label="cells")
    ax.set(xlabel=plane.labels[0], ylabel=f"{label}, less its mean")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
    return ax
