"""Net rates of growth, from the genes of cells that divide and of cells that die."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._adata.cells import read_rep
from wlm._adata.columns import get_x, read_column
from wlm._adata.components import find_rep
from wlm._adata.gene_sets import APOPTOSIS, PROLIFERATION, symbols
from wlm._adata.times import read_times
from wlm._logging import logger

#: Fewest genes of a set by which cells are scored; neighbours over which scores are averaged, the cell among them.
MIN_GENES, N_NEIGHBOURS = 20, 15
#: Rows of the matrix that are looked at to tell counts from logarithms.
N_LOOKED = 500


def growth_prior(
    adata: ad.AnnData,
    *,
    organism: str = "human",
    time_key: str | None = None,
    proliferation: Sequence[str] | str | None = None,
    apoptosis: Sequence[str] | str | None = None,
    layer: str | None = None,
    use_rep: str | None = None,
    scale: float = 0.5,
    key_added: str = "wlm_growth_prior",
    copy: bool = False,
) -> ad.AnnData | None:
    """Estimate the net rate of each cell, births less deaths, from what it expresses: for ``growth_key`` of ``tl.fit``.

    The rate is the proliferation score minus the apoptosis score, averaged over the 15 nearest cells, centred at each
    time, divided by its standard deviation, and multiplied by ``scale``. It is a guess with two assumptions: these
    genes show which cells divide and which die, and one standard deviation corresponds to the rate ``scale``.
    ``tl.fit(growth=True)`` learns a factor for it.

    Parameters
    ----------
    adata
        Cells with log-normalised expression of all genes in ``X`` or ``layer``: few of the genes used here are highly
        variable.
    organism
        ``"human"`` or ``"mouse"``: how the symbols of the genes are written.
    time_key
        Column of ``obs`` with the times at which rates are centred; by default over all cells.
    proliferation, apoptosis
        Genes, as symbols in ``var_names``, or a column of ``obs`` with a score. By default the columns of other tools,
        if present: ``cell_growth_rate`` (Waddington-OT: the logarithm is the rate, and nothing else is read),
        ``proliferation`` and ``apoptosis`` (moscot), ``S_score`` and ``G2M_score`` (scanpy, their mean); else 97 genes
        of the phases S and G2/M (Tirosh et al. 2016) and 39 that carry out apoptosis (Elmore 2007; Singh et al. 2019).
        Genes in both sets count for neither. An empty list leaves a set out.
    layer
        Layer with the expression; by default ``X``. ``raw`` is never read.
    use_rep
        Key of ``obsm`` with the coordinates for the neighbours; by default ``"X_pca"`` or ``"pca"``.
    scale
        Rate, per unit of time, of one standard deviation of the score.
    key_added
        Column of ``obs`` for the result.
    copy
        Return a copy with the result instead of writing to ``adata``.

    Returns
    -------
    None, or the copy if ``copy=True``. Written to ``adata``:

    ``obs[key_added]`` : float64
        Net rate of each cell per unit of time, relative to the mean of its time; NaN without a time.
    ``uns[key_added]`` : dict
        ``source``, in words; the genes of each set that were used, ``proliferation`` and ``apoptosis``, and ``scale``.

    Raises
    ------
    KeyError, ValueError, TypeError
        If genes or columns are missing, fewer than 20 genes of a set are there, or the matrix holds counts.

    Examples
    --------
    >>> import numpy as np
    >>> import wlm
    >>> adata = wlm.datasets.branching_growth(50, n_founders=500)
    >>> adata.obs["proliferation"], adata.obs["apoptosis"] = adata.obs["true_growth"], 0.0
    >>> wlm.pp.growth_prior(adata, time_key="day", use_rep="X_position")
    >>> bool(np.corrcoef(adata.obs["wlm_growth_prior"], adata.obs["true_growth"])[0, 1] > 0.8)
    True
    """
    if organism not in ("human", "mouse"):
        raise ValueError(f"organism must be 'human' or 'mouse', found {organism!r}")
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not scale > 0:
        raise ValueError(f"scale must be a positive number, found {scale!r}")
    x = read_rep(adata, find_rep(adata, use_rep))
    times = np.zeros(adata.n_obs) if time_key is None else read_times(adata, time_key, "drop")[0]
    note: dict[str, Any] = {"scale": float(scale)}
    if proliferation is None and apoptosis is None and "cell_growth_rate" in adata.obs:
        factors = _numbers(adata, "cell_growth_rate")
        if (factors <= 0).any():
            raise ValueError("obs['cell_growth_rate'] must be positive: it is e^(net rate) in Waddington-OT")
        rates, note["source"] = _smooth(x, np.log(factors)), "logarithm of obs['cell_growth_rate']"
        rates = _centred(rates, times)
    else:
        rates = _scored(adata, organism, proliferation, apoptosis, layer, note)
        rates = _centred(_smooth(x, rates), times)
        spread = np.nanstd(rates)
        if not spread > 0:
            raise ValueError(f"{note['source']}: scores are the same for all cells; name other genes or columns")
        rates = scale * rates / spread
    target = adata.copy() if copy else adata
    target.obs[key_added], target.uns[key_added] = rates, note
    logger.info(
        "growth prior: %s; relative to the mean of each time; added obs[%r], uns[%r]",
        *(note["source"], key_added, key_added),
    )
    return target if copy else None


def _scored(
    adata: ad.AnnData,
    organism: str,
    proliferation: Sequence[str] | str | None,
    apoptosis: Sequence[str] | str | None,
    layer: str | None,
    note: dict[str, Any],
) -> NDArray[np.float64]:
    """Score (n,) of proliferation less that of apoptosis; ``note`` gets what it rests on."""
    found, words = {}, []
    asked = {"proliferation": proliferation, "apoptosis": apoptosis}
    defaults = {"proliferation": PROLIFERATION, "apoptosis": APOPTOSIS}
    sets: dict[str, list[str]] = {}
    for name, wanted in asked.items():
        column = wanted if isinstance(wanted, str) else name if wanted is None and name in adata.obs else None
        if column is not None:
            found[name] = _numbers(adata, column)
            words.append(f"{name} by obs[{column!r}]")
        elif name == "proliferation" and wanted is None and {"S_score", "G2M_score"} <= set(adata.obs):
            found[name] = (_numbers(adata, "S_score") + _numbers(adata, "G2M_score")) / 2
            words.append("proliferation by obs['S_score'] and obs['G2M_score']")
        else:
            own: list[tuple[str, ...]] = [(gene,) for gene in wanted or ()]
            names = symbols(defaults[name], organism) if wanted is None else own
            sets[name] = _present(adata, name, names, organism) if names else []
    both = set(sets.get("proliferation", [])) & set(sets.get("apoptosis", []))
    for name, genes in sets.items():
        used = [gene for gene in genes if gene not in both]
        note[name] = np.array(used, dtype=object)
        found[name] = _score(adata, used, layer) if used else np.zeros(adata.n_obs)
        words.append(f"{name} by {len(used)} genes")
    note["source"] = ", ".join(words)
    return found["proliferation"] - found["apoptosis"]


def _present(adata: ad.AnnData, name: str, wanted: list[tuple[str, ...]], organism: str) -> list[str]:
    """The genes that are there, or the reason why there are too few."""
    there = set(adata.var_names.astype(str))
    genes = [next(gene for gene in names if gene in there) for names in wanted if there & set(names)]
    if len(genes) < min(MIN_GENES, len(wanted)):
        spelled = {gene.upper() for gene in there} & {gene.upper() for names in wanted for gene in names}
        other = "mouse" if organism == "human" else "human"
        why = (
            f"they are written as those of another organism: pass organism={other!r}"
            if len(spelled) >= MIN_GENES
            else f"adata has {adata.n_vars} genes; a choice of highly variable ones loses them, and symbols are wanted "
            "as var_names: score before the choice, or name genes, or columns of obs with scores"
        )
        raise ValueError(
            f"{len(genes)} of {len(wanted)} genes of {name} are in var_names, {MIN_GENES} are wanted; {why}"
        )
    return genes


def _score(adata: ad.AnnData, genes: list[str], layer: str | None) -> NDArray[np.float64]:
    """The score of genes by scanpy, with arguments that do not depend on its version; ``adata`` stays as it is."""
    import scanpy as sc

    if layer is not None and layer not in adata.layers:
        raise KeyError(f"layers[{layer!r}] is missing; layers are {list(adata.layers)}")
    matrix, where = (get_x(adata), "X") if layer is None else (adata.layers[layer], f"layers[{layer!r}]")
    if matrix is None:
        raise ValueError("adata has no X to score genes in; name a layer, or columns of obs with scores")
    some = matrix[:N_LOOKED]
    some = np.asarray(some.toarray() if hasattr(some, "toarray") else some, dtype=np.float64)
    if (some >= 0).all() and (some == np.round(some)).all() and some.max() > 1:
        raise ValueError(f"{where} holds counts; run sc.pp.normalize_total(adata) and sc.pp.log1p(adata) first")
    own = ad.AnnData(matrix, obs=pd.DataFrame(index=adata.obs_names), var=pd.DataFrame(index=adata.var_names))
    pinned: dict[str, Any] = {"ctrl_size": 50, "n_bins": 25, "random_state": 0, "use_raw": False}
    if "ctrl_as_ref" in inspect.signature(sc.tl.score_genes).parameters:
        pinned["ctrl_as_ref"] = True
    try:
        sc.tl.score_genes(own, genes, score_name="score", **pinned)
    except RuntimeError as error:
        raise ValueError(f"genes cannot be scored ({error}); adata has {adata.n_vars} genes, all are wanted") from error
    return own.obs["score"].to_numpy(dtype=np.float64)


def _numbers(adata: ad.AnnData, column: str) -> NDArray[np.float64]:
    """A column of ``obs`` as numbers (n,)."""
    values = pd.to_numeric(read_column(adata, column), errors="coerce").to_numpy(dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"obs[{column!r}] must hold finite numbers; {int((~np.isfinite(values)).sum())} are none")
    return values


def _smooth(x: NDArray[np.float32], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means (n,) over the nearest cells of ``x`` (n, d), each among its own."""
    from sklearn.neighbors import NearestNeighbors

    n = min(N_NEIGHBOURS, len(x))
    return values[NearestNeighbors(n_neighbors=n).fit(x).kneighbors(x, return_distance=False)].mean(axis=1)


def _centred(values: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values (n,) less their mean at each time; NaN without a time."""
    column = pd.Series(values)
    return (column - column.groupby(times).transform("mean")).to_numpy()
