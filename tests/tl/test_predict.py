"""``tl.predict``: shapes, provenance, round-trips, decoding, and refusals."""

import subprocess
import sys
import textwrap

import anndata as ad
import numpy as np
import pytest

import wlm


def test_interpolates_and_forecasts(fitted):
    out = wlm.tl.predict(fitted, [2, "4.5", 6])
    assert out.n_obs == 180 and out.n_vars == 0 and out.obs_names.is_unique
    assert out.obs["day"].tolist() == [2.0] * 60 + [4.5] * 60 + [6.0] * 60
    assert out.obsm["X_pca"].shape == (180, 5) and out.obsm["X_pca"].dtype == np.float32
    assert np.isfinite(out.obsm["X_pca"]).all() and np.isfinite(out.obsm["wlm_velocity"]).all()
    # The held-out day 2 starts from day 1 although day 2 is in the object; forecasts from the last.
    assert out.obs.groupby("day")["from_time"].unique().map(list).to_dict() == {2.0: [1.0], 4.5: [4.0], 6.0: [4.0]}
    origin = fitted.obs.loc[out.obs["origin"], "day"].to_numpy()
    assert np.array_equal(origin, out.obs["from_time"])
    record = out.uns["wlm_prediction"]
    assert record["method"] == "wlm" and record["times"].tolist() == [2.0, 4.5, 6.0]
    assert record["bridged"].tolist() == [True, False, False]


def test_one_time_is_the_same_alone_and_among_others(fitted):
    together, alone = wlm.tl.predict(fitted, [1.2, 1.5, 3.0]), wlm.tl.predict(fitted, 1.5)
    same = together[together.obs["day"] == 1.5]
    assert np.array_equal(same.obs["origin"], alone.obs["origin"])
    # The integrator's steps end at other times, which is all that may differ.
    difference = np.linalg.norm(same.obsm["X_pca"] - alone.obsm["X_pca"], axis=1)
    assert np.median(difference) < 1e-2 * alone.obsm["X_pca"].std()


def test_fewer_cells_are_a_choice_among_the_same_ones(fitted):
    every, few = wlm.tl.predict(fitted, 4.5), wlm.tl.predict(fitted, 4.5, n_cells=5)
    rows = every.obs.reset_index().set_index("origin").loc[few.obs["origin"], "index"]
    assert np.allclose(every[rows].obsm["X_pca"], few.obsm["X_pca"])


def test_object_is_not_changed(fitted):
    obs, keys = fitted.obs.copy(), sorted(fitted.obsm)
    x = fitted.obsm["X_pca"].copy()
    wlm.tl.predict(fitted, [2, 6], genes=True)
    assert fitted.obs.equals(obs) and sorted(fitted.obsm) == keys and np.array_equal(fitted.obsm["X_pca"], x)


def test_from_time_and_n_cells(fitted):
    out = wlm.tl.predict(fitted, 3.5, from_time=0, n_cells=100, rng=3)
    assert out.n_obs == 100 and (out.obs["from_time"] == 0).all() and out.obs["origin"].nunique() <= 60
    few = wlm.tl.predict(fitted, [3.5, 5], n_cells=10)
    assert few.n_obs == 20 and few[few.obs["day"] == 5].obs["origin"].is_unique
    # A held-out day can be started from when asked for.
    assert (wlm.tl.predict(fitted, 3.5, from_time=2).obs["from_time"] == 2).all()


def test_of_a_large_population_a_sample_moves(fitted):
    """If fewer cells are wanted than there are, at most chunk_size of them are moved."""
    few = wlm.tl.predict(fitted, 3, n_cells=10, chunk_size=20)
    assert few.n_obs == 10 and set(few.obs["origin"]) <= set(fitted.obs_names[fitted.obs["day"] == 1])
    parts = wlm.tl.predict(fitted, 3, chunk_size=20)
    whole = wlm.tl.predict(fitted, 3)
    assert list(parts.obs["origin"]) == list(whole.obs["origin"])
    distance = np.linalg.norm(parts.obsm["X_pca"] - whole.obsm["X_pca"], axis=1).mean()
    assert 0 < distance < 0.2 * np.linalg.norm(whole.obsm["X_pca"], axis=1).mean()
    with pytest.raises(ValueError, match="chunk_size must be an integer of at least 1"):
        wlm.tl.predict(fitted, 3, chunk_size=0)


