r"""Dynamics of a population potential, a friction and, if it is learned, a field of initial velocities."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wlm.core.energies.force import force
from wlm.core.energies.population import PopulationPotential
from wlm.core.integrators import leapfrog, substeps_for
from wlm.core.methods._start import GradientField
from wlm.core.model import Model


class Mechanics(Model):
    """A population potential, a friction and, if it is learned, a field of initial velocities."""

    def __init__(
        self,
        potential: PopulationPotential,
        friction: float,
        start: GradientField | None,
        *,
        rest: bool,
        momentum: str,
        step: float,
    ):
        super().__init__()
        self.potential = potential
        self.log_friction = nn.Parameter(torch.tensor(math.log(friction))) if friction > 0 else None
        self.start = start
        self._rest = rest
        self._momentum = momentum
        self._step = step

    @property
    def friction(self) -> Tensor:
        r""":math:`\gamma`, scalar, in standard units."""
        if self.log_friction is None:
            return torch.zeros((), device=self.potential.embed.weight.device)
        return self.log_friction.exp()

    def initial_velocity(self, x: Tensor) -> Tensor | None:
        if self.start is not None:
            return self.start(x, x.new_zeros(()))
        return torch.zeros_like(x) if self._rest else None

    def start_velocity(self, v: Tensor, generator: torch.Generator) -> Tensor:
        if self._momentum == "full":
            return v
        if self._momentum == "none":
            return torch.zeros_like(v)
        return v * torch.rand(len(v), 1, generator=generator, device=v.device)

    def rollout(
        self, x: Tensor, v: Tensor, times: Tensor, generator: torch.Generator, w: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        states = [(x, v)]
        if len(times) > 1:
            substeps = substeps_for(times, self._step)
            states += leapfrog(lambda x, t: force(self.potential, x, t, w), x, v, times, self.friction, substeps)
        positions, velocities = zip(*states, strict=True)
        return torch.stack(positions), torch.stack(velocities)

    def energy(self, x: Tensor, t: Tensor, w: Tensor | None = None) -> Tensor:
        return (1 + self.friction) * (self.potential(x, t) if w is None else self.potential(x, t, w))

    def force(self, x: Tensor, t: Tensor, w: Tensor | None = None) -> Tensor:
        return ((1 + self.friction) * force(self.potential, x, t, w)).detach()

    def rates(self) -> dict[str, float]:
        return {"friction": self.friction.item()}
