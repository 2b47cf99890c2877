"""The main job on embedded data: simulate a bifurcation without day 2, fit, predict day 2, check it, draw it."""

from pathlib import Path

import matplotlib

matplotlib.use("agg")

import scanpy as sc

import wlm

OUT = Path("demo_output")


def main() -> None:
    OUT.mkdir(exist_ok=True)
    print("Simulating 10,000 cells that develop along a valley which splits; day 2 is kept aside ...")
    everything = wlm.datasets.bifurcation(rng=0)
    sc.pp.normalize_total(everything, target_sum=500)
    sc.pp.log1p(everything)
    adata = everything[everything.obs["day"] != 2].copy()
    sc.pp.pca(adata, n_comps=10)

    wlm.tl.fit(adata, "day")
    missing = wlm.tl.predict(adata, 2, genes=True)
    print(f"\nPredicted {missing.n_obs} cells at day 2, a day the fit has never seen:\n{missing}\n")

    # The cells that were kept aside, in the same principal components.
    truth = everything[everything.obs["day"] == 2]
    mean = adata.X.mean(axis=0)
    observed = (truth.X.toarray() - mean.A1 if hasattr(mean, "A1") else truth.X.toarray() - mean) @ adata.varm["PCs"]
    w1 = wlm.core.metrics.w1
    day = adata.obs["day"].to_numpy()
    before, after = (adata.obsm["X_pca"][day == d] for d in (1, 3))
    midpoint = wlm.core.transport.interpolate(before, after, 0.5)
    rows = {
        "wlm": missing.obsm["X_pca"],
        "copy of day 1": before,
        "copy of day 3": after,
        "optimal-transport midpoint": midpoint,
    }
    print("Distance (W1, 10 PCs) of the prediction and of naive answers to the true day 2:")
    for name, cells in rows.items():
        print(f"  {name:28s} {w1(cells, observed):.3f}")
    half = len(observed) // 2
    print(f"  {'floor: half of day 2':28s} {w1(observed[:half], observed[half:]):.3f}\n")

    for name, plot in (("rollout", wlm.pl.rollout), ("training", wlm.pl.training)):
        plot(adata, return_fig=True).savefig(OUT / f"{name}.png", dpi=120)
    adata.write_h5ad(OUT / "fitted.h5ad")
    missing.write_h5ad(OUT / "day2_predicted.h5ad")
    print("Wrote:", *sorted(str(p) for p in OUT.iterdir()), sep="\n  ")


if __name__ == "__main__":
    main()
