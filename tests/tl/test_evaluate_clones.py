"""Clones as truth: the scores against loops, and cells whose future is known."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score

import wlm

OPTIONS = {"method": "flow", "path": "straight", "show_progress": False}


@pytest.fixture(scope="module")
def _sisters():
    """40 clones of two cells a day, which drift by (3, 0) and away from the middle line; the label is the side."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=(40, 2)) * [0.5, 1.0]
    cells, day, clone = [], [], []
    for t in range(3):
        for _ in range(2):
            cells.append(first * [1, 1 + t] + [3 * t, 0] + 0.05 * rng.normal(size=(40, 2)))
            day += [float(t)] * 40
            clone += [f"clone {i}" for i in range(40)]
    x = np.concatenate(cells).astype(np.float32)
    adata = ad.AnnData(obs={"day": day, "clone": clone, "side": np.where(x[:, 1] > 0, "up", "down")}, obsm={"X_pca": x})
    adata.obs_names = [f"c{i}" for i in range(len(x))]
    lone = np.arange(240) % 40 >= 36  # without a barcode
    adata.obs.loc[lone, "clone"] = None
    names = pd.factorize(adata.obs["clone"])[0]
    matrix = np.zeros((240, 36), dtype=np.int8)
    matrix[~lone, names[~lone]] = 1
    adata.obsm["X_clone"] = csr_matrix(matrix)
    return wlm.tl.fit(adata, "day", copy=True, **OPTIONS)


@pytest.fixture
def sisters(_sisters):
    return _sisters.copy()


@pytest.fixture(scope="module")
def _table(_sisters):
    return wlm.tl.evaluate_clones(_sisters, label_key="side", n_boot=100).set_index("model")


def test_what_moves_as_cells_do_finds_their_sisters(_table):
    assert list(_table.index) == ["flow", "itself", "transport", "majority", "neighbours", "regression"]
    assert _table.loc["flow", "distance"] < 0.5 * _table.loc["itself", "distance"]
    assert _table.loc["majority", "distance"] > 0.9 and _table.loc["regression", "distance"] < 0.15
    assert _table.loc["flow", "accuracy"] > 0.95 and _table.loc["regression", "accuracy"] > 0.95
    assert _table.loc["majority", "auroc"] == 0.5 and _table.loc["flow", "auroc"] > 0.95
    assert _table.loc["flow", "brier"] < 0.1 < _table.loc["majority", "brier"]
    assert _table.loc["majority", "calibration"] < 0.05 and _table.loc["regression", "calibration"] < 0.2
    for name in ("distance", "accuracy", "brier", "auroc", "calibration"):
        assert (_table[f"{name}_low"] <= _table[name] + 1e-9).all() and (
            _table[name] <= _table[f"{name}_high"] + 1e-9
        ).all()
    assert (_table["n_cells"] == 72).all() and (_table["n_clones"] == 36).all()


def test_scores_are_those_of_loops(_sisters, _table):
    day, clone, x = _sisters.obs["day"].to_numpy(), _sisters.obs["clone"], _sisters.obsm["X_pca"]
    own, every = [], []
    later = x[day == 2]
    for i in np.flatnonzero((day == 1) & clone.notna()):
        with_me = ((clone == clone.iloc[i]) & (day == 2)).to_numpy()
        own.append(cdist(x[[i]], x[with_me]).mean())
        every.append(cdist(x[[i]], later).mean())
    assert _table.loc["itself", "distance"] == pytest.approx(np.sum(own) / np.sum(every), rel=1e-5)
    moved = wlm.tl.predict(_sisters, 2, from_time=1)
    mine = moved.obs["origin"].map(clone).notna().to_numpy()
    apart = cdist(moved.obsm["X_pca"], later)
    same = moved.obs["origin"].map(clone).to_numpy()[:, None] == clone[day == 2].to_numpy()[None]
    expected = sum(row[s].mean() for row, s in zip(apart[mine], same[mine], strict=True)) / apart[mine].mean(1).sum()
    assert _table.loc["flow", "distance"] == pytest.approx(expected, rel=1e-5)


def test_the_calibration_curve_is_of_every_answer(_sisters):
    table = wlm.tl.evaluate_clones(_sisters, label_key="side", n_boot=50)
    curve = table.attrs["curve"]
    assert list(curve) == table["model"].tolist()
    majority = curve["majority"]
    assert sum(majority["n"]) == 2 * table["n_labelled"].iloc[0]
    there = np.array(majority["n"]) > 0
    np.testing.assert_allclose(np.array(majority["probability"])[there], np.array(majority["share"])[there], atol=1e-9)
    for one in curve.values():
        there = np.array(one["n"]) > 0
        low, share, high = (np.array(one[k])[there] for k in ("share_low", "share", "share_high"))
        assert (low <= share + 1e-9).all() and (share <= high + 1e-9).all()
    assert wlm.tl.evaluate_clones(_sisters, n_boot=0).attrs["curve"] == {}, "without labels there is none"


