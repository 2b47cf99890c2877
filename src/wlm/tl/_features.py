"""What samples are compared by: populations, means, compositions, and what a fit to each of them says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform

from wlm._adata.samples import Samples
from wlm._logging import logger, quiet
from wlm.core.devices import few_threads
from wlm.core.methods import Method
from wlm.core.metrics import w1
from wlm.tl._models import ensemble_of, prepare_all, train_model
from wlm.tl._progress import Job, Progress, Tell, run
from wlm.tl._simulation import simulate

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Feature:
    """One statistic at one time: ``distances`` (n, n) between the samples that are ``present`` (n,), NaN elsewhere.

    ``values`` (n, m) of each sample, with ``names`` (m,), where it is made of numbers; None where it is not.
    """

    statistic: str
    time: float
    present: NDArray[np.bool_]
    distances: Floats
    names: tuple[str, ...] = ()
    values: Floats | None = None


@dataclass(frozen=True)
class Population:
    """Cells of one sample at one time: ``x`` (n, d), weights ``w`` (n,) or None."""

    x: NDArray[np.floating]
    w: NDArray[np.floating] | None


def distances(
    statistic: str, t: float, populations: Mapping[int, Population], n: int, max_cells: int, seed: int, n_jobs: int
) -> Feature:
    """W1 between the populations of samples, in numbers of cells that are the same for all of them.

    W1 between samples of cells has a floor, which is higher where cells are fewer: a condition with smaller samples
    would seem to differ.
    """
    size = min(max_cells, *(len(p.x) for p in populations.values()))
    some = {k: _some(p, size, np.random.default_rng([seed, k])) for k, p in populations.items()}
    pairs = [(i, j) for i in some for j in some if i < j]
    found = Parallel(n_jobs=None if n_jobs == 1 else n_jobs)(
        delayed(w1)(some[i].x, some[j].x, some[i].w, some[j].w) for i, j in pairs
    )
    out = np.full((n, n), np.nan)
    for (i, j), d in zip(pairs, found, strict=True):
        out[i, j] = out[j, i] = d
    present = np.isin(np.arange(n), list(some))
    out[present, present] = 0
    return Feature(statistic, t, present, out)


def _some(p: Population, size: int, rng: np.random.Generator) -> Population:
    """``size`` of the cells at random."""
    i = rng.permutation(len(p.x))[:size]
    return Population(p.x[i], None if p.w is None else p.w[i])


def numbers(
    statistic: str, t: float, values: Mapping[int, Floats], n: int, names: Sequence[str], metric: str = "euclidean"
) -> Feature:
    """Distances between the numbers (m,) of samples: Euclidean, or ``"shares"``, half the sum of differences."""
    present = np.isin(np.arange(n), list(values))
    table = np.full((n, len(names)), np.nan)
    for k, own in values.items():
        table[k] = own
    out = np.full((n, n), np.nan)
    between = pdist(table[present], "cityblock") / 2 if metric == "shares" else pdist(table[present], metric)
    out[np.ix_(present, present)] = squareform(between)
    return Feature(statistic, t, present, out, tuple(names), table)


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What needs no fit: ``statistics`` of the observed cells, of ``labels`` (n_obs,) and ``genes`` (n_obs, m)."""

    statistics: Sequence[str]
    max_cells: int
    seed: int
    n_jobs: int
    labels: NDArray[np.object_] | None = None
    genes: Floats | None = None
    gene_names: Sequence[str] = ()
    components: str = "PC"

    def features(self, samples: Samples) -> list[Feature]:
        """All statistics at all times."""
        out, x, w, n = [], samples.cells.x, samples.cells.w, len(samples.names)
        labels = None if self.labels is None else sorted(set(self.labels[np.isfinite(samples.cells.times)]))
        for t in samples.times:
            rows = {k: samples.rows[k, t] for k in np.flatnonzero(samples.present(t))}
            if len(rows) < 2:
                continue
            weights = {k: None if w is None else w[own] for k, own in rows.items()}
            for statistic in self.statistics:
                if statistic == "distance":
                    populations = {k: Population(x[own], weights[k]) for k, own in rows.items()}
                    out.append(distances("distance", t, populations, n, self.max_cells, self.seed, self.n_jobs))
                elif statistic == "mean":
                    means = {k: np.average(x[own].astype(float), axis=0, weights=weights[k]) for k, own in rows.items()}
                    names = [f"{self.components}{i + 1}" for i in range(x.shape[1])]
                    out.append(numbers("mean", t, means, n, names))
                elif statistic == "composition" and self.labels is not None and labels is not None:
                    shares = {k: _shares(self.labels[own], labels, weights[k]) for k, own in rows.items()}
                    out.append(numbers("composition", t, shares, n, labels, "shares"))
                elif statistic == "genes" and self.genes is not None:
                    means = {k: np.average(self.genes[own], axis=0, weights=weights[k]) for k, own in rows.items()}
                    out.append(numbers("genes", t, means, n, self.gene_names))
        return out


