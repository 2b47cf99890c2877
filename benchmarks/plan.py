"""Which day to sample next: days chosen by wlm.tl.plan against evenly spaced and random ones, on hidden measured days.

Each data set starts with its first, its middle and its last day; the others are hidden. Days are then added, one at a
time: that of the plan (drawn up anew after each, of the days that are still hidden), the one in the middle of the
longest gap (the mean over equally long ones), or a random one (the mean over three orders). "either" follows the
verdict: the day of the plan where it is better than evenly spaced beyond its interval, else the evenly spaced one (of
equally long gaps the first).

Error: a fit to the days there are predicts the hidden ones; W1, mean over all days that were hidden at the start, of
which those sampled since then count with their floor, W1 between two halves of the cells. "elsewhere": the same over
days that neither plan nor even spacing has sampled. R is the ratio to even spacing, a geometric mean over seeds with
its 95 % interval (Student's t of the logarithms). A seed redraws the cells (of real data a sample without
replacement), the fits and the courses.

burst is drawn up to have its event in a fifth of its days; it is what planning is for, and the others are not.

The run resumes: results are kept in benchmarks/results by the code that made them. Settings were compared on simulated
data of other seeds (--first-seed 100), with couplings in place of fits: --pace 0.25, 0.5 and 1, each with straight and
smooth courses by turns, by their errors at days left out, and straight ones alone; and two more kinds of curves.
"""

from __future__ import annotations

import json
import logging
from itertools import islice
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from _report import RESULTS, options, parser, prepare, run_missing
from _report import key as named
from worth import data

import wlm
from wlm._logging import logger
from wlm.core.design import even_orders
from wlm.core.metrics import w1

DATA = ("eb", "vortex", "lotka_volterra", "repressilator", "bifurcation", "branching_growth", "sde", "burst")
#: Orders of random days; sets of evenly spaced ones, where gaps are equally long.
N_RANDOM, N_EVEN = 3, 3


def clouds(name: str, seed: int, most: int) -> dict[float, np.ndarray]:
    """Cells (n, d) by time, at most so many of each, others by each seed."""
    if name in ("eb", "vortex", "lotka_volterra", "repressilator"):
        cells, _ = data(name, seed)
    elif name in ("bifurcation", "branching_growth"):
        days = np.arange(9) / 2
        adata = getattr(wlm.datasets, name)(most, days=tuple(days), rng=seed)
        use_rep = "X_position"
        if name == "bifurcation":
            sc.pp.normalize_total(adata)
            sc.pp.log1p(adata)
            sc.pp.pca(adata, n_comps=10)
            use_rep = "X_pca"
        at = adata.obs["day"].astype(float).to_numpy()
        cells = {float(t): np.asarray(adata.obsm[use_rep][at == t], dtype=np.float32) for t in days}
    elif name == "sde":
        adata = wlm.datasets.gradient_flow_sde("styblinski_tang", most, n_times=11, rng=seed)
        at = adata.obs["time"].to_numpy()
        cells = {float(t): adata.obsm["X_position"][at == t] for t in np.unique(at)}
    else:
        cells = burst(most, seed)
    rng = np.random.default_rng(seed)
    some = {t: x[rng.permutation(len(x))[: max(2, min(most, int(0.9 * len(x))))]] for t, x in cells.items()}
    return some if name in ("eb", "vortex", "lotka_volterra") else {t: x[:most] for t, x in cells.items()}


def burst(n: int, seed: int) -> dict[float, np.ndarray]:
    """A population at rest that crosses over in one of eleven days' fifth part, turning by the way, and rests again."""
    rng = np.random.default_rng(seed)
    out = {}
    for t in range(11):
        s = 1 / (1 + np.exp(-(t - 6.5) / 0.4))
        centre = np.array([4 * s, 3 * np.sin(np.pi * s)])
        out[float(t)] = (centre + 0.4 * rng.normal(size=(n, 2))).astype(np.float32)
    return out


