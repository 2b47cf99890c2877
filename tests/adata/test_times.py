"""Time labels as people write them."""

import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import wlm
from wlm._adata.labels import unit_of_name
from wlm._adata.times import merge_equal, with_unit
from wlm.pp import _checks, _doctor, parse_time

SPELLINGS = {
    "day": ["day {}", "day_{}", "Day-{}", "D{}", "d{}", "{} days", "{}d"],
    "embryonic day": ["E{}", "e{}"],
    "postnatal day": ["P{}"],
    "hour": ["{}h", "{} h", "{}hpf", "{} hours", "hour {}"],
    "week": ["week 2".replace("2", "{}"), "W{}", "{}wk"],
    "": ["{}", "t{}", "time {}"],
}


@pytest.mark.parametrize(("unit", "form"), [(u, f) for u, forms in SPELLINGS.items() for f in forms])
def test_spellings(unit, form):
    times, read = parse_time([form.format(x) for x in (0, 7.5, 12)])
    assert times.tolist() == [0, 7.5, 12] and times.dtype == np.float64 and read == unit


@given(st.lists(st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 3)), min_size=1, max_size=20))
def test_numbers_survive_as_numbers_text_and_categories(values):
    plain = [f"{v:.3f}" for v in values]
    for form in (values, np.array(values), pd.Series(values), pd.Categorical(values), plain, pd.Categorical(plain)):
        assert np.allclose(parse_time(form)[0], values, atol=1e-9)


@given(st.text(max_size=8))
def test_any_text_is_read_or_refused(label):
    try:
        times, _ = parse_time([label])
    except ValueError as error:
        assert "cannot read" in str(error)
    else:
        assert times.shape == (1,)


def test_missing_labels_stay_missing():
    assert np.isnan(parse_time(["day 1", None, np.nan, ""])[0]).tolist() == [False, True, True, True]
    assert np.isnan(parse_time(pd.Categorical(["1", None]))[0]).tolist() == [False, True]
    assert np.isnan(parse_time(pd.array([1, None], dtype="Int64"))[0]).tolist() == [False, True]


def test_timedeltas_are_days():
    times, unit = parse_time(pd.to_timedelta(["12h", "2D"]))
    assert times.tolist() == [0.5, 2.0] and unit == "day"


def test_signs_are_kept_and_ambiguous_hyphens_refused():
    assert parse_time(["day -1", "day 1"])[0].tolist() == [-1, 1]
    assert parse_time(["day-3", "day-4"])[0].tolist() == [3, 4]
    with pytest.raises(ValueError, match="sign or a separator"):
        parse_time(["D-1", "D1"])


def test_float32_is_read_as_the_decimal_it_stands_for_and_unused_categories_do_not_matter():
    assert parse_time(np.array([0.1, 8.5], dtype=np.float32))[0].tolist() == [0.1, 8.5]
    assert parse_time(pd.Categorical(["1", "2", "unknown"])[:2])[0].tolist() == [1, 2]


@pytest.mark.parametrize("labels", [["early"], ["E8.5x"], ["rep1_day3"], ["day"], ["3 4"], ["day 3 h"]], ids=str)
def test_unreadable(labels):
    with pytest.raises(ValueError, match="cannot read these times"):
        parse_time(labels)


def test_mixed_units_are_refused():
    with pytest.raises(ValueError, match=r"different units: \['day', 'hour'\]"):
        parse_time(["12h", "2 days"])
    with pytest.raises(ValueError, match="'embryonic day', 'postnatal day'"):
        parse_time(["E18", "P1"])


@pytest.mark.parametrize("values", [[True, False], pd.to_datetime(["2020-01-01"])], ids=["bool", "dates"])
def test_types_that_are_no_times(values):
    with pytest.raises(TypeError, match="dtype"):
        parse_time(values)


def test_bins_hold_as_many_cells_and_are_named_by_their_median():
    rng = np.random.default_rng(0)
    adata = ad.AnnData(obs=pd.DataFrame({"pseudotime": rng.random(100)}, index=[f"c{i}" for i in range(100)]))
    adata.obs.iloc[7, 0] = np.nan
    wlm.pp.bin_time(adata, key="pseudotime", n_bins=3)
    bins = adata.obs["pseudotime_bin"]
    assert bins.isna().tolist() == adata.obs["pseudotime"].isna().tolist()
    assert bins.value_counts().tolist() == [33, 33, 33]
    for label, values in adata.obs["pseudotime"].groupby(bins):
        assert values.median() == label
    again = wlm.pp.bin_time(adata, key="pseudotime", n_bins=2, key_added="half", copy=True)
    assert "half" in again.obs and "half" not in adata.obs


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"key": "age"}, KeyError, r"obs\['age'\] is missing"),
        ({"key": "label"}, TypeError, "numbers are wanted"),
        ({"key": "flat"}, ValueError, "too few distinct values for 5 bins"),
        ({"key": "flat", "n_bins": 1}, ValueError, "n_bins must be an integer of at least 2"),
    ],
)
def test_what_cannot_be_binned_is_refused(call, error, message):
    adata = ad.AnnData(obs=pd.DataFrame({"label": ["a"] * 20, "flat": [0, 1] * 10}, index=[f"c{i}" for i in range(20)]))
    with pytest.raises(error, match=message):
        wlm.pp.bin_time(adata, **call)


