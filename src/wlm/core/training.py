"""The one training loop: seeds, progress, averaging, faults and history, for every method."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim.swa_utils import AveragedModel

from wlm.core import checkpoint as checkpoints
from wlm.core import processes
from wlm.core.checkpoint import Stateful
from wlm.core.devices import few_threads
from wlm.core.dynamics import Dynamics
from wlm.core.methods._base import DivergenceError, Method, State
from wlm.core.model import Model, Spec, drawing_from
from wlm.core.populations import Populations
from wlm.core.snapshots import Snapshots, median_distance
from wlm.core.stopping import Watch, check_patience, set_aside
from wlm.core.units import Units

#: Blur of the divergence, as a share of the median distance between cells of a population.
BLUR = 0.1
#: States that are kept in the course of a training, to go back to.
N_STATES = 20
#: Times that a training goes back to its last good state, and what this does to the learning rates.
MAX_RESTARTS, SLOWER = 3, 0.3
#: Smallest batch that is tried when a device runs out of memory.
MIN_BATCH = 32


class TrainingError(RuntimeError):
    """Training stopped because it cannot go on; nothing was written."""


@dataclass(frozen=True)
class Fit:
    """Result of a training run.

    The dynamics, what was logged on the way (arrays of one length), and the number of steps that were made: fewer
    than asked for if it was interrupted, or if nothing was left to learn. With ``patience`` ``words`` say which.
    """

    dynamics: Dynamics
    history: dict[str, NDArray[np.float32]]
    n_steps: int
    interrupted: bool = False
    words: str | None = None


def train(
    populations: Populations,
    method: Method[Any, Any],
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    on_step: Callable[[int, dict[str, float]], None] | None = None,
    on_interrupt: str = "raise",
    checkpoint: Path | None = None,
    prepared: bool = False,
    redraw: bool = False,
    patience: int | None = None,
) -> Fit:
    """Fit ``method`` to ``populations``.

    When the loss is no longer finite, training goes back to its last good state and on with smaller steps; when
    the device runs out of memory, with smaller batches. Both are warned about. With ``patience`` it ends
    when cells set aside come no nearer to those of the next time, see ``wlm.core.stopping``; the
    column ``validation`` of the history is their distance.

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
        Where to train. On the CPU with one thread, or as many as the variable ``WLM_NUM_THREADS`` says.
    on_step
        Called after every step with its number (from 1) and its scalars, for progress bars; constants among them, such
        as friction, in the units of the data.
    on_interrupt
        What a KeyboardInterrupt does: ``"raise"``, or ``"keep"`` the model of the last step.
    checkpoint
        File for the training state, written periodically and at the end. If it exists, training resumes from it and
        reaches the same result. The caller deletes it.
    prepared
        The method has prepared these populations already.
    redraw
        Train on a bootstrap of the cells of each time, drawn by the seed, in the units of all of them.
    patience
        Steps that may pass without a nearer prediction of cells set aside, see ``wlm.core.stopping``. None
        makes all steps of the method.

    Returns
    -------
    The fitted dynamics and the training history.

    Raises
    ------
    TrainingError
        If the loss is not finite again and again.
    ValueError
        If the checkpoint is damaged, or of another training; several processes train together and there is one; or
        there are too few cells to set some aside.
    """
    together = processes.share(method)
    if together and (checkpoint is not None or on_interrupt == "keep"):
        raise ValueError(
            "processes that train together keep no checkpoint and cannot be interrupted one by one; leave checkpoint "
            "and on_interrupt out, or start one process"
        )
    populations = populations.sampled()
    if not prepared:
        populations, _ = method.prepare(populations)
    with few_threads(torch.device(device)):
        run = _Run.begin(populations, method, seed, torch.device(device), redraw=redraw, patience=patience)
        if together and not processes.agree(run.identity, run.device):
            raise ValueError("processes that train together need the same cells, options and seed; they have others")
        if checkpoint is not None and checkpoint.exists():
            run.resume(checkpoint)
        every, keep = max(1, method.n_steps // 500), max(1, method.n_steps // N_STATES)
        interrupted = False
        try:
            run.look()
            while not run.over:
                scalars = run.attempt(together=together)
                if scalars is None:
                    continue
                scalars |= run.look()
                if run.step % every == 0 or run.over:
                    run.logged.append({"step": run.step, **scalars})
                if (run.step % keep == 0 or run.over) and not run.state.skipped:
                    checkpoint = run.keep(checkpoint)
                if on_step is not None:
                    on_step(run.step, run.in_data(scalars))
        except KeyboardInterrupt:
            if on_interrupt != "keep" or not run.logged:
                raise
            interrupted = True
            warnings.warn(
                f"interrupted after {run.step} of {method.n_steps} steps; what was learned so far is kept", stacklevel=2
            )
    history = {k: np.array([row[k] for row in run.logged], dtype=np.float32) for k in run.logged[0]}
    if run.watch is None:
        return Fit(run.dynamics(), history, run.step, interrupted)
    run.watch.best(run.averaged)
    words = None if interrupted else run.watch.words(run.step, method.n_steps)
    return Fit(run.dynamics(), history, run.step, interrupted, words)


@dataclass
class _Run:
    """A training in progress: what a step changes, and the last good state to go back to."""

    identity: str
    device: torch.device
    method: Method[Any, Any]
    spec: Spec
    units: Units
    model: Model
    state: State
    average: AveragedModel
    watch: Watch | None = None
    step: int = 0
    restarts: int = 0
    logged: list[dict[str, float]] = field(default_factory=list)
    good: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def begin(
        cls,
        populations: Populations,
        method: Method[Any, Any],
        seed: int,
        device: torch.device,
        *,
        redraw: bool,
        patience: int | None,
    ) -> _Run:
        """A training before its first step."""
        watch = None
        if patience is not None:
            check_patience(patience, method)
            populations, held = set_aside(populations, seed)
            watch = Watch(held, patience, seed)
        units = Units.of(populations)
        populations = populations.redrawn(seed) if redraw else populations
        snapshots = Snapshots.of(populations, units, device)
        generator = torch.Generator(device).manual_seed(seed)
        spec = Spec(
            n_dims=populations.n_dims,
            blur=BLUR * median_distance(snapshots.positions, generator),
            has_velocity=snapshots.velocities is not None,
            n_times=len(populations.times),
            times=tuple(snapshots.times.tolist()),
            has_prior=snapshots.growth is not None,
            has_sizes=snapshots.log_sizes is not None,
        )
        with drawing_from(seed):
            model = method.build(spec).to(device)
        state = method.init(model, spec, snapshots, generator)
        average = AveragedModel(model, multi_avg_fn=_follow(method.ema))
        average.update_parameters(model)  # it starts as the untrained model
        identity = _fingerprint(snapshots, method, f"{seed} {patience}")
        run = cls(identity, device, method, spec, units, model, state, average, watch)
        run.good = run.capture()
        return run

    def parts(self) -> dict[str, Stateful | torch.Generator]:
        """Everything with a state."""
        watch: dict[str, Stateful] = {} if self.watch is None else {"watch": self.watch}
        return {"model": self.model, "average": self.average, **watch, **self.state.parts()}

    @property
    def over(self) -> bool:
        """Whether all steps were made, or nothing was learned for as many as patience lasts."""
        return self.step >= self.method.n_steps or (self.watch is not None and self.watch.over(self.step))

    @property
    def averaged(self) -> Model:
        """The running average of the model."""
        return cast("Model", self.average.module)

    def dynamics(self) -> Dynamics:
        """What has been learned so far."""
        return Dynamics(self.averaged.eval(), self.method, self.spec, self.units)

    def look(self) -> dict[str, float]:
        """How far the rollouts of cells set aside are from the populations, if some are."""
        if self.watch is None:
            return {}
        return {"validation": self.watch.look(self.step, self.dynamics())}

    def capture(self) -> dict[str, Any]:
        """The state as plain arrays and numbers."""
        numbers = {"step": self.step, "restarts": self.restarts, "batch_size": self.method.batch_size}
        logged = [dict(row) for row in self.logged]
        return {"run": self.identity, **numbers, "logged": logged, "parts": checkpoints.capture(self.parts())}

    def restore(self) -> None:
        """Go back to the last good state."""
        checkpoints.restore(self.parts(), self.good["parts"], self.device)
        self.step, self.restarts, self.state.skipped = self.good["step"], self.good["restarts"], 0
        self.logged = [dict(row) for row in self.good["logged"]]

    def resume(self, file: Path) -> None:
        """Go on from a checkpoint."""
        good = checkpoints.read(file)
        if not isinstance(good, dict) or good.get("run") != self.identity:
            raise ValueError(
                f"{str(file)!r} is the checkpoint of another fit (other cells, options, seed or device); delete "
                "it, or name another file"
            )
        self.good = good
        self.restore()
        self.method = replace(self.method, batch_size=good["batch_size"])

    def keep(self, file: Path | None) -> Path | None:
        """Remember this state as good, and write it to ``file``; returns where the next goes."""
        self.good = self.capture()
        if file is None:
            return None
        try:
            checkpoints.write(file, self.good)
        except OSError as error:  # a full disk is no reason to lose the training as well
            warnings.warn(f"no checkpoint is written any more: {error}", stacklevel=3)
            return None
        return file

    def attempt(self, *, together: bool) -> dict[str, float] | None:
        """One step; its scalars, or None if training went back instead."""
        where = f"step {self.step + 1} of {self.method.n_steps}"
        try:
            scalars = self.method.step(self.model, self.spec, self.state)
        except DivergenceError as error:
            raise TrainingError(f"{where}: {error}") from None
        except torch.cuda.OutOfMemoryError as error:
            if together:
                raise TrainingError(f"a device ran out of memory; choose a smaller batch_size ({error})") from error
            self.restore()
            self.method = _smaller_batches(self.method, error)
            return None
        bad = [k for k, x in scalars.items() if not np.isfinite(x)]
        if bad:
            self.go_back(f"{bad[0]} became {scalars[bad[0]]} at {where}")
            return None
        self.step += 1
        self.average.update_parameters(self.model)
        return scalars

    def in_data(self, scalars: dict[str, float]) -> dict[str, float]:
        """The scalars of a step, constants of the model in the units of the data."""
        found = self.model.constants()
        return {
            name: replace(found[name], value=value).in_data(self.units) if name in found else value
            for name, value in scalars.items()
        }

    def go_back(self, found: str) -> None:
        """Return to the last good state, with lower learning rates, but not for ever."""
        if self.restarts == MAX_RESTARTS:
            lr = self.method.lr  # None where the method chooses
            lower = "lr" if lr is None else f"lr={lr * SLOWER**MAX_RESTARTS:g}"
            raise TrainingError(f"{found}, for the {self.restarts + 1}th time; try a smaller learning rate ({lower})")
        failures = self.restarts + 1
        self.restore()
        self.restarts = failures
        checkpoints.slow_down(self.parts(), SLOWER)
        warnings.warn(f"{found}; going back to step {self.step} with lower learning rates", stacklevel=4)
        self.good = self.capture()


def _follow(ema: float) -> Callable[[Any, Any, Any], None]:
    """How the running average follows the weights: closely at first, so that it forgets its start."""

    def follow(averaged: Any, current: Any, n: Any) -> None:
        decay = min(ema, int(n) / (int(n) + 9))
        torch._foreach_lerp_(averaged, current, 1 - decay)

    return follow


def _smaller_batches(method: Method[Any, Any], error: Exception) -> Method[Any, Any]:
    """The method with half the batch, or an error where that does not help."""
    size = method.batch_size
    if size // 2 < MIN_BATCH:
        raise TrainingError(
            f"the device ran out of memory with batches of {size} cells; choose device='cpu', or fewer dimensions "
            f"(n_dims) ({str(error).splitlines()[0]})"
        ) from error
    torch.cuda.empty_cache()
    warnings.warn(f"the device ran out of memory; going on with batches of {size // 2} cells, not {size}", stacklevel=3)
    return replace(method, batch_size=size // 2)


def _fingerprint(snapshots: Snapshots, method: Method[Any, Any], run: str) -> str:
    """A hash of everything that determines a training."""
    digest = hashlib.sha256(f"{method.name} {method.to_json()} {run} {snapshots.times.device.type}".encode())
    sizes = None if snapshots.log_sizes is None else [snapshots.log_sizes]
    clones = None if snapshots.sisters is None else snapshots.sisters.clones
    more = (snapshots.velocities, snapshots.weights, snapshots.orders, snapshots.growth, sizes, clones)
    for x in [snapshots.times, *snapshots.positions, *(x for part in more for x in part or [])]:
        digest.update(str(tuple(x.shape)).encode())
        digest.update(x.cpu().numpy().tobytes())
    return digest.hexdigest()
