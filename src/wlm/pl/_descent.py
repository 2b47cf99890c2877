"""The energy along the paths of a fit, by branch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from wlm._adata.cells import read_rep
from wlm._adata.mudata import get_target
from wlm._adata.neighbours import from_neighbours
from wlm._adata.times import read_labels
from wlm._store.fit import StoredFit, open_fit
from wlm.pl._basis import time_label
from wlm.pl._coloring import Coloring
from wlm.pl._colors import PREDICTED, name_colors
from wlm.pl._legend import legend
from wlm.pl._style import Style

#: Thin lines of single paths at most.
N_LINES = 100
#: Branches with fewer paths than this have no mean of their own.
FEWEST = 3


def draw_descent(
    adata: Any,
    fit: StoredFit,
    colorings: Sequence[Coloring],
    look: Style,
    *,
    times: Any,
    max_paths: int,
    label: str,
    mod: str | None,
) -> Axes:
    """Energies of the cells of the free rollout over time, each in the population of that rollout.

    Paths are put together by where they end, so that no mean is taken over cells that go different ways.
    """
    stored = fit.uns["rollout"]
    at, positions = np.asarray(stored["times"], dtype=float), np.asarray(stored["positions"])
    kept = _chosen(at, times, fit)
    energies = path_energies(fit, at[kept], positions[kept], _weights(stored, kept))  # (m, T, n)
    branch, colors = _branches(adata, fit, colorings, positions[-1], mod)
    ax = look.one((5.2, 3.6))
    handles: list[Any] = []
    for name, color in colors.items():
        here = np.flatnonzero(branch == name)
        if len(here) < FEWEST:
            continue
        own, lines = (
            energies[:, :, here],
            energies[0][:, here[: max(1, min(max_paths, N_LINES) * len(here) // len(branch))]],
        )
        ax.add_collection(
            LineCollection([np.column_stack([at[kept], e]) for e in lines.T], colors=color, lw=0.4, alpha=0.25)
        )
        by_model = own.mean(axis=2)  # (m, T)
        mean = by_model.mean(axis=0)
        if len(own) > 1:
            low, high = mean - by_model.std(axis=0, ddof=1), mean + by_model.std(axis=0, ddof=1)
        else:
            low, high = np.quantile(own[0], (0.25, 0.75), axis=1)
        ax.fill_between(at[kept], low, high, color=color, alpha=0.25, lw=0)
        ax.plot(at[kept], mean, color=color, lw=2)
        handles.append(Line2D([], [], color=color, lw=2, label=f"{name} (n = {len(here)})"))
    of = f"sd, {len(energies)} models" if len(energies) > 1 else "25-75 % of paths"
    handles += [Patch(color="0.5", alpha=0.3, label=of), Line2D([], [], color="0.5", lw=0.6, label="a path")]
    ax.autoscale_view()
    ax.set(xlabel=time_label(fit), ylabel=f"{label},\nless its mean at the start")
    ax.spines[["top", "right"]].set_visible(False)
    several = look.facet is not None  # numbers of paths are those of a condition
    legend(look, [ax], handles, title=None if len(colors) == 1 else "paths that end in", several=several)
    return ax


def path_energies(
    fit: StoredFit, times: NDArray[np.float64], positions: NDArray[np.float32], weights: Sequence[Any]
) -> NDArray[np.float64]:
    """Energies (m, T, n) by each model along paths (T, n, d), whose mean at the first time is 0."""
    models = [fit.dynamics, *(other.dynamics for other in fit.others)]
    found = np.stack(
        [[m.energy(x, float(t), w=w) for t, x, w in zip(times, positions, weights, strict=True)] for m in models]
    ).astype(np.float64)
    return found - found[:, :1].mean(axis=2, keepdims=True)


def _weights(stored: Any, kept: NDArray[np.intp]) -> list[Any]:
    """What the cells of the rollout count at each time; of fits that conserve them, all the same."""
    if "weights" not in stored:
        return [None] * len(kept)
    w = np.asarray(stored["weights"])
    return list(w[kept]) if w.ndim == 2 else [w] * len(kept)


def _chosen(at: NDArray[np.float64], times: Any, fit: StoredFit) -> NDArray[np.intp]:
    """The stored times between the first and last of ``times``."""
    if times is None:
        return np.arange(len(at))
    wanted = read_labels(times, fit.style)
    kept = np.flatnonzero((at >= wanted.min() - 1e-9) & (at <= wanted.max() + 1e-9))
    if len(kept) < 2:
        raise ValueError(f"paths are drawn from {at[0]:g} to {at[-1]:g}; give two times in it, found {times!r}")
    return kept


def _branches(
    adata: Any, fit: StoredFit, colorings: Sequence[Coloring], ends: NDArray[np.float32], mod: str | None
) -> tuple[NDArray[Any], dict[str, Any]]:
    """In which branch each path ends (n,), and the colours of branches."""
    target = get_target(adata, mod)
    cells, _ = open_fit(adata, fit.key, mod)
    x, last = read_rep(cells, fit.use_rep, fit.n_dims), fit.times(cells) == fit.training[-1]
    if len(colorings) > 1 or (colorings and colorings[0].labels is None):
        raise ValueError("color= puts paths together by their ends: name one column of obs with labels")
    if colorings:
        names = from_neighbours(x[last], colorings[0].values[last], ends)
        return names, {n: c for n, c in (colorings[0].labels or {}).items() if n in set(names)}
    column = f"{fit.key}_terminal"
    if column in target.obs and str(target.uns.get(column, {}).get("fit")) == fit.checksum:
        states = target.obs[column].iloc[target.obs_names.get_indexer(cells.obs_names)]
        there = states.notna().to_numpy()
        if there.any():
            names = from_neighbours(x[there], states[there].astype(str).to_numpy(), ends)
            known = name_colors(target, fit, list(pd.unique(names)))
            return names, {n: known[n] for n in sorted(set(names))}
    return np.full(len(ends), "all paths"), {"all paths": PREDICTED}