@pytest.mark.slow
def test_weights_are_carried_along(cells, quick):
    rng = np.random.default_rng(0)
    cells.obs["w"] = rng.uniform(0.1, 3, cells.n_obs)
    wlm.tl.fit(cells, "day", weight_key="w", holdout=2, **quick)
    every = wlm.tl.predict(cells, 2)
    assert np.array_equal(every.obs["w"], cells.obs.loc[every.obs["origin"], "w"])
    some = wlm.tl.predict(cells, 2, n_cells=4000)
    assert "w" not in some.obs
    start = cells.obs[cells.obs["day"] == 1]
    drawn = some.obs["origin"].value_counts().reindex(start.index).fillna(0) / 4000
    assert np.corrcoef(drawn, start["w"])[0, 1] > 0.9
    assert np.isfinite(wlm.tl.diagnose(cells)["value"].drop("friction_sd")).all()
    del cells.obs["w"]
    with pytest.raises(KeyError, match="obs\\['w'\\] is missing"):
        wlm.tl.predict(cells, 2)


def test_seed_decides(fitted):
    a, b, c = (wlm.tl.predict(fitted, 2.0, n_cells=20, rng=r) for r in (1, 1, 2))
    assert np.array_equal(a.obsm["X_pca"], b.obsm["X_pca"]) and not np.array_equal(a.obs["origin"], c.obs["origin"])


def test_bridged_prediction_approaches_the_next_observed_day(fitted):
    near = wlm.tl.predict(fitted, 2.9999).obsm["X_pca"]
    day3 = fitted.obsm["X_pca"][fitted.obs["day"] == 3]
    assert wlm.core.metrics.w1(near, day3) < 0.05 * day3.std()


def test_genes_are_decoded_in_the_units_of_the_pca(fitted):
    out = wlm.tl.predict(fitted, 2, genes=True)
    assert out.shape == (60, fitted.n_vars) and list(out.var_names) == list(fitted.var_names)
    mean = np.asarray(fitted.X.mean(axis=0)).ravel()
    assert np.allclose((out.X - mean) @ fitted.varm["PCs"], out.obsm["X_pca"], atol=1e-3)


@pytest.mark.slow
def test_decoding_follows_genes_and_knows_the_mean_of_cells_that_are_gone(cells, quick):
    mean, day = np.asarray(cells.X.mean(axis=0)).ravel(), cells.obs["day"].to_numpy()
    part = cells[day > 0].copy()
    wlm.tl.fit(part, "day", **quick)
    out = wlm.tl.predict(part, 2.5, genes=True)
    assert np.allclose((out.X - mean) @ cells.varm["PCs"], out.obsm["X_pca"], atol=1e-3)
    order = np.random.default_rng(0).permutation(part.n_vars)
    shuffled = wlm.tl.predict(part[:, order].copy(), 2.5, genes=True)
    assert np.allclose(shuffled.X, out.X[:, order], atol=1e-4)


@pytest.mark.slow
def test_decoding_needs_loadings_that_explain_the_representation(cells, quick):
    cells.X = cells.X * 3
    cells.layers.clear()
    wlm.tl.fit(cells, "day", **quick)
    with pytest.raises(ValueError, match="does not explain"):
        wlm.tl.predict(cells, 2, genes=True)
    del cells.varm["PCs"]
    with pytest.raises(KeyError, match="PCs"):
        wlm.tl.predict(cells, 2, genes=True)


@pytest.mark.slow
def test_decoding_finds_the_layer_that_was_used(cells, quick):
    cells.layers["logged"] = cells.X.copy()
    cells.X = cells.layers["spliced"]
    wlm.tl.fit(cells, "day", **quick)
    mean = np.asarray(cells.layers["logged"].mean(axis=0)).ravel()
    assert np.allclose(cells.uns["wlm"]["representation"]["mean"], mean, atol=1e-5)
    cells.X = cells.X * 3  # what happens to X afterwards does not matter
    out = wlm.tl.predict(cells, 2.5, genes=True)
    assert np.allclose((out.X - mean) @ cells.varm["PCs"], out.obsm["X_pca"], atol=1e-3)


