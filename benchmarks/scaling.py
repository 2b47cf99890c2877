"""Time and memory against the number of cells, scores against the number of dimensions.

inference        cells of 50 dimensions rolled over ten steps by an untrained WLM of the default size: seconds, peak
                 memory of a process, and the exponent of time; and how far cells that move in parts are from where
                 they are in the whole population, for a model that was trained a little
training         twenty steps of WLM with its defaults on populations of 50 dimensions at five times, in memory and on
                 disk (zarr): seconds of the first step with all that goes before it, seconds of a step, peak memory
fit              a whole ``tl.fit`` of five steps on cells of 50 dimensions, with the results of every cell: seconds,
                 and peak memory in sizes of the representation
journey          what a user runs, with the defaults, on cells of 50 dimensions that part in five days: a fit, a
                 missing day, terminal states, fates, transitions, a report: seconds of each, and peak memory
dimensions       W1 on the held-out middle day of the simulated bifurcation in 5, 20, 50 and 100 PCs with the defaults,
                 beside the naive answers

Every size of the first four runs in a process of its own, one after the other, on all threads.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import torch
import zarr
from _report import RESULTS, machine, peak_memory, prepare
from leave_one_out import bifurcation

import wlm
from wlm.core.dynamics import CHUNK, Dynamics
from wlm.core.methods import WLM
from wlm.core.populations import Populations
from wlm.core.training import train

SIZES, DIM, STEPS = (10_000, 100_000, 1_000_000), 50, 10


def dynamics(dim: int, n_steps: int, n_steps_inside: int) -> Dynamics:
    """A model of the default size after a few steps of training, with so many steps of its integrator per interval."""
    rng = np.random.default_rng(0)
    clouds = tuple((rng.normal(size=(500, dim)) + 0.5 * k).astype(np.float32) for k in range(3))
    return train(Populations(np.arange(3.0), clouds), WLM(n_steps=n_steps, max_step=1 / n_steps_inside)).dynamics


def inference(n: int, dim: int) -> dict[str, Any]:
    """One size, in this process."""
    model = dynamics(dim, 2, STEPS)
    before = peak_memory()
    rng = np.random.default_rng(1)
    x = rng.standard_normal((n, dim), dtype=np.float32)
    begin = time.perf_counter()
    moved, *_ = model.simulate(x, [0.0, 1.0], v=np.zeros_like(x))
    seconds = time.perf_counter() - begin
    assert np.isfinite(moved).all()
    return {"cells": n, "s": seconds, "us per cell and step": 1e6 * seconds / n / STEPS, "peak GB": peak_memory()} | {
        "GB before": before
    }


def clouds_on_disk(n: int, dim: int, folder: str) -> list[Any]:
    """Five populations of ``n`` cells in all as dask arrays of zarr files, written in parts."""
    rng, out = np.random.default_rng(1), []
    for k in range(5):
        array = zarr.create_array(f"{folder}/{k}.zarr", shape=(n // 5, dim), chunks=(50_000, dim), dtype="f4")
        for start in range(0, n // 5, 50_000):
            size = min(50_000, n // 5 - start)
            array[start : start + size] = rng.standard_normal((size, dim), dtype=np.float32) + np.float32(0.5 * k)
        out.append(da.from_zarr(f"{folder}/{k}.zarr"))
    return out


def training(n: int, dim: int, n_steps: int, *, disk: bool) -> dict[str, Any]:
    """One size, in this process: ``n`` cells in all."""
    with tempfile.TemporaryDirectory() as folder:
        if disk:
            return train_on(clouds_on_disk(n, dim, folder), n_steps)
        rng = np.random.default_rng(1)
        shape = n // 5, dim
        return train_on([rng.standard_normal(shape, dtype=np.float32) + np.float32(0.5 * k) for k in range(5)], n_steps)


def train_on(clouds: list[Any], n_steps: int) -> dict[str, Any]:
    before, at = peak_memory(), [time.perf_counter()]
    train(
        Populations(np.arange(5.0), tuple(clouds)),
        WLM(n_steps=n_steps),
        on_step=lambda *_: at.append(time.perf_counter()),
    )
    steps = np.diff(at)
    return {
        "cells": sum(x.shape[0] for x in clouds),
        "on disk": not isinstance(clouds[0], np.ndarray),
        "s before and with the first step": steps[0],
        "s per step": float(np.median(steps[1:])),
        "GB of the cells": sum(x.nbytes for x in clouds) / 1e9,
        "peak GB": peak_memory(),
    } | {"GB before": before}


def whole_fit(n: int, dim: int) -> dict[str, Any]:
    """One size, in this process: ``n`` cells in all."""
    rng, times = np.random.default_rng(1), np.repeat(np.arange(5.0), n // 5)
    x = rng.standard_normal((len(times), dim), dtype=np.float32) + np.float32(0.5) * times[:, None].astype(np.float32)
    adata = ad.AnnData(obs=pd.DataFrame({"day": times}, index=[f"c{i}" for i in range(len(times))]), obsm={"X_pca": x})
    size = x.nbytes
    del x
    # What the first fit of a process loads and keeps is not the atlas's.
    wlm.tl.fit(adata[:: max(1, n // 1000)].copy(), "day", n_steps=1, show_progress=False)
    before, begin = peak_memory(), time.perf_counter()
    wlm.tl.fit(adata, "day", n_steps=5, show_progress=False)
    return {
        "cells": n,
        "s": time.perf_counter() - begin,
        "GB of the cells": size / 1e9,
        "peak GB": peak_memory(),
        "beyond before, in sizes of the cells": 1e9 * (peak_memory() - before) / size,
    }


def journey(n: int, dim: int) -> dict[str, Any]:
    """One size, in this process: ``n`` cells in all."""
    rng, times = np.random.default_rng(1), np.repeat(np.arange(5.0), n // 5)
    x = rng.standard_normal((len(times), dim), dtype=np.float32)
    x[:, 0] += 1.5 * (np.arange(len(times)) % 2 - 0.5) * times.astype(np.float32) ** 1.5
    x[:, 1] += times.astype(np.float32)
    adata = ad.AnnData(obs=pd.DataFrame({"day": times}, index=[f"c{i}" for i in range(len(times))]), obsm={"X_pca": x})
    out: dict[str, Any] = {"cells": n}
    begun = time.process_time()
    steps: list[tuple[str, Any]] = [
        ("fit", lambda: wlm.tl.fit(adata, "day", show_progress=False)),
        ("predict", lambda: wlm.tl.predict(adata, 2.5)),
        ("terminal states", lambda: wlm.tl.terminal_states(adata)),
        ("fates", lambda: wlm.tl.fates(adata)),
        ("report", lambda: wlm.report(adata, Path(folder, "report.html"), show_progress=False)),
        ("transitions", lambda: wlm.tl.transitions(adata)),
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name, call in steps:
            begin, used = time.perf_counter(), time.process_time()
            call()
            out[f"{name}, s"] = time.perf_counter() - begin
            out[f"{name}, s of the processor"] = time.process_time() - used
            print(name, {k: v for k, v in out.items() if name in k}, peak_memory(), file=sys.stderr, flush=True)
    out["all, s of the processor"] = time.process_time() - begun
    return out | {"GB of the cells": x.nbytes / 1e9, "peak GB": peak_memory()}


def dimensions(arguments: Any) -> None:
    """Held-out scores against the number of dimensions."""
    prepare()
    wanted = (5, 20) if arguments.quick else (5, 20, 50, 100)
    adata = bifurcation(100 if arguments.quick else 400, wanted[-1])[0]
    extra = {"n_steps": 5} if arguments.quick else {}
    seeds, rows = arguments.seeds or 1, {}
    for d in wanted:
        table = wlm.tl.evaluate(
            adata, "day", n_dims=d, holdout=[2], metrics="w1", seeds=seeds, device="cpu", n_boot=0, **extra
        )
        rows[d] = table.groupby("model")["w1"].mean()
    frame = pd.DataFrame(rows).T
    print(f"{machine()}; {seeds} seeds, {adata.n_obs} cells\n{frame.to_string(float_format='%.3f')}")
    path = RESULTS / f"scaling-dimensions{'-quick' if arguments.quick else ''}.json"
    path.write_text(json.dumps({"machine": machine(), "w1": json.loads(frame.to_json(orient="index"))}, indent=1))
    print(f"wrote {path}")


def each_size(what: str, sizes: tuple[tuple[int, bool], ...], quick: bool) -> pd.DataFrame:  # noqa: FBT001
    """The rows of all sizes, in memory or on disk, each from a process of its own."""
    rows = []
    for n, disk in sizes:
        extra = [*(["--quick"] if quick else []), *(["--disk"] if disk else [])]
        call = [sys.executable, __file__, what, "--one", str(n), *extra]
        rows.append(
            json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        )
    return pd.DataFrame(rows)


def agreement(n: int, dim: int, n_steps: int) -> pd.DataFrame:
    """Distance of cells that moved in parts from where they are in the whole population, relative to their way."""
    model = dynamics(dim, n_steps, 4)
    x = np.random.default_rng(1).standard_normal((n, dim), dtype=np.float32)
    whole = model.simulate(x, [0.0, 2.0], chunk_size=n)[0][-1]
    moved = np.sqrt(np.square(whole - x).sum(1).mean())
    rows = []
    for size in (n // 100, n // 25, n // 5, n // 2):
        parts = model.simulate(x, [0.0, 2.0], chunk_size=size)[0][-1]
        error = np.sqrt(np.square(parts - whole).sum(1).mean())
        rows.append(
            {"cells together": size, "error / displacement": error / moved, "error / spread": error / whole.std()}
        )
    return pd.DataFrame(rows)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true", help="a small version that only shows that it runs")
    p.add_argument("--seeds", type=int, help="fits of each number of dimensions (default: 1)")
    p.add_argument("what", choices=["inference", "training", "fit", "journey", "dimensions"])
    p.add_argument("--one", type=int, help="only this number of cells, in this process")
    p.add_argument("--disk", action="store_true", help="with --one: training cells on disk")
    arguments = p.parse_args()
    if arguments.seeds and arguments.what != "dimensions":
        p.error("--seeds is of dimensions alone")
    if arguments.disk and (arguments.what != "training" or not arguments.one):
        p.error("--disk is of training with --one alone")
    RESULTS.mkdir(exist_ok=True)
    if arguments.what == "dimensions":
        dimensions(arguments)
        return
    sizes, dim = ((1_000, 20_000), 10) if arguments.quick else (SIZES, DIM)
    if arguments.what == "fit":
        sizes = sizes[: len(sizes) - (not arguments.quick)]
    if arguments.what == "journey":
        sizes = (2_000,) if arguments.quick else (50_000, 1_000_000)
    if arguments.one:
        if arguments.what == "training":
            one = training(arguments.one, dim, 3 if arguments.quick else 20, disk=arguments.disk)
        else:
            one = {"fit": whole_fit, "journey": journey, "inference": inference}[arguments.what](arguments.one, dim)
        print(json.dumps(one))
        return
    print(f"{machine()}, {torch.get_num_threads()} threads; {dim} dimensions, {STEPS} steps, parts of {CHUNK}")
    both = arguments.what == "training"
    on_disk = sizes if arguments.quick or not both else (*sizes, 10 * sizes[-1])
    runs = (*((n, False) for n in sizes), *((n, True) for n in on_disk if both))
    table = each_size(arguments.what, runs, arguments.quick)
    print(table.to_string(index=False, float_format=lambda x: f"{x:.3g}"))
    path = RESULTS / f"scaling-{arguments.what}{'-quick' if arguments.quick else ''}.json"
    if arguments.what != "inference":
        path.write_text(json.dumps({"machine": machine(), arguments.what: table.to_dict("records")}, indent=1))
        print(f"wrote {path}")
        return
    exponent = np.polyfit(np.log(table["cells"]), np.log(table["s"]), 1)[0]
    print(f"exponent of time against cells: {exponent:.2f}")
    n, n_steps = (5_000, 10) if arguments.quick else (50_000, 200)
    close = agreement(n, 5, n_steps)
    print(f"\nagreement with the whole population of {n} cells, 5 dimensions, after {n_steps} training steps")
    print(close.to_string(index=False, float_format=lambda x: f"{x:.2g}"))
    rows = table.to_dict("records")
    result = {"machine": machine(), "inference": rows, "exponent": exponent, "agreement": close.to_dict("records")}
    path.write_text(json.dumps(result, indent=1))
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
