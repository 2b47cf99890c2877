"""Plots of populations through time: cell types, fates, films, colours."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgba

import wlm


@pytest.fixture
def typed(fitted):
    """Cells with three types by their place, so that neighbours of a cell have its type, and colours."""
    x = fitted.obsm["X_pca"][:, 0]
    fitted.obs["type"] = pd.Categorical(np.array(["a", "b", "c"])[np.digitize(x, np.quantile(x, [0.3, 0.6]))])
    fitted.uns["type_colors"] = np.array(["#111111", "#222222", "#333333"], dtype=object)
    return fitted


def heights(ax):
    """Heights of the bars of each type by their places."""
    found = {}
    for bar in ax.patches:
        found.setdefault(round(bar.get_x() + bar.get_width() / 2, 3), []).append(bar.get_height())
    return found


def test_bars_are_the_observed_shares_and_areas_the_predicted_ones(typed):
    ax = wlm.pl.composition(typed, "type", times=[5])
    bars = heights(ax)
    assert sorted(bars) == [0, 1, 2, 3, 4]
    for t, found in bars.items():
        shares = typed.obs["type"][typed.obs["day"] == t].value_counts(normalize=True).sort_index()
        assert np.allclose(found, shares)
    inside, beyond = ax.collections[:3], ax.collections[3:]
    assert len(beyond) == 3 and all(c.get_alpha() < inside[0].get_alpha() for c in beyond)
    # The areas of all types together fill the height at every time.
    top = inside[-1].get_paths()[0].vertices
    assert top[:, 1].max() == pytest.approx(1)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["c", "b", "a"]
    assert to_hex(ax.patches[0].get_facecolor()) == "#111111"
    assert ax.get_xlabel() == "day" and ax.get_ylabel() == "share of cells" and ax.get_xlim()[1] > 5
    held = [p for p in ax.patches if round(p.get_x() + p.get_width() / 2, 3) == 2]
    assert held[0].get_width() < ax.patches[0].get_width(), "held-out times have narrow bars"


def test_predicted_shares_are_those_of_the_nearest_cells(typed):
    ax = wlm.pl.composition(typed, "type", n_cells=None)
    predicted = wlm.tl.predict(typed, 2)
    seen = typed[typed.obs["day"] != 2]
    from sklearn.neighbors import KNeighborsClassifier

    labels = KNeighborsClassifier(15, weights="distance").fit(seen.obsm["X_pca"], seen.obs["type"].astype(str))
    share = np.mean(labels.predict(predicted.obsm["X_pca"]) == "a")
    vertices = ax.collections[0].get_paths()[0].vertices
    at = vertices[np.isclose(vertices[:, 0], 2), 1]
    assert at.max() == pytest.approx(share, abs=1e-6)


def test_weights_count_in_compositions(cells, quick):
    cells.obs["type"] = np.where(cells.obsm["X_pca"][:, 0] > 0, "right", "left")
    cells.obs["weight"] = np.where(cells.obs["type"] == "right", 3.0, 1.0)
    wlm.tl.fit(cells, "day", weight_key="weight", holdout=2, **quick)
    bars = heights(wlm.pl.composition(cells, "type"))
    there = cells.obs[cells.obs["day"] == 1]
    expected = there.groupby("type")["weight"].sum() / there["weight"].sum()
    assert np.allclose(bars[1], expected.sort_index())


def test_fates_conserve_cells(typed):
    ax = wlm.pl.fates(typed, "type")
    texts = [t.get_text() for t in ax.texts]
    assert "day 0\nobserved" in texts and "day 4\npredicted" in texts
    start = typed.obs["type"][typed.obs["day"] == 0].value_counts(normalize=True)
    for name, share in start.items():
        if share > 0.02:
            assert f"{name} {share:.0%}" in texts
    bars = [p for p in ax.patches if hasattr(p, "get_width")]
    bands = [p for p in ax.patches if not hasattr(p, "get_width")]
    left, right = ([p.get_height() for p in bars if round(p.get_x() + p.get_width() / 2) == k] for k in (0, 1))
    thick = [abs(p.get_path().vertices[0, 1] - p.get_path().vertices[7, 1]) for p in bands]
    assert sum(left) == pytest.approx(sum(right)) == pytest.approx(sum(thick))
    assert all(p.get_y() >= -1e-9 for p in bars)


def test_fates_are_those_of_the_predicted_cells(typed):
    ax = wlm.pl.fates(typed, "type", times=[1, 3, 5.5])
    assert len([t for t in ax.texts if t.get_text().startswith("day")]) == 3
    later = wlm.tl.predict(typed, 5.5, from_time=1)
    seen = typed[typed.obs["day"] != 2]
    from sklearn.neighbors import KNeighborsClassifier

    labels = KNeighborsClassifier(15, weights="distance").fit(seen.obsm["X_pca"], seen.obs["type"].astype(str))
    shares = pd.Series(labels.predict(later.obsm["X_pca"])).value_counts(normalize=True)
    texts = [t.get_text() for t in ax.texts if t.get_position()[0] > 2]
    assert sorted(texts) == sorted(f"{name} {share:.0%}" for name, share in shares.items() if share >= 0.015)


def test_of_many_cells_a_sample_is_drawn(typed, monkeypatch):
    whole = [t.get_text() for t in wlm.pl.fates(typed, "type").texts]
    monkeypatch.setattr("wlm.pl._fates.CHUNK", 40)
    ax = wlm.pl.fates(typed, "type")
    some = [t.get_text() for t in ax.texts]
    assert len(some) >= len(whole) - 1 and some != whole
    bars = [p for p in ax.patches if hasattr(p, "get_width") and round(p.get_x() + p.get_width() / 2) == 0]
    start = typed.obs["type"][typed.obs["day"] == 0].value_counts(normalize=True)
    found = sorted(p.get_height() for p in bars)
    assert np.allclose(np.array(found) / sum(found), np.sort(start[start > 0]), atol=0.1)


@pytest.mark.parametrize("plot", [wlm.pl.composition, wlm.pl.fates])
@pytest.mark.parametrize(
    ("column", "error", "message"),
    [
        ("absent", KeyError, "is missing"),
        ("number", ValueError, "holds numbers.*astype"),
        ("gaps", ValueError, "missing labels"),
    ],
)
def test_columns_without_labels_are_refused(typed, plot, column, error, message):
    typed.obs["number"] = 1.0
    typed.obs["gaps"] = typed.obs["type"].where(typed.obs["day"] > 0)
    with pytest.raises(error, match=message):
        plot(typed, column)
    assert not plt.get_fignums()


@pytest.mark.parametrize(
    ("times", "message"), [(2, "at least one later"), ([0.5, 3], "was not observed"), ([9, 1, 0, -1], "not observed")]
)
def test_fates_need_an_observed_start_and_a_later_time(typed, times, message):
    with pytest.raises(ValueError, match=message):
        wlm.pl.fates(typed, "type", times=times)


def test_many_labels_get_colours_of_their_own_and_a_legend_in_columns(fitted):
    fitted.obs["many"] = [f"type {k % 30:02d}" for k in range(fitted.n_obs)]
    figure = wlm.pl.composition(fitted, "many", return_fig=True)
    legend = figure.axes[0].get_legend()
    colors = {to_hex(h.get_facecolor()) for h in legend.legend_handles}
    assert len(colors) == 30
    figure.canvas.draw()
    box = legend.get_window_extent()
    assert not box.overlaps(figure.axes[0].get_window_extent()) and box.x1 <= figure.bbox.x1 + 1


def test_rollout_is_coloured_by_labels_and_numbers(typed):
    figure = wlm.pl.rollout(typed, color="type", times=[2], return_fig=True)
    start = figure.axes[0].collections[1]
    own = typed.obs["type"][typed.obs["day"] == 0]
    expected = [to_rgba(dict(zip("abc", typed.uns["type_colors"], strict=True))[name]) for name in own]
    assert np.allclose(start.get_facecolors(), expected)
    assert {t.get_text() for t in figure.legends[0].get_texts()} == {"a", "b", "c"}
    assert {to_hex(c) for c in figure.axes[1].collections[-1].get_facecolors()} <= {"#111111", "#222222", "#333333"}
    typed.obs["pseudotime"] = typed.obsm["X_pca"][:, 0]
    figure = wlm.pl.rollout(typed, color="pseudotime", times=[2], return_fig=True)
    assert figure.axes[-1].get_ylabel() == "pseudotime"
    typed.obs.loc[typed.obs_names[0], "pseudotime"] = np.nan
    with pytest.raises(ValueError, match="missing or infinite"):
        wlm.pl.rollout(typed, color="pseudotime", times=[2])


def test_a_film_shows_the_rollout(fitted, tmp_path):
    film = wlm.pl.animate(fitted, file=tmp_path / "film.gif", n_frames=9, max_cells=50)
    from PIL import Image

    with Image.open(tmp_path / "film.gif") as pictures:
        assert pictures.n_frames == 9
    ax = film._fig.axes[0]
    film._func(8)
    stored = fitted.uns["wlm"]["rollout"]
    assert np.allclose(ax.collections[-1].get_offsets(), stored["positions"][-1, :50, :2], atol=1e-5)
    assert ax.get_title() == "day 4.00"
    film._func(0)
    assert np.allclose(ax.collections[-1].get_offsets(), stored["positions"][0, :50, :2], atol=1e-5)
    html = film._repr_html_()
    assert "<img" in html and not plt.get_fignums()


def test_a_film_in_another_embedding_and_as_mp4(fitted, tmp_path, monkeypatch):
    import imageio_ffmpeg

    fitted.obsm["X_umap"] = fitted.obsm["X_pca"][:, :2] * 3
    call = {"basis": "umap", "n_frames": 4, "max_cells": 20}
    with plt.rc_context({"animation.ffmpeg_path": imageio_ffmpeg.get_ffmpeg_exe()}):
        wlm.pl.animate(fitted, file=tmp_path / "film.mp4", **call)
    assert (tmp_path / "film.mp4").read_bytes()[4:8] == b"ftyp"
    with (
        plt.rc_context({"animation.ffmpeg_path": "no such program"}),
        pytest.raises(ValueError, match="needs ffmpeg.*write a .gif"),
    ):
        wlm.pl.animate(fitted, file=tmp_path / "other.mp4", **call)
    with pytest.raises(ValueError, match="must end in .gif or .mp4"):
        wlm.pl.animate(fitted, file="film.avi")
    with pytest.raises(ValueError, match="n_frames must be an integer"):
        wlm.pl.animate(fitted, n_frames=1)


def test_plots_of_populations_write_nothing(typed):
    before = typed.copy()
    wlm.pl.composition(typed, "type")
    wlm.pl.fates(typed, "type")
    wlm.pl.animate(typed, n_frames=2)._repr_html_()
    wlm.pl.rollout(typed, color="type")
    pd.testing.assert_frame_equal(typed.obs, before.obs)
    assert set(typed.uns) == set(before.uns) and set(typed.obsm) == set(before.obsm)


@pytest.mark.slow
def test_conditions_have_the_same_colours(cells, quick):
    """Also where one of them has not all of the labels."""
    cells.obs["treatment"] = np.where(np.arange(cells.n_obs) % 2, "a", "b")
    cells.obs["type"] = pd.Categorical(np.where(cells.obs["treatment"] == "a", "B", "A"), categories=["A", "B", "C"])
    cells.obs.loc[cells.obs_names[::3], "type"] = "C"
    cells.uns["type_colors"] = np.array(["#ff0000", "#00ff00", "#0000ff"], dtype=object)
    wlm.tl.fit(cells, "day", condition_key="treatment", **{**quick, "n_steps": 3})
    for condition, kept in (("a", {"B": "#00ff00", "C": "#0000ff"}), ("b", {"A": "#ff0000", "C": "#0000ff"})):
        legend = wlm.pl.composition(cells, "type", key=f"wlm_{condition}").get_legend()
        colors = [to_hex(h.get_facecolor()) for h in legend.legend_handles]
        assert dict(zip([t.get_text() for t in legend.get_texts()], colors, strict=True)) == kept


def test_every_label_of_a_sankey_has_a_name_or_a_place_in_the_legend(fitted):
    x = fitted.obsm["X_pca"][:, 0]
    fitted.obs["many"] = [f"type {k:02d}" for k in np.argsort(np.argsort(x)) * 25 // len(x)]
    ax = wlm.pl.fates(fitted, "many", times=[0, 1, 3, 4])
    beside = {t.get_text().rsplit(" ", 1)[0] for t in ax.texts if "%" in t.get_text()}
    listed = set() if ax.get_legend() is None else {t.get_text() for t in ax.get_legend().get_texts()}
    colors = {to_hex(p.get_facecolor()) for p in ax.patches if hasattr(p, "get_width")}
    assert len(beside | listed) == len(colors) and not beside & listed


def test_velocity_potential_and_film_are_coloured_by_labels(typed):
    for figure in (
        wlm.pl.velocity(typed, color="type", return_fig=True),
        wlm.pl.potential(typed, color="type", return_fig=True),
        wlm.pl.animate(typed, color="type", n_frames=2)._fig,
    ):
        assert {t.get_text() for t in figure.legends[0].get_texts()} >= {"a", "b", "c"}
    film = wlm.pl.animate(typed, color="type", n_frames=2, max_cells=20)
    film._func(1)
    colors = dict(zip("abc", typed.uns["type_colors"], strict=True))
    origin = typed.uns["wlm"]["rollout"]["origin"][:20]
    expected = [to_rgba(colors[typed.obs.loc[name, "type"]]) for name in origin]
    assert np.allclose(film._fig.axes[0].collections[-1].get_facecolors(), expected)
