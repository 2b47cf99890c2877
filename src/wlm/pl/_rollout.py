"""Observed and predicted populations side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import anndata as ad
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from wlm._adata.cells import read_rep
from wlm._adata.mudata import get_target
from wlm._adata.neighbours import from_neighbours
from wlm._adata.times import read_labels
from wlm._random import RNG, as_seed
from wlm._store.fit import StoredFit, check_representation
from wlm._store.group import fit_key
from wlm.pl._arguments import Clouds, styled
from wlm.pl._basis import Embedding, dots, embedding, point_size, some, time_label
from wlm.pl._coloring import Coloring, read_colorings
from wlm.pl._colors import BEHIND, OBSERVED, PREDICTED, path_color
from wlm.pl._facets import by_condition
from wlm.pl._legend import legend, outside, under
from wlm.pl._style import NONE, Style, broadcast
from wlm.tl import predict

#: Size and opacity of coloured cells: observed ones are large and pale, so that predicted ones are seen on them.
_LARGE, _PALE, _FULL = 2.6, 0.3, 0.9
#: The same of grey and blue ones.
_PLAIN, _SEEN = 1.5, 0.6


@styled(
    Clouds,
    color="Column of ``obs`` or gene to colour cells by, observed and predicted ones: a predicted cell has the value "
    "of its 15 nearest cells of the training times. Of a list, the panels are repeated for each.",
    size="Area of a predicted cell in square points, to which that of others is in proportion; by default by their "
    "number.",
    ax="Axes to draw on: one for each time and one for the paths, for each ``color`` or pair of ``dimensions``.",
)
@by_condition
def rollout(
    adata: ad.AnnData,
    *,
    key: str = "wlm",
    condition: str | None = None,
    times: Any = None,
    basis: str | None = None,
    components: tuple[int, int] = (0, 1),
    n_paths: int = 60,
    max_cells: int = 2000,
    rng: RNG = 0,
    mod: str | None = None,
    **style: Unpack[Clouds],
) -> Any:
    """Draw observed and predicted populations, a panel for each time, and paths of cells in the last panel.

    The predicted cells of each panel are those of :func:`wlm.tl.predict`: they start from the observed cells of the
    training time before, so that errors do not add up. The paths of the last panel run freely from the first time.
    The axes are as wide as the observed cells; titles say how many predicted ones lie beyond.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit.
    key
        Name of the fit; of fits by condition, that of all of them or of one.
    condition
        Of fits by condition, which one to draw; by default all of them, a panel or block of panels for each, with the
        same axes and colours.
    times
        Times to draw, as numbers or labels; the first training time is always drawn. By default all
        observed ones and, in intervals without a held-out time that are longer than the typical one,
        their middle.
    basis
        Embedding to draw in, for example ``"umap"``; by default the fitted representation. In an embedding that is
        no linear map of it, a predicted cell is drawn at the observed cell that is nearest to it, and a path is led
        straight from one observed time to the next.
    components
        The two dimensions to draw.
    n_paths
        Paths of the rollout from the first time to draw.
    max_cells
        Points of each kind drawn in a panel.
    rng
        Seed of the prediction and of the choice of points.
    mod
        Modality of a MuData that was fitted; without it, the fit of its joint representation.

    Returns
    -------
    A list of the axes, the figure with ``return_fig``, or None if it was shown.
    """
    key = fit_key(adata, key, condition, mod)
    look = Style(**style)
    cells, fit, colorings = read_colorings(adata, key, mod, look)
    x = read_rep(cells, fit.use_rep, fit.n_dims)
    check_representation(cells, fit, x)
    wanted = _default_times(fit.observed, fit.training) if times is None else read_labels(times, fit.style)
    wanted = np.unique(wanted[wanted > fit.training[0]])
    if len(wanted) == 0:
        raise ValueError(f"times must hold one after the first training time {fit.training[0]:g}, found {times!r}")
    views = broadcast(colorings or [None], look.pairs(components))
    whole_object = get_target(adata, mod) if look.facet is not None else None
    planes = [embedding(cells, fit, basis, pair, whole_object) for _, pair in views]
    seed = as_seed(rng)
    n_cells = None if cells.n_obs <= 10 * max_cells else max_cells  # of many cells a sample is drawn
    predicted = predict(adata, wanted, key=key, n_cells=n_cells, rng=seed, mod=mod)
    whole = _Populations(
        cells, fit, x, fit.times(cells), predicted.obs[fit.time_key].to_numpy(), np.asarray(predicted.obsm[fit.use_rep])
    )
    n, shared = len(wanted) + 2, len({pair for _, pair in views}) == 1
    figure, axes = look.axes(
        n * len(views),
        (2.9, 2.7),
        ncols=n if len(views) > 1 and n <= 6 else None,
        extra=0.4,
        right=max(c.room(look) if c else 0.0 for c, _ in views),
        **({"sharex": True, "sharey": True} if shared else {}),
    )

    def draw() -> None:
        for k, ((coloring, _), plane) in enumerate(zip(views, planes, strict=True)):
            part = axes[k * n : (k + 1) * n]
            generator = np.random.default_rng(seed)
            names = [
                _draw_time(panel, whole, plane, t, coloring, look, max_cells, generator)
                for panel, t in zip(part, [fit.training[0], *wanted], strict=False)
            ]
            names.append(_draw_paths(part[-1], whole, plane, coloring, n_paths, max_cells, generator))
            if coloring is not None:
                coloring.explain(look, part, names, several=len(views) > 1)
        _explain(look, axes, colored=views[0][0])

    look.later(draw)
    return look.finish(axes, axes)


@dataclass(frozen=True)
class _Populations:
    """Observed cells ``x`` (n, d) with ``times`` (n,), and predicted ones ``z`` (m, d) with theirs, ``at`` (m,)."""

    cells: ad.AnnData
    fit: StoredFit
    x: NDArray[np.float32]
    times: NDArray[np.float64]
    at: NDArray[np.float64]
    z: NDArray[np.float32]


def _draw_time(
    panel: Axes,
    whole: _Populations,
    plane: Embedding,
    t: float,
    coloring: Coloring | None,
    look: Style,
    max_cells: int,
    rng: np.random.Generator,
) -> tuple[Any, Any]:
    """The cells of one time, predicted on observed ones; returns coloured points and their values."""
    _draw_behind(panel, plane, max_cells, rng)
    seen = np.flatnonzero(whole.times == t)
    shown, every = some(seen, max_cells, rng), whole.z[whole.at == t]
    here = some(every, max_cells, rng)
    size = look.size or point_size(panel, max(len(shown), len(here))) / _PLAIN
    start = len(here) == 0
    if coloring is None:
        dots(panel, plane.points[shown], OBSERVED, _PLAIN * size, look.alpha)
        near: Any = PREDICTED
    else:
        shown = shown[coloring.order(coloring.values[shown])]
        weight = (1.0, _FULL) if start else (_LARGE, _PALE)
        alpha = weight[1] if look.alpha is None else look.alpha * weight[1] / _FULL
        own = coloring.rgba(coloring.values[shown])
        dots(panel, plane.points[shown], own, weight[0] * size, alpha)
    values: NDArray[Any] = np.empty(0)
    if not start:
        if coloring is not None:
            known = np.isin(whole.times, whole.fit.training)
            values = from_neighbours(whole.x[known], coloring.values[known], here)
            order = coloring.order(values)
            here, values = here[order], values[order]
            near = coloring.rgba(values)
        alpha = (_SEEN if coloring is None else _FULL) if look.alpha is None else look.alpha
        dots(panel, plane.project(here), near, size, alpha)
    title = _fill(f"{whole.fit.time_key} {t:.4g}, {_role(t, whole.fit.training, seen)}")
    plane.frame(panel, title, plane.project(every) if len(every) else None)
    if coloring is None:
        return None, None
    if len(shown):
        return plane.points[shown], coloring.values[shown]
    return plane.project(here), values


def _draw_paths(
    panel: Axes,
    whole: _Populations,
    plane: Embedding,
    coloring: Coloring | None,
    n_paths: int,
    max_cells: int,
    rng: np.random.Generator,
) -> tuple[Any, Any]:
    """Paths of the free rollout, in a colour that no label has, from starts in those of their cells."""
    _draw_behind(panel, plane, max_cells, rng)
    stored = whole.fit.uns["rollout"]
    positions = np.asarray(stored["positions"])
    if not plane.linear:  # from neighbour to neighbour, at the observed times only: there is nothing between them
        positions = positions[np.isclose(np.asarray(stored["times"])[:, None], whole.fit.observed).any(axis=1)]
    lines = plane.project(positions).transpose(1, 0, 2)
    chosen = some(np.arange(len(lines)), n_paths, rng)
    lines = lines[chosen]
    starts: Any = "black"
    taken: list[Any] = []
    values = np.empty(0)
    if coloring is not None:
        origin = np.asarray(stored["origin"], dtype=object)[chosen]
        values = coloring.values[whole.cells.obs_names.astype(str).get_indexer(origin.astype(str))]
        starts, taken = coloring.rgba(values), list((coloring.labels or {}).values())
    panel.add_collection(LineCollection(list(lines), colors=path_color(taken), linewidths=0.7, alpha=0.6))
    dots(panel, lines[:, 0], starts, 10, zorder=3)
    title = _fill(f"paths from {time_label(whole.fit)} {whole.fit.training[0]:.4g}")
    plane.frame(panel, title, lines, "paths")
    return lines[:, 0], values


def _draw_behind(panel: Axes, plane: Embedding, max_cells: int, rng: np.random.Generator) -> None:
    """All cells, behind others."""
    points = some(plane.points, max_cells, rng)
    dots(panel, points, BEHIND, 0.5 * point_size(panel, len(points)))


def _role(t: float, training: np.ndarray, seen: np.ndarray) -> str:
    """What the fit knows of the time ``t``, at which there are the cells ``seen``."""
    if t == training[0]:
        return "start"
    if t in training:
        return "trained on"
    return "held out" if len(seen) else "not observed"


def _explain(look: Style, axes: Sequence[Axes], colored: Coloring | None) -> None:
    """What points and lines are, below the panels."""
    if look.place == NONE:
        return
    dot: dict[str, Any] = {"marker": "o", "ls": ""}
    taken = [] if colored is None else list((colored.labels or {}).values())
    path = Line2D([], [], color=path_color(taken), lw=1.2, label="path")
    behind = Line2D([], [], **dot, ms=4, color=BEHIND, label="all cells")
    if colored is None:
        kinds = ((OBSERVED, "observed at that time"), (PREDICTED, "predicted from the time before"))
        points = [Line2D([], [], **dot, ms=4, color=c, label=text) for c, text in kinds]
        legend(look, axes, [behind, *points, path, Line2D([], [], **dot, ms=4, color="black", label="start")], below=5)
        return
    points = [
        Line2D([], [], **dot, ms=7, color="0.3", alpha=_PALE, mew=0, label="large, pale: observed"),
        Line2D([], [], **dot, ms=3.5, color="0.3", mew=0, label="small: predicted from the time before"),
    ]
    handles = [behind, *points, path]
    if look.ax is None:
        text = {"frameon": False, "fontsize": look.fontsize}
        outside(look, axes, handles=handles, loc="outside lower center", ncols=4, **text)
    else:
        under(axes[0], handles=handles, frameon=False, fontsize=look.fontsize)


def _default_times(observed: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Observed times, and the middle of training intervals that are clearly longer than usual and empty."""
    gaps = np.diff(training)
    middles = [
        (a + b) / 2
        for a, b, gap in zip(training[:-1], training[1:], gaps, strict=True)
        if gap > 1.5 * np.median(gaps) and not ((observed > a) & (observed < b)).any()
    ]
    return np.unique(np.concatenate([observed, middles]))


def _fill(title: str) -> str:
    """A title in lines that fit over a panel: keys of ``obs`` can be long."""
    return textwrap.fill(title, 28)
