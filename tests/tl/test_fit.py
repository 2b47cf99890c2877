"""``tl.fit``: what it writes, what it refuses, and that it never leaves an object half-written."""

import logging
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles import Drawn

import wlm
from wlm._store.integrity import seal
from wlm.core.chains import to_cells
from wlm.core.field import learn_paths
from wlm.core.populations import Populations
from wlm.core.snapshots import Snapshots


def snapshot(adata):
    """Everything in an object, for comparing before and after."""
    keys = {name: set(getattr(adata, name)) for name in ("obsm", "varm", "uns", "layers", "obsp", "var")}
    dense = lambda a: np.array(a.toarray() if hasattr(a, "toarray") else a)  # noqa: E731
    arrays = {**adata.obsm, **adata.layers} | ({} if adata.X is None else {"X": adata.X})
    return keys, adata.obs.copy(), {k: dense(v) for k, v in arrays.items()}


def same(a, b):
    keys, obs, arrays = zip(a, b, strict=True)
    pd.testing.assert_frame_equal(*obs)
    assert keys[0] == keys[1] and all(np.array_equal(arrays[0][k], arrays[1][k], equal_nan=True) for k in arrays[0])


def test_writes_the_contract(cells, quick):
    before = cells.obs.copy()
    assert wlm.tl.fit(cells, "day", holdout=2, **quick) is None
    n, d, uns = cells.n_obs, 5, cells.uns["wlm"]
    assert set(uns) >= {"format", "version", "method", "config", "params", "time", "representation"}
    assert set(uns) >= {"friction", "weights", "history", "rollout"}
    assert uns["method"] == "wlm" and isinstance(uns["friction"], float) and uns["friction"] > 0
    assert uns["time"]["values"].tolist() == [0, 1, 2, 3, 4] and uns["time"]["holdout"].tolist() == [2]
    assert uns["representation"]["key"] == "X_pca" and uns["representation"]["n_dims"] == d
    assert all(w.dtype == np.float32 for w in uns["weights"].values())
    assert len(uns["history"]["step"]) == len(uns["history"]["loss"]) == len(uns["history"]["friction"])
    roll = uns["rollout"]
    assert roll["positions"].shape == roll["velocities"].shape == (len(roll["times"]), len(roll["origin"]), d)
    assert np.isin(roll["origin"], cells.obs_names[cells.obs["day"] == 0]).all()
    assert cells.obs["wlm_potential"].dtype == np.float32 and np.isfinite(cells.obs["wlm_potential"]).all()
    for name in ("velocity", "force", "next"):
        assert cells.obsm[f"wlm_{name}"].shape == (n, d) and cells.obsm[f"wlm_{name}"].dtype == np.float32
    assert np.isfinite(cells.obsm["wlm_velocity"]).all() and np.isfinite(cells.obsm["wlm_force"]).all()
    last = (cells.obs["day"] == 4).to_numpy()
    assert np.isnan(cells.obsm["wlm_next"][last]).all() and np.isfinite(cells.obsm["wlm_next"][~last]).all()
    pd.testing.assert_frame_equal(cells.obs.drop(columns="wlm_potential"), before)


def test_patience_says_when_and_why_a_training_ended(caplog):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(110, 2)) + [2 * k, 0] for k in range(3)]).astype(np.float32)
    cells = ad.AnnData(obs=pd.DataFrame({"day": np.repeat([0.0, 1.0, 2.0], 110)}), obsm={"X_pca": x})
    cells.obs_names = [f"c{i}" for i in range(len(x))]
    options = {"method": "jkonet_star", "n_steps": 300, "patience": 8, "width": 16, "backtest": False}
    with caplog.at_level(logging.INFO, logger="wlm"):
        wlm.tl.fit(cells, "day", show_progress=False, **options)
    params, history = cells.uns["wlm"]["params"], cells.uns["wlm"]["history"]
    assert params["stopped"] < 300 and params["stopping"].startswith(f"stopped after {params['stopped']} of 300 steps")
    assert params["stopping"] in caplog.text and np.isfinite(history["validation"]).all()
    before = snapshot(cells)
    with pytest.raises(ValueError, match="time 2 has 60 cells; leave patience out"):
        wlm.tl.fit(cells[:280].copy(), "day", show_progress=False, **options)
    same(before, snapshot(cells))


