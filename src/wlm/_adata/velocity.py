"""RNA velocity as a speed in principal components: where it is found, and how it is projected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._adata.columns import dense, layer_names, read_mask
from wlm._adata.components import LOADINGS
from wlm._adata.expression import find_expression, loadings_share, parts_of, read_loadings, read_rows

#: Layers in which packages store velocities of genes: scVelo, veloVI and UniTVelo; dynamo; MultiVelo.
LAYERS = ("velocity", "velocity_S", "velo_s")
#: Layers of the abundances that such velocities are the rates of: smoothed ones first.
ABUNDANCES = ("Ms", "M_s", "spliced")
#: Columns of ``var`` that mark the genes whose velocity is meant to be used: scVelo, veloVI and UniTVelo; dynamo.
MASKS = ("velocity_genes", "use_for_dynamics")
#: Cells and genes whose components are kept with projected velocities.
_N_NOTED = 200


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
    """The key of the velocities that ``velocity_key="auto"`` means.

    Raises
    ------
    KeyError
        If there are none.
    ValueError
        If all that were projected belong to other components.
    """
    there = layer_names(adata) if hasattr(adata, "layers") else []  # a MuData has none of its own
    projected = [k for k in adata.obsm if _is_projected(adata, k, use_rep)]
    ours = [k for k in projected if belongs(adata, k, use_rep)]
    if projected and not ours:
        check_components(adata, projected[0], use_rep)
    layers = [k for k in LAYERS if k in there] if use_rep in LOADINGS else []
    if not ours and not layers:
        drawn = [k for k in adata.obsm if k.startswith("velocity_")]
        raise KeyError(
            f"no velocities were found for {use_rep!r}: neither what wlm.pp.project_velocity adds to obsm "
            f"({list(adata.obsm)}) nor, for 'X_pca' and 'pca', one of the layers {list(LAYERS)} ({there})"
            + (f"; {drawn} may be directions for plotting and must be named to be used" if drawn else "")
        )
    return (ours or layers)[0]


def is_rna_velocity(adata: ad.AnnData, key: str, use_rep: str) -> bool:
    """Whether velocities are in a unit of time of their own: a layer of genes, or what was projected from one."""
    return key in adata.layers if key not in adata.obsm else _is_projected(adata, key, use_rep)


def _is_projected(adata: Any, key: str, use_rep: str) -> bool:
    note = adata.uns.get(key)
    return isinstance(note, dict) and "vkey" in note and note.get("use_rep") == use_rep


def note_components(adata: ad.AnnData, vkey: str, use_rep: str) -> dict[str, Any]:
    """Which components velocities were projected on: some rows of the representation and of the loadings, by name.

    Rows and not a checksum, so that cells and genes may be taken out afterwards.
    """
    cells = np.sort(np.random.default_rng(0).permutation(adata.n_obs)[:_N_NOTED])
    loadings = read_loadings(adata, vkey, use_rep)
    genes = np.argsort(-np.square(loadings).sum(axis=1), kind="stable")[:_N_NOTED]
    note = {"genes": _names(adata.var_names, genes), "loadings": loadings[genes].astype(np.float32)}
    if use_rep in adata.obsm:
        note |= {"cells": _names(adata.obs_names, cells), "scores": dense(adata.obsm[use_rep])[cells]}
    return note


def belongs(adata: Any, key: str, use_rep: str) -> bool:
    """Whether velocities in ``obsm`` were projected on the components that are there now, as far as it was noted.

    The representation decides. Where no cell of the note is left, the loadings do; without a note it is so.
    """
    note = adata.uns[key].get("components") if _is_projected(adata, key, use_rep) else None
    if not isinstance(note, Mapping):
        return True
    noted = [(adata.obs_names, adata.obsm, use_rep, "cells", "scores")]
    if getattr(adata, "varm", None) is not None:
        noted.append((adata.var_names, adata.varm, LOADINGS.get(use_rep, ""), "genes", "loadings"))
    for names, slot, name, key_names, key_rows in noted:
        if name not in slot or not {key_names, key_rows} <= set(note) or not names.is_unique:
            continue
        wanted = pd.Index([str(n) for n in np.asarray(note[key_names])])
        rows = pd.Index([str(n) for n in names]).get_indexer(wanted)
        if (rows >= 0).any():
            return _same(dense(slot[name])[rows[rows >= 0]], np.asarray(note[key_rows])[rows >= 0])
    return True


def check_components(adata: Any, key: str, use_rep: str) -> None:
    """Refuse velocities in ``obsm`` that were projected on other components than those in ``obsm[use_rep]``."""
    if key in adata.obsm and not belongs(adata, key, use_rep):
        vkey = adata.uns[key]["vkey"]
        options = ("" if vkey == "velocity" else f", vkey={vkey!r}") + (
            "" if key == f"{vkey}_projected" else f", key_added={key!r}"
        )
        raise ValueError(
            f"obsm[{key!r}] was projected on other components than those in obsm[{use_rep!r}] now; "
            f"run wlm.pp.project_velocity(adata{options}) again"
        )


def _names(index: pd.Index, rows: NDArray[np.intp]) -> NDArray[np.object_]:
    return np.array([str(name) for name in index[rows]], dtype=object)


def _same(now: NDArray[np.floating], noted: NDArray[np.floating]) -> bool:
    """Whether rows are equal up to rounding, in the components that both have."""
    k = min(now.shape[1], noted.shape[1])
    a, b = now[:, :k].astype(np.float64), noted[:, :k].astype(np.float64)
    return np.allclose(a, b, rtol=1e-3, atol=1e-3 * float(np.nanstd(b)), equal_nan=True)


def project_layer(adata: ad.AnnData, vkey: str, use_rep: str, *, smooth: bool = True) -> Projection:
    """What :func:`project_velocity` computes, without writing it.

    Raises
    ------
    KeyError, ValueError
        If loadings are missing or do not give ``obsm[use_rep]``, or no gene has a velocity.
    """
    if use_rep not in LOADINGS:
        raise ValueError(
            f"layers[{vkey!r}] holds velocities of genes, which can be projected on 'X_pca' or 'pca' only, not on "
            f"{use_rep!r}; give velocities in that space as an obsm key"
        )
    loadings = read_loadings(adata, vkey, use_rep)
    layer = adata.layers[vkey]
    moving = _moving_genes(adata, vkey)
    expression = find_expression(adata, loadings, vkey, use_rep)
    abundance = next((k for k in ABUNDANCES if k in adata.layers), None)
    projected = np.empty((adata.n_obs, loadings.shape[1]), dtype=np.float32)
    for part in parts_of(adata.n_obs):
        rate = read_rows(layer, part)
        missing = ~np.isfinite(rate).any(axis=1)
        rate = np.where(moving, np.nan_to_num(rate, posinf=0, neginf=0), 0.0)
        if expression.logged:
            s = expression.counts(part)
            if abundance is not None:
                known = read_rows(adata.layers[abundance], part)
                there = np.isfinite(known)
                c = (s * there).sum(1, keepdims=True) / np.maximum(np.nansum(known, axis=1, keepdims=True), 1e-12)
                # Genes whose abundance is not known (they were not used) have that of X.
                s = np.where(there, c * np.nan_to_num(known), s)
                total = np.maximum(s.sum(1, keepdims=True), 1e-12)
                # The totals change as well, and normalising to them holds the sum of X's counts.
                rate = c * (rate - s * rate.sum(1, keepdims=True) / total)
            rate = rate / (1 + s) / np.log(expression.base)
        projected[part] = (rate / expression.std) @ loadings
        projected[part][missing] = np.nan
    if smooth and "connectivities" in adata.obsp:
        projected = _average(adata.obsp["connectivities"], projected)
    return Projection(projected, int(moving.sum()), loadings_share(loadings, moving), expression.space)


def _moving_genes(adata: ad.AnnData, vkey: str) -> NDArray[np.bool_]:
    """Genes (n_vars,) that have a velocity and are meant to be used."""
    moving = np.zeros(adata.n_vars, dtype=bool)
    for part in parts_of(adata.n_obs):
        moving |= np.isfinite(read_rows(adata.layers[vkey], part)).any(axis=0)
    masks = [mask for mask in MASKS if mask in adata.var]
    for mask in masks:
        moving &= read_mask(adata.var, mask)
    if not moving.any():
        marked = f", or none that {' and '.join(f'var[{mask!r}]' for mask in masks)} marks" if masks else ""
        raise ValueError(f"layers[{vkey!r}] has no gene with a velocity{marked}; run wlm.pp.velocity(adata) first")
    return moving


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
