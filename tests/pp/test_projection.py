"""Which matrix, which logarithm, which genes and which components: objects as people have them."""

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

import wlm
from wlm._adata.columns import read_mask
from wlm._adata.expression import find_expression, read_loadings
from wlm.pp import _checks, _doctor

TOTAL = 1e3


@pytest.fixture(autouse=True)
def no_timing(monkeypatch):
    """The doctor makes no training steps here; ``test_doctor.py`` is about those."""
    monkeypatch.setattr(_doctor, "check_run_time", lambda *_: _checks.Finding("ok", "a second"))


def cosine(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def counts(n=150, g=120, rng=0):
    """Counts (n, g) of cells on three days, with another depth each."""
    rng = np.random.default_rng(rng)
    day = np.repeat([0.0, 1, 2], n // 3)
    mean = rng.gamma(0.5, 20, g) * np.exp(np.linspace(-0.5, 0.5, g) * day[:, None])
    return day, rng.poisson(mean * rng.lognormal(0, 0.5, (n, 1))).astype(float)


def prepared(base=None, scale=None, target=TOTAL, n_comps=5):
    """An object whose counts were normalised, logged and perhaps scaled, with velocities, and the derivative of PCA.

    The derivative is a difference quotient of the whole preprocessing, with the scaling and the mean held.
    """
    day, s = counts()
    s *= target / s.sum(1, keepdims=True)
    v = s * np.random.default_rng(1).normal(0, 0.2, s.shape[1])
    adata = ad.AnnData(s.copy(), obs=pd.DataFrame({"day": day}, index=[f"c{i}" for i in range(len(s))]))
    adata.layers["Ms"], adata.layers["velocity"] = s.copy(), v
    sc.pp.log1p(adata, base=base)
    if scale is not None:
        sc.pp.scale(adata, **scale)
    sc.pp.pca(adata, n_comps=n_comps)

    def x(s):
        logs = np.log1p(s * target / s.sum(1, keepdims=True)) / np.log(base or np.e)
        return logs / (adata.var["std"].to_numpy() if scale is not None else 1)

    return adata, (x(s + 1e-5 * v) - x(s - 1e-5 * v)) / 2e-5 @ adata.varm["PCs"]


def check(adata, truth, space=None, **options):
    """Projected velocities are the derivative: their direction and their length."""
    wlm.pp.project_velocity(adata, smooth=False, **options)
    found = adata.obsm["velocity_projected"]
    assert cosine(found, truth).min() > 0.999
    assert np.allclose(np.linalg.norm(found, axis=1), np.linalg.norm(truth, axis=1), rtol=1e-2)
    assert space in (None, adata.uns["velocity_projected"]["space"])


# Spaces


@pytest.mark.parametrize("base", [None, 2, 10, 3.5])
@pytest.mark.parametrize("scale", [None, {}, {"zero_center": False}, {"max_value": 10}])
def test_every_way_of_making_x_gives_the_derivative(base, scale):
    adata, truth = prepared(base, scale)
    check(adata, truth, "log" if scale is None else "scaled")


def test_clipping_does_little_harm():
    """What was clipped is missing from the cell's total."""
    adata, truth = prepared(None, {"zero_center": False, "max_value": 10})
    assert (adata.X == 10).mean() > 0.01
    wlm.pp.project_velocity(adata, smooth=False)
    assert cosine(adata.obsm["velocity_projected"], truth).min() > 0.99


@pytest.mark.parametrize("target", [1.0, 100.0, 1e4, 1e6])
def test_every_total_gives_the_derivative(target):
    adata, truth = prepared(target=target)
    check(adata, truth, "log")


@pytest.mark.parametrize("forget", ["base", "log1p"])
@pytest.mark.parametrize("base", [None, 2, 10])
def test_the_base_is_found_where_it_was_not_noted(forget, base):
    """h5ad drops ``base=None``, and concatenation all of ``uns``."""
    adata, truth = prepared(base)
    del (adata.uns if forget == "log1p" else adata.uns["log1p"])[forget]
    check(adata, truth, "log")


@pytest.mark.parametrize("kind", ["csr", "csc", "float32", "file", "backed", "dask"])
@pytest.mark.parametrize("scale", [None, {"zero_center": False}])
def test_kinds_of_matrices(tmp_path, kind, scale):
    adata, truth = prepared(2, scale)
    if kind in ("csr", "csc"):
        adata.X = sparse.csr_matrix(adata.X) if kind == "csr" else sparse.csc_matrix(adata.X)
    elif kind == "float32":
        adata.X = adata.X.astype(np.float32)
    elif kind == "dask":
        adata.X = pytest.importorskip("dask.array").from_array(adata.X, chunks=(50, -1))
    else:
        adata.write_h5ad(tmp_path / "a.h5ad")
        adata = ad.read_h5ad(tmp_path / "a.h5ad", backed="r" if kind == "backed" else None)
    check(adata, truth, "log" if scale is None else "scaled")


def test_other_cells_or_genes_with_the_statistics_of_all():
    adata, truth = prepared(None, {"zero_center": False})
    few = np.arange(0, adata.n_obs, 4)
    check(adata[few].copy(), truth[few], "scaled")


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda a: sc.pp.regress_out(a, "depth"), "regressed"),
        (lambda a: setattr(a, "X", a.X - a.X.mean(0)), "centred by hand"),
        (lambda a: (sc.pp.regress_out(a, "depth"), sc.pp.scale(a)), "regressed and scaled"),
    ],
)
def test_what_is_no_logarithm_any_more_is_refused(change, names):
    adata, _ = prepared()
    adata.obs["depth"] = counts()[1].sum(1)
    change(adata)
    sc.pp.pca(adata, n_comps=5)
    before = set(adata.obsm)
    with pytest.raises(ValueError, match=r"negative values, though uns\['log1p'\].*run sc.pp.pca"):
        wlm.pp.project_velocity(adata)
    assert set(adata.obsm) == before


