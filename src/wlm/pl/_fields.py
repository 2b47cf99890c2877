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
from wlm.pl._basis import bare, embedding, finish, new_axes

#: Points of the grid along each axis, and of that of the arrows.
N_GRID, N_ARROWS = 60, 22
#: Cells that the value at a point of the grid is averaged over.
N_NEAR = 60
#: Smallest number of cells, weighted by closeness, that a point needs to be drawn.
MASS = 1.0


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


def potential(
    adata: Any,
    *,
    key: str = "wlm",
    basis: str | None = None,
    components: tuple[int, int] = (0, 1),
    times: Any = None,
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
    where there are no cells.

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
    forces
        Draw arrows along ``obsm["K_force"]``, averaged in the same way; their length is relative.
    uncertainty
        Draw in place of the energy how much the models of an ensemble (``n_models`` of :func:`wlm.tl.fit`) differ in
        it: the standard deviation over them, each less its mean over the cells drawn, as constants mean nothing.
    projection
        ``"2d"``, or ``"3d"`` for the landscape as a surface, without arrows.
    max_cells
        Points drawn at most; the averages are over all cells.
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
    if projection not in ("2d", "3d"):
        raise ValueError(f"projection must be '2d' or '3d', found {projection!r}")
    plane = _plane(adata, key, basis, components, times, mod)
    fit, grid = plane.fit, _Grid.over(plane.points, N_GRID)
    energy = _disagreement(adata, plane, key, mod) if uncertainty else plane.potential
    values = grid.average(plane.points, energy[:, None])[..., 0]
    name = fit.use_rep.removeprefix("X_").replace("pca", "PC")
    unit = fit.unit or "time"
    order = "²" if fit.dynamics.model.order == 2 else ""
    label = f"energy ({name}²/{unit}{order})"
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
    ax.scatter(x, y, s=2, color="black", alpha=0.35, linewidths=0, rasterized=True)
    if forces:
        arrows = _Grid.over(plane.points, N_ARROWS)
        _arrows(ax, arrows, arrows.average(plane.points, plane.force), "white")
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
    kind
        ``"stream"`` lines, or ``"quiver"`` arrows on a grid.
    max_cells
        Points drawn at most; the averages are over all cells.
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
    drawn = ax.scatter(x, y, c=plane.times[some], s=6, cmap="viridis", alpha=0.5, linewidths=0, rasterized=True)
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
    unit = f" ({plane.fit.unit})" if plane.fit.unit else ""
    bar = ax.figure.colorbar(drawn, ax=ax, label=f"{plane.fit.time_key}{unit}", shrink=0.8)
    bar.solids.set_alpha(1)  # type: ignore[union-attr]
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


def _disagreement(adata: Any, plane: _Plane, key: str, mod: str | None) -> NDArray[np.float64]:
    """Standard deviation (n,) over the models of the energy of each cell in the plane."""
    cells, fit = open_fit(adata, key, mod)
    if not fit.others:
        raise ValueError(f"uns[{key!r}] holds one model; run wlm.tl.fit with n_models=5 for example, for uncertainty")
    x, cell_times, w = read_rep(cells, fit.use_rep, fit.n_dims), fit.times(cells), fit.weights_of(cells)
    energies = [plane.potential]
    for other in fit.others:
        energy = np.full(len(x), np.nan)
        for t in np.unique(plane.times):
            here = np.flatnonzero(cell_times == t)
            energy[here] = other.dynamics.energy(x[here], t, w=None if w is None else w[here])
        energies.append(energy[plane.rows])
    return np.std([e - e.mean() for e in energies], axis=0, ddof=1)


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
        distance, index = tree.query(mesh, k=min(N_NEAR, tree.n), workers=-1)
        distance, index = distance.reshape(len(mesh), -1), index.reshape(len(mesh), -1)
        # As wide as the typical distance to the tenth neighbour of a cell, but no narrower than a cell of the grid.
        tenth = tree.query(tree.data[:: max(1, tree.n // 1000)], k=min(10, tree.n))[0].reshape(-1, min(10, tree.n))
        width = max(float(np.median(tenth[:, -1])), 1.0 / N_GRID)
        weight = np.exp(-0.5 * (distance / width) ** 2)
        mass = weight.sum(axis=1, keepdims=True)
        mean = (weight[..., None] * values[index]).sum(axis=1) / np.maximum(mass, 1e-12)
        mean[mass[:, 0] < MASS] = np.nan
        return mean.reshape(len(self.axes[1]), len(self.axes[0]), -1)


def _arrows(ax: Axes, grid: _Grid, field: NDArray[np.float64], color: str) -> None:
    """Arrows whose longest are about as long as the distance between them."""
    length = np.linalg.norm(field, axis=-1)
    step = min(float(np.diff(axis)[0]) for axis in grid.axes)
    factor = 1.3 * step / max(float(np.nanquantile(length, 0.95)), 1e-12)
    there = np.isfinite(length)
    (x, y), (u, v) = (m[there] for m in grid.mesh), (field[there] * factor).T
    ax.quiver(x, y, u, v, angles="xy", scale_units="xy", scale=1, color=color, width=0.0032, zorder=3)
