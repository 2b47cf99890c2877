"""RNA velocity from spliced and unspliced counts, by scVelo or by our own steady-state estimate."""

from __future__ import annotations

import io
import os
import warnings
from contextlib import redirect_stdout
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from wlm._adata.columns import layer_names, read_mask
from wlm._adata.components import LOADINGS, find_rep
from wlm._adata.expression import find_expression, read_loadings
from wlm._logging import logger
from wlm.pp._counts import find_layers, normalise, read_counts, rename, shared_counts
from wlm.pp._steady_state import steady_state
from wlm.pp._velocity import project_velocity

MODES = ("deterministic", "stochastic", "dynamical")
METHODS = ("auto", "scvelo", "steady_state")
#: Versions from which scVelo 0.3.4, the last release, fails.
_TOO_NEW = {"numpy": (2, 4), "pandas": (3, 0)}
#: Columns that scVelo keeps for itself.
_INTERNAL = ("initial_size", "initial_size_spliced", "initial_size_unspliced", "n_counts")
#: Bytes of dense layers above which it is said that they could be smaller.
_LARGE = 4e9


def velocity(
    adata: ad.AnnData,
    *,
    method: str = "auto",
    mode: str = "deterministic",
    min_shared_counts: int = 20,
    n_top_genes: int | None = 2000,
    n_comps: int = 30,
    n_neighbors: int = 30,
    pseudotime: bool = False,
    subset_genes: bool = False,
    copy: bool = False,
) -> ad.AnnData | None:
    """Compute RNA velocities and project them: from counts to ``fit`` in one call.

    The function brings the counts of each cell to the same total. Without components in ``obsm["X_pca"]`` or
    ``obsm["pca"]``, it chooses genes, sets ``X`` to the logarithm of the normalised spliced counts, and computes
    principal components of the chosen genes. Otherwise it uses all genes and keeps ``X`` and the components as they
    are. Neighbours, moments, velocities, and :func:`wlm.pp.project_velocity` follow. No gene is removed, unless
    ``subset_genes=True``.

    Parameters
    ----------
    adata
        With counts, whole or with fractions, in ``layers["spliced"]`` and ``layers["unspliced"]``, or else in
        ``"mature"`` and ``"nascent"`` (kb-python), ``"S"`` and ``"U"`` (alevin-fry), ``"total"`` and ``"new"``
        (dynamo). A layer in which all cells have the same total counts as normalised.
    method
        ``"scvelo"`` (extra ``velocity``: ``pip install 'wlm[velocity]'``), ``"steady_state"`` (wlm's own, for the first
        two modes), or ``"auto"``: scVelo, or wlm's own if scVelo is missing or cannot run. The log says which.
    mode
        ``"deterministic"`` (steady state), ``"stochastic"`` (scVelo's own default) or ``"dynamical"`` (slow, by scVelo
        only). On the simulated bifurcation, whose true velocities are known, the deterministic velocities point best
        (see the benchmarks).
    min_shared_counts, n_top_genes
        Use genes with at least ``min_shared_counts`` counts in cells with both kinds of molecules, and the
        ``n_top_genes`` most variable of these; ``n_top_genes=None`` uses all of them.
    n_comps
        Principal components.
    n_neighbors
        Number of neighbours for the moments and for the smoothing of the projection.
    pseudotime
        Also order the cells along the velocities, in ``obs["velocity_pseudotime"]`` (0 to 1): for cells of one
        sample, whose bins (:func:`wlm.pp.bin_time`) can stand in for sampling times. By scVelo only.
    subset_genes
        Remove the unused genes. The added layers are dense, with three numbers for each gene and cell, so this keeps
        large objects small.
    copy
        Return a copy with the result instead of writing to ``adata``.

    Returns
    -------
    None, or the copy if ``copy=True``. Written to ``adata``, all or nothing:

    ``layers["Ms"]``, ``layers["Mu"]``, ``layers["velocity"]`` : float32, (n_obs, n_vars)
        Means over neighbours and velocities, in normalised counts per unit of the gene's splicing time; NaN for genes
        that were not used. With scVelo also what else it writes.
    ``layers["spliced"]``, ``layers["unspliced"]``
        Normalised. Keep the counts in a layer of another name if you need them.
    ``var["velocity_genes"]``, ``var["velocity_gamma"]``, ``var["velocity_r2"]``
        Genes whose velocity counts, the ratio of unspliced to spliced molecules in their steady state, and its fit.
    ``X``, ``obsm["X_pca"]``, ``varm["PCs"]`` (scanpy 2: ``"pca"``), ``var["highly_variable"]``
        If there were no components; genes that were not used have no loadings.
    ``obsp``, ``uns["neighbors"]``, ``obsm["velocity_projected"]``
        The neighbour graph and the result of :func:`wlm.pp.project_velocity`.

    Raises
    ------
    ImportError
        If scVelo is needed and not installed, or does not work with the versions of numpy and pandas that are.
    KeyError, TypeError, ValueError
        If a layer is missing, or what it holds are not counts; if components are there and neither ``X`` nor a layer
        gives it; if scVelo fails.
    """
    _check(adata, method, mode)
    raw = _read(adata)
    scv = _choose(method, mode, pseudotime=pseudotime)
    rep = find_rep(adata, None)
    if has_pca := rep in adata.obsm:  # refuse what cannot be projected
        find_expression(adata, read_loadings(adata, "velocity", rep), "velocity", rep)
    # scVelo prints its progress and warns of its own future; both are for its developers.
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        whole, used = _prepare(adata, raw, min_shared_counts, n_top_genes, n_comps)
        small = _small(adata, whole, used, n_comps, n_neighbors)
        source = _estimate(small, scv, method, mode, pseudotime=pseudotime)
    if subset_genes and len(used) < adata.n_vars:
        work, whole = adata[:, used].copy(), whole[:, used].copy()
        used = np.arange(len(used))
    else:
        work = adata.copy()
    _write(work, whole, small, used, has_pca=has_pca)
    project_velocity(work)
    _report(work, adata.n_vars, len(used), source, mode)
    if copy:
        return work
    adata._init_as_actual(work)
    return None


