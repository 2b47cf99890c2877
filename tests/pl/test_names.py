"""Names on the data do not cover each other."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import wlm
from wlm.pl._names import Names, apart


@pytest.fixture(scope="module")
def _many(_fitted):
    adata = _fitted.copy()
    order = np.argsort(np.argsort(adata.obsm["X_pca"][:, 0]))
    adata.obs["many"] = pd.Categorical([f"a long cell type {k:02d}" for k in order * 24 // adata.n_obs])
    adata.obsm["X_umap"] = np.tanh(adata.obsm["X_pca"][:, :2])
    return adata


def covered(figure):
    """Pairs of names that overlap, and names that leave their axes, as the figure is drawn."""
    figure.canvas.draw()
    bad, named = [], []
    for ax in figure.axes:
        texts = [t for t in ax.texts if t.get_text().startswith("a long cell type")]
        boxes = [t.get_window_extent() for t in texts]
        frame = ax.get_window_extent()
        bad += [(k, j) for k, a in enumerate(boxes) for j, b in enumerate(boxes[:k]) if a.overlaps(b)]
        bad += [k for k, a in enumerate(boxes) if not (frame.x0 - 1 <= a.x0 and a.x1 <= frame.x1 + 1)]
        bad += [k for k, a in enumerate(boxes) if not (frame.y0 - 1 <= a.y0 and a.y1 <= frame.y1 + 1)]
        named.append(len(texts))
    assert max(named) > 10, "panels of one day have the names of that day"
    return bad


@pytest.mark.parametrize("basis", [None, "umap"])
@pytest.mark.parametrize("name", ["velocity", "potential", "rollout"])
def test_twenty_four_names_are_apart(_many, name, basis):
    figure = getattr(wlm.pl, name)(_many, color="many", basis=basis, legend_loc="on data", return_fig=True)
    assert not covered(figure)
    plt.close(figure)


def test_names_are_apart_in_small_axes_of_ones_own_and_after_a_resize(_many):
    figure, ax = plt.subplots(figsize=(3, 3))
    wlm.pl.velocity(_many, color="many", legend_loc="on data", ax=ax)
    assert not covered(figure), "smaller names, if there is no room"
    figure.set_size_inches(7, 4)
    assert not covered(figure)
    assert max(t.get_fontsize() for t in ax.texts) > 5, "they grow again"
    plt.close(figure)


def test_names_with_room_stay_where_their_cells_are():
    figure, ax = plt.subplots()
    ax.set(xlim=(0, 10), ylim=(0, 10))
    names = Names(ax, {"a": (2, 2), "b": (8, 8), "c": (8, 8)}, 8)
    figure.canvas.draw()
    assert np.allclose(names.texts[0].get_position(), (2, 2), atol=0.02)
    assert len(names.lines[0].get_xdata()) == 0
    b, c = (t.get_window_extent() for t in names.texts[1:])
    assert not b.overlaps(c) and abs(b.y0 - c.y0) < 3 * b.height, "no farther than they have to"
    plt.close(figure)


def test_a_name_that_went_far_has_a_line_to_its_cells():
    figure, ax = plt.subplots()
    names = Names(ax, {f"name {k}": (0.5, 0.5) for k in range(9)}, 8)
    figure.canvas.draw()
    drawn = [line for line in names.lines if len(line.get_xdata())]
    assert drawn and all(np.allclose([line.get_xdata()[0], line.get_ydata()[0]], 0.5) for line in drawn)
    plt.close(figure)


def test_boxes_without_room_are_refused():
    at, size = np.zeros((3, 2)), np.ones((3, 2))
    assert apart(at, size, np.zeros(2), np.array([1.0, 2.0])) is None
    found = apart(at, size, np.zeros(2), np.array([1.0, 4.0]))
    assert found is not None and (np.diff(np.sort(found[:, 1])) >= 1 - 1e-6).all()
