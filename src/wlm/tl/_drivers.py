"""Genes that the dynamics turn towards a fate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import issparse
from scipy.stats import false_discovery_control

from wlm._adata.cells import read_rep
from wlm._adata.checks import check_integer
from wlm._adata.columns import dense, is_lazy
from wlm._adata.components import LOADINGS
from wlm._adata.fates import read_fate
from wlm._adata.genes import Receipt, get_matrix, read_receipt
from wlm._adata.mudata import get_target
from wlm._adata.times import find_observed, read_labels, with_unit
from wlm._adata.transcription_factors import find_factors
from wlm._logging import logger
from wlm._random import RNG, as_seed
from wlm._store.fit import StoredFit, check_representation, open_fit
from wlm._store.glossary import explain, in_lines
from wlm._store.group import fit_key
from wlm.core.drivers import (
    covariance,
    fate_gradient,
    means,
    permutation_p,
    permuted_slopes,
    resampled_slopes,
    rotation_p,
    slopes,
)

Floats = NDArray[np.float64]
#: False discovery rate up to which a gene is called a driver or a marker.
Q = 0.1
#: Fewer cells of a time than this say nothing about what goes with a fate.
N_LEAST = 10
#: Most cells of a time that are rolled out for the gradient.
N_GRADIENT = 500
#: Genes whose permuted effects are held at once.
_GENES = 2000


@dataclass(frozen=True)
class _Data:
    """The cells that are looked at: ``early`` (n,) are those before the last time, ``p`` (n,) is the fate or None."""

    x: NDArray[np.float32]
    v: NDArray[np.float32]
    f: NDArray[np.float32]
    times: Floats
    w: Floats | None
    p: Floats | None
    early: NDArray[np.bool_]

    def at(self, rows: NDArray[Any]) -> dict[str, Any]:
        """Fate, times and weights of some cells, as :mod:`wlm.core.drivers` takes them."""
        return {
            "p": None if self.p is None else self.p[rows],
            "times": self.times[rows],
            "w": None if self.w is None else self.w[rows],
        }


def drivers(
    adata: ad.AnnData,
    fate: str | tuple[str, Any] | None = None,
    *,
    key: str = "wlm",
    condition: str | None = None,
    times: Any = None,
    n_perm: int = 1000,
    n_boot: int = 200,
    transcription_factors: Any = None,
    rng: RNG = 0,
    mod: str | None = None,
) -> pd.DataFrame:
    r"""Rank genes by how the dynamics turn them towards a fate, before cells get there.

    At each time before the last training time, cells that go to the fate are compared with cells that do not. The
    comparison is of expression, velocity and force in the fitted principal components, projected on each gene through
    its loadings :math:`\ell_g` and divided by its standard deviation :math:`s_g`:

    .. math:: \text{effect}_g = \sum_t \frac{n_t}{n} \frac{\mathrm{Cov}_t(p, x)\cdot\ell_g}{\mathrm{sd}_t(p)\, s_g},

    the number of standard deviations by which the gene is higher in a cell whose probability :math:`p` of the fate is
    one standard deviation higher, among the :math:`n_t` cells of the same time. Without a fate the effect is the mean
    velocity of the population, :math:`\bar v\cdot\ell_g / s_g`, in standard deviations per time unit.

    A gene must pass two tests, and ``p`` is the larger of their p-values. The first permutes fates between the cells of
    one time: under its null, nothing goes with the fate. The second rotates the loadings at random, in closed form:
    under its null, the gene is no closer to the direction of the fate than any gene with the same decoded variance. The
    first test alone calls every gene that shares components with a driver; the second alone does not know how many
    cells there are. With two or three components the second test can tell little from chance. Cells that share a fate
    because they share a clone count for fewer than they seem: take one cell of each clone. If a fit predicts the fates,
    both tests are about the fates of that fit. The flow has no first test: genes that change because expression was
    normalised to a total pass the second.

    The loadings of the PCA are a linear decoder of the genes (``decode_r2`` is the share of each gene that it holds),
    and the dynamics come from the first model of the fit. An effect is not an intervention: genes that are switched on
    together have the same effect.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit on principal components.
    fate
        A name in ``uns["K_fates"]`` (:func:`wlm.tl.fates`); a column of ``obs`` with the probability of a fate for each
        cell; or a pair of a column and one of its labels, for cells whose own fate is known. A label says where a cell
        will end, not what it is when it is observed. Cells with a missing value are left out, and so are times at which
        fewer than ten cells have a value or all have the same. None: the flow of the whole population.
    key
        Name ``K`` of the fit; of fits by condition, the key of one.
    condition
        Of fits by condition, which one; the same as its key.
    times
        Observed times at which to compare cells; by default all training times before the last.
    n_perm
        Number of permutations. The smallest p-value is one over ``n_perm + 1``. For a false discovery rate over the
        whole table, take more than the number of genes divided by the number of discoveries that you hope for.
    n_boot
        Number of bootstrap samples of the cells of each time, for the intervals; 0 for none. The intervals do not know
        how other fits would differ.
    transcription_factors
        Names of genes to mark in the column ``tf``, from a list of your choice; a column of ``var`` of booleans; or
        ``"jaspar"`` for the 719 factors of vertebrates with a curated binding profile in JASPAR CORE 2022
        (Castro-Mondragon et al. 2022, Nucleic Acids Res. 50:D165), by their symbols in any case. A factor without a
        profile is not marked.
    rng
        Seed, numpy Generator or SeedSequence.
    mod
        Modality of a MuData that was fitted.

    Returns
    -------
    A row for each gene that can be decoded, with the largest effect first (in absolute value), float64:

    ``effect``, ``low``, ``high``
        In standard deviations of the gene, see above, with the 95 % interval over cells.
    ``p``, ``q``
        P-value and the false discovery rate (Benjamini and Hochberg) at which it is called.
    ``p_fate``, ``p_rotation``
        P-values of the two tests; without a fate only of the second.
    ``velocity``, ``force``
        The same as ``effect`` of velocity (standard deviations per time unit) and force (per time unit squared, or
        per time unit where dynamics are first-order); means where there is no fate.
    ``gradient``
        Change of the probability of the fate at the last time if the gene is a standard deviation higher, and the rest
        of the cell with it as it varies among cells of that time: the gradient through rollouts, by autograd, to a
        logistic regression of the fate on the cells of the last time; on at most 500 cells of each time. NaN
        where the cells of the last time have no fates or all the same, or rollouts cannot be differentiated.
    ``end``, ``q_end``
        The effect among cells of the last time, and its false discovery rate.
    ``change``
        Difference of the means at the last and the first time, in standard deviations: the naive answer.
    ``onset``
        First time at which the effect is at least half of its largest.
    ``role`` : str
        ``"driver"`` if ``q`` is at most 0.1; ``"marker"`` if only ``q_end`` is, so that the gene is known to differ
        where cells have arrived, and not on the way; else empty.
    ``decode_r2``
        See :func:`wlm.tl.fit`.
    ``tf`` : bool
        With ``transcription_factors``.
    ``at <time>``
        The effect at each time, the last included.

    ``attrs`` has ``fate``, ``times``, ``unit``, the ``verdict``, what its words mean (``glossary``) and the
    ``assumption`` that numbers rest on.

    Raises
    ------
    KeyError
        If there is no fit, fate or column, or what the fit stored for cells is missing.
    ValueError
        If the fit is not on principal components, genes cannot be decoded, no cells with different fates are left
        before the last time, ``times`` are not observed ones before the last, or no transcription factor is a gene.
    TypeError
        If ``fate`` is none of the above.

    Examples
    --------
    >>> import scanpy as sc
    >>> import wlm
    >>> adata = wlm.datasets.bifurcation(n_cells=100)
    >>> sc.pp.normalize_total(adata)
    >>> sc.pp.log1p(adata)
    >>> sc.pp.pca(adata, n_comps=5)
    >>> wlm.tl.fit(adata, "day", method="flow", show_progress=False)
    >>> table = wlm.tl.drivers(adata, ("fate", "A"), n_perm=200)
    >>> adata.var.loc[table.index[:20], "program"].unique().tolist()
    ['branch']
    """
    key = fit_key(adata, key, condition, mod)
    check_integer("n_perm", n_perm)
    check_integer("n_boot", n_boot, 0)
    target = get_target(adata, mod)
    cells, fit = open_fit(adata, key, mod, columns=_column(adata, target, fate))
    if fit.use_rep not in LOADINGS:
        raise ValueError(
            f"uns[{key!r}] was fitted on obsm[{fit.use_rep!r}], which has no loadings of genes; drivers need a fit on "
            f"principal components: wlm.tl.fit(adata, {fit.time_key!r}, use_rep='X_pca')"
        )
    receipt = read_receipt(cells, fit.uns["representation"])
    name, p = (None, None) if fate is None else _fate(cells, target, fit, fate)
    marked = find_factors(cells, transcription_factors)
    data = _read(cells, fit, p, times, name)
    genes = np.flatnonzero(np.isfinite(receipt.r2))
    loadings = np.asarray(cells.varm[LOADINGS[fit.use_rep]], dtype=np.float64)[genes, : fit.n_dims]
    sd = _deviations(cells, receipt, np.isin(fit.times(cells), fit.training))[genes]
    seed = as_seed(rng)
    table = _measure(data, fit, loadings / sd[:, None], n_perm, n_boot, seed)
    table["decode_r2"] = receipt.r2[genes].astype(np.float64)
    if marked is not None:
        table["tf"] = marked[genes]
    effects = [c for c in table if c.startswith("at ")]
    table = table[[*(c for c in table if c not in effects), *effects]]
    table.index = pd.Index(np.asarray(cells.var_names, dtype=object)[genes], name="gene")
    table = table.iloc[np.argsort(-table["effect"].abs().to_numpy(), kind="stable")]
    return _described(table, fit, data, name, n_perm, seed)


def _fate(cells: ad.AnnData, target: Any, fit: StoredFit, fate: Any) -> tuple[str, Floats]:
    """The name of the fate, and its probability (n_obs,)."""
    return read_fate(cells, target, [fit.key], fate, fit.uns.get("checksum", ""))


def _column(adata: Any, target: Any, fate: Any) -> list[str]:
    """The column of ``obs``, at either level, that a fate may stand in, to be read with the cells."""
    column = fate[0] if isinstance(fate, tuple) and fate else fate
    there = isinstance(column, str) and any(column in level.obs for level in (adata, target))
    return [column] if there else []


def _read(cells: ad.AnnData, fit: StoredFit, p: Floats | None, times: Any, name: str | None) -> _Data:
    """The cells of the training times that have a fate, checked."""
    x = read_rep(cells, fit.use_rep, fit.n_dims)
    check_representation(cells, fit, x)
    fields = []
    for field in ("velocity", "force"):
        if f"{fit.group}_{field}" not in cells.obsm:
            raise KeyError(f"obsm['{fit.group}_{field}'] is missing; run wlm.tl.fit again")
        fields.append(dense(cells.obsm[f"{fit.group}_{field}"]))
    t = fit.times(cells)
    trained = fit.training[np.isin(fit.training, t)]
    if len(trained) < 2:
        raise ValueError(f"cells of two training times are needed, found those of {trained.tolist()}")
    before = trained[:-1] if times is None else _wanted(times, fit, trained)
    keep = np.isin(t, [*before, trained[-1]])
    if p is not None:
        keep &= ~np.isnan(p)
        differ = [s for s in before if (keep & (t == s)).sum() >= N_LEAST and np.ptp(p[keep & (t == s)]) > 1e-9]
        if not differ:
            raise ValueError(
                f"the fate {name!r} does not differ between the cells of any one of the times "
                f"{[float(s) for s in before]}, before the last ({trained[-1]:g}), or fewer than {N_LEAST} have one; a "
                "fate says where a cell will end, not what it is when it is observed: pass probabilities for earlier "
                "cells, as wlm.tl.fates finds them"
            )
        if len(differ) < len(before):
            logger.warning(
                "cells at %s are left out: fewer than %d of them have a fate, or all have the same",
                *(", ".join(f"{s:g}" for s in before if s not in differ), N_LEAST),
            )
        keep &= np.isin(t, [*differ, trained[-1]])
    w = fit.weights_of(cells)
    return _Data(
        *(x[keep], fields[0][keep], fields[1][keep], t[keep]),
        None if w is None else w[keep],
        None if p is None else p[keep],
        t[keep] < trained[-1],
    )


def _wanted(times: Any, fit: StoredFit, trained: Floats) -> Floats:
    """The times that are asked for, which have to be training times with cells, and not the last."""
    wanted = [find_observed(float(t), trained, "times") for t in read_labels(times, fit.style)]
    if trained[-1] in wanted:
        raise ValueError(
            f"times must be before the last, {trained[-1]:g}: cells have arrived there; its effects are in the "
            "column 'end'"
        )
    return np.unique(wanted)


def _measure(data: _Data, fit: StoredFit, scaled: Floats, n_perm: int, n_boot: int, seed: int) -> pd.DataFrame:
    """Effects and their p-values; ``scaled`` (g, d) are loadings over standard deviations."""
    rng = np.random.default_rng(seed)
    early, last = data.early, ~data.early
    counts = np.unique(data.times[early], return_counts=True)[1]
    share = counts / counts.sum()  # (T,): a time weighs as much as it has cells
    values = data.v if data.p is None else data.x

    def project(directions: Floats) -> Floats:
        return directions @ scaled.T

    def slope(of: NDArray[Any], rows: NDArray[np.bool_]) -> Floats:
        at = data.at(rows)
        return means(of[rows], at["times"], at["w"]) if data.p is None else slopes(of[rows], **at)

    by_time = slope(values, early)  # (T, d)
    direction = share @ by_time
    out: dict[str, Any] = {"effect": project(direction)}
    low = high = np.full(len(scaled), np.nan)
    if n_boot:
        drawn = share @ resampled_slopes(values[early], n_boot=n_boot, rng=rng, **data.at(early))  # (n_boot, d)
        parts = [np.quantile(drawn @ part.T, (0.025, 0.975), axis=0) for part in _split(scaled)]
        low, high = np.concatenate(parts, axis=1)
    out |= {"low": low, "high": high}
    everywhere = data.times if data.p is not None else np.zeros(len(data.x))  # flow crosses times, fates differ in one
    cov = covariance(data.x[early], everywhere[early], None if data.w is None else data.w[early])
    out["p"] = rotation = rotation_p(scaled, direction, cov)
    if data.p is not None:
        fated = _permuted(values, data, early, direction, scaled, n_perm, rng)
        out["p"] = np.maximum(fated, rotation)
    out["q"] = false_discovery_control(out["p"])
    if data.p is not None:
        out |= {"p_fate": fated, "p_rotation": rotation}
    out |= {name: project(share @ slope(of, early)) for name, of in (("velocity", data.v), ("force", data.f))}
    at_end = slope(values, last)[0] if last.any() else np.full(scaled.shape[1], np.nan)
    if data.p is not None:
        out["gradient"] = _gradients(data, fit, scaled, seed)
        out["end"] = project(at_end)
        out["q_end"] = np.full(len(scaled), np.nan)
        if np.any(at_end != 0) and np.isfinite(at_end).all():
            p_end = _permuted(values, data, last, at_end, scaled, n_perm, rng)
            w_end = None if data.w is None else data.w[last]
            turned = rotation_p(scaled, at_end, covariance(data.x[last], data.times[last], w_end))
            out["q_end"] = false_discovery_control(np.maximum(p_end, turned))
    whole = means(data.x, data.times, data.w)
    out["change"] = project(whole[-1] - whole[0])
    along = project(by_time if not np.isfinite(at_end).all() else np.vstack([by_time, at_end]))  # (T, g)
    shown = np.unique(data.times[early] if len(along) == len(by_time) else data.times)
    size = np.abs(along)
    out["onset"] = shown[np.argmax(size >= size.max(axis=0) / 2, axis=0)]
    marker = out["q_end"] <= Q if data.p is not None else np.zeros(len(scaled), dtype=bool)
    out["role"] = np.where(out["q"] <= Q, "driver", np.where(marker, "marker", "")).astype(object)
    return pd.DataFrame(out | {f"at {t:g}": row for t, row in zip(shown, along, strict=True)})


def _permuted(
    values: NDArray[Any],
    data: _Data,
    rows: NDArray[np.bool_],
    found: Floats,
    scaled: Floats,
    n_perm: int,
    rng: np.random.Generator,
) -> Floats:
    """P-values (g,) of the slopes ``found`` (d,) of some cells among those of permuted fates."""
    counts = np.unique(data.times[rows], return_counts=True)[1]
    null = counts / counts.sum() @ permuted_slopes(values[rows], n_perm=n_perm, rng=rng, **data.at(rows))  # (n_perm, d)
    return np.concatenate([permutation_p(part @ found, null @ part.T) for part in _split(scaled)])


def _split(scaled: Floats) -> list[Floats]:
    """Genes in parts of which permutations fit into memory."""
    return np.array_split(scaled, -(-len(scaled) // _GENES))


def _gradients(data: _Data, fit: StoredFit, scaled: Floats, seed: int) -> Floats:
    """Change (g,) of the fate's probability at the last time with each gene, see :func:`drivers`."""
    from sklearn.linear_model import LogisticRegression

    last, p = np.flatnonzero(~data.early), data.p
    if p is None or len(last) == 0 or not p[last].min() < 0.5 <= p[last].max():
        return np.full(len(scaled), np.nan)
    location, size = data.x[last].mean(axis=0), float(data.x[last].std())
    standard = (data.x[last] - location) / size
    # A cell of probability p is p of one that goes to the fate, and 1 - p of one that does not.
    share = np.concatenate([p[last], 1 - p[last]])
    weights = share if data.w is None else share * np.tile(data.w[last], 2)
    model = LogisticRegression().fit(np.tile(standard, (2, 1)), np.repeat([1, 0], len(last)), sample_weight=weights)
    a = model.coef_[0] / size
    fate = a, float(model.intercept_[0] - a @ location)
    rng = np.random.default_rng(seed)
    out = []
    times, counts = np.unique(data.times[data.early], return_counts=True)
    for t in times:
        here = rng.permutation(np.flatnonzero(data.times == t))[:N_GRADIENT]
        w = None if data.w is None else data.w[here]
        span = (float(t), float(data.times[last[0]]))
        found = fate_gradient(fit.dynamics, data.x[here], data.v[here], span, fate, w=w, seed=seed)
        if found is None:
            logger.warning("rollouts of method %r cannot be differentiated: gradients are NaN", fit.uns["method"])
            return np.full(len(scaled), np.nan)
        out.append(np.average(found[1], axis=0, weights=w) @ covariance(data.x[here], data.times[here], w))
    return np.average(out, axis=0, weights=counts) @ scaled.T


