"""The rollout as a film."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FFMpegWriter, FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from wlm._adata.cells import read_rep
from wlm._adata.mudata import get_target
from wlm._store.fit import check_representation, open_fit
from wlm.pl._basis import OBSERVED, PATH, PREDICTED, Coloring, bare, embedding

#: Frames that a tail is long.
_TAIL = 6


class Film(FuncAnimation):
    """An animation that notebooks show as it is, with buttons."""

    def _repr_html_(self) -> str:
        html = self.to_jshtml()
        plt.close(self._fig)  # type: ignore[attr-defined]  # or the notebook would show its last frame as well
        return html


def animate(
    adata: Any,
    *,
    key: str = "wlm",
    basis: str | None = None,
    color: str | None = None,
    components: tuple[int, int] = (0, 1),
    file: str | os.PathLike[str] | None = None,
    n_frames: int = 80,
    fps: int = 12,
    max_cells: int = 500,
    ax: Axes | None = None,
    mod: str | None = None,
) -> Film:
    """Make a film of the rollout: cells of the first training time on their paths, over the cells observed by then.

    Behind them are all cells, and darker those of the observed time that is nearest to the one shown. The moving cells
    follow the fit freely from the first training time to the last observed one (``uns[K]["rollout"]``): they are not
    corrected on the way, as :func:`wlm.tl.predict` does between observed times.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit.
    key
        Name ``K`` of the fit; of fits by condition, the key of one.
    basis
        Embedding to draw in, for example ``"umap"``; by default the fitted representation. Moving cells are placed in
        other embeddings by their nearest observed cells.
    color
        Column of ``obs`` with labels or numbers: moving cells have the colour of the cell that they started as.
    components
        The two dimensions to draw.
    file
        Where to write the film: a ``.gif``, or an ``.mp4`` where ffmpeg is installed.
    n_frames, fps
        How many pictures, and how many a second.
    max_cells
        Most cells that move, and four times as many that stand still.
    ax
        Axes to draw on.
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
    for name, value, least in (("n_frames", n_frames, 2), ("fps", fps, 1), ("max_cells", max_cells, 1)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, found {value!r}")
    writer = None if file is None else _writer(file, fps)
    cells, fit = open_fit(adata, key, mod, columns=[] if color is None else [color])
    check_representation(cells, fit, read_rep(cells, fit.use_rep, fit.n_dims))
    cell_times = fit.times(cells)
    shown, project, labels = embedding(cells, fit, basis, components)
    stored = fit.uns["rollout"]
    path_times = np.asarray(stored["times"], dtype=float)
    paths = project(np.asarray(stored["positions"])[:, :max_cells])
    frames = np.linspace(path_times[0], path_times[-1], n_frames)
    # Straight between stored points.
    k = np.clip(np.searchsorted(path_times, frames, side="right") - 1, 0, len(path_times) - 2)
    share = ((frames - path_times[k]) / np.diff(path_times)[k])[:, None, None]
    moving = (1 - share) * paths[k] + share * paths[k + 1]

    if ax is None:
        ax = plt.subplots(figsize=(4.6, 4.6), layout="constrained")[1]
    figure: Any = ax.get_figure(root=True)
    some = np.sort(np.random.default_rng(0).permutation(len(shown))[: 4 * max_cells])
    ax.scatter(shown[some, 0], shown[some, 1], s=3, color="#e6e6e6", linewidths=0)
    behind = ax.scatter([], [], s=7, color=OBSERVED, linewidths=0)
    tails = ax.add_collection(LineCollection([], colors=PATH, linewidths=0.4, alpha=0.3))
    own: Any = PREDICTED
    if color is not None:
        coloring = Coloring.of(cells, color, get_target(adata, mod))
        origin = cells.obs_names.astype(str).get_indexer(np.asarray(stored["origin"], dtype=object)[:max_cells])
        own = coloring.rgba(coloring.values[origin])
        coloring.explain(figure, [ax])
    front = ax.scatter(moving[0, :, 0], moving[0, :, 1], s=9, c=own, linewidths=0, zorder=3)
    title = ax.set_title(" ", fontsize="medium")
    everything = np.concatenate([shown[some], moving.reshape(-1, 2)])
    low, high = everything.min(axis=0), everything.max(axis=0)
    margin = 0.04 * (high - low)
    ax.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
    bare(ax, labels)
    handles = [
        Line2D([], [], marker="o", ls="", ms=4, color=c, label=text)
        for c, text in ((OBSERVED, "observed, nearest time"), (PREDICTED, "predicted"))[: 2 if color is None else 1]
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize="small")
    unit = f" {fit.unit}" if fit.unit and fit.unit != fit.time_key else ""
    decimals = max(0, 2 - int(np.floor(np.log10(path_times[-1] - path_times[0]))))

    def draw(i: int) -> list[Any]:
        nearest = fit.observed[np.argmin(np.abs(fit.observed - frames[i]))]
        behind.set_offsets(shown[some][cell_times[some] == nearest])
        tails.set_segments(list(moving[max(0, i - _TAIL) : i + 1].transpose(1, 0, 2)))  # type: ignore[attr-defined]
        front.set_offsets(moving[i])
        title.set_text(f"{fit.time_key} {frames[i]:.{decimals}f}{unit}")
        return [behind, tails, front, title]

    film = Film(figure, draw, frames=n_frames, interval=1000 / fps, blit=False)
    if writer is not None and file is not None:
        film.save(Path(file), writer=writer, dpi=110)
    return film


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
