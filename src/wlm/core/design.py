r"""Which time to observe next: what possible courses of a population disagree about, and what an observation settles.

A course is where the population is at every time of a window. Populations are compared by sketches, vectors whose
Euclidean distance is the sliced 2-Wasserstein distance times the square root of the dimension: of two populations that
differ by a shift it is the length of the shift. Its sampling noise falls as :math:`1/\sqrt n` in any dimension, so that
numbers of cells can be planned; that of W1 does not.

With sketches as values of a Gaussian process in time, whose covariance :math:`K(s, t)` is that of the courses, an
observation of :math:`n` cells at :math:`u` leaves

.. math:: K'(s, t) = K(s, t) - \frac{K(s, u)\,K(u, t)}{K(u, u) + c(u) / n},

whatever is found there, where :math:`c / n` is the mean squared distance of the sketch of n cells from that of their
population. The disagreement at t is the root of :math:`K(t, t)`, the gain the drop of its mean over the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wlm.core.populations import Array

#: Quantiles of a sketch, and directions at least.
N_QUANTILES, N_DIRECTIONS = 48, 24
#: Share of what a day could settle that its cells are to settle, where they have no price; fewest cells of a day.
SETTLED, LEAST = 0.9, 50
#: Gaps of which one is no longer than the other by more than this share are equally long.
EQUAL = 1e-6
#: Sets of evenly spaced times that are averaged over, where gaps are equally long.
N_EVEN = 24


def directions(dim: int, seed: int = 0) -> Array:
    """Unit vectors (l, d): whole orthonormal frames, in which the length of a shift is exact."""
    rng = np.random.default_rng(seed)
    return np.concatenate([np.linalg.qr(rng.normal(size=(dim, dim)))[0] for _ in range(-(-N_DIRECTIONS // dim))])


def sketch(x: Array, along: Array) -> Array:
    """Vectors (..., f) of populations ``x`` (..., n, d): quantiles of the cells along directions (l, d)."""
    projected = np.sort(x @ along.T, axis=-2)  # (..., n, l)
    n = projected.shape[-2]
    at = np.clip((np.arange(N_QUANTILES) + 0.5) / N_QUANTILES * n - 0.5, 0, n - 1)
    low = np.floor(at).astype(int)
    share = (at - low)[:, None]
    values = (1 - share) * projected[..., low, :] + share * projected[..., np.minimum(low + 1, n - 1), :]
    scale = np.sqrt(along.shape[1] / (N_QUANTILES * len(along)))
    return values.reshape(*values.shape[:-2], -1) * scale


def sampling_noise(x: Array, along: Array, rng: np.random.Generator, *, n_draws: int = 8) -> float:
    """c: n times the mean squared distance of the sketch of n cells from that of their population ``x`` (m, d)."""
    m = len(x)
    pairs = [[sketch(x[rng.integers(m, size=m)], along) for _ in range(2)] for _ in range(n_draws)]
    return float(m * np.mean([((a - b) ** 2).sum() / 2 for a, b in pairs]))


def warped(times: Array, wanted: Array, exponents: Array, ahead: float) -> Array:
    """Times (k,) at which a course has come as far as others are at the ``wanted`` ones (k,).

    Within each interval of ``times`` (T,) it is early or late by an exponent (T - 1,), past the last it goes on at the
    share ``ahead`` of its pace.
    """
    k = np.clip(np.searchsorted(times, wanted, side="right") - 1, 0, len(times) - 2)
    length = times[k + 1] - times[k]
    share = (wanted - times[k]) / length
    inside = times[k] + np.clip(share, 0, 1) ** exponents[k] * length
    return np.where(wanted > times[-1], times[-1] + ahead * (wanted - times[-1]), inside)


@dataclass(frozen=True)
class Courses:
    """Inner products (m, m, T, T) of the sketches of m courses at T times, from which their covariance follows."""

    products: NDArray[np.float32]

    @classmethod
    def of(cls, sketches: Array) -> Courses:
        """Those of ``sketches`` (m, T, f)."""
        m, n, f = sketches.shape
        centred = (sketches - sketches.mean(axis=0)).reshape(m * n, f).astype(np.float32)
        return cls((centred @ centred.T).reshape(m, n, m, n).transpose(0, 2, 1, 3).copy())

    def __len__(self) -> int:
        return len(self.products)

    def covariance(self, rows: NDArray[np.intp] | None = None) -> Array:
        """The covariance (T, T) of the courses, or of some of them, which may be there several times."""
        m = len(self) if rows is None else len(rows)
        share = np.full(m, 1 / m) if rows is None else np.bincount(rows, minlength=len(self)) / m
        own = np.einsum("m,mmtu->tu", share, self.products)
        mean = np.tensordot(np.outer(share, share).astype(np.float32), self.products, axes=2)
        return (own - mean).astype(np.float64) * m / (m - 1)


@dataclass(frozen=True)
class Disagreement:
    """What is open at ``times`` (T,): the covariance (T, T), and c (T,), the sampling noise of one cell.

    ``weights`` (T,) are those of the times in the mean over the window; they sum to one.
    """

    times: Array
    covariance: Array
    noise: Array
    weights: Array

    @cached_property
    def open(self) -> Array:
        """The disagreement (T,) at each time, in the units of the cells."""
        return np.sqrt(np.clip(self.covariance.diagonal(), 0, None))

    @property
    def mean(self) -> float:
        """Its mean over the window."""
        return float(self.weights @ self.open)

    def after(self, k: int, n: float) -> Disagreement:
        """What ``n`` cells of the ``k``-th time leave."""
        own = self.covariance[:, k]
        total = own[k] + self.noise[k] / n
        return self if total <= 0 else replace(self, covariance=self.covariance - np.outer(own, own) / total)

    def half(self, k: int) -> float:
        """Cells whose floor is as large as the disagreement at the ``k``-th time: half of it (squared) is settled."""
        return float(self.noise[k] / max(self.covariance[k, k], 1e-12 * self.noise[k] + 1e-300))


@dataclass(frozen=True)
class Price:
    """What a day costs, ``day`` (T,) at each time, and ``cell``; nothing of both where None is said of costs.

    ``n_cells`` are to be measured whatever they settle, or by default as many as pay; at most ``most``.
    """

    day: Array
    cell: float
    n_cells: int | None
    most: int

    @property
    def free(self) -> bool:
        """Whether nothing has a price."""
        return self.cell == 0 and not self.day.any()

    def cells(self, found: Disagreement, k: int) -> int:
        r"""How many cells to measure at the ``k``-th time.

        n cells settle the share :math:`n / (n + n_0)` of the disagreement (squared) there, where :math:`n_0` is
        :meth:`Disagreement.half`. By default n is such that this is ``SETTLED``: past it the floor of the sample is
        well below what is asked. With prices it is what settles most per cost,
        :math:`n = \sqrt{n_0\, \mathrm{day} / \mathrm{cell}}`. Not fewer than ``LEAST``, with which populations can be
        compared.
        """
        if self.n_cells is not None:
            return self.n_cells
        half = found.half(k)
        n = np.sqrt(half * self.day[k] / self.cell) if self.cell > 0 else half * SETTLED / (1 - SETTLED)
        return int(np.clip(np.ceil(n - 1e-6), LEAST, max(LEAST, self.most)))

    def of(self, k: int, n: int) -> float:
        """The cost of ``n`` cells at the ``k``-th time; 1 where nothing has a price."""
        return 1.0 if self.free else float(self.day[k] + self.cell * n)


@dataclass(frozen=True)
class Pick:
    """The ``k``-th time with ``n`` cells, what it gains, its cost, and what is open before and after."""

    k: int
    n: int
    gain: float
    cost: float
    before: Disagreement
    after: Disagreement

    @property
    def value(self) -> float:
        """Gain per cost."""
        return self.gain / self.cost


def picked(found: Disagreement, k: int, price: Price) -> Pick:
    """What the ``k``-th time would gain."""
    n = price.cells(found, k)
    left = found.after(k, n)
    return Pick(k, n, found.mean - left.mean, price.of(k, n), found, left)


def greedy(found: Disagreement, candidates: Sequence[int], n_times: int, price: Price) -> list[Pick]:
    """The times that gain most (per cost), one after the other: each takes away the disagreement around it."""
    picks: list[Pick] = []
    for _ in range(n_times):
        taken = {pick.k for pick in picks}
        options = [picked(found, k, price) for k in candidates if k not in taken]
        best = max(options, key=lambda pick: pick.value)
        picks.append(best)
        found = best.after
    return picks


def given(found: Disagreement, order: Sequence[int], price: Price) -> list[Pick]:
    """What these times gain, in this order."""
    picks: list[Pick] = []
    for k in order:
        picks.append(picked(found, k, price))
        found = picks[-1].after
    return picks


def even_orders(observed: Array, times: Array, candidates: Sequence[int], n_times: int) -> list[tuple[int, ...]]:
    """Evenly spaced: each time the candidate nearest to the middle of the longest gap that has any.

    Several orders where gaps are equally long, at most ``N_EVEN``. ``candidates`` are places in ``times`` (T,).
    """
    orders: list[tuple[int, ...]] = [()]
    for _ in range(n_times):
        longer: list[tuple[int, ...]] = []
        for order in orders:
            longer += [(*order, k) for k in _middles(observed, times, candidates, order)]
        orders = longer[:N_EVEN]
    return orders


def _middles(observed: Array, times: Array, candidates: Sequence[int], taken: Sequence[int]) -> list[int]:
    """The candidates in the middle of the longest gaps between what is observed or taken; of later times the last."""
    known = np.sort(np.concatenate([observed, times[list(taken)]]))
    left = [k for k in candidates if k not in taken]
    gaps: list[tuple[float, int]] = []
    for a, b in zip(known[:-1], known[1:], strict=True):
        inside = [k for k in left if a < times[k] < b]
        if inside:
            gaps.append((b - a, min(inside, key=lambda k: abs(times[k] - (a + b) / 2))))
    if not gaps:
        return [max(left, key=lambda k: times[k])]
    longest = max(length for length, _ in gaps)
    return [k for length, k in gaps if length >= (1 - EQUAL) * longest]


@dataclass(frozen=True)
class Contest:
    """How much more the picks are worth than evenly spaced times: ``value``, and its 95 % interval over courses."""

    value: float
    low: float
    high: float
    even: float

    @property
    def better(self) -> bool:
        """Whether they are, beyond the interval."""
        return self.low > 0


def worth(picks: Sequence[Pick], price: Price) -> float:
    """Gain of all picks, per cost of all where something has a price."""
    return sum(pick.gain for pick in picks) / (1.0 if price.free else sum(pick.cost for pick in picks))


def contest(
    whole: Disagreement,
    courses: Courses,
    observed: Array,
    candidates: Sequence[int],
    n_times: int,
    price: Price,
    *,
    scale: float,
    n_boot: int,
    seed: int,
) -> tuple[Contest, NDArray[np.float64]]:
    """The greedy picks against even spacing, and disagreements (n_boot, T) of courses drawn anew from ``courses``.

    ``scale`` is the factor of distances that is in ``whole``. The best of many candidates by the courses that chose it
    looks better than it is: by how much, picks of the bootstrap samples say, judged by these and by all courses
    (optimism: Efron and Tibshirani 1993, chapter 17). It is taken off, and the interval is that of the picks by the
    samples.
    """
    rng, m = np.random.default_rng(seed), len(courses)
    orders = even_orders(observed, whole.times, candidates, n_times)

    def chosen(found: Disagreement) -> list[int]:
        return [pick.k for pick in greedy(found, candidates, n_times, price)]

    def even_worth(found: Disagreement) -> float:
        return float(np.mean([worth(given(found, order, price), price) for order in orders]))

    even, best = even_worth(whole), chosen(whole)
    value = worth(given(whole, best, price), price) - even
    opened, optimism, changes = [], [], []
    for _ in range(n_boot):
        found = replace(whole, covariance=scale**2 * courses.covariance(rng.integers(m, size=m)))
        opened.append(found.open)
        own, base = chosen(found), even_worth(found)
        optimism.append(worth(given(found, own, price), price) - base - (worth(given(whole, own, price), price) - even))
        changes.append(worth(given(found, best, price), price) - base - value)
    low, high = value - np.mean(optimism) + np.quantile(changes, (0.025, 0.975))
    return Contest(value - float(np.mean(optimism)), float(low), float(high), even), np.array(opened)
