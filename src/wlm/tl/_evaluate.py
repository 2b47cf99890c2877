"""Scoring a method on times that it did not see, beside the naive answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from wlm._adata import Cells, read_cells, read_holdout
from wlm._calibration import calibrate, resolve_velocity
from wlm._conditions import naming, read_conditions
from wlm._logging import logger, quiet
from wlm._mudata import get_source, get_target
from wlm._random import RNG, as_seeds
from wlm.core.methods import METHODS
from wlm.core.metrics import METRICS
from wlm.core.prediction import interpolate
from wlm.tl._fit import fit, get_device, get_method
from wlm.tl._predict import predict

#: Positions (n, d) and weights (n,), or None.
Population = tuple[np.ndarray, np.ndarray | None]
#: What a model is compared with: copying a neighbour, or interpolating between both.
BASELINES = ("previous", "next", "ot_midpoint")


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
    nan: str = "raise",
    condition_key: str | None = None,
    mod: str | None = None,
    device: str = "auto",
    max_cells: int = 5000,
    **method_options: Any,
) -> pd.DataFrame:
    """Hold out times one by one, fit on the others, and score the predictions.

    Parameters
    ----------
    adata, time_key, use_rep, n_dims, nan, mod, device, **method_options
        As for :func:`wlm.tl.fit`.
    velocity_key, velocity_scale, weight_key, condition_key
        As for :func:`wlm.tl.fit`. Velocities are calibrated anew on the training times of every fit, scores and
        baselines use the weights as well, and each condition is scored by itself.
    method
        One method or several, all with the same options; or options of each by name:
        ``{"wlm": {"n_steps": 400}, "ijkonet": {"energy": "V+U"}}``. Beside a method that takes velocities, those
        that do not are fitted without.
    holdout
        ``"each"`` holds out every time between the first and the last, one at a time; or the times to
        hold out one at a time, observed in every condition. The last time is scored as a forecast.
    metrics
        Any of ``"w1"``, ``"w2"`` (exact optimal transport) and ``"mmd"`` (see :mod:`wlm.core.metrics`),
        in ``use_rep`` units.
    baselines
        Also score ``previous`` and ``next`` (copies of the neighbouring populations), ``ot_midpoint``
        (their linear optimal-transport interpolation at the right fraction of time) and ``floor``
        (one half of the held-out cells against the other: what a perfect prediction would score with
        half the cells).
    seeds
        Fits per held-out time.
    n_jobs
        Fits to run at the same time, through joblib; -1 is one for each core.
    rng
        Seed, numpy Generator or SeedSequence.
    max_cells
        Score at most this many cells a side; exact transport takes seconds at 5000.

    Returns
    -------
    One row per held-out time, model and seed, with the columns ``time``, ``model``, ``seed``,
    ``n_observed``, ``n_predicted`` and the metrics; with ``condition_key``, first ``condition``. ``attrs["verdict"]``
    says in words whether the model beats the best baseline (a line for each condition), ``attrs["seconds"]``
    how long a fit took on average.

    Raises
    ------
    KeyError, ValueError, TypeError
        As for :func:`wlm.tl.fit`; before any fit starts.
    """
    unknown = sorted(set(metrics) - set(METRICS))
    if unknown or not metrics:
        raise ValueError(f"metrics must be among {sorted(METRICS)}, found {list(metrics)}")
    for name, value, least in (("seeds", seeds, 1), ("max_cells", max_cells, 2)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, found {value!r}")
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
    source = get_source(adata, mod, columns=[time_key, weight_key, condition_key], arrays=[use_rep, velocity_key])
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
    )
    if condition_key is None:
        cells = read_cells(source, time_key, **keys)
        table = score(cells, _held(cells, holdout))
    else:
        found = read_conditions(source, time_key, condition_key, **keys)
        held = {}
        for condition, (_, cells) in found.items():
            with naming(condition):
                held[condition] = _held(cells, holdout)
        table = _together({condition: score(cells, held[condition]) for condition, (_, cells) in found.items()})
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
        "verdict": "\n".join(f"{condition}: {text}" for condition, text in verdicts.items() if text),
    }
    return table


def _held(cells: Cells, holdout: Any) -> np.ndarray:
    """The times to hold out one by one, or the reason why that cannot be done."""
    if isinstance(holdout, str) and holdout == "each":
        held = cells.observed[1:-1]
        if len(held) == 0:
            raise ValueError(
                f"there is no time between the first and the last of {cells.observed.tolist()} to hold out; "
                "at least three times are needed, or name the holdout"
            )
    else:
        held = read_holdout(holdout, cells.observed, cells.unit)
        if len(held) == 0:
            raise ValueError(f"holdout must name times or be 'each', found {holdout!r}")
    if cells.observed[0] in held:
        raise ValueError(f"the first time, {cells.observed[0]:g}, cannot be held out: nothing earlier predicts it")
    if len(cells.observed) < 3:
        raise ValueError(f"at least three times are needed to hold one out, found {cells.observed.tolist()}")
    return held


def _table(
    cells: Cells,
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
) -> pd.DataFrame:
    """The scores of all models on the held-out times of these cells."""
    small = slim(cells)
    if cells.v is not None:
        calibrate(cells, velocity_scale)  # refuses what the fits would refuse
    scale = scale_argument(cells, velocity_scale)
    jobs = [(t, name, s) for t in held for name in methods for s in run_seeds]
    predictions = Parallel(n_jobs=n_jobs)(
        delayed(_predict)(small, t, name, s, device, methods[name], scale) for t, name, s in jobs
    )
    rows = []
    for (t, name, s), (predicted, _) in zip(jobs, predictions, strict=True):
        rows.append(_score(t, name, s, predicted, _population(cells, t), metrics, max_cells))
    if baselines:
        for t in held:
            rows += _baselines(cells, t, run_seeds[0], metrics, max_cells)
    table = pd.DataFrame(rows).sort_values(["time", "model", "seed"], kind="stable", ignore_index=True)
    table.attrs["seconds"] = float(np.mean([seconds for _, seconds in predictions]))
    table.attrs["verdict"] = _verdict(table, list(methods), metrics[0]) if baselines else ""
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
) -> tuple[Population, float]:
    """Cells predicted for time ``t`` by a fit that has not seen it, and the seconds the fit took."""
    if "v" in small.obsm and not METHODS[method].takes_velocity:
        small, scale = small.copy(), {}
        del small.obsm["v"]
    own = refit(small, t, seed, method=method, device=device, **options, **scale)
    predicted = predict(own, t, rng=seed)
    w = predicted.obs["w"].to_numpy() if "w" in predicted.obs else None
    return (predicted.obsm["x"], w), own.uns["wlm"]["params"]["seconds"]


def _population(cells: Cells, t: float) -> Population:
    i = cells.at(t)
    return cells.x[i], None if cells.w is None else cells.w[i]


def _some(population: Population, i: np.ndarray) -> Population:
    x, w = population
    return x[i], None if w is None else w[i]


def _score(
    t: float,
    model: str,
    seed: int,
    predicted: Population,
    observed: Population,
    metrics: Sequence[str],
    max_cells: int,
) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    (x, a), (y, b) = (_some(p, rng.permutation(len(p[0]))[:max_cells]) for p in (predicted, observed))
    values = {m: METRICS[m](x, y, a, b) for m in metrics}
    return {"time": t, "model": model, "seed": seed, "n_observed": len(y), "n_predicted": len(x), **values}


def _baselines(cells: Cells, t: float, seed: int, metrics: Sequence[str], max_cells: int) -> list[dict[str, Any]]:
    observed = _population(cells, t)
    before, after = cells.observed[cells.observed < t][-1], cells.observed[cells.observed > t][:1]
    previous = _population(cells, before)
    populations = {"previous": previous}
    if len(after):
        following = _population(cells, after[0])
        populations["next"] = following
        (x, a), (y, b) = previous, following
        share = (t - before) / (after[0] - before)
        populations["ot_midpoint"] = interpolate(x, y, share, a=a, b=b, seed=seed), a
    rows = [_score(t, name, seed, p, observed, metrics, max_cells) for name, p in populations.items()]
    half = np.random.default_rng(seed).permutation(len(observed[0]))
    n = len(half) // 2
    parts = _some(observed, half[:n]), _some(observed, half[n : 2 * n])
    rows.append(_score(t, "floor", seed, *parts, metrics, max_cells))
    return rows


def _verdict(table: pd.DataFrame, methods: Sequence[str], metric: str) -> str:
    """The comparison in words, for the first metric, averaged over held-out times and seeds."""
    means = table.groupby(["model", "time"])[metric].mean().groupby("model").mean()
    complete = [
        b
        for b in BASELINES
        if b in means.index and table[table["model"] == b]["time"].nunique() == table["time"].nunique()
    ]
    best = min(complete, key=lambda b: means[b])
    lines = []
    for name in methods:
        better = means[name] < means[best]
        change = abs(means[name] / means[best] - 1)
        lines.append(
            f"{name} {'BEATS' if better else 'LOSES TO'} the best baseline ({best}) by {change:.1%}: "
            f"mean {metric} {means[name]:.4g} against {means[best]:.4g} (floor {means['floor']:.4g}), "
            f"{table['time'].nunique()} held-out time(s), {table[table['model'] == name]['seed'].nunique()} seed(s)"
        )
    return "; ".join(lines)
