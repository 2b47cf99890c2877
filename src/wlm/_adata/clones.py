"""Clones of cells: a column of names, or a matrix of cells and clones."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, issparse

from wlm._adata.columns import read_column


def read_clones(adata: ad.AnnData, clone_key: str) -> NDArray[np.intp]:
    """The number (n_obs,) of each cell's clone, -1 for cells without one.

    Parameters
    ----------
    clone_key
        A column of ``obs`` with names (missing or empty: no clone), or a key of ``obsm`` with a matrix (n_obs,
        n_clones) that is not zero where a cell has the barcode of a clone, dense or sparse.

    Raises
    ------
    KeyError
        If there is neither.
    ValueError
        If cells are in several clones, or no clone has two cells.
    """
    if clone_key in adata.obsm:
        clones = _of_matrix(adata, clone_key)
        where = f"obsm[{clone_key!r}]"
    elif clone_key in adata.obs:
        column = read_column(adata, clone_key)
        text = column.astype(str).str.strip().where(column.notna(), "")
        clones = pd.factorize(text.where(text != "", None))[0]
        where = f"obs[{clone_key!r}]"
    else:
        raise KeyError(
            f"clone_key {clone_key!r} is neither a column of obs ({list(adata.obs.columns)}) nor a key of obsm "
            f"({list(adata.obsm)})"
        )
    sizes = np.bincount(clones[clones >= 0]) if (clones >= 0).any() else np.zeros(1, dtype=int)
    if sizes.max(initial=0) < 2:
        raise ValueError(
            f"{where} has {int((sizes > 0).sum())} clones, and each has one cell: there are no sisters; pass a column "
            "in which cells of a clone have the same name"
        )
    return np.asarray(clones, dtype=np.intp)


def read_sisters(
    adata: ad.AnnData, clone_key: str, times: NDArray[np.float64], training: NDArray[np.float64]
) -> NDArray[np.intp]:
    """Clones (n_obs,) as :func:`read_clones` has them, for a fit: some have cells at two of the ``training`` times.

    Raises
    ------
    KeyError, ValueError
        As for :func:`read_clones`, or if no clone has.
    """
    clones = read_clones(adata, clone_key)
    used = (clones >= 0) & np.isin(times, training)
    n_times = pd.Series(times[used]).groupby(clones[used]).nunique()
    if not (n_times > 1).any():
        raise ValueError(
            f"none of the {len(n_times)} clones of {clone_key!r} has cells at two training times "
            f"({', '.join(f'{t:g}' for t in training)}), so that they say nothing of motion; leave clone_key out, or "
            "hold out other times"
        )
    return clones


def check_conditions(clones: NDArray[np.intp], condition: pd.Series, key: str, clone_key: str) -> None:
    """Refuse clones (n,) that have cells in several conditions (n,)."""
    known = clones >= 0
    spread = condition[known].astype(str).groupby(clones[known]).nunique()
    if (spread > 1).any():
        raise ValueError(
            f"{int((spread > 1).sum())} of {len(spread)} clones have cells in several conditions of obs[{key!r}]; "
            "cells that were never together are no sisters: if barcodes were used again, name clones by both, "
            f"adata.obs['clone'] = adata.obs[{key!r}].astype(str) + '_' + adata.obs[{clone_key!r}].astype(str)"
        )


def _of_matrix(adata: ad.AnnData, key: str) -> NDArray[np.intp]:
    """Clones of a matrix (n_obs, n_clones)."""
    matrix: Any = adata.obsm[key]
    matrix = matrix.to_memory() if hasattr(matrix, "to_memory") else matrix
    matrix = matrix.to_numpy() if isinstance(matrix, pd.DataFrame) else matrix
    found = coo_matrix(matrix if issparse(matrix) else np.asarray(matrix))
    there = found.data != 0
    rows, columns = found.row[there], found.col[there]
    several = np.bincount(rows, minlength=adata.n_obs) > 1
    if several.any():
        raise ValueError(
            f"obsm[{key!r}] puts {int(several.sum())} cells into several clones "
            f"({list(adata.obs_names[several][:3])}, ...); keep one of each cell, or set their rows to zero"
        )
    clones = np.full(adata.n_obs, -1, dtype=np.intp)
    clones[rows] = columns
    return clones
