"""Rollouts, fields and predictions from fitted dynamics and observed cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wlm.core.dynamics import CHUNK, Dynamics, Float32, Moved
from wlm.core.populations import Array
from wlm.core.transport import partner_index, partners

if TYPE_CHECKING:
    from wlm.core.forecast import Forecast

#: Most cells kept in a stored rollout.
N_ROLLOUT = 1000
#: Stored points of a rollout per interval between observed times.
POINTS_PER_INTERVAL = 5


def curved(notes: Mapping[str, Any]) -> bool:
    """Whether cells arrive at the next population with its velocities, by the notes of a fit."""
    return "choice" in notes and notes["choice"].get("path") != "rollout"


@dataclass(frozen=True)
class Rollout:
    """Paths of cells from the first observed time through all others.

    ``times`` (T,); ``positions`` and ``velocities`` (T, n, d); ``origin`` (n,) indices of the starting cells;
    ``weights`` (n,) of the cells, or (T, n) where they grow; None if all are equal.
    """

    times: NDArray[np.float64]
    positions: Float32
    velocities: Float32
    origin: NDArray[np.intp]
    weights: Array | None = None

    def at(self, t: float) -> tuple[Float32, Float32]:
        """Positions and velocities (n, d) at an observed time."""
        k = self._index(t)
        return self.positions[k], self.velocities[k]

    def mass(self, t: float) -> Array | None:
        """Weights (n,) at an observed time; None if all are equal."""
        return self.weights if self.weights is None or self.weights.ndim == 1 else self.weights[self._index(t)]

    def _index(self, t: float) -> int:
        return int(np.argmin(np.abs(self.times - t)))


@dataclass(frozen=True)
class Member:
    """One model of a fit, and the ``path`` of cells of the first training time with it."""

    dynamics: Dynamics
    path: Rollout


@dataclass(frozen=True)
class Ensemble:
    """All models of a fit, which were trained on the same cells, or on some that were drawn from these.

    ``training`` times; those of them at which cells have velocities of their own, ``measured``; the ``seed`` of the
    first model; whether paths are ``curved``: cells arrive at the next population with its velocities, those of paths
    through all populations or measured ones that are trusted; and the ``forecast``, what cells follow after the last
    training time: by default the models.
    """

    members: tuple[Member, ...]
    training: NDArray[np.float64]
    measured: NDArray[np.float64]
    seed: int
    curved: bool = False
    forecast: Forecast | None = None


def rollout(
    dynamics: Dynamics,
    x: Array,
    v: Array | None,
    origin: NDArray[np.intp],
    observed: Array,
    *,
    w: Array | None = None,
    seed: int = 0,
) -> Rollout:
    """Roll at most ``N_ROLLOUT`` of the first time's cells ``x`` (n, d) through all observed times.

    Parameters
    ----------
    x, v
        Positions of all cells at ``observed[0]`` and their velocities, if the data give them.
    origin
        Their indices, shape (n,).
    observed
        All observed times, held-out ones included.
    w
        Weights of the cells, shape (n,); all equal by default.
    """
    keep = np.sort(np.random.default_rng(seed).permutation(len(x))[:N_ROLLOUT])
    fine = [
        np.linspace(a, b, POINTS_PER_INTERVAL, endpoint=False) for a, b in zip(observed[:-1], observed[1:], strict=True)
    ]
    times = np.concatenate([*fine, observed[-1:]])
    w = None if w is None else w[keep]
    moved = dynamics.simulate(x[keep], times, v=None if v is None else v[keep], w=w, seed=seed)
    return Rollout(
        times, moved.positions, moved.velocities, origin[keep], w if moved.weights is None else moved.weights
    )


def fields(
    dynamics: Dynamics,
    x: Array,
    v: Array | None,
    times: Array,
    observed: Array,
    path: Rollout,
    *,
    w: Array | None = None,
    known: Array | None = None,
    seed: int = 0,
) -> dict[str, Float32]:
    """The fitted dynamics at each observed cell's own time.

    Parameters
    ----------
    x, v, times
        Positions (n, d), velocities (n, d; NaN where not measured) or None, and times (n,) of all cells.
    observed
        Distinct times, increasing.
    path
        The stored rollout, whose momentum is handed to observed cells that have no velocity of their own.
    w
        Weights of the cells, shape (n,); all equal by default.
    known
        Rates of growth that are given for the cells, shape (n,), NaN where none is.

    Returns
    -------
    ``potential`` (n,), ``velocity``, ``force`` and ``next`` (n, d); the last is NaN at the last time. Of dynamics with
    growth also ``growth`` (n,), the rate, and ``descendants`` (n,), how many cells each is at the next time.
    """
    out = {name: np.full(x.shape, np.nan, dtype=np.float32) for name in ("velocity", "force", "next")}
    names = ("potential", *(("growth", "descendants") if dynamics.grows else ()))
    of_cells = {name: np.full(len(x), np.nan, dtype=np.float32) for name in names}
    for k, t in enumerate(observed):
        i = np.flatnonzero(times == t)
        wi, own = (None if a is None else a[i] for a in (w, known))
        of_cells["potential"][i] = dynamics.energy(x[i], t, w=wi)
        out["force"][i] = dynamics.force(x[i], t, w=wi)
        if "growth" in of_cells:
            of_cells["growth"][i] = dynamics.growth(x[i], t, w=wi, known=own)
        measured = v[i] if v is not None and bool(np.isfinite(v[i]).all()) else None
        start = velocity_at(dynamics, x[i], measured, t, path, w=wi, seed=seed)
        if start is None:
            continue
        out["velocity"][i] = start
        if k + 1 < len(observed):
            carried = measured is None and t > path.times[0]
            moved = to_next(dynamics, x[i], start, t, observed[k + 1], carried=carried, w=wi, seed=seed)
            out["next"][i] = moved.positions[-1]
            if moved.weights is not None:
                descendants = moved.weights[-1] / moved.weights[0]
                if own is not None:
                    more = dynamics.own_growth(x[i], own, moved.positions[-1]) * (observed[k + 1] - t)
                    descendants = _shared_out(descendants, more, wi)
                of_cells["descendants"][i] = descendants
    return {**of_cells, **out}


def to_next(
    dynamics: Dynamics,
    x: Array,
    v: Array,
    t: float,
    end: float,
    *,
    carried: bool,
    w: Array | None = None,
    seed: int = 0,
) -> Moved:
    """Observed cells ``x`` (n, d) moved freely from ``t`` to ``end``.

    They start with ``v`` (n, d), or with the part of it that the model uses, if a rollout ``carried`` it to them.
    """
    v = dynamics.start_velocity(v, seed=seed) if carried else v
    return dynamics.simulate(x, [t, end], v=v, w=w, seed=seed)


def _shared_out(descendants: Array, more: Array, w: Array | None) -> Array:
    """Descendants (n,) that are e^``more`` (n,) times as many, of cells of weights ``w`` (n,), the same in all."""
    found = descendants * np.exp(more)
    return found * np.average(descendants, weights=w) / np.average(found, weights=w)


def velocity_at(
    dynamics: Dynamics,
    x: Array,
    v: Array | None,
    t: float,
    path: Rollout,
    *,
    w: Array | None = None,
    seed: int = 0,
) -> Array | None:
    """Velocities (n, d) of the cells ``x`` (n, d) observed at ``t``: of the dynamics alone, measured, or carried there.

    ``v`` (n, d) are measured ones, or None. There are none, and None is returned, before ``path`` begins, since nothing
    starts there.
    """
    determined = dynamics.velocity(x, t, w=w)
    if determined is not None:
        return determined
    if v is not None:
        return v
    if t < path.times[0]:
        return None
    if t == path.times[0]:
        return dynamics.simulate(x, [t], seed=seed).velocities[0]
    return dynamics.carry_velocity(*path.at(t), x, a=path.mass(t), b=w, seed=seed)


def predict(
    dynamics: Dynamics,
    x: Array,
    v: Array,
    start: float,
    times: Sequence[float],
    *,
    target: Array | None = None,
    target_time: float | None = None,
    target_v: Array | None = None,
    w: Array | None = None,
    target_w: Array | None = None,
    steady: float | None = None,
    seed: int = 0,
    chunk_size: int = CHUNK,
) -> Moved:
    r"""Predict where observed cells are at later times.

    Between two observed times the rollout is bridged: it is continued to the later one, where the
    optimal coupling with the cells observed there gives each path's error, and every path is
    corrected by the share of its error that is due by then,
    :math:`\hat x(t) = x(t) + \tau\,[T(x(t_1)) - x(t_1)],\ \tau = (t - t_0)/(t_1 - t_0)`. Without forces
    and velocities this is the linear interpolation of optimal transport; with a perfect fit it is the
    rollout itself.

    Without velocities, measured or of splines, how fast a population moves between two observations is what they say
    least about. A random share ``steady`` of the cells then goes to the same end on a straight line at
    constant speed: the prediction is a mixture of both paces.

    Where cells have velocities ``target_v`` at the later time too, of paths or measured, paths have to arrive
    with these: the correction is the cubic curve with the errors in position and velocity that the rollout has at
    either end. Of all forces that would lead the rollout there, its own has the least square. Partners are then those
    that meet half way, each at its velocity, and steady cells are those that follow the cubic curve alone, without the
    rollout.

    Parameters
    ----------
    x, v, start
        Positions and velocities (n, d) of the cells that are observed at time ``start``.
    times
        Times to predict, after ``start``.
    target, target_time
        Cells (m, d) of the next observed time, for bridging the times before it.
    target_v
        Their velocities (m, d), if paths have to arrive with them.
    w, target_w
        Weights of the cells (n,) and of ``target`` (m,); all equal by default.
    steady
        Share of the cells that are bridged at constant speed, or with ``target_v`` by the cubic curve alone; by default
        none where cells start with measured velocities, else half.
    seed
        Seeds the choice of partners and of steady cells, and stochastic models.
    chunk_size
        Most cells that move together, see :meth:`~wlm.core.dynamics.Dynamics.simulate`.

    Returns
    -------
    positions, velocities
        Shape (T, n, d).
    weights
        Shape (T, n), of dynamics with growth; else None. Partners are coupled by the weights that cells have by then.
    """
    wanted = np.asarray(times, dtype=np.float64)
    grid, back = np.unique(np.append(wanted, [] if target_time is None else target_time), return_inverse=True)
    moved = dynamics.simulate(x, [start, *grid], v=v, w=w, seed=seed, chunk_size=chunk_size)
    begin, positions, velocities = moved.velocities[0], moved.positions[1:][back], moved.velocities[1:][back]
    weights = None if moved.weights is None else moved.weights[1:][back]
    if target is None or target_time is None:
        return Moved(positions, velocities, weights)
    if weights is not None:
        w, weights = weights[-1], weights[:-1]
    inside = np.flatnonzero(wanted < target_time)
    if steady is None:
        steady = dynamics.model.steady
    if steady is None:
        steady = 0.0 if dynamics.needs_velocity and target_v is None else 0.5
    rng, duration = np.random.default_rng(seed), target_time - start
    if target_v is None:
        end = partners(positions[-1], target, rng, w, target_w)
    else:
        i = partner_index(x + duration / 2 * v, target - duration / 2 * target_v, rng, w, target_w)
        end, final = target[i], target_v[i]
    straight = (rng.random(len(x)) < steady)[:, None]
    if target_v is not None:  # until they arrive, what steady cells are corrected from is rest
        for k in (*inside, -1):
            positions[k], velocities[k] = np.where(straight, x, positions[k]), np.where(straight, 0, velocities[k])
        begin = np.where(straight, 0, begin)
    error = end - positions[-1]
    last, positions, velocities = velocities[-1], positions[:-1].copy(), velocities[:-1].copy()
    for k in inside:
        s = (wanted[k] - start) / duration
        if target_v is None:
            positions[k] = np.where(straight, x + s * (end - x), positions[k] + s * error)
            change = np.where(straight, end - x, error) / duration
            velocities[k] = np.where(straight, change, velocities[k] + change)
        else:
            early, late = v - begin, final - last
            positions[k] += s**2 * (3 - 2 * s) * error + duration * s * (1 - s) * ((1 - s) * early - s * late)
            velocities[k] += 6 * s * (1 - s) / duration * error + (1 - s) * (1 - 3 * s) * early - s * (2 - 3 * s) * late
    return Moved(positions, velocities, weights)
