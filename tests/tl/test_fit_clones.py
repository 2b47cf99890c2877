"""Fits that see clones: gain on the clones they have not seen, what is stored, and what is refused."""

import anndata as ad
import numpy as np
import pytest
from oracles import crossing
from scipy.sparse import csr_matrix

import wlm

OPTIONS = {"width": 8, "heads": 2, "hidden": 8, "n_inducing": 2, "batch_size": 64, "lr": 0.05, "n_steps": 40}
OPTIONS |= {"show_progress": False, "device": "cpu", "backtest": False}
SHORT = OPTIONS | {"n_steps": 3}


def swapped(n=40):
    """Cells that change places between days 0 and 1; half of the clones in a column and a matrix, half in another."""
    x, clone = crossing(n)
    obs = {"day": np.repeat([0.0, 1.0], n), "clone": np.tile([f"clone {i}" for i in clone], 2)}
    adata = ad.AnnData(obs=obs, obsm={"X_pca": np.concatenate(x).astype(np.float32)})
    adata.obs_names = [f"c{i}" for i in range(2 * n)]
    known = np.tile(clone < n // 2, 2)
    adata.obs["known"] = adata.obs["clone"].where(known)
    adata.obs["other"] = adata.obs["clone"].where(~known)
    matrix = np.zeros((2 * n, n // 2))
    matrix[known, np.tile(clone, 2)[known]] = 1
    adata.obsm["X_clone"] = csr_matrix(matrix)
    return adata


@pytest.fixture(scope="module")
def _taught():
    adata = swapped()
    wlm.tl.fit(adata, "day", clone_key="known", **OPTIONS)
    return adata


def test_clones_that_were_not_used_gain_and_those_that_were_are_named(_taught, tmp_path, caplog):
    fresh = swapped()
    wlm.tl.fit(fresh, "day", **OPTIONS)
    ratios = []
    for adata in (fresh, _taught):
        table = wlm.tl.evaluate_clones(adata, clone_key="other", n_boot=0)
        assert (table["n_seen"] == 0).all() and "trained on" not in table.attrs["verdict"]
        ratios.append(table.set_index("model").loc["wlm", "distance"])
    assert ratios[0] > 1.4 and ratios[1] < 0.75
    assert "trained on" not in caplog.text
    _taught.write_h5ad(tmp_path / "taught.h5ad")
    again = ad.read_h5ad(tmp_path / "taught.h5ad")
    table = wlm.tl.evaluate_clones(again, clone_key="clone", n_boot=0)
    assert (table["n_seen"] == 20).all() and "20 of which the fit was trained on" in table.attrs["verdict"]
    assert "20 of 40 cells are of clones that the fit was trained on (clone_key='known')" in caplog.text


def test_a_column_and_a_matrix_are_the_same_and_no_clones_are_not():
    one, two, none = (
        wlm.tl.fit(swapped(), "day", clone_key=key, copy=True, **SHORT) for key in ("known", "X_clone", None)
    )
    assert one.uns["wlm"]["params"]["clone_key"] == "known"
    np.testing.assert_array_equal(one.obsm["wlm_next"], two.obsm["wlm_next"])
    assert np.abs(one.obsm["wlm_next"] - none.obsm["wlm_next"])[:40].max() > 1e-3


def test_evaluation_fits_on_clones_what_takes_them():
    adata = swapped()
    more = swapped()
    more.obs["day"] += 1
    adata = ad.concat([adata, more[more.obs["day"] == 2]], index_unique="-")
    small = {k: v for k, v in SHORT.items() if k not in ("show_progress", "device", "backtest")}
    options = {"method": {"wlm": small, "flow": {}}, "holdout": "all", "baselines": False}
    with_, without = (
        wlm.tl.evaluate(adata, "day", clone_key=key, metrics="w1", backtest=False, **options).set_index("model")
        for key in ("known", None)
    )
    assert (with_.loc["wlm", "w1"] != without.loc["wlm", "w1"]).all()
    assert (with_.loc["flow", "w1"] == without.loc["flow", "w1"]).all()
    with pytest.raises(ValueError, match="'flow' has no use for clones"):
        wlm.tl.evaluate(adata, "day", clone_key="known", method="flow")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"clone_key": "absent"}, KeyError, "neither a column of obs.*nor a key of obsm"),
        ({"clone_key": "own"}, ValueError, "80 clones, and each has one cell"),
        ({"clone_key": "daily"}, ValueError, "none of the 40 clones of 'daily' has cells at two training times"),
        ({"clone_key": "several"}, ValueError, "puts 1 cells into several clones"),
        ({"clone_key": "known", "condition_key": "dish"}, ValueError, "20 of 20 clones have cells in several conditi"),
        ({"clone_key": "known", "method": "flow"}, ValueError, "no use for clones in training.*method='wlm'"),
        ({"clone_key": "wlm_next"}, ValueError, "overwrite its own input"),
    ],
)
def test_bad_clones_are_refused_before_training(options, error, words):
    adata = swapped()
    adata.obs["own"] = adata.obs_names
    adata.obs["daily"] = [f"{t:g} {i // 2}" for t, i in zip(adata.obs["day"], range(80), strict=True)]
    adata.obs["dish"] = np.where((np.arange(80) % 2 == 0) ^ (adata.obs["day"] > 0), "a", "b")
    several = adata.obsm["X_clone"].toarray()
    several[0, :2] = 1
    adata.obsm["several"], adata.obsm["wlm_next"] = several, several
    before = sorted(adata.obs), sorted(adata.obsm), sorted(adata.uns)
    call = {k: v for k, v in SHORT.items() if options.get("method") != "flow" or k in ("show_progress", "backtest")}
    with pytest.raises(error, match=words):
        wlm.tl.fit(adata, "day", **call | options)
    assert (sorted(adata.obs), sorted(adata.obsm), sorted(adata.uns)) == before


def test_conditions_have_clones_of_their_own():
    adata = swapped()
    adata.obs["dish"] = np.where(np.arange(80) % 2, "a", "b")
    wlm.tl.fit(adata, "day", clone_key="clone", condition_key="dish", **SHORT)
    table = wlm.tl.evaluate_clones(adata, clone_key="clone", key="wlm_a", n_boot=0)
    assert (table["n_seen"] == 20).all()


def test_a_mudata_has_clones_at_either_level():
    mudata = pytest.importorskip("mudata")
    rna = swapped()
    clone = rna.obs.pop("known")
    mdata = mudata.MuData({"rna": rna})
    mdata.obs["known"] = clone.reindex(mdata.obs_names)
    wlm.tl.fit(mdata, "day", mod="rna", clone_key="known", **SHORT)
    plain = wlm.tl.fit(swapped(), "day", clone_key="known", copy=True, **SHORT)
    np.testing.assert_array_equal(mdata["rna"].obsm["wlm_next"], plain.obsm["wlm_next"])
    table = wlm.tl.evaluate_clones(mdata, mod="rna", clone_key="other", n_boot=0)
    assert (table["n_seen"] == 0).all()
