"""Projection of gene velocities: compared with difference quotients of the whole preprocessing."""

import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy.sparse import csr_matrix

import wlm


def cosine(a, b):
    """Cosine of each row, for rows of ``b`` that are not zero."""
    size = np.linalg.norm(b, axis=1)
    keep = size > 1e-6 * size.max()
    return (a * b).sum(1)[keep] / np.linalg.norm(a, axis=1)[keep] / size[keep]


def simulated(noise, n=400, scale=False, target=1e4):
    """Simulated cells after scanpy's steps, and the true velocity of their noiseless expression in these PCs."""
    adata = wlm.datasets.bifurcation(n, noise=noise, rng=0)
    sc.pp.normalize_total(adata, target_sum=target)
    sc.pp.log1p(adata)
    if scale:
        sc.pp.scale(adata)
    sc.pp.pca(adata, n_comps=10)
    return adata, true_velocity(adata, target)


def true_velocity(adata, target):
    """d PCA(log(1 + normalised counts)) / dt of the noiseless cells, by a difference quotient."""
    clean = wlm.datasets.bifurcation(adata.n_obs // 5, noise=False, rng=0)[:, adata.var_names]
    s, v = clean.layers["spliced"].toarray().astype(float), clean.layers["true_velocity"].astype(float)

    def expression(s):
        x = np.log1p(s / s.sum(1, keepdims=True) * target)
        return x / adata.var["std"].to_numpy() if "std" in adata.var else x

    return (expression(s + 1e-4 * v) - expression(np.maximum(s - 1e-4 * v, 0))) / 2e-4 @ adata.varm["PCs"]


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("target", [1e4, 50])
def test_projection_is_the_velocity_of_the_components(scale, target):
    adata, truth = simulated(False, n=100, scale=scale, target=target)
    wlm.pp.project_velocity(adata, vkey="true_velocity")
    found = adata.obsm["true_velocity_projected"]
    assert np.mean(cosine(found, truth)) > 0.95
    moving = np.linalg.norm(truth, axis=1) > 0.1 * np.linalg.norm(truth, axis=1).max()
    ratio = np.linalg.norm(found[moving], axis=1) / np.linalg.norm(truth[moving], axis=1)
    assert np.median(ratio) == pytest.approx(1, abs=0.1), "a speed, not a direction"
    note = adata.uns["true_velocity_projected"]
    assert note["space"] == ("scaled" if scale else "log") and note["n_genes"] == 150
    assert note["share"] == pytest.approx(1)


@pytest.mark.parametrize("noise", [False, True])
def test_velocities_of_counts_point_where_the_truth_does(noise):
    adata = wlm.datasets.bifurcation(400, noise=noise, rng=0)
    wlm.pp.velocity(adata)
    counts = np.median(np.asarray(wlm.datasets.bifurcation(400, noise=False, rng=0).layers["spliced"].sum(1)))
    # Beyond the first ten, components are noise.
    cosines = cosine(adata.obsm["velocity_projected"][:, :10], true_velocity(adata, counts)[:, :10])
    assert np.mean(cosines) > 0.8


def test_genes_without_velocity_do_not_move():
    adata, _ = simulated(False, n=20)
    adata.layers["velocity"] = adata.layers["true_velocity"].copy()
    adata.layers["velocity"][:, 3] = np.nan
    adata.var["velocity_genes"] = np.arange(adata.n_vars) % 2 == 1
    wlm.pp.project_velocity(adata)
    by_hand = adata.layers["true_velocity"].copy()
    by_hand[:, 3] = 0
    by_hand[:, ::2] = 0
    adata.layers["by_hand"] = by_hand
    del adata.var["velocity_genes"]
    wlm.pp.project_velocity(adata, vkey="by_hand")
    assert np.allclose(adata.obsm["velocity_projected"], adata.obsm["by_hand_projected"], atol=1e-6)
    note = adata.uns["velocity_projected"]
    kept = (np.arange(adata.n_vars) % 2 == 1) & (np.arange(adata.n_vars) != 3)
    loadings = np.square(adata.varm["PCs"]).sum(1)
    assert note["n_genes"] == kept.sum() and note["share"] == pytest.approx(loadings[kept].sum() / loadings.sum())


def test_expression_that_is_not_logarithmic_is_projected_as_it_is():
    rng = np.random.default_rng(0)
    adata = ad.AnnData(rng.normal(size=(30, 8)), layers={"velocity": rng.normal(size=(30, 8))})
    sc.pp.pca(adata, n_comps=3)
    wlm.pp.project_velocity(adata)
    assert np.allclose(adata.obsm["velocity_projected"], adata.layers["velocity"] @ adata.varm["PCs"], atol=1e-5)
    assert adata.uns["velocity_projected"]["space"] == "linear"


def test_smoothing_is_the_mean_over_neighbours():
    rng = np.random.default_rng(0)
    adata = ad.AnnData(rng.normal(size=(30, 8)), layers={"velocity": rng.normal(size=(30, 8))})
    adata.layers["velocity"][4] = np.nan
    sc.pp.pca(adata, n_comps=3)
    sc.pp.neighbors(adata, n_neighbors=5)
    rough = wlm.pp.project_velocity(adata, smooth=False, copy=True).obsm["velocity_projected"]
    wlm.pp.project_velocity(adata)
    assert np.isnan(rough[4]).all() and np.isnan(adata.obsm["velocity_projected"][4]).all()
    weights = adata.obsp["connectivities"].toarray() + np.eye(30)
    weights[:, 4] = 0
    expected = weights @ np.nan_to_num(rough) / weights.sum(1, keepdims=True)
    others = np.arange(30) != 4
    assert np.allclose(adata.obsm["velocity_projected"][others], expected[others], atol=1e-5)


def test_every_kind_of_matrix_gives_the_same(tmp_path):
    adata, _ = simulated(True, n=20)
    adata.layers["velocity"] = adata.layers["true_velocity"]
    wlm.pp.project_velocity(adata)
    wanted = adata.obsm["velocity_projected"]
    sparse = adata.copy()
    sparse.layers["velocity"] = csr_matrix(sparse.layers["velocity"])
    wlm.pp.project_velocity(sparse)
    assert np.allclose(sparse.obsm["velocity_projected"], wanted, atol=1e-5)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    wlm.pp.project_velocity(backed)
    assert np.allclose(backed.obsm["velocity_projected"], wanted, atol=1e-5)
    backed.file.close()


def test_dynamo_keeps_its_loadings_elsewhere():
    adata, _ = simulated(False, n=20)
    adata.layers["velocity_S"] = adata.layers["true_velocity"]
    adata.layers["M_s"] = adata.layers["spliced"]
    keep = np.arange(adata.n_vars) < 100
    adata.varm["PCs"] = np.where(keep[:, None], adata.varm["PCs"], 0)
    wlm.pp.project_velocity(adata, vkey="velocity_S", key_added="by_varm")
    adata.var["use_for_pca"] = keep
    adata.uns["PCs"] = adata.varm.pop("PCs")[keep]
    wlm.pp.project_velocity(adata, vkey="velocity_S")
    assert np.array_equal(adata.obsm["velocity_S_projected"], adata.obsm["by_varm"])


def test_auto_finds_velocities_and_says_what_it_chose(cells, quick, caplog):
    with pytest.raises(KeyError, match="no velocities were found for 'X_pca'"):
        wlm.tl.fit(cells, "day", velocity_key="auto", **quick)
    cells.layers["velocity"] = cells.layers["true_velocity"]
    wlm.tl.fit(cells, "day", velocity_key="auto", **quick)
    assert "velocities are layers['velocity']" in caplog.text
    assert cells.uns["wlm"]["params"]["velocity_key"] == "velocity"
    wlm.pp.project_velocity(cells)
    wlm.tl.fit(cells, "day", velocity_key="auto", key_added="again", **quick)
    assert "velocities are obsm['velocity_projected']" in caplog.text
    assert np.array_equal(cells.obsm["again_velocity"], cells.obsm["wlm_velocity"])
    cells.obsm["X_umap"] = cells.obsm["X_pca"][:, :2]
    cells.obsm["velocity_umap"] = cells.obsm["X_pca"][:, :2]
    with pytest.raises(KeyError, match=r"velocity_umap.* may be directions for plotting"):
        wlm.tl.fit(cells, "day", use_rep="X_umap", velocity_key="auto", **quick)


@pytest.mark.slow
def test_scale_is_calibrated_stored_and_reported(quick):
    adata = wlm.datasets.bifurcation(300, noise=False, rng=0)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=5)
    adata.layers["velocity"] = adata.layers["true_velocity"] / 24  # per hour
    wlm.tl.fit(adata, "day", velocity_key="velocity", holdout=2, **quick)
    note = adata.uns["wlm"]["velocity"]
    assert note["scale"] == pytest.approx(24, rel=0.1) and note["calibrated"]
    assert note["times"].tolist() == [0, 1, 3, 4] and (note["agreement"][1:] > 0.6).all()
    agreement = adata.obs["wlm_velocity_agreement"]
    assert agreement[adata.obs["day"] == 2].isna().all() and agreement[adata.obs["day"] == 3].median() > 0.7
    expected = wlm.pp.project_velocity(adata, copy=True).obsm["velocity_projected"] * note["scale"]
    assert np.allclose(adata.obsm["wlm_velocity"], expected, rtol=1e-5, atol=1e-5)
    # An obsm key is a speed already, and a fit without velocities leaves nothing of this behind.
    adata.obsm["v"] = expected
    wlm.tl.fit(adata, "day", velocity_key="v", **quick)
    assert adata.uns["wlm"]["velocity"]["scale"] == 1 and not adata.uns["wlm"]["velocity"]["calibrated"]
    wlm.tl.fit(adata, "day", velocity_key="v", velocity_scale="calibrate", **quick)
    assert adata.uns["wlm"]["velocity"]["scale"] == pytest.approx(1, rel=0.1)
    wlm.tl.fit(adata, "day", **quick)
    assert "velocity" not in adata.uns["wlm"] and "wlm_velocity_agreement" not in adata.obs


