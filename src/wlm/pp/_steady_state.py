r"""RNA velocity of the steady-state model, from moments over neighbours: what wlm computes where scVelo cannot.

Splicing makes spliced molecules s of unspliced ones u, and s decay: :math:`\dot s = \beta u - \gamma s`. In units of
time in which the gene's splicing rate :math:`\beta` is 1, the velocity is how far u lies above the steady state
:math:`\gamma s`. The two estimates of :math:`\gamma`:

- deterministic: cells with the most molecules of a gene are near its steady state; a line through the origin is fitted
  to them (La Manno et al., Nature 2018, doi:10.1038/s41586-018-0414-6);
- stochastic: at the steady state of the master equation second moments hold the same :math:`\gamma`,
  :math:`2\langle us\rangle + \langle u\rangle = \gamma (2\langle s^2\rangle - \langle s\rangle)`. Both equations are
  solved together by generalised least squares (Bergen et al., Nature Biotechnology 2020,
  doi:10.1038/s41587-020-0591-3).

scVelo is the oracle of the tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, identity

Float64 = NDArray[np.float64]
#: Cells of a gene that are taken to be in its steady state: those above this percentile of molecules.
_EXTREME = 95
#: Least share of explained variance, and least ratio, of genes whose velocity is meant to be used.
_MIN_R2, _MIN_RATIO = 0.01, 0.01
#: Genes whose second moments are dense at a time.
_CHUNK = 500


@dataclass(frozen=True)
class SteadyState:
    """Moments ``Ms``, ``Mu`` and ``velocity`` (n, g), and by gene (g,) ``gamma``, ``r2`` and whether it is of use."""

    Ms: NDArray[np.float32]
    Mu: NDArray[np.float32]
    velocity: NDArray[np.float32]
    gamma: Float64
    r2: Float64
    genes: NDArray[np.bool_]


def steady_state(
    s: csr_matrix,
    u: csr_matrix,
    connectivities: Any,
    *,
    mode: str = "deterministic",
    candidates: NDArray[np.bool_] | None = None,
) -> SteadyState:
    """Velocities of genes.

    Parameters
    ----------
    s, u
        Normalised spliced and unspliced counts (n, g).
    connectivities
        Sparse (n, n); not zero for neighbours.
    mode
        ``"deterministic"`` or ``"stochastic"``.
    candidates
        Genes (g,) that may be marked as usable; by default all.
    """
    weights = neighbour_weights(connectivities)
    first_s, first_u = (np.asarray((weights @ a).todense(), dtype=np.float64) for a in (s, u))
    extreme = _extreme(first_s, first_u)
    gamma = _slope(extreme * first_s, first_u)
    residual = first_u - gamma * first_s
    r2 = 1 - _ratio(np.square(residual).sum(0), np.square(first_u - first_u.mean(0)).sum(0), empty=1.0)
    allowed = np.ones(len(gamma), dtype=bool) if candidates is None else candidates
    genes = (r2 > _MIN_R2) & (gamma > _MIN_RATIO) & (first_s > 0).any(0) & (first_u > 0).any(0) & allowed
    if genes.sum() < 2:
        # Hardly any signal: the best fifth is still better than none.
        genes = r2 > np.percentile(r2, 80)
    if mode == "stochastic":
        extreme |= first_s >= np.percentile(first_s, _EXTREME, axis=0)
        chosen = np.flatnonzero(genes) if genes.any() else np.arange(len(gamma))
        for k in range(0, len(chosen), _CHUNK):
            part = chosen[k : k + _CHUNK]
            second = _second_moments(weights, s[:, part], u[:, part], first_s[:, part], first_u[:, part])
            first = first_s[:, part], first_u[:, part]
            gamma[part] = _generalised_slope(*first, *second, extreme[:, part], residual[:, part])
        residual = first_u - gamma * first_s
    ms, mu, v = (a.astype(np.float32) for a in (first_s, first_u, residual))
    return SteadyState(ms, mu, v, gamma, r2, genes)


def neighbour_weights(connectivities: Any) -> csr_matrix:
    """Weights (n, n) of the mean over a cell and its neighbours; each counts the same, and rows sum to 1."""
    graph = csr_matrix(csr_matrix(connectivities) != 0, dtype=np.float64)
    graph = csr_matrix(graph + identity(graph.shape[0], format="csr"))
    graph.data[:] = 1.0  # also where a cell was its own neighbour already
    sizes = np.asarray(graph.sum(axis=1)).ravel()
    return csr_matrix(graph.multiply(1 / sizes[:, None]))


def _extreme(s: Float64, u: Float64) -> NDArray[np.bool_]:
    """Cells (n, g) with the most molecules of a gene, both kinds relative to their largest."""
    size = sum(a / np.maximum(a.max(axis=0), 1e-3) for a in (s, u))
    return np.asarray(size >= np.percentile(size, _EXTREME, axis=0))


def _slope(x: Float64, y: Float64) -> Float64:
    """Slopes (g,) of lines through the origin; 0 for genes without molecules."""
    return _ratio((x * y).sum(axis=0), np.square(x).sum(axis=0))


def _second_moments(
    weights: csr_matrix, s: csr_matrix, u: csr_matrix, first_s: Float64, first_u: Float64
) -> tuple[Float64, Float64]:
    """The two sides (n, g) of the second equation: ``2 <ss> - <s>`` and ``2 <us> + <u>``."""
    ss, us = (np.asarray((weights @ csr_matrix(s.multiply(a))).todense(), dtype=np.float64) for a in (s, u))
    return 2 * ss - first_s, 2 * us + first_u


def _generalised_slope(
    s: Float64, u: Float64, x: Float64, y: Float64, extreme: NDArray[np.bool_], residual: Float64
) -> Float64:
    """Slopes (g,) of ``u = gamma s`` on extreme cells and ``y = gamma x`` on all, each by the variance of its rest."""
    first = residual.std(axis=0) ** 2
    second = (y - _slope(x, y) * x).std(axis=0) ** 2
    top = _ratio((extreme * s * u).sum(0), first) + _ratio((x * y).sum(0), second)
    return _ratio(top, _ratio((extreme * s * s).sum(0), first) + _ratio(np.square(x).sum(0), second))


def _ratio(a: Float64, b: Float64, empty: float = 0.0) -> Float64:
    """``a / b``, and ``empty`` where b is 0."""
    return np.divide(a, b, out=np.full(np.shape(a), empty), where=b > 0)
