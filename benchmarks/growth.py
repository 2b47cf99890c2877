"""Growth where it is known: a bifurcation whose branch A divides three times faster, and its control.

400 cells a day of ``wlm.datasets.branching_growth``, trained on days 0, 1, 3 and 4. Day 2 (inner) and day 5 (forecast)
are reached by a free rollout from the cells of day 0. A seed redraws the population, the sample and the training.

share: of A at the forecast, less that of the whole population; fate: of the cells of day 0 that end in A, each counted
once, less that of founders which neither divide nor die; difference: mean rate of the cells of days 3 and 4 in A less
that in B (truth 0.6 a day, in the control 0), r: correlation of the rate with the true one over all observed cells.
The floor is the W1 between two samples of day 5. W1 shares, centres and widths: of the forecast with the shares of the
branches of day 5, then also with their means, then also with their standard deviations.

Two estimates need no network: "slope", that of the log-odds of A against B over days 1, 3 and 4, which has to be given
the branches; and "row sums", of a semi-relaxed coupling of each training day with the next, whose first marginal is
free at a price: log of the row sum over the time between.

``--verdict``: is growth SUPPORTED by ``tl.evaluate`` where it is there, and only there? Simulations of both kinds.
``--toggle``: the rate of ``wlm.datasets.gene_toggle``, beside a static coupling. ``--clones``: rates of blood cells
(larry_clones.h5ad of CoSpar's tests, in the folder WLM_DATA_DIR or ../shared/data) against the later sizes of clones.
``--coverage``: do intervals over the models of an ensemble hold the true rates?

The run resumes: results are kept in benchmarks/results by the code that made them.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import _growth_clones
import _growth_coverage
import _growth_toggle
import _growth_verdict
import anndata as ad
import numpy as np
import pandas as pd
from _report import RESULTS, options, parser, prepare, run_missing
from _report import key as named

import wlm
from wlm.core.metrics import w1
from wlm.core.transport import semi_relaxed

TRAIN, INNER, FORECAST = (0.0, 1.0, 3.0, 4.0), 2.0, 5.0
#: Settings by name. "balanced" starts as the fit with growth does; "paths" has the velocities of balanced couplings.
SETTINGS: dict[str, dict[str, Any]] = {
    "growth": {"growth": True},
    "balanced": {"initial_velocity": "learned"},
    "default": {},
    "growth, paths": {"growth": True, "initial_velocity": "paths"},
    "prior": {"growth": True, "growth_key": "half"},
    "wrong prior": {"growth": True, "growth_key": "wrong"},
}


def cells(kind: str, seed: int, n: int) -> ad.AnnData:
    """The simulated cells."""
    adata = wlm.datasets.branching_growth(n, equal=kind == "control", n_founders=max(10 * n, 1000), rng=seed)
    adata.obs["half"], adata.obs["wrong"] = adata.obs["true_growth"] / 2, -adata.obs["true_growth"] / 2
    return adata


def scored(kind: str, setting: str, seed: int, extra: dict[str, Any], n: int) -> dict[str, Any]:
    """The row of a fit, or of the naive estimates."""
    adata = cells(kind, seed, n)
    if setting == "naive":
        return _naive(adata) | {"floor": _floor(adata, cells(kind, 1000 + seed, n))}
    begin = time.process_time()
    asked = {**SETTINGS[setting], **extra}
    held = [INNER, FORECAST]
    wlm.tl.fit(adata, "day", use_rep="X_position", holdout=held, rng=seed, device="cpu", show_progress=False, **asked)
    seconds = time.process_time() - begin  # of the processor: others may use it too
    free = wlm.tl.predict(adata, held, from_time=0.0, resample=False if "growth" in asked else None)
    x, w = free.obsm["X_position"], free.obs.get("wlm_weight", pd.Series(1.0, index=free.obs_names)).to_numpy()
    row: dict[str, Any] = {"seconds": seconds}
    for t, name in ((INNER, "inner"), (FORECAST, "forecast")):
        here, truth = free.obs["day"].to_numpy() == t, adata.uns["truth"]
        share = np.average(x[here, 1] > 0, weights=w[here])
        row[f"share {name}"] = float(share - truth["share_A"][truth["days"] == t][0])
        row[f"W1 {name}"] = w1(x[here], adata.obsm["X_position"][adata.obs["day"] == t], w[here])
    there = adata.obsm["X_position"][adata.obs["day"] == FORECAST]
    row |= _mended(x[here], w[here], there)
    row["fate"] = float((x[here, 1] > 0).mean() - adata.uns["truth"]["fate_A"])
    if "growth" in asked:
        row |= _against_truth(adata, adata.obs["wlm_growth"].to_numpy())
        row["ess"] = float(adata.uns["wlm"]["growth"]["ess"][-1])
    return row


def _mended(x: np.ndarray, w: np.ndarray, there: np.ndarray) -> dict[str, float]:
    """W1 of a forecast that gets the shares of the branches from those that are ``there``, then centres, then widths.

    What each of these takes away is what is wrong with it; what is left is the floor and the shape of a branch.
    """
    x, w, found = x.astype(np.float64), w / w.sum(), {}
    sides = [(x[:, 1] > 0, there[:, 1] > 0), (x[:, 1] <= 0, there[:, 1] <= 0)]
    if any(min(own.sum(), seen.sum()) < 2 for own, seen in sides):
        return dict.fromkeys(("W1 shares", "W1 centres", "W1 widths"), np.nan)
    for own, seen in sides:
        w[own] *= seen.mean() / w[own].sum()
    found["W1 shares"] = w1(x, there, w)
    for own, seen in sides:
        x[own] += there[seen].mean(0) - np.average(x[own], axis=0, weights=w[own])
    found["W1 centres"] = w1(x, there, w)
    for own, seen in sides:
        middle = there[seen].mean(0)
        width = np.sqrt(np.average((x[own] - middle) ** 2, axis=0, weights=w[own]))
        x[own] = middle + (x[own] - middle) * there[seen].std(0) / np.maximum(width, 1e-9)
    found["W1 widths"] = w1(x, there, w)
    return found


def _against_truth(adata: ad.AnnData, rate: np.ndarray) -> dict[str, float]:
    """Difference of the rates of the branches, and correlation with the true rates less their mean of each day."""
    late, in_a = adata.obs["day"].isin([3.0, 4.0]).to_numpy(), (adata.obs["branch"] == "A").to_numpy()
    by_day = adata.obs.groupby("day")["true_growth"]
    truth = (adata.obs["true_growth"] - by_day.transform("mean")).to_numpy()
    known = np.isfinite(rate)
    equal = np.ptp(truth) < 1e-9
    return {
        "difference": float(rate[late & in_a & known].mean() - rate[late & ~in_a & known].mean()),
        "r": np.nan if equal else float(np.corrcoef(rate[known], truth[known])[0, 1]),
    }


def _naive(adata: ad.AnnData) -> dict[str, float]:
    """What needs no network."""
    day, in_a = adata.obs["day"].to_numpy(), (adata.obs["branch"] == "A").to_numpy()
    late = [t for t in TRAIN if t > 0]
    odds = [np.log((in_a[day == t].sum() + 0.5) / ((~in_a)[day == t].sum() + 0.5)) for t in late]
    rate = np.full(adata.n_obs, np.nan)
    for t, u in zip(TRAIN[:-1], TRAIN[1:], strict=True):
        x, y = (adata.obsm["X_position"][day == s].astype(float) for s in (t, u))
        log_sum = np.log(semi_relaxed(x, y).sum(1) * len(x)) / (u - t)
        rate[day == t] = log_sum - log_sum.mean()
    rows = _against_truth(adata, rate)
    return {"slope": float(np.polyfit(late, odds, 1)[0]), "row sums": rows["difference"], "row sums r": rows["r"]}


def _floor(one: ad.AnnData, other: ad.AnnData) -> float:
    x, y = (a.obsm["X_position"][a.obs["day"] == FORECAST] for a in (one, other))
    return w1(x, y)


def _show(rows: pd.DataFrame, title: str) -> None:
    print(f"\n{title}")
    print(rows.to_string(float_format=lambda v: f"{v:.3f}", na_rep="-"))


def _other(name: str, arguments: argparse.Namespace, extra: dict[str, Any]) -> None:
    """Another part of the benchmark."""
    part: Any = {
        "verdict": _growth_verdict,
        "toggle": _growth_toggle,
        "clones": _growth_clones,
        "coverage": _growth_coverage,
    }[name]
    n = arguments.cells
    counts = {
        "verdict": (2 if arguments.quick else 20, n),
        "toggle": (arguments.seeds, n),
        "clones": (arguments.seeds,),
        "coverage": (arguments.seeds, n),
    }
    asked = part.jobs(*counts[name], extra)
    file = RESULTS / f"growth-{name}{'-quick' if arguments.quick else ''}.json"
    done = run_missing(file, asked, part.run, arguments.jobs, fresh=arguments.fresh or arguments.quick)
    part.show([done[named(job)] for job in asked], asked)


if __name__ == "__main__":
    p = parser(__doc__, seeds=5)
    p.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=["balanced", "growth"])
    p.add_argument("--cells", type=int, default=400)
    for name in ("verdict", "toggle", "clones", "coverage"):
        p.add_argument(f"--{name}", dest="part", action="store_const", const=name, help="this part alone")
    p.add_argument("--fresh", action="store_true", help="run again what was run before")
    arguments = p.parse_args()
    prepare()
    extra, n, seeds = options(arguments.option), arguments.cells, range(arguments.seeds)
    if arguments.quick:
        extra, n, seeds = {"n_steps": 5, **extra}, 60, range(1)
        arguments.cells, arguments.seeds = n, 1
    if arguments.part is not None:
        _other(arguments.part, arguments, extra)
        raise SystemExit
    jobs = [
        (kind, setting, seed, {} if setting == "naive" else extra, n)
        for seed in seeds
        for kind in ("growing", "control")
        for setting in ("naive", *arguments.settings)
    ]
    file = RESULTS / f"growth{'-quick' if arguments.quick else ''}.json"
    done = run_missing(file, jobs, scored, arguments.jobs, fresh=arguments.fresh)
    table = pd.DataFrame([{"kind": j[0], "setting": j[1], "seed": j[2], **done[named(j)]} for j in jobs])
    fits = (
        table[table["setting"] != "naive"]
        .dropna(axis=1, how="all")
        .drop(columns=["slope", "row sums"], errors="ignore")
    )
    groups = fits.groupby(["kind", "setting"], sort=False).mean(numeric_only=True).drop(columns="seed")
    _show(groups, "mean over seeds (shares and fates: predicted less true)")
    absolute = fits.assign(**{k: fits[k].abs() for k in fits if k.startswith(("share", "fate"))})
    columns = [k for k in absolute if k.startswith(("share", "fate"))]
    _show(absolute.groupby(["kind", "setting"], sort=False)[columns].mean(), "mean of absolute errors")
    _show(fits.set_index(["kind", "setting", "seed"]).sort_index(), "each seed")
    naive = table[table["setting"] == "naive"].set_index(["kind", "seed"])
    _show(naive[[k for k in ("slope", "row sums", "row sums r", "floor") if k in naive]], "without a network")
