"""When cells were sampled: the column of the times, and the times that a question asks for."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._adata.columns import read_column
from wlm._adata.labels import Style, missing_code, parse, parse_one, show, show_all, unit_of_name
from wlm._logging import logger

#: More distinct times than this are a pseudotime rather than snapshots of a population.
MAX_TIMES = 50
#: Times that differ by less than this share of the smallest interval are the same up to rounding.
ROUNDING = 1e-6
#: The same for times of which one is the other in single precision.
ROUNDING_SINGLE = 1e-3


def read_times(
    adata: ad.AnnData, time_key: str, nan: str = "raise", hyphen: str | None = None
) -> tuple[NDArray[np.float64], Style]:
    """Times (n,) and how they are written; missing ones are refused, or kept as NaN with ``nan="drop"``.

    Times that are equal up to rounding are made equal. ``hyphen`` says what it is in the labels, if that is known.
    """
    if nan not in ("raise", "drop"):
        raise ValueError(f"nan must be 'raise' or 'drop', found {nan!r}")
    times, style = read_column_of_times(read_column(adata, time_key), time_key, hyphen)
    missing = np.isnan(times)
    if missing.all():
        raise ValueError(f"obs[{time_key!r}] is missing for all {len(times)} cells")
    if missing.any() and nan == "raise":
        names = list(adata.obs_names[missing][:3])
        raise ValueError(
            f"obs[{time_key!r}] is missing for {missing.sum()} of {len(times)} cells ({names}, ...); "
            f"run adata = adata[adata.obs[{time_key!r}].notna()].copy(), or pass nan='drop', to leave them out"
        )
    return merge_equal(times, time_key), style


def read_column_of_times(
    column: pd.Series, time_key: str, hyphen: str | None = None
) -> tuple[NDArray[np.float64], Style]:
    """Times (n,) of a column, NaN where they are missing, and how they are written; see :func:`read_times`.

    Raises
    ------
    ValueError, TypeError
        If they cannot be read, are infinite, or are numbers that stand for a missing one.
    """
    try:
        times, style = parse(column, hyphen)
    except (ValueError, TypeError) as error:
        here, text = f"obs[{time_key!r}]", str(error)
        if "column = " in text:  # advice that runs as it stands
            text = text.replace("column", f"adata.{here}")
        if "a sign or a separator" in text:
            text += f"; for signs run adata.{here} = adata.{here}"
            text += ".map(lambda t: str(t).replace('-', ' -'), na_action='ignore')"
        raise type(error)(f"{here}: {text}") from None
    style = replace(style, unit=style.unit or unit_of_name(time_key))
    infinite = int(np.isinf(times).sum())
    if infinite:
        raise ValueError(
            f"obs[{time_key!r}] is infinite for {infinite} of {len(times)} cells (a logarithm of 0?); fit the times "
            f"themselves or log(1 + time), or run "
            f"adata = adata[~adata.obs[{time_key!r}].isin([float('inf'), -float('inf')])].copy() to leave them out"
        )
    absent = missing_code(column)
    if absent is not None:
        raise ValueError(
            f"obs[{time_key!r}]: {absent[1]} of {len(times)} cells have {absent[0]}, which is NA in R; "
            f"run adata = adata[~adata.obs[{time_key!r}].isin([{absent[0]!r}])].copy() to leave them out"
        )
    return times, style


def merge_equal(times: NDArray[np.float64], time_key: str, *, quiet: bool = False) -> NDArray[np.float64]:
    """The times (n,), those that differ by rounding only as the one of them that is written shortest."""
    distinct = np.unique(times[np.isfinite(times)])
    same = _equal_to_next(distinct)
    if not same.any():
        return times
    groups = np.split(distinct, np.flatnonzero(~same) + 1)
    merged = times.copy()
    for group in groups:
        if len(group) > 1:
            merged[np.isin(times, group)] = min(group.tolist(), key=_plainness)
    if not quiet:
        logger.info(
            "obs[%r] has times that differ by rounding only (%s); each is one time",
            time_key,
            "; ".join(", ".join(map(repr, group.tolist()[:3])) for group in groups if len(group) > 1),
        )
    return merged


def _plainness(t: float) -> tuple[bool, bool, int, float]:
    """Smaller for times as people write them, then for those that were not in single precision."""
    text = repr(t)
    return len(text) > 10, float(np.float32(t)) == t, len(text), t


def _equal_to_next(distinct: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each of the increasing times but the last is the next one up to rounding."""
    a, b = distinct[:-1], distinct[1:]
    gaps = b - a
    size = np.maximum(np.abs(a), np.abs(b))
    # Whole numbers are exact. Others have to be close by their own size, or one value far off would make all the same.
    inexact = (a % 1 != 0) | (b % 1 != 0)
    close = inexact & ((gaps <= ROUNDING * size) | (size <= ROUNDING))
    with np.errstate(over="ignore"):
        singles = [(t.astype(np.float32), t.astype(np.float32) == t) for t in (a, b)]
    twins = inexact & (singles[0][0] == singles[1][0]) & (singles[0][1] != singles[1][1])
    same = np.zeros(len(gaps), dtype=bool)
    for small in np.unique(gaps[close]):
        larger = gaps[(gaps > small) & ~twins]
        if len(larger) and small <= ROUNDING * larger.min() and close[gaps <= small].all():
            same = gaps <= small
    larger = gaps[~same & ~twins]
    if len(larger):
        same |= twins & (gaps <= ROUNDING_SINGLE * larger.min())
    return same


