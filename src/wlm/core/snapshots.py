"""Populations as tensors in standard units, and batches of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wlm.core.particles import Particles
from wlm.core.populations import Array, Populations
from wlm.core.sisters import Sisters
from wlm.core.units import Units


@dataclass(frozen=True)
class Snapshots:
    """Populations as tensors in standard units, on the device where they are trained on."""

    times: Tensor
    positions: list[Tensor]
    velocities: list[Tensor] | None
    weights: list[Tensor] | None = None
    #: Cells of each time in the order of their strata.
    orders: list[Tensor] | None = None
    #: Net rates of the cells of each time, NaN where unknown; logarithms of the sizes of the populations (T,).
    growth: list[Tensor] | None = None
    log_sizes: Tensor | None = None
    #: Which cells are sisters, and where those of each clone are.
    sisters: Sisters | None = None

    @classmethod
    def of(cls, populations: Populations, units: Units, device: torch.device) -> Snapshots:
        """Standardise ``populations`` and move them to ``device`` as float32."""

        def tensor(a: Array) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(a, dtype=np.float32), device=device)

        velocities = populations.velocities
        positions = [tensor(units.standard_position(x)) for x in populations.positions]
        return cls(
            tensor(units.standard_time(populations.times)),
            positions,
            None if velocities is None else [tensor(v / units.velocity) for v in velocities],
            None if populations.weights is None else [tensor(w) for w in populations.weights],
            None
            if populations.strata is None
            else [torch.as_tensor(np.argsort(s, kind="stable"), device=device) for s in populations.strata],
            None if populations.growth is None else [tensor(g * units.time) for g in populations.growth],
            None if populations.sizes is None else tensor(np.log(populations.sizes)),
            None if populations.clones is None else Sisters.of(positions, populations.clones),
        )

    def particles(self, k: int, cells: Tensor, v: Tensor | None = None) -> Particles:
        """Some ``cells`` (m,) of time index ``k``, with the velocities ``v`` (m, d)."""
        log_w = None if self.weights is None else self.weights[k][cells].log()
        return Particles(self.positions[k][cells], v, log_w)

    def draw(self, k: int, n: int, generator: torch.Generator) -> Tensor:
        """Indices of at most ``n`` cells of time index ``k``, without replacement; of each stratum its share."""
        size, device = len(self.positions[k]), generator.device
        if self.orders is None:
            return sample_index(size, n, generator)
        # One of each of n parts of the order, which are equally large up to one cell.
        ends = torch.arange(min(n, size) + 1, device=device) * size // min(n, size)
        share = torch.rand(len(ends) - 1, generator=generator, device=device)
        return _mixed(self.orders[k], ends[:-1] + (share * ends.diff()).long(), generator)

    def draw_by_weight(self, k: int, n: int, generator: torch.Generator) -> Tensor:
        """Indices of ``n`` cells of time index ``k`` in proportion to their weights; of each stratum its share.

        With replacement where there are weights, or fewer cells.
        """
        size, device = len(self.positions[k]), generator.device
        if self.orders is not None:
            w = torch.ones(size, device=device) if self.weights is None else self.weights[k]
            mass = w[self.orders[k]].cpu().double().cumsum(0)
            # One point of each of n parts of equal mass.
            share = torch.rand(n, generator=generator, device=device).cpu()
            at = torch.searchsorted(mass, (torch.arange(n) + share) / n * mass[-1], right=True)
            return _mixed(self.orders[k], at.clamp_max(size - 1).to(device), generator)
        if self.weights is not None:
            return torch.multinomial(self.weights[k], n, replacement=True, generator=generator)
        if size >= n:
            return sample_index(size, n, generator)
        return torch.randint(size, (n,), generator=generator, device=device)

    def batches(self, size: int, generator: torch.Generator) -> tuple[list[Tensor], Tensor, Tensor]:
        """Draw at most ``size`` cells of each population.

        Returns
        -------
        cells
            Indices into each population.
        positions, shares
            Shapes (T, n, d) and (T, n), the shares summing to one: smaller populations are padded with cells
            that have none.
        """
        cells = [self.draw(k, size, generator) for k in range(len(self.positions))]
        n = max(map(len, cells))
        positions = torch.stack(
            [torch.cat([x[i], x[i[:1]].expand(n - len(i), -1)]) for x, i in zip(self.positions, cells, strict=True)]
        )
        shares = positions.new_zeros(positions.shape[:2])
        for k, i in enumerate(cells):
            shares[k, : len(i)] = self.particles(k, i).shares
        return cells, positions, shares


def _mixed(order: Tensor, places: Tensor, generator: torch.Generator) -> Tensor:
    """The cells at these places of an order, in random order."""
    return order[places[torch.randperm(len(places), generator=generator, device=generator.device)]]


def median_distance(positions: list[Tensor], generator: torch.Generator, n: int = 500) -> float:
    """Median pairwise distance within a population, averaged over populations (at most ``n`` cells of each)."""
    medians = []
    for x in positions:
        some = sample(x, n, generator)
        i, j = torch.triu_indices(len(some), len(some), offset=1)
        medians.append(torch.cdist(some, some)[i, j].median())
    return float(torch.stack(medians).mean())


def sample(x: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """At most ``n`` rows of ``x``, drawn without replacement."""
    return x[sample_index(len(x), n, generator)]


def sample_index(size: int, n: int, generator: torch.Generator) -> Tensor:
    """Indices of at most ``n`` of ``size`` items, drawn without replacement."""
    return torch.randperm(size, generator=generator, device=generator.device)[:n]
