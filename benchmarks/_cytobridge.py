"""CytoBridge on the cells of a fold, in its own environment: ``python _cytobridge.py CELLS.npz ANSWER.npz``.

CytoBridge 1.4 wants numpy 1, so peers.py hands over cells and takes predictions as files. Its wheel brings none of the
settings that its documentation names; these are those of its authors' repositories (``dynamical_ot.yaml``,
``ruot_simulation_gene.yaml``). ``tl.fit`` is followed but for its end, which simulates all cells through all times and
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

#: Width and depth of velocity and growth; the score has its own.
NET = {"hidden_dim": 400, "n_layers": 2, "residual": False}
SETTINGS: dict[str, dict[str, Any]] = {
    "dynamical_ot": {
        "model": {"components": ["velocity"], "velocity_net": NET},
        "defaults": {"lr": 1e-4, "lambda_mass": 10, "lambda_energy": 0.01, "sigma": 0.0, "batch_size": 256},
        "plan": [
            {"name": "Train", "mode": "neural_ode", "epochs": 1000, "OT_loss": "sinkhorn", "lambda_ot": 10},
        ],
    },
    "ruot": {
        "model": {
            "components": ["velocity", "growth", "score"],
            "velocity_net": {**NET, "activation": "relu"},
            "growth_net": {**NET, "activation": "relu"},
            "score_net": {"hidden_dim": 128, "n_layers": 4, "activation": "leaky_relu"},
        },
        "defaults": {
            **{"lr": 1e-3, "lambda_ot": 10, "lambda_mass": 1, "lambda_energy": 0.01, "sigma": 0.05},
            **{"batch_size": 256, "global_mass": True},
        },
        "plan": [
            {
                **{"name": "Pretrain", "mode": "neural_ode", "train_strategy": "v+g", "epochs": 100},
                **{"OT_loss": "sinkhorn", "lambda_mass": 10},
            },
            {
                **{"name": "Train_FM", "mode": "flow_matching", "train_strategy": "s", "epochs": 3000},
                **{"scheduler_type": "cosine", "flow_matching": {"lambda_penalty": 1}},
            },
            {
                **{"name": "Finetune", "mode": "neural_ode", "train_strategy": "v+g+s", "epochs": 500},
                **{"OT_loss": "sinkhorn_detach", "lr": 1e-4},
            },
        ],
    },
}


def train(data: list[torch.Tensor], times: list[float], settings: dict[str, Any], share: float) -> DynamicalModel:
    """A model after a share of the epochs of each stage, at least one."""
    plan = [{**stage, "epochs": max(1, round(share * stage["epochs"]))} for stage in settings["plan"]]
    batch = min(256, *(len(x) for x in data))  # what `tl.fit` takes, also for its stage of flow matching
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        config = {
            "model": settings["model"],
            "training": {"plan": plan, "defaults": {**settings["defaults"], "batch_size": batch}},
            "ckpt_dir": folder,
        }
        model = DynamicalModel(data[0].shape[1], config["model"])
        pipeline = TrainingPipeline(model, config, batch, torch.device("cpu"), data=data)
        return pipeline.train(data, times)


def share_for(budget: float, data: list[torch.Tensor], times: list[float], settings: dict[str, Any]) -> float:
    """The share of a schedule of one stage that takes so long, by the pace of three epochs after one to warm up."""
    (stage,) = settings["plan"]
    for epochs in (1, 3):
        begin = time.process_time()
        train(data, times, settings, epochs / stage["epochs"])
    return budget / ((time.process_time() - begin) / epochs) / stage["epochs"]


def simulate(model: DynamicalModel, x: torch.Tensor, sigma: float, span: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Cells moved over a span of time, and their weights, as CytoBridge's own evaluation does it.

    In parts, since it keeps the graph of every step.
    """
    defaults = {"batch_size": len(x)}  # a constant factor of all weights
    holder = SimpleNamespace(uns={"all_model": {"training_config": {"defaults": defaults}}})
    moved, weights = [], []
    for part in x.split(256):
        points, mass = simulate_trajectory(holder, model, part.clone(), sigma, span, dt=0.01, device=part.device)
        moved.append(points[-1])
        weights.append(mass[-1, :, 0])
    return np.concatenate(moved), np.concatenate(weights)


def main() -> None:
    request = np.load(sys.argv[1])
    settings, seed, budget = SETTINGS[str(request["settings"])], int(request["seed"]), float(request["budget"])
    times = [float(t) for t in request["times"]]
    data = [torch.tensor(request[f"cells{k}"], dtype=torch.float32) for k in range(len(times))]
    torch.set_num_threads(1)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (the generator that CytoBridge draws from)
    torch.manual_seed(seed)

    share = share_for(budget, data, times, settings) if budget else 1.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.process_time()
    model = train(data, times, settings, share).eval()
    trained = time.process_time() - begin
    answer: dict[str, Any] = {}
    for k, wanted in enumerate(request["held"]):
        start = max(i for i, t in enumerate(times) if t < wanted)
        span = [times[start], float(wanted)]
        answer[f"cells{k}"], answer[f"weights{k}"] = simulate(model, data[start], settings["defaults"]["sigma"], span)
    answer["seconds"], answer["trained"], answer["share"] = time.process_time() - begin, trained, share
    answer["memory"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    np.savez(sys.argv[2], **answer)


if __name__ == "__main__":
    main()
