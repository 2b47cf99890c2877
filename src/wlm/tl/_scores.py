"""Scores of predicted populations, naive answers, and what their differences say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from wlm._adata.cells import Cells
from wlm._adata.neighbours import from_neighbours
from wlm.core.chains import spline_interpolation
from wlm.core.metrics import METRICS
from wlm.core.transport import interpolate, relaxed_midpoint
from wlm.core.uncertainty import band, coverage

#: What a model is compared with: copying a neighbour, mixing both, or interpolating between them or through all times.
#: The last one, of couplings in which cells may multiply, where a method has growth.
BASELINES = ("previous", "next", "pooled", "ot_midpoint", "spline", "relaxed_midpoint")

#: Most cells a side in the samples that intervals are taken from, and in a semi-relaxed coupling.
N_SAMPLE, N_RELAXED = 500, 1000

#: Most cells a side in scores of equal numbers of cells.
N_MATCHED = 1000


@dataclass(frozen=True)
class Population:
    """Cells: positions ``x`` (n, d), weights ``w`` (n,) or None, ``labels`` (n,) or None.

    ``limits`` (2, d) are those within which a prediction says that cells are; by default the central 95 % of them.
    """

    x: np.ndarray
    w: np.ndarray | None = None
    labels: np.ndarray | None = None
    limits: np.ndarray | None = field(default=None, compare=False)

    def some(self, i: np.ndarray) -> Population:
        """The cells ``i`` (m,)."""
        w, labels = (None if a is None else a[i] for a in (self.w, self.labels))
        return Population(self.x[i], w, labels, self.limits)

    def capped(self, n: int) -> Population:
        """At most ``n`` of the cells, the same of all populations of this size."""
        return self if len(self.x) <= n else self.some(np.random.default_rng(0).permutation(len(self.x))[:n])

    def shares(self, names: Sequence[str]) -> np.ndarray:
        """Share of each label (len(names),)."""
        return np.array([np.average(self.labels == name, weights=self.w) for name in names])


def _composition(predicted: Population, observed: Population) -> float:
    names = sorted({*observed.labels, *predicted.labels})  # type: ignore[misc]
    return float(np.abs(predicted.shares(names) - observed.shares(names)).sum() / 2)


def _covered(predicted: Population, observed: Population) -> float:
    limits = band(predicted.x[None], predicted.w) if predicted.limits is None else predicted.limits
    return coverage(observed.x, limits, observed.w)


#: Metrics by name, of two populations.
SCORES: dict[str, Any] = {
    **{name: lambda p, o, d=distance: d(p.x, o.x, p.w, o.w) for name, distance in METRICS.items()},
    "coverage": _covered,
    "composition": _composition,
}


def population_at(cells: Cells, t: float, labels: np.ndarray | None) -> Population:
    """The observed cells of time ``t``."""
    i = cells.at(t)
    return Population(cells.x[i], None if cells.w is None else cells.w[i], None if labels is None else labels[i])


def labelled(population: Population, cells: Cells, labels: np.ndarray | None, t: float) -> Population:
    """The predicted cells with labels of their neighbours at other times than ``t``."""
    if labels is None:
        return population
    others = np.isfinite(cells.times) & (cells.times != t)
    return replace(population, labels=from_neighbours(cells.x[others], labels[others], population.x))


def score(
    t: float,
    model: str,
    seed: int,
    predicted: Population,
    observed: Population,
    metrics: Sequence[str],
) -> dict[str, Any]:
    """A row of the table."""
    values = {m: SCORES[m](predicted, observed) for m in metrics}
    sizes = {"n_observed": len(observed.x), "n_predicted": len(predicted.x)}
    return {"time": t, "model": model, "seed": seed, **sizes, **values}


def naive(
    cells: Cells, labels: np.ndarray | None, t: float, seed: int, *, growing: bool = False
) -> dict[str, Population]:
    """The populations that a model is compared with; a spline where three other times give one a bend.

    If a model is ``growing``, also interpolation by a coupling in which cells may multiply, of at most ``N_RELAXED``.
    """
    before, after = cells.observed[cells.observed < t][-1], cells.observed[cells.observed > t][:1]
    previous = population_at(cells, before, labels)
    populations = {"previous": previous}
    if len(after):
        following = population_at(cells, after[0], labels)
        populations["next"] = following
        share = (t - before) / (after[0] - before)
        x = interpolate(previous.x, following.x, share, a=previous.w, b=following.w, seed=seed)
        populations["ot_midpoint"] = labelled(Population(x, previous.w), cells, labels, t)
        populations["pooled"] = _mixed(previous, following, share)
        if growing:
            one, other = previous.capped(N_RELAXED), following.capped(N_RELAXED)
            x, w = relaxed_midpoint(one.x, other.x, share, a=one.w, b=other.w, seed=seed)
            populations["relaxed_midpoint"] = labelled(Population(x, w), cells, labels, t)
        others = cells.without(t)
        if len(others.observed) > 2:
            x = spline_interpolation(others.populations(), t).astype(cells.x.dtype)
            populations["spline"] = labelled(Population(x), cells, labels, t)
    return populations


def _mixed(before: Population, after: Population, share: float) -> Population:
    """Both populations, of which the second counts for ``share`` of the cells."""
    sizes = np.array([(1 - share) / len(before.x), share / len(after.x)])
    w = np.concatenate(
        [
            size * (np.ones(len(p.x)) if p.w is None else p.w / p.w.mean())
            for size, p in zip(sizes, (before, after), strict=True)
        ]
    )
    labels = None if before.labels is None else np.concatenate([before.labels, after.labels])
    return Population(np.concatenate([before.x, after.x]), w / w.mean(), labels)


def halves(observed: Population, seed: int) -> tuple[Population, Population]:
    """Two halves of the cells, at random."""
    half = np.random.default_rng(seed).permutation(len(observed.x))
    n = len(half) // 2
    return observed.some(half[:n]), observed.some(half[n : 2 * n])


def matched(
    populations: Mapping[tuple[float, str, int], Population],
    observed: Mapping[float, Population],
    metric: str,
    seed: int,
) -> list[dict[str, Any]]:
    """Scores of equal numbers of cells: as many of each prediction as one half of the observed has, against that half.

    A score of the other half is the floor, which is what a perfect prediction scores. Means of both halves, and over
    seeds; of at most ``N_MATCHED`` cells a side, and of no more than the smallest prediction has.
    """
    rows = []
    for t, there in observed.items():
        here = {(name, s): p for (time, name, s), p in populations.items() if time == t}
        both = halves(there, seed)
        n = min(N_MATCHED, *(len(p.x) for p in (*both, *here.values())))
        one, other = (half.some(np.arange(n)) for half in both)  # halves are in random order
        floor = SCORES[metric](one, other)
        found: dict[str, list[float]] = {}
        for (name, _), p in here.items():
            order = np.random.default_rng(seed).permutation(len(p.x))
            some = p.some(order[:n])
            found.setdefault(name, []).append((SCORES[metric](some, one) + SCORES[metric](some, other)) / 2)
        rows += [
            {"time": t, "model": name, "metric": metric, "n": n, "score": float(np.mean(values)), "floor": floor}
            for name, values in found.items()
        ]
    return rows


def differences(
    table: pd.DataFrame,
    populations: Mapping[tuple[float, str, int], Population],
    observed: Mapping[float, Population],
    kinds: Mapping[str, Sequence[float]],
    methods: Sequence[str],
    metric: str,
    n_boot: int,
) -> list[dict[str, Any]]:
    """Mean scores of the methods less those of the baselines (and of each other), with intervals.

    The intervals are from samples without replacement of one share of all populations, the same observed cells for all
    models and the same predicted ones for all seeds; deviations are scaled to those of the whole samples (delete-d
    jackknife: Shao and Wu 1989).
    """
    means = table.groupby(["model", "time"])[metric].mean()
    models = list(dict.fromkeys(name for _, name, _ in populations))
    sampled = {(name, t): np.zeros(n_boot) for name in models for t in observed}
    scale = {}
    for t, there in observed.items():
        here = {(name, s): p for (time, name, s), p in populations.items() if time == t}
        share = min(0.5, N_SAMPLE / max(len(p.x) for p in (there, *here.values())))
        scale[t] = np.sqrt(share / (1 - share))
        for k in range(n_boot):
            part = share_of(there, share, k)
            for (name, _), p in here.items():
                score = SCORES[metric](share_of(p, share, k), part)
                sampled[name, t][k] += score / sum(other == name for other, _ in here)
    rows = []
    pairs = [(a, b) for a in methods for b in models if b not in methods]
    pairs += [(a, b) for i, a in enumerate(methods) for b in methods[i + 1 :]]
    for kind, times in kinds.items():
        for a, b in pairs:
            if any((name, t) not in means.index for name in (a, b) for t in times):
                continue
            difference = float(np.mean([means[a, t] - means[b, t] for t in times]))
            row = {"model": a, "baseline": b, "kind": kind, "metric": metric, "n_times": len(times)}
            row |= {"difference": difference}
            if n_boot:
                change = [(sampled[a, t] - sampled[b, t]) for t in times]
                error = np.mean([scale[t] * (c - c.mean()) for t, c in zip(times, change, strict=True)], axis=0)
                low, high = np.quantile(error, (0.025, 0.975))
                row |= {"low": difference - float(high), "high": difference - float(low)}
            rows.append(row)
    return rows


def share_of(population: Population, share: float, k: int) -> Population:
    """The ``k``-th sample of a share of the cells, of the same rows of all populations of one size."""
    n = len(population.x)
    return population.some(np.random.default_rng((k, n)).permutation(n)[: max(1, round(share * n))])


def kinds_of(held: Iterable[float], cells: Cells) -> dict[str, list[float]]:
    """Held-out times that lie between others, and those after all others, which are forecasts."""
    held, last = list(held), cells.observed[-1]
    kinds = {"interpolation": [t for t in held if t < last], "forecast": [t for t in held if t == last]}
    return {kind: times for kind, times in kinds.items() if times}


def verdict(
    table: pd.DataFrame,
    differences: Sequence[Mapping[str, Any]],
    kinds: Mapping[str, Sequence[float]],
    methods: Sequence[str],
    metrics: Sequence[str],
    equal: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The comparison in words, a line for each method and kind of time: the result first.

    Scores are means over times and seeds. The result is that of the first metric, also in floors at ``equal`` numbers
    of cells, see :func:`matched`; a line for each other metric follows, without an interval.
    """
    lines = []
    for kind, times in kinds.items():
        part = table[table["time"].isin(times)]
        means = part.groupby(["model", "time"])[list(metrics)].mean().groupby("model").mean()
        for name in methods:
            for metric in metrics:
                scores = means[metric]
                if metric == "coverage":  # no distance
                    lines.append(f"coverage of 95 %: {kind}, {name}, mean {scores[name]:.1%}")
                    continue
                best = scores[[b for b in BASELINES if b in means.index]].idxmin()
                row = next(
                    (
                        r
                        for r in differences
                        if (r["model"], r["baseline"], r["kind"], r["metric"]) == (name, best, kind, metric)
                    ),
                    {"difference": scores[name] - scores[best]},
                )
                by_seed = part[part["model"] == name].groupby("seed")[metric].mean()
                spread = f" +- {by_seed.std(ddof=1):.2g}" if len(by_seed) > 1 else ""
                numbers = f"mean {metric} {scores[name]:.4g}{spread} against {scores[best]:.4g}"
                floor = f", floor {scores['floor']:.4g}" if "floor" in scores.index else ""
                mine = [row for row in equal if row["model"] == name and row["time"] in times and row["floor"] > 0]
                own = [row["score"] / row["floor"] for row in mine]
                floor += (
                    f" ({np.mean(own):.3g} floors at equal numbers of cells)" if own and metric == metrics[0] else ""
                )
                lines.append(f"{in_words(row, best, scores[best])}: {kind}, {name}, {numbers}{floor}")
                if metric == metrics[0]:
                    lines[-1] += f"; {part['time'].nunique()} held-out time(s), {len(by_seed)} seed(s)"
    return "\n".join(lines)


def in_words(row: Mapping[str, Any], best: str, score: float) -> str:
    """Better, worse or no different, in per cent of the best baseline's score, with the interval if there is one."""
    scale, digits, unit = (100 / score, "+.1f", " %") if score > 0 else (1.0, "+.3g", "")
    change, *limits = (format(scale * row[k], digits) for k in ("difference", "low", "high") if k in row)
    if row["difference"] == 0 or ("low" in row and row["low"] <= 0 <= row["high"]):
        word = "NO DIFFERENCE FROM"
    else:
        word = "BETTER THAN" if row["difference"] < 0 else "WORSE THAN"
    interval = f", 95 % {' to '.join(limits)}" if limits else ""
    return f"{word} {best} ({change}{unit}{interval})"
