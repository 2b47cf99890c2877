"""Mouse reprogramming, 250 cells of days 10, 10.5 and 11: day 10.5 predicted from the others, in 10 PCs.

Reads ``reprogramming_250.h5ad`` (Schiebinger et al. 2019, as in moscot's tests) from the data folder.
"""

import os
import time
from pathlib import Path

import anndata as ad
import scanpy as sc
from _report import options, parser, peak_memory, prepare, report

import wlm


def main() -> None:
    arguments = parser(__doc__).parse_args()
    prepare()
    extra = options(arguments.option)
    if arguments.quick:
        extra, arguments.seeds = {"n_steps": 20, **extra}, 1
    adata = ad.read_h5ad(Path(os.environ["WLM_DATA_DIR"]) / "reprogramming_250.h5ad")
    sc.pp.pca(adata, n_comps=10)
    begin = time.perf_counter()
    table = wlm.tl.evaluate(
        adata, "day", seeds=arguments.seeds, n_jobs=arguments.jobs, metrics=("w1",), device="cpu", **extra
    )
    report(
        "reprogramming-quick" if arguments.quick else "reprogramming",
        "Reprogramming, day 10.5 from days 10 and 11, 10 PCs",
        table,
        {
            "options": extra or "defaults",
            "cells": adata.obs["day"].value_counts().sort_index().to_dict(),
            "verdict": table.attrs["verdict"],
            "wall time": f"{time.perf_counter() - begin:.0f} s, mean fit {table.attrs['seconds']:.0f} s on one thread",
            "peak memory of a process": f"{peak_memory():.2f} GB",
        },
    )


if __name__ == "__main__":
    main()
