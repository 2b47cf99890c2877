"""RNA velocity in the coordinates of the principal components."""

from __future__ import annotations

import anndata as ad
import numpy as np
from numpy.typing import NDArray


def project_layer(adata: ad.AnnData, vkey: str, use_rep: str) -> tuple[NDArray[np.float32], float]:
    """Project the velocities of ``layers[vkey]`` on the loadings of ``use_rep``.

    Unlike scVelo's ``velocity_pca`` this is a speed: no smoothing, centring or rescaling. Genes
    without a velocity (NaN) do not move.

    Parameters
    ----------
    adata
        With ``varm["PCs"]`` of shape (n_vars, k).
    vkey
        Layer of velocities, shape (n, n_vars).
    use_rep
        Must be ``"X_pca"``, the representation that ``varm["PCs"]`` belongs to.

    Returns
    -------
    velocity
        Shape (n, k), in units of the representation per unit of the layer's time; NaN for cells without
        the velocity of any gene.
    share
        Share of the loadings' sum of squares that lies on genes with a velocity.
    """
    if use_rep != "X_pca":
        raise ValueError(
            f"layers[{vkey!r}] holds velocities of genes, which can be projected on 'X_pca' only, not on {use_rep!r}; "
            "give velocities in that space as an obsm key"
        )
    if "PCs" not in adata.varm:
        raise KeyError(f"varm['PCs'] is missing, so layers[{vkey!r}] cannot be projected; run sc.pp.pca(adata) first")
    loadings = np.asarray(adata.varm["PCs"], dtype=np.float64)
    layer = adata.layers[vkey]
    velocity = np.asarray(layer.toarray() if hasattr(layer, "toarray") else layer)
    moving = np.isfinite(velocity).any(axis=0)
    if "velocity_genes" in adata.var:
        moving &= adata.var["velocity_genes"].to_numpy(bool)
    if not moving.any():
        raise ValueError(f"layers[{vkey!r}] has no gene with a velocity; run scv.tl.velocity(adata) first")
    share = float(np.square(loadings[moving]).sum() / np.square(loadings).sum())
    velocity = velocity[:, moving]
    projected = np.nan_to_num(velocity, posinf=0, neginf=0) @ loadings[moving]
    projected[~np.isfinite(velocity).any(axis=1)] = np.nan
    return projected.astype(np.float32), share
