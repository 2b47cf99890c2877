"""The last training time, predicted from the others: what forecasts are to follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wlm._adata.cells import Cells
from wlm._logging import quiet
from wlm._store.write import describe_field
from wlm.core.diagnosis import agreement
from wlm.core.dynamics import Dynamics
from wlm.core.forecast import PACES, Forecast, best, in_words
from wlm.core.methods import Method
from wlm.core.training import train
from wlm.tl._models import ensemble_of, prepare, train_model
from wlm.tl._progress import Tell
from wlm.tl._simulation import simulate

#: Fewest training times of which the last is predicted from the others.
N_TIMES = 3
#: Farthest forecast that is tried, in longest intervals between the other times.
FARTHEST = 10.0
#: Share of the steps of the fit that the one without the last time takes.
STEPS = 0.5


def backtest(
    cells: Cells,
    config: Method[Any, Any],
    velocity_scale: float | str | None,
    seed: int,
    where: torch.device,
    *,
    alone: bool,
    tell: Tell | None = None,
) -> dict[str, Any] | None:
    """How near the last training time is predicted from the others; None if that cannot be tried.

    It needs two other times at least, more if the method does, and a last one that is not far from them.

    Parameters
    ----------
    cells
        As they were read; what is held out of training is not looked at.
    alone
        Whether there is one model: then a field that the method offers beside it (:meth:`Method.companion`) is tried.
    tell
        Called after every step of the training.

    Returns
    -------
    ``time`` and ``lead``, ``names`` of who led the cells, ``pace`` (5,) tried and ``w1`` (len(names), 5), who was best,
    ``by`` and ``share`` of the pace, and a sentence, ``words``.
    """
    if not _can_be_tried(cells.training):
        return None
    last, start = float(cells.training[-1]), float(cells.training[-2])
    own = cells.without(np.setdiff1d(cells.observed, cells.training[:-1]))
    config = replace(config, n_steps=_n_steps(config))
    with quiet():
        try:
            own, _ = prepare(own, config, velocity_scale, seed)
        except ValueError:  # what the method was asked for takes more times
            return None
        trained = train_model(own, config, seed, seed, where, tell=tell)
        field = companion(own, config, seed, where) if alone else None
    leaders: dict[str, Dynamics | None] = {"model": None, "straight": None}
    leaders |= {} if field is None else {"field": field}
    there, v = cells.at(last), trained.fields["velocity"]
    wanted = start + np.array(PACES[1:]) * (last - start)
    scores = []
    for name, leader in leaders.items():
        ensemble = replace(ensemble_of(own, [trained], seed), forecast=Forecast(name, 1.0, leader))
        moved = simulate(
            *(ensemble, own.x, v, own.times, wanted, np.full(len(wanted), start), own.training),
            weights=own.w,
            seed=seed,
        )
        w = None if own.w is None else own.w[moved[0].cells]
        target_w = None if cells.w is None else cells.w[there]
        clouds = [own.x[moved[0].cells], *(part.positions[0] for part in sorted(moved, key=lambda part: part.time))]
        scores.append([agreement(x, cells.x[there], w, target_w, seed=seed).w1 for x in clouds])
    names, w1 = list(leaders), np.array(scores)
    by, share = best(w1, names)
    return {
        "time": last,
        "lead": last - start,
        "names": np.array(names, dtype=object),
        "pace": np.array(PACES),
        "w1": w1,
        "by": by,
        "share": share,
        "words": in_words(w1, names, last),
    }


def _can_be_tried(training: NDArray[np.float64]) -> bool:
    """Whether there are two other times at least, and the last is not far from them."""
    intervals = np.diff(training)
    return len(training) >= N_TIMES and bool(intervals[-1] <= FARTHEST * intervals[:-1].max())


def _n_steps(config: Method[Any, Any]) -> int:
    return max(1, round(STEPS * config.n_steps))


def steps(training: NDArray[np.float64], config: Method[Any, Any]) -> int:
    """Steps that :func:`forecast_note` trains for, of a fit to these times."""
    return 0 if config.grows or not _can_be_tried(training) else _n_steps(config)


def companion(cells: Cells, config: Method[Any, Any], seed: int, where: torch.device) -> Dynamics | None:
    """The field that the method offers beside its model, for prepared ``cells``."""
    offered = config.companion(cells.populations())
    if offered is None:
        return None
    other, populations = offered
    return train(populations, other, seed=seed, device=where, prepared=True).dynamics.as_stored()


def forecast_note(
    read: Cells,
    cells: Cells,
    config: Method[Any, Any],
    velocity_scale: float | str | None,
    seeds: Sequence[int],
    where: torch.device,
    tell: Tell | None = None,
) -> dict[str, Any] | None:
    """The outcome of the back-test for cells as they were ``read``, with the field if it is to lead.

    The field is learned from all prepared ``cells``. It takes part if there is one model: it has no spread over seeds.
    """
    if config.grows:
        return None  # straight lines and fields have no masses: forecasts are those of the model
    note = backtest(read, config, velocity_scale, seeds[0], where, alone=len(seeds) == 1, tell=tell)
    if note is not None and note["by"] == "field":
        field = companion(cells, config, seeds[0], where)
        note |= {} if field is None else {"field": describe_field(field)}
    return note
