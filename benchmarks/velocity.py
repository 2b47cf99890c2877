"""RNA velocity: how well it is projected, and whether starting with it helps on held-out times.

Projection: cosine with the true velocity of the simulated bifurcation's expression in ten principal components, of its
true gene velocities and of those by scVelo from counts with and without noise; the plain product with the loadings
beside it. Held-out W1: the bifurcation (each of --days in turn) without velocities, with the true ones, and with those
that scVelo computes from the other days; the vortex (odd times) without and with its velocities. Seeds are paired.
Fits are kept in benchmarks/results/velocity.json and not repeated with the same code.
"""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from _report import RESULTS, key, options, parser, prepare, run_missing

import wlm
from wlm.core.metrics import w1

VORTEX_TEST = [1, 3, 5, 7]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Mean cosine of each row, for rows of ``b`` that are not zero (cells of day 0 are at rest)."""
    size = np.linalg.norm(b, axis=1)
    keep = size > 1e-6 * size.max()
    return float(np.mean((a * b).sum(1)[keep] / np.linalg.norm(a, axis=1)[keep] / size[keep]))


def projection(n_cells: int, seed: int) -> pd.DataFrame:
    """Cosines with the true velocity, in ten components."""
    clean = wlm.datasets.bifurcation(n_cells, noise=False, rng=seed)
    s, v = clean.layers["spliced"].toarray().astype(float), clean.layers["true_velocity"].astype(float)
    target = float(np.median(s.sum(1)))

    def expression(s: np.ndarray) -> np.ndarray:
        return np.log1p(s / s.sum(1, keepdims=True) * target)

    rows = []
    for noise in (False, True):
        adata = wlm.datasets.bifurcation(n_cells, noise=noise, rng=seed)
        for source in ("true gene velocities", "scVelo, deterministic", "scVelo, stochastic"):
            own, vkey = adata.copy(), "velocity"
            if source.startswith("scVelo"):
                wlm.pp.velocity(own, mode=source.split()[1])
            else:
                vkey = "true_velocity"
                sc.pp.normalize_total(own, target_sum=target)
                sc.pp.log1p(own)
                sc.pp.pca(own, n_comps=30)
                wlm.pp.project_velocity(own, vkey=vkey)
            used = clean.var_names.isin(own.var_names)
            rate = (expression(s + 1e-4 * v) - expression(np.maximum(s - 1e-4 * v, 0))) / 2e-4
            truth = rate[:, used] @ own.varm["PCs"][:, :10]
            plain = np.nan_to_num(own.layers[vkey]) @ own.varm["PCs"][:, :10]
            rows.append(
                {
                    "counts": "noisy" if noise else "noiseless",
                    "velocity": source,
                    "projected": cosine(own.obsm[f"{vkey}_projected"][:, :10], truth),
                    "product with the loadings": cosine(plain, truth),
                }
            )
    return pd.DataFrame(rows)


def run(data: str, velocity: str, fold: float | None, seed: int, n_cells: int, extra: dict[str, Any]) -> float:
    """Mean W1 of one fit on its held-out times."""
    if data == "vortex":
        adata, time_key, rep, held = wlm.datasets.vortex(), "time", "X_position", VORTEX_TEST
        chosen = {"velocity_key": "velocity"} if velocity == "given" else {}
    else:
        adata, time_key, rep, held = bifurcation(n_cells), "day", "X_pca", [fold]
        chosen = {} if velocity == "none" else {"velocity_key": "v", "velocity_scale": "calibrate"}
        if velocity == "true":
            adata.obsm["v"] = wlm.pp.project_velocity(adata, vkey="true_velocity", copy=True).obsm[
                "true_velocity_projected"
            ]
        elif velocity == "scVelo":
            # The held-out cells take no part, neither in the moments nor in the smoothing.
            others = (adata.obs["day"] != fold).to_numpy()
            adata.obsm["v"] = np.full(adata.obsm["X_pca"].shape, np.nan, dtype=np.float32)
            adata.obsm["v"][others] = wlm.pp.velocity(adata[others].copy(), copy=True).obsm["velocity_projected"]
    wlm.tl.fit(
        adata, time_key, use_rep=rep, holdout=held, rng=seed, device="cpu", show_progress=False, **chosen, **extra
    )
    predicted = wlm.tl.predict(adata, held, rng=seed)
    at = {t: adata.obsm[rep][adata.obs[time_key] == t] for t in held}
    return float(np.mean([w1(predicted.obsm[rep][predicted.obs[time_key] == t], at[t]) for t in held]))


def bifurcation(n_cells: int) -> ad.AnnData:
    adata = wlm.datasets.bifurcation(n_cells)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=10)
    return adata


def main() -> None:
    p = parser(__doc__, seeds=5)
    p.add_argument("--cells", type=int, default=1000, help="cells of the bifurcation per day")
    p.add_argument(
        "--days", type=float, nargs="*", default=[1.0, 2.0, 3.0], help="held-out days of the bifurcation; none: vortex"
    )
    arguments = p.parse_args()
    prepare()
    extra = options(arguments.option)
    if arguments.quick:
        extra = {"n_steps": 10, "width": 16, "hidden": 16, **extra}
        arguments.seeds, arguments.cells = 1, 100
    print(projection(arguments.cells, 0).to_string(index=False, float_format="{:.3f}".format), flush=True)
    print(f"mean cosine with the true velocity; {arguments.cells} cells a day, 1 seed\n")

    cases = [("bifurcation", v, d) for v in ("none", "true", "scVelo") for d in arguments.days]
    cases += [("vortex", v, None) for v in ("none", "given")]
    jobs = [(*case, seed, arguments.cells, extra) for seed in range(arguments.seeds) for case in cases]
    path = RESULTS / ("velocity-quick.json" if arguments.quick else "velocity.json")
    done = run_missing(path, jobs, run, arguments.jobs, fresh=arguments.quick)
    frame = pd.DataFrame(
        [(*job[:4], done[key(job)]) for job in jobs], columns=["data", "velocity", "fold", "seed", "w1"]
    )
    each = frame.groupby(["data", "velocity", "seed"], sort=False)["w1"].mean().reset_index()
    base = each[each["velocity"] == "none"].set_index(["data", "seed"])["w1"]
    each["change"] = 100 * (each["w1"] / base.loc[list(zip(each["data"], each["seed"], strict=True))].to_numpy() - 1)
    table = each.groupby(["data", "velocity"], sort=False).agg(
        w1=("w1", "mean"), sd=("w1", "std"), change=("change", "mean"), sd_of_change=("change", "std")
    )
    print(table.to_string(float_format="{:.4f}".format, na_rep="-"))
    print(
        f"change against no velocities in per cent, paired; {arguments.seeds} seed(s), "
        f"{arguments.cells} cells a day, held out {arguments.days}; wrote {path}"
    )


if __name__ == "__main__":
    main()
