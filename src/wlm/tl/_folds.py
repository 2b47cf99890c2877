"""Fits that have not seen some times, and what they predict for them."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from wlm._adata.cells import Cells
from wlm._logging import quiet
from wlm._random import as_seeds
from wlm._store.fit import as_forecast
from wlm._version import __version__
from wlm.core import checkpoint as checkpoints
from wlm.core.devices import n_threads
from wlm.core.methods import Method
from wlm.core.uncertainty import band
from wlm.tl._backtest import forecast_note
from wlm.tl._backtest import steps as n_backtest_steps
from wlm.tl._models import Trained, ensemble_of, prepare, train_model
from wlm.tl._progress import Tell
from wlm.tl._scores import Population
from wlm.tl._simulation import simulate


class Made(NamedTuple):
    """Cells predicted by a fit that has not seen their time, and the seconds it took.

    ``early`` are the same predicted freely from the training time before the one that predictions start from.
    """

    population: Population
    seconds: float
    early: Population | None = None


@dataclass(frozen=True, kw_only=True)
class Fold:
    """How fits of an evaluation are made: device, models of an ensemble, scale of velocities, finished fits."""

    where: torch.device
    n_models: int = 1
    velocity_scale: float | str | None = None
    backtest: bool = True
    patience: int | None = None
    cache: Path | None = None

    def fit(
        self, cells: Cells, config: Method[Any, Any], seed: int, tell: Tell | None = None
    ) -> tuple[Cells, list[Trained]]:
        """All models of a fit to these cells, and the cells as they were trained on."""
        seeds = as_seeds(seed, self.n_models)
        with quiet():
            cells, _ = prepare(cells, config, self.velocity_scale, seeds[0])
            more: dict[str, Any] = {"tell": tell, "patience": self.patience}
            return cells, [train_model(cells, config, s, seeds[0], self.where, **more) for s in seeds]

    def steps(self, observed: NDArray[np.float64], t: float, config: Method[Any, Any]) -> int:
        """Steps of the trainings that predict time ``t`` of these."""
        known = observed[observed != t]
        forecast = self.backtest and t > known[-1]
        return self.n_models * config.n_steps + (n_backtest_steps(known, config) if forecast else 0)

    def predict(
        self,
        cells: Cells,
        t: float,
        config: Method[Any, Any],
        seed: int,
        *,
        early: bool = False,
        tell: Tell | None = None,
    ) -> Made:
        """Cells predicted for time ``t`` by a fit that has not seen it, also ``early``, if that is asked for."""
        own = cells.without(t)
        if "velocity" not in config.takes and own.v is not None:
            own = own.without_velocities()
        if not config.grows:
            own = own.without_growth()
        if "clones" not in config.takes:
            own = own.without_clones()
        file = None if self.cache is None else self.cache / f"{self.name(own, t, config, seed, early=early)}.npz"
        known = None if file is None else self.kept(file, 2 if early else 1)
        if known is not None:
            return Made(known[0][0], known[1], known[0][1] if early else None)
        read, seeds = own, as_seeds(seed, self.n_models)
        own, trained = self.fit(own, config, seed, tell)
        seconds = sum(model.seconds for model in trained)
        start = own.training[own.training < t][-1:]
        ensemble = ensemble_of(own, trained, seeds[0])
        if self.backtest and t > own.training[-1]:  # as predict does with a fit
            note = forecast_note(read, own, config, self.velocity_scale, seeds, self.where, tell)
            units = ensemble.members[0].dynamics.units
            ensemble = replace(ensemble, forecast=as_forecast(note, units))
        v, w = trained[0].fields["velocity"], own.w
        asked: dict[str, Any] = {"weights": w, "seed": seed}
        part = simulate(ensemble, own.x, v, own.times, np.array([t]), start, own.training, **asked)[0]
        found = [Population(part.positions[0], part.w, limits=band(part.positions, part.weights))]
        if early:
            before = own.training[own.training < start[0]][-1:]
            free = replace(ensemble, forecast=None)
            part = simulate(free, own.x, v, own.times, np.array([t]), before, np.empty(0), **asked)[0]
            found.append(Population(part.positions[0], part.w))
        if file is not None:
            self.keep(file, found, seconds)
        return Made(found[0], seconds, found[1] if early else None)

    def kept(self, file: Path, n: int) -> tuple[list[Population], float] | None:
        """The ``n`` populations in a file, and the seconds their fit took; None if it is not there."""
        if not file.exists():
            return None
        known, found = checkpoints.read(file), []
        for k in range(n):
            x, w, limits = (known[f"{name}{k or ''}"] for name in ("x", "w", "limits"))
            w, limits = (None if a is None else a.numpy() for a in (w, limits))
            found.append(Population(x.numpy(), w, limits=limits))
        return found, known["seconds"]

    def keep(self, file: Path, found: list[Population], seconds: float) -> None:
        """Write populations and the seconds their fit took to a file."""
        arrays = {
            f"{name}{k or ''}": array
            for k, population in enumerate(found)
            for name, array in (("x", population.x), ("w", population.w), ("limits", population.limits))
        }
        tensors = {k: None if a is None else torch.as_tensor(a) for k, a in arrays.items()}
        try:
            checkpoints.write(file, {**tensors, "seconds": seconds})
        except OSError as error:  # a full disk is no reason to lose the evaluation as well
            warnings.warn(f"a finished fit could not be kept in cache: {error}", stacklevel=2)

    def name(self, cells: Cells, t: float, config: Method[Any, Any], seed: int, *, early: bool = False) -> str:
        """A name for a fit, different for whatever could change its prediction."""
        threads = n_threads() if self.where.type == "cpu" else 0
        settings = (
            *(threads, __version__, torch.__version__, config.name, config.to_json(), self.n_models, float(t), seed),
            *(str(self.where), self.velocity_scale, self.backtest, cells.rna),
            *(("early",) if early else ()),
            *(() if self.patience is None else ("patience", self.patience)),
            *(("redrawn",) if config.grows and self.n_models > 1 else ()),
        )
        digest = hashlib.sha256(repr(settings).encode())
        digest.update("\0".join(map(str, cells.names)).encode())
        for values in (cells.x, cells.times, cells.w, cells.strata, cells.v, cells.growth, cells.sizes, cells.clones):
            digest.update(b"-" if values is None else np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()[:32]
