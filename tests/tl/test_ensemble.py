"""Ensembles, bands, coverage, and what a fit says of its own forecasts."""

import logging
from dataclasses import replace

import anndata as ad
import joblib
import numpy as np
import pandas as pd
import pytest

import wlm
from wlm._adata.reading import Reading
from wlm._store.integrity import seal
from wlm.tl import _models as models

SMALL = {
    "wlm": {"width": 16, "hidden": 16, "n_inducing": 4},
    "wlm_paper": {"width": 16, "hidden": 16},
    "ijkonet": {"width": 16, "map_width": 16, "inner_steps": 1, "refine": 1},
    "jkonet_star": {"width": 16},
}


@pytest.fixture(scope="module")
def _ensemble(_bifurcation):
    options = {"n_steps": 8, "batch_size": 32, "show_progress": False, **SMALL["wlm"]}
    return wlm.tl.fit(_bifurcation, "day", holdout=[2, 4], n_models=3, copy=True, **options)


@pytest.fixture
def ensemble(_ensemble):
    return _ensemble.copy()


def test_the_first_model_is_the_fit_without_an_ensemble(ensemble, cells):
    options = {"n_steps": 8, "batch_size": 32, "show_progress": False, **SMALL["wlm"]}
    wlm.tl.fit(cells, "day", holdout=[2, 4], **options)
    for field in ("velocity", "force", "next"):
        assert np.array_equal(cells.obsm[f"wlm_{field}"], ensemble.obsm[f"wlm_{field}"], equal_nan=True)
    one, three = (wlm.tl.predict(a, [1.5, 3.5], rng=1) for a in (cells, ensemble))
    assert np.array_equal(one.obsm["X_pca"], three.obsm["X_pca"])
    assert "wlm_spread" in three.obs and "wlm_spread" not in one.obs
    assert "wlm_spread" in ensemble.obs and "wlm_spread" not in cells.obs
    assert (three.uns["wlm_prediction"]["upper"] - one.uns["wlm_prediction"]["upper"]).any()


def test_spread_and_bands_are_those_of_the_models(ensemble):
    uns = ensemble.uns["wlm"]
    assert uns["ensemble"]["friction"].shape == (3,) and len(set(uns["ensemble"]["friction"])) == 3
    assert uns["ensemble"]["friction"][0] == pytest.approx(uns["friction"])
    assert list(uns["ensemble"]["models"]) == ["1", "2"]
    predicted = wlm.tl.predict(ensemble, [1, 2, 4], from_time=0, rng=0)
    note = predicted.uns["wlm_prediction"]
    x = predicted.obsm["X_pca"].reshape(3, -1, 5)
    for k in range(3):
        inside = (x[k] >= note["lower"][k]) & (x[k] <= note["upper"][k])
        assert 0.85 < inside.mean() <= 1
    assert note["mean_sd"].shape == (3, 5) and (note["mean_sd"] > 0).all()
    spread = predicted.obs["wlm_spread"].to_numpy().reshape(3, -1).mean(1)
    assert (np.diff(spread) > 0).all(), "models that were trained little drift apart"


def test_coverage_at_held_out_times_and_the_horizon_are_those_of_predictions(ensemble):
    found = ensemble.uns["wlm"]["coverage"]
    assert found["times"].tolist() == [2, 4] and found["lead"].tolist() == [1, 1] and found["nominal"] == 0.95
    predicted = wlm.tl.predict(ensemble, [2, 4], rng=ensemble.uns["wlm"]["params"]["seed"])
    note = predicted.uns["wlm_prediction"]
    for k, t in enumerate((2, 4)):
        x = ensemble.obsm["X_pca"][ensemble.obs["day"] == t]
        inside = (x >= note["lower"][k]) & (x <= note["upper"][k])
        assert inside.mean() == pytest.approx(found["measured"][k])
    assert found["horizon"] == (1 if found["measured"][1] >= 0.85 else 0)


def test_a_forecast_beyond_the_horizon_is_warned_about(ensemble, caplog):
    ensemble.uns["wlm"]["coverage"]["horizon"] = 1.0
    ensemble.uns["wlm"] = seal(ensemble.uns["wlm"])
    logging.getLogger("wlm").addHandler(caplog.handler)
    try:
        wlm.tl.predict(ensemble, [2, 4])
        assert "horizon" not in caplog.text
        wlm.tl.predict(ensemble, 4.5)
    finally:
        logging.getLogger("wlm").removeHandler(caplog.handler)
    assert "4.5 is beyond the forecast horizon" in caplog.text


