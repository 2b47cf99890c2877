"""Looking an object over before a fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._adata.cells import read_rep
from wlm._adata.checks import (
    PREDICTED,
    check_distances,
    check_magnitude,
    check_names,
    check_tables,
    check_writable,
    odd_rep,
)
from wlm._adata.columns import read_column
from wlm._adata.components import LOADINGS, find_rep
from wlm._adata.times import merge_equal, read_column_of_times
from wlm._store.write import check_keys
from wlm.core.devices import get_device
from wlm.core.methods import DEFAULT, get_method
from wlm.pp._checks import (
    Finding,
    Float64,
    check_batches,
    check_counts,
    check_duplicates,
    check_missing,
    check_shift,
    check_spacing,
    check_time,
    listed,
    looks_like_counts,
    refusal,
    summary,
    time_columns,
)
from wlm.pp._cost import check_memory, check_run_time
from wlm.pp._gene_checks import check_loadings, check_velocities
from wlm.pp._growth_columns import check_growth
from wlm.pp._replicates import check_replicates
from wlm.pp._rows import Matrices, sample_rows

#: The rows of the report, in this order.
CHECKS = (
    *(
        "time",
        "missing times",
        "spacing",
        "cells per time",
        "cell names",
        "batch",
        "replicates",
        "representation",
        "duplicates",
    ),
    *("shift", "loadings", "velocity", "growth", "run time", "memory", "columns"),
)
#: Dimensions above which the last ones are mostly noise.
MANY_DIMS = 50


def doctor(
    adata: ad.AnnData,
    *,
    time_key: str | None = None,
    use_rep: str | None = None,
    n_dims: int | None = None,
    velocity_key: str | None = None,
    method: str = DEFAULT,
    nan: str = "raise",
    device: str = "auto",
) -> pd.DataFrame:
    """Look an object over before a fit, and propose the call.

    Reads ``obs``, ``obsm[use_rep]``, its loadings in ``varm`` and a sample of at most 500 rows of ``X`` and the layers,
    so it checks large objects on disk without loading them. ``adata`` does not change.

    Parameters
    ----------
    adata
        Cells, in memory or backed.
    time_key
        Column of ``obs`` with the times; by default the column that looks most like one.
    use_rep, n_dims, nan
        As for :func:`wlm.tl.fit`.
    velocity_key
        Velocities for the fit: a key of ``obsm`` or a layer. By default the doctor only checks velocities with the
        usual names, and the proposed call has none.
    method
        Method to fit; the doctor times its training with the default options.
    device
        Device on which to time the model, as for :func:`wlm.tl.fit`.

    Returns
    -------
    One row per check, always the same ones in the same order, with the columns ``check``, ``level`` (``"ok"``,
    ``"note"``, ``"warning"``, or ``"error"`` for what a fit would refuse), ``found`` and ``advice``.
    ``attrs["summary"]`` is a version for reading: problems first, one per line, and the passed checks in one line.
    ``attrs["call"]`` is the proposed call of :func:`wlm.tl.fit` and ``attrs["arguments"]`` its arguments (both empty if
    no column holds times). The call runs once errors are mended; it contains ``nan="drop"``, ``n_dims`` and another
    ``key_added`` if these mend a finding.

    Raises
    ------
    TypeError
        If ``adata`` is no AnnData.
    ValueError
        If ``device`` cannot be used, there is no such ``method``, or anndata reads nothing because the names of cells
        or genes were changed after a table was added.

    Examples
    --------
    >>> import wlm
    >>> adata = wlm.datasets.bifurcation(n_cells=100, rng=0)
    >>> report = wlm.pp.doctor(adata)
    >>> report.loc[report["level"] == "error", ["check", "found"]].values.tolist()
    [['representation', "obsm['X_pca'] is missing"]]
    >>> report.attrs["call"]
    "wlm.tl.fit(adata, 'day')"
    """
    if not isinstance(adata, ad.AnnData):
        raise TypeError(f"adata must be an AnnData object, found {type(adata).__name__}")
    check_tables(adata)
    where = get_device(device)
    config = get_method(method, {})
    asked_rep, use_rep = use_rep, find_rep(adata, use_rep)
    findings: dict[str, Finding] = {}
    key, times, findings["time"] = _read_times(adata, time_key)
    observed = np.empty(0)
    if key is not None and times is not None:
        observed, counts = np.unique(times[np.isfinite(times)], return_counts=True)
        findings["missing times"] = check_missing(key, times, nan)
        if len(observed):
            findings["spacing"] = check_spacing(observed)
            findings["cells per time"] = check_counts(observed, counts)
        findings["batch"] = check_batches(adata.obs.drop(columns=key), times)
    findings["growth"] = check_growth(set(adata.obs), key)
    findings["cell names"] = _check_names(adata)
    key_added, findings["columns"] = _check_columns(adata, key, velocity_key, use_rep)

    rows = sample_rows(adata.n_obs)
    matrices = Matrices(adata, rows)
    x, findings["representation"] = _read_rep(adata, use_rep, n_dims, matrices)
    if x is not None:
        findings["duplicates"] = check_duplicates(x)
        if times is not None and np.isfinite(times).any():
            findings["representation"] = _check_distances(findings["representation"], x, times, use_rep)
        findings["loadings"] = check_loadings(adata, use_rep, x, matrices, velocity_key)
    if x is not None and times is not None and len(observed) >= 2:
        findings["shift"] = check_shift(x, times, observed)
        findings["replicates"] = check_replicates(adata.obs.drop(columns=key), x, times)
        findings["velocity"] = check_velocities(adata, velocity_key, use_rep, x, times, observed, rows, matrices)
        findings["velocity"] = _check_method(findings["velocity"], config, velocity_key)
        if findings["representation"].level != "error":
            findings["run time"] = check_run_time(x, times, observed, str(where), method)
    findings["memory"] = check_memory(adata, x, velocity_key)

    absent = Finding("note", "not checked", "mend the errors of the other checks first")
    rows_of_table = [(name, *vars(findings.get(name, absent)).values()) for name in CHECKS]
    table = pd.DataFrame(rows_of_table, columns=["check", "level", "found", "advice"])
    if n_dims is None and x is not None and x.shape[1] > MANY_DIMS:
        n_dims = MANY_DIMS
    arguments = {"use_rep": asked_rep, "n_dims": n_dims, "velocity_key": velocity_key, "method": method}
    arguments |= {"nan": "drop" if times is not None and np.isnan(times).any() else nan, "device": device}
    defaults = {"use_rep": None, "n_dims": None, "velocity_key": None, "method": DEFAULT, "nan": "raise"}
    defaults |= {"device": "auto", "key_added": "wlm"}
    changed = {name: v for name, v in (arguments | {"key_added": key_added}).items() if v != defaults[name]}
    table.attrs["arguments"] = {} if key is None else {"time_key": key, **changed}
    options = "".join(f", {name}={value!r}" for name, value in changed.items())
    table.attrs["call"] = "" if key is None else f"wlm.tl.fit(adata, {key!r}{options})"
    table.attrs["summary"] = summary(table)
    return table


def _read_times(adata: ad.AnnData, time_key: str | None) -> tuple[str | None, Float64 | None, Finding]:
    """The column with the times and what it holds, NaN where a time is missing; None if there is none."""
    likely, possible, unreadable = time_columns(adata.obs)
    if time_key is None:
        if not likely and unreadable:
            return _read_times(adata, unreadable[0])
        if not likely:
            found = f"no column of obs looks like a time; obs has {listed(list(adata.obs.columns), 20) or 'no column'}"
            numbers = f" ({listed(possible)} could be read as one)" if possible else ""
            return None, None, Finding("error", found, f"name the column of the times with time_key{numbers}")
        key = likely[0]
    elif time_key not in list(adata.obs.columns):
        advice = f"{listed(likely)} could be meant" if likely else f"obs has {listed(list(adata.obs.columns), 20)}"
        return None, None, Finding("error", f"obs[{time_key!r}] is missing", advice)
    else:
        key = time_key
        if key in PREDICTED:
            return key, None, refusal(f"time_key {key!r} is a column that predictions write; choose another name")
    try:
        times, style = read_column_of_times(read_column(adata, key), key)
    except (ValueError, TypeError) as error:
        return key, None, refusal(str(error))
    times = merge_equal(times, key, quiet=True)
    observed = np.unique(times[np.isfinite(times)])
    try:
        if len(observed) > 1:
            check_magnitude(f"obs[{key!r}]", observed - observed[0])
    except ValueError as error:
        return key, None, refusal(str(error))
    others = [c for c in likely if c != key]
    return key, times, check_time(key, observed, style.unit, others, guessed=time_key is None)


def _check_names(adata: ad.AnnData) -> Finding:
    """Whether the names of cells and genes can be stored, and results written."""
    names = adata.obs_names
    copies = 0 if isinstance(names, pd.MultiIndex) else int(names.duplicated().sum())
    if copies:
        return Finding("error", f"{copies} obs_names are not unique", "run adata.obs_names_make_unique()")
    try:
        check_names(names)
        check_writable(adata)
    except ValueError as error:
        return refusal(str(error))
    return Finding("ok", f"{len(names):,} unique names")


def _check_columns(adata: ad.AnnData, key: str | None, velocity_key: str | None, use_rep: str) -> tuple[str, Finding]:
    """Whether columns of ``obs`` have names of their own, and a name under which a fit loses nothing that is there."""
    columns = adata.obs.columns
    read = {} if key is None or key in PREDICTED else {"time_key": key}
    refusals: dict[str, str] = {}
    for name in ("wlm", "wlm_fit", "wlm_fit_2"):
        try:
            check_keys(adata, name, [velocity_key, use_rep], [], read)
        except ValueError as error:
            refusals[name] = str(error)
        else:
            break
    if "wlm" in refusals and name not in refusals:
        found = refusals["wlm"].partition("; ")[0]
        return name, Finding("error", found, f"choose another name: pass key_added={name!r}")
    twice = columns[columns.duplicated()].unique()
    if len(twice):
        found = "; ".join(f"obs has {list(columns).count(c)} columns named {c!r}" for c in twice)
        advice = "keep one: run adata.obs = adata.obs.loc[:, ~adata.obs.columns.duplicated()]"
        return "wlm", Finding("warning", found, advice)
    return "wlm", Finding("ok", f"{len(columns)} with names of their own")


def _check_method(before: Finding, config: Any, velocity_key: str | None) -> Finding:
    """What is said of the velocities, or that the method would refuse them."""
    try:
        config.check(has_velocity=velocity_key is not None)
    except ValueError as error:
        return refusal(str(error))
    return before


def _check_distances(before: Finding, x: NDArray[np.float32], times: Float64, use_rep: str) -> Finding:
    """What is said of the representation, or that a fit would refuse the distances in it."""
    try:
        check_distances(x, times, np.unique(times[np.isfinite(times)]), f"obsm[{use_rep!r}]")
    except ValueError as error:
        return refusal(str(error))
    return before


def _read_rep(
    adata: ad.AnnData, use_rep: str, n_dims: int | None, matrices: Mapping[str, Float64]
) -> tuple[NDArray[np.float32] | None, Finding]:
    """The representation, and what is to be said of it; None if a fit would refuse it."""
    if use_rep not in adata.obsm:
        advice = f"obsm has {listed(list(adata.obsm))}" if adata.obsm else "obsm is empty"
        if use_rep in LOADINGS and not any(name in adata.obsm for name in LOADINGS):
            raw = "X" in matrices and looks_like_counts(matrices["X"])
            steps = ["sc.pp.normalize_total(adata)", "sc.pp.log1p(adata)"] if raw else []
            advice = f"run {'; '.join([*steps, 'sc.pp.pca(adata)'])}"
        return None, Finding("error", f"obsm[{use_rep!r}] is missing", advice)
    try:
        x = read_rep(adata, use_rep, n_dims)
    except (KeyError, ValueError, TypeError) as error:
        return None, refusal(str(error.args[0]))
    width = adata.obsm[use_rep].shape[1]
    used = f"{x.shape[1]} of {width}" if x.shape[1] < width else str(width)
    found = f"obsm[{use_rep!r}] has {x.shape[0]:,} cells x {used} dimensions, {_dtype(adata.obsm[use_rep])}"
    if len(x) == 0:
        return None, Finding("error", found, "there are no cells")
    try:
        check_magnitude(f"obsm[{use_rep!r}]", x)
    except ValueError as error:
        return None, refusal(str(error))
    if not np.ptp(x, axis=0).any():
        return None, Finding("error", f"{found}; all cells have the same position", "compute it again")
    odd = odd_rep(use_rep, x, adata.obs)
    if odd is not None:
        return x, Finding("warning", f"{found}; {odd[0]}", odd[1])
    if x.shape[1] > MANY_DIMS:
        advice = f"the last dimensions are mostly noise; n_dims={MANY_DIMS} or fewer fits faster"
        return x, Finding("note", found, advice)
    return x, Finding("ok", found)


def _dtype(a: Any) -> str:
    return str(getattr(a, "dtype", "a table"))
