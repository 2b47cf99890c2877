"""Predictions of single cells against their sisters: cells of the same clone that were observed later."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wlm.core.populations import Array

Float64 = NDArray[np.float64]
#: Bins of probabilities by which calibration is judged.
N_BINS = 5


def sister_shares(start: NDArray[np.intp], end: NDArray[np.intp]) -> Float64:
    """The share (n, m) that each later cell has among the sisters of each earlier one, 0 in rows without sisters.

    ``start`` (n,) and ``end`` (m,) are numbers of clones, -1 for cells without one.
    """
    same = ((start[:, None] == end[None]) & (start[:, None] >= 0)).astype(np.float64)
    return same / np.maximum(same.sum(axis=1, keepdims=True), 1)


def distances(predicted: Array, later: Array, sisters: Float64) -> tuple[Float64, Float64]:
    """Mean distance of each prediction (n, d) to its sisters among the ``later`` cells (m, d), and to all of them."""
    from scipy.spatial.distance import cdist

    apart = cdist(predicted, later)
    return (apart * sisters).sum(axis=1), apart.mean(axis=1)


def correct(probability: Array, truth: Array) -> Float64:
    """How right (n,) the label of the highest ``probability`` (n, k) is: the most common one of the sisters.

    ``truth`` (n, k) are shares of the sisters. Where several labels are most common, each is right in part; so is a
    guess between several.
    """
    ours = probability >= probability.max(axis=1, keepdims=True) - 1e-12
    theirs = truth >= truth.max(axis=1, keepdims=True) - 1e-12
    return (ours & theirs).sum(axis=1) / (ours.sum(axis=1) * theirs.sum(axis=1))


def brier(probability: Array, truth: Array) -> Float64:
    """Mean over sisters of the squared error (n,) of ``probability`` (n, k), for shares ``truth`` (n, k) of them.

    Summed over labels: 0 is certain and right, 2 certain and wrong.
    """
    return (truth * (1 - 2 * probability)).sum(axis=1) + np.square(probability).sum(axis=1)


def calibration_error(probability: Array, truth: Array, w: Array, n_bins: int = N_BINS) -> float:
    """How far probabilities are from the shares of sisters that have the label: 0 to 1.

    For each label, cells are sorted into bins of equal width by their ``probability`` (n, k); its error is the mean
    over bins, by the weights ``w`` (n,) of their cells, of the difference between the mean probability and the mean
    share ``truth`` (n, k) (Naeini et al. 2015, as the expected calibration error). Returned is the mean over labels.
    """
    if not w.any():
        return float("nan")
    bins = np.minimum((probability * n_bins).astype(int), n_bins - 1)  # (n, k)
    gaps = [
        np.bincount(b, w * (p - q), minlength=n_bins) for b, p, q in zip(bins.T, probability.T, truth.T, strict=True)
    ]
    return float(np.abs(gaps).sum(axis=1).mean() / w.sum())


def calibration_curve(probability: Array, truth: Array, w: Array, n_bins: int = N_BINS) -> Float64:
    """Of each bin of probability, over all labels: its mean, the mean share of sisters, and the weight in it.

    Shape (3, n_bins); the first two are NaN where no ``probability`` (n, k) lies.
    """
    bins = np.minimum((probability * n_bins).astype(int), n_bins - 1).ravel()
    w = np.repeat(w, probability.shape[1])
    p, q, size = (np.bincount(bins, z, minlength=n_bins) for z in (w * probability.ravel(), w * truth.ravel(), w))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([p / size, q / size, size])


def bootstrap(
    score: Callable[[Float64], float], clones: NDArray[np.intp], n_boot: int, rng: np.random.Generator
) -> tuple[float, float]:
    """The 95 % interval of ``score`` over clones drawn anew; it takes a weight (n,) of each cell.

    All cells of a clone are in a sample together. NaN without samples.
    """
    names, of = np.unique(clones, return_inverse=True)
    drawn = []
    for _ in range(n_boot):
        counts = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        drawn.append(score(counts[of].astype(np.float64)))
    if not drawn or not np.isfinite(drawn).any():
        return float("nan"), float("nan")
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return float(low), float(high)
