"""From principal components back to genes, with a receipt: from which matrix, and how well."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import issparse

from wlm._adata.checks import as_text
from wlm._adata.columns import dense, layer_names
from wlm._adata.components import LOADINGS

#: Cells on which the loadings are checked.
_N_CHECK = 500
#: Most entries of a matrix that are made dense at once.
_CHUNK = 2**23
#: Standard deviation, relative to the mean, below which a gene is constant: the precision of float32.
_CONSTANT = 1e-6


@dataclass(frozen=True)
class Receipt:
    """What decoding needs and what it is worth, found by comparing matrices with the principal components.

    ``mean`` (n_vars,) float64, what PCA subtracted; ``layer``, the matrix it was computed on: a key of
    ``layers``, or ``"X"``; ``r2`` (n_vars,) float32, the share of each gene's variance over the cells of that
    matrix that the fitted components reconstruct, NaN for genes that cannot be decoded: those that are
    constant or without loadings (not highly variable ones).
    """

    mean: NDArray[np.float64]
    layer: str
    r2: NDArray[np.float32]


def make_receipt(adata: ad.AnnData, use_rep: str, n_dims: int) -> Receipt | None:
    """Find the matrix that explains the components in ``obsm[use_rep]``; None if neither ``X`` nor a layer does.

    scanpy stores the loadings but neither the mean nor the layer: both are recovered by finding the
    matrix for which ``(X - mean) @ loadings`` gives ``obsm[use_rep]``. Where the loadings do not see it
    (they are orthonormal), the mean is that of the matrix as it is now.

    Parameters
    ----------
    use_rep
        A key of :data:`wlm._adata.components.LOADINGS`.
    n_dims
        The components that were fitted: R² is that of the first ``n_dims``.

    Raises
    ------
    ValueError
        If ``adata`` is backed.
    """
    key = LOADINGS[use_rep]
    if use_rep not in adata.obsm or key not in adata.varm or adata.varm[key].shape[1] < n_dims:
        return None
    if adata.isbacked:
        raise ValueError("genes cannot be decoded from a backed object; run adata = adata.to_memory() first")
    for layer in ("X", *layer_names(adata)):
        matrix = get_matrix(adata, layer)
        offset = None if matrix is None else _offset(adata, use_rep, matrix)
        if offset is None or matrix is None:
            continue
        loadings = np.asarray(adata.varm[key], dtype=np.float64)
        k = len(offset)
        center = np.asarray(matrix.mean(axis=0, dtype=np.float64)).ravel()
        mean = center + loadings[:, :k] @ (offset - center @ loadings[:, :k])
        scores = dense(adata.obsm[use_rep])[:, :n_dims].astype(np.float64)
        return Receipt(mean, layer, _r2(matrix, center, scores, loadings[:, :n_dims], mean))
    return None


def read_receipt(adata: ad.AnnData, stored: Mapping[str, Any]) -> Receipt:
    """The receipt of a fit for the genes of ``adata``, or one made now if the fit has none for them.

    Parameters
    ----------
    stored
        ``uns[K]["representation"]``.

    Raises
    ------
    KeyError
        If there are no loadings.
    ValueError
        If the fit was not made on principal components, or the loadings do not explain them.
    """
    use_rep = str(stored["key"])
    if use_rep not in LOADINGS:
        raise ValueError(
            f"obsm[{use_rep!r}] can only be decoded to genes with a decoder, only 'X_pca' and 'pca' without one; pass "
            "a function from positions (n, d) to expression: wlm.tl.predict(adata, times, genes=function)"
        )
    key = LOADINGS[use_rep]
    if key not in adata.varm:
        raise KeyError(
            f"varm[{key!r}] is missing, so that cells cannot be decoded to genes; run sc.pp.pca(adata) first"
        )
    if "layer" in stored:
        genes = pd.Index(np.asarray(stored["genes"], dtype=object))
        index = np.arange(len(genes)) if genes.equals(adata.var_names) else None
        if index is None and genes.is_unique:
            index = genes.get_indexer(as_text(adata.var_names))
        if index is not None and (index >= 0).all():
            return Receipt(np.asarray(stored["mean"])[index], str(stored["layer"]), np.asarray(stored["r2"])[index])
    receipt = make_receipt(adata, use_rep, int(stored["n_dims"]))
    if receipt is None:
        raise ValueError(
            f"varm[{key!r}] does not explain obsm[{use_rep!r}]: (X - mean) @ loadings differs from it for X and every "
            "layer; run sc.pp.pca(adata), fit again, and do not change X in between"
        )
    return receipt


def decode(
    positions: NDArray[np.float32], loadings: NDArray[np.floating], mean: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Expression (n, n_genes) of cells at ``positions`` (n, d), given ``loadings`` (n_genes, >= d) of the genes.

    Genes without loadings get their ``mean`` (n_genes,).
    """
    weights = np.asarray(loadings, dtype=np.float64)[:, : positions.shape[1]]
    return (positions @ weights.T + mean).astype(np.float32)


