"""Populations whose genes were given other levels, beside the same cells left alone, and what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsRegressor

from wlm._adata.neighbours import N_NEIGHBOURS, from_neighbours
from wlm.core.dynamics import Dynamics
from wlm.core.interventions import covariance, least_move, random_move, reach, size
from wlm.core.metrics import w1
from wlm.core.prediction import Ensemble
from wlm.tl._simulation import starting

Floats = NDArray[np.float64]
Float32 = NDArray[np.float32]

#: Cells a side of which W1 is computed.
N_DISTANCE = 500
#: Columns of the effects.
EFFECTS = ("statistic", "name", "time", "effect", "low", "high", "null_low", "null_high", "p")


@dataclass(frozen=True)
class Genes:
    """What can be decoded: ``names`` (g,), ``weights`` (g, d), ``mean`` (g,), ``r2`` (g,), ``lowest`` (g,) observed."""

    names: NDArray[np.object_]
    weights: Floats
    mean: Floats
    r2: Floats
    lowest: Mapping[str, float]

    def place(self, name: str) -> int:
        """Where a gene is."""
        return int(np.flatnonzero(self.names == name)[0])

    def level(self, name: str, x: Float32) -> Floats:
        """Decoded values (n,) of a gene at ``x`` (n, d)."""
        k = self.place(name)
        return x @ self.weights[k] + self.mean[k]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The cells that are perturbed, and all that moves and judges them; the same for a whole screen.

    ``x`` and ``v`` (n, d), weights ``w`` (n,) or None, of all cells at time ``at``; ``chosen`` (c,) are those that move
    on; ``observed`` (m, d) are the cells of the training times, with ``labels`` (m,) or None; ``times`` (T,).
    """

    ensemble: Ensemble
    x: Float32
    v: Float32
    w: Floats | None
    chosen: NDArray[np.intp]
    at: float
    times: Floats
    observed: Float32
    labels: NDArray[Any] | None
    genes: Genes
    n_null: int
    min_r2: float
    seed: int

    def target(self, name: str, level: Any) -> float:
        """The level that is meant, in the units of the matrix that was decoded."""
        if level == "out":
            return self.genes.lowest[name]
        if level in ("down", "up"):
            return float(np.quantile(self.genes.level(name, self.x), 0.05 if level == "down" else 0.95))
        return float(level)

    def moves(self, levels: Mapping[str, float], sigma: Floats) -> Floats:
        """The smallest moves (n, d) of all cells that bring genes to these levels."""
        wanted = np.stack([level - self.genes.level(name, self.x) for name, level in levels.items()], axis=1)
        places = [self.genes.place(name) for name in levels]
        return least_move(wanted, self.genes.weights[places], sigma)

    def rollouts(self, moves: Floats | None, *, models: int | None = None) -> Float32:
        """Where the chosen cells (m, T, c, d) are at all times by each model, moved at first or left alone."""
        x, v = self.x, self.v
        w = None if self.w is None else self.w[self.chosen]
        found = []
        for dynamics, own in starting(self.ensemble, x, v, self.at, self.w)[:models]:
            begin, velocity = x[self.chosen], own[self.chosen]
            if moves is not None:
                begin = (begin + moves[self.chosen]).astype(np.float32)
                velocity = velocity + self._change(own, begin)
            found.append(self._roll(dynamics, begin, velocity, w))
        return np.stack(found)

    def _change(self, v: Float32, moved: Float32) -> Float32:
        """How the velocities around the cells (c, d) change by their move: elsewhere they move as others do there."""
        around = KNeighborsRegressor(min(N_NEIGHBOURS, len(self.x))).fit(self.x, v)
        return (around.predict(moved) - around.predict(self.x[self.chosen])).astype(np.float32)

    def _roll(self, dynamics: Dynamics, x: Float32, v: Float32, w: Floats | None) -> Float32:
        """A free rollout (T, c, d): bridged to observed cells, it would end where nothing was perturbed."""
        if self.at != self.ensemble.training[0] and self.at not in self.ensemble.measured:
            v = dynamics.start_velocity(v, seed=self.seed)
        return dynamics.simulate(x, [self.at, *self.times], v=v, w=w, seed=self.seed)[0][1:]

    def null(self, levels: Mapping[str, float], sizes: Floats, sigma: Floats) -> list[Float32]:
        """Rollouts (T, c, d) of the first model after moves of the same sizes by as many random genes."""
        rng = np.random.default_rng(self.seed)
        usable = np.flatnonzero((self.genes.r2 >= self.min_r2) & ~np.isin(self.genes.names, list(levels)))
        out = []
        for _ in range(self.n_null if len(usable) >= len(levels) else 0):
            chosen = rng.choice(usable, len(levels), replace=False)
            try:
                moves = random_move(sizes, self.genes.weights[chosen], sigma, rng)
            except ValueError:  # genes that go together: as random as others, but no move is theirs
                continue
            out.append(self.rollouts(moves, models=1)[0])
        return out


@dataclass(frozen=True)
class Outcome:
    """A perturbation: ``levels`` that were set, where cells went (m, T, c, d), the moves, and what it changed."""

    levels: dict[str, float]
    positions: Float32
    moved: Float32
    before: dict[str, float]
    move: float
    inside: float
    reach: float
    effects: dict[str, NDArray[Any]]


