"""Scoring a method on times that it did not see, beside the naive answers."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed

import wlm
from wlm._adata import Cells, read_cells, read_column, read_holdout
from wlm._calibration import calibrate, resolve_velocity
from wlm._conditions import naming, read_conditions
from wlm._logging import logger, quiet
from wlm._mudata import get_source, get_target
from wlm._random import RNG, as_seeds
from wlm._stored import fingerprint
from wlm.core import checkpoint as checkpoints
from wlm.core.methods import METHODS
from wlm.core.metrics import METRICS
from wlm.core.prediction import interpolate
from wlm.core.uncertainty import band, coverage
from wlm.tl._fit import fit, get_device, get_method
from wlm.tl._predict import predict

#: What a model is compared with: copying a neighbour, or interpolating between both.
BASELINES = ("previous", "next", "ot_midpoint")
#: Neighbours by which predicted cells get their labels.
N_NEIGHBOURS = 15
#: Most cells a side in the samples that intervals are taken from.
N_SAMPLE = 500
#: Fewest samples that 95 % intervals are taken from.
MIN_BOOT = 20


@dataclass(frozen=True)
class Population:
    """Cells: positions ``x`` (n, d), weights ``w`` (n,) or None, ``labels`` (n,) or None.

    ``limits`` (2, d) are those within which a prediction says that cells are; by default the central 95 % of them.
    """

    x: np.ndarray
    w: np.ndarray | None = None
    labels: np.ndarray | None = None
    limits: np.ndarray | None = field(default=None, compare=False)

    def some(self, i: np.ndarray) -> Population:
        """The cells ``i`` (m,)."""
        w, labels = (None if a is None else a[i] for a in (self.w, self.labels))
        return Population(self.x[i], w, labels, self.limits)

    def capped(self, n: int) -> Population:
        """At most ``n`` of the cells, the same of all populations of this size."""
        return self if len(self.x) <= n else self.some(np.random.default_rng(0).permutation(len(self.x))[:n])

    def shares(self, names: Sequence[str]) -> np.ndarray:
        """Share of each label (len(names),)."""
        return np.array([np.average(self.labels == name, weights=self.w) for name in names])


def _composition(predicted: Population, observed: Population) -> float:
    names = sorted({*observed.labels, *predicted.labels})  # type: ignore[misc]
    return float(np.abs(predicted.shares(names) - observed.shares(names)).sum() / 2)


def _covered(predicted: Population, observed: Population) -> float:
    limits = band(predicted.x[None], predicted.w) if predicted.limits is None else predicted.limits
    return coverage(observed.x, limits, observed.w)


#: Metrics by name, of two populations.
SCORES: dict[str, Any] = {
    **{name: lambda p, o, d=distance: d(p.x, o.x, p.w, o.w) for name, distance in METRICS.items()},
    "coverage": _covered,
    "composition": _composition,
}


def evaluate(
    adata: ad.AnnData,
    time_key: str,
    *,
    method: str | Sequence[str] | Mapping[str, Mapping[str, Any]] = "wlm",
    holdout: Any = "each",
    metrics: Sequence[str] = ("w1", "w2", "mmd"),
    baselines: bool = True,
    seeds: int = 1,
    n_jobs: int = 1,
    rng: RNG = 0,
    use_rep: str = "X_pca",
    n_dims: int | None = None,
    velocity_key: str | None = None,
    velocity_scale: float | str | None = None,
    weight_key: str | None = None,
    label_key: str | None = None,
    nan: str = "raise",
    condition_key: str | None = None,
    mod: str | None = None,
    device: str = "auto",
    n_models: int = 1,
    max_cells: int = 5000,
    n_boot: int = 100,
    cache: str | os.PathLike[str] | None = None,
    **method_options: Any,
) -> pd.DataFrame:
    """Hold out times one by one, fit on the others, and score the predictions.

    Parameters
    ----------
    adata, time_key, use_rep, n_dims, nan, mod, device, n_models, **method_options
        As for :func:`wlm.tl.fit`. With several ``n_models`` the cells of the first are scored, and ``"coverage"`` is
        that of the band of all.
    velocity_key, velocity_scale, weight_key, condition_key
        As for :func:`wlm.tl.fit`. Velocities are calibrated anew on the training times of every fit, scores and
        baselines use the weights as well, and each condition is scored by itself.
    method
        One method or several, all with the same options; or options of each by name:
        ``{"wlm": {"n_steps": 400}, "ijkonet": {"energy": "V+U"}}``. Beside a method that takes velocities, those
        that do not are fitted without.
    holdout
        ``"each"`` holds out every time between the first and the last, one at a time, ``"all"`` also the last, which
        is then a forecast; or the times to hold out one at a time, observed in every condition.
    metrics
        Any of ``"w1"``, ``"w2"`` (exact optimal transport), ``"mmd"`` and ``"energy"`` (see
        :mod:`wlm.core.metrics`), in ``use_rep`` units; ``"coverage"``, the share of the observed coordinates within the
        band that holds 95 % of the predicted ones (0.95 is right, less is overconfident); and ``"composition"``, with
        ``label_key``. The first one decides the verdict.
    label_key
        Column of ``obs`` with labels such as cell types, for ``"composition"``: predicted cells get the label of
        most of their 15 nearest cells of the other times, and the score is half the sum of absolute differences
        between the shares of the labels, predicted and observed (0 to 1).
    baselines
        Also score ``previous`` and ``next`` (copies of the neighbouring populations), ``ot_midpoint``
        (their linear optimal-transport interpolation at the right fraction of time) and ``floor``
        (one half of the held-out cells against the other: what a perfect prediction would score with
        half the cells; distances between samples grow as these get smaller, so that one with more cells may score
        lower).
    seeds
        Fits per held-out time.
    n_jobs
        Fits to run at the same time, through joblib; -1 is one for each core. With 1 they run as
        ``joblib.parallel_config`` says, on the workers of a cluster for example (``backend="dask"``), else one by one.
    rng
        Seed, numpy Generator or SeedSequence.
    max_cells
        Score at most this many cells a side; exact transport takes seconds at 5000.
    n_boot
        Random samples of half of the cells (at most 500 a side) to take intervals of differences from, at least 20;
        0 for none.
    cache
        Folder for finished fits: the same call, made again after it was interrupted, or with more methods, seeds or
        times, makes only the fits that it lacks. Workers have to see it. It is made if need be; delete it when
        done, and when wlm itself was changed.

    Returns
    -------
    One row per held-out time, model and seed, with the columns ``time``, ``model``, ``seed``,
    ``n_observed``, ``n_predicted`` and the metrics; with ``condition_key``, first ``condition``.

    ``attrs["verdict"]`` says in words whether the model beats the best baseline (a line for each condition);
    ``attrs["differences"]`` is a list with a dict for each model and baseline: ``model``, ``baseline``, ``kind`` (of
    the held-out times: ``"interpolation"`` or ``"forecast"``, after all others), ``metric``, ``n_times``,
    ``difference`` of means over held-out times and seeds (negative: the model is better) and its 95 % interval
    ``low``, ``high``, from samples of the same observed cells for both (make it a table with ``pandas.DataFrame``).
    The interval says what other cells of the same samples would change; that time points, animals or batches differ
    is not in it. ``attrs["seconds"]`` is how long a fit took on average. :func:`wlm.pl.evaluation` draws the table.

    Raises
    ------
    KeyError, ValueError, TypeError
        As for :func:`wlm.tl.fit`; before any fit starts.
    """
    metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
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
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, found {value!r}")
    if 0 < n_boot < MIN_BOOT:
        raise ValueError(f"n_boot must be 0 or at least {MIN_BOOT}, found {n_boot}: fewer samples give no interval")
    methods = _methods(method, method_options, has_velocity=velocity_key is not None)
    get_device(device)
    velocity_key = resolve_velocity(get_target(adata, mod), velocity_key, velocity_scale, use_rep)
    keys: dict[str, Any] = {
        "use_rep": use_rep,
        "n_dims": n_dims,
        "velocity_key": velocity_key,
        "weight_key": weight_key,
        "nan": nan,
    }
    columns = [time_key, weight_key, condition_key, label_key]
    source = get_source(adata, mod, columns=columns, arrays=[use_rep, velocity_key])
    labels = None if label_key is None else read_column(source, label_key).astype(str).to_numpy()
    if cache is not None:
        Path(cache).mkdir(parents=True, exist_ok=True)
    score = partial(
        _table,
        methods=methods,
        metrics=metrics,
        baselines=baselines,
        run_seeds=as_seeds(rng, seeds),
        n_jobs=n_jobs,
        device=device,
        max_cells=max_cells,
        velocity_scale=velocity_scale,
        n_models=n_models,
        n_boot=n_boot,
        cache=None if cache is None else Path(cache).resolve(),
    )
    if condition_key is None:
        cells = read_cells(source, time_key, **keys)
        table = score(cells, labels, _held(cells, holdout))
    else:
        found = read_conditions(source, time_key, condition_key, **keys)
        held = {}
        for condition, (_, cells) in found.items():
            with naming(condition):
                held[condition] = _held(cells, holdout)
        tables = {}
        for condition, (rows, cells) in found.items():
            tables[condition] = score(cells, None if labels is None else labels[rows], held[condition])
        table = _together(tables)
    if baselines:
        logger.info(table.attrs["verdict"])
    return table


def _methods(
    method: str | Sequence[str] | Mapping[str, Mapping[str, Any]], common: dict[str, Any], *, has_velocity: bool
) -> dict[str, dict[str, Any]]:
    """Options of each method by name, after a check of them."""
    if isinstance(method, Mapping):
        methods = {name: {**common, **own} for name, own in method.items()}
    else:
        methods = dict.fromkeys([method] if isinstance(method, str) else method, common)
    if not methods:
        raise ValueError("method must name one method or several, found none")
    configs = {name: get_method(name, own) for name, own in methods.items()}
    some = any(config.takes_velocity for config in configs.values())
    for config in configs.values():
        config.check(has_velocity=has_velocity and (config.takes_velocity or not some))
    return methods


def _together(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The tables of all conditions in one."""
    table = pd.concat([part.assign(condition=condition) for condition, part in tables.items()], ignore_index=True)
    table.insert(0, "condition", table.pop("condition"))
    verdicts = {condition: part.attrs["verdict"] for condition, part in tables.items()}
    table.attrs = {
        "seconds": float(np.mean([part.attrs["seconds"] for part in tables.values()])),
        "differences": [
            {"condition": condition, **row} for condition, part in tables.items() for row in part.attrs["differences"]
        ],
        "verdict": "\n".join(f"{condition}: {text}" for condition, text in verdicts.items() if text),
    }
    return table


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
        held = read_holdout(holdout, cells.observed, cells.unit)
        if len(held) == 0:
            raise ValueError(f"holdout must name times or be 'each' or 'all', found {holdout!r}")
    if cells.observed[0] in held:
        raise ValueError(f"the first time, {cells.observed[0]:g}, cannot be held out: nothing earlier predicts it")
    if len(cells.observed) < 3:
        raise ValueError(f"at least three times are needed to hold one out, found {cells.observed.tolist()}")
    return held


