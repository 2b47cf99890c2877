"""The same figure of each condition: on shared axes and colours, in one figure."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver

from wlm._store.group import get_conditions
from wlm.pl._style import Style, default_columns, finish, set_title

#: Inches that the name of a condition takes above its panels.
_NAME = 0.3
F = TypeVar("F", bound=Callable[..., Any])


def by_condition(plot: F) -> F:
    """Give a plot of one fit panels for each condition, where its ``key`` stands for fits of several.

    It goes below :func:`wlm.pl._arguments.styled`. The plot passes its ``**style`` to :class:`wlm.pl._style.Style`.
    """

    @functools.wraps(plot)
    def call(adata: Any, *args: Any, **kwargs: Any) -> Any:
        several: Mapping[str, str] = {}
        if kwargs.get("condition") is None and hasattr(adata, "uns"):
            several = get_conditions(adata, kwargs.get("key", "wlm"), kwargs.get("mod"))
        if len(several) < 2:
            for key in several.values():
                kwargs["key"] = key
            return plot(adata, *args, **kwargs)
        draw = {name: functools.partial(plot, adata, *args, key=key) for name, key in several.items()}
        return facets(draw, {k: v for k, v in kwargs.items() if k != "key"})

    return cast("F", call)


def facets(draw: Mapping[str, Callable[..., Any]], arguments: Mapping[str, Any], share: Sequence[str] = ("xy",)) -> Any:
    """Draw each condition by its function, of the same ``arguments``; returns what a plot of several panels does.

    ``share`` are the axes that the first, second, ... panels of all conditions have in common; the last one holds for
    all further panels.
    """
    names = [field for field in Style.__dataclass_fields__ if field in arguments]
    look = Style(**{name: arguments[name] for name in names})
    whole = Facets(len(draw), look)
    shares = whole.given()
    try:
        for k, (name, one) in enumerate(draw.items()):
            own = {n: v for n, v in arguments.items() if n not in ("title", "show", "return_fig", "ax")}
            one(**own, ax=shares[k], show=False, facet=Facet(whole, k, name))
        return whole.finish(list(draw), share)
    except BaseException:
        if look.ax is None and whole.figure is not None:
            plt.close(whole.figure)
        raise


@dataclass
class Facets:
    """The figure of ``n`` conditions: its panels, and what they share."""

    n: int
    look: Style
    figure: Figure | None = None
    outer: Any = None
    across: int = 1
    panels: list[list[Axes]] = field(default_factory=list)
    axes: list[list[Axes]] = field(default_factory=list)
    scales: dict[str, list[Normalize]] = field(default_factory=dict)
    later: list[Callable[[], None]] = field(default_factory=list)
    legends: list[dict[str, Any]] = field(default_factory=list)

    def given(self) -> list[Any]:
        """The axes of somebody else that each condition gets, as many for each."""
        if self.look.ax is None:
            return [None] * self.n
        given = list(np.ravel(np.asarray(self.look.ax, dtype=object)))
        if len(given) % self.n:
            raise ValueError(f"ax must hold as many axes for each of the {self.n} conditions; found {len(given)}")
        size = len(given) // self.n
        return [given[k * size : (k + 1) * size] for k in range(self.n)]

    def block(
        self, k: int, n: int, columns: int, size: tuple[float, float], right: float, extra: float, more: dict[str, Any]
    ) -> list[Axes]:
        """``n`` panels of the ``k``-th condition; the first one decides how conditions are arranged."""
        wide = min(columns, n)
        tall = -(-n // wide)
        if self.figure is None:
            self.across = 1 if n > 1 else min(self.look.ncols or default_columns(self.n), self.n)
            down = -(-self.n // self.across)
            width, height = size[0] * wide * self.across + right, (size[1] * tall + _NAME) * down + extra
            self.figure = plt.figure(
                figsize=self.look.figsize or (width, height), dpi=self.look.dpi, layout="constrained"
            )
            self.outer = self.figure.add_gridspec(down, self.across)
        kwargs = more.get("subplot_kw", {})
        place = self.outer[k // self.across, k % self.across]
        if n == 1:
            return [self.figure.add_subplot(place, **kwargs)]
        grid = place.subgridspec(tall, wide, **{name: v for name, v in more.items() if name.endswith("_ratios")})
        return [self.figure.add_subplot(grid[i // wide, i % wide], **kwargs) for i in range(n)]

    def finish(self, names: Sequence[str], share: Sequence[str]) -> Any:
        """Share colours, draw what waited for them, then limits, arrows, titles and the legend."""
        for scales in self.scales.values():
            low, high = min(s.vmin for s in scales), max(s.vmax for s in scales)  # type: ignore[type-var]
            for scale in scales:
                scale.vmin, scale.vmax = low, high
        for draw in self.later:
            draw()
        same = len({len(axes) for axes in self.axes}) == 1
        for k in range(max(map(len, self.axes)) if same else 1):
            group = [axes[k] for axes in self.axes] if same else [ax for axes in self.axes for ax in axes]
            share_limits(group, share[min(k, len(share) - 1)])
        for name, panels in zip(names, self.panels, strict=True):
            for ax in panels:
                set_title(ax, "\n".join(filter(None, [name, ax.get_title()])))
        panels = [ax for own in self.panels for ax in own]
        if self.legends and self.figure is not None:
            self._explain(self.figure)
        self.look.entitle(panels)
        figure = panels[0].get_figure(root=True)
        axes = [ax for own in self.axes for ax in own]
        return finish(cast("Figure", figure), axes, self.look.show, self.look.return_fig)

    def _explain(self, figure: Figure) -> None:
        """One legend at each place for all conditions, in which each label stands once."""
        for loc in dict.fromkeys(text["loc"] for text in self.legends):
            here = [text for text in self.legends if text["loc"] == loc]
            handles: list[Any] = []
            for text in here:
                place = 0
                for handle in text["handles"]:  # one that others have not comes after the one before it
                    known = [h.get_label() for h in handles]
                    if handle.get_label() in known:
                        place = known.index(handle.get_label()) + 1
                    else:
                        handles.insert(place, handle)
                        place += 1
            figure.legend(**{**here[0], "handles": handles, "ncols": max(text["ncols"] for text in here)})


@dataclass(frozen=True)
class Facet:
    """The place of one condition in a figure of several."""

    whole: Facets
    k: int
    name: str

    def axes(self, n: int, columns: int, size: tuple[float, float], **more: Any) -> tuple[Figure, list[Axes]]:
        """Its figure and panels."""
        panels = self.whole.block(self.k, n, columns, size, **more)
        return cast("Figure", self.whole.figure), panels

    def legend(self, **text: Any) -> None:
        """Keep a legend, which is drawn once for all conditions."""
        self.whole.legends.append(text)

    def finish(self, panels: Sequence[Axes], axes: Any) -> list[Axes]:
        """Note the panels."""
        found = list(axes) if isinstance(axes, (list, tuple, np.ndarray)) else [axes]
        self.whole.panels.append(list(panels))
        self.whole.axes.append(found)
        return found


def share_limits(group: Sequence[Axes], names: str) -> None:
    """Give some axes the same limits along ``names``, as wide as any of them needs, and arrows of one scale."""
    for name in (*names, *("z" for _ in group[:1] if all(hasattr(ax, "zaxis") for ax in group))):
        ends = np.array([getattr(ax, f"get_{name}lim")() for ax in group])
        low, high = ends.min(), ends.max()
        turned = ends[0, 0] > ends[0, 1]
        for ax in group:
            getattr(ax, f"set_{name}lim")((high, low) if turned else (low, high))
    arrows = [one for ax in group for one in ax.collections if isinstance(one, Quiver)]
    for one in arrows:
        one.scale = max(cast("float", other.scale) for other in arrows)
