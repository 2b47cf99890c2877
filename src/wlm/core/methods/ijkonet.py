r"""iJKOnet: the energy of a gradient flow by inverse optimisation of the JKO scheme (Persiianov et al. 2026).

.. math::

   \max_\theta \min_\varphi \sum_k J_\theta(T^k_\varphi\#\rho_k) - J_\theta(\rho_{k+1})
   + \tfrac{1}{2\tau_k} E_{x \sim \rho_k} |x - T^k_\varphi(x)|^2, \qquad J_\theta = V + W - \theta_3 H

Given the energy, the maps take the implicit Euler steps of its gradient flow; the energy then falls where cells were
observed and rises where the maps put them. The maps are thrown away after training.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from wlm.core.checkpoint import Memory, Stateful
from wlm.core.jko import EXACT_LOG_DET, log_det, nearest_neighbour_entropy, prox
from wlm.core.methods._base import DivergenceError, Method, State
from wlm.core.methods._gradient_flow import ENERGIES, GradientFlow, refuse_velocity
from wlm.core.methods.jkonet_star import pair_mean
from wlm.core.model import Spec, drawing_from
from wlm.core.snapshots import Snapshots
from wlm.core.transport import assignment

#: Pairs for each cell in the interaction energy of a batch.
N_PAIRS = 4
#: Cells a side for the exact transport that bounds the objective.
N_BOUND = 1000
#: Times the bound (or 0.1, if that is less) that the objective may reach before the game counts as lost, and steps
#: over which the misfit is averaged.
LOST, MEMORY = 10.0, 100
#: Weight of the square of the quadratic part of W, which is free beside V; see :func:`quadratic_part`.
GAUGE = 0.1
#: Largest norm of a player's gradient.
CLIP = 10.0


class Maps(nn.Module):
    r"""The maps :math:`T^k(x) = x + \tau_k\,net(x, t_{k+1})`, one network for all intervals; the identity at first."""

    tau: Tensor
    end: Tensor

    def __init__(self, dim: int, width: int, times: Tensor):
        super().__init__()
        self.first = nn.Linear(dim + 1, width)
        self.second = nn.Linear(width, width)
        self.last = nn.Linear(width, dim)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.duration = float(times[-1])
        self.register_buffer("tau", times.diff()[:, None])
        self.register_buffer("end", times[1:, None])

    def forward(self, x: Tensor, directions: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """T(x) of cells (K, n, d), and the derivative of T(x) - x along ``directions`` (m, K, n, d).

        The derivative is taken by hand, forwards: one first-order graph for all directions.
        """
        t = (self.end / self.duration).expand(x.shape[:-1]).unsqueeze(-1)
        first = self.first(torch.cat([x, t], -1))
        second = self.second(silu(first))
        moved = x + self.tau[..., None] * self.last(silu(second))
        if directions is None:
            return moved, None
        u = (directions @ self.first.weight[:, :-1].T) * _silu_slope(first)
        u = (u @ self.second.weight.T) * _silu_slope(second)
        return moved, self.tau[..., None] * (u @ self.last.weight.T)


def _silu_slope(h: Tensor) -> Tensor:
    sigma = torch.sigmoid(h)
    return sigma * (1 + h * (1 - sigma))


@dataclass(kw_only=True)
class GameState(State):
    """A training of iJKOnet: the two players, energy and maps.

    ``displacements`` (K,) root mean squares of the optimal displacement in each interval; ``bound`` what the objective
    can reach; ``entropy_growth`` (K,) change of the populations' entropies; ``mean`` remembers the running misfit.
    """

    maps: Maps
    optimizers: dict[str, torch.optim.Optimizer]
    schedules: dict[str, torch.optim.lr_scheduler.LRScheduler]
    displacements: Tensor
    bound: float
    entropy_growth: Tensor | None = None
    mean: Memory = field(default_factory=Memory)

    def parts(self) -> dict[str, Stateful | torch.Generator]:
        players = {f"optimizer of {name}": o for name, o in self.optimizers.items()}
        schedules = {f"schedule of {name}": s for name, s in self.schedules.items()}
        return super().parts() | {"maps": self.maps, "mean": self.mean} | players | schedules


@dataclass(frozen=True, kw_only=True)
class IJKOnet(Method[GradientFlow, GameState]):
    """Options of ``method="ijkonet"``.

    Parameters
    ----------
    energy
        ``"V"`` (potential), ``"V+U"``, ``"V+W"``, ``"W+U"`` or ``"V+W+U"``, with U the internal energy of diffusion
        and W an interaction between pairs of cells.
    time_varying
        Let the potential depend on time.
    n_steps
        Updates of the energy, at most.
    lr, map_lr
        Learning rates (Adam) of the energy and of the maps; both fall to zero along a cosine. ``lr=None`` is 0.01, or
        0.003 with U, where the energy has to wait for the maps, which are not refined.
    batch_size
        Cells drawn from each population per update.
    inner_steps
        Updates of the maps for each of the energy.
    refine
        Descent steps with which the cells that the maps moved are brought closer to the optimum before the energy
        learns from them; 0 trusts the maps. Not with U, whose optimum is of the whole map.
    interaction_penalty
        With V and W: weight of the mean square of the speed that W gives to the observed cells, in root mean square
        displacements per interval. The data constrain little beyond the sum of the two forces, so predictions between
        observed times can be poor. A penalty of 10 makes them as good as with V alone, at the price of underestimating
        W; the default of 0 recovers W.
    width, map_width
        Width of the networks of the energy and of the maps.
    simulation
        How predictions are made: by ``"implicit"`` steps from one training time to the next, as in training, or by
        a stochastic differential equation (``"sde"``) with 20 steps for a mean interval.
    ema
        Decay of the running average of the weights, which is what is kept.
    """

    name: ClassVar[str] = "ijkonet"
    account: ClassVar[str] = (
        "iJKOnet: cells slide down an energy, which is found by inverse optimisation of the implicit steps of its "
        "gradient flow (the JKO scheme)"
    )
    papers: ClassVar[tuple[str, ...]] = (
        "M. Persiianov, J. Chen, P. Mokrov, A. Tyurin, E. Burnaev, A. Korotin. Learning of Population Dynamics: "
        "Inverse Optimization Meets JKO Scheme. ICLR 2026.",
    )

    scalars: ClassVar[Mapping[str, str]] = {"misfit": "misfit (0: every step explained)"}
    dropped: ClassVar[Mapping[str, tuple[Any, str | None]]] = {
        "optimistic": (False, None),
        "gradient_bound": (None, None),
        "warm_start": (False, None),
        "weight_decay": (0.0, None),
    }

    energy: str = "V"
    time_varying: bool = False
    n_steps: int = 1500
    lr: float | None = None
    map_lr: float = 5e-3
    batch_size: int = 256
    inner_steps: int = 2
    refine: int = 5
    interaction_penalty: float = 0.0
    width: int = 64
    map_width: int = 64
    simulation: str = "implicit"
    ema: float = 0.999

    def __post_init__(self) -> None:
        for name in ("n_steps", "batch_size", "inner_steps", "width", "map_width"):
            self._require(name, int, 1)
        self._require("refine", int, 0)
        self._require("map_lr", float, 0, open_low=True)
        self._require("interaction_penalty", float, 0)
        self._require("ema", float, 0, 1)
        if self.lr is not None:
            self._require("lr", float, 0, open_low=True)
        self._require_one_of("energy", ENERGIES)
        self._require_one_of("simulation", ("implicit", "sde"))
        self._require_one_of("time_varying", (True, False))
        if self.time_varying and "V" not in self.energy:
            raise ValueError(f"time_varying is about the potential V, which energy={self.energy!r} has not")
        if self.batch_size < 2 and "W" in self.energy:
            raise ValueError(f"batch_size must be at least 2 for pairs of cells, found {self.batch_size}")

    def check(self, *, has_velocity: bool) -> None:
        refuse_velocity(self.name, has_velocity=has_velocity)

    def build(self, spec: Spec) -> GradientFlow:
        return GradientFlow(
            spec.n_dims, self.energy, self.width, spec.times, time_varying=self.time_varying, scheme=self.simulation
        )

    @property
    def _lr(self) -> float:
        return self.lr or (3e-3 if "U" in self.energy else 1e-2)

    def init(self, model: GradientFlow, spec: Spec, snapshots: Snapshots, generator: torch.Generator) -> GameState:
        times = snapshots.times
        with drawing_from(generator.initial_seed()):
            maps = Maps(spec.n_dims, self.map_width, times).to(times.device)
        optimizers: dict[str, torch.optim.Optimizer] = {
            "energy": torch.optim.Adam(model.parameters(), lr=self._lr, betas=(0.5, 0.9)),
            "maps": torch.optim.Adam(maps.parameters(), lr=self.map_lr, betas=(0.5, 0.9)),
        }
        squares = squared_distances(snapshots, generator)
        growth = None
        if model.diffusion is not None:
            if spec.n_dims > EXACT_LOG_DET:
                warnings.warn(
                    f"energy={self.energy!r} needs the entropy of each population: in {spec.n_dims} dimensions its "
                    "nearest-neighbour estimate is biased by more than the populations differ, and log-determinants "
                    f"are random estimates; use at most {EXACT_LOG_DET} (n_dims), or an energy without U",
                    stacklevel=2,
                )
            entropies = [
                nearest_neighbour_entropy(x, None if snapshots.weights is None else snapshots.weights[k])
                for k, x in enumerate(snapshots.positions)
            ]
            growth = torch.tensor(entropies, device=times.device).diff()
        return GameState(
            snapshots=snapshots,
            generator=generator,
            maps=maps,
            optimizers=optimizers,
            schedules={
                name: torch.optim.lr_scheduler.CosineAnnealingLR(o, self.n_steps) for name, o in optimizers.items()
            },
            displacements=squares.sqrt(),
            bound=float((squares / (2 * maps.tau.flatten())).mean()),
            entropy_growth=growth,
        )

    def step(self, model: GradientFlow, spec: Spec, state: GameState) -> dict[str, float]:
        maps = state.maps
        model.requires_grad_(requires_grad=False)
        for _ in range(self.inner_steps):
            x = draw(state.snapshots, self.batch_size, state.generator)[:-1]
            self._update("maps", maps, self._push(model, maps, x, state)[0].mean(), state)
        model.requires_grad_(requires_grad=True)

        x = draw(state.snapshots, self.batch_size, state.generator)[:-1]
        y = draw(state.snapshots, self.batch_size, state.generator)[1:]
        with torch.no_grad():
            value, moved, log_dets = self._push(model, maps, x, state)
            if self.refine and model.diffusion is None:
                moved = self._refine(model, maps, x, moved, state)
        observed = functional(model, y, maps.end, state.generator)
        gain = functional(model, moved, maps.end, state.generator) - observed
        growth: Tensor | float = 0.0
        if model.diffusion is not None and state.entropy_growth is not None:
            growth = model.diffusion * state.entropy_growth
            gain = gain + growth - model.diffusion * log_dets
        loss = -gain.mean()
        if model.potential is not None and model.interaction is not None:
            loss = loss + GAUGE * quadratic_part(model, y, state.generator).square()
            if self.interaction_penalty:
                pairs = partners(y, state.generator)
                pull = model.interaction.with_gradient(y - pairs, maps.end)[1].mean(0).norm(dim=-1)
                speed = pull * maps.tau / state.displacements.unsqueeze(-1)
                loss = loss + self.interaction_penalty * speed.square().mean()
        norm = self._update("energy", model, loss, state)
        for schedule in state.schedules.values():
            schedule.step()
        return self._report(model, float((value - observed + growth).detach().mean()), norm, state)

    def _push(
        self, model: GradientFlow, maps: Maps, x: Tensor, state: GameState
    ) -> tuple[Tensor, Tensor, Tensor | float]:
        """What the maps minimise (K,), where they put the cells (K, n, d), and their mean log-determinants (K,)."""
        moved, _ = maps(x)
        value = functional(model, moved, maps.end, state.generator)
        value = value + (moved - x).square().sum(-1).mean(-1) / (2 * maps.tau.squeeze(-1))
        if model.diffusion is None:
            return value, moved, 0.0
        log_dets = log_det(lambda u: maps(x, u)[1], x, state.generator).mean(-1)
        return value - model.diffusion * log_dets, moved, log_dets

    def _refine(self, model: GradientFlow, maps: Maps, x: Tensor, moved: Tensor, state: GameState) -> Tensor:
        """The cells that the maps put at ``moved``, some descent steps further; their partners stay in place."""
        v, w = model.potential, model.interaction
        pairs = partners(moved, state.generator) if w is not None else moved.unsqueeze(0)
        other = (moved != pairs).any(-1).to(moved)
        share = other / other.sum(0).clamp_min(1.0)

        def energy(z: Tensor) -> tuple[Tensor, Tensor]:
            value, slope = (
                (z.new_zeros(z.shape[:-1]), torch.zeros_like(z)) if v is None else v.with_gradient(z, maps.end)
            )
            if w is None:
                return value, slope
            pair, pull = w.with_gradient(z - pairs, maps.end)
            return value + (share * pair).sum(0), slope + (share.unsqueeze(-1) * pull).sum(0)

        return prox(energy, x, maps.tau.unsqueeze(-1), moved, n_iter=self.refine)

    def _update(self, player: str, network: nn.Module, loss: Tensor, state: GameState) -> float:
        """One update of a player; returns the norm of its gradient."""
        optimizer = state.optimizers[player]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = float(nn.utils.clip_grad_norm_(network.parameters(), CLIP))
        optimizer.step()
        return norm

    def _report(self, model: GradientFlow, objective: float, norm: float, state: GameState) -> dict[str, float]:
        """Scalars to log, after a check that the game is not lost."""
        bound = state.bound
        misfit = 1 - objective / max(bound, 1e-3)
        before = state.mean.get("misfit")
        misfit = misfit if before is None else before + (misfit - before) / MEMORY
        state.mean["misfit"] = misfit
        if math.isfinite(objective) and not abs(objective) < LOST * max(bound, 0.1):
            raise DivergenceError(
                f"the game between energy and maps has diverged (misfit {misfit:.3g}, wanted between 0 and 1); "
                f"try a smaller learning rate (lr={self._lr / 4:g}), or more inner_steps"
            )
        constants = {name: quantity.value for name, quantity in model.constants().items()}
        return {"loss": objective, "misfit": misfit, "gradient_norm": norm, **constants}


def functional(model: GradientFlow, x: Tensor, t: Tensor, generator: torch.Generator) -> Tensor:
    """The energy (K,) of batches ``x`` (K, n, d) at times ``t`` (K, 1), without the entropy."""
    out = x.new_zeros(len(x)) if model.potential is None else model.potential(x, t).mean(-1)
    if model.interaction is None:
        return out
    z = x - partners(x, generator)
    return out + 0.5 * pair_mean(model.interaction(z, t), z, (0, -1))


def quadratic_part(model: GradientFlow, y: Tensor, generator: torch.Generator) -> Tensor:
    r""":math:`E[\nabla W(z)\cdot z] / E|z|^2` over pairs of cells of the batches ``y`` (K, n, d), a scalar.

    Where the mean m of the populations stays the same, adding :math:`\tfrac c2|z|^2` to W and
    :math:`-\tfrac c2|x|^2 + c\,m\cdot x` to V changes no force. Of all these the W without a quadratic part is taken.
    """
    if model.interaction is None:
        return y.new_zeros(())
    z = y - partners(y, generator)
    return (model.interaction.gradient(z, y.new_zeros(())) * z).sum(-1).mean() / z.square().sum(-1).mean().clamp_min(
        1e-12
    )


def partners(x: Tensor, generator: torch.Generator) -> Tensor:
    """Others in the batches ``x`` (K, n, d) for each of their cells, shape (m, K, n, d).

    For an incomplete U-statistic: every ordered pair i != j is as likely as any other. A cell that was drawn twice
    can meet itself, see :func:`~wlm.core.methods.jkonet_star.pair_mean`.
    """
    n = x.shape[1]
    shifts = 1 + torch.randperm(n - 1, generator=generator, device=generator.device)[:N_PAIRS]
    return torch.stack([x.roll(s, 1) for s in shifts.tolist()])


def draw(snapshots: Snapshots, n: int, generator: torch.Generator) -> Tensor:
    """``n`` cells of every population, by their weights, shape (T, n, d); with replacement, so any number."""
    return torch.stack([draw_one(snapshots, k, n, generator) for k in range(len(snapshots.times))])


def draw_one(snapshots: Snapshots, k: int, n: int, generator: torch.Generator) -> Tensor:
    """``n`` cells (n, d) of the population of time index ``k``, by their weights."""
    return snapshots.positions[k][snapshots.draw_by_weight(k, n, generator)]


def squared_distances(snapshots: Snapshots, generator: torch.Generator) -> Tensor:
    r""":math:`W_2^2` (T - 1,) between consecutive populations, of at most ``N_BOUND`` cells each, drawn by weight."""
    n = min(N_BOUND, *map(len, snapshots.positions))
    cells = [draw_one(snapshots, k, n, generator).double().cpu().numpy() for k in range(len(snapshots.times))]
    squares = [float(assignment(x, y)[1].mean()) for x, y in pairwise(cells)]
    return torch.tensor(squares, device=snapshots.times.device)
