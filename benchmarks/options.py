"""What each option is worth: held-out W1 with one option changed at a time, relative to the defaults.

Embryoid bodies (times 1 and 3 held out in turn), EMT (time 1), the bifurcation (day 2), all without velocities, and the
small vortex (odd times), with them. Shortened fits (--steps); negative is better than the defaults. Runs are kept in
benchmarks/results/options.json and not repeated with the same code.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
from _report import RESULTS, code, machine, parser, prepare
from joblib import Parallel, delayed
from leave_one_out import DATA
from vortex import run as run_vortex

import wlm

OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "v0 zero": {"initial_velocity": "zero"},
    "v0 estimated (DICE)": {"initial_velocity": "estimated"},
    "friction 0": {"friction": 0.0},
    "friction 10, fixed": {"friction": 10.0, "learn_friction": False},
    "friction from 0.1": {"friction": 0.1},
    "friction from 3": {"friction": 3.0},
    "time features": {"time_features": True},
    "gradient truncated": {"gradient": "truncated"},
    "momentum none": {"momentum": "none"},
    "restart 0": {"restart": 0.0},
    "curriculum 0.5": {"curriculum": 0.5},
    "max_step 1": {"max_step": 1.0},
    "no acceleration penalty": {"acceleration_penalty": 0.0},
    "p = 1": {"p": 1},
    "full attention": {"n_inducing": 0},
}
FOLDS = {"eb": (1.0, 3.0), "emt": (1.0,), "bifurcation": (2.0,), "vortex": (None,)}


def run(name: str, data: str, fold: float | None, seed: int, n_steps: int) -> tuple[str, float]:
    prepare()
    extra = {"n_steps": n_steps, **OPTIONS[name]}
    if data == "vortex":
        rows, _ = run_vortex(seed, extra)
        value = float(np.mean([r["w1"] for r in rows if r["model"] == "wlm"]))
    else:
        adata, time_key, rep = (wlm.datasets.embryoid_body(), "time", "X_pca") if data == "eb" else DATA[data]()
        common = {"use_rep": rep, "holdout": fold, "metrics": ("w1",), "baselines": False, "max_cells": 3000}
        value = float(wlm.tl.evaluate(adata, time_key, rng=seed, device="cpu", **common, **extra)["w1"].mean())
    return _key(name, data, fold, seed, n_steps), value


def _key(name: str, data: str, fold: float | None, seed: int, n_steps: int) -> str:
    return json.dumps([code(), OPTIONS[name], data, fold, seed, n_steps])


def main() -> None:
    p = parser(__doc__, seeds=2)
    p.add_argument("--steps", type=int, default=300)
    arguments = p.parse_args()
    names, folds, path = list(OPTIONS), FOLDS, RESULTS / "options.json"
    if arguments.quick:
        names, folds, path = names[:3], {"emt": (1.0,)}, RESULTS / "options-quick.json"
        arguments.seeds, arguments.steps = 1, 5
    done: dict[str, float] = json.loads(path.read_text()) if path.exists() and not arguments.quick else {}
    jobs = [
        (name, data, fold, seed, arguments.steps)
        for seed in range(arguments.seeds)
        for name in names
        for data, times in folds.items()
        for fold in times
        # Without measured velocities these are what the defaults are, and the other way round.
        if not (data == "vortex" and name == "friction from 0.1")
        and not (data != "vortex" and name == "friction from 3")
    ]
    RESULTS.mkdir(exist_ok=True)
    parallel = Parallel(n_jobs=arguments.jobs, return_as="generator_unordered")
    for key, value in parallel(delayed(run)(*job) for job in jobs if _key(*job) not in done):
        done[key] = value
        path.write_text(json.dumps(done, indent=1))
        print(key, f"{value:.4f}", flush=True)
    frame = pd.DataFrame(
        [(*job, done[_key(*job)]) for job in jobs], columns=["option", "data", "fold", "seed", "steps", "w1"]
    )
    each = frame.groupby(["option", "data", "seed"], sort=False)["w1"].mean().unstack("option")
    change = each.div(each["defaults"], axis=0) - 1
    print(f"\n{machine()}\nW1 of the defaults: {each['defaults'].groupby('data').mean().round(4).to_dict()}")
    table = 100 * change.T.drop("defaults")
    mean = table.T.groupby("data", sort=False).mean().T
    spread = table.T.groupby("data", sort=False).std().T
    print("change of W1 in per cent, mean over seeds (sd)")
    print((mean.map("{:+.1f}".format) + " (" + spread.map("{:.1f}".format) + ")").to_string())
    print(f"{arguments.seeds} seeds, {arguments.steps} steps; wrote {path}")


if __name__ == "__main__":
    main()
