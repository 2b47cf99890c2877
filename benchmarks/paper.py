"""The experiments of the WLM paper with the default settings of the package (but friction 0 for boids, as there).

eb                leave one out on the embryoid bodies, without velocities
vortex            small vortex: train on times 0, 2, 4, 6, 8, interpolate the others
vortex-forecast   small vortex: train on times 0-7, forecast 8 from 0 and from 7 (the paper's big one is not public)
sde               five gradient-flow SDEs, paired and unpaired: train on ten of twenty snapshots, forecast the rest
boids             a flock: train on the first fifty of a hundred snapshots, forecast the rest

Every run is kept in benchmarks/results/paper.json and not repeated with the same code; --fresh starts anew.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
import torch
from _report import RESULTS, key, machine, options, parser, prepare, run_missing
from vortex import run as run_vortex

import wlm
from wlm.core.methods import WLM
from wlm.core.metrics import w1
from wlm.datasets._particles import POTENTIALS

Row = dict[str, Any]

#: Published W1 of WLM (or, for eb, of the best method before it), by experiment, case and part.
PUBLISHED = {
    ("eb", "leave one out", "interpolation"): 0.713,
    ("sde", "mean, paired", "train"): 0.062,
    ("sde", "mean, paired", "forecast"): 0.068,
    ("sde", "mean, unpaired", "forecast"): 0.246,
    ("boids", "true v0", "train"): 0.496,
    ("boids", "true v0", "forecast"): 1.309,
}


def eb(case: str, seed: int, extra: dict[str, Any], *, quick: bool) -> list[Row]:
    adata = wlm.datasets.embryoid_body()
    if quick:
        adata = adata[::20].copy()
    table = wlm.tl.evaluate(
        adata, "time", holdout=float(case[-1]), metrics=("w1",), rng=seed, baselines=seed == 0, device="cpu", **extra
    )
    return [
        {
            "case": "leave one out",
            "part": "interpolation",
            "time": r["time"],
            "model": r["model"],
            "n": r["n_observed"],
            "w1": r["w1"],
        }
        for r in table.to_dict("records")
    ]


def vortex(case: str, seed: int, extra: dict[str, Any], *, quick: bool) -> list[Row]:
    rows, _ = run_vortex(seed, extra)
    return [{"case": case, "part": "interpolation", **{k: r[k] for k in ("time", "model", "n", "w1")}} for r in rows]


def vortex_forecast(case: str, seed: int, extra: dict[str, Any], *, quick: bool) -> list[Row]:
    adata = wlm.datasets.vortex()
    at = {t: adata.obsm["X_position"][adata.obs["time"] == t] for t in range(9)}
    wlm.tl.fit(adata, "time", use_rep="X_position", velocity_key="velocity", holdout=8, rng=seed, device="cpu", **extra)
    start = int(case[-1])
    x = wlm.tl.predict(adata, 8, from_time=start, rng=seed).obsm["X_position"]
    rows = [{"model": "wlm", "w1": w1(x, at[8])}]
    if seed == 0:
        v = adata.obsm["velocity"][adata.obs["time"] == start]
        rows += [
            {"model": "previous", "w1": w1(at[7], at[8])},
            {"model": "inertia", "w1": w1(at[start] + (8 - start) * v, at[8])},
        ]
    return [{"case": case, "part": "forecast", "time": 8.0, "n": 111, **r} for r in rows]


def sde(case: str, seed: int, extra: dict[str, Any], *, quick: bool) -> list[Row]:
    name, pairing = case.split(", ")
    setup = {"n_cells": 100 if quick else 1000, "paired": pairing == "paired"}
    adata = wlm.datasets.gradient_flow_sde(name, rng=seed, **setup)
    other = wlm.datasets.gradient_flow_sde(name, rng=seed + 10_000, **setup) if seed == 0 else None
    return _first_half(case, adata, other, seed, None, extra)


def boids(case: str, seed: int, extra: dict[str, Any], *, quick: bool) -> list[Row]:
    setup = {"n_cells": 100, "n_times": 10} if quick else {}
    adata = wlm.datasets.boids(rng=seed, **setup)
    other = wlm.datasets.boids(rng=seed + 10_000, **setup) if seed == 0 else None
    adata.obsm["velocity"][adata.obs["time"] > 0] = np.nan  # as in the paper, only the initial velocity is known
    velocity = {"true v0": "velocity", "no velocities": None}[case]
    return _first_half(case, adata, other, seed, velocity, {"friction": 0.0, **extra})


def _first_half(
    case: str, adata: Any, other: Any, seed: int, velocity_key: str | None, extra: dict[str, Any]
) -> list[Row]:
    """Train on the first half of the times and roll out from the first to all of them.

    The row ``predict`` is what a user gets for the other half: from the last training time, by what the back-test of
    the fit found nearest.
    """
    times = np.unique(adata.obs["time"])
    half = len(times) // 2
    at = [adata.obsm["X_position"][adata.obs["time"] == t] for t in times]
    seen = adata[adata.obs["time"] < times[half]].copy()
    begin = time.perf_counter()
    wlm.tl.fit(seen, "time", use_rep="X_position", velocity_key=velocity_key, rng=seed, device="cpu", **extra)
    seconds = time.perf_counter() - begin
    predicted = wlm.tl.predict(seen, times[1:], from_time=times[0], rng=seed)
    models = {"wlm": predicted.obsm["X_position"].reshape(len(times) - 1, -1, 2)}
    later = wlm.tl.predict(seen, times[half:], rng=seed).obsm["X_position"].reshape(len(times) - half, -1, 2)
    models["predict"] = [at[half - 1]] * (half - 1) + list(later)
    if other is not None:
        models["last"] = [at[half - 1]] * (len(times) - 1)  # the last training snapshot, copied
        models["floor"] = other.obsm["X_position"].reshape(len(times), -1, 2)[1:]  # a second simulation
    return [
        {
            "case": case,
            "part": "train" if k < half else "forecast",
            "time": float(times[k]),
            "model": model,
            "n": len(at[k]),
            "w1": w1(x[k - 1], at[k]),
            "friction": seen.uns["wlm"]["friction"],
            "seconds": seconds,
        }
        for model, x in models.items()
        for k in range(1, len(times))
        if not (model in ("last", "predict") and k < half)
    ]


EXPERIMENTS = {
    "eb": (eb, [f"holdout {t}" for t in (1, 2, 3)]),
    "vortex": (vortex, ["odd times"]),
    "vortex-forecast": (vortex_forecast, ["from 0", "from 7"]),
    "sde": (sde, [f"{name}, {pairing}" for pairing in ("paired", "unpaired") for name in POTENTIALS]),
    "boids": (boids, ["true v0", "no velocities"]),
}


def run(experiment: str, case: str, seed: int, extra: dict[str, Any], quick: bool) -> list[Row]:  # noqa: FBT001
    begin = time.perf_counter()
    extra = dict(extra)
    if extra.pop("paper_settings", False):
        extra["method"] = WLM.paper(experiment.replace("-", "_"))
    rows = EXPERIMENTS[experiment][0](case, seed, extra, quick=quick)
    common = {"experiment": experiment, "seed": seed, "seconds": time.perf_counter() - begin, "machine": machine()}
    return [{**common, **r} for r in rows]


def table(rows: list[Row]) -> pd.DataFrame:
    """Mean over times, then mean and spread over seeds, for each experiment, case, part and model."""
    frame = pd.DataFrame(rows)
    each = frame.groupby(["experiment", "case", "part", "model", "seed"], sort=False)["w1"].mean().reset_index()
    # The paper's SDE figures are means over the five potentials.
    several = each[each["experiment"] == "sde"].copy()
    several["case"] = "mean, " + several["case"].str.split(", ").str[1]
    several = several.groupby(["experiment", "case", "part", "model", "seed"], sort=False)["w1"].mean().reset_index()
    groups = pd.concat([each, several]).groupby(["experiment", "case", "part", "model"], sort=False)["w1"]
    out = groups.agg(["mean", "std", "size"]).rename(columns={"size": "seeds", "std": "sd"})
    out["published"] = [PUBLISHED.get(key[:3], np.nan) if key[3].startswith("wlm") else np.nan for key in out.index]
    return out


def main() -> None:
    p = parser(__doc__, seeds=5)
    p.add_argument("experiment", choices=[*EXPERIMENTS, "all"])
    p.add_argument("--fresh", action="store_true", help="do not use runs that are there already")
    p.add_argument("--paper-settings", action="store_true", help="the authors' algorithm and settings, not ours")
    p.add_argument("--case", action="append", help="only this case; repeatable")
    arguments = p.parse_args()
    prepare()
    extra = options(arguments.option)
    if arguments.quick:
        extra, arguments.seeds = {"n_steps": 10, "width": 16, "hidden": 16, **extra}, 1
    if arguments.paper_settings:
        extra["paper_settings"] = True
    path = RESULTS / ("paper-quick.json" if arguments.quick else "paper.json")
    names = list(EXPERIMENTS) if arguments.experiment == "all" else [arguments.experiment]
    cases = [
        (e, case, seed)
        for e in names
        for seed in range(arguments.seeds)
        for case in EXPERIMENTS[e][1]
        if arguments.case is None or case in arguments.case
    ]
    jobs = [(*case, extra, arguments.quick) for case in cases]
    done = run_missing(path, jobs, run, arguments.jobs, fresh=arguments.fresh or arguments.quick)
    rows = [r for job in jobs for r in done[key(job)]]
    print(table(rows).to_string(float_format=lambda x: f"{x:.4f}", na_rep="-"))
    print(f"all cells of each snapshot; sd over seeds; options: {extra or 'defaults'}; wrote {path}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
