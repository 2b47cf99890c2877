"""How much of each change of composition is growth, and how much is motion."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._adata.columns import read_obs_labels
from wlm._adata.neighbours import from_neighbours
from wlm.core.composition import Change, price
from wlm.core.transport import shares
from wlm.tl._links import Observed
from wlm.tl._simulation import Predicted, simulate

#: Cells of a time that are moved at most, and the parts of an interval in which labels are looked at.
N_MOVED, N_PARTS = 2000, 8


def composition_changes(adata: Any, key: str, mod: str | None, label_key: str, seed: int) -> pd.DataFrame:
    """Changes of the share of each label from each training time to the next, by Price's equation.

    Observed cells are moved freely by all models. A cell has its own label at the start, and later the one that weighs
    most among its 15 nearest cells of the training times.

    Returns
    -------
    A row for each interval and label: ``from``, ``to``, ``label``, ``growth`` and ``motion``, means over the models,
    their sum ``change``, and ``observed``.
    """
    observed = Observed.of(adata, key, mod, columns=[label_key])
    labels = read_obs_labels(observed.cells, label_key)
    training = observed.fit.training
    names = sorted(set(labels[np.isin(observed.times, training)]))
    seen = [_shares(labels[i], names, observed.w(i)) for i in map(observed.at, training)]
    tables = []
    for k, (start, end) in enumerate(zip(training[:-1], training[1:], strict=True)):
        found = _interval(observed, labels, names, float(start), float(end), seed)
        columns = {"from": start, "to": end, "label": names, "change": found.growth + found.motion}
        columns |= {"growth": found.growth, "motion": found.motion, "observed": seen[k + 1] - seen[k]}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def _interval(
    observed: Observed, labels: NDArray[Any], names: list[str], start: float, end: float, seed: int
) -> Change:
    """The changes (labels,) from one training time to the next."""
    times = np.linspace(start, end, N_PARTS + 1)[1:]
    moved = simulate(
        replace(observed.fit.ensemble, forecast=None),
        observed.x,
        observed.v,
        observed.times,
        times,
        np.full(len(times), start),
        np.empty(0),  # no training time bridges: these are free rollouts
        weights=observed.weights,
        seed=seed,
        chunk_size=N_MOVED,
        n_cells=N_MOVED,
        velocities_in=f"obsm['{observed.fit.group}_velocity']",
    )
    moved.sort(key=lambda part: part.time)
    cells = moved[0].cells
    trained = np.isin(observed.times, observed.fit.training)
    x, known, w = observed.x[trained], labels[trained], observed.w(cells)
    first, growth, motion = _members(labels[cells], names), [], []
    for model in range(len(moved[0].positions)):
        later = [_members(from_neighbours(x, known, part.positions[model]), names) for part in moved]
        weights = [shares(w, len(cells)), *(_weights(part, model, w) for part in moved)]
        found = price(np.stack(weights), np.stack([first, *later]))
        growth.append(found.growth.sum(0))
        motion.append(found.motion.sum(0))
    return Change(np.mean(growth, axis=0), np.mean(motion, axis=0))


def _weights(part: Predicted, model: int, w: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Shares (n,) of the cells by one model at a predicted time."""
    return shares(w if part.weights is None else part.weights[model], len(part.cells))


def _members(labels: NDArray[Any], names: list[str]) -> NDArray[np.float64]:
    """Which label (n, labels) each cell has."""
    return (labels[:, None] == np.array(names)[None]).astype(float)


def _shares(labels: NDArray[Any], names: list[str], w: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Share of each label among the cells."""
    return shares(w, len(labels)) @ _members(labels, names)


def in_words(table: pd.DataFrame) -> str:
    """How much growth and motion change the composition from the first training time to the last."""
    whole = table.groupby("label")[["growth", "motion"]].sum()
    growth, motion = whole.abs().sum() / 2
    most = str(whole["growth"].abs().idxmax())
    text = f"growth changes the composition by {growth:.0%} and motion by {motion:.0%} of the cells"
    if growth >= 0.005:
        own = whole.loc[most]
        text += f", most of all {most}: {own['growth']:+.0%} by growth, {own['motion']:+.0%} by motion"
    return text
