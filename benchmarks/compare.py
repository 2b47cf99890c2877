"""Is the p-value of ``tl.compare`` one, how often is a difference found, and how long does it take?

Samples are drawn from one law, or with a shift at one of five days; cells of a sample share its deviation from the law.
``null``: share of p-values (W1 at one day, and all days together) below 0.05, and of simulations in which any adjusted
one is, for three against three and four against four samples, followed or other ones every day; beside them the same
W1 with cells exchanged instead of samples. ``power``: how often the day of the shift is found, and named first.
``fits``: the same for speeds, kinetic energies and landscapes of fits to each sample (by flow), and how often cells
that move faster are found. ``growth``: the same for rates of growth by mechanics of few steps, where one of two types
of cells multiplies faster or not; every sample is fitted once, and comparisons draw theirs from this pool. ``time``:
seconds for two conditions x four samples x 1,000 cells x five days.
"""

import time
from math import comb

import anndata as ad
import numpy as np
import pandas as pd
from _compare_growth import comparisons
from _report import machine, parser, prepare
from joblib import Parallel, delayed

import wlm
from wlm.core.metrics import w1

#: Standard deviations of the cells of a sample, by dimension; the day that is shifted.
SD, SHIFTED, DAYS = np.array([3, 2, 1.5, 1, 1]), 3, 5
N_CELLS, N_EXCHANGED, N_BY_CELLS = 60, 39, 60
#: Statistics of fits.
OF_FITS = ("speed", "kinetic", "energy")
#: Samples whose rates of growth are fitted: of one law, and of each rate (a day) by which one type is faster.
POOLS, RATES = (240, 80), (0.25, 0.5)
#: Draws of an exact p-value, to tell how far so many of them depart from uniform ones.
N_DRAWS = 9999


def simulate(
    seed: int,
    n: int,
    *,
    shift: float = 0.0,
    spread: float = 0.5,
    pace: float = 1.0,
    followed: bool = True,
    n_cells: int = N_CELLS,
) -> ad.AnnData:
    """``2 n`` samples, Gaussian cells; ``shift`` and ``spread`` (of sample means) in standard deviations of cells.

    Those of the drug move at so many times the ``pace`` of others.
    """
    rng, x, rows = np.random.default_rng(seed), [], []
    for i in range(2 * n):
        arm = "control" if i < n else "drug"
        for day in range(DAYS):
            mean = 0.5 * day * (pace if arm == "drug" else 1.0) * (np.arange(len(SD)) == 0) + spread * rng.normal(
                size=len(SD)
            )
            mean[0] += shift * (arm == "drug" and day == SHIFTED)
            x.append((mean + rng.normal(size=(n_cells, len(SD)))) * SD)
            rows += [(day, arm, f"m{i}" if followed else f"m{i}d{day}")] * n_cells
    obs = pd.DataFrame(rows, columns=["day", "arm", "mouse"])
    return ad.AnnData(obs=obs.set_index(obs.index.astype(str)), obsm={"X_pca": np.concatenate(x).astype(np.float32)})


def compared(seed: int, n: int, **law: object) -> dict[str, float]:
    """What one comparison finds: p-values of the statistic by day and together, and the first day."""
    prepare()
    adata = simulate(seed, n, **law)
    table = wlm.tl.compare(adata, "day", "arm", sample_key="mouse", n_perm=999, rng=seed)
    whole = table[(table["name"] == "")]
    own = whole[whole["statistic"] == "distance"]
    return {
        "p": own.loc[own["time"] == SHIFTED, "p"].item(),
        "together": own.loc[own["time"].isna(), "p"].item(),
        "any": whole.loc[whole["time"].notna(), "p_adj"].min(),
        "at the shift": whole.loc[whole["time"] == SHIFTED, "p_adj"].min(),
        "first": table.attrs["first"]["drug"],
        "cells": exchanged_cells(adata, seed) if seed < N_BY_CELLS and n == 4 else np.nan,
    }


