r"""First-order dynamics: the gradient flow of a potential, an interaction and an entropy.

.. math:: dx = -\nabla V(x, t)\,dt - E_{x'}\nabla W(x - x')\,dt + \sqrt{2\theta_3}\,dB
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wlm.core.energies.landscape import Features, Potential
from wlm.core.jko import prox
from wlm.core.model import Model, Quantity
from wlm.core.particles import Particles

#: The energies by name: which of V (potential), W (interaction) and U (internal energy, entropy) there are.
ENERGIES = ("V", "V+U", "V+W", "W+U", "V+W+U")
#: Cells that stand for the population in interactions.
N_CONTEXT = 64
#: Step of the stochastic differential equation, in mean intervals.
SDE_STEP = 0.05
#: Most iterations of an implicit step, and how often they are repeated with the interactions of the cells they moved.
N_PROX, N_REPEAT = 60, 3


class GradientFlow(Model):
    """Gradient flow of an energy, by implicit steps from one training time to the next, or as an SDE.

    Parameters
    ----------
    dim
        Dimension d of the space.
    energy
        One of ``ENERGIES``.
    width
        Width of the networks.
    times
        Training times, between which implicit steps are taken.
    time_varying
        Whether V depends on time: it is then constant from one training time to the next, see :meth:`_stage`.
    scheme
        ``"implicit"`` or ``"sde"``.
    features
        Whether the energies are linear in features, for a closed-form fit, instead of networks.
    """

    order: ClassVar[int] = 1

    def __init__(
        self,
        dim: int,
        energy: str,
        width: int,
        times: Sequence[float],
        *,
        time_varying: bool,
        scheme: str,
        features: bool = False,
    ):
        super().__init__()
        parts = energy.split("+")

        def network(duration: float | None = None, *, even: bool = False) -> Potential | Features:
            return Features(dim, even=even) if features else Potential(dim, width, duration, even=even)

        self.potential = network(times[-1] if time_varying else None) if "V" in parts else None
        self.interaction = network(even=True) if "W" in parts else None
        # softplus(-2) = 0.13: the entropy starts small beside the spread of the data, which is 1.
        self.raw_diffusion = nn.Parameter(torch.tensor(-2.0)) if "U" in parts else None
        self._times = tuple(times)
        self._scheme = scheme

    @property
    def diffusion(self) -> Tensor | None:
        r""":math:`\theta_3 \geq 0`, scalar, in standard units."""
        return None if self.raw_diffusion is None else F.softplus(self.raw_diffusion)

    def landscape(
        self, x: Tensor, t: Tensor, w: Tensor | None = None, others: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """V + E W (n,), the energy that cells at ``x`` (n, d) feel without the entropy, and its gradient (n, d).

        The expectation is over the other cells, which are at ``others`` (n, d) where that is given.
        """
        t = self._stage(t)
        value, slope = x.new_zeros(x.shape[:-1]), torch.zeros_like(x)
        if self.potential is not None:
            value, slope = self.potential.with_gradient(x, t)
        if self.interaction is None:
            return value, slope
        pair, pull = _expect(partial(self.interaction.with_gradient, t=t), x, x if others is None else others, w)
        return value + pair, slope + pull

    def _stage(self, t: Tensor) -> Tensor:
        """The training time whose potential drives the population at ``t``.

        In training a potential at t_(k+1) takes the population all the way from t_k: between the two it is this one
        that acts, and not what the network would make of a time that it has never seen.
        """
        later = [end for end in self._times[1:] if end > float(t) - 1e-6]
        return t.new_tensor(later[0] if later else self._times[-1])

    def initial_velocity(self, x: Tensor) -> Tensor:
        return self.velocity(Particles(x), x.new_tensor(self._times[0]))

    @torch.no_grad()
    def velocity(self, p: Particles, t: Tensor) -> Tensor:
        return -self.landscape(p.x, t, p.w)[1]

    def rollout(self, start: Particles, times: Tensor, generator: torch.Generator) -> Particles:
        """Positions and drifts at ``times``, which do not depend on what other times are asked for.

        Between the ends of its steps a path is the step that is as much shorter, with the same noise.
        """
        x, w = start.x, start.w
        states = [x]
        t = float(times[0])
        noise = self._noise(x, generator)
        for wanted in times[1:].tolist():
            while (end := self._end(t)) < wanted - 1e-6:
                x, t = self._advance(x, t, end, noise, w), end
                noise = self._noise(x, generator)
            states.append(self._advance(x, t, wanted, noise, w))
        drift = [self.velocity(start._replace(x=x), t) for x, t in zip(states, times, strict=True)]
        log_w = None if start.log_w is None else start.log_w.expand(len(times), -1)
        return Particles(torch.stack(states), torch.stack(drift), log_w)

    def _end(self, t: float) -> float:
        """Where the step that begins at ``t`` ends."""
        if self._scheme == "sde":
            return t + SDE_STEP
        # Outside the training times, steps have at most the mean length of an interval, which is 1.
        end = min([end for end in self._times if end > t + 1e-6], default=t + 1.0)
        return end if t > self._times[0] - 1e-6 else min(end, t + 1.0)

    def _noise(self, x: Tensor, generator: torch.Generator) -> Tensor | None:
        if self.raw_diffusion is None:
            return None
        return torch.randn(x.shape, generator=generator, device=generator.device).to(x)

    def _advance(self, x: Tensor, t: float, end: float, noise: Tensor | None, w: Tensor | None) -> Tensor:
        """One step from ``t`` to ``end``: diffusion, then an implicit step; or one of Euler and Maruyama."""
        h = x.new_tensor(end - t)
        diffusion = self.diffusion
        spread = 0.0 if diffusion is None or noise is None else (2 * diffusion * h).sqrt() * noise
        if self._scheme == "sde":
            return x - h * self.landscape(x, x.new_tensor(end), w)[1] + spread
        at, begin = x.new_tensor(end), x + spread
        # The population that a cell interacts with is the one at the end of the step, found by repetition.
        z = begin
        for _ in range(1 if self.interaction is None else N_REPEAT):
            z = prox(
                partial(self.landscape, t=at, w=w, others=z),
                begin,
                h,
                z,
                n_iter=N_PROX if self.interaction is None else N_PROX // 6,
            )
        return z

    def energy(self, p: Particles, t: Tensor) -> Tensor:
        return self.landscape(p.x, t, p.w)[0]

    def force(self, p: Particles, t: Tensor) -> Tensor:
        return self.velocity(p, t)

    def constants(self) -> dict[str, Quantity]:
        diffusion = self.diffusion
        return {} if diffusion is None else {"diffusion": Quantity(diffusion.item(), length=2, time=-1)}


def refuse_velocity(name: str, *, has_velocity: bool) -> None:
    """Refuse velocities, which first-order dynamics have no use for."""
    if has_velocity:
        raise ValueError(
            f"method {name!r} learns first-order dynamics, in which positions determine velocities; "
            "leave velocity_key out, or use method='wlm'"
        )


def _expect(
    f: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor, others: Tensor, w: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Means (n,) and (n, d) of ``f`` over the differences of each cell of ``x`` (n, d) to the other cells.

    These are at ``others`` (n, d). Of many, ``N_CONTEXT`` at equal distances in their order stand for all.
    """
    n = len(others)
    some = torch.linspace(0, n - 1, min(n, N_CONTEXT), device=x.device).round().long()
    share = x.new_ones(len(some)) if w is None else w[some]
    values, slopes = [], []
    for i in torch.arange(len(x), device=x.device).split(1024):
        weights = share * (i[:, None] != some)
        weights = weights / weights.sum(1, keepdim=True).clamp_min(1e-12)
        value, slope = f(x[i][:, None] - others[some])
        values.append((weights * value).sum(1))
        slopes.append((weights[..., None] * slope).sum(1))
    return torch.cat(values), torch.cat(slopes)
