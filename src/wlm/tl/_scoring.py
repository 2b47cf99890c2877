"""Fits of an evaluation, made and scored: a table for each condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from wlm._adata.calibration import calibrate
from wlm._adata.cells import Cells
from wlm.core.methods import Method
from wlm.tl._folds import Fold
from wlm.tl._groups import Left
from wlm.tl._groups import steps as group_steps
from wlm.tl._groups import table as group_table
from wlm.tl._growth_verdict import (
    compare_growth,
    compare_sizes,
    growth_verdict,
    naive_in_words,
    naive_rates,
    sizes_in_words,
)
from wlm.tl._progress import Job, Progress, run
from wlm.tl._scores import (
    Population,
    differences,
    halves,
    kinds_of,
    labelled,
    matched,
    naive,
    population_at,
    score,
    verdict,
)


@dataclass(frozen=True)
class Scoring:
    """How fits are made and scored, the same for all conditions."""

    fold: Fold
    methods: dict[str, Method[Any, Any]]
    metrics: Sequence[str]
    seeds: Sequence[int]
    n_jobs: int
    max_cells: int
    n_boot: int
    baselines: bool

    def over_groups(
        self, cells: Cells, labels: np.ndarray | None, groups: np.ndarray, lefts: Sequence[Left], progress: Progress
    ) -> pd.DataFrame:
        """The scores of all models on each of the groups left out."""
        self._check(cells)
        return group_table(
            *(self.fold, self.methods, cells, groups, lefts, labels, progress),
            metrics=self.metrics,
            seeds=self.seeds,
            n_jobs=self.n_jobs,
            max_cells=self.max_cells,
            baselines=self.baselines,
            intervals=self.n_boot > 0,
        )

    def steps(self, cells: Cells, held: Any, lefts: Sequence[Left] | None) -> int:
        """Steps of all trainings, for the times ``held`` (k,) or the groups left out."""
        if lefts is not None:
            return len(lefts) * len(self.seeds) * sum(group_steps(self.fold, m) for m in self.methods.values())
        folds = [self.fold.steps(cells.observed, t, config) for t in held for config in self.methods.values()]
        twins = [self.fold.n_models * self.methods[name].n_steps for name in self._asked(cells, held)]
        return len(self.seeds) * (sum(folds) + sum(twins))

    def _check(self, cells: Cells) -> None:
        """Refuse what the fits would refuse."""
        if cells.v is not None:
            calibrate(cells, self.fold.velocity_scale)

    def _asked(self, cells: Cells, held: Any) -> list[str]:
        """The methods whose growth is to be judged."""
        growing = [name for name, config in self.methods.items() if config.grows]
        return growing if self.baselines and cells.observed[-1] in held else []

    def _about(self, cells: Cells, t: float, name: str, s: int, condition: str) -> str:
        """A fit in words."""
        seed = f"seed {self.seeds.index(s) + 1} of {len(self.seeds)}" if len(self.seeds) > 1 else ""
        return ", ".join(filter(None, (condition, f"without {cells.unit or 'time'} {t:g}", name, seed)))

    def table(
        self, cells: Cells, labels: np.ndarray | None, held: Any, progress: Progress, condition: str
    ) -> pd.DataFrame:
        """The scores of all models at the held-out times ``held`` (k,)."""
        self._check(cells)
        growing, last = [name for name, config in self.methods.items() if config.grows], cells.observed[-1]
        asked = self._asked(cells, held)
        twins = {name: self.methods[name].conserved(has_velocity=cells.v is not None) for name in asked}
        jobs = [(t, name, s) for t in held for name in self.methods for s in self.seeds]
        fits = [
            Job(
                self.fold.predict,
                (cells, t, self.methods[name], s),
                self._about(cells, t, name, s, condition),
                self.fold.steps(cells.observed, t, self.methods[name]),
                {"early": t == last and name in asked},
            )
            for t, name, s in jobs
        ]
        # Forecasts of fits with growth follow the model, so those of their twins do.
        plain = replace(self.fold, backtest=False)
        fits += [
            Job(
                plain.predict,
                (cells, last, twins[name], s),
                self._about(cells, last, f"{name} that conserves cells", s, condition),
                plain.steps(cells.observed, last, twins[name]),
                {"early": True},
            )
            for name in asked
            for s in self.seeds
        ]
        made = list(run(fits, progress, self.n_jobs))
        progress.say("scores and intervals")
        populations: dict[tuple[float, str, int], Population] = {}
        for (t, name, s), one in zip(jobs, made, strict=False):
            populations[t, name, s] = labelled(one.population, cells, labels, t)
        if self.baselines:
            for t in held:
                for name, population in naive(cells, labels, t, self.seeds[0], growing=bool(growing)).items():
                    populations[t, name, self.seeds[0]] = population
        observed = {t: population_at(cells, t, labels).capped(self.max_cells) for t in held}
        populations = {name: population.capped(self.max_cells) for name, population in populations.items()}
        rows = [score(t, name, s, p, observed[t], self.metrics) for (t, name, s), p in populations.items()]
        if self.baselines:
            for t in held:
                rows.append(score(t, "floor", self.seeds[0], *halves(observed[t], self.seeds[0]), self.metrics))
        table = pd.DataFrame(rows).sort_values(["time", "model", "seed"], kind="stable", ignore_index=True)
        table.attrs["seconds"] = float(np.mean([one.seconds for one in made[: len(jobs)]]))
        table.attrs |= {"differences": [], "verdict": ""}
        if self.baselines:
            kinds, names, metric = kinds_of(held, cells), list(self.methods), self.metrics[0]
            found = differences(table, populations, observed, kinds, names, metric, self.n_boot)
            equal = matched(populations, observed, metric, self.seeds[0])
            words = [verdict(table, found, kinds, names, self.metrics, equal)]
            if asked:
                early = {
                    (name, s, grows): labelled(one.early, cells, labels, last)
                    for (name, s, grows), one in zip(
                        [(name, s, True) for t, name, s in jobs if t == last and name in asked]
                        + [(name, s, False) for name in asked for s in self.seeds],
                        [one for one in made if one.early is not None],
                        strict=True,
                    )
                    if one.early is not None
                }
                words += self._judge(early, observed[last], cells, labels, table)
            table.attrs |= {"differences": found, "matched": equal, "verdict": "\n".join(filter(None, words))}
        return table

    def _judge(
        self,
        early: Mapping[tuple[str, int, bool], Population],
        observed: Population,
        cells: Cells,
        labels: np.ndarray | None,
        table: pd.DataFrame,
    ) -> list[str]:
        """What growth is worth, in words and in ``attrs``: forecasts by name, seed and whether cells grow."""
        metrics = [self.metrics[0], *(m for m in self.metrics[1:] if m == "composition")]
        words, rows, start = [], [], float(cells.observed[-3])
        for name in dict.fromkeys(name for name, *_ in early):
            with_growth, without = (
                [early[name, s, grows].capped(self.max_cells) for s in self.seeds] for grows in (True, False)
            )
            found = compare_growth(with_growth, without, observed, metrics, self.n_boot)
            rows += [{"model": name, "start": start, **row} for row in found]
            words.append(growth_verdict(name, start, found))
            sizes = compare_sizes([early[name, s, True] for s in self.seeds], cells)
            if sizes is not None:
                rows.append({"model": name, "start": start, **sizes})
                words.append(sizes_in_words(sizes))
        table.attrs["growth"] = rows
        if labels is not None:
            rates = naive_rates(cells, labels, cells.observed[:-1], self.seeds[0])
            words.append(naive_in_words(rates, cells.unit or "unit of time"))
            table.attrs["naive_growth"] = [asdict(rate) for rate in rates]
        return words
