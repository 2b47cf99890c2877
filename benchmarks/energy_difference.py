"""Two bowls, one with a bump: is it what ``tl.energy_difference`` leaves of the energies of two fits?

Cells slide down each energy with noise, on five days, other ones every day. The correlation of the difference with
the true bump over all cells, and its slope: 1 is the true height.
"""

import time
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from _report import machine, options, parser, prepare
from joblib import Parallel, delayed

import wlm

CENTRE, WIDTH, DIFFUSION, STEP, DT, DAYS = np.array([1.0, 0.3]), 0.5, 0.05, 0.4, 0.01, 5


def bump(x: np.ndarray) -> np.ndarray:
    """Height (n,) of the bump at ``x`` (n, 2)."""
    return np.exp(-np.square(x - CENTRE).sum(1) / (2 * WIDTH**2))


def cells(height: float, n: int, seed: int) -> ad.AnnData:
    rng, out = np.random.default_rng([seed, int(height)]), []
    for day in range(DAYS):
        x = rng.normal(size=(n, 2)) * 0.6 + [2.0, 0.0]
        for _ in range(round(day * STEP / DT)):
            slope = 0.8 * x - height * bump(x)[:, None] * (x - CENTRE) / WIDTH**2
            x = x - DT * slope + np.sqrt(2 * DIFFUSION * DT) * rng.normal(size=x.shape)
        out.append(x)
    obs = pd.DataFrame({"day": np.repeat(np.round(STEP * np.arange(DAYS), 2), n), "arm": f"bump{height:g}"})
    obs.index = [f"{height:g}-{i}" for i in range(len(obs))]
    return ad.AnnData(obs=obs, obsm={"X_pca": np.concatenate(out).astype(np.float32)})


def run(method: str, seed: int, n: int, extra: dict[str, Any]) -> dict[str, Any]:
    prepare()
    adata = ad.concat([cells(0.0, n, seed), cells(1.0, n, seed)])
    begin = time.process_time()
    common = {"rng": seed, "device": "cpu", "show_progress": False, "backtest": False}
    wlm.tl.fit(adata, "day", condition_key="arm", method=method, **common, **extra)
    table = wlm.tl.energy_difference(adata, key="wlm_bump1", reference="wlm_bump0")
    truth = pd.Series(bump(adata[table.index].obsm["X_pca"]))
    truth = (truth - truth.groupby(table["time"].to_numpy()).transform("mean")).to_numpy()
    found = table["difference"].to_numpy()
    return {
        "method": method,
        "correlation": np.corrcoef(found, truth)[0, 1],
        "height": found @ truth / (truth @ truth),
        "processor s": time.process_time() - begin,
    }


if __name__ == "__main__":
    p = parser(__doc__)
    p.add_argument("--cells", type=int, default=400, help="cells on each day")
    p.add_argument("--methods", nargs="+", default=["jkonet_star", "ijkonet", "wlm"])
    arguments = p.parse_args()
    seeds, n, methods = arguments.seeds, arguments.cells, arguments.methods
    extra = options(arguments.option)
    if arguments.quick:
        seeds, n, methods, extra = 1, 60, ["jkonet_star"], {"n_steps": 20, **extra}
    rows = Parallel(n_jobs=arguments.jobs)(delayed(run)(m, seed, n, extra) for m in methods for seed in range(seeds))
    table = pd.DataFrame(rows).groupby("method", sort=False).agg(["mean", "min", "max"])
    print(f"{machine()}; {seeds} seeds, {n} cells a day, two fits each\n{table.to_string(float_format='%.3g')}")
