"""Twenty-two situations from public threads, where wlm once gave a wrong answer or a wrong word: one test for each.

Their sources and what happened are in the names; the neighbours of each are tested beside the part that it is about.
"""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

import wlm
from wlm.pp import _checks, _doctor

SHORT = {"n_steps": 2, "batch_size": 32, "width": 8, "hidden": 8, "n_inducing": 2, "initial_velocity": "zero"}
SHORT |= {"show_progress": False}


@pytest.fixture(autouse=True)
def _no_timing(monkeypatch):
    """Doctor trains nothing here to say how long it would take."""
    monkeypatch.setattr(_doctor, "check_run_time", lambda *_: _checks.Finding("ok", "a second"))


def cells(times, n=40, x=None, **columns):
    """``n`` cells of each time, which move along the first of four components."""
    index = np.repeat(np.arange(len(times)), n)
    obs = pd.DataFrame({"day": np.repeat(np.asarray(times), n), **columns}, index=[f"c{i}" for i in range(len(index))])
    if x is None:
        x = np.random.default_rng(0).normal(size=(len(index), 4)).astype(np.float32)
        x[:, 0] += index
    return ad.AnnData(obs=obs, obsm={"X_pca": x})


def fit(adata, **arguments):
    return wlm.tl.fit(adata, **{"time_key": "day", **SHORT, **arguments})


def doctor(adata, check, **arguments):
    return wlm.pp.doctor(adata, **arguments).set_index("check").loc[check]


def refused(adata, message, error=ValueError, **arguments):
    """A fit refuses the object before training, which would take for ever, and leaves it as it is."""
    keys = set(adata.obsm), set(adata.uns), list(adata.obs)
    with pytest.raises(error, match=message):
        fit(adata, **{**arguments, "n_steps": 10**9})
    assert (set(adata.obsm), set(adata.uns), list(adata.obs)) == keys


def counts(n=60, g=80, rng=0, depth=0.8):
    """Days (3n,) and spliced and unspliced counts of cells of uneven depth, in which genes rise and fall."""
    rng = np.random.default_rng(rng)
    day = np.repeat([0.0, 1, 2], n)
    sizes = rng.lognormal(0, depth, (3 * n, 1))
    mean = rng.gamma(2, 4, g) * np.exp(np.linspace(-0.5, 0.5, g) * day[:, None]) * sizes
    return day, rng.poisson(mean).astype(float), rng.poisson(0.4 * mean).astype(float), sizes.ravel()


def layered(day, s, u):
    obs = pd.DataFrame({"day": day}, index=[f"c{i}" for i in range(len(day))])
    s, u = (sparse.csr_matrix(m.astype(np.float32)) for m in (s, u))
    return ad.AnnData(s.copy(), obs=obs, layers={"spliced": s, "unspliced": u})


def projectable(base=None, scale=None, g=200):
    """Log-normalised cells with velocities of genes; and the derivative of their components."""
    rng = np.random.default_rng(0)
    s = rng.poisson(rng.gamma(0.5, 20, g) * rng.lognormal(0, 0.5, (150, 1))).astype(float)
    s *= 1e3 / s.sum(1, keepdims=True)
    v = s * rng.normal(0, 0.2, g)
    obs = pd.DataFrame({"day": np.repeat([0.0, 1, 2], 50)}, index=[f"c{i}" for i in range(150)])
    adata = ad.AnnData(s.copy(), obs=obs, layers={"Ms": s, "velocity": v})
    sc.pp.log1p(adata, base=base)
    if scale is not None:
        sc.pp.scale(adata, **scale)
    sc.pp.pca(adata, n_comps=5)
    rate = (v - s * v.sum(1, keepdims=True) / 1e3) / (1 + s) / np.log(base or np.e)
    return adata, rate / (1 if scale is None else adata.var["std"].to_numpy()) @ adata.varm["PCs"]


