"""How likely each cell is to end in each state: in an embedding, or between three corners."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from wlm._adata.mudata import get_target
from wlm._store.fit import StoredFit
from wlm._store.group import fit_key
from wlm._store.results import read_result
from wlm.pl._arguments import Clouds, styled
from wlm.pl._basis import Embedding, embedding, time_label
from wlm.pl._coloring import Coloring, read_colorings
from wlm.pl._colors import name_colors
from wlm.pl._facets import by_condition
from wlm.pl._style import Style

#: Corners of the simplex: a triangle with sides of length one.
_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])


@styled(
    Clouds,
    color="Columns of ``obs`` or genes to compare with: a panel for each after those of the fates. Of a simplex, what "
    "cells are coloured by in place of their times.",
    cmap="Colormap for numbers, of the probabilities too.",
    vmin="Number with the first colour, of a list one for each panel; of probabilities 0 by default.",
    vmax="The same of the last colour; of probabilities 1 by default.",
)
@by_condition
def fate_probabilities(
    adata: Any,
    *,
    key: str = "wlm",
    condition: str | None = None,
    kind: str = "embedding",
    fate: str | None = None,
    basis: str | None = None,
    components: tuple[int, int] = (0, 1),
    max_cells: int = 20_000,
    mod: str | None = None,
    **style: Unpack[Clouds],
) -> Any:
    """Draw how likely each observed cell is to end in each terminal state.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit, after :func:`wlm.tl.fates`.
    key
        Name of the fit; of fits by condition, that of all of them or of one.
    condition
        Of fits by condition, which one to draw; by default all of them, a panel or block of panels for each, with the
        same axes and colours.
    kind
        ``"embedding"``: a panel for each fate, cells coloured by their probability. ``"simplex"``, for three fates:
        each cell in a triangle, the nearer to a corner the likelier that fate, coloured by its time.
    fate
        One fate to draw, in an embedding.
    basis
        Embedding: a key of ``obsm`` with or without ``X_``; by default the fitted representation.
    components
        The two dimensions of it to draw.
    max_cells
        Points drawn in a panel at most.
    mod
        Modality of a MuData that was fitted; without it, the fit of its joint representation.

    Returns
    -------
    The axes (of several panels or conditions a list), the figure with ``return_fig``, or None if it was shown.

    Raises
    ------
    KeyError
        If there is no fit, no fates or no such embedding.
    ValueError
        If there is no such fate or kind, there are not three fates for a simplex, or ``ax`` holds fewer axes than there
        are panels.
    """
    key = fit_key(adata, key, condition, mod)
    look = Style(**style)
    if kind not in ("embedding", "simplex"):
        raise ValueError(f"kind must be 'embedding' or 'simplex', found {kind!r}")
    n_before = 0 if kind == "simplex" else 1
    cells, fit, colorings = read_colorings(adata, key, mod, look, before=n_before, numbers=True)
    target = get_target(adata, mod)
    times = fit.times(cells)
    note = read_result(target, fit, "fates", "fates")
    names = [str(name) for name in np.ravel(note["names"])]
    if fate is not None and (fate not in names or kind == "simplex"):
        raise ValueError(f"fate {fate!r} is none of {names}, or kind is not 'embedding'")
    if kind == "simplex" and len(names) != 3:
        raise ValueError(f"a simplex is drawn of three fates, found {len(names)}: {names}; draw kind='embedding'")
    p = np.asarray(target.obsm[f"{key}_fates"])[target.obs_names.get_indexer(cells.obs_names)]
    # Drawn in random order, so that no time or fate lies on top of the others.
    order = np.random.default_rng(0).permutation(np.flatnonzero(np.isfinite(p[:, 0])))[:max_cells]
    if kind == "simplex":
        look.refuse(("dimensions", "ncols"), "is of an embedding, and a simplex is none")
        if len(colorings) > 1 or basis is not None:
            raise ValueError("a simplex is one panel of one color=, in no embedding: leave basis out")
        return _simplex(look, p[order], times[order], order, names, fit, name_colors(target, fit, names), colorings)
    planes = [embedding(cells, fit, basis, pair) for pair in look.pairs(components)]
    shown = names if fate is None else [fate]
    columns = {name: p[order, names.index(name)] for name in shown}
    return _panels(look, planes, order, columns, colorings)


def _panels(
    look: Style,
    planes: Sequence[Embedding],
    order: NDArray[np.intp],
    columns: dict[str, NDArray[np.float32]],
    colorings: Sequence[Coloring],
) -> Any:
    """A panel for each fate, cells coloured by its probabilities (n,), and one for each other colour."""
    n = len(columns) + len(colorings)
    one, right = n * len(planes) == 1, max((c.room(look) for c in colorings), default=0.0)
    _, axes = look.axes(n * len(planes), (3.8, 3.0) if one else (2.9, 2.9), ncols=n if n <= 5 else 4, right=right)
    chances = Coloring.numbers("probability of this fate", np.stack(list(columns.values())), look, vmin=0, vmax=1)
    for k, plane in enumerate(planes):
        part = axes[k * n : (k + 1) * n]
        for ax, (name, values) in zip(part, columns.items(), strict=False):
            chances.scatter(ax, plane.points[order], values, look)
            plane.frame(ax, name)
        for ax, coloring in zip(part[len(columns) :], colorings, strict=True):
            own = coloring.values[order]
            coloring.scatter(ax, plane.points[order], own, look)
            plane.frame(ax, coloring.name)
            coloring.explain(look, [ax], [(plane.points[order], own)], several=True)
        chances.explain(look, part[: len(columns)], [])
    return look.finish(axes, axes if len(axes) > 1 else axes[0])


def _simplex(
    look: Style,
    p: NDArray[np.float32],
    times: NDArray[np.float64],
    order: NDArray[np.intp],
    names: list[str],
    fit: StoredFit,
    colors: dict[str, Any],
    colorings: Sequence[Coloring],
) -> Any:
    """Cells with probabilities (n, 3) in a triangle, coloured by their times (n,) or as they were asked to be."""
    ax = look.one((5, 4))
    ax.plot(*_CORNERS[[0, 1, 2, 0]].T, color="0.7", lw=1, zorder=1)
    for share in (1 / 3, 2 / 3):  # lines of equal probability
        for i in range(3):
            a, b = _CORNERS[(i + 1) % 3], _CORNERS[(i + 2) % 3]
            line = [share * _CORNERS[i] + (1 - share) * other for other in (a, b)]
            ax.plot(*np.transpose(line), color="0.9", lw=0.7, zorder=0)
    # Equal probabilities lie on each other at the corners: a little scatter shows how many.
    jitter = np.random.default_rng(0).normal(scale=0.008, size=(len(p), 2))
    points = p @ _CORNERS + jitter
    there = np.unique(times[np.isfinite(times)])
    if colorings:
        coloring, values = colorings[0], colorings[0].values[order]
    else:
        ends = {"vmin": there[0], "vmax": there[-1]}
        coloring, values = Coloring.numbers(time_label(fit), times, look, cmap="cividis", **ends), times
    coloring.scatter(ax, points, values, look, 0.8)
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
    coloring.explain(look, [ax], [(points, values)])
    ax.set(aspect="equal", xlim=(-0.15, 1.15), ylim=(-0.15, 1.0))
    ax.axis("off")
    return look.finish([ax], ax)