def test_evaluation_calibrates_every_fit_on_its_training_times(cells, quick):
    cells.layers["velocity"] = cells.layers["true_velocity"]
    options = {k: v for k, v in quick.items() if k != "show_progress"}
    common = {"metrics": ("w1",), "baselines": False, **options}
    table = wlm.tl.evaluate(cells, "day", velocity_key="velocity", holdout=3, **common)
    adata = wlm.tl.fit(cells, "day", velocity_key="velocity", holdout=3, copy=True, **quick)
    predicted = wlm.tl.predict(adata, 3, rng=0).obsm["X_pca"]
    from wlm.core.metrics import w1

    assert table["w1"].item() == pytest.approx(w1(predicted, cells.obsm["X_pca"][cells.obs["day"] == 3]), rel=1e-5)


def test_velocities_that_point_backwards_are_refused(cells, quick, caplog):
    cells.layers["velocity"] = -cells.layers["true_velocity"]
    before = set(cells.uns)
    with pytest.raises(ValueError, match="point against the observed drift"):
        wlm.tl.fit(cells, "day", velocity_key="velocity", **quick)
    assert set(cells.uns) == before
    wlm.tl.fit(cells, "day", velocity_key="velocity", velocity_scale=0.5, **quick)
    assert "hardly agree" in caplog.text and cells.uns["wlm"]["velocity"]["scale"] == 0.5


