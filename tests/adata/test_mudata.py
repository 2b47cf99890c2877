"""MuData: results land in the right place, survive updates and files, and equal those of an AnnData."""

import inspect
import sys
from contextlib import nullcontext

import anndata as ad
import matplotlib.pyplot as plt
import mudata as md
import muon as mu
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from sklearn.neighbors import NearestNeighbors

import wlm

FIELDS = ("velocity", "force", "next")


def pulling(pull):
    """Whether updates pull columns out of modalities: an option of mudata 0.3; since 0.4 they never do."""
    return md.set_options(pull_on_update=pull) if hasattr(md, "set_options") else nullcontext()


@pytest.fixture(scope="module")
def _mdata(tmp_path_factory):
    adata = wlm.datasets.bifurcation(60, n_genes=40, rng=1)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    parts = {"rna": adata[5:, :25].copy(), "prot": adata[:-5, 25:].copy()}
    for part in parts.values():
        part.obs = part.obs[["day"]]
        sc.pp.pca(part, n_comps=5)
    with pulling(False):
        mdata = md.MuData(parts)
    mdata.obs["day"] = adata.obs["day"].reindex(mdata.obs_names)
    path = str(tmp_path_factory.mktemp("mofa") / "model.hdf5")
    mu.tl.mofa(mdata, n_factors=4, use_obs="union", n_iterations=20, outfile=path, save_metadata=False, quiet=True)
    return mdata


@pytest.fixture
def mdata(_mdata):
    """295 cells of each of two modalities, 290 of them in both, with joint factors; a fresh copy."""
    with pulling(False):
        return _mdata.copy()


@pytest.fixture(scope="module")
def _alone(_mdata, quick):
    return wlm.tl.fit(_mdata["rna"], "day", holdout=2, copy=True, **quick)


@pytest.fixture(scope="module")
def _joint(_mdata, quick):
    table = pd.DataFrame({"day": _mdata.obs["day"].to_numpy()}, index=_mdata.obs_names)
    alone = ad.AnnData(obs=table, obsm={"X_mofa": _mdata.obsm["X_mofa"]})
    return wlm.tl.fit(alone, "day", use_rep="X_mofa", copy=True, **quick)


def same_fit(a, b, key="wlm"):
    """Two places hold the same fit, to the bit."""
    assert set(a.uns[key]) == set(b.uns[key])
    for name, weights in a.uns[key]["weights"].items():
        assert np.array_equal(weights, b.uns[key]["weights"][name])
    assert np.array_equal(a.uns[key]["rollout"]["positions"], b.uns[key]["rollout"]["positions"])
    assert a.uns[key]["representation"].keys() == b.uns[key]["representation"].keys()
    assert np.array_equal(a.obs[f"{key}_potential"], b.obs[f"{key}_potential"])
    for name in FIELDS:
        assert np.array_equal(a.obsm[f"{key}_{name}"], b.obsm[f"{key}_{name}"], equal_nan=True)


def untouched(place):
    return not any("wlm" in key for slot in (place.obs, place.obsm, place.uns) for key in slot)


def state(mdata):
    """All keys of all places."""
    return [[list(slot) for slot in (p.obs, p.obsm, p.uns)] for p in (mdata, *mdata.mod.values())]


@pytest.mark.parametrize("level", ["modality", "global", "pulled", "both"])
def test_a_modality_is_fitted_like_the_anndata_it_is(mdata, _alone, level, quick):
    alone = _alone.copy()
    if level == "modality":
        del mdata.obs["day"]
    elif level == "global":
        del mdata["rna"].obs["day"]
    elif level == "pulled":
        mdata.obs = mdata.obs.rename(columns={"day": "rna:day"})
        del mdata["rna"].obs["day"]
    else:  # the modality's own column comes first
        mdata.obs["day"] = 9.0
    assert wlm.tl.fit(mdata, "day", mod="rna", holdout=2, **quick) is None
    same_fit(mdata["rna"], alone)
    assert "mean" in mdata["rna"].uns["wlm"]["representation"]
    assert untouched(mdata) and untouched(mdata["prot"])
    predicted, expected = wlm.tl.predict(mdata, 2, mod="rna", genes=True), wlm.tl.predict(alone, 2, genes=True)
    assert isinstance(predicted, ad.AnnData) and np.array_equal(predicted.X, expected.X)
    assert predicted.var_names.equals(mdata["rna"].var_names) and predicted.obs.equals(expected.obs)
    del alone.uns["wlm"], mdata["rna"].uns["wlm"]
    assert list(alone.uns) == list(mdata["rna"].uns)


