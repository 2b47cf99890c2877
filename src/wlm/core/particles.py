"""Cells on the move: where they are, how fast, and how many each stands for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Particles(NamedTuple):
    """A population of cells as tensors, in standard units (see :class:`~wlm.core.units.Units`).

    Parameters
    ----------
    x
        Positions, shape (..., n, d).
    v
        Velocities, shape (..., n, d); None where position and time determine them, or where nobody knows them yet.
    log_w
        Logarithm of the number of cells that each stands for, shape (..., n); None if each stands for one, for ever.
        Its level is the size of the population, which matters to growth alone: forces, losses and scores use
        :attr:`w` or :attr:`shares`.
    """

    x: Tensor
    v: Tensor | None = None
    log_w: Tensor | None = None

    @property
    def shares(self) -> Tensor:
        """Weights (..., n) that sum to one."""
        if self.log_w is None:
            return self.x.new_full(self.x.shape[:-1], 1.0 / self.x.shape[-2])
        return torch.softmax(self.log_w, dim=-1)

    @property
    def w(self) -> Tensor | None:
        """Weights (..., n) that are one on average; None if all are equal."""
        return None if self.log_w is None else self.log_w.shape[-1] * torch.softmax(self.log_w, dim=-1)

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the cells of ``values`` (..., n), every cell counting as often as its weight says."""
        return values.mean(-1) if self.log_w is None else (self.shares * values).sum(-1)


def together(states: Sequence[Particles]) -> Particles:
    """The same cells at several times, with a leading axis for these."""
    v, log_w = _stacked([p.v for p in states]), _stacked([p.log_w for p in states])
    return Particles(torch.stack([p.x for p in states]), v, log_w)


def _stacked(arrays: Sequence[Tensor | None]) -> Tensor | None:
    there = [a for a in arrays if a is not None]
    return torch.stack(there) if len(there) == len(arrays) else None
