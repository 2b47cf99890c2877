"""From each population to the next: where predicted cells are among those that were observed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import anndata as ad
import numpy as np
from numpy.typing import NDArray

from wlm._adata.cells import read_rep
from wlm._adata.columns import dense
from wlm._adata.mudata import get_target
from wlm._adata.neighbours import N_NEIGHBOURS
from wlm._store.fit import StoredFit, check_representation, open_fit
from wlm.core.transport import among_neighbours, neighbourhoods, noisy_coupling, residual
from wlm.tl._simulation import simulate

#: Observed cells among which a predicted one is looked for.
N_CANDIDATES = 30
#: Repetitions of stochastic dynamics.
N_DRAWS = 8


@dataclass(frozen=True)
class Observed:
    """A fit and its cells: positions and velocities (n, d), times (n,), NaN if unknown, weights (n,) or None.

    ``rows`` (n,) are their places in the object that results are written to, which has ``n_obs`` cells.
    """

    cells: ad.AnnData
    fit: StoredFit
    x: NDArray[np.float32]
    v: NDArray[np.float32]
    times: NDArray[np.float64]
    weights: NDArray[np.float64] | None
    rows: NDArray[np.intp]
    n_obs: int

    @classmethod
    def of(cls, adata: Any, key: str, mod: str | None, *, columns: Sequence[str] = ()) -> Observed:
        """Read them, and refuse an object that no longer holds what the fit was made on."""
        cells, fit = open_fit(adata, key, mod, columns=columns)
        x = read_rep(cells, fit.use_rep, fit.n_dims)
        check_representation(cells, fit, x)
        velocity_key = f"{fit.group}_velocity"
        if velocity_key not in cells.obsm:
            raise KeyError(f"obsm[{velocity_key!r}] is missing; run wlm.tl.fit again")
        times, names = fit.times(cells), get_target(adata, mod).obs_names
        absent = [t for t in fit.training if not (times == t).any()]
        if absent:
            raise ValueError(
                f"adata has no cells of the training time {absent[0]:g}, through which paths go; "
                "use the object that was fitted"
            )
        rows = names.get_indexer(cells.obs_names)
        return cls(cells, fit, x, dense(cells.obsm[velocity_key]), times, fit.weights_of(cells), rows, len(names))

    def at(self, t: float) -> NDArray[np.intp]:
        """Indices of the cells of a time."""
        return np.flatnonzero(self.times == t)

    def w(self, i: Any) -> NDArray[np.float64] | None:
        """Weights of some cells."""
        return None if self.weights is None else self.weights[i]

    def whole(self, values: NDArray[Any], fill: Any) -> NDArray[Any]:
        """Values (n, ...) of these cells for all cells of the object (n_obs, ...)."""
        out = np.full((self.n_obs, *values.shape[1:]), fill, dtype=values.dtype)
        out[self.rows] = values
        return out


@dataclass(frozen=True)
class Link:
    """Where the ``cells`` (n,) of ``time`` are among the ``targets`` (m,) of the training time ``to``.

    ``arrivals`` are sparse (n, m), one for each model and draw: the probabilities of each target for the predicted
    cell; ``grown``, of a fit with growth, the cells (n,) that each has become by then, up to a common factor.
    ``neighbours`` (n, n) are what is known of where a cell is: it may be any of those around it. ``noise`` is the
    standard deviation of the predictions in each dimension, NaN where nothing was predicted.
    """

    time: float
    to: float
    cells: NDArray[np.intp]
    targets: NDArray[np.intp]
    arrivals: tuple[Any, ...]
    neighbours: Any
    noise: float
    grown: tuple[NDArray[np.floating], ...] | None = None

    def step(self, run: int, *, growing: bool = False) -> Step:
        """The transitions of one run: draws of the same models follow each other, where there are several.

        If ``growing``, each times the cells that the cell has become.
        """
        grown = self.grown[run % len(self.grown)] if growing and self.grown is not None else None
        return Step(self.neighbours, self.arrivals[run % len(self.arrivals)], grown)


@dataclass(frozen=True)
class Step:
    """Transitions (n, m) as two sparse factors, since their product has many more entries.

    Rows sum to one, or to the mean of the cells ``grown`` (n,) out of those around.
    """

    neighbours: Any
    arrival: Any
    grown: NDArray[np.floating] | None = None

    def __matmul__(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of probabilities (m, f), the means (n, f) over where each cell goes."""
        there = self.arrival @ p
        return self.neighbours @ (there if self.grown is None else self.grown[:, None] * there)


