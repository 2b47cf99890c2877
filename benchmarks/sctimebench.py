"""wlm as a method of scTimeBench, beside naive answers: its command, its split, its four scores of predicted genes.

scTimeBench (PyPI, MIT) runs a method in a process of its own, hands it the training times, and then the first time and
the held-out times in order: the method says which genes the cells of each of them express at the next. All genes count.
Its own data sets have to be downloaded; here are

bifurcation    simulated cells, 400 a day on days 0 to 4, 150 genes
reprogramming  the 250 cells of days 10, 10.5 and 11 of moscot's tests (Schiebinger et al. 2019), 1479 genes

log-normalised, read by its class for the MEF cells, which takes any h5ad with a ``timepoint``. Two tasks, as in its
tables: times between others are held out ("between"), or the last ("after"). Methods:

wlm       a fit with defaults on 10 PCs of the training times, which predicts the population at the next time from the
          training cells alone, decoded by the PCs (``tl.predict(genes=True)``)
midpoint  the point between cells of the two training times around, paired by optimal transport on the same PCs, decoded
          alike; after the last time, its cells
pcs       the held-out cells themselves on those PCs, decoded: what a perfect prediction in 10 PCs would score
stay      cells do not move

wlm and its environment are those of peers.py (``.venv-peers``).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import anndata as ad

HERE = Path(__file__).parent
#: Held-out times of each task.
TASKS = {
    "bifurcation": {"between": [1.0, 3.0], "after": [4.0]},
    "reprogramming": {"between": [10.5], "after": [11.0]},
}
METHODS = ("wlm", "midpoint", "pcs", "stay")
TIME = "scTimeBench_timepoint"


def method(name: str) -> Any:
    """The class of a method, as scTimeBench wants it: ``train`` sees the training times, ``generate_next_tp_gex`` a
    test set, for each cell of which it returns the genes at the next time, and NaN for those of the last.
    """
    import scanpy as sc
    from scTimeBench.method_utils.method_runner import BaseMethod

    import wlm
    from wlm.core.transport import interpolate

    class Method(BaseMethod):
        def train(self, ann_data: ad.AnnData, all_tps: list[float] | None = None) -> None:
            self.cells = ann_data
            options = self.config["method"]["metadata"]
            sc.pp.pca(ann_data, n_comps=10, mask_var=None)
            self.mean = np.asarray(ann_data.X.mean(0)).ravel()
            self.seed = options["seed"]
            if name == "wlm":
                wlm.tl.fit(ann_data, TIME, rng=self.seed, device="cpu", show_progress=False, **options["options"])

        def generate_next_tp_gex(self, test_ann_data: ad.AnnData) -> np.ndarray:
            at = test_ann_data.obs[TIME].to_numpy()
            genes = np.full(test_ann_data.shape, np.nan, dtype=np.float32)
            times = np.unique(at)
            for now, then in zip(times[:-1], times[1:], strict=True):
                genes[at == now] = self.predict(then, test_ann_data[at == now], test_ann_data[at == then])
            return genes

        def predict(self, then: float, source: ad.AnnData, target: ad.AnnData) -> np.ndarray:
            n = source.n_obs
            if name == "wlm":
                return np.asarray(wlm.tl.predict(self.cells, then, n_cells=n, genes=True, rng=self.seed).X)
            if name == "stay":
                return dense(source.X)
            rng = np.random.default_rng(self.seed)
            loadings = self.cells.varm["PCs"]
            if name == "pcs":
                x = (dense(target.X) - self.mean) @ loadings
            else:
                known = self.cells.obs[TIME].to_numpy()
                before = known[known < then].max()
                x = self.cells.obsm["X_pca"][known == before]
                if (known > then).any():
                    after = known[known > then].min()
                    tau = (then - before) / (after - before)
                    x = interpolate(x, self.cells.obsm["X_pca"][known == after], tau, seed=self.seed)
            return x[rng.choice(len(x), n, replace=len(x) < n)] @ loadings.T + self.mean

    return Method


def dense(x: Any) -> np.ndarray:
    return np.asarray(x.toarray() if hasattr(x, "toarray") else x, dtype=np.float32)


def cells(name: str, path: Path) -> None:
    """Cells in a file as scTimeBench's reader wants it."""
    import scanpy as sc
    from leave_one_out import DATA

    adata, time_key, _ = DATA[name]()
    out = sc.AnnData(dense(adata.X), var=adata.var[[]].copy())
    out.obs["timepoint"] = adata.obs[time_key].astype(float).to_numpy()
    out.write_h5ad(path)


