"""``tl.evaluate(group_key=)``: donors left out, on populations whose differences between donors are known."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import wlm

FAST = {"method": "flow", "metrics": ("w1",), "device": "cpu"}


def donors(offsets, days=(0.0, 1.0, 2.0), n=25, seed=0, alone=()):
    """Donors at offsets in a dimension that nothing moves in; all move alike in the other, a unit a day."""
    rng, parts, obs = np.random.default_rng(seed), [], []
    for name, offset in offsets.items():
        for t in days:
            if (name, t) in alone:
                continue
            parts.append(np.array([t, offset]) + 0.2 * rng.normal(size=(n, 2)))
            obs += [{"day": t, "donor": name}] * n
    frame = pd.DataFrame(obs, index=[f"cell{i}" for i in range(len(obs))])
    return ad.AnnData(obs=frame, obsm={"X_pca": np.concatenate(parts).astype(np.float32)})


@pytest.fixture(scope="module")
def apart():
    return donors({"a": 0.0, "b": 3.0, "c": -3.0, "d": 6.0})


@pytest.fixture(scope="module")
def table(apart):
    return wlm.tl.evaluate(apart, "day", group_key="donor", **FAST)


def test_arguments_about_cells_and_forecasts_mean_nothing_and_are_refused(apart):
    with pytest.raises(ValueError, match=r"n_boot=50 draws cells, .* Student's t over the groups"):
        wlm.tl.evaluate(apart, "day", group_key="donor", n_boot=50, **FAST)
    with pytest.raises(ValueError, match="backtest=False is about forecasts .* no fit is back-tested"):
        wlm.tl.evaluate(apart, "day", group_key="donor", backtest=False, **FAST)
    table = wlm.tl.evaluate(apart, "day", group_key="donor", n_boot=0, **FAST)
    assert all("low" not in row for row in table.attrs["differences"]) and "no interval" in table.attrs["verdict"]


def test_each_donor_is_predicted_at_each_of_its_times_but_the_first(table):
    models = table[table["model"] == "flow"]
    assert models[["group", "time"]].to_numpy().tolist() == [[g, t] for g in "abcd" for t in (1.0, 2.0)]
    assert set(table["model"]) == {"flow", "previous", "others", "shifted", "floor"}
    assert (table.loc[table["model"] != "floor", "n_observed"] == 25).all()


def test_naive_answers_are_what_they_are_by_hand(apart, table):
    x, day, donor = apart.obsm["X_pca"], apart.obs["day"], apart.obs["donor"]
    mine, others = donor == "b", donor != "b"
    truth = x[mine & (day == 2)]
    by_hand = {"previous": x[mine & (day == 1)], "others": x[others & (day == 2)]}
    by_hand["shifted"] = by_hand["previous"] + (x[others & (day == 2)].mean(0) - x[others & (day == 1)].mean(0))
    row = table[(table["group"] == "b") & (table["time"] == 2)].set_index("model")["w1"]
    for name, cells in by_hand.items():
        assert row[name] == pytest.approx(wlm.core.metrics.w1(cells, truth), rel=1e-5), name


def test_a_donor_starts_from_its_own_cells_and_moves_as_the_others_do(table):
    """Donors are far apart, so that the others' cells are no answer; its own, moved by their dynamics, are."""
    means = table.groupby("model")["w1"].mean()
    assert means["others"] > 3 and means["flow"] < 0.6 * means["previous"]
    assert (
        "left-out groups, flow" in table.attrs["verdict"]
        and "4 group(s), interval over groups" in table.attrs["verdict"]
    )


def test_intervals_are_students_over_donors(table):
    from scipy.stats import ttest_rel

    each = table.groupby(["model", "group"])["w1"].mean()
    row = next(r for r in table.attrs["differences"] if r["baseline"] == "previous")
    reference = ttest_rel(each["flow"], each["previous"]).confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx((reference.low, reference.high))
    assert row["n_groups"] == 4 and row["kind"] == "left-out group" and row["high"] < 0


