"""Colours of cells by columns of ``obs`` and genes."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import to_rgba
from matplotlib.patches import Patch
from numpy.typing import NDArray

from wlm._adata.columns import dense, layer_names, read_column, read_obs_labels
from wlm._adata.mudata import get_target
from wlm._store.fit import StoredFit, open_fit
from wlm.pl._basis import dots, point_size
from wlm.pl._colors import FAINT, label_colors
from wlm.pl._legend import legend, room
from wlm.pl._names import Names
from wlm.pl._style import AUTO, ON_DATA, RIGHT, Style

#: Numbers below and above these shares of the cells have the first and the last colour.
SHOWN = (0.01, 0.99)


@dataclass(frozen=True)
class Coloring:
    """Colours of cells: their ``values`` (n_obs,), and those of ``labels``, or a ``scale`` for numbers.

    ``groups`` are the labels that are coloured, None for all.
    """

    name: str
    values: NDArray[Any]
    labels: dict[str, Any] | None = None
    scale: ScalarMappable = field(default_factory=ScalarMappable)
    groups: tuple[str, ...] | None = None

    @classmethod
    def numbers(cls, name: str, values: NDArray[Any], style: Style, panel: int = 0, **default: Any) -> Coloring:
        """Of numbers (n_obs,), for the panel of this place; ``default`` is a cmap, vmin and vmax."""
        low, high = (_bound(getattr(style, k), k, values, panel, default.get(k)) for k in ("vmin", "vmax"))
        if not low <= high:
            raise ValueError(f"vmin must be at most vmax, found {low:g} and {high:g} for {name!r}")
        scale = ScalarMappable(
            style.common(f"{name}, {panel}", low, high), style.cmap or default.get("cmap", "viridis")
        )
        return cls(name, values, scale=scale)

    def rgba(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Colours (n, 4) of ``values`` (n,)."""
        if self.labels is None:
            return self.scale.to_rgba(values)
        shown = {name: c if self._coloured(name) else FAINT for name, c in self.labels.items()}
        return np.array([to_rgba(shown[v]) for v in values]).reshape(-1, 4)

    def scatter(
        self, ax: Axes, points: NDArray[Any], values: NDArray[Any], look: Style, alpha: float | None = None
    ) -> None:
        """Points (n, 2) in the colours of their ``values`` (n,), those which ``groups`` leaves out below others."""
        alpha, size = alpha if look.alpha is None else look.alpha, look.size or point_size(ax, len(points))
        place = self.order(values)
        if self.labels is None:
            dots(ax, points[place], values[place], size, alpha, cmap=self.scale.cmap, norm=self.scale.norm)
        else:
            dots(ax, points[place], self.rgba(values[place]), size, alpha)

    def order(self, values: NDArray[Any]) -> NDArray[np.intp]:
        """Places of ``values`` (n,) such that those which ``groups`` leaves out come first, and are drawn below."""
        if self.groups is None:
            return np.arange(len(values))
        return np.argsort(np.isin(values, self.groups), kind="stable")

    def _coloured(self, name: str) -> bool:
        return self.groups is None or name in self.groups

    def room(self, style: Style) -> float:
        """Inches that its legend takes at the right."""
        if self.labels is None or style.place not in (AUTO, RIGHT):
            return 0.0
        names = set(self.values) if self.groups is None else {*self.groups, "other"}
        return room(names)

    def explain(
        self, style: Style, axes: Sequence[Axes], at: Sequence[tuple[Any, Any]], *, several: bool = False
    ) -> None:
        """A legend, names on the data, or a colour bar to the right of ``axes``.

        ``at`` are points (n, 2) and their values (n,) on each of the axes, for names on the data.
        """
        if self.labels is None:
            low, high = self.scale.get_clim()
            beyond = bool((self.values < low).any()), bool((self.values > high).any())
            extend = {(False, False): "neither", (True, False): "min", (False, True): "max"}.get(beyond, "both")
            figure: Any = axes[0].get_figure(root=True)
            bar = figure.colorbar(self.scale, ax=list(axes), label=self.name, shrink=0.8, extend=extend)
            if style.legend_fontsize is not None:
                bar.ax.tick_params(labelsize=style.legend_fontsize)
                bar.ax.yaxis.label.set_size(style.legend_fontsize)
            return
        there = set(self.values)
        shown = {name: c for name, c in self.labels.items() if name in there and self._coloured(name)}
        if style.place == ON_DATA:
            for ax, (points, values) in zip(axes, at, strict=True):
                self._name(ax, points, values, shown, style)
            return
        handles = [Patch(color=c, label=name) for name, c in shown.items()]
        if self.groups is not None and len(shown) < len(there):
            handles.append(Patch(color=FAINT, label="other"))
        legend(style, axes, handles, several=several, title=self.name)

    def _name(self, ax: Axes, points: Any, values: Any, shown: dict[str, Any], style: Style) -> None:
        """Each label near the median of its cells."""
        cells, own = np.asarray(points), np.asarray(values)
        Names(
            ax,
            {name: tuple(np.median(cells[own == name], axis=0)) for name in shown if (own == name).any()},
            style.fontsize,
        )


