"""Drivers of a fate: how many of the first genes are true ones, and how many discoveries are false.

Two simulations in which the genes are known. The bifurcation of wlm.datasets: true are the genes of the branches, 60 of
150. Regulators: ten genes follow the branch at once, forty are switched on by them and lag behind, forty follow the
day, forty nothing; true are the ten, or with their targets the fifty of the programme. Fates are those that cells have
in the simulation. Rankings: tl.drivers by effect, by gradient (which uses the fates of the last day alone, and the fit)
and by velocity; naive ones by the difference between the last and the first day, and between the fates on the last day.

False discoveries at q = 0.1 in data sets whose truth is permuted: fates between the cells of one day, so that nothing
is true; or a random half of the genes, each between the cells of one day, so that no more than the other half is, with
components and a fit of their own (method flow, straight). With the test of permuted fates alone beside.
"""

from __future__ import annotations

import time
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from _report import RESULTS, key, machine, options, parser, prepare, run_missing
from scipy.stats import false_discovery_control

import wlm

#: Genes of the second simulation by role, and step of its paths in days.
ROLES = {"regulator": 10, "target": 40, "day": 40, "constant": 40}
DT = 0.05


def regulators(n_cells: int, seed: int, n_days: int = 5) -> ad.AnnData:
    """Cells that choose between two branches, each with regulators that are early and targets that are late."""
    rng = np.random.default_rng(seed)
    role = np.repeat(list(ROLES), list(ROLES.values()))
    side = np.arange(len(role)) % 2  # the branch whose genes they are
    level = rng.lognormal(1.2, 0.5, len(role))
    onset, sign = rng.uniform(0, n_days - 1, len(role)), rng.choice([-1, 1], len(role))
    counts, obs = [], []
    for day in range(n_days):
        branch = rng.normal(0, 0.15, n_cells)
        active, late = _switch(branch), np.zeros((n_cells, 2))
        for step in range(round((n_days - 1) / DT) + 1):
            t = step * DT
            if step == round(day / DT):
                rate = np.full((n_cells, len(role)), 0.5)
                rate[:, role == "regulator"] = active[:, side[role == "regulator"]]
                rate[:, role == "target"] = late[:, side[role == "target"]]
                rate[:, role == "day"] = 1 / (1 + np.exp(-3 * sign * (t - onset)))[role == "day"]
                depth = np.exp(rng.normal(0, 0.2, (n_cells, 1)))
                counts.append(rng.poisson(2 * depth * level * (0.15 + rate)).astype(np.float32))
            drift = 1.8 * (np.tanh(2 * (t - 0.7)) * branch - branch**3)
            branch = branch + drift * DT + 0.12 * np.sqrt(DT) * rng.normal(size=n_cells)
            active = active + 6 * DT * (_switch(branch) - active)
            late = late + 0.7 * DT * (active**2 / (active**2 + 0.25) - late)
        obs.append(pd.DataFrame({"day": float(day), "fate": np.where(branch > 0, "A", "B")}))
    table = pd.concat(obs, ignore_index=True)
    table.index = [f"c{i}" for i in range(len(table))]
    return ad.AnnData(
        np.concatenate(counts), obs=table, var=pd.DataFrame({"role": role}, index=[f"g{i}" for i in range(len(role))])
    )


def _switch(branch: np.ndarray) -> np.ndarray:
    """Activity (n, 2) of the regulators of either side."""
    return 1 / (1 + np.exp(0.3 - 6 * np.stack([branch, -branch], axis=1)))


def cells(data: str, n_cells: int, seed: int) -> tuple[ad.AnnData, dict[str, np.ndarray]]:
    """Counts, and which genes are true."""
    if data == "bifurcation":
        adata = wlm.datasets.bifurcation(n_cells, rng=seed)
        return adata, {"branch": (adata.var["program"] == "branch").to_numpy()}
    adata = regulators(n_cells, seed)
    first = (adata.var["role"] == "regulator").to_numpy()
    return adata, {"regulators": first, "programme": first | (adata.var["role"] == "target").to_numpy()}


def components(adata: ad.AnnData) -> ad.AnnData:
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=10)
    return adata


def rank(data: str, seed: int, n_cells: int, extra: dict[str, Any]) -> dict[str, Any]:
    """Precision at the number of true genes by each ranking, and what was called."""
    adata, truth = cells(data, n_cells, seed)
    components(adata)
    wlm.tl.fit(adata, "day", rng=seed, device="cpu", show_progress=False, **extra)
    begin = time.perf_counter()
    table = wlm.tl.drivers(adata, ("fate", "A"), rng=seed).loc[adata.var_names]
    seconds = time.perf_counter() - begin
    x = pd.DataFrame(np.asarray(adata.to_df()), columns=adata.var_names)
    day, a = adata.obs["day"].to_numpy(), (adata.obs["fate"] == "A").to_numpy()
    last = day == day.max()
    scores = {f"wlm.tl.drivers, {name}": table[name].to_numpy() for name in ("effect", "gradient", "velocity")}
    scores["last day - first day"] = ((x[last].mean() - x[day == 0].mean()) / x.std()).to_numpy()
    scores["fates on the last day"] = ((x[last & a].mean() - x[last & ~a].mean()) / x.std()).to_numpy()
    called, out = (table["role"] == "driver").to_numpy(), {"seconds": seconds}
    for what, true in truth.items():
        k = int(true.sum())
        out[what] = {name: float(true[np.argsort(-np.abs(s))[:k]].mean()) for name, s in scores.items()}
        out[what] |= {"called": int(called.sum()), "of them true": int((called & true).sum()), "true": k}
    return out


