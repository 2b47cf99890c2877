"""Populations observed at a few times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    growth
        T arrays of shape (n_k,): net rates at which the cells divide less those at which they die, per unit of
        ``times``, NaN where unknown.
    sizes
        How many cells each population has, shape (T,), sampled or not; the number of those observed says nothing of it.
    clones
        T arrays of shape (n_k,), integers: the number of each cell's clone, the same at all times, -1 without one.

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
    growth: tuple[Array, ...] | None = None
    sizes: Array | None = None
    clones: tuple[NDArray[np.integer], ...] | None = None

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
        for t, g, x in zip(self.times, self.growth or (), self.positions, strict=self.growth is not None):
            if g.shape != x.shape[:1]:
                raise ValueError(f"growth at time {t:g} has shape {g.shape}, wanted {x.shape[:1]}")
        for t, c, x in zip(self.times, self.clones or (), self.positions, strict=self.clones is not None):
            if c.shape != x.shape[:1]:
                raise ValueError(f"clones at time {t:g} have shape {c.shape}, wanted {x.shape[:1]}")
        if self.sizes is not None and (
            len(self.sizes) != len(self.times) or not (np.isfinite(self.sizes) & (self.sizes > 0)).all()
        ):
            raise ValueError(f"sizes must be positive numbers, one for each of {len(self.times)} times: {self.sizes}")

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

        return self.some(chosen)

    def some(self, rows: Sequence[NDArray[np.intp]]) -> Populations:
        """The cells ``rows``, increasing, of each time, in memory; sizes stay those of the whole populations."""

        def those(arrays: tuple[Any, ...] | None) -> Any:
            return None if arrays is None else tuple(_rows(a, i) for a, i in zip(arrays, rows, strict=True))

        cells = (self.positions, self.velocities, self.weights, self.strata, self.growth, self.clones)
        x, v, w, strata, growth, clones = map(those, cells)
        return Populations(self.times, x, v, w, strata, growth, self.sizes, clones)

    def redrawn(self, seed: int) -> Populations:
        """As many cells of each time, drawn again with replacement, of at most ``MOST``: a bootstrap of the cells.

        Instead of standing there as often as it was drawn, a cell has so many times its weight.
        """
        whole, rng, chosen, counts = self.sampled(), np.random.default_rng(seed), [], []
        for n in map(len, whole.positions):
            times_drawn = np.zeros(0, dtype=int)
            while np.count_nonzero(times_drawn) < 2:  # a population is two cells at least
                times_drawn = np.bincount(rng.integers(n, size=n), minlength=n)
            chosen.append(np.flatnonzero(times_drawn))
            counts.append(times_drawn[chosen[-1]].astype(np.float64))
        found = whole.some(chosen)
        drawn = counts if found.weights is None else [w * n for w, n in zip(found.weights, counts, strict=True)]
        return replace(found, weights=tuple(drawn))


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
