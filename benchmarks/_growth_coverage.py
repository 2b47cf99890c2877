"""Do intervals of rates hold the true ones? Ensembles whose models train on redrawn cells, and of seeds alone."""

from __future__ import annotations

import time
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy.stats import t as student

import wlm
from wlm._random import as_seeds

#: Held out, as in the other parts; models of an ensemble; share of the true rates that intervals are to hold.
HELD, N_MODELS, LEVEL = [2.0, 5.0], 5, 0.95


def jobs(n_seeds: int, n_cells: int, extra: dict[str, Any]) -> list[tuple]:
    """Simulations of both kinds."""
    kinds = ("growing", "control")
    return [("coverage", kind, seed, n_cells, extra) for seed in range(n_seeds) for kind in kinds]


def run(_: str, kind: str, seed: int, n_cells: int, extra: dict[str, Any]) -> dict[str, Any]:
    """Coverage and width of the intervals of the rates of cells, and of the difference of the branches."""
    n_founders = max(10 * n_cells, 1000)
    adata = wlm.datasets.branching_growth(n_cells, equal=kind == "control", n_founders=n_founders, rng=seed)
    options = {"growth": True, "use_rep": "X_position", "holdout": HELD, "device": "cpu", "show_progress": False}
    rows: dict[str, Any] = {}
    begin = time.process_time()
    wlm.tl.fit(adata, "day", n_models=N_MODELS, rng=seed, **options, **extra)
    rows["seconds"] = time.process_time() - begin
    first, spread = (adata.obs[f"wlm_growth{name}"].to_numpy(dtype=float) for name in ("", "_spread"))
    rows["redrawn"] = _covered(adata, first, spread)
    # The first model of an ensemble trains on the cells as they are, so that these differ in their seeds alone.
    same = [first]
    for one in as_seeds(seed, N_MODELS)[1:]:
        wlm.tl.fit(adata, "day", rng=one, **options, **extra)
        same.append(adata.obs["wlm_growth"].to_numpy(dtype=float))
    rows["seeds"] = _covered(adata, first, np.std(same, axis=0, ddof=1))
    return rows


def _covered(adata: ad.AnnData, rate: np.ndarray, spread: np.ndarray) -> dict[str, float]:
    """Share of the cells whose true rate, less the mean of its day, is in the interval, and what it is off by."""
    true = adata.obs["true_growth"]
    off = np.abs(rate - (true - adata.obs.groupby("day")["true_growth"].transform("mean")).to_numpy())
    half = student.ppf((1 + LEVEL) / 2, N_MODELS - 1) * spread
    known = np.isfinite(off)
    return {
        "coverage": float((off <= half)[known].mean()),
        "half width": float(half[known].mean()),
        "error": float(off[known].mean()),
    }


def show(found: list[dict[str, Any]], asked: list[tuple]) -> None:
    """By kind and ensemble, the mean and the range over simulations."""
    table = pd.DataFrame(
        [
            {"kind": job[1], "models differ by": name, "seed": job[2], **row[key]}
            for job, row in zip(asked, found, strict=True)
            for key, name in (("seeds", "seeds"), ("redrawn", "seeds and cells"))
        ]
    )
    grouped = table.drop(columns="seed").groupby(["kind", "models differ by"], sort=False)
    print(f"\nrate +- {student.ppf((1 + LEVEL) / 2, N_MODELS - 1):.2f} spreads of {N_MODELS} models, relative rates:")
    print(f"share of the cells whose true rate is within ({LEVEL:.0%} wanted), half widths and errors, per day")
    print(grouped.agg(["mean", "min", "max"]).to_string(float_format=lambda v: f"{v:.3f}"))
    print(f"seconds of the processor for an ensemble: {sum(r['seconds'] for r in found) / len(found):.0f}")
