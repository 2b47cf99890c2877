"""Courses of a population by the models of a fit and by paths that nothing trains, and how far off these have been."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wlm.core.courses import PATHS, course, redrawn
from wlm.core.design import Courses, directions, sampling_noise, sketch, warped
from wlm.core.growth import resampled
from wlm.core.populations import Array
from wlm.core.prediction import Ensemble
from wlm.tl._simulation import simulate

#: Most cells of each time in a course.
N_CELLS = 300
#: Least and largest factor by which the disagreement is corrected for what was found at observed times.
SCALES = 0.5, 4.0


@dataclass(frozen=True, kw_only=True)
class Cells:
    """What courses are drawn from: cells of the training ``times`` (T,), their places ``at`` (n,) in time.

    ``x`` and ``v`` (n, d), weights ``w`` (n,) or None, and the models of the fit.
    """

    times: NDArray[np.float64]
    at: NDArray[np.float64]
    x: NDArray[np.float32]
    v: NDArray[np.float32]
    w: NDArray[np.float64] | None
    ensemble: Ensemble

    def population(self, t: float) -> tuple[NDArray[np.float32], Array | None]:
        """Positions and weights of the cells of one time."""
        here = self.at == t
        return self.x[here], None if self.w is None else self.w[here]

    def redrawn(self, times: Array, rng: np.random.Generator) -> list[NDArray[np.intp]]:
        """Other cells of each time, as many of all: their rows."""
        rows = [np.flatnonzero(self.at == t) for t in times]
        n = min(N_CELLS, *map(len, rows))
        return [i[redrawn(self.x[i], n, rng, None if self.w is None else self.w[i])] for i in rows]


def draw(cells: Cells, wanted: Array, n: int, along: Array, seed: int, *, pace: float) -> Courses:
    """Sketches of ``n`` courses at ``wanted`` times (k,), each with other cells and another pace.

    A third of them, at most, are by the models of the fit; the others follow each kind of path by turns.
    """
    found: list[Array] = []
    turn = 0
    while len(found) < n // 3:
        rows, then = _redrawn(cells, cells.times, wanted, seed, turn, pace)
        found += [sketch(x, along) for x in _moved(cells, rows, then, seed + turn)]
        turn += 1
    found = found[: n // 3]
    while len(found) < n:
        rows, then = _redrawn(cells, cells.times, wanted, seed, turn, pace)
        found.append(sketch(course(cells.times, [cells.x[i] for i in rows], then, PATHS[turn % len(PATHS)]), along))
        turn += 1
    return Courses.of(np.stack(found))


def _redrawn(
    cells: Cells, times: Array, wanted: Array, seed: int, turn: int, pace: float
) -> tuple[list[NDArray[np.intp]], Array]:
    """What is random of a course: its cells, and the times at which it is as far as others are at ``wanted`` ones."""
    rng = np.random.default_rng((seed, turn))
    rows = cells.redrawn(times, rng)
    exponents = np.exp(pace * rng.normal(size=len(times) - 1))
    return rows, warped(times, wanted, exponents, rng.uniform())


def _moved(cells: Cells, rows: list[NDArray[np.intp]], wanted: Array, seed: int) -> Array:
    """Positions (models, k, n, d) of the redrawn cells at ``wanted`` times (k,), by each model of the fit."""
    known = np.concatenate(rows)
    there = np.searchsorted(cells.times, wanted, side="right") - 1
    observed = cells.times[there] == wanted
    n_models, n = len(cells.ensemble.members), len(rows[0])
    out = np.empty((n_models, len(wanted), n, cells.x.shape[1]))
    for k in np.flatnonzero(observed):
        out[:, k] = cells.x[rows[there[k]]]
    asked, back = np.unique(wanted[~observed], return_inverse=True)
    if len(asked) == 0:
        return out
    starts = cells.times[np.searchsorted(cells.times, asked, side="right") - 1]
    parts = simulate(
        *(cells.ensemble, cells.x[known], cells.v[known], cells.at[known], asked, starts, cells.times),
        weights=None,  # cells were redrawn by their weights
        seed=seed,
    )
    by_time = {part.time: part for part in parts}
    rng = np.random.default_rng(seed)
    for k, i in zip(np.flatnonzero(~observed), back, strict=True):
        part = by_time[float(asked[i])]
        for m in range(n_models):
            w = None if part.weights is None else part.weights[m]
            x = part.positions[m]
            out[m, k] = x if w is None else x[resampled(w, n, rng)]
    return out


@dataclass(frozen=True)
class Checked:
    """How far courses without an observed time were from it: ``found`` (k,), and ``expected`` of their disagreement."""

    times: Array
    found: Array
    expected: Array

    @property
    def scale(self) -> float:
        """The factor by which the disagreement was too small, within bounds."""
        if not self.expected.any():
            return 1.0
        return float(np.clip(np.sqrt((self.found**2).sum() / (self.expected**2).sum()), *SCALES))


def check(cells: Cells, n: int, along: Array, seed: int, *, pace: float) -> Checked:
    """Leave out each inner time in turn, draw courses through the others, and see how far it is from their mean.

    ``n`` courses; the models of the fit have seen these times and take no part. Noise of the sample is taken off.
    """
    found, expected = [], []
    for t in cells.times[1:-1]:
        others, sketches = cells.times[cells.times != t], []
        for turn in range(n):
            rows, then = _redrawn(cells, others, np.array([t]), seed, turn, pace)
            sketches.append(
                sketch(course(others, [cells.x[i] for i in rows], then, PATHS[turn % len(PATHS)]), along)[0]
            )
        rng = np.random.default_rng(seed)
        x, w = cells.population(t)
        x = (x[redrawn(x, len(x), rng, w)] if w is not None else x).astype(np.float64)
        own = np.var(sketches, axis=0, ddof=1).sum()
        noise = sampling_noise(x, along, rng) / len(x) + own / n
        found.append(np.sqrt(max(((sketch(x, along) - np.mean(sketches, axis=0)) ** 2).sum() - noise, 0.0)))
        expected.append(np.sqrt(own))
    return Checked(cells.times[1:-1], np.array(found), np.array(expected))


def noise_at(cells: Cells, wanted: Array, along: Array, seed: int) -> Array:
    """C (k,), the sampling noise of one cell at ``wanted`` times: that of the observed ones, in between by lines."""
    rng = np.random.default_rng(seed)
    at = []
    for t in cells.times:
        x, w = cells.population(t)
        some = redrawn(x, min(len(x), N_CELLS), rng, w)
        at.append(sampling_noise(x[some].astype(np.float64), along, rng))
    return np.interp(wanted, cells.times, at)


def frames(cells: Cells) -> Array:
    """The directions along which populations are compared."""
    return directions(cells.x.shape[1])