def test_scaled_counts_are_no_logarithms():
    adata, _ = prepared()
    adata.X = adata.layers["Ms"].copy()
    del adata.uns["log1p"]
    sc.pp.scale(adata)
    sc.pp.pca(adata, n_comps=5)
    wlm.pp.project_velocity(adata)
    expected = adata.layers["velocity"] / adata.var["std"].to_numpy() @ adata.varm["PCs"]
    assert np.allclose(adata.obsm["velocity_projected"], expected, atol=1e-4 * np.abs(expected).max())
    assert adata.uns["velocity_projected"]["space"] == "linear"


# X is not the matrix of the PCA, and may be made so


def swapped(how):
    """X is another step of the preprocessing than the one that PCA was computed on."""
    scale = {"raw counts": None, "normalised": None, "other totals": None, "scaled since": None}.get(how, {})
    adata, truth = prepared(None, {"max_value": 10} if how == "logs, clipped" else scale, target=TOTAL)
    logs = np.log1p(adata.layers["Ms"])
    if how == "raw counts":
        adata.X = counts()[1]
        adata.layers["Ms"] = adata.layers["Ms"].astype(np.float32)
    elif how == "raw counts, scaled":
        adata.X = sparse.csr_matrix(counts()[1])
    elif how == "other totals":
        adata.X = np.log1p(adata.layers["Ms"])  # the same: only the base of comparison
        adata.X = counts()[1] * 3.7
    elif how == "normalised":
        adata.X = adata.layers["Ms"].copy()
    elif how == "scaled since":
        sc.pp.scale(adata)
    else:
        adata.X = logs
    return adata, truth


SWAPS = ["raw counts", "raw counts, scaled", "other totals", "normalised", "scaled since", "logs", "logs, clipped"]


@pytest.mark.parametrize("how", SWAPS)
def test_x_of_another_step_is_brought_to_that_of_the_pca_on_the_side(how):
    adata, truth = swapped(how)
    x = adata.X.copy()
    check(adata, truth)
    assert abs(adata.X - x).max() == 0


