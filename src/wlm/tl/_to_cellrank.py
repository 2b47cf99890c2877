"""Transitions as a kernel of CellRank."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from wlm._adata.mudata import get_target, is_mudata
from wlm._logging import logger
from wlm._store.group import fit_key
from wlm._store.results import read_result
from wlm.bridges import cellrank
from wlm.tl._links import Observed


def to_cellrank(
    adata: Any, *, key: str = "wlm", condition: str | None = None, kind: str = "transitions", mod: str | None = None
) -> Any:
    """Hand the transitions of a fit over to CellRank.

    CellRank's estimators take the kernel as it is: ``cellrank.estimators.GPCCA(kernel)``, then ``compute_schur``,
    ``compute_macrostates``, ``set_terminal_states``, ``compute_fate_probabilities``, ``compute_lineage_drivers``. For
    many cells ``GPCCA`` needs PETSc and SLEPc (``pip install petsc4py slepc4py``).

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit, after :func:`wlm.tl.transitions`.
    key
        Name ``K`` of the fit; of fits by condition, the key of one.
    condition
        Of fits by condition, which one; the same as its key.
    kind
        ``"transitions"``: a ``PrecomputedKernel`` from ``obsp["K_transitions"]``, which follows the fit within the last
        time. ``"couplings"``: a ``RealTimeKernel`` from the parts of this matrix between consecutive training times,
        which goes to neighbours within the last time, as CellRank does with couplings of other packages.
    mod
        Modality of a MuData that was fitted.

    Returns
    -------
    The kernel, with its transition matrix. Nothing is written to ``adata``; CellRank writes to ``kernel.adata``, which
    is ``adata`` for ``"transitions"`` of one fit, and a new object that shares its arrays otherwise.

    Raises
    ------
    ImportError
        If CellRank is missing or too old.
    KeyError
        If there is no fit, or there are no transitions.
    ValueError
        If cells have no time, cells were removed since the transitions were computed, or for ``"couplings"`` there are
        cells of times that were not trained on.

    Notes
    -----
    CellRank fails if cells reach none of the chosen terminal states. Every cell reaches the last training time, which
    may have several groups that no path leaves; the log gives their number. Choose a terminal state in each group.

    Examples
    --------
    >>> import wlm  # doctest: +SKIP
    >>> wlm.tl.transitions(adata)  # doctest: +SKIP
    >>> estimator = cellrank.estimators.GPCCA(wlm.tl.to_cellrank(adata))  # doctest: +SKIP
    """
    key = fit_key(adata, key, condition, mod)
    if kind not in ("transitions", "couplings"):
        raise ValueError(f"kind must be 'transitions' or 'couplings', found {kind!r}")
    target = get_target(adata, mod)
    if is_mudata(target):
        raise ValueError(f"CellRank takes an AnnData; pass a modality that was fitted: mod={next(iter(target.mod))!r}")
    cellrank.load()
    observed = Observed.of(adata, key, mod)
    read_result(target, observed.fit, "transitions", "transitions")
    time_key = observed.fit.time_key
    unknown = int((~np.isfinite(observed.times)).sum())
    if unknown:
        raise ValueError(
            f"{unknown} cells have no time and go nowhere; leave them out: run "
            f"adata = adata[adata.obs[{time_key!r}].notna()].copy()"
        )
    matrix = csr_matrix(target.obsp[f"{key}_transitions"])[observed.rows][:, observed.rows]
    sums = np.asarray(matrix.sum(axis=1)).ravel()
    if np.abs(sums - 1).max() > 1e-3:
        raise ValueError(
            f"rows of obsp['{key}_transitions'] do not sum to one: cells were removed since; "
            "run wlm.tl.transitions again"
        )
    matrix = csr_matrix(matrix.multiply(1 / sums[:, None]))
    _log_groups(matrix)
    if kind == "transitions":
        cells: ad.AnnData = target if len(observed.rows) == observed.n_obs else observed.cells.copy()
        return cellrank.precomputed(cells, matrix)
    return _couplings(observed, target, matrix)


def _couplings(observed: Observed, target: ad.AnnData, matrix: csr_matrix) -> Any:
    """The kernel of the parts between training times."""
    fit, training = observed.fit, observed.fit.training
    others = np.setdiff1d(observed.times, training)
    if len(others):
        raise ValueError(
            f"kind='couplings' goes from each training time to the next, and adata has cells of {others.tolist()} too; "
            "leave them out, or choose kind='transitions'"
        )
    found = {}
    for a, b in pairwise(training):
        part = csr_matrix(matrix[observed.at(a)][:, observed.at(b)])
        names = (target.obs_names[observed.rows[observed.at(t)]] for t in (a, b))
        obs, var = (pd.DataFrame(index=index) for index in names)
        found[float(a), float(b)] = ad.AnnData(part, obs=obs, var=var)
    times = pd.Categorical(observed.times, categories=training.astype(float), ordered=True)
    neighbours = {"use_rep": fit.use_rep, "n_pcs": fit.n_dims}
    return cellrank.real_time(target[observed.rows], fit.time_key, times, found, neighbours)


def _log_groups(matrix: csr_matrix) -> None:
    """Say how many groups of cells there are that no path leaves, and how large they are."""
    n, group = connected_components(matrix, connection="strong")
    entries = matrix.tocoo()
    leaving = np.unique(group[entries.row][group[entries.row] != group[entries.col]])
    sizes = np.sort(np.bincount(group, minlength=n)[np.setdiff1d(np.arange(n), leaving)])[::-1]
    logger.info(
        "%d group(s) of cells that no path leaves (%s cells): choose a terminal state in each of them",
        len(sizes),
        ", ".join(map(str, sizes[:5])),
    )
