r"""Cells that divide and die: net rates as a function of the state, masses along paths, and what a rate costs.

A cell of mass m stands for its descendants: along its path :math:`\frac{d}{dt}\log m = g(x)`. Daughters have the
position and the velocity of their mother, so that the mechanics of a path are those without growth, in a population
whose cells weigh what they have grown to. Populations without their sizes tell the differences of rates between the
cells of one time only: :math:`g - \langle g\rangle_t`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wlm.core.particles import Particles

#: Cells on which a prior rests, drawn equally from all times; neighbours whose distance is the unit of its smoothing.
N_ANCHORS, N_NEIGHBOURS = 400, 15
#: Smoothing lengths that are tried for a prior, in median distances to the last of those neighbours.
SMOOTHINGS = (0.25, 0.5, 1.0, 2.0)
#: Most that the logarithm of a mass may be away from that of the mean mass.
MAX_LOG_MASS = 6.0
#: Share of the cells that a weighted population has to be worth; below it few cells stand for all.
LEAST_ESS = 0.3


class Prior(nn.Module):
    """A field of rates: the mean of the rates of known cells around a place, weighted by a Gaussian of the distance.

    It is nowhere larger or smaller than the known rates. Empty until :meth:`learn` is called.

    Parameters
    ----------
    dim
        Dimension d of the space.
    """

    places: Tensor
    rates: Tensor
    log_count: Tensor
    smoothing: Tensor
    explained: Tensor

    def __init__(self, dim: int):
        super().__init__()
        self.register_buffer("places", torch.zeros(N_ANCHORS, dim))
        self.register_buffer("rates", torch.zeros(N_ANCHORS))
        self.register_buffer("log_count", torch.zeros(N_ANCHORS))
        self.register_buffer("smoothing", torch.tensor(1.0))
        self.register_buffer("explained", torch.tensor(math.nan))

    def forward(self, x: Tensor) -> Tensor:
        """Rates (..., n) at ``x`` (..., n, d)."""
        return self._closeness(x).softmax(-1) @ self.rates

    @property
    def mean(self) -> Tensor:
        """Mean, scalar, of the known rates that it rests on."""
        return self.rates[self.log_count.isfinite()].mean()

    def nearby(self, x: Tensor, end: Tensor) -> Tensor:
        r"""How close (..., n) cells stay to ``x`` (..., n, d) on the straight way to ``end``, averaged over the way.

        At a distance D of ``x`` it is :math:`e^{-D^2/2h^2}` with the smoothing h, as for the cells around.
        """
        far = ((end - x).norm(dim=-1) / self.smoothing).clamp_min(1e-3)
        return math.sqrt(math.pi / 2) * torch.erf(far / math.sqrt(2)) / far

    def _closeness(self, x: Tensor) -> Tensor:
        square = torch.cdist(x, self.places, compute_mode="donot_use_mm_for_euclid_dist").square()
        return self.log_count - square / (2 * self.smoothing.square())

    @torch.no_grad()
    def learn(self, positions: Sequence[Tensor], rates: Sequence[Tensor], generator: torch.Generator) -> None:
        """Take the rates (n_k,) of the cells (n_k, d) of each time; NaN are unknown.

        The smoothing is the one by which the rate of a cell is best predicted from the others, and ``explained`` the
        share of the variance that is predicted so.
        """
        chosen = [_some(x, r, N_ANCHORS // len(positions), generator) for x, r in zip(positions, rates, strict=True)]
        x, r = (torch.cat(part) for part in zip(*chosen, strict=True))
        n = len(x)
        self.places[:n], self.rates[:n] = x, r
        self.log_count.fill_(-math.inf)
        self.log_count[:n] = 0.0
        unit = torch.cdist(x, x).kthvalue(min(N_NEIGHBOURS + 1, n), dim=-1).values.median().clamp_min(1e-6)
        errors = []
        for factor in SMOOTHINGS:
            self.smoothing.copy_(factor * unit)
            closeness = self._closeness(x)[:, :n].fill_diagonal_(-math.inf)
            errors.append((closeness.softmax(-1) @ r - r).square().mean())
        best = int(torch.stack(errors).argmin())
        self.smoothing.copy_(SMOOTHINGS[best] * unit)
        variance = r.var(correction=0)
        self.explained.copy_(1 - errors[best] / variance)  # NaN where all rates are equal


def _some(x: Tensor, rates: Tensor, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """At most ``n`` of the cells whose rates are known."""
    known = rates.isfinite().nonzero().squeeze(-1)
    known = known[torch.randperm(len(known), generator=generator, device=generator.device)[:n]]
    return x[known], rates[known]


class Rate(nn.Module):
    """A smooth function of the state with two hidden layers, zero before training.

    Parameters
    ----------
    dim
        Dimension d of the space.
    width
        Width of the hidden layers.
    """

    def __init__(self, dim: int, width: int):
        super().__init__()
        self.first = nn.Linear(dim, width)
        self.second = nn.Linear(width, width)
        self.last = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Values (..., n) at ``x`` (..., n, d)."""
        return F.silu(self.second(F.silu(self.first(x)))) @ self.last

    def slope(self, x: Tensor) -> Tensor:
        """Gradients (..., n, d) in ``x``; differentiated by hand, so that training needs one first-order graph."""
        h = self.first(x)
        k = self.second(F.silu(h))
        return ((self.last * _silu_slope(k)) @ self.second.weight * _silu_slope(h)) @ self.first.weight


