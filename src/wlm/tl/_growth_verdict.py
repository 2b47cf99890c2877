"""Is growth worth it? A fit with growth and its twin without, on the last time, beside estimates without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wlm._adata.cells import Cells
from wlm.core.transport import semi_relaxed, shares
from wlm.tl._scores import N_SAMPLE, SCORES, Population, share_of

#: Cells a side of the couplings; labels named in the verdict; added to counts, so that none is zero.
N_COUPLED, N_NAMED, HALF = 1000, 3, 0.5


@dataclass(frozen=True)
class NaiveRate:
    """Relative net rates of a label without a network, per unit of time; NaN where they cannot be told.

    ``slope`` is that of the logarithm of the odds of the label against all others, with its standard error by counts,
    ``error``; ``row_sums`` the mean over its cells of the logarithm of their descendants under a semi-relaxed coupling
    with the next time, less the mean over all cells.
    """

    label: str
    slope: float
    error: float
    row_sums: float


def naive_rates(cells: Cells, labels: NDArray[Any], times: NDArray[np.float64], seed: int) -> list[NaiveRate]:
    """Rates of the labels (n,) of ``cells`` between these of the observed times, those that change most first."""
    here = [cells.at(t) for t in times]
    by_cell = _row_sums(cells, times, seed)
    found = []
    for name in sorted(set(labels[np.concatenate(here)])):
        members = [labels[i] == name for i in here]
        slope, error = _slope(times, members, [None if cells.w is None else cells.w[i] for i in here])
        own = by_cell[labels == name]
        sums = float(np.nanmean(own)) if np.isfinite(own).any() else np.nan
        found.append(NaiveRate(str(name), slope, error, sums))
    return sorted(found, key=lambda rate: -abs(rate.slope) if np.isfinite(rate.slope) else np.inf)


def _slope(
    times: NDArray[np.float64], members: Sequence[NDArray[np.bool_]], weights: Sequence[NDArray[Any] | None]
) -> tuple[float, float]:
    """Slope of the log-odds over the times that have cells of both kinds, and its standard error."""
    odds, variances, at = [], [], []
    for t, own, w in zip(times, members, weights, strict=True):
        n, share = len(own), float(shares(w, len(own)) @ own)
        if not 0 < own.sum() < n:
            continue
        one, other = n * share + HALF, n * (1 - share) + HALF
        odds.append(np.log(one / other))
        variances.append(1 / one + 1 / other)
        at.append(t)
    if len(at) < 2:
        return np.nan, np.nan
    precision = 1 / np.array(variances)
    away = np.array(at) - np.average(at, weights=precision)
    total = float(precision @ away**2)
    return float(precision @ (away * np.array(odds)) / total), total**-0.5


def _row_sums(cells: Cells, times: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Relative rate (n,) of some cells of each time but the last, by couplings with the next; NaN of the others."""
    rng, rate = np.random.default_rng(seed), np.full(len(cells.x), np.nan)
    for t, later in zip(times[:-1], times[1:], strict=True):
        i, j = (rng.permutation(cells.at(s))[:N_COUPLED] for s in (t, later))
        a, b = (None if cells.w is None else cells.w[k] for k in (i, j))
        descendants = semi_relaxed(cells.x[i], cells.x[j], a=a, b=b).sum(1) / shares(a, len(i))
        own = np.log(np.maximum(descendants, 1e-12)) / (later - t)
        rate[i] = own - np.average(own, weights=a)
    return rate


def naive_in_words(rates: Sequence[NaiveRate], unit: str) -> str:
    """A line with the labels whose odds change most."""
    some = [
        f"{rate.label} {rate.slope:+.2g} +- {rate.error:.1g} ({rate.row_sums:+.2g})"
        for rate in rates[:N_NAMED]
        if np.isfinite(rate.slope)
    ]
    if not some:
        return ""
    return (
        f"without a network: relative rates per {unit} by the slope of log-odds (by row sums of a semi-relaxed "
        f"coupling): {', '.join(some)}"
    )


