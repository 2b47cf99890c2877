"""Single columns of ``obs`` and whole arrays, in memory, of whatever AnnData holds them in."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import issparse


def check_column(adata: ad.AnnData, key: str) -> None:
    """Refuse the name of a column that ``obs`` has not, or has more than once."""
    if key not in adata.obs:
        raise KeyError(f"obs[{key!r}] is missing; obs has {list(adata.obs.columns)}")
    copies = list(adata.obs.columns).count(key)
    if copies > 1:
        raise ValueError(
            f"obs has {copies} columns named {key!r}; keep one: run "
            "adata.obs = adata.obs.loc[:, ~adata.obs.columns.duplicated()]"
        )


def read_column(adata: ad.AnnData, key: str) -> pd.Series:
    """One column of ``obs``, in memory, the others unread if they are on disk (``read_lazy``)."""
    check_column(adata, key)
    if hasattr(adata.obs, "to_memory"):
        return adata.obs[[key]].to_memory()[key]
    return adata.obs[key]


def read_obs_labels(adata: ad.AnnData, column: str) -> NDArray[Any]:
    """Labels of the cells (n_obs,) as text; numbers, and missing ones, are refused."""
    values = read_column(adata, column)
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        raise ValueError(
            f"obs[{column!r}] holds numbers; a column of labels is wanted, such as cell types. "
            f"If they are clusters, run adata.obs[{column!r}] = adata.obs[{column!r}].astype('category')"
        )
    if values.isna().any():
        raise ValueError(
            f"obs[{column!r}] has {int(values.isna().sum())} missing labels; name them, for example 'unknown', "
            "or leave these cells out"
        )
    return values.astype(str).to_numpy()


def take_cells(adata: ad.AnnData, rows: Any) -> ad.AnnData:
    """Some cells; without columns of ``obs`` that share a name, of which anndata makes no views."""
    columns = adata.obs.columns
    if not columns.is_unique:  # in memory: no file holds such columns
        slots: dict[str, Any] = {name: getattr(adata, name) for name in ("var", "obsm", "varm", "obsp", "varp", "uns")}
        layers = {name: adata.layers[name] for name in layer_names(adata)}
        adata = ad.AnnData(adata.X, obs=adata.obs.loc[:, ~columns.duplicated(keep=False)], layers=layers, **slots)
    return adata[rows]


def get_x(adata: ad.AnnData) -> Any:
    """``X``, or None; anndata finds none in a file without it."""
    try:
        return adata.X
    except KeyError:
        return None


def layer_names(adata: ad.AnnData) -> list[str]:
    """Names of the layers, without ``X``, which ``layers`` lists as None since anndata 0.13."""
    return [name for name in adata.layers if name is not None]


def is_lazy(adata: ad.AnnData) -> bool:
    """Whether ``X`` or a layer is on disk or still to be computed, so that reading it is the user's decision."""
    return bool(adata.isbacked) or any(
        not (matrix is None or isinstance(matrix, np.ndarray) or issparse(matrix))
        for matrix in (adata.X, *adata.layers.values())
    )


def dense(a: Any, name: str = "the array") -> NDArray[np.float32]:
    """A float32 array of whatever AnnData holds (DataFrame, sparse, dask, h5py, lazy DataFrame).

    ``name`` is for errors.

    Raises
    ------
    ValueError
        If it holds what is no real number.
    """
    if hasattr(a, "to_memory"):
        a = a.to_memory()
    if isinstance(a, pd.DataFrame):
        a = _numbers(a, name)
    if hasattr(a, "compute"):
        a = a.compute()
    if hasattr(a, "toarray"):
        a = a.toarray()
    a = np.asarray(a[...] if hasattr(a, "id") else a)
    if np.iscomplexobj(a):
        raise ValueError(f"{name} holds complex numbers; take their real part or their absolute value")
    try:
        with np.errstate(over="ignore"):  # what is too large is infinite, and refused as such
            return np.asarray(a, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} holds what is no number ({error}); give an array of numbers") from None


def _numbers(table: pd.DataFrame, name: str) -> NDArray[np.generic]:
    """The values of a table (n, d), NaN where one is missing."""
    columns, bad = [], []
    for k, column in enumerate(table.columns):
        values = table.iloc[:, k]
        if isinstance(values.dtype, pd.CategoricalDtype) or not (
            pd.api.types.is_numeric_dtype(values.dtype) or values.dtype == object
        ):
            bad.append(column)
            continue
        try:
            kind = np.complex128 if pd.api.types.is_complex_dtype(values.dtype) else np.float64
            columns.append(values.where(values.notna(), np.nan).to_numpy(dtype=kind, na_value=np.nan))
        except (TypeError, ValueError):
            bad.append(column)
    if bad:
        raise ValueError(
            f"{name} has columns that are no numbers: {', '.join(map(str, bad))}; drop them: run "
            f"adata.{name} = adata.{name}.drop(columns={bad!r})"
        )
    return np.stack(columns, axis=1) if columns else np.empty((len(table), 0))


#: What masks of genes are written as, in any case: by Python, R and tables of text; a missing value is False.
_TRUE, _FALSE = {"true", "t", "1", "1.0"}, {"false", "f", "0", "0.0"}
_MISSING = {"", "nan", "na", "<na>", "none", "null"}


def read_mask(var: pd.DataFrame, key: str) -> NDArray[np.bool_]:
    """A mask (n_vars,) in a column of ``var``: bool, nullable, 0 and 1, or such values as text; missing is False.

    Raises
    ------
    ValueError
        If it holds anything else, or several columns have this name.
    """
    column = var[[key]].to_memory()[key] if hasattr(var, "to_memory") else var[key]
    if getattr(column, "ndim", 1) > 1:
        raise ValueError(f"var has {column.shape[1]} columns named {key!r}; keep one of them")
    values = np.asarray(column.astype(object), dtype=object)
    read = [_read_bool(value) for value in values]
    bad = [value for value, known in zip(values, read, strict=True) if known is None]
    if bad:
        distinct = list(dict.fromkeys(map(repr, bad)))
        mark = next((value for value in distinct if value.strip("'\"").lower() in ("yes", "y", "on")), distinct[0])
        raise ValueError(
            f"var[{key!r}] must hold True and False, found {', '.join(distinct[:3])} ({len(bad)} of {len(values)} "
            f"genes); name the value that marks the genes to use: adata.var[{key!r}] = adata.var[{key!r}] == {mark}"
        )
    return np.array(read, dtype=bool)


def _read_bool(value: Any) -> bool | None:
    """One entry of a mask; None if it is none."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        text = value.strip().lower()
        return True if text in _TRUE else False if text in _FALSE | _MISSING else None
    if not np.isscalar(value) and value is not None and value is not pd.NA and value is not pd.NaT:
        return None
    if pd.isna(value):
        return False
    return bool(value) if value in (0, 1) else None