def test_pulled_columns_can_be_named_as_they_are(mdata, quick):
    with pulling(False):
        mdata.pull_obs("day", mods=["rna"])
    del mdata["rna"].obs["day"]
    wlm.tl.fit(mdata, "rna:day", mod="rna", **quick)
    assert mdata["rna"].uns["wlm"]["time"]["key"] == "rna:day"
    assert set(wlm.tl.predict(mdata, 2.5, mod="rna").obs["rna:day"]) == {2.5}


@pytest.mark.slow
@pytest.mark.parametrize("pull", [True, False] if hasattr(md, "set_options") else [False])
@pytest.mark.parametrize("mod", [None, "rna"])
@pytest.mark.filterwarnings("ignore:From 0.4")
def test_updates_and_files_keep_the_fit(mdata, mod, pull, quick, tmp_path):
    arguments = {"mod": mod, "use_rep": "X_pca" if mod else "X_mofa"}
    with pulling(pull):
        wlm.tl.fit(mdata, "day", **arguments, **quick)
        expected = wlm.tl.predict(mdata, 2.5, mod=mod).obsm[arguments["use_rep"]]
        before = (mdata[mod] if mod else mdata).copy()
        mdata.update()
        same_fit(mdata[mod] if mod else mdata, before)
        mdata.write_h5mu(tmp_path / "fitted.h5mu")
        again = md.read_h5mu(tmp_path / "fitted.h5mu")
        same_fit(again[mod] if mod else again, before)
        assert untouched(again["prot"]) and (mod is None or "wlm" not in again.uns)
        assert np.array_equal(wlm.tl.predict(again, 2.5, mod=mod).obsm[arguments["use_rep"]], expected)
        wlm.tl.fit(again, "day", rng=1, **arguments, **quick)  # over what was read
        again.write_h5mu(tmp_path / "fitted.h5mu")


@pytest.mark.parametrize("level", ["global", "modalities", "prefixed"])
def test_a_joint_representation_is_fitted_at_the_joint_level(mdata, _joint, level, quick):
    alone, key = _joint, "day"
    if level != "global":
        del mdata.obs["day"]  # together the modalities know the time of every cell
    if level == "prefixed":
        mdata["rna"].obs = mdata["rna"].obs.rename(columns={"day": "time"})
        with pytest.raises(ValueError, match=r"lacks 5 of 300 cells.*mod='rna'"):
            wlm.tl.fit(mdata, "rna:time", use_rep="X_mofa", **quick)
        mdata.obs["rna:time"] = alone.obs["day"]
        key = "rna:time"
    wlm.tl.fit(mdata, key, use_rep="X_mofa", **quick)
    same_fit(mdata, alone)
    assert untouched(mdata["rna"]) and untouched(mdata["prot"])
    expected = wlm.tl.predict(alone, [1.5, 6]).obsm["X_mofa"]
    assert np.array_equal(wlm.tl.predict(mdata, [1.5, 6]).obsm["X_mofa"], expected)


@pytest.mark.slow
def test_copy_diagnosis_evaluation_and_plots(mdata, quick):
    before = state(mdata)
    with pulling(False):
        joint = wlm.tl.fit(mdata, "day", use_rep="X_mofa", holdout=2, copy=True, **quick)
        one = wlm.tl.fit(mdata, "day", mod="prot", holdout=2, copy=True, **quick)
    assert state(mdata) == before and isinstance(joint, md.MuData)
    for place, mod in ((joint, None), (one["prot"], "prot")):
        whole = joint if mod is None else one
        wlm.tl.diagnose(whole, mod=mod, seeds=2)
        assert len(place.uns["wlm_diagnosis"]["friction_seeds"]) == 2
        for plot in (wlm.pl.rollout, wlm.pl.training, wlm.pl.friction, wlm.pl.energy):
            keys = state(whole)
            assert isinstance(plot(whole, mod=mod, return_fig=True), plt.Figure) and state(whole) == keys
    plt.close("all")
    options = {**{k: v for k, v in quick.items() if k != "show_progress"}, "holdout": 2, "metrics": ("w1",)}
    del mdata["rna"].obs["day"]
    table = wlm.tl.evaluate(mdata, "day", mod="rna", **options)
    mdata["rna"].obs["day"] = mdata.obs["day"]
    pd.testing.assert_frame_equal(table, wlm.tl.evaluate(mdata["rna"], "day", **options))
    joint = wlm.tl.evaluate(mdata, "day", use_rep="X_mofa", **options)
    assert list(joint["model"]) == list(table["model"]) and np.isfinite(joint["w1"]).all()


