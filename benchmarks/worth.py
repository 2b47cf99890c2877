"""Is the model worth more than what nobody trains? R on data sets of all kinds, with every naive answer beside it.

R is the mean W1 over held-out times, over that of the best naive answer of the same data set and seed: a copy of the
time before or after, the mixture of both (pooled), the optimal-transport midpoint, and the natural cubic spline through
optimal couplings of all other times. Below 1 the model is worth something. The geometric mean of R over the data sets
is the number by which defaults are to be chosen; a single data set says little, and so does a single seed.

eb: embryoid bodies, each inner time held out. emt, bifurcation, reprogramming: the same (of reprogramming, two times
are left). vortex (without velocities), lotka_volterra, repressilator: the odd times held out together. A seed redraws
the training, of simulated data also the cells.

forecast: the last time from all others; R is then over the copy of the time before. Two rows show what more width
would be worth: the forecast with Gaussian noise of what predictions lacked at training times, and of what it lacks in
truth (its positive part).

The run resumes: results are kept in benchmarks/results by the code that made them.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from _report import RESULTS, options, parser, prepare, run_missing
from _report import key as named

import wlm
from wlm.core.chains import spline_interpolation
from wlm.core.metrics import w1
from wlm.core.populations import Populations
from wlm.core.transport import interpolate

NAIVE = ("previous", "next", "pooled", "ot_midpoint", "spline")
#: Most cells a side in a score.
MOST = 2500


def data(name: str, seed: int, most: int | None = None) -> tuple[dict[float, np.ndarray], list[list[float]]]:
    """Cells (n, d) by time, at most so many of each, and the times to hold out together, fold by fold."""
    folder = Path(os.environ["WLM_DATA_DIR"])
    together = False
    if name == "lotka_volterra":
        file = np.load(folder / "lotka_volterra.npz")
        cells, together = dict(zip(file["times"].tolist(), file["positions"], strict=True)), True
    else:
        adata, time_key, use_rep, together = _object(name, seed, folder)
        at = adata.obs[time_key].astype(float).to_numpy()
        cells = {t: np.asarray(adata.obsm[use_rep][at == t], dtype=np.float32) for t in np.unique(at).tolist()}
    if most is not None:
        rng = np.random.default_rng(seed)
        cells = {t: x[rng.permutation(len(x))[:most]] for t, x in cells.items()}
    inner = sorted(cells)[1:-1]
    return cells, [inner[::2]] if together else [[t] for t in inner]


def _object(name: str, seed: int, folder: Path) -> tuple[ad.AnnData, str, str, bool]:
    if name == "eb":
        return wlm.datasets.embryoid_body(), "time", "X_pca", False
    if name == "emt":
        return wlm.datasets.emt(), "time", "X_latent", False
    if name == "vortex":
        return wlm.datasets.vortex(), "time", "X_position", True
    if name == "repressilator":
        return wlm.datasets.repressilator(rng=seed), "time", "X_genes", True
    if name == "reprogramming":
        adata = ad.read_h5ad(folder / "reprogramming_250.h5ad")
        sc.pp.pca(adata, n_comps=10)
        return adata, "day", "X_pca", False
    adata = wlm.datasets.bifurcation(400, rng=seed)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=10)
    return adata, "day", "X_pca", False


DATA = ("eb", "emt", "bifurcation", "reprogramming", "vortex", "lotka_volterra", "repressilator")


def scored(
    name: str, held: list[float], method: str, seed: int, extra: dict[str, Any], most: int | None
) -> dict[str, Any]:
    """Mean W1 of each answer over the held-out times; of a method also the seconds it took, and what it chose."""
    cells, _ = data(name, seed, most)
    observed = {t: _some(cells[t]) for t in held}
    seen = np.array([t for t in sorted(cells) if t not in held])
    if method == "naive":
        rows = [_naive(cells, seen, t, seed) for t in held]
        scores = [
            {k: w1(_some(x), observed[t], a) for k, (x, a) in row.items()} for t, row in zip(held, rows, strict=True)
        ]
        return {k: float(np.mean([s[k] for s in scores])) for k in scores[0] if all(k in s for s in scores)}
    times = np.repeat(sorted(cells), [len(cells[t]) for t in sorted(cells)])
    adata = ad.AnnData(obs=pd.DataFrame({"time": times}, index=[str(i) for i in range(len(times))]))
    adata.obsm["X"] = np.concatenate([cells[t] for t in sorted(cells)])
    begin = time.perf_counter()
    wlm.tl.fit(
        adata, "time", method=method, use_rep="X", holdout=held, rng=seed, device="cpu", show_progress=False, **extra
    )
    predicted = wlm.tl.predict(adata, held, rng=seed)
    seconds = time.perf_counter() - begin
    x, at = predicted.obsm["X"], predicted.obs["time"].to_numpy()
    score = float(np.mean([w1(_some(x[at == t]), observed[t]) for t in held]))
    out = {method: score, "seconds": seconds, "choice": adata.uns["wlm"].get("choice", {}).get("path", "")}
    if held == [max(cells)]:
        ends = {t: adata.obsm["wlm_next"][times == t] for t in seen[:-1]}
        for width, covariance in _widths(cells, ends, x, held[0]).items():
            wider = x + np.random.default_rng(seed).normal(size=x.shape) @ _root(covariance)
            out[f"{method}, {width}"] = w1(_some(wider.astype(np.float32)), observed[held[0]])
    return out


def _widths(
    cells: dict[float, np.ndarray], ends: dict[float, np.ndarray], x: np.ndarray, t: float
) -> dict[str, np.ndarray]:
    """Covariances of noise that would give the forecast ``x`` (n, d) of time ``t`` the width of the cells.

    That which predictions of the next time lacked at training times, in proportion to time; and what it lacks in truth.
    """
    seen = sorted(ends)
    following = [min(s for s in cells if s > k) for k in seen]
    lacked = [
        (np.cov(cells[b].T) - np.cov(ends[a].T)) * (t - max(following)) / (b - a)
        for a, b in zip(seen, following, strict=True)
    ]
    return {"noise of training": np.mean(lacked, axis=0), "true covariance": np.cov(cells[t].T) - np.cov(x.T)}


def _root(covariance: np.ndarray) -> np.ndarray:
    """Square root (d, d) of the positive part."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def _naive(cells: dict[float, np.ndarray], seen: np.ndarray, t: float, seed: int) -> dict[str, tuple[np.ndarray, Any]]:
    """Positions and weights of the answers that need no training."""
    before, after = seen[seen < t][-1], seen[seen > t][:1]
    x = _some(cells[before])
    out: dict[str, tuple[np.ndarray, Any]] = {"previous": (x, None)}
    if len(after):
        y, share = _some(cells[after[0]]), (t - before) / (after[0] - before)
        weights = np.repeat([(1 - share) / len(x), share / len(y)], [len(x), len(y)])
        some = np.random.default_rng(0).permutation(len(weights))[:MOST]
        out["next"] = y, None
        out["pooled"] = np.concatenate([x, y])[some], weights[some]
        out["ot_midpoint"] = interpolate(x, y, share, seed=seed), None
        populations = Populations(seen, tuple(cells[s] for s in seen))
        out["spline"] = spline_interpolation(populations, t).astype(np.float32), None
    return out


