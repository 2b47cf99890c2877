"""The last training time, predicted from the others, decides what forecasts follow."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import wlm
from wlm.core.field import agreed
from wlm.core.forecast import PACES
from wlm.core.metrics import w1

SMALL = {"n_steps": 30, "batch_size": 64, "width": 16, "hidden": 32, "n_inducing": 4, "show_progress": False}


def moving(where, times=range(6), n=60, rng=0):
    """New cells at each time; ``where`` moves cells (n, 2) that start in a small cloud to their time."""
    rng = np.random.default_rng(rng)
    x = [where(rng.normal(size=(n, 2)) * 0.1, float(t)) for t in times]
    adata = ad.AnnData(obs=pd.DataFrame({"day": np.repeat(list(times), n).astype(float)}))
    adata.obs_names = [f"c{i}" for i in range(adata.n_obs)]
    adata.obsm["X_pca"] = np.concatenate(x).astype("f4")
    return adata


def turning(x, t):
    c, s = np.cos(0.6 * t), np.sin(0.6 * t)
    return (x + [1.0, 0.0]) @ np.array([[c, s], [-s, c]])


def arrived(x, t):
    """Cells that come to rest at time 3."""
    return x + [min(t, 3.0), 0.0]


@pytest.fixture(scope="module")
def round_and_round():
    adata = moving(turning)
    wlm.tl.fit(adata, "day", **SMALL)
    return adata


def test_a_circle_is_forecast_along_the_field(round_and_round):
    note = round_and_round.uns["wlm"]["forecast"]
    assert (note["by"], note["share"], note["time"], note["lead"]) == ("field", 1.0, 5.0, 1.0)
    assert list(note["names"]) == ["model", "straight", "field"] and note["w1"].shape == (3, len(PACES))
    # The first column is a copy of the cells before, whoever leads.
    assert np.ptp(note["w1"][:, 0]) == 0 and note["w1"][2, -1] == note["w1"].min()
    truth = turning(np.zeros((1, 2)), 6.0)
    predicted = wlm.tl.predict(round_and_round, 6.0)
    assert np.linalg.norm(predicted.obsm["X_pca"].mean(0) - truth) < 0.1
    assert predicted.uns["wlm_prediction"]["forecast"] == {"by": "field", "share": 1.0}
    # Its velocity turns with it.
    expected = 0.6 * np.array([-truth[0, 1], truth[0, 0]])
    assert np.linalg.norm(predicted.obsm["wlm_velocity"].mean(0) - expected) < 0.15


def test_it_is_stored(round_and_round, tmp_path):
    round_and_round.write_h5ad(tmp_path / "fit.h5ad")
    again = ad.read_h5ad(tmp_path / "fit.h5ad")
    for t in (5.5, 6.0):
        x, y = (wlm.tl.predict(a, t).obsm["X_pca"] for a in (round_and_round, again))
        np.testing.assert_array_equal(x, y)


def test_inner_times_and_other_starts_are_the_models(round_and_round):
    alone = round_and_round.copy()
    wlm.tl.fit(alone, "day", backtest=False, **SMALL)
    assert "forecast" not in alone.uns["wlm"]
    for ask in ({"times": 2.5}, {"times": 6.0, "from_time": 4.0}):
        x, y = (wlm.tl.predict(a, **ask) for a in (round_and_round, alone))
        np.testing.assert_array_equal(x.obsm["X_pca"], y.obsm["X_pca"])
    assert (
        np.abs(wlm.tl.predict(alone, 6.0).obsm["X_pca"] - wlm.tl.predict(round_and_round, 6.0).obsm["X_pca"]).max() > 0
    )


def test_cells_that_have_arrived_stay(caplog):
    adata = moving(arrived, times=range(7))
    with caplog.at_level("INFO", logger="wlm"):
        wlm.tl.fit(adata, "day", **SMALL)
    note = adata.uns["wlm"]["forecast"]
    assert note["share"] < 1 and note["w1"].min() <= note["w1"][0, 0]
    if note["share"] == 0:
        predicted = wlm.tl.predict(adata, 7.0)
        np.testing.assert_array_equal(predicted.obsm["X_pca"], adata[adata.obs["day"] == 6].obsm["X_pca"])
    assert "forecasts " in caplog.text and "a copy" in caplog.text


def test_the_last_time_is_not_seen_by_its_own_forecast(round_and_round):
    """Cells of the last time somewhere else change its scores, and not what is compared with them."""
    moved = round_and_round.copy()
    moved.obsm["X_pca"] = moved.obsm["X_pca"].copy()
    moved.obsm["X_pca"][moved.obs["day"] == 5] += np.float32(1e-4)
    wlm.tl.fit(moved, "day", **SMALL)
    a, b = (x.uns["wlm"]["forecast"]["w1"] for x in (round_and_round, moved))
    assert np.abs(a - b).max() < 2e-4  # each by the shift at most


def test_held_out_times_take_no_part(round_and_round):
    adata = round_and_round.copy()
    wlm.tl.fit(adata, "day", holdout=[5], **SMALL)
    assert adata.uns["wlm"]["forecast"]["time"] == 4.0
    assert adata.uns["wlm"]["coverage"]["times"] == [5.0]


def test_evaluation_forecasts_as_predict_does(round_and_round):
    options = {k: v for k, v in SMALL.items() if k != "show_progress"}
    table = wlm.tl.evaluate(round_and_round, "day", holdout=[5], metrics="w1", n_boot=0, **options)
    adata = round_and_round.copy()
    wlm.tl.fit(adata, "day", holdout=[5], **SMALL)
    predicted = wlm.tl.predict(adata, 5.0)
    expected = w1(predicted.obsm["X_pca"], adata[adata.obs["day"] == 5].obsm["X_pca"])
    assert table.loc[table["model"] == "wlm", "w1"].item() == pytest.approx(expected, rel=1e-5)
    without = wlm.tl.evaluate(round_and_round, "day", holdout=[5], metrics="w1", n_boot=0, backtest=False, **options)
    assert without.loc[without["model"] == "wlm", "w1"].item() != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("ask", "said"), [(5.9, False), (6.0, False), (6.1, True)])
def test_forecasts_beyond_the_tested_lead_are_warned_about(round_and_round, ask, said, caplog):
    wlm.tl.predict(round_and_round, ask)
    assert ("unchecked forecast" in caplog.text and "went 1 ahead" in caplog.text) == said


def test_an_ensemble_is_led_by_its_models(round_and_round):
    adata = round_and_round.copy()
    wlm.tl.fit(adata, "day", n_models=2, **SMALL)
    assert list(adata.uns["wlm"]["forecast"]["names"]) == ["model", "straight"]
    assert np.isfinite(wlm.tl.predict(adata, 6.0).obs["wlm_spread"]).all()


def test_two_times_have_no_back_test():
    for times in ([0, 1], [0, 1, 2, 30]):  # or a last one that nobody would forecast
        adata = moving(turning, times=times)
        wlm.tl.fit(adata, "day", **SMALL)
        assert "forecast" not in adata.uns["wlm"]
    with pytest.raises(TypeError, match="backtest must be True or False"):
        wlm.tl.fit(adata, "day", backtest="no", **SMALL)


def test_what_cells_follow_is_chosen_once_for_all_conditions():
    """One turns, so that position determines velocity; of the other, alone, nobody could say so."""
    rng = np.random.default_rng(3)
    a, b = moving(turning, n=60), moving(turning, n=60)
    b.obsm["X_pca"] = rng.normal(size=b.obsm["X_pca"].shape).astype("f4")
    b.obs_names = "b" + b.obs_names
    alone = {}
    for name, part in (("a", a), ("b", b)):
        part.obs["arm"] = name
        own = part.copy()
        wlm.tl.fit(own, "day", method="flow", backtest=False, show_progress=False)
        alone[name] = own.uns["wlm"]["choice"]
    assert alone["a"]["path"] != alone["b"]["path"]
    both = ad.concat([a, b])
    wlm.tl.fit(both, "day", method="flow", condition_key="arm", backtest=False, show_progress=False)
    notes = {name: both.uns[f"wlm_{name}"]["choice"] for name in "ab"}
    assert notes["a"]["path"] == notes["b"]["path"] == agreed(list(alone.values()))
    changed = [name for name in "ab" if "alone" in notes[name]]
    assert changed and all(notes[n]["alone"] == alone[n]["path"] for n in changed)
    assert all("for all conditions together" in notes[n]["words"] for n in changed)
