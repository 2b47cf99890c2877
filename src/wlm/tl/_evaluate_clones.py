"""Predicted cells against their sisters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._adata.cells import read_rep
from wlm._adata.checks import check_integer
from wlm._adata.clones import check_conditions, read_clones
from wlm._adata.columns import dense, read_column
from wlm._adata.fates import fate_names
from wlm._adata.mudata import get_source, get_target
from wlm._adata.neighbours import N_NEIGHBOURS
from wlm._adata.times import find_observed, read_labels, with_unit
from wlm._logging import logger
from wlm._random import RNG, as_seed
from wlm._store.fit import StoredFit, check_representation, get_fit, open_fit
from wlm._store.glossary import explain, in_lines
from wlm._store.group import fit_key
from wlm.core.clones import (
    bootstrap,
    brier,
    calibration_curve,
    calibration_error,
    correct,
    distances,
    sister_shares,
)
from wlm.core.transport import coupling
from wlm.tl._predict import predict

Floats = NDArray[np.float64]
#: Parts of the clones that a regression is tested on in turn.
N_FOLDS = 5
#: The scores, in the order of their columns.
METRICS = ("distance", "accuracy", "brier", "auroc", "calibration")


@dataclass(frozen=True)
class _Sisters:
    """Cells at the start that have sisters at the end.

    ``x`` (n, d) and ``clones`` (n,) of these, ``rows`` (n,) their places among all cells; ``later`` (m, d) all cells of
    the end, ``names`` (m,) their labels or None; ``sisters`` (n, m), see :func:`wlm.core.clones.sister_shares`;
    ``labels`` (k,) that are told apart, ``truth`` (n, k) their shares among the sisters, NaN for cells whose sisters
    have none of them.
    """

    x: NDArray[np.float32]
    clones: NDArray[np.intp]
    rows: NDArray[np.intp]
    later: NDArray[np.float32]
    names: NDArray[Any] | None
    sisters: Floats
    labels: list[str]
    truth: Floats

    @property
    def known(self) -> NDArray[np.bool_]:
        """Cells (n,) whose sisters have labels."""
        return np.asarray(np.isfinite(self.truth).all(axis=1) & bool(self.labels))


def evaluate_clones(
    adata: ad.AnnData,
    *,
    clone_key: str = "X_clone",
    label_key: str | None = None,
    labels: Sequence[str] | None = None,
    start: Any = None,
    end: Any = None,
    key: str = "wlm",
    condition: str | None = None,
    n_boot: int = 1000,
    rng: RNG = 0,
    mod: str | None = None,
) -> pd.DataFrame:
    """Score predicted positions and fates against the cells' own sisters: cells of the same clone, observed later.

    Clones that the fit has not seen are a held-out truth for each cell. (If it was trained on clones, with
    ``clone_key``, keep some from it in a column of their own; a warning says if it has seen any of these.) A cell at
    ``start`` is predicted at ``end`` (:func:`wlm.tl.predict`); there it should be close to the cells of its own clone,
    and have their label. Sisters stand for the future of a cell that its measurement destroyed. They have gone separate
    ways since they parted, so no answer gets all of them right.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit.
    clone_key
        A column of ``obs`` with the names of clones, missing or empty for cells without one; or a key of ``obsm`` with
        a matrix (n_obs, n_clones), dense or sparse.
    label_key
        Column of ``obs`` with labels, such as cell types, for all scores but the first.
    labels
        Labels to tell apart; sisters with other labels do not count. By default all labels of the sisters.
    start, end
        Observed times; by default the last two training times.
    key
        Name ``K`` of the fit; of fits by condition, the key of one.
    condition
        Of fits by condition, which one; the same as its key.
    n_boot
        Number of bootstrap samples of clones for the intervals; 0 for none.
    rng
        Seed, numpy Generator or SeedSequence.
    mod
        Modality of a MuData that was fitted; without it, the fit of its joint representation.

    Returns
    -------
    A row for each answer, in the column ``model``:

    the name of the method
        The predicted cell; its label is that of its 15 nearest cells at the end, closer ones weighing more.
    ``fates``
        If there are stored fates of these names (:func:`wlm.tl.fates`): their probabilities, no position.
    ``itself``
        The cell as it is.
    ``transport``
        The mean of its partners in the exact optimal coupling of all cells at the two times.
    ``majority``
        The mean of all later cells; the shares of the labels among all sisters.
    ``neighbours``, ``regression``
        What happened to the nearest 15 cells of other clones, and a ridge and a logistic regression on other clones, in
        five folds. These have seen clones, and the others have not.

    with the columns ``distance`` (mean distance to the sisters over that to all later cells, in the fitted dimensions:
    1 is chance, lower is better), ``accuracy`` (the most common label of the sisters is right), ``brier`` (squared
    error summed over labels, mean over sisters: 0 to 2), ``auroc`` (a label against the others, mean over labels),
    ``calibration`` (mean difference between probability and share of the sisters, in five bins of probability), each
    with ``_low`` and ``_high``, the 95 % interval over clones; and ``n_cells``, ``n_clones`` (of distances),
    ``n_labelled`` (cells whose sisters have a label), ``n_seen`` (cells of clones that the fit was trained on).
    ``attrs["verdict"]`` says it in words, whose meaning is in ``attrs["glossary"]``; with labels ``attrs["curve"]`` has
    for each answer, by name, the calibration curve: arrays over five bins of the mean ``probability`` and the mean
    ``share`` of sisters, over all labels, the interval of the latter over clones, ``share_low`` and ``share_high``, and
    ``n``, the probabilities in a bin. :func:`wlm.pl.clones` draws both.

    Raises
    ------
    KeyError
        If there is no fit, no clones, no such column or label.
    ValueError
        If cells are in several clones, clones have one cell or cells in several conditions, or fewer than five clones
        have cells at both times.

    Examples
    --------
    >>> import numpy as np
    >>> import wlm
    >>> adata = wlm.datasets.gradient_flow_sde(n_cells=60, n_times=3)
    >>> adata.obs["clone"] = np.arange(adata.n_obs) % 60 // 4
    >>> wlm.tl.fit(adata, "time", use_rep="X_position", method="flow", path="straight", show_progress=False)
    >>> wlm.tl.evaluate_clones(adata, clone_key="clone", n_boot=0)["model"].tolist()
    ['flow', 'itself', 'transport', 'majority', 'neighbours', 'regression']
    """
    key = fit_key(adata, key, condition, mod)
    check_integer("n_boot", n_boot, 0)
    target = get_target(adata, mod)
    trained_on = get_fit(adata, key, mod).reading.clone_key
    columns = [c for c in (clone_key, label_key) if c is not None and c not in target.obsm]
    cells, fit = open_fit(adata, key, mod, columns=[c for c in columns if c in target.obs or c in adata.obs])
    if label_key is not None and label_key not in cells.obs:
        raise KeyError(f"obs[{label_key!r}] is missing; obs has {list(cells.obs.columns)}")
    if fit.condition is not None:
        condition = str(fit.condition["key"])
        whole = get_source(adata, mod, columns=[condition, *columns], arrays=[fit.use_rep])
        check_conditions(read_clones(whole, clone_key), read_column(whole, condition), condition, clone_key)
    times = fit.times(cells)
    span = _span(fit, times, start, end)
    data = _read(cells, fit, read_clones(cells, clone_key), times, span, label_key, labels)
    n_seen = 0 if trained_on is None else int((read_clones(cells, trained_on)[data.rows] >= 0).sum())
    if n_seen:
        logger.warning(
            "%d of %d cells are of clones that the fit was trained on (clone_key=%r): their scores are no test; name a "
            "column of other clones",
            *(n_seen, len(data.rows), trained_on),
        )
    seed = as_seed(rng)
    # Answers are positions (n, d) or None, and probabilities (n, k).
    answers: dict[str, Any] = {str(fit.uns["method"]): _predicted(adata, cells, fit, data, span, key, seed, mod)}
    names = fate_names(target, key, fit.uns.get("checksum", ""))
    if data.labels and set(data.labels) <= set(names):
        rows = target.obs_names.astype(str).get_indexer(cells.obs_names[data.rows].astype(str))
        stored = dense(target.obsm[f"{key}_fates"])[rows][:, [names.index(name) for name in data.labels]]
        answers["fates"] = None, _normal(stored.astype(np.float64))
    answers |= _naive(data, read_rep(cells, fit.use_rep, fit.n_dims), times, span)
    answers |= _learned(data)
    scores = [
        {"model": name, **_score(data, where, p, n_boot, np.random.default_rng(seed))}
        for name, (where, p) in answers.items()
    ]
    table = pd.DataFrame(scores)
    table["n_cells"], table["n_clones"] = len(data.x), len(np.unique(data.clones))
    table["n_labelled"], table["n_seen"] = int(data.known.sum()), n_seen
    table.attrs |= {
        "key": fit.key,
        "start": span[0],
        "end": span[1],
        "time": with_unit(fit.time_key, fit.unit),
        "labels": data.labels,
        "verdict": _verdict(table),
        "curve": {
            name: _curve(data, p, n_boot, np.random.default_rng(seed))
            for name, (_, p) in answers.items()
            if data.known.any()
        },
    }
    table.attrs["glossary"] = explain("clones", table.attrs["verdict"])
    logger.info("%s", in_lines("clones", table.attrs["verdict"]))
    return table


def _span(fit: StoredFit, times: Floats, start: Any, end: Any) -> tuple[float, float]:
    """The two times, observed ones in their order."""
    observed = fit.observed[np.isin(fit.observed, times)]
    trained = fit.training[np.isin(fit.training, times)]
    if len(trained) < 2:
        raise ValueError(f"cells of two training times are needed, found those of {trained.tolist()}")
    ends = []
    for name, given, default in (("start", start, trained[-2]), ("end", end, trained[-1])):
        asked = [float(default)] if given is None else read_labels(given, fit.style, name)
        if len(asked) != 1:
            raise ValueError(f"{name} must be one time, found {given!r}")
        ends.append(find_observed(float(asked[0]), observed, name))
    if ends[0] >= ends[1]:
        raise ValueError(f"start must be before end, found {ends[0]:g} and {ends[1]:g}")
    return ends[0], ends[1]


def _read(
    cells: ad.AnnData,
    fit: StoredFit,
    clones: NDArray[np.intp],
    times: Floats,
    span: tuple[float, float],
    label_key: str | None,
    labels: Sequence[str] | None,
) -> _Sisters:
    """The cells that have sisters, checked."""
    x = read_rep(cells, fit.use_rep, fit.n_dims)
    check_representation(cells, fit, x)
    first, last = (np.flatnonzero(times == t) for t in span)
    shares = sister_shares(clones[first], clones[last])
    some = shares.any(axis=1)
    both = np.unique(clones[first[some]])
    if len(both) < N_FOLDS:
        single = int((np.bincount(clones[clones >= 0]) == 1).sum())
        raise ValueError(
            f"{len(both)} clones have cells at {span[0]:g} and at {span[1]:g} ({single} have one cell in all); at "
            f"least {N_FOLDS} are needed: choose other times with start= and end=, or more clones"
        )
    rows, shares, names = first[some], shares[some], None
    told, truth = [], np.full((len(rows), 0), np.nan)
    if label_key is not None:
        column = read_column(cells, label_key)
        names = column.astype(str).where(column.notna(), "").to_numpy()[last]
        told = sorted({str(name) for name in names[shares.any(axis=0)]} - {""}) if labels is None else list(labels)
        absent = [name for name in told if name not in set(names)]
        if absent or len(told) < 2:
            raise KeyError(
                f"at least two labels that cells of obs[{label_key!r}] have at {span[1]:g} are wanted; "
                f"found {told}, and there are {sorted(set(names) - {''})}"
            )
        truth = _normal(shares @ (names[:, None] == np.array(told)))
    return _Sisters(x[rows], clones[rows], rows, x[last], names, shares, told, truth)


def _normal(p: Floats) -> Floats:
    """Rows that sum to one, NaN where they are zero."""
    total = p.sum(axis=1, keepdims=True)
    return np.divide(p, total, out=np.full_like(p, np.nan), where=total > 0)


def _predicted(
    adata: Any,
    cells: ad.AnnData,
    fit: StoredFit,
    data: _Sisters,
    span: tuple[float, float],
    key: str,
    seed: int,
    mod: str | None,
) -> tuple[Floats, Floats]:
    """Positions and labels that the fit predicts."""
    moved = predict(adata, span[1], from_time=span[0], key=key, rng=seed, mod=mod)
    place = pd.Index(moved.obs["origin"]).get_indexer(cells.obs_names[data.rows].astype(str))
    positions = np.asarray(moved.obsm[fit.use_rep])[place]
    return positions, _labels_at(data, positions)


def _labels_at(data: _Sisters, positions: NDArray[Any]) -> Floats:
    """Probabilities (n, k) of the labels at positions (n, d), by the nearest later cells."""
    if data.names is None:
        return np.empty((len(positions), 0))
    from sklearn.neighbors import KNeighborsClassifier

    told = np.isin(data.names, data.labels)
    model = KNeighborsClassifier(min(N_NEIGHBOURS, int(told.sum())), weights="distance")
    model.fit(data.later[told], data.names[told])
    found = model.predict_proba(positions)
    return np.stack([found[:, list(model.classes_).index(name)] for name in data.labels], axis=1)


def _naive(data: _Sisters, x: NDArray[np.float32], times: Floats, span: tuple[float, float]) -> dict[str, Any]:
    """Answers without a model that have not seen clones."""
    first = np.flatnonzero(times == span[0])
    i, j, mass = coupling(x[first], data.later)
    plan = np.zeros((len(first), len(data.later)))
    plan[i, j] = mass
    plan = _normal(plan)[np.searchsorted(first, data.rows)]
    partners = plan @ data.later
    return {"itself": (data.x, _labels_at(data, data.x)), "transport": (partners, _labels_at(data, partners))}


def _learned(data: _Sisters) -> dict[str, Any]:
    """Answers that were learned on other clones, in folds."""
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.model_selection import GroupKFold
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    goal, k = data.sisters @ data.later, len(data.labels)
    out = {
        name: (np.empty(goal.shape), np.full((len(goal), k), 1 / max(1, k))) for name in ("neighbours", "regression")
    }
    mean = np.tile(data.later.mean(axis=0), (len(goal), 1))
    out = {
        "majority": (mean, np.tile(data.truth[data.known].sum(axis=0) / max(1, data.known.sum()), (len(goal), 1)))
    } | out
    for train, test in GroupKFold(N_FOLDS).split(data.x, groups=data.clones):
        near = KNeighborsRegressor(min(N_NEIGHBOURS, len(train))).fit(data.x[train], goal[train])
        ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 13))).fit(data.x[train], goal[train])
        out["neighbours"][0][test] = near.predict(data.x[test])
        out["regression"][0][test] = ridge.predict(data.x[test])
        own = train[data.known[train]]
        if k == 0 or len(own) == 0:
            continue
        truth = data.truth[own]
        near = KNeighborsRegressor(min(N_NEIGHBOURS, len(own))).fit(data.x[own], truth)
        out["neighbours"][1][test] = near.predict(data.x[test])
        seen = np.flatnonzero(truth.any(axis=0))
        if len(seen) > 1:  # a cell counts for each label by its share among the sisters
            logistic = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
            cells, label = np.nonzero(truth)
            logistic.fit(data.x[own][cells], label, logisticregression__sample_weight=truth[cells, label])
            found = np.zeros((len(test), k))
            found[:, logistic.classes_] = logistic.predict_proba(data.x[test])
            out["regression"][1][test] = found
    return out


def _score(
    data: _Sisters, positions: Floats | None, probability: Floats, n_boot: int, rng: np.random.Generator
) -> dict[str, float]:
    """All scores of an answer, with intervals over clones."""
    scores: dict[str, tuple[Callable[[Floats], float], NDArray[np.intp]]] = {}
    if positions is not None:
        own, every = distances(positions, data.later, data.sisters)
        scores["distance"] = (lambda w: float(w @ own / (w @ every)) if w.any() else np.nan), data.clones
    known = data.known
    known = known & np.isfinite(probability).all(axis=1) if data.labels else known
    if known.any():
        p, truth, clones = probability[known], data.truth[known], data.clones[known]
        right, square = correct(p, truth), brier(p, truth)
        scores["accuracy"] = (lambda w: float(np.average(right, weights=w)) if w.any() else np.nan), clones
        scores["brier"] = (lambda w: float(np.average(square, weights=w)) if w.any() else np.nan), clones
        scores["auroc"] = (lambda w: _auroc(p, truth, w)), clones
        scores["calibration"] = (lambda w: calibration_error(p, truth, w)), clones
    out: dict[str, float] = {}
    for name in METRICS:
        found = scores.get(name)
        value = np.nan if found is None else found[0](np.ones(len(found[1])))
        low, high = (np.nan, np.nan) if found is None else bootstrap(found[0], found[1], n_boot, rng)
        out |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return out


def _curve(data: _Sisters, probability: Floats, n_boot: int, rng: np.random.Generator) -> dict[str, list[float]]:
    """The calibration curve of an answer, with the interval of each bin over clones."""
    known = data.known & np.isfinite(probability).all(axis=1)
    p, truth, clones = probability[known], data.truth[known], data.clones[known]
    mean, share, n = calibration_curve(p, truth, np.ones(len(p)))

    def share_of(k: int) -> Callable[[Floats], float]:
        return lambda w: float(calibration_curve(p, truth, w)[1, k])

    limits = [bootstrap(share_of(k), clones, n_boot, rng) for k in range(len(n))]
    low, high = np.array(limits).T
    found = {"probability": mean, "share": share, "share_low": low, "share_high": high, "n": n}
    return {name: values.tolist() for name, values in found.items()}


def _auroc(probability: Floats, truth: Floats, w: Floats) -> float:
    """Area under the curve of each label against the others, mean over those that some sisters have and some lack."""
    from sklearn.metrics import roc_auc_score

    areas = []
    for p, q in zip(probability.T, truth.T, strict=True):
        weights = np.concatenate([w * q, w * (1 - q)])
        there = weights > 0
        y = np.repeat([1, 0], len(q))[there]
        if 0 < y.sum() < len(y):
            areas.append(roc_auc_score(y, np.tile(p, 2)[there], sample_weight=weights[there]))
    return float(np.mean(areas)) if areas else np.nan


def _verdict(table: pd.DataFrame) -> str:
    """The method beside the best answer that has not seen clones, and beside the regression, which has."""
    rows = table.set_index("model")
    name = str(table["model"].iloc[0])
    best = rows.loc[["itself", "transport"], "distance"].idxmin()
    ratio, learned = rows["distance"], rows.loc["regression", "distance"]
    text = (
        f"cells of {name} are {ratio[name]:.3f} as far from their sisters as from all (best naive answer, {best}: "
        f"{ratio[best]:.3f}; regression on other clones: {learned:.3f})"
    )
    if np.isfinite(rows.loc[name, "accuracy"]):
        text += (
            f"; label right {rows.loc[name, 'accuracy']:.3f} (majority {rows.loc['majority', 'accuracy']:.3f}, "
            f"regression {rows.loc['regression', 'accuracy']:.3f})"
        )
    text += f"; {int(table['n_cells'].iloc[0])} cells of {int(table['n_clones'].iloc[0])} clones"
    n_seen = int(table["n_seen"].iloc[0])
    return f"{text}, {n_seen} of which the fit was trained on" if n_seen else text