def broken_pair(how):
    """Loadings that are not those of ``X_pca``."""
    adata, _ = prepared()
    x, rng = adata.obsm["X_pca"], np.random.default_rng(3)
    if how == "signs":
        adata.obsm["X_pca"] = x * [1, -1, -1, 1, -1]
    elif how == "one sign":
        adata.obsm["X_pca"] = x * [1, 1, 1, 1, -1]
    elif how == "rotated":
        adata.obsm["X_pca"] = x @ np.linalg.qr(rng.normal(size=(5, 5)))[0]
    elif how == "order":
        adata.obsm["X_pca"] = x[:, [1, 0, 2, 3, 4]]
    elif how == "corrected":
        adata.obsm["X_pca"] = x - (np.arange(len(x)) % 2)[:, None] * x.std(0)
    elif how == "other cells":
        adata.obsm["X_pca"] = x[rng.permutation(len(x))]
    elif how == "other genes":
        adata.varm["PCs"] = adata.varm["PCs"][rng.permutation(adata.n_vars)]
    elif how == "whitened":
        adata.obsm["X_pca"] = x / x.std(0)
    elif how == "other X":
        adata.X = rng.poisson(1.0, adata.shape).astype(float)
    return adata


PAIRS = ["signs", "one sign", "rotated", "order", "corrected", "other cells", "other genes", "whitened", "other X"]


@pytest.mark.parametrize("how", PAIRS)
def test_loadings_of_another_pca_are_refused_by_all(how, quick):
    adata = broken_pair(how)
    if how == "other X":
        adata.layers["Ms"] = adata.X.copy()
    before = set(adata.obsm), set(adata.uns)
    with pytest.raises(ValueError, match=r"does not explain obsm\['X_pca'\].*run sc.pp.pca"):
        wlm.pp.project_velocity(adata)
    for key in ("velocity", "auto"):
        with pytest.raises(ValueError, match="does not explain"):
            wlm.tl.fit(adata, "day", velocity_key=key, **quick)
    assert (set(adata.obsm), set(adata.uns)) == before
    report = wlm.pp.doctor(adata, velocity_key="velocity").set_index("check")
    assert report.loc["loadings", "level"] == report.loc["velocity", "level"] == "error"
    assert "sc.pp.pca(adata)" in report.loc["loadings", "advice"]


def test_a_wrong_x_beside_the_right_layer_is_fine():
    adata, truth = prepared()
    adata.layers["logged"] = adata.X
    adata.X = np.random.default_rng(0).normal(size=adata.shape)
    check(adata, truth, "log")


@pytest.mark.parametrize("how", ["float32", "float16 scores", "subset", "fewer components", "table", "no scores"])
def test_legitimate_objects_pass(how, caplog):
    adata, truth = prepared()
    if how == "float32":
        adata.X, adata.varm["PCs"] = adata.X.astype("f4"), adata.varm["PCs"].astype("f4")
    elif how == "float16 scores":
        adata.obsm["X_pca"] = adata.obsm["X_pca"].astype("f2")
    elif how == "subset":  # another mean than that of the cells that PCA has seen
        keep = adata.obs["day"].to_numpy() == 2
        adata, truth = adata[keep].copy(), truth[keep]
    elif how == "fewer components":
        adata.obsm["X_pca"] = adata.obsm["X_pca"][:, :3]
    elif how == "table":
        adata.varm["PCs"] = pd.DataFrame(adata.varm["PCs"], index=adata.var_names)
    elif how == "no scores":
        del adata.obsm["X_pca"]
    caplog.set_level(logging.WARNING)
    check(adata, truth, "log")
    assert ("cannot be compared" in caplog.text) == (how == "no scores")