def _table(
    cells: Cells,
    labels: np.ndarray | None,
    held: np.ndarray,
    *,
    methods: Mapping[str, dict[str, Any]],
    metrics: Sequence[str],
    baselines: bool,
    run_seeds: Sequence[int],
    n_jobs: int,
    device: str,
    max_cells: int,
    velocity_scale: float | str | None,
    n_models: int,
    n_boot: int,
    cache: Path | None,
) -> pd.DataFrame:
    """The scores of all models on the held-out times of these cells."""
    small = slim(cells)
    if cells.v is not None:
        calibrate(cells, velocity_scale)  # refuses what the fits would refuse
    scale = scale_argument(cells, velocity_scale)
    jobs = [(t, name, s) for t in held for name in methods for s in run_seeds]
    predictions = Parallel(n_jobs=None if n_jobs == 1 else n_jobs)(
        delayed(_predict)(small, t, name, s, device, {"n_models": n_models, **methods[name]}, scale, cache)
        for t, name, s in jobs
    )
    populations: dict[tuple[float, str, int], Population] = {}
    for (t, name, s), (predicted, _) in zip(jobs, predictions, strict=True):
        populations[t, name, s] = _labelled(predicted, cells, labels, t)
    if baselines:
        for t in held:
            for name, population in _baselines(cells, labels, t, run_seeds[0]).items():
                populations[t, name, run_seeds[0]] = population
    observed = {t: _population(cells, t, labels).capped(max_cells) for t in held}
    populations = {name: population.capped(max_cells) for name, population in populations.items()}
    rows = [_score(t, name, s, population, observed[t], metrics) for (t, name, s), population in populations.items()]
    if baselines:
        for t in held:
            rows.append(_score(t, "floor", run_seeds[0], *_halves(observed[t], run_seeds[0]), metrics))
    table = pd.DataFrame(rows).sort_values(["time", "model", "seed"], kind="stable", ignore_index=True)
    table.attrs["seconds"] = float(np.mean([seconds for _, seconds in predictions]))
    differences = _differences(table, populations, observed, list(methods), metrics[0], n_boot) if baselines else []
    table.attrs["differences"] = differences
    table.attrs["verdict"] = _verdict(table, differences, list(methods), metrics[0]) if baselines else ""
    return table


