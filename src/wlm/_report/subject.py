"""What a report is about: the object, its fit, and what was chosen to show of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._adata.cells import read_rep
from wlm._adata.columns import is_lazy, layer_names, read_column, read_obs_labels
from wlm._adata.mudata import get_target, is_mudata
from wlm._store.fit import StoredFit, check_representation, open_fit
from wlm._store.results import DEFAULT_KEY
from wlm.pp import doctor

#: Embeddings made for drawing, in the order in which one is chosen.
MAPS = ("X_umap", "umap", "X_phate", "X_tsne", "tsne", "X_draw_graph_fa", "X_draw_graph_fr", "X_spring", "X_force")
#: Columns that hold labels of cells, by parts of their names, in the order in which one is chosen.
LABELS = ("cell_type", "celltype", "cell type", "annot", "cluster", "leiden", "louvain", "lineage", "fate", "type")
#: Fewest and most labels of a column that is chosen.
FEWEST, MOST = 2, 40


@dataclass(frozen=True, eq=False)
class Subject:
    """A fit and its ``cells``; ``adata`` is what verbs are called with, a copy where something is written to it.

    ``x`` (n, d) and ``times`` (n,) are the positions and times of the cells. ``label_key`` and ``map`` are the column
    with labels and the embedding to draw in, None with the reasons in ``why``. ``tables`` are those of verbs that keep
    nothing in the object, by the name of the verb.
    """

    adata: Any
    cells: ad.AnnData
    fit: StoredFit
    mod: str | None
    x: NDArray[np.float32]
    times: NDArray[np.float64]
    label_key: str | None
    map: str | None
    genes: tuple[str, ...] | None
    tables: Mapping[str, pd.DataFrame]
    seed: int
    why: Mapping[str, str]

    @property
    def target(self) -> Any:
        """The object whose ``uns``, ``obs`` and ``obsm`` hold what verbs found."""
        return get_target(self.adata, self.mod)

    @property
    def key(self) -> str:
        """Name of the fit."""
        return self.fit.key

    @property
    def common(self) -> dict[str, Any]:
        """Arguments that all verbs and plots of a fit take."""
        return {"key": self.key, "mod": self.mod}

    @property
    def call(self) -> str:
        """``, key='...'`` for calls that are proposed; nothing of the default."""
        return "" if self.key == DEFAULT_KEY else f", key={self.key!r}"

    def result(self, name: str) -> Mapping[str, Any] | None:
        """The entry ``K_<name>`` of ``uns`` if it was computed from this fit."""
        found = self.target.uns.get(f"{self.key}_{name}")
        return found if isinstance(found, Mapping) and str(found.get("fit", "")) == self.fit.checksum else None

    @cached_property
    def rows(self) -> NDArray[np.intp]:
        """Places (n,) of the cells in the object."""
        return self.target.obs_names.get_indexer(self.cells.obs_names)

    @cached_property
    def doctor(self) -> pd.DataFrame:
        """What :func:`wlm.pp.doctor` says of these cells."""
        reading = self.fit.reading
        return doctor(
            self.cells,
            time_key=self.fit.time_key,
            use_rep=self.fit.use_rep,
            n_dims=reading.n_dims,
            velocity_key=reading.velocity_key,
            method=self.fit.dynamics.method.name,
            nan=reading.nan,
            device="cpu",
        )

    def at(self, t: float) -> NDArray[np.intp]:
        """The cells of a time."""
        return np.flatnonzero(self.times == t)

    def writable(self) -> Subject | None:
        """The same with an object that results can be written to without changing the user's; None if there is none."""
        if is_mudata(self.adata) or is_lazy(self.adata):
            return None
        a = self.adata
        copy = ad.AnnData(
            a.X,
            obs=a.obs.copy(),
            var=a.var.copy(),
            uns=dict(a.uns),
            obsm=dict(a.obsm),
            varm=dict(a.varm),
            layers={name: a.layers[name] for name in layer_names(a)},
            obsp=dict(a.obsp),
        )
        return replace(self, adata=copy)


def read_subject(
    adata: Any,
    key: str,
    mod: str | None,
    *,
    label_key: str | None,
    basis: str | None,
    genes: Sequence[str] | str | None,
    tables: Mapping[str, pd.DataFrame],
    seed: int,
) -> Subject:
    """Read the fit and its cells, choose what is left to choose, and refuse what is not there.

    Raises
    ------
    KeyError, ValueError, TypeError
        If there is no fit, the object no longer holds its cells, or a column, embedding or gene is missing.
    """
    cells, fit = open_fit(adata, key, mod, columns=[] if label_key is None else [label_key])
    x = read_rep(cells, fit.use_rep, fit.n_dims)
    check_representation(cells, fit, x)
    times, why = fit.times(cells), {}
    names = None
    if genes is not None:
        names = tuple(dict.fromkeys([genes] if isinstance(genes, str) else map(str, genes)))
        absent = [g for g in names if g not in cells.var_names]
        if absent or not names:
            raise KeyError(
                f"genes {absent or list(names)} are not in var_names; name some of {list(cells.var_names[:5])}"
            )
    if label_key is not None:
        read_obs_labels(cells, label_key)
    else:
        label_key, why["labels"] = _labels(cells, fit)
    there = basis if basis is None or basis in cells.obsm else f"X_{basis}"
    if there is not None and there not in cells.obsm:
        raise KeyError(f"basis {basis!r} is neither in obsm as it is nor as {there!r}; obsm has {list(cells.obsm)}")
    if there is None:
        there = next((name for name in MAPS if name in cells.obsm and name != fit.use_rep), None)
        why["map"] = f"obsm holds no embedding for drawing, such as {MAPS[0]!r}" if there is None else ""
    return Subject(adata, cells, fit, mod, x, times, label_key, there, names, tables, seed, why)


def _labels(cells: ad.AnnData, fit: StoredFit) -> tuple[str | None, str]:
    """The column whose name says that it holds labels of cells, or why there is none."""
    taken = {*fit.reading.columns.values()}
    found = []
    for column in dict.fromkeys(map(str, cells.obs.columns)):
        if column in taken or column.startswith(f"{fit.group}_") or list(cells.obs.columns).count(column) > 1:
            continue
        rank = next((k for k, part in enumerate(LABELS) if part in column.lower()), None)
        values = read_column(cells, column)
        if rank is None or pd.api.types.is_numeric_dtype(values) or values.isna().any():
            continue
        if FEWEST <= values.nunique() <= MOST:
            found.append((rank, column))
    if not found:
        return None, "no column of obs is named like one with labels of cells (cell_type, cluster, leiden, ...)"
    return min(found)[1], ""


def read_object(path: str | os.PathLike[str]) -> Any:
    """The object in a file.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is none, or it is no such file.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (".h5ad", ".h5mu", ".zarr"):
        raise ValueError(f"a file to report on must end in .h5ad, .h5mu or .zarr, found {str(path)!r}")
    if not path.exists():
        raise FileNotFoundError(f"there is no {str(path)!r}")
    try:
        if kind == ".h5mu":
            import mudata

            return mudata.read_h5mu(path)
        return ad.read_h5ad(path) if kind == ".h5ad" else ad.read_zarr(path)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error}") from error
