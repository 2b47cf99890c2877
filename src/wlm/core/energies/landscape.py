r"""Energies of gradient flows, :math:`J(\rho) = \int V d\rho + \tfrac12\iint W d\rho\,d\rho - \theta_3 H(\rho)`.

Networks are differentiated by hand, so that neither training nor simulation needs second-order graphs.
"""

from __future__ import annotations

import math
from itertools import combinations_with_replacement

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Most monomials, and number of bumps, of a potential with a closed-form fit.
MAX_MONOMIALS, N_BUMPS = 50, 100


def silu(h: Tensor) -> tuple[Tensor, Tensor]:
    """The activation, and its slope."""
    sigma = torch.sigmoid(h)
    return h * sigma, sigma * (1 + h * (1 - sigma))


def _even(h: Tensor) -> tuple[Tensor, Tensor]:
    """An even activation, and its slope."""
    sigma = torch.tanh(h)
    return h * sigma, sigma + h * (1 - sigma**2)


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
        return F.softplus(self.second(_even(h)[0] if self.even else F.silu(h))) @ self.last

    def with_gradient(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""V (..., n) and :math:`\nabla_x V` (..., n, d)."""
        h = self._hidden(x, t)
        value, slope = _even(h) if self.even else silu(h)
        second = self.second(value)
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