class _Experiment:
    """The days of a data set of which some are sampled; what is asked twice is computed once."""

    def __init__(self, name: str, seed: int, method: str, extra: dict[str, Any], most: int, plan: dict[str, Any]):
        self.cells, self.seed, self.method, self.extra, self.plan_options = (
            clouds(name, seed, most),
            seed,
            method,
            extra,
            plan,
        )
        self.days = sorted(self.cells)
        middle = (self.days[0] + self.days[-1]) / 2
        self.start = (self.days[0], min(self.days[1:-1], key=lambda t: abs(t - middle)), self.days[-1])
        self.hidden = [t for t in self.days if t not in self.start]
        self.fits: dict[tuple[float, ...], ad.AnnData] = {}
        self.known: dict[tuple[float, ...], dict[float, float]] = {}
        rng = np.random.default_rng(seed)
        self.floors = {}
        for t, x in self.cells.items():
            order = rng.permutation(len(x))
            self.floors[t] = w1(x[order[: len(x) // 2]], x[order[len(x) // 2 :]])

    def fit(self, seen: tuple[float, ...]) -> ad.AnnData:
        if seen not in self.fits:
            times = np.repeat(self.days, [len(self.cells[t]) for t in self.days])
            adata = ad.AnnData(obs=pd.DataFrame({"time": times}, index=[str(i) for i in range(len(times))]))
            adata.obsm["X"] = np.concatenate([self.cells[t] for t in self.days])
            held = [t for t in self.days if t not in seen]
            wlm.tl.fit(
                adata,
                "time",
                method=self.method,
                use_rep="X",
                holdout=held,
                backtest=False,
                rng=self.seed,
                device="cpu",
                show_progress=False,
                **self.extra,
            )
            self.fits[seen] = adata
        return self.fits[seen]

    def errors(self, seen: tuple[float, ...]) -> dict[float, float]:
        """W1 at the days that are hidden."""
        if seen not in self.known:
            left = [t for t in self.hidden if t not in seen]
            found = wlm.tl.predict(self.fit(seen), left, rng=self.seed) if left else None
            at = None if found is None else found.obs["time"].to_numpy()
            self.known[seen] = {t: w1(found.obsm["X"][at == t], self.cells[t]) for t in left}
        return self.known[seen]

    def error(self, seen: tuple[float, ...]) -> float:
        """Mean over the days that were hidden at the start; sampled ones count with their floor."""
        found = self.errors(seen)
        return float(np.mean([found.get(t, self.floors[t]) for t in self.hidden]))

    def next(self, seen: tuple[float, ...]) -> tuple[float, float | None]:
        """The day of the plan, and it or the evenly spaced one by the verdict (None: even)."""
        left = [t for t in self.hidden if t not in seen]
        table = wlm.tl.plan(self.fit(seen), candidates=left, rng=self.seed, **self.plan_options)
        best = float(table["time"].iloc[0])
        return best, best if table.attrs["advantage"]["low"] > 0 else None

    def even(self, n: int) -> list[tuple[float, ...]]:
        """Evenly spaced days, some of the orders."""
        times = np.array(self.days)
        places = [self.days.index(t) for t in self.hidden]
        orders = even_orders(np.array(self.start), times, places, n)
        return [tuple(float(times[k]) for k in order) for order in orders]


def backtest(
    name: str, seed: int, method: str, extra: dict[str, Any], most: int, plan: dict[str, Any], n_picks: int
) -> dict[str, Any]:
    """Errors of each way to choose days, after each pick."""
    logger.setLevel(logging.ERROR)  # fits to three days are often far from them in a free rollout, and say so
    known = _Experiment(name, seed, method, extra, most, plan)
    n_picks = min(n_picks, len(known.hidden) - 1)

    def after(picks: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sorted((*known.start, *picks)))

    planned: tuple[float, ...] = ()
    either: tuple[float, ...] = ()
    sure = []
    for _ in range(n_picks):
        day, _ = known.next(after(planned))
        planned = (*planned, day)
        _, certain = known.next(after(either))
        sure.append(certain is not None)
        if certain is None:
            places = [known.days.index(t) for t in known.hidden if t not in either]
            order = even_orders(np.array(after(either)), np.array(known.days), places, 1)[0]
            certain = known.days[order[0]]
        either = (*either, certain)
    orders = known.even(n_picks)
    random = np.random.default_rng(seed)
    drawn = [tuple(random.permutation(known.hidden)[:n_picks].tolist()) for _ in range(N_RANDOM)]
    ways = {"plan": [planned], "either": [either], "even": orders, "random": drawn}
    steps = []
    for k in range(1, n_picks + 1):
        row: dict[str, Any] = {"start": known.error(known.start)}
        sets = {way: list(dict.fromkeys(after(picks[:k]) for picks in some)) for way, some in ways.items()}
        sets["even"] = list(islice(sets["even"], N_EVEN))
        row |= {way: float(np.mean([known.error(seen) for seen in some])) for way, some in sets.items()}
        apart = []
        for seen in sets["even"]:
            both = [t for t in known.hidden if t not in seen and t not in sets["plan"][0]]
            if both:
                apart.append([np.mean([known.errors(s)[t] for t in both]) for s in (sets["plan"][0], seen)])
        row["elsewhere"] = np.mean(apart, axis=0).tolist() if apart else None
        steps.append(row)
    return {"steps": steps, "planned": planned, "sure": sure, "even": [list(order) for order in orders]}


def interval(ratios: np.ndarray) -> tuple[float, float, float]:
    """Geometric mean of ratios over seeds, and its 95 % interval."""
    from scipy.stats import t

    logs = np.log(ratios)
    half = t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs)) if len(logs) > 1 else np.nan
    return float(np.exp(logs.mean())), float(np.exp(logs.mean() - half)), float(np.exp(logs.mean() + half))


if __name__ == "__main__":
    p = parser(__doc__, seeds=3)
    p.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    p.add_argument("--method", default="flow", help="method of the fits that predict, and of the plan")
    p.add_argument("--picks", type=int, default=2)
    p.add_argument("--cells", type=int, default=150, help="at most so many cells of each day")
    p.add_argument("--first-seed", type=int, default=0)
    p.add_argument("--pace", type=float, default=None, help="another setting of the plan")
    p.add_argument("--fresh", action="store_true", help="run again what was run before")
    arguments = p.parse_args()
    prepare()
    extra, names, most, picks = options(arguments.option), arguments.data, arguments.cells, arguments.picks
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    plan: dict[str, Any] = {} if arguments.pace is None else {"pace": arguments.pace}
    if arguments.quick:
        names, seeds, most, picks, plan = ["burst", "sde"], range(2), 40, 1, {"n_courses": 12}
    jobs = [(name, seed, arguments.method, extra, most, plan, picks) for name in names for seed in seeds]
    file = RESULTS / f"plan{'-quick' if arguments.quick else ''}.json"
    done = run_missing(file, jobs, backtest, arguments.jobs, fresh=arguments.fresh)
    for k in range(picks):
        rows, lost, won = [], [], []
        for name in names:
            found = [done[named(job)] for job in jobs if job[0] == name]
            if len(found[0]["steps"]) <= k:
                continue
            steps = pd.DataFrame([each["steps"][k] for each in found])
            row: dict[str, Any] = {"data": name, **steps[["start", "random", "even", "plan", "either"]].mean()}
            for way in ("plan", "either", "random"):
                ratio, low, high = interval((steps[way] / steps["even"]).to_numpy())
                row[f"R {way}"] = f"{ratio:.3f} ({low:.3f} to {high:.3f})"
                if way == "plan":
                    row["ratio"] = ratio
                    lost += [name] if low > 1 else []
                    won += [name] if high < 1 else []
            apart = [pair for pair in steps["elsewhere"] if pair is not None]
            row["R elsewhere"] = interval(np.array([a / b for a, b in apart]))[0] if apart else np.nan
            row["verdict"] = f"{sum(each['sure'][k] for each in found)} of {len(found)}"
            rows.append(row)
        table = pd.DataFrame(rows).set_index("data")
        print(f"\nafter {k + 1} pick(s), {len(seeds)} seeds: W1, and R (over even spacing) with 95 % interval")
        print(table.drop(columns="ratio").to_string(float_format=lambda x: f"{x:.3f}"))
        print(f"geometric mean of R over the data sets: {np.exp(np.log(table['ratio']).mean()):.3f}")
        print(f"better than even spacing beyond the interval: {', '.join(won) or 'none'}")
        print(f"worse than even spacing beyond the interval: {', '.join(lost) or 'none'}")
        print(f"worse in the mean: {', '.join(table.index[table['ratio'] > 1]) or 'none'}")
    print("\ndays of the plan, by seed")
    for name in names:
        print(f"  {name}: {json.dumps([done[named(job)]['planned'] for job in jobs if job[0] == name])}")
