"""RNA velocity as a speed in principal components: where it is found, and how it is projected."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import anndata as ad
import numpy as np
from numpy.typing import NDArray

from wlm._adata.columns import layer_names
from wlm._adata.genes import explains, get_matrix

#: Layers in which packages store velocities of genes: scVelo, veloVI and UniTVelo; dynamo; MultiVelo.
LAYERS = ("velocity", "velocity_S", "velo_s")
#: Layers of the abundances that such velocities are the rates of: smoothed ones first.
ABUNDANCES = ("Ms", "M_s", "spliced")
#: Columns of ``var`` that mark the genes whose velocity is meant to be used: scVelo, veloVI and UniTVelo; dynamo.
MASKS = ("velocity_genes", "use_for_dynamics")
#: Rows that are made dense at a time.
_CHUNK = 2048


@dataclass(frozen=True)
class Projection:
    """A projected velocity, and how it came about.

    ``velocity`` (n, k) float32; ``n_genes`` that have one; ``share`` of the loadings' sum of squares on them;
    ``space`` of the expression that PCA was computed on, ``"log"``, ``"scaled"`` or ``"linear"``.
    """

    velocity: NDArray[np.float32]
    n_genes: int
    share: float
    space: str


def find_velocity(adata: Any, use_rep: str) -> str:
    """The key of the velocities that ``velocity_key="auto"`` means."""
    there = layer_names(adata) if hasattr(adata, "layers") else []  # a MuData has none of its own
    ours = [k for k in adata.obsm if _is_projected(adata, k, use_rep)]
    layers = [k for k in LAYERS if k in there] if use_rep == "X_pca" else []
    if not ours and not layers:
        drawn = [k for k in adata.obsm if k.startswith("velocity_")]
        raise KeyError(
            f"no velocities were found for {use_rep!r}: neither what wlm.pp.project_velocity adds to obsm "
            f"({list(adata.obsm)}) nor, for 'X_pca', one of the layers {list(LAYERS)} ({there})"
            + (f"; {drawn} may be directions for plotting and must be named to be used" if drawn else "")
        )
    return (ours or layers)[0]


def is_rna_velocity(adata: ad.AnnData, key: str, use_rep: str) -> bool:
    """Whether velocities are in a unit of time of their own: a layer of genes, or what was projected from one."""
    return key in adata.layers if key not in adata.obsm else _is_projected(adata, key, use_rep)


def _is_projected(adata: Any, key: str, use_rep: str) -> bool:
    note = adata.uns.get(key)
    return isinstance(note, dict) and "vkey" in note and note.get("use_rep") == use_rep


def project_layer(adata: ad.AnnData, vkey: str, use_rep: str, *, smooth: bool = True) -> Projection:
    """What :func:`project_velocity` computes, without writing it."""
    if use_rep != "X_pca":
        raise ValueError(
            f"layers[{vkey!r}] holds velocities of genes, which can be projected on 'X_pca' only, not on {use_rep!r}; "
            "give velocities in that space as an obsm key"
        )
    loadings = _loadings(adata, vkey)
    layer = adata.layers[vkey]
    moving = np.zeros(adata.n_vars, dtype=bool)
    for _, rows in _dense_rows(layer):
        moving |= np.isfinite(rows).any(axis=0)
    for mask in MASKS:
        if mask in adata.var:
            moving &= np.asarray(adata.var[mask], dtype=bool)
    if not moving.any():
        raise ValueError(f"layers[{vkey!r}] has no gene with a velocity; run wlm.pp.velocity(adata) first")
    matrix = _pca_matrix(adata)
    space, spread = _space(adata, matrix)
    abundance = next((k for k in ABUNDANCES if k in adata.layers), None)
    projected = np.empty((adata.n_obs, loadings.shape[1]), dtype=np.float32)
    for part, rate in _dense_rows(layer):
        missing = ~np.isfinite(rate).any(axis=1)
        rate = np.where(moving, np.nan_to_num(rate, posinf=0, neginf=0), 0.0)
        if space != "linear":
            x = _rows(matrix, part)
            if space == "scaled":
                x = x * spread + np.asarray(adata.var["mean"], dtype=np.float64)
            s = np.maximum(np.expm1(x), 0)
            if abundance is not None:
                c = s.sum(1, keepdims=True)
                s = np.nan_to_num(_rows(adata.layers[abundance], part))
                total = np.maximum(s.sum(1, keepdims=True), 1e-12)
                c = c / total
                # The totals change as well, and normalising to them holds the sum of X's counts.
                rate, s = c * (rate - s * rate.sum(1, keepdims=True) / total), c * s
            rate = rate / (1 + s) / spread
        projected[part] = rate @ loadings
        projected[part][missing] = np.nan
    if smooth and "connectivities" in adata.obsp:
        projected = _average(adata.obsp["connectivities"], projected)
    share = float(np.square(loadings[moving]).sum() / np.square(loadings).sum())
    return Projection(projected, int(moving.sum()), share, space)


def _loadings(adata: ad.AnnData, vkey: str) -> NDArray[np.float64]:
    """Loadings (n_vars, k); dynamo keeps those of the genes that PCA used."""
    if "PCs" in adata.varm:
        return np.asarray(adata.varm["PCs"], dtype=np.float64)
    if "PCs" in adata.uns and "use_for_pca" in adata.var:
        used = np.asarray(adata.var["use_for_pca"], dtype=bool)
        stored = np.asarray(adata.uns["PCs"], dtype=np.float64)
        if len(stored) == used.sum():
            loadings = np.zeros((adata.n_vars, stored.shape[1]))
            loadings[used] = stored
            return loadings
    raise KeyError(f"varm['PCs'] is missing, so layers[{vkey!r}] cannot be projected; run sc.pp.pca(adata) first")


def _pca_matrix(adata: ad.AnnData) -> Any:
    """The matrix that principal components were computed on: the one that explains them, or else ``X``."""
    if "X_pca" in adata.obsm and "PCs" in adata.varm:
        for name in ("X", *layer_names(adata)):
            if get_matrix(adata, name) is not None and explains(adata, name):
                return get_matrix(adata, name)
    return adata.X


def _space(adata: ad.AnnData, matrix: Any) -> tuple[str, Any]:
    """What the matrix holds, and the standard deviations by which it was divided."""
    if matrix is None:
        return "linear", 1.0
    lowest, highest, whole = np.inf, -np.inf, True
    for part, rows in _dense_rows(matrix):
        lowest, highest = min(lowest, rows.min()), max(highest, rows.max())
        whole = whole and bool((rows == np.round(rows)).all())
        if part.stop >= 2 * _CHUNK:
            break
    if lowest < 0 and {"mean", "std"} <= set(adata.var.columns):
        return "scaled", np.asarray(adata.var["std"], dtype=np.float64)
    if lowest >= 0 and ("log1p" in adata.uns or (not whole and highest < 20)):
        return "log", 1.0
    return "linear", 1.0


def _average(connectivities: Any, v: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of each cell's velocity and its neighbours', by the weights of their connections."""
    for load in ("compute", "to_memory"):  # of dask arrays and of sparse ones on disk
        if hasattr(connectivities, load):
            connectivities = getattr(connectivities, load)()
    known = np.isfinite(v).all(axis=1, keepdims=True)
    filled = np.where(known, v, 0)
    # A cell is its own neighbour with the weight of the closest.
    mean = (filled + connectivities @ filled) / (1 + connectivities @ known.astype(np.float64))
    return np.where(known, mean, np.nan).astype(np.float32)


def _dense_rows(matrix: Any) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Parts of a matrix of any kind, dense, with their rows."""
    for start in range(0, matrix.shape[0], _CHUNK):
        part = slice(start, min(start + _CHUNK, matrix.shape[0]))
        yield part, _rows(matrix, part)


def _rows(matrix: Any, part: slice) -> NDArray[np.float64]:
    rows = matrix[part]
    if hasattr(rows, "compute"):
        rows = rows.compute()
    return np.asarray(rows.toarray() if hasattr(rows, "toarray") else rows, dtype=np.float64)
