"""Courses of a population by the models of a fit and by paths that nothing trains, and how far off these have been."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wlm.core.courses import PATHS, course, redrawn
from wlm.core.design import Courses, directions, sampling_noise, sketch, warped
from wlm.core.growth import resampled
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

    def population(self, t: float) -> tuple[NDArray[np.float32], NDArray[np.float64] | None]:
        """Positions and weights of the cells of one time."""
        here = self.at == t
        return self.x[here], None if self.w is None else self.w[here]

    def redrawn(self, times: NDArray[np.float64], rng: np.random.Generator) -> list[NDArray[np.intp]]:
        """Other cells of each time, as many of all: their rows."""
        rows = [np.flatnonzero(self.at == t) for t in times]
        n = min(N_CELLS, *map(len, rows))
        return [i[redrawn(self.x[i], n, rng, None if self.w is None else self.w[i])] for i in rows]


def draw(cells: Cells, wanted: NDArray[np.float64], n: int, along: NDArray, seed: int, *, pace: float) -> Courses:
    """Sketches of ``n`` courses (or a few more, if the fit has several models) at ``wanted`` times (k,).

    Each has other cells and another pace; they follow the models of the fit and each kind of path by turns.
    """
    return Courses.of(np.stack(_sketches(cells, cells.times, wanted, n, along, seed, models=True, pace=pace)))


def _sketches(
    cells: Cells,
    times: NDArray[np.float64],
    wanted: NDArray[np.float64],
    n: int,
    along: NDArray,
    seed: int,
    *,
    models: bool,
    pace: float,
) -> list[NDArray]:
    """Sketches (k, f) of courses through the cells of these ``times``."""
    found: list[NDArray] = []
    kinds = len(PATHS) + models
    for turn in range(10 * n):
        if len(found) >= n:
            break
        rng = np.random.default_rng((seed, turn))
        rows = cells.redrawn(times, rng)
        exponents = np.exp(pace * rng.normal(size=len(times) - 1))
        then = warped(times, wanted, exponents, rng.uniform())
        if turn % kinds < len(PATHS):
            found.append(sketch(course(times, [cells.x[i] for i in rows], then, PATHS[turn % kinds]), along))
        else:
            found += [sketch(x, along) for x in _moved(cells, rows, then, seed + turn)]
    return found


def _moved(cells: Cells, rows: list[NDArray[np.intp]], wanted: NDArray[np.float64], seed: int) -> NDArray:
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

    times: NDArray[np.float64]
    found: NDArray[np.float64]
    expected: NDArray[np.float64]

    @property
    def scale(self) -> float:
        """The factor by which the disagreement was too small, within bounds."""
        if not self.expected.any():
            return 1.0
        return float(np.clip(np.sqrt((self.found**2).sum() / (self.expected**2).sum()), *SCALES))


def check(cells: Cells, n: int, along: NDArray, seed: int, *, pace: float) -> Checked:
    """Leave out each inner time in turn, draw courses through the others, and see how far it is from their mean.

    The models of the fit have seen these times and take no part. Noise of the sample is taken off.
    """
    inner, found, expected = cells.times[1:-1], [], []
    for t in inner:
        others = cells.times[cells.times != t]
        sketches = np.stack(
            _sketches(cells, others, np.array([t]), n, along, seed, models=False, pace=pace)
        )[:, 0]
        x, w = cells.population(t)
        rng = np.random.default_rng(seed)
        x = x[redrawn(x, len(x), rng, w)] if w is not None else x
        off = ((sketch(x.astype(np.float64), along) - sketches.mean(axis=0)) ** 2).sum()
        own = ((sketches - sketches.mean(axis=0)) ** 2).sum() / (len(sketches) - 1)
        noise = sampling_noise(x.astype(np.float64), along, rng) / len(x)
        found.append(np.sqrt(max(off - noise - own / len(sketches), 0.0)))
        expected.append(np.sqrt(own))
    return Checked(inner, np.array(found), np.array(expected))


def noise_at(cells: Cells, wanted: NDArray[np.float64], along: NDArray, seed: int) -> NDArray[np.float64]:
    """c (k,), the sampling noise of one cell at ``wanted`` times: that of the observed ones, in between by lines."""
    rng = np.random.default_rng(seed)
    at = []
    for t in cells.times:
        x, w = cells.population(t)
        some = redrawn(x, min(len(x), N_CELLS), rng, w)
        at.append(sampling_noise(x[some].astype(np.float64), along, rng))
    return np.interp(wanted, cells.times, at)


def frames(cells: Cells) -> NDArray:
    """The directions along which populations are compared."""
    return directions(cells.x.shape[1])
