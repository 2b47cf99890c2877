"""Where the energy of fitted dynamics goes, how much inertia they have, how near they come to what they learned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from wlm.core.dynamics import Dynamics
from wlm.core.integrators import leapfrog
from wlm.core.metrics import w1
from wlm.core.populations import Array
from wlm.core.prediction import Rollout

#: Most cells a side by which predicted and observed cells are compared.
N_COMPARED = 500


@dataclass(frozen=True)
class Energies:
    """Mean energy per cell along a rollout, in length**2 / time**2; potential and dissipated are 0 at the start.

    All arrays have shape (T,); ``dissipated`` is what friction has taken until then, ``grown`` what growth has brought
    since cells with more energy than others multiplied: 0 where they are conserved.
    """

    times: NDArray[np.float64]
    kinetic: NDArray[np.float64]
    potential: NDArray[np.float64]
    dissipated: NDArray[np.float64]
    grown: NDArray[np.float64]

    @property
    def imbalance(self) -> float:
        """Largest change of kinetic + potential + dissipated - grown energy, relative to the energy exchanged.

        It tends to 0 with the step of the integrator if the potential does not depend on time.
        """
        total = self.kinetic + self.potential + self.dissipated - self.grown
        exchanged = max(self.kinetic.max(), np.ptp(self.potential), self.dissipated[-1], np.ptp(self.grown), 1e-30)
        return float(np.abs(total - total[0]).max() / exchanged)


def energies(dynamics: Dynamics, path: Rollout) -> tuple[Energies, float, float]:
    r"""Energies along a rollout, the share of inertia, and the alignment of velocity and force.

    With the force F and the friction :math:`\gamma`, :math:`\dot v = F - \gamma v`. A gradient flow has
    :math:`v = F/\gamma`: no inertia.

    Returns
    -------
    energies
        At the times of the rollout.
    inertia
        :math:`\langle|\dot v|^2\rangle / (\langle|\dot v|^2\rangle + \langle|\gamma v|^2\rangle)` over cells and times:
        0 for a gradient flow, 1 for Newton's mechanics; NaN for free motion, which is both.
    alignment
        :math:`\langle v\cdot F\rangle / \sqrt{\langle|v|^2\rangle\langle|F|^2\rangle}`: 1 if velocity is
        proportional to force; NaN if one of them is zero.
    """
    times, x, v = path.times, path.positions, path.velocities
    masses = [path.mass(t) for t in times]
    share = np.stack([np.full(x.shape[1], 1.0) if w is None else w / np.mean(w) for w in masses])  # (T, n)
    gamma = dynamics.rates().get("friction", 0.0)
    kinetic = 0.5 * (share * np.square(v, dtype=np.float64).sum(-1)).mean(-1)
    at = list(zip(x, times, masses, strict=True))
    potential = (share * np.stack([dynamics.energy(xs, t, w=w) for xs, t, w in at])).mean(-1)
    force = np.stack([dynamics.force(xs, t, w=w) for xs, t, w in at])
    dissipated = np.concatenate([[0.0], np.cumsum(np.diff(times) * _logarithmic_mean(2 * gamma * kinetic))])

    def mean(a: NDArray[np.floating]) -> float:
        return float((share[..., None] * a.astype(np.float64)).mean())

    change, loss = mean(np.square(force - gamma * v)), mean(np.square(gamma * v))
    scale = np.sqrt(mean(np.square(v)) * mean(np.square(force)))
    inertia = change / (change + loss) if change + loss > 0 else np.nan
    alignment = mean(v * force) / scale if scale > 0 else np.nan
    power = np.array([_growth_power(dynamics, x[k], v[k], t, masses[k]) for k, t in enumerate(times)])
    grown = np.concatenate([[0.0], np.cumsum(np.diff(times) * (power[1:] + power[:-1]) / 2)])
    return Energies(times, kinetic, potential - potential[0], dissipated, grown), inertia, alignment


def _growth_power(dynamics: Dynamics, x: Array, v: Array, t: float, w: Array | None) -> float:
    r"""What growth adds to the mean energy of a cell per unit of time, at ``x``, ``v`` (n, d) and weights ``w`` (n,).

    Price's equation for the energy: :math:`\mathrm{Cov}(g, \tfrac12|v|^2)` of the kinetic one; of the potential
    energy, which the population has as a whole, the sum of the rates times its derivatives by the logarithms of the
    weights.
    """
    if not dynamics.grows:
        return 0.0
    units = dynamics.units
    p = dynamics.particles(x, v=v, w=np.ones(len(x)) if w is None else w)
    at = torch.as_tensor(np.float32(units.standard_time(np.asarray(t))), device=dynamics.device)
    if p.log_w is None or p.v is None:
        raise ValueError("cells that grow have weights and velocities")
    velocities = p.v
    with torch.enable_grad():
        log_w = p.log_w.detach().requires_grad_()
        kinetic = 0.5 * velocities.square().sum(-1)
        p = p._replace(log_w=log_w)
        total = p.mean(kinetic + dynamics.model.energy(p, at))
        (slope,) = torch.autograd.grad(total, log_w)
    with torch.no_grad():
        rate = dynamics.model.growth(p, at)
    return 0.0 if rate is None else float((slope * rate).sum()) * units.length**2 / units.time**3


def _logarithmic_mean(power: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean between consecutive points (T - 1,) of what decays or grows exponentially, as energy does under friction."""
    a, b = np.maximum(power[:-1], 1e-300), np.maximum(power[1:], 1e-300)
    ratio = np.log(b / a)
    return np.where(np.abs(ratio) < 1e-6, (a + b) / 2, (b - a) / np.where(ratio == 0, 1, ratio))


