"""Training on each device of this machine: time of a step, share of what the device can do, agreement, time to a score.

Needs ``wlm.core`` alone (torch, numpy and scipy). For the processor and, where there is
one, the GPU, on request also with TF32:

steps      seconds of a training step of WLM (with attention, plain and compiled, and with moments, heads=0) and
           iJKOnet at several shapes; arithmetic of the
           step as torch counts it (products of matrices and attention), and the share of the time that it would take at
           the rate of a large product of matrices measured in the same run (1 is the floor); on a GPU also how many
           kernels a step starts, and the share of the time that as many of the smallest would take
agreement  largest difference between the devices of a rollout, energies and forces of one model
fits       seconds of a default fit, first the paths of cells (on the processor, which needs POT) and then its training,
           with the W1 of a held-out population
score      seconds until the W1 of a held-out population is below 1.05 times that of a long training on the processor
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from wlm.core.dynamics import Dynamics
from wlm.core.methods import WLM, IJKOnet
from wlm.core.methods._base import Method
from wlm.core.populations import Populations
from wlm.core.training import train

#: Cells of a batch, dimensions, intervals; compiling takes long, so that it is tried at two of them.
SHAPES = ((111, 2, 4), (256, 5, 4), (1024, 5, 4), (1024, 50, 4), (4096, 50, 4))
COMPILED = ((256, 5, 4), (1024, 50, 4))


def populations(n: int, dim: int, intervals: int, seed: int = 0) -> Populations:
    """Cells in two groups that part while they spread: nothing but numpy is needed to make them."""
    rng = np.random.default_rng(seed)
    side = np.sign(rng.normal(size=(n, 1)))
    x0 = rng.normal(size=(n, dim))
    times = np.arange(intervals + 1.0)
    along = np.eye(dim)[0]
    return Populations(times, tuple(x0 * (1 + 0.05 * t) + side * along * 0.3 * t**2 for t in times))


def devices(chosen: list[str], *, tf32: bool) -> list[tuple[str, str]]:
    """Each device with its precision of products: TF32 may be tried on the GPU."""
    high = [("cuda", "high")] if tf32 and "cuda" in chosen else []
    return [(device, "highest") for device in chosen] + high


def now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def ceiling(device: str, seconds: float) -> float:
    """Operations per second of a large product of matrices."""
    n = 8192 if device == "cuda" else 1024
    a = torch.randn(n, n, device=device)
    a @ a
    count, begin = 0, now(device)
    while now(device) - begin < seconds:
        a @ a
        count += 1
    return 2 * n**3 * count / (now(device) - begin)


class Operations(TorchDispatchMode):
    """Counts the arithmetic of products of matrices and attention (``FlopCounterMode`` fails on inner gradients)."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def step_time(method: Method, cells: Populations, device: str) -> tuple[float, float]:
    """Seconds and counted operations of the training step of median duration."""
    at = [now(device)]
    train(cells, method, device=device, on_step=lambda *_: at.append(now(device)))
    # Horizons are drawn, so that steps differ: the median step in time, and its operations.
    counted = [0]
    with Operations() as operations:
        plain = replace(method, compile=False) if isinstance(method, WLM) else method
        train(cells, plain, device=device, on_step=lambda *_: counted.append(operations.total))
    # A shape is compiled when it first occurs, and once more when a second one does.
    skip = len(at) // 2 if getattr(method, "compile", False) else 1
    seconds, each = np.diff(at)[skip:], np.diff(counted)[skip:]
    typical = np.argsort(seconds)[len(seconds) // 2]
    return float(seconds[typical]), float(each[typical])


def launches(method: Method, cells: Populations, n_steps: int = 10) -> float:
    """Kernels that a step starts on the GPU; a graph of kernels counts as one."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        train(cells, replace(method, n_steps=n_steps), device="cuda")
    starts = ("cudaLaunchKernel", "cuLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernelEx", "cudaGraphLaunch")
    return sum(event.count for event in seen.key_averages() if event.key in starts) / n_steps


def per_launch(n: int = 20_000) -> float:
    """Seconds for each of many kernels with next to nothing to do."""
    x = torch.zeros(256, device="cuda")
    begin = now("cuda")
    for _ in range(n):
        x.add_(1)
    return (now("cuda") - begin) / n


def steps(chosen: list[str], *, quick: bool, tf32: bool) -> list[dict[str, Any]]:
    rows = []
    smallest = per_launch() if "cuda" in chosen else 0.0
    for device, precision in devices(chosen, tf32=tf32):
        torch.set_float32_matmul_precision(precision)
        peak = ceiling(device, 0.2 if quick else 2.0)
        print(f"{device} ({precision}): {peak / 1e9:.0f} GFLOP/s in a product of matrices")
        # The largest takes too long on a processor.
        for n, dim, intervals in SHAPES[:2] if quick else SHAPES if device == "cuda" else SHAPES[:-1]:
            cells = populations(2 * n, dim, intervals)
            common = {"n_steps": 4 if quick else 20, "batch_size": n}
            configs: list[Method] = [WLM(**common), WLM(**common, heads=0), IJKOnet(**common)]
            if not quick and (n, dim, intervals) in COMPILED and precision == "highest":
                configs.append(WLM(**common, compile=True))
            for config in configs:
                seconds, operations = step_time(config, cells, device)
                rows.append(
                    {
                        "device": device,
                        "precision": precision,
                        "method": config.name + kind(config),
                        "cells": n,
                        "dimensions": dim,
                        "intervals": intervals,
                        "ms": 1e3 * seconds,
                        "GFLOP": operations / 1e9,
                        "floor / time": operations / peak / seconds,
                    }
                )
                if device == "cuda" and not getattr(config, "compile", False):
                    n_launches = launches(config, cells)
                    rows[-1] |= {"launches": n_launches, "launches / time": n_launches * smallest / seconds}
                print(" ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in rows[-1].values()), flush=True)
    return rows


def kind(method: Method) -> str:
    """What is not the default."""
    moments = ", moments" if getattr(method, "heads", 1) == 0 else ""
    return moments + (", compiled" if getattr(method, "compile", False) else "")


def agreement() -> dict[str, float]:
    """The same model on both devices."""
    cells = populations(500, 5, 4)
    gpu = train(cells, WLM(n_steps=30, initial_velocity="learned"), device="cuda").dynamics
    cpu = Dynamics(copy.deepcopy(gpu.model).cpu(), gpu.method, gpu.spec, gpu.units)
    x = cells.positions[0]
    pairs = {
        "rollout": (cpu.simulate(x, [0.0, 4.0])[0], gpu.simulate(x, [0.0, 4.0])[0]),
        "energy": (cpu.energy(x, 1.0), gpu.energy(x, 1.0)),
        "force": (cpu.force(x, 1.0), gpu.force(x, 1.0)),
    }
    return {name: float(np.abs(a - b).max()) for name, (a, b) in pairs.items()}


def w1(x: np.ndarray, y: np.ndarray) -> float:
    cost = cdist(x, y)
    return float(cost[linear_sum_assignment(cost)].mean())


def fits(chosen: list[str], *, quick: bool) -> list[dict[str, Any]]:
    """Default fits to five populations, the middle one held out, twice: the first fit of a process warms it up."""
    rows = []
    for n, dim in ((100, 5),) if quick else ((2000, 5), (2000, 50)):
        cells = populations(n, dim, 4)
        seen = Populations(cells.times[[0, 1, 3, 4]], tuple(cells.positions[i] for i in (0, 1, 3, 4)))
        floor = w1(populations(n, dim, 4, seed=1).positions[2], cells.positions[2])
        method = WLM(n_steps=4) if quick else WLM()
        for device in chosen:
            for run in (1, 2):
                at = [now(device)]
                prepared, notes = method.prepare(seen)
                at.append(now(device))
                dynamics = train(prepared, method, device=device, prepared=True).dynamics
                at.append(now(device))
                start = (prepared.positions[1], None if prepared.velocities is None else prepared.velocities[1])
                predicted = dynamics.simulate(start[0], [1.0, 2.0], v=start[1])[0][-1]
                row = {"device": device, "cells": n, "dimensions": dim, "run": run, "paths": notes["choice"]["path"]}
                row |= {"looking for paths, s": at[1] - at[0], "training, s": at[2] - at[1]}
                rows.append(row | {"w1": w1(predicted, cells.positions[2]), "floor": floor})
                print(" ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in rows[-1].values()), flush=True)
    return rows


def to_a_score(chosen: list[str], *, quick: bool, tf32: bool) -> dict[str, Any]:
    """Seconds until a held-out population is met, by trainings of more and more steps."""
    cells = populations(300, 5, 4)
    seen = Populations(cells.times[[0, 1, 3, 4]], tuple(cells.positions[i] for i in (0, 1, 3, 4)))

    def score(n_steps: int, device: str) -> tuple[float, float]:
        begin = now(device)
        config = WLM(n_steps=n_steps, initial_velocity="learned")
        dynamics = train(seen, config, device=device).dynamics
        seconds = now(device) - begin
        return w1(dynamics.simulate(cells.positions[0], [0.0, 2.0])[0][-1], cells.positions[2]), seconds

    budgets = (5, 10) if quick else (25, 50, 100, 200, 400)
    goal = 1.05 * score(budgets[-1], "cpu")[0]
    out: dict[str, Any] = {"goal": goal}
    for device, precision in devices(chosen, tf32=tf32):
        torch.set_float32_matmul_precision(precision)
        for n_steps in budgets:
            reached, seconds = score(n_steps, device)
            if reached <= goal:
                out[f"{device} ({precision})"] = {"s": seconds, "steps": n_steps, "w1": reached}
                break
    return out


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true", help="a small version that only shows that it runs")
    there = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    p.add_argument("--device", nargs="+", default=there, choices=there, help="what to time (default: all there are)")
    p.add_argument("--tf32", action="store_true", help="on the GPU also with products in TF32")
    arguments = p.parse_args()
    chosen, how = arguments.device, {"quick": arguments.quick, "tf32": arguments.tf32}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    cores = f"{os.cpu_count()} cores ({platform.machine()}), {torch.get_num_threads()} threads"
    machine = f"{cores}, {gpu}; torch {torch.__version__}"
    print(machine)
    result: dict[str, Any] = {"machine": machine, "steps": steps(chosen, **how)}
    if torch.cuda.is_available():
        result["agreement"] = agreement()
        print("largest differences between the devices:", result["agreement"])
    result["fits"] = fits(chosen, quick=arguments.quick)
    result["score"] = to_a_score(chosen, **how)
    print("time to a score:", json.dumps(result["score"]))
    path = Path(__file__).parent / "results" / f"gpu{'-quick' if arguments.quick else ''}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1))
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