def test_genes_without_loadings_may_be_nan():
    adata, truth = prepared()
    adata.varm["PCs"] = np.vstack([adata.varm["PCs"], np.full((2, 5), np.nan)])[: adata.n_vars]
    adata.var["use"] = np.arange(adata.n_vars) % 2 == 0
    sc.pp.pca(adata, n_comps=5, mask_var="use")
    wlm.pp.project_velocity(adata, smooth=False)
    zeros = adata.obsm["velocity_projected"].copy()
    adata.varm["PCs"] = np.where(adata.var["use"].to_numpy()[:, None], adata.varm["PCs"], np.nan)
    check(adata, zeros)


@pytest.mark.parametrize("x", [True, False])
def test_without_x_it_is_said_what_is_assumed(x, caplog):
    """No X: what was logged is compared with the spliced counts, and else a guess that is said."""
    adata, truth = prepared()
    adata.layers["spliced"] = counts()[1]
    if not x:
        adata.obsm["X_pca"] = np.random.default_rng(0).normal(size=adata.obsm["X_pca"].shape)
    layers = {k: adata.layers[k] for k in ("Ms", "velocity", "spliced")}  # anndata 0.13 has X among them
    bare = ad.AnnData(obs=adata.obs, var=adata.var, layers=layers, obsm=dict(adata.obsm), varm=dict(adata.varm))
    bare.uns["log1p"] = {}
    caplog.set_level(logging.WARNING)
    wlm.pp.project_velocity(bare, smooth=False)
    assert ("cannot be compared with obsm['X_pca']: there is no X" in caplog.text) == (not x)
    assert bare.uns["velocity_projected"]["space"] == "log"
    assert cosine(bare.obsm["velocity_projected"], truth).min() > 0.99


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_genes_that_were_taken_out_are_said_and_counted(share, caplog):
    adata, _ = prepared()
    loadings = np.square(adata.varm["PCs"]).sum(1)
    keep = np.random.default_rng(0).random(adata.n_vars) < share
    small = adata[:, keep].copy()
    wlm.pp.project_velocity(small)
    assert "genes were taken out after the PCA" in caplog.text
    note = small.uns["velocity_projected"]
    assert note["share"] == pytest.approx(loadings[keep].sum() / loadings.sum(), rel=1e-4)
    assert note["share"] < 0.98 and note["space"] == "log"
    small.obsm["X_pca"] = -small.obsm["X_pca"]
    with pytest.raises(ValueError, match="does not explain"):
        wlm.pp.project_velocity(small)


# Masks of genes

GOOD = np.arange(120) % 3 > 0
MASKS = {
    "bool": GOOD,
    "text": GOOD.astype(str),
    "lower": np.where(GOOD, "true", "false"),
    "upper": np.where(GOOD, "TRUE", "FALSE"),
    "short": np.where(GOOD, "T", "F"),
    "digits": np.where(GOOD, "1", "0"),
    "spaces": np.where(GOOD, " True", "False "),
    "numbers": GOOD.astype(int),
    "floats": GOOD.astype(float),
    "floats with NaN": np.where(GOOD, 1.0, np.nan),
    "text floats": GOOD.astype(float).astype(str),
    "True or NaN": np.where(GOOD, True, np.nan).astype(object),
    "True or None": np.where(GOOD, True, None),
    "text or NaN": np.where(GOOD, "True", np.array(np.nan, dtype=object)),
    "text or empty": np.where(GOOD, "True", ""),
    "text or NA of R": np.where(GOOD, "TRUE", "NA"),
    "nullable": pd.array(GOOD, dtype="boolean"),
    "nullable with NA": pd.array(np.where(GOOD, True, None), dtype="boolean"),
    "nullable numbers": pd.array(np.where(GOOD, 1, None), dtype="Int64"),
    "strings of pandas": pd.array(np.where(GOOD, "True", None), dtype="string"),
    "category of bool": pd.Categorical(GOOD),
    "category of text": pd.Categorical(GOOD.astype(str)),
    "category with NaN": pd.Categorical(np.where(GOOD, "True", None)),
}


@pytest.mark.parametrize("form", MASKS)
def test_masks_are_read_as_what_they_say(form):
    var = pd.DataFrame({"mask": MASKS[form]}, index=[f"g{i}" for i in range(120)])
    assert np.array_equal(read_mask(var, "mask"), GOOD)


