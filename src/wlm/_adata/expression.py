"""The matrix that principal components were computed on: which one it is, and how it was made from counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import anndata as ad
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from wlm._adata.columns import dense, read_mask
from wlm._adata.components import LOADINGS
from wlm._adata.genes import get_matrix, pca_offset
from wlm._logging import logger

Float64 = NDArray[np.float64]
#: Cells on which matrices and loadings are compared.
_N_CHECK = 500
#: Relative spread of the cells' totals below which they are equal.
_EQUAL = 1e-3
#: Largest natural logarithm of a count; anything larger is no logarithm.
_LARGEST_LOG = 30.0
#: Largest value of logarithms where nothing else says that they are any.
_USUAL_LOG = 20.0
#: Bases of logarithms that are tried where none is recorded, or the recorded one does not give back equal totals.
_BASES = (float(np.e), 2.0, 10.0)
#: Sum of squares of a component's loadings below which genes are missing: loadings are orthonormal.
_COMPLETE = 0.98
#: Least share of the loadings with which those that are left are compared with the components.
_COMPARABLE = 0.1
#: ``max_value`` of scaling that is tried: scanpy's tutorials and Seurat clip at it.
_CLIP = 10.0


@dataclass(frozen=True)
class Expression:
    r"""How x, the values that PCA was computed on, comes from normalised counts: :math:`x = \log_b(1 + cs) / \sigma`.

    ``matrix`` (n_obs, n_vars) is stored under ``name``. It holds x; or x before it was scaled, or after; or, where
    ``target`` is given, counts that are still to be brought to this total by cell. ``logged`` says that x is a
    logarithm to ``base``; ``std`` (n_vars,), or 1, that x was divided by; ``stored_std`` and ``stored_mean``, what
    undoes the scaling of ``matrix``.
    """

    name: str
    matrix: Any
    logged: bool
    base: float = float(np.e)
    std: Float64 | float = 1.0
    stored_std: Float64 | float = 1.0
    stored_mean: Float64 | float = 0.0
    target: float | None = None

    @property
    def space(self) -> str:
        """``"log"``, ``"scaled"`` (logarithms, then scaled), or ``"linear"`` (no logarithms)."""
        if not self.logged:
            return "linear"
        return "log" if isinstance(self.std, float) else "scaled"

    def counts(self, part: slice) -> Float64:
        """Normalised counts (m, n_vars) of some rows, where x is ``logged``."""
        return self._counts(read_rows(self.matrix, part))

    def _counts(self, rows: Float64) -> Float64:
        if self.target is not None:
            return rows * (self.target / np.maximum(rows.sum(1, keepdims=True), 1e-12))
        # Counts are not negative; rounding of what was scaled, and what was clipped, may be.
        return np.maximum(np.expm1((rows * self.stored_std + self.stored_mean) * np.log(self.base)), 0)

    def _values(self, rows: Float64) -> Float64:
        """x, up to a constant by gene, of stored rows."""
        return np.log1p(self._counts(rows)) / np.log(self.base) / self.std


def read_loadings(adata: ad.AnnData, vkey: str, use_rep: str) -> Float64:
    """Loadings (n_vars, k), 0 for genes without any; dynamo keeps those of the genes that PCA used."""
    key = LOADINGS[use_rep]
    if key in adata.varm:
        return np.nan_to_num(np.asarray(adata.varm[key], dtype=np.float64))
    if key == "PCs" and "PCs" in adata.uns and "use_for_pca" in adata.var:
        used = read_mask(adata.var, "use_for_pca")
        stored = np.asarray(adata.uns["PCs"], dtype=np.float64)
        if len(stored) == used.sum():
            loadings = np.zeros((adata.n_vars, stored.shape[1]))
            loadings[used] = stored
            return loadings
    raise KeyError(f"varm[{key!r}] is missing, so layers[{vkey!r}] cannot be projected; run sc.pp.pca(adata) first")


def loadings_share(loadings: Float64, genes: NDArray[np.bool_]) -> float:
    """Share of the loadings' sum of squares on some genes, of all that PCA used, those taken out since included."""
    squares = np.square(loadings)
    total = squares.sum() if is_complete(loadings) else loadings.shape[1]
    return float(squares[genes].sum() / total) if total > 0 else 0.0