def find_genes(adata: ad.AnnData, names: list[str], receipt: Receipt) -> list[int]:
    """Columns of the genes; refuses those that do not exist or cannot be decoded."""
    if not names:
        raise ValueError("genes must name one or more of var_names, found none")
    unknown = [g for g in names if g not in adata.var_names]
    if unknown:
        lower = {str(g).lower(): g for g in adata.var_names}
        close = [difflib.get_close_matches(str(g).lower(), lower, n=1) for g in unknown[:5]]
        found = ", ".join(
            f"{g!r} (did you mean {lower[c[0]]!r}?)" if c else repr(g) for g, c in zip(unknown, close, strict=False)
        )
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise KeyError(f"not in var_names: {found}{more}")
    if not adata.var_names.is_unique:
        raise ValueError("var_names are not unique; run adata.var_names_make_unique() first")
    index = [int(i) for i in adata.var_names.get_indexer(names)]
    lost = [g for g, i in zip(names, index, strict=True) if np.isnan(receipt.r2[i])]
    if lost:
        raise ValueError(
            f"{', '.join(map(repr, lost[:5]))}{' and more' if len(lost) > 5 else ''} cannot be decoded: constant, "
            "or without loadings, as genes that are not highly variable; run sc.pp.pca with "
            "these genes and fit again"
        )
    return index


def get_matrix(adata: ad.AnnData, layer: str) -> Any:
    """The matrix (n_obs, n_vars) that a receipt names, or None."""
    return adata.X if layer == "X" and adata.X is not None else adata.layers.get(layer)


def explains(adata: ad.AnnData, use_rep: str, layer: str) -> bool:
    """Whether the values in a layer, or ``"X"``, are those that ``obsm[use_rep]`` was computed on."""
    return _offset(adata, use_rep, get_matrix(adata, layer)) is not None


def _offset(adata: ad.AnnData, use_rep: str, matrix: Any) -> NDArray[np.float64] | None:
    """What PCA subtracted, as scores (k,); None if ``matrix`` (n_obs, n_vars) does not give the scores."""
    check = np.sort(np.random.default_rng(0).permutation(adata.n_obs)[:_N_CHECK])
    scores = dense(adata.obsm[use_rep])[check].astype(np.float64)
    return pca_offset(_dense(matrix[check]), scores, np.asarray(adata.varm[LOADINGS[use_rep]], dtype=np.float64))


def pca_offset(
    rows: NDArray[np.float64], scores: NDArray[np.floating], loadings: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """What PCA subtracted of ``rows`` (m, n_vars), as scores (k,); None if they do not give the ``scores`` (m, k)."""
    k = min(scores.shape[1], loadings.shape[1])
    # Whatever was subtracted, and from which cells it was computed: it is a constant in the scores.
    offset = rows @ loadings[:, :k] - scores[:, :k]
    mean = offset.mean(axis=0)
    return mean if np.allclose(offset, mean, atol=1e-2 * scores.std()) else None


def _r2(
    matrix: Any,
    center: NDArray[np.float64],
    scores: NDArray[np.float64],
    loadings: NDArray[np.float64],
    mean: NDArray[np.float64],
) -> NDArray[np.float32]:
    """R² (n_vars,) of ``scores @ loadings.T + mean`` against ``matrix``, whose mean is ``center``."""
    genes = np.flatnonzero((loadings != 0).any(axis=1))
    center, mean, weights = center[genes], mean[genes], loadings[genes].T
    if issparse(matrix) and matrix.format == "csc":
        matrix = matrix.tocsr()  # to slice rows
    total, rest = np.zeros(len(genes)), np.zeros(len(genes))
    step = max(1, _CHUNK // max(1, len(genes)))
    for i in range(0, len(scores), step):
        rows = _dense(matrix[i : i + step][:, genes])
        total += np.square(rows - center).sum(axis=0)
        rest += np.square(rows - scores[i : i + step] @ weights - mean).sum(axis=0)
    varies = total > len(scores) * np.square(_CONSTANT * center)
    r2 = np.full(len(loadings), np.nan, dtype=np.float32)
    r2[genes[varies]] = 1 - rest[varies] / total[varies]
    return r2


def _dense(rows: Any) -> NDArray[np.float64]:
    rows = rows.compute() if hasattr(rows, "compute") else rows
    return np.asarray(rows.toarray() if hasattr(rows, "toarray") else rows, dtype=np.float64)
