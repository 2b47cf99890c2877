"""Forecasts: who leads cells past the last training time, and at what share of its pace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wlm.core.dynamics import CHUNK, Dynamics, Moved
from wlm.core.populations import Array
from wlm.core.prediction import predict

#: Shares of the pace that are tried; with none of it cells stay where they are.
PACES = (0.0, 0.25, 0.5, 0.75, 1.0)
#: Share of the W1 by which two samples of a few hundred cells differ by chance.
MARGIN = 0.02


@dataclass(frozen=True)
class Forecast:
    """What cells follow after the last training time.

    Parameters
    ----------
    by
        ``"model"``, ``"straight"`` (each cell goes on at its velocity) or ``"field"`` (a velocity field).
    pace
        Share of the pace, 0 to 1: at time t after the last training time cells are where they would be at ``pace * t``.
    field
        The dynamics of the field.
    """

    by: str
    pace: float
    field: Dynamics | None = None

    def move(
        self,
        dynamics: Dynamics,
        x: Array,
        v: Array,
        start: float,
        times: Sequence[float] | Array,
        *,
        w: Array | None = None,
        seed: int = 0,
        chunk_size: int = CHUNK,
    ) -> Moved:
        """Positions and velocities (T, n, d) at ``times`` (T,) after ``start``, the last training time.

        ``x`` and ``v`` (n, d) are of the cells then, ``dynamics`` of the model, the rest as for
        :func:`wlm.core.prediction.predict`.
        """
        lead = self.pace * (np.asarray(times, dtype=np.float64) - start)
        if self.pace == 0:
            still = np.broadcast_to(x, (len(lead), *np.shape(x))).astype(np.float32)
            return Moved(still, np.zeros_like(still))
        if self.by == "straight":
            moved = x + lead[:, None, None].astype(np.float32) * v
            return Moved(moved.astype(np.float32), np.broadcast_to(self.pace * v, moved.shape).astype(np.float32))
        leader = dynamics if self.field is None else self.field
        found = predict(leader, x, v, start, list(start + lead), w=w, seed=seed, chunk_size=chunk_size)
        return found._replace(velocities=self.pace * found.velocities)


def best(scores: Array, names: Sequence[str]) -> tuple[str, float]:
    """Who came nearest, and at what pace, by ``scores`` (len(names), len(PACES)); of equal ones the slower.

    The model at its own pace is left only for what is better by more than ``MARGIN``.
    """
    scores = np.asarray(scores)
    if scores.min() >= (1 - MARGIN) * scores[list(names).index("model"), -1]:
        return "model", PACES[-1]
    row, column = min(np.ndindex(scores.shape), key=lambda i: (scores[i], i[1], i[0]))
    return ("model" if PACES[column] == 0 else names[row]), PACES[column]


def in_words(scores: Array, names: Sequence[str], time: float) -> str:
    """The outcome of a back-test in a sentence."""
    by, pace = best(scores, names)
    scores = np.asarray(scores)
    copy, least = scores[0, 0], scores.min()
    if pace == 0:
        return (
            f"forecasts keep the cells where they were: predicted from the times before, a copy of the previous cells "
            f"was nearest to those at {time:g} (W1 {copy:.3g}; the model {scores[0, -1]:.3g})"
        )
    who = {"model": "the model", "straight": "straight lines", "field": "a velocity field"}[by]
    model: NDArray[np.float64] = scores[list(names).index("model")]
    rest = "" if by == "model" and pace == 1 else f", the model alone {model[-1]:.3g}"
    return (
        f"forecasts follow {who}{'' if pace == 1 else f' at {pace:g} of the pace'}: predicted from the times before, "
        f"that was nearest to the cells at {time:g} (W1 {least:.3g}; a copy of the previous {copy:.3g}{rest})"
    )
