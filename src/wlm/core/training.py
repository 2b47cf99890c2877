"""The one training loop: seeds, progress, averaging, NaN checks and history, for every method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from wlm.core.dynamics import Dynamics
from wlm.core.methods._base import DivergenceError, Method, Spec
from wlm.core.populations import Populations, Snapshots, Units, median_distance

#: Blur of the divergence, as a share of the median distance between cells of a population.
BLUR = 0.1


class TrainingError(RuntimeError):
    """Training stopped because it cannot go on; nothing was written."""


@dataclass(frozen=True)
class Fit:
    """Result of a training run: the dynamics, and what was logged on the way (arrays of one length)."""

    dynamics: Dynamics
    history: dict[str, NDArray[np.float32]]


def train(
    populations: Populations,
    method: Method,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> Fit:
    """Fit ``method`` to ``populations``.

    Parameters
    ----------
    populations
        The training snapshots, in data units.
    method
        The configured method.
    seed
        Seeds everything random; the global generators are left as they were.
    device
        Where to train.
    on_step
        Called after every step with its number (from 1) and its scalars, for progress bars.

    Returns
    -------
    The fitted dynamics and the training history.

    Raises
    ------
    TrainingError
        If the loss is no longer finite.
    """
    method.check(has_velocity=populations.velocities is not None)
    device = torch.device(device)
    units = Units.of(populations)
    snapshots = Snapshots.of(populations, units, device)
    generator = torch.Generator(device).manual_seed(seed)
    spec = Spec(
        n_dims=populations.n_dims,
        blur=BLUR * median_distance(snapshots.positions, generator),
        has_velocity=snapshots.velocities is not None,
        n_times=len(populations.times),
        times=tuple(snapshots.times.tolist()),
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # of the CPU only: torch.manual_seed would reseed every device
        model = method.build(spec).to(device)
    state = method.init(model, spec, snapshots, generator)
    average = [p.detach().clone() for p in model.parameters()]
    every = max(1, method.n_steps // 500)
    logged: list[dict[str, float]] = []
    for step in range(1, method.n_steps + 1):
        try:
            scalars = method.step(model, spec, state)
        except DivergenceError as error:
            raise TrainingError(f"step {step} of {method.n_steps}: {error}") from None
        bad = [k for k, x in scalars.items() if not np.isfinite(x)]
        if bad:
            raise TrainingError(
                f"{bad[0]} became {scalars[bad[0]]} at step {step} of {method.n_steps}; "
                f"try a smaller learning rate (lr={(getattr(method, 'lr', None) or 1e-3) / 4:g})"
            )
        # The average forgets its start: early on it follows the weights closely.
        decay = min(method.ema, step / (step + 9))
        with torch.no_grad():
            torch._foreach_lerp_(average, list(model.parameters()), 1 - decay)
        if step % every == 0 or step == method.n_steps:
            logged.append({"step": step, **scalars})
        if on_step is not None:
            on_step(step, scalars)
    with torch.no_grad():
        for p, mean in zip(model.parameters(), average, strict=True):
            p.copy_(mean)
    history = {k: np.array([row[k] for row in logged], dtype=np.float32) for k in logged[0]}
    return Fit(Dynamics(model.eval(), method, spec, units), history)
