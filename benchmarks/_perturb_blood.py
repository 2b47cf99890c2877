"""Known regulators of blood cells turned up on day 2, and the fate that they are known for on day 6."""

from __future__ import annotations

import time

import pandas as pd
import scanpy as sc

import wlm

#: What textbooks say the gene favours, and markers that nobody takes for a cause, with the cells they mark.
REGULATORS = {
    **dict.fromkeys(("Gata1", "Gata2"), "Baso / Mast"),
    **dict.fromkeys(("Cebpb", "Irf8", "Klf4"), "Monocyte"),
    **dict.fromkeys(("Cebpe", "Gfi1"), "Neutrophil"),
}
MARKERS = {
    **dict.fromkeys(("Cpa3", "Mcpt8", "Prss34"), "Baso / Mast"),
    **dict.fromkeys(("Ccr2", "Csf1r"), "Monocyte"),
    **dict.fromkeys(("Elane", "Ltf"), "Neutrophil"),
}
TYPES = {"Neutrophil": "Neutrophil", "Monocyte": "Monocyte", "Baso": "Baso / Mast", "Mast": "Baso / Mast"}
FATES = ("Baso / Mast", "Monocyte", "Neutrophil")


def screened(seed: int, n_null: int, method: str, extra: dict) -> pd.DataFrame:
    """The change in the share of each fate, of each gene."""
    adata = wlm.datasets.larry_clones()
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=20)
    adata.obs["type"] = adata.obs["cell_type"].astype(str).map(TYPES).fillna("other")
    wlm.tl.fit(adata, "day", method=method, rng=seed, backtest=False, show_progress=False, **extra)
    table = wlm.tl.perturb(
        adata,
        [{gene: "up"} for gene in (*REGULATORS, *MARKERS)],
        **{"at": 2, "times": 6, "label_key": "type", "n_null": n_null, "rng": seed},
        show_progress=False,
    )
    rows = table[table["name"].isin(FATES)].assign(seed=seed)
    return rows.assign(gene=rows["perturbation"].str.split().str[0])


def report(table: pd.DataFrame) -> None:
    """A row for each gene, and how often its own fate gains, gains most, and gains beyond random genes."""
    seeds = table["seed"].nunique()
    for title, genes in (("regulators", REGULATORS), ("markers", MARKERS)):
        own = table[table["gene"].isin(genes)]
        known = own[own["name"] == own["gene"].map(genes)]
        most = own.loc[own.groupby(["gene", "seed"])["effect"].idxmax()]
        beyond = (known["p"] <= 0.05 + 1e-9) & (known["effect"] > 0)
        print(f"\n{title}, {seeds} seed(s), {len(known)} cases")
        print(f"  their fate gains in {(known['effect'] > 0).mean():.0%}, beyond random genes in {beyond.mean():.0%}")
        right = most["name"] == most["gene"].map(genes)
        print(f"  it gains most of the three in {(right & (most['effect'] > 0)).mean():.0%}")
        for gene, fate in genes.items():
            rows = known[known["gene"] == gene]
            if not len(rows):
                print(f"  {gene}: refused")
                continue
            null, sure = rows["null_high"].mean(), (rows["p"] <= 0.05 + 1e-9) & (rows["effect"] > 0)
            print(
                f"  {gene} ({fate}): {rows['effect'].mean():+.3f} ± {rows['effect'].std():.3f}, random genes up to "
                f"{null:.3f}, beyond them in {sure.sum()} of {len(rows)}, inside "
                f"{rows['inside'].mean():.2f}"
            )


def main(seeds: int, method: str, extra: dict, *, quick: bool) -> None:
    """Fit with each seed, and print."""
    began, found = time.perf_counter(), []
    for seed in range(1 if quick else seeds):
        found.append(screened(seed, 3 if quick else 39, method, {"n_steps": 5, **extra} if quick else extra))
        print(f"seed {seed}: {time.perf_counter() - began:.0f} s", flush=True)
    report(pd.concat(found, ignore_index=True))
    print("\nBy chance a fate gains most in a third. Seeds are fits to the same cells.")
