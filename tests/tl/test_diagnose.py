"""The diagnosis: what it reports, writes, refuses."""

import anndata as ad
import numpy as np
import pytest

import wlm
from wlm._random import as_seed


@pytest.fixture
def moving(cells, quick):
    cells.obsm["v"] = np.random.default_rng(0).normal(size=(cells.n_obs, 5)).astype(np.float32)
    wlm.tl.fit(cells, "day", velocity_key="v", holdout=2, key_added="m", **quick)
    return cells


def test_the_report_and_what_is_written(fitted, tmp_path):
    keys = list(fitted.obs), list(fitted.obsm), {k: v for k, v in fitted.uns.items() if k != "wlm"}.keys()
    report = wlm.tl.diagnose(fitted)
    assert list(report.columns) == ["value", "unit", "meaning"]
    assert report.loc["friction", "value"] == fitted.uns["wlm"]["friction"]
    assert np.isnan(report.loc["friction_sd", "value"])
    assert 0 <= report.loc["inertia", "value"] <= 1 and abs(report.loc["alignment", "value"]) <= 1
    stored = fitted.uns["wlm_diagnosis"]
    total = stored["kinetic_path"] + stored["potential_path"] + stored["dissipated_path"]
    balance = report["value"]["kinetic"] + report["value"]["potential"] + report["value"]["dissipated"]
    assert balance == pytest.approx(total[-1] - total[0], abs=1e-6)
    fitted.write_h5ad(tmp_path / "d.h5ad")
    again = ad.read_h5ad(tmp_path / "d.h5ad")
    assert np.allclose(again.uns["wlm_diagnosis"]["times"], stored["times"])
    assert (list(fitted.obs), list(fitted.obsm)) == keys[:2]


@pytest.mark.slow
def test_other_seeds_refit_with_the_same_settings(fitted):
    report = wlm.tl.diagnose(fitted, seeds=3)
    stored = fitted.uns["wlm_diagnosis"]["friction_seeds"]
    assert len(stored) == 3 and stored[0] == fitted.uns["wlm"]["friction"] and len(set(stored)) == 3
    assert report.loc["friction_sd", "value"] == pytest.approx(np.std(stored, ddof=1))
    assert report.loc["friction", "value"] == stored[0]
    assert not [k for k in fitted.uns if "refit" in k]
    assert np.array_equal(wlm.tl.diagnose(fitted, seeds=3)["value"], report["value"])


@pytest.mark.slow
def test_gain_by_velocities_is_that_of_two_evaluations(moving, quick):
    report = wlm.tl.diagnose(moving, key="m", holdout=[2, 3], rng=np.random.default_rng(3))
    options = {k: v for k, v in quick.items() if k != "show_progress"}
    seed = as_seed(np.random.default_rng(3))
    with_v, without = (
        wlm.tl.evaluate(
            moving, "day", holdout=[2, 3], velocity_key=v, metrics=("w1",), baselines=False, rng=seed, **options
        )
        for v in ("v", None)
    )
    assert report.loc["velocity_gain", "value"] == pytest.approx(1 - with_v["w1"].mean() / without["w1"].mean())


@pytest.mark.slow
def test_a_refit_forgets_the_diagnosis_of_the_old_fit(fitted, quick):
    wlm.tl.diagnose(fitted)
    wlm.tl.fit(fitted, "day", rng=5, **quick)
    assert "wlm_diagnosis" not in fitted.uns


def test_other_cells_are_not_mixed_into_the_spread(fitted):
    half = fitted[::2].copy()
    with pytest.raises(ValueError, match="made on 300 cells, adata has 150"):
        wlm.tl.diagnose(half, seeds=2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"key": "other"}, KeyError, "run wlm.tl.fit"),
        ({"seeds": 0}, ValueError, "seeds must be an integer of at least 1"),
        ({"holdout": "each"}, ValueError, "fitted without velocities"),
    ],
    ids=str,
)
def test_impossible_diagnoses(fitted, call, error, message):
    with pytest.raises(error, match=message):
        wlm.tl.diagnose(fitted, **call)
    assert "wlm_diagnosis" not in fitted.uns


@pytest.mark.parametrize(("n_times", "n_cells"), [(2, 25), (2, 60), (3, 20), (3, 60)])
def test_the_verdict_does_not_say_more_than_the_cells_can(cells, quick, n_times, n_cells):
    """Two times fit many dynamics, inertial or not, and few cells are a weak hint."""
    keep = cells.obs["day"].lt(n_times) & (cells.obs.groupby("day").cumcount() < n_cells)
    adata = cells[keep].copy()
    wlm.tl.fit(adata, "day", **quick)
    verdict = wlm.tl.diagnose(adata).attrs["verdict"]
    assert verdict.startswith("two training times do not show") == (n_times == 2)
    assert ("the dynamics may be" in verdict and "20 cells is few" in verdict) == (n_times == 3 and n_cells == 20)
    assert verdict.startswith("the dynamics are") == (n_times == 3 and n_cells == 60)


@pytest.mark.parametrize("start", ["spline", "auto"])
def test_the_verdict_names_the_choice_of_paths_and_what_rests_on_it(cells, quick, start):
    adata = cells if start == "spline" else cells[cells.obs["day"] < 3].copy()
    wlm.tl.fit(adata, "day", initial_velocity=start, **quick)
    verdict = wlm.tl.diagnose(adata).attrs["verdict"]
    assert adata.uns["wlm"]["choice"]["words"] in verdict
    assert verdict.startswith("initial velocities are those of paths and not measured") == (start == "spline")


def test_bridged_predictions_of_training_times_are_those_of_a_fit_without_them(cells, quick):
    """Straight lines between neighbours: the middle of a population that moves steadily is met."""
    cells.obsm["X_pca"] = np.random.default_rng(0).normal(size=(cells.n_obs, 5)).astype(np.float32)
    cells.obsm["X_pca"][:, 0] += 10 * cells.obs["day"].to_numpy()
    still = {**quick, "n_steps": 1, "lr": 1e-9, "initial_velocity": "zero", "friction": 0.0}
    wlm.tl.fit(cells, "day", **still)
    wlm.tl.diagnose(cells)
    found, bridged = cells.uns["wlm"]["training_times"], cells.uns["wlm_diagnosis"]["bridged_w1"]
    assert len(bridged) == 5 and np.isnan(bridged[[0, -1]]).all()
    assert (bridged[1:-1] < 2 * found["floor"][:-1]).all() and (found["w1"] > 5 * found["floor"]).all()
    part = cells[cells.obs["day"] != 2].copy()
    wlm.tl.diagnose(part)
    assert np.isnan(part.uns["wlm_diagnosis"]["bridged_w1"]).all()  # each lacks a neighbour or itself
