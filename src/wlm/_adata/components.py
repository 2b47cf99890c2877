"""Principal components under their usual names."""

from __future__ import annotations

from typing import Any

#: Keys of ``obsm`` that hold principal components, with those of ``varm`` for their loadings: scanpy 1 and 2.
LOADINGS = {"X_pca": "PCs", "pca": "pca"}


def find_rep(adata: Any, use_rep: str | None) -> str:
    """The representation that ``use_rep`` names; None is ``"X_pca"``, or ``"pca"`` (scanpy 2) where only that is."""
    if use_rep is not None:
        return use_rep
    return "pca" if "pca" in adata.obsm and "X_pca" not in adata.obsm else "X_pca"
