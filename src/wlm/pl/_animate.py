"""The rollout as a film."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FFMpegWriter, FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from wlm._adata.cells import read_rep
from wlm._adata.checks import check_integer
from wlm._store.fit import StoredFit, check_representation
from wlm._store.group import fit_key
from wlm.pl._arguments import OneCloud, styled
from wlm.pl._basis import Embedding, dots, embedding, point_size
from wlm.pl._coloring import Coloring, read_colorings
from wlm.pl._colors import BEHIND, OBSERVED, PREDICTED, path_color
from wlm.pl._legend import legend, under
from wlm.pl._style import BEYOND, NONE, Style

#: Frames that a tail is long.
_TAIL = 6


class Film(FuncAnimation):
    """An animation that notebooks show as it is, with buttons."""

    def _repr_html_(self) -> str:
        html = self.to_jshtml()
        plt.close(self._fig)  # type: ignore[attr-defined]  # or the notebook would show its last frame as well
        return html


@styled(
    OneCloud,
    without=("show", "return_fig"),
    color="Column of ``obs`` or gene to colour the cells by: moving ones have the colour of the cell that they started "
    "as.",
    size="Area of a moving cell in square points, to which that of others is in proportion.",
    title="Title, before the time.",
)
def animate(
    adata: Any,
    *,
    key: str = "wlm",
    condition: str | None = None,
    basis: str | None = None,
    components: tuple[int, int] = (0, 1),
    file: str | os.PathLike[str] | None = None,
    n_frames: int = 80,
    fps: int = 12,
    max_cells: int = 500,
    mod: str | None = None,
    **style: Unpack[OneCloud],
) -> Film:
    """Make a film of the rollout: cells of the first training time on their paths, over the cells observed by then.

    Behind them are all cells, and darker those of the observed time that is nearest to the one shown. The moving cells
    follow the fit freely from the first training time to the last observed one (``uns[K]["rollout"]``): they are not
    corrected on the way, as :func:`wlm.tl.predict` does between observed times. The axes are as wide as the observed
    cells; the title says how many moving ones are beyond.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit.
    key
        Name ``K`` of the fit; of fits by condition, the key of one.
    condition
        Of fits by condition, which one; the same as its key.
    basis
        Embedding to draw in, for example ``"umap"``; by default the fitted representation. In one that
        is no linear map of it, a moving cell is drawn at the observed cell that is nearest to it.
    components
        The two dimensions to draw.
    file
        Where to write the film: a ``.gif``, or an ``.mp4`` where ffmpeg is installed.
    n_frames, fps
        How many pictures, and how many a second.
    max_cells
        Most cells that move, and four times as many that stand still.
    mod
        Modality of a MuData that was fitted; without it, the fit of its joint representation.

    Returns
    -------
    A :class:`matplotlib.animation.FuncAnimation`, which notebooks show with buttons to play it; ``to_jshtml()`` gives
    the same as HTML, and ``save`` writes it. Keep it in a variable as long as it is shown.

    Raises
    ------
    KeyError
        If there is no fit or no such embedding.
    ValueError
        If ``file`` has another ending, or ffmpeg is needed and not there.
    """
    key = fit_key(adata, key, condition, mod)
    for name, value, least in (("n_frames", n_frames, 2), ("fps", fps, 1), ("max_cells", max_cells, 1)):
        check_integer(name, value, least)
    look = Style(**style)
    pairs = look.pairs(components)
    if len(look.colors) > 1 or len(pairs) > 1 or not isinstance(look.title, (str, type(None))):
        raise ValueError("a film has one panel: give one color, one pair of dimensions and one title")
    writer = None if file is None else _writer(file, fps)
    cells, fit, colorings = read_colorings(adata, key, mod, look)
    check_representation(cells, fit, read_rep(cells, fit.use_rep, fit.n_dims))
    plane, stored = embedding(cells, fit, basis, pairs[0]), fit.uns["rollout"]
    path_times = np.asarray(stored["times"], dtype=float)
    frames = np.linspace(path_times[0], path_times[-1], n_frames)
    moving = plane.project(_between(path_times, np.asarray(stored["positions"])[:, :max_cells], frames))
    coloring = colorings[0] if colorings else None
    origin = np.asarray(stored["origin"], dtype=object)[:max_cells].astype(str)
    scene = _Scene.on(look.one((4.6, 4.6)), cells, fit, plane, coloring, origin, look, 4 * max_cells)
    figure: Any = scene.ax.get_figure(root=True)
    unit = f" {fit.unit}" if fit.unit and fit.unit != fit.time_key else ""
    decimals = max(0, 2 - int(np.floor(np.log10(path_times[-1] - path_times[0]))))
    before = f"{look.title}, " if look.title else ""

    def draw(i: int) -> list[Any]:
        missed = plane.beyond(moving[i])
        beyond = f", {missed} of {len(origin)} {BEYOND}" if missed else ""
        scene.title.set_text(f"{before}{fit.time_key} {frames[i]:.{decimals}f}{unit}{beyond}")
        return scene.show(moving, i, fit.observed[np.argmin(np.abs(fit.observed - frames[i]))])

    draw(0)
    film = Film(figure, draw, frames=n_frames, interval=1000 / fps, blit=False)
    if writer is not None and file is not None:
        film.save(Path(file), writer=writer, dpi=look.dpi or 110)
    return film


def _between(times: NDArray[np.float64], positions: NDArray[np.float32], frames: NDArray[np.float64]) -> Any:
    """Positions (n_frames, n, d), straight between those (T, n, d) that are stored."""
    k = np.clip(np.searchsorted(times, frames, side="right") - 1, 0, len(times) - 2)
    share = ((frames - times[k]) / np.diff(times)[k])[:, None, None]
    return ((1 - share) * positions[k] + share * positions[k + 1]).astype(np.float32)


@dataclass(frozen=True)
class _Scene:
    """What stands still, and what moves: the observed cells of a time, the cells of the film and their tails."""

    ax: Axes
    title: Any
    points: NDArray[np.float32]
    times: NDArray[np.float64]
    colors: NDArray[np.float64]
    behind: Any
    tails: Any
    front: Any

    @classmethod
    def on(
        cls,
        ax: Axes,
        cells: Any,
        fit: StoredFit,
        plane: Embedding,
        coloring: Coloring | None,
        origin: NDArray[Any],
        look: Style,
        most: int,
    ) -> _Scene:
        """The first picture; of the observed cells at most so many."""
        chosen = np.sort(np.random.default_rng(0).permutation(len(plane.points))[:most])
        points = plane.points[chosen]
        size = look.size or point_size(ax, 3 * len(origin))
        dots(ax, points, BEHIND, 0.35 * size)
        own: Any = PREDICTED
        colors = np.tile(to_rgba(OBSERVED), (len(chosen), 1))
        taken: list[Any] = []
        pale = 1.0
        if coloring is not None:
            own = coloring.rgba(coloring.values[cells.obs_names.astype(str).get_indexer(origin)])
            colors, taken, pale = coloring.rgba(coloring.values[chosen]), list((coloring.labels or {}).values()), 0.3
        behind = ax.scatter([], [], s=(0.8 if coloring is None else 2) * size, linewidths=0, alpha=pale)
        tails = ax.add_collection(LineCollection([], colors=path_color(taken), linewidths=0.4, alpha=0.3))
        front = ax.scatter(
            np.zeros(len(origin)), np.zeros(len(origin)), s=size, c=own, alpha=look.alpha, linewidths=0, zorder=3
        )
        plane.frame(ax)
        title = ax.set_title(" ", fontsize="medium")
        if coloring is not None:
            coloring.explain(look, [ax], [(points, coloring.values[chosen])])
        scene = cls(ax, title, points, fit.times(cells)[chosen], colors, behind, tails, front)
        scene._explain(look, coloring)
        look.frame([ax])
        return scene

    def _explain(self, look: Style, coloring: Coloring | None) -> None:
        """What the points are."""
        kinds = ((OBSERVED, "observed, nearest time", 5), (PREDICTED, "predicted", 4))
        if coloring is not None:
            kinds = (("0.75", "large, pale: observed, nearest time", 7), ("0.3", "small: predicted", 3))
        handles = [Line2D([], [], marker="o", ls="", ms=ms, mew=0, color=c, label=text) for c, text, ms in kinds]
        if look.place == NONE:
            return
        if coloring is None:
            legend(look, [self.ax], handles, below=2)
        elif look.ax is None:
            figure: Any = self.ax.get_figure(root=True)
            figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=look.fontsize)
        else:
            under(self.ax, handles=handles, frameon=False, fontsize=look.fontsize)

    def show(self, moving: NDArray[np.float32], i: int, t: float) -> list[Any]:
        """The picture ``i``, over the observed cells of the time ``t``."""
        here = self.times == t
        self.behind.set_offsets(self.points[here])
        self.behind.set_facecolor(self.colors[here])
        self.tails.set_segments(list(moving[max(0, i - _TAIL) : i + 1].transpose(1, 0, 2)))
        self.front.set_offsets(moving[i])
        return [self.behind, self.tails, self.front, self.title]


def _writer(file: str | os.PathLike[str], fps: int) -> Any:
    """What writes a film of this kind; refused before any work if there is none."""
    kind = Path(file).suffix.lower()
    if kind == ".gif":
        return PillowWriter(fps=fps)
    if kind != ".mp4":
        raise ValueError(f"file must end in .gif or .mp4, found {str(file)!r}")
    if not FFMpegWriter.isAvailable():
        raise ValueError("an .mp4 needs ffmpeg, which is not installed; install it, or write a .gif")
    return FFMpegWriter(fps=fps)
