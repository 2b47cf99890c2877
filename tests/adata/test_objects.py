"""Objects as people have them: what a fit takes can be saved, what it refuses is refused before training."""

import logging
import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import wlm
from wlm.pp import _checks, _doctor

#: A training just long enough to be stored.
SHORT = {"n_steps": 1, "batch_size": 16, "width": 8, "hidden": 8, "n_inducing": 2, "initial_velocity": "zero"}
SHORT |= {"show_progress": False}


@pytest.fixture(autouse=True)
def _no_timing(monkeypatch):
    """Doctor trains nothing here to say how long it would take."""
    monkeypatch.setattr(_doctor, "check_run_time", lambda *_: _checks.Finding("ok", "a second"))


@pytest.fixture
def warnings_of_wlm(caplog):
    logging.getLogger("wlm").addHandler(caplog.handler)
    yield caplog
    logging.getLogger("wlm").removeHandler(caplog.handler)


@pytest.fixture
def adata():
    """40 cells on each of three days, in four dimensions; days 0, 1, 3."""
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"day": np.repeat([0.0, 1, 3], 40)}, index=[f"c{i}" for i in range(120)])
    x = rng.normal(size=(120, 4)).astype(np.float32)
    x[:, 0] += obs["day"]
    return ad.AnnData(rng.poisson(3.0, (120, 6)).astype(np.float32), obs=obs, obsm={"X_pca": x})


def row(adata, check, **arguments):
    return wlm.pp.doctor(adata, **arguments).set_index("check").loc[check]


def refused(adata, message, error=ValueError, **arguments):
    """The message with which a fit refuses the cells, unchanged, before training."""
    keys = set(adata.obsm), set(adata.uns), list(adata.obs)
    with pytest.raises(error, match=message) as found:
        wlm.tl.fit(adata, **{"time_key": "day", **SHORT, "n_steps": 10**9, **arguments})
    assert (set(adata.obsm), set(adata.uns), list(adata.obs)) == keys
    return str(found.value)


def advised(adata, message):
    """The object after the advice of a message was run."""
    scope = {"adata": adata}
    exec(re.search(r"run (adata.*?)(?: first)?(?: to leave .*)?$", message)[1], scope)
    return scope["adata"]


# Names


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("axis", ["obs", "var"])
@pytest.mark.parametrize(
    "names",
    [range, lambda n: np.arange(n) / 4, lambda n: pd.date_range("2021-03-01", periods=n)],
    ids=["whole", "fractions", "dates"],
)
def test_names_that_are_no_text_can_be_saved_after_a_fit(adata, tmp_path, axis, names):
    import scanpy as sc

    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=3)
    part = getattr(adata, axis)
    part.index = pd.Index(names(len(part)))
    wlm.tl.fit(adata, "day", **SHORT)
    predicted = wlm.tl.predict(adata, 2)
    if names is range:
        adata.write_h5ad(tmp_path / "as_it_is.h5ad")
    adata.obs.index, adata.var.index = adata.obs_names.astype(str), adata.var_names.astype(str)
    adata.write_h5ad(tmp_path / "fit.h5ad")
    predicted.write_h5ad(tmp_path / "predicted.h5ad")
    again = ad.read_h5ad(tmp_path / "fit.h5ad")
    assert np.array_equal(wlm.tl.predict(again, 2).obsm["X_pca"], predicted.obsm["X_pca"])
    assert predicted.obs["origin"].isin(again.obs_names).all()


@pytest.mark.parametrize(
    ("axis", "slot", "key"), [("obs", "obsm", "X_pca"), ("obs", "obsm", "other"), ("var", "varm", "t")]
)
def test_tables_with_other_names_are_refused_and_the_advice_helps(adata, axis, slot, key):
    """Names that were changed after a table was added: anndata then reads no array at all."""
    names = getattr(adata, f"{axis}_names")
    values = np.asarray(adata.obsm["X_pca"]) if slot == "obsm" else np.ones((adata.n_vars, 1))
    getattr(adata, slot)[key] = pd.DataFrame(values, index=names).add_prefix("C")
    getattr(adata, axis).index = range(len(names))
    with pytest.raises(ValueError, match="cannot be read") as found:
        wlm.tl.fit(adata, "day", **SHORT)
    message = str(found.value)
    assert f"{slot} cannot be read: {axis}_names were changed after the table {slot}['{key}'] was added" in message
    with pytest.raises(ValueError, match="cannot be read"):
        wlm.pp.doctor(adata)
    wlm.tl.fit(advised(adata, message), "day", **SHORT)
    assert (getattr(adata, f"{axis}_names") == names).all()