def is_complete(loadings: Float64) -> bool:
    """Whether no gene of the PCA was taken out."""
    return bool((np.square(loadings).sum(axis=0) >= _COMPLETE).all())


def find_expression(adata: ad.AnnData, loadings: Float64, vkey: str, use_rep: str) -> Expression:
    """The matrix that PCA was computed on, found by comparing ``(matrix - mean) @ loadings`` with ``obsm[use_rep]``.

    ``X`` and the layers are tried as they are, then with the usual steps done on the side: normalised and logged,
    scaled, or unscaled. Where this cannot be decided it is said in the log, and ``X`` is taken.

    Parameters
    ----------
    loadings
        (n_vars, k).
    vkey
        The layer of velocities, which is not tried.
    use_rep
        The components, a key of :data:`wlm._adata.components.LOADINGS`.

    Raises
    ------
    ValueError
        If no matrix gives the components, or it is one of which the logarithm is not known.
    """
    names = [n for n in ("X", *adata.layers) if isinstance(n, str) and n != vkey and _is_numeric(get_matrix(adata, n))]
    why, warn = None, partial(_warn, use_rep)
    if use_rep not in adata.obsm:
        why = f"obsm[{use_rep!r}] is missing"
    elif not names:
        why = "there is no X and no other layer"
    if why is None:
        check = np.sort(np.random.default_rng(0).permutation(adata.n_obs)[:_N_CHECK])
        scores = dense(adata.obsm[use_rep])[check].astype(np.float64)
        for name in names:
            rows = read_rows(get_matrix(adata, name), check)
            if pca_offset(rows, scores, loadings) is not None:
                return _describe(adata, name, rows)
        for name in names:
            found = _prepared(adata, name, check, scores, loadings)
            if found is not None:
                logger.info(
                    "%s gives obsm[%r] after %s, which is done for the projection only",
                    *(_named(name), use_rep, found[0]),
                )
                return found[1]
        if is_complete(loadings):
            if "X" in names:
                raise ValueError(mismatch(names, use_rep))
            why = f"there is no X, and none of the layers {names} gives obsm[{use_rep!r}]"
        else:
            share = loadings_share(loadings, np.ones(adata.n_vars, dtype=bool))
            why = f"genes were taken out after the PCA ({share:.0%} of the loadings are left)"
            for name in names:
                rows = read_rows(get_matrix(adata, name), check)
                if share >= _COMPARABLE and _resembles(rows, scores, loadings):
                    warn(why, f"{_named(name)} had given it")
                    return _describe(adata, name, rows)
            if share >= _COMPARABLE and "X" in names:
                raise ValueError(mismatch(names, use_rep))
    if "X" not in names:
        return _guess(adata, why, warn)
    warn(why, "X had given it")
    return _describe(adata, "X", read_rows(adata.X, slice(0, _N_CHECK)))


def _guess(adata: ad.AnnData, why: str, warn: Callable[[str, str], None]) -> Expression:
    """Without X: logarithms of the spliced counts if X was logged, as :func:`wlm.pp.velocity` makes them."""
    if "log1p" in adata.uns and "spliced" in adata.layers:
        warn(why, "the logarithm of normalised layers['spliced'] had given it")
        target = float(np.median(read_rows(adata.layers["spliced"], slice(0, _N_CHECK)).sum(axis=1)))
        matrix = adata.layers["spliced"]
        return Expression("spliced", matrix, logged=True, base=_recorded_base(adata), target=max(target, 1e-12))
    warn(why, "it had been computed on values that are no logarithms")
    return Expression("X", None, logged=False)


def mismatch(names: list[str], use_rep: str) -> str:
    """What is wrong if loadings do not give the components, and what to run."""
    others = ", ".join(_named(name) for name in names)
    return (
        f"varm[{LOADINGS[use_rep]!r}] does not explain obsm[{use_rep!r}]: (X - mean) @ loadings differs from it, for "
        f"{others}, also normalised, logged or scaled, so that velocities of genes cannot be projected; X was changed "
        "after the PCA, the components were corrected (corrected ones belong under another key), or one of the two is "
        "another object's: run sc.pp.pca(adata) on log-normalised X first"
    )