def exact_neighbours(x, n_neighbors, metric, metric_kwds, **_):
    """In place of pynndescent's, which numba compiles for each metric of muon's: two minutes for 290 cells."""
    x = metric_kwds.get("X", x)
    distances, indices = NearestNeighbors(n_neighbors=n_neighbors).fit(x).kneighbors(x)
    return indices, distances, None


@pytest.mark.slow
def test_neighbours_weighted_over_modalities(mdata, quick, tmp_path, monkeypatch):
    where = inspect.getmodule(mu.pp.neighbors)
    monkeypatch.setattr(where, "nearest_neighbors", exact_neighbours)
    with pulling(False):
        mu.pp.intersect_obs(mdata)
        for modality in mdata.mod.values():
            sc.pp.neighbors(modality, use_rep="X_pca")
        mu.pp.neighbors(mdata)
        mu.tl.umap(mdata, random_state=0)
        mdata.obsm["X_wnn_umap"] = mdata.obsm["X_umap"]
        wlm.tl.fit(mdata, "day", use_rep="X_wnn_umap", **quick)
        wlm.tl.fit(mdata, "day", mod="rna", key_added="rna", **quick)
        mdata.write_h5mu(tmp_path / "wnn.h5mu")
        again = md.read_h5mu(tmp_path / "wnn.h5mu")
    same_fit(again, mdata)
    same_fit(again["rna"], mdata["rna"], "rna")
    assert wlm.tl.predict(again, 2.5).obsm["X_wnn_umap"].shape == (60, 2)
    assert isinstance(wlm.pl.rollout(again, basis="mofa", return_fig=True), plt.Figure)
    plt.close("all")


@pytest.mark.parametrize("mod", [None, "rna"])
@pytest.mark.filterwarnings("ignore")
def test_views_are_fitted_without_writing_to_their_parent(mdata, mod, quick):
    before = state(mdata)
    with pulling(False):
        view = mdata[mdata.obs["day"] < 3]
        wlm.tl.fit(view, "day", mod=mod, use_rep="X_pca" if mod else "X_mofa", **quick)
        place = view[mod] if mod else view
        assert np.isfinite(place.obsm["wlm_velocity"]).all() and "wlm_potential" in place.obs
        assert wlm.tl.predict(view, 3, mod=mod).n_obs == 60
    assert state(mdata) == before


def test_velocities_of_genes_need_their_modality(mdata, quick):
    mdata["rna"].layers["velocity"] = np.random.default_rng(0).normal(size=mdata["rna"].shape)
    with pytest.raises(KeyError, match="modalities have it: pass mod='rna'"):
        wlm.tl.fit(mdata, "day", use_rep="X_mofa", velocity_key="velocity", **quick)
    del mdata["rna"].obs["day"]
    wlm.tl.fit(mdata, "day", mod="rna", velocity_key="velocity", velocity_scale=1.0, **quick)
    expected = wlm.pp.project_velocity(mdata["rna"], copy=True).obsm["velocity_projected"]
    assert np.allclose(mdata["rna"].obsm["wlm_velocity"], expected, atol=1e-4)


@pytest.mark.slow
def test_conditions_in_a_modality(mdata, quick):
    mdata.obs["treatment"] = np.where(np.arange(mdata.n_obs) % 2, "drug", "none")
    wlm.tl.fit(mdata, "day", mod="rna", condition_key="treatment", **quick)
    predicted = wlm.tl.predict(mdata, 2.5, mod="rna")
    assert predicted.obs["treatment"].value_counts().to_dict() == {"drug": 30, "none": 30}
    origin = mdata.obs["treatment"].reindex(predicted.obs["origin"])
    assert (origin.to_numpy() == predicted.obs["treatment"].to_numpy()).all()


