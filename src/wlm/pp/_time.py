"""Reading times as people write them."""

from __future__ import annotations

import re
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

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


def bin_time(
    adata: ad.AnnData, *, key: str, n_bins: int = 5, key_added: str | None = None, copy: bool = False
) -> ad.AnnData | None:
    """Bin a continuous time, such as a pseudotime, into populations that can be compared.

    For cells of one sample, where an order of the cells stands in for sampling times: what is fitted then
    has the units of that order, and says nothing about days.

    Parameters
    ----------
    adata
        Cells with the time in ``obs``.
    key
        Column of ``obs`` with numbers, for example ``"velocity_pseudotime"``.
    n_bins
        Bins, of about equally many cells.
    key_added
        Column for the result; by default ``f"{key}_bin"``.
    copy
        Return a copy with the result instead of writing to ``adata``.

    Returns
    -------
    None, or the copy if ``copy=True``. Written to ``adata``:

    ``obs[key_added]`` : float64
        Median time of each cell's bin; NaN where ``key`` is missing.

    Raises
    ------
    KeyError, TypeError, ValueError
        If there is no such column, it holds no numbers, or too few distinct ones for ``n_bins``.
    """
    if key not in adata.obs:
        raise KeyError(f"obs[{key!r}] is missing; obs has {list(adata.obs.columns)}")
    values = adata.obs[key]
    if not pd.api.types.is_numeric_dtype(values.dtype) or pd.api.types.is_bool_dtype(values.dtype):
        raise TypeError(f"obs[{key!r}] has dtype {values.dtype}; numbers are wanted, see wlm.pp.parse_time for labels")
    if isinstance(n_bins, bool) or not isinstance(n_bins, (int, np.integer)) or n_bins < 2:
        raise ValueError(f"n_bins must be an integer of at least 2, found {n_bins!r}")
    finite = values.astype(np.float64).where(np.isfinite(values.astype(np.float64)))
    bins = pd.qcut(finite, n_bins, labels=False, duplicates="drop")
    if bins.nunique() < n_bins:
        raise ValueError(
            f"obs[{key!r}] has too few distinct values for {n_bins} bins of equally many cells "
            f"({finite.nunique()} values give {bins.nunique()}); lower n_bins"
        )
    target = adata.copy() if copy else adata
    target.obs[f"{key}_bin" if key_added is None else key_added] = finite.groupby(bins).transform("median")
    return target if copy else None


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
