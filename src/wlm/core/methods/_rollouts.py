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
from wlm.core.particles import Particles


@dataclass
class Batch:
    """The batches of a step that belong together: their source of randomness, and what rollouts handed to them.

    ``carried`` has, by time index, the last batch of observed cells that a rollout came by: positions and momentum
    (n, d), logarithms of weights (n,) or None.
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

    def start(self, model: Mechanics, batch: Batch, cells: list[Tensor], first: int) -> Particles:
        """The cells that a rollout from time index ``first`` starts with."""
        velocities = self.snapshots.velocities
        if velocities is not None and first in self.measured:
            return self.snapshots.particles(first, cells[first], velocities[first][cells[first]])
        if first > 0:
            p = Particles(*batch.carried[first])
            return p._replace(v=model.start_velocity(p.v, batch.generator))  # type: ignore[arg-type]
        p = self.snapshots.particles(first, cells[first])
        v = model.initial_velocity(p.x)
        return p._replace(v=torch.zeros_like(p.x) if v is None else v)

    def handed(self, plan: Tensor, path: Particles, y: Tensor, cells: list[Tensor]) -> Memory:
        """The momentum that a rollout ``path`` (T, n, d) from the first time brings to the observed cells ``y``.

        Each gets the mean over the cells that the ``plan`` (T, n, m) couples it with.
        """
        out = Memory()
        if path.v is None:
            return out
        carried = plan.mT @ path.v.detach() / plan.sum(-2).clamp_min(1e-12).unsqueeze(-1)
        for k, vk in enumerate(carried, start=1):
            n = len(cells[k])
            out[k] = (y[k, :n], vk[:n], self.snapshots.particles(k, cells[k]).log_w)
        return out


def mean_acceleration(states: list[Particles], times: Tensor) -> Tensor:
    """Mean square of dv/dt over cells and time along ``states`` at ``times`` (T,).

    The first step is left out: friction may discard the initial velocity in it.
    """
    path = torch.stack([p.v for p in states[1:] if p.v is not None])
    change = path.diff(dim=0).square().sum(-1)
    change = states[0].mean(change)
    return (change / times[1:].diff()).sum() / (times[-1] - times[0])


def stream(generator: torch.Generator, i: int) -> torch.Generator:
    """The source of randomness of batch ``i``: ``generator`` itself for the first, others of their own."""
    if i == 0:
        return generator
    seed = int(np.random.SeedSequence([generator.initial_seed(), i]).generate_state(1)[0])
    return torch.Generator(generator.device).manual_seed(seed)
