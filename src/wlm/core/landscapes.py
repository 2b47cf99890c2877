r"""Energies of gradient flows, :math:`J(\rho) = \int V d\rho + \tfrac12\iint W d\rho\,d\rho - \theta_3 H(\rho)`.

Networks are differentiated by hand, so that neither training nor simulation needs second-order graphs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations_with_replacement

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Dimensions up to which the log-determinant of a map is computed from its whole Jacobian.
EXACT_LOG_DET = 10
#: Cells over which weights are averaged in the entropy of a population.
N_LOCAL = 10
#: Terms of the power series for the log-determinant above that.
SERIES = 8
#: Most monomials, and number of bumps, of a potential with a closed-form fit.
MAX_MONOMIALS, N_BUMPS = 50, 100


class Potential(nn.Module):
    """A potential V(x), or V(x, t), as a network of two hidden layers; zero before training.

    Parameters
    ----------
    dim
        Dimension d of the space.
    width
        Width of both hidden layers.
    duration
        Of a potential that varies with time, the time from first to last population, its unit of time;
        None for one that does not.
    even
        Whether V(x) = V(-x), for interactions: the first layer then has no offset and an even activation.
    """

    def __init__(self, dim: int, width: int, duration: float | None = None, *, even: bool = False):
        super().__init__()
        self.duration = duration
        self.even = even
        self.first = nn.Linear(dim + (duration is not None), width, bias=not even)
        self.second = nn.Linear(width, width)
        self.last = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """V (..., n) at ``x`` (..., n, d) and times ``t`` that broadcast with (..., n)."""
        h = self._hidden(x, t)
        return F.softplus(self.second(h * torch.tanh(h) if self.even else F.silu(h))) @ self.last

    def with_gradient(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""V (..., n) and :math:`\nabla_x V` (..., n, d)."""
        h = self._hidden(x, t)
        sigma = torch.tanh(h) if self.even else torch.sigmoid(h)
        slope = sigma + h * (1 - sigma**2) if self.even else sigma * (1 + h * (1 - sigma))
        second = self.second(h * sigma)
        g = ((torch.sigmoid(second) * self.last) @ self.second.weight * slope) @ self.first.weight
        return F.softplus(second) @ self.last, g if self.duration is None else g[..., :-1]

    def gradient(self, x: Tensor, t: Tensor) -> Tensor:
        r""":math:`\nabla_x V`, shape (..., n, d)."""
        return self.with_gradient(x, t)[1]

    def _hidden(self, x: Tensor, t: Tensor) -> Tensor:
        if self.duration is None:
            return self.first(x)
        return self.first(torch.cat([x, (t / self.duration).expand(x.shape[:-1]).unsqueeze(-1)], dim=-1))


