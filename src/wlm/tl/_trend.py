"""Cells through observed and unseen times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import anndata as ad
import numpy as np
from numpy.typing import NDArray

from wlm._adata.cells import read_rep
from wlm._store.fit import StoredFit, check_representation

Floats = NDArray[np.float64]

#: Predicted times between two training times, and about how many in all where there are many of those.
_INSIDE, _IN_ALL = 6, 40


@dataclass(frozen=True)
class Population:
    """Cells at one time: positions ``x`` (n, d), weights ``w`` (n,) or None if all are equal.

    ``rows`` (n,) are the places of observed cells in the object, None for predicted ones; ``origin`` (n,) those of the
    observed cells that predicted ones started as.
    """

    time: float
    observed: bool
    x: NDArray[np.float32]
    w: Floats | None
    rows: NDArray[np.intp] | None = None
    origin: NDArray[np.intp] | None = None


def between(adata: ad.AnnData, fit: StoredFit, wanted: Floats) -> Floats:
    """All observed times from the first training time on and ``wanted`` ones, and a grid between them, sorted."""
    starts = fit.training[np.isin(fit.training, fit.times(adata))]
    if len(starts) == 0:
        raise ValueError(f"adata has no cells of the training times {fit.training.tolist()} to start from")
    if (wanted < starts[0]).any():
        raise ValueError(f"times must not be before {starts[0]:g}, the first training time, found {wanted.min():g}")
    wanted = np.concatenate([wanted, fit.observed[fit.observed > starts[0]]])
    ends = np.unique([*starts, wanted.max(initial=starts[-1])])
    inside = max(1, min(_INSIDE, _IN_ALL // len(starts)))
    grid = [np.linspace(a, b, inside + 2)[1:-1] for a, b in zip(ends[:-1], ends[1:], strict=True)]
    return np.unique(np.concatenate([starts, wanted, *grid]))


def trend(
    adata: ad.AnnData, fit: StoredFit, wanted: Floats, predict: Callable[[Floats], ad.AnnData]
) -> list[Population]:
    """Populations through all observed times and ``wanted`` ones, and a grid between them.

    At the training times, from which predictions start, they are the observed cells; all others are predicted
    in one call of ``predict``.
    """
    x = read_rep(adata, fit.use_rep, fit.n_dims)
    check_representation(adata, fit, x)
    cell_times = fit.times(adata)
    weight_key, weights = fit.uns["params"].get("weight_key"), fit.weights_of(adata)
    shown = between(adata, fit, wanted)
    starts = fit.training[np.isin(fit.training, cell_times)]
    later = np.setdiff1d(shown, starts)
    populations = []
    for t in starts:
        here = np.flatnonzero(cell_times == t)
        populations.append(Population(t, True, x[here], None if weights is None else weights[here], here))
    if len(later):
        predicted = predict(later)
        for t in later:
            here = predicted.obs[fit.time_key].to_numpy() == t
            # Without that column the cells were drawn in proportion to their weights, and count the same.
            w = predicted.obs[weight_key].to_numpy()[here] if weight_key in predicted.obs else None
            origin = adata.obs_names.astype(str).get_indexer(predicted.obs["origin"][here])
            populations.append(Population(t, False, predicted.obsm[fit.use_rep][here], w, origin=origin))
    return sorted(populations, key=lambda p: p.time)
