"""What figures show is what there is: limits, counts, colours, sizes, and nothing over the cells."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from scanpy.plotting import palettes

import wlm
from wlm._adata.neighbours import linear_map, nearest
from wlm._store.integrity import seal
from wlm.pl._basis import point_size
from wlm.pl._colors import COLORS, PATH, PATHS, path_color


@pytest.fixture(scope="module")
def _many(_fitted):
    """A fit with 24 labels of long names."""
    adata = _fitted.copy()
    order = np.argsort(np.argsort(adata.obsm["X_pca"][:, 0]))
    adata.obs["many"] = pd.Categorical([f"a long cell type {k:02d}" for k in order * 24 // adata.n_obs])
    adata.obs["few"] = pd.Categorical(np.where(order % 2, "one", "two"))
    wlm.tl.terminal_states(adata, label_key="few", states=["one", "two"])
    wlm.tl.fates(adata)
    return adata


def inside(ax, x):
    """Limits that are those of ``x`` (n, 2) with a little room."""
    found = np.array([ax.get_xlim(), ax.get_ylim()]).T
    room = 0.05 * np.ptp(x, axis=0)
    return (
        (found[0] <= x.min(axis=0)).all()
        and (found[0] >= x.min(axis=0) - room).all()
        and ((found[1] >= x.max(axis=0)).all() and (found[1] <= x.max(axis=0) + room).all())
    )


def test_axes_are_as_wide_as_the_observed_cells_and_titles_count_the_others(fitted, monkeypatch):
    x = fitted.obsm["X_pca"][:, :2]

    def far(*args, **kwargs):
        out = wlm.tl.predict(*args, **kwargs)
        z = out.obsm["X_pca"].copy()
        z[:, :2] = x.mean(axis=0)
        z[:7, 1] = 1e4
        out.obsm["X_pca"] = z
        return out

    monkeypatch.setattr("wlm.pl._rollout.predict", far)
    stored = fitted.uns["wlm"]["rollout"]
    positions = np.array(stored["positions"])
    positions[:] = x.mean()
    positions[1, :5, 0] = -1e4  # five paths leave, and come back
    stored["positions"] = positions
    fitted.uns["wlm"] = seal(fitted.uns["wlm"])
    n = positions.shape[1]
    _, middle, paths = wlm.pl.rollout(fitted, times=[2], n_paths=n)
    assert inside(middle, x) and inside(paths, x)
    assert middle.get_title() == "day 2, held out\n7 of 60 predicted beyond the axes"
    assert paths.get_title() == f"paths from day 0\n5 of {n} paths beyond the axes"
    assert "7 of 60" in wlm.pl.rollout(fitted, times=[2], title=["a", "b", "c"])[1].get_title(), "it stays"
    film = wlm.pl.animate(fitted, n_frames=2, max_cells=n)
    film._func(0)
    assert inside(film._fig.axes[0], x)
    film._draw_was_started = True


def test_fields_and_fates_are_as_wide_as_the_cells_too(_many):
    x = _many.obsm["X_pca"][:, :2]
    for ax in (wlm.pl.velocity(_many), wlm.pl.potential(_many), *wlm.pl.fate_probabilities(_many)):
        assert inside(ax, x)


@pytest.mark.parametrize(
    "taken",
    [COLORS, palettes.default_20, palettes.default_28, PATHS[:4], plt.colormaps["Dark2"].colors],
    ids=["ours", "scanpy 20", "scanpy 28", "paths", "Dark2"],
)
def test_paths_have_a_colour_that_no_label_has(taken):
    found = np.array(to_rgb(path_color(taken)))
    assert min(np.linalg.norm(found - to_rgb(c)) for c in taken) > 60 / 255
    assert path_color([]) == PATH == path_color(COLORS)


def test_paths_are_told_from_labels_in_the_figure(_many):
    types = {"one": PATH, "two": "#ff0000"}
    paths = wlm.pl.rollout(_many, color="few", palette=types, times=[2])[-1]
    lines, starts = paths.collections[1:]
    assert np.linalg.norm(lines.get_colors()[0][:3] - np.array(to_rgb(PATH))) > 60 / 255
    own = {tuple(np.round(c[:3], 3)) for c in starts.get_facecolors()}
    assert own == {tuple(np.round(to_rgb(c), 3)) for c in types.values()}


def test_maps_of_the_representation_are_found_and_others_are_not():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 5)), rng.normal(size=(30, 5))
    a = rng.normal(size=(5, 2))
    assert np.allclose(linear_map(x, x @ a + 7)(y), y @ a + 7, atol=1e-4)
    assert linear_map(x, np.tanh(x @ a)) is None and linear_map(x[:8], x[:8] @ a) is None
    shown = np.tanh(x @ a)
    found = nearest(x, shown)(np.stack([x[:3], x[3:6]]) + 1e-6)
    assert np.allclose(found, np.stack([shown[:3], shown[3:6]]), atol=1e-6)


def test_the_more_cells_the_smaller_the_points():
    ax = plt.subplots()[1]
    sizes = [point_size(ax, n) for n in (10, 200, 2000, 20_000, 200_000)]
    assert sizes == sorted(sizes, reverse=True) and sizes[1] > 2 * sizes[3] and 1 <= sizes[-1] < sizes[0] <= 20


@pytest.mark.slow
@pytest.mark.parametrize("n", [200, 200_000])
def test_few_and_many_cells(_many, n):
    rows = np.random.default_rng(0).integers(_many.n_obs, size=n)
    cells = _many[rows].copy()
    cells.obs_names = [f"c{i}" for i in range(n)]
    for plot in (wlm.pl.velocity, wlm.pl.potential, wlm.pl.rollout):
        figure = plot(cells, color="few", max_cells=1000, return_fig=True)
        points = [
            c for ax in figure.axes for c in ax.collections if isinstance(c, plt.matplotlib.collections.PathCollection)
        ]
        assert max(len(c.get_offsets()) for c in points) <= 1000
        covered = sum(len(c.get_offsets()) * c.get_sizes()[0] for c in figure.axes[0].collections if c in points)
        box = figure.axes[0].get_window_extent()
        assert 0.002 < covered / (box.width * box.height * (72 / figure.dpi) ** 2) < 1.5
        plt.close(figure)


OWN = {
    "rollout": (lambda a, **k: wlm.pl.rollout(a, times=[2], color="many", **k), 3),
    "rollout without colour": (lambda a, **k: wlm.pl.rollout(a, times=[2], **k), 3),
    "velocity": (lambda a, **k: wlm.pl.velocity(a, color="many", **k), 1),
    "potential": (lambda a, **k: wlm.pl.potential(a, color="many", **k), 1),
    "fate_probabilities": (lambda a, **k: wlm.pl.fate_probabilities(a, color="many", **k), 3),
    "composition": (lambda a, **k: wlm.pl.composition(a, "many", n_cells=30, **k), 1),
    "genes": (lambda a, **k: wlm.pl.genes(a, "gene003", groupby="many", n_cells=30, **k), 1),
    "genes without groups": (lambda a, **k: wlm.pl.genes(a, "gene003", n_cells=30, **k), 1),
    "training": (lambda a, **k: wlm.pl.training(a, **k), 1),
    "friction": (lambda a, **k: wlm.pl.friction(a, **k), 1),
}


def overlaps(figure):
    """Legends that lie over axes with data, or leave the figure."""
    figure.canvas.draw()
    panels = [ax for ax in figure.axes if ax.get_visible()]
    own = [ax.get_legend() for ax in panels if ax.get_legend() is not None]
    out = []
    for legend in [*figure.legends, *own]:
        box = legend.get_window_extent()
        out += [(legend, ax) for ax in panels if box.padded(-1).overlaps(ax.get_window_extent())]
    return out


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("layout", [None, "constrained"])
def test_nothing_covers_the_cells_in_axes_of_somebody_else_with_many_labels(_many, name, layout):
    """Nor the axes beside them."""
    plot, n = OWN[name]
    figure, grid = plt.subplots(1, n + 1, figsize=(6 * (n + 1), 5), layout=layout)
    grid[-1].plot([0, 1], [0, 1])
    found = plot(_many, ax=grid[0] if n == 1 else list(grid[:n]))
    assert not overlaps(figure)
    assert all(ax.get_window_extent().width > 60 for ax in (found if isinstance(found, list) else [found]))


@pytest.mark.parametrize("name", OWN)
def test_nothing_covers_the_cells_in_new_figures_with_many_labels(_many, name):
    figure = OWN[name][0](_many, return_fig=True)
    assert not overlaps(figure)
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
    panels = [ax for ax in figure.axes if ax.get_visible() and ax.get_label() != "<colorbar>"]
    assert min(ax.get_window_extent().width for ax in panels) > 80, "the legend does not squeeze them"


@pytest.mark.parametrize(
    "loss",
    [
        [0.5, 0.51, 0.49, 0.5],
        [9.0, 3.0, 1.0, 0.4],
        [0.02, -0.01, 0.01, -0.02],
        [1e-5, 1.2e-5, 9e-6, 1e-5],
        [40, 41, 42, 43],
    ],
    ids=str,
)
def test_the_axis_of_the_loss_has_numbers_however_flat_it_is(fitted, loss):
    history = fitted.uns["wlm"]["history"]
    n = len(np.asarray(history["step"]))
    history["loss"] = np.resize(np.asarray(loss, dtype=float), n)
    fitted.uns["wlm"] = seal(fitted.uns["wlm"])
    figure = wlm.pl.training(fitted, return_fig=True)
    figure.canvas.draw()
    ax = figure.axes[0]
    low, high = ax.get_ylim()
    there = [t.get_text() for t in ax.get_yticklabels() if t.get_text() and low <= t.get_position()[1] <= high]
    assert len(set(there)) >= 2
    boxes = [t.get_window_extent() for t in ax.get_yticklabels() if t.get_text() in there]
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[k + 1 :])