def _silu_slope(h: Tensor) -> Tensor:
    sigma = torch.sigmoid(h)
    return sigma * (1 + h * (1 - sigma))


class Growth(nn.Module):
    r"""Net rates :math:`g(x) = c\,p(x) + r(x) + \ell` of births less deaths, per unit of time.

    Parameters
    ----------
    dim
        Dimension d of the space.
    prior
        Whether there is a prior p, whose scale :math:`c \geq 0` is learned with the residual, and is 1 without.
    residual
        Whether there is a learned residual r: two hidden layers, zero before training.
    level
        Whether the level :math:`\ell` is learned, for which the sizes of the populations have to be known.
    width
        Width of the hidden layers.
    """

    def __init__(self, dim: int, *, prior: bool, residual: bool, level: bool, width: int = 64):
        super().__init__()
        self.prior = Prior(dim) if prior else None
        # softplus(0.5413) = 1: what the user gives is where the scale starts.
        self.raw_scale = nn.Parameter(torch.tensor(0.5413)) if prior and residual else None
        self.network = Rate(dim, width) if residual else None
        self.level = nn.Parameter(torch.zeros(())) if level else None

    def forward(self, x: Tensor) -> Tensor:
        """Rates (..., n) at ``x`` (..., n, d)."""
        rate = self.residual(x)
        if self.prior is not None:
            rate = rate + self.scale * self.prior(x)
        return rate if self.level is None else rate + self.level

    def own(self, x: Tensor, known: Tensor, end: Tensor | None = None) -> Tensor:
        """What the rates (..., n) of cells at ``x`` (..., n, d) have beyond :meth:`forward`, as they are ``known``.

        That is the factor of the prior times their difference from the cells around them; 0 where it is NaN. A cell on
        its way to ``end`` keeps it as long as it is near: then it is the mean over the way.
        """
        if self.prior is None:
            return torch.zeros_like(known)
        more = self.scale * torch.nan_to_num(known - self.prior(x))
        return more if end is None else more * self.prior.nearby(x, end)

    def residual(self, x: Tensor) -> Tensor:
        """What is learned besides the prior, (..., n)."""
        return x.new_zeros(x.shape[:-1]) if self.network is None else self.network(x)

    @property
    def scale(self) -> Tensor:
        """The factor of the prior, scalar; 1 if it is taken as it is."""
        return torch.ones(()) if self.raw_scale is None else F.softplus(self.raw_scale)

    def notes(self) -> dict[str, str | float]:
        """What the rates rest on: ``mode``; with a prior its factor ``prior_scale``, and its r2 ``prior_r2``."""
        if self.prior is None:
            return {"mode": "learned"}
        found = {"prior_scale": self.scale.item(), "prior_r2": self.prior.explained.item()}
        return {"mode": "prior" if self.network is None else "prior and residual", **found}

    @property
    def constants(self) -> list[nn.Parameter]:
        """The parameters that are single numbers, for an optimiser with a larger step."""
        return [p for p in (self.raw_scale, self.level) if p is not None]