def test_next_is_where_the_stored_velocity_leads(fitted):
    uns_times = [0.0, 1.0]
    start = (fitted.obs["day"] == 0).to_numpy()
    from wlm._store.fit import read_fit

    dynamics = read_fit(fitted, "wlm").dynamics
    x, v = fitted.obsm["X_pca"][start], fitted.obsm["wlm_velocity"][start]
    assert np.allclose(dynamics.simulate(x, uns_times, v=v)[0][-1], fitted.obsm["wlm_next"][start], atol=1e-4)


def test_copy_key_and_log(cells, caplog, quick):
    before = snapshot(cells)
    wlm_logger = logging.getLogger("wlm")
    wlm_logger.addHandler(caplog.handler)
    try:
        out = wlm.tl.fit(cells, "day", key_added="model", copy=True, **quick)
    finally:
        wlm_logger.removeHandler(caplog.handler)
    same(before, snapshot(cells))
    assert "model" in out.uns and "model_next" in out.obsm and "wlm" not in out.uns
    assert "on cpu" in caplog.text and "uns['model']" in caplog.text and "friction" in caplog.text


@pytest.mark.slow
def test_same_seed_same_fit_and_generators_are_accepted(cells, quick):
    fits = [
        wlm.tl.fit(cells, "day", rng=rng, copy=True, **quick)
        for rng in (3, 3, 4, np.random.default_rng(7), np.random.default_rng(7), np.random.SeedSequence(7))
    ]
    force = [f.obsm["wlm_force"] for f in fits]
    assert np.array_equal(force[0], force[1]) and np.array_equal(force[3], force[4])
    assert not np.array_equal(force[0], force[2]) and not np.array_equal(force[0], force[3])
    with pytest.raises(TypeError, match="rng must be"):
        wlm.tl.fit(cells, "day", rng="seed", **quick)


def test_views_and_subsets_can_be_fitted(cells, quick):
    view = cells[cells.obs["day"] < 3]
    out = wlm.tl.fit(view, "day", copy=True, **quick)
    assert out.n_obs == 180 and "wlm" not in cells.uns
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata says that the view becomes a copy
        wlm.tl.fit(view, "day", **quick)
    assert "wlm" in view.uns and "wlm" not in cells.uns


def test_backed_objects_are_fitted_without_reading_x(cells, quick, tmp_path):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r+")
    with pytest.raises(ValueError, match="to_memory"):
        wlm.tl.fit(backed, "day", copy=True, **quick)
    wlm.tl.fit(backed, "day", **quick)
    assert wlm.tl.predict(backed, 2.5).n_obs == 60
    with pytest.raises(ValueError, match="to_memory"):
        wlm.tl.predict(backed, 2.5, genes=True)
    backed.file.close()


def test_numpy_scalars_are_options_and_rounded_times_are_found(cells, quick):
    cells.obs["day"] = (cells.obs["day"] / 10).astype(np.float32)
    wlm.tl.fit(cells, "day", holdout=0.2, **{**quick, "n_steps": np.int64(5), "lr": np.float32(1e-3), "p": np.int64(2)})
    assert cells.uns["wlm"]["time"]["holdout"].tolist() == [0.2]
    assert (wlm.tl.predict(cells, 0.2).obs["from_time"] == 0.1).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "labels",
    [
        lambda day: pd.Categorical(day),
        lambda day: pd.Categorical([f"day {d:g}" for d in day]),
        lambda day: [f"E{d + 8.5}" for d in day],
        lambda day: pd.array(day.astype(int), dtype="Int64"),
        lambda day: [f"D{d:g}" for d in day],
    ],
    ids=["categorical", "day 3", "E8.5", "Int64", "D7"],
)
def test_times_as_people_write_them(cells, labels, quick):
    cells.obs["when"] = labels(cells.obs["day"].to_numpy())
    before = cells.obs["when"].copy()
    wlm.tl.fit(cells, "when", **quick)
    assert np.allclose(np.diff(cells.uns["wlm"]["time"]["values"]), 1)
    pd.testing.assert_series_equal(cells.obs["when"], before)


