"""Leave-one-out prediction on data sets other than embryoid bodies: does the same default hold elsewhere?

bifurcation: the simulated cells, 400 a day, in 10 PCs. emt: A549 cells in 10 latent dimensions. reprogramming:
day 10.5 of 250 mouse cells (Schiebinger et al. 2019, ``reprogramming_250.h5ad`` of moscot's tests, read from the
data folder), in 10 PCs.
"""

import os
from pathlib import Path

import anndata as ad
import scanpy as sc
from _report import leave_one_out, parser, prepare

import wlm


def bifurcation(n_cells: int = 400, n_comps: int = 10) -> tuple[ad.AnnData, str, str]:
    adata = wlm.datasets.bifurcation(n_cells)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=n_comps)
    return adata, "day", "X_pca"


def emt() -> tuple[ad.AnnData, str, str]:
    return wlm.datasets.emt(), "time", "X_latent"


def reprogramming() -> tuple[ad.AnnData, str, str]:
    adata = ad.read_h5ad(Path(os.environ["WLM_DATA_DIR"]) / "reprogramming_250.h5ad")
    sc.pp.pca(adata, n_comps=10)
    return adata, "day", "X_pca"


DATA = {f.__name__: f for f in (bifurcation, emt, reprogramming)}

if __name__ == "__main__":
    p = parser(__doc__)
    p.add_argument("data", choices=sorted(DATA))
    arguments = p.parse_args()
    prepare()
    adata, time_key, use_rep = DATA[arguments.data]()
    leave_one_out(arguments, arguments.data, f"{arguments.data}, leave one out", adata, time_key, use_rep)