@pytest.mark.parametrize("method", ["ijkonet", "jkonet_star"])
def test_every_method_has_ensembles_that_survive_a_file(cells, method, tmp_path):
    options = {"method": method, "n_steps": 4, "batch_size": 32, "show_progress": False, **SMALL[method]}
    wlm.tl.fit(cells, "day", holdout=2, n_models=2, n_dims=2, **options)
    cells.write_h5ad(tmp_path / "fit.h5ad")
    back = ad.read_h5ad(tmp_path / "fit.h5ad")
    one, two = (wlm.tl.predict(a, [2, 3.5], rng=1) for a in (cells, back))
    assert np.array_equal(one.obs["wlm_spread"], two.obs["wlm_spread"])
    assert one.obs["wlm_spread"].max() > 0, "other seeds must give other models"


@pytest.mark.slow
def test_ensembles_with_weights_velocities_and_conditions(cells, quick):
    cells.obs["w"] = np.random.default_rng(0).uniform(0.5, 2, cells.n_obs)
    cells.obs["treatment"] = np.where(np.arange(cells.n_obs) % 2, "a", "b")
    cells.obsm["v"] = np.random.default_rng(1).normal(size=(cells.n_obs, 5)) + 1
    more = {"n_models": 2, "weight_key": "w", "velocity_key": "v", "condition_key": "treatment", "holdout": 2}
    wlm.tl.fit(cells, "day", **more, **{**quick, "n_steps": 3})
    assert np.isfinite(cells.obs["wlm_spread"][cells.obs["day"] < 4]).all()
    predicted = wlm.tl.predict(cells, 2)
    assert {"wlm_spread", "wlm_outside", "w", "treatment"} <= set(predicted.obs)
    assert np.isfinite(predicted.obs["wlm_spread"]).all()


@pytest.mark.slow
def test_models_trained_side_by_side_are_the_same(cells, quick):
    one = wlm.tl.fit(cells, "day", n_models=2, copy=True, **quick)
    with joblib.parallel_config(n_jobs=2):
        two = wlm.tl.fit(cells, "day", n_models=2, copy=True, **quick)
    # Workers may have another number of threads, and sums then another order.
    np.testing.assert_allclose(one.obs["wlm_spread"], two.obs["wlm_spread"], rtol=1e-3)
    np.testing.assert_allclose(one.obsm["wlm_next"], two.obsm["wlm_next"], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["threading", "multiprocessing"])
def test_other_backends_of_joblib(cells, quick, backend):
    quick = {**quick, "n_steps": 2}
    one = wlm.tl.fit(cells, "day", n_models=3, copy=True, **quick)
    with joblib.parallel_config(backend=backend, n_jobs=3):
        several = wlm.tl.fit(cells, "day", n_models=3, copy=True, **quick)
        with pytest.raises(ValueError, match="needs trainings in this process"):
            wlm.tl.fit(cells, "day", on_interrupt="keep", n_models=2, **quick)
        wlm.tl.fit(cells, "day", on_interrupt="keep", **quick)  # a single one is not sent anywhere
    np.testing.assert_allclose(one.obs["wlm_spread"], several.obs["wlm_spread"], rtol=1e-3)


def test_one_cell_is_no_data_to_leave(fitted):
    one = fitted[fitted.obs["day"] == 3][:1].copy()
    assert not wlm.tl.predict(one, 3.5).obs["wlm_outside"].any()


def test_cells_that_leave_the_data_are_flagged(fitted):
    plain = wlm.tl.predict(fitted, 2)
    assert plain.obs["wlm_outside"].mean() < 0.2
    fitted.obsm["wlm_velocity"] = fitted.obsm["wlm_velocity"] + 100
    assert wlm.tl.predict(fitted, 9).obs["wlm_outside"].all()


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "3"])
def test_impossible_ensembles_are_refused(cells, n):
    with pytest.raises(ValueError, match="n_models must be an integer of at least 1"):
        wlm.tl.fit(cells, "day", n_models=n)


