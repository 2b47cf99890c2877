"""This source against that of an earlier commit: default fits, whole evaluations, a busy machine, and starting up.

Each source runs in processes of its own, by turns, on one thread, in the environment of this one.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from doctor import write_cells
from worth import data

from wlm.core.metrics import w1

#: What is timed in another process, on whichever source: after a fit that imports everything, one with the defaults.
CHILD = """
import json, logging, sys, time
import anndata as ad, numpy as np, pandas as pd, torch
ask = json.loads(sys.argv[1])
if ask["one_thread"]:
    torch.set_num_threads(1)
import wlm
logging.disable(logging.WARNING)
file = np.load(ask["cells"])
obs = pd.DataFrame({"time": file["times"]}, index=[f"c{i}" for i in range(len(file["times"]))])
adata = ad.AnnData(obs=obs, obsm={"X": file["x"]})
options = {"use_rep": "X", "device": "cpu", **ask["options"]}
wlm.tl.fit(adata, "time", holdout=ask["held"], show_progress=False, **{**options, "n_steps": 1})
begin, cpu = time.perf_counter(), time.process_time()
if ask["evaluate"]:
    wlm.tl.evaluate(adata, "time", rng=ask["seed"], **options)
else:
    wlm.tl.fit(adata, "time", holdout=ask["held"], rng=ask["seed"], show_progress=False, **options)
spent = {"seconds": time.perf_counter() - begin, "cpu": time.process_time() - cpu}
if not ask["evaluate"]:
    predicted = wlm.tl.predict(adata, ask["held"], rng=ask["seed"])
    np.savez(ask["out"], **{str(t): predicted.obsm["X"][predicted.obs["time"] == t] for t in ask["held"]})
print(json.dumps(spent))
"""
#: Data sets whose default fits are compared, with the times held out together.
VERSUS = {"eb": [2.0], "bifurcation": [2.0], "emt": [1.0]}
#: Cells of the file that the doctor looks at, and fresh processes of each start.
N_DOCTOR, N_STARTS = 2000, 5


class Sources:
    """The source of ``ref`` beside this one, and processes that run on either."""

    def __init__(self, ref: str, folder: Path):
        here = Path(__file__).parents[1]
        archive = subprocess.run(["git", "archive", ref, "src"], cwd=here, check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")
        self.folder, self.paths = folder, {ref: folder / "src", "now": here / "src"}

    def run(self, source: str, arguments: list[str], *, one_thread: bool = True) -> str:
        """What Python prints, given these arguments."""
        environment = {**os.environ, "PYTHONPATH": str(self.paths[source]), "MPLBACKEND": "agg"}
        if one_thread:
            environment |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        else:
            for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
                environment.pop(name, None)
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    def fit(self, source: str, name: str, seed: int, most: int | None, **ask: Any) -> dict[str, float]:
        """Seconds of a fit (or an evaluation) of a data set, and of a fit the W1 of the times held out."""
        cells, _ = data(name, seed, most)
        times = np.repeat(sorted(cells), [len(cells[t]) for t in sorted(cells)])
        file, out = self.folder / "cells.npz", self.folder / "out.npz"
        np.savez(file, times=times, x=np.concatenate([cells[t] for t in sorted(cells)]))
        ask = {"evaluate": False, "one_thread": True, **ask}
        ask |= {"cells": str(file), "out": str(out), "held": VERSUS[name], "seed": seed}
        printed = self.run(source, ["-c", CHILD, json.dumps(ask)], one_thread=ask["one_thread"])
        spent = json.loads(printed.splitlines()[-1])
        if not ask["evaluate"]:
            predicted = np.load(out)
            spent["W1"] = float(np.mean([w1(predicted[str(t)], cells[t]) for t in VERSUS[name]]))
        return spent


def versus(ref: str, seeds: int, *, evaluate: bool, quick: bool) -> pd.DataFrame:
    """Seconds and held-out W1 of default fits by this source and by that of the commit ``ref``."""
    rows, options = [], {"n_steps": 3} if quick else {}
    asked = [(name, seed, False) for name in VERSUS for seed in range(seeds)]
    asked = asked[:1] if quick else asked
    asked += [("eb", 0, True)] if evaluate else []
    with tempfile.TemporaryDirectory() as folder:
        sources = Sources(ref, Path(folder))
        for name, seed, whole in asked:
            most = 60 if quick else 2000 if whole else None
            row: dict[str, Any] = {"data": f"{name}, evaluate" if whole else name, "seed": seed}
            for source in sources.paths:
                spent = sources.fit(source, name, seed, most, evaluate=whole, options=options)
                row |= {f"{k}, {source}": x for k, x in spent.items()}
            row["times faster"] = row[f"cpu, {ref}"] / row["cpu, now"]
            rows.append(row)
            print(row, flush=True)
    return pd.DataFrame(rows)


@contextlib.contextmanager
def busy(n: int) -> Iterator[None]:
    """So many processes that do nothing but compute, as long as this one lives."""
    endless = f"import os\nwhile os.getppid() == {os.getpid()}: pass"
    others = [subprocess.Popen([sys.executable, "-c", endless]) for _ in range(n)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def crowded(ref: str, n: int, *, quick: bool) -> pd.DataFrame:
    """Seconds on the clock of a default fit of the bifurcation, alone and beside ``n`` busy processes.

    Numbers of threads are those a user would have: torch's and numba's own.
    """
    rows, options = [], {"n_steps": 3} if quick else {}
    with tempfile.TemporaryDirectory() as folder:
        sources = Sources(ref, Path(folder))
        for source in sources.paths:
            row: dict[str, Any] = {"source": source}
            for name, others in (("alone", 0), ("busy", n)):
                with busy(others):
                    spent = sources.fit(
                        source, "bifurcation", 0, 60 if quick else None, one_thread=False, options=options
                    )
                row[f"{name}, s"] = spent["seconds"]
            rows.append({**row, "busy / alone": row["busy, s"] / row["alone, s"]})
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def start(ref: str, *, quick: bool) -> pd.DataFrame:
    """Seconds on the clock of importing the package and of ``wlm doctor`` on 2,000 cells, medians by turns."""
    with tempfile.TemporaryDirectory() as folder:
        sources, file = Sources(ref, Path(folder)), Path(folder, "cells.h5ad")
        write_cells(file, 200 if quick else N_DOCTOR)
        asked = {"import wlm": ["-c", "import wlm"], "doctor": ["-m", "wlm", "doctor", str(file), "--device", "cpu"]}
        spent: dict[tuple[str, str], list[float]] = {(what, source): [] for what in asked for source in sources.paths}
        for _ in range(1 if quick else N_STARTS):
            for what, source in spent:
                begin = time.perf_counter()
                sources.run(source, asked[what])
                spent[what, source].append(time.perf_counter() - begin)
    table = pd.Series({k: float(np.median(v)) for k, v in spent.items()}).unstack()[list(sources.paths)]
    return table.assign(ratio=table["now"] / table[ref]).rename_axis("what").reset_index()