def cosine(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


# Wrong answers without a word


@pytest.mark.parametrize(
    ("labels", "values"),
    [
        (["D-1", "D3", "D7"], [-1, 3, 7]),
        (["D-14", "D0", "D7", "D28"], [-14, 0, 7, 28]),
        (["Day-1", "Day0", "Day+1"], [-1, 0, 1]),
        (["D-1", "D0", "D01"], None),
    ],
    ids=str,
)
def test_case_01_the_day_before_is_not_the_day_after(labels, values):
    adata = cells(labels)
    adata.obs["day"] = pd.Categorical(adata.obs["day"], categories=labels, ordered=True)
    if values is None:
        assert doctor(adata, "time").level == "error"
        refused(adata, "the hyphen in .* may be a sign or a separator")
        return
    fit(adata)
    assert adata.uns["wlm"]["time"]["values"].tolist() == values
    assert wlm.tl.predict(adata, values[-1] + 1, from_time=labels[0]).obs["from_time"].eq(values[0]).all()


@pytest.mark.parametrize("extra", [0.0, 0.25])
def test_case_02_counts_with_fractions_are_normalised(extra):
    day, s, u, depth = counts()
    adata = layered(day, *(m + extra * (m > 0) for m in (s, u)))
    wlm.pp.velocity(adata, method="steady_state", n_comps=5)
    totals = np.asarray(adata.layers["spliced"].sum(1)).ravel()
    first = adata.obsm["X_pca"][:, 0]
    assert np.std(totals) < 1e-4 * np.mean(totals)
    assert abs(np.corrcoef(first, day)[0, 1]) > 0.9 > 0.4 > abs(np.corrcoef(first, np.log(depth))[0, 1])


def test_case_03_raw_counts_in_x_stay_and_are_logged_on_the_side():
    adata = layered(*counts()[:3])
    logged = adata.copy()
    sc.pp.normalize_total(logged)
    sc.pp.log1p(logged)
    sc.pp.pca(logged, n_comps=5)
    adata.obsm["X_pca"], adata.varm["PCs"] = logged.obsm["X_pca"], logged.varm["PCs"]
    before = adata.X.copy()
    for each in (adata, logged):
        wlm.pp.velocity(each, method="steady_state")
    assert abs(adata.X - before).max() == 0 and adata.uns["velocity_projected"]["space"] == "log"
    assert cosine(adata.obsm["velocity_projected"], logged.obsm["velocity_projected"]).min() > 0.999


@pytest.mark.parametrize(
    ("base", "scale"), [(None, None), (None, {}), (None, {"zero_center": False}), (2, None), (10, None)], ids=str
)
def test_case_04_bases_and_scalings_give_the_derivative(base, scale):
    adata, truth = projectable(base, scale)
    wlm.pp.project_velocity(adata)
    found = adata.obsm["velocity_projected"]
    assert cosine(found, truth).min() > 0.999
    assert np.allclose(np.linalg.norm(found, axis=1), np.linalg.norm(truth, axis=1), rtol=1e-2)


def test_case_05_loadings_that_do_not_give_the_components_are_refused():
    adata, _ = projectable()
    adata.obsm["X_pca"] = adata.obsm["X_pca"] * [1, -1, -1, 1, -1]  # the signs of another machine
    message = r"varm\['PCs'\] does not explain obsm\['X_pca'\]"
    with pytest.raises(ValueError, match=message):
        wlm.pp.project_velocity(adata)
    refused(adata, message, velocity_key="velocity")
    report = wlm.pp.doctor(adata, velocity_key="velocity").set_index("check")["level"]
    assert report["loadings"] == "error"


@pytest.mark.parametrize("key", ["auto", "velocity_projected"])
def test_case_06_velocities_of_a_former_pca_are_refused(key):
    adata, _ = projectable()
    wlm.pp.project_velocity(adata)
    adata.var["other"] = np.arange(adata.n_vars) % 2 == 0
    sc.pp.pca(adata, n_comps=5, mask_var="other")
    message = r"other components than those in obsm\['X_pca'\] now; run wlm.pp.project_velocity\(adata\) again"
    refused(adata, message, velocity_key=key)
    assert doctor(adata, "velocity", velocity_key=key).level == "error"


@pytest.mark.parametrize("new", [{0: 0, 2: 1, 8: 2}, {0: 0, 2: 48, 8: 192}, {0: "0h", 2: "48h", 8: "192h"}], ids=str)
def test_case_07_times_that_were_rewritten_after_the_fit_are_noticed(new):
    adata = cells([0.0, 2, 8])
    fit(adata)
    assert wlm.tl.predict(adata, 4).obs["from_time"].eq(2).all()
    adata.obs["day"] = adata.obs["day"].map(new)
    with pytest.raises(ValueError, match="fitted to other times than obs"):
        wlm.tl.predict(adata, 4)


@pytest.mark.parametrize("code", [np.iinfo("i4").min, np.iinfo("i8").min])
def test_case_08_the_missing_integer_of_r_is_no_time(code):
    adata = cells(np.array([0, 3, 7]))
    adata.obs["day"] = np.where(np.arange(120) < 10, code, adata.obs["day"])
    found = doctor(adata, "time")
    assert found.level == "error" and f"10 of 120 cells have {code}, which is NA in R" in found.found
    refused(adata, f"10 of 120 cells have {code}, which is NA in R")


def test_case_09_times_that_differ_in_the_last_bit_are_one():
    adata = cells([0.0, 0.1, 0.3, 0.6])
    noisy = adata.copy()
    noisy.obs.loc[(adata.obs["day"] == 0.3) & (np.arange(160) % 2 == 0), "day"] = 0.1 + 0.2
    assert noisy.obs["day"].nunique() == 5
    options = {k: v for k, v in SHORT.items() if k != "show_progress"}
    tables = [wlm.tl.evaluate(a, "day", holdout=0.3, n_boot=0, **options) for a in (adata, noisy)]
    for each in (adata, noisy):
        fit(each)
        assert each.uns["wlm"]["time"]["values"].tolist() == [0, 0.1, 0.3, 0.6]
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.parametrize(
    ("times", "wanted", "error", "message"),
    [
        ([20210301, 20210306, 20210311], 20210308, TypeError, "dates written as numbers"),
        ([1.6e9, 1.6e9 + 3600, 1.6e9 + 7200], 1.6e9 + 5100, ValueError, "1600005100 was not observed"),
        (["20210131", "20210201", "20210228"], "20210210", TypeError, "dates written as numbers"),
    ],
)
def test_case_10_dates_are_no_numbers_and_near_times_are_others(times, wanted, error, message):
    adata = cells(times)
    refused(adata, message, error, holdout=wanted)
    assert (doctor(adata, "time", time_key="day").level == "error") == (error is TypeError)


@pytest.mark.parametrize(
    ("column", "value"), [("text", "True"), ("text or gap", np.nan), ("nullable", None)], ids=["text", "gaps", "NA"]
)
def test_case_23_masks_mean_what_they_say(column, value):
    adata, _ = projectable()
    good = np.arange(adata.n_vars) % 3 > 0
    adata.var["velocity_genes"] = good
    wlm.pp.project_velocity(adata)
    right = adata.obsm["velocity_projected"].copy()
    forms = {
        "text": good.astype(str),
        "text or gap": np.where(good, True, np.nan).astype(object),
        "nullable": pd.array(np.where(good, True, None), dtype="boolean"),
    }
    adata.var["velocity_genes"] = forms[column]
    wlm.pp.project_velocity(adata)
    assert np.array_equal(adata.obsm["velocity_projected"], right)
    assert adata.uns["velocity_projected"]["n_genes"] == good.sum()


# Work that was lost


def test_case_11_a_view_of_a_file_is_refused_before_the_training(tmp_path):
    adata = cells([0.0, 1, 2])
    adata = ad.AnnData(np.ones((120, 8), dtype=np.float32), obs=adata.obs, obsm=adata.obsm)
    adata.write_h5ad(tmp_path / "a.h5ad")
    whole = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    view = whole[np.arange(120) % 9 > 0]
    refused(view, r"a view of an object on disk, .* run adata = adata.to_memory\(\) first")
    assert doctor(view, "cell names").level == "error"
    fit(view.to_memory())
    whole.file.close()


@pytest.mark.filterwarnings("ignore:")
def test_case_12_names_of_two_levels_are_refused_before_the_training():
    adata = cells([0.0, 1, 2])
    adata.obs_names = pd.MultiIndex.from_arrays([np.repeat(["s1", "s2", "s3"], 40), adata.obs_names])
    refused(adata, "obs_names have 2 levels, text is wanted")
    assert doctor(adata, "cell names").level == "error"


@pytest.mark.filterwarnings("ignore:")
@pytest.mark.parametrize("axis", ["obs", "var"])
def test_case_21_names_that_are_numbers_can_be_saved_after_a_fit(axis, tmp_path):
    adata = cells([0.0, 1, 2])
    adata = ad.AnnData(np.random.default_rng(0).poisson(3.0, (120, 12)).astype(np.float32), obs=adata.obs)
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=4)
    getattr(adata, axis).index = range(len(getattr(adata, axis)))
    fit(adata)
    adata.write_h5ad(tmp_path / "after.h5ad")
    predicted = wlm.tl.predict(adata, 1.5)
    predicted.write_h5ad(tmp_path / "predicted.h5ad")
    assert np.array_equal(
        wlm.tl.predict(ad.read_h5ad(tmp_path / "after.h5ad"), 1.5).obsm["X_pca"], predicted.obsm["X_pca"]
    )


