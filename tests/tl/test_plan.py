"""``tl.plan`` on populations whose course is known."""

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import wlm

DAYS = np.arange(4.0)


def moving(centres, n=60, seed=0, days=DAYS):
    """Round populations with these centres, which stand at the fitted times."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([np.asarray(c, dtype=float) + 0.3 * rng.normal(size=(n, 2)) for c in centres])
    obs = pd.DataFrame({"day": np.repeat(days, n)}, index=[f"cell{i}" for i in range(len(x))])
    return ad.AnnData(obs=obs, obsm={"X_pca": x.astype(np.float32)})


def fitted(centres, method="flow", **more):
    adata = moving(centres, **more)
    wlm.tl.fit(adata, "day", method=method, show_progress=False, backtest=False)
    return adata


@pytest.fixture(scope="module")
def _bend():
    """At rest, but for a sharp turn between the days 1 and 2."""
    return fitted([(0, 0), (0.2, 0), (0.2, 4), (0.2, 4.2)])


@pytest.fixture
def bend(_bend):
    return _bend.copy()


def test_a_sharp_turn_is_where_the_pick_falls(bend):
    before = bend.copy()
    table = wlm.tl.plan(bend)
    assert 1 < table["time"].iloc[0] < 2
    assert (
        table.attrs["verdict"].startswith("sample day 1.") and "gains more than evenly spaced" in table.attrs["verdict"]
    )
    assert table.attrs["advantage"]["low"] > 0 and table["gain"].iloc[0] > table["even_gain"].iloc[0]
    assert set(bend.uns) == set(before.uns) and set(bend.obs) == set(before.obs), "nothing is written"
    found = pd.DataFrame(table.attrs["open"])
    assert found.loc[found["disagreement"].idxmax(), "time"] == pytest.approx(1.5, abs=0.3)
    assert (found["low"] <= found["disagreement"]).all() and (found["disagreement"] <= found["high"]).all()
    assert (found["left"] <= found["disagreement"] + 1e-9).all() and found["gain"].isna().sum() == 4


def test_uniform_motion_is_as_well_sampled_evenly():
    table = wlm.tl.plan(fitted([(t, 0.5 * t) for t in DAYS]))
    assert table.attrs["verdict"].startswith("evenly spaced is as good: 0.5 (")
    assert table.attrs["advantage"]["low"] <= 0


def test_a_picked_day_takes_away_the_disagreement_around_it(bend):
    table = wlm.tl.plan(bend, n_times=2)
    first, second = table["time"]
    assert first != second and table["disagreement"].iloc[1] < table["disagreement"].iloc[0]
    assert table["gain"].is_monotonic_decreasing and table["even_gain"].is_monotonic_increasing
    assert table["share"].sum() < 1


def test_the_same_seed_gives_the_same_plan_and_cells_of_other_days_do_not_matter(bend):
    ours, again = (wlm.tl.plan(bend, rng=3, n_courses=12) for _ in range(2))
    pd.testing.assert_frame_equal(ours, again)
    assert json.dumps(ours.attrs) == json.dumps(again.attrs)
    other = wlm.tl.plan(bend, rng=4, n_courses=12)
    assert other["gain"].iloc[0] != ours["gain"].iloc[0]


def test_candidates_and_times_past_the_last(bend):
    table = wlm.tl.plan(bend, candidates=["day 0.5", "2.5"], n_courses=12)
    assert table["time"].iloc[0] in (0.5, 2.5)
    ahead = wlm.tl.plan(bend, until=6, n_courses=12)
    assert pd.DataFrame(ahead.attrs["open"])["time"].max() == 6 and ahead.attrs["observed"] == DAYS.tolist()
    assert wlm.tl.plan(bend, candidates=[1.5, 5], n_courses=12).attrs["open"]["time"][-1] == 5


def test_cells_are_as_many_as_pay(bend):
    assert wlm.tl.plan(bend, n_courses=12)["n_cells"].iloc[0] == 50, "the turn is wider than the noise of few cells"
    assert wlm.tl.plan(bend, n_cells=70, n_courses=12)["n_cells"].iloc[0] == 70
    slow = fitted([(0.8 * t, 0) for t in DAYS])
    row = wlm.tl.plan(slow, n_courses=12).iloc[0]
    assert 50 < row["n_cells"] < 600 and row["floor"] ** 2 == pytest.approx(row["disagreement"] ** 2 / 9, rel=0.02)
    cheap, dear = (wlm.tl.plan(slow, cost=c, n_courses=12).iloc[0] for c in (500, 5000))
    assert dear["n_cells"] == pytest.approx(np.sqrt(10) * cheap["n_cells"], rel=0.3), "as the root of the cost of a day"
    assert dear["cost"] == 5000 + dear["n_cells"] and dear["gain_per_cost"] == dear["gain"] / dear["cost"]
    days = {0.5: 1.0, 1.5: 1e6}
    assert wlm.tl.plan(bend, cost={"day": days}, candidates=[0.5, 1.5], n_courses=12)["time"].iloc[0] == 0.5


@pytest.mark.slow
def test_models_of_an_ensemble_weights_and_growth_take_part():
    adata = moving([(t, 0.0) for t in DAYS], n=30)
    adata.obs["w"] = 1.0 + np.arange(adata.n_obs) % 2
    small = {"n_steps": 3, "batch_size": 32, "width": 8, "heads": 2, "hidden": 8, "n_inducing": 2}
    more = {"show_progress": False, "weight_key": "w", "n_models": 2, "growth": True}
    wlm.tl.fit(adata, "day", holdout=2, **small, **more)
    table = wlm.tl.plan(adata, candidates=[0.5, 2], n_courses=12)
    assert table.attrs["observed"] == [0.0, 1.0, 3.0], "held-out cells are not looked at"
    assert np.isfinite(pd.DataFrame(table.attrs["open"])["disagreement"]).all()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"key": "none"}, KeyError, "run wlm.tl.fit"),
        ({"n_times": 0}, ValueError, "n_times must be an integer of at least 1"),
        ({"n_courses": 3}, ValueError, "n_courses must be an integer of at least 12"),
        ({"n_cells": 1}, ValueError, "n_cells must be an integer of at least 2"),
        ({"pace": -1}, ValueError, "pace must be a number from 0 to 2"),
        ({"candidates": [1]}, ValueError, r"candidates \[1.0\] were sampled"),
        ({"candidates": [-1]}, ValueError, "before the first training time"),
        ({"candidates": [0.5], "n_times": 2}, ValueError, "cannot be picked of 1 candidate"),
        ({"candidates": [7], "until": 5}, ValueError, "after until=5"),
        ({"until": 2}, ValueError, "until must be one time after the last"),
        ({"cost": "much"}, TypeError, "cost must be a number"),
        ({"cost": -1}, ValueError, "must not be negative"),
        ({"cost": {"days": 1}}, ValueError, "cost must name 'day', 'cell' or both"),
        ({"cost": {"day": {0.5: 1.0}}, "candidates": [0.5, 1.5]}, ValueError, r"no entry for the candidates \[1.5\]"),
        ({"cost": {"cell": 0}}, ValueError, "what is free needs no plan"),
    ],
)
def test_refusals(bend, arguments, error, words):
    with pytest.raises(error, match=words):
        wlm.tl.plan(bend, **arguments)


def test_two_times_and_fits_by_condition_are_refused():
    with pytest.raises(ValueError, match="nothing of how the motion bends between them; sample the middle, 0.5"):
        wlm.tl.plan(fitted([(0, 0), (1, 0)], days=DAYS[:2]))
    adata = moving([(t, 0) for t in DAYS])
    adata.obs["arm"] = np.where(np.arange(adata.n_obs) % 2, "a", "b")
    wlm.tl.fit(adata, "day", condition_key="arm", method="flow", show_progress=False, backtest=False)
    with pytest.raises(ValueError, match="stands for a fit of each condition; choose one: key='wlm_a'"):
        wlm.tl.plan(adata)
    assert len(wlm.tl.plan(adata, key="wlm_a", n_courses=12)) == 1
