"""The one training loop: seeds, progress, averaging, faults and history, for every method."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wlm.core import checkpoint as checkpoints
from wlm.core import processes
from wlm.core.dynamics import Dynamics
from wlm.core.methods._base import DivergenceError, Method
from wlm.core.model import Spec, drawing_from
from wlm.core.populations import Populations
from wlm.core.snapshots import Snapshots, median_distance
from wlm.core.units import Units

#: Blur of the divergence, as a share of the median distance between cells of a population.
BLUR = 0.1
#: States that are kept in the course of a training, to go back to.
N_STATES = 20
#: Times that a training goes back to its last good state, and what this does to the learning rates.
MAX_RESTARTS, SLOWER = 3, 0.3
#: Smallest batch that is tried when a device runs out of memory.
MIN_BATCH = 32

if hasattr(os, "register_at_fork"):
    # A forked process inherits the OpenMP pool of its parent without its threads, and would wait for them for ever.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


class TrainingError(RuntimeError):
    """Training stopped because it cannot go on; nothing was written."""


@dataclass(frozen=True)
class Fit:
    """Result of a training run.

    The dynamics, what was logged on the way (arrays of one length), and the number of steps that were made: fewer
    than asked for if it was interrupted.
    """

    dynamics: Dynamics
    history: dict[str, NDArray[np.float32]]
    n_steps: int


def train(
    populations: Populations,
    method: Method,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    on_step: Callable[[int, dict[str, float]], None] | None = None,
    on_interrupt: str = "raise",
    checkpoint: Path | None = None,
    prepared: bool = False,
) -> Fit:
    """Fit ``method`` to ``populations``.

    When the loss is no longer finite, training goes back to its last good state and on with smaller steps; when
    the device runs out of memory, with smaller batches. Both are warned about.

    Parameters
    ----------
    populations
        The training snapshots, in data units. Of more than 100,000 cells at a time a random sample of so many is
        trained on, the same for every seed: memory does not depend on how many there are.
    method
        The configured method.
    seed
        Seeds everything random; the global generators are left as they were.
    device
        Where to train.
    on_step
        Called after every step with its number (from 1) and its scalars, for progress bars.
    on_interrupt
        What a KeyboardInterrupt does: ``"raise"``, or ``"keep"`` the model of the last step.
    checkpoint
        File that the state is written to, now and then and in the end. If it is there, training goes on from it, to
        the same result. It is for whoever called to delete it.
    prepared
        The method has checked these populations already, and they have the velocities that it estimates.

    Returns
    -------
    The fitted dynamics and the training history.

    Raises
    ------
    TrainingError
        If the loss is not finite again and again.
    ValueError
        If the checkpoint is damaged, or of another training; or several processes train together and there is one.
    """
    together = processes.share(method)
    if together and (checkpoint is not None or on_interrupt == "keep"):
        raise ValueError(
            "processes that train together keep no checkpoint and cannot be interrupted one by one; leave checkpoint "
            "and on_interrupt out, or start one process"
        )
    populations = populations.sampled()
    if not prepared:
        method.check(has_velocity=populations.velocities is not None)
        velocities, _ = method.estimate_velocities(populations)
        if velocities is not None:
            populations = replace(populations, velocities=velocities)
    device = torch.device(device)
    units = Units.of(populations)
    snapshots = Snapshots.of(populations, units, device)
    run = _fingerprint(snapshots, method, seed)
    generator = torch.Generator(device).manual_seed(seed)
    spec = Spec(
        n_dims=populations.n_dims,
        blur=BLUR * median_distance(snapshots.positions, generator),
        has_velocity=snapshots.velocities is not None,
        n_times=len(populations.times),
        times=tuple(snapshots.times.tolist()),
    )
    with drawing_from(seed):
        model = method.build(spec).to(device)
    state = method.init(model, spec, snapshots, generator)
    if together and not processes.agree(run, device):
        raise ValueError("processes that train together need the same cells, options and seed; they have others")
    average = [p.detach().clone() for p in model.parameters()]
    logged: list[dict[str, float]] = []
    step, restarts = 0, 0
    every, keep = max(1, method.n_steps // 500), max(1, method.n_steps // N_STATES)

    def capture() -> dict[str, Any]:
        parts = {"model": model, "optimizer": state.optimizer, "generator": generator, "extra": state.extra}
        numbers = {"step": step, "restarts": restarts, "batch_size": getattr(method, "batch_size", 0)}
        return {"run": run, **numbers, **checkpoints.capture({**parts, "average": average, "logged": logged})}

    def restore(saved: dict[str, Any]) -> None:
        nonlocal step, restarts, average, logged
        for part, name in ((model, "model"), (state.optimizer, "optimizer"), (generator, "generator")):
            checkpoints.restore(part, saved[name], device)
        state.extra = checkpoints.restore(state.extra, saved["extra"], device)
        average = checkpoints.restore(None, saved["average"], device)
        logged = checkpoints.restore(None, saved["logged"], device)
        step, restarts, state.skipped = saved["step"], saved["restarts"], 0

    good = capture()
    if checkpoint is not None and checkpoint.exists():
        good = checkpoints.read(checkpoint)
        if not isinstance(good, dict) or good.get("run") != run:
            raise ValueError(
                f"{str(checkpoint)!r} is the checkpoint of another fit (other cells, options, seed or device); delete "
                "it, or name another file"
            )
        restore(good)
        if good["batch_size"]:
            method = replace(method, batch_size=good["batch_size"])  # type: ignore[call-arg]
    try:
        while step < method.n_steps:
            try:
                scalars = method.step(model, spec, state)
            except DivergenceError as error:
                raise TrainingError(f"step {step + 1} of {method.n_steps}: {error}") from None
            except torch.cuda.OutOfMemoryError as error:
                if together:
                    raise TrainingError(f"a device ran out of memory; choose a smaller batch_size ({error})") from error
                restore(good)
                method = _smaller_batches(method, error)
                continue
            bad = [k for k, x in scalars.items() if not np.isfinite(x)]
            if bad:
                found = f"{bad[0]} became {scalars[bad[0]]} at step {step + 1} of {method.n_steps}"
                if restarts == MAX_RESTARTS:
                    lr = getattr(method, "lr", None)  # None where the method chooses
                    lower = "lr" if lr is None else f"lr={lr * SLOWER**MAX_RESTARTS:g}"
                    raise TrainingError(
                        f"{found}, for the {restarts + 1}th time; try a smaller learning rate ({lower})"
                    )
                failures = restarts + 1
                restore(good)
                restarts = failures
                checkpoints.slow_down([state.optimizer, state.extra], SLOWER)
                warnings.warn(f"{found}; going back to step {step} with lower learning rates", stacklevel=2)
                good = capture()
                continue
            step += 1
            # The average forgets its start: early on it follows the weights closely.
            decay = min(method.ema, step / (step + 9))
            with torch.no_grad():
                torch._foreach_lerp_(average, list(model.parameters()), 1 - decay)
            if step % every == 0 or step == method.n_steps:
                logged.append({"step": step, **scalars})
            if (step % keep == 0 or step == method.n_steps) and not state.skipped:
                good = capture()
                if checkpoint is not None:
                    try:
                        checkpoints.write(checkpoint, good)
                    except OSError as error:  # a full disk is no reason to lose the training as well
                        warnings.warn(f"no checkpoint is written any more: {error}", stacklevel=2)
                        checkpoint = None
            if on_step is not None:
                on_step(step, scalars)
    except KeyboardInterrupt:
        if on_interrupt != "keep" or not logged:
            raise
        warnings.warn(
            f"interrupted after {step} of {method.n_steps} steps; what was learned so far is kept", stacklevel=2
        )
    with torch.no_grad():
        for p, mean in zip(model.parameters(), average, strict=True):
            p.copy_(mean)
    history = {k: np.array([row[k] for row in logged], dtype=np.float32) for k in logged[0]}
    return Fit(Dynamics(model.eval(), method, spec, units), history, step)


def _smaller_batches(method: Method, error: Exception) -> Method:
    """The method with half the batch, or an error where that does not help."""
    size = getattr(method, "batch_size", 0)
    if size // 2 < MIN_BATCH:
        raise TrainingError(
            f"the device ran out of memory with batches of {size} cells; choose device='cpu', or fewer dimensions "
            f"(n_dims) ({str(error).splitlines()[0]})"
        ) from error
    torch.cuda.empty_cache()
    warnings.warn(f"the device ran out of memory; going on with batches of {size // 2} cells, not {size}", stacklevel=3)
    return replace(method, batch_size=size // 2)  # type: ignore[call-arg]


def _fingerprint(snapshots: Snapshots, method: Method, seed: int) -> str:
    """A hash of everything that determines a training."""
    digest = hashlib.sha256(f"{method.name} {method.to_json()} {seed} {snapshots.times.device.type}".encode())
    more = (snapshots.velocities, snapshots.weights, snapshots.orders)
    for x in [snapshots.times, *snapshots.positions, *(x for part in more for x in part or [])]:
        digest.update(str(tuple(x.shape)).encode())
        digest.update(x.cpu().numpy().tobytes())
    return digest.hexdigest()