# Wrong words


@pytest.mark.parametrize("kind", ["csr_array", "no X", "bool", "float16"])
def test_case_13_layers_of_any_kind_are_read(kind):
    day, s, u, _ = counts(depth=0.3)
    adata = layered(day, s, u)
    if kind == "csr_array":
        adata.layers["spliced"], adata.layers["unspliced"] = (sparse.csr_array(m) for m in (s, u))
    elif kind == "no X":
        adata.X = None
    elif kind == "bool":
        adata.layers["spliced"] = sparse.csr_matrix(s > np.median(s))
    else:
        adata.layers["spliced"] = (50 * s).astype(np.float16)  # whose sum overflows
    wlm.pp.velocity(adata, method="steady_state", n_comps=5)
    assert np.isfinite(adata.obsm["velocity_projected"]).all()


@pytest.mark.parametrize("double", ["batch", "day", "phase"])
def test_case_14_two_columns_of_one_name_are_said(double):
    adata = cells([0.0, 1, 2], batch="a", phase="G1")
    adata.obs = pd.concat([adata.obs, adata.obs[[double]]], axis=1)
    assert doctor(adata, "columns", time_key="day").found == f"obs has 2 columns named {double!r}"
    if double == "day":
        refused(adata, "obs has 2 columns named 'day'; keep one")
    else:
        fit(adata)


