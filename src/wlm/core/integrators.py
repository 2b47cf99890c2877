r"""Leapfrog with friction for the damped Hamiltonian equations (paper, eq. 7-8).

The continuous dynamics, in standardised units, are

.. math:: \dot x = v, \qquad \dot v = -\gamma v + (1 + \gamma)\, a(x, t), \qquad a_i = -\nabla_{x_i} U,

whose limits are Newton's law (:math:`\gamma = 0`) and the gradient flow :math:`\dot x = a`
(:math:`\gamma \to \infty`): the factor :math:`1 + \gamma` is a mobility that keeps the scale of
:math:`U` while :math:`\gamma` is being learned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from wlm.core.growth import grown, with_mass
from wlm.core.particles import Particles

Acceleration = Callable[[Particles, Tensor], Tensor]

#: Largest gradient with respect to the state of a cell, in medians over the cells.
MAX_ADJOINT = 5.0


def half_kick(gamma: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    r"""Coefficients of the exact half step of :math:`\dot v = -\gamma v + (1+\gamma)a` at frozen a.

    Parameters
    ----------
    gamma
        Friction, scalar, >= 0.
    h
        Whole step, scalar.

    Returns
    -------
    m, c
        Such that ``v <- m * v + c * a``: ``m = exp(-gamma h / 2)`` and
        ``c = (1 + gamma) (1 - m) / gamma``, which is ``h / 2`` at ``gamma = 0`` and tends to 1
        as ``gamma`` grows (the authors use ``m h / 2 + 1 - m``, which has the same two limits).
    """
    z = gamma * h / 2
    m = torch.exp(-z)
    # (1 - e^-z) / z by its series where the quotient loses digits (and is 0/0 at zero friction).
    small = z < 1e-3
    quotient = torch.where(small, 1 - z / 2 + z * z / 6, -torch.expm1(-z) / torch.where(small, 1.0, z))
    return m, (1 + gamma) * (h / 2) * quotient


def leapfrog(
    acceleration: Acceleration,
    start: Particles,
    times: Tensor,
    gamma: Tensor,
    substeps: list[int],
    growth: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Particles]:
    """Integrate kick-drift-kick through ``times`` and yield the state at each of them.

    One acceleration is evaluated per step: the closing one opens the next step.

    Parameters
    ----------
    acceleration
        Of each cell (..., n, d), given the cells and the time.
    start
        The cells at ``times[0]``; their velocities must be known.
    times
        Times to pass through, shape (T,), monotonic; or (T, ...), those of each population.
    gamma
        Friction per unit of ``times``, scalar.
    substeps
        Steps to take in each of the T - 1 intervals.
    growth
        Net rate (..., n) of each cell at its position (..., n, d), by which weights grow (trapezoid rule at the points
        of the leapfrog); the acceleration sees the weights of its time.

    Yields
    ------
    The cells at ``times[1], times[2], ...``.

    Raises
    ------
    ValueError
        If the cells have no velocities.
    """
    if start.v is None:
        raise ValueError("second-order dynamics need the velocities of the cells that they start from")
    p, v = start if growth is None else with_mass(start), start.v
    g = None if growth is None else growth(p.x)
    a = acceleration(p, times[0])
    for k, n in enumerate(substeps):
        step = (times[k + 1] - times[k]) / n
        h = _per_cell(step)
        m, c = half_kick(gamma, h)
        for i in range(n):
            v = m * v + c * a
            p = p._replace(x=p.x + h * v)
            if growth is not None and g is not None and p.log_w is not None:
                before, g = g, growth(p.x)
                p = p._replace(log_w=grown(p.log_w, before, g, step.unsqueeze(-1) if step.ndim else step))
            t = times[k] + (i + 1) * step
            a = acceleration(p, t)
            v = m * v + c * a
        p = p._replace(v=v)
        yield p


def _per_cell(t: Tensor) -> Tensor:
    """Times (...,) of populations with axes for cells and dimensions; of a scalar, itself."""
    return t[..., None, None] if t.ndim else t


def substeps_for(times: Tensor, step: float) -> list[int]:
    """Whole numbers of equal steps, at most ``step`` long, for each interval of ``times`` (T,) or (T, ...)."""
    return [max(1, int(torch.ceil(dt.abs().max() / step - 1e-6))) for dt in times.diff(dim=0)]


def refine(times: Tensor, substeps: list[int]) -> tuple[Tensor, list[int]]:
    """Each interval of ``times`` (T,) or (T, ...) cut into its number of equal steps, and where its end is then."""
    steps = [
        t + (u - t) * (i + 1) / n for t, u, n in zip(times[:-1], times[1:], substeps, strict=True) for i in range(n)
    ]
    at = [sum(substeps[: k + 1]) for k in range(len(substeps))]
    return torch.stack([times[0], *steps]), at


def bounded(x: Tensor, w: Tensor | None = None) -> Tensor:
    """``x`` (n, d), whose gradient with respect to each cell is cut to ``MAX_ADJOINT`` times the median over cells.

    Of weighted cells the gradient is compared per unit of weight ``w`` (n,).
    """

    def cut(g: Tensor) -> Tensor:
        size = g.norm(dim=-1, keepdim=True)
        size = size if w is None else size / w.detach().unsqueeze(-1)
        median = size.median(dim=-2, keepdim=True).values
        factor = (MAX_ADJOINT * median / size.clamp_min(1e-30)).clamp_max(1.0)
        return g * torch.where(median > 0, factor, 1.0)

    if x.requires_grad:
        x.register_hook(cut)
    return x
