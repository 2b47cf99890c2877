"""What a fit with growth says of its rates."""

from __future__ import annotations

from typing import Any

import numpy as np

from wlm._adata.cells import Cells
from wlm._adata.times import _list
from wlm._logging import logger
from wlm.core.dynamics import Dynamics
from wlm.core.growth import LEAST_ESS, MAX_LOG_MASS, effective_share
from wlm.core.prediction import Rollout

#: Factor of a prior below which the populations have overruled it; share of it that has to be a matter of state.
OVERRULED, STATELESS = 0.1, 0.1


def measure_growth(cells: Cells, dynamics: Dynamics, path: Rollout) -> dict[str, Any]:
    """What ``uns`` is to hold of the growth of a fit; says what is wrong with it."""
    times = cells.observed[cells.observed >= cells.training[0]]
    masses = np.stack([np.asarray(path.mass(t)) for t in times])
    notes = dynamics.model.growth_notes()
    found: dict[str, Any] = {
        **notes,
        "relative": cells.sizes is None,
        "times": times,
        "ess": effective_share(masses),
        "words": _words(str(notes["mode"]), relative=cells.sizes is None),
    }
    if cells.sizes is not None:
        found["mean_rate"] = np.array([_mean_rate(cells, dynamics, t) for t in times])
    _warn(found, masses)
    return found


def _words(mode: str, *, relative: bool) -> str:
    """What rates rest on, in a sentence."""
    source = {
        "learned": "learned from the proportions of cells, at a price: motion is preferred where it explains as much",
        "prior and residual": "those given, times a factor, and a priced rest learned from the proportions of cells",
        "prior": "those given; along paths, the mean of the cells around",
    }[mode]
    level = "relative to the mean of the population at each time" if relative else "absolute, by the totals given"
    return f"growth: rates are {source}; {level}"


def _mean_rate(cells: Cells, dynamics: Dynamics, t: float) -> float:
    """The mean rate of the observed population."""
    i = cells.at(t)
    rates = dynamics.growth(cells.x[i], t, known=None if cells.growth is None else cells.growth[i])
    return float(np.average(np.asarray(rates), weights=None if cells.w is None else cells.w[i]))


def _warn(found: dict[str, Any], masses: np.ndarray) -> None:
    """Say what makes the rates of a fit doubtful."""
    times = found["times"]
    if found.get("prior_scale", 1.0) < OVERRULED:
        logger.warning(
            "the populations overrule growth_key: its rates count for a factor of %.2g; check their sign and unit "
            "(births less deaths, per unit of time)",
            found["prior_scale"],
        )
    if not found.get("prior_r2", 1.0) > STATELESS:
        logger.warning(
            "the rates of growth_key are hardly a matter of state: neighbours explain %.0f %% of their variance, and "
            "paths and predictions use means over neighbours; smooth them, or leave growth_key out",
            100 * max(found["prior_r2"], 0.0),
        )
    far = np.abs(np.log(masses / masses.mean(axis=1, keepdims=True))).max(axis=1) > MAX_LOG_MASS - 0.01
    if far.any():
        logger.warning(
            "masses pass e^%g at %s: rates are faster than the sampling, and no more of them is followed; predict over "
            "shorter times, or sample more often",
            MAX_LOG_MASS,
            _list(times[far]),
        )
    few = found["ess"] < LEAST_ESS
    if few.any():
        logger.warning(
            "by growth few cells of the first time stand for all later: at %s they are worth %.0f %% of their number; "
            "predict from a time nearby",
            _list(times[few]),
            100 * found["ess"].min(),
        )
