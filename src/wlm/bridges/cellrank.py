"""CellRank's kernels from transition matrices."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import anndata as ad
import pandas as pd
from scipy.sparse import csr_matrix

#: The first version whose kernels are those that are made here.
OLDEST = (2, 0)


def load() -> Any:
    """CellRank, or what to do without it.

    Raises
    ------
    ImportError
        If it is missing, too old, or cannot be imported here.
    """
    try:
        found = version("cellrank")
        if tuple(int(part) for part in found.split(".")[:2]) < OLDEST:
            raise ImportError(f"version {found} is too old")
        import cellrank
    except ImportError as error:
        raise ImportError(
            f"CellRank cannot be used ({error}); install 2.0 or newer, in an environment of its own if it does not go "
            "with what is there: pip install 'wlm[cellrank]'"
        ) from error
    return cellrank


def precomputed(adata: ad.AnnData, matrix: csr_matrix) -> Any:
    """A ``PrecomputedKernel`` with the transition matrix (n_obs, n_obs)."""
    return load().kernels.PrecomputedKernel(matrix.astype("float64"), adata=adata)


def real_time(
    adata: ad.AnnData,
    time_key: str,
    times: pd.Categorical,
    couplings: Mapping[tuple[float, float], csr_matrix],
    neighbours: Mapping[str, Any],
) -> Any:
    """A ``RealTimeKernel`` with couplings (n, m) from each time to the next.

    Its cells are a new object, whose times are categories; arrays are those of ``adata``. Within the last time cells go
    to their ``neighbours``, for which these are the arguments of ``scanpy.pp.neighbors``.
    """
    obs = adata.obs.copy()
    obs[time_key] = times
    cells = ad.AnnData(
        adata.X, obs=obs, var=adata.var, obsm=dict(adata.obsm), varm=dict(adata.varm), uns=dict(adata.uns)
    )
    kernel = load().kernels.RealTimeKernel(cells, time_key=time_key, couplings=dict(couplings))
    return kernel.compute_transition_matrix(
        threshold=None, self_transitions="connectivities", conn_kwargs=dict(neighbours)
    )