def test_velocities_from_obsm_are_used_as_they_are(cells, quick):
    v = np.random.default_rng(0).normal(size=cells.obsm["X_pca"].shape).astype(np.float32)
    cells.obsm["v"] = v
    wlm.tl.fit(cells, "day", velocity_key="v", **quick)
    assert np.array_equal(cells.obsm["wlm_velocity"], v)
    wlm.tl.fit(cells, "day", velocity_key="v", initial_velocity="zero", **quick)
    start = (cells.obs["day"] == 0).to_numpy()
    assert np.abs(cells.obsm["wlm_velocity"][start]).max() == 0


def test_velocities_from_a_layer_are_projected_on_the_loadings(cells, quick):
    layer = np.random.default_rng(0).normal(size=cells.shape)
    layer[:, 3] = np.nan
    layer[5, 7] = np.nan
    cells.layers["velocity"] = layer.copy()
    wlm.tl.fit(cells, "day", velocity_key="velocity", velocity_scale=2.0, n_dims=3, **quick)
    assert np.array_equal(cells.layers["velocity"], layer, equal_nan=True), "the layer must not be changed"
    expected = 2 * wlm.pp.project_velocity(cells, copy=True).obsm["velocity_projected"][:, :3]
    assert np.allclose(cells.obsm["wlm_velocity"], expected, atol=1e-4)


def test_a_first_day_that_is_held_out_gets_no_velocity(cells, quick):
    wlm.tl.fit(cells, "day", holdout=[0], **quick)
    early = (cells.obs["day"] == 0).to_numpy()
    assert np.isnan(cells.obsm["wlm_velocity"][early]).all() and np.isfinite(cells.obsm["wlm_velocity"][~early]).all()