def conservation_error(dynamics: Dynamics, path: Rollout) -> float:
    """Largest change of the energy in a rollout without friction, relative to the largest kinetic energy.

    One step of the integrator for each step of the stored rollout. Not 0 if the potential depends on time.
    """
    model, units = dynamics.model, dynamics.units
    start = dynamics.particles(path.positions[0], v=path.velocities[0], w=path.mass(path.times[0]))
    times = torch.as_tensor(np.asarray(units.standard_time(path.times), dtype=np.float32), device=dynamics.device)
    steps = [1] * (len(times) - 1)
    with torch.no_grad():
        states = [start, *leapfrog(model.force, start, times, times.new_zeros(()), steps)]
        kinetic = torch.stack([p.mean(0.5 * p.v.square().sum(-1)) for p in states if p.v is not None])
        energy = [p.mean(model.energy(p, t)) for p, t in zip(states, times, strict=True)]
        potential = torch.stack(energy)
    total = kinetic + potential
    return float((total - total[0]).abs().max() / kinetic.max().clamp_min(1e-30))


@dataclass(frozen=True)
class Agreement:
    """How near predicted cells are to observed ones.

    ``w1`` between equally many of both; ``floor`` between as many and others of the observed ones; ``sd_ratio``, root
    mean square over dimensions of the standard deviations, predicted over observed.
    """

    w1: float
    floor: float
    sd_ratio: float


def agreement(x: Array, y: Array, a: Array | None = None, b: Array | None = None, *, seed: int = 0) -> Agreement:
    """Compare predicted cells ``x`` (n, d) with those observed at their time, ``y`` (m, d), weights ``a`` and ``b``.

    At most ``N_COMPARED`` cells a side are compared, and no more than half of those observed, so that the floor is of
    as many. Of fewer than four there is none, and all is NaN.
    """
    n = min(N_COMPARED, len(x), len(y) // 2)
    if n < 2:
        return Agreement(np.nan, np.nan, np.nan)
    i, j = np.random.default_rng(seed).permutation(len(x))[:n], np.random.default_rng(seed).permutation(len(y))
    first, second = j[:n], j[n : 2 * n]
    wa, wb, wc = (None if w is None else w[k] for w, k in ((a, i), (b, first), (b, second)))
    spread = [np.sqrt(np.average(np.square(z - np.average(z, 0, w)), 0, w).sum()) for z, w in ((x, a), (y, b))]
    return Agreement(
        w1(x[i], y[first], wa, wb),
        w1(y[first], y[second], wb, wc),
        float(spread[0] / spread[1]) if spread[1] > 0 else np.nan,
    )