def fitted(seed: int, n: int, arguments: dict, **law: object) -> dict[str, float]:
    """P-values of what fits to each sample say: at one day, and of all days together, and the smallest adjusted one."""
    prepare()
    adata = simulate(seed, n, **law)
    table = wlm.tl.compare(adata, "day", "arm", sample_key="mouse", n_perm=999, rng=seed, **arguments)
    whole = table[(table["name"] == "") & table["statistic"].isin(OF_FITS)]
    found = {f"{row.statistic}, p < 0.05": row.p for row in whole[whole["time"] == 1].itertuples()}
    found |= {f"{row.statistic}, together": row.p for row in whole[whole["time"].isna()].itertuples()}
    return found | {"any adjusted": whole.loc[whole["time"].notna(), "p_adj"].min()}


def rows_of_fits(name: str, jobs: int, n_simulations: int, n: int, arguments: dict, **law: object) -> dict:
    """A row of the table: how often each p-value is below 0.05."""
    began = time.perf_counter()
    many = Parallel(n_jobs=jobs)(delayed(fitted)(seed, n, arguments, **law) for seed in range(n_simulations))
    shares = {kind: interval(found < 0.05) for kind, found in pd.DataFrame(many).items()}
    row = {"law": name, "samples": f"{n} against {n}", "simulations": n_simulations, **shares}
    return row | {"seconds": round(time.perf_counter() - began)}


def exchanged_cells(adata: ad.AnnData, seed: int) -> float:
    """P-value of W1 between the conditions at one day, with the conditions of cells exchanged."""
    rng = np.random.default_rng(seed)
    here = adata[adata.obs["day"] == SHIFTED]
    some = rng.permutation(here.n_obs)[:400]
    x, drug = here.obsm["X_pca"][some], (here.obs["arm"] == "drug").to_numpy()[some]
    found = [w1(x[g], x[~g]) for g in (drug, *(rng.permutation(drug) for _ in range(N_EXCHANGED)))]
    return float(np.mean(np.array(found) >= found[0]))


def interval(hits: pd.Series) -> str:
    """A share with its 95 % interval (Wilson)."""
    n, p, z = len(hits), hits.mean(), 1.96
    middle, reach = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = ((middle + s * reach) / (1 + z**2 / n) for s in (-1, 1))
    return f"{p:.3f} ({abs(low):.3f} to {high:.3f})"  # no share is below 0, nor by rounding


def departure(p: pd.Series, n: int) -> str:
    """Largest distance (Kolmogorov-Smirnov) of p-values from those of an exact test of ``n`` against ``n`` samples.

    These are 1/m, 2/m, ..., 1 with equal chances, m being half the number of relabelings. In brackets the share of as
    many exact ones that are as far or farther, from random draws.
    """
    m, rng = comb(2 * n, n) // 2, np.random.default_rng(0)

    def distance(counts: np.ndarray) -> np.ndarray:
        return np.abs(counts.cumsum(-1) / len(p) - np.arange(1, m + 1) / m).max(-1)

    found = distance(np.bincount(np.rint(p * m).astype(int), minlength=m + 1)[1:])
    exact = distance(rng.multinomial(len(p), np.full(m, 1 / m), size=N_DRAWS))
    return f"{found:.3f} ({np.mean(exact >= found - 1e-9):.2f})"


def rows_of(name: str, jobs: int, n_simulations: int, n: int, **law: object) -> dict:
    """A row of the table: many simulations of one law."""
    began = time.perf_counter()
    found = pd.DataFrame(Parallel(n_jobs=jobs)(delayed(compared)(seed, n, **law) for seed in range(n_simulations)))
    row = {"law": name, "samples": f"{n} against {n}", "simulations": n_simulations}
    if law.get("shift"):
        row |= {"day found": interval(found["at the shift"] < 0.05), "named first": interval(found["first"] == SHIFTED)}
        row["p < 0.05"] = interval(found["p"] < 0.05)
    else:
        row |= {"p < 0.05": interval(found["p"] < 0.05), "p <= 0.1": interval(found["p"] <= 0.1 + 1e-9)}
        row["distance from uniform"] = departure(found["p"], n)
        row |= {"together p < 0.05": interval(found["together"] < 0.05), "any adjusted": interval(found["any"] < 0.05)}
        if found["cells"].notna().any():
            row["cells exchanged, p < 0.05"] = interval(found["cells"].dropna() < 0.05)
    return row | {"seconds": round(time.perf_counter() - began)}


