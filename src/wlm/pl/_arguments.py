"""scanpy's arguments for every plot: their names, types and defaults, and what they mean, once."""

from __future__ import annotations

import difflib
import functools
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, TypeVar, cast, get_type_hints

from matplotlib.axes import Axes
from matplotlib.colors import Colormap

#: A limit of a scale of colours: a number, a percentile ("p99") or a function of the values; a list has one a panel.
Bound = float | str | Callable[[Any], float] | Sequence[Any] | None


class Figures(TypedDict, total=False):
    """What every figure takes."""

    title: str | Sequence[str] | None
    frameon: bool | None
    figsize: tuple[float, float] | None
    dpi: float | None
    ax: Axes | Sequence[Axes] | None
    show: bool | None
    return_fig: bool


class Legends(Figures, total=False):
    """What a figure with a legend takes."""

    legend_loc: str | None
    legend_fontsize: float | str | None


class Labels(Legends, total=False):
    """What a figure with a colour for each label takes."""

    palette: str | Sequence[Any] | Mapping[str, Any] | None


class LabelPanels(Labels, total=False):
    """The same, of figures of several panels."""

    ncols: int | None


class OneCloud(Labels, total=False):
    """What a figure of cells in one panel takes."""

    color: str | Sequence[str] | None
    groups: str | Sequence[str] | None
    cmap: str | Colormap | None
    vmin: Bound
    vmax: Bound
    size: float | None
    alpha: float | None
    dimensions: Any
    use_raw: bool | None
    layer: str | None


class Clouds(OneCloud, total=False):
    """What a figure of cells in one panel or several takes."""

    ncols: int | None


#: In the order in which signatures and docstrings have them.
DOCS: dict[str, str] = {
    "color": "Column of ``obs`` or gene to colour the cells by; of a list a panel for each.",
    "groups": "Labels of ``color`` to colour; cells of others are grey.",
    "palette": "Colours of labels: a colormap's name, a list, or a dict; by default ``uns['<color>_colors']``, as "
    "scanpy keeps them, or colours for every kind of colour vision.",
    "cmap": "Colormap for numbers.",
    "vmin": "Number with the first colour, or a percentile such as ``'p1'``, or a function of the values; of a list "
    "one for each panel. By default the 1 % quantile.",
    "vmax": "The same of the last colour; by default the 99 % quantile.",
    "size": "Area of a point in square points; by default by their number.",
    "alpha": "Opacity of the points, from 0 to 1.",
    "dimensions": "The two dimensions of the embedding to draw, counted from 0; of a list of such pairs a panel for "
    "each, as of ``color``. The same as ``components``.",
    "use_raw": "Read a gene in ``color`` from ``raw``; by default if there is one.",
    "layer": "Layer to read a gene in ``color`` from.",
    "ncols": "Panels in a row.",
    "legend_loc": "Where the legend is: ``'auto'``, where it covers nothing; ``'right margin'``; ``'on data'``, of "
    "cells with labels; ``'none'``; or a place inside the axes as matplotlib names it.",
    "legend_fontsize": "Size of its text, in points or as matplotlib names it.",
    "title": "Title, above all panels; or a list with one for each.",
    "frameon": "Whether there is a frame around the axes.",
    "figsize": "Width and height of the figure in inches.",
    "dpi": "Dots per inch of the figure.",
    "ax": "Axes to draw on; of several panels, a list with one for each.",
    "show": "Show the figure; by default in interactive mode only.",
    "return_fig": "Return the figure.",
}

#: What an argument that a plot does not have would be about.
_LACKS = {
    "color": "is not coloured by a column or a gene",
    "groups": "has no cells to leave grey",
    "palette": "has no colour of its own for each label",
    "cmap": "has no colormap to choose",
    "vmin": "has no colormap to choose",
    "vmax": "has no colormap to choose",
    "size": "has no points that show cells in an embedding",
    "alpha": "has no points that show cells in an embedding",
    "dimensions": "draws no embedding",
    "use_raw": "reads no gene from raw",
    "layer": "reads no gene",
    "ncols": "has no panels to arrange",
    "legend_loc": "has no legend to move",
    "legend_fontsize": "has no legend",
    "show": "is a film: show it in a notebook, or write it with file=",
    "return_fig": "returns a film, whose figure is film._fig",
}

#: Defaults that are not None.
_DEFAULTS = {"legend_loc": "auto", "return_fig": False}

F = TypeVar("F", bound=Callable[..., Any])


def styled(block: Any, *, without: Sequence[str] = (), **docs: str) -> Callable[[F], F]:
    """Give a plot the shared arguments of ``block``, which arrive as its ``**style``.

    Its signature and docstring then name them; others are refused in words. ``without`` leaves some out, and ``docs``
    says what one means in this plot where that is not the usual.
    """
    names = [name for name in DOCS if name in get_type_hints(block) and name not in without]

    def decorate(plot: F) -> F:
        signature = inspect.signature(plot)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        hints = get_type_hints(block)
        shared = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_DEFAULTS.get(name), annotation=hints[name])
            for name in names
        ]
        known = {p.name for p in [*own, *shared]}

        @functools.wraps(plot)
        def call(*args: Any, **kwargs: Any) -> Any:
            _refuse(plot.__name__, kwargs, known)
            return plot(*args, **kwargs)

        call.__signature__ = signature.replace(parameters=[*own, *shared])  # type: ignore[attr-defined]
        call.__doc__ = _document(plot.__doc__ or "", {name: docs.get(name, DOCS[name]) for name in names})
        return cast("F", call)

    return decorate


def _refuse(plot: str, kwargs: Mapping[str, Any], known: set[str]) -> None:
    """Say what is meant in place of an argument that the plot does not have."""
    for name in kwargs:
        if name in known:
            continue
        if name == "save":
            how = (
                "film = wlm.pl.animate(adata, file='film.gif')"
                if plot == "animate"
                else f"ax = wlm.pl.{plot}(..., show=False); ax.figure.savefig('figure.png') (of a list: ax[0].figure)"
            )
            raise TypeError(f"pl.{plot} writes no files; in place of save={kwargs[name]!r} run {how}")
        if name in _LACKS:
            raise TypeError(f"pl.{plot} {_LACKS[name]}, so {name}= means nothing here; leave it out")
        close = difflib.get_close_matches(name, sorted(known), n=1)
        hint = f"; did you mean {close[0]}=?" if close else f"; it has {', '.join(sorted(known))}"
        raise TypeError(f"pl.{plot} has no argument {name!r}{hint}")


def _document(doc: str, texts: Mapping[str, str]) -> str:
    """The docstring with the shared parameters after its own."""
    doc = inspect.cleandoc(doc)
    head, returns, tail = doc.partition("\nReturns\n")
    entries = [f"{name}\n" + textwrap.indent(textwrap.fill(text, 112), "    ") for name, text in texts.items()]
    return head.rstrip() + "\n" + "\n".join(entries) + "\n" + returns + tail