@pytest.mark.slow
def test_cells_without_a_time_are_named_or_left_out(cells, quick):
    lost = cells.obs_names[[3, 70]]
    cells.obs.loc[lost, "day"] = np.nan
    with pytest.raises(ValueError, match="is missing for 2 of 300 cells.*nan='drop'"):
        wlm.tl.fit(cells, "day", **quick)
    wlm.tl.fit(cells, "day", nan="drop", **quick)
    assert cells.obs["wlm_potential"].isna().sum() == 2 and cells.obs.loc[lost, "wlm_potential"].isna().all()
    kept = cells[cells.obs["day"].notna()].copy()
    wlm.tl.fit(kept, "day", **quick)
    there = cells.obs["day"].notna().to_numpy()
    assert np.array_equal(cells.obsm["wlm_velocity"][there], kept.obsm["wlm_velocity"])
    assert np.array_equal(wlm.tl.predict(cells, 2.5).obsm["X_pca"], wlm.tl.predict(kept, 2.5).obsm["X_pca"])
    with pytest.raises(ValueError, match="nan must be 'raise' or 'drop'"):
        wlm.tl.fit(cells, "day", nan="omit", **quick)
    cells.obs["day"] = np.nan
    with pytest.raises(ValueError, match="is missing for all"):
        wlm.tl.fit(cells, "day", nan="drop", **quick)


def test_very_many_times_are_pointed_out(cells, quick, caplog):
    cells.obs["pseudotime"] = np.repeat(np.arange(60), 5).astype(float)
    wlm.tl.fit(cells, "pseudotime", **{**quick, "n_steps": 2})
    assert "has 60 distinct times" in caplog.text


# Signs and separators


@pytest.mark.parametrize("prefix", ["D", "d", "Day", "h", "week", "W", "t", "E", "P", "time"])
def test_a_hyphen_is_a_sign_beside_labels_without_a_separator_and_else_a_separator(prefix):
    signs = [f"{prefix}{number}" for number in ("-14", "0", "7", "28.5")]
    for form in (signs, pd.Categorical(signs), pd.Categorical(signs, categories=signs, ordered=True), pd.Series(signs)):
        assert parse_time(form)[0].tolist() == [-14, 0, 7, 28.5]
    assert parse_time([f"{prefix}{number}" for number in ("-1", "0", "+1")])[0].tolist() == [-1, 0, 1]
    assert parse_time([f"{prefix}-{number}" for number in (0, 3, 7.5)])[0].tolist() == [0, 3, 7.5]
    assert parse_time([f"{prefix}--2", f"{prefix}-0", f"{prefix}-3"])[0].tolist() == [-2, 0, 3]
    assert parse_time([f"{prefix} -2", f"{prefix} 0", f"{prefix} +3"])[0].tolist() == [-2, 0, 3]


@pytest.mark.parametrize(
    "labels",
    [
        *(["D-1", "D0", twin] for twin in ("D1", "D01", "d1", "D1.0", "Day 1", "day_1", "1d", "D 1")),
        ["D-1", "Day 3", "Day 7"],
        ["D-0", "D-3", "D7"],
        pd.Categorical(["D-7", "D-3"], categories=["D-7", "D-3", "D-1"], ordered=True),
    ],
    ids=str,
)
def test_a_hyphen_that_may_be_either_is_refused(labels):
    with pytest.raises(ValueError, match="sign or a separator.*write 'day -1' for a sign"):
        parse_time(labels)


#: A training just long enough to be stored.
SHORT = {"n_steps": 1, "batch_size": 16, "width": 8, "hidden": 8, "n_inducing": 2, "initial_velocity": "zero"}
SHORT |= {"show_progress": False}


@pytest.fixture(autouse=True)
def _no_timing(monkeypatch):
    """Doctor trains nothing here to say how long it would take."""
    monkeypatch.setattr(_doctor, "check_run_time", lambda *_: _checks.Finding("ok", "a second"))