def test_a_donor_that_was_not_seen_before_starts_from_the_others():
    adata = donors({"a": 0.0, "b": 0.0, "c": 0.0}, alone={("c", 0.0), ("c", 1.0)})
    table = wlm.tl.evaluate(adata, "day", group_key="donor", holdout=2, **FAST)
    row = table[(table["group"] == "c") & (table["time"] == 2)].set_index("model")
    x, day, donor = adata.obsm["X_pca"], adata.obs["day"], adata.obs["donor"]
    by_hand = wlm.core.metrics.w1(x[(donor != "c") & (day == 1)], x[(donor == "c") & (day == 2)])
    assert row.loc["previous", "w1"] == pytest.approx(by_hand, rel=1e-5) and set(table["time"]) == {2.0}


def test_it_is_drawn_scored_by_composition_and_kept(apart, tmp_path):
    adata = apart.copy()
    adata.obs["type"] = np.where(adata.obsm["X_pca"][:, 0] > 1, "late", "early")
    ask = {**FAST, "metrics": ("w1", "composition", "coverage"), "label_key": "type", "cache": tmp_path}
    first = wlm.tl.evaluate(adata, "day", group_key="donor", **ask)
    assert first["composition"].between(0, 1).all() and len(list(tmp_path.iterdir())) == 4
    again = wlm.tl.evaluate(adata, "day", group_key="donor", **ask)
    pd.testing.assert_frame_equal(first, again)
    axes = wlm.pl.evaluation(first, metric="w1")
    labels = [t.get_text() for t in axes[0].figure.legends[0].get_texts()]
    assert "other samples" in labels and len(axes) == 2


def test_two_donors_have_an_interval_and_conditions_are_apart():
    adata = donors({"a": 0.0, "b": 1.0, "c": 0.0, "d": 1.0})
    adata.obs["arm"] = np.where(adata.obs["donor"] < "c", "x", "y")
    table = wlm.tl.evaluate(adata, "day", group_key="donor", condition_key="arm", **FAST)
    assert table.columns[:3].tolist() == ["condition", "group", "time"]
    assert table.groupby("condition")["group"].unique().map(list).to_dict() == {"x": ["a", "b"], "y": ["c", "d"]}
    assert "x: " in table.attrs["verdict"] and "y: " in table.attrs["verdict"]


def test_refusals(apart):
    with pytest.raises(KeyError, match="donr"):
        wlm.tl.evaluate(apart, "day", group_key="donr", **FAST)
    adata = apart.copy()
    adata.obs["one"] = "a"
    with pytest.raises(ValueError, match="has one group; leaving it out leaves nothing"):
        wlm.tl.evaluate(adata, "day", group_key="one", **FAST)
    adata.obs["gone"] = adata.obs["donor"].where(np.arange(adata.n_obs) > 3)
    with pytest.raises(ValueError, match="is missing for 4 of 300 cells"):
        wlm.tl.evaluate(adata, "day", group_key="gone", **FAST)
    adata.obs["days"] = adata.obs["day"].astype(str)
    adata = adata[adata.obs["day"] < 2].copy()
    with pytest.raises(ValueError, match="the others have cells at .* only, and a fit needs two times"):
        wlm.tl.evaluate(adata, "day", group_key="days", **FAST)
    with pytest.raises(ValueError, match="no group has 10 cells at a time to score"):
        wlm.tl.evaluate(apart, "day", group_key="donor", holdout=0, **FAST)


def test_answers_are_compared_at_the_times_that_both_have():
    """Each donor has a hard time of its own, where there are no others to copy: that does not flatter these."""
    from wlm.tl._groups import _verdict, differences

    shared = {"m": 1.0, "previous": 1.5, "others": 1.6, "shifted": 1.7, "floor": 0.5}
    alone = {"m": 10.0, "previous": 30.0, "floor": 0.6}
    rows = [
        {"group": group, "time": t, "model": model, "seed": 0, "w1": w1}
        for group, own in (("a", 8.0), ("b", 9.0))
        for t, scores in ((1.0, shared), (own, alone))
        for model, w1 in scores.items()
    ]
    table = pd.DataFrame(rows)
    said = _verdict(table, differences(table, ["m"], "w1"), ["m"], ["w1"])
    assert "BETTER THAN others (-37.5 %" in said and "mean w1 1 against 1.6, floor 0.5" in said
