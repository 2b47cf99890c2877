"""From raw spliced and unspliced counts to a rollout: python scripts/raw_counts.py counts.h5ad [folder].

The file needs layers "spliced" and "unspliced" and nothing else. Cells of one sample have no days: the order of the
cells along their velocities stands in for time. With sampling times in obs, name them instead of the bins.
"""

import sys
from pathlib import Path

import anndata as ad
import matplotlib

import wlm


def main(path: str, folder: str = "demo_output") -> None:
    matplotlib.use("agg")
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    adata = ad.read_h5ad(path)

    wlm.pp.velocity(adata, n_neighbors=min(30, adata.n_obs // 3), pseudotime=True)
    wlm.pp.bin_time(adata, key="velocity_pseudotime", n_bins=3)
    report = wlm.pp.doctor(adata, time_key="velocity_pseudotime_bin", velocity_key="auto")
    print(report.loc[report["level"] != "ok", ["level", "check", "found"]].to_string(index=False))

    wlm.tl.fit(adata, "velocity_pseudotime_bin", velocity_key="auto", n_dims=10, n_steps=200)
    note = adata.uns["wlm"]["velocity"]
    print(f"velocities times {note['scale']:.3g} are speeds; mean cosine with the drift {note['agreement'].round(2)}")
    best = adata.var["wlm_decode_r2"].sort_values(ascending=False).index[:3].tolist()
    wlm.pl.rollout(adata, return_fig=True).savefig(out / "rollout.png", dpi=150)
    wlm.pl.genes(adata, best, return_fig=True).savefig(out / "genes.png", dpi=150)
    adata.write_h5ad(out / "fitted.h5ad")
    print(f"wrote {out}/rollout.png, genes.png and fitted.h5ad")


if __name__ == "__main__":
    main(*sys.argv[1:])
