"""Legends that cover no data: outside of the axes, or where they were asked to be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes

from wlm.pl._style import AUTO, NONE, ON_DATA, RIGHT, Style

#: Labels in a column of a legend.
LABEL_ROWS = 14


def columns(n: int) -> int:
    """Columns of a legend at the right with ``n`` labels."""
    return max(1, -(-n // LABEL_ROWS))


def room(names: Iterable[str]) -> float:
    """Inches that a legend of these labels takes at the right."""
    known = set(names)
    return columns(len(known)) * (0.6 + 0.075 * max(map(len, known))) if known else 0.0


def legend(
    style: Style,
    axes: Sequence[Axes],
    handles: Sequence[Any],
    *,
    below: int = 0,
    several: bool = False,
    title: str | None = None,
) -> None:
    """A legend of ``handles`` for ``axes``: by default in the right margin, or ``below`` in so many columns.

    ``several`` figures' parts have legends of their own, each beside its last axes. In axes of somebody else it is
    beside these, which get narrower where no layout makes room.
    """
    if style.place == NONE or not handles:
        return
    if style.place == ON_DATA:
        raise ValueError("legend_loc='on data' is for labels of cells, which this figure does not have")
    text: dict[str, Any] = {"handles": list(handles), "title": title, "frameon": False, "fontsize": style.fontsize}
    if style.place not in (AUTO, RIGHT):
        text["loc"] = style.place
        axes[0].legend(**text)
    elif style.ax is None and not several:
        if below and style.place == AUTO:
            outside(style, axes, **text, loc="outside lower center", ncols=below)
        else:
            outside(style, axes, **text, loc="outside right upper", ncols=columns(len(handles)))
    else:
        beside(axes[-1], **text, ncols=columns(len(handles)))


def outside(style: Style, axes: Sequence[Axes], **text: Any) -> None:
    """A legend of the whole figure; of several conditions, one for all of them."""
    if style.facet is not None:
        style.facet.legend(**text)
        return
    figure: Any = axes[0].get_figure(root=True)
    figure.legend(**text)


def beside(ax: Axes, **text: Any) -> None:
    """A legend to the right of ``ax``, which gives its place where no layout of the figure makes room."""
    made = ax.legend(**text, loc="upper left", bbox_to_anchor=(1.02, 1), borderaxespad=0)
    figure: Any = ax.get_figure(root=True)
    if figure.get_layout_engine() is None:
        # Beside it may be other axes, or the end of the figure.
        box = ax.get_position()
        width = made.get_window_extent(figure.canvas.get_renderer()).width / figure.bbox.width
        ax.set_position((box.x0, box.y0, max((box.width - width) / 1.02, 0.2 * box.width), box.height))


def under(ax: Axes, **text: Any) -> None:
    """A legend below ``ax`` and the names on it, likewise."""
    figure: Any = ax.get_figure(root=True)
    renderer = figure.canvas.get_renderer()
    whole: Any = ax.get_tightbbox(renderer)
    below = (ax.get_window_extent(renderer).y0 - whole.y0) / figure.bbox.height
    box = ax.get_position()
    made = ax.legend(**text, loc="upper center", bbox_to_anchor=(0.5, -below / box.height - 0.02), borderaxespad=0)
    if figure.get_layout_engine() is None:
        height = made.get_window_extent(renderer).height / figure.bbox.height
        less = min(height + 0.02 * box.height, 0.8 * box.height)
        ax.set_position((box.x0, box.y0 + less, box.width, box.height - less))
        made.set_bbox_to_anchor((0.5, -below / (box.height - less) - 0.02), ax.transAxes)
