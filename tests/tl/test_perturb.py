"""``tl.perturb``: genes set through the decoder, on cells whose laws of motion are known."""

import json
import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

import wlm
from wlm.tl._interventions import EFFECTS

GENES = [f"g{i}" for i in range(12)]


def decoded(positions, seed=0):
    """Expression of which these positions (n, 3) are all that varies, but for a gene of noise: ``noise``."""
    rng = np.random.default_rng(seed)
    loadings = np.linalg.qr(np.random.default_rng(7).normal(size=(len(GENES), 3)))[0]
    x = 5 + positions @ loadings.T + 0.02 * rng.normal(size=(len(positions), len(GENES)))
    return np.column_stack([x, 3 + 0.05 * rng.normal(size=len(x))]).astype(np.float32)


def simulate(position, n=80, days=4, seed=0):
    """Cells at positions (n, 3) by day, as expression with its principal components."""
    rng = np.random.default_rng(seed)
    x = [position(rng.normal(size=(n, 3)), day) for day in range(days)]
    obs = pd.DataFrame({"day": np.repeat(np.arange(days, dtype=float), n)})
    adata = ad.AnnData(decoded(np.concatenate(x)), obs=obs.set_index("c" + obs.index.astype(str)))
    adata.var_names = [*GENES, "noise"]
    adata.obsm["truth"] = np.concatenate(x)
    sc.pp.pca(adata, n_comps=3)
    return adata


@pytest.fixture(scope="module")
def drifting():
    """All cells move by the same step each day, whatever their position."""
    adata = simulate(lambda z, day: z + day * np.array([2.0, 0, 0]))
    wlm.tl.fit(adata, "day", method="flow", path="straight", show_progress=False)
    return adata


@pytest.fixture(scope="module")
def parting():
    """Cells part along the second dimension, to the side on which they start."""
    adata = simulate(lambda z, day: z * [0.5, 0.5, 0.5] + np.outer(np.sign(z[:, 1]), [0, 1.2 * day, 0]) + [day, 0, 0])
    adata.obs["side"] = np.where(adata.obsm["truth"][:, 1] > 0, "left", "right")
    wlm.tl.fit(adata, "day", method="flow", path="field", show_progress=False)
    return adata


def effects(predicted, key="wlm"):
    table = pd.DataFrame(dict(predicted.uns[f"{key}_perturbation"]["effects"]))
    return table[list(EFFECTS)]  # files keep dicts in the order of their names


def weights(adata, gene):
    return adata.varm["PCs"][adata.var_names.get_loc(gene)]


def test_where_all_cells_move_alike_the_change_stays_what_it_was(drifting):
    level = {"g0": float(drifting.to_df()["g0"].mean())}
    predicted = wlm.tl.perturb(drifting, level, at=0, times=[0.5, 2], n_cells=None, max_outside=1, n_null=0)
    change = predicted.obsm["X_pca"] - predicted.obsm["wlm_unperturbed"]
    assert change[:80] == pytest.approx(change[80:], abs=0.1) and np.abs(change).max() > 1
    # Decoded, the gene has the level that was asked, and its twin moved on by the drift alone.
    note = predicted.uns["wlm_perturbation"]
    start = drifting[drifting.obs["day"] == 0].obsm["X_pca"] @ weights(drifting, "g0")
    moved = start + change[:80] @ weights(drifting, "g0")
    assert moved.std() < 0.1 * start.std()
    assert note["before"][0] == pytest.approx(drifting[drifting.obs["day"] == 0].to_df()["g0"].mean(), abs=0.02)
    genes = effects(predicted).query("statistic == 'genes' and time == 2").set_index("name")["effect"]
    assert genes["g0"] == pytest.approx(level["g0"] - note["before"][0], rel=0.1)
    assert effects(predicted)[["low", "high", "null_low", "null_high", "p"]].isna().all(axis=None)


