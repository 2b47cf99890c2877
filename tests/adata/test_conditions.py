"""``condition_key``: each condition's fit is the one its cells alone would give."""

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import wlm

FIELDS = ("velocity", "force", "next")


@pytest.fixture(scope="module")
def _treated(_bifurcation):
    cells = _bifurcation.copy()
    drug = np.arange(cells.n_obs) % 3 == 0
    cells.obs["treatment"] = pd.Categorical(np.where(drug, "drug", "none"), categories=["none", "drug", "other"])
    cells.obsm["X_pca"][drug] += 1.0
    return cells[~(drug & (cells.obs["day"] == 4).to_numpy())].copy()


@pytest.fixture
def treated(_treated):
    """Two conditions, one of which lacks the last day, and in which everything lies elsewhere; a fresh copy."""
    return _treated.copy()


@pytest.fixture(scope="module")
def _both(_treated, quick):
    return wlm.tl.fit(_treated, "day", condition_key="treatment", holdout=2, copy=True, **quick)


@pytest.fixture
def both(_both):
    """The same cells with a fit of each condition that has not seen day 2; a fresh copy."""
    return _both.copy()


@pytest.mark.slow
def test_fits_are_those_of_the_conditions_alone(both, treated, quick, tmp_path):
    assert list(both.uns["wlm"]["conditions"]) == ["none", "drug"]
    assert list(both.uns["wlm"]["keys"]) == ["wlm_none", "wlm_drug"]
    assert both.uns["wlm"]["condition_key"] == "treatment"
    both.write_h5ad(tmp_path / "both.h5ad")
    both.write_zarr(tmp_path / "both.zarr")
    places = (both, ad.read_h5ad(tmp_path / "both.h5ad"), ad.read_zarr(tmp_path / "both.zarr"))
    for condition in ("none", "drug"):
        here = (treated.obs["treatment"] == condition).to_numpy()
        alone = treated[here].copy()
        wlm.tl.fit(alone, "day", holdout=2, **quick)
        for place in places:
            assert np.array_equal(place.obs["treatment"] == condition, here)
            key = f"wlm_{condition}"
            for name, weights in alone.uns["wlm"]["weights"].items():
                assert np.array_equal(weights, place.uns[key]["weights"][name])
            assert np.array_equal(place.uns[key]["time"]["values"], alone.uns["wlm"]["time"]["values"])
            assert np.array_equal(place.obs["wlm_potential"][here], alone.obs["wlm_potential"])
            for name in FIELDS:
                assert np.array_equal(place.obsm[f"wlm_{name}"][here], alone.obsm[f"wlm_{name}"], equal_nan=True)
            found, expected = wlm.tl.predict(place, 2.5, key=key), wlm.tl.predict(alone, 2.5)
            assert np.array_equal(found.obsm["X_pca"], expected.obsm["X_pca"])
            assert np.array_equal(found.obsm["wlm_velocity"], expected.obsm["wlm_velocity"])
            assert np.array_equal(found.obs["wlm_outside"], expected.obs["wlm_outside"])
            assert f"{key}_prediction" in found.uns
            assert (found.obs["treatment"] == condition).all()


def test_all_conditions_predict_together(both):
    parts = [wlm.tl.predict(both, [2, 5], key=f"wlm_{c}", n_cells=7) for c in ("none", "drug")]
    together = wlm.tl.predict(both, [2, 5], n_cells=7)
    assert together.obs_names.is_unique and together.obs["treatment"].dtype == "category"
    assert np.array_equal(together.obsm["X_pca"], np.concatenate([p.obsm["X_pca"] for p in parts]))
    assert together.obsm["wlm_velocity"].shape == (28, 5)
    # The fields of cells have one name, whoever is asked, as in the fit.
    for part in parts:
        assert list(part.obs) == list(together.obs) and list(part.obsm) == list(together.obsm)
    assert together.obs["wlm_outside"].tolist() == [cell for part in parts for cell in part.obs["wlm_outside"]]
    assert together.obs["treatment"].tolist() == ["none"] * 14 + ["drug"] * 14
    assert list(together.uns["wlm_prediction"]["keys"]) == ["wlm_none", "wlm_drug"]
    generators = np.random.default_rng(1), np.random.default_rng(1)
    a, b = (wlm.tl.predict(both, 3, n_cells=5, rng=g) for g in generators)
    assert np.array_equal(a.obsm["X_pca"], b.obsm["X_pca"])
    # From day 3 both can start; the drug's own cells end there.
    with pytest.raises(ValueError, match=r"condition 'drug': from_time 4 was not observed"):
        wlm.tl.predict(both, 5, from_time=4)


