"""The free rollout as an SVG with a slider through time; without a script it shows the paths."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from markupsafe import escape
from numpy.typing import NDArray

from wlm._report.blocks import Film
from wlm._report.subject import Subject
from wlm._store.words import at
from wlm.pl._basis import embedding

#: The SVG's size and margin; frames; moving cells; standing cells of each time; paths drawn.
WIDTH, HEIGHT, MARGIN = 640, 460, 32
N_FRAMES, MOVING, STANDING, PATHS = 41, 250, 300, 40


def film(s: Subject) -> Film:
    """Cells of the first training time on their free rollout, over the observed cells of the nearest time."""
    fit = s.fit
    view = embedding(s.cells, fit, None, (0, 1))
    shown, project, labels = view.points, view.project, view.labels
    stored = fit.uns["rollout"]
    times = np.asarray(stored["times"], dtype=float)
    paths = project(np.asarray(stored["positions"])[:, :MOVING]).astype(float)  # (T, n, 2)
    frames = np.unique([*np.linspace(times[0], times[-1], N_FRAMES), *fit.observed[fit.observed >= times[0]]])
    k = np.clip(np.searchsorted(times, frames, side="right") - 1, 0, len(times) - 2)
    share = ((frames - times[k]) / np.diff(times)[k])[:, None, None]
    moving = (1 - share) * paths[k] + share * paths[k + 1]
    place = _Place(shown[np.isfinite(s.times)])
    rng = np.random.default_rng(0)
    standing = {float(t): rng.permutation(s.at(t))[:STANDING] for t in fit.observed}
    dots = "".join(f'<path class="seen" data-time="{t:g}" d="{place.dots(shown[i])}"/>' for t, i in standing.items())
    lines = "".join(f'<path class="line" d="{place.line(moving[:, j])}"/>' for j in range(min(PATHS, moving.shape[1])))
    xy = [place(frame).round().astype(int).ravel().tolist() for frame in moving]
    nearest = [float(fit.observed[np.argmin(np.abs(fit.observed - t))]) for t in frames]
    svg = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="film-title">'
        f'<title id="film-title">Cells of the first training time moving along {escape(labels[0])} (across) and '
        f"{escape(labels[1])} (up).</title>"
        f'<g class="all">{dots}</g><g class="lines">{lines}</g>'
        f'<path class="moving" d="{place.dots(moving[-1])}"/></svg>'
    )
    return Film(
        svg,
        json.dumps({"xy": xy, "near": [f"{t:g}" for t in nearest]}, separators=(",", ":")),
        [
            f"{at(fit, round(float(t), 6))}{f' {fit.unit}' if fit.unit and fit.unit != fit.time_key else ''}"
            for t in frames
        ],
        f"Cells of {at(fit, float(times[0]))} (blue) let go on the dynamics, without correction on the way, with their "
        f"paths (orange); dark grey: the observed cells of the nearest time, pale grey: all others. {labels[0]} runs "
        f"to the right, {labels[1]} upwards. Cells beyond the frame have left the range of the data.",
    )


class _Place:
    """From coordinates (n, 2) to those of the picture, in which all observed cells fit."""

    def __init__(self, shown: NDArray[Any]):
        low, high = (np.quantile(shown.astype(float), q, axis=0) for q in (0.001, 0.999))
        self.low, self.size = low, np.maximum(high - low, 1e-12)

    def __call__(self, xy: NDArray[Any]) -> NDArray[np.float64]:
        share = (np.asarray(xy, dtype=float) - self.low) / self.size
        return np.stack(
            [
                MARGIN + share[..., 0] * (WIDTH - 2 * MARGIN),
                HEIGHT - MARGIN - share[..., 1] * (HEIGHT - 2 * MARGIN),
            ],
            axis=-1,
        ).clip(-999, 1999)

    def dots(self, xy: NDArray[Any]) -> str:
        """Points as a path of lines without length, which have round ends."""
        return "".join(f"M{x:.0f} {y:.0f}h0" for x, y in self(xy))

    def line(self, xy: NDArray[Any]) -> str:
        """A line through points (T, 2)."""
        return "M" + "L".join(f"{x:.0f} {y:.0f}" for x, y in self(xy))