def _check(adata: Any, method: str, mode: str) -> None:
    """Refuse arguments and objects that are not meant."""
    if mode not in MODES:
        raise ValueError(f"mode must be one of {list(MODES)}, found {mode!r}")
    if method not in METHODS:
        raise ValueError(f"method must be one of {list(METHODS)}, found {method!r}")
    if not isinstance(adata, ad.AnnData):
        path = str(adata) if isinstance(adata, (str, os.PathLike)) else ""
        read = "anndata.io.read_loom" if path.endswith(".loom") else "anndata.read_h5ad"
        raise TypeError(
            f"adata must be an AnnData object, found {type(adata).__name__}"
            + (f"; run adata = {read}({path!r}) first" if path else "")
        )
    if adata.isbacked or adata.is_view:
        kind = "backed" if adata.isbacked else "a view"
        remedy = "to_memory()" if adata.isbacked else "copy()"
        raise ValueError(f"adata is {kind}; run adata = adata.{remedy} first")


def _read(adata: ad.AnnData) -> tuple[csr_matrix, csr_matrix]:
    """Spliced and unspliced counts."""
    names = find_layers(adata)
    s, u = (read_counts(adata, name) for name in names)
    if "spliced" not in names and (s != u).nnz == 0:
        raise KeyError(
            f"layers[{names[0]!r}] and layers[{names[1]!r}] hold the same values, so that they are not taken "
            f"for spliced and unspliced counts by their names; rename them: {rename(names)}"
        )
    if adata.n_obs < 3:
        raise ValueError(f"adata has {adata.n_obs} cells; velocities are estimated from at least 3")
    return s, u


def _choose(method: str, mode: str, *, pseudotime: bool) -> Any:
    """scVelo, or None for the estimate of our own."""
    alone = "mode='dynamical'" if mode == "dynamical" else "pseudotime=True" if pseudotime else ""
    if method == "steady_state":
        if alone:
            raise ValueError(f"{alone} needs scVelo; pass method='scvelo'")
        return None
    too_new = _too_new()
    try:
        if method == "auto" and too_new and not alone:
            raise ImportError(f"it does not work with {too_new}")
        import scvelo
    except (ImportError, AttributeError, TypeError) as error:
        if method == "auto" and not alone:
            logger.info(
                "velocities are those of wlm's own steady-state estimate, since scVelo cannot be used: %s", error
            )
            return None
        remedy = f"{alone} needs it" if alone else "pass method='steady_state', which does not need it"
        raise ImportError(
            f"scVelo cannot be imported ({error}); run pip install 'wlm[velocity]'"
            + (" 'numpy<2.4' 'pandas<3'" if too_new else "")
            + f", or give velocities that were computed elsewhere; {remedy}"
        ) from error
    return scvelo


def _too_new() -> str:
    """Installed packages that are newer than scVelo can use, with their versions."""
    installed = {"numpy": np.__version__, "pandas": pd.__version__}
    return " and ".join(
        f"{name} {version}"
        for name, version in installed.items()
        if tuple(int(number) for number in version.split(".")[:2]) >= _TOO_NEW[name]
    )


