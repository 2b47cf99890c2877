"""When cells were sampled: labels as people write them, columns, and the times a question asks for."""

from __future__ import annotations

import re
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._adata.columns import read_column


def read_times(adata: ad.AnnData, time_key: str, nan: str = "raise") -> tuple[NDArray[np.float64], str]:
    """Times (n,) and their unit; missing ones are refused, or kept as NaN with ``nan="drop"``."""
    if nan not in ("raise", "drop"):
        raise ValueError(f"nan must be 'raise' or 'drop', found {nan!r}")
    column = read_column(adata, time_key)
    try:
        times, unit = parse_time(column)
    except (ValueError, TypeError) as error:
        raise type(error)(f"obs[{time_key!r}]: {error}") from None
    missing = ~np.isfinite(times)
    if missing.all():
        raise ValueError(f"obs[{time_key!r}] is missing for all {len(times)} cells")
    if missing.any() and nan == "raise":
        names = list(adata.obs_names[missing][:3])
        raise ValueError(
            f"obs[{time_key!r}] is missing for {missing.sum()} of {len(times)} cells ({names}, ...); "
            f"run adata = adata[adata.obs[{time_key!r}].notna()].copy(), or pass nan='drop', to leave them out"
        )
    return times, unit


def with_unit(time_key: str, unit: str) -> str:
    """The column of the times with their unit, where it says something else."""
    return time_key if unit in ("", time_key) else f"{time_key} ({unit})"


def read_labels(labels: Any, unit: str, name: str = "times") -> NDArray[np.float64]:
    """One time or several that a user asks for, as floats; a unit they name must be that of the data."""
    several = isinstance(labels, (list, tuple, set, range, pd.Series, pd.Index)) or (
        isinstance(labels, np.ndarray) and labels.ndim > 0
    )
    times, named = parse_time(list(labels) if several else [labels])
    if named and unit and named != unit:
        raise ValueError(f"{name} are in the unit {named!r}, the data in {unit!r}; convert them")
    if len(times) == 0 or not np.isfinite(times).all():
        raise ValueError(f"{name} must be one or more numbers or labels, found {labels!r}")
    return np.array(list(dict.fromkeys(times.tolist())))


def read_holdout(holdout: Any, observed: NDArray[np.float64], unit: str) -> NDArray[np.float64]:
    """Held-out times, as they were observed; none if ``holdout`` is None."""
    if holdout is None:
        return np.empty(0)
    held = read_labels(holdout, unit, "holdout times")
    return np.unique([find_observed(t, observed, "holdout time") for t in held])


def find_observed(t: float, observed: NDArray[np.float64], name: str) -> float:
    """The observed time that ``t`` means, up to rounding."""
    nearest = observed[np.argmin(np.abs(observed - t))]
    if not np.isclose(nearest, t, rtol=1e-6, atol=1e-9):
        raise ValueError(f"{name} {t:g} was not observed; the times are {_list(observed)}")
    return float(nearest)


def _list(values: Any) -> str:
    return ", ".join(f"{t:g}" for t in values)


#: More distinct times than this are a pseudotime rather than snapshots of a population.
MAX_TIMES = 50
#: How units are written, and the name each is recorded by. "E" and "P" are days, but from different origins.
_UNITS = {
    "embryonic day": ("e", "embryonic day"),
    "postnatal day": ("p", "postnatal day"),
    "day": ("d", "day", "days"),
    "hour": ("h", "hr", "hrs", "hour", "hours", "hpf"),
    "minute": ("min", "mins", "minute", "minutes"),
    "week": ("w", "wk", "wks", "week", "weeks"),
    "month": ("month", "months"),
    "year": ("y", "yr", "yrs", "year", "years"),
    "": ("", "t", "time", "timepoint", "stage"),
}
_UNIT_OF = {spelling: unit for unit, spellings in _UNITS.items() for spelling in spellings}
_PATTERN = re.compile(r"(?:([a-z]+(?: [a-z]+)*)(?:[\s_.]+|-(?=\d))?)?([+-]?\d+(?:\.\d+)?)[\s_]*([a-z]+)?")


