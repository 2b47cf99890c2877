"""What scanpy's arguments say of one figure: checked, and carried out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, cast

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from wlm.pl._arguments import Bound

#: Where a legend can be: where it covers nothing, as scanpy has it, or inside the axes.
AUTO, RIGHT, ON_DATA, NONE = "auto", "right margin", "on data", "none"
PLACES = (AUTO, RIGHT, ON_DATA, NONE, *Legend.codes)


@dataclass(frozen=True, kw_only=True)
class Style:
    """The shared arguments of a plot, see :data:`wlm.pl._arguments.DOCS`; wrong ones are refused as they come in."""

    color: str | Sequence[str] | None = None
    groups: str | Sequence[str] | None = None
    palette: str | Sequence[Any] | Mapping[str, Any] | None = None
    cmap: str | Colormap | None = None
    vmin: Bound = None
    vmax: Bound = None
    size: float | None = None
    alpha: float | None = None
    dimensions: Any = None
    use_raw: bool | None = None
    layer: str | None = None
    ncols: int | None = None
    legend_loc: str | None = AUTO
    legend_fontsize: float | str | None = None
    title: str | Sequence[str] | None = None
    frameon: bool | None = None
    figsize: tuple[float, float] | None = None
    dpi: float | None = None
    ax: Axes | Sequence[Axes] | None = None
    show: bool | None = None
    return_fig: bool = False
    #: Where the figure is that of one condition among several, its place there (:class:`wlm.pl._facets.Facet`).
    facet: Any = None

    def __post_init__(self) -> None:
        for name in ("use_raw", "frameon", "show", "return_fig"):
            _check(name, getattr(self, name), "True or False", lambda v: isinstance(v, (bool, np.bool_)))
        for name in ("size", "dpi"):
            _check(name, getattr(self, name), "a positive number", lambda v: _number(v) and v > 0)
        _check("alpha", self.alpha, "a number from 0 to 1", lambda v: _number(v) and 0 <= v <= 1)
        _check("ncols", self.ncols, "a positive integer", lambda v: _whole(v) and v > 0)
        _check("layer", self.layer, "the name of a layer", lambda v: isinstance(v, str))
        _check("figsize", self.figsize, "a width and a height in inches", _is_size)
        for name in ("color", "groups", "title"):
            _check(name, getattr(self, name), "text, or a list of texts", _is_text)
        _check("cmap", self.cmap, "a colormap or its name", lambda v: isinstance(v, Colormap) or v in colormaps)
        if self.legend_loc is not None and self.legend_loc not in PLACES:
            raise ValueError(f"legend_loc must be one of {', '.join(map(repr, PLACES))}; found {self.legend_loc!r}")
        if self.use_raw and self.layer is not None:
            raise ValueError(f"a gene is read from raw or from a layer: use_raw=True and layer={self.layer!r} are both")
        if self.ax is not None:
            for name in ("figsize", "dpi", "ncols"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name}= is of a new figure, and ax= has its own; set it where you make that")
            for one in np.ravel(np.asarray(self.ax, dtype=object)):
                if not isinstance(one, Axes):
                    raise TypeError(f"ax must be axes of matplotlib or a list of them, found {type(one).__name__}")

    @property
    def place(self) -> str:
        """Where the legend is."""
        return NONE if self.legend_loc is None else self.legend_loc

    @property
    def colors(self) -> list[str]:
        """The columns and genes in ``color``."""
        return [] if self.color is None else [self.color] if isinstance(self.color, str) else list(self.color)

    @property
    def fontsize(self) -> float | str:
        return "small" if self.legend_fontsize is None else self.legend_fontsize

    def refuse(
        self, names: Sequence[str], why: str = "is about points and panels, which this projection has not"
    ) -> None:
        """Refuse arguments that mean nothing to a kind of figure."""
        for name in names:
            if getattr(self, name) is not None:
                raise ValueError(f"{name}= {why}; leave it out")

    def pairs(self, components: tuple[int, int]) -> list[tuple[int, int]]:
        """The pairs of dimensions to draw, by ``dimensions`` or ``components``, which has (0, 1) by default."""
        if self.dimensions is None:
            return [_pair(components, "components")]
        if tuple(components) != (0, 1):
            raise ValueError("components and dimensions are the same; give one of them")
        given = list(self.dimensions) if isinstance(self.dimensions, (Sequence, np.ndarray)) else [None]
        pairs = [given] if given and not isinstance(given[0], (Sequence, np.ndarray)) else given
        return [_pair(pair, "dimensions") for pair in pairs]

    def axes(
        self,
        n: int,
        size: tuple[float, float],
        *,
        ncols: int | None = None,
        extra: float = 0.0,
        right: float = 0.0,
        **more: Any,
    ) -> tuple[Figure, list[Axes]]:
        """The figure and its ``n`` panels of ``size`` inches each, or ``ax``.

        The figure is ``extra`` inches taller, and ``right`` inches wider, than its panels.
        """
        if self.ax is not None:
            given = list(np.ravel(np.asarray(self.ax, dtype=object)))
            if len(given) != n:
                raise ValueError(f"ax must hold {n} axes, one for each panel; found {len(given)}")
            return given[0].get_figure(root=True), given
        if self.facet is not None:
            columns = self.ncols or ncols or (n if n <= MOST_ACROSS else default_columns(n))
            return cast(
                "tuple[Figure, list[Axes]]",
                self.facet.axes(n, columns, size, right=right, extra=extra, more=more),
            )
        wide = min(self.ncols or ncols or default_columns(n), n)
        tall = -(-n // wide)
        figsize = self.figsize or (size[0] * wide + right, size[1] * tall + extra)
        figure, grid = plt.subplots(
            tall, wide, figsize=figsize, dpi=self.dpi, squeeze=False, layout="constrained", **more
        )
        for rest in grid.ravel()[n:]:
            rest.set_visible(False)
        return figure, list(grid.ravel()[:n])

    def one(self, size: tuple[float, float] = (4.5, 3.5), **more: Any) -> Axes:
        """The axes of a figure of one panel."""
        return self.axes(1, size, **more)[1][0]

    def finish(self, panels: Sequence[Axes], axes: Any) -> Any:
        """Title and frame of the ``panels``; the figure, or ``axes``, or None once it was shown."""
        if self.facet is not None:
            self.later(lambda: self.frame(panels))
            return self.facet.finish(panels, axes)
        self.entitle(panels)
        self.frame(panels)
        return finish(cast("Figure", panels[0].get_figure(root=True)), axes, self.show, self.return_fig)

    def later(self, draw: Callable[[], None]) -> None:
        """Draw now, or once all conditions are known where they share colours."""
        if self.facet is None:
            draw()
        else:
            self.facet.whole.later.append(draw)

    def common(self, name: str, low: float, high: float) -> Normalize:
        """A scale from ``low`` to ``high``, which gets as wide as that of the same ``name`` of any other condition."""
        scale = Normalize(low, high)
        if self.facet is not None:
            self.facet.whole.scales.setdefault(name, []).append(scale)
        return scale

    def frame(self, panels: Sequence[Axes]) -> None:
        """Frames around the panels, or none."""
        for ax in panels:
            self._frame(ax)

    def entitle(self, panels: Sequence[Axes]) -> None:
        """Titles in place of those that are there, whose further lines, which say what is missing, stay."""
        figure: Any = panels[0].get_figure(root=True)
        if self.title is None:
            return
        if isinstance(self.title, str) and len(panels) > 1:
            if self.ax is not None:
                raise ValueError(f"title must be a list with one for each of the {len(panels)} axes")
            figure.suptitle(self.title)
            return
        titles = [self.title] if isinstance(self.title, str) else list(self.title)
        if len(titles) != len(panels):
            raise ValueError(f"title must have one for each of the {len(panels)} panels, found {len(titles)}")
        for ax, title in zip(panels, titles, strict=True):
            kept = [line for line in ax.get_title().split("\n") if line.endswith(BEYOND)]
            set_title(ax, "\n".join([title, *kept]))

    def _frame(self, ax: Axes) -> None:
        """A frame around the axes, or none; of embeddings, names of the axes go with it."""
        if self.frameon is None:
            return
        if hasattr(ax, "zaxis") or not (len(ax.get_xticks()) or len(ax.get_yticks())):
            ax.set_axis_on() if self.frameon else ax.set_axis_off()
        if self.frameon and not ax.axison:
            ax.set_axis_on()
            ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(self.frameon)


def set_title(ax: Axes, title: str) -> None:
    """A title above the axes, and above what is written over them."""
    figure: Any = ax.get_figure(root=True)
    top = ax.get_window_extent().y1
    over = [text.get_window_extent(figure.canvas.get_renderer()).y1 - top for text in ax.texts if text.get_text()]
    more = {"pad": 72 * max(over) / figure.dpi + 4} if max(over, default=0.0) > 0 and ax.name != "3d" else {}
    ax.set_title(title, **more)


def finish(figure: Figure, axes: Any, show: bool | None, return_fig: bool) -> Any:  # noqa: FBT001
    """Return the figure, or show it and return nothing, or return the axes, as scanpy's plots do."""
    if return_fig:
        return figure
    if plt.isinteractive() if show is None else show:
        plt.show()
        return None
    return axes