def intervene(setting: Setting, asked: Mapping[str, Any], twin: Float32, *, genes: bool, max_outside: float) -> Outcome:
    """Perturb, simulate, and compare with the ``twin`` (m, T, c, d).

    Raises
    ------
    ValueError
        If more than ``max_outside`` of the cells leave the data, or the genes cannot be set one by one.
    """
    levels = {name: setting.target(name, level) for name, level in asked.items()}
    sigma = covariance(setting.x, setting.w)
    moves = setting.moves(levels, sigma)
    sizes = size(moves, sigma)
    inside, farthest = reach(setting.x, moves, setting.observed)
    before = {name: float(np.average(setting.genes.level(name, setting.x), weights=setting.w)) for name in levels}
    if 1 - inside > max_outside:
        nearer = {name: round(before[name] + farthest * (level - before[name]), 4) for name, level in levels.items()}
        raise ValueError(
            f"{words_of(levels)} takes {1 - inside:.0%} of the cells at {setting.at:g} out of the data, where nothing "
            f"was learned (decoded means are {_listed(before)}); {farthest:.0%} of the move stays inside, so pass "
            f"{nearer}, or raise max_outside"
        )
    positions = setting.rollouts(moves)
    effects = _effects(setting, positions, twin, setting.null(levels, sizes, sigma), genes=genes)
    moved = (setting.x + moves)[setting.chosen].astype(np.float32)
    return Outcome(
        levels, positions, moved, before, float(np.average(sizes, weights=setting.w)), inside, farthest, effects
    )


def words_of(levels: Mapping[str, Any]) -> str:
    """A perturbation in words."""
    return " and ".join(
        f"{name} {level}" if isinstance(level, str) else f"{name} at {level:.3g}" for name, level in levels.items()
    )


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in values.items())


def _effects(
    setting: Setting, positions: Float32, twin: Float32, null: Sequence[Float32], *, genes: bool
) -> dict[str, NDArray[Any]]:
    """What differs from the twin: by the first model, over all models, and after random moves of the same size."""
    w = None if setting.w is None else setting.w[setting.chosen]
    columns: dict[str, list[Any]] = {name: [] for name in EFFECTS}
    for k, t in enumerate(setting.times):
        statistics: list[tuple[str, Sequence[str], Any]] = [("distance", [""], _distance(w))]
        if setting.labels is not None:
            names = sorted(set(setting.labels.tolist()))
            statistics.append(("composition", names, _shares(setting, names, w)))
        if genes:
            known = np.isfinite(setting.genes.r2)
            weights = setting.genes.weights[known]
            statistics.append(("genes", setting.genes.names[known].tolist(), _levels(weights, w)))
        for statistic, named, change in statistics:
            own = np.stack([change(p[k], q[k]) for p, q in zip(positions, twin, strict=True)])  # (m, names)
            others = np.stack([change(p[k], twin[0][k]) for p in null]) if null else np.empty((0, own.shape[1]))
            _append(columns, statistic, named, float(t), own, others)
    return {name: np.array(values, dtype=object if name in EFFECTS[:2] else float) for name, values in columns.items()}


def _append(
    columns: dict[str, list[Any]], statistic: str, names: Sequence[str], t: float, own: Floats, others: Floats
) -> None:
    n = len(names)
    several, known = len(own) > 1, len(others) > 0
    missing = [np.nan] * n
    # Random genes are turned up or down, so that either sign is as likely.
    usual = np.quantile(np.abs(others), 0.95, axis=0, method="higher") if known else np.empty(0)
    beyond = (np.abs(others) >= np.abs(own[0]) - 1e-12).sum(axis=0)
    rows: dict[str, Any] = {
        "statistic": [statistic] * n,
        "name": [*names],
        "time": [t] * n,
        "effect": own[0],
        "low": own.min(axis=0) if several else missing,
        "high": own.max(axis=0) if several else missing,
        "null_low": (0 if statistic == "distance" else -1) * usual if known else missing,
        "null_high": usual if known else missing,
        "p": (1 + beyond) / (1 + len(others)) if known else missing,
    }
    for name, values in rows.items():
        columns[name] += list(values)


def _distance(w: Floats | None) -> Any:
    """W1 between the population and its twin."""

    def change(x: Float32, y: Float32) -> Floats:
        i = np.random.default_rng(0).permutation(len(x))[:N_DISTANCE]
        own = None if w is None else w[i]
        return np.array([w1(x[i], y[i], own, own)])

    return change


def _shares(setting: Setting, names: Sequence[str], w: Floats | None) -> Any:
    """Change in the share of each label, by the nearest observed cells."""

    def shares(x: Float32) -> Floats:
        found = from_neighbours(setting.observed, setting.labels, x)  # type: ignore[arg-type]
        return np.array([np.average(found == name, weights=w) for name in names])

    return lambda x, y: shares(x) - shares(y)


def _levels(weights: Floats, w: Floats | None) -> Any:
    """Change in the decoded mean of each gene."""
    return lambda x, y: weights @ np.average(x.astype(np.float64) - y, axis=0, weights=w)
