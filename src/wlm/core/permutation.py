"""Two groups of samples, compared by their distances: statistics, relabelings, p-values, intervals by leaving out.

The unit is the sample (an animal, a donor, a culture), never the cell: cells of one sample are not independent, and a
test that shuffles cells finds a difference between any two samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from math import comb, prod

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: Numbers of relabelings that statistics are computed for at once.
_CHUNK = 1000
#: Relative difference below which two statistics are the same number, rounded otherwise.
_SAME = 1e-9


def pseudo_f(distances: Floats, groups: Bools) -> Floats:
    """Pseudo-F (h, k) of ``h`` matrices of distances (h, n, n) for ``k`` divisions (k, n) of the samples in two groups.

    The ratio of squared distances between and within groups (PERMANOVA, equation 4 of Anderson, Austral Ecology 26,
    2001). For distances between numbers it is the square of Student's t. It is 0 where all distances are.
    """
    n = groups.shape[1]
    square = np.square(distances)
    total = square.sum(axis=(1, 2))[:, None] / (2 * n)  # (h, 1)
    within = np.zeros((len(distances), len(groups)))
    for part in (groups, ~groups):
        a = part.astype(np.float64)
        within += np.einsum("ki,hij,kj->hk", a, square, a, optimize=True) / (2 * a.sum(axis=1))
    between = total - within
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = between / (within / (n - 2))
    return np.minimum(np.where(np.isnan(ratio), 0.0, ratio), np.finfo(np.float64).max)


def n_labelings(group: Bools, strata: NDArray[np.intp]) -> int:
    """Ways to give the labels ``group`` (n,) to other samples of the same stratum (n,)."""
    return prod(comb(int((strata == s).sum()), int(group[strata == s].sum())) for s in np.unique(strata))


def smallest_p(group: Bools, strata: NDArray[np.intp]) -> float:
    """The smallest p-value that so many samples allow: of three against three 0.1, of four against four 0.029.

    A statistic of distances does not know which group is which: where every stratum (n,) has as many samples of either,
    exchanging all labels ``group`` (n,) gives the same number once more.
    """
    total = n_labelings(group, strata)
    balanced = all(2 * group[strata == s].sum() == (strata == s).sum() for s in np.unique(strata))
    return min(1.0, (2 if balanced else 1) / total)


def labelings(group: Bools, strata: NDArray[np.intp], n_perm: int, seed: int) -> Bools:
    """Relabelings (k, n) of samples within strata (n,), the given ``group`` (n,) first.

    All of them where there are at most ``n_perm``; else as many random ones besides the first, which then counts as one
    of them (Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9, 2010), so that no p-value is 0.
    """
    parts = [np.flatnonzero(strata == s) for s in np.unique(strata)]
    if n_labelings(group, strata) <= n_perm:
        every = np.array(list(_every(group, parts)))
        first = (every == group).all(axis=1)
        return np.concatenate([every[first], every[~first]])
    rng = np.random.default_rng(seed)
    out = np.tile(group, (n_perm + 1, 1))
    for part in parts:
        for k in range(1, n_perm + 1):
            out[k, part] = rng.permutation(group[part])
    return out


def _every(group: Bools, parts: list[NDArray[np.intp]]) -> Iterator[Bools]:
    """All relabelings, stratum by stratum."""
    if not parts:
        yield np.zeros(len(group), dtype=bool)
        return
    for rest in _every(group, parts[1:]):
        for chosen in combinations(parts[0], int(group[parts[0]].sum())):
            out = rest.copy()
            out[list(chosen)] = True
            yield out


def statistics(distances: Floats, present: Bools, groups: Bools) -> Floats:
    """Pseudo-F (h, k), of the samples that are ``present`` (n,), in parts that fit into memory."""
    some = distances[:, present][:, :, present]
    parts = [pseudo_f(some, groups[i : i + _CHUNK, present]) for i in range(0, len(groups), _CHUNK)]
    return np.concatenate(parts, axis=1)


def p_values(found: Floats) -> Floats:
    """P-values (h,) of statistics (h, k) of which the first column is that of the data."""
    return (found >= _least(found[:, :1])).mean(axis=1)


def comparable(found: Floats) -> Floats:
    """Statistics (h, k) of one kind on a scale on which kinds compare: 0 is their median, 1 their 95 % quantile.

    Pseudo-F of distances with a floor (W1 of samples of cells) varies little around 1, that of single numbers a lot.
    The quantiles are over all ``h`` and ``k``, so that relabeling does not change the scale, and tests stay exact.
    """
    middle, high = np.quantile(found, (0.5, 0.95))
    return (found - middle) / max(high - middle, np.finfo(np.float64).tiny)


def step_down(found: Floats) -> Floats:
    """P-values (h,) adjusted for the number of hypotheses, of statistics (h, k): step-down maxT.

    They control the chance of any false rejection, and use that statistics depend on each other (Westfall and Young,
    Resampling-Based Multiple Testing, 1993; algorithm 4.1 there). The first column of ``found`` is that of the data.
    """
    order = np.argsort(found[:, 0], kind="stable")  # from the least on: what is left at each step
    most = np.maximum.accumulate(found[order], axis=0)
    p = (most >= _least(found[order, :1])).mean(axis=1)
    out = np.empty(len(found))
    out[order] = np.maximum.accumulate(p[::-1])[::-1]
    return out


def _least(values: Floats) -> Floats:
    """What counts as at least ``values``, whatever rounding does."""
    return values - _SAME * np.maximum(np.abs(values), 1.0)


def separation(distances: Floats, group: Bools) -> tuple[Floats, Floats]:
    """Mean distances (h,) between samples of different groups, and within groups; NaN where there are no such pairs."""
    pairs = np.triu(np.ones((len(group), len(group)), dtype=bool), 1)
    across = group[:, None] != group

    def mean(some: Bools) -> Floats:
        with np.errstate(invalid="ignore"):
            return distances[:, some].sum(axis=1) / np.float64(some.sum())

    return mean(pairs & across), mean(pairs & ~across)


def interval(effect: Callable[[Bools], Floats], group: Bools, level: float = 0.95) -> tuple[Floats, Floats]:
    """Limits (2, h) of an ``effect`` (h,) of the samples that are kept (n,), from leaving out one after the other.

    Jackknife variances of the two groups add up; limits are those of Student's t with Welch's degrees of freedom. Of a
    difference of means this is Welch's interval.
    """
    from scipy.stats import t as student

    n = len(group)
    whole = effect(np.ones(n, dtype=bool))
    left = np.stack([effect(np.arange(n) != i) for i in range(n)])  # (n, h)
    sizes = [int(part.sum()) for part in (group, ~group)]
    variances = [
        (size - 1) / size * np.square(left[part] - left[part].mean(axis=0)).sum(axis=0)
        for size, part in zip(sizes, (group, ~group), strict=True)
    ]
    total = variances[0] + variances[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = np.square(total) / sum(np.square(v) / (size - 1) for v, size in zip(variances, sizes, strict=True))
    reach = student.ppf((1 + level) / 2, np.nan_to_num(freedom, nan=1.0)) * np.sqrt(total)
    return whole - reach, whole + reach
