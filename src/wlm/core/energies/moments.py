r"""The energy of a population whose cells see moments of it: means of learned features, and not each other.

Its force is written out, and needs neither automatic differentiation nor a second pass.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wlm.core.energies.landscape import silu
from wlm.core.energies.population import Timed


class _Moments(nn.Module):
    """Means of features of all cells, as what they add to the hidden layer of each."""

    def __init__(self, dim: int, width: int, n_moments: int):
        super().__init__()
        self.features = nn.Linear(dim, width)
        self.moments = nn.Linear(width, n_moments, bias=False)
        self.context = nn.Linear(n_moments, width, bias=False)

    def forward(self, x: Tensor, log_w: Tensor | None) -> tuple[Tensor, Tensor]:
        """What they add, (..., 1, width), and the slopes of the features, (..., n, width)."""
        h, slope = silu(self.features(x))
        return self.context(_mean(self.moments(h), log_w)), slope

    def pull(self, by_context: Tensor, slope: Tensor) -> Tensor:
        """Gradient (..., n, dim) in the cells, from the mean one (..., 1, width) in what the moments add."""
        by_features = by_context @ self.context.weight @ self.moments.weight
        return (slope * by_features) @ self.features.weight


class MomentPotential(Timed):
    r"""Permutation-invariant energy :math:`U(\{x_j\}, t) = \sum_i u(x_i, m, t)`, moments :math:`m = \overline{g(x)}`.

    Both functions are small networks (Deep Sets; Zaheer et al. 2017): :math:`g` has one hidden layer, :math:`u` two.
    Cells feel the population as far as its moments tell, at a cost that is linear in the number of cells. The output
    layer starts at zero: an untrained potential exerts no force.

    Parameters
    ----------
    dim
        Dimension d of the state space.
    width
        Width of the hidden layers.
    n_moments
        Moments; with 0 cells feel nothing of the others.
    time_features
        Give the networks the time, as 16 features.
    """

    def __init__(self, dim: int, *, width: int = 64, n_moments: int = 16, time_features: bool = False):
        super().__init__(dim, time_features=time_features)
        self.dim = dim
        self.embed = nn.Linear(self.n_inputs, width)
        self.seen = _Moments(self.n_inputs, width, n_moments) if n_moments else None
        self.hidden = nn.Linear(width, width)
        self.energy = nn.Linear(width, 1, bias=False)  # a constant exerts no force
        nn.init.zeros_(self.energy.weight)

    def forward(self, x: Tensor, t: Tensor, log_w: Tensor | None = None) -> Tensor:
        """Energy of each cell, shape (..., n), of populations ``x`` (..., n, d) at the time ``t``, a scalar or (...,).

        A cell of weight w, of which ``log_w`` (..., n) is the logarithm, is seen by the others as that many cells.
        """
        x = self.inputs(x, t)
        z = self.embed(x)
        if self.seen is not None:
            z = z + self.seen(x, log_w)[0]
        return self.energy(F.silu(self.hidden(F.silu(z)))).squeeze(-1)

    def acceleration(self, x: Tensor, t: Tensor, log_w: Tensor | None = None) -> Tensor:
        r"""The force on each cell, :math:`-\nabla_{x_i} U / w_i`, shape (..., n, d).

        With :math:`s_j` the shares of the cells,
        :math:`\nabla_{x_i} U / w_i = \partial_x u_i + (\partial_x g_i)^\top \sum_j s_j \partial_m u_j`.
        """
        x = self.inputs(x, t)
        z = self.embed(x)
        if self.seen is not None:
            seen, slope = self.seen(x, log_w)
            z = z + seen
        z, inner = silu(z)
        outer = silu(self.hidden(z))[1] * self.energy.weight
        by_z = (outer @ self.hidden.weight) * inner  # (..., n, width)
        gradient = by_z @ self.embed.weight[:, : self.dim]
        if self.seen is not None:
            gradient = gradient + self.seen.pull(_mean(by_z, log_w), slope)[..., : self.dim]
        return -gradient


def _mean(values: Tensor, log_w: Tensor | None) -> Tensor:
    """Means (..., 1, k) over cells of ``values`` (..., n, k)."""
    if log_w is None:
        return values.mean(-2, keepdim=True)
    return torch.softmax(log_w, dim=-1).unsqueeze(-2) @ values