def link(observed: Observed, time: float, *, n_draws: int, seed: int, n_candidates: int = N_CANDIDATES) -> Link:
    r"""The cells of ``time`` and those of the next training time.

    Cells are rolled out freely by every model, stochastic ones ``n_draws`` times, and are then somewhere among the
    cells observed there: the Schrödinger bridge whose noise is the residual of the fit, the root mean square distance
    in each dimension that the optimal coupling leaves between predicted and observed cells. That a cell was measured
    with noise as well is taken into account by the mean over the cells around it.

    Cells before the first training time, or after the last, are taken for the nearest ones of that time.
    """
    fit, cells = observed.fit, observed.at(time)
    later = fit.training[fit.training > time]
    to = float(later[0] if len(later) else fit.training[-1])
    targets = observed.at(to)
    x, y, a, b = observed.x[cells], observed.x[targets], observed.w(cells), observed.w(targets)
    around = neighbourhoods(x, N_NEIGHBOURS, w=a)
    if len(later) == 0 or time < fit.training[0]:
        return Link(time, to, cells, targets, (among_neighbours(x, y, N_NEIGHBOURS, b=b),), around, np.nan)
    noise, arrivals, grown = [], [], []
    for z, mass in rollouts(observed, time, to, n_draws=n_draws, seed=seed):
        noise.append(residual(z, y, a=mass, b=b, seed=seed))
        arrivals.append(noisy_coupling(z, y, noise[-1], n_candidates, a=mass, b=b))
        if fit.dynamics.grows and mass is not None:
            grown.append(mass if a is None else mass / a)
    return Link(time, to, cells, targets, tuple(arrivals), around, float(np.mean(noise)), tuple(grown) or None)


def rollouts(
    observed: Observed, time: float, to: float, *, n_draws: int, seed: int, forecast: bool = True
) -> list[tuple[NDArray[np.float32], NDArray[np.floating] | None]]:
    """Where the cells of ``time`` are at ``to``, (n, d) by each model and, if their dynamics are stochastic, draw.

    With the weights (n,) that they have grown to by then; None if all are equal. After the last training time cells
    follow the ``forecast`` of the fit, or else the models.
    """
    ensemble = observed.fit.ensemble if forecast else replace(observed.fit.ensemble, forecast=None)
    out: list[tuple[NDArray[np.float32], NDArray[np.floating] | None]] = []
    for draw in range(n_draws):
        part = simulate(
            ensemble,
            observed.x,
            observed.v,
            observed.times,
            np.array([to]),
            np.array([time]),
            np.empty(0),  # no training time bridges: these are free rollouts
            weights=observed.weights,
            seed=seed + draw,
            velocities_in=f"obsm['{observed.fit.group}_velocity']",
        )[0]
        if draw == 1 and all(np.array_equal(z, old) for z, (old, _) in zip(part.positions, out, strict=True)):
            break  # deterministic: every draw is the same
        weights = [None] * len(part.positions) if part.weights is None else list(part.weights)
        out += zip(part.positions, weights, strict=True)
    return out


def all_links(observed: Observed, *, n_draws: int, seed: int, n_candidates: int = N_CANDIDATES) -> list[Link]:
    """Links from all observed times but the last training time, those of training times in their order."""
    times = np.unique(observed.times[np.isfinite(observed.times)])
    ask = [float(t) for t in times if t != observed.fit.training[-1]]
    return [link(observed, t, n_draws=n_draws, seed=seed, n_candidates=n_candidates) for t in ask]
