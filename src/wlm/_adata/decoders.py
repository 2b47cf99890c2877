"""How predicted cells become genes: by PCA, or by a function of the user."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._adata.components import LOADINGS
from wlm._adata.genes import decode, find_genes, read_receipt

#: What a user's function is asked for, in every refusal.
_WANTED = "the decoder must return an array (n, n_vars), or a DataFrame (n, n_genes) whose columns are gene names"


@dataclass(frozen=True)
class Decoder:
    """``decode`` takes positions (n, d) to expression (n, n_genes) and its ``var``; ``note`` says how."""

    note: str
    decode: Callable[[NDArray[np.float32]], tuple[NDArray[np.float32], pd.DataFrame]]


def get_decoder(adata: ad.AnnData, genes: Any, representation: Mapping[str, Any], r2_key: str) -> Decoder | None:
    """The decoder that ``genes`` asks for: none if False, by PCA if True or names, or the user's own function.

    Parameters
    ----------
    representation
        ``uns[K]["representation"]`` of the fit.
    r2_key
        Column of ``var`` for the R² of decoding by PCA.

    Raises
    ------
    TypeError
        If ``genes`` is neither a bool nor a function, nor names.
    KeyError, ValueError
        If decoding by PCA is asked for and impossible.
    """
    if callable(genes):
        var = adata.var.drop(columns=r2_key, errors="ignore")  # says how well PCA decodes, not this function
        return Decoder("callable", lambda positions: _call(genes, positions.copy(), var))
    names = [genes] if isinstance(genes, str) else genes
    if isinstance(names, (list, tuple, np.ndarray, pd.Index)) and all(isinstance(name, str) for name in names):
        names = list(dict.fromkeys(map(str, names)))
    elif not isinstance(genes, (bool, np.bool_)):
        raise TypeError(
            f"genes must be True, False, names of genes, or a function that decodes positions, found {genes!r}"
        )
    elif not genes:
        return None
    receipt = read_receipt(adata, representation)
    var = adata.var.copy()
    var[r2_key] = receipt.r2
    note = "pca, X" if receipt.layer == "X" else f"pca, layer {receipt.layer}"
    loadings, mean = adata.varm[LOADINGS[str(representation["key"])]], receipt.mean
    if isinstance(names, list):
        index = find_genes(adata, names, receipt)
        loadings, mean, var = np.asarray(loadings)[index], mean[index], var.iloc[index]
    return Decoder(note, lambda positions: (decode(positions, loadings, mean), var))


def _call(
    function: Callable[[NDArray[np.float32]], Any], positions: NDArray[np.float32], var: pd.DataFrame
) -> tuple[NDArray[np.float32], pd.DataFrame]:
    """The user's function at ``positions`` (n, d), and what it returned, checked."""
    found = function(positions)
    try:
        decoded = np.asarray(found, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{_WANTED}; found {type(found).__name__}, which is no array of numbers ({error})") from None
    if decoded.ndim != 2 or len(decoded) != len(positions):
        raise ValueError(f"{_WANTED}; found shape {decoded.shape} for n = {len(positions)} positions")
    if isinstance(found, pd.DataFrame):
        names = found.columns.astype(str)
        if not names.is_unique:
            raise ValueError(f"{_WANTED}; found the name {names[names.duplicated()][0]!r} more than once")
        known = names.isin(var.index).all() and var.index.is_unique
        var = var.loc[names] if known else pd.DataFrame(index=names)
    elif decoded.shape[1] != len(var):
        raise ValueError(f"{_WANTED}; found {decoded.shape[1]} columns without names, while n_vars = {len(var)}")
    bad = np.logical_not(np.isfinite(decoded))
    if bad.any():
        raise ValueError(f"the decoder returned NaN or infinite values in {bad.any(axis=1).sum()} of {len(bad)} cells")
    return decoded, var