def test_setting_the_level_that_is_there_changes_nothing(drifting):
    only = drifting[drifting.obs["day"] == 0].obsm["X_pca"] @ weights(drifting, "g1")
    predicted = wlm.tl.perturb(drifting, {"g1": 0.0}, at=0, times=1, max_outside=1, n_null=0)
    note = predicted.uns["wlm_perturbation"]
    assert note["move"] > 1 and note["inside"] < 0.5 and note["reach"] < 1
    assert len(only) == 80 and predicted.n_obs == 80
    twin = wlm.tl.predict(drifting, 1.0)
    # The twin is the free rollout of the fit, from the same cells.
    free = predicted.obsm["wlm_unperturbed"].mean(axis=0)
    assert free == pytest.approx(twin.obsm["X_pca"].mean(axis=0), abs=0.3)
    assert (predicted.obs["origin"].to_numpy() == drifting.obs_names[drifting.obs["day"] == 0]).all()


def test_cells_that_are_pushed_to_a_side_go_there(parting):
    side = parting.to_df()[GENES].corrwith(pd.Series(parting.obsm["truth"][:, 1], index=parting.obs_names))
    gene = side.abs().idxmax()
    found = {}
    for level in ("up", "down"):
        predicted = wlm.tl.perturb(parting, {gene: level}, at=0, times=3, label_key="side", max_outside=1)
        table = effects(predicted)
        left = table[(table["statistic"] == "composition") & (table["name"] == "left")].iloc[0]
        found[level] = left["effect"] * np.sign(side[gene])
        shares = [(predicted.obs[c] == "left").mean() for c in ("side", "unperturbed_side")]
        assert left["effect"] == pytest.approx(shares[0] - shares[1])
        assert "no regulatory network" in predicted.uns["wlm_perturbation"]["verdict"]
        assert table["p"].between(1 / 20, 1).all() and (table["null_low"] <= table["null_high"]).all()
    assert found["up"] > 0.25 and found["down"] < -0.25


def test_knocking_out_is_the_lowest_value_that_was_seen(parting):
    predicted = wlm.tl.perturb(parting, "g2", at=1, times=3, max_outside=1, n_null=0)
    note = predicted.uns["wlm_perturbation"]
    assert note["levels"][0] == pytest.approx(parting.to_df()["g2"].min()) and note["genes"].tolist() == ["g2"]
    two = wlm.tl.perturb(parting, {"g2": "down", "g3": "up"}, at=1, times=3, max_outside=1, n_null=3)
    assert two.uns["wlm_perturbation"]["genes"].tolist() == ["g2", "g3"]


def test_a_screen_says_the_same_as_each_by_itself_and_keeps_what_is_done(parting, tmp_path, monkeypatch, caplog):
    asked = [{"g0": "up"}, {"g1": "down"}, {"noise": "up"}]
    arguments = {"at": 0, "times": [2, 3], "label_key": "side", "max_outside": 1, "n_null": 3}
    monkeypatch.setattr(logging.getLogger("wlm"), "propagate", True)
    screen = wlm.tl.perturb(parting, asked, **arguments, cache=tmp_path, show_progress=False)
    assert list(screen["perturbation"].unique()) == ["g0 up", "g1 down"] and "genes" not in set(screen["statistic"])
    assert list(screen.attrs["refused"]) == ["noise up"] and "too little" in caplog.text
    alone = effects(wlm.tl.perturb(parting, asked[1], **arguments))
    alone = alone[alone["statistic"] != "genes"].reset_index(drop=True)
    own = screen[screen["perturbation"] == "g1 down"].reset_index(drop=True)
    pd.testing.assert_frame_equal(own[alone.columns], alone, check_dtype=False)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3 and all(json.loads(f.read_text()) for f in files)
    monkeypatch.setattr("wlm.tl._perturb.intervene", lambda *_, **__: pytest.fail("it was there already"))
    again = wlm.tl.perturb(parting, asked, **arguments, cache=tmp_path, show_progress=False)
    pd.testing.assert_frame_equal(again, screen, check_dtype=False)


def test_results_are_stored_as_they_are(parting, tmp_path):
    before = list(parting.uns), list(parting.obsm), list(parting.obs)
    predicted = wlm.tl.perturb(parting, {"g0": "up"}, at=0, times=3, label_key="side", max_outside=1, n_null=2)
    assert before == (list(parting.uns), list(parting.obsm), list(parting.obs))
    predicted.write_h5ad(tmp_path / "p.h5ad")
    again = ad.read_h5ad(tmp_path / "p.h5ad")
    pd.testing.assert_frame_equal(effects(again), effects(predicted), check_dtype=False)
    predicted.write_zarr(tmp_path / "p.zarr")
    assert (
        ad.read_zarr(tmp_path / "p.zarr").uns["wlm_perturbation"]["verdict"]
        == predicted.uns["wlm_perturbation"]["verdict"]
    )


