"""Fits that were trained on half of the clones, scored by the other half."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import wlm
from wlm.core.clones import correct, distances, sister_shares
from wlm.core.methods import WLM

FILE = "larry_clones.h5ad"
LABELS = ["Monocyte", "Neutrophil"]
#: Weights of the distance to sisters that are tried; None trains without clones.
WEIGHTS = (None, 0.1, 1.0)
#: Clones of the simulation, neighbours of a label, samples of the clones.
N_CROSSING, N_NEIGHBOURS, N_BOOT = 200, 15, 2000


def crossing(seed: int, n: int = N_CROSSING) -> ad.AnnData:
    """Two groups of cells that change places between two days, one cell of each of ``n`` clones a day."""
    rng = np.random.default_rng(seed)
    side = np.where(np.arange(n) % 2, 1.0, -1.0)
    x = rng.normal(size=(n, 2)) * [0.2, 0.4] + np.stack([side, 0 * side], 1)
    y = x * [-1, 1] + 0.05 * rng.normal(size=(n, 2))
    obs = pd.DataFrame({"day": np.repeat([0.0, 1.0], n), "clone": np.tile(np.arange(n), 2)})
    obs["label"] = np.where(np.concatenate([side, -side]) > 0, "right", "left")
    obs.index = [f"c{i}" for i in range(2 * n)]
    return ad.AnnData(obs=obs, obsm={"X_pca": np.concatenate([x, y]).astype(np.float32)})


def blood(n_dims: int) -> ad.AnnData:
    """The blood cells of days 2, 4 and 6, with the number of each cell's clone, -1 without one."""
    adata = ad.read_h5ad(Path(os.environ["WLM_DATA_DIR"]) / FILE)
    member = adata.obsm["X_clone"]
    member = np.asarray(member.toarray() if hasattr(member, "toarray") else member) > 0
    obs = pd.DataFrame(
        {
            "day": adata.obs["time_info"].astype(float),
            "clone": np.where(member.any(1), member.argmax(1), -1),
            "label": adata.obs["state_info"].astype(str),
        },
        index=adata.obs_names,
    )
    return ad.AnnData(obs=obs, obsm={"X_pca": adata.obsm["X_pca"][:, :n_dims]})


def halves(adata: ad.AnnData, seed: int) -> list[np.ndarray]:
    """Two halves (n_obs,) of the clones, of those with cells on the last two days and of the others."""
    clone, day = adata.obs["clone"].to_numpy(), adata.obs["day"].to_numpy()
    times, rng = np.unique(day), np.random.default_rng([seed, 1])
    both = np.intersect1d(clone[day == times[-2]], clone[day == times[-1]])
    both, first = both[both >= 0], []
    for names in (both, np.setdiff1d(clone[clone >= 0], both)):
        first += rng.permutation(names)[: (len(names) + 1) // 2].tolist()
    return [(clone >= 0) & (np.isin(clone, first) == (k == 0)) for k in range(2)]


def run(data: str, weight: float | None, seed: int, n_dims: int, extra: dict[str, Any]) -> dict[str, Any]:
    """Each cell of the last day but one, scored by a fit to the half of the clones to which it does not belong."""
    adata = crossing(seed) if data == "crossing" else blood(n_dims)
    clone, day, label = (adata.obs[c].to_numpy() for c in ("clone", "day", "label"))
    times = np.unique(day)
    last = day == times[-1]
    later = adata.obsm["X_pca"][last]
    told = [name for name in np.unique(label[last]) if data == "crossing" or name in LABELS]
    known = np.isin(label[last], told)
    near = KNeighborsClassifier(N_NEIGHBOURS, weights="distance").fit(later[known], label[last][known])
    found, begin, w1 = [], time.process_time(), []
    for train in halves(adata, seed):
        adata.obs["train"] = np.where(train, np.char.add("c", clone.astype(str)), "")
        own = {} if weight is None else {"clone_key": "train"}
        WLM.SISTERS = 1.0 if weight is None else weight
        options = {"rng": seed, "device": "cpu", "show_progress": False, "backtest": False, **own, **extra}
        wlm.tl.fit(adata, "day", **options)
        moved = wlm.tl.predict(adata, times[-1], from_time=times[-2], rng=seed)
        rows = adata.obs_names.get_indexer(moved.obs["origin"])
        w1.append(float(adata.uns["wlm"]["training_times"]["w1"][-1]))
        shares = sister_shares(clone[rows], clone[last])
        mine = shares.any(1) & ~train[rows]
        rows, shares = rows[mine], shares[mine]
        taught = np.flatnonzero((day == times[-2]) & train)
        goal = sister_shares(clone[taught], clone[last])
        taught, goal = taught[goal.any(1)], goal[goal.any(1)] @ later
        ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 13))).fit(adata.obsm["X_pca"][taught], goal)
        truth = shares @ (label[last][:, None] == np.array(told))
        has = truth.sum(1) > 0
        part: dict[str, Any] = {"clone": clone[rows]}
        answers = {"fit": np.asarray(moved.obsm["X_pca"])[mine], "ridge": ridge.predict(adata.obsm["X_pca"][rows])}
        for name, z in answers.items():
            part[f"{name} own"], part[f"{name} all"] = distances(z, later, shares)
            right = correct(near.predict_proba(z), truth / np.maximum(truth.sum(1, keepdims=True), 1e-12))
            part[f"{name} right"] = np.where(has, right, np.nan)
        found.append(pd.DataFrame(part))
    cells = pd.concat(found)
    return {"cells": cells.to_dict("list"), "w1": float(np.mean(w1)), "seconds": time.process_time() - begin}


