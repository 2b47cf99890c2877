"""Scoring a method on times that it did not see, beside the naive answers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from joblib import Parallel

from wlm._adata.cells import Cells
from wlm._adata.checks import check_flag, check_integer
from wlm._adata.columns import read_column
from wlm._adata.reading import Part, Reading
from wlm._adata.times import read_holdout, with_unit
from wlm._logging import hint, logger
from wlm._random import RNG, as_seeds
from wlm._store.glossary import explain, in_lines
from wlm.core.devices import get_device
from wlm.core.methods import DEFAULT, METHODS, Method, get_method
from wlm.tl._folds import Fold
from wlm.tl._groups import leave_out, read_groups
from wlm.tl._models import check_growth, check_sharing, named, stop_early
from wlm.tl._progress import Progress
from wlm.tl._scores import (
    SCORES,
)
from wlm.tl._scoring import Scoring

#: Fewest samples that 95 % intervals are taken from.
MIN_BOOT = 20
#: Samples of cells by default.
N_BOOT = 100


def evaluate(
    adata: ad.AnnData,
    time_key: str,
    *,
    method: str | Method[Any, Any] | Sequence[str] | Mapping[str, Mapping[str, Any]] = DEFAULT,
    holdout: Any = "each",
    metrics: Sequence[str] = ("w1", "w2", "mmd"),
    baselines: bool = True,
    seeds: int = 1,
    backtest: bool = True,
    n_jobs: int = 1,
    rng: RNG = 0,
    use_rep: str | None = None,
    n_dims: int | None = None,
    velocity_key: str | None = None,
    velocity_scale: float | str | None = None,
    weight_key: str | None = None,
    strata_key: str | None = None,
    label_key: str | None = None,
    nan: str = "raise",
    condition_key: str | None = None,
    group_key: str | None = None,
    clone_key: str | None = None,
    growth_key: str | None = None,
    totals: Mapping[Any, float] | str | None = None,
    mod: str | None = None,
    device: str = "auto",
    n_models: int = 1,
    patience: int | None = None,
    max_cells: int = 5000,
    n_boot: int = N_BOOT,
    cache: str | os.PathLike[str] | None = None,
    show_progress: bool | None = None,
    **method_options: Any,
) -> pd.DataFrame:
    """Hold out times, or with ``group_key`` samples, one by one, fit on the others, and score the predictions.

    Parameters
    ----------
    adata, time_key, use_rep, n_dims, nan, mod, device, n_models, patience, **method_options
        As for :func:`wlm.tl.fit`. With several ``n_models``, scores use the cells of the first model, and
        ``"coverage"`` the band of all models.
    velocity_key, velocity_scale, weight_key, strata_key, condition_key
        As for :func:`wlm.tl.fit`. Every fit calibrates velocities anew on its training times, scores and baselines also
        use the weights, and each condition is scored separately.
    group_key
        Column of ``obs`` with donors, animals or cultures. Each is left out in turn: a fit to the others predicts it at
        each of its times with at least 10 cells (or those named as ``holdout``) after the first time of the others. The
        prediction starts from the group's own cells at its previous time, with the velocities that the others' cells
        have there, or from the others' cells if the group was not seen before. Cells move freely and are not led to the
        others' cells. This measures what a fit is worth for another sample, and the intervals are over samples.
    clone_key
        As for :func:`wlm.tl.fit`; methods that take no clones are fitted without them.
    growth_key, totals
        As for :func:`wlm.tl.fit`; methods without growth do not use them.
    method
        One method or several, all with the same options; or a dict with the options of each:
        ``{"wlm": {"n_steps": 400}, "ijkonet": {"energy": "V+U"}}``. To compare settings of one method, name each
        setting and give its method: ``{"short": {"method": "wlm", "n_steps": 100}, "long": {"method": "wlm"}}``.
        Methods that take no velocities are fitted without them.
    holdout
        ``"each"`` holds out every time between the first and the last, one at a time; ``"all"`` also holds out the
        last, as a forecast. Or a list of times to hold out one at a time, all observed in every condition.
    metrics
        Any of ``"w1"``, ``"w2"`` (exact optimal transport), ``"mmd"`` and ``"energy"`` (see :mod:`wlm.core.metrics`),
        in ``use_rep`` units; ``"coverage"``, the share of the observed coordinates inside the band that holds 95 % of
        the predicted ones (0.95 is right, less is overconfident); and ``"composition"``, with ``label_key``. The first
        metric decides the verdict.
    label_key
        Column of ``obs`` with labels such as cell types, for ``"composition"``: predicted cells get the label with the
        largest weight among their 15 nearest cells of the other times (closer cells weigh more). The score is half the
        sum of absolute differences between predicted and observed shares of the labels (0 to 1). Missing labels count
        as one more label.
    baselines
        Also score ``previous`` and ``next`` (copies of the neighbouring populations), ``pooled`` (both, mixed by the
        fraction of time), ``ot_midpoint`` (their linear optimal-transport interpolation at that fraction), ``spline``
        (with three other times or more: natural cubic splines through optimal couplings of at most 1000 cells of each
        of them, see :func:`wlm.core.chains.spline_interpolation`), ``relaxed_midpoint`` (if a method has growth: as
        ``ot_midpoint``, by a semi-relaxed coupling of at most 1000 cells a side, in which cells may multiply) and
        ``floor`` (one half of the held-out cells against the other: what a perfect prediction would score with
        half the cells; distances between samples grow as these get smaller, so that one with more cells may score
        lower). With ``group_key``: ``previous`` (the cells that a prediction starts from), ``others`` (the other
        samples at this time), ``shifted`` (the former, moved as the mean of the others moves) and ``floor``.
    seeds
        Number of fits per held-out time.
    backtest
        As for :func:`wlm.tl.fit`, for forecasts: each then needs a second fit, without the last two times. With
        ``group_key`` there is nothing to back-test, and False is refused.
    n_jobs
        Fits to run at the same time, through joblib; -1 is one for each core. With 1 they follow
        ``joblib.parallel_config``, for example to the workers of a cluster (``backend="dask"``), and otherwise run one
        by one.
    rng
        Seed, numpy Generator or SeedSequence.
    max_cells
        Score at most this many cells a side; exact transport takes seconds at 5000.
    n_boot
        Number of random samples of half of the cells (at most 500 a side) for the intervals of differences, at least
        20; 0 for none. With ``group_key`` intervals are over groups: it is left out, or 0 for none.
    cache
        Folder for finished fits. The same call, made again after an interruption or with more methods, seeds or times,
        makes only the missing fits. All workers must see the folder. It is created if necessary; delete it when you are
        done, and whenever wlm itself changes.
    show_progress
        Whether to show a bar with the fit that is made and the time left, one for all fits; by default if
        ``wlm.settings.verbosity`` is 2 or more. Fits side by side (``n_jobs``) move it when they end.

    Returns
    -------
    One row per held-out time, model and seed, with the columns ``time``, ``model``, ``seed``,
    ``n_observed``, ``n_predicted`` and the metrics; with ``group_key`` first ``group``, with ``condition_key`` first of
    all ``condition``.

    ``attrs["verdict"]`` says in words whether the model is better than the best baseline, a line for each method and
    kind of held-out time (and condition), then for each other metric: ``BETTER THAN``, ``WORSE THAN`` or, where the
    interval of the first metric includes zero, ``NO DIFFERENCE FROM``, in per cent of the baseline's score. If a method
    has growth and the last time is held out (``holdout="all"``, or that time), a twin is fitted as well, which differs
    only in that it conserves cells. Both forecast the last time freely from the time before the last one that they have
    seen, since growth adds up over time and the noise of shares does not. The verdict then says whether growth is
    ``SUPPORTED``, if the forecast with growth is better beyond the interval, by the first metric and, with
    ``label_key``, by composition; otherwise it is ``NOT SUPPORTED``. ``attrs["growth"]`` is a list with a dict for each
    such method and metric: ``model``, ``start``, the scores ``growth`` and ``conserved``, their ``difference`` and its
    interval ``low``, ``high``. With ``totals`` one more, ``metric`` ``"size"``, has the errors of the logarithm of the
    last population's size, and predicted over observed sizes (``growth_ratio``, ``conserved_ratio``); its twin lets all
    cells multiply alike, at the mean rate of the totals before. It is one number, without an interval, and no part of
    the verdict. ``attrs["naive_growth"]``, with growth, labels and the last time held out, is a list
    with a dict for each label: its relative net rates without a network, before the last time: ``slope`` of the
    logarithm of its odds per unit of time, with its standard ``error`` by counts, and ``row_sums``, by the row sums of
    semi-relaxed couplings. ``attrs["differences"]`` is a list with a dict for each model and baseline: ``model``,
    ``baseline``, ``kind`` (of the held-out times: ``"interpolation"`` or ``"forecast"``, after all others), ``metric``,
    ``n_times``, ``difference`` of means over held-out times and seeds (negative: the model is better) and its 95 %
    interval ``low``, ``high``, from samples of the same observed cells for both (make it a table with
    ``pandas.DataFrame``). The interval says how much other cells of the same samples would change; it does not contain
    differences between time points, animals or batches. ``attrs["matched"]`` is a list with a dict for each held-out
    time and model: its ``score`` by the first metric and that of the ``floor`` at equal numbers ``n`` of cells (as many
    as one half of the held-out ones, 1000 at most), so that a perfect prediction has the floor's. With ``group_key``
    differences are means of each group's, over its times and seeds, and the interval is Student's t over the groups
    (``n_groups``), of which there have to be two; fits without one or the other group share cells, which it does not
    know. ``kind`` is then ``"left-out group"``. ``attrs["glossary"]`` is a list with a sentence for each word of the
    verdict. ``attrs["seconds"]`` is how long a fit took on average, ``attrs["time"]`` the column of times with its
    unit. :func:`wlm.pl.evaluation` draws the table.

    Raises
    ------
    KeyError, ValueError, TypeError
        As for :func:`wlm.tl.fit`; before any fit starts.
    """
    metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    _check(metrics, label_key, baselines=baselines, seeds=seeds, max_cells=max_cells, n_models=n_models, n_boot=n_boot)
    check_flag("backtest", backtest)
    if group_key is not None:
        _check_groups(n_boot, backtest=backtest)
    where = get_device(device)
    reading = Reading(
        time_key=time_key,
        use_rep=use_rep,
        n_dims=n_dims,
        velocity_key=velocity_key,
        velocity_scale=velocity_scale,
        weight_key=weight_key,
        strata_key=strata_key,
        condition_key=condition_key,
        growth_key=growth_key,
        totals=totals,
        clone_key=clone_key,
        nan=nan,
    )
    one_by_one = n_jobs == 1 and Parallel().n_jobs == 1
    methods = _methods(method, method_options, has_velocity=velocity_key is not None, one_by_one=one_by_one)
    check_growth(list(methods.values()), growth_key, totals)
    _check_clones(list(methods.values()), has_clones=clone_key is not None)
    reading = reading.resolved(adata, mod)
    source = reading.source(adata, mod, label_key, group_key)
    labels = None if label_key is None else read_column(source, label_key).astype(str).to_numpy()
    if cache is not None:
        Path(cache).mkdir(parents=True, exist_ok=True)
    fold = Fold(
        where=where,
        n_models=n_models,
        patience=patience,
        velocity_scale=velocity_scale,
        backtest=backtest,
        cache=None if cache is None else Path(cache).resolve(),
    )
    scoring = Scoring(fold, methods, metrics, as_seeds(rng, seeds), n_jobs, max_cells, n_boot, baselines)
    parts = reading.parts(source)
    stop_early({condition: part.cells for condition, part in parts.items()}, list(methods.values()), patience)
    held, lefts = {}, {}
    groups = None if group_key is None else _groups_of(source, group_key, parts)
    for condition, part in parts.items():
        with named(condition):
            held[condition] = _held(part.cells, holdout) if groups is None else _wanted(part.cells, holdout)
            if groups is not None:
                lefts[condition] = leave_out(part.cells, groups[part.rows], held[condition])
    total = sum(scoring.steps(part.cells, held[c], lefts.get(c)) for c, part in parts.items())
    tables = {}
    with Progress("wlm.tl.evaluate", total, show_progress) as progress:
        for condition, part in parts.items():
            own = None if labels is None else labels[part.rows]
            if groups is None:
                tables[condition] = scoring.table(part.cells, own, held[condition], progress, condition)
            else:
                tables[condition] = scoring.over_groups(part.cells, own, groups[part.rows], lefts[condition], progress)
    table = tables[""] if condition_key is None else _together(tables)
    table.attrs["time"] = with_unit(time_key, next(iter(parts.values())).cells.unit)
    kind = "evaluate" if group_key is None else "groups"
    table.attrs["glossary"] = explain(kind, table.attrs["verdict"])
    if baselines:
        logger.info("%s", in_lines(kind, table.attrs["verdict"]))
        hint("next: wlm.pl.evaluation(table) draws it, and wlm.report(adata, evaluation=table) has it beside the rest")
    return table


def _check(
    metrics: Sequence[str],
    label_key: str | None,
    *,
    baselines: bool,
    seeds: Any,
    max_cells: Any,
    n_models: Any,
    n_boot: Any,
) -> None:
    """Refuse what cannot be scored."""
    unknown = sorted(set(metrics) - set(SCORES))
    if unknown or not metrics:
        raise ValueError(f"metrics must be among {sorted(SCORES)}, found {list(metrics)}")
    if ("composition" in metrics) != (label_key is not None):
        raise ValueError("the metric 'composition' and label_key (a column of obs with cell types) need each other")
    if metrics[0] == "coverage" and baselines:
        raise ValueError("'coverage' is not better for being larger or smaller; put a distance first in metrics")
    for name, value, least in (
        ("seeds", seeds, 1),
        ("max_cells", max_cells, 2),
        ("n_models", n_models, 1),
        ("n_boot", n_boot, 0),
    ):
        check_integer(name, value, least)
    if 0 < n_boot < MIN_BOOT:
        raise ValueError(f"n_boot must be 0 or at least {MIN_BOOT}, found {n_boot}: fewer samples give no interval")


def _check_groups(n_boot: int, *, backtest: bool) -> None:
    """Refuse arguments that mean nothing where samples are left out."""
    if n_boot not in (0, N_BOOT):
        raise ValueError(
            f"n_boot={n_boot} draws cells, and with group_key intervals are Student's t over the groups: leave it out, "
            "or set n_boot=0 for no intervals"
        )
    if not backtest:
        raise ValueError(
            "backtest=False is about forecasts of held-out times; with group_key no fit is back-tested: leave it out"
        )


def _methods(
    method: str | Method[Any, Any] | Sequence[str] | Mapping[str, Mapping[str, Any]],
    common: dict[str, Any],
    *,
    has_velocity: bool,
    one_by_one: bool,
) -> dict[str, Method[Any, Any]]:
    """Each configured method by name, after a check of them."""
    if isinstance(method, Mapping):
        configs = {name: _named_method(name, {**common, **own}) for name, own in method.items()}
    elif isinstance(method, Method):
        configs = {method.name: get_method(method, common)}
    else:
        configs = {name: get_method(name, common) for name in ([method] if isinstance(method, str) else method)}
    if not configs:
        raise ValueError("method must name one method or several, found none")
    some = any("velocity" in config.takes for config in configs.values())
    for config in configs.values():
        config.check(has_velocity=has_velocity and ("velocity" in config.takes or not some))
        check_sharing(config, one_by_one=one_by_one)
    return configs


def _check_clones(configs: Sequence[Method[Any, Any]], *, has_clones: bool) -> None:
    """Refuse clones that no method would use."""
    some = any("clones" in config.takes for config in configs)
    for config in configs:
        config.check_clones(has_clones=has_clones and ("clones" in config.takes or not some))


def _named_method(name: str, options: dict[str, Any]) -> Method[Any, Any]:
    """The method that ``name`` stands for, or the one that is named among its options."""
    if name not in METHODS and "method" not in options:
        raise ValueError(
            f"method {name!r} does not exist; methods are {sorted(METHODS)}. To compare settings of one, name it: "
            f"method={{{name!r}: {{'method': {DEFAULT!r}, ...}}}}"
        )
    return get_method(options.pop("method", name), options)


def _together(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The tables of all conditions in one."""
    table = pd.concat([part.assign(condition=condition) for condition, part in tables.items()], ignore_index=True)
    table.insert(0, "condition", table.pop("condition"))
    verdicts = {condition: part.attrs["verdict"] for condition, part in tables.items()}
    table.attrs = {
        "seconds": float(np.mean([part.attrs["seconds"] for part in tables.values()])),
        "differences": _of_all(tables, "differences"),
        **{name: rows for name in ("matched", "growth", "naive_growth") if (rows := _of_all(tables, name))},
        "verdict": "\n".join(
            f"{condition}: {line}" for condition, text in verdicts.items() for line in text.splitlines()
        ),
    }
    return table


