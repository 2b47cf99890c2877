"""Names on the data: beside the cells that they are of, without covering each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.text import Text
from numpy.typing import NDArray

#: Room around a name in points, rounds of pushing, and what a font shrinks by, at least to so many points.
ROOM, ROUNDS, SHRINK, LEAST = 1.0, 400, 0.9, 4.0


def apart(
    at: NDArray[np.float64], size: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Centres (n, 2) of boxes of ``size`` (n, 2) near ``at`` (n, 2), apart, between ``low`` and ``high`` (2,).

    Boxes that overlap push each other away along the shorter way. None if they do not come apart.
    """
    least, most = low + size / 2, np.maximum(high - size / 2, low + size / 2)
    found = np.clip(at, least, most)
    order = np.sign(np.subtract.outer(np.arange(len(at)), np.arange(len(at))))[..., None]  # to part in from one place
    for k in range(ROUNDS):
        away = found[:, None] - found[None]  # (n, n, 2)
        deep = (size[:, None] + size[None]) / 2 - np.abs(away)
        both = (deep > 1e-6).all(axis=-1) & ~np.eye(len(at), dtype=bool)
        if not both.any():
            return found
        # Names are wide: above or below is the shorter way for most. Where that is blocked, the longer one frees them.
        upright = (deep[..., 1] <= deep[..., 0]) ^ (k % 7 == 6)
        push = np.where(both[..., None], np.where(away == 0, order, np.sign(away)) * (deep / 2 + 1e-3), 0.0)
        push *= np.stack([~upright, upright], axis=-1)
        found = np.clip(found + push.sum(axis=1) / np.maximum(both.sum(axis=1, keepdims=True), 1) ** 0.5, least, most)
    return None


class Names(Artist):
    """Names of places in axes, put apart whenever they are drawn: only then is their size in pixels known.

    A name that had to go farther than its height has a thin line to its place. If there is no room for all, they are
    made smaller.
    """

    def __init__(self, ax: Axes, places: Mapping[str, tuple[float, float]], fontsize: Any) -> None:
        super().__init__()
        self.set_zorder(2.9)  # before the texts, which it moves
        self.set_in_layout(False)
        self.places = np.array(list(places.values()), dtype=float).reshape(-1, 2)
        self.texts: list[Text] = []
        self.lines: list[Line2D] = []
        for name, (x, y) in places.items():
            text = ax.text(x, y, name, ha="center", va="center", fontsize=fontsize, fontweight="bold")
            text.set_path_effects([effects.withStroke(linewidth=2.5, foreground="white")])
            text.set_in_layout(False)
            line = Line2D([], [], lw=0.7, color="0.3", zorder=2.95)
            ax.add_artist(line)
            line.set_in_layout(False)
            self.texts.append(text)
            self.lines.append(line)
        self.sizes = [float(text.get_fontsize()) for text in self.texts]
        ax.add_artist(self)

    def draw(self, renderer: Any) -> None:
        """Move the names; the axes have their final place by now."""
        axes: Any = self.axes
        if not self.texts or axes is None:
            return
        box, at = axes.get_window_extent(renderer), axes.transData.transform(self.places)
        low, high = np.array([box.x0, box.y0]), np.array([box.x1, box.y1])
        room, scale = ROOM * axes.get_figure(root=True).dpi / 72, 1.0
        while True:
            for text, own in zip(self.texts, self.sizes, strict=True):
                text.set_fontsize(max(min(LEAST, own), scale * own))
            extents = [text.get_window_extent(renderer) for text in self.texts]
            size = np.array([[e.width, e.height] for e in extents]) + 2 * room
            found = apart(at, size, low, high)
            if found is not None or scale * max(self.sizes) <= LEAST:
                break
            scale *= SHRINK
        centre = at if found is None else found
        back = axes.transData.inverted()
        for k, (x, y) in enumerate(back.transform(centre)):
            self.texts[k].set_position((x, y))
            moved = np.abs(centre[k] - at[k]) > np.array([size[k, 0] / 2, size[k, 1]])
            ends = (self.places[k], (x, y)) if moved.any() else ()
            self.lines[k].set_data(*(np.array(ends).T if len(ends) else ([], [])))
