"""Which method? The same held-out times predicted by each method with its defaults, without velocities unless named.

eb               embryoid bodies, each of times 1, 2, 3 left out in turn
emt              A549 cells, time 1
bifurcation      simulated differentiation, day 2
vortex           particles that turn in a flow: times 1, 3, 5, 7 left out together; WLM also with their velocities
oakley_ohagan    a gradient flow with noise in the plane, unpaired: ten of twenty snapshots seen, the rest forecast
potential        a gradient flow without noise (wavy plateau): four of six snapshots seen, the others forecast

Every run is kept in benchmarks/results/which_method.json and not repeated with the same code; --fresh starts anew.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
from _report import RESULTS, key, options, parser, run_missing
from leave_one_out import DATA

import wlm
from wlm.core.metrics import w1

CONFIGS: dict[str, dict[str, Any]] = {
    "wlm": {"method": "wlm"},
    "wlm, velocities": {"method": "wlm", "velocity_key": "velocity"},
    "ijkonet V": {"method": "ijkonet"},
    "ijkonet t,V": {"method": "ijkonet", "time_varying": True},
    "ijkonet V+U": {"method": "ijkonet", "energy": "V+U"},
    "jkonet_star V": {"method": "jkonet_star"},
}
FOLDS: dict[str, list[float | None]] = {
    "eb": [1.0, 2.0, 3.0],
    "emt": [1.0],
    "bifurcation": [2.0],
    "vortex": [None],
    "oakley_ohagan": [None],
    "potential": [None],
}
ODD = [1.0, 3.0, 5.0, 7.0]


def cells(data: str, seed: int) -> tuple[Any, str, str]:
    """The cells of a data set, the column of their times, and their coordinates."""
    if data == "eb":
        return wlm.datasets.embryoid_body(), "time", "X_pca"
    if data == "vortex":
        return wlm.datasets.vortex(), "time", "X_position"
    if data == "oakley_ohagan":
        return wlm.datasets.gradient_flow_sde("oakley_ohagan", 500, rng=seed), "time", "X_position"
    if data == "potential":
        return wlm.datasets.potential_flow("wavy_plateau", rng=seed), "time", "X_position"
    return DATA[data]()


def run(data: str, config: str, fold: float | None, seed: int, extra: dict[str, Any], quick: bool) -> list[dict]:  # noqa: FBT001
    adata, time_key, use_rep = cells(data, seed)
    if quick:
        adata = adata[:: max(1, adata.n_obs // 600)].copy()
    chosen = {**CONFIGS[config], "rng": seed, "device": "cpu", "show_progress": False, **extra}
    day = adata.obs[time_key].astype(float).to_numpy()
    times, x = np.unique(day), adata.obsm[use_rep]
    half = {"oakley_ohagan": 10, "potential": 4}.get(data)
    held = [fold] if fold is not None else ODD if data == "vortex" else times[half:].tolist()
    begin = time.perf_counter()
    if half is not None:
        # A forecast: cells of the last time seen go on.
        seen = adata[day < times[half]].copy()
        seen.obs[time_key] = day[day < times[half]]
        wlm.tl.fit(seen, time_key, use_rep=use_rep, **chosen)
        seconds = time.perf_counter() - begin
        predicted = wlm.tl.predict(seen, held, rng=seed)
        baselines = dict.fromkeys(held, {"previous": x[day == times[half - 1]]})
    else:
        wlm.tl.fit(adata, time_key, use_rep=use_rep, holdout=held, **chosen)
        seconds = time.perf_counter() - begin
        predicted = wlm.tl.predict(adata, held, rng=seed)
        baselines = {}
        for t in held:
            before, after = (
                times[~np.isin(times, held) & (times < t)][-1],
                times[~np.isin(times, held) & (times > t)][0],
            )
            a, b = x[day == before], x[day == after]
            share = (t - before) / (after - before)
            baselines[t] = {"previous": a, "ot_midpoint": wlm.core.transport.interpolate(a, b, share, seed=seed)}
    at = predicted.obs[time_key].to_numpy(float)
    rows = []
    for t in held:
        models = {config: predicted.obsm[use_rep][np.isclose(at, t)]}
        models |= baselines[t] if config == "ijkonet V" else {}
        rows += [
            {"data": data, "model": m, "seed": seed, "time": t, "w1": w1(z, x[day == t])} for m, z in models.items()
        ]
        rows[-len(models)]["fit_s"] = seconds
    return rows


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--data", action="append", choices=list(FOLDS), help="only this data set; repeatable")
    p.add_argument("--fresh", action="store_true", help="do not use runs that are there already")
    arguments = p.parse_args()
    extra = options(arguments.option)
    if arguments.quick:
        extra, arguments.seeds = {"n_steps": 5, "width": 16, **extra}, 1
    path = RESULTS / ("which_method-quick.json" if arguments.quick else "which_method.json")
    jobs = [
        (data, config, fold, seed, extra, arguments.quick)
        for seed in range(arguments.seeds)
        for data in arguments.data or FOLDS
        for fold in FOLDS[data]
        for config in CONFIGS
        if config != "wlm, velocities" or data == "vortex"
    ]
    done = run_missing(path, jobs, run, arguments.jobs, fresh=arguments.fresh or arguments.quick)
    frame = pd.DataFrame([row for job in jobs for row in done[key(job)]])
    each = frame.groupby(["data", "model", "seed"], sort=False)["w1"].mean().groupby(["data", "model"], sort=False)
    out = pd.DataFrame({"w1": each.mean(), "sd": each.std(), "seeds": each.size()})
    out["fit, s"] = frame.groupby(["data", "model"], sort=False)["fit_s"].mean()
    print(out.to_string(float_format=lambda v: f"{v:.3f}", na_rep="-"))
    print(f"mean W1 over held-out times; all cells; wrote {path}")


if __name__ == "__main__":
    main()