@pytest.mark.parametrize("axis", ["obs", "var"])
def test_names_of_two_levels_are_refused_and_the_advice_helps(adata, axis):
    names = getattr(adata, f"{axis}_names")
    setattr(adata, f"{axis}_names", pd.MultiIndex.from_arrays([["s"] * len(names), names]))
    message = refused(adata, f"{axis}_names have 2 levels, text is wanted")
    assert row(adata, "cell names").level == "error"
    wlm.tl.fit(advised(adata, message), "day", **SHORT)


def test_a_view_of_a_file_is_refused_and_the_advice_helps(adata, tmp_path):
    adata.write_h5ad(tmp_path / "a.h5ad")
    whole = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    for view in (whole[whole.obs["day"] < 9], whole[:, :3], whole[3:, :3]):
        message = refused(view, "view of an object on disk")
        assert row(view, "cell names").level == "error"
    wlm.tl.fit(advised(view, message), "day", **SHORT)
    whole.file.close()


def test_a_file_without_x_is_looked_over_and_fitted(adata, tmp_path):
    ad.AnnData(obs=adata.obs, obsm=adata.obsm).write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    assert wlm.pp.doctor(backed)["level"].isin(["ok", "note", "warning"]).all()
    wlm.tl.fit(backed, "day", **SHORT)
    backed.file.close()


# Columns


@pytest.mark.parametrize("double", ["day", "weight", "donor", "arm"])
def test_columns_of_the_same_name(adata, double):
    adata.obs = adata.obs.assign(weight=1.0, donor=["a", "b"] * 60, arm=["x"] * 60 + ["y"] * 60)
    adata.obs.loc[adata.obs["day"] == 1, "arm"] = ["x", "y"] * 20
    adata.obs = pd.concat([adata.obs, adata.obs[[double]]], axis=1)
    found = row(adata, "columns", time_key="day")
    assert found.level == "warning" and found.found == f"obs has 2 columns named {double!r}"
    assert row(adata, "time", time_key="day").level == ("error" if double == "day" else "ok")
    argument = {"weight": "weight_key", "donor": "strata_key", "arm": "condition_key"}.get(double, "time_key")
    message = refused(adata, f"obs has 2 columns named {double!r}; keep one", **{argument: double})
    adata = advised(adata, message)
    assert list(adata.obs) == ["day", "weight", "donor", "arm"]
    wlm.tl.fit(adata, **{"time_key": "day", argument: double}, **SHORT)


def test_columns_of_the_same_name_that_are_not_read_do_no_harm(adata):
    """Not even where cells are taken out of the object, of which anndata makes no views then."""
    import scanpy as sc

    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=3)
    adata.obs["arm"] = ["x", "y"] * 60
    plain = adata.copy()
    phase = pd.DataFrame({"phase": pd.Categorical(["G1"] * 120)}, index=adata.obs_names)
    adata.obs = pd.concat([adata.obs, phase, phase], axis=1)
    assert list(adata.obs) == ["day", "arm", "phase", "phase"]
    assert row(adata, "loadings").found == row(plain, "loadings").found == "varm['PCs'] and X give obsm['X_pca']"
    for object_ in (adata, plain):
        wlm.tl.fit(object_, "day", condition_key="arm", **SHORT)
    for key in ("wlm", "wlm_y"):
        found, expected = (wlm.tl.predict(a, 2, key=key, genes=True) for a in (adata, plain))
        assert np.array_equal(found.X, expected.X) and np.array_equal(found.obsm["X_pca"], expected.obsm["X_pca"])
    weight = pd.DataFrame({"w": 1.0}, index=adata.obs_names)
    adata.obs = pd.concat([adata.obs, weight, weight], axis=1)
    refused(adata, "obs has 2 columns named 'w'; keep one", condition_key="arm", weight_key="w")


@pytest.mark.parametrize("argument", ["time_key", "weight_key", "condition_key"])
@pytest.mark.parametrize("column", ["origin", "from_time"])
def test_columns_that_predictions_write_are_no_input(adata, argument, column):
    adata.obs[column] = adata.obs["day"] + 1
    refused(adata, f"{argument} '{column}' is a column that predictions write", **{argument: column})
    assert wlm.pp.doctor(adata).attrs["arguments"]["time_key"] == "day"
    if argument == "time_key":
        assert row(adata, "time", time_key=column).level == "error"