def compare_growth(
    growing: Sequence[Population], conserved: Sequence[Population], observed: Population, metrics: Sequence[str], n: int
) -> list[dict[str, Any]]:
    """By how much forecasts with growth are better than those of their twins, one for each seed, with intervals.

    The intervals are percentiles over ``n`` samples of one share of all cells: those that are observed, and those that
    forecasts start from. What growth changes are shares, so that a difference of scores can be no larger than what the
    rates make of the shares, and lies at that limit by chance as well: intervals that are turned about the difference
    would not cover this.
    """
    both = {"growth": growing, "conserved": conserved}
    share = min(0.5, N_SAMPLE / max(len(p.x) for p in (observed, *growing, *conserved)))
    scale = float(np.sqrt(share / (1 - share)))
    rows = []
    for metric in metrics:

        def scored(k: int | None, metric: str = metric) -> dict[str, float]:
            there = observed if k is None else share_of(observed, share, k)
            return {
                name: float(np.mean([SCORES[metric](p if k is None else share_of(p, share, k), there) for p in part]))
                for name, part in both.items()
            }

        whole = scored(None)
        row = {"metric": metric, **whole, "difference": whole["growth"] - whole["conserved"]}
        if n:
            parts = [scored(k) for k in range(n)]
            drawn = np.array([part["growth"] - part["conserved"] for part in parts])
            low, high = row["difference"] + scale * (np.quantile(drawn, (0.025, 0.975)) - row["difference"])
            row |= {"low": float(low), "high": float(high)}
        rows.append(row)
    return rows


def compare_sizes(growing: Sequence[Population], cells: Cells) -> dict[str, Any] | None:
    """Sizes of the last population that forecasts with growth say, and its twin that knows the totals as well.

    A twin that conserves cells has no size to forecast. The fair one lets all cells multiply alike, at the mean rate of
    the totals from the first time to the last but one. Scores are absolute errors of logarithms. There is one number to
    compare with, and so no interval; None without the size of the last population.
    """
    if cells.sizes is None or np.isnan(cells.sizes[-1]):
        return None
    sizes, times = cells.sizes, cells.observed
    i = cells.at(times[-3])
    mass = len(i) if cells.w is None else cells.w[i].sum()
    by_growth = float(np.mean([np.log(p.w.sum() / mass) for p in growing if p.w is not None]))
    alike = np.log(sizes[-2] / sizes[0]) / (times[-2] - times[0]) * (times[-1] - times[-3])
    over = {"growth": by_growth, "conserved": alike}  # logarithms of the predicted over the observed size
    over = {name: float(change - np.log(sizes[-1] / sizes[-3])) for name, change in over.items()}
    errors = {name: abs(error) for name, error in over.items()}
    difference = errors["growth"] - errors["conserved"]
    ratios = {f"{name}_ratio": float(np.exp(error)) for name, error in over.items()}
    return {"metric": "size", **errors, "difference": difference, **ratios}


def sizes_in_words(row: Mapping[str, Any]) -> str:
    """A line with the sizes of both."""
    return (
        f"size of the last population: {row['growth_ratio']:.2f} times the observed one with growth, "
        f"{row['conserved_ratio']:.2f} times if all cells multiplied alike, by the totals"
    )


def growth_verdict(name: str, start: float, rows: Sequence[Mapping[str, Any]]) -> str:
    """Whether growth is supported, in words: by a better forecast beyond the interval, by every metric."""
    if not rows or "low" not in rows[0]:
        return ""
    word = "SUPPORTED" if all(row["high"] < 0 for row in rows) else "NOT SUPPORTED"
    said = ", ".join(
        f"{row['metric']} {row['growth']:.3g} against {row['conserved']:.3g} "
        f"({row['difference']:+.3g}, 95 % {row['low']:+.3g} to {row['high']:+.3g})"
        for row in rows
    )
    return f"growth {word}: last time forecast from {start:g}, {name} against the same with cells conserved, {said}"
