r"""Sinkhorn divergence between batches of weighted point clouds.

Conventions are those of geomloss (its oracle in the tests): cost :math:`|x-y|` with
:math:`\varepsilon =` ``blur`` for ``p = 1``, :math:`\tfrac12|x-y|^2` with :math:`\varepsilon =`
``blur**2`` for ``p = 2``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

#: Largest cost / epsilon for which exp(-cost / epsilon) is safe in float32 without logarithms.
_KERNEL_RANGE = 40.0
_TINY = 1e-30
_SMALL = 1e-12


def cost(x: Tensor, y: Tensor, p: int) -> Tensor:
    """Ground cost (..., n, m) between ``x`` (..., n, d) and ``y`` (..., m, d)."""
    # The matrix-product form of cdist loses the digits of short distances, which p = 1 divides by.
    distance = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    return distance if p == 1 else 0.5 * distance.square()


def plan(
    c: Tensor, a: Tensor, b: Tensor, eps: float, *, tol: float = 1e-3, max_iter: int = 200
) -> tuple[Tensor, Tensor, Tensor]:
    """Entropic transport plan and its dual potentials.

    Parameters
    ----------
    c
        Costs, shape (..., n, m).
    a, b
        Weights summing to one, shapes (..., n) and (..., m). Zeros are allowed (padding).
    eps
        Entropic regularisation, in the units of ``c``.
    tol
        Stop when the worst L1 error of a marginal falls below it.
    max_iter
        Upper bound on the iterations.

    Returns
    -------
    plan
        Shape (..., n, m): ``a_i b_j exp((f_i + g_j - c_ij) / eps)``. One marginal is exact, the other
        within ``tol``.
    f, g
        Dual potentials, shapes (..., n) and (..., m), in the units of ``c``.
    """
    log_b = b.clamp_min(_TINY).log()
    largest = float(c.max())
    if not math.isfinite(largest):
        nan = c.new_full((), math.nan)
        return nan * c, nan * a, nan * b
    scale = max(eps, largest / _KERNEL_RANGE)
    g = torch.zeros_like(b)
    iterations = 0
    while True:
        # A row update in logarithms, then cheap updates of a kernel whose entries cannot vanish together. With its rows
        # normalised the kernel is a softmax, whose largest entry has the sum.
        exponent = log_b.unsqueeze(-2) + (g.unsqueeze(-2) - c) / scale
        rows = torch.softmax(exponent, dim=-1)
        f = scale * (rows.amax(-1).log() - exponent.amax(-1))
        kernel = rows * a.unsqueeze(-1)
        last = scale == eps
        u, v, done = _scale(kernel, a, b, tol if last else None, 20 if last else 5)
        f = f + scale * u.clamp_min(_TINY).log()
        g = g + scale * v.clamp_min(_TINY).log()
        iterations += 20 if last else 0
        if last and (done or iterations >= max_iter):
            return u.unsqueeze(-1) * kernel * v.unsqueeze(-2), f, g
        scale = max(eps, scale / 2)


def _scale(kernel: Tensor, a: Tensor, b: Tensor, tol: float | None, n_iter: int) -> tuple[Tensor, Tensor, bool]:
    """Scale rows and columns of ``kernel``, whose rows sum to ``a``, towards the marginals ``a`` and ``b``."""
    u, v = torch.ones_like(a), torch.ones_like(b)
    for i in range(n_iter):
        column = (u.unsqueeze(-2) @ kernel).squeeze(-2)
        if tol is not None and i % 4 == 3 and float((column * v - b).abs().sum(-1).max()) < tol:
            return u, v, True
        v = (b / column.clamp_min(_TINY)).clamp_max(1 / _SMALL)
        u = (a / (kernel @ v.unsqueeze(-1)).squeeze(-1).clamp_min(_TINY)).clamp_max(1 / _SMALL)
    return u, v, False


def self_plan(c: Tensor, a: Tensor, eps: float, *, n_iter: int = 12) -> tuple[Tensor, Tensor]:
    """As ``plan`` for a cloud against itself: one potential, averaged updates (Feydy et al. 2019)."""
    scaled = c / eps
    log_a = a.clamp_min(_TINY).log()
    f = torch.zeros_like(a)
    if float(scaled.max()) > _KERNEL_RANGE:
        # The first update in logarithms: after it no row of the kernel can vanish, and the others need no exponential.
        f, n_iter = -0.5 * torch.logsumexp(log_a.unsqueeze(-2) - scaled, dim=-1), n_iter - 1
    g = f + log_a
    kernel = torch.exp(g.unsqueeze(-1) + g.unsqueeze(-2) - scaled)
    u = torch.ones_like(a)
    for _ in range(n_iter):
        u = (u * a / (kernel @ u.unsqueeze(-1)).squeeze(-1).clamp_min(_TINY)).sqrt()
    p = u.unsqueeze(-1) * kernel * u.unsqueeze(-2)
    return p, 2 * eps * (a * (f + u.clamp_min(_TINY).log())).sum(-1)


def _gradient(plan: Tensor, c: Tensor, x: Tensor, y: Tensor, p: int) -> Tensor:
    """Gradient in ``x`` of the transport cost under a fixed plan (envelope theorem)."""
    w = plan if p == 2 else torch.where(c > 1e-6, plan / c, 0.0)
    return w.sum(-1, keepdim=True) * x - w @ y


class _Sinkhorn(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, a: Tensor, b: Tensor, p: int, blur: float, tol: float, max_iter: int
    ) -> tuple[Tensor, Tensor]:
        eps = blur if p == 1 else blur**2
        cxy, cxx = cost(x, y, p), cost(x, x, p)
        pxy, f, g = plan(cxy, a, b, eps, tol=tol, max_iter=max_iter)
        pxx, vxx = self_plan(cxx, a, eps)
        gradient = _gradient(pxy, cxy, x, y, p) - _gradient(pxx, cxx, x, x, p)
        ctx.save_for_backward(gradient)
        return (a * f).sum(-1) + (b * g).sum(-1) - 0.5 * vxx, pxy

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _plan: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return grad[..., None, None] * gradient, *[None] * 7


def sinkhorn_loss(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    p: int = 2,
    blur: float,
    tol: float = 1e-3,
    max_iter: int = 200,
) -> tuple[Tensor, Tensor]:
    r"""Debiased Sinkhorn divergence without its constant term :math:`-\tfrac12 OT_\varepsilon(y, y)`.

    Parameters
    ----------
    x, y
        Predicted and observed clouds, shapes (..., n, d) and (..., m, d). Differentiable in ``x``.
    a, b
        Weights summing to one, shapes (..., n), (..., m); uniform by default.
    p
        1 or 2, the exponent of the cost.
    blur
        Length below which differences are smoothed away, in the units of ``x``.
    tol, max_iter
        See ``plan``.

    Returns
    -------
    loss
        Shape (...,). Add ``self_term`` of ``y`` for the full divergence.
    plan
        Entropic plan, shape (..., n, m); carries no gradient.
    """
    a = uniform(x) if a is None else a
    b = uniform(y) if b is None else b
    loss, pxy = _Sinkhorn.apply(x, y, a, b, p, blur, tol, max_iter)
    return loss, pxy.detach()


def self_term(y: Tensor, b: Tensor | None = None, *, p: int = 2, blur: float) -> Tensor:
    r"""The constant :math:`-\tfrac12 OT_\varepsilon(y, y)` of the divergence, shape (...,)."""
    b = uniform(y) if b is None else b
    return -0.5 * self_plan(cost(y, y, p), b, blur if p == 1 else blur**2)[1]


def uniform(x: Tensor) -> Tensor:
    """Equal weights summing to one for the points of ``x`` (..., n, d), shape (..., n)."""
    return x.new_full(x.shape[:-1], 1.0 / x.shape[-2])
