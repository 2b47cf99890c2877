"""Where cells end, and where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._adata.checks import check_integer, check_writable
from wlm._adata.columns import read_obs_labels
from wlm._adata.mudata import get_target
from wlm._adata.neighbours import from_neighbours
from wlm._logging import logger
from wlm._random import RNG, as_seed
from wlm._store.group import fit_key
from wlm._store.results import RESULTS, forget, write_result
from wlm.tl._links import N_DRAWS, Link, Observed, link

#: Share of the cells of a type that has to stay for it to be an end.
STAYS = 0.5
#: Share of the last time's cells, and cells at least, of a group that is found without labels.
GROUP, FEWEST = 0.05, 15
#: Most cells among which groups are sought: time grows with the square of their number.
MOST = 10_000
#: What remains of the chances where cells of the last time are in no terminal state.
UNDECIDED = "undecided"


def terminal_states(
    adata: Any,
    *,
    key: str = "wlm",
    condition: str | None = None,
    label_key: str | None = None,
    states: Sequence[str] | None = None,
    n_states: int | None = None,
    min_share: float = 0.01,
    n_draws: int = N_DRAWS,
    rng: RNG = 0,
    mod: str | None = None,
) -> pd.DataFrame:
    """Find the states in which cells end, and those they come from.

    The candidates are the cell types at the last training time or, without labels, groups of its cells with a gap
    between them (HDBSCAN: Campello et al. 2013). Of more than 10,000 cells these are sought among a random sample of so
    many, and the others belong to that of the nearest. A candidate is terminal if at least half of its cells stay in it
    over the last interval, by the paths of the fit (see :func:`wlm.tl.fates`), or if it did not exist before. Initial
    states are found in the same way, at the first training time and backwards.

    Growth plays no part: a type whose cells divide or die while none changes its type stays.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit.
    key
        Name ``K`` of the fit; of fits by condition, the key of one.
    condition
        Of fits by condition, which one; the same as its key.
    label_key
        Column of ``obs`` with cell types. Without it, groups are named ``"state 1"``, ``"state 2"``, from the largest
        to the smallest.
    states
        Labels to take as terminal, whatever their cells do.
    n_states
        Number of groups, if there are no labels: k-means finds this many, with or without gaps between them, and all
        are taken.
    min_share
        Types with a smaller share of the cells at the last time are not candidates.
    n_draws
        Number of repetitions of stochastic dynamics; deterministic dynamics need one.
    rng
        Seed, numpy Generator or SeedSequence.
    mod
        Modality of a MuData that was fitted; without it, the fit of its joint representation.

    Returns
    -------
    A row per candidate, with the columns

    ``kind``, ``state``
        ``"terminal"`` or ``"initial"``, and the name.
    ``taken``
        Whether it is such a state.
    ``n_cells``, ``share``
        Its cells at the last (first) training time, and their share, by weight where the fit has weights.
    ``stay``, ``stay_sd``
        Share of its cells at the time before that are in it at the last; of initial states, share of its cells at the
        second time that come from it. Mean and standard deviation over models and draws (NaN for one). NaN where there
        were none.
    ``speed``
        Root mean square speed of its cells times the last (first) interval, in radii of the state (root mean square
        distance from its mean): well below 1 where cells have come to rest.

    Written to ``adata``:

    ``obs["K_terminal"]``, ``obs["K_initial"]`` : category
        The state of its member cells; missing for all others.
    ``uns["K_terminal"]`` : dict
        ``names`` of the terminal states, ``time``, ``label_key`` if given, the columns above of these, and ``initial``
        with the same of the initial ones.

    Fates of earlier terminal states are removed.

    Raises
    ------
    KeyError
        If there is no fit or no such column.
    ValueError
        If no terminal state is found, a label of ``states`` has no cells at the last training time, or arguments
        contradict each other.

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
    >>> table.loc[table["kind"] == "terminal", "state"].tolist()
    ['state 1', 'state 2']
    """
    key = fit_key(adata, key, condition, mod)
    target = get_target(adata, mod)
    check_writable(target)
    _check(label_key, states, n_states, min_share)
    check_integer("n_draws", n_draws)
    observed = Observed.of(adata, key, mod, columns=[] if label_key is None else [label_key])
    seed, training = as_seed(rng), observed.fit.training
    labels = None if label_key is None else read_obs_labels(observed.cells, label_key)
    ways = {"terminal": (training[-1], training[-2]), "initial": (training[0], training[1])}
    tables, members = {}, {}
    for kind, (time, other) in ways.items():
        own = labels
        if own is None:  # there is one start, and its cells need no name of their own
            own = _groups(observed, time, n_states, seed) if kind == "terminal" else _one(observed, "start")
        chosen = states if kind == "terminal" else None
        if kind == "terminal" and n_states is not None:
            chosen = sorted(set(own))  # so many are wanted, whether cells stay in them or not
        table = _candidates(observed, own, time, min_share if labels is not None else 0.0, chosen)
        step = link(observed, min(time, other), n_draws=n_draws, seed=seed)
        table = _judge(observed, own, table, step, forward=kind == "terminal", chosen=chosen)
        tables[kind], members[kind] = table, own
    names = tables["terminal"].loc[tables["terminal"]["taken"], "state"].tolist()
    if not names:
        found = "no group" if label_key is None else f"no type of obs[{label_key!r}]"
        raise ValueError(
            f"no terminal state was found: {found} keeps half of its cells over the last interval; name those you know "
            "to be terminal, states=[...] of label_key, or set n_states"
        )
    if UNDECIDED in names:
        raise ValueError(f"{UNDECIDED!r} names what is in no terminal state; rename this label of obs[{label_key!r}]")
    columns = {kind: _members(observed, own, tables[kind], ways[kind][0]) for kind, own in members.items()}
    uns = {kind: _plain(table[table["taken"]], ways[kind][0]) for kind, table in tables.items()}
    note = {**uns["terminal"], "initial": uns["initial"], "fit": observed.fit.checksum}
    if label_key is not None:
        note["label_key"] = label_key
    forget(target, key, {slot: tuple(n for n in entries if "fate" in n) for slot, entries in RESULTS.items()})
    written = write_result(target, key, {"uns": {"terminal": note}, "obs": columns})
    logger.info("terminal states at %g: %s; added %s", training[-1], ", ".join(names), ", ".join(written))
    if len(names) == 1:
        logger.warning(
            "there is one terminal state, %s: fates need two or more; name them, states=[...] of label_key, or set "
            "n_states",
            names[0],
        )
    return pd.concat([table.assign(kind=kind) for kind, table in tables.items()], ignore_index=True)[
        ["kind", "state", "taken", "n_cells", "share", "stay", "stay_sd", "speed"]
    ]


def _check(label_key: Any, states: Any, n_states: Any, min_share: Any) -> None:
    """Refuse arguments that contradict each other."""
    if isinstance(states, str):
        raise TypeError(f"states must be a list of labels, found {states!r}; write states=[{states!r}]")
    if states is not None and label_key is None:
        raise ValueError("states are labels of a column; name it: label_key=")
    if n_states is not None and label_key is not None:
        raise ValueError("n_states is for cells without labels; leave it or label_key out")
    if n_states is not None:
        check_integer("n_states", n_states)
    if isinstance(min_share, bool) or not isinstance(min_share, (int, float)) or not 0 <= min_share < 1:
        raise ValueError(f"min_share must be at least 0 and below 1, found {min_share!r}")


def _one(observed: Observed, name: str) -> NDArray[np.object_]:
    """The same name for all cells."""
    return np.full(len(observed.x), name, dtype=object)


def _groups(observed: Observed, time: float, n_states: int | None, seed: int) -> NDArray[np.object_]:
    """Groups of the cells of the last time, by name; other cells belong to the group of the nearest of these."""
    from sklearn.cluster import HDBSCAN, KMeans

    there = observed.at(time)
    some = np.sort(np.random.default_rng(seed).permutation(there)[:MOST]) if len(there) > MOST else there
    x = observed.x[some].astype(np.float64)
    if n_states is None:
        smallest = min(max(FEWEST, int(GROUP * len(x))), len(x))
        found = HDBSCAN(min_cluster_size=smallest, min_samples=min(FEWEST, smallest), copy=True).fit_predict(x)
        if found.max() < 1:
            raise ValueError(
                f"no groups with a gap between them are among {len(x)} cells of {time:g}; pass label_key= with "
                "cell types, or n_states= to divide them all the same"
            )
    else:
        if n_states > len(x):
            raise ValueError(f"n_states={n_states} is more than the {len(x)} cells of {time:g}")
        found = KMeans(n_states, n_init=10, random_state=seed % 2**32).fit_predict(x)
    clear = found >= 0
    counts = np.bincount(found[clear])
    rank = np.argsort(np.argsort(-counts, kind="stable"))
    names = np.array([f"state {rank[k] + 1}" for k in range(len(counts))], dtype=object)
    return from_neighbours(observed.x[some][clear], names[found[clear]], observed.x).astype(object)


def _candidates(
    observed: Observed, labels: NDArray[Any], time: float, min_share: float, chosen: Sequence[str] | None
) -> pd.DataFrame:
    """The labels of a time, how many cells they have and what share of all."""
    there = observed.at(time)
    own, w = labels[there], observed.w(there)
    counts = pd.Series(own).value_counts()
    if chosen is not None:
        absent = [name for name in map(str, chosen) if name not in counts.index]
        if absent:
            raise ValueError(f"states {absent} have no cell at {time:g}; the labels there are {sorted(counts.index)}")
    total = pd.Series(np.ones(len(own)) if w is None else w).groupby(own).sum()
    share = total / total.sum()
    wanted = [name for name in sorted(counts.index) if share[name] >= min_share or name in map(str, chosen or ())]
    return pd.DataFrame(
        {"state": wanted, "n_cells": counts[wanted].to_numpy(), "share": share[wanted].to_numpy(dtype=float)}
    )


def _judge(
    observed: Observed,
    labels: NDArray[Any],
    table: pd.DataFrame,
    step: Link,
    *,
    forward: bool,
    chosen: Sequence[str] | None,
) -> pd.DataFrame:
    """The candidates with how many of their cells stay, how fast they are, and whether they are taken."""
    w = observed.w(step.cells)
    before, after = labels[step.cells], labels[step.targets]
    rows = []
    for name in table["state"]:
        # Without the mean over neighbours, in which types of few cells would be lost.
        stays = [_stay(run, before == name, after == name, w, forward=forward) for run in step.arrivals]
        members = step.targets[after == name] if forward else step.cells[before == name]
        x, v = observed.x[members], observed.v[members]
        radius = np.sqrt(x.var(axis=0).sum())
        speed = np.sqrt(np.square(v).sum(1).mean()) * (step.to - step.time)
        rows.append(
            {
                "stay": float(np.mean(stays)),
                "stay_sd": float(np.std(stays, ddof=1)) if len(stays) > 1 else np.nan,
                "speed": float(speed / radius) if radius > 0 else np.nan,
            }
        )
    out = table.assign(**pd.DataFrame(rows, index=table.index))
    taken = out["state"].isin(list(map(str, chosen))) if chosen is not None else ~(out["stay"] < STAYS)
    return out.assign(taken=taken.to_numpy(dtype=bool))


def _stay(step: Any, before: NDArray[np.bool_], after: NDArray[np.bool_], w: Any, *, forward: bool) -> float:
    """Share of a type that stays in it over a step (n, m), or that was in it before; NaN where there is none."""
    mass = np.ones(len(before)) if w is None else w
    moved = float((mass * before) @ (step @ after.astype(float)))
    whole = float((mass * before).sum()) if forward else float(mass @ (step @ after.astype(float)))
    there = before.any() if forward else after.any()
    return moved / whole if there and whole > 0 else np.nan


def _members(observed: Observed, labels: NDArray[Any], table: pd.DataFrame, time: float) -> pd.Categorical:
    """The state of each cell of the object that is a member of one."""
    names = table.loc[table["taken"], "state"].tolist()
    values = _one(observed, "")
    there = (observed.times == time) & np.isin(labels.astype(str), names)
    values[there] = labels[there]
    return pd.Categorical(observed.whole(values, ""), categories=names)


def _plain(table: pd.DataFrame, time: float) -> dict[str, Any]:
    """The states of a table, for ``uns``."""
    columns = {name: table[name].to_numpy() for name in ("n_cells", "share", "stay", "stay_sd", "speed")}
    return {"names": table["state"].to_numpy(dtype=object), "time": float(time), **columns}