class Features(nn.Module):
    """A potential that is linear in monomials and Gaussian bumps, so that it has a closed-form fit; zero before.

    Parameters
    ----------
    dim
        Dimension d of the space. Monomials go up to the fourth degree where there are few of them.
    even
        Whether V(x) = V(-x), for interactions: monomials of even degree, and bumps with their mirror images.
    """

    powers: Tensor
    centres: Tensor
    size: Tensor

    def __init__(self, dim: int, *, even: bool = False):
        super().__init__()
        self.even = even
        chosen: list[tuple[int, ...]] = []
        for degree in (2, 4) if even else (1, 2, 3, 4):
            more = list(combinations_with_replacement(range(dim), degree))
            if len(chosen) + len(more) > MAX_MONOMIALS:
                break
            chosen += more
        if not chosen:  # at least the diagonal of a quadratic, or a linear one
            chosen = [(i, i) if even else (i,) for i in range(dim)]
        powers = torch.tensor([[c.count(i) for i in range(dim)] for c in chosen])
        self.register_buffer("powers", powers, persistent=False)
        self.register_buffer("centres", torch.zeros(N_BUMPS, dim))
        self.register_buffer("size", torch.ones(()))
        self.coefficients = nn.Parameter(torch.zeros(len(chosen) + N_BUMPS))

    def place(self, x: Tensor) -> None:
        """Put the bumps at some of the cells ``x`` (n, d), as wide as these are apart."""
        some = x[torch.linspace(0, len(x) - 1, N_BUMPS, device=x.device).round().long()]
        self.centres.copy_(some)
        self.size.copy_(0.5 * torch.cdist(some, some).median().clamp_min(1e-6))

    def values(self, x: Tensor) -> Tensor:
        """The features (..., p) at ``x`` (..., d)."""
        bumps = self._bumps(x) + self._bumps(-x) if self.even else self._bumps(x)
        return torch.cat([self._monomials(x, self.powers), bumps], -1)

    def design(self, x: Tensor) -> Tensor:
        """Gradients of the features, shape (..., d, p)."""
        monomials = torch.stack(
            [k * self._monomials(x, p) for k, p in zip(self.powers.T, self._lower(), strict=True)], -2
        )
        bumps = self._bump_slopes(x) - self._bump_slopes(-x) if self.even else self._bump_slopes(x)
        return torch.cat([monomials, bumps], -1)

    def _monomials(self, x: Tensor, powers: Tensor) -> Tensor:
        steps = torch.arange(int(self.powers.max()) + 1, device=x.device)
        table = x.unsqueeze(-1) ** steps
        return math.prod(table[..., i, n] for i, n in enumerate(powers.T))  # type: ignore[return-value]

    def _bumps(self, x: Tensor) -> Tensor:
        return torch.exp(-(x.unsqueeze(-2) - self.centres).square().sum(-1) / (2 * self.size**2))

    def _bump_slopes(self, x: Tensor) -> Tensor:
        return self._bumps(x).unsqueeze(-2) * (self.centres.T - x.unsqueeze(-1)) / self.size**2

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """V (..., n) at ``x`` (..., n, d)."""
        return self.values(x) @ self.coefficients

    def gradient(self, x: Tensor, t: Tensor) -> Tensor:
        r""":math:`\nabla_x V`, shape (..., n, d); not by way of the design, which is p times as large."""
        n = len(self.powers)
        monomials = torch.stack(
            [
                (k * self._monomials(x, p)) @ self.coefficients[:n]
                for k, p in zip(self.powers.T, self._lower(), strict=True)
            ],
            -1,
        )
        bumps = self._bump_slope(x) - self._bump_slope(-x) if self.even else self._bump_slope(x)
        return monomials + bumps

    def _bump_slope(self, x: Tensor) -> Tensor:
        share = self._bumps(x) * self.coefficients[len(self.powers) :]
        return (share @ self.centres - x * share.sum(-1, keepdim=True)) / self.size**2

    def _lower(self) -> list[Tensor]:
        """The powers of the monomials after a derivative along each dimension, factors apart."""
        return [
            (self.powers - e).clamp_min(0)
            for e in torch.eye(self.powers.shape[1], dtype=torch.long, device=self.powers.device)
        ]

    def with_gradient(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""V (..., n) and :math:`\nabla_x V` (..., n, d)."""
        return self(x, t), self.gradient(x, t)


def prox(
    energy: Callable[[Tensor], tuple[Tensor, Tensor]],
    x: Tensor,
    h: Tensor,
    start: Tensor,
    *,
    n_iter: int,
    tol: float = 1e-3,
) -> Tensor:
    r"""An implicit Euler step of a gradient flow: a minimum of :math:`V(z) + |z - x|^2 / 2h` for each cell.

    Gradient descent with Barzilai-Borwein steps, cell by cell; a step that raises a cell's objective is taken back
    and shortened.

    Parameters
    ----------
    energy
        Values (..., n) and gradients (..., n, d) of V at positions (..., n, d).
    x
        Where the cells come from, shape (..., n, d).
    h
        Length of the step, broadcasts with (..., n, 1).
    start
        Where the search begins, shape (..., n, d); it ends in that valley.
    n_iter
        Most iterations.
    tol
        Done when no cell moves further in one iteration.
    """

    def objective(z: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = energy(z)
        return value + ((z - x).square() / (2 * h)).sum(-1), gradient + (z - x) / h

    z = start
    f, g = objective(z)
    alpha = h.expand(*z.shape[:-1], 1)
    for _ in range(n_iter):
        # A cell never moves further than a standard length at a time.
        step = torch.minimum(alpha, 1 / g.norm(dim=-1, keepdim=True).clamp_min(1e-12))
        trial = z - step * g
        f_trial, g_trial = objective(trial)
        worse = ~(f_trial <= f + 1e-6 * f.abs()).unsqueeze(-1)
        dz, dg = trial - z, g_trial - g
        curvature = (dz * dg).sum(-1, keepdim=True)
        longer = torch.where(
            curvature > 0, dz.square().sum(-1, keepdim=True) / curvature.clamp_min(1e-12), alpha * 2
        ).clamp_max(h * 10)
        alpha = torch.where(worse, step / 4, longer)
        z, g = torch.where(worse, z, trial), torch.where(worse, g, g_trial)
        f = torch.where(worse.squeeze(-1), f, f_trial)
        if float(torch.where(worse, 0.0, dz).detach().abs().max()) < tol and not bool(worse.any()):
            break
    return z


def nearest_neighbour_entropy(x: Tensor, w: Tensor | None = None) -> float:
    r"""Differential entropy of a population (Kozachenko and Leonenko 1987), in nats.

    Parameters
    ----------
    x
        Positions, shape (n, d).
    w
        Weights, shape (n,); all equal by default.
    """
    n, d = x.shape
    share = x.new_full((n,), 1 / n) if w is None else w / w.sum()
    total = math.log(math.pi) * d / 2 - math.lgamma(d / 2 + 1) + 0.5772156649015329
    for i in torch.arange(n, device=x.device).split(2048):
        distance = torch.cdist(x[i], x, compute_mode="donot_use_mm_for_euclid_dist")
        distance[torch.arange(len(i), device=x.device), i] = -1.0  # itself comes first
        near, who = distance.topk(min(n, N_LOCAL), largest=False)
        # Weights vary from cell to cell: the mass at the nearest one is their mean around it. Cells in one place
        # would have an entropy of minus infinity; they are taken as close, not as one.
        term = d * near[:, 1].clamp_min(1e-6).log() - (share[who].mean(1) / (1 - share[i])).log()
        total += float((share[i] * term).sum())
    return total


def log_det(derivative: Callable[[Tensor], Tensor], x: Tensor, generator: torch.Generator) -> Tensor:
    r""":math:`\log|\det(I + \nabla f)|` of the maps x + f(x) of single cells, shape (...,).

    Exact up to ``EXACT_LOG_DET`` dimensions. Above, the power series of the logarithm with Hutchinson's estimate
    of its traces, which needs a displacement ``f`` with a slope below one.

    Parameters
    ----------
    derivative
        Directional derivatives of f at ``x``: directions (m, ..., d) to :math:`\nabla f\,u`, of the same shape.
    x
        Positions, shape (..., d).
    """
    d = x.shape[-1]
    if d <= EXACT_LOG_DET:
        eye = torch.eye(d, device=x.device, dtype=x.dtype)
        columns = derivative(eye.view(d, *[1] * (x.ndim - 1), d).expand(d, *x.shape))
        return torch.linalg.slogdet(columns.movedim(0, -1) + eye)[1]
    probe = 2.0 * torch.randint(2, (1, *x.shape), generator=generator, device=x.device).to(x) - 1
    total, term = torch.zeros_like(x[..., 0]), probe
    for k in range(1, SERIES + 1):
        term = derivative(term)
        total = total - (-1) ** k / k * (term * probe).sum(-1)[0]
    return total