def donors(n=20, shift=1.0, seed=0):
    """Four donors followed over three days, of whom each has a place of its own, and a fifth seen on the last day."""
    rng = np.random.default_rng(seed)
    rows = [(day, f"d{k}", [k * shift, 2.0 * day]) for day in range(3) for k in range(4)] + [(2, "late", [9.0, 4.0])]
    x = np.concatenate([rng.normal(scale=0.3, size=(n, 2)) + place for *_, place in rows]).astype(np.float32)
    obs = pd.DataFrame({"day": np.repeat([r[0] for r in rows], n), "donor": np.repeat([r[1] for r in rows], n)})
    obs.index = [f"c{i}" for i in range(len(obs))]
    return ad.AnnData(obs=obs, obsm={"X_pca": x})


def test_samples_are_drawn_again_among_those_seen_at_the_same_times():
    adata = donors()
    cells = Reading(time_key="day", use_rep="X_pca", sample_key="donor").parts(adata)[""].cells
    names = np.array([adata.obs["donor"].to_numpy()[np.argmax(cells.samples == k)] for k in range(5)])
    assert [sorted(names[block]) for block in cells.exchangeable(cells.samples)] == [["d0", "d1", "d2", "d3"], ["late"]]
    totals = np.zeros(5)
    for seed in range(200):
        again = cells.resampled(cells.samples, seed)
        kept = np.isfinite(again.times)
        weights = [set(again.w[kept & (cells.samples == k)]) for k in range(5)]
        assert all(len(w) <= 1 for w in weights), "all cells of a sample count the same"
        count = np.array([next(iter(w), 0.0) for w in weights])
        assert count[names == "late"] == 1 and count.sum() == 5, "as many samples as there were"
        assert np.array_equal(kept, count[cells.samples] > 0)
        totals += count
    np.testing.assert_allclose(totals / 200, 1, atol=0.2)
    heavy = replace(cells, w=np.full(len(cells.x), 3.0)).resampled(cells.samples, 1)
    kept = np.isfinite(heavy.times)
    assert set(heavy.w[kept] / cells.resampled(cells.samples, 1).w[kept]) == {3.0}, "weights of cells stay"


def test_every_model_but_the_first_trains_on_samples_drawn_again(caplog, monkeypatch):
    trained, train = [], models.train
    monkeypatch.setattr(models, "train", lambda p, *a, **k: trained.append(p) or train(p, *a, **k))
    adata = donors(shift=3.0)
    options = {"n_models": 3, "n_steps": 4, "batch_size": 32, "backtest": False, "show_progress": False, **SMALL["wlm"]}
    seeds = wlm.tl.fit(adata, "day", copy=True, **options)
    samples = wlm.tl.fit(adata, "day", sample_key="donor", copy=True, **options)
    assert "1 of 5 samples of obs['donor'] were seen at times as no other was" in caplog.text
    assert samples.uns["wlm"]["params"]["sample_key"] == "donor"
    assert all(p.weights is None and [len(x) for x in p.positions] == [80, 80, 100] for p in trained[:4])
    most = []
    for p in trained[4:]:  # four donors, drawn with replacement, by how often: the same at all times
        counts = [np.bincount(np.round(p.positions[k][:, 0] / 3).astype(int), p.weights[k], 4) for k in range(2)]
        assert counts[0].sum() == 80 and p.weights[2].sum() == 100 and np.array_equal(counts[0], counts[1])
        most.append(counts[0].max())
    assert max(most) > 20
    assert np.array_equal(seeds.obsm["wlm_velocity"], samples.obsm["wlm_velocity"]), "the first is the fit to all cells"
    assert samples.obs["wlm_spread"].mean() > seeds.obs["wlm_spread"].mean()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_models": 1}, "pass n_models=5, or leave sample_key out"),
        ({"sample_key": "apart"}, "no two samples of obs\\['apart'\\] were seen at the same training times"),
        ({"sample_key": "holes"}, "obs\\['holes'\\] is missing for 20 of 260 cells"),
    ],
)
def test_samples_that_cannot_be_drawn_again_are_refused(change, message):
    adata = donors()
    adata.obs["apart"] = adata.obs["day"].astype(str)
    adata.obs["holes"] = adata.obs["donor"].where(adata.obs["donor"] != "late")
    with pytest.raises(ValueError, match=message):
        wlm.tl.fit(adata, "day", **{"sample_key": "donor", "n_models": 2, "show_progress": False, **change})
    assert "wlm" not in adata.uns
