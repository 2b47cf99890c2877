"""Is growth worth it? A fit with growth and its twin without, on the last time, beside estimates without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wlm._adata.cells import Cells
from wlm.core.transport import semi_relaxed, shares

#: Cells a side of the couplings; labels named in the verdict; added to counts, so that none is zero.
N_COUPLED, N_NAMED, HALF = 1000, 3, 0.5


def twin_of(name: str) -> str:
    """The name in a table of the fit that differs from ``name`` in nothing but that cells are conserved."""
    return f"{name}, conserved"


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
    """Relative rate (n,) of some cells of each time but the last, by a semi-relaxed coupling with the next; else NaN."""
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


def growth_verdict(differences: Sequence[Mapping[str, Any]], growing: Sequence[str]) -> str:
    """Whether fits with growth forecast better than their twins without, in words, a line for each.

    Supported is what lowers every metric that is compared at the last time beyond the interval. Inner times do not
    decide: they are met from both sides, by any motion.
    """
    lines = []
    for name in growing:
        rows = [
            row
            for row in differences
            if (row["model"], row["baseline"], row["kind"]) == (name, twin_of(name), "forecast") and "low" in row
        ]
        if not rows:
            continue
        word = "SUPPORTED" if all(row["high"] < 0 for row in rows) else "NOT SUPPORTED"
        said = "; ".join(
            f"{row['metric']} {row['difference']:+.3g} (95 % {row['low']:+.3g} to {row['high']:+.3g})" for row in rows
        )
        lines.append(f"growth {word}: forecast, {name} less the same fit with cells conserved, {said}")
    return "\n".join(lines)
