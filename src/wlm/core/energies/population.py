r"""The energy of a population whose cells see each other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Attention(nn.Module):
    """Multi-head attention of ``query`` (..., q, w) to ``context`` (..., k, w) with weights ``log_w`` (..., k)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, query: Tensor, context: Tensor, log_w: Tensor | None = None) -> Tensor:
        q = self.q(query).unflatten(-1, (self.heads, -1)).transpose(-3, -2)
        k, v = self.kv(context).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        bias = None if log_w is None else log_w[..., None, None, :]
        y = F.scaled_dot_product_attention(q, k.transpose(-3, -2), v.transpose(-3, -2), attn_mask=bias)
        return self.out(y.transpose(-3, -2).flatten(-2))


class _Block(nn.Module):
    """Pre-norm transformer block; the cells meet through ``n_inducing`` points, or directly if it is 0.

    Inducing points (Lee et al. 2019, Set Transformer) summarise the population, so that cost grows
    linearly with the number of cells instead of quadratically.
    """

    def __init__(self, width: int, heads: int, hidden: int, n_inducing: int):
        super().__init__()
        self.inducing = nn.Parameter(torch.randn(n_inducing, width)) if n_inducing else None
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.gather = _Attention(width, heads) if n_inducing else None
        self.attend = _Attention(width, heads)
        self.feed_forward = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, z: Tensor, log_w: Tensor | None = None) -> Tensor:
        y = self.norm1(z)
        if self.inducing is not None and self.gather is not None:
            summary = self.gather(self.inducing.expand(*y.shape[:-2], -1, -1), y, log_w)
            z = z + self.attend(y, summary)
        else:
            z = z + self.attend(y, y, log_w)
        return z + self.feed_forward(self.norm2(z))


class Timed(nn.Module):
    """What the potentials of populations share: the time as features beside the positions of cells, if asked for."""

    def __init__(self, dim: int, *, time_features: bool):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(1, 16), nn.SiLU(), nn.Linear(16, 16)) if time_features else None
        self.n_inputs = dim + (16 if time_features else 0)

    def inputs(self, x: Tensor, t: Tensor) -> Tensor:
        """What the network sees (..., n, n_inputs) of cells ``x`` (..., n, d) at the time ``t``, a scalar or (...,)."""
        if self.time is None:
            return x
        return torch.cat([x, self.time(t.reshape(*t.shape, 1, 1)).expand(*x.shape[:-1], 16)], dim=-1)


class PopulationPotential(Timed):
    r"""Permutation-invariant potential energy :math:`U_\theta(\{x_j\}, t) = \sum_i u_\theta(x_i; \{x_j\}, t)`.

    Each cell's energy depends on the whole population through attention, so interactions and
    entropy-like terms can be learned as well as an external potential (paper, section 3).
    The output layer starts at zero: an untrained potential exerts no force.

    Parameters
    ----------
    dim
        Dimension d of the state space.
    width, depth, heads, hidden
        Size of the transformer: embedding width, number of blocks, attention heads, feed-forward width.
    n_inducing
        Inducing points per block; 0 lets every cell attend to every other.
    time_features
        Give the network the time, as 16 features.
    """

    def __init__(
        self,
        dim: int,
        *,
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
        hidden: int = 128,
        n_inducing: int = 16,
        time_features: bool = False,
    ):
        super().__init__(dim, time_features=time_features)
        self.embed = nn.Linear(self.n_inputs, width)
        self.blocks = nn.ModuleList(_Block(width, heads, hidden, n_inducing) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.energy = nn.Linear(width, 1)
        nn.init.zeros_(self.energy.weight)
        nn.init.zeros_(self.energy.bias)
        # A constant exerts no force: its gradient is nothing but rounding, which Adam would blow up to whole steps.
        self.energy.bias.requires_grad = False

    def forward(self, x: Tensor, t: Tensor, log_w: Tensor | None = None) -> Tensor:
        """Energy of each cell, shape (..., n), of populations ``x`` (..., n, d) at the time ``t``, a scalar or (...,).

        A cell of weight w, of which ``log_w`` (..., n) is the logarithm, is seen by the others as that many cells.
        """
        z = self.embedded(x, t)
        for block in self.blocks:
            z = block(z, log_w)
        return self.energy(self.norm(z)).squeeze(-1)

    def embedded(self, x: Tensor, t: Tensor) -> Tensor:
        """Cells (..., n, width) as the first block sees them."""
        return self.embed(self.inputs(x, t))