def test_a_column_and_a_matrix_dense_or_sparse_are_the_same(sisters, _table):
    sisters.obsm["dense"] = sisters.obsm["X_clone"].toarray()
    sisters.obs["clone"] = sisters.obs["clone"].astype("category")
    for key in ("clone", "dense"):
        table = wlm.tl.evaluate_clones(sisters, clone_key=key, label_key="side", n_boot=0).set_index("model")
        columns = ["distance", "accuracy", "brier", "auroc"]
        pd.testing.assert_frame_equal(table[columns], _table[columns], atol=1e-6)
        assert table["distance_low"].isna().all()


def test_stored_fates_are_scored_as_they_are(sisters):
    rng = np.random.default_rng(1)
    p = rng.random(240).astype(np.float32)
    sisters.obsm["wlm_fates"], sisters.uns["wlm_fates"] = np.stack([p, 1 - p], 1), {"names": ["up", "down"]}
    table = wlm.tl.evaluate_clones(sisters, label_key="side", n_boot=0).set_index("model")
    day, clone, side = (sisters.obs[c].to_numpy() for c in ("day", "clone", "side"))
    i = np.flatnonzero((day == 1) & sisters.obs["clone"].notna().to_numpy())
    pairs = [(p[k], side[j] == "up") for k in i for j in np.flatnonzero((day == 2) & (clone == clone[k]))]
    score, up = np.array(pairs).T
    assert np.isnan(table.loc["fates", "distance"])
    assert table.loc["fates", "auroc"] == pytest.approx(roc_auc_score(up, score), abs=1e-6)
    assert table.loc["fates", "brier"] == pytest.approx(2 * np.mean((score - up) ** 2), abs=1e-6)


def test_other_times_and_no_labels(sisters):
    table = wlm.tl.evaluate_clones(sisters, start=0, end="day 2", n_boot=0)
    assert table[["accuracy", "brier", "auroc"]].isna().all(axis=None) and table.attrs["start"] == 0
    assert (table["n_labelled"] == 0).all() and "72 cells of 36 clones" in table.attrs["verdict"]


def test_nothing_is_written_and_a_seed_repeats_itself(sisters):
    before = sisters.copy()
    one, two = (wlm.tl.evaluate_clones(sisters, label_key="side", n_boot=20, rng=4) for _ in range(2))
    pd.testing.assert_frame_equal(one, two)
    assert sorted(sisters.uns) == sorted(before.uns) and list(sisters.obs) == list(before.obs)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        ({"clone_key": "other"}, KeyError, "neither a column of obs.*nor a key of obsm"),
        ({"clone_key": "own"}, ValueError, "each has one cell: there are no sisters"),
        ({"clone_key": "several"}, ValueError, r"puts 1 cells into several clones \(\['c0'\]"),
        ({"clone_key": "few"}, ValueError, "2 clones have cells at 1 and at 2.*least 5 are needed"),
        ({"label_key": "type"}, KeyError, "obs.'type'. is missing"),
        ({"label_key": "side", "labels": ["up", "left"]}, KeyError, "at least two labels"),
        ({"start": 2, "end": 1}, ValueError, "start must be before end, found 2 and 1"),
        ({"start": 0.5}, ValueError, "start 0.5 was not observed"),
        ({"n_boot": -1}, ValueError, "n_boot must be"),
    ],
)
def test_bad_input_is_refused_with_what_to_do(sisters, call, error, words):
    sisters.obs["own"] = sisters.obs_names
    sisters.obs["few"] = sisters.obs["clone"].where(sisters.obs["clone"].isin(["clone 1", "clone 2"]))
    several = sisters.obsm["X_clone"].toarray()
    several[0, :2] = 1
    sisters.obsm["several"] = several
    with pytest.raises(error, match=words):
        wlm.tl.evaluate_clones(sisters, **call)


def test_clones_across_conditions_are_no_sisters(sisters):
    sisters.obs["dish"] = np.where(np.arange(240) % 80 < 40, "a", "b")
    wlm.tl.fit(sisters, "day", condition_key="dish", **OPTIONS)
    with pytest.raises(ValueError, match="36 of 36 clones have cells in several conditions of obs.'dish'"):
        wlm.tl.evaluate_clones(sisters, clone_key="clone", key="wlm_a")
    sisters.obs["clone"] = sisters.obs["dish"] + sisters.obs["clone"]
    table = wlm.tl.evaluate_clones(sisters, clone_key="clone", key="wlm_a", n_boot=0)
    assert (table["n_cells"] == 36).all()
