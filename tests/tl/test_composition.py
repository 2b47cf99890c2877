"""Shares of cell types, against those of the predicted cells and of known drift."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.neighbors import KNeighborsClassifier

import wlm


@pytest.fixture(scope="module")
def _typed(_fitted):
    adata = _fitted.copy()
    x = adata.obsm["X_pca"][:, 0]
    adata.obs["type"] = pd.Categorical(np.array(["a", "b", "c"])[np.digitize(x, np.quantile(x, [0.3, 0.6]))])
    return adata


@pytest.fixture
def typed(_typed):
    return _typed.copy()


def test_predicted_shares_are_those_of_the_predicted_cells(typed):
    table = wlm.tl.composition(typed, "type", [2, 3, 5.5], n_cells=None)
    assert table.groupby("time")["kind"].first().to_dict() == {2: "held out", 3: "training", 5.5: "forecast"}
    seen = typed[typed.obs["day"] != 2]
    labels = KNeighborsClassifier(15, weights="distance").fit(seen.obsm["X_pca"], seen.obs["type"].astype(str))
    for t, part in table.groupby("time"):
        cells = wlm.tl.predict(typed, t).obsm["X_pca"]
        shares = pd.Series(labels.predict(cells)).value_counts(normalize=True)
        assert np.allclose(part["predicted"], [shares.get(name, 0) for name in part["label"]], atol=1e-9)
        assert part["predicted_sd"].isna().all(), "there is one model"
        own = typed.obs["type"][typed.obs["day"] == t].value_counts(normalize=True)
        if len(own) and t != 5.5:
            assert np.allclose(part["observed"], own[part["label"]])
            assert table.attrs["missed"][t] == pytest.approx(np.abs(part["predicted"] - part["observed"]).sum() / 2)
    assert table.loc[table["time"] == 5.5, "observed"].isna().all() and set(table.attrs["missed"]) == {2, 3}


def test_all_observed_times_by_default(typed):
    table = wlm.tl.composition(typed, "type")
    assert table["time"].unique().tolist() == [0, 1, 2, 3, 4] and table["label"].tolist() == ["a", "b", "c"] * 5
    assert table.loc[table["time"] == 0, "predicted"].isna().all()
    sums = table.groupby("time")[["predicted", "observed"]].sum()
    assert np.allclose(sums["observed"], 1) and np.allclose(sums["predicted"].iloc[1:], 1)
    few = wlm.tl.composition(typed, "type", 2, n_cells=10)
    assert np.allclose(few["predicted"] * 10, (few["predicted"] * 10).round()), "shares of ten cells"


@pytest.mark.parametrize("weighted", [False, True])
def test_a_front_that_passes(weighted):
    """Cells drift by one a day, and their type is the side of a line that they are on: all shares are known."""
    rng = np.random.default_rng(0)
    day = np.repeat([0.0, 1.0, 2.0, 3.0], 200)
    x = rng.uniform(0, 4, size=(800, 1)) + day[:, None]
    adata = ad.AnnData(obs=pd.DataFrame({"day": day}, index=map(str, range(800))), obsm={"X_pca": x})
    adata.obs["side"] = np.where(x[:, 0] > 4, "right", "left")
    start = x[:, 0] - day
    adata.obs["w"] = np.where(weighted & (start > 2), 3.0, 1.0)
    wlm.tl.fit(adata, "day", method="flow", weight_key="w", show_progress=False)
    table = wlm.tl.composition(adata, "side", [0.5, 1, 2], n_cells=None).set_index(["time", "label"])
    for t in (0.5, 1.0, 2.0):
        expected = 3 * t / 8 if weighted else t / 4
        assert table.loc[(t, "right"), "predicted"] == pytest.approx(expected, abs=0.06)
    assert table.attrs["missed"][1.0] < 0.06


def test_models_spread(cells, quick):
    cells.obs["type"] = np.where(cells.obsm["X_pca"][:, 0] > 0, "right", "left")
    wlm.tl.fit(cells, "day", n_models=2, **{**quick, "n_steps": 4})
    table = wlm.tl.composition(cells, "type", [1.5, 4])
    assert np.isfinite(table["predicted_sd"]).all() and np.allclose(table.groupby("time")["predicted"].sum(), 1)
    two = table.pivot(index="time", columns="label", values="predicted_sd")
    assert np.allclose(two["left"], two["right"]), "of two labels each is one minus the other"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"label_key": "absent"}, KeyError, "is missing"),
        ({"label_key": "day"}, ValueError, "holds numbers"),
        ({"label_key": "type", "times": -1}, ValueError, "must not be before 0"),
        ({"label_key": "type", "times": "late"}, ValueError, "cannot read"),
        ({"label_key": "type", "n_cells": 0}, ValueError, "n_cells must be"),
    ],
)
def test_bad_input_is_refused(typed, arguments, error, message):
    with pytest.raises(error, match=message):
        wlm.tl.composition(typed, **arguments)