def _warn(use_rep: str, why: str, assumed: str) -> None:
    logger.warning(
        "varm[%r] cannot be compared with obsm[%r]: %s; velocities are projected as if %s",
        *(LOADINGS[use_rep], use_rep, why, assumed),
    )


def _named(name: str) -> str:
    return "X" if name == "X" else f"layers[{name!r}]"


def _is_numeric(matrix: Any) -> bool:
    return matrix is not None and getattr(matrix, "dtype", np.dtype(object)).kind in "biuf"


def _describe(adata: ad.AnnData, name: str, rows: Float64) -> Expression:
    """What a matrix holds, of which ``rows`` (m, n_vars) are known."""
    matrix = get_matrix(adata, name)
    std, mean = _scaling(adata, rows)
    logs = rows * std + mean
    lowest, highest = float(logs.min(initial=0.0)), float(logs.max(initial=0.0))
    marked = "log1p" in adata.uns
    if lowest < -1e-3 * max(highest, 1.0):
        if marked:
            raise ValueError(
                f"{_named(name)} gives the components and has negative values, though uns['log1p'] says that counts "
                "were logged, and var['mean'] and var['std'] of sc.pp.scale do not make them logarithms again; put the "
                "log-normalised counts into X, run sc.pp.pca(adata), and wlm.pp.project_velocity(adata)"
            )
        return Expression(name, matrix, logged=False, std=std)
    whole = bool((logs == np.round(logs)).all())
    base = _base(adata, logs)
    logged = not whole and highest * np.log(base) < _LARGEST_LOG
    if not marked:
        logged &= highest < _USUAL_LOG and not _equal_totals(logs)
    return Expression(name, matrix, logged, base, std, std, mean)


def _scaling(adata: ad.AnnData, rows: Float64) -> tuple[Float64 | float, Float64 | float]:
    """Standard deviations and means that undo :func:`scanpy.pp.scale` of a matrix, or 1 and 0 if it was not scaled."""
    std = _stored(adata, "std")
    if std is None or len(rows) < 2:
        return 1.0, 0.0
    spread = rows.std(axis=0)
    varies = spread > 0
    if not varies.any():
        return 1.0, 0.0
    # Genes that were scaled spread by 1, and others as var["std"] says. Few cells of many do so in the middle only.
    sizes = np.abs(np.log(spread[varies])), np.abs(np.log(spread[varies] / std[varies]))
    if np.median(sizes[0]) > np.median(sizes[1]):
        return 1.0, 0.0
    mean = _stored(adata, "mean")
    return std, mean if mean is not None and rows.min() < 0 else 0.0


