"""Training the models of a fit: prepared once, one by one or side by side, with their checkpoint files."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel

from wlm._adata.calibration import calibrate
from wlm._adata.cells import Cells
from wlm._adata.checks import check_integer
from wlm._adata.conditions import naming
from wlm._logging import logger
from wlm._random import RNG, as_seeds
from wlm.core import processes
from wlm.core.devices import few_threads
from wlm.core.methods import Method
from wlm.core.prediction import Ensemble, Member, Rollout, curved, fields, rollout
from wlm.core.stopping import check_enough, check_patience
from wlm.core.training import Fit, train
from wlm.tl._progress import Job, Progress, Tell, one_by_one, run


@dataclass(frozen=True)
class Trained:
    """A fit, the paths from the first time, the fields at the cells, and the seconds it took."""

    fit: Fit
    path: Rollout
    fields: dict[str, Any]
    seconds: float


def named(condition: str) -> Any:
    """Say in errors which condition they come from, if there are several."""
    return naming(condition) if condition else nullcontext()


def prepare(
    cells: Cells,
    config: Method[Any, Any],
    velocity_scale: float | str | None,
    seed: int,
    choice: str | None = None,
) -> tuple[Cells, dict[str, dict[str, Any]]]:
    """The cells with the velocities that training is to use, and notes on where these come from, by name.

    ``choice`` is what was chosen for several conditions together.
    """
    notes: dict[str, dict[str, Any]] = {}
    if cells.v is not None:
        cells, notes["velocity"] = calibrate(cells, velocity_scale, seed=seed)
    populations, learned = config.prepare(cells.populations(), **({} if choice is None else {"choice": choice}))
    if cells.v is None and populations.velocities is not None:
        cells = cells.with_velocities(populations.velocities)
    return replace(cells, curved=curved(learned)), notes | learned


def prepare_all(
    parts: Mapping[str, Cells], config: Method[Any, Any], velocity_scale: float | str | None, seed: int
) -> dict[str, tuple[Cells, dict[str, dict[str, Any]]]]:
    """The cells and notes of each condition; what cells follow is chosen once, for all of them."""
    prepared: dict[str, tuple[Cells, dict[str, dict[str, Any]]]] = {}
    for condition, cells in parts.items():
        with named(condition):
            prepared[condition] = prepare(cells, config, velocity_scale, seed)
    choices = {condition: notes["choice"] for condition, (_, notes) in prepared.items() if "choice" in notes}
    choice = config.agree(list(choices.values()))
    if choice is None:
        return prepared
    for condition, alone in choices.items():
        if alone["path"] == choice or "evidence" not in alone:  # of too few times or cells nothing else can be made
            continue
        with named(condition):
            cells, notes = prepare(parts[condition], config, velocity_scale, seed, choice)
        notes["choice"]["alone"] = alone["path"]
        notes["choice"]["words"] += f"; chosen for all conditions together (alone this one: {alone['path']})"
        prepared[condition] = cells, notes
    return prepared


def check_growth(configs: Sequence[Method[Any, Any]], growth_key: str | None, totals: Any) -> None:
    """Refuse rates or sizes that no method would use, and growth by rates that are not given."""
    for name, value in (("growth_key", growth_key), ("totals", totals)):
        if value is not None and not any(config.grows for config in configs):
            raise ValueError(
                f"{name} says how cells multiply, and with growth=False they are conserved; pass growth=True, "
                f"growth='prior' to take the rates of growth_key as they are, or leave {name} out"
            )
    for config in configs:
        config.check_growth(has_rates=growth_key is not None)


def stop_early(parts: Mapping[str, Cells], configs: Sequence[Method[Any, Any]], patience: Any) -> None:
    """Refuse a patience that these methods or cells have no use for."""
    check_integer("patience", patience, optional=True)
    if patience is None:
        return
    for config in configs:
        check_patience(patience, config)
    for condition, cells in parts.items():
        with named(condition):
            check_enough(cells.populations())


def check_samples(cells: Cells, sample_key: str | None, n_models: int) -> None:
    """Refuse samples that no ensemble could draw again, and warn of those that it could not."""
    if cells.samples is None:
        return
    if n_models == 1:
        raise ValueError(
            f"sample_key={sample_key!r} is for ensembles, whose models draw the samples again; pass n_models=5, or "
            "leave sample_key out (strata_key gives every batch its share of each sample)"
        )
    blocks = cells.exchangeable(cells.samples)
    if max(map(len, blocks)) < 2:
        raise ValueError(
            f"no two samples of obs[{sample_key!r}] were seen at the same training times, so that none can stand for "
            "another; leave sample_key out"
        )
    alone = sum(len(block) == 1 for block in blocks)
    if alone:
        logger.warning(
            "%d of %d samples of obs[%r] were seen at times as no other was, and are in every model: the spread over "
            "models does not know what other samples would say there",
            *(alone, sum(map(len, blocks)), sample_key),
        )


def train_model(
    cells: Cells,
    config: Method[Any, Any],
    seed: int,
    shared_seed: int,
    where: torch.device,
    *,
    condition: str = "",
    checkpoint: Path | None = None,
    on_interrupt: str = "raise",
    tell: Tell | None = None,
    patience: int | None = None,
) -> Trained:
    """A fit to prepared ``cells``; ``shared_seed`` chooses the cells of the rollout, the same for all models.

    It is the seed of the first model. The others of an ensemble train on samples that are drawn again where samples are
    known; with growth on cells that are: what rates are uncertain by is the noise of the proportions. ``tell`` is
    called after every step.
    """
    began = time.perf_counter()
    made = 0

    def on_step(step: int, scalars: dict[str, float]) -> None:
        nonlocal made
        if tell is not None:
            tell(step - made, scalars)
        made = step

    with named(condition), few_threads(where):
        again, samples = seed != shared_seed, cells.samples
        result = train(
            (cells.resampled(samples, seed) if again and samples is not None else cells).populations(),
            config,
            seed=seed,
            device=where,
            on_step=on_step,
            on_interrupt=on_interrupt,
            checkpoint=checkpoint,
            prepared=True,
            redraw=again and config.grows and samples is None,
            patience=patience,
        )
        dynamics = result.dynamics
        v = cells.v if dynamics.needs_velocity else None
        start = cells.at(cells.training[0])
        path = rollout(
            dynamics,
            cells.x[start],
            None if v is None else v[start],
            start,
            cells.observed[cells.observed >= cells.training[0]],
            w=None if cells.w is None else cells.w[start],
            seed=shared_seed,
        )
        rates: dict[str, Any] = {"w": cells.w, "known": cells.growth, "seed": shared_seed}
        annotation = fields(dynamics, cells.x, v, cells.times, cells.observed, path, **rates)
    return Trained(result, path, annotation, time.perf_counter() - began)


def ensemble_of(cells: Cells, trained: Sequence[Trained], seed: int) -> Ensemble:
    """The models as what predicts; ``seed`` is that of the first."""
    first = trained[0].fit.dynamics
    measured = [t for t in cells.observed if first.needs_velocity and cells.measured(t)]
    members = tuple(Member(model.fit.dynamics.as_stored(), model.path) for model in trained)
    return Ensemble(members, cells.training, np.array(measured), seed, cells.curved)


@dataclass(frozen=True, kw_only=True)
class Run:
    """How the models of a fit are trained: method, device, a seed for each, checkpoint files, interruptions."""

    config: Method[Any, Any]
    where: torch.device
    seeds: Sequence[int]
    checkpoint: str | os.PathLike[str] | None
    on_interrupt: str
    one_by_one: bool
    patience: int | None = None

    @classmethod
    def of(
        cls,
        config: Method[Any, Any],
        where: torch.device,
        *,
        condition_key: str | None,
        n_models: Any,
        rng: RNG,
        checkpoint: str | os.PathLike[str] | None,
        on_interrupt: str,
        patience: int | None,
    ) -> Run:
        """Check the arguments and choose how to run: within ``joblib.parallel_config`` side by side."""
        one_by_one = Parallel().n_jobs == 1 or (condition_key is None and n_models == 1)
        check_running(n_models, checkpoint, on_interrupt, condition_key, one_by_one=one_by_one)
        check_sharing(config, one_by_one=one_by_one)
        return cls(
            config=config,
            where=where,
            seeds=as_seeds(rng, n_models),
            checkpoint=checkpoint,
            on_interrupt=on_interrupt,
            one_by_one=one_by_one,
            patience=patience,
        )

    def files(self, n: int) -> list[Path | None]:
        """A checkpoint file for each of ``n`` trainings."""
        return checkpoint_files(self.checkpoint, n)

    def tidy(self, n_conditions: int) -> None:
        """Delete the checkpoint files of a run that has ended well."""
        for file in self.files(n_conditions * len(self.seeds)):
            if file is not None:
                file.unlink(missing_ok=True)

    def steps(self, n_conditions: int) -> int:
        """Steps of all trainings together."""
        return n_conditions * len(self.seeds) * self.config.n_steps

    def train(self, parts: Mapping[str, Cells], progress: Progress) -> tuple[dict[str, list[Trained]], bool]:
        """All models of each condition, and whether the training was interrupted; then there may be fewer."""
        jobs = [(condition, k) for condition in parts for k in range(len(self.seeds))]
        common = {"on_interrupt": self.on_interrupt, "patience": self.patience}
        calls = [
            Job(
                train_model,
                (parts[condition], self.config, self.seeds[k], self.seeds[0], self.where),
                self._about(condition, k),
                self.config.n_steps,
                {"condition": condition, "checkpoint": file, **common},
            )
            for (condition, k), file in zip(jobs, self.files(len(jobs)), strict=True)
        ]
        results = one_by_one(calls, progress) if self.one_by_one else run(calls, progress)
        models: dict[str, list[Trained]] = {condition: [] for condition in parts}
        for (condition, _), model in zip(jobs, results, strict=True):
            models[condition].append(model)
            if model.fit.interrupted:  # what there is by now is kept
                if len(models[condition]) > 1:
                    models[condition].pop()  # a model that is not trained would blur what the others say
                return models, True
        return models, False

    def _about(self, condition: str, k: int) -> str:
        """Which training it is, where there are several."""
        model = f"model {k + 1} of {len(self.seeds)}" if len(self.seeds) > 1 else ""
        return ", ".join(filter(None, (condition, model)))


def check_running(
    n_models: Any, checkpoint: Any, on_interrupt: str, condition_key: str | None, *, one_by_one: bool
) -> None:
    """Refuse what could not be done in the end."""
    check_integer("n_models", n_models)
    if on_interrupt not in ("raise", "keep"):
        raise ValueError(f"on_interrupt must be 'raise' or 'keep', found {on_interrupt!r}")
    if on_interrupt == "keep" and condition_key is not None:
        raise ValueError(
            "on_interrupt='keep' would leave conditions without a fit; fit them one by one, or choose 'raise'"
        )
    if on_interrupt == "keep" and not one_by_one:
        raise ValueError(
            "on_interrupt='keep' needs trainings in this process; leave joblib.parallel_config, or choose 'raise'"
        )
    if checkpoint is not None:
        folder = Path(checkpoint).resolve().parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise ValueError(
                f"checkpoint {str(checkpoint)!r} cannot be written: {str(folder)!r} is no folder to write to"
            )
        if Path(checkpoint).is_dir():
            raise ValueError(f"checkpoint {str(checkpoint)!r} is a folder; name a file")


def check_sharing(config: Method[Any, Any], *, one_by_one: bool) -> None:
    """Refuse trainings side by side of which each would need all processes of ``torchrun``."""
    if processes.share(config) and not one_by_one:
        raise ValueError(
            "processes that share n_batches train one model after the other; leave joblib.parallel_config and n_jobs, "
            "or choose n_batches=1"
        )


def checkpoint_files(checkpoint: Any, n: int) -> list[Path | None]:
    """A file for each of ``n`` trainings."""
    if checkpoint is None:
        return [None] * n
    path = Path(checkpoint)
    return [path] if n == 1 else [path.with_name(f"{path.stem}_{i}{path.suffix}") for i in range(n)]