def _deviations(cells: ad.AnnData, receipt: Receipt, known: NDArray[np.bool_]) -> Floats:
    """Standard deviation (n_vars,) of each gene over the cells of the training times, as the PCA saw them."""
    if is_lazy(cells):
        raise ValueError("drivers need the spread of each gene, and X is on disk; run adata = adata.to_memory() first")
    matrix = get_matrix(cells, receipt.layer)
    if matrix is None:
        raise KeyError(f"layer {receipt.layer!r}, which the PCA was computed on, is missing; restore it")
    matrix = matrix[np.flatnonzero(known)]
    if issparse(matrix):
        from sklearn.utils.sparsefuncs import mean_variance_axis

        variance = mean_variance_axis(matrix.tocsr().astype(np.float64), axis=0)[1]
    else:
        variance = np.asarray(matrix, dtype=np.float64).var(axis=0)
    return np.sqrt(np.maximum(variance, 1e-12))


def _described(
    table: pd.DataFrame, fit: StoredFit, data: _Data, name: str | None, n_perm: int, seed: int
) -> pd.DataFrame:
    """The table with what its numbers are about in ``attrs``, and a line in the log."""
    n = int((table["role"] == "driver").sum())
    where = "of the flow" if name is None else f"of fate {name!r}"
    lead = ", ".join(map(str, table.index[table["role"] == "driver"][:5]))
    verdict = f"{n} of {len(table)} genes are drivers {where} at a false discovery rate of {Q:g}"
    table.attrs |= {
        "key": fit.key,
        "fate": name,
        "times": np.unique(data.times).tolist(),
        "time": with_unit(fit.time_key, fit.unit),
        "unit": "SD" if name is not None else f"SD/{fit.unit or 'time unit'}",
        "n_perm": n_perm,
        "seed": seed,
        "assumption": "linear decoder: genes move as the loadings of the PCA say",
        "verdict": verdict + (f": {lead}" + (", ..." if n > 5 else "") if n else ""),
    }
    table.attrs["glossary"] = explain("drivers", table.attrs["verdict"])
    logger.info("%s", in_lines("drivers", f"{table.attrs['verdict']} (linear decoder)"))
    if name is not None and ((table["p"] <= 1 / (n_perm + 1) + 1e-12) & (table["q"] > Q)).any():
        logger.warning(
            "no p-value can be smaller than 1 / %d with n_perm=%d, which is too large for q among %d genes: some pass "
            "every permutation and are not called; pass a larger n_perm",
            *(n_perm + 1, n_perm, len(table)),
        )
    return table