@pytest.mark.parametrize("column", ["wlm_spread", "wlm_potential", "wlm_outside", "wlm_velocity_agreement"])
@pytest.mark.parametrize("argument", ["time_key", "weight_key", "strata_key"])
def test_columns_that_the_fit_writes_are_no_input(adata, argument, column):
    adata.obs[column] = adata.obs["day"] + 1
    refused(adata, "overwrite its own input .* choose another key_added", **{argument: column})
    wlm.tl.fit(adata, **{"time_key": "day", argument: column}, key_added="other", **SHORT)


@pytest.mark.parametrize("kind", ["category", "object", "string"])
@pytest.mark.parametrize("other", ["RunX1/2Ko", "", "a/b/c"])
def test_the_advice_for_conditions_works_on_every_kind_of_text(adata, kind, other):
    adata.obs["genotype"] = pd.Series(np.tile(["WT", other], 60), index=adata.obs_names).astype(kind)
    message = refused(adata, "without '/'", condition_key="genotype")
    adata = advised(adata, message)
    wlm.tl.fit(adata, "day", condition_key="genotype", **SHORT)
    assert sorted(adata.uns["wlm"]["conditions"]) == sorted(["WT", other.replace("/", "-") or "none"])


# Coordinates


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.assign(gate="T cell"), "columns that are no numbers: gate; drop them"),
        (lambda t: t.assign(gate=pd.Categorical(["T"] * 120)), "columns that are no numbers: gate"),
        (lambda t: t.assign(a="x", b="y"), "no numbers: a, b"),
        (lambda t: t.astype("Float64").mask(t > 1), r"obsm\['protein'\] has NaN or infinite values in \d+ cells"),
        (lambda t: t.astype(object).mask(t > 1, None), r"obsm\['protein'\] has NaN or infinite values in \d+ cells"),
        (lambda t: t + 1j, "complex numbers"),
        (lambda t: (t + 1j).to_numpy(), r"obsm\['protein'\] holds complex numbers"),
    ],
    ids=["text", "category", "two", "NA", "None", "complex", "complex array"],
)
def test_tables_with_what_is_no_number(adata, spoil, message):
    table = pd.DataFrame(adata.obsm["X_pca"][:, :2].astype(float), index=adata.obs_names, columns=["CD3", "CD4"])
    adata.obsm["protein"] = spoil(table)
    text = refused(adata, message, use_rep="protein")
    assert row(adata, "representation", use_rep="protein").level == "error"
    refused(
        adata,
        message.replace(" has NaN or infinite values in \\d+ cells", "|velocities"),
        velocity_key="protein",
        n_dims=2,
    )
    if "drop them" in text:
        wlm.tl.fit(advised(adata, text), "day", use_rep="protein", **SHORT)


def test_sparse_coordinates_are_fitted_and_decoded(adata):
    """The receipt of the decoding, made after the training, reads them too."""
    import scanpy as sc
    from scipy import sparse

    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=3)
    expected = wlm.tl.predict(wlm.tl.fit(adata, "day", copy=True, **SHORT), 2, genes=True)
    for kind in (sparse.csr_matrix, sparse.csc_array):
        some = adata.copy()
        some.obsm["X_pca"] = kind(adata.obsm["X_pca"])
        wlm.tl.fit(some, "day", **SHORT)
        assert np.array_equal(wlm.tl.predict(some, 2, genes=True).X, expected.X)


@pytest.mark.parametrize("share", [0.75, 0.93, 1.0])
@pytest.mark.parametrize("kind", [np.float32, bool])
def test_cells_without_distances_are_refused(adata, share, kind):
    many = np.arange(120) % 40 < 40 * share
    x = np.where(many[:, None], 1, np.maximum(adata.obsm["X_pca"], 0)).astype(kind)
    adata.obsm["X_clone"] = x
    message = "all cells of each time" if share == 1 else "half of the pairs of cells or more at every time"
    refused(adata, message, use_rep="X_clone")
    assert row(adata, "representation", use_rep="X_clone").level == "error"


def test_cells_of_which_just_half_of_the_pairs_have_no_distance_are_refused(adata):
    """Of the six pairs of the first time three, of the second time the only one."""
    few = adata[[0, 1, 2, 3, 40, 41]].copy()
    few.obsm["X_pca"] = np.float32([[0], [1], [1], [1], [1], [1]])
    few.obs["day"] = [0, 0, 0, 0, 1.5, 1.5]
    refused(few, "half of the pairs of cells or more at every time")
    few.obsm["X_pca"][1] = 2
    wlm.tl.fit(few, "day", **SHORT)


