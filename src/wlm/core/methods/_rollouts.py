"""What a step of WLM learns from: a rollout between two random times, and how far it ends from what was observed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from wlm.core.checkpoint import Memory, Stateful
from wlm.core.energies.force import Compiled
from wlm.core.methods._base import State
from wlm.core.methods._mechanics import Mechanics
from wlm.core.particles import Particles, together


@dataclass
class Batch:
    """The batches of a step that belong together: their source of randomness, and what rollouts handed to them.

    ``carried`` has, by time index, the last batch of observed cells that a rollout came by: positions and momentum
    (n, d), logarithms of weights (n,) or None, and which cells these are (n,).
    """

    generator: torch.Generator
    carried: Memory = field(default_factory=Memory)

    def draw(self) -> float:
        """A uniform number in [0, 1)."""
        return torch.rand((), generator=self.generator, device=self.generator.device).item()


@dataclass(kw_only=True)
class MechanicsState(State):
    """A training of WLM.

    ``fields`` are the parameters without friction, ``trained`` all that are learned; ``measured`` the time indices at
    which cells start with given velocities; ``constant`` (T,) what the loss lacks for a divergence; ``shared`` whether
    several processes have a part of the batches each; ``last`` remembers the last usable loss.
    """

    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    fields: list[nn.Parameter]
    trained: list[nn.Parameter]
    measured: set[int]
    constant: Tensor
    batches: list[Batch]
    shared: bool
    compiled: Compiled | None = None
    last: Memory = field(default_factory=Memory)

    def parts(self) -> dict[str, Stateful | torch.Generator]:
        own: dict[str, Stateful | torch.Generator] = {
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "last": self.last,
        }
        for i, batch in enumerate(self.batches):
            own[f"carried {i}"] = batch.carried
            if batch.generator is not self.generator:
                own[f"generator {i}"] = batch.generator
        return super().parts() | own

    def start(self, model: Mechanics, batch: Batch, cells: list[Tensor], firsts: list[int]) -> Particles:
        """The cells (B, n, d) that rollouts from the time indices ``firsts`` start with.

        Of a time with fewer cells than another some are there more than once.
        """
        n = max(len(cells[k]) for k in firsts)
        return together([_repeated(self._start(model, batch, cells[k], k), n) for k in firsts])

    def _start(self, model: Mechanics, batch: Batch, cells: Tensor, first: int) -> Particles:
        velocities = self.snapshots.velocities
        if velocities is not None and first in self.measured:
            return self.snapshots.particles(first, cells, velocities[first][cells])
        if first > 0:
            p = Particles(*batch.carried[first][:3])
            return p._replace(v=model.start_velocity(p.v, batch.generator))  # type: ignore[arg-type]
        p = self.snapshots.particles(first, cells)
        v = model.initial_velocity(p.x)
        return p._replace(v=torch.zeros_like(p.x) if v is None else v)

    def handed(self, plan: Tensor, path: Particles, y: Tensor, cells: list[Tensor], firsts: list[int]) -> Memory:
        """The momentum that rollouts ``path`` (h, B, n, d) from the times ``firsts`` bring to the observed cells ``y``.

        Each gets the mean over the cells that the ``plan`` (h, B, n, m) couples it with; of several rollouts to the
        same time the longest counts.
        """
        out = Memory()
        if path.v is None:
            return out
        carried = plan.mT @ path.v.detach() / plan.sum(-2).clamp_min(1e-12).unsqueeze(-1)
        for j, at_time in enumerate(carried, start=1):
            for first, vk in zip(firsts, at_time, strict=True):
                k, n = first + j, len(cells[first + j])
                if k not in self.measured:
                    out[k] = (y[k, :n], vk[:n], self.snapshots.particles(k, cells[k]).log_w, cells[k])
        return out

    def clones(self, batch: Batch, cells: list[Tensor], firsts: list[int], n: int) -> Tensor | None:
        """The clones (B, n) of the cells that :meth:`start` returns, -1 for cells without one; None if unknown."""
        sisters = self.snapshots.sisters
        if sisters is None:
            return None
        out = []
        for k in firsts:
            carried = k > 0 and k not in self.measured
            own = sisters.clones[k][batch.carried[k][3] if carried else cells[k]]
            out.append(own[torch.arange(n, device=own.device) % len(own)])
        return torch.stack(out)


def mean_acceleration(states: list[Particles], times: Tensor) -> Tensor:
    """Mean square of dv/dt over cells and time along ``states`` (B, n, d) at ``times`` (T, B), mean over all B.

    The first step is left out: friction may discard the initial velocity in it.
    """
    path = torch.stack([p.v for p in states[1:] if p.v is not None])
    change = path.diff(dim=0).square().sum(-1)
    change = states[0].mean(change)
    return ((change / times[1:].diff(dim=0)).sum(0) / (times[-1] - times[0])).mean()


def _repeated(p: Particles, n: int) -> Particles:
    """``n`` cells: those of ``p``, in turn."""
    if len(p.x) == n:
        return p
    i = torch.arange(n, device=p.x.device) % len(p.x)
    v, log_w = (None if z is None else z[i] for z in p[1:])
    return Particles(p.x[i], v, log_w)


def stream(generator: torch.Generator, i: int) -> torch.Generator:
    """The source of randomness of batch ``i``: ``generator`` itself for the first, others of their own."""
    if i == 0:
        return generator
    seed = int(np.random.SeedSequence([generator.initial_seed(), i]).generate_state(1)[0])
    return torch.Generator(generator.device).manual_seed(seed)