@pytest.mark.slow
def test_genes_of_all_conditions(cells, quick):
    cells.obs["treatment"] = np.where(np.arange(cells.n_obs) % 2, "b", "a")
    wlm.tl.fit(cells, "day", condition_key="treatment", **quick)
    together = wlm.tl.predict(cells, 2.5, genes=True)
    assert together.shape == (60, cells.n_vars) and together.var_names.equals(cells.var_names)
    assert np.array_equal(
        together[together.obs["treatment"] == "b"].X, wlm.tl.predict(cells, 2.5, key="wlm_b", genes=True).X
    )


def test_diagnosis_and_plots_speak_of_one_condition(both):
    wlm.tl.diagnose(both, key="wlm_drug", seeds=2)
    assert len(both.uns["wlm_drug_diagnosis"]["friction_seeds"]) == 2
    figure = wlm.pl.rollout(both, key="wlm_drug", times=[1], return_fig=True)
    drug = both[both.obs["treatment"] == "drug"]
    everything, observed, predicted = (c.get_offsets() for c in figure.axes[1].collections)
    assert np.allclose(everything, drug.obsm["X_pca"][:, :2]) and len(predicted) == (drug.obs["day"] == 0).sum()
    assert np.allclose(observed, drug.obsm["X_pca"][drug.obs["day"] == 1, :2])
    for plot in (wlm.pl.training, wlm.pl.friction, wlm.pl.energy):
        assert isinstance(plot(both, key="wlm_drug", return_fig=True), plt.Figure)
    plt.close("all")
    for call in (wlm.tl.diagnose, wlm.tl.transitions, wlm.tl.plan):
        with pytest.raises(ValueError, match="choose one: key='wlm_none' or key='wlm_drug', .* condition='none' or"):
            call(both)


@pytest.mark.slow
def test_evaluation_has_a_row_for_each_condition(treated, quick):
    options = {k: v for k, v in quick.items() if k != "show_progress"} | {"holdout": 2, "metrics": ("w1",)}
    table = wlm.tl.evaluate(treated, "day", condition_key="treatment", **options)
    assert table.columns[0] == "condition" and list(table["condition"].unique()) == ["none", "drug"]
    for condition, part in table.groupby("condition"):
        alone = wlm.tl.evaluate(treated[treated.obs["treatment"] == condition], "day", **options)
        pd.testing.assert_frame_equal(part.drop(columns="condition").reset_index(drop=True), alone, check_exact=True)
        assert [f"{condition}: {line}" for line in alone.attrs["verdict"].splitlines()] == [
            line for line in table.attrs["verdict"].splitlines() if line.startswith(f"{condition}: ")
        ]
    with pytest.raises(ValueError, match="condition 'drug': holdout time 4 was not observed"):
        wlm.tl.evaluate(treated, "day", condition_key="treatment", **{**options, "holdout": [2, 4]})


def test_weights_velocities_and_a_holdout_of_one_condition(treated, quick):
    treated.obs["w"] = np.linspace(1, 2, treated.n_obs)
    treated.obsm["v"] = np.random.default_rng(0).normal(size=(treated.n_obs, 5)).astype(np.float32)
    wlm.tl.fit(treated, "day", condition_key="treatment", holdout=4, weight_key="w", velocity_key="v", **quick)
    assert treated.uns["wlm_none"]["time"]["holdout"].tolist() == [4]
    assert treated.uns["wlm_drug"]["time"]["holdout"].tolist() == []
    assert np.array_equal(treated.obsm["wlm_velocity"], treated.obsm["v"])
    predicted = wlm.tl.predict(treated, 2.5)
    assert np.array_equal(predicted.obs["w"], treated.obs["w"][predicted.obs["origin"]])


