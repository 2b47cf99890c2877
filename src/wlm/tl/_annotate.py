"""What predicted cells get from observed ones: labels and coordinates by neighbours, and a place beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._adata.columns import dense, is_lazy, read_column, read_obs_labels
from wlm._adata.genes import get_matrix
from wlm._adata.neighbours import from_neighbours, onto, projection
from wlm._adata.times import write_times
from wlm._store.fit import StoredFit


def names_of(argument: str, given: Any) -> list[str]:
    """One name or several, as a list without repetitions."""
    names = [given] if isinstance(given, str) else list(given or ())
    bad = [name for name in names if not isinstance(name, str)]
    if bad:
        raise TypeError(f"{argument} must be one name or several, found {bad[0]!r}")
    return list(dict.fromkeys(names))


def check(cells: ad.AnnData, fit: StoredFit, labels: Sequence[str], basis: Sequence[str]) -> dict[str, str]:
    """Refuse columns and embeddings that predicted cells cannot get; the keys of ``obsm`` by the names asked for."""
    written = {fit.time_key, "origin", "from_time", f"{fit.group}_outside", f"{fit.group}_spread"}
    own = [name for name in labels if name in written]
    if own:
        raise ValueError(f"predictions write obs[{own[0]!r}] themselves; leave it out of labels")
    for name in labels:
        column = read_column(cells, name)
        numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
        if not numeric:
            read_obs_labels(cells, name)
        elif not np.isfinite(column.to_numpy(dtype=np.float64, na_value=np.nan)).all():
            raise ValueError(f"obs[{name!r}] has numbers that are missing or infinite; leave it out of labels")
    keys = {name: name if name in cells.obsm else f"X_{name}" for name in basis}
    for name, key in keys.items():
        if key not in cells.obsm:
            raise KeyError(f"basis {name!r} is neither in obsm as it is nor as {key!r}; obsm has {list(cells.obsm)}")
        if not np.isfinite(dense(cells.obsm[key], f"obsm[{key!r}]")).all():
            raise ValueError(f"obsm[{key!r}] has NaN or infinite values; compute it again, or leave it out of basis")
    return keys


def annotate(
    predicted: ad.AnnData,
    cells: ad.AnnData,
    fit: StoredFit,
    x: NDArray[np.float32],
    trained: NDArray[np.bool_],
    labels: Sequence[str],
    keys: Sequence[str],
) -> None:
    """Add labels and coordinates to predicted cells, from the observed ``cells`` of the training times."""
    positions = np.asarray(predicted.obsm[fit.use_rep])[:, : fit.n_dims]
    for name in labels:
        column = read_column(cells, name)
        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
            values = column.to_numpy(dtype=np.float64)
            predicted.obs[name] = from_neighbours(x[trained], values[trained], positions)
            continue
        text = read_obs_labels(cells, name)
        found = from_neighbours(x[trained], text[trained], positions)
        known = (
            column.cat.categories.astype(str) if isinstance(column.dtype, pd.CategoricalDtype) else sorted(set(text))
        )
        predicted.obs[name] = pd.Categorical(found, categories=list(known))
    for key in keys:
        shown = dense(cells.obsm[key])
        if key != fit.use_rep:
            predicted.obsm[key] = onto(x[trained], shown[trained])[0](positions)
            continue
        # Of further components a mean is a place like any other, and the best guess.
        near = projection(x[trained], shown[trained])(positions)
        near[:, : fit.n_dims] = positions  # those are predicted
        predicted.obsm[key] = near


def append_to(predicted: ad.AnnData, cells: ad.AnnData, fit: StoredFit, key: str, keys: Sequence[str]) -> ad.AnnData:
    """Observed and predicted cells in one object."""
    times = write_times(read_column(cells, fit.time_key), fit.times(cells), predicted.obs[fit.time_key], fit.style)
    mark = f"{key}_predicted"
    obs = predicted.obs.assign(**{fit.time_key: times, mark: True})
    columns = [read_column(cells, name).rename(name) for name in dict.fromkeys(cells.obs.columns)]
    own = pd.concat(columns, axis=1) if columns else pd.DataFrame(index=cells.obs_names)
    own.index = cells.obs_names.astype(str)
    both = [own.assign(**{mark: False}), obs]
    table = pd.DataFrame(index=pd.Index(np.concatenate([part.index for part in both]), dtype=object))
    for name in dict.fromkeys([*both[0].columns, *both[1].columns]):
        table[name] = _joined([part.get(name) for part in both], [len(part) for part in both])
    velocity = f"{fit.group}_velocity"
    obsm = {name: np.concatenate([dense(a.obsm[name]) for a in (cells, predicted)]) for name in (*keys, velocity)}
    x, var = None, None
    if predicted.n_vars:
        var = predicted.var
        matrix = get_matrix(cells, _layer(predicted, key))
        index = cells.var_names.get_indexer(var.index)
        matrix = matrix[:, index]
        x = np.concatenate([np.asarray(matrix.toarray() if hasattr(matrix, "toarray") else matrix), predicted.X])
        x = x.astype(np.float32)
    return ad.AnnData(x, obs=table, var=var, obsm=obsm, uns=dict(predicted.uns))


def check_append(cells: ad.AnnData, genes: Any) -> None:
    """Refuse what cannot stand beside observed cells."""
    if callable(genes):
        raise ValueError(
            "append=True takes observed expression from the matrix of the PCA, and a function says nothing of it; pass "
            "genes=True or names of genes, or leave append out"
        )
    if genes is not False and is_lazy(cells):
        raise ValueError("observed expression cannot be appended with X on disk; run adata = adata.to_memory() first")


def _layer(predicted: ad.AnnData, key: str) -> str:
    """The matrix that predicted expression is decoded to."""
    note = str(predicted.uns[f"{key}_prediction"]["decoding"])
    return note.removeprefix("pca, ").removeprefix("layer ")


def _joined(parts: Sequence[pd.Series | None], sizes: Sequence[int]) -> Any:
    """One column of both objects; missing where one has none, with the categories of both in their order."""
    present = [part for part in parts if part is not None]
    if all(isinstance(part.dtype, pd.CategoricalDtype) for part in present):
        # The longer list first: times that were predicted stand among those that were observed.
        most = sorted((part.cat.categories for part in present), key=len, reverse=True)
        names = list(dict.fromkeys(name for categories in most for name in categories))
        values = [[None] * n if part is None else list(part) for part, n in zip(parts, sizes, strict=True)]
        return pd.Categorical([v for part in values for v in part], categories=names)
    if len(present) == len(parts):
        return pd.concat(present).to_numpy()
    numeric = all(pd.api.types.is_numeric_dtype(p) and not pd.api.types.is_bool_dtype(p) for p in present)
    fill: Any = np.nan if numeric else None
    values = [[fill] * n if part is None else list(part) for part, n in zip(parts, sizes, strict=True)]
    column = [v for part in values for v in part]
    if numeric:
        return np.array(column, dtype=np.float64)
    return pd.Categorical([None if pd.isna(v) else str(v) for v in column])  # text with gaps, which files can hold