def _groups_of(source: ad.AnnData, key: str, parts: Mapping[str, Part]) -> np.ndarray:
    """The group (n_obs,) of each cell."""
    times = np.full(source.n_obs, np.nan)
    for part in parts.values():
        times[part.rows] = part.cells.times
    return read_groups(source, key, times)


def _wanted(cells: Cells, holdout: Any) -> np.ndarray | None:
    """The times at which groups are scored; None for all."""
    if isinstance(holdout, str) and holdout in ("each", "all"):
        return None
    held = read_holdout(holdout, cells.observed, cells.style)
    if len(held) == 0:
        raise ValueError(f"holdout must name times or be 'each' or 'all', found {holdout!r}")
    return held


def _of_all(tables: dict[str, pd.DataFrame], name: str) -> list[dict[str, Any]]:
    """Rows in ``attrs`` of all conditions."""
    return [{"condition": condition, **row} for condition, part in tables.items() for row in part.attrs.get(name, [])]


def _held(cells: Cells, holdout: Any) -> np.ndarray:
    """The times to hold out one by one, or the reason why that cannot be done."""
    if isinstance(holdout, str) and holdout in ("each", "all"):
        held = cells.observed[1:-1] if holdout == "each" else cells.observed[1:]
        if len(held) == 0:
            raise ValueError(
                f"there is no time between the first and the last of {cells.observed.tolist()} to hold out; "
                "at least three times are needed, or name the holdout"
            )
    else:
        held = read_holdout(holdout, cells.observed, cells.style)
        if len(held) == 0:
            raise ValueError(f"holdout must name times or be 'each' or 'all', found {holdout!r}")
    if cells.observed[0] in held:
        raise ValueError(f"the first time, {cells.observed[0]:g}, cannot be held out: nothing earlier predicts it")
    if len(cells.observed) < 3:
        raise ValueError(f"at least three times are needed to hold one out, found {cells.observed.tolist()}")
    return held