def growth_of_fits(jobs: int, n_simulations: int, *, quick: bool) -> None:
    """Print how often rates of growth are called different, by what is compared and by law."""
    mechanics = {"growth": True, "n_steps": 2 if quick else 20, "batch_size": 60, "max_step": 1.0}
    mechanics |= {"width": 16, "hidden": 32, "n_inducing": 4}
    sizes, rates = ((8, 4), RATES[-1:]) if quick else (POOLS, RATES)
    worked = time.process_time()
    laws = comparisons(mechanics, sizes=sizes, n_simulations=n_simulations, n=4, rates=rates, jobs=jobs)
    a_fit = (time.process_time() - worked) / (sizes[0] + len(rates) * sizes[1])
    on_processor = f", {a_fit:.1f} s on the processor for each" if jobs == 1 else ""
    print(f"\ngrowth: {sizes[0]} samples of one law, {sizes[1]} of each other{on_processor}", flush=True)
    for law, found in laws.items():
        rows = {
            kind: {"p < 0.05": interval(p < 0.05), "p <= 0.1": interval(p <= 0.1 + 1e-9)}
            | ({"distance from uniform": departure(p, 4)} if law.startswith("one law") else {})
            for kind, p in found.items()
        }
        print(f"\n{law}, 4 against 4, {len(found)} comparisons\n{pd.DataFrame(rows).T.to_string()}", flush=True)


def seconds(jobs: int, arguments: dict, n_cells: int) -> str:
    """Time of one comparison of eight samples, and that on the processor, which a busy machine does not stretch."""
    adata = simulate(0, 4, n_cells=n_cells)
    began, worked = time.perf_counter(), time.process_time()
    wlm.tl.compare(adata, "day", "arm", sample_key="mouse", n_jobs=jobs, **arguments)
    on_processor = f" ({time.process_time() - worked:.0f} s on the processor)" if jobs == 1 else ""
    return f"{time.perf_counter() - began:.0f} s{on_processor}"


def main() -> None:
    p = parser(__doc__)
    p.add_argument("part", nargs="?", default="all", choices=("all", "null", "fits", "growth", "power", "time"))
    p.add_argument("--simulations", type=int, default=200)
    arguments = p.parse_args()
    prepare()
    many, jobs = 4 if arguments.quick else arguments.simulations, arguments.jobs
    wanted = ("null", "power", "fits", "growth", "time") if arguments.part == "all" else (arguments.part,)
    print(machine(), flush=True)
    flow = {"method": "flow", "path": "straight"}
    laws = {
        "null": [
            ("one law, followed", 3, {}),
            ("one law, followed", 4, {}),
            ("one law, other samples every day", 3, {"followed": False}),
        ],
        "power": [
            (f"shift 0.5 sd at one day, samples differ by {s:g} sd", 4, {"shift": 0.5, "spread": s})
            for s in (0.0, 0.1, 0.2)
        ],
    }
    for part in (name for name in wanted if name in laws):
        rows = [rows_of(name, jobs, many, n, **law) for name, n, law in laws[part]]
        print(f"\n{part}\n{pd.DataFrame(rows).to_string(index=False)}", flush=True)
    if "fits" in wanted:
        fits = [
            ("one law, flow", {}),
            ("drug three times as fast, flow", {"pace": 3.0}),
        ]
        for name, law in fits:
            row = rows_of_fits(name, jobs, many, 4, flow, **law)
            print("\n" + pd.Series(row).to_string(), flush=True)
    if "growth" in wanted:
        growth_of_fits(jobs, many, quick=arguments.quick)
    if "time" in wanted:
        n_cells = 50 if arguments.quick else 1000
        for name, more in (
            ("nothing fitted", {}),
            ("a fit by flow to each sample", {"method": "flow", "times": [2.5]}),
        ):
            print(f"time, {8 * 5 * n_cells:,} cells, {name}: {seconds(jobs, more, n_cells)}", flush=True)


if __name__ == "__main__":
    main()