def slim(cells: Cells) -> ad.AnnData:
    """Only what a fit reads, for cheap copies to workers."""
    obsm = {"x": cells.x} if cells.v is None else {"x": cells.x, "v": cells.v}
    obs = {"time": cells.times} if cells.w is None else {"time": cells.times, "w": cells.w}
    small = ad.AnnData(obs=pd.DataFrame(obs, index=cells.names), obsm=obsm)
    return small if np.isfinite(cells.times).all() else small[np.isfinite(cells.times)].copy()


def scale_argument(cells: Cells, velocity_scale: float | str | None) -> dict[str, Any]:
    """The ``velocity_scale`` that a fit to the cells of :func:`slim` needs, which do not know their source."""
    if cells.v is None:
        return {}
    return {"velocity_scale": "calibrate" if velocity_scale is None and cells.rna else velocity_scale}


def refit(small: ad.AnnData, holdout: Any, seed: int, **arguments: Any) -> ad.AnnData:
    """A fit to the cells of :func:`slim`, quietly and to a copy; ``arguments`` are those of ``fit``."""
    own = small.copy()
    own_keys = {
        "use_rep": "x",
        "velocity_key": "v" if "v" in small.obsm else None,
        "weight_key": "w" if "w" in small.obs else None,
    }
    with quiet():
        fit(own, "time", **{**arguments, **own_keys}, holdout=holdout, rng=seed, show_progress=False)
    return own


