"""The learned landscape and the learned field, averaged over the cells that are near in the plane drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from wlm._adata import dense, find_observed, read_labels, read_rep
from wlm._mudata import get_target
from wlm._stored import StoredFit, check_representation, open_fit
from wlm.pl._basis import OBSERVED, PREDICTED, Coloring, bare, embedding, finish, new_axes, time_label

#: Points of the grid along each axis, and of that of the arrows.
N_GRID, N_ARROWS = 60, 22
#: Cells that the value at a point of the grid is averaged over, at least, and as a share of all.
N_NEAR, NEAR = 60, 0.01
#: Smallest number of cells, weighted by closeness, that a point needs to be drawn, at least, and as a share of all.
MASS, SHARE = 1.0, 1e-4


@dataclass(frozen=True)
class _Plane:
    """Cells in the plane: ``points`` (n, 2), their ``times`` (n,), and vectors (n, d) projected as (n, 2)."""

    fit: StoredFit
    points: NDArray[np.float64]
    labels: tuple[str, str]
    potential: NDArray[np.float64]
    velocity: NDArray[np.float64]
    force: NDArray[np.float64]
    times: NDArray[np.float64]
    rows: NDArray[np.intp]

    def coloring(self, adata: Any, key: str, color: str | None, mod: str | None) -> Coloring | None:
        """Colours by a column of ``obs``, of all cells of the fit, of which ``rows`` are in the plane."""
        if color is None:
            return None
        return Coloring.of(open_fit(adata, key, mod, columns=[color])[0], color, get_target(adata, mod))


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
    plane = _plane(adata, key, basis, components, times, mod)
    if uncertainty and not plane.fit.others:
        raise ValueError(f"uns[{key!r}] holds one model; run wlm.tl.fit with n_models=5 for example, for uncertainty")
    fit, grid = plane.fit, _Grid.over(plane.points, N_GRID)
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
        arrows = _Grid.over(plane.points, N_ARROWS)
        _arrows(ax, arrows, arrows.average(plane.points, plane.force), "white", "black")
    ax.figure.colorbar(drawn, ax=ax, label=label, shrink=0.8)
    bare(ax, plane.labels)
    return finish(ax.get_figure(root=True), ax, show, return_fig)  # type: ignore[arg-type]


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
    plane = _plane(adata, key, basis, components, times, mod)
    ax = new_axes(ax, (5.2, 4))
    some = np.random.default_rng(0).permutation(len(plane.points))[:max_cells]
    x, y = plane.points[some].T
    coloring = plane.coloring(adata, key, color, mod)
    own: Any = plane.times[some] if coloring is None else coloring.rgba(coloring.values[plane.rows[some]])
    drawn = ax.scatter(x, y, c=own, s=6, cmap="viridis", alpha=0.5, linewidths=0, rasterized=True)
    if kind == "stream":
        grid = _Grid.over(plane.points, N_GRID)
        field = grid.average(plane.points, plane.velocity)
        speed = np.linalg.norm(field, axis=-1)
        width = 0.4 + 1.6 * np.nan_to_num(speed / np.nanmax(speed))
        x, y = grid.axes
        ax.streamplot(x, y, field[..., 0], field[..., 1], density=1.3, color="black", linewidth=width, arrowsize=0.9)
    else:
        grid = _Grid.over(plane.points, N_ARROWS)
        _arrows(ax, grid, grid.average(plane.points, plane.velocity), "black")
    if coloring is None:
        bar = ax.figure.colorbar(drawn, ax=ax, label=time_label(plane.fit), shrink=0.8)
        bar.solids.set_alpha(1)  # type: ignore[union-attr]
    else:
        coloring.explain(ax.get_figure(root=True), [ax])
    bare(ax, plane.labels)
    return finish(ax.get_figure(root=True), ax, show, return_fig)  # type: ignore[arg-type]


def _surface(
    ax: Any, grid: _Grid, values: NDArray[np.float64], labels: tuple[str, str], label: str
) -> tuple[Figure, Any]:
    """The landscape in three dimensions."""
    if ax is None:
        ax = plt.figure(figsize=(5.6, 4.4), layout="constrained").add_subplot(projection="3d")
    if not hasattr(ax, "plot_surface"):
        raise ValueError("projection='3d' needs three-dimensional axes: plt.subplots(subplot_kw={'projection': '3d'})")
    height = np.ma.masked_invalid(values)
    drawn = ax.plot_surface(*grid.mesh, height, cmap="viridis", lw=0, antialiased=True, rasterized=True)
    ax.figure.colorbar(drawn, ax=ax, label=label, shrink=0.6, pad=0.02)
    ax.set(xlabel=labels[0], ylabel=labels[1], xticks=[], yticks=[], zticks=[])
    return ax.get_figure(root=True), ax


def _plane(adata: Any, key: str, basis: str | None, components: tuple[int, int], times: Any, mod: str | None) -> _Plane:
    """What is drawn, read from the object."""
    cells, fit = open_fit(adata, key, mod)
    x = read_rep(cells, fit.use_rep, fit.n_dims)
    check_representation(cells, fit, x)
    shown, project, labels = embedding(cells, fit, basis, components)
    cell_times = fit.times(cells)
    target: ad.AnnData = get_target(adata, mod)
    rows = target.obs_names.get_indexer(cells.obs_names)
    wanted_keys = [f"{fit.group}_{name}" for name in ("potential", "velocity", "force")]
    gone = [k for k in wanted_keys if k not in target.obs and k not in target.obsm]
    if gone:
        raise KeyError(f"{gone} are missing in obs or obsm; run wlm.tl.fit again")
    energy = target.obs[f"{fit.group}_potential"].to_numpy(dtype=float)[rows]
    vectors = {name: dense(target.obsm[f"{fit.group}_{name}"])[rows] for name in ("velocity", "force")}
    keep = np.isfinite(cell_times) & np.isfinite(energy) & np.isfinite(vectors["velocity"]).all(axis=1)
    if times is not None:
        wanted = [find_observed(t, fit.observed, "time") for t in read_labels(times, fit.unit)]
        keep &= np.isin(cell_times, wanted)
        if not keep.any():
            raise ValueError(
                f"the cells at times {wanted} have no velocity; choose times from the first training time on"
            )
    own = basis in (None, fit.use_rep, fit.use_rep.removeprefix("X_"))

    def flat(v: NDArray[np.float32]) -> NDArray[np.float64]:
        """Vectors in the plane; in another embedding, the way to the neighbours of a cell that went a little."""
        if own:
            return v[:, list(components)].astype(float)
        length = np.linalg.norm(v, axis=1, keepdims=True)
        step = 0.5 * x.std() * v / np.maximum(np.median(length), 1e-12)
        return (project((x[keep] + step).astype(np.float32)) - project(x[keep])).astype(float)

    return _Plane(
        fit,
        shown[keep].astype(float),
        labels,
        energy[keep],
        flat(vectors["velocity"][keep]),
        flat(vectors["force"][keep]),
        cell_times[keep],
        np.flatnonzero(keep),
    )


def _energies(adata: Any, plane: _Plane, key: str, mod: str | None) -> NDArray[np.float64]:
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


def _slice(ax: Axes, plane: _Plane, energies: NDArray[np.float64], label: str) -> Axes:
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


@dataclass(frozen=True)
class _Grid:
    """A regular grid over the cells; ``axes`` are its two coordinates, ``mesh`` those of all points."""

    axes: tuple[NDArray[np.float64], NDArray[np.float64]]

    @classmethod
    def over(cls, points: NDArray[np.float64], n: int) -> _Grid:
        low, high = points.min(axis=0), points.max(axis=0)
        margin = 0.04 * np.maximum(high - low, 1e-12)
        x, y = (np.linspace(a - m, b + m, n) for a, b, m in zip(low, high, margin, strict=True))
        return cls((x, y))

    @property
    def mesh(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        x, y = np.meshgrid(*self.axes)
        return x, y

    def average(self, points: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean (n, n, k) of ``values`` (m, k) over the cells near each point, NaN where there are too few."""
        from scipy.spatial import cKDTree

        # In units in which the cells are as wide as high.
        scale = np.maximum(np.ptp(points, axis=0), 1e-12)
        tree = cKDTree(points / scale)
        mesh = np.stack(self.mesh, axis=-1).reshape(-1, 2) / scale
        distance, index = tree.query(mesh, k=min(max(N_NEAR, int(NEAR * tree.n)), tree.n), workers=-1)
        distance, index = distance.reshape(len(mesh), -1), index.reshape(len(mesh), -1)
        # As wide as the typical distance to the tenth neighbour of a cell, but no narrower than a cell of the grid.
        tenth = tree.query(tree.data[:: max(1, tree.n // 1000)], k=min(10, tree.n))[0].reshape(-1, min(10, tree.n))
        width = max(float(np.median(tenth[:, -1])), 1.0 / N_GRID)
        weight = np.exp(-0.5 * (distance / width) ** 2)
        mass = weight.sum(axis=1, keepdims=True)
        mean = (weight[..., None] * values[index]).sum(axis=1) / np.maximum(mass, 1e-12)
        mean[mass[:, 0] < max(MASS, SHARE * tree.n)] = np.nan
        return mean.reshape(len(self.axes[1]), len(self.axes[0]), -1)


def _arrows(ax: Axes, grid: _Grid, field: NDArray[np.float64], color: str, edge: str | None = None) -> None:
    """Arrows whose longest are about as long as the distance between them."""
    length = np.linalg.norm(field, axis=-1)
    step = min(float(np.diff(axis)[0]) for axis in grid.axes)
    factor = 1.3 * step / max(float(np.nanquantile(length, 0.95)), 1e-12)
    there = np.isfinite(length)
    (x, y), (u, v) = (m[there] for m in grid.mesh), (field[there] * factor).T
    ax.quiver(
        x,
        y,
        u,
        v,
        angles="xy",
        scale_units="xy",
        scale=1,
        color=color,
        width=0.0032,
        ec=edge,
        lw=0.3 if edge else 0,
        zorder=3,
    )