def with_mass(p: Particles) -> Particles:
    """The cells with a mass: one each, where they have none."""
    return p if p.log_w is not None else p._replace(log_w=p.x.new_zeros(p.x.shape[:-1]))


def grown(log_w: Tensor, before: Tensor, after: Tensor, h: Tensor) -> Tensor:
    r"""Logarithms of masses (..., n) after a step ``h`` by the trapezoid rule, given the rates (..., n) at both ends.

    No mass goes farther than :math:`e^{\pm 6}` from the mean: a rate that asks for more is faster than the sampling.
    """
    log_w = log_w + h / 2 * (before + after)
    middle = log_w.detach().logsumexp(-1, keepdim=True) - math.log(log_w.shape[-1])
    return middle + (log_w - middle).clamp(-MAX_LOG_MASS, MAX_LOG_MASS)


def price(rate: Rate, path: Particles, times: Tensor, slope: float, scale: float) -> Tensor:
    r"""What a learned rate r costs along ``path`` (T, ..., n, d) at ``times`` (T,).

    With :math:`s^2`, the variance of r over the cells of a time, averaged over times, it is
    :math:`\lambda\sigma(1 - e^{-s/\sigma})` for ``slope`` :math:`\lambda` and ``scale`` :math:`\sigma`. It rises as
    :math:`\lambda s` at first, which keeps a rate at zero that explains little, and is bounded, which leaves one that
    explains much as large as it is. The level of r, which populations do not tell, is free.
    """
    r, share = rate(path.x), path.shares.detach()
    mean = (share * r).sum(-1, keepdim=True)
    variance = (share * (r - mean).square()).sum(-1)
    sd = (_over_time(variance, times).mean() + 1e-6).sqrt()
    return slope * sd if math.isinf(scale) else slope * scale * -torch.expm1(-sd / scale)


def roughness(rate: Rate, path: Particles, times: Tensor) -> Tensor:
    """Mean square of the slope of a learned rate over cells and time along ``path`` (T, ..., n, d), ``times`` (T,)."""
    square = rate.slope(path.x).square().sum(-1)
    return _over_time((path.shares.detach() * square).sum(-1), times).mean()


def _over_time(values: Tensor, times: Tensor) -> Tensor:
    """Means (...) over time of ``values`` (T, ...) by the trapezoid rule, at ``times`` (T,) or (T, ...)."""
    return torch.trapezoid(values.movedim(0, -1), times.movedim(0, -1)) / (times[-1] - times[0])


def size_error(path: Particles, log_sizes: Tensor) -> Tensor:
    r"""Mean square of :math:`\log M_t/M_0 - \log N_t/N_0` along ``path`` (T, ..., n), for sizes N of the populations.

    ``log_sizes`` (T,) or (T, ...) are their logarithms.
    """
    if path.log_w is None:
        raise ValueError("cells that neither divide nor die have no sizes to compare")
    log_mass = path.log_w.logsumexp(-1).movedim(0, -1)  # (..., T)
    error = (log_mass - log_mass[..., :1]) - (log_sizes - log_sizes[0]).movedim(0, -1)
    return error[..., 1:].square().mean()


def effective_share(w: np.ndarray) -> np.ndarray:
    """How many equal cells a weighted population (..., n) is worth, as a share of its cells: Kish's sample size."""
    return np.square(w.sum(-1)) / np.square(w).sum(-1) / w.shape[-1]


def resampled(w: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Rows (n,) of a weighted population (m,), each as often as its weight says on average: systematic resampling.

    The number of times that a row is drawn is its expectation, rounded down or up (Kitagawa 1996).
    """
    mass = np.cumsum(w, dtype=np.float64)
    at = (np.arange(n) + rng.random()) / n * mass[-1]
    return np.minimum(np.searchsorted(mass, at, side="right"), len(w) - 1)