def _prepare(
    adata: ad.AnnData, raw: tuple[csr_matrix, csr_matrix], min_shared_counts: int, n_top_genes: int | None, n_comps: int
) -> tuple[ad.AnnData, NDArray[np.intp]]:
    """Normalised counts of all genes, with components where there were none; and the genes to use."""
    import scanpy as sc

    s, u = (normalise(counts) for counts in raw)
    whole = ad.AnnData(None, obs=pd.DataFrame(index=adata.obs_names), var=pd.DataFrame(index=adata.var_names))
    whole.layers["spliced"], whole.layers["unspliced"] = s, u
    if find_rep(adata, None) in adata.obsm:
        return whole, np.arange(adata.n_vars)
    used = np.flatnonzero(shared_counts(*raw) >= min_shared_counts)
    if len(used) < 2:
        raise ValueError(
            f"{len(used)} of {adata.n_vars} genes have {min_shared_counts} counts in cells with both "
            "kinds of molecules; lower min_shared_counts"
        )
    whole.X = s.copy()
    sc.pp.log1p(whole)
    if n_top_genes is not None and n_top_genes < len(used):
        table = sc.pp.highly_variable_genes(whole[:, used].copy(), n_top_genes=n_top_genes, inplace=False)
        used = used[np.asarray(table["highly_variable"], dtype=bool)]
    chosen = whole[:, used].copy()
    if (chosen.X.max(axis=0).toarray() - chosen.X.min(axis=0).toarray()).max() < 1e-5:  # rounding of the totals
        raise ValueError("all cells have the same spliced counts, once normalised; there is nothing to learn from")
    sc.pp.pca(chosen, n_comps=min(n_comps, chosen.n_vars - 1, chosen.n_obs - 1))
    rep = find_rep(chosen, None)
    whole.uns["pca"], whole.obsm[rep] = chosen.uns["pca"], chosen.obsm[rep]
    loadings = np.zeros((whole.n_vars, chosen.obsm[rep].shape[1]))
    loadings[used] = chosen.varm[LOADINGS[rep]]
    whole.varm[LOADINGS[rep]] = loadings
    if len(used) < whole.n_vars:
        whole.var["highly_variable"] = np.isin(np.arange(whole.n_vars), used)
    return whole, used


def _small(adata: ad.AnnData, whole: ad.AnnData, used: NDArray[np.intp], n_comps: int, n_neighbors: int) -> ad.AnnData:
    """What velocities are estimated from: counts of the genes to use, components and neighbours."""
    import scanpy as sc

    small = ad.AnnData(
        whole.layers["spliced"][:, used].copy(),
        obs=pd.DataFrame(index=adata.obs_names),
        var=pd.DataFrame(index=adata.var_names[used]),
        layers={name: whole.layers[name][:, used] for name in ("spliced", "unspliced")},
    )
    source = whole if whole.obsm else adata
    rep = find_rep(source, None)
    small.obsm[rep] = np.asarray(source.obsm[rep])
    if source is adata and "highly_variable" in adata.var:
        small.var["highly_variable"] = read_mask(adata.var, "highly_variable")
    dims = min(n_comps, small.obsm[rep].shape[1])
    sc.pp.neighbors(small, n_neighbors=min(n_neighbors, small.n_obs - 1), n_pcs=dims, use_rep=rep)
    return small


def _estimate(small: ad.AnnData, scv: Any, method: str, mode: str, *, pseudotime: bool) -> str:
    """Write velocities to ``small``, and say by what they were computed."""
    if scv is not None:
        trial = small.copy()
        try:
            _run_scvelo(scv, trial, mode, pseudotime=pseudotime)
        except (AttributeError, TypeError, ValueError, ImportError) as error:
            too_new = _too_new()
            what = f"{type(error).__name__}: {error}"
            if method == "scvelo" or pseudotime or mode == "dynamical":
                if too_new:
                    raise ImportError(
                        f"scVelo {scv.__version__} does not work with {too_new}: {what}; run pip install 'numpy<2.4' "
                        "'pandas<3', or give velocities that were computed elsewhere"
                    ) from error
                raise ValueError(
                    f"scVelo {scv.__version__} failed on these counts: {what}; run wlm.pp.velocity(adata, "
                    "method='steady_state'), which does without it"
                ) from error
            logger.warning("scVelo %s failed (%s); velocities are those of wlm's own estimate", scv.__version__, what)
        else:
            small._init_as_actual(trial)
            return f"scVelo {scv.__version__}"
    candidates = np.asarray(small.var["highly_variable"], dtype=bool) if "highly_variable" in small.var else None
    found = steady_state(
        small.layers["spliced"],
        small.layers["unspliced"],
        small.obsp["connectivities"],
        mode=mode,
        candidates=candidates,
    )
    small.layers["Ms"], small.layers["Mu"], small.layers["velocity"] = found.Ms, found.Mu, found.velocity
    small.var["velocity_gamma"], small.var["velocity_r2"] = found.gamma, found.r2
    small.var["velocity_genes"] = found.genes
    small.uns["velocity_params"] = {"mode": mode, "method": "steady_state"}
    return "wlm's steady-state estimate"