def with_unit(time_key: str, unit: str) -> str:
    """The column of the times with their unit, where it says something else."""
    return time_key if unit in ("", time_key, unit_of_name(time_key)) else f"{time_key} ({unit})"


def write_times(column: pd.Series, known: NDArray[np.float64], wanted: Any, style: Style) -> Any:
    """Times ``wanted`` (m,) as a column (n,) whose cells are at ``known`` (n,) writes them: numbers, or labels.

    A time that the column has is written as there, another one as its nearest with another number; labels of a
    categorical column are one too, in the order of time.
    """
    wanted = np.asarray(wanted, dtype=np.float64)
    if pd.api.types.is_numeric_dtype(column):
        return wanted
    text = column.astype(str).to_numpy()
    labels = {float(t): str(text[np.argmax(known == t)]) for t in np.unique(known[np.isfinite(known)])}
    observed = np.array(list(labels))
    for t in np.unique(wanted):
        if float(t) not in labels:
            own = labels[float(observed[np.argmin(np.abs(observed - t))])]
            labels[float(t)] = _relabel(own, float(t), style)
    written = [labels[float(t)] for t in wanted]
    if not isinstance(column.dtype, pd.CategoricalDtype):
        return np.array(written, dtype=object)
    return pd.Categorical(written, categories=list(dict.fromkeys(labels[t] for t in sorted(labels))))


def _relabel(label: str, t: float, style: Style) -> str:
    """A label with the time ``t`` for its own, where that can be read again; else the number alone."""
    numbers = list(re.finditer(r"-?\d+(?:\.\d+)?", label))
    for number in numbers:
        candidate = label[: number.start()] + show(t) + label[number.end() :]
        try:
            if np.isclose(read_labels(candidate, style)[0], t, rtol=1e-5):
                return candidate
        except (ValueError, TypeError):
            continue
    return show(t)


def read_labels(labels: Any, style: Style, name: str = "times") -> NDArray[np.float64]:
    """One time or several that a user asks for, as floats, read as the labels of the data are.

    Bare numbers are in the unit of the data; a unit that is named must be that one.
    """
    several = isinstance(labels, (list, tuple, set, frozenset, range, pd.Series, pd.Index, pd.Categorical)) or (
        isinstance(labels, np.ndarray) and labels.ndim > 0
    )
    read = [parse_one(label, style) for label in (list(labels) if several else [labels])]
    units = sorted({unit for _, unit in read} - {""})
    if len(units) > 1:
        raise ValueError(f"{name} have different units: {units}; convert them to one")
    if units and style.unit and units != [style.unit]:
        raise ValueError(f"{name} are in the unit {units[0]!r}, the data in {style.unit!r}; convert them")
    times = np.array([t for t, _ in read], dtype=np.float64)
    if len(times) == 0 or not np.isfinite(times).all():
        raise ValueError(f"{name} must be one or more numbers or labels, found {labels!r}")
    return np.array(list(dict.fromkeys(times.tolist())))


def read_holdout(holdout: Any, observed: NDArray[np.float64], style: Style) -> NDArray[np.float64]:
    """Held-out times, as they were observed; none if ``holdout`` is None."""
    if holdout is None:
        return np.empty(0)
    held = read_labels(holdout, style, "holdout times")
    return np.unique([find_observed(t, observed, "holdout time") for t in held])


def find_observed(t: float, observed: NDArray[np.float64], name: str) -> float:
    """The observed time that ``t`` means, up to rounding."""
    nearest = float(observed[np.argmin(np.abs(observed - t))])
    if abs(nearest - t) > rounding_of(observed):
        raise ValueError(f"{name} {show(t, *observed)} was not observed; the times are {_list(observed)}")
    return nearest


def rounding_of(observed: NDArray[np.float64]) -> float:
    """How far a number may be from an observed time and still mean it: little of the smallest interval."""
    exact = 4 * float(np.spacing(np.abs(observed).max()))  # what a sum of two of them may lose
    return max(exact, ROUNDING * float(np.diff(observed).min())) if len(observed) > 1 else max(exact, ROUNDING)


def snap(times: NDArray[np.float64], observed: NDArray[np.float64]) -> NDArray[np.float64]:
    """The times (n,), those that are observed ones up to rounding as these."""
    right = np.clip(np.searchsorted(observed, times), 1, max(len(observed) - 1, 1)) - 1
    near = np.stack([observed[np.minimum(right + k, len(observed) - 1)] for k in (0, 1)])
    nearest = near[np.argmin(np.abs(near - times), axis=0), np.arange(len(times))]
    off = np.abs(nearest - times)
    same = off <= rounding_of(observed)
    if len(observed) > 1:  # the one in single precision, alone
        single = times.astype(np.float32)
        twin = (single == times) & (single == nearest.astype(np.float32))
        same |= twin & (off <= ROUNDING_SINGLE * np.diff(observed).min())
    return np.where(same, nearest, times)


def _list(values: Any) -> str:
    return ", ".join(show_all(values))
