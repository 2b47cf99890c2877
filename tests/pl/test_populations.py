"""Plots of populations through time: cell types, fates, films, colours."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgba

import wlm


@pytest.fixture(scope="module")
def _typed(_fitted):
    """Cells with three types by their place, so that neighbours of a cell have its type, colours, and fates."""
    adata = _fitted.copy()
    x = adata.obsm["X_pca"][:, 0]
    adata.obs["type"] = pd.Categorical(np.array(["a", "b", "c"])[np.digitize(x, np.quantile(x, [0.3, 0.6]))])
    adata.uns["type_colors"] = np.array(["#111111", "#222222", "#333333"], dtype=object)
    last = adata.obs["type"][adata.obs["day"] == 4]
    wlm.tl.terminal_states(adata, label_key="type", states=sorted(last.unique()))
    wlm.tl.fates(adata)
    return adata


@pytest.fixture
def typed(_typed):
    return _typed.copy()


def pairs(ax):
    """Heights of the predicted and of the observed bars by time: pale ones at the left, full ones at the right."""
    bars = [p for p in ax.patches if p.get_width() > 0]
    width = bars[0].get_width()
    pale = [p for p in bars if p.get_alpha() is not None and p.get_alpha() < 1]
    full = [p for p in bars if p not in pale]

    def by_time(patches, side):
        found = {}
        for p in patches:
            t = round(p.get_x() + p.get_width() / 2 + side * width / 2, 6)
            found.setdefault(t, []).append(p.get_height())
        return found

    return by_time(pale, 1), by_time(full, -1)


def test_bars_are_predicted_beside_observed_shares_with_numbers(typed):
    ax = wlm.pl.composition(typed, "type", times=[5])
    predicted, observed = pairs(ax)
    assert sorted(observed) == [0, 1, 2, 3, 4] and sorted(predicted) == [1, 2, 3, 4]
    for t, found in observed.items():
        shares = typed.obs["type"][typed.obs["day"] == t].value_counts(normalize=True).sort_index()
        assert np.allclose(found, shares)
    table = wlm.tl.composition(typed, "type")
    for t, found in predicted.items():
        own = table[table["time"] == t].set_index("label")["predicted"]
        assert np.allclose(found, own[["a", "b", "c"]])
    numbers = [t.get_text() for t in ax.texts]
    assert {f"{table.attrs['missed'][t]:.0%}" for t in (1.0, 2.0, 3.0, 4.0)} <= set(numbers)
    large = [s for found in [*predicted.values(), *observed.values()] for s in found if s >= 0.07]
    assert sorted(t for t in numbers if t.isdigit()) == sorted(f"{100 * s:.0f}" for s in large)
    top = ax.collections[2].get_paths()[0].vertices
    assert top[:, 1].max() == pytest.approx(1), "areas fill the height"
    texts = [text.get_text() for text in ax.figure.legends[0].get_texts()]
    assert texts == ["c", "b", "a", "left: predicted", "right: observed"]
    assert to_hex(ax.patches[0].get_facecolor()) == "#111111"
    assert ax.get_xlabel() == "day" and ax.get_ylabel() == "share of cells" and ax.get_xlim()[1] > 5


def test_areas_start_from_the_observed_cells_of_each_training_time(typed):
    ax = wlm.pl.composition(typed, "type", n_cells=None)
    predicted = wlm.tl.predict(typed, 2)
    seen = typed[typed.obs["day"] != 2]
    from sklearn.neighbors import KNeighborsClassifier

    labels = KNeighborsClassifier(15, weights="distance").fit(seen.obsm["X_pca"], seen.obs["type"].astype(str))
    share = np.mean(labels.predict(predicted.obsm["X_pca"]) == "a")

    def top(area, t):
        vertices = ax.collections[area].get_paths()[0].vertices
        return vertices[np.isclose(vertices[:, 0], t), 1].max()

    assert top(3, 2) == pytest.approx(share, abs=1e-6), "the second interval, from day 1 to 3"
    assert top(3, 1) == pytest.approx((typed.obs["type"][typed.obs["day"] == 1] == "a").mean())


def test_small_shares_are_drawn_together_unless_they_are_large_once(typed):
    rng = np.random.default_rng(0)
    typed.obs["many"] = rng.choice(
        [*"pqr", *(f"rare {k}" for k in range(8))], typed.n_obs, p=[0.3, 0.3, 0.32] + [0.01] * 8
    )
    last = typed.obs_names[typed.obs["day"] == 4]
    typed.obs.loc[last[:30], "many"] = "late"
    table = wlm.tl.composition(typed, "many")
    ax = wlm.pl.composition(table, min_share=0.1)
    texts = [text.get_text() for text in ax.figure.legends[0].get_texts()]
    assert texts == ["other", "r", "q", "p", "late", "left: predicted", "right: observed"]
    _, observed = pairs(ax)
    rare = table[(table["time"] == 1) & table["label"].str.startswith("rare")]["observed"].sum()
    assert observed[1.0][-1] == pytest.approx(rare) and sum(observed[1.0]) == pytest.approx(1)
    with pytest.raises(ValueError, match="min_share must be"):
        wlm.pl.composition(table, min_share=1)


def test_weights_count_in_compositions(cells, quick):
    cells.obs["type"] = np.where(cells.obsm["X_pca"][:, 0] > 0, "right", "left")
    cells.obs["weight"] = np.where(cells.obs["type"] == "right", 3.0, 1.0)
    wlm.tl.fit(cells, "day", weight_key="weight", holdout=2, **quick)
    _, bars = pairs(wlm.pl.composition(cells, "type"))
    there = cells.obs[cells.obs["day"] == 1]
    expected = there.groupby("type")["weight"].sum() / there["weight"].sum()
    assert np.allclose(bars[1], expected.sort_index())


def test_a_table_is_drawn_as_the_object_is(typed):
    table = wlm.tl.composition(typed, "type", [1, 1.5, 2, 4, 5])
    ax = wlm.pl.composition(table)
    _, whole = pairs(wlm.pl.composition(typed, "type", times=[5]))
    for t, found in pairs(ax)[1].items():
        assert found == pytest.approx(whole[t])
    assert [text.get_text() for text in ax.figure.legends[0].get_texts()][:3] == ["c", "b", "a"]
    middle = table[table["time"] == 1.5].set_index("label")["predicted"]
    vertices = ax.collections[0].get_paths()[0].vertices
    assert vertices[np.isclose(vertices[:, 0], 1.5), 1].max() == pytest.approx(middle["a"], abs=1e-6)
    with pytest.raises(ValueError, match="no table of wlm.tl.composition"):
        wlm.pl.composition(table.drop(columns="observed"))
    with pytest.raises(ValueError, match="groupby must name a column"):
        wlm.pl.composition(typed)


def sankey(ax):
    """Bars at the left, those of paths, of observed cells and of the free rollout, and the widths of the bands."""
    bars = [p for p in ax.patches if hasattr(p, "get_width")]
    bands = [p for p in ax.patches if not hasattr(p, "get_width")]
    at = sorted({round(p.get_x(), 4) for p in bars})
    columns = [[p.get_height() for p in bars if round(p.get_x(), 4) == x] for x in at]
    return columns, [abs(p.get_path().vertices[0, 1] - p.get_path().vertices[7, 1]) for p in bands]


def test_bands_are_the_fates_and_conserve_cells(typed):
    ax = wlm.pl.fates(typed, "type", min_share=0)
    columns, bands = sankey(ax)
    assert sum(columns[0]) == pytest.approx(sum(columns[1])) == pytest.approx(sum(bands))
    scale = sum(bands)
    start = (typed.obs["day"] == 0).to_numpy()
    names = typed.uns["wlm_fates"]["names"].tolist()
    p, labels = typed.obsm["wlm_fates"][start], typed.obs["type"][start].to_numpy()
    expected = [p[labels == name, k].sum() / 60 for k in range(len(names)) for name in "abc" if (labels == name).any()]
    assert bands == pytest.approx([scale * share for share in expected if share > 0], abs=1e-6)
    for column, shares in zip(columns[2:], ("observed", "predicted"), strict=True):
        assert column == pytest.approx(scale * typed.uns["wlm_fates"][shares], abs=1e-6)
    texts = [t.get_text() for t in ax.texts]
    share = (labels == "c").mean()
    assert f"c {share:.0%}" in texts and "day 0\nobserved" in texts
    observed, free = (typed.uns["wlm_fates"][k][0] for k in ("observed", "predicted"))
    assert f"observed {observed:.0%}, free {free:.0%}" in texts
    assert to_hex(ax.patches[0].get_facecolor()) in ("#111111", "#222222", "#333333")


def test_small_shares_are_other_and_a_miss_is_said(typed):
    typed.obs["many"] = [f"type {k % 60:02d}" for k in range(typed.n_obs)]
    typed.uns["wlm_fates"]["tolerated"] = -1.0
    ax = wlm.pl.fates(typed, "many", min_share=0.02)
    texts = [t.get_text() for t in ax.texts]
    assert "other 100%" in texts, "every type has one cell of sixty"
    assert any("into another state than observed" in text for text in texts)
    typed.uns["wlm_fates"]["tolerated"] = 1.0
    ax = wlm.pl.fates(typed, "type", time=3)
    assert not any("into another state" in t.get_text() for t in ax.texts)
    assert "day 3\nobserved" in [t.get_text() for t in ax.texts]


def test_texts_of_a_sankey_do_not_lie_on_each_other(typed):
    typed.obs["many"] = [f"a longer name {k % 12:02d}" for k in range(typed.n_obs)]
    figure = wlm.pl.fates(typed, "many", return_fig=True)
    figure.canvas.draw()
    boxes = [t.get_window_extent() for t in figure.axes[0].texts]
    for k, box in enumerate(boxes):
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1, "it is within the figure"
        assert not any(box.padded(-1).overlaps(other.padded(-1)) for other in boxes[k + 1 :])


def test_probabilities_in_an_embedding(typed):
    axes = wlm.pl.fate_probabilities(typed)
    names = typed.uns["wlm_fates"]["names"].tolist()
    assert [ax.get_title() for ax in axes] == names
    one = wlm.pl.fate_probabilities(typed, fate=names[1], components=(1, 2))
    points = one.collections[0]
    order = np.random.default_rng(0).permutation(typed.n_obs)
    assert np.allclose(points.get_array(), typed.obsm["wlm_fates"][order, 1])
    assert np.allclose(points.get_offsets(), typed.obsm["X_pca"][order][:, 1:3], atol=1e-5)
    assert (one.get_xlabel(), one.get_ylabel()) == ("PC2", "PC3")
    typed.obsm["X_umap"] = typed.obsm["X_pca"][:, :2] * 3
    assert wlm.pl.fate_probabilities(typed, fate=names[0], basis="umap").get_xlabel() == "UMAP1"


def test_probabilities_in_a_simplex(typed):
    rng = np.random.default_rng(0)
    typed.obsm["wlm_fates"] = rng.dirichlet(np.ones(3), size=typed.n_obs).astype(np.float32)
    typed.obsm["wlm_fates"][0] = [1, 0, 0]
    typed.uns["wlm_fates"]["names"] = np.array(["a", "b", "c"], dtype=object)
    ax = wlm.pl.fate_probabilities(typed, kind="simplex")
    corners = np.array([[0, 0], [1, 0], [0.5, np.sqrt(0.75)]])
    order = np.random.default_rng(0).permutation(typed.n_obs)
    assert np.abs(ax.collections[0].get_offsets() - typed.obsm["wlm_fates"][order] @ corners).max() < 0.05
    assert [t.get_text() for t in ax.texts] == ["a", "b", "c"]
    assert np.array_equal(ax.collections[0].get_array(), typed.obs["day"].to_numpy()[order])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "circle"}, "kind must be"),
        ({"fate": "z"}, "fate 'z' is none of"),
        ({"kind": "simplex"}, "a simplex is drawn of three fates, found 2"),
        ({"ax": True}, "ax must hold 2 axes"),
        ({"basis": "umap"}, "is neither in obsm"),
    ],
)
def test_probabilities_that_cannot_be_drawn(typed, arguments, message):
    if len(typed.uns["wlm_fates"]["names"]) == 3:  # whichever types there are at the last day
        typed.uns["wlm_fates"]["names"] = typed.uns["wlm_fates"]["names"][:2]
    if "ax" in arguments:
        arguments = {"ax": plt.subplots()[1]}
    with pytest.raises((ValueError, KeyError), match=message):
        wlm.pl.fate_probabilities(typed, **arguments)


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


def test_fates_are_drawn_after_they_are_computed_and_from_an_observed_time(typed):
    for time, message in ((0.5, "was not observed"), ([0, 1], "one observed time")):
        with pytest.raises(ValueError, match=message):
            wlm.pl.fates(typed, "type", time=time)
    with pytest.raises(ValueError, match="min_share must be"):
        wlm.pl.fates(typed, "type", min_share=1)
    del typed.uns["wlm_fates"]
    for plot in (lambda a: wlm.pl.fates(a, "type"), wlm.pl.fate_probabilities):
        with pytest.raises(KeyError, match=r"run wlm.tl.fates\(adata\) first"):
            plot(typed)


def test_many_labels_get_colours_of_their_own_and_a_legend_in_columns(fitted):
    fitted.obs["many"] = [f"type {k % 30:02d}" for k in range(fitted.n_obs)]
    figure = wlm.pl.composition(fitted, "many", return_fig=True)
    (legend,) = figure.legends
    colors = {to_hex(h.get_facecolor()) for h in legend.legend_handles[:-2]}
    assert len(colors) == 30
    figure.canvas.draw()
    box = legend.get_window_extent()
    assert not box.overlaps(figure.axes[0].get_window_extent()) and box.x1 <= figure.bbox.x1 + 1


def test_rollout_is_coloured_by_labels_and_numbers(typed):
    figure = wlm.pl.rollout(typed, color="type", times=[2], return_fig=True)
    start = figure.axes[0].collections[1]
    own = typed.obs["type"][typed.obs["day"] == 0]
    expected = [to_rgba(dict(zip("abc", typed.uns["type_colors"], strict=True))[name]) for name in own]
    assert np.allclose(start.get_facecolors()[:, :3], np.array(expected)[:, :3])
    assert {t.get_text() for t in figure.legends[0].get_texts()} == {"a", "b", "c"}
    # Observed and predicted cells both: those large and pale, these small and full.
    observed, predicted = figure.axes[1].collections[-2:]
    for points in (observed, predicted):
        assert {to_hex(c) for c in points.get_facecolors()} <= {"#111111", "#222222", "#333333"}
        assert len({to_hex(c) for c in points.get_facecolors()}) > 1
    there = typed.obs["type"][typed.obs["day"] == 2].map(dict(zip("abc", typed.uns["type_colors"], strict=True)))
    assert [to_hex(c) for c in observed.get_facecolors()] == there.tolist()
    assert observed.get_sizes()[0] > predicted.get_sizes()[0] and observed.get_alpha() < predicted.get_alpha()
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
    missed = (stored["positions"][-1, :50, :2] - np.mean([ax.get_xlim(), ax.get_ylim()], axis=1)).__abs__()
    beyond = (missed > np.ptp([ax.get_xlim(), ax.get_ylim()], axis=1) / 2).any(axis=1).sum()
    assert beyond > 0 and ax.get_title() == f"day 4.00, {beyond} of 50 beyond the axes"
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
    wlm.pl.fate_probabilities(typed)
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
        legend = wlm.pl.composition(cells, "type", key=f"wlm_{condition}").figure.legends[0]
        colors = [to_hex(h.get_facecolor()) for h in legend.legend_handles[:-2]]
        assert dict(zip([t.get_text() for t in legend.get_texts()][:-2], colors, strict=True)) == kept


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


@pytest.fixture(scope="module")
def _grown():
    adata = wlm.datasets.branching_growth(60, days=(0, 2, 4), n_founders=300)
    adata.obs["rate"] = np.where(adata.obsm["X_position"][:, 1] > 0, 0.5, -0.5)
    small = {"n_steps": 3, "batch_size": 32, "width": 8, "heads": 2, "hidden": 8, "n_inducing": 2}
    options = {"growth": "prior", "growth_key": "rate", "show_progress": False, **small}
    wlm.tl.fit(adata, "day", use_rep="X_position", **options)
    wlm.tl.terminal_states(adata, label_key="branch")
    return adata


def test_compositions_of_lineages_have_bars_at_the_first_time_alone(_grown):
    figure = wlm.pl.composition(_grown, "branch", count="lineages", times=[5], return_fig=True)
    ax = figure.axes[0]
    assert "lineages" in ax.get_ylabel()
    bars = [(bar.get_x(), bar.get_width()) for bar in ax.patches]
    assert {round(x, 6) for x, _ in bars} == {0.0} and all(0 < width < 0.5 for _, width in bars)
    assert len(ax.collections) > 0, "areas go on where nothing is observed"
    assert "cells" in wlm.pl.composition(_grown, "branch", return_fig=True).axes[0].get_ylabel()


@pytest.mark.parametrize("count", ["cells", "lineages"])
def test_bands_of_descendants_end_as_observed_and_lineages_say_so(_grown, count):
    adata = _grown.copy()
    wlm.tl.fates(adata, count=count)
    ax = wlm.pl.fates(adata, "branch", min_share=0, return_fig=True).axes[0]
    texts = " ".join(text.get_text() for text in ax.texts)
    assert {"cells": "by descendants", "lineages": "lineages, observed"}[count] in texts
    note, start = adata.uns["wlm_fates"], (adata.obs["day"] == 0).to_numpy()
    if count == "cells":
        for name, share in zip(note["names"], note["observed"], strict=True):
            assert f"{name} {share:.0%}" in texts, "paths end as the cells of the last time are"
        w = adata.obs["wlm_fate_descendants"].to_numpy()[start]
        left = np.average(adata.obs["branch"][start] == "A", weights=w)
        assert f"A {left:.0%}" in texts