def _shares(labels: NDArray[np.object_], names: Sequence[str], w: NDArray[np.floating] | None) -> Floats:
    """Share (m,) of each label."""
    return np.array([np.average(labels == name, weights=w) for name in names])


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What a fit to each sample says: its motion at its times, and its population at the ``wanted`` ones (T,).

    ``labels`` (n_obs,) of the cells are what growth is told apart by.
    """

    config: Method[Any, Any]
    where: Any
    wanted: Floats
    max_cells: int
    seed: int
    n_jobs: int
    labels: NDArray[np.object_] | None = None
    show_progress: bool | None = None

    def features(self, samples: Samples) -> list[Feature]:
        """Speeds, kinetic energies, landscapes, growth and predicted populations.

        All fits have one seed, and the choices of all samples together.
        """
        n = len(samples.names)
        single = [name for k, name in enumerate(samples.names) if len({t for i, t in samples.rows if i == k}) < 2]
        if single:
            raise ValueError(
                f"{len(single)} sample(s) were seen at one time only ({single[:3]}, ...), so that nothing can be "
                "fitted to each; leave method out, or name with sample_key what was followed over time"
            )
        rows = [samples.of(k) for k in range(n)]
        parts = {str(name): samples.cells.only(own) for name, own in zip(samples.names, rows, strict=True)}
        with quiet():
            own = list(prepare_all(parts, self.config, None, self.seed).values())
        _warn_of_paths(samples, [notes for _, notes in own])
        common = {t: self._common(samples, t) for t in samples.times}
        names = [] if self.labels is None else sorted(set(self.labels[np.concatenate(rows)]))
        steps = self.config.n_steps
        jobs = [
            Job(
                self._sample,
                (cells, common, None if self.labels is None else self.labels[mine], names),
                f"fit of {name}",
                steps,
            )
            for name, (cells, _), mine in zip(parts, own, rows, strict=True)
        ]
        with Progress("wlm.tl.compare", len(jobs) * steps, self.show_progress) as progress:
            found = list(run(jobs, progress, self.n_jobs))
        out = []
        known = [name for name in ("speed", "kinetic", "energy", "growth") if name in found[0][0]]
        for name in known:
            shown = names if name == "growth" and names else [name]
            for t in samples.times:
                values = {k: own[name][t] for k, (own, _) in enumerate(found) if t in own[name]}
                if len(values) > 1:
                    out.append(_landscapes(t, values, n) if name == "energy" else numbers(name, t, values, n, shown))
        for t in self.wanted:
            populations = {k: there[t] for k, (_, there) in enumerate(found) if t in there}
            if len(populations) > 1:
                out.append(distances("predicted", t, populations, n, self.max_cells, self.seed, self.n_jobs))
        return out

    def _common(self, samples: Samples, t: float) -> Any:
        """Cells (m, d) of all samples at a time, as many of each: those whose energies are compared."""
        rows = [samples.rows[k, t] for k in np.flatnonzero(samples.present(t))]
        size = max(2, min(self.max_cells // len(rows), *map(len, rows)))
        rng = np.random.default_rng([self.seed, 0])
        return np.concatenate([samples.cells.x[rng.permutation(own)[:size]] for own in rows])

    def _sample(
        self,
        cells: Any,
        common: Mapping[float, Any],
        labels: NDArray[np.object_] | None,
        names: Sequence[str],
        *,
        tell: Tell | None = None,
    ) -> tuple[dict[str, dict[float, Floats]], dict[float, Population]]:
        """What is said of each time by name, and the population at each wanted time, of one sample."""
        with quiet(), few_threads(self.where):
            model = train_model(cells, self.config, self.seed, self.seed, self.where, tell=tell)
            velocity = np.asarray(model.fields["velocity"], dtype=np.float64)
            speed = np.linalg.norm(velocity, axis=1)
            said: dict[str, dict[float, Floats]] = {"speed": {}, "kinetic": {}, "energy": {}}
            for t in map(float, cells.training):
                at = cells.at(t)
                w = None if cells.w is None else cells.w[at]
                said["speed"][t] = np.array([np.average(speed[at], weights=w)])
                said["kinetic"][t] = np.array([np.average(speed[at] ** 2 / 2, weights=w)])
                said["energy"][t] = model.fit.dynamics.energy(common[t], t).astype(np.float64)
                if "growth" in model.fields:
                    rates = np.asarray(model.fields["growth"], dtype=np.float64)[at]
                    said.setdefault("growth", {})[t] = _growth(rates, None if labels is None else labels[at], names, w)
            wanted = self.wanted[self.wanted > cells.training[0]]
            starts = np.array([cells.training[cells.training < t][-1] for t in wanted])
            moved = simulate(
                ensemble_of(cells, [model], self.seed),
                cells.x,
                model.fields["velocity"],
                cells.times,
                wanted,
                starts,
                cells.training,
                weights=cells.w,
                seed=self.seed,
            )
        populations = {p.time: Population(p.positions[0], p.w) for p in moved}
        return said, populations


def _growth(
    rates: Floats, labels: NDArray[np.object_] | None, names: Sequence[str], w: NDArray[np.floating] | None
) -> Floats:
    """Rates of growth (n,) of a sample: their deviation, or with labels what each adds to the rate of the whole (m,).

    The latter is the share of a label times the mean rate of its cells, so that a label without cells adds nothing.
    """
    if labels is None:
        mean = np.average(rates, weights=w)
        return np.sqrt(np.average((rates - mean) ** 2, weights=w, keepdims=True))
    return np.array([np.average(np.where(labels == name, rates, 0.0), weights=w) for name in names])


def _landscapes(t: float, energies: Mapping[int, Floats], n: int) -> Feature:
    """Root mean square differences between the energies (m,) that fits give to the same cells.

    Energies have no zero of their own: theirs is the mean over these cells.
    """
    gauged = {k: energy - energy.mean() for k, energy in energies.items()}
    found = numbers("energy", t, gauged, n, [str(i) for i in range(len(next(iter(gauged.values()))))])
    size = np.sqrt(len(found.names))
    return Feature("energy", t, found.present, found.distances / size)


def _warn_of_paths(samples: Samples, notes: Sequence[Mapping[str, Mapping[str, Any]]]) -> None:
    """Say where samples are fitted along different kinds of paths though the method was told one for all."""
    paths = [str(note["choice"]["path"]) if "choice" in note else "" for note in notes]
    if len(set(paths)) > 1:
        text = ", ".join(f"{name}: {path}" for name, path in zip(samples.names, paths, strict=True))
        logger.warning(
            "wlm.tl.compare: samples are fitted along different kinds of paths, which may differ too: %s", text
        )