def test_a_modality_is_perturbed_as_its_object(drifting):
    from mudata import MuData

    arguments = {"at": 0, "times": 2, "n_null": 2}
    alone = wlm.tl.perturb(drifting, {"g0": "up"}, **arguments)
    within = wlm.tl.perturb(MuData({"rna": drifting.copy()}), {"g0": "up"}, mod="rna", **arguments)
    assert np.array_equal(within.obsm["X_pca"], alone.obsm["X_pca"])


@pytest.mark.slow
def test_an_ensemble_gives_a_range_that_holds_its_first_model(cells, quick):
    wlm.tl.fit(cells, "day", n_models=2, **quick)
    gene = cells.var["wlm_decode_r2"].idxmax()
    predicted = wlm.tl.perturb(cells, {gene: "up"}, at=1, times=2, max_outside=1, n_null=2)
    table = effects(predicted)
    assert ((table["low"] <= table["effect"]) & (table["effect"] <= table["high"])).all()
    assert (table["high"] > table["low"]).any()


BAD = {
    "no such gene": ("GATA1", {}, KeyError, "are not in var_names"),
    "noise": ("noise", {}, ValueError, "too little of these genes to set them: noise has R²"),
    "a level of nothing": ({"g0": "off"}, {}, TypeError, "must be a number, 'out', 'down' or 'up'"),
    "outside": ({"g0": 50.0}, {}, ValueError, "out of the data"),
    "before": ("g0", {"times": 0}, ValueError, "times must be after 0"),
    "another day": ("g0", {"at": 0.5}, ValueError, "0.5 was not observed"),
    "several days": ("g0", {"at": [0, 1]}, ValueError, "at must be one time"),
    "no genes": ([], {}, ValueError, "empty list"),
    "a number": ({"g0": "up"}, {"n_cells": 0}, ValueError, "n_cells must be an integer"),
    "a share": ({"g0": "up"}, {"min_r2": 2}, ValueError, "min_r2 must be a share"),
    "a column": ({"g0": "up"}, {"label_key": "type"}, KeyError, "'type'"),
    "a cache": ({"g0": "up"}, {"cache": "folder"}, ValueError, "perturbations of a screen"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(drifting, name):
    genes, arguments, error, message = BAD[name]
    with pytest.raises(error, match=message):
        wlm.tl.perturb(drifting, genes, **{"at": 0, "times": 2, **arguments})


def test_the_advice_of_a_refusal_stays_inside(drifting):
    with pytest.raises(ValueError, match="so pass") as refused:
        wlm.tl.perturb(drifting, {"g0": 50.0}, at=0, times=2, n_null=0)
    nearer = json.loads(str(refused.value).split("so pass ")[1].split(", or raise")[0].replace("'", '"'))
    predicted = wlm.tl.perturb(drifting, nearer, at=0, times=2, n_null=0)
    assert predicted.uns["wlm_perturbation"]["inside"] > 0.5


@pytest.mark.shared
def test_monocytes_of_real_cells_come_with_their_factor_and_far_moves_are_refused(real_data, monkeypatch):
    monkeypatch.setenv("WLM_DATA_DIR", str(real_data))
    adata = wlm.datasets.larry_clones()
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=20)
    wlm.tl.fit(adata, "day", method="flow", backtest=False, show_progress=False)
    with pytest.raises(ValueError, match="Gata2 at .* takes .* out of the data"):
        wlm.tl.perturb(adata, {"Gata2": "up"}, at=4, times=6)
    found = wlm.tl.perturb(
        adata, {"Klf4": "up"}, at=4, times=[4.01, 6], label_key="cell_type", n_null=3, max_outside=0.6
    )
    shares = pd.crosstab(found.obs["day"], found.obs["cell_type"], normalize="index")["Monocyte"]
    alone = pd.crosstab(found.obs["day"], found.obs["unperturbed_cell_type"], normalize="index")["Monocyte"]
    # At once: the cells lie among monocytes. Left alone, a third of them are.
    assert (shares > 0.9).all() and (alone < 0.5).all()
