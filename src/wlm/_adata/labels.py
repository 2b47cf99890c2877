"""Times as people write them: numbers, and labels with units, signs and separators."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

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
#: Last words of the names of columns that say the unit: "min" may be a minimum, and "day" is a name of its own.
_UNIT_WORDS = ("days", "hpf", "hr", "hrs", "hours", "minutes", "weeks", "months", "years")
_UNIT_OF = {spelling: unit for unit, spellings in _UNITS.items() for spelling in spellings}
_PATTERN = re.compile(r"(?:([a-z]+(?: [a-z]+)*)([\s_.]+|-(?=-?\d))?)?([+-]?\d+(?:\.\d+)?)[\s_]*([a-z]+)?")
#: A date as a number: year, month, day, and perhaps the time of day.
_DATE = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:\d{4}|\d{6})?")


@dataclass(frozen=True)
class Style:
    """How the labels of a column are meant, so that those of a question are read in the same way.

    ``hyphen``, of one between a word and a number, is ``"sign"``, ``"separator"``, or ``"unclear"`` where the column
    does not say.
    """

    unit: str = ""
    hyphen: str = "unclear"


@dataclass(frozen=True)
class _Label:
    """One label: its text, the word before the number, what stands between them, the number and the unit."""

    text: str
    prefix: str
    gap: str
    number: str
    unit: str

    @property
    def hyphened(self) -> bool:
        """Whether it has a hyphen that is a sign or a separator."""
        return self.gap == "-" and self.number[0] not in "+-"

    def value(self, hyphen: str) -> float:
        number = float(self.number)
        return (-number if self.hyphened and hyphen == "sign" else number) + 0.0  # no negative zero

    @classmethod
    def read(cls, text: str) -> _Label | None:
        """The label, or None if it is not a time."""
        match = _PATTERN.fullmatch(text.strip().lower())
        if match is None:
            return None
        prefix, gap, number, suffix = match.groups()
        prefix, suffix = (prefix or "").strip(), suffix or ""
        if (prefix and suffix) or prefix not in _UNIT_OF or suffix not in _UNIT_OF:
            return None
        return cls(text, prefix, gap or "", number, _UNIT_OF[prefix or suffix])


def parse_time(values: Any) -> tuple[NDArray[np.float64], str]:
    """Read time labels as numbers, keeping their real spacing.

    A hyphen between a word and a number is a separator if all labels have one (``"day-0"``, ``"day-3"``), and a sign
    beside labels without any separator (``"D-1"``, ``"D3"``); where it may be either, it is refused.

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
        If a label cannot be read, labels have different units, a hyphen may be a sign or a separator, or a value is
        what R's missing integers become.
    TypeError
        If the values are booleans or dates, also dates as whole numbers (20210308).

    Examples
    --------
    >>> from wlm.pp import parse_time
    >>> parse_time(["E8.5", "E9.0"])
    (array([8.5, 9. ]), 'embryonic day')
    """
    times, style = parse(values)
    absent = missing_code(values)
    if absent is not None:
        raise ValueError(f"{absent[1]} of the times are {absent[0]}, which is NA in R; make them missing")
    return times, style.unit


def parse(values: Any, hyphen: str | None = None) -> tuple[NDArray[np.float64], Style]:
    """As :func:`parse_time`, with what is to be known to read further labels; ``hyphen`` if it is known already."""
    series = pd.Series(values)
    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        series = series.cat.remove_unused_categories()
        times, style = parse(series.cat.categories, hyphen)
        if series.cat.ordered and style.hyphen == "separator" and hyphen is None and len(times) > 1:
            _check_order(times, series.cat.categories)
        return np.append(times, np.nan)[series.cat.codes.to_numpy()], style
    if pd.api.types.is_bool_dtype(dtype) or pd.api.types.is_datetime64_any_dtype(dtype):
        raise TypeError(
            f"times have dtype {dtype}; give numbers or labels such as 'day 3', for dates the days since the first one"
        )
    if pd.api.types.is_timedelta64_dtype(dtype):
        return series.dt.total_seconds().to_numpy(np.float64) / 86_400, Style("day")
    if pd.api.types.is_numeric_dtype(dtype):
        if pd.api.types.is_complex_dtype(dtype):
            raise TypeError("times are complex numbers; give real ones")
        times = _decimals(series)
        if hyphen is None:
            _check_dates([f"{t:.0f}" for t in np.unique(times[np.isfinite(times)]) if t % 1 == 0 or t < 0], times)
        return times, Style("", "sign" if (times < 0).any() else "unclear")
    texts = series.map(lambda x: None if pd.isna(x) or str(x).strip() == "" else str(x))
    labels = _read_all(texts.dropna().unique())
    units = sorted({label.unit for label in labels})
    if len(units) > 1:
        raise ValueError(f"times have different units: {[u or 'none' for u in units]}; convert them to one")
    if hyphen is None:
        _check_dates([re.sub(r"\.0*$", "", label.number) for label in labels if not label.prefix], labels)
    style = Style(units[0] if units else "", _hyphen(labels) if hyphen is None else hyphen)
    number = {label.text: label.value(style.hyphen) for label in labels}
    return texts.map(number).to_numpy(np.float64), style


def unit_of_name(name: str) -> str:
    """The unit that the name of a column says, as in "age(days)", "time [h]" or "age_days"; empty if it says none."""
    text = name.strip().lower()
    bracketed = re.search(r"[(\[]\s*([a-z]+)\s*[)\]]$", text)
    if bracketed:
        unit = bracketed[1]
        return _UNIT_OF.get(unit, "") if unit not in ("e", "p") else ""
    words = re.split(r"[^a-z]+", text)
    return _UNIT_OF[words[-1]] if len(words) > 1 and words[-1] in _UNIT_WORDS and "log" not in words else ""


def parse_one(value: Any, style: Style) -> tuple[float, str]:
    """Number and unit of one time of a question, read as the labels of the column are."""
    if isinstance(value, (np.float16, np.float32)):
        return float(str(value)), ""  # the decimal that is meant
    if not isinstance(value, str):
        times, found = parse([value], "separator")
        return float(times[0]), found.unit
    if value.strip() == "":
        return np.nan, ""
    label = _read_all([value])[0]
    if label.hyphened and style.hyphen == "unclear":
        word, number = label.text.strip()[: len(label.prefix)], label.number
        raise ValueError(
            f"the hyphen in {value!r} may be a sign or a separator; write '{word} {number}' or '{word} -{number}'"
        )
    return label.value(style.hyphen), label.unit


def missing_code(values: Any) -> tuple[Any, int] | None:
    """The value by which another tool says that an integer is missing, and how often it is there; None if it is not.

    R's NA is the smallest integer, which is a number for everything else. That of 8 and 16 bits is only looked for in
    columns of so many bits, where other tools keep the habit.
    """
    series = pd.Series(values)
    codes: list[Any] = [np.iinfo(np.int32).min, np.iinfo(np.int64).min]
    kind = series.cat.categories.dtype if isinstance(series.dtype, pd.CategoricalDtype) else series.dtype
    kind = np.dtype(getattr(kind, "numpy_dtype", kind)) if pd.api.types.is_numeric_dtype(kind) else np.dtype(object)
    if kind.kind == "i":
        codes.append(np.iinfo(kind).min)
    elif kind.kind == "O":
        codes = [f"{code}{end}" for code in codes for end in ("", ".0")] + codes
    there = series.isin(codes).to_numpy(dtype=bool)
    if not there.any():
        return None
    found = series[there].iloc[0]
    return found if isinstance(found, str) else int(found), int(there.sum())


def show_all(values: Iterable[float]) -> list[str]:
    """Times as text, with as many digits as tell them apart."""
    times = [float(t) for t in values]
    distinct = len(set(times))
    for digits in range(6, 18):
        texts = [f"{t:.0f}" if t % 1 == 0 and abs(t) < 1e15 else f"{t:.{digits}g}" for t in times]
        if len(set(texts)) >= distinct:
            break
    return texts if times else []


def show(t: float, *others: float) -> str:
    """One time as text, with as many digits as tell it from others."""
    return show_all([t, *others])[0]


def _decimals(series: pd.Series) -> NDArray[np.float64]:
    """Numbers, (n,), those in half and single precision as the decimal that they stand for: 0.1 is meant as 0.1."""
    kind = np.dtype(getattr(series.dtype, "numpy_dtype", series.dtype))
    times = series.to_numpy(np.float64, na_value=np.nan).copy()
    distinct, inverse = np.unique(times, return_inverse=True)
    if kind in (np.float16, np.float32):
        return np.array([float(str(kind.type(t))) for t in distinct])[inverse]
    with np.errstate(over="ignore", invalid="ignore"):
        for narrow, digits in ((np.float16, 3), (np.float32, 6)):  # what concatenation made of narrower columns
            for k in np.flatnonzero((narrow(distinct) == distinct) & (distinct % 1 != 0)):
                text = str(narrow(distinct[k]))
                if _n_digits(text) <= digits < _n_digits(repr(float(distinct[k]))) - 3:
                    distinct[k] = float(text)
    return distinct[inverse]


def _n_digits(text: str) -> int:
    return len(text.split("e")[0].replace(".", "").lstrip("-0"))


def _read_all(texts: Iterable[str]) -> list[_Label]:
    read = {text: _Label.read(text) for text in texts}
    unreadable = [text for text, label in read.items() if label is None]
    if unreadable:
        raise ValueError(
            f"cannot read these times: {unreadable[:5]}; write numbers, or labels such as 'day 3', 'E8.5' or '12h'"
        )
    return [label for label in read.values() if label is not None]


def _hyphen(labels: Sequence[_Label]) -> str:
    """What a hyphen between a word and a number is in a column of these labels; refused where it may be either."""
    hyphened = [label for label in labels if label.hyphened]
    others = [label for label in labels if not label.hyphened]
    joined = any(label.prefix and label.gap == "" for label in others)  # "D3": nothing separates
    if any(label.gap == "-" for label in others):  # "day--1"
        return "separator"
    if not hyphened:
        return "sign" if joined or any(label.number[0] == "-" for label in others) else "unclear"
    if not others:
        return "separator"
    if any(label.prefix and label.number[0] == "+" and label.gap == "" for label in others):  # "Day+1"
        return "sign"
    zero = any(float(label.number) == 0 for label in hyphened)  # nobody writes the sign of 0
    twins = {float(label.number) for label in hyphened} & {float(label.number) for label in others} - {0.0}
    if joined and not twins and not (zero and len(hyphened) > 1):
        return "sign"
    if zero and not joined and not twins:
        return "separator"
    raise ValueError(
        f"the hyphen in {[label.text for label in hyphened][:3]} may be a sign or a separator, beside "
        f"{[label.text for label in others][:3]}; write 'day -1' for a sign, 'day 1' for a separator"
    )


def _check_order(times: NDArray[np.float64], categories: pd.Index) -> None:
    """Refuse ordered categories that only increase if their hyphens are signs."""
    if (np.diff(times) < 0).all():
        raise ValueError(
            f"the hyphen in {list(categories[:3])} may be a sign or a separator: as separators the ordered categories "
            "decrease; write 'day -1' for a sign, 'day 1' for a separator"
        )


def _check_dates(whole: Sequence[str], times: Any) -> None:
    """Refuse dates that are written as numbers, whose differences are no durations."""
    if whole and all(_DATE.fullmatch(text) for text in whole) and len(whole) == _n_distinct(times):
        raise TypeError(
            f"times are dates written as numbers ({', '.join(whole[:3])}), whose differences are no days; take the "
            "days since the first: run dates = pd.to_datetime(column.astype(str).str[:8], format='%Y%m%d', "
            "errors='coerce'); column = (dates - dates.min()).dt.days"
        )


def _n_distinct(times: Any) -> int:
    if isinstance(times, np.ndarray):
        return len(np.unique(times[np.isfinite(times)]))
    return len({label.text for label in times})
