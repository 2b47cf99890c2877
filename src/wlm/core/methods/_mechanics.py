r"""Dynamics of a population potential, a friction and, if it is learned, a field of initial velocities."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wlm.core.energies.force import force
from wlm.core.energies.moments import MomentPotential
from wlm.core.energies.population import PopulationPotential
from wlm.core.growth import Growth, with_mass
from wlm.core.integrators import leapfrog, substeps_for
from wlm.core.methods._start import GradientField
from wlm.core.model import Model, Quantity
from wlm.core.particles import Particles, together


class Mechanics(Model):
    """A population potential, a friction and, if it is learned, a field of initial velocities.

    Parameters
    ----------
    potential
        Energy of each cell, as for :func:`~wlm.core.energies.force.force`.
    friction
        At the start, in standard units; 0 is never learned.
    start
        Velocities at time 0; None where they are given, or zero.
    rest
        Whether cells start at rest at time 0 where there is no ``start``.
    step
        Longest step of the integrator.
    momentum
        With what part of the momentum carried to them observed cells of later times start: ``"full"``, ``"none"`` or
        ``"mixed"``, a random part of each cell's.
    growth
        Rates at which cells multiply; None if they neither divide nor die.
    """

    def __init__(
        self,
        potential: PopulationPotential | MomentPotential,
        friction: float,
        start: GradientField | None,
        *,
        rest: bool,
        step: float,
        momentum: str = "full",
        growth: Growth | None = None,
    ):
        super().__init__()
        self.potential = potential
        self.log_friction = nn.Parameter(torch.tensor(math.log(friction))) if friction > 0 else None
        self.start = start
        self.rates: Growth | None = growth
        self._rest = rest
        self._step = step
        self._momentum = momentum

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

    def rollout(self, start: Particles, times: Tensor, generator: torch.Generator) -> Particles:
        states = [start if self.rates is None else with_mass(start)]
        if len(times) > 1:
            substeps = substeps_for(times, self._step)
            states += leapfrog(
                lambda p, t: force(self.potential, p, t), start, times, self.friction, substeps, self.rates
            )
        return together(states)

    def growth(self, p: Particles, t: Tensor) -> Tensor | None:
        return None if self.rates is None else self.rates(p.x)

    def own_growth(self, x: Tensor, known: Tensor, end: Tensor | None = None) -> Tensor:
        return torch.zeros_like(known) if self.rates is None else self.rates.own(x, known, end)

    def growth_notes(self) -> dict[str, str | float]:
        return {} if self.rates is None else self.rates.notes()

    def energy(self, p: Particles, t: Tensor) -> Tensor:
        return (1 + self.friction) * (self.potential(p.x, t) if p.log_w is None else self.potential(p.x, t, p.log_w))

    def force(self, p: Particles, t: Tensor) -> Tensor:
        return ((1 + self.friction) * force(self.potential, p, t)).detach()

    def constants(self) -> dict[str, Quantity]:
        return {"friction": Quantity(self.friction.item(), time=-1)}
