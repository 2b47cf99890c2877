"""The experiments of the iJKOnet and JKOnet* papers.

potentials       fifteen potentials of the plane, paired and unpaired: one step ahead from snapshots not trained on
eb               embryoid bodies in 5 dimensions, leave two out (train on times 0, 2, 4, predict 1 and 3), W2
eb100            embryoid bodies in 100 dimensions, leave one out, MMD; needs the full file, which is downloaded
stabilisers      what makes V+W and V+W+U train: one change at a time, on eb
speed            a training step beside one of WLM

Every run is kept in benchmarks/results/jko.json and not repeated with the same code; --fresh starts anew.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
import torch
from _report import RESULTS, key, machine, options, parser, prepare, run_missing
from scipy.linalg import sqrtm

import wlm
from wlm.core.methods import METHODS
from wlm.core.metrics import METRICS, w1, w2
from wlm.core.populations import Populations
from wlm.core.prediction import predict
from wlm.core.training import train
from wlm.core.transport import interpolate
from wlm.datasets._potentials import JKO_POTENTIALS, slope

Row = dict[str, Any]
Array = np.ndarray

#: The potentials that are hardest when unpaired, after the Stitching paper.
HARD = ("flowers", "zigzag_ridge", "watershed", "ishigami", "friedman", "wavy_plateau")
#: Energies of the table of embryoid bodies; "t,V" is a potential that varies with time.
VARIANTS = ("V", "V+U", "V+W", "W+U", "V+W+U", "t,V")
#: Published W2 at times 1 and 3, by method and energy.
PUBLISHED = {
    "ijkonet": {
        "V": (1.082, 1.147),
        "V+U": (1.065, 1.150),
        "V+W": (2.865, 1.376),
        "W+U": (1.649, 0.868),
        "V+W+U": (3.577, 1.395),
        "t,V": (0.983, 0.849),
    },
    "jkonet_star": {
        "V": (1.145, 2.529),
        "V+U": (1.099, 2.537),
        "V+W": (1.419, 2.510),
        "W+U": (1.887, 1.739),
        "V+W+U": (1.361, 2.557),
        "t,V": (4.414, 2.771),
    },
}
#: One change at a time to the settings of the energies with interaction.
STABILISERS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "no average of the weights": {"ema": 0.0},
    "1 inner step": {"inner_steps": 1},
    "5 inner steps": {"inner_steps": 5},
    "no refinement": {"refine": 0},
    "penalty on W 0.1": {"interaction_penalty": 0.1},
    "penalty on W 1": {"interaction_penalty": 1.0},
    "penalty on W 10": {"interaction_penalty": 10.0},
}


def energy_options(variant: str) -> dict[str, Any]:
    """Options of a variant of the table."""
    return {"energy": "V", "time_varying": True} if variant == "t,V" else {"energy": variant}


def bures(x: Array, y: Array) -> float:
    """Squared Bures distance of the Gaussians with the means and covariances of two clouds."""
    a, b = np.cov(x.T), np.cov(y.T)
    root = sqrtm(a)
    cross = np.real(np.trace(sqrtm(root @ b @ root)))
    return float(np.square(x.mean(0) - y.mean(0)).sum() + np.trace(a) + np.trace(b) - 2 * cross)


def potentials(case: str, method: str, seed: int, extra: dict[str, Any], *, quick: bool) -> list[Row]:
    name, pairing, size = case.split(", ")
    n = 100 if quick else int(size) // 2

    def snapshots(s: int, *, paired: bool) -> tuple[Array, list[Array]]:
        adata = wlm.datasets.potential_flow(name, n, paired=paired, rng=s)
        times = np.unique(adata.obs["time"])
        return times, [adata.obsm["X_position"][adata.obs["time"] == t].astype(float) for t in times]

    times, seen = snapshots(seed, paired=pairing == "paired")
    # Two simulations that the fit has not seen: a start for the prediction, and what it is compared with.
    _, starts = snapshots(seed + 10_000, paired=False)
    _, targets = snapshots(seed + 20_000, paired=False)
    begin = time.perf_counter()
    dynamics = train(Populations(times, tuple(seen)), METHODS[method].from_options(extra), seed=seed).dynamics
    seconds = time.perf_counter() - begin
    scores: dict[str, dict[str, list[float]]] = {}
    tau = times[1]
    for k in range(len(times) - 1):
        x, y = starts[k], targets[k + 1]
        variance = np.trace(np.cov(x.T))
        models = {
            method: dynamics.simulate(x, times[k : k + 2], seed=seed)[0][-1].astype(float),
            "copy": x,
            "truth": x - tau * slope(name, x)[1],
        }
        for model, z in models.items():
            values = scores.setdefault(model, {"emd": [], "bures": [], "l2": []})
            values["emd"].append(w1(z, y))
            values["bures"].append(200 * bures(z, y) / variance)
        error = -dynamics.force(y.astype(np.float32), times[k + 1]) - slope(name, y)[1]
        scores[method]["l2"].append(100 * tau**2 * np.square(error).sum(1).mean() / variance)
        scores["copy"]["l2"].append(100 * tau**2 * np.square(slope(name, y)[1]).sum(1).mean() / variance)
    return [
        {"case": case, "model": m, "n": n, "fit_s": seconds, **{k: float(np.mean(v)) for k, v in s.items() if v}}
        for m, s in scores.items()
    ]


def eb(case: str, method: str, seed: int, extra: dict[str, Any], *, quick: bool) -> list[Row]:
    adata = wlm.datasets.embryoid_body()
    x, day = adata.obsm["X_pca"].astype(float), adata.obs["time"].to_numpy(float)
    at = {t: x[day == t][:: 20 if quick else 1] for t in range(5)}
    begin = time.perf_counter()
    populations = Populations(np.array([0.0, 2, 4]), (at[0], at[2], at[4]))
    fit = train(populations, METHODS[method].from_options({**energy_options(case), **extra}), seed=seed)
    seconds = time.perf_counter() - begin
    rows = []
    for t in (1, 3):
        start, end = at[t - 1], at[t + 1]
        free, v = (a[-1] for a in fit.dynamics.simulate(start, [t - 1, t], seed=seed)[:2])
        bridged = predict(fit.dynamics, start, v, t - 1.0, [float(t)], target=end, target_time=t + 1.0, seed=seed)[0][0]
        models = {f"{method}, free step": free, f"{method}, predict": bridged}
        if seed == 0 and case == "V" and method == "ijkonet":
            models |= {"previous": start, "next": end, "ot_midpoint": interpolate(start, end, 0.5, seed=seed)}
            half = np.random.default_rng(seed).permutation(len(at[t]))
            models["floor"] = at[t][half[: len(half) // 2]]
        for model, y in models.items():
            observed = at[t] if model != "floor" else at[t][half[len(half) // 2 :]]
            for n in (300, 1000, None) if seed == 0 else (300, 1000):  # all cells take minutes
                rng = np.random.default_rng(seed)
                a, b = (z[rng.permutation(len(z))[:n]].astype(float) for z in (y, observed))
                row = {"case": case, "model": model, "time": t, "n": n or 0, "w2": w2(a, b)}
                rows.append(row | {"fit_s": seconds, "misfit": float(fit.history.get("misfit", [np.nan])[-1])})
    return rows


def eb100(case: str, method: str, seed: int, extra: dict[str, Any], *, quick: bool) -> list[Row]:
    adata = stand_in() if quick else wlm.datasets.embryoid_body(full=True)
    x, day = adata.obsm["X_pca"].astype(float), adata.obs["time"].to_numpy(float)
    at = {t: x[day == t] for t in range(5)}
    held = int(case[-1])
    keep = [t for t in range(5) if t != held]
    begin = time.perf_counter()
    populations = Populations(np.array(keep, dtype=float), tuple(at[t] for t in keep))
    dynamics = train(populations, METHODS[method].from_options(extra), seed=seed).dynamics
    seconds = time.perf_counter() - begin
    start, end = at[held - 1], at[held + 1]
    free, v = (a[-1] for a in dynamics.simulate(start, [held - 1, held], seed=seed)[:2])
    bridged = predict(dynamics, start, v, held - 1.0, [float(held)], target=end, target_time=held + 1.0, seed=seed)[0][
        0
    ]
    models = {f"{method}, free step": free, f"{method}, predict": bridged, "previous": start, "next": end}
    models["ot_midpoint"] = interpolate(start, end, 0.5, seed=seed)
    rng = np.random.default_rng(seed)
    rows = []
    for model, y in models.items():
        a, b = (z[rng.permutation(len(z))[:1000]].astype(float) for z in (y, at[held]))
        rows.append({"case": case, "model": model, "n": len(b), "mmd": METRICS["mmd"](a, b), "fit_s": seconds})
    return rows


def stand_in() -> Any:
    """Cells of the layout of the full file: 100 dimensions, five times; for --quick."""
    import anndata as ad

    rng = np.random.default_rng(0)
    day = np.repeat(np.arange(5.0), 60)
    x = rng.normal(size=(300, 100)) + 0.5 * day[:, None]
    return ad.AnnData(obs=pd.DataFrame({"time": day}, index=[str(i) for i in range(300)]), obsm={"X_pca": x})


def stabilisers(case: str, method: str, seed: int, extra: dict[str, Any], *, quick: bool) -> list[Row]:
    energy, change = case.split(", ", 1)
    rows = eb(energy, method, seed, {**STABILISERS[change], **extra}, quick=quick)
    return [{**row, "case": case} for row in rows if row["n"] == 1000]


def speed(case: str, method: str, seed: int, extra: dict[str, Any], *, quick: bool) -> list[Row]:
    """Seconds of a training step with as many cells per population, in one process, in turns."""
    n, dim = (64, 2) if quick else (1024, 5)
    rng = np.random.default_rng(seed)
    populations = Populations(np.arange(5.0), tuple(rng.normal(size=(n, dim)) + 0.3 * k for k in range(5)))
    rows = []
    for repeat in range(2 if quick else 3):
        for name in ("wlm", "ijkonet", "jkonet_star"):  # those that train step by step
            seconds: list[float] = []
            steps = 4 if quick else 20
            config = METHODS[name].from_options({"n_steps": steps, "batch_size": n, **extra})
            train(populations, config, seed=seed, on_step=lambda *_, s=seconds: s.append(time.perf_counter()))
            # WLM's horizon is drawn anew each step, so a mean and not a median.
            rows.append(
                {"case": case, "model": name, "n": n, "repeat": repeat, "step_s": float(np.diff(seconds).mean())}
            )
    return rows


EXPERIMENTS = {
    "potentials": (
        potentials,
        [
            *(f"{name}, {p}, 2000" for p in ("unpaired", "paired") for name in JKO_POTENTIALS),
            *(f"{name}, unpaired, 10000" for name in HARD),
        ],
        ("ijkonet", "jkonet_star"),
    ),
    "eb": (eb, list(VARIANTS), ("ijkonet", "jkonet_star")),
    "eb100": (eb100, [f"holdout {t}" for t in (1, 2, 3)], ("ijkonet",)),
    "stabilisers": (stabilisers, [f"{e}, {s}" for e in ("V+W", "V+W+U") for s in STABILISERS], ("ijkonet",)),
    "speed": (speed, ["1024 cells, 5 dimensions"], ("all",)),
}


def run(experiment: str, case: str, method: str, seed: int, extra: dict[str, Any], quick: bool) -> list[Row]:  # noqa: FBT001
    begin = time.perf_counter()
    rows = EXPERIMENTS[experiment][0](case, method, seed, extra, quick=quick)
    common = {"experiment": experiment, "seed": seed, "seconds": time.perf_counter() - begin, "machine": machine()}
    return [{**common, **row} for row in rows]


def tables(rows: list[Row]) -> None:
    """Print a table for each experiment: means over times or snapshots, then over seeds with their spread."""
    frame = pd.DataFrame(rows)
    for experiment, part in frame.groupby("experiment", sort=False):
        part = part.dropna(axis=1, how="all")
        print(f"\n{experiment}")
        if experiment == "eb":
            part = part.assign(n=part["n"].astype(int).replace(0, np.iinfo(int).max))
            mean = part.pivot_table(index=["case", "model"], columns=["n", "time"], values="w2", sort=True)
            mean.columns = [f"t{t}, {'all' if n > 10**9 else n}" for n, t in mean.columns]
            for t in (1, 3):
                chosen = part[(part["n"] == 1000) & (part["time"] == t)].groupby(["case", "model"])["w2"]
                mean[f"sd t{t}, 1000"], mean["seeds"] = chosen.std(), chosen.size()
            for k, t in enumerate((1, 3)):
                mean[f"published t{t}"] = [
                    PUBLISHED.get(model.split(",")[0], {}).get(case, (np.nan, np.nan))[k] for case, model in mean.index
                ]
            mean["fit, s"] = part.groupby(["case", "model"])["fit_s"].mean()
            print(mean.to_string(float_format=lambda x: f"{x:.3f}", na_rep="-"))
            continue
        if experiment == "speed":
            best = part.groupby("model", sort=False)["step_s"].median()
            print((1000 * best).rename("ms per step").to_frame().assign(ratio=best["wlm"] / best).round(2).to_string())
            continue
        values = [c for c in ("emd", "l2", "bures", "w2", "mmd", "misfit", "fit_s") if c in part]
        keys = ["case", "time", "model"] if experiment == "stabilisers" else ["case", "model"]
        groups = part.groupby(keys, sort=False)
        out = groups[values].mean()
        main = values[0]
        spread = groups[main].std()
        if experiment == "potentials":
            floor = out["emd"].xs("truth", level="model")
            out["emd / floor"] = out["emd"] / floor.reindex(out.index.get_level_values("case")).to_numpy()
        print(
            out.assign(**{f"sd {main}": spread, "seeds": groups.size()}).to_string(
                float_format="{:.4f}".format, na_rep="-"
            )
        )


def main() -> None:
    p = parser(__doc__, seeds=5)
    p.add_argument("experiment", choices=[*EXPERIMENTS, "all"])
    p.add_argument("--fresh", action="store_true", help="do not use runs that are there already")
    p.add_argument("--case", action="append", help="only this case; repeatable")
    p.add_argument("--method", action="append", help="only this method; repeatable")
    arguments = p.parse_args()
    prepare()
    extra = options(arguments.option)
    if arguments.quick:
        extra, arguments.seeds = {"n_steps": 5, "width": 16, **extra}, 1
    path = RESULTS / ("jko-quick.json" if arguments.quick else "jko.json")
    names = list(EXPERIMENTS) if arguments.experiment == "all" else [arguments.experiment]
    jobs = [
        (e, case, method, seed, extra, arguments.quick)
        for e in names
        for seed in range(1 if e == "speed" else arguments.seeds)
        for case in (EXPERIMENTS[e][1][:3] if arguments.quick else EXPERIMENTS[e][1])
        for method in EXPERIMENTS[e][2]
        if (not arguments.case or case in arguments.case) and (not arguments.method or method in arguments.method)
    ]
    # The timing of steps wants the machine for itself.
    done: dict[str, Any] = {}
    for part, n_jobs in ((False, arguments.jobs), (True, 1)):
        chosen = [job for job in jobs if (job[0] == "speed") == part]
        if chosen:
            done |= run_missing(path, chosen, run, n_jobs, fresh=arguments.fresh or arguments.quick)
    tables([row for job in jobs for row in done[key(job)]])
    print(f"\noptions: {extra or 'defaults'}; wrote {path}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
