"""Expression of genes over time as numbers, of all cells or by group."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._adata.columns import dense, is_lazy, layer_names, read_obs_labels
from wlm._adata.components import LOADINGS
from wlm._adata.fates import fate_names
from wlm._adata.genes import decode, explains, find_genes, get_matrix, read_receipt
from wlm._adata.mudata import get_target
from wlm._adata.neighbours import from_neighbours
from wlm._adata.times import read_labels
from wlm._random import RNG, as_seed
from wlm._store.fit import StoredFit, open_fit
from wlm._store.group import fit_key
from wlm.core.uncertainty import quantiles
from wlm.tl._predict import predict
from wlm.tl._trend import Floats, Population, trend

#: Quantiles over cells, and their columns.
QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}
#: Fewer cells of a group than this have no mean.
N_LEAST = 5
#: The ``groupby`` that names the stored fates.
FATES = "fates"


def gene_trends(
    adata: ad.AnnData,
    genes: str | Sequence[str],
    *,
    groupby: str | None = None,
    key: str = "wlm",
    condition: str | None = None,
    times: Any = None,
    layer: str | None = None,
    n_cells: int | None = None,
    mod: str | None = None,
    rng: RNG = 0,
) -> pd.DataFrame:
    """Follow the expression of genes over time, observed and predicted, of all cells or of each type or fate.

    Between and after the training times, predicted cells come from :func:`wlm.tl.predict`. At the training times, from
    which predictions start, they are the observed cells, decoded like the predicted ones. Decoding is linear and loses
    the variation that the principal components do not hold, so predicted cells differ less from each other than
    observed cells do; this does not affect means.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit on principal components.
    genes
        One or several names in ``var_names``.
    groupby
        Column of ``obs`` with labels, such as cell types: a predicted cell has the label with the largest weight among
        its 15 nearest cells of the training times, so a cell changes groups as it moves. Or ``"fates"`` for the stored
        fates (:func:`wlm.tl.fates`): a cell counts in each group by the probability of that fate, and keeps it.
    key
        Name of the fit; of fits by condition, the key of one.
    condition
        Of fits by condition, which one; the same as its key.
    times
        Times, as numbers or labels, to include besides the observed ones and a grid between them, for example
        forecasts.
    layer
        Where to read observed expression: a key of ``layers``, or ``"X"``; by default the matrix that the PCA was
        computed on. If that matrix changed since, name a copy of it.
    n_cells
        Number of predicted cells for each time, see :func:`wlm.tl.predict`; by default all.
    mod
        Modality of a MuData that was fitted.
    rng
        Seed of the prediction.

    Returns
    -------
    A row for each gene, group, time and kind; nothing is written. The columns:

    ``gene``, ``group``, ``time``
        The group with ``groupby`` only.
    ``kind``
        ``"predicted"``, ``"forecast"`` (after the last training time), ``"observed"``, or ``"held out"`` (observed at a
        time that was not trained on).
    ``n``
        Cells, or of fates the sum of their probabilities.
    ``mean``, ``q05``, ``q25``, ``median``, ``q75``, ``q95``
        Over cells, by weight where the fit has weights, in the units that the PCA was computed on. The mean is what to
        read of genes that most cells do not express. NaN where a group has fewer than five cells.

    ``attrs`` has ``layer``, the ``last`` training time, ``decode_r2`` by gene, and the ``groups`` in their order.

    Raises
    ------
    KeyError
        If there is no fit, gene, layer or column of that name, or no fates are stored.
    ValueError
        If genes cannot be decoded, the layer does not hold what the PCA was computed on, or the column holds numbers or
        missing labels.

    Examples
    --------
    >>> import scanpy as sc
    >>> import wlm
    >>> adata = wlm.datasets.bifurcation(n_cells=100)
    >>> sc.pp.normalize_total(adata)
    >>> sc.pp.log1p(adata)
    >>> sc.pp.pca(adata, n_comps=5)
    >>> wlm.tl.fit(adata, "day", n_steps=20, show_progress=False)
    >>> table = wlm.tl.gene_trends(adata, "gene002", groupby="fate")
    >>> sorted(table["group"].unique())
    ['A', 'B']
    """
    key = fit_key(adata, key, condition, mod)
    target = get_target(adata, mod)
    there = groupby == FATES and f"{key}_fates" in target.uns
    if groupby == FATES and not there and FATES not in target.obs:
        raise KeyError(f"uns['{key}_fates'] is missing; run wlm.tl.fates(adata) first, or name a column of obs")
    cells, fit = open_fit(adata, key, mod, columns=[] if groupby is None or there else [groupby])
    stored = fate_names(target, key, fit.uns.get("checksum", "")) if there else []
    names = list(dict.fromkeys([genes] if isinstance(genes, str) else genes))
    wanted = np.empty(0) if times is None else read_labels(times, fit.style)
    receipt = read_receipt(cells, fit.uns["representation"])
    index = find_genes(cells, names, receipt)
    layer = receipt.layer if layer is None else layer
    observed = observed_expression(cells, fit, layer, index)
    labels = None if groupby is None or stored else read_obs_labels(cells, groupby)
    ask = partial(predict, adata, key=key, n_cells=n_cells, rng=as_seed(rng), mod=mod)
    populations = trend(cells, fit, wanted, ask)
    groups, members, place = _members(cells, target, key, stored, labels, populations)
    # Only the genes that are asked for are decoded: all of them at all these times could fill the memory.
    loadings, mean = np.asarray(cells.varm[LOADINGS[fit.use_rep]])[index], receipt.mean[index]
    last = max(p.time for p in populations if p.observed)
    rows = []
    for p in populations:
        kind, decoded = "predicted" if p.time <= last else "forecast", decode(p.x, loadings, mean)
        rows += _rows(decoded, place(p), p.w, names, groups, time=p.time, kind=kind)
    cell_times, weights = fit.times(cells), fit.weights_of(cells)
    for t in np.unique(cell_times[np.isfinite(cell_times)]):
        here = np.flatnonzero(cell_times == t)
        w, kind = None if weights is None else weights[here], "observed" if t in fit.training else "held out"
        rows += _rows(observed[here], members[here], w, names, groups, time=float(t), kind=kind)
    table = pd.DataFrame(rows)
    if groupby is None:
        table = table.drop(columns="group")
    r2 = {gene: float(receipt.r2[i]) for gene, i in zip(names, index, strict=True)}
    table.attrs |= {"key": key, "layer": layer, "last": last, "decode_r2": r2, "groupby": groupby, "groups": groups}
    return table


def _members(
    cells: ad.AnnData,
    target: Any,
    key: str,
    stored: list[str],
    labels: NDArray[Any] | None,
    populations: list[Population],
) -> tuple[list[str], Floats, Any]:
    """Names of the groups (k), in which part each cell is in them (n_obs, k), and a function that says so of others."""
    if stored:
        rows = target.obs_names.astype(str).get_indexer(cells.obs_names.astype(str))
        shares = np.nan_to_num(dense(target.obsm[f"{key}_fates"])[rows].astype(np.float64))
        return stored, shares, lambda p: shares[p.rows if p.rows is not None else p.origin]
    if labels is None:
        return [""], np.ones((cells.n_obs, 1)), lambda p: np.ones((len(p.x), 1))
    known = np.concatenate([p.rows for p in populations if p.rows is not None])
    x = np.concatenate([p.x for p in populations if p.rows is not None])
    column = sorted(set(labels))

    def one_hot(names: NDArray[Any]) -> Floats:
        return (names[:, None] == np.array(column)).astype(np.float64)

    return (
        column,
        one_hot(labels),
        lambda p: one_hot(labels[p.rows] if p.rows is not None else from_neighbours(x, labels[known], p.x)),
    )


def _rows(
    values: NDArray[Any],
    members: Floats,
    w: Floats | None,
    names: list[str],
    groups: list[str],
    *,
    time: float,
    kind: str,
) -> list[dict[str, Any]]:
    """A row for each group and gene of one population, ``values`` (n, g) and ``members`` (n, k)."""
    rows = []
    for k, group in enumerate(groups):
        there = members[:, k] > 0
        n = float(members[:, k].sum())
        part = members[there, k] if w is None else members[there, k] * w[there]
        equal = len(part) > 0 and part.min() == part.max()
        if n < (N_LEAST if len(groups) > 1 else 1):
            mean, spread = np.full(len(names), np.nan), np.full((len(QUANTILES), len(names)), np.nan)
        else:
            mean = np.average(values[there], axis=0, weights=part)
            spread = quantiles(values[there], tuple(QUANTILES.values()), None if equal else part)
        for j, gene in enumerate(names):
            row = {"gene": gene, "group": group, "time": time, "kind": kind, "n": n, "mean": float(mean[j])}
            rows.append(row | dict(zip(QUANTILES, spread[:, j].tolist(), strict=True)))
    return rows


def observed_expression(adata: ad.AnnData, fit: StoredFit, layer: str, index: list[int]) -> Floats:
    """Observed expression (n_obs, n_genes), in the units that predictions have."""
    if is_lazy(adata):
        raise ValueError("observed cells cannot be drawn with X on disk; run adata = adata.to_memory() first")
    matrix = get_matrix(adata, layer)
    if matrix is None:
        raise KeyError(f"layer {layer!r} is missing; layers has {layer_names(adata)}, and 'X' names X")
    # The loadings of a part of the genes do not give the scores: nothing can be said then.
    complete = pd.Index(fit.uns["representation"].get("genes", [])).isin(adata.var_names).all()
    if complete and not explains(adata, fit.use_rep, layer):
        raise ValueError(
            f"{layer!r} does not hold the values that the PCA was computed on, so that it cannot be drawn "
            "beside predictions; pass the layer= that does"
        )
    matrix = matrix[:, index]
    return np.asarray(matrix.toarray() if hasattr(matrix, "toarray") else matrix, dtype=np.float64)