@pytest.mark.parametrize("method", ["wlm", "ijkonet", "jkonet_star"])
def test_case_15_cells_at_one_point_are_said_to_be_there(method):
    adata = cells([2.0, 4, 6], n=80)
    adata.obsm["X_clone"] = np.random.default_rng(0).random((240, 5)) < 0.02
    with pytest.raises(ValueError, match="half of the pairs of cells or more at every time at the same position"):
        wlm.tl.fit(adata, "day", use_rep="X_clone", method=method)
    assert doctor(adata, "representation", use_rep="X_clone").level == "error"
    assert "few genes, or many zeros" in doctor(adata, "duplicates", use_rep="X_clone").advice


@pytest.mark.parametrize("nan", ["raise", "drop"])
def test_case_16_infinite_times_are_not_missing(nan):
    with np.errstate(divide="ignore"):
        adata = cells(np.log(np.array([0.0, 1, 3, 7])))
    refused(adata, r"obs\['day'\] is infinite for 40 of 160 cells \(a logarithm of 0\?\)", nan=nan)
    assert "is infinite for 40 of 160" in doctor(adata, "time", nan=nan).found


def test_case_17_one_cell_a_time_is_no_broken_representation():
    adata = cells([0.0, 1, 2])
    adata.obs["pseudotime"] = np.random.default_rng(0).random(120)
    refused(adata, "120 times for 120 cells; run wlm.pp.bin_time", time_key="pseudotime")
    refused(adata[::40].copy(), "at least 2 cells are needed at every time")
    assert "bin_time" in doctor(adata, "time", time_key="pseudotime").advice


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.assign(gate="T cell"), r"obsm\['protein'\] has columns that are no numbers: gate; drop them"),
        (lambda t: t.assign(gate=pd.Categorical(["T"] * len(t))), "columns that are no numbers: gate"),
        (lambda t: t.astype("Float64").mask(t > 1), r"obsm\['protein'\] has NaN or infinite values in \d+ cells"),
    ],
    ids=["text", "category", "NA"],
)
def test_case_18_tables_with_text_name_the_column(spoil, message):
    adata = cells([0.0, 1, 2])
    table = pd.DataFrame(adata.obsm["X_pca"][:, :2].astype(float), index=adata.obs_names, columns=["CD3", "CD4"])
    adata.obsm["protein"] = spoil(table)
    refused(adata, message, use_rep="protein")
    found = doctor(adata, "representation", use_rep="protein")
    assert found.level == "error" and "protein" in found.found


@pytest.mark.parametrize("kind", [object, "category", "string"])
def test_case_19_the_advice_for_a_slash_works_on_text(kind):
    adata = cells([3.0, 7, 28], genotype=np.tile(["WT", "RunX1/2Ko"], 60))
    adata.obs["genotype"] = adata.obs["genotype"].astype(kind)
    with pytest.raises(ValueError, match="without '/'") as found:
        fit(adata, condition_key="genotype")
    exec(str(found.value).partition("; run ")[2].removesuffix(" first"), {"adata": adata})
    fit(adata, condition_key="genotype")
    assert list(adata.uns["wlm"]["conditions"]) == ["RunX1-2Ko", "WT"]


@pytest.mark.parametrize("names", [("mature", "nascent"), ("S", "U"), ("total", "new")], ids=str)
def test_case_22_layers_of_other_tools_are_read_or_renamed(names):
    day, s, u, _ = counts(depth=0.3)
    adata = layered(day, s, u)
    expected = wlm.pp.velocity(adata, method="steady_state", copy=True).obsm["velocity_projected"]
    for name, layer in zip(names, ("spliced", "unspliced"), strict=True):
        adata.layers[name] = adata.layers.pop(layer)
    same = adata.copy()
    same.layers[names[1]] = same.layers[names[0]]
    if names != ("total", "new"):
        wlm.pp.velocity(adata, method="steady_state")
        assert np.allclose(adata.obsm["velocity_projected"], expected)
    with pytest.raises(KeyError, match=rf"rename them: adata.layers\['spliced'\], .*pop\('{names[0]}'\)"):
        wlm.pp.velocity(same, method="steady_state")
