"""Leaving out donors, animals or cultures: fits to the others, scored on the cells of the one left out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student

from wlm._adata.cells import Cells
from wlm._adata.columns import read_column
from wlm._logging import logger
from wlm._random import as_seeds
from wlm.core.methods import Method
from wlm.core.prediction import predict as predict_cells
from wlm.core.uncertainty import band
from wlm.tl._folds import Fold
from wlm.tl._models import ensemble_of
from wlm.tl._progress import Job, Progress, Tell, run
from wlm.tl._scores import Population, halves, in_words, labelled, population_at, score

#: Answers that need no model: the cells it starts from, the other samples at the time, and the former moved as the mean
#: of the others moves.
NAIVE = ("previous", "others", "shifted")
#: Fewest cells of a group at a time that is scored.
MIN_CELLS = 10


def read_groups(adata: ad.AnnData, key: str, times: NDArray[np.float64]) -> NDArray[np.object_]:
    """The group (n_obs,) of each cell; refuses cells that have a time and no group, and a single group."""
    column = read_column(adata, key)
    missing = column.isna().to_numpy() & np.isfinite(times)
    if missing.any():
        raise ValueError(
            f"obs[{key!r}] is missing for {missing.sum()} of {len(column)} cells "
            f"({list(adata.obs_names[missing][:3])}, ...); leave those cells out, or give them a name of their own"
        )
    groups = column.astype(str).to_numpy(dtype=object)
    if len(set(groups[np.isfinite(times)])) < 2:
        raise ValueError(f"obs[{key!r}] has one group; leaving it out leaves nothing to fit to")
    return groups


@dataclass(frozen=True)
class Left:
    """A group that is left out: its ``name``, the cells of the ``others``, and its ``own``, at the ``times`` to score.

    ``starts`` are times from which these are predicted, by the group's own cells where ``from_own``.
    """

    name: str
    others: Cells
    own: Cells
    times: tuple[float, ...]
    starts: tuple[float, ...]
    from_own: tuple[bool, ...]

    def start(self, k: int) -> Population:
        """The cells from which the ``k``-th time is predicted."""
        return population_at(self.own if self.from_own[k] else self.others, self.starts[k], None)


def leave_out(cells: Cells, groups: NDArray[np.object_], wanted: NDArray[np.float64] | None) -> list[Left]:
    """Each group with the times that can be scored: those ``wanted``, or all that the others lead to."""
    found, skipped = [], []
    here = np.isfinite(cells.times)
    for name in sorted(set(groups[here])):
        mine = here & (groups == name)
        values, counts = np.unique(cells.times[here & ~mine], return_counts=True)
        shared = values[counts >= 2]
        if len(shared) < 2:
            raise ValueError(
                f"group {name!r} cannot be left out: the others have cells at {shared.tolist()} only, and a fit needs "
                "two times"
            )
        others = cells.only(here & ~mine & np.isin(cells.times, shared))
        values, counts = np.unique(cells.times[mine], return_counts=True)
        scored = values[(counts >= MIN_CELLS) & (values > shared[0])]
        if wanted is not None:
            scored = scored[np.isin(scored, wanted)]
        if len(scored) == 0:
            skipped.append(name)
            continue
        known = values[np.isin(values, shared)]
        starts, from_own = [], []
        for t in scored:
            own = known[known < t]
            from_own.append(len(own) > 0)
            starts.append(float(own[-1] if len(own) else shared[shared < t][-1]))
        found.append(Left(name, others, cells.only(mine), tuple(map(float, scored)), tuple(starts), tuple(from_own)))
    if not found:
        raise ValueError(
            f"no group has {MIN_CELLS} cells at a time to score, after the first time of the others; name other "
            "times as holdout, or larger groups"
        )
    if skipped:
        logger.warning("wlm.tl.evaluate: groups %s have no time to score and are only trained on", skipped)
    return found


def predict(
    fold: Fold, left: Left, config: Method[Any, Any], seed: int, *, tell: Tell | None = None
) -> tuple[list[Population], float]:
    """The group's cells at each of its times, by a fit to the others, and the seconds the fit took.

    Cells start with the velocities of the others there, and move freely: they are not led to the others' cells.
    """
    cells = left.others
    if "velocity" not in config.takes and cells.v is not None:
        cells = cells.without_velocities()
    if not config.grows:
        cells = cells.without_growth()
    if "clones" not in config.takes:
        cells = cells.without_clones()
    file = None
    if fold.cache is not None:
        digest = hashlib.sha256(fold.name(cells, np.nan, config, seed).encode())
        digest.update(repr((left.times, left.starts, left.from_own)).encode())
        for values in (left.own.x, left.own.times, left.own.w):
            digest.update(b"-" if values is None else np.ascontiguousarray(values).tobytes())
        file = fold.cache / f"{digest.hexdigest()[:32]}.npz"
        known = fold.kept(file, len(left.times))
        if known is not None:
            return known
    cells, trained = fold.fit(cells, config, seed, tell)
    seconds = sum(model.seconds for model in trained)
    members = ensemble_of(cells, trained, as_seeds(seed, 1)[0]).members
    found = []
    for k, (t, start) in enumerate(zip(left.times, left.starts, strict=True)):
        begin, at = left.start(k), cells.at(start)
        moved = []
        for member, model in zip(members, trained, strict=True):
            dynamics = member.dynamics
            v = dynamics.velocity(begin.x, start, w=begin.w)
            if v is None:
                w = None if cells.w is None else cells.w[at]
                v = dynamics.carry_velocity(
                    cells.x[at], model.fields["velocity"][at], begin.x, a=w, b=begin.w, seed=seed
                )
            moved.append(predict_cells(dynamics, begin.x, v, start, [t], w=begin.w, seed=seed))
        positions = np.stack([m.positions[0] for m in moved])
        grown = [m.weights[0] for m in moved if m.weights is not None]
        weights = np.stack(grown) if grown else None
        w = begin.w if weights is None else weights[0].astype(np.float64)
        limits = band(positions, begin.w if weights is None else weights)
        found.append(Population(positions[0], w, limits=limits))
    if file is not None:
        fold.keep(file, found, seconds)
    return found, seconds


def steps(fold: Fold, config: Method[Any, Any]) -> int:
    """Steps of the trainings by which one group is predicted."""
    return fold.n_models * config.n_steps


def naive(left: Left, k: int) -> dict[str, Population]:
    """Answers that need no model for the ``k``-th time."""
    t, start, begin = left.times[k], left.starts[k], left.start(k)
    out = {"previous": begin}
    if t in left.others.observed:
        there = population_at(left.others, t, None)
        before = population_at(left.others, start, None)
        out["others"] = there
        shift = np.average(there.x, axis=0, weights=there.w) - np.average(before.x, axis=0, weights=before.w)
        out["shifted"] = Population(begin.x + shift.astype(begin.x.dtype), begin.w)
    return out


def table(
    fold: Fold,
    methods: Mapping[str, Method[Any, Any]],
    cells: Cells,
    groups: NDArray[np.object_],
    lefts: Sequence[Left],
    labels: NDArray[Any] | None,
    progress: Progress,
    *,
    metrics: Sequence[str],
    seeds: Sequence[int],
    n_jobs: int,
    max_cells: int,
    baselines: bool,
    intervals: bool,
) -> pd.DataFrame:
    """The scores of all models on the groups left out, with differences and their intervals over groups."""
    jobs = [(left, name, s) for left in lefts for name in methods for s in seeds]
    fits = [
        Job(predict, (fold, left, methods[name], s), f"without {left.name}, {name}", steps(fold, methods[name]))
        for left, name, s in jobs
    ]
    done = list(run(fits, progress, n_jobs))
    progress.say("scores")
    rows = []

    def add(left: Left, k: int, model: str, seed: int, found: Population, observed: Population) -> None:
        own = cells.only(np.isfinite(cells.times) & (groups != left.name))
        others = None if labels is None else labels[np.isfinite(cells.times) & (groups != left.name)]
        found = labelled(found.capped(max_cells), own, others, np.nan)  # the others are known at this time too
        rows.append({"group": left.name, **score(left.times[k], model, seed, found, observed, metrics)})

    for left in lefts:
        mine = np.isfinite(cells.times) & (groups == left.name)
        own_labels = None if labels is None else labels[mine]
        for k, t in enumerate(left.times):
            observed = population_at(left.own, t, own_labels).capped(max_cells)
            for (other, name, s), (found, _) in zip(jobs, done, strict=True):
                if other is left:
                    add(left, k, name, s, found[k], observed)
            if baselines:
                for name, population in naive(left, k).items():
                    add(left, k, name, seeds[0], population, observed)
                floor = halves(observed, seeds[0])
                rows.append({"group": left.name, **score(t, "floor", seeds[0], *floor, metrics)})
    out = pd.DataFrame(rows).sort_values(["group", "time", "model", "seed"], kind="stable", ignore_index=True)
    out.attrs["seconds"] = float(np.mean([seconds for _, seconds in done]))
    out.attrs |= {"differences": [], "verdict": ""}
    if baselines:
        found = differences(out, list(methods), metrics[0], intervals=intervals)
        out.attrs |= {"differences": found, "verdict": _verdict(out, found, list(methods), metrics)}
    return out


def differences(
    table: pd.DataFrame, methods: Sequence[str], metric: str, *, intervals: bool = True
) -> list[dict[str, Any]]:
    """Mean scores of the methods less those of the others by group, and 95 % intervals over groups (Student's t)."""
    by_time = table.groupby(["model", "group", "time"])[metric].mean()
    models = [*methods, *(name for name in NAIVE if name in set(table["model"]))]
    rows = []
    for i, a in enumerate(methods):
        for b in models[i + 1 :]:
            each = (by_time[a] - by_time[b]).dropna().groupby("group").mean()
            if len(each) == 0:
                continue
            row: dict[str, Any] = {"model": a, "baseline": b, "kind": "left-out group", "metric": metric}
            row |= {"n_times": table["time"].nunique(), "n_groups": len(each), "difference": float(each.mean())}
            if len(each) > 1 and intervals:
                half = float(student.ppf(0.975, len(each) - 1) * each.std(ddof=1) / np.sqrt(len(each)))
                row |= {"low": row["difference"] - half, "high": row["difference"] + half}
            rows.append(row)
    return rows


def _verdict(
    table: pd.DataFrame, found: Sequence[Mapping[str, Any]], methods: Sequence[str], metrics: Sequence[str]
) -> str:
    """A line for each method: against the best naive answer, over groups."""
    lines = []
    for metric in metrics:
        by_time = table.groupby(["model", "group", "time"])[metric].mean()
        for name in methods:
            if metric == "coverage":
                lines.append(f"coverage of 95 %: left-out groups, {name}, mean {_mean(by_time[name]):.1%}")
                continue
            # At a time that no other group has, there are no others to copy: answers are compared where both are.
            pairs = {b: (by_time[name] - by_time[b]).dropna().index for b in NAIVE if b in by_time.index}
            best = min(pairs, key=lambda b: _mean(by_time[b][pairs[b]]) - _mean(by_time[name][pairs[b]]))
            own, other, floor = (_mean(by_time[model][pairs[best]]) for model in (name, best, "floor"))
            row = next(
                (r for r in found if (r["model"], r["baseline"], r["metric"]) == (name, best, metric)),
                {"difference": own - other},
            )
            numbers = f"mean {metric} {own:.4g} against {other:.4g}, floor {floor:.4g}"
            lines.append(f"{in_words(row, best, other)}: left-out groups, {name}, {numbers}")
            if metric == metrics[0]:
                n = table["group"].nunique()
                lines[-1] += f"; {n} group(s), interval over groups" if "low" in row else f"; {n} group(s), no interval"
    return "\n".join(lines)


def _mean(scores: pd.Series) -> float:
    """The mean over groups of the means over their times."""
    return float(scores.groupby("group").mean().mean())