@pytest.mark.slow
@pytest.mark.parametrize("values", [[1, 2], [0.5, 1.5], [True, False]], ids=str)
def test_conditions_that_are_numbers(cells, values, quick, tmp_path):
    cells.obs["dose"] = [values[i % 2] for i in range(cells.n_obs)]
    out = wlm.tl.fit(cells, "day", condition_key="dose", copy=True, **quick)
    assert "wlm" not in cells.uns
    out.write_h5ad(tmp_path / "dose.h5ad")
    again = ad.read_h5ad(tmp_path / "dose.h5ad")
    assert wlm.tl.predict(again, 2.5, key=f"wlm_{values[0]}").n_obs == 30


@pytest.mark.slow
def test_a_refit_forgets_the_fits_it_replaces(both, quick):
    wlm.tl.diagnose(both, key="wlm_drug")
    wlm.tl.fit(both, "day", key_added="other", **quick)
    both.obs["batch"] = np.where(np.arange(both.n_obs) % 2, "x", "y")
    wlm.tl.fit(both, "day", condition_key="batch", **quick)
    assert {k for k in both.uns if "wlm" in k} == {"wlm", "wlm_x", "wlm_y"} and "other" in both.uns
    wlm.tl.fit(both, "day", **quick)
    assert {k for k in both.uns if "wlm" in k} == {"wlm"} and wlm.tl.predict(both, 2.5).n_obs == 60


def test_a_fit_under_the_key_of_a_condition_is_noticed(both, quick):
    wlm.tl.fit(both, "day", key_added="wlm_drug", **quick)
    assert wlm.tl.predict(both, 2.5, key="wlm_drug").n_obs == 60
    with pytest.raises(ValueError, match=r"\['wlm_drug'\].*replaced or removed"):
        wlm.tl.predict(both, 2.5)
    with pytest.raises(ValueError, match="holds another fit, which would be lost"):
        wlm.tl.fit(both, "day", condition_key="treatment", **quick)


def test_cells_of_other_conditions_cannot_be_predicted(both):
    rest = both[both.obs["treatment"] == "none"].copy()
    assert wlm.tl.predict(rest, 2.5, key="wlm_none").n_obs == 40
    with pytest.raises(ValueError, match=r"no cell of 'drug', the condition of this fit; it has \['none'\]"):
        wlm.tl.predict(rest, 2.5)
    del rest.obs["treatment"]
    with pytest.raises(KeyError, match=r"obs\['treatment'\] is missing"):
        wlm.tl.predict(rest, 2.5, key="wlm_none")


def broken(adata, how):
    """Calls that cannot work."""
    call = {"condition_key": "treatment"}
    column = adata.obs["treatment"].to_numpy(dtype=object, copy=True)
    if how == "no column":
        call["condition_key"] = "drug"
    elif how == "missing":
        column[:3] = np.nan
    elif how == "one time":
        column[(adata.obs["day"] == 1).to_numpy()] = "short"
        column[(adata.obs["day"] == 2).to_numpy()] = "brief"
    elif how == "held out":
        call["holdout"] = [1, 2, 3, 4]
    elif how == "unseen holdout":
        call["holdout"] = 7
    elif how == "many":
        column = np.arange(len(column)) % 21
    elif how == "slash":
        column = np.where(column == "drug", "a/b", column)
    elif how == "same names":
        column = np.array([1 if c == "drug" else "1" for c in column], dtype=object)
    elif how == "diagnosis":
        column = np.where(column == "drug", "diagnosis", column)
    elif how == "diagnosis of another":
        column = np.where(column == "drug", "none_diagnosis", column)
    elif how == "lonely cell":
        adata.obs["day"] = np.append(adata.obs["day"].to_numpy()[:-1], 9.0)
    elif how == "reserved":
        adata.obs["origin"] = column
        call["condition_key"] = "origin"
    elif how == "foreign":
        adata.uns["wlm_drug"] = 1
    adata.obs["treatment"] = column
    return call


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("no column", KeyError, r"obs\['drug'\] is missing; obs has"),
        ("missing", ValueError, "missing for 3 of 280 cells"),
        ("one time", ValueError, r"in every condition.*\['brief', 'short'\] have fewer"),
        ("held out", ValueError, r"\['drug', 'none'\] have fewer"),
        ("unseen holdout", ValueError, "holdout time 7 was not observed"),
        ("many", ValueError, "has 21 conditions"),
        ("slash", ValueError, r"without '/', found \['a/b'\]"),
        ("same names", ValueError, "must be distinct"),
        ("diagnosis", ValueError, "results are stored under"),
        ("diagnosis of another", ValueError, "results are stored under"),
        ("lonely cell", ValueError, "condition '[a-z]+': at least 2 cells"),
        ("reserved", ValueError, "column that predictions write"),
        ("foreign", ValueError, r"uns\['wlm_drug'\] holds something that is not a fit"),
    ],
)
def test_bad_conditions_get_a_clear_error_before_training(treated, how, error, message, quick, monkeypatch):
    call = broken(treated, how)
    keys = list(treated.obs), list(treated.obsm), list(treated.uns)

    def no_step(*args):
        raise AssertionError("training started")

    monkeypatch.setattr(wlm.core.methods.WLM, "step", no_step)
    with pytest.raises(error, match=message):
        wlm.tl.fit(treated, "day", **call, **quick)
    assert (list(treated.obs), list(treated.obsm), list(treated.uns)) == keys