def test_cells_of_which_some_are_at_one_place_are_fitted(adata):
    adata.obsm["X_pca"][np.arange(120) % 40 < 26] = 0
    wlm.tl.fit(adata, "day", **SHORT)
    adata.obsm["X_pca"][:40] = adata.obsm["X_pca"][0]  # one time of three
    wlm.tl.fit(adata, "day", **SHORT)
    assert row(adata, "representation").level == "ok"


def test_one_cell_a_time_is_said_to_be_that(adata):
    adata.obs["pseudotime"] = np.random.default_rng(0).random(120)
    message = refused(adata, "120 times for 120 cells; run wlm.pp.bin_time", time_key="pseudotime")
    exec(re.search(r"run (.*?\))", message)[1], {"wlm": wlm, "adata": adata})
    wlm.tl.fit(adata, "pseudotime_bin", **SHORT)
    refused(adata[[0, 50, 100]].copy(), r"at least 2 cells are needed at every time; time\(s\) 0, 1, 3 have one")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        *(("X_umap", "made for drawing"), ("X_tsne", "drawing"), ("umap", "drawing"), ("X_draw_graph_fa", "drawing")),
        *(("X_phate", "drawing"), ("X_lsi", "depth of sequencing"), ("lsi", "depth of sequencing")),
    ],
)
def test_representations_that_are_odd_to_fit_on_are_named(adata, warnings_of_wlm, key, words):
    adata.obsm[key] = adata.obsm["X_pca"][:, :2]
    wlm.tl.fit(adata, "day", use_rep=key, **SHORT)
    found = row(adata, "representation", use_rep=key)
    assert words in warnings_of_wlm.text and words in found.found and found.level == "warning"


def test_lsi_without_the_depth_is_fine(adata):
    adata.obsm["X_lsi"] = adata.obsm["X_pca"]
    adata.obs["n_fragment"] = np.exp(adata.obsm["X_pca"][:, 1])
    assert row(adata, "representation", use_rep="X_lsi").level == "ok"
    adata.obs["n_fragment"] = np.exp(-adata.obsm["X_pca"][:, 0])
    assert row(adata, "representation", use_rep="X_lsi").level == "warning"


# Times far off, and what doctor proposes


@pytest.mark.parametrize("code", [-999, 9999, 99999, 1e10, -1e6])
def test_a_time_far_off_is_an_error_in_doctor_and_a_warning_of_a_fit(adata, warnings_of_wlm, code):
    assert row(adata, "spacing").level == "note"
    wlm.tl.fit(adata, "day", **SHORT)
    assert "far longer" not in warnings_of_wlm.text
    adata.obs.iloc[:2, 0] = code
    found = row(adata, "spacing")
    assert found.level == "error" and "far longer" in found.found and f"{code:.0f}" in found.found
    wlm.tl.fit(adata, "day", **SHORT)
    assert "far longer than others" in warnings_of_wlm.text and f"{code:.0f}" in warnings_of_wlm.text


@pytest.mark.parametrize(
    "times", [[0, 1, 2, 4, 8, 16, 32, 64, 365], [0.5, 24, 48, 240], [0, 1], [1.6e9, 1.6e9 + 60]], ids=str
)
def test_times_of_a_wide_range_are_not_far_off(times):
    assert _checks.check_spacing(np.array(times, dtype=float)).level != "error"


@pytest.mark.parametrize(
    "change",
    [
        lambda a: {"day": a.obs["day"].where(np.arange(120) > 5)},
        lambda a: {"day": pd.Categorical(a.obs["day"].map("D{:g}".format).where(np.arange(120) > 5))},
        lambda a: {"donor": ["a", "b"] * 60},
        lambda a: {"subject": np.repeat(["P1", "P2", "P3"], 40)},
        lambda a: {"day": a.obs["day"].map("D{:g}".format).replace("D0", "D-2")},
    ],
    ids=["missing", "missing labels", "donors", "subjects", "signs"],
)
def test_the_proposed_call_runs_where_no_error_is_found(adata, change):
    adata.obs = adata.obs.assign(**change(adata))
    report = wlm.pp.doctor(adata, nan="drop" if adata.obs["day"].isna().any() else "raise")
    assert not report["level"].eq("error").any() and report.attrs["arguments"]["time_key"] == "day"
    wlm.tl.fit(adata, **report.attrs["arguments"], **SHORT)
    assert report.attrs["call"] == wlm.pp.doctor(adata).attrs["call"]  # proposes to leave out cells without a time
