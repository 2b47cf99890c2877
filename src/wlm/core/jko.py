r"""Steps of the JKO scheme: the implicit step of single cells, entropies, log-determinants of maps."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

#: Dimensions up to which the log-determinant of a map is computed from its whole Jacobian.
EXACT_LOG_DET = 10
#: Cells over which weights are averaged in the entropy of a population.
N_LOCAL = 10
#: Terms of the power series for the log-determinant above that.
SERIES = 8


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