def jobs(n_seeds: int, n_dims: int, extra: dict[str, Any]) -> list[tuple]:
    """A fit to each half with each weight and seed."""
    return [("trained", d, w, s, n_dims, extra) for d in ("crossing", "blood") for w in WEIGHTS for s in range(n_seeds)]


def ratio(cells: pd.DataFrame, name: str, w: np.ndarray) -> tuple[float, float]:
    """Distance to sisters over that to all, and the share of labels that are right; ``w`` (n,) are weights."""
    right = cells[f"{name} right"].to_numpy()
    has = np.isfinite(right)
    total = (w[has]).sum()
    return float(w @ cells[f"{name} own"] / (w @ cells[f"{name} all"])), float(w[has] @ right[has] / max(total, 1e-12))


def show(done: list[dict[str, Any]], asked: list[tuple]) -> None:
    """A table for each data set: scores by clones that were not trained on, and the gain with intervals over clones."""
    for data in ("crossing", "blood"):
        rows, base = [], None
        for weight in WEIGHTS:
            mine = [r for j, r in zip(asked, done, strict=True) if j[1:3] == (data, weight)]
            tables = [pd.DataFrame(r["cells"]) for r in mine]
            base = base or tables
            for name in ("ridge", "fit") if weight is None else ("fit",):
                rows.append({"row": _words(name, weight), **_scores(tables, base, name)})
                if name == "fit":
                    rows[-1]["W1"] = f"{np.mean([r['w1'] for r in mine]):.3f}"
                    rows[-1]["s"] = np.mean([r["seconds"] for r in mine])
        cells = base[0] if base else pd.DataFrame()
        print(f"\n{data}: {len(cells)} cells of {cells['clone'].nunique()} clones, none of which the fit has seen")
        print(pd.DataFrame(rows).to_string(index=False, float_format=lambda v: f"{v:.0f}", na_rep="-"))


def _words(name: str, weight: float | None) -> str:
    if name == "ridge":
        return "ridge regression on the same half"
    return "wlm, no clones" if weight is None else f"wlm, weight {weight:g}"


def _scores(tables: list[pd.DataFrame], base: list[pd.DataFrame], name: str) -> dict[str, str]:
    """Means over seeds with their deviation, and the change against fits without clones, by clones drawn anew."""
    here = np.array([ratio(t, name, np.ones(len(t))) for t in tables])
    rng, names = np.random.default_rng(0), np.unique(tables[0]["clone"])
    drawn = []
    for _ in range(N_BOOT):
        counts = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        both = []
        for parts, who in ((tables, name), (base, "fit")):
            weights = [counts[np.searchsorted(names, t["clone"])].astype(float) for t in parts]
            both.append(np.mean([ratio(t, who, w) for t, w in zip(parts, weights, strict=True)], axis=0))
        drawn.append(both[0] - both[1])
    change = here.mean(0) - np.mean([ratio(t, "fit", np.ones(len(t))) for t in base], axis=0)
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    out = {}
    for k, what in enumerate(("distance", "right")):
        out[what] = f"{here[:, k].mean():.3f} ± {here[:, k].std(ddof=1) if len(here) > 1 else 0:.3f}"
        out[f"change of {what}"] = f"{change[k]:+.3f} [{low[k]:+.3f}, {high[k]:+.3f}]"
    return out
