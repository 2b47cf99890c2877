"""One training, with its checks and checkpoint file."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from wlm._adata.cells import Cells
from wlm._adata.conditions import naming
from wlm.core import processes
from wlm.core.methods import METHODS, Method
from wlm.core.prediction import Rollout, fields, rollout
from wlm.core.training import Fit, train


@dataclass(frozen=True)
class Trained:
    """A fit, the paths from the first time, the fields at the cells, and the seconds it took."""

    fit: Fit
    path: Rollout
    fields: dict[str, Any]
    seconds: float


def train_model(
    cells: Cells,
    config: Method,
    seed: int,
    shared_seed: int,
    where: torch.device,
    condition: str,
    show_progress: bool,  # noqa: FBT001
    checkpoint: Path | None,
    on_interrupt: str,
) -> Trained:
    """A fit to ``cells``; ``shared_seed`` chooses the cells of the rollout, the same for all models of an ensemble."""
    began = time.perf_counter()
    label = f"{condition}, {where}" if condition else str(where)
    with (
        naming(condition) if condition else nullcontext(),
        tqdm(total=config.n_steps, desc=f"wlm.tl.fit on {label}", disable=not show_progress) as bar,
    ):

        def on_step(step: int, scalars: dict[str, float]) -> None:
            bar.update(step - bar.n)
            if step % max(1, config.n_steps // 50) == 0:
                bar.set_postfix({k: f"{x:.3g}" for k, x in scalars.items() if k != "gradient_norm"})

        result = train(
            cells.populations(),
            config,
            seed=seed,
            device=where,
            on_step=on_step,
            on_interrupt=on_interrupt,
            checkpoint=checkpoint,
            prepared=True,
        )

        dynamics = result.dynamics
        v = cells.v if dynamics.needs_velocity else None
        start = cells.at(cells.training[0])
        path = rollout(
            dynamics,
            cells.x[start],
            None if v is None else v[start],
            start,
            cells.observed[cells.observed >= cells.training[0]],
            w=None if cells.w is None else cells.w[start],
            seed=shared_seed,
        )
        annotation = fields(dynamics, cells.x, v, cells.times, cells.observed, path, w=cells.w, seed=shared_seed)
    return Trained(result, path, annotation, time.perf_counter() - began)


def check_running(
    n_models: Any, checkpoint: Any, on_interrupt: str, condition_key: str | None, *, one_by_one: bool
) -> None:
    """Refuse what could not be done in the end."""
    if isinstance(n_models, bool) or not isinstance(n_models, (int, np.integer)) or n_models < 1:
        raise ValueError(f"n_models must be a positive integer, found {n_models!r}")
    if on_interrupt not in ("raise", "keep"):
        raise ValueError(f"on_interrupt must be 'raise' or 'keep', found {on_interrupt!r}")
    if on_interrupt == "keep" and condition_key is not None:
        raise ValueError(
            "on_interrupt='keep' would leave conditions without a fit; fit them one by one, or choose 'raise'"
        )
    if on_interrupt == "keep" and not one_by_one:
        raise ValueError(
            "on_interrupt='keep' needs trainings in this process; leave joblib.parallel_config, or choose 'raise'"
        )
    if checkpoint is not None:
        folder = Path(checkpoint).resolve().parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise ValueError(
                f"checkpoint {str(checkpoint)!r} cannot be written: {str(folder)!r} is no folder to write to"
            )
        if Path(checkpoint).is_dir():
            raise ValueError(f"checkpoint {str(checkpoint)!r} is a folder; name a file")


def check_sharing(config: Method, *, one_by_one: bool) -> None:
    """Refuse trainings side by side of which each would need all processes of ``torchrun``."""
    if processes.share(config) and not one_by_one:
        raise ValueError(
            "processes that share n_batches train one model after the other; leave joblib.parallel_config and n_jobs, "
            "or choose n_batches=1"
        )


def checkpoint_files(checkpoint: Any, n: int) -> list[Path | None]:
    """A file for each of ``n`` trainings."""
    if checkpoint is None:
        return [None] * n
    path = Path(checkpoint)
    return [path] if n == 1 else [path.with_name(f"{path.stem}_{i}{path.suffix}") for i in range(n)]


def get_method(name: str, options: dict[str, Any]) -> Method:
    """The configured method; wrong names are refused with the right ones."""
    if name not in METHODS:
        raise ValueError(f"method {name!r} does not exist; methods are {sorted(METHODS)}")
    return METHODS[name].from_options(options)
