"""RNA velocity from spliced and unspliced counts, by scVelo."""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stdout
from typing import Any

import anndata as ad
import numpy as np

from wlm._adata.columns import layer_names
from wlm._logging import logger
from wlm.pp._velocity import project_velocity

MODES = ("deterministic", "stochastic", "dynamical")


def velocity(
    adata: ad.AnnData,
    *,
    mode: str = "deterministic",
    min_shared_counts: int = 20,
    n_top_genes: int | None = 2000,
    n_comps: int = 30,
    n_neighbors: int = 30,
    pseudotime: bool = False,
    copy: bool = False,
) -> ad.AnnData | None:
    """Compute RNA velocities with scVelo and project them: from counts to ``fit`` in one call.

    Where ``obsm["X_pca"]`` is missing, genes are filtered, counts normalised by cell, ``X`` set to the
    logarithm of the normalised spliced counts, and principal components computed. Otherwise genes, ``X``
    and components stay as they are. Then neighbours, moments, velocities, and
    :func:`wlm.pp.project_velocity`. Needs the extra ``velocity`` (``pip install 'wlm[velocity]'``).

    Parameters
    ----------
    adata
        With counts in ``layers["spliced"]`` and ``layers["unspliced"]``.
    mode
        scVelo's model: ``"deterministic"`` (steady state), ``"stochastic"`` (scVelo's own default) or
        ``"dynamical"`` (slow). On the simulated bifurcation, whose true velocities are known, the
        deterministic ones point best (see the benchmarks).
    min_shared_counts, n_top_genes
        Keep genes with that many counts in cells with both kinds of molecules, and of them the most variable;
        ``n_top_genes=None`` keeps all of them.
    n_comps
        Principal components.
    n_neighbors
        Neighbours for the moments and for the smoothing of the projection.
    pseudotime
        Also order the cells along the velocities, in ``obs["velocity_pseudotime"]`` (0 to 1): for cells of one
        sample, whose bins (:func:`wlm.pp.bin_time`) can stand in for sampling times.
    copy
        Return a copy with the result instead of writing to ``adata``.

    Returns
    -------
    None, or the copy if ``copy=True``. Written to ``adata``, all or nothing (its genes are subset where
    they are filtered): what scVelo writes (``layers["velocity"]``, ``"Ms"``, ``"Mu"``,
    ``var["velocity_genes"]``, ...), ``X``, ``obsm["X_pca"]`` and ``varm["PCs"]`` if they were missing, the
    neighbour graph, and ``obsm["velocity_projected"]``.

    Raises
    ------
    ImportError
        If scVelo is not installed, or does not work with the versions of numpy and pandas that are.
    KeyError, ValueError
        If a layer is missing, or what it holds are not counts.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {list(MODES)}, found {mode!r}")
    _check(adata)
    scv = _scvelo()
    import scanpy as sc

    work = adata.copy()
    has_pca = "X_pca" in work.obsm
    # scVelo prints its progress and warns of its own future; both are for its developers.
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            if not has_pca:
                scv.pp.filter_genes(work, min_shared_counts=min_shared_counts)
                if work.n_vars < 2:
                    raise ValueError(
                        f"{work.n_vars} of {adata.n_vars} genes have {min_shared_counts} counts in cells with both "
                        "kinds of molecules; lower min_shared_counts"
                    )
                work.X = work.layers["spliced"].copy()
            if _are_counts(work.layers["spliced"]):
                # Layers only, by their own totals: where X is log-normalised already it stays.
                scv.pp.normalize_per_cell(work, enforce=not has_pca)
            if not has_pca:
                sc.pp.log1p(work)
                if n_top_genes is not None and n_top_genes < work.n_vars:
                    sc.pp.highly_variable_genes(work, n_top_genes=n_top_genes)
                    work._inplace_subset_var(work.var["highly_variable"].to_numpy())
                sc.pp.pca(work, n_comps=min(n_comps, work.n_vars - 1, work.n_obs - 1))
            dims = min(n_comps, work.obsm["X_pca"].shape[1])
            sc.pp.neighbors(work, n_neighbors=min(n_neighbors, work.n_obs - 1), n_pcs=dims)
            warnings.simplefilter("ignore")  # again: scVelo's decorators reset the filters
            scv.pp.moments(work, n_pcs=None, n_neighbors=None)
            if mode == "dynamical":
                scv.tl.recover_dynamics(work, n_jobs=1, show_progress_bar=False)
            scv.tl.velocity(work, mode=mode)
            if pseudotime:
                scv.tl.velocity_graph(work, n_jobs=1, show_progress_bar=False)
                scv.tl.velocity_pseudotime(work)
        except (AttributeError, TypeError) as error:
            raise ImportError(
                f"scVelo {scv.__version__} does not work with numpy {np.__version__}: {error}; "
                "run pip install 'numpy<2.4' 'pandas<3', or give velocities that were computed elsewhere"
            ) from error
    project_velocity(work)
    logger.info(
        "computed RNA velocities (scVelo %s, %s); added layers['velocity'] (%d genes x %d cells) and "
        "obsm['velocity_projected']",
        scv.__version__,
        mode,
        work.n_vars,
        work.n_obs,
    )
    if copy:
        return work
    adata._init_as_actual(work)
    return None


def _check(adata: Any) -> None:
    if not isinstance(adata, ad.AnnData):
        raise TypeError(f"adata must be an AnnData object, found {type(adata).__name__}")
    missing = [k for k in ("spliced", "unspliced") if k not in adata.layers]
    if missing:
        raise KeyError(
            f"layers {missing} are missing; layers has {layer_names(adata)}; count them with velocyto, "
            "kb-python, STARsolo or alevin-fry first"
        )
    if adata.isbacked or adata.is_view:
        kind = "backed" if adata.isbacked else "a view"
        remedy = "to_memory()" if adata.isbacked else "copy()"
        raise ValueError(f"adata is {kind}; run adata = adata.{remedy} first")
    for name in ("spliced", "unspliced"):
        layer = adata.layers[name]
        if layer.min() < 0 or not np.isfinite(layer.sum()):
            raise ValueError(f"layers[{name!r}] has negative or missing values; molecule counts are wanted")


def _are_counts(layer: Any) -> bool:
    values = layer.data if hasattr(layer, "data") and not isinstance(layer, np.ndarray) else np.asarray(layer)
    return bool((values == np.round(values)).all())


def _scvelo() -> Any:
    try:
        import scvelo
    except ImportError as error:
        raise ImportError(
            f"scVelo cannot be imported ({error}); run pip install 'wlm[velocity]', "
            "or give velocities that were computed elsewhere"
        ) from error
    return scvelo
