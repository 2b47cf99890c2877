"""When a training has learned what it can: cells set aside, how well these meet the next time, and patience."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from wlm.core.dynamics import Dynamics
from wlm.core.methods import Method
from wlm.core.metrics import w1
from wlm.core.model import Model
from wlm.core.populations import Array, Populations
from wlm.core.prediction import rollout, to_next, velocity_at

#: Share of the cells of each time that are set aside, and at least and at most how many.
SHARE, FEWEST, MOST = 0.1, 10, 500
#: A distance has fallen if it is this share below the least so far.
FALL = 0.01
#: Looks within the patience.
N_LOOKS = 4


def check_patience(patience: int, method: Method[Any, Any]) -> None:
    """Refuse a patience that no training could run out of.

    Raises
    ------
    ValueError
        If it is no step at all, or the method makes one step.
    """
    if patience < 1:
        raise ValueError(f"patience must be at least 1 step, found {patience}")
    if method.n_steps == 1:
        raise ValueError(f"method {method.name!r} makes one step, after which nothing can stop; leave patience out")


def check_enough(populations: Populations) -> None:
    """Refuse populations too small to set cells aside.

    Raises
    ------
    ValueError
        If a tenth of the cells of a time is fewer than ``FEWEST``.
    """
    sizes = [x.shape[0] for x in populations.positions]
    k = int(np.argmin(sizes))
    if sizes[k] * SHARE < FEWEST:
        raise ValueError(
            f"patience sets {SHARE:.0%} of the cells of each time aside, at least {FEWEST}, and time "
            f"{populations.times[k]:g} has {sizes[k]} cells; leave patience out, and choose n_steps instead"
        )


def set_aside(populations: Populations, seed: int) -> tuple[Populations, Populations]:
    """The cells to train on, and those that judge the training: a tenth of each time, at random.

    ``populations`` are in memory.

    Raises
    ------
    ValueError
        As :func:`check_enough`.
    """
    check_enough(populations)
    rng, train, held = np.random.default_rng(seed), [], []
    for x in populations.positions:
        order = rng.permutation(len(x))
        n = min(MOST, int(SHARE * len(x)))
        held.append(np.sort(order[:n]))
        train.append(np.sort(order[n:]))
    return populations.some(train), populations.some(held)


def distance(dynamics: Dynamics, cells: Populations, seed: int) -> float:
    """W1 between what each population becomes and the next one, mean over intervals, in the units of the data.

    Cells start with the velocities of the dynamics, measured ones, or those that a rollout from the first time carries
    to them. Positions that are not finite are infinitely far.
    """
    x, times, n = cells.positions, cells.times, len(cells.times)
    v: tuple[Array | None, ...] = cells.velocities if cells.velocities and dynamics.needs_velocity else (None,) * n
    w: tuple[Array | None, ...] = cells.weights or (None,) * n
    path = rollout(dynamics, x[0], v[0], np.arange(len(x[0])), times, w=w[0], seed=seed)
    if not np.isfinite(path.positions).all():
        return float("inf")
    found = []
    for k in range(n - 1):
        own = v[k]
        known = None if own is None or np.isnan(own).any() else own
        # There is a velocity: the path goes through all times.
        start = cast("Array", velocity_at(dynamics, x[k], known, times[k], path, w=w[k], seed=seed))
        carried = k > 0 and known is None
        moved = to_next(dynamics, x[k], start, times[k], times[k + 1], carried=carried, w=w[k], seed=seed)
        if not np.isfinite(moved.positions).all():
            return float("inf")
        grown = w[k] if moved.weights is None else moved.weights[-1]
        found.append(w1(moved.positions[-1], x[k + 1], grown, w[k + 1]))
    return float(np.mean(found))


class Watch:
    """Watches the distance to cells set aside: it is over when that has not fallen for ``patience`` steps.

    The averaged model of the least distance is kept.

    Parameters
    ----------
    held
        Cells that are not trained on.
    patience
        Steps that may pass without a fall.
    seed
        Seeds stochastic rollouts, always the same, so that distances differ by the model alone.
    """

    def __init__(self, held: Populations, patience: int, seed: int) -> None:
        self.held, self.patience, self.seed = held, patience, seed
        self.every = max(1, patience // N_LOOKS)
        self.value = self.least = float("inf")
        self.least_step, self.model = 0, {}  # type: tuple[int, dict[str, Any]]

    def look(self, step: int, dynamics: Dynamics) -> float:
        """The distance after ``step`` steps; between looks, that of the last."""
        if step % self.every == 0:
            self.value = distance(dynamics, self.held, self.seed)
            if not self.model or self.value < (1 - FALL) * self.least:
                self.least, self.least_step = self.value, step
                self.model = {name: x.detach().clone() for name, x in dynamics.model.state_dict().items()}
        return self.value

    def over(self, step: int) -> bool:
        """Whether the patience has run out."""
        return step - self.least_step >= self.patience

    def best(self, model: Model) -> Model:
        """``model`` with the weights that came nearest."""
        model.load_state_dict(self.model)
        return model

    def words(self, step: int, n_steps: int) -> str:
        """Why the training ended, in a sentence."""
        if not self.over(step):
            return f"all {n_steps} steps were made; the model of step {self.least_step} came nearest to cells set aside"
        return (
            f"stopped after {step} of {n_steps} steps: the distance of cells set aside to those of the next time has "
            f"not fallen for {step - self.least_step}; the model of step {self.least_step} is kept"
        )

    def slow_down(self, factor: float) -> None:
        """Nothing: what watches has no learning rate."""

    def state_dict(self) -> dict[str, Any]:
        """All that changes."""
        return {name: getattr(self, name) for name in ("value", "least", "least_step", "model")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        for name, value in state_dict.items():
            setattr(self, name, value)
