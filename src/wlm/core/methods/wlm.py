r"""Wasserstein Lagrangian Mechanics: second-order population mechanics with a learned potential and friction.

The rollout obeys :math:`\dot x = v,\ \dot v = -\gamma v - (1+\gamma)\nabla_x U_\theta(\{x_j\}, t)` (paper, eq. 7-8)
and is trained to meet each observed population in Sinkhorn divergence (paper, Algorithm 1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from wlm.core import processes
from wlm.core.arrival import agreed as arrivals_agreed
from wlm.core.arrival import arrival
from wlm.core.chains import spline_velocities, to_cells
from wlm.core.checkpoint import Memory
from wlm.core.divergences import DIVERGENCES, geomloss_divergence, plan, self_term, sinkhorn_loss
from wlm.core.divergences import cost as ground_cost
from wlm.core.energies.force import Compiled, force
from wlm.core.energies.moments import MomentPotential
from wlm.core.energies.population import PopulationPotential
from wlm.core.field import N_LEAST, N_TIMES, agreed, learn_paths
from wlm.core.growth import Growth, price, roughness, size_error, with_mass
from wlm.core.integrators import bounded, leapfrog, refine, substeps_for
from wlm.core.methods._base import METHODS, Method
from wlm.core.methods._mechanics import Mechanics
from wlm.core.methods._rollouts import Batch, MechanicsState, mean_acceleration, stream
from wlm.core.methods._start import GradientField, fit_dice
from wlm.core.methods.flow import Flow
from wlm.core.model import Spec
from wlm.core.particles import Particles, together
from wlm.core.populations import Populations
from wlm.core.snapshots import Snapshots

#: Intervals of the longest rollouts from later times, and most rollouts of a step.
SHORT, MOST_ROLLOUTS = 2, 8
#: Intervals of the longest rollouts from the first time at the start of training: few enough for any series.
FIRST_HORIZON = 4
#: Steps in a row that may pass without a usable loss and gradient; then training goes back and on more slowly.
MAX_SKIPPED = 10
#: A rollout that ends this many radii (root mean square, of all cells) of the data away teaches nothing.
TOO_FAR = 7.0
#: Weight of the squared error in the logarithm of the population's size, if sizes are known; learning rate of the
#: scale of a prior and of the mean rate, which are single numbers.
SIZES, CONSTANTS_LR = 0.1, 0.05


@dataclass(frozen=True, kw_only=True)
class WLM(Method[Mechanics, MechanicsState]):
    """Options of ``method="wlm"``.

    Parameters
    ----------
    n_steps
        Training steps, at most.
    lr
        Peak learning rate of the potential (AdamW, linear warm-up over 5 % of the steps, cosine decay).
    batch_size
        Cells drawn from each population per step.
    n_batches
        Independent batches of a step, whose gradients are averaged. Processes that ``torchrun`` has started share them,
        so that there have to be as many or a multiple; the result is that of one process with all of them, to rounding.
    friction
        Friction, or its initial value, per mean interval between training times. 0 is conservative and
        is never learned. ``None`` starts at 0.1 where the initial velocity is measured, or that of paths,
        and at 3 where not: without velocities inertia has to show itself, with them friction has.
    friction_lr
        Learning rate of the logarithm of friction; ``None`` takes 0.01 where the initial velocity is
        measured, 0.1 where not. With 0 friction stays what it is.
    initial_velocity
        ``"data"`` (given velocities), ``"zero"``, ``"learned"`` (a gradient field trained with the
        potential), ``"estimated"`` (a gradient field fitted to the snapshots before, by DICE, see
        ``dice_loss`` of ``wlm.core.methods._start``), ``"paths"`` (at every training time the velocity of the paths of
        cells through all of them, see :func:`wlm.core.field.learn_paths`, from then on taken for measured; predictions
        arrive with them too), ``"spline"`` (the same with natural cubic splines) or ``"auto"``: data if velocities are
        given; else paths where these leave the straight lines between couplings; else learned.
    acceleration_penalty
        Weight of the mean squared acceleration dv/dt along the paths (standard units) in the loss: of all
        mechanics that explain the populations, the ones with the steadiest motion are preferred. ``None``
        takes 0.03 where the initial velocity is not measured, so that many mechanics explain the same
        populations, and 0.01 where it is.
    max_step
        Typical integrator step in training, in mean intervals; it is varied by a factor of two either
        way so that the dynamics do not depend on it. Predictions take half of it. ``None`` takes half an
        interval, or a sixteenth of the time from first to last where that is more (but no step passes an
        observed time).
    p, blur
        Exponent and blur of the Sinkhorn divergence; ``blur=None`` takes a tenth of the median
        distance between cells of a population. ``blur`` is in standard units.
    divergence
        Who computes the divergence: ``"sinkhorn"``, ours; or ``"geomloss"``, ``"geomloss-tensorized"``,
        ``"geomloss-online"`` (KeOps, for large batches; it has to be installed) or ``"geomloss-multiscale"``, the
        library of the paper with its backends.
    width, heads, hidden, n_inducing
        Size of the potential, see :class:`~wlm.core.energies.population.PopulationPotential`. ``heads=0`` takes a
        smaller one (:class:`~wlm.core.energies.moments.MomentPotential`): cells see ``n_inducing`` moments of the
        population in place of each other, ``hidden`` is not used, and a step of a hundred cells takes half the time.
    time_features
        Let the potential depend on time.
    compile
        Compile the derivatives of the potential (``torch.compile``) before training. It takes half a minute to two,
        less the next time, and makes steps faster: for long trainings. On the CPU it needs a C++ compiler.
    ema
        Decay of the running average of the weights, which is what is kept.
    weight_decay
        AdamW's weight decay.
    growth
        Whether cells divide and die: False, True (a net rate of each state is learned) or ``"prior"`` (rates are given
        and taken as they are), see :func:`wlm.tl.fit`.
    """

    name: ClassVar[str] = "wlm"
    account: ClassVar[str] = (
        "Wasserstein Lagrangian Mechanics: cells follow second-order dynamics, dx/dt = v and dv/dt = -γv - (1+γ)∇U, in "
        "which the potential U, a permutation-invariant network that sees the whole population, and the friction γ are "
        "learned together; rollouts are integrated by a leapfrog scheme and trained to meet each observed population "
        "in Sinkhorn divergence"
    )
    papers: ClassVar[tuple[str, ...]] = (
        "A Call to Lagrangian Action: Learning Population Mechanics from Temporal Snapshots (the paper that introduced "
        "Wasserstein Lagrangian Mechanics).",
        "J. Feydy, T. Séjourné, F.-X. Vialard, S. Amari, A. Trouvé, G. Peyré. Interpolating between Optimal Transport "
        "and MMD using Sinkhorn Divergences. AISTATS 2019.",
    )
    takes: ClassVar[frozenset[str]] = frozenset({"velocity", "growth", "clones"})
    dropped: ClassVar[Mapping[str, tuple[Any, str | None]]] = {
        "depth": (1, "DEPTH"),
        "momentum": ("full", "MOMENTUM"),
        "restart": (0.75, "RESTART"),
        "curriculum": (0.5, "CURRICULUM"),
        "clip": (1.0, "CLIP"),
        "learn_friction": (True, None),
        "gradient": ("full", None),
    }
    earlier: ClassVar[Mapping[str, Any]] = {"depth": 2}
    #: Blocks of the potential; largest norm of its gradient.
    DEPTH: ClassVar[int] = 1
    CLIP: ClassVar[float] = 1.0
    #: Share of the steps with short rollouts from all observed times at once (multiple shooting); the others are long,
    #: from the first time. Later starts are observed cells with given velocities, or with the momentum that the last
    #: rollout brought there.
    RESTART: ClassVar[float] = 0.75
    #: Share of the training over which the longest horizon grows from ``FIRST_HORIZON`` intervals to all.
    CURRICULUM: ClassVar[float] = 0.5
    #: With what part of the momentum carried to them observed cells of later times start: "full", "none", or "mixed", a
    #: random part of each cell's. Given velocities are used in full.
    MOMENTUM: ClassVar[str] = "full"
    #: The integrator step varies by this factor either way, so that the dynamics do not depend on it.
    JITTER: ClassVar[float] = 2.0
    #: With growth: the price of a rate by its standard deviation over the cells, the deviation at which it levels off,
    #: and the price of its squared slope, see :func:`wlm.core.growth.price`.
    GROWTH_PRICE: ClassVar[float] = 0.1
    GROWTH_SCALE: ClassVar[float] = 0.3
    GROWTH_SMOOTHNESS: ClassVar[float] = 0.02
    #: How much dearer what is learned besides given rates is: proportions alone would swamp what genes know.
    BESIDES_PRIOR: ClassVar[float] = 100.0
    #: Weight of the distance to sisters, if there are clones.
    SISTERS: ClassVar[float] = 1.0

    n_steps: int = 80
    lr: float = 4e-3
    batch_size: int = 128
    n_batches: int = 1
    friction: float | None = None
    friction_lr: float | None = None
    initial_velocity: str = "auto"
    acceleration_penalty: float | None = None
    max_step: float | None = None
    p: int = 2
    blur: float | None = None
    divergence: str = "sinkhorn"
    width: int = 64
    heads: int = 4
    hidden: int = 128
    n_inducing: int = 16
    time_features: bool = False
    compile: bool = False
    ema: float = 0.99
    weight_decay: float = 1e-3
    growth: bool | str = False

    def __post_init__(self) -> None:
        for field in ("n_steps", "batch_size", "n_batches", "width", "hidden"):
            self._require(field, int, 1)
        for field in ("heads", "n_inducing"):
            self._require(field, int, 0)
        self._require("lr", float, 0, open_low=True)
        self._require("weight_decay", float, 0)
        self._require("ema", float, 0, 1)
        for field in ("friction", "friction_lr", "acceleration_penalty"):
            if getattr(self, field) is not None:
                self._require(field, float, 0)
        for field in ("blur", "max_step"):
            if getattr(self, field) is not None:
                self._require(field, float, 0, open_low=True)
        self._require_one_of("p", (1, 2))
        self._require_one_of("initial_velocity", ("auto", "data", "zero", "learned", "estimated", "spline", "paths"))
        self._require_one_of("divergence", DIVERGENCES)
        self._require_one_of("time_features", (True, False))
        self._require_one_of("compile", (True, False))
        self._require_one_of("growth", (False, True, "prior"))
        if self.heads == 0 and self.compile:
            raise ValueError("compile=True compiles the derivatives of attention; with heads=0 leave it out")
        if self.heads and self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, found {self.width} and {self.heads}")

    @staticmethod
    def paper(experiment: str) -> WLM:
        """The authors' algorithm with their settings of an experiment, to pass as ``method``.

        Parameters
        ----------
        experiment
            ``"eb"``, ``"vortex"``, ``"vortex_forecast"``, ``"sde"`` or ``"boids"``.

        Raises
        ------
        ValueError
            If there is no such experiment.
        """
        return METHODS["wlm_paper"].of(experiment)  # type: ignore[attr-defined]

    def check(self, *, has_velocity: bool) -> None:
        if self.initial_velocity == "data" and not has_velocity:
            raise ValueError(
                "initial_velocity='data' needs velocities; pass velocity_key, or choose 'paths', 'learned', "
                "'estimated', 'spline', 'zero'"
            )
        if self.initial_velocity in ("spline", "paths") and has_velocity:
            raise ValueError(
                f"initial_velocity={self.initial_velocity!r} has no use for measured velocities; leave velocity_key "
                "out, or choose 'data'"
            )
        if processes.share(self) and self.n_batches % processes.count():
            raise ValueError(
                f"{processes.count()} processes cannot share {self.n_batches} batches evenly; choose n_batches as a "
                "multiple of the number of processes, or 1 to train in each of them by itself"
            )

    def conserved(self, *, has_velocity: bool) -> WLM:
        learned = self.grows and self.initial_velocity == "auto" and not has_velocity  # as prepare chooses
        start = "learned" if learned else self.initial_velocity
        return replace(self, growth=False, initial_velocity=start)

    def agree(self, choices: Sequence[Mapping[str, Any]]) -> str | None:
        if any(choice["path"] in ("velocities", "rollout") for choice in choices):
            return arrivals_agreed(choices)
        return agreed(choices) if self.initial_velocity == "auto" else None

    def prepare(
        self, populations: Populations, choice: str | None = None
    ) -> tuple[Populations, dict[str, dict[str, Any]]]:
        self.check(has_velocity=populations.velocities is not None)
        if populations.velocities is not None and self.initial_velocity in ("auto", "data"):
            arrives = arrival(populations, choice)
            return populations, {} if arrives is None else {"choice": arrives}
        if populations.velocities is not None or self.initial_velocity not in ("auto", "paths", "spline"):
            return populations, {}
        if self.growth is not False and self.initial_velocity == "auto":
            words = "couplings would conserve cells, which grow; initial velocities are learned"
            return populations, {"choice": {"path": "straight", "words": words}}
        if populations.clones is not None and self.initial_velocity == "auto":
            words = "couplings know nothing of clones, which say who comes from whom; initial velocities are learned"
            return populations, {"choice": {"path": "straight", "words": words}}
        if self.initial_velocity == "spline":
            words = "cells follow natural cubic splines through optimal couplings, as was asked"
            note: dict[str, Any] = {"path": "spline", "words": words}
            return replace(populations, velocities=spline_velocities(populations)), {"choice": note}
        paths = learn_paths(populations, path=choice or "auto")
        if paths is None and self.initial_velocity == "paths":
            raise ValueError(
                f"initial_velocity='paths' needs {N_TIMES} training times of {N_LEAST} cells at least, found "
                f"{len(populations.times)} times, one of {min(map(len, populations.positions))} cells; choose 'learned'"
            )
        if paths is not None and (paths.bends or self.initial_velocity == "paths"):
            velocities = to_cells(populations, paths.positions, paths.velocities)
            return replace(populations, velocities=velocities), {"choice": paths.note()}
        if paths is None:
            words = "there are too few times or cells to tell how cells move between them"
            note = {"path": "straight", "words": f"{words}; initial velocities are learned"}
        else:
            note = paths.note()
            note["words"] += "; initial velocities are learned"
        return populations, {"choice": note}

    def companion(self, populations: Populations) -> tuple[Method[Any, Any], Populations]:
        v = populations.velocities
        if v is not None and all(np.isfinite(u).all() for u in v):
            return Flow(), populations
        flow = Flow(path="straight")
        return flow, flow.prepare(replace(populations, velocities=None))[0]

    def build(self, spec: Spec) -> Mechanics:
        potential = self._potential(spec)
        start = self._start(spec)
        friction = self.friction
        if friction is None:
            friction = 0.1 if start == "data" else 3.0
        model = Mechanics(
            potential,
            friction,
            GradientField(spec.n_dims, self.width) if start in ("learned", "estimated") else None,
            rest=start == "zero",
            step=self._prediction_step(spec),
            momentum=self.MOMENTUM,
            growth=self._growth(spec),
        )
        if model.log_friction is not None:
            model.log_friction.requires_grad_(self.friction_lr != 0)
        return model

    def _potential(self, spec: Spec) -> PopulationPotential | MomentPotential:
        """The potential, untrained."""
        if self.heads == 0:
            return MomentPotential(
                spec.n_dims, width=self.width, n_moments=self.n_inducing, time_features=self.time_features
            )
        return PopulationPotential(
            spec.n_dims,
            width=self.width,
            depth=self.DEPTH,
            heads=self.heads,
            hidden=self.hidden,
            n_inducing=self.n_inducing,
            time_features=self.time_features,
        )

    def _growth(self, spec: Spec) -> Growth | None:
        """The rates of growth, untrained."""
        if self.growth is False:
            return None
        return Growth(spec.n_dims, prior=spec.has_prior, residual=self.growth is True, level=spec.has_sizes)

    def _learn_from(self, rates: Growth, snapshots: Snapshots, generator: torch.Generator) -> None:
        """Give the rates what the data say of them before training: the prior, and a mean rate."""
        if rates.prior is not None and snapshots.growth is not None:
            rates.prior.learn(snapshots.positions, snapshots.growth, generator)
        if rates.level is not None and snapshots.log_sizes is not None:
            with torch.no_grad():
                whole = snapshots.log_sizes[-1] - snapshots.log_sizes[0]
                mean = whole / (snapshots.times[-1] - snapshots.times[0])
                if rates.prior is not None:  # its mean is a part of the mean rate
                    mean = mean - rates.scale * rates.prior.mean
                rates.level.copy_(mean)

    def init(self, model: Mechanics, spec: Spec, snapshots: Snapshots, generator: torch.Generator) -> MechanicsState:
        if self.initial_velocity == "estimated" and model.start is not None:
            fit_dice(model.start, snapshots, generator)
        single = {id(p) for p in (model.log_friction, *(model.rates.constants if model.rates is not None else ()))}
        fields = [p for p in model.parameters() if id(p) not in single and p.requires_grad]
        groups = [{"params": fields, "lr": self.lr, "weight_decay": self.weight_decay}]
        if model.log_friction is not None and self.friction_lr != 0:
            lr = self.friction_lr or (0.01 if self._start(spec) == "data" else 0.1)
            groups.append({"params": [model.log_friction], "lr": lr, "weight_decay": 0.0})
        if model.rates is not None:
            self._learn_from(model.rates, snapshots, generator)
            if model.rates.constants:
                groups.append({"params": model.rates.constants, "lr": CONSTANTS_LR, "weight_decay": 0.0})
        optimizer = torch.optim.AdamW(groups)
        batches, weights = snapshots.batches(self.batch_size, generator)[1:]
        if self.divergence == "sinkhorn":
            # The divergence's constant -OT(y, y) / 2, so that the logged loss tends to zero.
            constant = self_term(batches, weights, p=self.p, blur=self._blur(spec))
        else:
            constant = torch.zeros_like(snapshots.times)
        velocities = snapshots.velocities if self._start(spec) == "data" else None
        rank, n_processes = processes.join(snapshots.times.device) if self.n_batches > 1 else (0, 1)
        return MechanicsState(
            snapshots=snapshots,
            generator=generator,
            optimizer=optimizer,
            schedule=torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate),
            fields=fields,
            trained=[p for p in model.parameters() if p.requires_grad],
            measured={k for k, v in enumerate(velocities or []) if bool(torch.isfinite(v).all())},
            constant=constant,
            batches=[Batch(stream(generator, i)) for i in range(rank, self.n_batches, n_processes)],
            shared=n_processes > 1,
            compiled=Compiled(model.potential) if self.compile else None,
        )

    def step(self, model: Mechanics, spec: Spec, state: MechanicsState) -> dict[str, float]:
        state.optimizer.zero_grad(set_to_none=True)
        value, handed = 0.0, []
        for batch in state.batches:
            loss, penalty, momentum = self._objective(model, spec, state, batch)
            ((loss + penalty) / self.n_batches).backward()
            value += loss.item() / self.n_batches
            handed.append(momentum)
        if state.shared:
            value = processes.add_up(state.trained, value)
        norm = torch.nn.utils.clip_grad_norm_(state.fields, self.CLIP)
        # Long chaotic rollouts may leave the data or overflow, or their gradients may. Skip such a step, up to
        # MAX_SKIPPED in a row.
        size = norm.item()
        usable = math.isfinite(size) and value < self._too_far(spec)
        state.skipped = 0 if usable else state.skipped + 1
        if usable:
            state.optimizer.step()
            state.last["loss"] = value
            for batch, momentum in zip(state.batches, handed, strict=True):
                batch.carried |= momentum
        elif state.skipped < MAX_SKIPPED:
            value, size = state.last.get("loss", value), 0.0
        elif math.isfinite(size) and math.isfinite(value):
            value = math.inf  # far from the data for too long: training goes back
        state.schedule.step()
        return {"loss": value, "friction": model.friction.item(), "gradient_norm": size}

    def _objective(
        self, model: Mechanics, spec: Spec, state: MechanicsState, batch: Batch
    ) -> tuple[Tensor, Tensor, Memory]:
        """Loss and penalty of rollouts from several times, and what they hand to observed cells."""
        times = state.snapshots.times
        cells, y, b = state.snapshots.batches(self.batch_size, batch.generator)
        firsts, n_intervals = self._windows(state, batch)
        start = state.start(model, batch, cells, firsts)  # (B, n, d)
        start = start if model.rates is None else with_mass(start)
        passed = torch.arange(n_intervals + 1).unsqueeze(1) + torch.tensor(firsts)  # (h + 1, B)
        factor = (self.JITTER**2) ** (batch.draw() - 0.5)
        fine, at = refine(times[passed], substeps_for(times[passed], self._step(spec) * factor))

        def push(p: Particles, t: Tensor) -> Tensor:
            # Where dynamics are chaotic the gradients of a few cells grow along the path and drown all others.
            p = p._replace(x=bounded(p.x, p.w), log_w=None if p.log_w is None else p.log_w.detach())
            return bounded(force(model.potential, p, t, compiled=state.compiled), p.w)

        states = [start, *leapfrog(push, start, fine, model.friction, [1] * (len(fine) - 1), model.rates)]
        path, target = together([states[i] for i in at]), passed[1:]  # (h, B, n, d), (h, B)
        wanted = self.RESTART > 0 and len(state.measured) < len(times)
        loss, coupled = self._divergence(path, y[target], b[target], self._blur(spec), wanted=wanted)
        loss = loss + state.constant[target]
        near = (loss < self._too_far(spec)).all(0)  # (B,)
        # Rollouts that have left the data teach nothing, and are no reason to lose what the others do.
        loss = (loss if near.all() or not near.any() else loss[:, near]).mean()
        weight = self.acceleration_penalty
        if weight is None:
            weight = 0.01 if self._start(spec) == "data" else 0.03
        if (clones := state.clones(batch, cells, firsts, start.x.shape[-2])) is not None:
            if not near.all() and near.any():
                clones = clones.masked_fill(~near.unsqueeze(-1), -1)
            apart = state.snapshots.sisters.distance(path, clones, target)  # type: ignore[union-attr]
            loss = loss + self.SISTERS * apart
        momentum = Memory() if coupled is None else state.handed(coupled, path, y, cells, firsts)
        penalty = weight * mean_acceleration(states, fine)
        if model.rates is not None:
            penalty = penalty + self._price(model.rates, together(states), fine)
            if (sizes := state.snapshots.log_sizes) is not None:
                observed = together([start, *(states[i] for i in at)])
                penalty = penalty + SIZES * size_error(observed, sizes[passed])
        return loss, penalty, momentum

    def _price(self, rates: Growth, path: Particles, times: Tensor) -> Tensor:
        """What learned rates cost along rollouts ``path`` (T, B, n, d)."""
        if rates.network is None:
            return path.x.new_zeros(())
        cost = self.GROWTH_SMOOTHNESS * roughness(rates.network, path, times)
        cost = cost + price(rates.network, path, times, self.GROWTH_PRICE, self.GROWTH_SCALE)
        if rates.prior is None:
            return cost
        # Dear as far as the given rates are believed: where populations overrule them, it is as without.
        return self.BESIDES_PRIOR ** rates.scale.detach().clamp(0, 1) * cost

    def _too_far(self, spec: Spec) -> float:
        """The divergence of populations ``TOO_FAR`` apart."""
        return (TOO_FAR * math.sqrt(spec.n_dims)) ** self.p / self.p

    def _windows(self, state: MechanicsState, batch: Batch) -> tuple[list[int], int]:
        """The time indices at which rollouts start, and the number of intervals that each goes through."""
        n_times = len(state.snapshots.times)
        if batch.draw() < self.RESTART:
            n = 1 + int(batch.draw() * min(SHORT, n_times - 1))
            known = state.measured | batch.carried.keys()  # no rollout has come by the others yet to bring momentum
            firsts = [k for k in range(n_times - n) if k == 0 or k in known]
            some = torch.randperm(len(firsts), generator=batch.generator, device=batch.generator.device)
            return sorted(firsts[int(i)] for i in some[:MOST_ROLLOUTS]), n
        # The horizon is drawn as well: short ones teach the force near the start before long ones can mislead it.
        longest = n_times - 1
        if self.CURRICULUM > 0:
            grown = state.schedule.last_epoch / (self.CURRICULUM * self.n_steps)
            longest = min(longest, FIRST_HORIZON + int(grown * n_times))
        return [0], 1 + int(batch.draw() * longest)

    def _divergence(
        self,
        path: Particles,
        y: Tensor,
        b: Tensor,
        blur: float,
        wanted: bool,  # noqa: FBT001
    ) -> tuple[Tensor, Tensor | None]:
        """Divergence (...,) of predicted from observed cells, and the plan (..., n, m) where it is ``wanted``."""
        # Batches are noisier than a plan whose marginals are off by a percent.
        rough: dict[str, Any] = {"tol": 1e-2, "max_iter": 40}
        if self.divergence == "sinkhorn":
            loss, coupled = sinkhorn_loss(path.x, y, path.shares, b, p=self.p, blur=blur, **rough)
            return loss, coupled if wanted else None
        backend = self.divergence.removeprefix("geomloss").removeprefix("-") or "auto"
        clouds = [*(z.flatten(0, -3) for z in (path.x, y)), *(w.flatten(0, -2) for w in (path.shares, b))]
        loss = geomloss_divergence(*clouds, p=self.p, blur=blur, backend=backend).view(y.shape[:-2])
        if not wanted:
            return loss, None
        with torch.no_grad():  # geomloss hands out no plan
            eps = blur if self.p == 1 else blur**2
            return loss, plan(ground_cost(path.x, y, self.p), path.shares, b, eps, **rough)[0]

    def _start(self, spec: Spec) -> str:
        """Initial velocity in use: "data" (measured, or of splines), "zero", "learned" or "estimated"."""
        if self.initial_velocity in ("auto", "spline", "paths"):
            return "data" if spec.has_velocity else "learned"
        return self.initial_velocity

    def _blur(self, spec: Spec) -> float:
        return self.blur or spec.blur

    def _step(self, spec: Spec) -> float:
        """Typical step of the integrator in training, in mean intervals."""
        return self.max_step or max(0.5, (spec.n_times - 1) / 16)

    def _prediction_step(self, spec: Spec) -> float:
        """Longest step of the integrator in predictions."""
        return self._step(spec) / 2

    def _rate(self, step: int) -> float:
        """Learning rate at ``step`` (from 0) as a share of its peak."""
        warm_up = max(1, self.n_steps // 20)
        if step < warm_up:
            return (step + 1) / warm_up
        done = (step - warm_up) / max(1, self.n_steps - warm_up)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
