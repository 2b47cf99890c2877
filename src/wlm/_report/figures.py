"""Figures as data URIs: vectors where they are small, else pixels with a palette."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib.pyplot as plt
from PIL import Image

from wlm._report.blocks import Picture

#: Bytes of an SVG above which pixels are taken, dots per inch of these, and colours of their palette.
MOST_SVG, DPI, PALETTE = 90_000, 150, 256
#: CSS pixels of an inch.
PIXELS = 96

#: Matplotlib's own style, whatever the user has set, and the same bytes every time.
STYLE = {"svg.fonttype": "path", "svg.hashsalt": "wlm", "savefig.facecolor": "white"}


@contextmanager
def drawing() -> Iterator[None]:
    """Figures drawn inside have the report's style, are not shown, and are closed at the end."""
    interactive = plt.isinteractive()
    before = set(plt.get_fignums())
    with plt.rc_context({"figure.max_open_warning": 0}), warnings.catch_warnings():
        plt.style.use(["default", STYLE])
        warnings.simplefilter("ignore", UserWarning)  # of layout: the figure is drawn all the same
        plt.ioff()
        try:
            yield
        finally:
            for number in set(plt.get_fignums()) - before:
                plt.close(number)
    if interactive:  # outside: what is restored above restores that too, but not what the backend does by it
        plt.ion()


def picture(draw: Callable[..., Any], *arguments: Any, alt: str, caption: str, **options: Any) -> Picture:
    """What a plot of :mod:`wlm.pl` draws."""
    with drawing():
        figure = draw(*arguments, show=False, return_fig=True, **options)
        width, height = figure.get_size_inches()
        return Picture(_uri(figure), alt, caption, round(PIXELS * width), round(PIXELS * height))


def _uri(figure: Any) -> str:
    """A figure as a data URI."""
    vectors = io.BytesIO()
    figure.savefig(vectors, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    if vectors.tell() <= MOST_SVG:
        return _encoded("image/svg+xml", vectors.getvalue())
    pixels, small = io.BytesIO(), io.BytesIO()
    figure.savefig(pixels, format="png", dpi=DPI, metadata={"Software": None})
    with Image.open(pixels) as image:
        flat = image.convert("RGB").quantize(PALETTE, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        flat.save(small, format="png", optimize=True)
    return _encoded("image/png", small.getvalue())


def _encoded(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
