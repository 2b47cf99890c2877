r"""Wasserstein Lagrangian Mechanics: second-order population mechanics with a learned potential and friction.

The rollout obeys :math:`\dot x = v,\ \dot v = -\gamma v - (1+\gamma)\nabla_x U_\theta(\{x_j\}, t)` (paper, eq. 7-8)
and is trained to meet each observed population in Sinkhorn divergence (paper, Algorithm 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from wlm.core import processes
from wlm.core.divergences import self_term, sinkhorn_loss, uniform
from wlm.core.energies.force import Compiled, force
from wlm.core.energies.population import PopulationPotential
from wlm.core.inertia import Inertia, measure_inertia, spline_velocities
from wlm.core.integrators import bounded, leapfrog, refine, substeps_for
from wlm.core.methods._base import Method, State
from wlm.core.methods._mechanics import Mechanics
from wlm.core.methods._start import GradientField, fit_dice
from wlm.core.model import Spec
from wlm.core.populations import Array, Populations
from wlm.core.snapshots import Snapshots

#: Intervals of the longest rollouts at the start of training: few enough for a series of any length.
FIRST_HORIZON = 4
#: Steps in a row that may pass without a usable loss and gradient; then training goes back and on more slowly.
MAX_SKIPPED = 10
#: A rollout that ends this many radii (root mean square, of all cells) of the data away teaches nothing.
TOO_FAR = 7.0


@dataclass(frozen=True, kw_only=True)
class WLM(Method):
    """Options of ``method="wlm"``.

    Parameters
    ----------
    n_steps
        Training steps.
    lr
        Peak learning rate of the potential (AdamW, linear warm-up over 5 % of the steps, cosine decay).
    batch_size
        Cells drawn from each population per step.
    n_batches
        Independent batches of a step, whose gradients are averaged. Processes that ``torchrun`` has started share them,
        so that there have to be as many or a multiple; the result is that of one process with all of them, to rounding.
    friction
        Friction, or its initial value, per mean interval between training times. 0 is conservative and
        is never learned. ``None`` starts at 0.1 where the initial velocity is measured, or that of splines,
        and at 3 where not: without velocities inertia has to show itself, with them friction has.
    learn_friction
        Whether friction is learned (as its logarithm).
    friction_lr
        Learning rate of the logarithm of friction; ``None`` takes 0.01 where the initial velocity is
        measured, 0.1 where not.
    initial_velocity
        ``"data"`` (given velocities), ``"zero"``, ``"learned"`` (a gradient field trained with the
        potential), ``"estimated"`` (a gradient field fitted to the snapshots before, by DICE, see
        ``dice_loss`` of ``wlm.core.methods._start``), ``"spline"`` (at every training time the velocity of the natural
        cubic spline through optimal couplings of all of them, from then on taken for measured, see
        ``wlm.core.inertia``) or ``"auto"``: data if velocities are given; else spline if such splines predict the
        inner training populations, each left out in turn, at least 10 % better than straight lines; else learned.
    gradient
        ``"full"`` differentiates through the whole trajectory (discretise, then optimise);
        ``"truncated"`` treats the points where the force is evaluated as constants.
    restart
        Share of the steps whose start is drawn among all observed times but the last, instead of being
        the first. Later starts are observed cells with the data's velocity, or with the momentum that
        the last rollout brought there.
    momentum
        With what part of the momentum carried to them cells of later times start, in training and
        prediction: ``"full"``, ``"none"`` (at rest, as in the paper) or ``"mixed"``, a random part of each
        cell's. Measured velocities and those at the first time are always used in full.
    acceleration_penalty
        Weight of the mean squared acceleration dv/dt along the paths (standard units) in the loss: of all
        mechanics that explain the populations, the ones with the steadiest motion are preferred. ``None``
        takes 0.03 where the initial velocity is not measured, so that many mechanics explain the same
        populations, and 0.01 where it is.
    curriculum
        Share of the training over which the longest horizon grows from four intervals to all; 0 allows all
        of them from the start.
    max_step
        Typical integrator step in training, in mean intervals; it is varied by a factor of two either
        way so that the dynamics do not depend on it. Predictions take half of it. ``None`` takes half an
        interval, or a sixteenth of the time from first to last where that is more (but no step passes an
        observed time).
    p, blur
        Exponent and blur of the Sinkhorn divergence; ``blur=None`` takes a tenth of the median
        distance between cells of a population. ``blur`` is in standard units.
    width, depth, heads, hidden, n_inducing
        Size of the potential, see :class:`~wlm.core.energies.population.PopulationPotential`.
    time_features
        Let the potential depend on time.
    compile
        Compile the derivatives of the potential (``torch.compile``) before training. It takes half a minute to two,
        less the next time, and makes steps faster: for long trainings. On the CPU it needs a C++ compiler.
    ema
        Decay of the running average of the weights, which is what is kept.
    weight_decay
        AdamW's weight decay.
    clip
        Largest norm of the potential's gradient.
    """

    name: ClassVar[str] = "wlm"

    n_steps: int = 800
    lr: float = 4e-3
    batch_size: int = 256
    n_batches: int = 1
    friction: float | None = None
    learn_friction: bool = True
    friction_lr: float | None = None
    initial_velocity: str = "auto"
    gradient: str = "full"
    restart: float = 0.5
    momentum: str = "full"
    acceleration_penalty: float | None = None
    curriculum: float = 0.5
    max_step: float | None = None
    p: int = 2
    blur: float | None = None
    width: int = 64
    depth: int = 2
    heads: int = 4
    hidden: int = 128
    n_inducing: int = 16
    time_features: bool = False
    compile: bool = False
    ema: float = 0.99
    weight_decay: float = 1e-3
    clip: float = 1.0

    def __post_init__(self) -> None:
        for field in ("n_steps", "batch_size", "n_batches", "width", "depth", "heads", "hidden"):
            self._require(field, int, 1)
        self._require("n_inducing", int, 0)
        for field in ("lr", "clip"):
            self._require(field, float, 0, open_low=True)
        self._require("weight_decay", float, 0)
        for field in ("restart", "ema", "curriculum"):
            self._require(field, float, 0, 1)
        for field in ("friction", "acceleration_penalty"):
            if getattr(self, field) is not None:
                self._require(field, float, 0)
        for field in ("friction_lr", "blur", "max_step"):
            if getattr(self, field) is not None:
                self._require(field, float, 0, open_low=True)
        self._require_one_of("p", (1, 2))
        self._require_one_of("initial_velocity", ("auto", "data", "zero", "learned", "estimated", "spline"))
        self._require_one_of("momentum", ("full", "mixed", "none"))
        self._require_one_of("gradient", ("full", "truncated"))
        self._require_one_of("learn_friction", (True, False))
        self._require_one_of("time_features", (True, False))
        self._require_one_of("compile", (True, False))
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, found {self.width} and {self.heads}")

    def check(self, *, has_velocity: bool) -> None:
        if self.initial_velocity == "data" and not has_velocity:
            raise ValueError(
                "initial_velocity='data' needs velocities; pass velocity_key, or choose 'learned', 'estimated', "
                "'spline', 'zero'"
            )
        if self.initial_velocity == "spline" and has_velocity:
            raise ValueError(
                "initial_velocity='spline' has no use for measured velocities; leave velocity_key out, or choose 'data'"
            )
        if processes.share(self) and self.n_batches % processes.count():
            raise ValueError(
                f"{processes.count()} processes cannot share {self.n_batches} batches evenly; choose n_batches as a "
                "multiple of the number of processes, or 1 to train in each of them by itself"
            )

    def estimate_velocities(self, populations: Populations) -> tuple[tuple[Array, ...] | None, Inertia | None]:
        unknown = self.initial_velocity == "auto" and populations.velocities is None
        if not unknown and self.initial_velocity != "spline":
            return None, None
        inertia = measure_inertia(populations)
        if self.initial_velocity == "spline" or (inertia is not None and inertia.found):
            return spline_velocities(populations), inertia
        return None, inertia

    def build(self, spec: Spec) -> Mechanics:
        potential = PopulationPotential(
            spec.n_dims,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            hidden=self.hidden,
            n_inducing=self.n_inducing,
            time_features=self.time_features,
        )
        start = self._start(spec)
        friction = self.friction
        if friction is None:
            friction = 0.1 if start == "data" else 3.0
        model = Mechanics(
            potential,
            friction,
            GradientField(spec.n_dims, self.width) if start in ("learned", "estimated") else None,
            rest=start == "zero",
            momentum=self.momentum,
            step=self._step(spec) / 2,
        )
        if model.log_friction is not None:
            model.log_friction.requires_grad_(self.learn_friction)
        return model

    def init(self, model: Mechanics, spec: Spec, snapshots: Snapshots, generator: torch.Generator) -> State:  # type: ignore[override]
        if self.initial_velocity == "estimated" and model.start is not None:
            fit_dice(model.start, snapshots, generator)
        fields = [p for name, p in model.named_parameters() if name != "log_friction" and p.requires_grad]
        groups = [{"params": fields, "lr": self.lr, "weight_decay": self.weight_decay}]
        if model.log_friction is not None and self.learn_friction:
            lr = self.friction_lr or (0.01 if self._start(spec) == "data" else 0.1)
            groups.append({"params": [model.log_friction], "lr": lr, "weight_decay": 0.0})
        optimizer = torch.optim.AdamW(groups)
        # The divergence's constant -OT(y, y) / 2, so that the logged loss tends to zero.
        batches, weights = snapshots.batches(self.batch_size, generator)[1:]
        constant = self_term(batches, weights, p=self.p, blur=self.blur or spec.blur)
        velocities = snapshots.velocities if self._start(spec) == "data" else None
        rank, n_processes = processes.join(snapshots.times.device) if self.n_batches > 1 else (0, 1)
        extra = {
            "fields": fields,
            "trained": [p for p in model.parameters() if p.requires_grad],
            "together": n_processes > 1,
            # Times at which cells start with measured velocities.
            "measured": {k for k, v in enumerate(velocities or []) if bool(torch.isfinite(v).all())},
            "constant": constant,
            "compiled": Compiled(model.potential) if self.compile else None,
            # Of each batch of this process its source of randomness, and what its rollouts brought to observed cells:
            # time index -> the last batch of them, with their momentum.
            "batches": [
                {"generator": _stream(generator, i), "carried": {}} for i in range(rank, self.n_batches, n_processes)
            ],
            "schedule": torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate),
        }
        return State(snapshots, generator, optimizer, extra=extra)

    def step(self, model: Mechanics, spec: Spec, state: State) -> dict[str, float]:  # type: ignore[override]
        extra = state.extra
        state.optimizer.zero_grad(set_to_none=True)
        value, handed = 0.0, []
        for batch in extra["batches"]:
            loss, penalty, momentum = self._objective(model, spec, state, batch)
            ((loss + penalty) / self.n_batches).backward()
            value += loss.item() / self.n_batches
            handed.append(momentum)
        if extra["together"]:
            value = processes.add_up(extra["trained"], value)
        norm = torch.nn.utils.clip_grad_norm_(extra["fields"], self.clip)
        # A long rollout of chaotic dynamics can leave the data or all numbers, or have a gradient that does: such a
        # step is skipped, but not for ever.
        size = norm.item()
        usable = math.isfinite(size) and value < (TOO_FAR * math.sqrt(spec.n_dims)) ** self.p / self.p
        state.skipped = 0 if usable else state.skipped + 1
        if usable:
            state.optimizer.step()
            extra["loss"] = value
            for batch, momentum in zip(extra["batches"], handed, strict=True):
                batch["carried"] |= momentum
        elif state.skipped < MAX_SKIPPED:
            value, size = extra.get("loss", value), 0.0
        elif math.isfinite(size) and math.isfinite(value):
            value = math.inf  # far from the data for too long: training goes back
        extra["schedule"].step()
        return {"loss": value, "friction": model.friction.item(), "gradient_norm": size}

    def _objective(
        self, model: Mechanics, spec: Spec, state: State, batch: dict[str, Any]
    ) -> tuple[Tensor, Tensor, dict[int, Any]]:
        """Loss and penalty of a rollout from a random time as far as another, and what it hands to observed cells.

        That is, by time index: the cells, the momentum it brought to them, and their weights.
        """
        times, generator, extra = state.snapshots.times, batch["generator"], state.extra
        cells, y, b = state.snapshots.batches(self.batch_size, generator)
        n_times = len(times)

        first = 0
        if _draw(generator) < self.restart:
            first = int(_draw(generator) * (n_times - 1))
            if first not in extra["measured"] and first not in batch["carried"]:
                first = 0  # no rollout has come by yet to bring momentum there
        x, v, w = self._start_state(model, state, batch, cells, first)
        # The horizon is drawn as well: short ones teach the force near the start before long ones can mislead it.
        longest = n_times - 1 - first
        if self.curriculum > 0:
            grown = extra["schedule"].last_epoch / (self.curriculum * self.n_steps)
            longest = min(longest, FIRST_HORIZON + int(grown * n_times))
        last = first + 1 + int(_draw(generator) * longest)
        substeps = substeps_for(times[first : last + 1], self._step(spec) * 4 ** (_draw(generator) - 0.5))
        fine, at = refine(times[first : last + 1], substeps)

        def push(x: Tensor, t: Tensor) -> Tensor:
            # Where dynamics are chaotic the gradients of a few cells grow along the path and drown all others.
            x = bounded(x, w)
            through = self.gradient == "full"
            return bounded(force(model.potential, x, t, w, through_positions=through, compiled=extra["compiled"]), w)

        states = [(x, v), *leapfrog(push, x, v, fine, model.friction, [1] * (len(fine) - 1))]
        # Mean square of dv/dt, without the first step, in which friction may discard the initial velocity.
        path = torch.stack([v for _, v in states[1:]])
        change = path.diff(dim=0).square().sum(-1)
        change = change.mean(-1) if w is None else (w * change).sum(-1) / w.sum()
        acceleration = (change / fine[1:].diff()).sum() / (fine[-1] - fine[0])
        positions, velocities = (torch.stack([states[i][j] for i in at]) for j in (0, 1))
        target = slice(first + 1, last + 1)
        a = uniform(positions) if w is None else (w / w.sum()).expand(positions.shape[:-1])
        blur = self.blur or spec.blur
        # Batches are noisier than a plan whose marginals are off by a percent.
        loss, plan = sinkhorn_loss(positions, y[target], a, b[target], p=self.p, blur=blur, tol=1e-2, max_iter=40)
        loss = (loss + extra["constant"][target]).mean()

        penalty = self.acceleration_penalty
        if penalty is None:
            penalty = 0.01 if self._start(spec) == "data" else 0.03

        momentum: dict[int, Any] = {}
        if first == 0:
            carried = plan.mT @ velocities.detach() / plan.sum(-2).clamp_min(1e-12).unsqueeze(-1)
            for k, vk in enumerate(carried, start=1):
                n = len(cells[k])
                momentum[k] = (y[k, :n], vk[:n], state.snapshots.weights_of(k, cells[k]))
        return loss, penalty * acceleration, momentum

    def _start_state(
        self, model: Mechanics, state: State, batch: dict[str, Any], cells: list[Tensor], first: int
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Positions, velocities and weights that a rollout from time index ``first`` starts with."""
        x = state.snapshots.positions[first][cells[first]]
        velocities = state.snapshots.velocities
        if velocities is not None and first in state.extra["measured"]:
            return x, velocities[first][cells[first]], state.snapshots.weights_of(first, cells[first])
        if first > 0:
            x, v, w = batch["carried"][first]
            return x, model.start_velocity(v, batch["generator"]), w
        v = model.initial_velocity(x)
        return x, torch.zeros_like(x) if v is None else v, state.snapshots.weights_of(first, cells[first])

    def _start(self, spec: Spec) -> str:
        """Initial velocity in use: "data" (measured, or of splines), "zero", "learned" or "estimated"."""
        if self.initial_velocity in ("auto", "spline"):
            return "data" if spec.has_velocity else "learned"
        return self.initial_velocity

    def _step(self, spec: Spec) -> float:
        """Typical step of the integrator in training, in mean intervals."""
        return self.max_step or max(0.5, (spec.n_times - 1) / 16)

    def _rate(self, step: int) -> float:
        """Learning rate at ``step`` (from 0) as a share of its peak."""
        warm_up = max(1, self.n_steps // 20)
        if step < warm_up:
            return (step + 1) / warm_up
        done = (step - warm_up) / max(1, self.n_steps - warm_up)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _stream(generator: torch.Generator, i: int) -> torch.Generator:
    """The source of randomness of batch ``i``: ``generator`` itself for the first, others of their own."""
    if i == 0:
        return generator
    seed = int(np.random.SeedSequence([generator.initial_seed(), i]).generate_state(1)[0])
    return torch.Generator(generator.device).manual_seed(seed)


def _draw(generator: torch.Generator) -> float:
    """A uniform number in [0, 1)."""
    return torch.rand((), generator=generator, device=generator.device).item()
