"""What a lab can count on: kill and resume, coverage of the bands, memory of a long fit.

``resume`` kills a fit at random moments and goes on from its checkpoint: are the weights those of a fit that was left
alone? ``coverage`` holds out times of the bifurcation and of the embryoid bodies: how many of their cells lie where an
ensemble expects 95 %? ``memory`` makes 10,000 steps: does the process grow? (``make stress`` runs all of these, and the
fuzz tests with the full number of examples.)
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _report import RESULTS, machine, options, parser, prepare

import wlm
from wlm.core.methods import METHODS
from wlm.core.populations import Populations
from wlm.core.training import train

SMALL = {"batch_size": 64, "width": 16, "heads": 2, "hidden": 16, "n_inducing": 4}
CHILD = """
import json, sys
import anndata as ad
import wlm
adata = ad.read_h5ad(sys.argv[1])
wlm.tl.fit(adata, "day", checkpoint=sys.argv[2], show_progress=False, **json.loads(sys.argv[4]))
adata.write_h5ad(sys.argv[3])
"""


def bifurcation(n_cells: int) -> Any:
    """Simulated cells on five days, with principal components."""
    import scanpy as sc

    adata = wlm.datasets.bifurcation(n_cells, rng=0)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=10)
    return adata


def resume(*, quick: bool) -> dict[str, Any]:
    """Kill a fit at random moments, once or several times each, and compare with one that was not killed."""
    import anndata as ad

    places = 2 if quick else 20
    call = json.dumps({"n_steps": 60 if quick else 300, **SMALL})
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        cells, file, out = (Path(folder, name) for name in ("cells.h5ad", "fit.npz", "out.h5ad"))
        bifurcation(60).write_h5ad(cells)
        command = [sys.executable, "-c", CHILD, *map(str, (cells, file, out)), call]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        begin = time.perf_counter()
        subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)
        whole_seconds = time.perf_counter() - begin
        whole = ad.read_h5ad(out).uns["wlm"]["weights"]
        identical, kills, resumed = 0, 0, 0
        for _ in range(places):
            out.unlink(missing_ok=True)
            wait = rng.uniform(0, whole_seconds)  # during imports, training or writing
            while not out.exists():
                process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
                try:
                    process.wait(timeout=wait)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    kills += 1
                    resumed += file.exists()
                    out.unlink(missing_ok=True)  # half written, if it was killed there
                wait = 600.0
            found = ad.read_h5ad(out).uns["wlm"]["weights"]
            identical += all(np.array_equal(values, found[name]) for name, values in whole.items())
    return {"places": places, "kills": kills, "with a checkpoint": resumed, "identical": identical}


def coverage(*, quick: bool, n_models: int, n_jobs: int, extra: dict[str, Any]) -> pd.DataFrame:
    """Share of held-out coordinates within the 95 % bands, for each data set, method and held-out time."""
    data = {"bifurcation": (bifurcation(100 if quick else 400), "day", "X_pca")}
    if os.environ.get("WLM_DATA_DIR"):
        data["embryoid bodies"] = (wlm.datasets.embryoid_body(), "time", "X_pca")
    rows = []
    for name, (adata, time_key, use_rep) in data.items():
        adata = adata[:: max(1, adata.n_obs // 1000)].copy() if quick else adata
        table = wlm.tl.evaluate(
            adata,
            time_key,
            use_rep=use_rep,
            holdout="all",
            metrics=("w1", "coverage"),
            n_models=n_models,
            n_boot=0,
            n_jobs=n_jobs,
            device="cpu",
            cache=RESULTS / "reliability",
            **extra,
        )
        rows.append(table.assign(data=name))
        print(f"done: {name}", flush=True)
    return pd.concat(rows).pivot_table(index=["data", "time"], columns="model", values="coverage")


def memory(*, quick: bool) -> dict[str, Any]:
    """Resident memory of the process in the course of a fit."""
    rng = np.random.default_rng(0)
    cells = Populations(np.arange(4.0), tuple(rng.normal(size=(200, 3)) + k for k in range(4)))
    n_steps, megabytes = 300 if quick else 10_000, {}
    every = n_steps // 10

    def on_step(step: int, scalars: dict[str, float]) -> None:
        if step % every == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            megabytes[step] = pages * os.sysconf("SC_PAGE_SIZE") / 1024**2

    small = {**SMALL, "batch_size": 32, "width": 8}
    with tempfile.TemporaryDirectory() as folder:
        train(cells, METHODS["wlm"](n_steps=n_steps, **small), on_step=on_step, checkpoint=Path(folder, "fit.npz"))
    first, last = megabytes[every], megabytes[n_steps]
    return {"steps": n_steps, f"MB at {every}": round(first, 1), "MB at the end": round(last, 1), "grown": last - first}


def main() -> None:
    p = parser(__doc__, seeds=1)
    p.add_argument("experiment", choices=["resume", "coverage", "memory", "all"])
    p.add_argument("--models", type=int, default=5, help="models of an ensemble")
    arguments = p.parse_args()
    prepare()
    RESULTS.mkdir(exist_ok=True)
    wanted = ["resume", "coverage", "memory"] if arguments.experiment == "all" else [arguments.experiment]
    print(machine())
    failed = []
    for name in wanted:
        begin = time.perf_counter()
        if name == "coverage":
            extra = {"n_steps": 20} if arguments.quick else {}
            n_models = min(2, arguments.models) if arguments.quick else arguments.models
            table = coverage(
                quick=arguments.quick,
                n_models=n_models,
                n_jobs=arguments.jobs,
                extra={**extra, **options(arguments.option)},
            )
            print(f"\nShare of held-out coordinates within 95 % bands, {n_models} models")
            print(table.to_string(float_format=lambda x: f"{x:.3f}", na_rep="-"))
            result: Any = {"-".join(map(str, k)): v for k, v in table.to_dict("index").items()}
        elif name == "resume":
            result = resume(quick=arguments.quick)
            print("\nKill and resume:", result)
            if result["identical"] < result["places"]:
                failed.append("a resumed fit has other weights")
        else:
            result = memory(quick=arguments.quick)
            print("\nMemory:", result)
            if result["grown"] > 20:
                failed.append("memory grows with the steps")
        path = RESULTS / f"reliability-{name}{'-quick' if arguments.quick else ''}.json"
        path.write_text(json.dumps({"machine": machine(), "result": result}, indent=1))
        print(f"{time.perf_counter() - begin:.0f} s; wrote {path}", flush=True)
    if failed:
        sys.exit("; ".join(failed))


if __name__ == "__main__":
    main()