def broken(adata, how):
    """Objects and calls that cannot work."""
    call = {"time_key": "day"}
    if how == "no key":
        call["time_key"] = "age"
    elif how == "no pca":
        del adata.obsm["X_pca"]
    elif how == "no rep":
        call["use_rep"] = "X_scvi"
    elif how == "one time":
        adata.obs["day"] = 1.0
    elif how == "nan time":
        adata.obs.loc[adata.obs_names[:3], "day"] = np.nan
    elif how == "text time":
        adata.obs["day"] = ["early" if d < 2 else "late" for d in adata.obs["day"]]
    elif how == "units":
        adata.obs["day"] = ["2 h" if d < 2 else "3 days" for d in adata.obs["day"]]
    elif how == "nan rep":
        adata.obsm["X_pca"][5, 2] = np.nan
    elif how == "n_dims":
        call["n_dims"] = 6
    elif how == "option":
        call["learning_rate"] = 1
    elif how == "method":
        call["method"] = "ot"
    elif how == "holdout":
        call["holdout"] = 2.5
    elif how == "all held out":
        call["holdout"] = [1, 2, 3, 4]
    elif how == "no velocity":
        call["velocity_key"] = "velocity"
    elif how == "velocity wanted":
        call["initial_velocity"] = "data"
    elif how == "nan velocity":
        adata.obsm["v"] = np.full((adata.n_obs, 5), np.nan)
        call["velocity_key"] = "v"
    elif how == "patchy velocity":
        adata.obsm["v"] = np.zeros((adata.n_obs, 5))
        adata.obsm["v"][np.flatnonzero(adata.obs["day"] == 3)[0]] = np.nan
        call["velocity_key"] = "v"
    elif how == "no weights":
        call["weight_key"] = "w"
    elif how == "wide weights":
        adata.obs["w"] = np.append(np.ones(adata.n_obs - 1), 1e-9)
        call["weight_key"] = "w"
    elif how == "reserved weights":
        adata.obs["origin"] = 1.0
        call["weight_key"] = "origin"
    elif how == "bad weights":
        adata.obs["w"] = np.append(np.ones(adata.n_obs - 2), [-1, np.nan])
        call["weight_key"] = "w"
    elif how == "short velocity":
        adata.obsm["v"] = np.zeros((adata.n_obs, 2))
        call["velocity_key"] = "v"
    elif how == "layer without loadings":
        adata.layers["v"] = np.zeros(adata.shape)
        del adata.varm["PCs"]
        call["velocity_key"] = "v"
    elif how == "slash":
        call["key_added"] = "a/b"
    elif how == "device":
        call["device"] = "abacus"
    elif how == "lonely cell":
        adata.obs["day"] = np.append(np.arange(adata.n_obs - 1) % 2, 9.0)
    elif how == "duplicate names":
        adata.obs_names = ["cell"] * adata.n_obs
    elif how == "foreign key":
        call["key_added"] = "pca"
    elif how == "own input":
        adata.obsm["wlm_velocity"] = np.zeros((adata.n_obs, 5))
        call["velocity_key"] = "wlm_velocity"
    elif how == "holdout unit":
        adata.obs["day"] = [f"day {d:g}" for d in adata.obs["day"]]
        call["holdout"] = "2 h"
    elif how == "all equal":
        adata.obsm["X_pca"][:] = 1.0
    return call


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("no key", KeyError, r"obs\['age'\] is missing; obs has"),
        ("no pca", KeyError, r"run sc.pp.pca\(adata\) first"),
        ("no rep", KeyError, r"obsm\['X_scvi'\] is missing; obsm has"),
        ("one time", ValueError, "at least two training times"),
        ("nan time", ValueError, r"missing for 3 of 300 cells.*notna"),
        ("text time", ValueError, r"cannot read these times: \['early', 'late'\]"),
        ("units", ValueError, "different units"),
        ("nan rep", ValueError, r"NaN or infinite values in 1 cells"),
        ("n_dims", ValueError, "n_dims must be between 1 and the 5"),
        ("option", TypeError, r"unknown option.*learning_rate.*options are"),
        ("method", ValueError, r"method 'ot' does not exist; methods are"),
        ("holdout", ValueError, "holdout time 2.5 was not observed"),
        ("all held out", ValueError, "of which 1, 2, 3, 4 are held out"),
        ("no velocity", KeyError, "neither in obsm"),
        ("velocity wanted", ValueError, "pass velocity_key"),
        ("nan velocity", ValueError, "NaN or infinite for 60 of 60 cells at 0; they may be missing"),
        ("patchy velocity", ValueError, "NaN or infinite for 1 of 60 cells at 3"),
        ("short velocity", ValueError, "5 dimensions"),
        ("no weights", KeyError, r"obs\['w'\] is missing"),
        ("wide weights", ValueError, "range from 1e-09 to 1; the largest may be at most 10000 times"),
        ("reserved weights", ValueError, "a column that predictions write"),
        ("bad weights", ValueError, "must be positive numbers; 2 of 300 are not"),
        ("layer without loadings", KeyError, r"varm\['PCs'\] is missing"),
        ("slash", ValueError, "without '/'"),
        ("device", ValueError, "device 'abacus' cannot be used"),
        ("lonely cell", ValueError, "at least 2 cells are needed at every time"),
        ("all equal", ValueError, "same position"),
        ("duplicate names", ValueError, "obs_names_make_unique"),
        ("foreign key", ValueError, r"uns\['pca'\] holds something that is not a fit"),
        ("own input", ValueError, "overwrite its own input"),
        ("holdout unit", ValueError, "'hour', the data in 'day'"),
    ],
)
def test_bad_input_gets_a_clear_error_before_training_and_changes_nothing(
    cells, how, error, message, monkeypatch, quick
):
    call = broken(cells, how)
    before = snapshot(cells)

    def no_step(*args):
        raise AssertionError("training started")

    monkeypatch.setattr(wlm.core.methods.WLM, "step", no_step)
    with pytest.raises(error, match=message):
        wlm.tl.fit(cells, **{**quick, **call})
    same(before, snapshot(cells))


@pytest.mark.slow
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_fit_keeps_what_was_there(fitted, error, monkeypatch, quick):
    before = snapshot(fitted)
    old = fitted.uns["wlm"]["weights"]["potential_embed_weight"].copy()
    calls = []
    step = wlm.core.methods.WLM.step

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 5:
            raise error
        return step(*args)

    monkeypatch.setattr(wlm.core.methods.WLM, "step", interrupted)
    with pytest.raises(error):
        wlm.tl.fit(fitted, "day", rng=9, **quick)
    same(before, snapshot(fitted))
    assert np.array_equal(old, fitted.uns["wlm"]["weights"]["potential_embed_weight"])