@pytest.mark.parametrize("scale", ["fit", 0, -1.0, np.nan, True])
def test_a_scale_that_is_none_is_refused(cells, quick, scale):
    cells.obsm["v"] = cells.obsm["X_pca"]
    with pytest.raises(ValueError, match="velocity_scale must be a positive number"):
        wlm.tl.fit(cells, "day", velocity_key="v", velocity_scale=scale, **quick)
    with pytest.raises(ValueError, match="velocity_scale needs velocity_key"):
        wlm.tl.fit(cells, "day", velocity_scale=1.0, **quick)


def test_a_constant_zero_velocity_cannot_be_calibrated(cells, quick):
    cells.layers["velocity"] = np.zeros(cells.shape)
    with pytest.raises(ValueError, match="cannot be calibrated"):
        wlm.tl.fit(cells, "day", velocity_key="velocity", **quick)


def broken(how):
    adata, _ = simulated(False, n=20)
    adata.layers["velocity"] = adata.layers["true_velocity"]
    call = {}
    if how == "no layer":
        del adata.layers["velocity"]
    elif how == "no loadings":
        del adata.varm["PCs"]
    elif how == "other representation":
        call["use_rep"] = "X_umap"
    elif how == "all NaN":
        adata.layers["velocity"] = np.full(adata.shape, np.nan)
    elif how == "no velocity genes":
        adata.var["velocity_genes"] = False
    return adata, call


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("no layer", KeyError, r"layers\['velocity'\] is missing.*run wlm.pp.velocity"),
        ("no loadings", KeyError, r"varm\['PCs'\] is missing.*run sc.pp.pca"),
        ("other representation", ValueError, "projected on 'X_pca' or 'pca' only"),
        ("all NaN", ValueError, "no gene with a velocity"),
        ("no velocity genes", ValueError, "no gene with a velocity"),
    ],
)
def test_what_cannot_be_projected_is_refused(how, error, message):
    adata, call = broken(how)
    before = set(adata.obsm)
    with pytest.raises(error, match=message):
        wlm.pp.project_velocity(adata, **call)
    assert set(adata.obsm) == before


