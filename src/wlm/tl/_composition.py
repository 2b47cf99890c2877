"""Shares of cell types through observed and unseen times."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._adata.checks import check_integer
from wlm._adata.columns import read_obs_labels
from wlm._adata.neighbours import from_neighbours
from wlm._adata.times import read_labels
from wlm._random import RNG, as_seed
from wlm._store.group import fit_key
from wlm.core.transport import shares
from wlm.tl._links import Observed
from wlm.tl._predict import warn_beyond_horizon
from wlm.tl._simulation import Predicted, choose, simulate

#: What shares are of.
COUNTS = ("cells", "lineages")


def composition(
    adata: Any,
    label_key: str,
    times: Any = None,
    *,
    key: str = "wlm",
    condition: str | None = None,
    count: str = "cells",
    n_cells: int | None = 2000,
    rng: RNG = 0,
    mod: str | None = None,
) -> pd.DataFrame:
    """Compare the shares of cell types that are predicted with those that are observed.

    Cells are predicted as in :func:`wlm.tl.predict`, from the last training time before. Each predicted cell gets the
    label with the largest weight among its 15 nearest cells of the training times.

    Shares change because cells change and, in a fit with growth, because some cells multiply more than others.
    :func:`wlm.tl.diagnose` with ``label_key`` says how much is due to each.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit.
    label_key
        Column of ``obs`` with labels, such as cell types.
    times
        Times after the first training time, as numbers or labels; by default all observed times.
    key
        Name of the fit; of fits by condition, the key of one.
    condition
        Of fits by condition, which one; the same as its key.
    count
        What the shares count. ``"cells"``: a predicted cell counts as often as it has multiplied by then, as in
        observed populations. ``"lineages"``: the cells of the first training time are followed freely, and each counts
        once, however many descendants it has; this shows in which label the founders' lineages are. No population shows
        lineages, so nothing is ``observed`` after the first time. Without growth the two differ in where predictions
        start.
    n_cells
        Number of predicted cells for each time, chosen at random by weight; None for all.
    rng
        Seed, numpy Generator or SeedSequence.
    mod
        Modality of a MuData that was fitted; without it, the fit of its joint representation.

    Returns
    -------
    A row for each time and label, sorted; nothing is written. The columns:

    ``time``, ``label``
        The time, and the label.
    ``kind``
        ``"training"``, ``"held out"``, ``"between"`` (two training times) or ``"forecast"`` (after the last).
    ``predicted``, ``predicted_sd``
        Share of the predicted cells, and its standard deviation over the models of the fit (NaN for one). At a training
        time this is the free rollout from the one before; at the first, NaN.
    ``observed``
        Share of the observed cells, by weight where the fit has weights; NaN where none were observed.

    ``attrs`` has ``label_key``, ``key``, ``count``, the label of the time axis in ``time_label``, and the ``missed``
    share by time: half the sum of the absolute differences between predicted and observed.

    Raises
    ------
    KeyError
        If there is no fit or no such column.
    ValueError
        If the column holds numbers or missing labels, a time is before the first training time, or ``count`` is neither
        ``"cells"`` nor ``"lineages"``.

    Examples
    --------
    >>> import scanpy as sc
    >>> import wlm
    >>> adata = wlm.datasets.bifurcation(n_cells=100, rng=0)
    >>> sc.pp.normalize_total(adata)
    >>> sc.pp.log1p(adata)
    >>> sc.pp.pca(adata, n_comps=5)
    >>> wlm.tl.fit(adata, "day", n_steps=20, show_progress=False)
    >>> table = wlm.tl.composition(adata, "fate", [1.5, 2])
    >>> table.groupby("time")["predicted"].sum().round(6).tolist()
    [1.0, 1.0]
    """
    key = fit_key(adata, key, condition, mod)
    if n_cells is not None:
        check_integer("n_cells", n_cells)
    if count not in COUNTS:
        raise ValueError(f"count must be one of {list(COUNTS)}, found {count!r}")
    observed = Observed.of(adata, key, mod, columns=[label_key])
    fit, seed = observed.fit, as_seed(rng)
    labels = read_obs_labels(observed.cells, label_key)
    first = fit.training[0]
    known = fit.observed[(fit.observed >= first) & np.isin(fit.observed, observed.times)]
    wanted = known if times is None else np.sort(read_labels(times, fit.style))
    if wanted[0] < first:
        raise ValueError(f"times must not be before {first:g}, the first training time, found {wanted[0]:g}")
    warn_beyond_horizon(fit, wanted[~np.isin(wanted, known)])
    names = sorted(set(labels[np.isfinite(observed.times)]))
    predicted = _predicted(observed, labels, names, wanted[wanted > first], n_cells, seed, lineages=count == "lineages")
    if count == "lineages":
        known = known[known == first]
    rows, missed = [], {}
    for t in wanted:
        there = observed.at(t)
        seen = _shares(labels[there], names, observed.w(there)) if t in known else np.full(len(names), np.nan)
        models = predicted.get(float(t), np.full((1, len(names)), np.nan))  # (m, labels)
        sd = models.std(axis=0, ddof=1) if len(models) > 1 else np.full(len(names), np.nan)
        rows.append(
            pd.DataFrame(
                {"time": float(t), "label": names, "kind": _kind(observed, float(t)), "predicted": models.mean(0)}
                | {"predicted_sd": sd, "observed": seen}
            )
        )
        if t in known and t > first:
            missed[float(t)] = float(np.abs(models.mean(0) - seen).sum() / 2)
    table = pd.concat(rows, ignore_index=True)
    table.attrs |= {"label_key": label_key, "key": key, "count": count, "time_label": fit.time_label, "missed": missed}
    return table


def _predicted(
    observed: Observed,
    labels: NDArray[Any],
    names: list[str],
    wanted: NDArray[np.float64],
    n_cells: int | None,
    seed: int,
    *,
    lineages: bool,
) -> dict[float, NDArray[np.float64]]:
    """Shares (m, labels) by each model at each of the times, which are after the first training time.

    Of ``lineages`` from there, each by the weight that it started with; or of cells from the training time before.
    """
    if len(wanted) == 0:
        return {}
    training = observed.fit.training
    parts = simulate(
        observed.fit.ensemble,
        observed.x,
        observed.v,
        observed.times,
        wanted,
        np.array([training[0] if lineages else training[training < t][-1] for t in wanted]),
        np.empty(0) if lineages else training,
        weights=observed.weights,
        seed=seed,
        n_cells=n_cells,
        velocities_in=f"obsm['{observed.fit.group}_velocity']",
    )
    trained = np.isin(observed.times, training)
    x, known, found = observed.x[trained], labels[trained], {}
    for part in [_unmultiplied(part, observed) for part in parts] if lineages else parts:
        if n_cells is not None and n_cells < len(part.cells):
            part = choose(part, n_cells, seed)
        weights = [None] * len(part.positions) if part.weights is None else list(part.weights)
        models = zip(part.positions, weights, strict=True)
        found[part.time] = np.stack([_shares(from_neighbours(x, known, z), names, w) for z, w in models])
    return found


def _unmultiplied(part: Predicted, observed: Observed) -> Predicted:
    """The population by the weights of its start, by which no lineage counts for more than it did."""
    w = observed.w(part.cells)
    return replace(part, weights=None if w is None else np.tile(w, (len(part.positions), 1)))


def _shares(labels: NDArray[Any], names: list[str], w: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Share of each label among the cells."""
    return shares(w, len(labels)) @ (labels[:, None] == np.array(names)[None]).astype(float)


def _kind(observed: Observed, t: float) -> str:
    """What a time is to the fit."""
    fit = observed.fit
    if t in fit.training:
        return "training"
    return "held out" if t in fit.observed else "forecast" if t > fit.training[-1] else "between"
