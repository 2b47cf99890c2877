"""What each option is worth: held-out W1 with one option changed at a time, relative to the defaults.

Embryoid bodies (times 1 and 3 held out in turn), EMT (time 1), the bifurcation (day 2), all without velocities, and the
small vortex (odd times), with them. Shortened fits (--steps); negative is better than the defaults. Runs are kept in
benchmarks/results/options.json and not repeated with the same code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from _report import RESULTS, key, parser, run_missing
from leave_one_out import DATA
from vortex import run as run_vortex

import wlm

OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "v0 zero": {"initial_velocity": "zero"},
    "v0 estimated (DICE)": {"initial_velocity": "estimated"},
    "friction 0": {"friction": 0.0},
    "friction 10, fixed": {"friction": 10.0, "friction_lr": 0.0},
    "friction from 0.1": {"friction": 0.1},
    "friction from 3": {"friction": 3.0},
    "time features": {"time_features": True},
    "as in the paper": {"method": "wlm_paper"},
    "max_step 1": {"max_step": 1.0},
    "no acceleration penalty": {"acceleration_penalty": 0.0},
    "p = 1": {"p": 1},
    "full attention": {"n_inducing": 0},
}
FOLDS = {"eb": (1.0, 3.0), "emt": (1.0,), "bifurcation": (2.0,), "vortex": (None,)}


def run(options: dict[str, Any], data: str, fold: float | None, seed: int, n_steps: int) -> float:
    extra = {"n_steps": n_steps, **options}
    if data == "vortex":
        rows, _ = run_vortex(seed, extra)
        return float(np.mean([r["w1"] for r in rows if r["model"] == "wlm"]))
    adata, time_key, rep = (wlm.datasets.embryoid_body(), "time", "X_pca") if data == "eb" else DATA[data]()
    common = {"use_rep": rep, "holdout": fold, "metrics": ("w1",), "baselines": False, "max_cells": 3000}
    return float(wlm.tl.evaluate(adata, time_key, rng=seed, device="cpu", **common, **extra)["w1"].mean())


def main() -> None:
    p = parser(__doc__, seeds=2)
    p.add_argument("--steps", type=int, default=300)
    arguments = p.parse_args()
    names, folds, path = list(OPTIONS), FOLDS, RESULTS / "options.json"
    if arguments.quick:
        names, folds, path = names[:3], {"emt": (1.0,)}, RESULTS / "options-quick.json"
        arguments.seeds, arguments.steps = 1, 5
    cases = [
        (name, data, fold, seed)
        for seed in range(arguments.seeds)
        for name in names
        for data, times in folds.items()
        for fold in times
        if name != f"friction from {0.1 if data == 'vortex' else 3}"  # which is the default there
    ]
    jobs = [(OPTIONS[name], data, fold, seed, arguments.steps) for name, data, fold, seed in cases]
    done = run_missing(path, jobs, run, arguments.jobs, fresh=arguments.quick)
    rows = [(*case, done[key(job)]) for case, job in zip(cases, jobs, strict=True)]
    frame = pd.DataFrame(rows, columns=["option", "data", "fold", "seed", "w1"])
    each = frame.groupby(["option", "data", "seed"], sort=False)["w1"].mean().unstack("option")
    change = each.div(each["defaults"], axis=0) - 1
    print(f"W1 of the defaults: {each['defaults'].groupby('data').mean().round(4).to_dict()}")
    table = 100 * change.T.drop("defaults")
    mean = table.T.groupby("data", sort=False).mean().T
    spread = table.T.groupby("data", sort=False).std().T
    print("change of W1 in per cent, mean over seeds (sd)")
    print((mean.map("{:+.1f}".format) + " (" + spread.map("{:.1f}".format) + ")").to_string())
    print(f"{arguments.seeds} seeds, {arguments.steps} steps; wrote {path}")


if __name__ == "__main__":
    main()