def test_a_missing_scvelo_is_said_so(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "scvelo", None)
    with pytest.raises(ImportError, match=r"pip install 'wlm\[velocity\]'.*pass method='steady_state'"):
        wlm.pp.velocity(wlm.datasets.bifurcation(10), method="scvelo")
    for needs in ({"mode": "dynamical"}, {"pseudotime": True}):
        with pytest.raises(ImportError, match="needs it"):
            wlm.pp.velocity(wlm.datasets.bifurcation(10), **needs)
        with pytest.raises(ValueError, match="needs scVelo; pass method='scvelo'"):
            wlm.pp.velocity(wlm.datasets.bifurcation(10), method="steady_state", **needs)
    adata = wlm.datasets.bifurcation(40, rng=0)
    wlm.pp.velocity(adata)
    assert "wlm's own steady-state estimate, since scVelo cannot be used" in caplog.text
    assert np.isfinite(adata.obsm["velocity_projected"]).all()


@pytest.mark.parametrize(("package", "version"), [("numpy", "2.4.0"), ("numpy", "2.5.1"), ("pandas", "3.0.0rc1")])
def test_versions_that_scvelo_cannot_run_with_are_avoided(monkeypatch, caplog, package, version):
    monkeypatch.setattr(sys.modules[package], "__version__", version)
    adata = wlm.datasets.bifurcation(30, rng=0)
    wlm.pp.velocity(adata)
    assert "scVelo cannot be used: it does not work with" in caplog.text and f"{package} {version}" in caplog.text
    assert adata.uns["velocity_params"]["method"] == "steady_state"


@pytest.fixture
def broken_scvelo(monkeypatch):
    import scvelo as scv

    def fail(*args, **kwargs):
        raise TypeError("only 0-dimensional arrays can be converted")

    monkeypatch.setattr(scv.tl, "velocity", fail)


@pytest.mark.scvelo
@pytest.mark.parametrize(
    ("version", "error", "message"),
    [
        (np.__version__, ValueError, "scVelo .* failed on these counts: TypeError: only 0-dim.*method='steady_state'"),
        ("2.4.1", ImportError, "scVelo .* does not work with numpy 2.4.1: .*pip install 'numpy<2.4' 'pandas<3'"),
    ],
)
def test_a_broken_scvelo_is_said_so_and_nothing_changes(broken_scvelo, monkeypatch, version, error, message):
    adata = wlm.datasets.bifurcation(40)
    layers, x = set(adata.layers), adata.X.copy()
    monkeypatch.setattr(np, "__version__", version)
    with pytest.raises(error, match=message):
        wlm.pp.velocity(adata, method="scvelo")
    assert set(adata.layers) == layers and (adata.X != x).nnz == 0


@pytest.mark.scvelo
def test_auto_goes_on_where_scvelo_breaks(broken_scvelo, caplog):
    adata = wlm.datasets.bifurcation(40)
    wlm.pp.velocity(adata)
    assert "only 0-dimensional" in caplog.text and "wlm's own estimate" in caplog.text
    assert adata.uns["velocity_params"]["method"] == "steady_state"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda a: a.layers.pop("unspliced"), KeyError, r"layers \['unspliced'\] are missing"),
        (lambda a: a.layers["spliced"].data.__isub__(5), ValueError, "negative or missing"),
    ],
)
def test_what_is_not_counts_is_refused(change, error, message):
    adata = wlm.datasets.bifurcation(20)
    change(adata)
    with pytest.raises(error, match=message):
        wlm.pp.velocity(adata)
    with pytest.raises(ValueError, match="mode must be one of"):
        wlm.pp.velocity(wlm.datasets.bifurcation(20), mode="fast")


def test_components_that_are_there_are_kept():
    adata, _ = simulated(True, n=60)
    x, scores = adata.X.copy(), adata.obsm["X_pca"].copy()
    wlm.pp.velocity(adata)
    assert np.array_equal(adata.obsm["X_pca"], scores) and (adata.X != x).nnz == 0
    assert adata.n_vars == 150 and "velocity_projected" in adata.obsm


@pytest.mark.shared
def test_raw_dentate_gyrus_goes_to_a_fit_in_three_calls(real_data, quick):
    adata = ad.read_h5ad(real_data / "dentate_50_raw.h5ad")
    wlm.pp.velocity(adata, n_neighbors=10)
    assert np.isfinite(adata.obsm["velocity_projected"]).all()
    adata.obs["order"] = pd.Series(adata.obsm["X_pca"][:, 0], index=adata.obs_names).rank()
    wlm.pp.bin_time(adata, key="order", n_bins=3)
    assert adata.obs["order_bin"].value_counts().tolist() == [17, 17, 16]
    wlm.tl.fit(adata, "order_bin", velocity_key="auto", velocity_scale=1.0, n_dims=5, **quick)
    assert np.isfinite(adata.obsm["wlm_velocity"]).all()
