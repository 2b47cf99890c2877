"""Single columns of ``obs`` and whole arrays, in memory, of whatever AnnData holds them in."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import issparse


def read_column(adata: ad.AnnData, key: str) -> pd.Series:
    """One column of ``obs``, in memory, the others unread if they are on disk (``read_lazy``)."""
    if key not in adata.obs:
        raise KeyError(f"obs[{key!r}] is missing; obs has {list(adata.obs.columns)}")
    if hasattr(adata.obs, "to_memory"):
        return adata.obs[[key]].to_memory()[key]
    return adata.obs[key]


def layer_names(adata: ad.AnnData) -> list[str]:
    """Names of the layers, without ``X``, which ``layers`` lists as None since anndata 0.13."""
    return [name for name in adata.layers if name is not None]


def is_lazy(adata: ad.AnnData) -> bool:
    """Whether ``X`` or a layer is on disk or still to be computed, so that reading it is the user's decision."""
    return bool(adata.isbacked) or any(
        not (matrix is None or isinstance(matrix, np.ndarray) or issparse(matrix))
        for matrix in (adata.X, *adata.layers.values())
    )


def dense(a: Any) -> NDArray[np.float32]:
    """A float32 array of whatever AnnData holds (DataFrame, sparse, dask, h5py, lazy DataFrame)."""
    if hasattr(a, "to_memory"):
        a = a.to_memory()
    if isinstance(a, pd.DataFrame):
        a = a.to_numpy()
    if hasattr(a, "compute"):
        a = a.compute()
    if hasattr(a, "toarray"):
        a = a.toarray()
    return np.asarray(a[...] if hasattr(a, "id") else a, dtype=np.float32)
