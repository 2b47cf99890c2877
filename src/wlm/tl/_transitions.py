"""From each cell to those that it may become: a sparse matrix over all observed cells."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix, identity

from wlm._adata.checks import check_integer, check_writable
from wlm._adata.mudata import get_target
from wlm._logging import logger
from wlm._random import RNG, as_seed
from wlm._store.group import fit_key
from wlm._store.results import write_result
from wlm.core.transport import nearest
from wlm.tl._links import N_CANDIDATES, N_DRAWS, Observed, link, rollouts

#: Cells of a time whose transitions are made into rows at once.
ROWS = 20_000


def transitions(
    adata: Any,
    *,
    key: str = "wlm",
    condition: str | None = None,
    n_neighbors: int = N_CANDIDATES,
    n_draws: int = N_DRAWS,
    rng: RNG = 0,
    mod: str | None = None,
) -> None:
    r"""Compute the transition probabilities between observed cells.

    From each time to the next training time these are the transitions of :func:`wlm.tl.fates`: the coupling with the
    noise of the fit places the predicted cell among the observed ones, and the probabilities are means over the cells
    around it, over models and over draws. Within the last training time cells continue with the fit until they have
    crossed their neighbourhood, for at most one interval, and then become one of the cells there: the chance falls as
    :math:`\exp(-r^2 / 2R^2)` with the distance :math:`r`, where :math:`R` is the width of the neighbourhood.

    Transport is balanced between times, and not within the last one.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit.
    key
        Name ``K`` of the fit; of fits by condition, the key of one.
    condition
        Of fits by condition, which one; the same as its key.
    n_neighbors
        Largest number of target cells per cell; only the likeliest are kept.
    n_draws
        Number of repetitions of stochastic dynamics; deterministic dynamics need one.
    rng
        Seed, numpy Generator or SeedSequence.
    mod
        Modality of a MuData that was fitted; without it, the fit of its joint representation.

    Returns
    -------
    None. Written to ``adata``:

    ``obsp["K_transitions"]`` : float32, sparse (n_obs, n_obs)
        The probability to go from the cell of the row to that of the column. Rows sum to one and have at most
        ``n_neighbors`` entries. Cells of a held-out time go to the next training time, those after the last training
        time (or before the first) to their nearest cells of that time. Cells without a time, or of another condition,
        stay where they are.
    ``uns["K_transitions"]`` : dict
        ``n_neighbors``, ``seed``, ``n_draws``, and ``kept`` by time: the mean probability of the entries that were
        kept, before rows were made to sum to one.

    Raises
    ------
    KeyError
        If there is no fit.
    ValueError
        If ``adata`` is not what was fitted.

    Examples
    --------
    >>> import scanpy as sc
    >>> import wlm
    >>> adata = wlm.datasets.bifurcation(n_cells=100, rng=0)
    >>> sc.pp.normalize_total(adata)
    >>> sc.pp.log1p(adata)
    >>> sc.pp.pca(adata, n_comps=5)
    >>> wlm.tl.fit(adata, "day", n_steps=20, show_progress=False)
    >>> wlm.tl.transitions(adata)
    >>> adata.obsp["wlm_transitions"].shape
    (500, 500)
    """
    key = fit_key(adata, key, condition, mod)
    target = get_target(adata, mod)
    check_writable(target)
    for name, value in (("n_neighbors", n_neighbors), ("n_draws", n_draws)):
        check_integer(name, value)
    observed, seed = Observed.of(adata, key, mod), as_seed(rng)
    times = np.unique(observed.times[np.isfinite(observed.times)])
    blocks, kept = [], []
    for t in times:
        if t == observed.fit.training[-1]:
            cells = targets = observed.at(t)
            step, share = _within_last(observed, n_neighbors, n_draws, seed), 1.0
        else:
            one = link(observed, float(t), n_draws=n_draws, seed=seed, n_candidates=max(N_CANDIDATES, n_neighbors))
            cells, targets = one.cells, one.targets
            step, share = _likeliest(one.neighbours, one.arrivals, n_neighbors)
        kept.append(share)
        rows = observed.rows[cells][step.row], observed.rows[targets][step.col]
        blocks.append((step.data, *rows))
    alone = np.setdiff1d(np.arange(observed.n_obs), observed.rows[np.isfinite(observed.times)])
    blocks.append((np.ones(len(alone)), alone, alone))
    data, row, column = (np.concatenate([block[k] for block in blocks]) for k in range(3))
    shape = (observed.n_obs, observed.n_obs)
    matrix = csr_matrix(coo_matrix((data.astype(np.float32), (row, column)), shape=shape))
    note = {"n_neighbors": int(n_neighbors), "seed": seed, "n_draws": int(n_draws), "fit": observed.fit.checksum}
    note |= {"times": times, "kept": np.array(kept)}
    written = write_result(target, key, {"obsp": {"transitions": matrix}, "uns": {"transitions": note}})
    said = f"{np.min(kept):.0%} of the probability kept at least"
    logger.info("transitions to %d cells at most (%s); added %s", n_neighbors, said, ", ".join(written))


def _likeliest(neighbours: Any, arrivals: tuple[Any, ...], n: int) -> tuple[Any, float]:
    """The ``n`` largest entries of each row of the transitions, which then sum to one, and what share they are."""
    mean = sum(arrivals[1:], start=arrivals[0]) / len(arrivals)
    rows, columns, values, kept = [], [], [], 0.0
    for start in range(0, neighbours.shape[0], ROWS):
        step = csr_matrix(neighbours[start : start + ROWS] @ mean)
        counts = np.diff(step.indptr)
        row = np.repeat(np.arange(step.shape[0]), counts)
        order = np.lexsort((-step.data, row))
        best = order[np.arange(len(order)) - np.repeat(step.indptr[:-1], counts) < n]
        sums = np.bincount(row[best], weights=step.data[best], minlength=step.shape[0])
        rows.append(row[best] + start)
        columns.append(step.indices[best])
        values.append(step.data[best] / sums[row[best]])
        kept += float(sums.sum())
    data, row, column = (np.concatenate(parts) for parts in (values, rows, columns))
    return coo_matrix((data, (row, column)), shape=(neighbours.shape[0], mean.shape[1])), kept / neighbours.shape[0]


def _within_last(observed: Observed, n: int, n_draws: int, seed: int) -> Any:
    """Transitions between cells of the last training time, by a step of the fit as long as neighbourhoods are wide."""
    last, before = (float(observed.fit.training[k]) for k in (-1, -2))
    cells = observed.at(last)
    x, v = observed.x[cells], observed.v[cells]
    width = float(np.median(nearest(x, x, n)[0][:, -1])) or 1.0
    speed = float(np.median(np.linalg.norm(v, axis=1)))
    duration = min(last - before, width / speed) if speed > 0 else last - before
    moved = rollouts(observed, last, last + duration, n_draws=n_draws, seed=seed, forecast=False)
    runs = [z for z, _ in moved]
    entries = []
    for z in runs:
        distance, index = nearest(z, x, n)
        p = np.exp(-0.5 * (np.square(distance) - np.square(distance[:, :1])) / width**2)
        p /= p.sum(1, keepdims=True) * len(runs)
        entries.append((p.ravel(), np.repeat(np.arange(len(x)), index.shape[1]), index.ravel()))
    data, row, column = (np.concatenate([entry[k] for entry in entries]) for k in range(3))
    whole = csr_matrix(coo_matrix((data, (row, column)), shape=(len(x), len(x))))
    return _likeliest(csr_matrix(identity(len(x))), (whole,), n)[0]
