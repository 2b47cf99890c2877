"""From principal components back to genes."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

#: Cells on which the loadings are checked.
_N_CHECK = 500


def decode(
    adata: ad.AnnData, positions: NDArray[np.float32], use_rep: str, known: pd.Series | None
) -> NDArray[np.float32]:
    """Expression (n, n_vars) of cells at ``positions`` (n, d) in the principal components.

    ``known`` is the mean, by gene, that :func:`pca_mean` found when the fit was made; without it, it
    is looked for now. Genes without loadings (not highly variable ones) get their mean.

    Raises
    ------
    KeyError
        If there are no loadings.
    ValueError
        If the loadings do not explain the representation.
    """
    if use_rep != "X_pca":
        raise ValueError(f"genes=True needs the fit to be made on 'X_pca'; {use_rep!r} cannot be decoded")
    if "PCs" not in adata.varm:
        raise KeyError("varm['PCs'] is missing, so that cells cannot be decoded to genes; run sc.pp.pca(adata) first")
    loadings = np.asarray(adata.varm["PCs"], dtype=np.float64)
    if known is not None and adata.var_names.isin(known.index).all():
        mean = known[adata.var_names].to_numpy()
    else:
        mean = pca_mean(adata)
    if mean is None:
        raise ValueError(
            "varm['PCs'] does not explain obsm['X_pca']: (X - mean) @ PCs differs from it for X and every layer; "
            "run sc.pp.pca(adata), fit again, and do not change X in between"
        )
    d = positions.shape[1]
    return (positions @ loadings[:, :d].T + mean).astype(np.float32)


def pca_mean(adata: ad.AnnData) -> NDArray[np.float64] | None:
    """Mean (n_vars,) that PCA subtracted, or None if no matrix of ``adata`` explains ``obsm["X_pca"]``.

    scanpy stores the loadings but neither the mean nor the layer: both are recovered by finding the
    matrix for which ``(X - mean) @ PCs`` gives ``obsm["X_pca"]``. Where the loadings do not see it
    (they are orthonormal), the mean is that of the matrix as it is now.
    """
    if "X_pca" not in adata.obsm or "PCs" not in adata.varm:
        return None
    loadings = np.asarray(adata.varm["PCs"], dtype=np.float64)
    if adata.isbacked:
        raise ValueError("genes cannot be decoded from a backed object; run adata = adata.to_memory() first")
    check = np.sort(np.random.default_rng(0).permutation(adata.n_obs)[:_N_CHECK])
    scores = np.asarray(adata.obsm["X_pca"], dtype=np.float64)[check]
    k = min(scores.shape[1], loadings.shape[1])
    for matrix in (adata.X, *adata.layers.values()):
        if matrix is None:
            continue
        mean = np.asarray(matrix.mean(axis=0), dtype=np.float64).ravel()
        rows = matrix[check]
        rows = np.asarray(rows.toarray() if hasattr(rows, "toarray") else rows, dtype=np.float64)
        # Whatever was subtracted, and from which cells it was computed: it is a constant in the scores.
        offset = rows @ loadings[:, :k] - scores[:, :k]
        if np.allclose(offset, offset.mean(axis=0), atol=1e-2 * scores.std()):
            return mean + loadings[:, :k] @ (offset.mean(axis=0) - mean @ loadings[:, :k])
    return None
