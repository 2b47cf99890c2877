"""Fitted dynamics in the units of the data: what saving, prediction, evaluation and plots work with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from wlm.core.divergences import barycentres, uniform
from wlm.core.methods._base import Method
from wlm.core.model import Model, Spec
from wlm.core.particles import Particles
from wlm.core.populations import Array
from wlm.core.units import Units

Float32 = NDArray[np.float32]

#: Most cells that move together: enough that the field of a random part is that of the whole population.
CHUNK = 10_000
#: Blur of the plan that carries velocities, relative to the training blur: coarse enough to average over
#: cells, fine enough to keep velocities of different branches apart.
CARRY_BLUR = 1.5


class Moved(NamedTuple):
    """Cells at several times: ``positions`` and ``velocities`` (T, n, d), and ``weights`` (T, n) where they grow.

    A weight is the number of cells that a cell has become, times its weight at the start: the descendants that are
    expected of it. Where the sizes of the populations are unknown, weights have the same mean at all times. They are
    None for dynamics that conserve cells.
    """

    positions: Float32
    velocities: Float32
    weights: Float32 | None = None


@dataclass(frozen=True)
class Dynamics:
    """A fitted model together with the units of the data it was fitted to.

    All arrays are numpy, positions in data units, times in data time; ``n`` cells in ``d`` dimensions.
    """

    model: Model
    method: Method
    spec: Spec
    units: Units

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return next(self.model.parameters()).device

    def as_stored(self) -> Dynamics:
        """The same as when it is read from a file, where units have double precision: the same bits as there."""
        location = np.asarray(self.units.location, dtype=np.float64)
        return replace(self, units=replace(self.units, location=location))

    def simulate(
        self,
        x: Array,
        times: Sequence[float] | Array,
        *,
        v: Array | None = None,
        w: Array | None = None,
        seed: int = 0,
        chunk_size: int = CHUNK,
    ) -> Moved:
        """Move cells through ``times``.

        Parameters
        ----------
        x
            Positions at ``times[0]``, shape (n, d).
        times
            Increasing times, shape (T,).
        v
            Velocities at ``times[0]``, shape (n, d); by default the model's own initial velocity.
        w
            Weights of the cells, shape (n,), positive; all equal by default.
        seed
            Seeds stochastic models.
        chunk_size
            Most cells that move together. More than these move in random parts of equal size, each of which stands for
            the whole population, so that time grows linearly with n and memory beyond the result not at all.

        Returns
        -------
        positions, velocities
            Shape (T, n, d), the start included.
        weights
            Shape (T, n), of dynamics with growth; else None, see :class:`Moved`.
        """
        positions, velocities = (np.empty((len(times), *np.shape(x)), dtype=np.float32) for _ in range(2))
        weights = np.empty((len(times), len(x)), dtype=np.float32) if self.grows else None
        generator = torch.Generator(self.device).manual_seed(seed)
        for i in _parts(len(x), chunk_size):
            start = self.particles(x[i], v=None if v is None else v[i], w=None if w is None else w[i])
            if start.v is None:
                start = start._replace(v=self.model.initial_velocity(start.x))
            if start.v is None:
                raise ValueError(
                    "these dynamics need the velocities of the cells they start from: pass v, of which a fit has "
                    "obsm['wlm_velocity']"
                )
            with torch.no_grad():
                moved = self.model.rollout(start, self._time(times), generator)
            if moved.v is None:
                raise ValueError(f"a rollout of method {self.method.name!r} has no velocities")
            positions[:, i] = self.units.data_position(moved.x.cpu().numpy())
            velocities[:, i] = moved.v.cpu().numpy() * self.units.velocity
            if weights is not None and moved.log_w is not None:
                weights[:, i] = moved.log_w.exp().cpu().numpy()
        if weights is not None and not self.spec.has_sizes:
            weights *= weights[0].mean() / weights.mean(axis=1, keepdims=True)
        return Moved(positions, velocities, weights)

    def start_velocity(self, v: Array, *, seed: int = 0) -> Float32:
        """Velocities (n, d) with which observed cells start, given those carried to them or measured."""
        generator = torch.Generator(self.device).manual_seed(seed)
        return self.model.start_velocity(self._tensor(v), generator).cpu().numpy()

    @property
    def needs_velocity(self) -> bool:
        """Whether cells start with given velocities, measured or of splines."""
        zero = torch.zeros(1, self.spec.n_dims, device=self.device)
        return self.model.initial_velocity(zero) is None

    @property
    def grows(self) -> bool:
        """Whether cells divide and die."""
        zero = torch.zeros(1, self.spec.n_dims, device=self.device)
        with torch.no_grad():
            return self.model.growth(Particles(zero), zero.new_zeros(())) is not None

    def growth(self, x: Array, t: float, *, w: Array | None = None, known: Array | None = None) -> Float32 | None:
        """Net rate (n,) of births less deaths of each cell of ``x`` (n, d) at time ``t``, in 1 / time.

        None of dynamics that conserve cells. Where the sizes of the populations are unknown, rates are relative: less
        their mean over the cells, weights ``w`` (n,). ``known`` (n,) are the rates that are given for these cells, in
        1 / time and NaN where none is; they count in place of those of the cells around.
        """
        with torch.no_grad():
            rate = self.model.growth(self.particles(x, w=w), self._time(t))
        if rate is None:
            return None
        found = rate.cpu().numpy().astype(np.float64) / self.units.time
        found = found if known is None else found + self.own_growth(x, known)
        mean = 0.0 if self.spec.has_sizes else np.average(found, weights=w)
        return (found - mean).astype(np.float32)

    def own_growth(self, x: Array, known: Array, end: Array | None = None) -> NDArray[np.float64]:
        """What ``known`` rates (n,) of cells at ``x`` (n, d) have beyond those of their states, in 1 / time.

        0 where they are NaN. On their way to ``end`` (n, d) it is the mean over the way.
        """
        start = self._tensor(self.units.standard_position(x))
        at_end = None if end is None else self._tensor(self.units.standard_position(end))
        with torch.no_grad():
            more = self.model.own_growth(start, self._tensor(known * self.units.time), at_end)
        return more.cpu().numpy().astype(np.float64) / self.units.time

    def energy(self, x: Array, t: float, *, w: Array | None = None) -> Float32:
        """Energy of each cell (n,) of ``x`` (n, d), weights ``w`` (n,), at time ``t``.

        In length**2 / time**2, or length**2 / time for first-order dynamics. Of large populations in parts, as
        :meth:`simulate`.
        """
        out = np.empty(len(x), dtype=np.float32)
        for i in _parts(len(x)):
            with torch.no_grad():
                energy = self.model.energy(self.particles(x[i], w=None if w is None else w[i]), self._time(t))
            out[i] = energy.cpu().numpy() * self.units.length**2 / self.units.time**self.model.order
        return out

    def force(self, x: Array, t: float, *, w: Array | None = None) -> Float32:
        """What the energy does to each cell (n, d), friction not included.

        An acceleration, in length / time**2, or for first-order dynamics a velocity, in length / time. Of large
        populations in parts, as :meth:`simulate`.
        """
        out = np.empty(np.shape(x), dtype=np.float32)
        for i in _parts(len(x)):
            force = self.model.force(self.particles(x[i], w=None if w is None else w[i]), self._time(t))
            out[i] = force.detach().cpu().numpy() * self.units.length / self.units.time**self.model.order
        return out

    def velocity(self, x: Array, t: float, *, w: Array | None = None) -> Float32 | None:
        """Velocity (n, d) of each cell at time ``t``, where position and time determine it; else None."""
        out = np.empty(np.shape(x), dtype=np.float32)
        for i in _parts(len(x)):
            velocity = self.model.velocity(self.particles(x[i], w=None if w is None else w[i]), self._time(t))
            if velocity is None:
                return None
            out[i] = velocity.cpu().numpy() * self.units.velocity
        return out

    def carry_velocity(
        self,
        x: Array,
        v: Array,
        y: Array,
        *,
        a: Array | None = None,
        b: Array | None = None,
        seed: int = 0,
        n_max: int = 2000,
    ) -> Float32:
        """Hand the velocities of simulated cells over to observed cells.

        The velocity at ``y`` is the mean of ``v`` under the entropic transport plan between the two
        populations, extended to every cell of ``y`` by the plan's dual potential. The plan is computed
        on at most ``n_max`` cells a side.

        Parameters
        ----------
        x, v
            Simulated positions and velocities, shape (n, d).
        y
            Observed positions, shape (m, d).
        a, b
            Weights of simulated (n,) and observed cells (m,); all equal by default.

        Returns
        -------
        Velocities at ``y``, shape (m, d).
        """
        rng = np.random.default_rng(seed)
        i = rng.permutation(len(x))[:n_max]
        j = rng.permutation(len(y))[:n_max]
        start = self.particles(x[i], w=None if a is None else a[i])
        ys = self._tensor(self.units.standard_position(y))
        wb = uniform(ys[j]) if b is None else self._tensor(b[j] / b[j].sum())
        eps = (CARRY_BLUR * self.spec.blur) ** 2
        out = np.empty_like(y, dtype=np.float32)
        for rows, mean in barycentres(start.x, start.shares, ys, ys[j], wb, self._tensor(v[i]), eps):
            out[rows] = mean.cpu().numpy()
        return out

    def rates(self) -> dict[str, float]:
        """What the model has learned besides its energy, by name: friction (1/time) or diffusion (length**2/time)."""
        return {name: quantity.in_data(self.units) for name, quantity in self.model.constants().items()}

    def particles(self, x: Array, *, v: Array | None = None, w: Array | None = None) -> Particles:
        """Cells as tensors in standard units; ``w`` (n,) are the numbers of cells that each stands for."""
        return Particles(
            self._tensor(self.units.standard_position(x)),
            None if v is None else self._tensor(np.asarray(v) / self.units.velocity),
            None if w is None else self._tensor(np.log(w)),
        )

    def _tensor(self, a: Array) -> torch.Tensor:
        return torch.as_tensor(np.array(a, dtype=np.float32), device=self.device)

    def _time(self, t: Sequence[float] | Array | float) -> torch.Tensor:
        return self._tensor(self.units.standard_time(np.asarray(t, dtype=np.float64)))


def _parts(n: int, size: int = CHUNK) -> list[Any]:
    """Indices of ``n`` cells in random parts of at most ``size``; one part is in the order of the cells."""
    if n <= size:
        return [slice(None)]
    return np.array_split(np.random.default_rng(0).permutation(n), -(-n // size))
