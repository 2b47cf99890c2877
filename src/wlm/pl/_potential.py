"""The learned landscape, averaged over the cells that are near in the plane drawn."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from wlm._adata.cells import read_rep
from wlm._store.fit import StoredFit, open_fit
from wlm._store.group import fit_key
from wlm.pl._arguments import Clouds, styled
from wlm.pl._basis import point_size
from wlm.pl._coloring import Coloring, read_colorings
from wlm.pl._descent import draw_descent
from wlm.pl._facets import by_condition
from wlm.pl._plane import N_ARROWS, N_GRID, Grid, Plane, draw_arrows, read_plane
from wlm.pl._style import Style, broadcast

#: Light from low to high, so that cells are seen on it; grey where the cells have colours.
LANDSCAPE = ListedColormap(colormaps["YlGnBu"](np.linspace(0.62, 0.1, 256)), "landscape")
GREY = ListedColormap(colormaps["Greys"](np.linspace(0.42, 0.08, 256)), "landscape in grey")


@styled(
    Clouds,
    color="Column of ``obs`` or gene to colour the cells by, grey by default; of a list a panel for each. Along "
    "paths: a column with labels, by which paths are put together.",
    cmap="Colormap: of the numbers in ``color``, or where there are none, of the landscape.",
    vmin="Number with the first colour, of the same; a percentile such as ``'p1'``, or a function of the values; of a "
    "list one for each panel.",
    vmax="The same of the last colour.",
    ax="Axes to draw on, three-dimensional ones for ``projection='3d'``; of several panels, a list with one for each.",
)
@by_condition
def potential(
    adata: Any,
    *,
    key: str = "wlm",
    condition: str | None = None,
    basis: str | None = None,
    components: tuple[int, int] = (0, 1),
    times: Any = None,
    forces: bool = True,
    uncertainty: bool = False,
    projection: str = "2d",
    max_cells: int = 4000,
    mod: str | None = None,
    **style: Unpack[Clouds],
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
        Name ``K`` of the fit; of fits by condition, that of all of them or of one.
    condition
        Of fits by condition, which one to draw; by default all of them, a panel or block of panels for each, with the
        same axes and colours.
    basis
        Embedding to draw in, for example ``"umap"``; by default the fitted representation.
    components
        The two dimensions to draw.
    times
        Observed times whose cells are drawn, all by default; along paths, the first and last of them.
    forces
        Draw arrows along ``obsm["K_force"]``, averaged in the same way; their length is relative.
    uncertainty
        Draw in place of the energy how much the models of an ensemble (``n_models`` of :func:`wlm.tl.fit`) differ in
        it: the standard deviation over them, each less its mean over the cells drawn, as constants mean nothing.
    projection
        ``"2d"``; ``"3d"`` for the landscape as a surface, without cells and arrows; ``"1d"`` for the energy along the
        paths of the free rollout, over time: a line for each branch, which is a terminal state
        (:func:`wlm.tl.terminal_states`) or a label of ``color`` that paths end in, the mean over its paths with the
        middle half of them, or of an ensemble with the standard deviation over its models. An average over all cells
        along one component would show barriers that no path crosses.
    max_cells
        Points or paths drawn at most; averages are over the nearest of all cells, or all paths.
    mod
        Modality of a MuData that was fitted; without it, the fit of its joint representation.

    Returns
    -------
    The axes (of several panels or conditions a list), the figure with ``return_fig``, or None if it was shown.
    """
    key = fit_key(adata, key, condition, mod)
    if projection not in ("1d", "2d", "3d"):
        raise ValueError(f"projection must be '1d', '2d' or '3d', found {projection!r}")
    look = Style(**style)
    if projection != "2d":
        points = ("size", "alpha", "ncols", "groups", "use_raw", "layer")
        look.refuse(points + (("cmap", "vmin", "vmax", "dimensions") if projection == "1d" else ("color", "palette")))
    _, fit, colorings = read_colorings(adata, key, mod, look, numbers=not look.colors or projection == "3d")
    if uncertainty and not fit.others:
        raise ValueError(f"uns[{key!r}] holds one model; run wlm.tl.fit with n_models=5 for example, for uncertainty")
    label = energy_label(fit)
    if projection == "1d":
        if basis is not None or tuple(components) != (0, 1) or uncertainty:
            raise ValueError("projection='1d' follows paths over time: leave basis, components and uncertainty out")
        ax = draw_descent(adata, fit, colorings, look, times=times, max_paths=max_cells, label=label, mod=mod)
        return look.finish([ax], ax)
    views = broadcast(colorings or [None], look.pairs(components))
    if projection == "3d" and len(views) > 1:
        raise ValueError("projection='3d' is one panel; give one pair of dimensions")
    if look.facet is not None and not uncertainty:
        label += ",\nless the mean of each condition"
    if uncertainty:
        label = f"sd over {1 + len(fit.others)} models of the {label}"
    planes = {pair: read_plane(adata, key, basis, pair, times, mod) for pair in dict.fromkeys(p for _, p in views)}
    if projection == "3d":
        plane = planes[views[0][1]]
        return _surface(plane, _values(adata, plane, key, mod, look, uncertainty=uncertainty), label, look)
    _, axes = look.axes(len(views), (5.2 + max(c.room(look) if c else 0.0 for c, _ in views), 4))
    for ax, (coloring, pair) in zip(axes, views, strict=True):
        plane = planes[pair]
        values = _values(adata, plane, key, mod, look, uncertainty=uncertainty)
        land = _Landscape.of(plane, values, coloring, look)
        draw = functools.partial(_draw, ax, plane, land, coloring, look, label)
        look.later(functools.partial(draw, forces=forces, max_cells=max_cells, several=len(views) > 1))
    return look.finish(axes, axes if len(axes) > 1 else axes[0])


