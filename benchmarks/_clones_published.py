"""The task of Weinreb et al. 2020: which of ten fates dominates the clone of a cell of day 2."""

from __future__ import annotations

import time
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import wlm
from wlm.core.clones import bootstrap, correct
from wlm.datasets._fetch import cache_folder

N_NEIGHBOURS, N_GENES = 15, 2000
#: Shares that are right in the literature, on other splits and components: rows to read beside ours, not to subtract.
PUBLISHED = {
    "majority": 0.373,
    "CellRank": 0.140,
    "PRESCIENT with growth prior": 0.507,
    "scDiffEq": 0.547,
    "regression on clones": 0.600,
}


def cells(n_dims: int) -> ad.AnnData | None:
    """All cells with principal components, or None where they were never fetched."""
    if not (cache_folder() / "larry.h5ad").exists():
        return None
    adata = wlm.datasets.larry()
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=N_GENES)
    sc.pp.pca(adata, n_comps=n_dims, random_state=0)
    return ad.AnnData(obs=adata.obs, obsm={k: adata.obsm[k] for k in ("X_pca", "X_clone")})


def truth(adata: ad.AnnData) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Cells of the first day whose clones have a mature cell later, their clones, counts (n, k) of its fates, names."""
    day, label = adata.obs["day"].to_numpy(), adata.obs["cell_type"].astype(str).to_numpy()
    names = sorted(set(label) - {"undiff", "Undifferentiated"})
    member = adata.obsm["X_clone"].tocsr()
    one_hot = ((label[:, None] == np.array(names)) & (day > day.min())[:, None]).astype(float)
    counts = member.T @ one_hot  # (clones, k)
    rows = np.flatnonzero((day == day.min()) & (np.asarray(member.sum(axis=1)).ravel() > 0))
    clone = np.asarray(member[rows].argmax(axis=1)).ravel()
    known = counts[clone].sum(1) > 0
    return rows[known], clone[known], counts[clone[known]], names


def run(adata: ad.AnnData, method: str, seed: int, extra: dict[str, Any]) -> dict[str, Any]:
    """How often each answer names the fate that dominates."""
    rows, clone, counts, names = truth(adata)
    day, label = adata.obs["day"].to_numpy(), adata.obs["cell_type"].astype(str).to_numpy()
    shares = counts / counts.sum(1, keepdims=True)
    begin = time.process_time()
    wlm.tl.fit(adata, "day", method=method, rng=seed, device="cpu", show_progress=False, backtest=False, **extra)
    moved = wlm.tl.predict(adata, day.max(), from_time=day.min(), rng=seed)
    seconds = time.process_time() - begin
    where = moved.obsm["X_pca"][pd.Index(moved.obs["origin"]).get_indexer(adata.obs_names[rows])]
    told = (day == day.max()) & np.isin(label, names)
    near = KNeighborsClassifier(N_NEIGHBOURS).fit(adata.obsm["X_pca"][told], label[told])
    found = np.zeros((len(rows), len(names)))
    found[:, np.searchsorted(names, near.classes_)] = near.predict_proba(where)
    taught = np.zeros_like(found)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    x, most = adata.obsm["X_pca"][rows], counts.argmax(1)
    taught[np.arange(len(rows)), cross_val_predict(model, x, most, groups=clone, cv=GroupKFold(5))] = 1
    majority = np.tile(np.bincount(most, minlength=len(names)) == np.bincount(most).max(), (len(rows), 1)).astype(float)
    answers = {method: found, "majority": majority, "regression on other clones": taught}
    out = []
    for name, p in answers.items():
        right = correct(p, shares)
        low, high = bootstrap(_mean(right), clone, 1000, np.random.default_rng(seed))
        out.append({"answer": name, "seed": seed, "right": float(right.mean()), "low": low, "high": high})
    return {"rows": out, "cells": len(rows), "clones": len(np.unique(clone)), "seconds": seconds}


def _mean(right: np.ndarray) -> Any:
    return lambda w: float(np.average(right, weights=w))


def show(done: list[dict[str, Any]]) -> None:
    """Ours, and beside them what others published."""
    table = pd.DataFrame([row for one in done for row in one["rows"]])
    each = table.groupby("answer", sort=False)
    shown = each["right"].agg(["mean", "std", "size"]).join(each[["low", "high"]].first()).reset_index()
    published = pd.DataFrame({"answer": [f"{n} (published)" for n in PUBLISHED], "mean": list(PUBLISHED.values())})
    print(
        f"\n{done[0]['cells']} cells of the first day, {done[0]['clones']} clones; share whose dominant fate is right"
    )
    print(pd.concat([shown, published]).to_string(index=False, float_format=lambda v: f"{v:.3f}", na_rep="-"))
    print(f"a fit with its prediction, s: {np.mean([one['seconds'] for one in done]):.0f}")
