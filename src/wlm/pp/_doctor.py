"""Looking an object over before a fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._adata.cells import check_velocity_gaps, read_rep
from wlm._adata.checks import (
    PREDICTED,
    check_distances,
    check_magnitude,
    check_names,
    check_tables,
    check_writable,
    odd_rep,
)
from wlm._adata.columns import dense, get_x, layer_names, read_column, take_cells
from wlm._adata.components import LOADINGS, find_rep
from wlm._adata.expression import find_expression, read_loadings
from wlm._adata.genes import pca_offset
from wlm._adata.times import merge_equal, read_column_of_times
from wlm._adata.velocity import Projection, check_components, find_velocity, is_rna_velocity, project_layer
from wlm._store.write import check_keys
from wlm.core.devices import get_device
from wlm.core.methods import DEFAULT, get_method
from wlm.core.populations import Populations
from wlm.core.velocity import agreement
from wlm.pp._checks import (
    LEVELS,
    Finding,
    Float64,
    check_batches,
    check_counts,
    check_duplicates,
    check_missing,
    check_shift,
    check_spacing,
    check_time,
    check_velocity,
    listed,
    looks_like_counts,
    summary,
    time_columns,
)
from wlm.pp._cost import check_memory, check_run_time
from wlm.pp._growth_columns import check_growth
from wlm.pp._replicates import check_replicates

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
#: Rows of X and of layers that are read, in a few runs: files are read in blocks.
N_ROWS, N_RUNS = 500, 20


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
    matrices = _Matrices(adata, rows)
    x, findings["representation"] = _read_rep(adata, use_rep, n_dims, matrices)
    if x is not None:
        findings["duplicates"] = check_duplicates(x)
        if times is not None and np.isfinite(times).any():
            findings["representation"] = _check_distances(findings["representation"], x, times, use_rep)
        findings["loadings"] = _check_loadings(adata, use_rep, x, matrices, velocity_key)
    if x is not None and times is not None and len(observed) >= 2:
        findings["shift"] = check_shift(x, times, observed)
        findings["replicates"] = check_replicates(adata.obs.drop(columns=key), x, times)
        findings["velocity"] = _check_velocities(adata, velocity_key, use_rep, x, times, observed, rows, matrices)
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


def sample_rows(n: int) -> NDArray[np.intp]:
    """At most ``N_ROWS`` of ``n`` rows, increasing, in a few runs spread over all of them."""
    if n <= N_ROWS:
        return np.arange(n)
    length = N_ROWS // N_RUNS
    starts = np.linspace(0, n - length, N_RUNS).astype(np.intp)
    return (starts[:, None] + np.arange(length)).ravel()


class _Matrices(Mapping[str, Float64]):
    """Some rows of ``X`` and of the layers (m, n_vars), read when they are asked for; those that can be."""

    def __init__(self, adata: ad.AnnData, rows: NDArray[np.intp]):
        self._adata, self._rows = adata, rows
        # A view of a view cannot be backed.
        names = [] if adata.isbacked and adata.is_view else ["X", *layer_names(adata)]
        self._names = [name for name in names if _has_rows(self._matrix(adata, name))]

    def __getitem__(self, name: str) -> Float64:
        if name not in self._names:
            raise KeyError(name)
        part = self._matrix(take_cells(self._adata, self._rows), name)
        part = part.compute() if hasattr(part, "compute") else part
        return np.asarray(part.toarray() if hasattr(part, "toarray") else part, dtype=np.float64)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    @staticmethod
    def _matrix(adata: ad.AnnData, name: str) -> Any:
        return get_x(adata) if name == "X" else adata.layers[name]


def _has_rows(matrix: Any) -> bool:
    """Whether rows can be read: a matrix on disk that is stored by columns would have to be read as a whole."""
    return matrix is not None and not (hasattr(matrix, "group") and matrix.format == "csc")


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
            return key, None, _refusal(f"time_key {key!r} is a column that predictions write; choose another name")
    try:
        times, style = read_column_of_times(read_column(adata, key), key)
    except (ValueError, TypeError) as error:
        return key, None, _refusal(str(error))
    times = merge_equal(times, key, quiet=True)
    observed = np.unique(times[np.isfinite(times)])
    try:
        if len(observed) > 1:
            check_magnitude(f"obs[{key!r}]", observed - observed[0])
    except ValueError as error:
        return key, None, _refusal(str(error))
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
        return _refusal(str(error))
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
        return _refusal(str(error))
    return before


def _check_distances(before: Finding, x: NDArray[np.float32], times: Float64, use_rep: str) -> Finding:
    """What is said of the representation, or that a fit would refuse the distances in it."""
    try:
        check_distances(x, times, np.unique(times[np.isfinite(times)]), f"obsm[{use_rep!r}]")
    except ValueError as error:
        return _refusal(str(error))
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
        return None, _refusal(str(error.args[0]))
    width = adata.obsm[use_rep].shape[1]
    used = f"{x.shape[1]} of {width}" if x.shape[1] < width else str(width)
    found = f"obsm[{use_rep!r}] has {x.shape[0]:,} cells x {used} dimensions, {_dtype(adata.obsm[use_rep])}"
    if len(x) == 0:
        return None, Finding("error", found, "there are no cells")
    try:
        check_magnitude(f"obsm[{use_rep!r}]", x)
    except ValueError as error:
        return None, _refusal(str(error))
    if not np.ptp(x, axis=0).any():
        return None, Finding("error", f"{found}; all cells have the same position", "compute it again")
    odd = odd_rep(use_rep, x, adata.obs)
    if odd is not None:
        return x, Finding("warning", f"{found}; {odd[0]}", odd[1])
    if x.shape[1] > MANY_DIMS:
        advice = f"the last dimensions are mostly noise; n_dims={MANY_DIMS} or fewer fits faster"
        return x, Finding("note", found, advice)
    return x, Finding("ok", found)


def _check_loadings(
    adata: ad.AnnData,
    use_rep: str,
    x: NDArray[np.float32],
    matrices: Mapping[str, Float64],
    velocity_key: str | None,
) -> Finding:
    """Whether loadings and a matrix of the object give the representation, so that genes can be decoded."""
    if use_rep not in LOADINGS:
        return Finding("ok", f"not needed for {use_rep!r}; cells cannot be decoded to genes from it")
    needed = velocity_key is not None and velocity_key in adata.layers
    key = LOADINGS[use_rep]
    if key not in adata.varm:
        advice = "run sc.pp.pca(adata) here, to decode predictions to genes and to project RNA velocities"
        return Finding("error" if needed else "note", f"varm[{key!r}] is missing", advice)
    loadings = np.asarray(adata.varm[key], dtype=np.float64)
    scores = x[sample_rows(adata.n_obs)].astype(np.float64)
    match = next(((k, rows) for k, rows in matrices.items() if pca_offset(rows, scores, loadings) is not None), None)
    if match is None and "X" not in matrices:
        return Finding(
            "note",
            f"the rows of X cannot be read on their own, so that varm[{key!r}] was not compared with it",
            "X is missing, stored by columns (csc) in its file, or a view of a backed object",
        )
    if match is None and needed and velocity_key is not None:
        # A fit may still project them: on X normalised, logged or scaled on the side, or with genes taken out.
        sample = _sample(adata, use_rep, matrices, sample_rows(adata.n_obs))
        try:
            find_expression(sample, read_loadings(sample, velocity_key, use_rep), velocity_key, use_rep)
        except (KeyError, ValueError) as error:
            return _refusal(str(error.args[0]))
    if match is None:
        return Finding(
            "note",
            f"varm[{key!r}] does not explain obsm[{use_rep!r}]: (X - mean) @ loadings differs, for X and every layer",
            "X was changed after the PCA, or the PCA is another object's; predictions cannot be decoded to genes: "
            "run sc.pp.pca(adata)",
        )
    name, sampled = match
    matrix = "X" if name == "X" else f"layers[{name!r}]"
    found = f"varm[{key!r}] and {matrix} give obsm[{use_rep!r}]"
    if looks_like_counts(sampled):
        advice = "the depth of sequencing will dominate: run sc.pp.normalize_total, sc.pp.log1p and sc.pp.pca"
        return Finding("warning", f"{found}; {matrix} holds raw counts", advice)
    return Finding("ok", found)


def _check_velocities(
    adata: ad.AnnData,
    velocity_key: str | None,
    use_rep: str,
    x: NDArray[np.float32],
    times: Float64,
    observed: Float64,
    rows: NDArray[np.intp],
    matrices: Mapping[str, Float64],
) -> Finding:
    """The velocities that the fit is to use, or those with the usual names."""
    asked = velocity_key is not None
    drawn = [k for k in ("velocity_pca", f"velocity_{use_rep}") if k in adata.obsm]
    try:
        usual = [find_velocity(adata, use_rep)]
    except KeyError as error:
        usual = []
        if velocity_key == "auto":
            return Finding("error", str(error.args[0]), "run wlm.pp.velocity(adata), or name the key")
    except ValueError as error:  # they are those of other components
        if velocity_key in (None, "auto"):
            finding = _refusal(str(error))
            return replace(finding, level="error" if asked else "note")
        usual = []
    key = next(iter(usual + drawn), None) if velocity_key in (None, "auto") else velocity_key
    if key is None:
        return Finding("ok", "none; the fit learns initial velocities")
    rna = is_rna_velocity(adata, key, use_rep)
    advice = []
    if key in adata.obsm:
        try:
            check_components(adata, key, use_rep)
        except ValueError as error:
            return replace(_refusal(str(error)), level="error" if asked else "note")
        name, v, v_times = f"obsm[{key!r}]", dense(adata.obsm[key]), times
        if v.ndim != 2 or v.shape[1] < x.shape[1]:
            return Finding(
                "error" if asked else "note", f"{name} has shape {v.shape}", f"{x.shape[1]} dimensions are used"
            )
        unusable = _refused(v, key, times, observed)
        if asked and unusable is not None:
            return unusable
        if key == "velocity_pca":
            advice = ["scVelo's velocity_pca is a smoothed direction, not a speed: use the layer of velocities instead"]
    elif key in adata.layers:
        name, v_times = f"layers[{key!r}]", times[rows]
        loadings = LOADINGS.get(use_rep)
        if loadings is None or not (loadings in adata.varm or (loadings == "PCs" and "PCs" in adata.uns)):
            return Finding(
                "error" if asked else "note",
                f"{name} cannot be projected on {use_rep!r}",
                "velocities of genes are projected on principal components, with their loadings in varm; "
                "run sc.pp.pca(adata) first",
            )
        if key not in matrices:
            return Finding("note", f"{name} not checked: its rows cannot be read on their own")
        try:
            projection = _project(adata, use_rep, key, matrices, rows)
        except (KeyError, ValueError) as error:
            refusal = _refusal(f"{name}: {error.args[0]}")
            again = refusal.advice or "compute the velocities again"
            return Finding("error" if asked else "note", refusal.found, again)
        v = projection.velocity
        name += f" (on genes with {projection.share:.0%} of the loadings)"
        if projection.share < 0.2:
            advice.append("few genes with loadings have a velocity: most of the motion is missing")
    else:
        found = f"{key!r} is neither in obsm ({listed(list(adata.obsm))}) nor in layers ({listed(layer_names(adata))})"
        return Finding("error", found, "run wlm.pp.velocity(adata), or name the key that holds velocities")
    finding = check_velocity(name, v[:, : x.shape[1]], v_times, x, times, observed, asked=asked, calibrated=rna)
    if asked and rna and finding.level != "error":
        of = slice(None) if len(v) == len(x) else rows
        finding = _check_calibration(finding, x[of], v[:, : x.shape[1]], v_times, observed)
    if not asked:
        # Nothing is wrong with a fit that does not use them.
        use = [] if finding.level == "warning" else [f"to use them, fit with velocity_key={key!r}"]
        return Finding("note", finding.found, "; ".join(filter(None, [finding.advice, *advice, *use])))
    level = max(finding.level, "warning" if advice else "ok", key=LEVELS.index)
    return Finding(level, finding.found, "; ".join(filter(None, [finding.advice, *advice])))


def _check_calibration(
    before: Finding, x: NDArray[np.float32], v: NDArray[np.floating], times: Float64, observed: Float64
) -> Finding:
    """What is said of velocities, or that a fit could not find their scale; of a sample this is an estimate."""
    index = [np.flatnonzero(times == t) for t in observed]
    if min(map(len, index)) < 2:
        return before
    populations = Populations(observed, tuple(x[i] for i in index), tuple(v[i].astype(np.float32) for i in index))
    try:
        scale = agreement(populations).scale
    except ValueError as error:
        return Finding("error", f"{before.found}; they cannot be calibrated: {error}", "pass velocity_scale, a number")
    if scale <= 0:
        return Finding(
            "error",
            f"{before.found}; they point against the observed drift, so that no scale makes them speeds",
            "fit without velocity_key, check their sign, or pass velocity_scale, a number, to use them all the same",
        )
    return before


def _refused(v: NDArray[np.floating], key: str, times: Float64, observed: Float64) -> Finding | None:
    """What a fit would refuse of velocities in ``obsm``."""
    try:
        check_velocity_gaps(v, key, times, float(observed[0]))
    except ValueError as error:
        return _refusal(str(error))
    return None


def _project(
    adata: ad.AnnData, use_rep: str, key: str, matrices: Mapping[str, Float64], rows: NDArray[np.intp]
) -> Projection:
    """Velocities of some cells as a fit projects them, though smoothed only if they are all there are."""
    sample = _sample(adata, use_rep, matrices, rows)
    whole = len(rows) == adata.n_obs and "connectivities" in adata.obsp
    if whole:
        sample.obsp["connectivities"] = adata.obsp["connectivities"]
    return project_layer(sample, key, use_rep, smooth=whole)


def _sample(adata: ad.AnnData, use_rep: str, matrices: Mapping[str, Float64], rows: NDArray[np.intp]) -> ad.AnnData:
    """Some cells, with what the projection of velocities reads."""
    loadings = LOADINGS[use_rep]
    return ad.AnnData(
        matrices["X"] if "X" in matrices else None,
        obs=pd.DataFrame(index=adata.obs_names[rows]),
        var=adata.var,
        varm={loadings: np.asarray(adata.varm[loadings])} if loadings in adata.varm else None,
        obsm={use_rep: dense(adata.obsm[use_rep])[rows]},
        layers={name: matrices[name] for name in matrices if name != "X"},
        uns={name: adata.uns[name] for name in ("log1p", "PCs") if name in adata.uns},
    )


def _dtype(a: Any) -> str:
    return str(getattr(a, "dtype", "a table"))


def _refusal(message: str) -> Finding:
    """An error of a fit as a finding: what it found, and what it advises."""
    found, _, advice = message.partition("; ")
    return Finding("error", found, advice)
