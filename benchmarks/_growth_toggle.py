"""The rate of a switch of genes: what a network finds, and what a static coupling finds without one."""

from __future__ import annotations

import time
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

import wlm
from wlm.core.transport import semi_relaxed

#: Settings by name: sizes of the populations are given, as those who score on such a system give them, or not.
SETTINGS = ("totals", "relative")
#: Prices of the static coupling, in median squared distances within a time.
PRICES = (0.1, 1.0, 10.0, 100.0)


def jobs(n_seeds: int, n_cells: int, extra: dict[str, Any]) -> list[tuple]:
    """A static coupling and a fit with each setting, for every simulation."""
    settings = [*((f"static {price:g}", {}) for price in PRICES), *((name, extra) for name in SETTINGS)]
    return [("toggle", name, seed, n_cells, more) for seed in range(n_seeds) for name, more in settings]


def run(_: str, setting: str, seed: int, n_cells: int, extra: dict[str, Any]) -> dict[str, Any]:
    """Correlations of one rate with the true one, over the cells of all times but the last."""
    adata = wlm.datasets.gene_toggle(n_cells, n_founders=max(10 * n_cells, 1000), rng=seed)
    begin = time.process_time()
    truth = adata.uns["truth"]
    if setting.startswith("static"):
        rate = static_rates(adata, truth["sizes"], float(setting.split()[1]))
    else:
        totals = dict(zip(truth["times"], truth["sizes"].astype(float), strict=True)) if setting == "totals" else None
        options = {"growth": True, "totals": totals, "rng": seed, "device": "cpu", "show_progress": False, **extra}
        wlm.tl.fit(adata, "time", use_rep="X_position", **options)
        rate = adata.obs["wlm_growth"].to_numpy(dtype=float)
    known = (adata.obs["time"] < truth["times"][-1]).to_numpy() & np.isfinite(rate)
    obs = pd.DataFrame({"time": adata.obs["time"], "truth": adata.obs["true_growth"], "rate": rate})[known]
    centred = obs[["truth", "rate"]] - obs.groupby("time")[["truth", "rate"]].transform("mean")
    row = {"seconds": time.process_time() - begin, "r centred": centred.corr().iloc[0, 1]}
    if setting != "relative":
        row["r"] = obs[["truth", "rate"]].corr().iloc[0, 1]
    return {name: float(value) for name, value in row.items()}


def static_rates(adata: ad.AnnData, sizes: np.ndarray, price: float) -> np.ndarray:
    """Rates (n,) by the row sums of a semi-relaxed coupling with the next time, absolute by the sizes (T,)."""
    at, x = adata.obs["time"].to_numpy(), adata.obsm["X_position"].astype(float)
    times, rate = np.unique(at), np.full(adata.n_obs, np.nan)
    for k, (t, later) in enumerate(zip(times[:-1], times[1:], strict=True)):
        here = at == t
        descendants = semi_relaxed(x[here], x[at == later], price=price).sum(1) * here.sum() * sizes[k + 1] / sizes[k]
        rate[here] = np.log(np.maximum(descendants, 1e-12)) / (later - t)
    return rate


def show(found: list[dict[str, Any]], asked: list[tuple]) -> None:
    """Means and ranges over simulations."""
    table = pd.DataFrame([{"setting": job[1], "seed": job[2], **row} for job, row in zip(asked, found, strict=True)])
    grouped = table.drop(columns="seed").groupby("setting", sort=False)
    print("\ncorrelation with the true rate (of each cell, and less the mean of its time)")
    print(grouped.agg(["mean", "min", "max"]).to_string(float_format=lambda v: f"{v:.3f}", na_rep="-"))