def energy_label(fit: StoredFit) -> str:
    """The energy with its unit."""
    name = fit.use_rep.removeprefix("X_").replace("pca", "PC")
    return f"energy ({name}²/{fit.unit or 'time'}{'²' if fit.dynamics.model.order == 2 else ''})"


def _values(
    adata: Any, plane: Plane, key: str, mod: str | None, look: Style, *, uncertainty: bool
) -> NDArray[np.float64]:
    """What the landscape shows of each cell (n,); of several conditions less their mean, as fits share no zero."""
    if uncertainty:
        return _energies(adata, plane, key, mod).std(axis=0, ddof=1)
    return plane.potential - (plane.potential.mean() if look.facet is not None else 0.0)


@dataclass(frozen=True)
class _Landscape:
    """The ``grid`` with the ``values`` (n, n) there, and their colours."""

    grid: Grid
    values: NDArray[np.float64]
    scale: ScalarMappable

    @classmethod
    def of(cls, plane: Plane, energy: NDArray[np.float64], coloring: Coloring | None, look: Style) -> _Landscape:
        """Of the energies (n,) of the cells, from their 2 to their 98 % quantile or between limits asked for."""
        grid = Grid.over(plane.points, N_GRID)
        values = grid.average(plane.points, energy[:, None])[..., 0]
        there = values[np.isfinite(values)]
        ends = np.quantile(there, (0.02, 0.98))
        own = look if coloring is None or coloring.labels is not None else Style(facet=look.facet)  # numbers have it
        usual = LANDSCAPE if coloring is None else GREY
        return cls(grid, values, Coloring.numbers("energy", there, own, cmap=usual, vmin=ends[0], vmax=ends[1]).scale)

    def levels(self, look: Style) -> Any:
        """Energies to draw contours at: round numbers, or even steps between the limits asked for."""
        low, high = self.scale.get_clim()
        if look.vmin is None and look.vmax is None:
            return MaxNLocator(12).tick_values(low, high)
        return np.linspace(low, max(high, low + 1e-12), 13)

    def draw(self, ax: Axes, look: Style) -> Any:
        """Filled contours and white lines."""
        levels: Any = self.levels(look)
        drawn: Any = ax.contourf(*self.grid.mesh, self.values, levels=levels, cmap=self.scale.cmap, extend="both")
        ax.contour(*self.grid.mesh, self.values, levels=levels, colors="white", linewidths=0.4)
        return drawn


def _draw(
    ax: Axes,
    plane: Plane,
    land: _Landscape,
    coloring: Coloring | None,
    look: Style,
    label: str,
    *,
    forces: bool,
    max_cells: int,
    several: bool,
) -> None:
    """Contours, cells and arrows on one axes."""
    drawn = land.draw(ax, look if coloring is None or coloring.labels is not None else Style())
    if coloring is None:
        n = len(plane.points)
        grey = Coloring("", np.full(n, "cell"), {"cell": "#555555"})
        small = look if look.size else replace(look, size=0.4 * point_size(ax, min(max_cells, n)))
        plane.scatter(ax, grey.values, grey, small, max_cells, 0.4)
    else:
        names = plane.scatter(ax, coloring.values[plane.rows], coloring, look, max_cells, 0.9)
    if forces:
        arrows = Grid.over(plane.points, N_ARROWS)
        draw_arrows(ax, arrows, arrows.average(plane.points, plane.force), "black", "white")
    plane.frame(ax)
    figure: Any = ax.get_figure(root=True)
    # The legend of labels is at the right.
    below = look.ax is not None and coloring is not None and coloring.labels is not None
    figure.colorbar(drawn, ax=ax, label=label, shrink=0.8, location="bottom" if below else "right")
    if coloring is not None:
        coloring.explain(look, [ax], [names], several=several)


def _surface(plane: Plane, energy: NDArray[np.float64], label: str, look: Style) -> Any:
    """The landscape in three dimensions."""
    ax: Any = look.one((5.6, 4.4), subplot_kw={"projection": "3d"})
    if not hasattr(ax, "plot_surface"):
        raise ValueError("projection='3d' needs three-dimensional axes: plt.subplots(subplot_kw={'projection': '3d'})")
    grid = Grid.over(plane.points, N_GRID)
    height = np.ma.masked_invalid(grid.average(plane.points, energy[:, None])[..., 0])
    # Round limits, as those of contours: the colours and their scale do not hang on the last digits of two cells.
    low, *_, high = MaxNLocator(8).tick_values(height.min(), height.max())
    scale = Coloring.numbers("energy", height.compressed(), look, cmap="viridis", vmin=low, vmax=high).scale
    shading = {"cmap": scale.cmap, "norm": scale.norm}
    drawn = ax.plot_surface(*grid.mesh, height, lw=0, antialiased=True, rasterized=True, **shading)
    ax.figure.colorbar(drawn, ax=ax, label=label, shrink=0.6, pad=0.02)
    ax.set(xlabel=plane.labels[0], ylabel=plane.labels[1], xticks=[], yticks=[], zticks=[])
    return look.finish([ax], ax)


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