def _predict(
    small: ad.AnnData,
    t: float,
    method: str,
    seed: int,
    device: str,
    options: dict[str, Any],
    scale: dict[str, Any],
    cache: Path | None,
) -> tuple[Population, float]:
    """Cells predicted for time ``t`` by a fit that has not seen it, and the seconds the fit took."""
    if "v" in small.obsm and not METHODS[method].takes_velocity:
        small, scale = small.copy(), {}
        del small.obsm["v"]
    file = None if cache is None else cache / f"{_name(small, t, method, seed, device, options, scale)}.npz"
    if file is not None and file.exists():
        known = checkpoints.read(file)
        w = None if known["w"] is None else known["w"].numpy()
        return Population(known["x"].numpy(), w, limits=known["limits"].numpy()), known["seconds"]
    own = refit(small, t, seed, method=method, device=device, **options, **scale)
    with quiet():
        predicted = predict(own, t, rng=seed)
    w = predicted.obs["w"].to_numpy() if "w" in predicted.obs else None
    note = predicted.uns["wlm_prediction"]
    found = Population(predicted.obsm["x"], w, limits=np.stack([note["lower"][0], note["upper"][0]]))
    seconds = float(own.uns["wlm"]["params"]["seconds"])
    if file is not None:
        arrays = {"x": found.x, "w": found.w, "limits": found.limits}
        tensors = {k: None if a is None else torch.as_tensor(a) for k, a in arrays.items()}
        try:
            checkpoints.write(file, {**tensors, "seconds": seconds})
        except OSError as error:  # a full disk is no reason to lose the evaluation as well
            warnings.warn(f"a finished fit could not be kept in cache: {error}", stacklevel=2)
    return found, seconds


