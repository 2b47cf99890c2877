"""Cells in the plane that is drawn, averages over those near its points, and arrows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import anndata as ad
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from wlm._adata.cells import read_rep
from wlm._adata.columns import dense
from wlm._adata.mudata import get_target
from wlm._adata.neighbours import projection
from wlm._adata.times import find_observed, read_labels
from wlm._store.fit import StoredFit, check_representation, open_fit
from wlm.pl._basis import Embedding, embedding
from wlm.pl._coloring import Coloring
from wlm.pl._style import Style

#: Points of the grid along each axis, and of that of the arrows.
N_GRID, N_ARROWS = 60, 22
#: Cells that the value at a point of the grid is averaged over, at least, and as a share of all.
N_NEAR, NEAR = 60, 0.01
#: Smallest number of cells, weighted by closeness, that a point needs to be drawn, at least, and as a share of all.
MASS, SHARE = 3.0, 1e-4


@dataclass(frozen=True)
class Plane:
    """Cells in the plane: ``points`` (n, 2), their ``times`` (n,), and vectors (n, d) projected as (n, 2).

    ``rows`` (n,) are their places among the cells of the fit, ``target_rows`` (n,) those in the whole object.
    """

    fit: StoredFit
    points: NDArray[np.float64]
    labels: tuple[str, str]
    potential: NDArray[np.float64]
    velocity: NDArray[np.float64]
    force: NDArray[np.float64]
    times: NDArray[np.float64]
    rows: NDArray[np.intp]
    target_rows: NDArray[np.intp]

    def frame(self, ax: Axes, title: str = "") -> None:
        """Axes as wide as the cells."""
        Embedding(self.points.astype(np.float32), lambda x: x, self.labels).frame(ax, title)

    def scatter(
        self, ax: Axes, values: NDArray[Any], coloring: Coloring, look: Style, max_cells: int, alpha: float = 1.0
    ) -> tuple[Any, Any]:
        """At most ``max_cells`` of the cells, coloured by ``values`` (n,); returns their points and values."""
        chosen = np.random.default_rng(0).permutation(len(self.points))[:max_cells]
        points = self.points[chosen]
        coloring.scatter(ax, points, values[chosen], look, alpha)
        return points, values[chosen]


def read_plane(
    adata: Any, key: str, basis: str | None, components: tuple[int, int], times: Any, mod: str | None
) -> Plane:
    """What is drawn, read from the object."""
    cells, fit = open_fit(adata, key, mod)
    x = read_rep(cells, fit.use_rep, fit.n_dims)
    check_representation(cells, fit, x)
    drawn = embedding(cells, fit, basis, components)
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
        wanted = [find_observed(t, fit.observed, "time") for t in read_labels(times, fit.style)]
        keep &= np.isin(cell_times, wanted)
        if not keep.any():
            raise ValueError(
                f"the cells at times {wanted} have no velocity; choose times from the first training time on"
            )

    def flat(v: NDArray[np.float32]) -> NDArray[np.float64]:
        """Vectors in the plane; in another embedding, the way to the neighbours of a cell that went a little."""
        if drawn.linear:
            return (drawn.project(v) - drawn.project(np.zeros_like(v))).astype(float)
        length = np.linalg.norm(v, axis=1, keepdims=True)
        step = 0.5 * x.std() * v / np.maximum(np.median(length), 1e-12)
        mean = projection(x, drawn.points)
        return (mean((x[keep] + step).astype(np.float32)) - mean(x[keep])).astype(float)

    return Plane(
        fit,
        drawn.points[keep].astype(float),
        drawn.labels,
        energy[keep],
        flat(vectors["velocity"][keep]),
        flat(vectors["force"][keep]),
        cell_times[keep],
        np.flatnonzero(keep),
        rows[keep],
    )


@dataclass(frozen=True)
class Grid:
    """A regular grid over the cells; ``axes`` are its two coordinates, ``mesh`` those of all points."""

    axes: tuple[NDArray[np.float64], NDArray[np.float64]]

    @classmethod
    def over(cls, points: NDArray[np.float64], n: int) -> Grid:
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


def draw_arrows(ax: Axes, grid: Grid, field: NDArray[np.float64], color: str, edge: str | None = None) -> None:
    """Arrows whose longest are about as long as the distance between them."""
    length = np.linalg.norm(field, axis=-1)
    step = min(float(np.diff(axis)[0]) for axis in grid.axes)
    scale = max(float(np.nanquantile(length, 0.95)), 1e-12) / (1.3 * step)
    there = np.isfinite(length)
    (x, y), (u, v) = (m[there] for m in grid.mesh), field[there].T
    ax.quiver(
        x,
        y,
        u,
        v,
        angles="xy",
        scale_units="xy",
        scale=scale,
        color=color,
        width=0.0032,
        ec=edge,
        lw=0.3 if edge else 0,
        zorder=3,
    )
