"""Which velocities a fit uses, and in what unit of time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wlm._adata.cells import Cells
from wlm._adata.velocity import find_velocity
from wlm._logging import logger
from wlm.core.velocity import agreement

#: Mean cosine with the drift below which velocities are reported as doubtful.
DOUBTFUL = 0.1


def calibrate(cells: Cells, velocity_scale: float | str | None, *, seed: int = 0) -> tuple[Cells, dict[str, Any]]:
    """Bring velocities into units per unit of ``time_key``, and compare them with the drift.

    Parameters
    ----------
    cells
        As they were read, with velocities.
    velocity_scale
        A factor; ``"calibrate"`` for that of :func:`wlm.core.velocity.agreement` on the training times; None
        for this where velocities have a unit of time of their own, and else 1.
    seed
        Seeds the choice of the cells that are compared.

    Returns
    -------
    cells
        With scaled velocities.
    note
        ``scale``, whether it was ``calibrated``, ``times`` and the mean cosine ``agreement`` (T,) at them,
        and the cosine of each cell ``cells`` (n,), NaN for cells that were not trained on.

    Raises
    ------
    ValueError
        If the factor is not positive, or velocities point against the drift.
    """
    calibrated = velocity_scale == "calibrate" or (velocity_scale is None and cells.rna)
    scale = 1.0
    if velocity_scale is not None and not calibrated:
        if isinstance(velocity_scale, (str, bool)) or not np.isfinite(velocity_scale) or velocity_scale <= 0:
            raise ValueError(f"velocity_scale must be a positive number, 'calibrate' or None, found {velocity_scale!r}")
        scale = float(velocity_scale)
    per_cell = np.full(len(cells.times), np.nan, dtype=np.float32)
    try:
        found = agreement(cells.populations(), seed=seed)
    except ValueError as error:
        if calibrated:
            raise ValueError(
                f"the velocities cannot be calibrated: {error}; pass velocity_scale, in {cells.time_key} per unit"
            ) from None
    else:
        for t, cosines in zip(cells.training, found.cells, strict=True):
            per_cell[cells.at(t)] = cosines
        if not calibrated and velocity_scale is None and found.scale > 0 and not 1 / 3 < found.scale < 3:
            logger.warning(
                "the observed drift is about %.2g times the velocities, which are taken as they are; if they have "
                "a unit of time of their own, pass velocity_scale='calibrate'",
                found.scale,
            )
        if calibrated:
            if found.scale <= 0:
                raise ValueError(
                    "the velocities point against the observed drift (mean cosine "
                    f"{np.nanmean(per_cell):.2f}), so that no scale makes them speeds; fit without velocity_key, "
                    "or pass velocity_scale, a number, to use them all the same"
                )
            scale = float(found.scale)
    by_time = np.array([_mean(per_cell[cells.at(t)]) for t in cells.training])
    if np.isfinite(by_time).any() and np.nanmean(by_time) < DOUBTFUL:
        logger.warning(
            "the velocities hardly agree with the observed drift (mean cosine %.2f); compare a fit without them, "
            "see wlm.tl.diagnose",
            np.nanmean(by_time),
        )
    note = {"scale": scale, "calibrated": calibrated, "times": cells.training, "agreement": by_time, "cells": per_cell}
    return replace(cells, v=cells.v * np.float32(scale)), note  # type: ignore[operator]


def _mean(values: NDArray[np.float32]) -> float:
    """Mean of what is not NaN."""
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else np.nan


def resolve_velocity(
    adata: Any, velocity_key: str | None, velocity_scale: float | str | None, use_rep: str
) -> str | None:
    """The key that ``velocity_key`` means, which may be ``"auto"``; a scale without it is refused."""
    if velocity_key is None and velocity_scale is not None:
        raise ValueError("velocity_scale needs velocity_key, the velocities to scale")
    if velocity_key != "auto":
        return velocity_key
    key = find_velocity(adata, use_rep)
    logger.info("velocity_key='auto': velocities are %s[%r]", "obsm" if key in adata.obsm else "layers", key)
    return key