def permuted(data: str, kind: str, seed: int, n_cells: int) -> dict[str, float]:
    """Share of false ones among the discoveries at q = 0.1 in one permuted data set, and of true ones found."""
    adata, truth = cells(data, n_cells, seed)
    true, rng = truth.get("programme", truth.get("branch")), np.random.default_rng(seed)
    days = [np.flatnonzero(adata.obs["day"] == t) for t in adata.obs["day"].unique()]
    if kind == "fates":
        fate = adata.obs["fate"].astype(str).to_numpy().copy()
        for i in days:
            fate[i] = rng.permutation(fate[i])
        adata.obs["fate"], true = fate, np.zeros_like(true)
    else:
        counts, half = adata.to_df().to_numpy(), rng.permutation(adata.n_vars)[: adata.n_vars // 2]
        for i in days:
            counts[np.ix_(i, half)] = rng.permuted(counts[np.ix_(i, half)], axis=0)
        adata.X, true = counts, true & ~np.isin(np.arange(adata.n_vars), half)
    components(adata)
    wlm.tl.fit(adata, "day", method="flow", path="straight", device="cpu", show_progress=False)
    table = wlm.tl.drivers(adata, ("fate", "A"), n_boot=0, rng=seed).loc[adata.var_names]
    one = false_discovery_control(table["p_fate"]) <= 0.1
    out = {}
    for name, found in (("both tests", (table["q"] <= 0.1).to_numpy()), ("permuted fates alone", one)):
        out[name] = float((found & ~true).sum() / max(1, found.sum()))
        out[f"found, {name}"] = float((found & true).sum() / max(1, true.sum()))
    return out


def main() -> None:
    p = parser(__doc__, seeds=5)
    p.add_argument("--cells", type=int, default=200, help="cells per day")
    p.add_argument("--permuted", type=int, default=50, help="permuted data sets of each kind")
    arguments = p.parse_args()
    prepare()
    extra = options(arguments.option)
    if arguments.quick:
        extra = {"n_steps": 5, "width": 16, "hidden": 16, **extra}
        arguments.seeds, arguments.cells, arguments.permuted = 1, 60, 1
    kinds = [(d, k) for d in ("bifurcation", "regulators") for k in ("fates", "half of the genes")]
    ranks = [
        ("rank", d, s, arguments.cells, extra) for d in ("bifurcation", "regulators") for s in range(arguments.seeds)
    ]
    nulls = [("permuted", d, k, s, arguments.cells) for d, k in kinds for s in range(arguments.permuted)]
    path = RESULTS / ("drivers-quick.json" if arguments.quick else "drivers.json")
    done = run_missing(path, [*ranks, *nulls], run, arguments.jobs, fresh=arguments.quick)
    rows = [
        {"data": job[1], "true genes": what, "ranking": name, "precision": value}
        for job in ranks
        for what, found in done[key(job)].items()
        if isinstance(found, dict)
        for name, value in found.items()
        if name not in ("called", "of them true", "true")
    ]
    table = pd.DataFrame(rows).groupby(["data", "true genes", "ranking"], sort=False)["precision"]
    print(f"\nprecision at the number of true genes; {arguments.seeds} seed(s), {arguments.cells} cells a day")
    print(table.agg(["mean", "min"]).to_string(float_format="{:.3f}".format))
    called = [{"data": job[1], **done[key(job)].get("programme", done[key(job)].get("branch"))} for job in ranks]
    print(pd.DataFrame(called).groupby("data")[["called", "of them true", "true"]].mean().to_string())
    print(f"\nfalse discoveries at q = 0.1; {arguments.permuted} permuted data set(s) of each kind")
    null = pd.DataFrame([{"data": job[1], "permuted": job[2], **done[key(job)]} for job in nulls])
    print(null.groupby(["data", "permuted"], sort=False).mean().to_string(float_format="{:.3f}".format))
    seconds = np.mean([done[key(job)]["seconds"] for job in ranks])
    print(f"{seconds:.1f} s for a table on one thread; {machine()}; wrote {path}")


def run(what: str, *job: Any) -> dict[str, Any]:
    return rank(*job) if what == "rank" else permuted(*job)


if __name__ == "__main__":
    main()
