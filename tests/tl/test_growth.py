"""Growth through the verbs: what is read, written and refused, on cells whose rates are known."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import wlm
from wlm.core.growth import effective_share
from wlm.core.methods import WLM

SMALL = {
    "use_rep": "X_position",
    "show_progress": False,
    **{"n_steps": 8, "batch_size": 64, "width": 8, "heads": 2, "hidden": 8, "n_inducing": 2},
}


@pytest.fixture(scope="module")
def _cells():
    adata = wlm.datasets.branching_growth(60, days=(0, 2, 3, 4), n_founders=300)
    adata.obs["size"] = adata.obs["day"].map(dict(zip([0, 2, 3, 4], adata.uns["truth"]["sizes"], strict=True)))
    return adata


@pytest.fixture
def cells(_cells):
    return _cells.copy()


@pytest.fixture(scope="module")
def _known(_cells):
    """Rates taken as they are, by two models: nothing of growth is learned."""
    adata = _cells.copy()
    wlm.tl.fit(adata, "day", growth="prior", growth_key="true_growth", n_models=2, holdout=3, **SMALL)
    return adata


@pytest.fixture
def known(_known):
    return _known.copy()


def test_rates_that_are_taken_as_they_are_come_back_less_the_mean_of_each_time(known):
    truth = known.obs["true_growth"] - known.obs.groupby("day")["true_growth"].transform("mean")
    np.testing.assert_allclose(known.obs.groupby("day")["wlm_growth"].mean(), 0, atol=1e-6)
    np.testing.assert_allclose(known.obs["wlm_growth"], truth, atol=1e-6)  # each cell's own, not those around it
    assert (known.obs["wlm_growth_agreement"] == 1).all()
    np.testing.assert_allclose(known.obs["wlm_growth_spread"], 0, atol=1e-6)  # whatever cells a model was trained on
    notes = known.uns["wlm"]["growth"]
    assert notes["mode"] == "prior" and notes["relative"] and notes["prior_scale"] == 1 and notes["prior_r2"] > 0.9
    assert "relative to the mean" in notes["words"] and "mean_rate" not in notes


def test_rates_that_are_unknown_are_those_of_the_cells_around(cells):
    cells.obs["some"] = cells.obs["true_growth"].where(np.arange(cells.n_obs) % 2 == 0)
    wlm.tl.fit(cells, "day", growth="prior", growth_key="some", totals="size", **SMALL)
    known, level = cells.obs["some"].notna(), cells.uns["wlm"]["growth"]["mean_rate"][0]
    off = cells.obs["wlm_growth"] - cells.obs["true_growth"]
    assert off[known].std() < 1e-6 < off[~known].std() < 0.2
    first = cells.obs["day"] == 0
    assert cells.obs["wlm_growth"][first].mean() == pytest.approx(level), "absolute rates and their mean agree"


def test_all_models_but_the_first_redraw_the_cells_if_they_grow(cells, monkeypatch):
    """The first model is the fit alone; the others differ in their rates; where nothing grows, seeds alone differ."""
    asked, plain = [], wlm.tl._models.train
    monkeypatch.setattr("wlm.tl._models.train", lambda *a, **k: asked.append(k["redraw"]) or plain(*a, **k))
    short = {**SMALL, "n_steps": 2, "backtest": False}
    wlm.tl.fit(cells, "day", growth=True, **short)
    alone = cells.obs["wlm_growth"].copy()
    assert asked == [False] and "wlm_growth_spread" not in cells.obs
    wlm.tl.fit(cells, "day", growth=True, n_models=3, **short)
    np.testing.assert_array_equal(cells.obs["wlm_growth"], alone)
    assert asked[1:] == [False, True, True] and cells.obs["wlm_growth_spread"].min() > 0
    wlm.tl.fit(cells, "day", n_models=2, **short)
    assert asked[4:] == [False, False] and "wlm_growth_spread" not in cells.obs


def test_descendants_are_one_on_average_and_those_of_the_rates(known):
    by_day = known.obs.groupby("day")["wlm_descendants"]
    np.testing.assert_allclose(by_day.mean()[[0, 2, 3]], 1, atol=1e-5)
    assert by_day.count()[4] == 0
    late = known.obs["day"] == 3  # where nobody moves far: e^(rate x one day), over its mean
    expected = np.exp(known.obs["wlm_growth"][late])
    assert np.corrcoef(known.obs["wlm_descendants"][late], expected)[0, 1] > 0.95


def test_predictions_carry_weights_and_start_with_what_the_rollout_kept(known):
    rollout = known.uns["wlm"]["rollout"]
    assert rollout["weights"].shape == rollout["positions"].shape[:2]
    np.testing.assert_allclose(rollout["weights"].mean(1), 1, atol=1e-5)
    np.testing.assert_allclose(
        effective_share(rollout["weights"][-1]), known.uns["wlm"]["growth"]["ess"][-1], rtol=1e-4
    )
    predicted = wlm.tl.predict(known, [3.5, 4.5])
    np.testing.assert_allclose(predicted.obs.groupby("day")["wlm_weight"].mean(), 1)
    assert predicted.obs["wlm_weight"].std() > 0.05
    note = predicted.uns["wlm_prediction"]
    assert not note["resampled"].any() and (note["ess"] < 1).all()
    w = predicted.obs["wlm_weight"][predicted.obs["day"] == 3.5].to_numpy()
    assert note["ess"][0] == pytest.approx(effective_share(w))


@pytest.mark.parametrize("asked", [{"resample": True}, {"n_cells": 4000}])
def test_rows_in_place_of_weights_hold_the_same_population(known, asked):
    """Each start cell has as many rows as its weight says: exactly, up to rounding, or in a large sample."""
    weighted = wlm.tl.predict(known, 4.5)
    drawn = wlm.tl.predict(known, 4.5, **asked)
    n = len(drawn)
    expected = pd.Series(weighted.obs["wlm_weight"].to_numpy() * n / len(weighted), index=weighted.obs["origin"])
    copies = drawn.obs["origin"].value_counts().reindex(expected.index, fill_value=0)
    limit = 1 if "resample" in asked else 5 * np.sqrt(expected)
    assert (np.abs(copies - expected) <= limit + 1e-9).all()
    np.testing.assert_allclose(drawn.obs["wlm_weight"], 1)
    assert drawn.uns["wlm_prediction"]["resampled"].all()


def test_weights_that_degenerate_become_rows(cells):
    """The branch that a fifth of the cells is in takes over: soon few cells stand for all."""
    cells.obs["fast"] = -4 * cells.obs["true_growth"]
    wlm.tl.fit(cells, "day", growth="prior", growth_key="fast", **SMALL)
    predicted = wlm.tl.predict(cells, 7, from_time=4)
    note = predicted.uns["wlm_prediction"]
    assert (note["ess"] < 0.3).all() and note["resampled"].all()
    assert predicted.obs["origin"].nunique() < len(predicted)
    np.testing.assert_allclose(predicted.obs["wlm_weight"], 1)
    kept = wlm.tl.predict(cells, 7, from_time=4, resample=False)
    assert kept.obs["wlm_weight"].max() > 3


@pytest.mark.parametrize("totals", ["dict", "size"])
def test_totals_make_rates_absolute(cells, totals):
    """The whole population grows from 300 to some 2,400 cells in four days: a mean rate of log(8) / 4."""
    sizes = dict(zip(["day 0", "day 2", "day 3", "day 4"], cells.uns["truth"]["sizes"], strict=True))
    wlm.tl.fit(cells, "day", growth=True, totals=sizes if totals == "dict" else "size", **SMALL)
    notes, rate = cells.uns["wlm"]["growth"], np.log(cells.obs["size"].max() / 300) / 4
    assert not notes["relative"] and "absolute" in notes["words"]
    assert notes["mean_rate"].mean() == pytest.approx(rate, abs=0.08)
    assert cells.obs["wlm_growth"].mean() == pytest.approx(rate, abs=0.08)
    weights = wlm.tl.predict(cells, 4, from_time=0).obs["wlm_weight"]
    # Untrained cells stay where they were on day 0, and multiply as the mean cell there does.
    assert weights.mean() == pytest.approx(np.exp(4 * notes["mean_rate"][0]), rel=0.1)


def test_numbers_of_cells_are_no_sizes(cells):
    """Half of the cells of the last day say nothing: rates are relative, whatever was sampled."""
    few = cells[~((cells.obs["day"] == 4) & (np.arange(cells.n_obs) % 2 == 0))].copy()
    wlm.tl.fit(few, "day", growth=True, **SMALL)
    assert few.uns["wlm"]["growth"]["relative"]
    np.testing.assert_allclose(few.obs.groupby("day")["wlm_growth"].mean(), 0, atol=1e-6)


def test_a_fit_with_growth_survives_its_file(known, tmp_path):
    predicted = wlm.tl.predict(known, [3.5])
    known.write_h5ad(tmp_path / "a.h5ad")
    known.write_zarr(tmp_path / "a.zarr")
    for again in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
        other = wlm.tl.predict(again, [3.5])
        np.testing.assert_array_equal(other.obs["wlm_weight"], predicted.obs["wlm_weight"])
        np.testing.assert_array_equal(other.obs["wlm_spread"], predicted.obs["wlm_spread"])
        assert bool(again.uns["wlm"]["growth"]["relative"])
    report = wlm.tl.diagnose(known)
    assert report.loc["imbalance", "value"] < 0.05 and np.isfinite(report.loc["inertia", "value"])


def test_the_diagnosis_splits_changes_of_composition_into_growth_and_motion(known, tmp_path):
    """Between days 2 and 4 nobody changes branches: what changes is growth, with the rates that were given."""
    report = wlm.tl.diagnose(known, label_key="branch")
    table = report.attrs["composition"]
    np.testing.assert_allclose(table["change"], table["growth"] + table["motion"], atol=1e-12)
    assert np.abs(table.groupby("from")[["growth", "motion"]].sum()).to_numpy().max() < 1e-9, "shares sum to one"
    late = table[(table["from"] == 2) & (table["label"] == "A")].iloc[0]  # day 3 is held out
    there = known[known.obs["day"] == 2].obs
    w = np.exp(2 * there["true_growth"])
    expected = np.average(there["branch"] == "A", weights=w) - (there["branch"] == "A").mean()
    assert late["to"] == 4 and late["growth"] == pytest.approx(expected, abs=0.04)
    assert "growth changes the composition by" in report.attrs["verdict"]
    known.write_h5ad(tmp_path / "d.h5ad")
    again = ad.read_h5ad(tmp_path / "d.h5ad").uns["wlm_diagnosis"]["composition"]
    np.testing.assert_allclose(again["growth"], table["growth"])


def test_cells_that_are_conserved_change_the_composition_by_motion_alone(cells):
    wlm.tl.fit(cells, "day", **SMALL)
    report = wlm.tl.diagnose(cells, label_key="branch")
    assert not report.attrs["composition"]["growth"].any() and report.loc["grown", "value"] == 0
    with pytest.raises(KeyError, match="absent"):
        wlm.tl.diagnose(cells, label_key="absent")


def test_a_fit_without_growth_drops_what_one_with_growth_left(known):
    wlm.tl.fit(known, "day", **SMALL)
    assert not {"wlm_growth", "wlm_descendants", "wlm_growth_agreement"} & set(known.obs)
    assert "growth" not in known.uns["wlm"]
    assert "wlm_weight" not in wlm.tl.predict(known, 3.5).obs
    with pytest.raises(ValueError, match="conserves cells"):
        wlm.tl.predict(known, 3.5, resample=True)


def test_lineages_count_founders_and_cells_their_descendants(known):
    """Rates are the given ones, so that shares by lineages and by cells differ as masses say."""
    cells, lineages = (
        wlm.tl.composition(known, "branch", [0, 2, 4], n_cells=None, count=count) for count in ("cells", "lineages")
    )
    assert cells.attrs["count"] == "cells" and lineages.attrs["count"] == "lineages"
    assert lineages.attrs["missed"] == {} and lineages.loc[lineages["time"] > 0, "observed"].isna().all()
    first = lineages[lineages["time"] == 0].set_index("label")["observed"]
    assert first["A"] == pytest.approx((known.obs["branch"][known.obs["day"] == 0] == "A").mean())
    free = wlm.tl.predict(known, 4, from_time=0, labels="branch", resample=False)
    later = lineages[(lineages["time"] == 4) & (lineages["label"] == "A")].iloc[0]
    # Two models: the one that predict returns the cells of is the first, and the mean is near it.
    assert later["predicted"] == pytest.approx((free.obs["branch"] == "A").mean(), abs=0.1)
    with pytest.raises(ValueError, match="count must be one of"):
        wlm.tl.composition(known, "branch", count="clones")


@pytest.mark.slow
def test_evaluate_compares_fits_with_and_without_growth_by_weighted_scores(cells):
    options = {k: v for k, v in SMALL.items() if k != "show_progress"}
    table = wlm.tl.evaluate(
        cells,
        "day",
        method={"wlm": {}, "growth": {"method": "wlm", "growth": "prior"}},
        growth_key="true_growth",
        totals="size",
        holdout=[3, 4],
        metrics=("w1", "composition"),
        label_key="branch",
        n_boot=20,
        **options,
    )
    fits = table[table["time"] == 4]
    assert set(fits["model"]) == {"wlm", "growth", "previous", "floor"}
    assert "relaxed_midpoint" in set(table["model"][table["time"] == 3])
    judged = table.attrs["growth"]
    assert [(r["model"], r["metric"], r["start"]) for r in judged] == [
        ("growth", "w1", 2.0),
        ("growth", "composition", 2.0),
        ("growth", "size", 2.0),
    ]
    assert judged[2]["growth_ratio"] == pytest.approx(1, abs=0.3), "the level of the rates comes from the totals"
    # Hardly trained cells stay where they were on day 2: without growth they have its composition.
    shares = cells.obs.groupby("day")["branch"].value_counts(normalize=True).unstack()["A"]
    assert judged[1]["conserved"] == pytest.approx(shares[4] - shares[2], abs=0.05)
    assert judged[1]["growth"] < judged[1]["conserved"]
    lines = table.attrs["verdict"].splitlines()
    assert lines[-3].startswith("growth ") and lines[-2].startswith("size of the last population")
    assert lines[-1].startswith("without a network: relative rates per unit of time")
    rates = {r["label"]: r for r in table.attrs["naive_growth"]}
    assert rates["A"]["slope"] == pytest.approx(-rates["B"]["slope"]) and rates["A"]["slope"] > 0
    table = table[table["time"] == 4]
    scores = table.groupby("model")["composition"].mean()
    assert {"wlm", "growth", "previous"} <= set(scores.index)
    # Weights alone change the shares from those of the day before, as the rates say.
    last = cells.obs["day"] == 3
    share = np.average(cells.obs["branch"][last] == "A", weights=np.exp(cells.obs["true_growth"][last]))
    observed = (cells.obs["branch"][cells.obs["day"] == 4] == "A").mean()
    assert scores["growth"] == pytest.approx(abs(share - observed), abs=0.05)


BAD = [
    ({"growth_key": "true_growth"}, "growth=False they are conserved"),
    ({"totals": "size"}, "growth=False they are conserved"),
    ({"growth": "prior"}, "name their column"),
    ({"growth": "yes"}, "must be one of"),
    ({"growth": True, "method": "flow"}, "conserves cells"),
    ({"growth": True, "method": "ijkonet"}, "conserves cells"),
    ({"growth": True, "method": "jkonet_star"}, "conserves cells"),
    ({"growth": True, "method": "wlm_paper"}, "conserves cells"),
    ({"growth": True, "growth_key": "branch"}, "are none"),
    ({"growth": True, "growth_key": "nan"}, "NaN for all but 0"),
    ({"growth": True, "growth_key": "one"}, "for all cells"),
    ({"growth": True, "growth_key": "fast"}, "faster than the sampling"),
    ({"growth": True, "totals": {0: 10, 2: 20}}, "lack the size of the population at 3, 4"),
    ({"growth": True, "totals": {0: 1, 2: 2, 3: 3, 4: -4}}, "must be positive"),
    ({"growth": True, "totals": {1: 5}}, "was not observed"),
    ({"growth": True, "totals": "true_growth"}, "one number for all its cells"),
    ({"growth": True, "totals": "size", "condition_key": "half", "growth_key": "nan"}, "NaN for all but 0"),
    ({"growth": True, "totals": {0: 1, 2: 2, 3: 3, 4: 4}, "condition_key": "half"}, "need a column of obs"),
]


@pytest.mark.parametrize(("asked", "words"), BAD)
def test_bad_input_is_refused_before_training(cells, asked, words, monkeypatch):
    monkeypatch.setattr("wlm.tl._models.train", lambda *a, **k: pytest.fail("training has begun"))
    cells.obs = cells.obs.assign(nan=np.nan, one=1.0, fast=20 * cells.obs["true_growth"])
    cells.obs["half"] = np.where(np.arange(cells.n_obs) % 2 == 0, "a", "b")
    before = cells.copy()
    options = {} if "method" in asked else SMALL
    with pytest.raises(ValueError, match=words):
        wlm.tl.fit(cells, "day", **{"use_rep": "X_position", **options, **asked})
    assert list(cells.obs) == list(before.obs) and "wlm" not in cells.uns


def test_what_is_no_size_or_column_is_named(cells):
    for asked, error in (
        ({"totals": 5}, TypeError),
        ({"totals": {0: "many"}}, TypeError),
        ({"growth_key": "x"}, KeyError),
    ):
        with pytest.raises(error, match=r"totals|obs"):
            wlm.tl.fit(cells, "day", growth=True, **SMALL, **asked)
    with pytest.raises(ValueError, match="draws cells by their weights already"):
        wlm.tl.fit(cells, "day", growth=True, **SMALL)
        wlm.tl.predict(cells, 3.5, n_cells=5, resample=True)
    with pytest.raises(ValueError, match="name it"):
        wlm.tl.evaluate(cells, "day", method={"growing": {"growth": True}}, use_rep="X_position")


def test_conditions_grow_each_by_itself(cells):
    cells.obs["half"] = np.where(np.arange(cells.n_obs) % 2 == 0, "a", "b")
    wlm.tl.fit(cells, "day", growth=True, totals="size", condition_key="half", **SMALL)
    assert {"wlm_a", "wlm_b"} <= set(cells.uns) and np.isfinite(cells.obs["wlm_growth"]).all()
    assert np.isfinite(wlm.tl.predict(cells, 3.5).obs["wlm_weight"]).all()


def test_rates_that_say_nothing_are_reported(cells, caplog):
    """Rates drawn at random are no matter of state, and those of the wrong sign lose their factor."""
    cells.obs["noise"] = np.random.default_rng(0).uniform(-1, 1, size=cells.n_obs)
    wlm.tl.fit(cells, "day", growth="prior", growth_key="noise", **SMALL)
    assert "hardly a matter of state" in caplog.text
    notes = wlm.tl._growth._warn
    notes({"times": np.arange(2.0), "ess": np.array([1.0, 0.2]), "prior_scale": 0.01}, np.array([[1, 1], [1, 1000.0]]))
    assert "overrule growth_key" in caplog.text and "faster than the sampling" in caplog.text
    assert "few cells of the first time stand for all" in caplog.text


def test_growth_is_a_setting_that_a_method_carries():
    assert WLM().grows is False and WLM(growth=True).grows and WLM(growth="prior").grows
    for bad in ({"growth": 1}, {"growth": "learned"}):
        with pytest.raises((ValueError, TypeError), match="growth"):
            WLM(**bad)
