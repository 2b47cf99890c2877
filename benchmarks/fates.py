"""Fates of simulated cells whose branch and whose true chances are known: Brier score and calibration error.

true      the chances of the latent state, which nobody sees: each cell simulated on many times
taught    a logistic regression that knows the fates of other cells of the same day (five folds)
majority  the larger branch of the last day
ot        couplings from day to day with no model, by the same noise and neighbours as wlm.tl.fates
hard      the free rollout of the fit, each cell to one end
others    wlm.tl.fates of that method with its defaults

Days 0 to 3 are scored against the branch in which each cell of the simulation ends at day 4. The calibration error is
the mean distance of the chances from the observed shares in ten bins, by cells.
Every run is kept in benchmarks/results/fates.json and not repeated with the same code; --fresh starts anew.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
import scanpy as sc
from _report import RESULTS, key, options, parser, peak_memory, run_missing
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

import wlm
from wlm.core.fates import pull_back
from wlm.core.transport import neighbourhoods, noisy_coupling, residual
from wlm.datasets._bifurcation import _DT, _NOISE, _drift

#: Continuations of each cell by which its true chances are known to a few hundredths; bins of the calibration error.
N_TRUE, BINS = 200, 10


def true_chances(adata: Any, seed: int) -> np.ndarray:
    """The chance (n,) of branch A for each cell, by its latent state."""
    rng, day = np.random.default_rng([seed, 99]), adata.obs["day"].to_numpy()
    out = np.empty(adata.n_obs)
    for t in np.unique(day):
        here = np.flatnonzero(day == t)
        z = np.repeat(adata.obsm["latent"][here].astype(float), N_TRUE, axis=0)
        for _ in range(round((day.max() - t) / _DT)):
            z = z + _drift(z) * _DT + _NOISE * np.sqrt(_DT) * rng.normal(size=z.shape)
        out[here] = (z[:, 1] > 0).reshape(len(here), N_TRUE).mean(1)
    return out


def calibration(p: np.ndarray, y: np.ndarray) -> float:
    """Mean distance of predicted chances from observed shares, in bins, by cells."""
    at = np.minimum((p * BINS).astype(int), BINS - 1)
    return float(sum(abs(p[at == k].mean() - y[at == k].mean()) * (at == k).mean() for k in np.unique(at)))


def by_transport(x: np.ndarray, day: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Chances by couplings of observed populations, with no model between them."""
    times = np.unique(day)
    steps = []
    for a, b in zip(times[:-1], times[1:], strict=True):
        start, end = x[day == a], x[day == b]
        steps.append(neighbourhoods(start, 15) @ noisy_coupling(start, end, residual(start, end), 30))
    out = y.astype(float)
    ends = np.stack([y[day == times[-1]]], axis=1).astype(float)
    for t, found in zip(times, pull_back(steps, ends), strict=False):
        out[day == t] = found[:, 0]
    return out


def run(seed: int, cells: int, dims: int, methods: list[str], extra: dict[str, Any]) -> list[dict[str, Any]]:
    """The scores of all rows with one seed."""
    adata = wlm.datasets.bifurcation(cells, rng=seed)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=dims)
    day, x = adata.obs["day"].to_numpy(), adata.obsm["X_pca"]
    y = (adata.obs["fate"] == "A").to_numpy().astype(float)
    last = day == day.max()
    rows: dict[str, tuple[np.ndarray, float]] = {"true": (true_chances(adata, seed), np.nan)}
    taught = np.empty(len(y))
    for t in np.unique(day):
        model = LogisticRegression(C=0.1, max_iter=2000)
        taught[day == t] = cross_val_predict(model, x[day == t], y[day == t], cv=5, method="predict_proba")[:, 1]
    rows["taught"] = taught, np.nan
    rows["majority"] = np.full(len(y), float(y[last].mean() > 0.5)), np.nan
    rows["ot"] = by_transport(x, day, y), np.nan
    for method in methods:
        wlm.tl.fit(adata, "day", method=method, rng=seed, show_progress=False, **(extra if method == "wlm" else {}))
        begin = time.perf_counter()
        wlm.tl.terminal_states(adata, label_key="fate", states=["A", "B"])
        wlm.tl.fates(adata, rng=seed)
        rows[method] = adata.obsm["wlm_fates"][:, 0].astype(float), time.perf_counter() - begin
        near = KNeighborsClassifier(15, weights="distance").fit(x[last], y[last])
        hard = y.copy()
        for t in np.unique(day[~last]):
            end = wlm.tl.predict(adata, day.max(), from_time=t).obsm["X_pca"]
            hard[day == t] = near.predict(end)
        rows[f"{method}, hard"] = hard, np.nan
    early = ~last
    return [
        {
            "row": name,
            "seed": seed,
            "brier": float(np.mean((p - y)[early] ** 2)),
            "calibration": calibration(p[early], y[early]),
        }
        | {f"brier at {t:g}": float(np.mean((p - y)[day == t] ** 2)) for t in np.unique(day[early])}
        | {"fates_s": seconds, "memory_gb": peak_memory()}
        for name, (p, seconds) in rows.items()
    ]


def main() -> None:
    p = parser(__doc__, seeds=5)
    p.add_argument("--cells", type=int, default=400, help="cells per day")
    p.add_argument("--dims", type=int, default=10, help="principal components")
    p.add_argument("--method", action="append", choices=["wlm", "flow"], help="only this method; repeatable")
    p.add_argument("--fresh", action="store_true", help="do not use runs that are there already")
    arguments = p.parse_args()
    extra, methods = options(arguments.option), arguments.method or ["wlm", "flow"]
    if arguments.quick:
        extra, arguments.seeds, arguments.cells = {"n_steps": 5, "width": 16, **extra}, 1, 60
    path = RESULTS / ("fates-quick.json" if arguments.quick else "fates.json")
    jobs = [(seed, arguments.cells, arguments.dims, methods, extra) for seed in range(arguments.seeds)]
    done = run_missing(path, jobs, run, arguments.jobs, fresh=arguments.fresh or arguments.quick)
    frame = pd.DataFrame([row for job in jobs for row in done[key(job)]])
    each = frame.groupby("row", sort=False)
    out = each.mean().drop(columns="seed")
    out.insert(1, "sd", each["brier"].std())
    ratio = (
        frame.set_index(["row", "seed"])["brier"] / frame[frame["row"] == "true"].set_index("seed")["brier"]
    ).groupby("row")
    out.insert(2, "over true", ratio.mean())
    print(out.to_string(float_format=lambda v: f"{v:.3f}", na_rep="-"))
    print(f"{arguments.cells} cells on each of five days, {arguments.dims} components, {arguments.seeds} seeds")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