def timed(labels, per_time=40):
    """Cells at these times, the mean of which moves by one from each to the next."""
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"day": np.repeat(labels, per_time)}, index=[f"c{i}" for i in range(per_time * len(labels))])
    x = rng.normal(size=(len(obs), 3)).astype(np.float32)
    x[:, 0] += np.repeat(np.arange(len(labels)), per_time)
    return ad.AnnData(obs=obs, obsm={"X_pca": x})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("labels", "question", "meant"),
    [
        (["D-1", "D0", "D3", "D7"], "D-1", -1),
        (["D-1", "D0", "D3", "D7"], "Day-1", -1),
        ([-1, 0, 1, 3], "D-1", -1),
        ([-1, 0, 1, 3], "D1", 1),
        (["day-0", "day-1", "day-3"], "day-1", 1),
        (["day-0", "day-1", "day-3"], "D1", 1),
        (["day -1", "day 1", "day 3"], "day-1", -1),
        (["D0", "D3", "D7"], 3, 3),
    ],
)
def test_a_question_is_read_as_the_labels_are(labels, question, meant):
    adata = timed(labels)
    if meant > parse_time(labels)[0].min():
        wlm.tl.fit(adata, "day", holdout=question, **SHORT)
        assert adata.uns["wlm"]["time"]["holdout"].tolist() == [meant]
    wlm.tl.fit(adata, "day", **SHORT)
    if meant < adata.uns["wlm"]["time"]["values"][-1]:
        predicted = wlm.tl.predict(adata, 20, from_time=question)
        assert predicted.obs["from_time"].unique().tolist() == [meant]
    part = adata[adata.obs["day"] == adata.obs["day"].iloc[0]]  # one label alone says nothing of the hyphen
    first = adata.uns["wlm"]["time"]["values"][0]
    assert wlm.tl.predict(part, 20).obs["from_time"].unique().tolist() == [first]


def test_a_hyphen_of_a_question_that_may_be_either_is_refused():
    adata = timed([0, 1, 3])
    with pytest.raises(ValueError, match="'day-1' may be a sign or a separator; write 'day 1' or 'day -1'"):
        wlm.tl.fit(adata, "day", holdout="day-1", **SHORT)


def test_conditions_that_have_some_of_the_labels_are_read_as_all_are():
    adata = timed(["D-1", "D-2", "D0", "D3"])
    adata.obs["arm"] = np.where(adata.obs["day"].isin(["D-1", "D-2"]), "before", "after")
    wlm.tl.fit(adata, "day", condition_key="arm", **SHORT)
    assert adata.uns["wlm_before"]["time"]["values"].tolist() == [-2, -1]
    assert wlm.tl.predict(adata, 5, key="wlm_before").obs["from_time"].unique().tolist() == [-1]


def test_mixed_lists_are_in_the_unit_of_the_data():
    adata = timed(["D0", "D2", "D6"])
    wlm.tl.fit(adata, "day", **SHORT)
    predicted = wlm.tl.predict(adata, [2, "D4", 12, "day 8", np.float32(0.1), pd.Timedelta("36h")])
    assert predicted.obs["day"].unique().tolist() == [2, 4, 12, 8, 0.1, 1.5]
    with pytest.raises(ValueError, match="times are in the unit 'hour', the data in 'day'"):
        wlm.tl.predict(adata, [2, "4h"])
    with pytest.raises(ValueError, match="times have different units"):
        wlm.tl.predict(adata, ["D2", "4h"])


# Numbers that are no times


@pytest.mark.parametrize("kind", ["int8", "int16", "int32", "int64", "Int32", "Int64", "category", "text", "float"])
def test_missing_integers_of_r_are_refused_and_the_advice_helps(kind):
    code = {"int8": -128, "int16": -32768, "int64": np.iinfo("i8").min, "Int64": np.iinfo("i8").min}.get(kind, -(2**31))
    adata = timed([0, 3, 7])
    values = np.where(np.arange(adata.n_obs) < 10, code, adata.obs["day"])
    made = {
        "category": lambda v: pd.Categorical(v.astype("i4")),
        "text": lambda v: v.astype(str).astype(object),
        "float": lambda v: v.astype(float),
    }
    adata.obs["day"] = made.get(kind, lambda v: pd.Series(v.astype(kind.lower()), dtype=kind).to_numpy())(values)
    if kind in ("Int32", "Int64"):
        adata.obs["day"] = pd.array(values, dtype=kind)
    before = adata.obs["day"].copy()
    with pytest.raises(ValueError, match=f"10 of 120 cells have {code}, which is NA in R") as error:
        wlm.tl.fit(adata, "day", nan="drop", **SHORT)
    report = wlm.pp.doctor(adata, time_key="day").set_index("check")
    assert report.loc["time", "level"] == "error" and str(code) in report.loc["time", "found"]
    assert adata.obs["day"].equals(before) and "wlm" not in adata.uns
    scope = {"adata": adata}
    exec(re.search(r"adata = adata\[.*\]\.copy\(\)", str(error.value))[0], scope)
    wlm.tl.fit(scope["adata"], "day", **SHORT)
    assert scope["adata"].uns["wlm"]["time"]["values"].tolist() == [0, 3, 7]


