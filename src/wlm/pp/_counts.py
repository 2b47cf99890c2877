"""Spliced and unspliced counts: under which names they stand, in what form, and whether they are normalised."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, issparse

from wlm._logging import logger

#: Layers of spliced and of unspliced molecules, and who names them so.
LAYERS = {
    ("spliced", "unspliced"): "velocyto, STARsolo, kb-python (lamanno)",
    ("mature", "nascent"): "kb-python (nac)",
    ("S", "U"): "alevin-fry (USA)",
    ("total", "new"): "dynamo: all molecules, and labelled ones",
}
#: Relative spread of the cells' totals below which counts are normalised.
_EQUAL = 1e-3


def find_layers(adata: ad.AnnData) -> tuple[str, str]:
    """Names of the layers of spliced and of unspliced counts.

    Raises
    ------
    KeyError
        If there are none, or several could be meant; says the line that names them.
    """
    layers = [name for name in adata.layers if isinstance(name, str)]
    pairs = [pair for pair in LAYERS if set(pair) <= set(layers)]
    standard = next(iter(LAYERS))
    if standard in pairs:
        return standard
    if len(pairs) == 1 and not set(standard) & set(layers):
        mature, nascent = pairs[0]
        logger.info(
            "layers[%r] and layers[%r] (%s) stand for spliced and unspliced counts", mature, nascent, LAYERS[pairs[0]]
        )
        return pairs[0]
    missing = [name for name in standard if name not in layers]
    raise KeyError(f"layers {missing} are missing; layers has {layers}; {_naming(layers, pairs)}")


def _naming(layers: list[str], pairs: list[tuple[str, str]]) -> str:
    """How the layers that are there can be given the names that are read."""
    lines = [rename(pair) for pair in pairs]
    lower = {name.strip().lower(): name for name in layers}
    if {"spliced", "unspliced"} <= set(lower):
        lines.append(rename((lower["spliced"], lower["unspliced"])))
    if {"uu", "ul", "su", "sl"} <= set(layers):  # dynamo: unspliced or spliced, unlabelled or labelled
        sums = [f"adata.layers[{a!r}] + adata.layers[{b!r}]" for a, b in (("su", "sl"), ("uu", "ul"))]
        lines.append(_line(*sums))
    if lines:
        return f"rename those that are meant: {' or '.join(lines)}"
    return (
        "count them with velocyto, kb-python, STARsolo or alevin-fry first; a .loom file of velocyto is read by "
        "anndata.io.read_loom"
    )


def rename(pair: tuple[str, str]) -> str:
    """The line that gives two layers the names that are read."""
    mature, nascent = (f"adata.layers.pop({name!r})" for name in pair)
    return _line(mature, nascent)


def _line(spliced: str, unspliced: str) -> str:
    return f"adata.layers['spliced'], adata.layers['unspliced'] = {spliced}, {unspliced}"


def read_counts(adata: ad.AnnData, name: str) -> csr_matrix:
    """A layer of counts (n_obs, n_vars) as float32, whatever it is stored as; a copy.

    Raises
    ------
    TypeError
        If it does not hold real numbers.
    ValueError
        If some are negative, missing or infinite, or all are 0.
    """
    layer: Any = adata.layers[name]
    for load in ("to_memory", "compute"):  # of matrices on disk, and of dask arrays
        layer = getattr(layer, load)() if hasattr(layer, load) else layer
    layer = layer.to_numpy() if isinstance(layer, pd.DataFrame) else layer
    values = layer.data if issparse(layer) else np.asarray(layer)
    if values.dtype.kind not in "biuf":
        try:
            converted = values.astype(np.float64) if values.dtype.kind in "OSUT" else None
        except (TypeError, ValueError):
            converted = None
        if converted is None:
            raise TypeError(f"layers[{name!r}] holds {values.dtype}, of which not all are numbers; counts are wanted")
        if issparse(layer):
            layer = layer.tocoo()
            layer = csr_matrix((np.asarray(layer.data, dtype=np.float64), (layer.row, layer.col)), shape=layer.shape)
        else:
            layer = converted
        values = converted
    if values.size and (values.min() < 0 or not np.isfinite(values).all()):
        raise ValueError(f"layers[{name!r}] has negative or missing or infinite values; molecule counts are wanted")
    counts = csr_matrix(layer.astype(np.float32) if issparse(layer) else np.asarray(layer, dtype=np.float32), copy=True)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    if not counts.nnz:
        raise ValueError(f"layers[{name!r}] has no counts: all entries are 0")
    return counts


def normalise(counts: csr_matrix) -> csr_matrix:
    """Counts at the median of the cells' totals; those with equal totals are normalised and stay as they are.

    Whether counts are whole says nothing: those of alevin, SoupX and CellBender have fractions.
    """
    totals = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    some = totals[totals > 0]
    if np.ptp(some) <= _EQUAL * some.mean():
        return counts
    import scanpy as sc

    work = ad.AnnData(counts.copy())
    sc.pp.normalize_total(work, target_sum=float(np.median(some)))
    return csr_matrix(work.X)


def shared_counts(s: csr_matrix, u: csr_matrix) -> NDArray[np.float64]:
    """Molecules (n_vars,) of each gene in cells with both kinds of them."""
    both = (s != 0).multiply(u != 0)
    return np.asarray(both.multiply(s + u).sum(axis=0), dtype=np.float64).ravel()
