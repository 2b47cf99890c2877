"""Time labels as people write them."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import wlm
from wlm.pp import parse_time

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
