"""Some rows of the matrices of an object, in memory or on disk, for the doctor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._adata.columns import dense, get_x, layer_names, take_cells
from wlm._adata.components import LOADINGS
from wlm.pp._checks import Float64

#: Rows of X and of layers that are read, in a few runs: files are read in blocks.
N_ROWS, N_RUNS = 500, 20


def sample_rows(n: int) -> NDArray[np.intp]:
    """At most ``N_ROWS`` of ``n`` rows, increasing, in a few runs spread over all of them."""
    if n <= N_ROWS:
        return np.arange(n)
    length = N_ROWS // N_RUNS
    starts = np.linspace(0, n - length, N_RUNS).astype(np.intp)
    return (starts[:, None] + np.arange(length)).ravel()


class Matrices(Mapping[str, Float64]):
    """Some rows of ``X`` and of the layers (m, n_vars), read when they are asked for; those that can be."""

    def __init__(self, adata: ad.AnnData, rows: NDArray[np.intp]):
        self._adata, self._rows = adata, rows
        # A view of a view cannot be backed.
        names = [] if adata.isbacked and adata.is_view else ["X", *layer_names(adata)]
        self._names = [name for name in names if _has_rows(self._matrix(adata, name))]

    def __getitem__(self, name: str) -> Float64:
        if name not in self._names:
            raise KeyError(name)
        part = self._matrix(take_cells(self._adata, self._rows), name)
        part = part.compute() if hasattr(part, "compute") else part
        return np.asarray(part.toarray() if hasattr(part, "toarray") else part, dtype=np.float64)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    @staticmethod
    def _matrix(adata: ad.AnnData, name: str) -> Any:
        return get_x(adata) if name == "X" else adata.layers[name]


def _has_rows(matrix: Any) -> bool:
    """Whether rows can be read: a matrix on disk that is stored by columns would have to be read as a whole."""
    return matrix is not None and not (hasattr(matrix, "group") and matrix.format == "csc")


def some_cells(adata: ad.AnnData, use_rep: str, matrices: Mapping[str, Float64], rows: NDArray[np.intp]) -> ad.AnnData:
    """Some cells, with what the projection of velocities reads."""
    loadings = LOADINGS[use_rep]
    return ad.AnnData(
        matrices["X"] if "X" in matrices else None,
        obs=pd.DataFrame(index=adata.obs_names[rows]),
        var=adata.var,
        varm={loadings: np.asarray(adata.varm[loadings])} if loadings in adata.varm else None,
        obsm={use_rep: dense(adata.obsm[use_rep])[rows]},
        layers={name: matrices[name] for name in matrices if name != "X"},
        uns={name: adata.uns[name] for name in ("log1p", "PCs") if name in adata.uns},
    )
