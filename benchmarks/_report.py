"""What the benchmark commands share: options, the machine, and the table they print and write."""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed

import wlm
from wlm._logging import logger

RESULTS = Path(__file__).parent / "results"


def parser(description: str, seeds: int = 3) -> argparse.ArgumentParser:
    """Options of every benchmark."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--seeds", type=int, default=seeds)
    p.add_argument("--jobs", type=int, default=2, help="fits at the same time, one thread each")
    p.add_argument("--quick", action="store_true", help="a small version that only shows that it runs")
    p.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="method option other than the default"
    )
    return p


def options(pairs: list[str]) -> dict[str, Any]:
    """Method options from the command line: numbers and booleans as JSON, else text."""

    def value(text: str) -> Any:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text

    return {name: value(text) for name, text in (pair.split("=", 1) for pair in pairs)}


def prepare() -> None:
    """One thread per process, and only warnings from the package."""
    torch.set_num_threads(1)
    os.environ["NUMBA_NUM_THREADS"] = "1"  # scanpy's preprocessing would set that of torch as well
    logger.setLevel(logging.WARNING)
    # The real data of a checkout that has them beside it are used without a download.
    beside = Path(__file__).parents[2] / "shared" / "data"
    if beside.exists():
        os.environ.setdefault("WLM_DATA_DIR", str(beside))


def machine() -> str:
    """The machine and the versions, in one line."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {gpu}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, wlm {wlm.__version__}"
    )


def code() -> str:
    """What identifies the code that is measured: git's hash of src/wlm, with a mark if it was changed since."""
    here = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, check=True, capture_output=True, text=True).stdout.strip()

    return git("rev-parse", "--short", "HEAD:src/wlm") + ("+" if git("status", "--porcelain", "src/wlm") else "")


def peak_memory() -> float:
    """Peak resident memory of this process or its largest child, in GB."""
    kilobytes = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return kilobytes / 1024**2 if sys.platform != "darwin" else kilobytes / 1024**3


def timed(f: Callable[[], Any], repeat: int) -> tuple[float, Any]:
    """Median time of some calls, and the last result."""
    seconds = []
    for _ in range(repeat):
        begin = time.perf_counter()
        out = f()
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds)), out


def run_missing(
    path: Path, jobs: Sequence[tuple], run: Callable[..., Any], n_jobs: int, *, fresh: bool
) -> dict[str, Any]:
    """Results by :func:`key` of each job: those kept in ``path`` by the same code, and ``run(*job)`` for the others.

    Every result is written as soon as it is there, so that an interrupted benchmark goes on where it stopped.
    """
    done = json.loads(path.read_text()) if path.exists() and not fresh else {}
    missing = [job for job in jobs if key(job) not in done]
    print(f"{machine()}\n{len(jobs)} runs, {len(jobs) - len(missing)} of them done before", flush=True)
    RESULTS.mkdir(exist_ok=True)
    parallel = Parallel(n_jobs=n_jobs, return_as="generator_unordered")
    for name, result in parallel(delayed(_named)(run, job) for job in missing):
        done[name] = result
        path.write_text(json.dumps(done, indent=1))
        print(f"done: {name}", flush=True)
    return done


def key(job: tuple) -> str:
    """What a result is kept under: the code that made it, and what it was asked for."""
    return json.dumps([code(), *job])


def _named(run: Callable[..., Any], job: tuple) -> tuple[str, Any]:
    prepare()
    return key(job), run(*job)


def summary(table: pd.DataFrame, metric: str = "w1") -> pd.DataFrame:
    """Mean over held-out times for each model, with the spread over seeds."""
    each = table.groupby(["model", "seed"])[metric].mean().groupby("model")
    by_time = table.pivot_table(index="model", columns="time", values=metric, aggfunc="mean")
    by_time.columns = [f"{metric} at {t:g}" for t in by_time.columns]
    out = by_time.assign(mean=each.mean(), sd=each.std(), seeds=each.size())
    return out.sort_values("mean")


def report(name: str, title: str, table: pd.DataFrame, notes: dict[str, Any]) -> None:
    """Print the summary and write everything to ``benchmarks/results``."""
    print(f"\n{title}\n{machine()}")
    print(summary(table).to_string(float_format=lambda x: f"{x:.4f}", na_rep="-"))
    for key, text in notes.items():
        print(f"{key}: {text}")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), "notes": notes, "rows": table.to_dict("records")}, indent=1))
    print(f"wrote {path}")


def leave_one_out(
    arguments: argparse.Namespace, name: str, title: str, adata: ad.AnnData, time_key: str, use_rep: str = "X_pca"
) -> None:
    """Hold out each inner time in turn with ``tl.evaluate``, and report."""
    extra = options(arguments.option)
    if arguments.quick:
        name, extra, arguments.seeds = f"{name}-quick", {"n_steps": 20, **extra}, 1
        adata = adata[:: max(1, adata.n_obs // 1000)].copy()
    begin = time.perf_counter()
    table = wlm.tl.evaluate(
        adata,
        time_key,
        use_rep=use_rep,
        seeds=arguments.seeds,
        n_jobs=arguments.jobs,
        metrics=("w1",),
        device="cpu",
        **extra,
    )
    wall = time.perf_counter() - begin
    n_fits = int((table["model"] == "wlm").sum())
    report(
        name,
        title,
        table,
        {
            "cells": ", ".join(
                f"{n} at {t:g}" for t, n in adata.obs[time_key].astype(float).value_counts().sort_index().items()
            ),
            "options": extra or "defaults",
            "verdict": table.attrs["verdict"],
            "wall time": f"{wall:.0f} s for {n_fits} fits and scores, {arguments.jobs} at a time",
            "mean fit": f"{table.attrs['seconds']:.0f} s on one thread",
            "peak memory of a process": f"{peak_memory():.2f} GB",
        },
    )
