"""Populations observed at a few times, and the units a model works in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.floating]

#: Most cells of each time that are trained on. A training of the default length draws each of so many about twice.
MOST = 100_000
#: Rows that are read at a time of arrays on disk.
BLOCK = 65_536


@dataclass(frozen=True)
class Populations:
    """Snapshots of a population; no cell is seen twice.

    Parameters
    ----------
    times
        Increasing times, shape (T,).
    positions
        T arrays of shape (n_k, d), on disk too (dask, zarr or h5py arrays; finite values are then checked as they are
        read).
    velocities
        T arrays of shape (n_k, d) in the units of ``positions`` per unit of ``times``, or None. After the
        first, an array may be all NaN: not measured at that time.
    weights
        T arrays of shape (n_k,), positive: a cell counts as that many. All equal by default.
    strata
        T arrays of shape (n_k,), integers, for example samples: cells are drawn so that each batch has the share of
        each stratum that the population has, up to less than two cells.

    Raises
    ------
    ValueError
        If the shapes disagree, there are fewer than two times, or a value is not finite.
    """

    times: Array
    positions: tuple[Array, ...]
    velocities: tuple[Array, ...] | None = None
    weights: tuple[Array, ...] | None = None
    strata: tuple[NDArray[np.integer], ...] | None = None

    def __post_init__(self) -> None:
        if len(self.times) != len(self.positions):
            raise ValueError(f"{len(self.times)} times but {len(self.positions)} populations")
        if len(self.times) < 2:
            raise ValueError(f"at least two times are needed to learn dynamics, found {len(self.times)}")
        if not (np.diff(self.times) > 0).all():
            raise ValueError(f"times must increase, found {list(self.times)}")
        dims = {x.shape[1] for x in self.positions}
        if len(dims) != 1:
            raise ValueError(f"populations differ in dimension: {sorted(dims)}")
        for name, arrays in (("positions", self.positions), ("velocities", self.velocities or self.positions)):
            if len(arrays) != len(self.times):
                raise ValueError(f"{len(self.times)} times but {name} of {len(arrays)}")
            for k, (t, a, x) in enumerate(zip(self.times, arrays, self.positions, strict=True)):
                if a.shape != x.shape:
                    raise ValueError(f"{name} at time {t:g} have shape {a.shape}, positions {x.shape}")
                if a.shape[0] < 2:
                    raise ValueError(f"time {t:g} has {a.shape[0]} cell(s); at least 2 are needed")
                if not isinstance(a, np.ndarray):
                    continue
                unmeasured = name == "velocities" and k > 0 and np.isnan(a).all()
                if not unmeasured and not np.isfinite(a).all():
                    raise ValueError(f"{name} at time {t:g} contain NaN or infinite values")

        for t, w, x in zip(self.times, self.weights or (), self.positions, strict=self.weights is not None):
            if w.shape != x.shape[:1]:
                raise ValueError(f"weights at time {t:g} have shape {w.shape}, wanted {x.shape[:1]}")
            if not (np.isfinite(w) & (w > 0)).all():
                raise ValueError(f"weights at time {t:g} must be positive and finite")
        for t, s, x in zip(self.times, self.strata or (), self.positions, strict=self.strata is not None):
            if s.shape != x.shape[:1]:
                raise ValueError(f"strata at time {t:g} have shape {s.shape}, wanted {x.shape[:1]}")

    @property
    def n_dims(self) -> int:
        """Dimension d of the state space."""
        return self.positions[0].shape[1]

    def sampled(self, most: int | None = None) -> Populations:
        """At most ``most`` cells of each time (by default ``MOST``), always the same, in memory.

        Each stratum has its share of them. Of arrays on disk only these rows are kept; they are read once, in order.
        """
        most = most or MOST
        in_memory = all(isinstance(a, np.ndarray) for a in (*self.positions, *(self.velocities or ())))
        if in_memory and max(x.shape[0] for x in self.positions) <= most:
            return self
        rng, chosen = np.random.default_rng(0), []
        for k, x in enumerate(self.positions):
            size = x.shape[0]
            order = rng.permutation(size)
            if self.strata is not None:
                order = order[np.argsort(self.strata[k][order], kind="stable")]
            n = min(most, size)
            # One of each of n parts of the order, which are equally large up to one cell.
            ends = np.arange(n + 1) * size // n
            chosen.append(np.sort(order[rng.integers(ends[:-1], ends[1:])]))

        def those(arrays: tuple[Any, ...] | None) -> Any:
            return None if arrays is None else tuple(_rows(a, i) for a, i in zip(arrays, chosen, strict=True))

        return Populations(self.times, *map(those, (self.positions, self.velocities, self.weights, self.strata)))


def _rows(a: Any, i: NDArray[np.intp]) -> NDArray[Any]:
    """The rows ``i``, increasing, of an array, which may be on disk."""
    if isinstance(a, np.ndarray):
        return a[i]
    out = np.empty((len(i), *a.shape[1:]), dtype=np.float32)
    for start in range(0, a.shape[0], BLOCK):
        low, high = np.searchsorted(i, [start, start + BLOCK])
        if high > low:
            out[low:high] = np.asarray(a[start : start + BLOCK])[i[low:high] - start]
    return out


@dataclass(frozen=True)
class Units:
    """Affine map between data and the standard units of a model.

    In standard units the pooled training cells have mean zero and mean variance one per dimension
    (one scale for all dimensions, so that distances keep their proportions), the first time is 0
    and the mean interval between training times is 1.
    """

    location: Array
    length: float
    origin: float
    time: float

    @classmethod
    def of(cls, populations: Populations) -> Units:
        """The units that standardise ``populations``, every time weighing the same."""
        location = np.mean([x.mean(0) for x in populations.positions], axis=0)
        square = [np.square(x - location).mean() for x in populations.positions]
        length = float(np.sqrt(np.mean(square)))
        if length == 0:
            raise ValueError("all cells have the same position; there is nothing to learn")
        t = populations.times
        return cls(location, length, float(t[0]), float((t[-1] - t[0]) / (len(t) - 1)))

    def standard_position(self, x: Array) -> Array:
        """Positions (..., d) in standard units."""
        return (x - self.location) / self.length

    def data_position(self, x: Array) -> Array:
        """Inverse of :meth:`standard_position`."""
        return x * self.length + self.location

    def standard_time(self, t: Array | float) -> Array:
        """Times in standard units."""
        return (np.asarray(t, dtype=np.float64) - self.origin) / self.time

    @property
    def velocity(self) -> float:
        """One standard unit of velocity, in data units."""
        return self.length / self.time


@dataclass(frozen=True)
class Snapshots:
    """Populations as tensors in standard units (weights 1 on average), on the device where they are trained on."""

    times: Tensor
    positions: list[Tensor]
    velocities: list[Tensor] | None
    weights: list[Tensor] | None = None
    #: Cells of each time in the order of their strata.
    orders: list[Tensor] | None = None

    @classmethod
    def of(cls, populations: Populations, units: Units, device: torch.device) -> Snapshots:
        """Standardise ``populations`` and move them to ``device`` as float32."""

        def tensor(a: Array) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(a, dtype=np.float32), device=device)

        velocities = populations.velocities
        return cls(
            tensor(units.standard_time(populations.times)),
            [tensor(units.standard_position(x)) for x in populations.positions],
            None if velocities is None else [tensor(v / units.velocity) for v in velocities],
            None if populations.weights is None else [tensor(w / w.mean()) for w in populations.weights],
            None
            if populations.strata is None
            else [torch.as_tensor(np.argsort(s, kind="stable"), device=device) for s in populations.strata],
        )

    def weights_of(self, k: int, cells: Tensor) -> Tensor | None:
        """Weights of some ``cells`` (m,) of time index ``k``; None if all are equal."""
        return None if self.weights is None else self.weights[k][cells]

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
            w = self.weights_of(k, i)
            shares[k, : len(i)] = 1 / len(i) if w is None else w / w.sum()
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