def _some(x: np.ndarray) -> np.ndarray:
    return x[np.sort(np.random.default_rng(0).permutation(len(x))[:MOST])]


if __name__ == "__main__":
    p = parser(__doc__)
    p.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    p.add_argument("--methods", nargs="+", default=["wlm", "flow"])
    p.add_argument("--forecast", action="store_true", help="the last time, instead of inner ones")
    p.add_argument("--cells", type=int, help="at most so many cells of each time, others for each seed")
    p.add_argument("--fresh", action="store_true", help="run again what was run before")
    arguments = p.parse_args()
    prepare()
    extra, names, seeds, methods = options(arguments.option), arguments.data, range(arguments.seeds), arguments.methods
    most = 60 if arguments.quick else arguments.cells
    if arguments.quick:
        names, seeds, methods = ["vortex", "reprogramming"], range(1), ["flow", "wlm"]
        extra = {"n_steps": 5, **extra}
    jobs = []
    for name in names:
        for seed in seeds:
            cells, folds = data(name, seed)
            for held in [[max(cells)]] if arguments.forecast else folds:
                own = [(method, extra) for method in methods]
                jobs += [(name, held, method, seed, e, most) for method, e in [("naive", {}), *own]]
    file = RESULTS / f"worth{'-quick' if arguments.quick else ''}.json"
    done = run_missing(file, jobs, scored, arguments.jobs, fresh=arguments.fresh)
    rows = [
        {"data": job[0], "seed": job[3], "model": model, "w1": score}
        for job in jobs
        for model, score in done[named(job)].items()
        if model not in ("seconds", "choice")
    ]
    seconds = pd.DataFrame(
        [{"data": j[0], "model": j[2], "seconds": done[named(j)]["seconds"]} for j in jobs if j[2] != "naive"]
    )
    table = pd.DataFrame(rows).pivot_table(index=["data", "seed"], columns="model", values="w1", aggfunc="mean")
    best = table[[n for n in NAIVE if n in table]].min(axis=1)
    by_seed = table.div(best, axis=0)
    ratio = by_seed.groupby("data").agg(["mean", "std"])
    order = [name for name in names if name in ratio.index]
    print("\nW1, mean over held-out times and seeds")
    print(table.groupby("data").mean().loc[order].to_string(float_format=lambda x: f"{x:.4f}", na_rep="-"))
    print("\nR: over the best naive answer of the same data and seed")
    print(by_seed.loc[order].to_string(float_format=lambda x: f"{x:.3f}", na_rep="-"))
    print("\nR, mean and spread over seeds")
    print(ratio.loc[order].to_string(float_format=lambda x: f"{x:.3f}", na_rep="-"))
    print("\ngeometric mean of R over the data sets")
    for model in methods:
        each = ratio[model]["mean"].loc[order]
        print(f"  {model}: {np.exp(np.log(each).mean()):.3f}, at most {each.max():.3f} ({each.idxmax()})")
    print("\nseconds of a fit and its prediction, on one thread")
    print(
        seconds.groupby(["data", "model"])["seconds"]
        .mean()
        .unstack()
        .loc[order]
        .to_string(float_format="{:.1f}".format)
    )
    chosen = {(j[0], done[named(j)]["choice"]) for j in jobs if j[2] in ("flow", "wlm")}
    print("\nthe paths chosen:", "; ".join(f"{name}: {path}" for name, path in sorted(chosen)))