@pytest.mark.parametrize("kind", ["float", "Float64", "category"])
@pytest.mark.parametrize("nan", ["raise", "drop"])
def test_infinite_times_are_called_infinite_and_the_advice_helps(kind, nan):
    adata = timed([0.0, 1, 3, 7])
    with np.errstate(divide="ignore"):
        logs = np.log(adata.obs["day"].to_numpy())
    adata.obs["day"] = {"Float64": lambda v: pd.array(v, dtype="Float64"), "category": pd.Categorical}.get(
        kind, lambda v: v
    )(logs)
    with pytest.raises(ValueError, match="is infinite for 40 of 160 cells .a logarithm of 0") as error:
        wlm.tl.fit(adata, "day", nan=nan, **SHORT)
    assert wlm.pp.doctor(adata, time_key="day").set_index("check").loc["time", "level"] == "error"
    scope = {"adata": adata}
    exec(re.search(r"adata = adata\[.*\]\.copy\(\)", str(error.value))[0], scope)
    wlm.tl.fit(scope["adata"], "day", **SHORT)
    assert len(scope["adata"].uns["wlm"]["time"]["values"]) == 3


@pytest.mark.parametrize(
    "values",
    [
        [20210301, 20210306],
        [20210301.0, np.nan, 20210306],
        ["20210131", "20210201"],
        pd.Categorical(["20210131", None, "20210201"]),
        pd.array([19991231, 20000101], dtype="Int64"),
        [20210308120000, 20210308180000],
    ],
    ids=str,
)
def test_dates_as_numbers_are_refused(values):
    with pytest.raises(TypeError, match="dates written as numbers.*days since the first"):
        parse_time(values)


@pytest.mark.parametrize("kind", [int, float, str, "category"])
def test_the_advice_for_dates_helps(kind):
    adata = timed([20210131, 20210201, 20210301])
    adata.obs["day"] = adata.obs["day"].astype(kind)
    with pytest.raises(TypeError, match="take the days since the first") as error:
        wlm.tl.fit(adata, "day", **SHORT)
    exec(str(error.value).split("run ")[1], {"pd": pd, "adata": adata})
    wlm.tl.fit(adata, "day", **SHORT)
    assert adata.uns["wlm"]["time"]["values"].tolist() == [0, 1, 29]


@pytest.mark.parametrize("kind", [object, "category"])
def test_the_advice_for_signs_helps(kind):
    adata = timed(["D-1", "D0", "D01", "D3"])
    adata.obs["day"] = adata.obs["day"].where(np.arange(adata.n_obs) != 3).astype(kind)
    with pytest.raises(ValueError, match="for signs run") as error:
        wlm.tl.fit(adata, "day", nan="drop", **SHORT)
    exec(str(error.value).split("for signs run ")[1], {"adata": adata})
    wlm.tl.fit(adata, "day", nan="drop", **SHORT)
    assert adata.uns["wlm"]["time"]["values"].tolist() == [-1, 0, 1, 3]


@pytest.mark.parametrize("values", [[0, 20210301], [20211301, 20210301], [12, 48], [20210301.5, 20210302]], ids=str)
def test_numbers_that_are_no_dates_are_read(values):
    assert parse_time(values)[0].tolist() == values


# Equal times, and how far a question may be from them


