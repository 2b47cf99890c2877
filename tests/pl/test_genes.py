"""``pl.genes``: what is drawn is what is predicted and observed, and the object stays as it is."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from matplotlib.collections import LineCollection

import wlm
from wlm._store.integrity import seal
from wlm.core.uncertainty import quantiles

GENES = ["gene000", "gene003", "gene006"]


def markers(panel):
    """25 %, mean and 75 %, and the fill of the marker, by time."""
    bars = {float(c.get_segments()[0][0, 0]): c.get_segments()[0][:, 1] for c in panel.collections if bar(c)}
    dots = [line for line in panel.lines if line.get_marker() == "o"]
    middle = {float(line.get_xdata()[0]): (line.get_ydata()[0], line.get_markerfacecolor()) for line in dots}
    return {t: (bars[t][0], mean, bars[t][1], fill) for t, (mean, fill) in middle.items()}


def bar(collection):
    return isinstance(collection, LineCollection)


def test_lines_are_means_and_bands_quantiles_of_the_predicted_cells(fitted):
    figure = wlm.pl.genes(fitted, GENES, times=[6], return_fig=True)
    out = wlm.tl.predict(fitted, [2, 6], genes=True)
    for panel, gene in zip(figure.axes, GENES, strict=True):
        fitting, forecast = panel.lines[:2]
        assert forecast.get_linestyle() == "--" and forecast.get_xdata()[[0, -1]].tolist() == [4, 6]
        assert fitting.get_xdata()[[0, -1]].tolist() == [0, 4]
        for t, line in ((2.0, fitting), (6.0, forecast)):
            cells = out[out.obs["day"] == t, gene].X.ravel()
            (drawn,) = line.get_ydata()[np.isclose(line.get_xdata(), t)]
            assert abs(drawn - np.mean(cells)) < 1e-3 * np.ptp(cells)
        wide, narrow = (np.concatenate([p.vertices for p in c.get_paths()]) for c in panel.collections[:2])
        for band, q in ((wide, (0.05, 0.95)), (narrow, (0.25, 0.75))):
            at = np.unique(band[np.isclose(band[:, 0], 6), 1])
            assert np.allclose(at[[0, -1]], np.quantile(cells, q), rtol=0, atol=0.02 * np.ptp(cells))


def test_markers_are_the_observed_cells_and_hollow_where_they_were_held_out(fitted):
    panel = wlm.pl.genes(fitted, "gene003")[0]
    drawn = markers(panel)
    assert sorted(drawn) == [0, 1, 2, 3, 4]
    for t, (*drawn_quantiles, fill) in drawn.items():
        cells = fitted[fitted.obs["day"] == t, "gene003"].X.toarray().ravel()
        low, high = np.quantile(cells, [0.25, 0.75])
        assert drawn_quantiles == pytest.approx([low, cells.mean(), high], rel=1e-5)
        assert (fill == "white") == (t == 2)
    points = np.concatenate([c.get_offsets() for c in panel.collections if not bar(c) and len(c.get_offsets()) == 60])
    assert np.allclose(np.sort(points[:, 1]), np.sort(fitted[:, "gene003"].X.toarray().ravel()))


def test_trend_at_training_times_is_that_of_the_decoded_cells(fitted):
    line = wlm.pl.genes(fitted, "gene000")[0].lines[0]
    day3 = (fitted.obs["day"] == 3).to_numpy()
    mean = np.asarray(fitted.X.mean(axis=0)).ravel()[0]
    decoded = fitted.obsm["X_pca"][day3] @ fitted.varm["PCs"][0] + mean
    assert np.allclose(line.get_ydata()[line.get_xdata() == 3], np.mean(decoded), atol=1e-4)


def test_titles_labels_and_legend(fitted):
    fitted.uns["wlm"]["representation"]["r2"][9] = 0.05
    fitted.uns["wlm"] = seal(fitted.uns["wlm"])
    figure = wlm.pl.genes(fitted, [*GENES, "gene009"], return_fig=True)
    r2 = fitted.var["wlm_decode_r2"]
    assert [a.get_title() for a in figure.axes] == [
        *(f"{gene}\nR² {r2[gene]:.2f}" for gene in GENES),
        "gene009\nR² 0.05: poorly decoded",
    ]
    assert figure.axes[0].get_xlabel() == "day" and figure.axes[0].get_ylabel() == "expression (X)"
    texts = {text.get_text() for text in figure.legends[0].get_texts()}
    assert texts >= {"predicted, mean", "25-75 % of cells", "5-95 %", "observed, held out", "observed cell"}
    assert "forecast, mean" not in texts
    figure.canvas.draw()
    below = figure.legends[0].get_window_extent().y1
    assert all(a.get_tightbbox().y0 >= below for a in figure.axes)


@pytest.mark.slow
def test_layer_and_unit_are_named(cells, quick):
    cells.layers["logged"] = cells.X.copy()
    cells.X = cells.layers["spliced"]
    cells.obs["when"] = [f"{day:g} h" for day in cells.obs["day"]]
    wlm.tl.fit(cells, "when", **quick)
    panel = wlm.pl.genes(cells, "gene003")[0]
    assert panel.get_ylabel() == "expression (logged)" and panel.get_xlabel() == "when (hour)"
    logged = cells[cells.obs["when"] == "2 h", "gene003"].layers["logged"].toarray()
    assert markers(panel)[2.0][1] == pytest.approx(np.mean(logged))
    cells.layers["moved"] = cells.layers.pop("logged")
    with pytest.raises(KeyError, match=r"layer 'logged' is missing; layers has .*'moved'"):
        wlm.pl.genes(cells, "gene003")
    with pytest.raises(ValueError, match="'X' does not hold the values that the PCA was computed on.*pass the layer="):
        wlm.pl.genes(cells, "gene003", layer="X")
    assert wlm.pl.genes(cells, "gene003", layer="moved")[0].get_ylabel() == "expression (moved)"


def test_own_axes_for_one_gene(fitted):
    own = plt.subplots()[1]
    assert wlm.pl.genes(fitted, "gene003", ax=own)[0] is own
    assert own.get_legend() is not None and not own.figure.legends
    with pytest.raises(ValueError, match="ax must hold 3 axes"):
        wlm.pl.genes(fitted, GENES, ax=own)


@pytest.mark.slow
def test_weighted_cells_count_as_often_as_they_weigh(cells, quick):
    rng = np.random.default_rng(0)
    values, w = rng.normal(size=(3000, 2)), rng.integers(1, 4, 3000)
    q = [0.05, 0.5, 0.95]
    assert np.allclose(quantiles(values, q, w), np.quantile(np.repeat(values, w, axis=0), q, axis=0), atol=5e-3)
    assert quantiles(np.array([[3.0], [1.0], [2.0]]), [0.5], np.array([2.0, 2.0, 2.0])) == 2
    x = cells[:, "gene003"].X.toarray().ravel()
    cells.obs["w"] = 1 + 9.0 * (x > np.median(x))
    wlm.tl.fit(cells, "day", weight_key="w", holdout=2, **quick)
    day2 = (cells.obs["day"] == 2).to_numpy()
    drawn = markers(wlm.pl.genes(cells, "gene003")[0])[2.0][1]
    repeated = np.repeat(x[day2], cells.obs["w"][day2].astype(int))
    assert drawn == pytest.approx(np.mean(repeated), abs=1e-5) and drawn > np.mean(x[day2]) + 0.1


def test_nothing_is_written(fitted):
    before = fitted.copy()
    assert wlm.pl.genes(fitted, GENES, n_cells=10, show=True) is None
    assert sorted(fitted.uns) == sorted(before.uns) and (fitted.X != before.X).nnz == 0
    pd.testing.assert_frame_equal(fitted.obs, before.obs)
    pd.testing.assert_frame_equal(fitted.var, before.var)
    for name in ("obsm", "varm", "layers"):
        assert set(getattr(fitted, name)) == set(getattr(before, name))
    assert all(np.array_equal(fitted.obsm[k], before.obsm[k], equal_nan=True) for k in before.obsm)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"genes": "GENE003"}, KeyError, r"not in var_names: 'GENE003' \(did you mean 'gene003'\?\)"),
        ({"genes": [f"other{i}" for i in range(7)]}, KeyError, "'other4' and 2 more"),
        ({"genes": []}, ValueError, "one or more of var_names"),
        ({"genes": "gene003", "times": -1}, ValueError, "before 0, the first training time, found -1"),
        ({"genes": "gene003", "times": "soon"}, ValueError, "cannot read"),
        ({"genes": "gene003", "key": "other"}, KeyError, "run wlm.tl.fit"),
        ({"genes": "gene003", "layer": "raw"}, KeyError, "layer 'raw' is missing"),
    ],
    ids=str,
)
def test_impossible_calls(fitted, call, error, message):
    with pytest.raises(error, match=message):
        wlm.pl.genes(fitted, **call)


@pytest.mark.slow
def test_genes_that_cannot_be_decoded_are_refused(cells, quick):
    cells.var["chosen"] = cells.var_names != "gene003"
    sc.pp.pca(cells, n_comps=5, mask_var="chosen")
    wlm.tl.fit(cells, "day", **quick)
    with pytest.raises(ValueError, match="'gene003' cannot be decoded: constant, or without loadings"):
        wlm.pl.genes(cells, GENES)
    cells.obsm["X_scVI"] = cells.obsm["X_pca"].copy()
    wlm.tl.fit(cells, "day", use_rep="X_scVI", **quick)
    with pytest.raises(ValueError, match="only be decoded to genes with a decoder"):
        wlm.pl.genes(cells, "gene000")


def test_a_part_of_the_genes_and_cells_is_drawn_as_the_whole(fitted):
    part = fitted[:, ["gene006", "gene003"]].copy()
    line, whole = (wlm.pl.genes(a, "gene003")[0].lines[0].get_xydata() for a in (part, fitted))
    assert np.allclose(line, whole, atol=1e-4)
    early = wlm.pl.genes(fitted[fitted.obs["day"] < 4].copy(), "gene003")[0]
    # Day 4 is not there: it is forecast from day 3.
    assert early.lines[0].get_xdata()[-1] == 3 and early.lines[1].get_xdata()[[0, -1]].tolist() == [3, 4]


def test_groups_are_lines_and_points_of_means_in_their_colours(fitted):
    fitted.uns["fate_colors"] = ["#ff0000", "#0000ff"]
    figure = wlm.pl.genes(fitted, GENES, groupby="fate", times=[6], return_fig=True)
    table = wlm.tl.gene_trends(fitted, GENES, groupby="fate", times=[6])
    for panel, gene in zip(figure.axes, GENES, strict=True):
        for color, name in (("#ff0000", "A"), ("#0000ff", "B")):
            fitting, forecast, observed, held_out = (line for line in panel.lines if line.get_color() == color)
            own = table[(table["gene"] == gene) & (table["group"] == name)].set_index("kind")
            assert np.array_equal(fitting.get_xydata(), own.loc["predicted", ["time", "mean"]], equal_nan=True)
            assert forecast.get_linestyle() == "--" and forecast.get_xdata()[[0, -1]].tolist() == [4, 6]
            assert np.array_equal(observed.get_xydata(), own.loc["observed", ["time", "mean"]])
            assert held_out.get_markerfacecolor() == "white" and held_out.get_xdata().tolist() == [2]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[:2] == ["A", "B"] and {"predicted, mean", "forecast, mean", "observed, held out"} <= set(texts)


def test_stored_fates_are_groups(fitted):
    p = np.linspace(0, 1, fitted.n_obs, dtype=np.float32)
    fitted.obsm["wlm_fates"], fitted.uns["wlm_fates"] = np.stack([p, 1 - p], 1), {"names": ["to A", "to B"]}
    figure = wlm.pl.genes(fitted, "gene003", groupby="fates", return_fig=True)
    assert [text.get_text() for text in figure.legends[0].get_texts()][:2] == ["to A", "to B"]
