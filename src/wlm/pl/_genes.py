"""Expression of genes over time, observed and predicted."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import partial
from typing import Any

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from wlm._adata.cells import read_weights
from wlm._adata.columns import is_lazy, layer_names
from wlm._adata.components import LOADINGS
from wlm._adata.genes import Receipt, decode, explains, get_matrix, read_receipt
from wlm._adata.times import read_labels
from wlm._random import RNG, as_seed
from wlm._store.fit import StoredFit, open_fit
from wlm.core.uncertainty import quantiles
from wlm.pl._basis import OBSERVED, PREDICTED, finish, time_label
from wlm.pl._trend import Floats, trend
from wlm.tl import predict

#: Median of observed cells.
_DARK = "#404040"
#: Points of observed cells at each time.
_MAX_POINTS = 150
#: R² below which the title says that the gene is poorly decoded.
_POOR = 0.1
#: Quantiles over cells: the bands and, in the middle, the line.
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def genes(
    adata: ad.AnnData,
    genes: str | Sequence[str],
    *,
    key: str = "wlm",
    times: Any = None,
    layer: str | None = None,
    n_cells: int | None = None,
    mod: str | None = None,
    rng: RNG = 0,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Any:
    """Draw the expression of genes over time, observed and predicted, a panel for each gene.

    The line is the median over predicted cells, dashed after the last training time; the bands are 25-75 %
    and 5-95 %. The cells are those of :func:`wlm.tl.predict` between and after the training times, and at
    the training times, from which predictions start, the observed ones, decoded like the predicted ones.
    Decoding leaves out what the principal components do not hold, so that the bands are narrower than the
    spread of observed cells: the title has the R² of decoding (``var["K_decode_r2"]``). Points are observed
    cells, with their median and 25-75 %, hollow at held-out times.

    Parameters
    ----------
    adata
        An object with a fit on principal components.
    genes
        One or several of ``var_names``.
    key
        Name of the fit.
    times
        Times to include besides the observed ones and a grid between them, as numbers or labels; forecasts
        for example, to which the trend is then continued.
    layer
        Where to read observed expression: a key of ``layers``, or ``"X"``; by default the matrix that the
        PCA was computed on. To name its copy if it was changed since.
    n_cells
        Predicted cells for each time, see :func:`wlm.tl.predict`; all by default.
    mod
        Modality of a MuData that was fitted.
    rng
        Seed of the prediction and of the choice of points.
    ax
        Axes to draw on, for one gene.
    show
        Show the figure; by default in interactive mode only.
    return_fig
        Return the figure.

    Returns
    -------
    The figure, or the axes (n_genes,), or None if the figure was shown.

    Raises
    ------
    KeyError
        If there is no fit, gene or layer of that name.
    ValueError
        If genes cannot be decoded, the layer does not hold what the PCA was computed on, or ``ax`` is given
        for several genes.
    """
    cells, fit = open_fit(adata, key, mod)
    names = list(dict.fromkeys([genes] if isinstance(genes, str) else genes))
    if ax is not None and len(names) > 1:
        raise ValueError(f"ax holds one panel, found {len(names)} genes; leave ax out, or draw each gene on its own")
    wanted = np.empty(0) if times is None else read_labels(times, fit.style)
    receipt = read_receipt(cells, fit.uns["representation"])
    index = _find(cells, names, receipt)
    layer = receipt.layer if layer is None else layer
    observed = _observed(cells, fit, layer, index)
    seed = as_seed(rng)
    ask = partial(predict, adata, key=key, n_cells=n_cells, rng=seed, mod=mod)
    populations = trend(cells, fit, wanted, ask)
    # Only the genes that are drawn are decoded: all of them at all these times could fill the memory.
    loadings, mean = np.asarray(cells.varm[LOADINGS[fit.use_rep]])[index], receipt.mean[index]
    predicted = np.stack([quantiles(decode(p.x, loadings, mean), _QUANTILES, p.w) for p in populations])
    times = np.array([p.time for p in populations])
    last = max(p.time for p in populations if p.observed)

    figure, axes, columns = _panels(len(names), ax)
    for k, panel in enumerate(axes):
        _draw_predicted(panel, times, predicted[..., k], last)
        _draw_observed(panel, cells, fit, observed[:, k], np.random.default_rng(seed))
        r2 = float(receipt.r2[index[k]])
        panel.set_title(f"{names[k]}\nR² {r2:.2f}" + (": poorly decoded" if r2 < _POOR else ""), fontsize="medium")
        panel.set_xlabel(time_label(fit))
        if k % columns == 0:
            panel.set_ylabel(f"expression ({layer})")
        panel.spines[["top", "right"]].set_visible(False)
    handles = _handles(held_out=len(fit.observed) > len(fit.training), forecast=times[-1] > last)
    if ax is None:
        n = -(-len(handles) // 2) if columns > 2 else 2  # two rows where there is room
        figure.legend(handles=handles, loc="outside lower center", ncols=n, frameon=False, fontsize="small")
    else:
        ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize="small")
    return finish(figure, axes, show, return_fig)


def _find(adata: ad.AnnData, names: list[str], receipt: Receipt) -> list[int]:
    """Columns of the genes; refuses those that do not exist or cannot be decoded."""
    if not names:
        raise ValueError("genes must name one or more of var_names, found none")
    unknown = [g for g in names if g not in adata.var_names]
    if unknown:
        lower = {str(g).lower(): g for g in adata.var_names}
        close = [difflib.get_close_matches(str(g).lower(), lower, n=1) for g in unknown[:5]]
        found = ", ".join(
            f"{g!r} (did you mean {lower[c[0]]!r}?)" if c else repr(g) for g, c in zip(unknown, close, strict=False)
        )
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise KeyError(f"not in var_names: {found}{more}")
    if not adata.var_names.is_unique:
        raise ValueError("var_names are not unique; run adata.var_names_make_unique() first")
    index = [int(i) for i in adata.var_names.get_indexer(names)]
    lost = [g for g, i in zip(names, index, strict=True) if np.isnan(receipt.r2[i])]
    if lost:
        raise ValueError(
            f"{', '.join(map(repr, lost[:5]))}{' and more' if len(lost) > 5 else ''} cannot be decoded: constant, "
            "or without loadings, as genes that are not highly variable; run sc.pp.pca with "
            "these genes and fit again"
        )
    return index


def _observed(adata: ad.AnnData, fit: StoredFit, layer: str, index: list[int]) -> Floats:
    """Observed expression (n_obs, n_genes), in the units that predictions have."""
    if is_lazy(adata):
        raise ValueError("observed cells cannot be drawn with X on disk; run adata = adata.to_memory() first")
    matrix = get_matrix(adata, layer)
    if matrix is None:
        raise KeyError(f"layer {layer!r} is missing; layers has {layer_names(adata)}, and 'X' names X")
    # The loadings of a part of the genes do not give the scores: nothing can be said then.
    complete = pd.Index(fit.uns["representation"].get("genes", [])).isin(adata.var_names).all()
    if complete and not explains(adata, fit.use_rep, layer):
        raise ValueError(
            f"{layer!r} does not hold the values that the PCA was computed on, so that it cannot be drawn "
            "beside predictions; pass the layer= that does"
        )
    matrix = matrix[:, index]
    return np.asarray(matrix.toarray() if hasattr(matrix, "toarray") else matrix, dtype=np.float64)


def _panels(n: int, ax: Axes | None) -> tuple[Figure, NDArray[np.object_], int]:
    """The figure, ``n`` axes on it, and how many stand in a row."""
    if ax is not None:
        return ax.get_figure(root=True), np.array([ax], dtype=object), 1  # type: ignore[return-value]
    columns = 3 if n in (3, 5, 6, 9) else min(n, 4)  # few empty places in the last row
    rows = -(-n // columns)
    size = (max(4.6, 2.9 * columns), 2.6 * rows + 0.7)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for extra in grid.ravel()[n:]:
        extra.set_visible(False)
    return figure, grid.ravel()[:n], columns


def _draw_predicted(ax: Axes, times: Floats, values: Floats, last: float) -> None:
    """The bands and the line of one gene, from its quantiles (T, 5); dashed after the time ``last``."""
    for low, high, alpha in ((0, 4, 0.15), (1, 3, 0.3)):
        ax.fill_between(times, values[:, low], values[:, high], color=PREDICTED, alpha=alpha, lw=0)
    for part, style in ((times <= last, "-"), (times >= last, "--")):
        ax.plot(times[part], values[part, 2], color=PREDICTED, lw=1.8, ls=style)


def _draw_observed(ax: Axes, adata: ad.AnnData, fit: StoredFit, values: Floats, rng: np.random.Generator) -> None:
    """Observed cells of one gene, ``values`` (n_obs,), with median and 25-75 % at each time."""
    cell_times = fit.times(adata)
    weight_key = fit.uns["params"].get("weight_key")
    w = None if weight_key is None else read_weights(adata, weight_key, cell_times)
    width = 0.12 * np.diff(fit.observed).min()
    for t in np.unique(cell_times[np.isfinite(cell_times)]):
        here = np.flatnonzero(cell_times == t)
        some = rng.permutation(here)[:_MAX_POINTS]
        at = t + rng.uniform(-width, width, len(some))
        ax.scatter(at, values[some], s=2, color=OBSERVED, alpha=0.5, linewidths=0, rasterized=True, zorder=1)
        low, middle, high = quantiles(values[here, None], _QUANTILES[1:4], None if w is None else w[here])[:, 0]
        fill = _DARK if t in fit.training else "white"
        around = [[middle - low], [high - middle]]
        ax.errorbar(t, middle, around, fmt="o", color=_DARK, ms=5, lw=1.2, mfc=fill, zorder=4)


def _handles(*, held_out: bool, forecast: bool) -> list[Any]:
    """What the legend explains."""
    medians = {"observed, trained on": _DARK} | ({"observed, held out": "white"} if held_out else {})
    lines = {"predicted, median": "-"} | ({"forecast, median": "--"} if forecast else {})
    return [
        *(Line2D([], [], color=PREDICTED, lw=1.8, ls=style, label=text) for text, style in lines.items()),
        Patch(color=PREDICTED, alpha=0.4, lw=0, label="25-75 % of cells"),
        Patch(color=PREDICTED, alpha=0.15, lw=0, label="5-95 %"),
        *(Line2D([], [], marker="o", color=_DARK, mfc=c, ms=5, lw=1.2, label=text) for text, c in medians.items()),
        Line2D([], [], marker="o", ls="", ms=2.5, color=OBSERVED, label="observed cell"),
    ]
