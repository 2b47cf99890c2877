"""Which directions in the space of the cells go with a fate, how surprising that is, and what moves it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import beta

from wlm.core.dynamics import Dynamics
from wlm.core.particles import Particles
from wlm.core.populations import Array

Float64 = NDArray[np.float64]
#: Weight of a cell that is felt by none, relative to the lightest of the others.
WEIGHTLESS = 1e-4
#: Most numbers of a matrix of permutations that are held at once.
_CHUNK = 2**22


def slopes(values: Array, p: Array, times: Array, w: Array | None = None) -> Float64:
    r"""How ``values`` go with ``p`` among the cells of each time: :math:`\mathrm{Cov}_t(p, x) / \mathrm{sd}_t(p)`.

    Parameters
    ----------
    values
        Of each cell, shape (n, d).
    p
        Probability of a fate, shape (n,).
    times
        Time of each cell, shape (n,).
    w
        Weights, shape (n,), positive; all equal by default.

    Returns
    -------
    Shape (T, d), a row for each distinct time; 0 where all cells have the same probability.
    """
    return np.stack([_slopes(values[i], p[i][None], _weights(w, i)[None])[0] for i in _groups(times)])


def permuted_slopes(
    values: Array, p: Array, times: Array, n_perm: int, rng: np.random.Generator, w: Array | None = None
) -> Float64:
    """:func:`slopes` (n_perm, T, d) with ``p`` permuted between the cells of one time."""
    out = []
    for i in _groups(times):
        weights, rows = _weights(w, i)[None], []
        for m in _parts(n_perm, len(i)):
            rows.append(_slopes(values[i], rng.permuted(np.tile(p[i], (m, 1)), axis=1), weights))
        out.append(np.concatenate(rows))
    return np.stack(out, axis=1)


def resampled_slopes(
    values: Array, p: Array | None, times: Array, n_boot: int, rng: np.random.Generator, w: Array | None = None
) -> Float64:
    """:func:`slopes` (n_boot, T, d) of cells drawn anew, with replacement, at each time; without ``p`` their means."""
    out = []
    for i in _groups(times):
        rows = []
        for m in _parts(n_boot, len(i)):
            counts = rng.multinomial(len(i), np.full(len(i), 1 / len(i)), size=m) * _weights(w, i)
            rows.append(_means(values[i], counts) if p is None else _slopes(values[i], p[i][None], counts))
        out.append(np.concatenate(rows))
    return np.stack(out, axis=1)


def means(values: Array, times: Array, w: Array | None = None) -> Float64:
    """Means (T, d) of ``values`` (n, d) over the cells of each time."""
    return np.stack([_means(values[i], _weights(w, i)[None])[0] for i in _groups(times)])


def covariance(values: Array, times: Array, w: Array | None = None) -> Float64:
    """Covariance (d, d) of ``values`` (n, d) among the cells of one time, pooled over times."""
    groups = _groups(times)
    parts = [np.atleast_2d(np.cov(values[i].T, aweights=_weights(w, i), ddof=0)) for i in groups]
    return np.average(parts, axis=0, weights=[len(i) for i in groups])


def permutation_p(found: Array, null: Array) -> Float64:
    """Two-sided p-values (g,) of ``found`` (g,) among permuted values ``null`` (n_perm, g), never zero.

    Phipson and Smyth 2010: (1 + the number of null values at least as far from zero) / (1 + n).
    """
    # What equals up to rounding counts as equal, or a permutation that changes nothing would be an extreme one.
    reached = np.abs(null) >= np.abs(found) * (1 - 1e-9)
    return (1 + reached.sum(axis=0)) / (1 + len(null))


def rotation_p(loadings: Array, direction: Array, cov: Array) -> Float64:
    r"""How often loadings that are turned at random go with ``direction`` (d,) as closely as those of each gene.

    Where :math:`\Sigma` is the covariance ``cov`` (d, d) of the cells and :math:`\ell` a row of ``loadings`` (g, d),
    the cosine of :math:`\Sigma^{1/2}\ell` and :math:`\Sigma^{-1/2}c` is compared with that of random directions: its
    square is distributed as :math:`\mathrm{Beta}(1/2, (d - 1)/2)`. Turning in coordinates in which the cells vary alike
    in all directions keeps the decoded variance of the gene.

    Returns
    -------
    Shape (g,); 1 for d = 1, where there is nothing to turn.
    """
    d = len(direction)
    if d == 1:
        return np.ones(len(loadings))
    variances, axes = np.linalg.eigh(cov)
    scale = np.sqrt(np.maximum(variances, 1e-12 * variances.max()))
    turned, along = (loadings @ axes) * scale, (axes.T @ direction) / scale  # (g, d), (d,)
    sizes = np.square(turned).sum(axis=1) * np.square(along).sum()
    cosine2 = np.divide(np.square(turned @ along), sizes, out=np.zeros(len(loadings)), where=sizes > 0)
    return beta.sf(np.clip(cosine2, 0, 1), 0.5, (d - 1) / 2)


def fate_gradient(
    dynamics: Dynamics,
    x: Array,
    v: Array | None,
    times: tuple[float, float],
    fate: tuple[Array, float],
    *,
    w: Array | None = None,
    seed: int = 0,
) -> tuple[Float64, Float64] | None:
    r"""Where cells end, and how the probability of a fate there changes with where they are now, through autograd.

    The probability is :math:`P = \sigma(a\cdot x(t_1) + b)` at the end of the rollout. Its gradient is that for one
    cell in a population that does not feel it: beside every cell moves a copy of hardly any weight, and by this one
    the probability is differentiated. Velocities stay as they are.

    Parameters
    ----------
    x, v
        Positions (n, d) of a population and its velocities, None where positions determine them.
    times
        The time they are observed at, and the end.
    fate
        :math:`a` (d,) and :math:`b`.
    w
        Weights of the cells, shape (n,).
    seed
        Seeds stochastic models.

    Returns
    -------
    probability (n,), gradient (n, d) in 1 / data unit; None if rollouts of this method cannot be differentiated.
    """
    w = np.ones(len(x)) if w is None else w
    p = dynamics.particles(x, v=v)
    own, log_w = p.x.clone().requires_grad_(), torch.as_tensor(np.log(w), dtype=p.x.dtype, device=p.x.device)
    light = (log_w.min() + math.log(WEIGHTLESS)).expand(len(x))
    both = Particles(torch.cat([p.x, own]), None if p.v is None else torch.cat([p.v, p.v]), torch.cat([log_w, light]))
    at = torch.as_tensor(dynamics.units.standard_time(np.array(times)), dtype=own.dtype, device=own.device)
    with torch.enable_grad():
        end = dynamics.model.rollout(both, at, torch.Generator(own.device).manual_seed(seed)).x[-1, len(x) :]
        if not end.requires_grad:
            return None
        a = torch.as_tensor(fate[0] * dynamics.units.length, dtype=own.dtype, device=own.device)
        b = float(fate[1] + np.dot(fate[0], dynamics.units.location))
        probability = torch.sigmoid(end @ a + b)
        (gradient,) = torch.autograd.grad(probability.sum(), own)
    return _numpy(probability), _numpy(gradient) / dynamics.units.length


def _numpy(a: torch.Tensor) -> Float64:
    return a.detach().cpu().numpy().astype(np.float64)


def _groups(times: Array) -> list[NDArray[np.intp]]:
    return [np.flatnonzero(times == t) for t in np.unique(times)]


def _weights(w: Array | None, i: NDArray[np.intp]) -> Float64:
    return np.ones(len(i)) if w is None else np.asarray(w[i], dtype=np.float64)


def _parts(n: int, size: int) -> Iterator[int]:
    """Numbers that add up to ``n``, so small that a matrix of as many rows of ``size`` is no burden."""
    most = max(1, _CHUNK // size)
    for start in range(0, n, most):
        yield min(most, n - start)


def _means(x: Array, w: Array) -> Float64:
    """Means (m, d) of ``x`` (n, d) with each row of the weights ``w`` (m, n)."""
    return (w @ x) / w.sum(axis=1, keepdims=True)


def _slopes(x: Array, p: Array, w: Array) -> Float64:
    """Covariance over standard deviation (m, d) of ``x`` (n, d) and each row of ``p`` (m or 1, n), weights alike."""
    total = w.sum(axis=1, keepdims=True)
    x = x - x.mean(axis=0)  # numbers far from zero would lose digits
    q = p - (w * p).sum(axis=1, keepdims=True) / total
    cov = (w * q) @ x / total
    sd = np.sqrt((w * np.square(q)).sum(axis=1, keepdims=True) / total)
    return np.divide(cov, sd, out=np.zeros_like(cov), where=sd > 1e-9)
