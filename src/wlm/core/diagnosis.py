r"""Where the energy of fitted dynamics goes, and how much inertia they have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from wlm.core.dynamics import Dynamics
from wlm.core.integrators import leapfrog
from wlm.core.prediction import Rollout

#: Points per interval of the stored rollout at which energies are taken.
_FINER = 4


@dataclass(frozen=True)
class Energies:
    """Mean energy per cell along a rollout, in length**2 / time**2; potential and dissipated are 0 at the start.

    All arrays have shape (T,); ``dissipated`` is what friction has taken until then.
    """

    times: NDArray[np.float64]
    kinetic: NDArray[np.float64]
    potential: NDArray[np.float64]
    dissipated: NDArray[np.float64]

    @property
    def imbalance(self) -> float:
        """Largest change of kinetic + potential + dissipated energy, relative to the energy exchanged.

        0 for exact integration of a potential that does not depend on time.
        """
        total = self.kinetic + self.potential + self.dissipated
        exchanged = max(self.kinetic.max(), np.ptp(self.potential), self.dissipated[-1], 1e-30)
        return float(np.abs(total - total[0]).max() / exchanged)


def energies(dynamics: Dynamics, path: Rollout) -> tuple[Energies, float, float]:
    r"""Energies along a rollout, the share of inertia, and the alignment of velocity and force.

    With the force F and the friction :math:`\gamma`, :math:`\dot v = F - \gamma v`. A gradient flow has
    :math:`v = F/\gamma`: no inertia.

    Returns
    -------
    energies
        On a grid four times as fine as the rollout's.
    inertia
        :math:`\langle|\dot v|^2\rangle / (\langle|\dot v|^2\rangle + \langle|\gamma v|^2\rangle)` over cells and times:
        0 for a gradient flow, 1 for Newton's mechanics.
    alignment
        :math:`\langle v\cdot F\rangle^2 / (\langle|v|^2\rangle\langle|F|^2\rangle)`: 1 if velocity and force are
        proportional.
    """
    times = np.interp(np.arange(_FINER * (len(path.times) - 1) + 1) / _FINER, np.arange(len(path.times)), path.times)
    w = path.weights
    share = np.full(path.positions.shape[1], 1.0) if w is None else w / np.mean(w)
    x, v = dynamics.simulate(path.positions[0], times, v=path.velocities[0], w=w)
    gamma = dynamics.rates().get("friction", 0.0)
    kinetic = 0.5 * (share * np.square(v, dtype=np.float64).sum(-1)).mean(-1)
    potential = np.array([(share * dynamics.energy(xs, t, w=w)).mean() for xs, t in zip(x, times, strict=True)])
    force = np.stack([dynamics.force(xs, t, w=w) for xs, t in zip(x, times, strict=True)])
    power = 2 * gamma * kinetic
    dissipated = np.concatenate([[0.0], np.cumsum(np.diff(times) * (power[1:] + power[:-1]) / 2)])

    def mean(a: NDArray[np.floating]) -> float:
        return float((share[:, None] * a.astype(np.float64)).mean())

    change, loss = mean(np.square(force - gamma * v)), mean(np.square(gamma * v))
    inertia = change / max(change + loss, 1e-30)
    alignment = mean(v * force) ** 2 / max(mean(np.square(v)) * mean(np.square(force)), 1e-30)
    return Energies(times, kinetic, potential - potential[0], dissipated), inertia, alignment


def conservation_error(dynamics: Dynamics, path: Rollout) -> float:
    """Largest change of the energy in a rollout without friction, relative to the largest kinetic energy.

    The integrator's steps are a quarter of the rollout's. Not 0 if the potential depends on time.
    """
    model, units = dynamics.model, dynamics.units

    def tensor(a: NDArray[np.floating]) -> torch.Tensor:
        return torch.as_tensor(np.asarray(a, dtype=np.float32), device=dynamics.device)

    x, v = tensor(units.standard_position(path.positions[0])), tensor(path.velocities[0] / units.velocity)
    times = tensor(units.standard_time(path.times))
    w = None if path.weights is None else tensor(path.weights / np.mean(path.weights))
    share = torch.ones(len(x), device=x.device) if w is None else w
    zero = times.new_zeros(())
    steps = [_FINER] * (len(times) - 1)
    with torch.no_grad():
        states = [(x, v), *leapfrog(lambda x, t: model.force(x, t, w), x, v, times, zero, steps)]
        kinetic = torch.stack([0.5 * (share * v.square().sum(-1)).mean() for _, v in states])
        energy = [(share * model.energy(x, t, w)).mean() for (x, _), t in zip(states, times, strict=True)]
        potential = torch.stack(energy)
    total = kinetic + potential
    return float((total - total[0]).abs().max() / kinetic.max().clamp_min(1e-30))
