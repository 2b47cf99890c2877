"""How far predictions can be trusted: bands, their coverage, spread over models, and cells that left the data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from wlm.core.populations import Array

#: Share of the cells that a band is to hold.
LEVEL = 0.95
#: Coverage below which a band has failed.
FAILED = 0.85
#: Share of observed cells that are no nearer to the others than what counts as outside of them.
OUTSIDE = 0.01
#: Cells that stand for all observed ones when distances to them are wanted.
N_REFERENCE = 5000


def quantiles(values: NDArray[np.floating], q: Sequence[float], w: Array | None = None) -> NDArray[np.float64]:
    """Quantiles (len(q), k) of ``values`` (n, k), of cells with weights ``w`` (n,)."""
    if w is None:
        return np.quantile(values, q, axis=0)
    order = np.argsort(values, axis=0)
    # A cell stands in the middle of its share of the weight.
    rank = (np.cumsum(w[order], axis=0) - 0.5 * w[order]) / w.sum()
    ordered = np.take_along_axis(values, order, axis=0)
    return np.stack([np.interp(q, r, v) for r, v in zip(rank.T, ordered.T, strict=True)], axis=1)


def band(positions: NDArray[np.floating], w: Array | None = None, level: float = LEVEL) -> NDArray[np.float64]:
    """Lower and upper limits (2, d) that hold the central ``level`` of the cells in each dimension.

    ``positions`` (m, n, d) are those of ``n`` cells by ``m`` models, which all count the same: where the models
    disagree, the band is wider than that of each. ``w`` are weights of the cells, (n,), or (m, n) by each model.
    """
    m, n, d = positions.shape
    tail = (1 - level) / 2
    return quantiles(
        positions.reshape(m * n, d), (tail, 1 - tail), None if w is None else np.broadcast_to(w, (m, n)).ravel()
    )


def coverage(x: Array, limits: Array, w: Array | None = None) -> float:
    """Share of the coordinates of cells ``x`` (n, d), weights ``w`` (n,), that lie within ``limits`` (2, d)."""
    inside = ((x >= limits[0]) & (x <= limits[1])).mean(axis=1)
    return float(np.average(inside, weights=w))


def spread(positions: NDArray[np.floating]) -> NDArray[np.float32]:
    """Root mean square distance (n,) of each cell from its mean over models; ``positions`` (m, n, d), m >= 2."""
    return np.sqrt(positions.var(axis=0, ddof=1).sum(-1)).astype(np.float32)


def same_sign(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Share (n,) of the models whose ``values`` (m, n) have the sign of the first; NaN where the first has none."""
    share = (np.sign(values) == np.sign(values[0])).mean(axis=0)
    return np.where(np.isnan(values[0]), np.nan, share).astype(np.float32)


def horizon(lead: Array, measured: Array) -> float:
    """The longest ``lead`` (k,) up to which no coverage ``measured`` (k,) has failed; NaN if none was measured."""
    if len(lead) == 0:
        return float("nan")
    order = np.argsort(lead, kind="stable")
    failed = np.asarray(measured)[order] < FAILED
    good = np.asarray(lead)[order][: int(np.argmax(failed)) if failed.any() else len(failed)]
    return float(good[-1]) if len(good) else 0.0


def outside(x: Array, observed: Array, *, seed: int = 0) -> NDArray[np.bool_]:
    """Cells ``x`` (n, d) that are farther from ``observed`` ones (m, d) than all but 1 % of these are from the rest.

    A perfect prediction has about 1 % of them. Distances are to the nearest of at most ``N_REFERENCE`` observed cells.
    """
    if len(observed) < 2:
        return np.zeros(len(x), dtype=bool)  # no distance to compare with
    order = np.random.default_rng(seed).permutation(len(observed))
    n = min(N_REFERENCE, (len(observed) + 1) // 2)
    usual = _to_nearest(observed[order[n : 2 * n]], observed[order[:n]])
    return _to_nearest(x, observed[order[:n]]) > np.quantile(usual, 1 - OUTSIDE)


def _to_nearest(x: Array, y: Array) -> NDArray[np.float32]:
    """Distance (n,) of each of ``x`` (n, d) to the nearest of ``y`` (m, d)."""
    reference = torch.as_tensor(np.asarray(y, dtype=np.float32))
    chunks = torch.as_tensor(np.asarray(x, dtype=np.float32)).split(4096)
    return torch.cat([torch.cdist(part, reference).amin(1) for part in chunks]).numpy()
