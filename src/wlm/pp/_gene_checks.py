"""What the doctor says of loadings and of velocities: whether genes and components belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import anndata as ad
import numpy as np
from numpy.typing import NDArray

from wlm._adata.cells import check_velocity_gaps
from wlm._adata.columns import dense, layer_names
from wlm._adata.components import LOADINGS
from wlm._adata.expression import find_expression, read_loadings
from wlm._adata.genes import pca_offset
from wlm._adata.velocity import Projection, check_components, find_velocity, is_rna_velocity, project_layer
from wlm.core.populations import Populations
from wlm.core.velocity import agreement
from wlm.pp._checks import LEVELS, Finding, Float64, check_velocity, listed, looks_like_counts, refusal
from wlm.pp._rows import sample_rows, some_cells


def check_loadings(
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
        sample = some_cells(adata, use_rep, matrices, sample_rows(adata.n_obs))
        try:
            find_expression(sample, read_loadings(sample, velocity_key, use_rep), velocity_key, use_rep)
        except (KeyError, ValueError) as error:
            return refusal(str(error.args[0]))
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


def check_velocities(
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
            finding = refusal(str(error))
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
            return replace(refusal(str(error)), level="error" if asked else "note")
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
            projection = project(adata, use_rep, key, matrices, rows)
        except (KeyError, ValueError) as error:
            finding = refusal(f"{name}: {error.args[0]}")
            again = finding.advice or "compute the velocities again"
            return Finding("error" if asked else "note", finding.found, again)
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
        return refusal(str(error))
    return None


def project(
    adata: ad.AnnData, use_rep: str, key: str, matrices: Mapping[str, Float64], rows: NDArray[np.intp]
) -> Projection:
    """Velocities of some cells as a fit projects them, though smoothed only if they are all there are."""
    sample = some_cells(adata, use_rep, matrices, rows)
    whole = len(rows) == adata.n_obs and "connectivities" in adata.obsp
    if whole:
        sample.obsp["connectivities"] = adata.obsp["connectivities"]
    return project_layer(sample, key, use_rep, smooth=whole)
