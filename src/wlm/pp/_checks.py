"""The checks of :func:`wlm.pp.doctor`: what can be said of times, batches and coordinates before a fit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._adata.checks import FEW_CELLS, PREDICTED, far_times
from wlm._adata.labels import parse_time, show_all, unit_of_name
from wlm._adata.times import MAX_TIMES

Float64 = NDArray[np.float64]

#: Levels from the best to the worst.
LEVELS = ("ok", "note", "warning", "error")
#: Checks that say what a fit will take.
ESTIMATES = ("run time", "memory")
#: Populations whose sizes differ by more than this deserve weights or a subsample.
UNEVEN = 20

#: Names of columns that hold times, the likeliest first.
_TIME_NAMES = ("day", "days", "time", "timepoint", "age", "stage", "hpf", "dpi", "hour", "hours", "week", "weeks")
#: Names of columns that have numbers of another kind.
_NOT_TIME = ("pseudo", "latent", "cluster", "leiden", "louvain", "phase")
_BATCH_NAMES = (
    *(
        "batch",
        "sample",
        "replicate",
        "rep",
        "donor",
        "subject",
        "participant",
        "patient",
        "individual",
        "animal",
        "mouse",
        "embryo",
        "library",
    ),
    *("person", "volunteer", "fish"),
    *("plate", "channel", "lane", "chip", "run", "experiment", "origident"),
)


@dataclass(frozen=True)
class Finding:
    """One row of the report: how bad it is, what was found, and what to do."""

    level: str
    found: str
    advice: str = ""


def summary(report: pd.DataFrame) -> str:
    """The report for reading: problems first, a line each; then estimates, and the passed checks in one line."""
    looked = report[report["found"] != "not checked"]
    estimates = looked[looked["check"].isin(ESTIMATES) & (looked["level"] == "ok")]
    passed = looked[(looked["level"] == "ok") & ~looked["check"].isin(ESTIMATES)]
    lines = [
        f"{row.level:8s} {row.check}: {row.found}" + (f" -> {row.advice}" if row.advice else "")
        for level in LEVELS[:0:-1]
        for row in looked[looked["level"] == level].itertuples()
    ]
    lines += [f"expected {row.check}: {row.found}" for row in estimates.itertuples()]
    lines += [f"ok       {', '.join(passed['check'])}"] if len(passed) else []
    rest = report.loc[report["found"] == "not checked", "check"]
    return "\n".join([*lines, f"not checked: {', '.join(rest)}"] if len(rest) else lines)


def worst(findings: Sequence[Finding]) -> Finding:
    """Several findings as one, with the worst of their levels."""
    level = max((f.level for f in findings), key=LEVELS.index)
    advice = [f.advice for f in findings if f.advice]
    return Finding(level, "; ".join(f.found for f in findings), "; ".join(dict.fromkeys(advice)))


def listed(values: Sequence[object], most: int = 10) -> str:
    """The first few values, as text."""
    numbers = iter(show_all(v for v in values if isinstance(v, float)))
    text = [next(numbers) if isinstance(v, float) else str(v) for v in values]
    return ", ".join(text[:most]) + (", ..." if len(text) > most else "")


# Times


def time_columns(obs: pd.DataFrame) -> tuple[list[str], list[str], list[str]]:
    """Columns that look like times, the likeliest first; others that could be read; those named so that cannot."""
    likely, possible, unreadable = [], [], []
    for column in obs.columns:
        words = _words(str(column))
        if any(part in str(column).lower() for part in _NOT_TIME) or _is_batch(str(column)):
            continue
        if list(obs.columns).count(column) > 1 or not isinstance(column, str) or column in PREDICTED:
            continue
        distinct = obs[column].nunique()
        if not 2 <= distinct <= MAX_TIMES:
            continue
        rank = [k for k, name in enumerate(_TIME_NAMES) if name in words]
        try:
            times, unit = parse_time(obs[column])
        except (ValueError, TypeError):
            unreadable += [(len(words), rank[0], column)] if rank else []
            continue
        unit = unit or unit_of_name(column)
        # A bare age is that of the donors, mostly in years.
        of_donors = "age" in words and unit in ("", "year")
        if rank:
            # "day" before "age(days)": the fewer other words, the likelier.
            likely.append((of_donors, len(words), rank[0], column))
        elif unit and not _numbered(obs[column], times):
            likely.append((False, 99, 0, column))
        else:
            possible.append(column)
    return [c for *_, c in sorted(likely)], possible, [c for *_, c in sorted(unreadable)]


def _numbered(labels: pd.Series, times: Float64) -> bool:
    """Whether labels are those of people or samples in a row: P1, P2, P3."""
    distinct = np.unique(times[np.isfinite(times)])
    plain = labels.dropna().astype(str).str.fullmatch(r"[A-Za-z]0*[1-9]\d*").all()
    return bool(plain and np.array_equal(distinct, np.arange(1, len(distinct) + 1)))


def check_time(key: str, observed: Float64, unit: str, others: Sequence[str], *, guessed: bool) -> Finding:
    """Whether there are enough distinct times, and not too many."""
    found = f"obs[{key!r}] has {len(observed)} time{'s' * (len(observed) != 1)}: {listed(observed.tolist())}"
    found += f" ({unit})" if unit else ""
    if len(observed) < 2:
        return Finding("error", found, "a fit needs cells of at least two times")
    if len(observed) > MAX_TIMES:
        return Finding("warning", found, "a fit needs populations, not a pseudotime: bin it with wlm.pp.bin_time")
    if len(observed) == 2:
        return Finding(
            "warning",
            found,
            "with two times nothing can be held out to check the fit, and friction cannot be told from force; "
            "read predictions as an interpolation",
        )
    if guessed and others:
        return Finding("note", found, f"chosen by its name; {listed(others)} would do as well: name it with time_key")
    return Finding("ok", found)


def check_missing(key: str, times: Float64, nan: str) -> Finding:
    """Whether every cell has a time, or is meant to be left out."""
    missing = int(np.isnan(times).sum())
    if missing and nan == "drop":
        return Finding("note", f"{missing} of {len(times)} cells have no time, and are left out")
    if missing:
        return Finding(
            "error",
            f"{missing} of {len(times)} cells have no time",
            f"run adata = adata[adata.obs[{key!r}].notna()].copy(), or pass nan='drop', to leave them out",
        )
    return Finding("ok", "none")


def check_spacing(observed: Float64) -> Finding:
    """Whether the intervals are equal."""
    gaps = np.diff(observed)
    far = far_times(observed)
    if far is not None:
        return Finding(
            "error",
            f"an interval is far longer than others: {far[0]}",
            "if a time stands for a missing one, leave its cells out; else fit the parts before and after apart",
        )
    if len(gaps) < 2:
        return Finding("ok", f"one interval of {gaps.sum():g}")
    if np.allclose(gaps, gaps[0], rtol=0.05):
        return Finding("ok", f"equal intervals of {gaps.mean():g}")
    return Finding(
        "note",
        f"intervals from {gaps.min():g} to {gaps.max():g}",
        "the real spacing is used; make sure that the labels are times, not the numbers of the samples",
    )


def check_counts(observed: Float64, counts: NDArray[np.intp]) -> Finding:
    """Whether every time has enough cells, and none has far more than another."""
    found = listed([f"{n:,} at {t}" for t, n in zip(show_all(observed), counts, strict=True)], most=12)
    if counts.min() < 2:
        few = listed(observed[counts < 2].tolist())
        return Finding("error", found, f"a fit needs 2 cells at every time: leave out {few}, or merge with a neighbour")
    advice = []
    if counts.min() < FEW_CELLS:
        few = listed(observed[counts < FEW_CELLS].tolist())
        advice.append(f"under {FEW_CELLS} cells at {few}: the shape of the population is uncertain")
    if counts.max() > UNEVEN * counts.min():
        advice.append("sizes differ a lot: if that is sampling, draw as many of each time; if growth, use weight_key")
    return Finding("warning" if advice else "ok", found, "; ".join(advice))


# Batches


def check_batches(obs: pd.DataFrame, times: Float64) -> Finding:
    """Whether columns named like a batch can be told from time."""
    findings = [_check_batch(column, obs[column], times) for column in batch_columns(obs)]
    return worst(findings) if findings else Finding("ok", "no column of obs is named like a batch")


def batch_columns(obs: pd.DataFrame) -> list[str]:
    """Columns named like a batch, with few levels."""
    single = [c for c in obs.columns if list(obs.columns).count(c) == 1]
    return [
        str(column)
        for column in single
        if _is_batch(str(column))
        and 2 <= obs[column].nunique() < max(len(obs) / 10, 3)
        and not _is_measure(obs[column])
    ]


def _is_measure(values: pd.Series) -> bool:
    """Whether a column holds fractions; 1.0 is what becomes of a label 1 beside missing ones."""
    return bool(pd.api.types.is_float_dtype(values) and (values.dropna() % 1 != 0).any())


def _check_batch(column: str, values: pd.Series, times: Float64) -> Finding:
    """Whether the levels of one column occur at several times."""
    table = pd.crosstab(values.to_numpy(), times).to_numpy()
    name = f"obs[{column!r}]"
    if min(table.shape) < 2:
        return Finding("ok", f"{name} has one level, or one time, where both are known")
    if ((table > 0).sum(axis=1) == 1).all():
        repeated = ((table > 0).sum(axis=0) > 1).any()
        return Finding(
            "warning",
            f"each of the {len(table)} levels of {name} occurs at one time only",
            "a batch effect cannot be told from a change in time: "
            + (
                "compare levels of the same time, which should lie on top of each other"
                if repeated
                else "look for a shift that all cell types share, and do not correct for it blindly, "
                "since that removes the change in time as well"
            ),
        )
    strength = cramer_v(table)
    if strength > 0.3:
        return Finding(
            "note",
            f"{name} goes partly with time (Cramér's V {strength:.2f})",
            "look whether levels of the same time lie on top of each other",
        )
    return Finding("ok", f"{name} is spread over the times (Cramér's V {strength:.2f})")


def cramer_v(table: NDArray[np.integer]) -> float:
    """Cramér's V of a contingency table: 0 if its sides are independent, 1 if one determines the other.

    That of :mod:`scipy.stats`, which takes longer to import than everything here to run.
    """
    n = table.sum()
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / n
    chi_square = (np.square(table - expected) / expected).sum()
    return float(np.sqrt(chi_square / (n * (min(table.shape) - 1))))


# Coordinates


def check_duplicates(x: NDArray[np.float32]) -> Finding:
    """Whether cells have exactly the same coordinates."""
    # Identical cells agree in the first dimension; mostly none do, and the rest need not be looked at.
    _, inverse, counts = np.unique(x[:, 0], return_inverse=True, return_counts=True)
    suspects = np.ascontiguousarray(x[counts[inverse] > 1])
    rows = suspects.view(np.dtype((np.void, suspects.dtype.itemsize * suspects.shape[1]))).ravel()
    copies = len(suspects) - len(np.unique(rows))
    if copies:
        return Finding(
            "warning",
            f"{copies} of {len(x)} cells have the same coordinates as another",
            "if cells were copied, by concatenating twice or by sampling with replacement, keep one of each; "
            "few genes, or many zeros, do the same",
        )
    return Finding("ok", "none")


def check_shift(x: NDArray[np.float32], times: Float64, observed: Float64) -> Finding:
    """How far the mean moves between consecutive times, relative to the spread within a time."""
    means, covariances, sizes = [], [], []
    for t in observed:
        here = x[times == t]
        means.append(here.mean(axis=0, dtype=np.float64))
        covariances.append(np.atleast_2d(np.cov(here, rowvar=False, bias=True)))
        sizes.append(len(here))
    shifts, chance = [], []
    for k in range(len(observed) - 1):
        covariance = (covariances[k] + covariances[k + 1]) / 2
        variance = float(np.trace(covariance)) or 1.0
        shifts.append(float(np.linalg.norm(means[k + 1] - means[k]) / np.sqrt(variance)))
        # The squared shift of two samples of one population: its mean, and three standard deviations above.
        above = 1 + 3 * np.sqrt(2 * np.square(covariance).sum()) / variance
        chance.append(float(np.sqrt((1 / sizes[k] + 1 / sizes[k + 1]) * above)))
    texts = show_all(observed)
    pairs = list(zip(texts[:-1], texts[1:], strict=True))
    found = "the mean moves by " + listed([f"{s:.2g}" for s in shifts]) + " of the spread within a time"
    still = [f"{t} to {u}" for (t, u), s, c in zip(pairs, shifts, chance, strict=True) if s < c]
    far = [f"{t} to {u}" for (t, u), s in zip(pairs, shifts, strict=True) if s > 2]
    advice = []
    if still:
        advice.append(f"no more than two samples of the same population would differ from {listed(still)}")
    if far:
        advice.append(f"the populations hardly overlap from {listed(far)}: a large change, or a batch effect")
    return Finding("note" if advice else "ok", found, "; ".join(advice))


def looks_like_counts(rows: Float64) -> bool:
    """Whether expression is in whole numbers."""
    return bool(rows.size and rows.min() >= 0 and rows.max() > 1 and np.array_equal(rows, np.round(rows)))


# Velocities


def check_velocity(
    name: str,
    v: NDArray[np.floating],
    v_times: Float64,
    x: NDArray[np.float32],
    times: Float64,
    observed: Float64,
    *,
    asked: bool,
    calibrated: bool,
) -> Finding:
    """Whether velocities ``v`` (m, d), perhaps of a sample of cells, are there and lead where the cells go.

    ``calibrated`` says that a fit finds their scale by itself.
    """
    missing = float(np.mean(~np.isfinite(v).all(axis=1)))
    found = f"{name}: {missing:.0%} of cells without" if missing else name
    if not np.nan_to_num(v).any():
        return Finding("error" if asked else "note", f"{found}; no cell moves", "compute the velocities again")
    drifts, means = [], []
    for k, t in enumerate(observed[:-1]):
        here = v[(v_times == t) & np.isfinite(v).all(axis=1)]
        if len(here):
            gap = observed[k + 1] - t
            rise = x[times == observed[k + 1]].mean(axis=0, dtype=np.float64) - x[times == t].mean(
                axis=0, dtype=np.float64
            )
            drifts.append(rise / gap)
            means.append(here.mean(axis=0, dtype=np.float64))
    if not drifts:
        return Finding("note", f"{found}; not compared with the change in time")
    a, b = np.array(means), np.array(drifts)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = (a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1)
    found += f"; cosine of their mean to the shift between times {listed([f'{c:.2f}' for c in cosines])}"
    level, advice = "ok", []
    if missing and asked:
        level = "note"
        advice.append("velocities may be missing (all NaN) at whole times after the first only")
    if cosines.mean() < 0:
        level = "warning"
        advice.append("velocities point against the change that is observed: fit without them, or check their sign")
    elif cosines.mean() < 0.2:
        level = "note"
        advice.append("velocities say little of the change that is observed; compare the fits with and without them")
    else:
        scale = float((a * b).sum() / np.square(a).sum())
        found += f"; the shift is {scale:.2g} times the mean velocity"
        if calibrated:
            found += ", which the fit calibrates"
        elif not 1 / 3 < scale < 3:
            level = "warning" if asked else "note"
            advice.append(
                "fit takes them as speeds per unit of time: "
                f"pass velocity_scale={scale:.2g}, or velocity_scale='calibrate'"
            )
    return Finding(level, found, "; ".join(advice))


def _words(name: str) -> list[str]:
    """The words of a column's name: "age(days)" has two."""
    return [word for word in re.split(r"[^a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()) if word]


def _is_batch(name: str) -> bool:
    words = _words(name)
    return any(word.removesuffix("s") in _BATCH_NAMES for word in words) or "".join(words) in _BATCH_NAMES


def refusal(message: str) -> Finding:
    """An error of a fit as a finding: what it found, and what it advises."""
    found, _, advice = message.partition("; ")
    return Finding("error", found, advice)
