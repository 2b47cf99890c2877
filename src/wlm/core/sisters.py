"""Sisters: cells of one clone at several times, and how far predicted cells are from theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wlm.core.particles import Particles


class Sisters(NamedTuple):
    """Where the cells of each clone are at each time.

    Parameters
    ----------
    clones
        T tensors (n_k,): the number of each cell's clone, -1 for cells that have no cell of theirs at another time.
    means
        Mean position of each clone at each time, shape (T, C, d).
    there
        Whether a clone has cells at a time, shape (T, C).
    """

    clones: list[Tensor]
    means: Tensor
    there: Tensor

    @classmethod
    def of(cls, positions: Sequence[Tensor], clones: Sequence[NDArray[np.integer]]) -> Sisters:
        """The sisters among cells at ``positions``, T tensors (n_k, d), of ``clones``, T arrays (n_k,)."""
        known = [np.unique(c[c >= 0]) for c in clones]
        names, n_times = np.unique(np.concatenate(known), return_counts=True)
        names = names[n_times > 1]
        device, dim = positions[0].device, positions[0].shape[1]
        numbers, means, there = [], [], []
        for x, c in zip(positions, clones, strict=True):
            of = np.where(np.isin(c, names), np.searchsorted(names, c), -1)
            own = torch.as_tensor(of, dtype=torch.long, device=device)
            some, size = own >= 0, x.new_zeros(len(names))
            size.index_add_(0, own[some], torch.ones_like(x[some, 0]))
            total = x.new_zeros((len(names), dim)).index_add_(0, own[some], x[some])
            numbers.append(own)
            means.append(total / size.clamp_min(1).unsqueeze(-1))
            there.append(size > 0)
        return cls(numbers, torch.stack(means), torch.stack(there))

    def distance(self, path: Particles, clones: Tensor, target: Tensor) -> Tensor:
        """Half the mean squared distance of predicted cells to the mean of their sisters; 0 if none has sisters.

        Parameters
        ----------
        path
            Predicted cells, shape (h, B, n, d).
        clones
            Their clones (B, n), -1 without one.
        target
            The time indices (h, B) that they are predicted for.
        """
        if self.means.shape[1] == 0:
            return path.x.new_zeros(())
        own = clones.clamp_min(0)  # (B, n)
        known = self.there[target.unsqueeze(-1), own] & (clones >= 0)  # (h, B, n)
        # Masked before the square: a cell without sisters that has run off must not make a gradient of 0 * infinity.
        gap = (path.x - self.means[target.unsqueeze(-1), own]).masked_fill(~known.unsqueeze(-1), 0.0)
        w = path.shares.detach() * known
        return (w * gap.square().sum(-1)).sum() / (2 * w.sum().clamp_min(1e-12))