def parse_time(values: Any) -> tuple[NDArray[np.float64], str]:
    """Read time labels as numbers, keeping their real spacing.

    Parameters
    ----------
    values
        Numbers, timedeltas, or text (also categorical) such as ``"3"``, ``"E8.5"``, ``"day 3"``,
        ``"D7"``, ``"P12"``, ``"12h"`` or ``"week 2"``, shape (n,).

    Returns
    -------
    times
        float64, shape (n,), NaN where a label is missing.
    unit
        ``"day"``, ``"embryonic day"``, ``"postnatal day"``, ``"hour"``, ``"minute"``, ``"week"``,
        ``"month"``, ``"year"``, or ``""`` if the labels name none.

    Raises
    ------
    ValueError
        If a label cannot be read, or labels have different units.
    TypeError
        If the values are booleans or dates.

    Examples
    --------
    >>> from wlm.pp import parse_time
    >>> parse_time(["E8.5", "E9.0"])
    (array([8.5, 9. ]), 'embryonic day')
    """
    series = pd.Series(values)
    if isinstance(series.dtype, pd.CategoricalDtype):
        series = series.cat.remove_unused_categories()
        times, unit = parse_time(series.cat.categories)
        return np.append(times, np.nan)[series.cat.codes.to_numpy()], unit
    if pd.api.types.is_bool_dtype(series.dtype) or pd.api.types.is_datetime64_any_dtype(series.dtype):
        raise TypeError(
            f"times have dtype {series.dtype}; give numbers or labels such as 'day 3', "
            "for dates the days since the first one"
        )
    if pd.api.types.is_timedelta64_dtype(series.dtype):
        return series.dt.total_seconds().to_numpy(np.float64) / 86_400, "day"
    if pd.api.types.is_numeric_dtype(series.dtype):
        if series.dtype == np.float32:
            # 0.1 in float32 is meant as 0.1: the shortest decimal that it stands for.
            return np.array([float(str(x)) for x in series.to_numpy()], dtype=np.float64), ""
        return series.to_numpy(np.float64, na_value=np.nan), ""
    labels = series.map(lambda x: None if pd.isna(x) or str(x).strip() == "" else str(x))
    parsed = {label: _parse_label(label) for label in labels.dropna().unique()}
    unreadable = [label for label, pair in parsed.items() if pair is None]
    if unreadable:
        raise ValueError(
            f"cannot read these times: {unreadable[:5]}; write numbers, or labels such as 'day 3', 'E8.5' or '12h'"
        )
    read = {label: pair for label, pair in parsed.items() if pair is not None}
    units = sorted({unit for _, unit in read.values()})
    if len(units) > 1:
        raise ValueError(f"times have different units: {[u or 'none' for u in units]}; convert them to one")
    twins = [label for label in read if "-" in label and label.replace("-", "") in read and read[label][0] > 0]
    if twins:
        raise ValueError(f"the hyphen in {twins[:3]} may be a sign or a separator; write 'day -1' for a sign")
    times = labels.map({label: time for label, (time, _) in read.items()}).to_numpy(np.float64)
    return times, units[0] if units else ""


def _parse_label(label: str) -> tuple[float, str] | None:
    """Number and unit of one label, or None if it is not a time."""
    # A hyphen between a word and a digit separates ("day-3"); after a space ("day -1") or alone it is a sign.
    match = _PATTERN.fullmatch(label.strip().lower())
    if match is None:
        return None
    prefix, number, suffix = match.groups()
    prefix = (prefix or "").strip()
    if (prefix and suffix) or prefix not in _UNIT_OF or (suffix or "") not in _UNIT_OF:
        return None
    return float(number), _UNIT_OF[prefix or suffix or ""]
