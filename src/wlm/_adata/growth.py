"""Net rates of cells and sizes of populations, as users give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._adata.columns import read_column
from wlm._adata.labels import Style, show
from wlm._adata.times import _list, find_observed, read_labels
from wlm.core.growth import MAX_LOG_MASS

#: Fewest cells with a known rate that a prior can rest on.
MIN_KNOWN = 20
#: Sizes of populations by time, or the column that holds them.
Totals = Mapping[Any, float] | str


def read_growth(
    adata: ad.AnnData, growth_key: str, times: NDArray[np.float64], training: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Net rates (n,) of the cells per unit of time, NaN where unknown; refuses what cannot be a rate.

    Raises
    ------
    KeyError, ValueError
        If the column is missing, holds no numbers or infinite ones, too few or equal ones at training times, or rates
        by which a mass would pass e^6 between two times.
    """
    column = read_column(adata, growth_key)
    rates = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, copy=True)
    text = np.isnan(rates) & ~column.isna().to_numpy()
    where = f"obs[{growth_key!r}]"
    if text.any() or np.isinf(rates).any():
        raise ValueError(
            f"{where} must hold net rates, births less deaths per unit of time, as finite numbers (NaN where unknown); "
            f"{int(text.sum() + np.isinf(rates).sum())} of {len(rates)} are none"
        )
    used = rates[np.isin(times, training)]
    known = used[np.isfinite(used)]
    if len(known) < MIN_KNOWN:
        raise ValueError(
            f"{where} is NaN for all but {len(known)} of the {len(used)} cells at training times; a prior needs "
            f"{MIN_KNOWN} known rates at least: leave growth_key out to learn rates from the populations alone"
        )
    if np.ptp(known) == 0:
        raise ValueError(
            f"{where} is {known[0]:g} for all cells; only differences between cells change a population's composition: "
            "give the sizes of the populations as totals if they all grow alike, or leave growth_key out"
        )
    fastest = float(np.abs(known - np.median(known)).max())
    longest = float(np.diff(training).max())
    if fastest * longest > MAX_LOG_MASS:
        raise ValueError(
            f"{where} has rates up to {fastest:.3g} per unit of time from the median, e^{fastest * longest:.3g} cells "
            f"in the interval of {longest:g}: faster than the sampling can show; give net rates per unit of the times, "
            "not numbers of descendants or rates of another unit"
        )
    return rates


def read_totals(
    adata: ad.AnnData,
    totals: Totals,
    times: NDArray[np.float64],
    observed: NDArray[np.float64],
    training: NDArray[np.float64],
    style: Style,
) -> NDArray[np.float64]:
    """Sizes of the populations (T,) at the times ``observed``, NaN where unknown; known at all of ``training``.

    ``totals`` is a mapping from times, or labels of them, to numbers of cells, or a column of ``obs`` that is the same
    for all cells of a time.

    Raises
    ------
    KeyError, ValueError, TypeError
        If it is neither, a training time is missing, or a number is not positive.
    """
    sizes = np.full(len(observed), np.nan)
    if isinstance(totals, str):
        values = pd.to_numeric(read_column(adata, totals), errors="coerce").to_numpy(dtype=np.float64)
        for k, t in enumerate(observed):
            found = np.unique(values[times == t])
            if len(found) > 1:
                raise ValueError(
                    f"totals: obs[{totals!r}] holds {len(found)} values at {show(t, *observed)}; the size of a "
                    "population is one number for all its cells"
                )
            sizes[k] = found[0]
    elif isinstance(totals, Mapping):
        for label, size in totals.items():
            t = find_observed(float(read_labels(label, style, "totals")[0]), observed, "totals: time")
            try:
                sizes[np.flatnonzero(observed == t)[0]] = float(size)
            except (TypeError, ValueError):
                raise TypeError(f"totals must be numbers of cells, found {size!r} at {label!r}") from None
    else:
        raise TypeError(
            f"totals must be a dict of times and population sizes, or the name of a column of obs, found {totals!r}"
        )
    missing = training[np.isnan(sizes[np.isin(observed, training)])]
    if len(missing):
        raise ValueError(
            f"totals lack the size of the population at {_list(missing)}; name it for every training time "
            f"({_list(training)}), or leave totals out: rates are then relative to the mean of each time"
        )
    known = sizes[~np.isnan(sizes)]
    if not (np.isfinite(known) & (known > 0)).all():
        raise ValueError(f"totals must be positive numbers of cells, found {sizes.tolist()} at {_list(observed)}")
    return sizes
