"""CytoBridge on the cells of a fold, in its own environment: ``python _cytobridge.py CELLS.npz ANSWER.npz``.

CytoBridge 1.4 wants numpy 1, so peers.py hands over cells and takes predictions as files. Its wheel brings none of the
settings that its documentation names; these are those of its authors' repositories (``dynamical_ot.yaml``,
without growth or noise). ``tl.fit`` is followed but for its end, which simulates all cells through all times and
writes an h5ad: nobody needs that here, and it would take longer than the training. Times are the real ones, where its
preprocessing would number them without a ``time_mapping``.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import sys
import tempfile
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from CytoBridge.tl.analysis import simulate_trajectory
from CytoBridge.tl.models import DynamicalModel
from CytoBridge.tl.trainer import TrainingPipeline

MODEL = {
    "components": ["velocity"],
    "velocity_net": {"hidden_dim": 400, "n_layers": 2, "residual": False},
}
DEFAULTS = {"lr": 1e-4, "lambda_mass": 10, "lambda_energy": 0.01, "sigma": 0.0, "batch_size": 256}
STAGE = {"name": "Train", "mode": "neural_ode", "OT_loss": "sinkhorn", "lambda_ot": 10}
#: Epochs of the whole schedule.
EPOCHS = 1000


def train(data: list[torch.Tensor], times: list[float], epochs: float) -> DynamicalModel:
    """A model after so many epochs, at least one."""
    batch = min(256, *(len(x) for x in data))  # what `tl.fit` takes
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        config = {
            "model": MODEL,
            "training": {
                "plan": [{**STAGE, "epochs": max(1, round(epochs))}],
                "defaults": {**DEFAULTS, "batch_size": batch},
            },
            "ckpt_dir": folder,
        }
        model = DynamicalModel(data[0].shape[1], MODEL)
        pipeline = TrainingPipeline(model, config, batch, torch.device("cpu"), data=data)
        return pipeline.train(data, times)


def epochs_for(budget: float, data: list[torch.Tensor], times: list[float]) -> float:
    """The epochs that take so long, by the pace of three after one to warm up."""
    for epochs in (1, 3):
        begin = time.process_time()
        train(data, times, epochs)
    return budget / ((time.process_time() - begin) / epochs)


def simulate(model: DynamicalModel, x: torch.Tensor, span: list[float]) -> np.ndarray:
    """Cells moved over a span of time, as CytoBridge's own evaluation does it.

    In parts, since it keeps the graph of every step.
    """
    holder = SimpleNamespace(uns={"all_model": {"training_config": {"defaults": {"batch_size": len(x)}}}})
    moved = [
        simulate_trajectory(holder, model, part.clone(), DEFAULTS["sigma"], span, dt=0.01, device=part.device)[0][-1]
        for part in x.split(256)
    ]
    return np.concatenate(moved)


def main() -> None:
    request = np.load(sys.argv[1])
    seed, budget = int(request["seed"]), float(request["budget"])
    times = [float(t) for t in request["times"]]
    data = [torch.tensor(request[f"cells{k}"], dtype=torch.float32) for k in range(len(times))]
    torch.set_num_threads(1)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (the generator that CytoBridge draws from)
    torch.manual_seed(seed)

    epochs = epochs_for(budget, data, times) if budget else EPOCHS
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.process_time()
    model = train(data, times, epochs).eval()
    answer: dict[str, Any] = {}
    for k, wanted in enumerate(request["held"]):
        start = max(i for i, t in enumerate(times) if t < wanted)
        span = [times[start], float(wanted)]
        answer[f"cells{k}"] = simulate(model, data[start], span)
    answer["seconds"] = time.process_time() - begin
    answer["memory"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    np.savez(sys.argv[2], **answer)


if __name__ == "__main__":
    main()
