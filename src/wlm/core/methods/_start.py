"""Fields of initial velocities: gradients of a learned scalar, as the theory asks (paper, eq. 1)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wlm.core.snapshots import Snapshots

#: Steps, peak learning rate and batch of the fit of a field to snapshots.
DICE_STEPS, DICE_LR, DICE_BATCH = 600, 3e-3, 256


class GradientField(nn.Module):
    r"""A velocity field :math:`\nabla_x s(x, t)` with a small network s, zero before training.

    Parameters
    ----------
    dim
        Dimension d of the space.
    width
        Width of the two hidden layers.
    """

    def __init__(self, dim: int, width: int):
        super().__init__()
        self.first = nn.Linear(dim + 1, width)
        self.second = nn.Linear(width, width)
        self.last = nn.Parameter(torch.zeros(width))

    def scalar(self, x: Tensor, t: Tensor) -> Tensor:
        """The potential s (..., n) at ``x`` (..., n, d) and times ``t`` that broadcast with (..., n)."""
        return F.softplus(self.second(F.silu(self._hidden(x, t)))) @ self.last

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Velocities (..., n, d); differentiated by hand, so that training needs one first-order graph."""
        h = self._hidden(x, t)
        sigma = torch.sigmoid(h)
        slope = sigma * (1 + h * (1 - sigma))
        g = torch.sigmoid(self.second(h * sigma)) * self.last
        return ((g @ self.second.weight) * slope) @ self.first.weight[:, :-1]

    def _hidden(self, x: Tensor, t: Tensor) -> Tensor:
        return self.first(torch.cat([x, t.expand(x.shape[:-1]).unsqueeze(-1)], dim=-1))


def dice_loss(field: GradientField, populations: list[Tensor], times: Tensor) -> Tensor:
    r"""Discrete action matching over consecutive snapshots (Blickhan et al. 2025, DICE).

    The action :math:`\int E_{\rho_t}[\partial_t s + \tfrac12|\nabla s|^2]dt - [E_{\rho_t} s]` with the
    trapezoid rule in time: its minimum is the velocity field of least kinetic energy that carries each
    population to the next.

    Parameters
    ----------
    populations
        Cells (n_k, d) of each time.
    times
        Increasing times, shape (T,).
    """
    loss = times.new_zeros(())
    for k, dt in enumerate(times.diff()):
        (x, y), (t, u) = populations[k : k + 2], times[k : k + 2]
        change = field.scalar(x, u) + field.scalar(x, t)
        kinetic = field(x, t).square().sum(-1).mean() + field(y, u).square().sum(-1).mean()
        loss = loss + 0.5 * (change.mean() - (field.scalar(y, t) + field.scalar(y, u)).mean()) + 0.25 * dt * kinetic
    return loss


def _draw(snapshots: Snapshots, k: int, generator: torch.Generator) -> Tensor:
    """A batch of the cells of time index ``k``, by their weights if there are any."""
    draw = snapshots.draw if snapshots.weights is None else snapshots.draw_by_weight
    return snapshots.positions[k][draw(k, DICE_BATCH, generator)]


def fit_dice(field: GradientField, snapshots: Snapshots, generator: torch.Generator) -> None:
    """Train ``field`` in place to carry each snapshot to the next, and freeze it."""
    optimizer = torch.optim.Adam(field.parameters(), lr=DICE_LR)
    for step in range(DICE_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = DICE_LR * 0.5 * (1 + math.cos(math.pi * step / DICE_STEPS))
        loss = dice_loss(field, [_draw(snapshots, k, generator) for k in range(len(snapshots.times))], snapshots.times)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(field.parameters(), 1.0)
        optimizer.step()
    field.requires_grad_(requires_grad=False)