@pytest.mark.slow
def test_a_fresh_process_reads_the_file_and_predicts_the_same_numbers(fitted, tmp_path):
    """Two processes, each of which reads both kinds of file."""
    predict = """
        import sys
        import anndata, numpy, torch, wlm
        torch.set_num_threads(1)
        for form in ("h5ad", "zarr"):
            adata = getattr(anndata, f"read_{form}")(f"{sys.argv[1]}/fit.{form}")
            numpy.save(f"{sys.argv[1]}/{sys.argv[2]}_{form}", wlm.tl.predict(adata, [2, 5.5]).obsm["X_pca"])
    """
    expected = wlm.tl.predict(fitted, [2, 5.5]).obsm["X_pca"]
    fitted.write_h5ad(tmp_path / "fit.h5ad")
    fitted.write_zarr(tmp_path / "fit.zarr")
    for out in ("first", "second"):
        subprocess.run([sys.executable, "-c", textwrap.dedent(predict), str(tmp_path), out], check=True)
    for form in ("h5ad", "zarr"):
        first, second = (np.load(tmp_path / f"{out}_{form}.npy") for out in ("first", "second"))
        assert np.array_equal(first, second)
        # Against a process with another history only the order of sums in the linear algebra may differ.
        assert np.allclose(first, expected, atol=1e-4)


def test_predictions_can_be_written(fitted, tmp_path):
    out = wlm.tl.predict(fitted, [2, 5], genes=True)
    out.write_h5ad(tmp_path / "out.h5ad")
    assert ad.read_h5ad(tmp_path / "out.h5ad").obs["origin"].tolist() == out.obs["origin"].tolist()


def test_subsets_predict_from_the_cells_that_are_left(fitted):
    part = fitted[::2].copy()
    out = wlm.tl.predict(part, 2.5)
    assert out.n_obs == 30 and np.isin(out.obs["origin"], part.obs_names).all()
    without = fitted[fitted.obs["day"] != 3].copy()
    assert (wlm.tl.predict(without, 3.5).obs["from_time"] == 1).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"times": 2, "from_time": [0, 1]}, ValueError, "from_time must be one time"),
        ({"times": 0}, ValueError, "cannot predict 0: predictions start from"),
        ({"times": -3}, ValueError, "first in adata is 0"),
        ({"times": []}, ValueError, "one or more"),
        ({"times": "soon"}, ValueError, "cannot read"),
        ({"times": float("nan")}, ValueError, "one or more"),
        ({"times": 2, "key": "other"}, KeyError, r"run wlm.tl.fit\(adata, time_key, key_added='other'\) first"),
        ({"times": 2, "key": "pca"}, ValueError, "not written by wlm.tl.fit"),
        ({"times": 2, "from_time": 3}, ValueError, "later than from_time"),
        ({"times": 2, "from_time": 1.5}, ValueError, "was not observed"),
        ({"times": 2, "n_cells": 0}, ValueError, "n_cells"),
        ({"times": 2, "n_cells": True}, ValueError, "n_cells"),
    ],
    ids=str,
)
def test_impossible_calls(fitted, call, error, message):
    with pytest.raises(error, match=message):
        wlm.tl.predict(fitted, **call)


def test_before_a_fit(cells):
    with pytest.raises(KeyError, match="run wlm.tl.fit"):
        wlm.tl.predict(cells, 2)


def test_another_representation_is_recognised(fitted):
    fitted.obsm["X_pca"] = -fitted.obsm["X_pca"]
    with pytest.raises(ValueError, match="is not the representation"):
        wlm.tl.predict(fitted, 2)
    del fitted.obsm["X_pca"]
    with pytest.raises(KeyError, match=r"run sc.pp.pca\(adata\) first"):
        wlm.tl.predict(fitted, 2)


@pytest.mark.parametrize("damage", ["weight gone", "weight short", "config", "newer", "representation gone"])
def test_damaged_fits_are_recognised(fitted, damage):
    uns = fitted.uns["wlm"]
    if damage == "weight gone":
        del uns["weights"]["log_friction"]
    elif damage == "weight short":
        uns["weights"]["potential_embed_weight"] = uns["weights"]["potential_embed_weight"][:3]
    elif damage == "config":
        uns["config"] = "{broken"
    elif damage == "newer":
        uns["format"] = 99
    else:
        del uns["representation"]
    with pytest.raises(ValueError, match="update wlm" if damage == "newer" else "is damaged.*run wlm.tl.fit again"):
        wlm.tl.predict(fitted, 2)


@pytest.mark.parametrize(
    ("holdout", "ask", "said"), [(None, 4.5, True), (3, 4.5, True), (None, 3.5, False), (4, 4, False)]
)
def test_a_forecast_that_nothing_has_checked_says_so(cells, quick, caplog, holdout, ask, said):
    wlm.tl.fit(cells, "day", holdout=holdout, **quick)
    with caplog.at_level("WARNING", logger="wlm"):
        wlm.tl.predict(cells, ask)
    assert (f"unchecked forecast: {ask} is {ask - 4:g} after the last training time, 4, and no " in caplog.text) == said
