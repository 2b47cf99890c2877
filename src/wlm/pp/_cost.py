"""What a fit will take in time and memory, estimated without fitting."""

from __future__ import annotations

import time
import warnings
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from wlm._adata.columns import get_x, layer_names
from wlm.core.methods import DEFAULT, Spec, get_method
from wlm.core.model import drawing_from
from wlm.core.populations import Populations
from wlm.core.snapshots import Snapshots, median_distance
from wlm.core.training import BLUR
from wlm.core.units import Units
from wlm.pp._checks import Finding, Float64

#: Times of the series that a model is timed on, at most.
MAX_TIMED = 12
#: Steps that are timed: their horizons are random. No more are made after so many seconds.
N_STEPS, MAX_SECONDS = 8, 1.0
#: Cells whose velocity, force and next position are computed after training in the time of one training step.
CELLS_PER_STEP = 1000
#: What Python, torch and the other libraries take, and the tensors of a training step, in bytes.
BASE_MEMORY = 0.6e9
#: Arrays of the size of the representation that a fit holds at its peak: input, standardised copies, results.
N_COPIES = 16
#: Bytes per gene while a layer of velocities is projected, some thousand cells at a time.
LAYER_MEMORY = 2048 * 8 * 6


def check_run_time(
    x: NDArray[np.float32], times: Float64, observed: Float64, device: str, method: str = DEFAULT
) -> Finding:
    """How long a fit with the method's defaults takes, from its first training steps on a sample of the cells."""
    config = get_method(method, {})
    rng, size = np.random.default_rng(0), config.batch_size
    first = observed[:MAX_TIMED]
    index = [rng.permutation(np.flatnonzero(times == t))[:size] for t in first]
    if min(map(len, index)) < 2:
        return Finding("note", "not measured: there are times with a single cell")
    populations = Populations(first, tuple(x[i] for i in index))
    if config.n_steps == 1:  # it learns before the only step
        begin = time.perf_counter()
        config.prepare(populations)
        seconds = (time.perf_counter() - begin) * len(x) / sum(map(len, index))
        return Finding("ok", f"about {duration(seconds)} on {device}, without training by steps")
    units = Units.of(populations)
    generator = torch.Generator(device).manual_seed(0)
    snapshots = Snapshots.of(populations, units, torch.device(device))
    blur = BLUR * median_distance(snapshots.positions, generator)
    spec = Spec(x.shape[1], blur, has_velocity=False, n_times=len(first), times=tuple(snapshots.times.tolist()))
    with drawing_from(0):
        model = config.build(spec).to(device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a fit would warn about, it will
        state = config.init(model, spec, snapshots, generator)
        config.step(model, spec, state)  # the first one is slow
        begin, done = time.perf_counter(), 0
        while done < N_STEPS and (done < 2 or time.perf_counter() - begin < MAX_SECONDS):
            config.step(model, spec, state)
            done += 1
    step = (time.perf_counter() - begin) / done
    # Times that were left out cost in proportion.
    step *= (len(observed) - 1) / (len(first) - 1)
    seconds = step * config.n_steps + step * len(x) / CELLS_PER_STEP
    found = f"about {duration(seconds)} on {device}: {config.n_steps} steps of {step:.2g} s, then {len(x):,} cells"
    if seconds > 3600:
        return Finding("note", found, "fewer steps, a GPU, or a smaller batch_size are faster")
    return Finding("ok", found)


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def check_memory(adata: ad.AnnData, x: NDArray[np.float32] | None, velocity_key: str | None) -> Finding:
    """What the object takes when it is loaded, and a fit besides."""
    stored = [] if adata.isbacked and adata.is_view else [get_x(adata)]
    stored += [adata.layers[name] for name in layer_names(adata)]
    stored += [*adata.obsm.values(), *adata.obsp.values()]
    loaded = sum(map(_nbytes, stored))
    need = BASE_MEMORY + (0 if x is None else N_COPIES * x.nbytes)
    if velocity_key is not None and velocity_key in adata.layers:
        need += LAYER_MEMORY * adata.n_vars
    return Finding("ok", f"about {_size(need)} for a fit, and {_size(loaded)} for the object in memory")


def _size(n: float) -> str:
    """Bytes as people say them."""
    return f"{n / 1e9:.1f} GB" if n >= 5e8 else f"{max(n / 1e6, 1):.0f} MB"


def _nbytes(a: Any) -> int:
    """Size of an array in memory, wherever it is now."""
    if a is None:
        return 0
    if hasattr(a, "group"):  # sparse, on disk
        return sum(int(np.prod(a.group[k].shape)) * a.group[k].dtype.itemsize for k in ("data", "indices", "indptr"))
    if hasattr(a, "indptr"):
        return int(a.data.nbytes + a.indices.nbytes + a.indptr.nbytes)
    if isinstance(a, pd.DataFrame):
        return int(a.memory_usage().sum())
    return int(np.prod(a.shape)) * getattr(getattr(a, "dtype", None), "itemsize", 8)