def scores(name: str, task: str, tool: str, arguments: argparse.Namespace, seed: int, folder: Path) -> dict[str, float]:
    """Scores of a method by scTimeBench's own run, mean over held-out times, and the processor time of the method."""
    from scTimeBench.config import Config
    from scTimeBench.main import run_metrics

    script, config, seconds = folder / f"{tool}.sh", folder / f"{tool}.json", folder / f"{tool}.seconds"
    script.write_text(f'exec "{sys.executable}" "{__file__}" --method {tool} "{seconds}" "$1"\n')
    steps = [{"name": "TestTimepointSelection", "test_tps": TASKS[name][task]}]
    content = {  # JSON is YAML
        "datasets": [
            {"name": "MEFDataset", "data_path": str(folder / "cells.h5ad"), "data_preprocessing_steps": steps}
        ],
        "method": {
            **{"name": tool, "train_and_test_script": str(script)},
            "metadata": {"seed": seed, "options": {"n_steps": 5} if arguments.quick else {}},
        },
        "metrics": [{"name": "OTLossMetric"}],
    }
    config.write_text(json.dumps(content))
    run = folder / f"{name}-{task}-{tool}-{seed}"
    given, sys.argv = sys.argv, [sys.argv[0], "--config", str(config), "--log_level", "WARNING"]
    sys.argv += ["--output_dir", str(run), "--database_path", f"{run}.db"]
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            run_metrics(Config())
    finally:
        sys.argv = given
    query = "SELECT metrics.name, result, metrics.parameters FROM evals JOIN metrics ON metric_id = metrics.id"
    with contextlib.closing(sqlite3.connect(f"{run}.db")) as database:
        found = database.execute(query).fetchall()
    # Beside the mean of a metric there is a row for each time.
    means = {metric: float(json.loads(result)) for metric, result, at in found if "timepoint" not in json.loads(at)}
    return {**means, "s": float(seconds.read_text())}


def run_method(tool: str, seconds: str, config: str) -> None:
    """What scTimeBench starts: a method, whose processor time goes to a file."""
    from scTimeBench.method_utils.method_runner import main as run

    sys.argv = [sys.argv[0], "--yaml_config", config]
    chosen = method(tool)
    begin = time.process_time()
    run(chosen)
    Path(seconds).write_text(str(time.process_time() - begin))


def measure(arguments: argparse.Namespace) -> None:
    """All methods in the peers' environment, and the table of their scores."""
    import pandas as pd
    from _report import RESULTS, code, machine, prepare

    prepare()
    warnings.filterwarnings("ignore", "The dtype argument", FutureWarning)  # scTimeBench's AnnData(dtype=)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ["reprogramming"] if arguments.quick else arguments.data or TASKS:
            cells(name, folder / "cells.h5ad")
            for task in ["between"] if arguments.quick else TASKS[name]:
                for tool in METHODS[:2] if arguments.quick else METHODS:
                    for seed in range(1 if arguments.quick else arguments.seeds):
                        found = scores(name, task, tool, arguments, seed, folder)
                        rows.append({"data": name, "task": task, "method": tool, "seed": seed, **found})
                        print("done:", rows[-1], flush=True)
    frame = pd.DataFrame(rows)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"sctimebench{'-quick' if arguments.quick else ''}.json"
    path.write_text(json.dumps({"code": code(), "machine": machine(), "rows": rows}, indent=1))
    table = frame.drop(columns="seed").groupby(["data", "task", "method"], sort=False).agg(["mean", "std"])
    print(f"{machine()}\n{table.to_string(float_format='%.4g')}\n{frame['seed'].nunique()} seed(s); wrote {path}")


def main() -> None:
    if sys.argv[1:2] == ["--method"]:
        run_method(*sys.argv[2:])
        return
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--quick", action="store_true", help="a small version that only shows that it runs")
    p.add_argument("--data", action="append", choices=list(TASKS), help="only this data set; repeatable")
    arguments = p.parse_args()
    if importlib.util.find_spec("scTimeBench"):
        measure(arguments)
        return
    from peers import PYTHON, environment

    environment()
    subprocess.run([PYTHON, __file__, *sys.argv[1:]], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


if __name__ == "__main__":
    main()