def test_a_layer_without_velocities_at_a_time_is_not_at_rest_there(cells, quick):
    cells.layers["velocity"] = np.random.default_rng(0).normal(size=cells.shape)
    cells.layers["velocity"][cells.obs["day"] == 1] = np.nan
    wlm.tl.fit(cells, "day", velocity_key="velocity", velocity_scale=1.0, **quick)
    assert (np.abs(cells.obsm["wlm_velocity"]).max(axis=1) > 0).all()
    assert cells.uns["wlm"]["time"]["measured"].tolist() == [0, 2, 3, 4]
    cells.layers["velocity"][0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite for 1 of 60 cells at 0"):
        wlm.tl.fit(cells, "day", velocity_key="velocity", velocity_scale=1.0, **quick)


@pytest.mark.slow
def test_cells_of_the_papers_algorithm_start_at_rest_unless_their_velocity_is_measured(cells, quick):
    cells.obsm["v"] = np.random.default_rng(0).normal(size=(cells.n_obs, 5)).astype(np.float32)
    cells.obsm["v"][cells.obs["day"] == 1] = np.nan
    wlm.tl.fit(cells, "day", velocity_key="v", method="wlm_paper", **quick)
    weights = cells.uns["wlm"]["weights"]
    for name in weights:
        if name.startswith("potential_energy"):  # without force, cells move by their velocity alone
            weights[name] = np.zeros_like(weights[name])
    cells.uns["wlm"] = seal(cells.uns["wlm"])
    rest, moving = (wlm.tl.predict(cells, 9.0, from_time=t) for t in (1, 2))
    x = cells[rest.obs["origin"]].obsm["X_pca"]
    assert np.allclose(rest.obsm["X_pca"], x, atol=1e-4)
    assert np.abs(moving.obsm["X_pca"] - cells[moving.obs["origin"]].obsm["X_pca"]).max() > 0.1


def test_velocities_may_be_missing_at_whole_later_times(cells, quick, monkeypatch):
    """There cells start with carried momentum; measured times keep their velocities."""
    monkeypatch.setattr(wlm.core.methods.WLM, "RESTART", 1.0)
    rng = np.random.default_rng(0)
    v = rng.normal(size=(cells.n_obs, 5)).astype(np.float32)
    day = cells.obs["day"].to_numpy()
    v[day == 1] = np.nan
    cells.obsm["v"] = v
    wlm.tl.fit(cells, "day", velocity_key="v", **quick)
    stored = cells.obsm["wlm_velocity"]
    assert np.array_equal(stored[day != 1], v[day != 1]) and np.isfinite(stored).all()
    assert np.isfinite(wlm.tl.predict(cells, 1.5).obsm["X_pca"]).all()


def test_not_an_anndata():
    with pytest.raises(TypeError, match="must be an AnnData"):
        wlm.tl.fit(pd.DataFrame({"day": [0, 1]}), "day")


@pytest.mark.parametrize("places", [[3.7, 3.7], [1.0, 5.0]])
def test_cells_in_one_place_at_each_time_are_refused(places, quick):
    x = np.repeat(np.array(places, dtype=np.float32), [2, 7])[:, None]
    obs = pd.DataFrame({"day": np.repeat([0.0, 1.0], [2, 7])}, index=[f"c{i}" for i in range(9)])
    with pytest.raises(ValueError, match="all cells of each time at the same position"):
        wlm.tl.fit(ad.AnnData(obs=obs, obsm={"X_pca": x}), "day", **quick)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sizes=st.lists(st.integers(1, 8), min_size=1, max_size=4),
    d=st.integers(1, 4),
    spoil=st.sampled_from(["nothing", "nan", "inf", "constant dimension", "huge", "duplicate"]),
    dtype=st.sampled_from([np.float32, np.float64, np.int64]),
    data=st.data(),
)
def test_any_object_is_fitted_or_refused_clearly_and_unchanged(sizes, d, spoil, dtype, data, quick):
    rng = Drawn(data)
    n = sum(sizes)
    x = (rng.normal(size=(n, d)) * 10).astype(dtype)
    if spoil == "nan" and dtype != np.int64:
        x[rng.integers(n)] = np.nan
    elif spoil == "inf" and dtype != np.int64:
        x[0, 0] = np.inf
    elif spoil == "constant dimension":
        x[:, 0] = 1
    elif spoil == "huge":
        x = (x * 10_000).astype(dtype)
    elif spoil == "duplicate":
        x[:] = x[0]
    obs = pd.DataFrame({"day": np.repeat(np.arange(len(sizes)) * 1.5, sizes)}, index=[f"c{i}" for i in range(n)])
    adata = ad.AnnData(obs=obs, obsm={"X_pca": x})
    before = snapshot(adata)
    try:
        wlm.tl.fit(adata, "day", **{**quick, "n_steps": 2})
    except (ValueError, KeyError, TypeError) as error:
        assert len(str(error)) > 20
        same(before, snapshot(adata))
    else:
        assert np.isfinite(adata.obsm["wlm_velocity"]).all() and np.isfinite(adata.obs["wlm_potential"]).all()