def _run_scvelo(scv: Any, small: ad.AnnData, mode: str, *, pseudotime: bool) -> None:
    """Steps of scVelo, on counts that are normalised."""
    for name in _INTERNAL[:3]:
        small.obs[name] = 1.0  # counts that happen to be whole would be normalised again, by these
    warnings.simplefilter("ignore")  # again: scVelo's decorators reset the filters
    scv.pp.moments(small, n_pcs=None, n_neighbors=None)
    if mode == "dynamical":
        scv.tl.recover_dynamics(small, n_jobs=1, show_progress_bar=False)
    scv.tl.velocity(small, mode=mode)
    if "velocity_genes" not in small.var:
        small.var["velocity_genes"] = True  # scVelo writes no column of which all entries are the same
    if pseudotime:
        scv.tl.velocity_graph(small, n_jobs=1, show_progress_bar=False)
        scv.tl.velocity_pseudotime(small)


def _write(work: ad.AnnData, whole: ad.AnnData, small: ad.AnnData, used: NDArray[np.intp], *, has_pca: bool) -> None:
    """Bring what was computed to the object, with gaps for genes that were not used."""
    if not has_pca:
        work.X = whole.X
        work.uns["log1p"], work.uns["pca"] = whole.uns["log1p"], whole.uns["pca"]
        rep = find_rep(whole, None)
        work.obsm[rep], work.varm[LOADINGS[rep]] = whole.obsm[rep], whole.varm[LOADINGS[rep]]
        for name in whole.var:
            work.var[name] = whole.var[name].to_numpy()
    for name in ("spliced", "unspliced"):
        dense = isinstance(work.layers.get(name), np.ndarray)
        work.layers[name] = whole.layers[name].toarray() if dense else whole.layers[name]
    for name in [n for n in layer_names(small) if n not in ("spliced", "unspliced")]:
        work.layers[name] = _spread(np.asarray(small.layers[name], dtype=np.float32), used, work.n_vars, axis=1)
    for name in [n for n in small.varm if n not in LOADINGS.values()]:
        work.varm[name] = _spread(np.asarray(small.varm[name]), used, work.n_vars, axis=0)
    for name in [n for n in small.var if n != "highly_variable"]:
        work.var[name] = _spread(small.var[name].to_numpy(), used, work.n_vars, axis=0)
    for name in [n for n in small.obs if n not in _INTERNAL]:
        work.obs[name] = small.obs[name].array
    for name in [n for n in small.obsm if n not in LOADINGS]:
        work.obsm[name] = small.obsm[name]
    for name in small.obsp:
        work.obsp[name] = small.obsp[name]
    for name in small.uns:
        work.uns[name] = small.uns[name]


def _spread(values: NDArray[Any], used: NDArray[np.intp], n_vars: int, *, axis: int) -> NDArray[Any]:
    """Values of some genes among all: NaN for the others, or False."""
    if len(used) == n_vars:
        return values
    shape = list(values.shape)
    shape[axis] = n_vars
    kind = values.dtype.kind
    empty = {"b": False, "f": np.nan}.get(kind)
    result = np.full(shape, empty, dtype=values.dtype if kind in "bf" else np.float64 if kind in "iu" else object)
    result[(slice(None),) * axis + (used,)] = values
    return result


def _report(work: ad.AnnData, n_vars: int, n_used: int, source: str, mode: str) -> None:
    """One line about what was done, and one about layers that are larger than they need be."""
    kept = "which alone were kept (subset_genes=True)" if work.n_vars < n_vars else f"all {n_vars} were kept"
    logger.info(
        "computed RNA velocities (%s, %s) of %d of %d genes, %s; added layers['velocity'] (NaN for other genes, %d "
        "cells) and obsm['velocity_projected']",
        *(source, mode, n_used, n_vars, kept if n_used < n_vars else "all of them", work.n_obs),
    )
    size = 3 * 4 * work.n_obs * work.n_vars
    if n_used < work.n_vars and size > _LARGE:
        logger.warning(
            "three dense layers of all %d genes take %.0f GB; with subset_genes=True the genes that were not used are "
            "removed",
            *(work.n_vars, size / 1e9),
        )
