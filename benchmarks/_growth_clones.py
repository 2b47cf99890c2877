"""Rates of blood cells against the later sizes of their clones, which no fit has seen."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from scipy.stats import spearmanr

import wlm
from wlm._adata.gene_sets import APOPTOSIS, PROLIFERATION, symbols

FILE = "larry_clones.h5ad"
#: Settings by name, options of the fit; those with a prior have one from genes.
SETTINGS: dict[str, dict[str, Any]] = {
    "prior as it is": {"growth": "prior", "growth_key": "wlm_growth_prior"},
    "prior and residual": {"growth": True, "growth_key": "wlm_growth_prior"},
    "no prior": {"growth": True},
}
#: Dimensions, resamples of the clones, added to the cells of a clone, so that those that are gone count as well.
N_DIMS, N_BOOT, HALF = 10, 2000, 0.5


def jobs(n_seeds: int, extra: dict[str, Any]) -> list[tuple]:
    """A fit with each setting and seed; the prior itself has no seed."""
    fits = [("clones", name, seed, extra) for name in SETTINGS for seed in range(n_seeds)]
    return [("clones", "prior alone", 0, {}), *fits]


def cells() -> ad.AnnData:
    """The cells, with logarithms of their expression and a prior by the genes that are there."""
    adata = ad.read_h5ad(Path(os.environ["WLM_DATA_DIR"]) / FILE)
    adata.obs["day"] = adata.obs["time_info"].astype(float)
    sc.pp.log1p(adata)  # the file has normalised counts of highly variable genes
    there = set(adata.var_names)
    sets = {
        name: [gene for names in symbols(genes, "mouse") for gene in names if gene in there]
        for name, genes in (("proliferation", PROLIFERATION), ("apoptosis", APOPTOSIS))
    }
    wlm.pp.growth_prior(adata, organism="mouse", time_key="day", **sets)
    return adata


def run(_: str, setting: str, seed: int, extra: dict[str, Any]) -> dict[str, Any]:
    """The rate of each cell, and by a fit the logarithm of its descendants at the next time."""
    adata, begin = cells(), time.process_time()
    column, notes = "wlm_growth_prior", {}
    if setting != "prior alone":
        options = {"n_dims": N_DIMS, "rng": seed, "device": "cpu", "show_progress": False, **SETTINGS[setting], **extra}
        wlm.tl.fit(adata, "day", **options)
        column, found = "wlm_growth", adata.uns["wlm"]["growth"]
        notes = {name: float(found[name]) for name in ("prior_scale", "prior_r2") if name in found}
        notes["descendants"] = np.log(adata.obs["wlm_descendants"]).tolist()
    return {"rate": adata.obs[column].tolist(), "seconds": time.process_time() - begin, **notes}


def truth() -> pd.DataFrame:
    """Clone and log descendants a day of each cell of day 4 in a clone: a row for a cell, indexed by its number."""
    adata = ad.read_h5ad(Path(os.environ["WLM_DATA_DIR"]) / FILE)
    day, member = adata.obs["time_info"].astype(float).to_numpy(), adata.obsm["X_clone"]
    member = np.asarray(member.toarray() if hasattr(member, "toarray") else member) > 0
    counts = {t: member[day == t].sum(0) for t in (4.0, 6.0)}
    rate = np.log((counts[6.0] + HALF) / (counts[4.0] + HALF)) / 2
    rows = np.flatnonzero((day == 4) & member.any(1))
    clone = member[rows].argmax(1)
    return pd.DataFrame({"clone": clone, "truth": rate[clone], "later": counts[6.0][clone]}, index=rows)


def show(found: list[dict[str, Any]], asked: list[tuple]) -> None:
    """Spearman's correlations with log descendants, with intervals over clones."""
    table = truth()
    rates: dict[str, np.ndarray] = {}
    for name in ("prior alone", *SETTINGS):
        own = [r for j, r in zip(asked, found, strict=True) if j[1] == name]
        rates[name] = np.stack([np.array(r["rate"])[table.index] for r in own])  # (seeds, cells)
        if name != "prior alone":
            at_next = [np.array(r["descendants"])[table.index] for r in own]
            rates[f"{name}, descendants"] = np.stack(at_next)
    boot = _resampled(table["clone"].to_numpy())
    print(f"\n{len(table)} cells of day 4 in {table['clone'].nunique()} clones; Spearman, 95 % over clones")
    drawn = {name: np.array([_score(own, table, i) for i in boot]) for name, own in rates.items()}
    rows = []
    for name, own in rates.items():
        each = [_score(one[None], table, slice(None)) for one in own]
        low, high = np.quantile(drawn[name], (0.025, 0.975))
        row = {"rate": name, "seeds": len(own), "spearman": np.mean(each), "low": low, "high": high}
        row["range of seeds"] = f"{min(each):.3f} to {max(each):.3f}"
        seen = (table["later"] > 0).to_numpy()
        row["clones seen again"] = np.mean([_score(one[None], table, seen) for one in own])
        if name != "prior alone":
            less = drawn[name] - drawn["prior alone"]
            row["less prior alone"] = row["spearman"] - rows[0]["spearman"]
            row["its interval"] = "{:+.3f} to {:+.3f}".format(*np.quantile(less, (0.025, 0.975)))
        rows.append(row)
    print(pd.DataFrame(rows).to_string(index=False, float_format=lambda v: f"{v:.3f}", na_rep="-"))
    scales = [r["prior_scale"] for r in found if "prior_scale" in r]
    explained = [r["prior_r2"] for r in found if "prior_r2" in r]
    print(
        f"factor of the prior {np.round(scales, 2)}, share of its variance that states explain {np.round(explained, 2)}"
    )


def _score(rates: np.ndarray, table: pd.DataFrame, rows: Any) -> float:
    """Mean over seeds of Spearman's correlation of rates (seeds, cells)."""
    return float(np.mean([spearmanr(own[rows], table["truth"].to_numpy()[rows]).statistic for own in rates]))


def _resampled(clone: np.ndarray) -> list[np.ndarray]:
    """Rows of the cells of clones that are drawn with replacement."""
    rng, names = np.random.default_rng(0), np.unique(clone)
    members = {name: np.flatnonzero(clone == name) for name in names}
    return [np.concatenate([members[k] for k in rng.choice(names, len(names))]) for _ in range(N_BOOT)]