@pytest.mark.slow
@pytest.mark.shared
def test_reprogramming_from_normalised_counts_to_the_missing_day(real_data):
    adata = ad.read_h5ad(real_data / "reprogramming_250.h5ad")
    sc.pp.pca(adata, n_comps=10)
    wlm.tl.fit(adata, "day", holdout=10.5, n_steps=150, show_progress=False)
    day = adata.obs["day"].astype(float).to_numpy()
    at = {d: adata.obsm["X_pca"][day == d] for d in (10.0, 10.5, 11.0)}
    predicted = wlm.tl.predict(adata, 10.5).obsm["X_pca"]
    score = {
        name: wlm.core.metrics.w1(x, at[10.5]) for name, x in (("wlm", predicted), ("10", at[10.0]), ("11", at[11.0]))
    }
    assert score["wlm"] < min(score["10"], score["11"]), score


@pytest.mark.slow
@pytest.mark.shared
def test_dentate_gyrus_with_its_rna_velocity(real_data):
    adata = ad.read_h5ad(real_data / "dentate_50.h5ad")
    wlm.tl.fit(adata, "age(days)", velocity_key="velocity", n_dims=10, n_steps=60, show_progress=False)
    assert adata.uns["wlm"]["time"]["values"].tolist() == [12, 35]
    predicted = wlm.tl.predict(adata, [20, 40])
    assert np.isfinite(predicted.obsm["X_pca"]).all() and set(predicted.obs["age(days)"]) == {20.0, 40.0}
    # The prediction stays in the region of the cells.
    spread = adata.obsm["X_pca"][:, :10].std()
    assert np.abs(predicted.obsm["X_pca"] - adata.obsm["X_pca"][:, :10].mean(0)).max() < 20 * spread


@pytest.fixture
def turning():
    """Cells that turn by an eighth of a circle between times; a clump of 40 at each of six."""
    rng = np.random.default_rng(0)
    times = np.repeat(np.arange(6.0), 40)
    centre = np.stack([np.cos(times * np.pi / 4), np.sin(times * np.pi / 4)], 1) * (1 + 0.2 * times[:, None])
    obs = pd.DataFrame({"day": times, "batch": np.tile(["a", "b"], 120)}, index=[f"c{i}" for i in range(240)])
    return ad.AnnData(obs=obs, obsm={"X_pca": (centre + 0.1 * rng.normal(size=(240, 2))).astype(np.float32)})


def test_cells_start_with_the_velocities_of_their_paths(turning, quick, tmp_path, caplog):
    with caplog.at_level("INFO", logger="wlm"):
        wlm.tl.fit(turning, "day", holdout=3, **quick)
    found = turning.uns["wlm"]["choice"]
    assert found["words"].startswith("cells follow") and found["words"] in caplog.text
    seen = turning[turning.obs["day"] != 3]
    times = np.unique(seen.obs["day"])
    populations = Populations(times, tuple(seen.obsm["X_pca"][seen.obs["day"] == t] for t in times))
    paths = learn_paths(populations)
    assert paths.note()["path"] == found["path"] and paths.bends
    expected = np.concatenate(to_cells(populations, paths.positions, paths.velocities))
    np.testing.assert_array_equal(turning.obsm["wlm_velocity"][turning.obs["day"] != 3], expected)
    assert np.isfinite(turning.obsm["wlm_velocity"]).all()  # momentum is carried to the held-out time
    turning.write_h5ad(tmp_path / "cells.h5ad")
    again = ad.read_h5ad(tmp_path / "cells.h5ad")
    np.testing.assert_array_equal(
        wlm.tl.predict(again, [3, 6]).obsm["X_pca"], wlm.tl.predict(turning, [3, 6]).obsm["X_pca"]
    )
    with pytest.raises(ValueError, match="fitted without velocities"):
        wlm.tl.diagnose(turning, holdout=2)


