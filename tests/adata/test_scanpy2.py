"""The names of scanpy 2, ``obsm["pca"]`` and ``varm["pca"]``: the same numbers as under those of scanpy 1."""

import numpy as np
import pytest
import scanpy as sc

import wlm
from wlm.pp import _checks, _doctor


def renamed(adata):
    """The object as scanpy 2 would have written its components."""
    adata = adata.copy()
    adata.obsm["pca"], adata.varm["pca"] = adata.obsm.pop("X_pca"), adata.varm.pop("PCs")
    return adata


@pytest.fixture
def counted():
    """Spliced and unspliced counts, without components."""
    adata = wlm.datasets.bifurcation(30, n_genes=40, rng=3)
    adata.layers["unspliced"] = adata.layers["spliced"].copy()
    adata.layers["unspliced"].data = np.random.default_rng(0).poisson(0.4 * adata.layers["spliced"].data) + 0.0
    return adata


def test_scanpy_writes_such_components_on_demand(cells):
    """What ``renamed`` makes is what scanpy 1 writes under this key, up to its record of the parameters."""
    wanted = renamed(cells)
    sc.pp.pca(cells, n_comps=5, key_added="pca")
    assert np.allclose(cells.obsm["pca"], wanted.obsm["pca"]) and np.allclose(cells.varm["pca"], wanted.varm["pca"])


@pytest.mark.slow
def test_fit_predict_decode_and_draw(cells, quick):
    other = renamed(cells)
    for adata in (cells, other):
        wlm.tl.fit(adata, "day", holdout=2, **quick)
    first, second = (wlm.tl.predict(adata, 2, genes=True) for adata in (cells, other))
    assert np.array_equal(first.X, second.X) and second.uns["wlm_prediction"]["decoding"] == "pca, X"
    assert np.array_equal(first.obsm["X_pca"], second.obsm["pca"])
    assert cells.var["wlm_decode_r2"].equals(other.var["wlm_decode_r2"])
    drawn = [wlm.pl.genes(adata, "gene003", return_fig=True).axes[0].lines[0].get_ydata() for adata in (cells, other)]
    assert np.array_equal(*drawn)


@pytest.mark.parametrize("key", [None, "pca"])
def test_velocities_of_genes_are_projected(cells, key):
    other = renamed(cells)
    wlm.pp.project_velocity(cells, vkey="true_velocity")
    wlm.pp.project_velocity(other, vkey="true_velocity", use_rep=key)
    name = "true_velocity_projected"
    assert np.array_equal(cells.obsm[name], other.obsm[name]) and other.uns[name]["use_rep"] == "pca"


@pytest.mark.parametrize("auto", [True, False])
def test_a_fit_finds_velocities_and_projects_layers(cells, quick, auto):
    cells.layers["velocity"] = cells.layers["true_velocity"]
    other = renamed(cells)
    for adata in (cells, other):
        wlm.tl.fit(adata, "day", velocity_key="auto" if auto else "velocity", **quick)
    assert np.array_equal(cells.obsm["wlm_velocity"], other.obsm["wlm_velocity"])
    assert cells.uns["wlm"]["velocity"]["scale"] == other.uns["wlm"]["velocity"]["scale"]


def test_components_that_were_computed_again_are_noticed(cells, quick):
    other = renamed(cells)
    wlm.pp.project_velocity(other, vkey="true_velocity")
    other.var["some"] = np.arange(other.n_vars) % 2 == 0
    sc.pp.pca(other, n_comps=5, mask_var="some", key_added="pca")
    with pytest.raises(ValueError, match=r"other components than those in obsm\['pca'\]"):
        wlm.tl.fit(other, "day", velocity_key="true_velocity_projected", **quick)


@pytest.mark.slow
@pytest.mark.parametrize("there", [True, False])
def test_pp_velocity_takes_such_components_and_makes_them(counted, there, monkeypatch):
    """Where scanpy writes components under its new names, they are found there; else those that are there are kept."""
    first, second = counted.copy(), counted.copy()
    if there:
        for adata in (first, second):
            sc.pp.normalize_total(adata)
            sc.pp.log1p(adata)
            sc.pp.pca(adata, n_comps=5)
        second = renamed(second)
    wlm.pp.velocity(first, method="steady_state", n_comps=5)
    pca = sc.pp.pca
    monkeypatch.setattr(sc.pp, "pca", lambda adata, **options: pca(adata, key_added="pca", **options))
    wlm.pp.velocity(second, method="steady_state", n_comps=5)
    assert "X_pca" not in second.obsm and "PCs" not in second.varm
    assert np.array_equal(first.obsm["velocity_projected"], second.obsm["velocity_projected"])
    assert np.array_equal(first.varm["PCs"], second.varm["pca"])


@pytest.mark.scvelo
def test_scvelo_works_beside_such_components(counted):
    sc.pp.normalize_total(counted)
    sc.pp.log1p(counted)
    sc.pp.pca(counted, n_comps=5)
    other = renamed(counted)
    for adata in (counted, other):
        wlm.pp.velocity(adata, method="scvelo", pseudotime=True)
    assert np.allclose(counted.obsm["velocity_projected"], other.obsm["velocity_projected"])
    # Its eigenvectors start at random.
    assert np.allclose(counted.obs["velocity_pseudotime"], other.obs["velocity_pseudotime"], atol=1e-3)
    assert other.uns["neighbors"]["params"]["use_rep"] == "pca" and "X_pca" not in other.obsm


def test_doctor_says_the_same(cells, monkeypatch):
    monkeypatch.setattr(_doctor, "check_run_time", lambda *_: _checks.Finding("ok", "a second"))
    cells.layers["velocity"] = cells.layers["true_velocity"]
    first, second = (wlm.pp.doctor(adata, velocity_key="velocity") for adata in (cells, renamed(cells)))
    assert first["level"].equals(second["level"]) and first.attrs == second.attrs
    found = second.set_index("check").loc["loadings", "found"]
    assert found == "varm['pca'] and X give obsm['pca']"
    other = renamed(cells)
    del other.varm["pca"]
    with pytest.raises(KeyError, match=r"varm\['pca'\] is missing"):
        wlm.tl.fit(other, "day", velocity_key="velocity", n_steps=1)
    levels = wlm.pp.doctor(other, velocity_key="velocity").set_index("check")["level"]
    assert levels["loadings"] == levels["velocity"] == "error"


@pytest.mark.slow
def test_both_names_are_two_representations(cells, quick):
    """Each has its own loadings; the default is the old name."""
    cells.obsm["pca"], cells.varm["pca"] = -cells.obsm["X_pca"], -cells.varm["PCs"]
    wlm.tl.fit(cells, "day", **quick)
    wlm.tl.fit(cells, "day", use_rep="pca", key_added="other", **quick)
    assert cells.uns["wlm"]["representation"]["key"] == "X_pca"
    first, second = (wlm.tl.predict(cells, 4, key=key, genes=True).X for key in ("wlm", "other"))
    observed = cells[cells.obs["day"] == 4].X.toarray().mean(axis=0)
    for decoded in (first, second):
        assert np.corrcoef(decoded.mean(axis=0), observed)[0, 1] > 0.8