def _stored(adata: ad.AnnData, key: str) -> Float64 | None:
    """A column of ``var`` that :func:`scanpy.pp.scale` writes; standard deviations of 0 are 1 there."""
    if key not in adata.var:
        return None
    column = adata.var[[key]].to_memory()[key] if hasattr(adata.var, "to_memory") else adata.var[key]
    try:
        values = np.asarray(column, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if values.ndim != 1:
        return None
    return np.where(np.isfinite(values) & (values > 0), values, 1.0) if key == "std" else np.nan_to_num(values)


def _recorded_base(adata: ad.AnnData) -> float:
    """The base that :func:`scanpy.pp.log1p` noted; natural logarithms have none."""
    note = adata.uns["log1p"] if "log1p" in adata.uns else None
    try:
        base = float(np.asarray(note.get("base"), dtype=np.float64)) if isinstance(note, Mapping) else np.nan
    except (TypeError, ValueError):
        base = np.nan
    return base if np.isfinite(base) and base > 1 else float(np.e)


def _base(adata: ad.AnnData, logs: Float64) -> float:
    """The base of logarithms: the recorded one, or the first that gives equal totals by cell where that does not."""
    first = _recorded_base(adata)
    fits = (b for b in (first, *_BASES) if logs.max(initial=0.0) * np.log(b) < _LARGEST_LOG)
    return next((b for b in fits if _equal_totals(np.expm1(logs * np.log(b)))), first)


def _equal_totals(rows: Float64) -> bool:
    totals = rows.sum(axis=1)
    return len(totals) > 2 and bool(np.ptp(totals) < _EQUAL * np.abs(totals).mean())


def _prepared(
    adata: ad.AnnData, name: str, check: NDArray[np.intp], scores: Float64, loadings: Float64
) -> tuple[str, Expression] | None:
    """A matrix with which steps give the components, in words, and as an expression; None if none do."""
    matrix = get_matrix(adata, name)
    rows = read_rows(matrix, check)
    std = _stored(adata, "std")
    try:
        held = _describe(adata, name, rows)
    except ValueError:
        return None
    found: list[tuple[str, Expression]] = []
    if held.logged and held.space == "scaled":
        found.append(("undoing its scaling", replace(held, std=1.0)))
    elif held.logged and std is not None:
        found.append(("scaling", replace(held, std=std)))
    if rows.min(initial=0.0) >= 0:
        for scale in (1.0,) if std is None else (1.0, std):
            guess = Expression(name, matrix, logged=True, base=_recorded_base(adata), std=scale)
            words = "normalising and logging" + ("" if isinstance(scale, float) else ", and scaling")
            found.append((words, replace(guess, target=_fit_target(guess, rows, scores, loadings))))
    mean = _stored(adata, "mean")
    for words, expression in found:
        x = expression._values(rows)
        candidates = [x]
        if mean is not None and not isinstance(expression.std, float):
            candidates.append(np.minimum(x - mean / expression.std, _CLIP))
        if any(pca_offset(candidate, scores, loadings) is not None for candidate in candidates):
            return words, expression
    return None


def _fit_target(expression: Expression, rows: Float64, scores: Float64, loadings: Float64) -> float:
    """The total by cell for which normalised, logged counts come nearest to the components."""
    used = (loadings != 0).any(axis=1)
    k = min(scores.shape[1], loadings.shape[1])
    shares = rows[:, used] / np.maximum(rows.sum(1, keepdims=True), 1e-12)
    weights = loadings[used, :k] / (expression.std if isinstance(expression.std, float) else expression.std[used, None])
    scores = scores[:, :k] * np.log(expression.base)

    def rest(log_target: float) -> float:
        # Whatever PCA subtracted is a constant by component.
        return float((np.log1p(np.exp(log_target) * shares) @ weights - scores).var(axis=0).sum())

    grid = np.log(10.0) * np.arange(9)
    best = int(np.argmin([rest(t) for t in grid]))
    bounds = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    return float(np.exp(minimize_scalar(rest, bounds=bounds, method="bounded", options={"xatol": 1e-7}).x))


def _resembles(rows: Float64, scores: Float64, loadings: Float64) -> bool:
    """Whether the genes that are left follow the components as their loadings w say.

    Of the cells that PCA was computed on, the part of a component that some genes make up has the covariance
    ``(w * w).sum() * variance`` with the component, since the loadings are eigenvectors of the covariance.
    """
    k = min(scores.shape[1], loadings.shape[1])
    share = np.square(loadings[:, :k]).sum(axis=0)
    score = scores[:, :k] - scores[:, :k].mean(axis=0)
    part = (rows - rows.mean(axis=0)) @ loadings[:, :k]
    variance = np.square(score).sum(axis=0)
    known = (share > _COMPARABLE / 2) & (variance > 0)
    if not known.any():
        return True
    ratio = (part * score).sum(axis=0)[known] / variance[known] / share[known]
    return bool(0.5 < np.median(ratio) < 2)


def read_rows(matrix: Any, part: Any) -> Float64:
    """Some rows of a matrix of any kind, dense."""
    rows = matrix[part]
    if hasattr(rows, "compute"):
        rows = rows.compute()
    return np.asarray(rows.toarray() if hasattr(rows, "toarray") else rows, dtype=np.float64)


def parts_of(n: int, size: int = 2048) -> Iterator[slice]:
    """Rows 0 to n in parts that are made dense at a time."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
