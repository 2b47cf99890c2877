"""Which cells become a given state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from wlm._adata.columns import read_obs_labels
from wlm._adata.mudata import get_target
from wlm._adata.times import find_observed, read_labels
from wlm._store.group import fit_key
from wlm._store.results import read_result
from wlm.tl._links import Observed


def ancestors(
    adata: Any,
    fate: str,
    *,
    key: str = "wlm",
    condition: str | None = None,
    times: Any = None,
    groupby: str | None = None,
    mod: str | None = None,
) -> pd.DataFrame:
    """Find the cells of earlier times that become a given state.

    This applies Bayes' rule to the fates. The probability that an ancestor of the state is a given cell, rather than
    another cell of the same time, is proportional to the cell's probability of that fate and to its weight.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit, after :func:`wlm.tl.fates`.
    fate
        Name of the state, one of ``uns["K_fates"]["names"]``.
    key
        Name ``K`` of the fit; of fits by condition, the key of one.
    condition
        Of fits by condition, which one; the same as its key.
    times
        Observed times, as numbers or labels; by default all of them.
    groupby
        Column of ``obs`` with labels, such as cell types, to sum over.
    mod
        Modality of a MuData that was fitted; without it, the fit of its joint representation.

    Returns
    -------
    A row per cell, with its name as the index and the columns ``time``, ``fate_probability`` (of the cell to end
    there) and ``share`` (of the ancestors at this time), the largest first within each time. With ``groupby`` a row
    per time and label, with ``time``, ``label``, ``share``, ``population`` (the label's share of all cells of the
    time) and ``enrichment``, the first over the second. Shares sum to one at each time. Nothing is written.

    Raises
    ------
    KeyError
        If there are no fates, or no such column.
    ValueError
        If there is no such fate, or a time was not observed.

    Examples
    --------
    >>> import scanpy as sc
    >>> import wlm
    >>> adata = wlm.datasets.bifurcation(n_cells=100, rng=0)
    >>> sc.pp.normalize_total(adata)
    >>> sc.pp.log1p(adata)
    >>> sc.pp.pca(adata, n_comps=5)
    >>> wlm.tl.fit(adata, "day", n_steps=20, show_progress=False)
    >>> table = wlm.tl.terminal_states(adata)
    >>> wlm.tl.fates(adata)
    >>> early = wlm.tl.ancestors(adata, "state 1", times=1)
    >>> float(early["share"].sum().round(6))
    1.0
    """
    key = fit_key(adata, key, condition, mod)
    target = get_target(adata, mod)
    observed = Observed.of(adata, key, mod, columns=[] if groupby is None else [groupby])
    note = read_result(target, observed.fit, "fates", "fates")
    names = [str(name) for name in np.ravel(note["names"])]
    if fate not in names:
        raise ValueError(f"fate {fate!r} does not exist; fates are {names}")
    known = np.unique(observed.times[np.isfinite(observed.times)])
    if times is None:
        wanted = known
    else:
        asked = np.sort(read_labels(times, observed.fit.style))
        wanted = np.array([find_observed(float(t), known, "time") for t in asked])
    p = np.asarray(target.obsm[f"{key}_fates"])[observed.rows, names.index(fate)].astype(np.float64)
    labels = None if groupby is None else read_obs_labels(observed.cells, groupby)
    parts = []
    for t in wanted:
        cells = observed.at(t)
        w = np.ones(len(cells)) if observed.weights is None else observed.weights[cells]
        mass = w * p[cells]
        if mass.sum() <= 0:
            raise ValueError(f"no cell of {t:g} has a chance of the fate {fate!r}; leave this time out")
        part = pd.DataFrame({"time": float(t), "fate_probability": p[cells], "share": mass / mass.sum()})
        part.index = observed.cells.obs_names[cells]
        if labels is None:
            parts.append(part.sort_values("share", ascending=False, kind="stable"))
            continue
        share = part["share"].groupby(labels[cells]).sum()
        population = pd.Series(w / w.sum()).groupby(labels[cells]).sum()
        table = pd.DataFrame({"time": float(t), "label": share.index, "share": share.to_numpy()})
        table["population"] = population[share.index].to_numpy()
        parts.append(table.assign(enrichment=table["share"] / table["population"]))
    return pd.concat(parts, ignore_index=labels is not None)
