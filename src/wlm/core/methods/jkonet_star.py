r"""JKOnet*: the energy of a gradient flow by regression on optimal couplings (Terpin et al. 2024).

The optimality condition of a JKO step, on couplings :math:`\pi_k` of consecutive populations, is a linear equation for
the energy, so its squared error is minimised, without an adversary:

.. math::

   \sum_k E_{(x, y) \sim \pi_k} \Big|\nabla V(y) + E_{y'}\nabla W(y - y') + \theta_3\nabla\log\rho_{k+1}(y)
   + \frac{y - x}{\tau_k}\Big|^2
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from wlm.core.checkpoint import Stateful
from wlm.core.energies.landscape import Features
from wlm.core.methods._base import Method, State
from wlm.core.methods._gradient_flow import ENERGIES, GradientFlow, refuse_velocity
from wlm.core.model import Spec
from wlm.core.snapshots import Snapshots
from wlm.core.transport import coupling

#: Cells a side of a coupling.
N_COUPLED = 2000
#: Components of the Gaussian mixture that stands for the density of a population.
N_COMPONENTS = 10
#: Cells that stand for a population in interactions.
N_OTHERS = 64
#: Smallest diffusion of a closed-form solution, in standard units: softplus has no zero.
DIFFUSION_FLOOR = 1e-4


class Regression:
    """Couplings of consecutive populations, and what the gradient of the energy should be at their ends.

    Parameters
    ----------
    model
        The energy that is sought; with an entropy, the densities of the populations are fitted.
    snapshots
        The populations. At most ``N_COUPLED`` cells of each are coupled.
    generator
        Chooses them.
    """

    def __init__(self, model: GradientFlow, snapshots: Snapshots, generator: torch.Generator):
        self.end = snapshots.times[1:]
        self.parts: list[dict[str, Tensor]] = []
        for k, tau in enumerate(snapshots.times.diff()):
            (x, a), (y, b) = (self._some(snapshots, j, generator) for j in (k, k + 1))
            coupled = coupling(*(z.cpu().numpy() for z in (x, y, a, b)))
            rows, columns, mass = (torch.as_tensor(i, device=x.device) for i in coupled)
            part = {
                "y": y[columns],
                "target": -(y[columns] - x[rows]) / tau,
                "mass": mass.float(),
                "others": y,
                "shares": b,
            }
            if model.diffusion is not None:
                part["score"] = score(y, b)[columns]
            self.parts.append(part)

    @staticmethod
    def _some(snapshots: Snapshots, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        i = snapshots.draw(k, N_COUPLED, generator)
        p = snapshots.particles(k, i)
        return p.x, p.shares

    def loss(self, model: GradientFlow, n: int, generator: torch.Generator) -> Tensor:
        """The squared error for ``n`` pairs of each coupling, drawn by mass."""
        total = self.end.new_zeros(())
        for part, t in zip(self.parts, self.end, strict=True):
            i = torch.multinomial(part["mass"], n, replacement=True, generator=generator)
            y, error = part["y"][i], -part["target"][i]
            if model.potential is not None:
                error = error + model.potential.gradient(y, t)
            if model.interaction is not None:
                j = torch.multinomial(part["shares"], N_OTHERS, replacement=True, generator=generator)
                z = y[:, None] - part["others"][j]
                error = error + pair_mean(model.interaction.gradient(z, t), z, 1)
            if model.diffusion is not None:
                error = error + model.diffusion * part["score"][i]
            total = total + error.square().sum(-1).mean()
        return total / len(self.parts)

    def solve(self, model: GradientFlow, ridge: float) -> None:
        """Set the coefficients of an energy of features to the minimum of the squared error."""
        v, w = model.potential, model.interaction
        places = torch.cat([part["others"] for part in self.parts])
        if isinstance(v, Features):
            v.place(places)
        if isinstance(w, Features):
            w.place(places - places.roll(1, 0))
        gram: Any = 0.0
        right: Any = 0.0
        for part in self.parts:
            for i in torch.arange(len(part["y"]), device=places.device).split(1024):
                y, mass = part["y"][i], part["mass"][i].double()
                columns = [v.design(y)] if isinstance(v, Features) else []
                if isinstance(w, Features):
                    some = torch.linspace(0, len(part["others"]) - 1, N_OTHERS, device=y.device).round().long().unique()
                    pull, total = torch.zeros_like(w.design(y)), torch.zeros_like(y[:, :1, None])
                    for other, share in zip(part["others"][some], part["shares"][some], strict=True):
                        here = share * (y != other).any(-1).to(y)[:, None, None]  # a cell does not pull itself
                        pull, total = pull + here * w.design(y - other), total + here
                    columns.append(pull / total)
                if model.diffusion is not None:
                    columns.append(part["score"][i].unsqueeze(-1))
                design = torch.cat(columns, -1).double()
                gram = gram + torch.einsum("n,ndp,ndq->pq", mass, design, design)
                right = right + torch.einsum("n,ndp,nd->p", mass, design, part["target"][i].double())
        # Relative to each feature's own size, so that the penalty does not depend on the features' units.
        size = gram.diagonal().clamp_min(1e-12)
        penalty = torch.diag(ridge * size)
        solution = torch.linalg.solve(gram + penalty, right)
        if model.diffusion is not None and float(solution[-1]) < DIFFUSION_FLOOR:
            # A negative diffusion is none: solve again without it.
            solution = torch.cat(
                [torch.linalg.solve((gram + penalty)[:-1, :-1], right[:-1]), solution.new_full((1,), DIFFUSION_FLOOR)]
            )
        with torch.no_grad():
            for features in (v, w):
                if isinstance(features, Features):
                    n = len(features.coefficients)
                    features.coefficients.copy_(solution[:n])
                    solution = solution[n:]
            if model.raw_diffusion is not None:
                model.raw_diffusion.copy_(torch.log(torch.expm1(solution[0])))


def pair_mean(values: Tensor, z: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Mean over ``dim`` of ``values`` at the differences ``z`` (..., d), those of a cell with itself left out.

    Batches drawn by weight, or from few cells, have the same cell twice.
    """
    other = (z != 0).any(-1).to(z)
    if values.ndim == z.ndim:
        other = other.unsqueeze(-1)
    return (other * values).sum(dim) / other.sum(dim).clamp_min(1.0)