@pytest.mark.parametrize(
    ("times", "noise", "kept"),
    [
        ([0, 0.1, 0.3, 0.6], 0.1 + 0.2, 0.3),
        ([0, 0.1, 0.3, 0.6], np.float64(np.float32(0.3)), 0.3),
        ([0, 0.1, 0.3, 0.6], np.float64(np.float16(0.3)), 0.3),
        ([0, 0.1, 0.3, 0.6], 0.3 + 1e-9, 0.3),
        ([0, 1, 3, 6], 1e-9, 0),
        ([0, 1 / 24, 2 / 24, 3 / 24], np.float64(np.float32(2 / 24)), 2 / 24),
        ([100, 100 + 1 / 3, 101], np.float64(np.float32(100 + 1 / 3)), 100 + 1 / 3),
        ([1.6e9, 1.6e9 + 3600, 1.6e9 + 7200], 1.6e9 + 3600 + 2e-6, 1.6e9 + 3600),
    ],
)
def test_times_that_are_equal_up_to_rounding_are_one(times, noise, kept):
    adata = timed(np.array(times, dtype=float))
    at = np.flatnonzero(adata.obs["day"] == kept)
    adata.obs.iloc[at[::2], 0] = noise
    wlm.tl.fit(adata, "day", **SHORT)
    found = adata.uns["wlm"]["time"]["values"]
    assert len(found) == len(times) and np.allclose(found, times, rtol=1e-12, atol=1e-9)
    counts = wlm.pp.doctor(adata, time_key="day").set_index("check").loc["cells per time", "found"]
    assert counts.count("40 at") == len(times)
    rest = adata[np.delete(np.arange(adata.n_obs), at[1::2])]  # those written otherwise alone
    assert wlm.tl.predict(rest, times[-1] + times[-1] - times[-2], from_time=kept).n_obs == 20


@pytest.mark.parametrize(
    "times",
    [[0, 1, 2, 1e10], [0, 0.5, 1, 1e10], [20, 20.001, 21], [1e9, 1e9 + 1, 5e9], [0, 1 / 24, 2 / 24, 1e9]],
    ids=str,
)
def test_times_that_differ_stay_apart(times):
    assert len(np.unique(merge_equal(np.array(times, dtype=float), "day"))) == len(times)


@pytest.mark.parametrize(
    ("times", "wanted"),
    [
        ([1.6e9 + 3600 * k for k in range(4)], 1.6e9 + 3600 + 1500),
        ([202103 + k for k in (0, 5, 10, 15)], 202103.1),
        ([0, 1e-3, 2e-3], 1.1e-3),
    ],
    ids=str,
)
def test_a_time_between_the_observed_ones_is_not_taken_for_one(times, wanted):
    adata = timed(times)
    with pytest.raises(ValueError, match="was not observed") as error:
        wlm.tl.fit(adata, "day", holdout=wanted, **SHORT)
    named = [float(x) for x in str(error.value).split("the times are ")[1].split(", ")]
    assert named == times  # with all their digits
    wlm.tl.fit(adata, "day", holdout=times[1] * (1 + 1e-15), **SHORT)
    assert adata.uns["wlm"]["time"]["holdout"].tolist() == [times[1]]
    found = wlm.pp.doctor(adata, time_key="day").set_index("check").loc["time", "found"]
    assert [float(x) for x in found.split(": ")[1].split(", ")] == times


# Units in names


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        *(("age(days)", "day"), ("time (h)", "hour"), ("t [min]", "minute"), ("Age (Weeks)", "week")),
        *(("age_days", "day"), ("time.hours", "hour"), ("exposure hrs", "hour"), ("time(hpf)", "hour")),
        *(("day", ""), ("days", ""), ("time_min", ""), ("log_hours", ""), ("age(log)", ""), ("group (p)", "")),
        *(("time", ""), ("n_genes_by_counts", ""), ("age()", ""), ("(h) age", "")),
    ],
)
def test_the_unit_in_the_name_of_a_column(name, unit):
    assert unit_of_name(name) == unit


def test_the_unit_in_the_name_is_that_of_the_fit():
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"age(days)": np.repeat([12.0, 35.0], 20)}, index=[f"c{i}" for i in range(40)])
    adata = ad.AnnData(obs=obs, obsm={"X_pca": rng.normal(size=(40, 3)).astype(np.float32)})
    short = {"n_steps": 1, "width": 8, "hidden": 8, "n_inducing": 2, "show_progress": False}
    wlm.tl.fit(adata, "age(days)", **short)
    assert adata.uns["wlm"]["time"]["unit"] == "day"
    assert wlm.tl.predict(adata, "20 days").obs["age(days)"].unique().tolist() == [20]
    with pytest.raises(ValueError, match="times are in the unit 'hour', the data in 'day'"):
        wlm.tl.predict(adata, "30h")
    assert with_unit("age(days)", "day") == "age(days)" and with_unit("time", "day") == "time (day)"
    adata.obs["age(days)"] = adata.obs["age(days)"].map("{:g}h".format)  # what the labels say counts
    wlm.tl.fit(adata, "age(days)", key_added="hours", **short)
    assert adata.uns["hours"]["time"]["unit"] == "hour"
    with pytest.raises(ValueError, match="fitted to other times .*the unit was day, it is hour"):
        wlm.tl.predict(adata, 40)
