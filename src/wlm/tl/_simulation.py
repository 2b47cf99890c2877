"""Moving whole populations with the models of a fit."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from wlm._adata.cells import Cells
from wlm.core.diagnosis import Agreement, agreement
from wlm.core.dynamics import CHUNK, Dynamics
from wlm.core.growth import resampled
from wlm.core.prediction import Ensemble, Rollout, velocity_at
from wlm.core.prediction import predict as predict_cells
from wlm.core.uncertainty import LEVEL, band, coverage, horizon, outside

#: Most cells of a time that are moved to see how near bridged predictions come to training times.
N_BRIDGED = 1000


@dataclass(frozen=True)
class Predicted:
    """A population at one predicted time: ``cells`` (n,), the indices of those that it started as.

    ``positions`` (m, n, d) by each model of an ensemble; ``velocities`` (n, d) by the first; ``weights`` (m, n) of the
    cells by then, by each model, or None if all are equal.
    """

    time: float
    start: float
    bridged: bool
    cells: NDArray[np.intp]
    positions: NDArray[np.float32]
    velocities: NDArray[np.float32]
    weights: NDArray[np.floating] | None = None

    @property
    def w(self) -> NDArray[np.floating] | None:
        """Weights (n,) by the first model."""
        return None if self.weights is None else self.weights[0]


def simulate(
    ensemble: Ensemble,
    x: NDArray[np.float32],
    v: NDArray[np.float32],
    cell_times: NDArray[np.float64],
    wanted: NDArray[np.float64],
    starts: NDArray[np.float64],
    present: NDArray[np.float64],
    *,
    weights: NDArray[np.float64] | None,
    seed: int,
    chunk_size: int = CHUNK,
    n_cells: int | None = None,
    velocities_in: str = "the fit",
) -> list[Predicted]:
    """Move whole populations, with all models, from the times ``starts`` (T,) to those that are ``wanted`` (T,).

    ``x`` and ``v`` (n, d) are positions of the cells and velocities by the first model, ``present`` the training times
    that have cells, ``velocities_in`` where velocities were looked for. If only ``n_cells`` of each population are
    wanted, no more than these or ``chunk_size`` are moved.
    """
    most = None if n_cells is None else max(n_cells, chunk_size)
    parts = []
    for start in np.unique(starts):
        cells = some_of(np.flatnonzero(cell_times == start), most, seed)
        unknown = ~np.isfinite(v[cells]).all(axis=1)
        if unknown.any():
            raise ValueError(f"{velocities_in} has no velocity for the cells at {start:g}; start from a training time")
        ask = wanted[starts == start]
        w = None if weights is None else weights[cells]
        later = present[present > start]
        bridge: dict[str, Any] = {}
        if len(later):
            next_cells = some_of(np.flatnonzero(cell_times == later[0]), most, seed)
            bridge = {"target": x[next_cells], "target_time": float(later[0])}
            if ensemble.curved and later[0] in ensemble.measured:
                bridge["target_v"] = v[next_cells]
            bridge["target_w"] = None if weights is None else weights[next_cells]
        moving = starting(ensemble, x[cells], v[cells], float(start), w)
        models = []
        for dynamics, own in moving:
            if start != ensemble.training[0] and start not in ensemble.measured:  # cells with carried momentum
                own = dynamics.start_velocity(own, seed=seed)
            more: dict[str, Any] = {"w": w, "seed": seed, "chunk_size": chunk_size}
            if ensemble.forecast is not None and start == ensemble.training[-1]:
                moved = ensemble.forecast.move(dynamics, x[cells], own, start, ask, **more)
            else:
                moved = predict_cells(dynamics, x[cells], own, start, ask, **more, **bridge)
            models.append(moved)
        parts += [
            Predicted(
                float(t),
                float(start),
                bool(len(later) and t < later[0]),
                cells,
                np.stack([moved.positions[k] for moved in models]),
                models[0].velocities[k],
                _weights([None if moved.weights is None else moved.weights[k] for moved in models], w),
            )
            for k, t in enumerate(ask)
        ]
    return parts


def _weights(grown: list[NDArray[np.float32] | None], w: NDArray[np.float64] | None) -> NDArray[np.floating] | None:
    """Weights (m, n) of cells that have ``grown`` to these (n,) by each model, or still have those of the start."""
    each = [w if own is None else own for own in grown]
    return np.stack([own.astype(np.float64) for own in each if own is not None]) if each[0] is not None else None


def starting(
    ensemble: Ensemble, x: NDArray[np.float32], v: NDArray[np.float32], start: float, w: NDArray[np.float64] | None
) -> list[tuple[Dynamics, NDArray[np.float32]]]:
    """Each model, and the velocities (n, d) that it gives cells ``x`` (n, d) of time ``start``: ``v`` by the first."""
    measured = v if start in ensemble.measured else None
    moving = [(ensemble.members[0].dynamics, v)]
    for other in ensemble.members[1:]:
        own = velocity_at(other.dynamics, x, measured, start, other.path, w=w, seed=ensemble.seed)
        # The first model has velocities, so this one has.
        moving.append((other.dynamics, cast("NDArray[np.float32]", own)))
    return moving


def some_of(cells: NDArray[np.intp], most: int | None, seed: int) -> NDArray[np.intp]:
    """At most so many of the cells, at random, in their order."""
    if most is None or len(cells) <= most:
        return cells
    return np.sort(np.random.default_rng(seed).permutation(cells)[:most])


def choose(part: Predicted, n_cells: int, seed: int) -> Predicted:
    """``n_cells`` of a population at random, in proportion to their weights by the first model."""
    n = len(part.cells)
    p = None if part.w is None else part.w / part.w.sum()
    chosen = np.random.default_rng(seed).choice(n, n_cells, replace=n_cells > n or p is not None, p=p)
    return _taken(part, chosen)


def resample(part: Predicted, seed: int) -> Predicted:
    """As many cells, all of one weight: each as often as its weight by the first model says, on average."""
    if part.w is None:
        return part
    return _taken(part, resampled(part.w, len(part.cells), np.random.default_rng(seed)))


def _taken(part: Predicted, rows: NDArray[np.intp]) -> Predicted:
    """These cells, which were drawn in proportion to their weights by the first model."""
    weights = part.weights
    if weights is not None:
        weights = weights[:, rows] / weights[0, rows] * weights[0].mean()
    return replace(
        part,
        cells=part.cells[rows],
        positions=part.positions[:, rows],
        velocities=part.velocities[rows],
        weights=weights,
    )


def measure_coverage(cells: Cells, ensemble: Ensemble, v: Any, seed: int) -> dict[str, Any]:
    """How many of the held-out cells lie within the band that is predicted for them."""
    held = cells.observed[~np.isin(cells.observed, cells.training)]
    held = held[held > cells.training[0]]
    starts = np.array([cells.training[cells.training < t][-1] for t in held])
    known = np.where(np.isfinite(cells.times), cells.times, -np.inf)  # cells without a time are not predicted from
    parts = simulate(ensemble, cells.x, v, known, held, starts, cells.training, weights=cells.w, seed=seed)
    parts.sort(key=lambda part: part.time)
    measured = []
    for part in parts:
        there = cells.at(part.time)
        w = None if cells.w is None else cells.w[there]
        measured.append(coverage(cells.x[there], band(part.positions, part.weights), w))
    lead, free = held - starts, held > cells.training[-1]
    return {
        "times": held,
        "lead": lead,
        "measured": np.array(measured),
        "nominal": LEVEL,
        "horizon": horizon(lead[free], np.array(measured)[free]),
    }


def measure_free(cells: Cells, path: Rollout, seed: int) -> dict[str, Any]:
    """How near a free rollout from the first time comes to the cells of the others that it was trained on."""
    times, found = cells.training[1:], []
    for t in times:
        there = cells.at(t)
        w = None if cells.w is None else cells.w[there]
        found.append(agreement(path.at(t)[0], cells.x[there], path.mass(t), w, seed=seed))
    names = [field.name for field in fields(Agreement)]
    moved = np.stack([path.at(t)[0] for t in times])  # (T - 1, n, d)
    far = outside(moved.reshape(-1, moved.shape[2]), cells.x[np.isin(cells.times, cells.training)])
    far = far.reshape(moved.shape[:2])
    return {
        "times": times,
        **{name: np.array([getattr(f, name) for f in found]) for name in names},
        "outside": np.array([np.average(own, weights=path.mass(t)) for t, own in zip(times, far, strict=True)]),
    }


def measure_bridged(
    ensemble: Ensemble,
    x: NDArray[np.float32],
    v: NDArray[np.float32],
    times: NDArray[np.float64],
    weights: NDArray[np.float64] | None,
    seed: int,
) -> NDArray[np.float64]:
    """W1 (T,) of the first model to each training time, predicted from its neighbours as if it were not there.

    NaN at the first and the last, and where cells are missing. Of as many cells as :func:`measure_free` compares.
    """
    alone, training = replace(ensemble, members=ensemble.members[:1]), ensemble.training
    out = np.full(len(training), np.nan)
    for k, t in list(enumerate(training))[1:-1]:
        if not np.isin(training[k - 1 : k + 2], times).all():
            continue
        part = simulate(
            *(alone, x, v, times, np.array([t]), training[[k - 1]], training[training != t]),
            weights=weights,
            seed=seed,
            chunk_size=N_BRIDGED,
            n_cells=N_BRIDGED,
        )[0]
        there = times == t
        b = None if weights is None else weights[there]
        out[k] = agreement(part.positions[0], x[there], part.w, b, seed=seed).w1
    return out