def _name(
    small: ad.AnnData, t: float, method: str, seed: int, device: str, options: dict[str, Any], scale: dict[str, Any]
) -> str:
    """A name for a fit, different for whatever could change its prediction."""
    options, n_models = {k: v for k, v in options.items() if k != "n_models"}, options["n_models"]
    config = get_method(method, options).to_json()
    threads = torch.get_num_threads() if get_device(device).type == "cpu" else 0
    settings = (
        threads,
        wlm.__version__,
        torch.__version__,
        method,
        config,
        n_models,
        float(t),
        seed,
        str(get_device(device)),
        scale,
    )
    digest = hashlib.sha256(repr(settings).encode())
    digest.update(fingerprint(small.obs_names, np.asarray(small.obsm["x"])).encode())
    digest.update(small.obs_names.to_series().str.cat(sep="\0").encode())  # the order decides which cells are drawn
    for values in (small.obs["time"], small.obs.get("w"), small.obsm.get("v")):
        digest.update(b"-" if values is None else np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:32]


def _population(cells: Cells, t: float, labels: np.ndarray | None) -> Population:
    i = cells.at(t)
    return Population(cells.x[i], None if cells.w is None else cells.w[i], None if labels is None else labels[i])


def _labelled(population: Population, cells: Cells, labels: np.ndarray | None, t: float) -> Population:
    """The predicted cells with labels of their neighbours at other times than ``t``."""
    if labels is None:
        return population
    from sklearn.neighbors import KNeighborsClassifier

    others = np.isfinite(cells.times) & (cells.times != t)
    neighbours = KNeighborsClassifier(min(N_NEIGHBOURS, int(others.sum())), weights="distance")
    found = neighbours.fit(cells.x[others], labels[others]).predict(population.x)
    return Population(population.x, population.w, found, population.limits)


def _score(
    t: float,
    model: str,
    seed: int,
    predicted: Population,
    observed: Population,
    metrics: Sequence[str],
) -> dict[str, Any]:
    values = {m: SCORES[m](predicted, observed) for m in metrics}
    sizes = {"n_observed": len(observed.x), "n_predicted": len(predicted.x)}
    return {"time": t, "model": model, "seed": seed, **sizes, **values}


def _baselines(cells: Cells, labels: np.ndarray | None, t: float, seed: int) -> dict[str, Population]:
    """The populations that a model is compared with."""
    before, after = cells.observed[cells.observed < t][-1], cells.observed[cells.observed > t][:1]
    previous = _population(cells, before, labels)
    populations = {"previous": previous}
    if len(after):
        following = _population(cells, after[0], labels)
        populations["next"] = following
        share = (t - before) / (after[0] - before)
        x = interpolate(previous.x, following.x, share, a=previous.w, b=following.w, seed=seed)
        populations["ot_midpoint"] = _labelled(Population(x, previous.w), cells, labels, t)
    return populations


def _halves(observed: Population, seed: int) -> tuple[Population, Population]:
    half = np.random.default_rng(seed).permutation(len(observed.x))
    n = len(half) // 2
    return observed.some(half[:n]), observed.some(half[n : 2 * n])