def test_cells_arrive_with_measured_velocities_that_are_trusted(turning, quick, tmp_path, caplog):
    """Just before the next training time they move as cells there do; with velocities that point back they do not."""
    angle, out = (turning.obs["day"].to_numpy() * np.pi / 4), 1 + 0.2 * turning.obs["day"].to_numpy()
    v = np.stack([-np.sin(angle), np.cos(angle)], 1) * (out * np.pi / 4)[:, None]
    v += 0.2 * np.stack([np.cos(angle), np.sin(angle)], 1)
    turning.obsm["v"], turning.obsm["back"] = v.astype(np.float32), -v.astype(np.float32)
    with caplog.at_level("INFO", logger="wlm"):
        wlm.tl.fit(turning, "day", velocity_key="v", velocity_scale=1.0, **quick)
    assert turning.uns["wlm"]["choice"]["path"] == "velocities" and "cells arrive with" in caplog.text
    turning.write_h5ad(tmp_path / "cells.h5ad")
    there = v[turning.obs["day"] == 3].mean(0)
    for adata in (turning, ad.read_h5ad(tmp_path / "cells.h5ad")):
        found = wlm.tl.predict(adata, 2.9999).obsm["wlm_velocity"]
        np.testing.assert_allclose(found.mean(0), there, atol=0.05)
    wlm.tl.fit(turning, "day", velocity_key="back", velocity_scale=1.0, key_added="b", **quick)
    assert turning.uns["b"]["choice"]["path"] == "rollout"
    assert np.abs(wlm.tl.predict(turning, 2.9999, key="b").obsm["b_velocity"].mean(0) + there).max() > 0.3


@pytest.mark.slow
def test_of_many_cells_all_get_velocities_of_paths(turning, quick, monkeypatch):
    monkeypatch.setattr("wlm.core.populations.MOST", 20)
    wlm.tl.fit(turning, "day", **quick)
    assert "choice" in turning.uns["wlm"] and np.isfinite(turning.obsm["wlm_velocity"]).all()
    wlm.tl.fit(turning, "day", initial_velocity="spline", **quick)


@pytest.mark.slow
def test_splines_and_measured_velocities_exclude_each_other(turning, quick, caplog):
    turning.obsm["v"] = np.zeros((240, 2), dtype=np.float32) + 0.1
    with pytest.raises(ValueError, match="leave velocity_key out, or choose 'data'"):
        wlm.tl.fit(turning, "day", velocity_key="v", initial_velocity="spline", **quick)
    assert "wlm" not in turning.uns
    wlm.tl.fit(turning, "day", velocity_key="v", velocity_scale=1.0, initial_velocity="learned", **quick)
    with pytest.raises(ValueError, match="fitted without velocities"):
        wlm.tl.diagnose(turning, holdout=2)
    turning.obsm["X_pca"] = np.random.default_rng(0).normal(size=(240, 2)).astype(np.float32)
    with caplog.at_level("INFO", logger="wlm"):
        wlm.tl.fit(turning, "day", initial_velocity="spline", **quick)  # without evidence for curves
    assert turning.uns["wlm"]["choice"]["path"] == "spline" and "as was asked" in caplog.text


@pytest.mark.slow
def test_paths_are_learned_for_each_condition(turning, quick):
    wlm.tl.fit(turning, "day", condition_key="batch", initial_velocity="learned", **quick)
    assert "choice" not in turning.uns["wlm_a"]
    wlm.tl.fit(turning, "day", condition_key="batch", **quick)
    assert all("words" in turning.uns[key]["choice"] for key in ("wlm_a", "wlm_b"))