@pytest.mark.parametrize("column", ["velocity_genes", "use_for_dynamics"])
@pytest.mark.parametrize("form", ["text", "text or NaN", "nullable with NA", "digits"])
def test_masks_choose_the_genes_that_move(column, form):
    adata, _ = prepared()
    adata.var[column] = GOOD
    wlm.pp.project_velocity(adata)
    right = adata.obsm["velocity_projected"]
    adata.var[column] = MASKS[form]
    wlm.pp.project_velocity(adata)
    assert np.array_equal(adata.obsm["velocity_projected"], right)
    assert adata.uns["velocity_projected"]["n_genes"] == GOOD.sum()


@pytest.mark.parametrize("value", ["yes", "gene", 2, -1, 0.3, "two", b"x", (1, 2)])
@pytest.mark.parametrize("column", ["velocity_genes", "use_for_dynamics"])
def test_other_content_of_a_mask_is_refused_by_name(column, value):
    adata, _ = prepared()
    adata.var[column] = pd.Series([value] + [True] * 119, index=adata.var_names, dtype=object)
    with pytest.raises(ValueError, match=rf"var\['{column}'\] must hold True and False"):
        wlm.pp.project_velocity(adata)


def test_the_advice_of_a_refused_mask_helps():
    adata, _ = prepared()
    adata.var["velocity_genes"] = np.where(GOOD, "yes", "no")
    with pytest.raises(ValueError, match="adata.var") as error:
        wlm.pp.project_velocity(adata)
    advice = str(error.value).partition("genes to use: ")[2]
    exec(advice, {"adata": adata})
    wlm.pp.project_velocity(adata)
    assert adata.uns["velocity_projected"]["n_genes"] == GOOD.sum()


def test_a_mask_of_two_columns_is_refused():
    adata, _ = prepared()
    adata.var = pd.concat([adata.var, pd.DataFrame({"velocity_genes": GOOD}, index=adata.var_names)] * 2, axis=1)
    with pytest.raises(ValueError, match="var has 2 columns named 'velocity_genes'"):
        wlm.pp.project_velocity(adata)


@pytest.mark.parametrize("form", ["text", "nullable with NA", "text or empty"])
def test_dynamos_mask_of_the_pca_is_read_too(form):
    adata, _ = prepared()
    adata.var["use_for_pca"] = GOOD
    sc.pp.pca(adata, n_comps=5, mask_var="use_for_pca")
    wlm.pp.project_velocity(adata)
    right = adata.obsm["velocity_projected"]
    adata.uns["PCs"] = adata.varm.pop("PCs")[GOOD]
    adata.var["use_for_pca"] = MASKS[form]
    wlm.pp.project_velocity(adata)
    assert np.allclose(adata.obsm["velocity_projected"], right, atol=1e-6)
    adata.obsm["X_pca"] = -adata.obsm["X_pca"]
    with pytest.raises(ValueError, match="does not explain"):
        wlm.pp.project_velocity(adata)


# Which components projected velocities belong to


@pytest.fixture
def projected():
    adata, _ = prepared()
    wlm.pp.project_velocity(adata)
    return adata


def again(adata, how):
    """The components change after the velocities were projected."""
    if how == "other genes":
        adata.var["use"] = np.arange(adata.n_vars) % 2 == 0
        sc.pp.pca(adata, n_comps=5, mask_var="use")
    elif how == "genes taken out":
        adata = adata[:, ::2].copy()
        sc.pp.pca(adata, n_comps=5)
    elif how == "cells taken out":
        adata = adata[adata.obs["day"] > 0].copy()
        sc.pp.pca(adata, n_comps=5)
    elif how == "more components":
        sc.pp.scale(adata)
        sc.pp.pca(adata, n_comps=8)
    elif how == "signs":
        adata.obsm["X_pca"] *= -1
        adata.varm["PCs"] *= -1
    elif how == "corrected":
        adata.obsm["X_pca"] = adata.obsm["X_pca"] - (np.arange(adata.n_obs) % 2)[:, None]
    return adata


