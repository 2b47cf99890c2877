"""Does one model of two conditions predict a missing time of the one better than a fit to it alone?

Condition a has 400 cells of every time (at most eight times as many as b), condition b few, and one time of b is
missing: an inner one (interpolated), or the last (forecast). ``apart`` is a fit to b alone, ``pooled`` one to the cells
of both that knows of no conditions, and ``joint`` one training over both: potential and friction are shared, and a
vector for each condition is learned, zero at first; paths of cells, from which velocities are taken, are those of
``pooled``. All three start from the cells of b, and forecasts are by the mechanics alone; ``apart, back-test`` is the
forecast of ``tl.fit`` with its defaults.

Naive answers: a copy of the time of b before or after, the mixture of both, the midpoint of optimal transport and the
spline; of a forecast the time before, and straight on by the last displacement. Those that look at a: its population at
the missing time (``other``), the same moved by the difference of means at the times of b around (``other, shifted``),
and the last cells of b before moved as the cells of a beside them do (``moves of the other``).

eb: embryoid bodies, b drawn with preference for one side of the second component. shares: the simulated bifurcation, b
with three times as many cells of one fate. speed: the same, b slower (0.7 times). repressilator: b with less
transcription (8 for 12). Every answer has as many cells as b has a time, and is compared with 400 others of the missing
one; ``floor`` are as many cells of it.

The run resumes: results are kept in benchmarks/results by the code that made them.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import torch
from _joint_model import train_jointly
from _report import RESULTS, options, parser, prepare, run_missing
from _report import key as named

import wlm
from wlm._adata.cells import Cells
from wlm._adata.reading import Reading
from wlm._logging import quiet
from wlm._store.fit import as_forecast
from wlm.core.chains import spline_interpolation
from wlm.core.dynamics import Dynamics
from wlm.core.methods import get_method
from wlm.core.metrics import w1
from wlm.core.populations import Populations
from wlm.core.prediction import fields, rollout
from wlm.core.training import Fit
from wlm.core.transport import interpolate, partner_index
from wlm.datasets import _oscillator
from wlm.tl._backtest import forecast_note
from wlm.tl._models import Trained, ensemble_of, train_model
from wlm.tl._models import prepare as prepare_cells
from wlm.tl._simulation import simulate

#: Cells of a time: of condition a, and of b that are only compared with; and how many times as many a has at most.
N_OTHER, N_TRUTH, TIMES_MORE = 400, 400, 8
DATA = ("eb", "shares", "speed", "repressilator")
FITTED = ("apart", "pooled", "joint")
ALONE = ("previous", "next", "mixture", "ot_midpoint", "spline", "straight on")
OF_OTHER = ("other", "other, shifted", "moves of the other")
CPU = torch.device("cpu")
Clouds = dict[float, np.ndarray]


def data(name: str, n: int, seed: int) -> tuple[Clouds, Clouds, Clouds]:
    """Cells (m, d) by time: of condition a, ``n`` of b, and others of b."""
    m = min(N_OTHER, TIMES_MORE * n)
    if name == "repressilator":
        a, b = _repressilator(12.0, m, 2 * seed), _repressilator(8.0, n + N_TRUTH, 2 * seed + 1)
    elif name == "eb":
        adata, rng = wlm.datasets.embryoid_body(), np.random.default_rng(seed)
        x, at = np.asarray(adata.obsm["X_pca"], dtype=np.float32), adata.obs["time"].astype(float).to_numpy()
        side = 1 / (1 + np.exp(-1.5 * (x[:, 1] - x[:, 1].mean()) / x[:, 1].std()))
        a, b = {}, {}
        for t in np.unique(at).tolist():
            rows = rng.permutation(np.flatnonzero(at == t))
            a[t], left = x[rows[:m]], rows[m:]
            b[t] = x[_drawn(left, n + N_TRUTH, side[left], rng)]
    else:
        a, b = _bifurcation(name, m, n + N_TRUTH, seed)
    return a, {t: x[:n] for t, x in b.items()}, {t: x[n:] for t, x in b.items()}


def _repressilator(rate: float, n: int, seed: int) -> Clouds:
    """The circuit with this rate of transcription, at seven times."""
    usual, _oscillator.RATE = _oscillator.RATE, rate
    try:
        adata = wlm.datasets.repressilator(n, n_times=7, duration=12.0, rng=seed)
    finally:
        _oscillator.RATE = usual
    rng, at = np.random.default_rng(seed), adata.obs["time"].to_numpy()
    return {t: rng.permutation(adata.obsm["X_genes"][at == t]) for t in np.unique(at).tolist()}


def _bifurcation(name: str, m: int, n: int, seed: int) -> tuple[Clouds, Clouds]:
    """Two conditions of the bifurcation, of the same genes and in the same five components."""
    rng, size = np.random.default_rng(seed), m + 3 * n
    a = wlm.datasets.bifurcation(size, rng=seed)
    # One seed gives the same genes, and the same noise to cells of the same number: b has others than a.
    b = a if name == "shares" else wlm.datasets.bifurcation(size, days=[0.7 * t for t in range(5)], rng=seed)
    first, own = [], []
    for t in range(5):
        rows = t * size + rng.permutation(size)
        left = rows[m:]
        p = np.where((b.obs["fate"].iloc[left] == "A") & (name == "shares"), 3.0, 1.0)
        first.append(rows[:m])
        own.append(_drawn(left, n, p, rng))
    both = ad.concat([a[np.concatenate(first)].copy(), b[np.concatenate(own)].copy()], index_unique="-")
    sc.pp.normalize_total(both)
    sc.pp.log1p(both)
    sc.pp.pca(both, n_comps=5)
    x = np.split(np.asarray(both.obsm["X_pca"], dtype=np.float32), [5 * m])
    return tuple({float(t): cloud for t, cloud in enumerate(np.split(part, 5))} for part in x)  # type: ignore[return-value]


def _drawn(rows: np.ndarray, n: int, p: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """``n`` of the rows by weights ``p``, in random order: as they are drawn, those of more weight come first."""
    return rng.permutation(rng.choice(rows, n, replace=False, p=p / p.sum()))


def cells_of(clouds: Clouds) -> Cells:
    """The clouds as a fit reads them."""
    times = np.repeat(sorted(clouds), [len(clouds[t]) for t in sorted(clouds)])
    adata = ad.AnnData(obs=pd.DataFrame({"time": times}, index=[f"c{i}" for i in range(len(times))]))
    adata.obsm["X"] = np.concatenate([clouds[t] for t in sorted(clouds)])
    reading = Reading(time_key="time", use_rep="X").resolved(adata, None)
    return reading.parts(reading.source(adata, None))[""].cells


def predicted(cells: Cells, model: Trained, own: np.ndarray, t: float, seed: int, forecast: Any = None) -> np.ndarray:
    """The cells ``own`` (n,) of the last time before, at ``t``."""
    ensemble = replace(ensemble_of(cells, [model], seed), forecast=forecast)
    times = cells.times[own]
    present = np.unique(times)
    start = present[present < t][-1:]
    v = model.fields["velocity"][own]
    return simulate(ensemble, cells.x[own], v, times, np.array([t]), start, present, weights=None, seed=seed)[
        0
    ].positions[0]


def scored(name: str, n: int, task: str, model: str, seed: int, extra: dict[str, Any]) -> dict[str, float]:
    """W1 of each answer, of a fit also its seconds on the processor."""
    a, b, rest = data(name, n, seed)
    t = max(b) if task == "forecast" else sorted(b)[len(b) // 2]
    there, truth = b.pop(t), rest[t]
    if model == "naive":
        answers = {"floor": there, **_naive(a, b, t, seed)}
        return {k: w1(_some(x, n), truth) for k, x in answers.items()}
    config, out, began = get_method("wlm", extra), {}, time.process_time()
    with quiet():
        if model == "apart":
            raw = cells_of(b)
            cells, _ = prepare_cells(raw, config, None, seed)
            trained = train_model(cells, config, seed, seed, CPU)
            everything = np.arange(len(cells.times))
            out = {"apart": w1(predicted(cells, trained, everything, t, seed), truth)}
            out["seconds, apart"] = time.process_time() - began
            if task == "forecast":
                note = forecast_note(raw, cells, config, None, [seed], CPU)
                forecast = as_forecast(note, trained.fit.dynamics.as_stored().units)
                out["apart, back-test"] = w1(predicted(cells, trained, everything, t, seed, forecast), truth)
            return out
        clouds = {s: np.concatenate([b[s], a[s]]) if s in b else a[s] for s in a}
        cells, _ = prepare_cells(cells_of(clouds), config, None, seed)
        own = np.zeros(len(cells.times), dtype=bool)
        for s, x in b.items():  # those of b come first
            own[cells.at(s)[: len(x)]] = True
        prepared = time.process_time()
        trained = train_model(cells, config, seed, seed, CPU)
        out["pooled"] = w1(predicted(cells, trained, np.flatnonzero(own), t, seed), truth)
        out["seconds, pooled"], began = time.process_time() - began, time.process_time() - (prepared - began)
        parts = {"a": cells.only(~own), "b": cells.only(own)}
        trained = rolled_out(
            train_jointly({k: c.populations() for k, c in parts.items()}, config, seed)["b"], parts["b"], seed
        )
        out["joint"] = w1(predicted(parts["b"], trained, np.arange(own.sum()), t, seed), truth)
        out["seconds, joint"] = time.process_time() - began
    return out


def rolled_out(dynamics: Dynamics, cells: Cells, seed: int) -> Trained:
    """What a prediction with ``dynamics`` starts from: the rollout and the velocities of the cells."""
    v, start = (cells.v if dynamics.needs_velocity else None), cells.at(cells.training[0])
    path = rollout(dynamics, cells.x[start], None if v is None else v[start], start, cells.observed, seed=seed)
    annotation = fields(dynamics, cells.x, v, cells.times, cells.observed, path, seed=seed)
    return Trained(Fit(dynamics, {}, 0), path, annotation, 0.0)


def _naive(a: Clouds, b: Clouds, t: float, seed: int) -> Clouds:
    """Positions by the answers that need no training."""
    seen, rng = sorted(b), np.random.default_rng(seed)
    before, after = max(s for s in seen if s < t), [s for s in seen if s > t][:1]
    x = b[before]
    beside = partner_index(x, a[before], rng)
    to = partner_index(a[before], a[t], rng)
    around = [before, *after]
    shift = np.mean([b[s].mean(0) - a[s].mean(0) for s in around], axis=0)
    out = {"previous": x, "other": a[t], "other, shifted": a[t] + shift}
    out["moves of the other"] = x + (a[t][to] - a[before])[beside]
    if after:
        y, share = b[after[0]], (t - before) / (after[0] - before)
        out["next"], out["mixture"] = y, rng.permutation(np.concatenate([x, y]))
        out["ot_midpoint"] = interpolate(x, y, share, seed=seed)
        populations = Populations(np.array(seen), tuple(b[s] for s in seen))
        out["spline"] = spline_interpolation(populations, t)
    else:
        earlier = seen[-2]
        out["straight on"] = interpolate(x, b[earlier], -(t - before) / (before - earlier), seed=seed)
    return out


def _some(x: np.ndarray, n: int) -> np.ndarray:
    return x[np.sort(np.random.default_rng(0).permutation(len(x))[:n])].astype(np.float32)


def _geometric(ratio: pd.Series) -> float:
    return float(np.exp(np.log(ratio).mean()))


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    p.add_argument("--cells", nargs="+", type=int, default=[50, 200], help="of condition b at each time")
    p.add_argument("--fresh", action="store_true", help="run again what was run before")
    arguments = p.parse_args()
    prepare()
    extra, names, cells, seeds = options(arguments.option), arguments.data, arguments.cells, arguments.seeds
    if arguments.quick:
        extra, names, cells, seeds = {"n_steps": 3, **extra}, ["repressilator"], [10], 1
    jobs = [
        (name, n, task, model, seed, extra if model != "naive" else {})
        for n in cells
        for seed in range(seeds)
        for name in names
        for task in ("inner", "forecast")
        for model in ("naive", "apart", "together")
    ]
    file = RESULTS / f"joint{'-quick' if arguments.quick else ''}.json"
    done = run_missing(file, jobs, scored, arguments.jobs, fresh=arguments.fresh)
    rows = [
        {"task": task, "data": name, "cells": n, "seed": seed, "answer": answer, "w1": score}
        for name, n, task, model, seed, e in jobs
        for answer, score in done[named((name, n, task, model, seed, e))].items()
        if not answer.startswith("seconds")
    ]
    index = ["task", "data", "cells", "seed"]
    table = pd.DataFrame(rows).pivot_table(index=index, columns="answer", values="w1", sort=False)
    order = [k for k in ("floor", *FITTED, "apart, back-test", *ALONE, *OF_OTHER) if k in table]
    table = table[order]
    best = table[[k for k in (*ALONE, *OF_OTHER) if k in table]].min(axis=1)
    for task in ("inner", "forecast"):
        own = table.loc[[task]].dropna(axis=1, how="all")
        print(f"\n{task}: W1, mean over {seeds} seeds")
        print(own.groupby(level=[1, 2], sort=False).mean().to_string(float_format="{:.3f}".format))
        print(f"\n{task}: joint over others, geometric mean, its spread over seeds, and share of cases below 1")
        rivals = {k: own[k] for k in own if k not in ("joint", "floor")} | {"best naive of each case": best.loc[[task]]}
        lines = {}
        for k, other in rivals.items():
            ratio = own["joint"] / other
            seedwise = ratio.groupby(level="seed").apply(_geometric)
            lines[k] = {f"b of {n}": _geometric(ratio[ratio.index.get_level_values("cells") == n]) for n in cells}
            lines[k] |= {"all": _geometric(ratio), "sd": seedwise.std(), "below 1": (ratio < 1).mean()}
        print(pd.DataFrame(lines).T.to_string(float_format="{:.3f}".format, na_rep="-"))
    seconds = pd.DataFrame([done[named(job)] for job in jobs]).filter(like="seconds").mean().round(1)
    print(f"\n{seconds.rename('on the processor').to_string()}")


if __name__ == "__main__":
    main()
