"""Scoring a method on times that it did not see, beside the naive answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from wlm._adata import Cells, read_cells, read_holdout
from wlm._logging import logger, quiet
from wlm._random import RNG, as_seeds
from wlm.core.metrics import METRICS
from wlm.core.prediction import interpolate
from wlm.tl._fit import fit, get_device, get_method
from wlm.tl._predict import predict

#: What a model is compared with: copying a neighbour, or interpolating between both.
BASELINES = ("previous", "next", "ot_midpoint")


def evaluate(
    adata: ad.AnnData,
    time_key: str,
    *,
    method: str | Sequence[str] = "wlm",
    holdout: Any = "each",
    metrics: Sequence[str] = ("w1", "w2", "mmd"),
    baselines: bool = True,
    seeds: int = 1,
    n_jobs: int = 1,
    rng: RNG = 0,
    use_rep: str = "X_pca",
    n_dims: int | None = None,
    velocity_key: str | None = None,
    device: str = "auto",
    max_cells: int = 5000,
    **method_options: Any,
) -> pd.DataFrame:
    """Hold out times one by one, fit on the others, and score the predictions.

    Parameters
    ----------
    adata, time_key, use_rep, n_dims, velocity_key, device, **method_options
        As for :func:`wlm.tl.fit`.
    method
        One method or several.
    holdout
        ``"each"`` holds out every time between the first and the last, one at a time; or the times to
        hold out one at a time. The last time is scored as a forecast.
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
    ``n_observed``, ``n_predicted`` and the metrics. ``attrs["verdict"]`` says in words whether the model
    beats the best baseline, ``attrs["seconds"]`` how long a fit took on average.

    Raises
    ------
    KeyError, ValueError, TypeError
        As for :func:`wlm.tl.fit`; before any fit starts.
    """
    unknown = sorted(set(metrics) - set(METRICS))
    if unknown or not metrics:
        raise ValueError(f"metrics must be among {sorted(METRICS)}, found {list(metrics)}")
    if seeds < 1 or max_cells < 2:
        raise ValueError(f"seeds must be at least 1 and max_cells at least 2, found {seeds} and {max_cells}")
    methods = [method] if isinstance(method, str) else list(method)
    for name in methods:
        get_method(name, method_options).check(has_velocity=velocity_key is not None)
    get_device(device)
    cells = read_cells(adata, time_key, use_rep=use_rep, n_dims=n_dims, velocity_key=velocity_key)
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

    slim = _slim(cells)
    run_seeds = as_seeds(rng, seeds)
    jobs = [(t, name, s) for t in held for name in methods for s in run_seeds]
    predictions = Parallel(n_jobs=n_jobs)(
        delayed(_predict)(slim, t, name, s, device, method_options) for t, name, s in jobs
    )
    rows = []
    for (t, name, s), (predicted, _) in zip(jobs, predictions, strict=True):
        rows.append(_score(t, name, s, predicted, cells.x[cells.at(t)], metrics, max_cells))
    if baselines:
        for t in held:
            rows += _baselines(cells, t, run_seeds[0], metrics, max_cells)
    table = pd.DataFrame(rows).sort_values(["time", "model", "seed"], kind="stable", ignore_index=True)
    table.attrs["seconds"] = float(np.mean([seconds for _, seconds in predictions]))
    table.attrs["verdict"] = _verdict(table, methods, metrics[0]) if baselines else ""
    if baselines:
        logger.info(table.attrs["verdict"])
    return table


def _slim(cells: Cells) -> ad.AnnData:
    """Only what a fit reads, for cheap copies to workers."""
    obsm = {"x": cells.x} if cells.v is None else {"x": cells.x, "v": cells.v}
    return ad.AnnData(obs=pd.DataFrame({"time": cells.times}, index=cells.names), obsm=obsm)


def _predict(
    slim: ad.AnnData,
    t: float,
    method: str,
    seed: int,
    device: str,
    options: dict[str, Any],
) -> tuple[np.ndarray, float]:
    """Positions predicted for time ``t`` by a fit that has not seen it, and the seconds the fit took."""
    own = slim.copy()
    with quiet():
        fit(
            own,
            "time",
            method=method,
            use_rep="x",
            velocity_key="v" if "v" in slim.obsm else None,
            holdout=t,
            rng=seed,
            device=device,
            show_progress=False,
            **options,
        )
    return predict(own, t, rng=seed).obsm["x"], own.uns["wlm"]["params"]["seconds"]


def _score(
    t: float, model: str, seed: int, predicted: np.ndarray, observed: np.ndarray, metrics: Sequence[str], max_cells: int
) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    x, y = (a[rng.permutation(len(a))[:max_cells]] for a in (predicted, observed))
    values = {m: METRICS[m](x, y) for m in metrics}
    return {"time": t, "model": model, "seed": seed, "n_observed": len(y), "n_predicted": len(x), **values}


def _baselines(cells: Cells, t: float, seed: int, metrics: Sequence[str], max_cells: int) -> list[dict[str, Any]]:
    observed = cells.x[cells.at(t)]
    before, after = cells.observed[cells.observed < t][-1], cells.observed[cells.observed > t][:1]
    previous = cells.x[cells.at(before)]
    populations = {"previous": previous}
    if len(after):
        following = cells.x[cells.at(after[0])]
        populations["next"] = following
        populations["ot_midpoint"] = interpolate(previous, following, (t - before) / (after[0] - before), seed=seed)
    rows = [_score(t, name, seed, x, observed, metrics, max_cells) for name, x in populations.items()]
    half = np.random.default_rng(seed).permutation(len(observed))
    n = len(half) // 2
    rows.append(_score(t, "floor", seed, observed[half[:n]], observed[half[n : 2 * n]], metrics, max_cells))
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