@pytest.mark.slow
def test_strata_change_what_batches_hold_and_must_be_known(cells, quick):
    cells.obs["donor"] = pd.Categorical(np.where(np.arange(cells.n_obs) % 5, "a", "b"))
    plain = wlm.tl.fit(cells, "day", copy=True, **quick)
    strata = wlm.tl.fit(cells, "day", strata_key="donor", copy=True, **quick)
    assert strata.uns["wlm"]["params"]["strata_key"] == "donor"
    assert not np.array_equal(strata.obsm["wlm_force"], plain.obsm["wlm_force"])
    again = wlm.tl.fit(cells, "day", strata_key="donor", copy=True, **quick)
    np.testing.assert_array_equal(again.obsm["wlm_force"], strata.obsm["wlm_force"])
    options = {**{k: v for k, v in quick.items() if k != "show_progress"}, "metrics": "w1", "n_boot": 0}
    with_strata, without = (wlm.tl.evaluate(cells, "day", holdout=2, strata_key=k, **options) for k in ("donor", None))
    ours = with_strata["model"] == "wlm"
    assert (with_strata["w1"] != without["w1"])[ours].all() and (with_strata["w1"] == without["w1"])[~ours].all()
    with pytest.raises(KeyError, match=r"obs\['sample'\] is missing"):
        wlm.tl.fit(cells, "day", strata_key="sample", **quick)
    cells.obs["donor"] = cells.obs["donor"].where(np.arange(cells.n_obs) != 3)
    with pytest.raises(ValueError, match=r"obs\['donor'\] is missing for 1 of 300 cells \(\['.*'\], ...\)"):
        wlm.tl.fit(cells, "day", strata_key="donor", **quick)


@pytest.mark.slow
def test_of_many_cells_a_sample_is_trained_on_and_all_get_results(quick, monkeypatch):
    adata = wlm.datasets.gradient_flow_sde(n_cells=400, n_times=3)
    monkeypatch.setattr("wlm.core.populations.MOST", 100)
    seen, plain = [], Snapshots.of
    monkeypatch.setattr(Snapshots, "of", lambda p, *a: seen.append(list(map(len, p.positions))) or plain(p, *a))
    wlm.tl.fit(adata, "time", use_rep="X_position", **quick)
    assert seen[0] == [100] * 3
    assert all(np.isfinite(adata.obsm[f"wlm_{name}"]).all() for name in ("velocity", "force"))
    assert np.isfinite(adata.obs["wlm_potential"]).all()


def test_a_fit_says_how_near_it_comes_to_each_training_time(cells, quick, caplog):
    """A rollout that stays where it starts is as far away as the populations are."""
    still = {**quick, "n_steps": 1, "lr": 1e-9, "initial_velocity": "zero", "friction": 0.0}
    cells.obsm["X_pca"][:, 0] += 30 * cells.obs["day"].to_numpy()
    with caplog.at_level("WARNING", logger="wlm"):
        wlm.tl.fit(cells, "day", holdout=3, **still)
    found = cells.uns["wlm"]["training_times"]
    assert found["times"].tolist() == [1, 2, 4]
    x, day = cells.obsm["X_pca"], cells.obs["day"]
    shifts = [np.linalg.norm(x[day == t].mean(0) - x[day == 0].mean(0)) for t in (1, 2, 4)]
    np.testing.assert_allclose(found["w1"], shifts, rtol=0.1)
    assert (found["floor"] < 0.2 * found["w1"]).all() and (found["outside"] < 0.1).all()
    assert "more than 3 floors away from the cells at 4 (W1 " in caplog.text and "give it more n_steps" in caplog.text


def test_a_rollout_that_leaves_the_data_is_outside(cells, quick):
    """Cells that fly off at a speed no population has, by their weight."""
    cells.obsm["v"] = np.zeros((cells.n_obs, 5), dtype=np.float32)
    flying = (cells.obs["day"] == 0).to_numpy() & (np.arange(cells.n_obs) % 2 == 0)
    cells.obsm["v"][flying] = 1000
    cells.obs["w"] = np.where(flying, 3.0, 1.0)
    still = {**quick, "n_steps": 1, "lr": 1e-9, "friction": 0.0, "velocity_key": "v", "velocity_scale": 1.0}
    wlm.tl.fit(cells, "day", weight_key="w", **still)
    np.testing.assert_allclose(cells.uns["wlm"]["training_times"]["outside"], 0.75, atol=0.05)


def test_a_fit_that_meets_its_cells_says_nothing(cells, quick, caplog):
    cells.obsm["X_pca"] = np.random.default_rng(0).normal(size=(cells.n_obs, 5)).astype(np.float32)
    with caplog.at_level("WARNING", logger="wlm"):
        wlm.tl.fit(cells, "day", **{**quick, "n_steps": 1, "lr": 1e-9, "initial_velocity": "zero", "friction": 0.0})
    assert "floors away" not in caplog.text and (cells.uns["wlm"]["training_times"]["sd_ratio"] < 1.3).all()
