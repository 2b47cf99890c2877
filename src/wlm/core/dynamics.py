"""Fitted dynamics in the units of the data: what saving, prediction, evaluation and plots work with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wlm.core.divergences import cost, plan, uniform
from wlm.core.methods._base import Method
from wlm.core.model import Model, Spec
from wlm.core.populations import Array
from wlm.core.units import Units

Float32 = NDArray[np.float32]

#: Most cells that move together: enough that the field of a random part is that of the whole population.
CHUNK = 10_000


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

    def simulate(
        self,
        x: Array,
        times: Sequence[float] | Array,
        *,
        v: Array | None = None,
        w: Array | None = None,
        seed: int = 0,
        chunk_size: int = CHUNK,
    ) -> tuple[Float32, Float32]:
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
        """
        positions, velocities = (np.empty((len(times), *np.shape(x)), dtype=np.float32) for _ in range(2))
        generator = torch.Generator(self.device).manual_seed(seed)
        for i in _parts(len(x), chunk_size):
            xs = self._position(x[i])
            start = (
                self.model.initial_velocity(xs) if v is None else self._tensor(np.asarray(v[i]) / self.units.velocity)
            )
            if start is None:
                raise ValueError(
                    "these dynamics need the velocities of the cells they start from: pass v, of which a fit has "
                    "obsm['wlm_velocity']"
                )
            with torch.no_grad():
                moved = self.model.rollout(xs, start, self._time(times), generator, self._weights(w, i))
            positions[:, i] = self.units.data_position(moved[0].cpu().numpy())
            velocities[:, i] = moved[1].cpu().numpy() * self.units.velocity
        return positions, velocities

    def start_velocity(self, v: Array, *, seed: int = 0) -> Float32:
        """Velocities (n, d) with which observed cells start, given those carried to them or measured."""
        generator = torch.Generator(self.device).manual_seed(seed)
        return self.model.start_velocity(self._tensor(v), generator).cpu().numpy()

    @property
    def needs_velocity(self) -> bool:
        """Whether cells start with given velocities, measured or of splines."""
        zero = torch.zeros(1, self.spec.n_dims, device=self.device)
        return self.model.initial_velocity(zero) is None

    def energy(self, x: Array, t: float, *, w: Array | None = None) -> Float32:
        """Energy of each cell (n,) of ``x`` (n, d), weights ``w`` (n,), at time ``t``.

        In length**2 / time**2, or length**2 / time for first-order dynamics. Of large populations in parts, as
        :meth:`simulate`.
        """
        out = np.empty(len(x), dtype=np.float32)
        for i in _parts(len(x)):
            with torch.no_grad():
                energy = self.model.energy(self._position(x[i]), self._time(t), self._weights(w, i))
            out[i] = energy.cpu().numpy() * self.units.length**2 / self.units.time**self.model.order
        return out

    def force(self, x: Array, t: float, *, w: Array | None = None) -> Float32:
        """What the energy does to each cell (n, d), friction not included.

        An acceleration, in length / time**2, or for first-order dynamics a velocity, in length / time. Of large
        populations in parts, as :meth:`simulate`.
        """
        out = np.empty(np.shape(x), dtype=np.float32)
        for i in _parts(len(x)):
            force = self.model.force(self._position(x[i]), self._time(t), self._weights(w, i))
            out[i] = force.detach().cpu().numpy() * self.units.length / self.units.time**self.model.order
        return out

    def velocity(self, x: Array, t: float, *, w: Array | None = None) -> Float32 | None:
        """Velocity (n, d) of each cell at time ``t``, where position and time determine it; else None."""
        out = np.empty(np.shape(x), dtype=np.float32)
        for i in _parts(len(x)):
            velocity = self.model.velocity(self._position(x[i]), self._time(t), self._weights(w, i))
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
        xs, ys = (self._tensor(self.units.standard_position(a)) for a in (x[i], y))
        eps = (CARRY_BLUR * self.spec.blur) ** 2
        c = cost(xs, ys[j], 2)
        wa = uniform(xs) if a is None else self._tensor(a[i] / a[i].sum())
        wb = uniform(ys[j]) if b is None else self._tensor(b[j] / b[j].sum())
        _, f, _ = plan(c, wa, wb, eps)
        out = np.empty_like(y, dtype=np.float32)
        vs = self._tensor(v[i])
        for start in range(0, len(y), 4096):
            chunk = ys[start : start + 4096]
            w = torch.softmax((f - cost(chunk, xs, 2)) / eps + wa.log(), dim=1)
            out[start : start + 4096] = (w @ vs).cpu().numpy()
        return out

    def rates(self) -> dict[str, float]:
        """Friction (1/time) or diffusion (length**2/time), by name."""
        unit = {"friction": 1 / self.units.time, "diffusion": self.units.length**2 / self.units.time}
        return {k: value * unit[k] for k, value in self.model.rates().items()}

    def _tensor(self, a: Array) -> torch.Tensor:
        return torch.as_tensor(np.array(a, dtype=np.float32), device=self.device)

    def _position(self, x: Array) -> torch.Tensor:
        return self._tensor(self.units.standard_position(x))

    def _weights(self, w: Array | None, i: Any = slice(None)) -> torch.Tensor | None:
        return None if w is None else self._tensor(w[i] / np.mean(w[i]))

    def _time(self, t: Sequence[float] | Array | float) -> torch.Tensor:
        return self._tensor(self.units.standard_time(np.asarray(t, dtype=np.float64)))


def _parts(n: int, size: int = CHUNK) -> list[Any]:
    """Indices of ``n`` cells in random parts of at most ``size``; one part is in the order of the cells."""
    if n <= size:
        return [slice(None)]
    return np.array_split(np.random.default_rng(0).permutation(n), -(-n // size))


#: Blur of the plan that carries velocities, relative to the training blur: coarse enough to average over
#: cells, fine enough to keep velocities of different branches apart.
CARRY_BLUR = 1.5