def broken(mdata, how):
    """Calls that cannot work."""
    call = {"time_key": "day"}
    if how == "wrong modality":
        call["mod"] = "atac"
    elif how == "no modality chosen":
        pass
    elif how == "no such rep":
        call["use_rep"] = "X_scvi"
    elif how == "no time in a modality":
        call |= {"mod": "rna", "time_key": "age"}
    elif how == "no time at all":
        call |= {"use_rep": "X_mofa", "time_key": "age"}
    elif how == "times differ":
        mdata["rna"].obs["day"] += 1
        del mdata.obs["day"]
        call["use_rep"] = "X_mofa"
    elif how == "cells differ":
        other = mdata["rna"].copy()
        other.obs_names = [f"new_{i}" if i < 3 else name for i, name in enumerate(other.obs_names)]
        del other.obs["day"]
        mdata.mod["rna"] = other
        call["mod"] = "rna"
    elif how == "foreign key":
        mdata["rna"].uns["wlm"] = 1
        call["mod"] = "rna"
    return call


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("wrong modality", KeyError, r"'atac' does not exist; modalities are \['rna', 'prot'\]"),
        ("no modality chosen", KeyError, "modalities have it: pass mod='rna' or mod='prot'"),
        ("no such rep", KeyError, r"mdata.obsm has \['X_mofa'\]"),
        ("no time in a modality", KeyError, r"in neither level: mdata\['rna'\].obs has"),
        ("no time at all", KeyError, "no modality has it"),
        ("times differ", ValueError, "differs between the modalities"),
        ("cells differ", ValueError, "lacks 3 of 295 cells of 'rna'.*run mdata.update"),
        ("foreign key", ValueError, "not a fit"),
    ],
)
def test_bad_input_gets_a_clear_error_and_changes_nothing(mdata, how, error, message, quick):
    call = broken(mdata, how)
    before = state(mdata)
    with pytest.raises(error, match=message):
        wlm.tl.fit(mdata, **call, **quick)
    assert state(mdata) == before


def test_the_place_of_a_fit_is_pointed_out(mdata, cells, quick):
    wlm.tl.fit(mdata, "day", mod="rna", **quick)
    for call in (lambda: wlm.tl.predict(mdata, 2.5), lambda: wlm.pl.training(mdata), lambda: wlm.tl.diagnose(mdata)):
        with pytest.raises(KeyError, match="modalities have it: pass mod='rna'"):
            call()
    with pytest.raises(KeyError, match="modalities have it: pass mod='rna'"):
        wlm.tl.predict(mdata, 2.5, mod="prot")
    with pytest.raises(KeyError, match="run wlm.tl.fit"):
        wlm.tl.predict(mdata, 2.5, mod="prot", key="other")
    with pytest.raises(ValueError, match="adata is an AnnData; leave mod out"):
        wlm.tl.fit(cells, "day", mod="rna", **quick)
    with pytest.raises(TypeError, match="must be an AnnData"):
        wlm.tl.predict(pd.DataFrame(), 2.5)


def test_an_anndata_needs_no_mudata(cells, quick, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] in ("mudata", "muon")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mudata", None)  # importing it fails
    wlm.tl.fit(cells, "day", **quick)
    assert wlm.tl.predict(cells, 2.5).n_obs == 60


@pytest.mark.slow
@pytest.mark.shared
def test_real_cells_in_two_modalities(real_data):
    adata = ad.read_h5ad(real_data / "reprogramming_250.h5ad")
    half = adata.n_vars // 2
    parts = {"a": adata[:, :half].copy(), "b": adata[:, half:].copy()}
    for part in parts.values():
        part.obs = part.obs[[]]
        part.uns.clear()
        sc.pp.pca(part, n_comps=10)
    with pulling(False):
        mdata = md.MuData(parts)
    mdata.obs["day"] = adata.obs["day"]
    mdata.obsm["X_joint"] = np.hstack([part.obsm["X_pca"] for part in parts.values()])
    wlm.tl.fit(mdata, "day", use_rep="X_joint", n_steps=150, holdout=10.5, show_progress=False)
    predicted = wlm.tl.predict(mdata, 10.5).obsm["X_joint"]
    day = adata.obs["day"].astype(float).to_numpy()
    at = {d: mdata.obsm["X_joint"][day == d] for d in (10.0, 10.5, 11.0)}
    score = {
        name: wlm.core.metrics.w1(x, at[10.5]) for name, x in (("wlm", predicted), ("10", at[10.0]), ("11", at[11.0]))
    }
    assert score["wlm"] < min(score["10"], score["11"]), score
    wlm.tl.fit(mdata, "day", mod="b", n_steps=20, show_progress=False)
    assert wlm.tl.predict(mdata, 10.75, mod="b", genes=True).n_vars == adata.n_vars - half
