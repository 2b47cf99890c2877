r"""Sinkhorn divergence between batches of weighted point clouds.

Conventions are those of geomloss (its oracle in the tests): cost :math:`|x-y|` with
:math:`\varepsilon =` ``blur`` for ``p = 1``, :math:`\tfrac12|x-y|^2` with :math:`\varepsilon =`
``blur**2`` for ``p = 2``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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
        u = (a / _rows(kernel, v).clamp_min(_TINY)).clamp_max(1 / _SMALL)
    return u, v, False


def _rows(kernel: Tensor, v: Tensor) -> Tensor:
    """``kernel`` (..., n, m) times ``v`` (..., m), as a row: many columns take the CPU six times longer."""
    return (v.unsqueeze(-2) @ kernel.mT).squeeze(-2)


def barycentres(
    x: Tensor, a: Tensor, y: Tensor, some: Tensor, b: Tensor, values: Tensor, eps: float, *, chunk: int = 4096
) -> Iterator[tuple[slice, Tensor]]:
    """Means of ``values`` (n, k) at the cells ``x`` (n, d) for all of ``y`` (m, d), under the plan between both.

    The plan is that of ``x``, weights ``a`` (n,), with ``some`` (l, d) of ``y``, weights ``b`` (l,), for squared
    distance; its dual potential extends it to the others.

    Yields
    ------
    Which rows of ``y``, and the means (.., k) for them.
    """
    _, f, _ = plan(cost(x, some, 2), a, b, eps)
    for start in range(0, len(y), chunk):
        rows = slice(start, start + chunk)
        yield rows, torch.softmax((f - cost(y[rows], x, 2)) / eps + a.log(), dim=1) @ values


def self_plan(c: Tensor, a: Tensor, eps: float, *, n_iter: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """As ``plan`` for a cloud against itself: one potential, averaged updates (Feydy et al. 2019).

    Returns
    -------
    The plan (..., n, n), the potential (..., n), and the transport cost (...,).
    """
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
        u = (u * a / _rows(kernel, u).clamp_min(_TINY)).sqrt()
    p = u.unsqueeze(-1) * kernel * u.unsqueeze(-2)
    potential = f + u.clamp_min(_TINY).log()
    return p, eps * potential, 2 * eps * (a * potential).sum(-1)


def _gradient(plan: Tensor, c: Tensor, x: Tensor, y: Tensor, p: int) -> Tensor:
    """Gradient in ``x`` of the transport cost under a fixed plan (envelope theorem)."""
    w = plan if p == 2 else torch.where(c > 1e-6, plan / c, 0.0)
    return w.sum(-1, keepdim=True) * x - w @ y


class _Sinkhorn(torch.autograd.Function):
    """The divergence without its constant; differentiable in ``x``, ``a`` and ``b``, and not in the plan."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, a: Tensor, b: Tensor, p: int, blur: float, tol: float, max_iter: int
    ) -> tuple[Tensor, Tensor]:
        eps = blur if p == 1 else blur**2
        cxy, cxx = cost(x, y, p), cost(x, x, p)
        pxy, f, g = plan(cxy, a, b, eps, tol=tol, max_iter=max_iter)
        pxx, f_self, vxx = self_plan(cxx, a, eps)
        gradient = _gradient(pxy, cxy, x, y, p) - _gradient(pxx, cxx, x, x, p)
        # The gradient in the weights are the potentials (envelope theorem). One exact update of each, for the weights
        # that the iterations have hardly looked at.
        ga = _transform(cxy, g, b, eps) - f_self if ctx.needs_input_grad[2] else None
        gb = _transform(cxy.mT, f, a, eps) if ctx.needs_input_grad[3] else None
        ctx.save_for_backward(gradient, ga, gb)
        return (a * f).sum(-1) + (b * g).sum(-1) - 0.5 * vxx, pxy

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _plan: Tensor) -> tuple[Tensor | None, ...]:
        gradient, *duals = ctx.saved_tensors
        ga, gb = (None if dual is None else grad[..., None] * dual for dual in duals)
        return grad[..., None, None] * gradient, None, ga, gb, *[None] * 4


def _transform(c: Tensor, g: Tensor, b: Tensor, eps: float) -> Tensor:
    """The potential (..., n) that is optimal beside ``g`` (..., m) of weights ``b`` (..., m)."""
    return -eps * torch.logsumexp(b.clamp_min(_TINY).log().unsqueeze(-2) + (g.unsqueeze(-2) - c) / eps, dim=-1)


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
        Predicted and observed clouds, shapes (..., n, d) and (..., m, d). Differentiable in ``x``, not in ``y``.
    a, b
        Weights summing to one, shapes (..., n), (..., m); uniform by default. Differentiable in both.
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


#: Who computes a divergence in training: this file, or geomloss with one of its backends.
DIVERGENCES = ("sinkhorn", "geomloss", "geomloss-tensorized", "geomloss-online", "geomloss-multiscale")
#: Ratio of consecutive scales in geomloss's annealing, as in the authors' code.
SCALING = 0.9


def geomloss_divergence(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, *, p: int = 2, blur: float, backend: str = "auto"
) -> Tensor:
    r"""The debiased Sinkhorn divergence by geomloss (Feydy et al. 2019), self terms included.

    Parameters
    ----------
    x, y, a, b, p, blur
        As for :func:`sinkhorn_loss`, with one leading axis T.
    backend
        ``"auto"``, ``"tensorized"``, or, one cloud after the other and with pykeops installed, ``"online"`` and
        ``"multiscale"``.

    Returns
    -------
    Divergences, shape (T,).
    """
    from geomloss import SamplesLoss

    loss = SamplesLoss("sinkhorn", p=p, blur=blur, scaling=SCALING, backend=backend)
    x, y, a, b = (z.contiguous() for z in (x, y, a, b))
    if backend in ("auto", "tensorized"):
        return loss(a, x, b, y)
    return torch.stack([loss(*clouds) for clouds in zip(a, x, b, y, strict=True)])


def self_term(y: Tensor, b: Tensor | None = None, *, p: int = 2, blur: float) -> Tensor:
    r"""The constant :math:`-\tfrac12 OT_\varepsilon(y, y)` of the divergence, shape (...,)."""
    b = uniform(y) if b is None else b
    return -0.5 * self_plan(cost(y, y, p), b, blur if p == 1 else blur**2)[2]


def uniform(x: Tensor) -> Tensor:
    """Equal weights summing to one for the points of ``x`` (..., n, d), shape (..., n)."""
    return x.new_full(x.shape[:-1], 1.0 / x.shape[-2])