CHANGES = ["other genes", "genes taken out", "cells taken out", "more components", "signs", "corrected"]


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("key", ["auto", "velocity_projected"])
@pytest.mark.parametrize("file", [False, True])
def test_velocities_of_other_components_are_refused(projected, how, key, file, tmp_path, quick):
    adata = again(projected, how)
    if file:
        adata.write_h5ad(tmp_path / "a.h5ad")
        adata = ad.read_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(ValueError, match="projected on other components.*run wlm.pp.project_velocity") as error:
        wlm.tl.fit(adata, "day", velocity_key=key, **quick)
    assert "wlm" not in adata.uns
    found = wlm.pp.doctor(adata, velocity_key=key).set_index("check").loc["velocity"]
    assert found.level == "error" and "other components" in found.found
    assert wlm.pp.doctor(adata).set_index("check").loc["velocity", "level"] == "note"
    if how != "corrected":  # then there are no loadings for X_pca
        advice = str(error.value).partition("run ")[2].partition(" again")[0]
        exec(advice, {"adata": adata, "wlm": wlm})
        found = wlm.pp.doctor(adata, velocity_key=key).set_index("check").loc["velocity"]
        assert found.level != "error", found.found


@pytest.mark.parametrize("how", ["as it is", "cells", "one cell of each", "genes", "file", "zarr", "renamed", "old"])
def test_velocities_of_the_same_components_are_taken(projected, how, tmp_path):
    from wlm._adata.velocity import belongs, find_velocity

    adata = projected
    if how == "cells":
        adata = adata[adata.obs["day"] > 0].copy()
    elif how == "one cell of each":
        adata = adata[[3, 70, 149]].copy()
    elif how == "genes":
        adata = adata[:, 5:30].copy()
    elif how == "file":
        adata.write_h5ad(tmp_path / "a.h5ad")
        adata = ad.read_h5ad(tmp_path / "a.h5ad")[::2].copy()
    elif how == "zarr":
        adata.write_zarr(tmp_path / "a.zarr")
        adata = ad.read_zarr(tmp_path / "a.zarr")
    elif how == "renamed":  # the loadings decide
        adata.obs_names = "x" + adata.obs_names
        assert belongs(adata, "velocity_projected", "X_pca")
        adata.varm["PCs"] = adata.varm["PCs"][::-1].copy()
        assert not belongs(adata, "velocity_projected", "X_pca")
        return
    elif how == "old":  # a note from before there was any of the components
        del adata.uns["velocity_projected"]["components"]
        adata.obsm["X_pca"] = -adata.obsm["X_pca"]
    assert find_velocity(adata, "X_pca") == "velocity_projected"


def test_auto_takes_those_that_belong_of_several(projected):
    from wlm._adata.velocity import find_velocity

    sc.pp.scale(projected)
    sc.pp.pca(projected, n_comps=5)
    wlm.pp.project_velocity(projected, key_added="velocity_new")
    assert find_velocity(projected, "X_pca") == "velocity_new"


def test_conditions_and_small_parts_of_large_objects_are_compared(projected, quick):
    projected.obs["arm"] = np.where(np.arange(projected.n_obs) % 2, "a", "b")
    common = {"velocity_key": "auto", "velocity_scale": 1.0, "condition_key": "arm"}
    wlm.tl.fit(projected, "day", key_added="both", **common, **quick)
    projected.obsm["X_pca"] = projected.obsm["X_pca"][:, ::-1].copy()
    with pytest.raises(ValueError, match="other components"):
        wlm.tl.fit(projected, "day", **common, **quick)


def test_the_expression_is_found_among_several_layers():
    adata, _ = prepared()
    adata.layers["logged"] = adata.X
    adata.layers["text"] = adata.X.astype(str).astype(object)
    adata.X = counts()[1]
    found = find_expression(adata, read_loadings(adata, "velocity", "X_pca"), "velocity", "X_pca")
    assert found.name == "logged" and found.space == "log"
