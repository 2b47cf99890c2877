"""Binning a continuous time."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd

from wlm._adata.checks import check_integer


def bin_time(
    adata: ad.AnnData, *, key: str, n_bins: int = 5, key_added: str | None = None, copy: bool = False
) -> ad.AnnData | None:
    """Bin a continuous time, such as a pseudotime, into populations that can be compared.

    Use it for cells of one sample, if an order of the cells stands in for sampling times. A fit then has the units of
    that order and says nothing about days.

    Parameters
    ----------
    adata
        Cells with the time in ``obs``.
    key
        Column of ``obs`` with numbers, for example ``"velocity_pseudotime"``.
    n_bins
        Number of bins, with about equally many cells each.
    key_added
        Column for the result; by default ``f"{key}_bin"``.
    copy
        Return a copy with the result instead of writing to ``adata``.

    Returns
    -------
    None, or the copy if ``copy=True``. Written to ``adata``:

    ``obs[key_added]`` : float64
        Median time of each cell's bin; NaN where ``key`` is missing.

    Raises
    ------
    KeyError, TypeError, ValueError
        If there is no such column, it holds no numbers, or too few distinct ones for ``n_bins``.
    """
    if key not in adata.obs:
        raise KeyError(f"obs[{key!r}] is missing; obs has {list(adata.obs.columns)}")
    values = adata.obs[key]
    if not pd.api.types.is_numeric_dtype(values.dtype) or pd.api.types.is_bool_dtype(values.dtype):
        raise TypeError(f"obs[{key!r}] has dtype {values.dtype}; numbers are wanted, see wlm.pp.parse_time for labels")
    check_integer("n_bins", n_bins, 2)
    finite = values.astype(np.float64).where(np.isfinite(values.astype(np.float64)))
    bins = pd.qcut(finite, n_bins, labels=False, duplicates="drop")
    if bins.nunique() < n_bins:
        raise ValueError(
            f"obs[{key!r}] has too few distinct values for {n_bins} bins of equally many cells "
            f"({finite.nunique()} values give {bins.nunique()}); lower n_bins"
        )
    target = adata.copy() if copy else adata
    target.obs[f"{key}_bin" if key_added is None else key_added] = finite.groupby(bins).transform("median")
    return target if copy else None