def _differences(
    table: pd.DataFrame,
    populations: Mapping[tuple[float, str, int], Population],
    observed: Mapping[float, Population],
    methods: Sequence[str],
    metric: str,
    n_boot: int,
) -> list[dict[str, Any]]:
    """Mean scores of the methods less those of the baselines (and of each other), with intervals.

    The intervals are from samples without replacement of one share of all populations, the same observed cells for all
    models and the same predicted ones for all seeds; deviations are scaled to those of the whole samples (delete-d
    jackknife: Shao and Wu 1989).
    """
    means = table.groupby(["model", "time"])[metric].mean()
    models = list(dict.fromkeys(name for _, name, _ in populations))
    sampled = {(name, t): np.zeros(n_boot) for name in models for t in observed}
    scale = {}
    for t, there in observed.items():
        here = {(name, s): p for (time, name, s), p in populations.items() if time == t}
        share = min(0.5, N_SAMPLE / max(len(p.x) for p in (there, *here.values())))
        scale[t] = np.sqrt(share / (1 - share))
        for k in range(n_boot):
            part = _share(there, share, k)
            for (name, _), p in here.items():
                score = SCORES[metric](_share(p, share, k), part)
                sampled[name, t][k] += score / sum(other == name for other, _ in here)
    rows = []
    pairs = [(a, b) for a in methods for b in models if b not in methods]
    pairs += [(a, b) for i, a in enumerate(methods) for b in methods[i + 1 :]]
    for kind, times in _kinds(observed, populations).items():
        for a, b in pairs:
            if any((name, t) not in means.index for name in (a, b) for t in times):
                continue
            difference = float(np.mean([means[a, t] - means[b, t] for t in times]))
            row = {"model": a, "baseline": b, "kind": kind, "metric": metric, "n_times": len(times)}
            row |= {"difference": difference}
            if n_boot:
                change = [(sampled[a, t] - sampled[b, t]) for t in times]
                error = np.mean([scale[t] * (c - c.mean()) for t, c in zip(times, change, strict=True)], axis=0)
                low, high = np.quantile(error, (0.025, 0.975))
                row |= {"low": difference - float(high), "high": difference - float(low)}
            rows.append(row)
    return rows


def _share(population: Population, share: float, k: int) -> Population:
    """The ``k``-th sample of a share of the cells, of the same rows of all populations of one size."""
    n = len(population.x)
    return population.some(np.random.default_rng((k, n)).permutation(n)[: max(1, round(share * n))])


def _kinds(
    observed: Mapping[float, Population], populations: Mapping[tuple[float, str, int], Population]
) -> dict[str, list[float]]:
    """Held-out times that lie between others, and those after all others, which are forecasts."""
    between = {t for t, name, _ in populations if name == "next"}
    kinds = {
        "interpolation": [t for t in observed if t in between],
        "forecast": [t for t in observed if t not in between],
    }
    return {kind: times for kind, times in kinds.items() if times}


def _verdict(table: pd.DataFrame, differences: list[dict[str, Any]], methods: Sequence[str], metric: str) -> str:
    """The comparison in words, for the first metric, averaged over held-out times and seeds of a kind."""
    lines = []
    kinds = dict.fromkeys(row["kind"] for row in differences)
    between = set(table.loc[table["model"] == "next", "time"])
    for kind in kinds:
        part = table[table["time"].isin(between) == (kind == "interpolation")]
        means = part.groupby(["model", "time"])[metric].mean().groupby("model").mean()
        best = min((b for b in BASELINES if b in means.index), key=lambda b: means[b])
        for name in methods:
            row = next(r for r in differences if (r["model"], r["baseline"], r["kind"]) == (name, best, kind))
            change = abs(means[name] / means[best] - 1)
            noise, interval = "", ""
            if "low" in row:
                noise = ", which is WITHIN THE SAMPLING ERROR" if row["low"] <= 0 <= row["high"] else ""
                interval = f", 95 % interval {row['low']:.3g} to {row['high']:.3g}"
            by_seed = part[part["model"] == name].groupby("seed")[metric].mean()
            spread = f" +- {by_seed.std(ddof=1):.2g}" if len(by_seed) > 1 else ""
            lines.append(
                f"{kind}: {name} {'BEATS' if means[name] < means[best] else 'LOSES TO'} the best baseline ({best}) by "
                f"{change:.1%}{noise}: mean {metric} {means[name]:.4g}{spread} against {means[best]:.4g} (difference "
                f"{row['difference']:.3g}{interval}; floor {means['floor']:.4g}), {part['time'].nunique()} held-out "
                f"time(s), {len(by_seed)} seed(s)"
            )
    return "; ".join(lines)
