"""``pp.velocity`` on counts as people have them: fractions, names, forms; and what it changes of an object."""

import logging
import subprocess
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse
from typer.testing import CliRunner

import wlm
from wlm.cli import app
from wlm.pp._counts import LAYERS, find_layers, normalise, read_counts

OWN = {"method": "steady_state", "n_comps": 5}
SCVELO = pytest.param("scvelo", marks=pytest.mark.scvelo)


def cosine(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def molecules(seed=0, n=180, g=80):
    """Days, depths, and spliced and unspliced counts (n, g) of cells that change with the days."""
    rng = np.random.default_rng(seed)
    day, depth = np.repeat([0.0, 1, 2], n // 3), rng.lognormal(0, 0.8, n)
    mean = rng.gamma(2, 4, g) * np.exp(np.linspace(-0.5, 0.5, g) * day[:, None]) * depth[:, None]
    return day, depth, rng.poisson(mean).astype("f4"), rng.poisson(0.4 * mean).astype("f4")


def counted(s=None, u=None, names=("spliced", "unspliced"), **parts):
    day, _, spliced, unspliced = molecules()
    layers = dict(zip(names, (spliced if s is None else s, unspliced if u is None else u), strict=True))
    obs = pd.DataFrame({"day": day}, index=[f"c{i}" for i in range(len(day))])
    return ad.AnnData(parts.pop("X", spliced.copy()), obs=obs, layers=layers, **parts)


def logged(adata, **scale):
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    if scale:
        sc.pp.scale(adata, **scale)
    sc.pp.pca(adata, n_comps=5)
    return adata


# Fractions

FRACTIONS = {
    "whole": lambda s, u: (s, u),
    "quarters": lambda s, u: (s + 0.25 * (s > 0), u + 0.25 * (u > 0)),
    "one entry": lambda s, u: (np.where(np.arange(s.size).reshape(s.shape) == 7, s + 0.5, s), u),
    "spliced only": lambda s, u: (s * 0.93, u),
    "unspliced only": lambda s, u: (s, u * 0.93 + 0.01 * (u > 0)),
    "background removed": lambda s, u: (np.maximum(s - 0.3, 0), np.maximum(u - 0.1, 0)),
    "small": lambda s, u: (s / 100, u / 100),
    "large": lambda s, u: (s * 2.5, u * 2.5),
}


@pytest.mark.parametrize("method", [SCVELO, "steady_state"])
@pytest.mark.parametrize("form", FRACTIONS)
def test_counts_are_normalised_whether_they_are_whole_or_not(form, method):
    day, depth, s, u = molecules()
    s, u = FRACTIONS[form](s, u)
    adata = counted(sparse.csr_matrix(s), sparse.csr_matrix(u))
    wlm.pp.velocity(adata, method=method, n_comps=5, min_shared_counts=0)
    pc1 = adata.obsm["X_pca"][:, 0]
    assert abs(np.corrcoef(pc1, np.log(depth))[0, 1]) < 0.4
    assert abs(np.corrcoef(pc1, day)[0, 1]) > 0.85
    for name in ("spliced", "unspliced"):
        totals = np.asarray(adata.layers[name].sum(1)).ravel()
        assert np.ptp(totals) < 1e-3 * totals.mean()


@pytest.mark.parametrize("form", [f for f in FRACTIONS if f not in ("small", "large", "background removed")])
def test_fractions_hardly_change_velocities(form):
    _, _, s, u = molecules()
    right = wlm.pp.velocity(counted(s, u), copy=True, **OWN)
    found = wlm.pp.velocity(counted(*FRACTIONS[form](s, u)), copy=True, **OWN)
    # Of genes: all components but the first are noise.
    assert cosine(found.layers["velocity"], right.layers["velocity"]).mean() > 0.9


def test_what_is_normalised_stays_and_layers_are_told_apart():
    _, _, s, u = molecules()
    s = s * (500 / s.sum(1, keepdims=True))
    assert normalise(sparse.csr_matrix(s)).data.tolist() == sparse.csr_matrix(s).data.tolist()
    adata = counted(s.copy(), u)
    wlm.pp.velocity(adata, **OWN)
    assert np.allclose(adata.layers["spliced"], s)
    assert np.ptp(adata.layers["unspliced"].sum(1)) < 1e-2


def test_cells_without_counts_are_left_without():
    counts = sparse.csr_matrix(np.array([[1.0, 3], [0, 0], [2, 6]], dtype="f4"))
    assert np.allclose(normalise(counts).toarray(), [[1.5, 4.5], [0, 0], [1.5, 4.5]])


def test_a_second_call_gives_the_same():
    adata = counted()
    wlm.pp.velocity(adata, **OWN)
    first = adata.copy()
    wlm.pp.velocity(adata, n_top_genes=None, **OWN)
    assert np.allclose(adata.obsm["velocity_projected"], first.obsm["velocity_projected"], atol=1e-4)


# X


@pytest.mark.parametrize("kind", ["csr", "csc", "dense", "whole numbers", "float64"])
@pytest.mark.parametrize("method", [SCVELO, "steady_state"])
def test_raw_counts_in_x_stay_and_are_logged_on_the_side(kind, method):
    right = logged(counted())
    x = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": np.array}.get(kind, np.array)(molecules()[2])
    x = x.astype({"whole numbers": np.int64, "float64": np.float64}.get(kind, np.float32))
    adata = counted(X=x.copy(), obsm={"X_pca": right.obsm["X_pca"]}, varm={"PCs": right.varm["PCs"]})
    for a in (right, adata):
        wlm.pp.velocity(a, method=method, n_comps=5)
    assert adata.X.dtype == x.dtype and abs(adata.X - x).max() == 0
    assert adata.uns["velocity_projected"]["space"] == "log"
    assert np.allclose(adata.obsm["velocity_projected"], right.obsm["velocity_projected"], atol=1e-4)


@pytest.mark.parametrize("scale", [{}, {"max_value": 10}, {"zero_center": False}])
@pytest.mark.parametrize("method", [SCVELO, "steady_state"])
def test_x_and_components_of_the_user_stay(scale, method):
    adata = logged(counted(), **scale)
    x, scores = adata.X.copy(), adata.obsm["X_pca"].copy()
    wlm.pp.velocity(adata, method=method)
    assert np.array_equal(adata.X, x) and np.array_equal(adata.obsm["X_pca"], scores)
    assert adata.uns["velocity_projected"]["space"] == ("scaled" if scale else "log")


@pytest.mark.parametrize("method", [SCVELO, "steady_state"])
@pytest.mark.parametrize("with_x", [True, False])
def test_components_that_x_does_not_give_are_refused_before_work(method, with_x):
    right = logged(counted())
    adata = counted(X=molecules(1)[2], obsm={"X_pca": right.obsm["X_pca"]}, varm={"PCs": right.varm["PCs"][::-1]})
    if not with_x:
        del adata.varm["PCs"]
    before = set(adata.layers), set(adata.uns), set(adata.obsm), adata.X.copy()
    with pytest.raises((ValueError, KeyError), match="does not explain" if with_x else r"varm\['PCs'\] is missing"):
        wlm.pp.velocity(adata, method=method)
    assert (set(adata.layers), set(adata.uns), set(adata.obsm)) == before[:3] and np.array_equal(adata.X, before[3])


# Forms that scVelo cannot take


def _dask(a):
    return pytest.importorskip("dask.array").from_array(a, chunks=(60, -1))


FORMS = {
    "csr_array": sparse.csr_array,
    "csc_array": sparse.csc_array,
    "csc_matrix": sparse.csc_matrix,
    "dense": np.array,
    "float64": lambda a: a.astype("f8"),
    "float16": lambda a: a.astype("f2"),
    "int8": lambda a: np.minimum(a, 127).astype("i1"),
    "uint16": lambda a: sparse.csr_matrix(a.astype("u2")),
    "int64": lambda a: a.astype("i8"),
    "bool": lambda a: a > np.median(a),
    "sparse bool": lambda a: sparse.csr_matrix(a > np.median(a)),
    "objects": lambda a: a.astype(object),
    "text": lambda a: a.astype(str).astype(object),
    "dask": _dask,
    "dask sparse": lambda a: _dask(a).map_blocks(sparse.csr_matrix),
}


@pytest.mark.parametrize("method", [SCVELO, "steady_state"])
@pytest.mark.parametrize("form", FORMS)
def test_layers_of_every_form(form, method):
    _, _, s, u = molecules()
    adata = counted(FORMS[form](s), FORMS[form](u))
    wlm.pp.velocity(adata, method=method, n_comps=5, min_shared_counts=0)
    assert np.isfinite(adata.obsm["velocity_projected"]).all()
    if "bool" not in form and form != "int8":
        right = wlm.pp.velocity(counted(s, u), method=method, n_comps=5, min_shared_counts=0, copy=True)
        assert cosine(adata.obsm["velocity_projected"], right.obsm["velocity_projected"]).min() > 0.99


@pytest.mark.parametrize("method", [SCVELO, "steady_state"])
@pytest.mark.parametrize("x", [None, "csr_array", "objects", "dask", "no X, with X_pca"])
def test_x_of_every_form(x, method):
    right = counted()
    adata = counted()
    if x == "no X, with X_pca":
        right = logged(right)
        adata.obsm["X_pca"], adata.varm["PCs"] = right.obsm["X_pca"], right.varm["PCs"]
    adata.X = None if x is None or x.startswith("no X") else FORMS[x](molecules()[2])
    for a in (right, adata):
        wlm.pp.velocity(a, method=method, n_comps=5)
    assert np.allclose(adata.obsm["velocity_projected"], right.obsm["velocity_projected"], atol=1e-3)


@pytest.mark.parametrize("values", ["many", 7, None])
@pytest.mark.parametrize("method", [SCVELO, "steady_state"])
def test_columns_that_scvelo_would_read_are_not_in_its_way(values, method):
    adata = counted()
    for name in ("initial_size", "initial_size_spliced", "initial_size_unspliced", "n_counts"):
        adata.obs[name] = values
    adata.var["highly_variable"] = "maybe" if values == "many" else True
    wlm.pp.velocity(adata, method=method, n_comps=5)
    right = wlm.pp.velocity(counted(), method=method, n_comps=5, copy=True)
    assert np.allclose(adata.obsm["velocity_projected"], right.obsm["velocity_projected"], atol=1e-4)
    assert adata.obs["n_counts"].isna().all() if values is None else (adata.obs["n_counts"] == values).all()


BAD = {
    "negative": (lambda a: a - 5, ValueError, "has negative or missing or infinite"),
    "missing": (lambda a: np.where(a > 9, np.nan, a), ValueError, "has negative or missing or infinite"),
    "infinite": (lambda a: np.where(a > 9, np.inf, a), ValueError, "has negative or missing or infinite"),
    "float16 overflow": (lambda a: (a * 1e4).astype("f2"), ValueError, "has negative or missing or infinite"),
    "no counts": (lambda a: 0 * a, ValueError, "has no counts"),
    "words": (
        lambda a: np.full(a.shape, "many", dtype=object),
        TypeError,
        "holds object, of which not all are numbers",
    ),
    "complex": (lambda a: a.astype(complex), TypeError, "holds complex"),
}


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("method", ["auto", SCVELO, "steady_state"])
@pytest.mark.parametrize("form", BAD)
def test_what_holds_no_counts_is_named(form, method):
    change, error, message = BAD[form]
    adata = counted(s=change(molecules()[2]))
    layers = set(adata.layers)
    with pytest.raises(error, match=rf"layers\['spliced'\] {message}"):
        wlm.pp.velocity(adata, method=method)
    assert set(adata.layers) == layers and not adata.obsm


def test_too_few_or_equal_cells_are_refused():
    with pytest.raises(ValueError, match="at least 3"):
        wlm.pp.velocity(counted()[:2].copy())
    adata = counted(np.ones((180, 80), "f4"), 2 * np.ones((180, 80), "f4"))
    with pytest.raises(ValueError, match="the same spliced counts"):
        wlm.pp.velocity(adata)


# Names


@pytest.mark.parametrize("names", LAYERS)
def test_names_of_other_tools_are_understood(names, caplog):
    caplog.set_level(logging.INFO)
    right = wlm.pp.velocity(counted(), copy=True, **OWN)
    adata = counted(names=names)
    adata.layers["ambiguous"] = adata.layers["A"] = adata.layers[names[0]]
    before = adata.layers[names[1]].copy()
    wlm.pp.velocity(adata, **OWN)
    assert np.allclose(adata.obsm["velocity_projected"], right.obsm["velocity_projected"], atol=1e-5)
    if names[0] != "spliced":
        assert f"layers[{names[0]!r}] and layers[{names[1]!r}]" in caplog.text
        assert np.array_equal(adata.layers[names[1]], before), "counts of other names stay as they are"


UNCLEAR = [
    ("mature", "nascent", "S", "U"),
    ("mature", "nascent", "total", "new"),
    ("spliced", "mature", "nascent"),
    ("unspliced", "S", "U"),
    ("Spliced", "Unspliced"),
    ("SPLICED", "UNSPLICED", "matrix"),
    ("uu", "ul", "su", "sl"),
]


@pytest.mark.slow
@pytest.mark.parametrize("names", UNCLEAR)
def test_unclear_names_are_refused_with_a_line_that_works(names):
    _, _, s, u = molecules()
    layers = {n: u if n.lower() in ("nascent", "u", "new", "unspliced", "uu", "ul") else s for n in names}
    adata = ad.AnnData(s, layers={n: a.copy() for n, a in layers.items()})
    with pytest.raises(KeyError, match="are missing; layers has .*rename those that are meant") as error:
        wlm.pp.velocity(adata, **OWN)
    line = error.value.args[0].partition("are meant: ")[2].partition(" or adata.layers['spliced']")[0]
    exec(line, {"adata": adata})
    wlm.pp.velocity(adata, **OWN)
    assert np.isfinite(adata.obsm["velocity_projected"]).all()


def test_layers_that_are_one_are_not_two_kinds_of_counts():
    counts = np.ones((20, 5), dtype="f4")
    adata = ad.AnnData(counts, layers={"mature": counts, "nascent": counts, "ambiguous": counts})
    with pytest.raises(KeyError, match=r"hold the same values.*rename them: adata.layers\['spliced'\]"):
        wlm.pp.velocity(adata)


def test_no_name_at_all_names_the_tools():
    with pytest.raises(KeyError, match=r"layers \['spliced', 'unspliced'\] are missing.*alevin-fry.*read_loom"):
        find_layers(ad.AnnData(np.ones((3, 2)), layers={"counts": np.ones((3, 2))}))


@pytest.mark.parametrize(("path", "reader"), [("a.loom", "anndata.io.read_loom"), ("a.h5ad", "anndata.read_h5ad")])
def test_a_path_is_refused_with_its_reader(path, reader):
    with pytest.raises(TypeError, match=rf"found str; run adata = {reader}\('{path}'\)"):
        wlm.pp.velocity(path)


@pytest.mark.slow
def test_a_loom_file_is_refused_with_a_command_that_converts_it(tmp_path, monkeypatch):
    loompy = pytest.importorskip("loompy")
    _, _, s, u = molecules()
    names = {"Gene": np.array([f"g{i // 2}" for i in range(80)])}, {"CellID": np.array([f"c{i}" for i in range(180)])}
    loompy.create(str(tmp_path / "a.loom"), {"": s.T, "spliced": s.T, "unspliced": u.T}, *names)
    monkeypatch.chdir(tmp_path)
    command = ["velocity", "a.loom", "-o", "b.h5ad", "--n-comps", "5"]
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 2 and "convert it, with pip install loompy: python -c" in found.stderr
    line = found.stderr.partition("loompy: python ")[2]
    assert subprocess.run(f"{sys.executable} {line}", shell=True, capture_output=True, check=False).returncode == 0
    command[1] = "a.h5ad"
    assert CliRunner().invoke(app, [*command, "--method", "steady_state"]).exit_code == 0
    assert ad.read_h5ad(tmp_path / "b.h5ad").n_vars == 80


# Genes


@pytest.mark.parametrize("method", [SCVELO, "steady_state"])
def test_genes_are_kept_and_their_number_is_said(method, caplog):
    caplog.set_level(logging.INFO)
    adata = counted()
    adata.raw = adata.copy()
    names = adata.var_names.copy()
    wlm.pp.velocity(adata, n_top_genes=30, method=method, n_comps=5)
    assert adata.var_names.equals(names) and adata.raw.shape == adata.shape
    assert "of 30 of 80 genes, all 80 were kept" in caplog.text
    used = adata.var["highly_variable"].to_numpy()
    assert used.sum() == 30 and not adata.var.loc[~used, "velocity_genes"].any()
    for name in ("velocity", "Ms", "Mu"):
        assert np.isnan(adata.layers[name][:, ~used]).all() and np.isfinite(adata.layers[name][:, used]).all()
    assert not adata.varm["PCs"][~used].any() and adata.varm["PCs"][used].any(1).all()
    cut = counted()
    wlm.pp.velocity(cut, n_top_genes=30, method=method, n_comps=5, subset_genes=True)
    assert cut.n_vars == 30 and "which alone were kept" in caplog.text
    assert cut.var_names.equals(names[used])
    assert np.array_equal(cut.layers["velocity"], adata.layers["velocity"][:, used])
    assert np.allclose(cut.obsm["X_pca"], adata.obsm["X_pca"])


def test_velocities_of_the_chosen_genes_are_speeds_of_the_components():
    """The derivative, by a difference quotient, of components whose genes are part of the cells' totals."""
    adata = counted()
    wlm.pp.velocity(adata, n_top_genes=30, **OWN)
    wlm.pp.project_velocity(adata, smooth=False)
    used = adata.var["highly_variable"].to_numpy()
    s, total = np.expm1(adata.X.toarray()).astype(float), np.expm1(adata.X.toarray()).sum(1, keepdims=True)
    s[:, used] = adata.layers["Ms"][:, used] * (s[:, used].sum(1) / adata.layers["Ms"][:, used].sum(1))[:, None]
    c = s[:, used].sum(1, keepdims=True) / adata.layers["Ms"][:, used].sum(1, keepdims=True)
    moving = adata.var["velocity_genes"].to_numpy(bool)
    v = np.where(moving, np.nan_to_num(adata.layers["velocity"]), 0).astype(float) * c

    def x(s):
        return np.log1p(s * total / s.sum(1, keepdims=True))

    truth = (x(s + 1e-5 * v) - x(s - 1e-5 * v)) / 2e-5 @ adata.varm["PCs"]
    assert cosine(adata.obsm["velocity_projected"], truth).min() > 0.999


def test_a_copy_leaves_the_object_alone_and_results_can_be_saved(tmp_path):
    adata = counted()
    before = adata.copy()
    found = wlm.pp.velocity(adata, copy=True, n_top_genes=30, **OWN)
    assert set(adata.layers) == set(before.layers) and not adata.obsm and np.array_equal(adata.X, before.X)
    assert np.array_equal(adata.layers["spliced"], before.layers["spliced"])
    found.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    assert np.array_equal(again.layers["velocity"], found.layers["velocity"], equal_nan=True)
    # What was saved is read: these molecules are noise beside the drift, which a fit and the doctor say alike.
    words = "against the observed drift, so that no scale makes them speeds"
    assert words in wlm.pp.doctor(again, velocity_key="auto").set_index("check").loc["velocity", "found"]
    with pytest.raises(ValueError, match="point against the observed drift .*, so that no scale makes them speeds"):
        wlm.tl.fit(again, "day", velocity_key="auto", n_steps=1)


def test_large_layers_are_said(monkeypatch, caplog):
    monkeypatch.setattr(sys.modules["wlm.pp._scvelo"], "_LARGE", 1e4)
    wlm.pp.velocity(counted(), n_top_genes=30, **OWN)
    assert "with subset_genes=True the genes that were not used are removed" in caplog.text


def test_counts_are_read_as_a_copy():
    s = sparse.csr_matrix(molecules()[2])
    adata = counted(s)
    read_counts(adata, "spliced").data[:] = 0
    assert adata.layers["spliced"].sum() > 0
