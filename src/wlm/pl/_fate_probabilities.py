"""How likely each cell is to end in each state: in an embedding, or between three corners."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from wlm._adata.mudata import get_target
from wlm._store.fit import StoredFit, open_fit
from wlm._store.results import read_result
from wlm.pl._basis import bare, embedding, finish, name_colors, time_label

#: Corners of the simplex: a triangle with sides of length one.
_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])


def fate_probabilities(
    adata: Any,
    *,
    key: str = "wlm",
    kind: str = "embedding",
    fate: str | None = None,
    basis: str | None = None,
    components: tuple[int, int] = (0, 1),
    mod: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Any:
    """Draw how likely each observed cell is to end in each terminal state.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit, after :func:`wlm.tl.fates`.
    key
        Name of the fit; of fits by condition, the key of one.
    kind
        ``"embedding"``: a panel for each fate, cells coloured by their probability. ``"simplex"``, for three fates:
        each cell in a triangle, the nearer to a corner the likelier that fate, coloured by its time.
    fate
        One fate to draw, in an embedding.
    basis
        Embedding: a key of ``obsm`` with or without ``X_``; by default the fitted representation.
    components
        The two dimensions of it to draw.
    mod
        Modality of a MuData that was fitted; without it, the fit of its joint representation.
    ax
        Axes to draw on: of a simplex, or of one fate.
    show
        Show the figure; by default in interactive mode only.
    return_fig
        Return the figure.

    Returns
    -------
    The figure, or the axes (several in a list), or None if the figure was shown.

    Raises
    ------
    KeyError
        If there is no fit, no fates or no such embedding.
    ValueError
        If there is no such fate or kind, there are not three fates for a simplex, or several panels for one ``ax``.
    """
    cells, fit = open_fit(adata, key, mod)
    target = get_target(adata, mod)
    times = fit.times(cells)
    note = read_result(target, fit, "fates", "fates")
    names = [str(name) for name in np.ravel(note["names"])]
    if kind not in ("embedding", "simplex"):
        raise ValueError(f"kind must be 'embedding' or 'simplex', found {kind!r}")
    if fate is not None and (fate not in names or kind == "simplex"):
        raise ValueError(f"fate {fate!r} is none of {names}, or kind is not 'embedding'")
    if kind == "simplex" and len(names) != 3:
        raise ValueError(f"a simplex is drawn of three fates, found {len(names)}: {names}; draw kind='embedding'")
    shown = names if fate is None else [fate]
    if ax is not None and kind == "embedding" and len(shown) > 1:
        raise ValueError(f"ax is for one panel, and there are {len(shown)} fates; name one, fate={names[0]!r}")
    p = np.asarray(target.obsm[f"{key}_fates"])[target.obs_names.get_indexer(cells.obs_names)]
    known = np.isfinite(p[:, 0])
    # Drawn in random order, so that no time or fate lies on top of the others.
    order = np.random.default_rng(0).permutation(np.flatnonzero(known))
    if kind == "simplex":
        figure, axes = _simplex(ax, p[order], times[order], names, fit, name_colors(target, fit, names))
    else:
        x, _, labels = embedding(cells, fit, basis, components)
        columns = [p[order, names.index(name)] for name in shown]
        figure, axes = _panels(ax, x[order], columns, shown, labels)
    return finish(figure, axes, show, return_fig)


def _panels(
    ax: Axes | None, x: NDArray[np.float32], columns: list[NDArray[np.float32]], names: list[str], labels: Any
) -> tuple[Figure, Any]:
    """A panel of the cells at ``x`` (n, 2) for each fate, coloured by its probabilities (n,)."""
    n = len(names)
    if ax is not None:
        figure, axes = ax.get_figure(root=True), [ax]
    else:
        wide = min(n, 4)
        tall = -(-n // wide)
        figure, grid = plt.subplots(
            tall, wide, figsize=(2.9 * wide + 0.9, 2.9 * tall), squeeze=False, layout="constrained"
        )
        for rest in grid.ravel()[n:]:
            rest.set_visible(False)
        axes = list(grid.ravel()[:n])
    for one, name, values in zip(axes, names, columns, strict=True):
        size = max(2.0, min(12.0, 6000 / len(x)))
        points = one.scatter(x[:, 0], x[:, 1], c=values, s=size, cmap="viridis", vmin=0, vmax=1, lw=0)
        one.set_title(name, fontsize="medium")
        bare(one, labels)
    figure.colorbar(points, ax=axes, label="probability of this fate", shrink=0.8)  # type: ignore[union-attr]
    return figure, axes if n > 1 else axes[0]  # type: ignore[return-value]


def _simplex(
    ax: Axes | None,
    p: NDArray[np.float32],
    times: NDArray[np.float64],
    names: list[str],
    fit: StoredFit,
    colors: dict[str, Any],
) -> tuple[Figure, Axes]:
    """Cells with probabilities (n, 3) in a triangle, coloured by their times (n,)."""
    if ax is None:
        ax = plt.subplots(figsize=(5, 4), layout="constrained")[1]
    ax.plot(*_CORNERS[[0, 1, 2, 0]].T, color="0.7", lw=1, zorder=1)
    for share in (1 / 3, 2 / 3):  # lines of equal probability
        for i in range(3):
            a, b = _CORNERS[(i + 1) % 3], _CORNERS[(i + 2) % 3]
            ends = [share * _CORNERS[i] + (1 - share) * other for other in (a, b)]
            ax.plot(*np.transpose(ends), color="0.9", lw=0.7, zorder=0)
    # Equal probabilities lie on each other at the corners: a little scatter shows how many.
    jitter = np.random.default_rng(0).normal(scale=0.008, size=(len(p), 2))
    size = max(3.0, min(14.0, 8000 / len(p)))
    x, y = (p @ _CORNERS + jitter).T
    points = ax.scatter(x, y, c=times, s=size, cmap="cividis", lw=0, alpha=0.8, zorder=2)
    for k, (name, corner) in enumerate(zip(names, _CORNERS, strict=True)):
        below = k < 2
        ax.text(
            corner[0],
            corner[1] + (-0.05 if below else 0.05),
            name,
            ha="center",
            va="top" if below else "bottom",
            color=colors[name],
            fontweight="bold",
        )
    figure = ax.get_figure(root=True)
    there = np.unique(times[np.isfinite(times)])
    ticks = there if len(there) <= 8 else None
    figure.colorbar(points, ax=ax, label=time_label(fit), shrink=0.7, ticks=ticks)  # type: ignore[union-attr]
    ax.set(aspect="equal", xlim=(-0.15, 1.15), ylim=(-0.15, 1.0))
    ax.axis("off")
    return figure, ax  # type: ignore[return-value]