def _bound(given: Any, name: str, values: NDArray[Any], panel: int, default: Any) -> float:
    """A limit of the colours of ``values``, in the panel of this place."""
    if given is not None and not isinstance(given, str) and isinstance(given, (Sequence, np.ndarray)):
        if panel >= len(given):
            raise ValueError(f"{name} has {len(given)} values, one for each panel, and there are more panels")
        given = given[panel]
    if given is None:
        return float(np.quantile(values, SHOWN[name == "vmax"])) if default is None else float(default)
    if isinstance(given, str):
        try:
            share = float(given.removeprefix("p"))
        except ValueError:
            share = -1.0
        if not given.startswith("p") or not 0 <= share <= 100:
            raise ValueError(f"{name} as text must be a percentile such as 'p99', found {given!r}")
        return float(np.percentile(values, share))
    try:
        found = float(given(values) if callable(given) else given)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} must be a number, a percentile such as 'p99', or a function; found {given!r}"
        ) from None
    if not np.isfinite(found):
        raise ValueError(f"{name} must be finite, found {found!r}")
    return found


def read_colorings(
    adata: Any, key: str, mod: str | None, style: Style, *, before: int = 0, numbers: bool = False
) -> tuple[Any, StoredFit, list[Coloring]]:
    """The cells of a fit, the fit, and their colours by each name in ``color``.

    ``before`` is how many panels stand before theirs. ``numbers`` says that the figure has other numbers to colour,
    which ``cmap``, ``vmin`` and ``vmax`` are about too.

    Raises
    ------
    KeyError, ValueError
        If there is no fit, no such column or gene, or an argument is about what none of them is.
    """
    target = get_target(adata, mod)
    genes = [name for name in style.colors if name not in target.obs and _is_gene(target, name, style)]
    obs = [name for name in style.colors if name not in genes]
    _check_names(target, obs)
    cells, fit = open_fit(adata, key, mod, columns=obs)
    found = []
    for k, name in enumerate(style.colors):
        if name in genes:
            values = _expression(target, name, style)[target.obs_names.get_indexer(cells.obs_names)]
            found.append(Coloring.numbers(name, values, style, before + k))
        else:
            found.append(_of_column(cells, target, name, style, before + k))
    _check_used(style, found, genes, numbers=numbers)
    return cells, fit, found


def _of_column(cells: Any, target: Any, name: str, style: Style, panel: int) -> Coloring:
    series = read_column(cells, name)
    if pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series):
        values = series.to_numpy(dtype=float)
        if not np.isfinite(values).all():
            raise ValueError(f"obs[{name!r}] has numbers that are missing or infinite; leave these cells out")
        return Coloring.numbers(name, values, style, panel)
    labels = read_obs_labels(cells, name)
    groups = None
    if style.groups is not None:
        groups = (style.groups,) if isinstance(style.groups, str) else tuple(style.groups)
        gone = [g for g in groups if g not in set(labels)]
        if gone:
            raise ValueError(f"groups {gone} are no labels of obs[{name!r}], which has {sorted(set(labels))}")
    return Coloring(name, labels, label_colors(cells, name, target, style.palette), groups=groups)


def _check_used(style: Style, found: Sequence[Coloring], genes: Sequence[str], *, numbers: bool) -> None:
    """Refuse arguments that are about labels, numbers or genes where ``color`` names none."""
    about = {
        "labels": (("groups", "palette"), any(c.labels is not None for c in found)),
        "numbers": (("cmap", "vmin", "vmax"), numbers or any(c.labels is None for c in found)),
        "a gene": (("use_raw", "layer"), bool(genes)),
    }
    for what, (names, there) in about.items():
        given = [n for n in names if getattr(style, n) is not None]
        if given and not there:
            now = f"color={style.color!r}" if style.color is not None else "there is no color="
            raise ValueError(f"{given[0]}= is about {what}, and {now}; name {what} in color=, or leave it out")
    if style.place == ON_DATA and not any(c.labels is not None for c in found):
        raise ValueError("legend_loc='on data' is for labels of cells; name a column with labels in color=")


def _is_gene(target: Any, name: str, style: Style) -> bool:
    return name in target.var_names or (_raw(target, style) is not None and name in target.raw.var_names)


def _raw(target: Any, style: Style) -> Any:
    """``raw``, where genes are to be read from it."""
    raw = getattr(target, "raw", None)
    return None if style.use_raw is False or style.layer is not None else raw


def _expression(target: Any, gene: str, style: Style) -> NDArray[np.float64]:
    """One gene in all cells (n_obs,)."""
    raw = _raw(target, style)
    if style.use_raw and raw is None:
        raise ValueError("use_raw=True, and adata.raw is None; leave it out to read X")
    if style.layer is not None and style.layer not in layer_names(target):
        raise KeyError(f"layer {style.layer!r} is missing; layers has {layer_names(target)}")
    if raw is not None and gene not in raw.var_names:
        raise KeyError(f"gene {gene!r} is not in raw.var_names; use_raw=False reads it from X")
    source = target if raw is None else raw
    if not hasattr(source, "X"):
        raise ValueError(f"{gene!r} is a gene of one modality; pass mod=, or color by a column of obs")
    index = int(source.var_names.get_indexer([gene])[0])
    matrix = source.X if style.layer is None else target.layers[style.layer]
    if matrix is None:
        raise ValueError(
            f"X is empty, so that {gene!r} cannot be read; pass layer=, which can be {layer_names(target)}"
        )
    return dense(matrix[:, [index]], gene)[:, 0].astype(float)


def _check_names(target: Any, columns: Sequence[str]) -> None:
    """Refuse what is neither in ``obs`` nor a gene."""
    for name in columns:
        if name not in target.obs and not hasattr(target, "mod"):
            known = [str(c) for c in [*target.obs.columns, *target.var_names]]
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; obs has {list(target.obs.columns)}"
            raise KeyError(f"color {name!r} is missing: it is neither a column of obs nor a gene{hint}")