#: Panels of one condition in a row at most, so that the same ones stand below each other.
MOST_ACROSS = 6
#: How a line of a title ends that counts what lies outside of the axes.
BEYOND = "beyond the axes"


def broadcast(colors: Sequence[Any], pairs: Sequence[tuple[int, int]]) -> list[tuple[Any, tuple[int, int]]]:
    """What each panel shows: as many colours as pairs of dimensions, or one of either."""
    n = max(len(colors), len(pairs))
    if {len(colors), len(pairs)} - {1, n}:
        raise ValueError(f"color names {len(colors)} and dimensions {len(pairs)}; give as many, or one of either")
    return list(zip(list(colors) * (n // len(colors)), list(pairs) * (n // len(pairs)), strict=True))


def default_columns(n: int) -> int:
    """Panels in a row: few empty places in the last one."""
    return 3 if n in (3, 5, 6, 9) else min(n, 4)


def _check(name: str, value: Any, wanted: str, holds: Any) -> None:
    if value is not None and not holds(value):
        raise ValueError(f"{name} must be {wanted}, found {value!r}")


def _number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, (bool, np.bool_)) and bool(np.isfinite(float(value)))


def _whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _is_size(value: Any) -> bool:
    return len(np.shape(value)) == 1 and len(value) == 2 and all(_number(v) and v > 0 for v in value)


def _is_text(value: Any) -> bool:
    if isinstance(value, str):
        return True
    return isinstance(value, (Sequence, np.ndarray)) and len(value) > 0 and all(isinstance(v, str) for v in value)


def _pair(value: Any, name: str) -> tuple[int, int]:
    if isinstance(value, (Sequence, np.ndarray)) and len(value) == 2 and all(_whole(v) for v in value):
        return int(value[0]), int(value[1])
    raise ValueError(f"{name} must be two dimensions, counted from 0, such as (0, 1); found {value!r}")