def test_nothing_is_written_until_all_conditions_are_fitted(treated, quick, monkeypatch):
    keys = list(treated.obs), list(treated.obsm), list(treated.uns)
    step, calls = wlm.core.methods.WLM.step, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) > quick["n_steps"] + 3:  # in the second condition
            raise KeyboardInterrupt
        return step(*args)

    monkeypatch.setattr(wlm.core.methods.WLM, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        wlm.tl.fit(treated, "day", condition_key="treatment", **quick)
    assert (list(treated.obs), list(treated.obsm), list(treated.uns)) == keys


def test_a_condition_is_named_in_place_of_its_key(both):
    of_drug = wlm.tl.predict(both, 1, condition="drug")
    assert np.array_equal(of_drug.obsm["X_pca"], wlm.tl.predict(both, 1, key="wlm_drug").obsm["X_pca"])
    assert set(of_drug.obs["treatment"]) == {"drug"} and "wlm_drug_prediction" in of_drug.uns
    assert not np.array_equal(of_drug.obsm["X_pca"], wlm.tl.predict(both, 1, condition="none").obsm["X_pca"])
    wlm.tl.transitions(both, condition="drug")
    assert "wlm_drug_transitions" in both.obsp and "wlm_none_transitions" not in both.obsp
    assert wlm.tl.gene_trends(both, "gene001", condition="drug").attrs["key"] == "wlm_drug"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"condition": "placebo"},
            r"condition 'placebo' has no fit; uns\['wlm'\] stands for fits of \['none', 'drug'\]",
        ),
        ({"key": "wlm_drug", "condition": "drug"}, r"uns\['wlm_drug'\] is one fit .*leave .* out, or pass key='wlm'"),
        ({"key": "other", "condition": "drug"}, r"uns\['other'\] is missing; .*condition_key=..., key_added='other'"),
    ],
)
def test_conditions_that_have_no_fit_are_refused(both, arguments, message):
    for call in (wlm.tl.diagnose, wlm.tl.fates, wlm.pl.training, lambda a, **k: wlm.tl.predict(a, 1, **k)):
        with pytest.raises((KeyError, ValueError), match=message):
            call(both, **arguments)


def test_one_fit_has_no_conditions(fitted):
    with pytest.raises(ValueError, match=r"is one fit .*or run wlm.tl.fit\(..., condition_key=..., key_added='wlm'\)"):
        wlm.tl.predict(fitted, 3, condition="drug")


def test_all_that_read_one_fit_take_a_condition():
    import inspect

    for room in (wlm.tl, wlm.pl):
        for name in room.__all__:
            parameters = inspect.signature(getattr(room, name)).parameters
            if {"adata", "key"} <= set(parameters) and name != "energy_difference":  # which is of two
                assert parameters["condition"].default is None, name