def score(y: Tensor, b: Tensor) -> Tensor:
    r""":math:`\nabla\log\rho` (n, d) at the cells ``y`` (n, d) of weights ``b`` (n,), by a Gaussian mixture."""
    from sklearn.mixture import GaussianMixture

    positions = y.cpu().double().numpy()
    # The mixture knows no weights: cells are drawn by them.
    share = b.cpu().double().numpy()
    drawn = np.random.default_rng(0).choice(len(positions), size=len(positions), p=share / share.sum())
    sample = positions if bool((b == b[0]).all()) else positions[drawn]
    mixture = GaussianMixture(min(N_COMPONENTS, 1 + len(sample) // 50), reg_covar=1e-4, random_state=0).fit(sample)
    member = mixture.predict_proba(positions)
    pulls = np.einsum("kde,nke->nkd", mixture.precisions_, mixture.means_ - positions[:, None])
    return torch.as_tensor(np.einsum("nk,nkd->nd", member, pulls), dtype=y.dtype, device=y.device)


@dataclass(kw_only=True)
class RegressionState(State):
    """A training of JKOnet*: the regression does not change."""

    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    regression: Regression

    def parts(self) -> dict[str, Stateful | torch.Generator]:
        return super().parts() | {"optimizer": self.optimizer, "schedule": self.schedule}


@dataclass(frozen=True, kw_only=True)
class JKOnetStar(Method[GradientFlow, RegressionState]):
    """Options of ``method="jkonet_star"``.

    Parameters
    ----------
    energy
        ``"V"`` (potential), ``"V+U"``, ``"V+W"``, ``"W+U"`` or ``"V+W+U"``, with U the internal energy of diffusion
        and W an interaction between pairs of cells.
    time_varying
        Let the potential depend on time; with ``solver="neural"`` only.
    solver
        ``"ridge"`` solves for polynomials and Gaussian bumps in closed form, which is one step whatever ``n_steps``
        says; ``"neural"`` trains the networks of :class:`~wlm.core.methods.ijkonet.IJKOnet`.
    ridge
        Penalty of the closed form, relative to the mean square of the features' slopes.
    n_steps, lr, batch_size, width, ema
        Of the neural solver: steps, learning rate (Adam, along a cosine), pairs of each coupling per step, width of
        the networks, decay of the running average of the weights.
    simulation
        ``"implicit"`` steps from one training time to the next, or ``"sde"``, a stochastic differential equation.
    """

    name: ClassVar[str] = "jkonet_star"
    account: ClassVar[str] = (
        "JKOnet*: cells slide down an energy, which is regressed on the optimality condition of a JKO step along "
        "optimal couplings of consecutive populations"
    )
    papers: ClassVar[tuple[str, ...]] = (
        "A. Terpin, N. Lanzetti, M. Gadea, F. Dörfler. Learning diffusion at lightspeed. NeurIPS 2024.",
    )

    energy: str = "V"
    time_varying: bool = False
    solver: str = "neural"
    ridge: float = 1e-3
    n_steps: int = 1000
    lr: float = 3e-3
    batch_size: int = 256
    width: int = 64
    simulation: str = "implicit"
    ema: float = 0.99

    def __post_init__(self) -> None:
        for field in ("n_steps", "batch_size", "width"):
            self._require(field, int, 1)
        for field in ("lr", "ridge"):
            self._require(field, float, 0, open_low=True)
        self._require("ema", float, 0, 1)
        self._require_one_of("energy", ENERGIES)
        self._require_one_of("solver", ("neural", "ridge"))
        self._require_one_of("simulation", ("implicit", "sde"))
        self._require_one_of("time_varying", (True, False))
        if self.time_varying and "V" not in self.energy:
            raise ValueError(f"time_varying is about the potential V, which energy={self.energy!r} has not")
        if self.time_varying and self.solver == "ridge":
            raise ValueError("time_varying needs solver='neural'")
        if self.solver == "ridge":
            object.__setattr__(self, "n_steps", 1)  # the closed form is reached before the first

    def check(self, *, has_velocity: bool) -> None:
        refuse_velocity(self.name, has_velocity=has_velocity)

    def build(self, spec: Spec) -> GradientFlow:
        return GradientFlow(
            spec.n_dims,
            self.energy,
            self.width,
            spec.times,
            time_varying=self.time_varying,
            scheme=self.simulation,
            features=self.solver == "ridge",
        )

    def init(
        self, model: GradientFlow, spec: Spec, snapshots: Snapshots, generator: torch.Generator
    ) -> RegressionState:
        regression = Regression(model, snapshots, generator)
        if self.solver == "ridge":
            regression.solve(model, self.ridge)
        optimizer = torch.optim.Adam(model.parameters(), lr=self.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.n_steps)
        return RegressionState(
            snapshots=snapshots, generator=generator, optimizer=optimizer, schedule=schedule, regression=regression
        )

    def step(self, model: GradientFlow, spec: Spec, state: RegressionState) -> dict[str, float]:
        loss = state.regression.loss(model, self.batch_size, state.generator)
        if self.solver == "neural":
            state.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            state.optimizer.step()
            state.schedule.step()
        return {"loss": loss.item(), **{name: quantity.value for name, quantity in model.constants().items()}}
