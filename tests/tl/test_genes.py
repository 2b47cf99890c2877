"""Decoding to genes: the receipt against truth and scikit-learn, decoders of the user, and refusals."""

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy.sparse import csc_matrix, csr_matrix
from sklearn.decomposition import PCA
from sklearn.metrics import r2_score

import wlm
from wlm._adata import genes as _genes
from wlm._adata.genes import decode, make_receipt


@pytest.fixture
def low_rank():
    """Three latent factors that drift over three days, 30 genes, no noise; the last gene does not vary."""
    rng = np.random.default_rng(0)
    day = np.repeat([0.0, 1.0, 2.0], 40)
    factors = rng.normal(size=(120, 3)) + day[:, None]
    x = factors @ rng.normal(size=(3, 30)) + rng.uniform(5, 10, 30)
    x[:, -1] = 0.1
    names = [f"cell{i}" for i in range(120)]
    adata = ad.AnnData(x.astype(np.float32), obs=pd.DataFrame({"day": day}, index=names))
    sc.pp.pca(adata, n_comps=3)
    return adata


@pytest.fixture
def few(quick):
    """Options of a fit of five steps."""
    return {**quick, "n_steps": 5}


def test_noiseless_genes_of_low_rank_are_decoded(low_rank, few):
    wlm.tl.fit(low_rank, "day", **few)
    r2 = low_rank.var["wlm_decode_r2"]
    assert r2.dtype == np.float32 and (r2[:-1] >= 0.9).all() and np.isnan(r2.iloc[-1])
    # Cells that have hardly left still express what they expressed as they started.
    soon = wlm.tl.predict(low_rank, 1 + 1e-6, genes=True)
    true = low_rank[soon.obs["origin"]].X
    assert r2_score(true[:, :-1], soon.X[:, :-1], multioutput="raw_values").min() >= 0.9
    assert np.allclose(soon.X[:, -1], 0.1, atol=1e-5)


def test_r2_is_that_of_an_independent_pca_with_the_fitted_components(cells, few):
    wlm.tl.fit(cells, "day", n_dims=3, **few)
    x = cells.X.toarray().astype(np.float64)
    pca = PCA(n_components=3, svd_solver="full").fit(x)
    expected = r2_score(x, pca.inverse_transform(pca.transform(x)), multioutput="raw_values")
    assert np.allclose(cells.var["wlm_decode_r2"], expected, atol=1e-3)
    assert np.allclose(cells.uns["wlm"]["representation"]["mean"], pca.mean_, atol=1e-4)


def test_storage_and_chunks_do_not_matter(cells, monkeypatch):
    whole, dense = make_receipt(cells, "X_pca", 5), cells.X.toarray()
    for chunk, form in ((2**23, np.asarray), (70, csr_matrix), (1, csc_matrix)):
        monkeypatch.setattr(_genes, "_CHUNK", chunk)
        cells.X = form(dense)
        part = make_receipt(cells, "X_pca", 5)
        assert np.allclose(part.r2, whole.r2, atol=1e-5) and np.allclose(part.mean, whole.mean, atol=1e-5)


def test_genes_without_loadings_are_marked_and_get_their_mean(cells, few):
    cells.var["chosen"] = np.arange(cells.n_vars) % 3 == 0
    sc.pp.pca(cells, n_comps=5, mask_var="chosen")
    wlm.tl.fit(cells, "day", **few)
    out = wlm.tl.predict(cells, 2.5, genes=True)
    for var in (cells.var, out.var):
        assert np.array_equal(var["wlm_decode_r2"].notna(), cells.var["chosen"])
    rest = ~cells.var["chosen"].to_numpy()
    assert np.allclose(out.X[:, rest], cells.X.toarray()[:, rest].mean(axis=0), atol=1e-4)
    assert (out.X[:, ~rest].std(axis=0) > 1e-3).all()


def test_the_layer_is_found_and_the_receipt_survives_a_file_and_a_new_var(cells, few, tmp_path):
    cells.layers["logged"] = cells.X.copy()
    cells.X = cells.layers["spliced"].copy()
    sc.pp.pca(cells, n_comps=5, layer="logged")
    wlm.tl.fit(cells, "day", **few)
    assert cells.uns["wlm"]["representation"]["layer"] == "logged"
    cells.write_h5ad(tmp_path / "fit.h5ad")
    back = ad.read_h5ad(tmp_path / "fit.h5ad")
    pd.testing.assert_series_equal(back.var["wlm_decode_r2"], cells.var["wlm_decode_r2"])
    # Annotation that replaces var, other genes and an X that is gone: the fit keeps its own receipt.
    back.layers.clear()
    part = back[:, ::-2].copy()
    part.var = part.var[["program"]]
    out = wlm.tl.predict(part, 2.5, genes=True)
    assert out.uns["wlm_prediction"]["decoding"] == "pca, layer logged"
    assert np.array_equal(out.var["wlm_decode_r2"], cells.var["wlm_decode_r2"].iloc[::-2])
    assert np.allclose(out.X, wlm.tl.predict(cells, 2.5, genes=True).X[:, ::-2], atol=1e-5)


def test_another_fit_under_the_key_takes_the_old_receipt_away(fitted, few):
    assert "wlm_decode_r2" in fitted.var
    fitted.obsm["X_scVI"] = fitted.obsm["X_pca"].copy()
    wlm.tl.fit(fitted, "day", use_rep="X_scVI", **few)
    assert "wlm_decode_r2" not in fitted.var and "layer" not in fitted.uns["wlm"]["representation"]


def test_a_view_gets_its_own_receipt(cells, few):
    view = cells[cells.obs["day"] < 3]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata says that the view becomes a copy
        wlm.tl.fit(view, "day", **few)
    x = cells.X.toarray()[cells.obs["day"] < 3]
    decoded = decode(view.obsm["X_pca"], cells.varm["PCs"], view.uns["wlm"]["representation"]["mean"])
    expected = r2_score(x, decoded, multioutput="raw_values")
    assert np.allclose(view.var["wlm_decode_r2"], expected, atol=1e-4) and "wlm_decode_r2" not in cells.var


def test_a_backed_fit_has_no_receipt_until_it_is_in_memory(cells, few, tmp_path):
    expected = make_receipt(cells, "X_pca", 5).r2
    cells.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r+")
    wlm.tl.fit(backed, "day", **few)
    assert "wlm_decode_r2" not in backed.var
    loaded = backed.to_memory()
    backed.file.close()
    assert np.allclose(wlm.tl.predict(loaded, 2.5, genes=True).var["wlm_decode_r2"], expected)


def test_other_representations_fit_and_are_decoded_by_a_function(cells, few):
    cells.obsm["X_scVI"] = cells.obsm["X_pca"][:, :3] * 2
    wlm.tl.fit(cells, "day", use_rep="X_scVI", **few)
    with pytest.raises(ValueError, match=r"obsm\['X_scVI'\] can only be decoded to genes with a decoder.*function"):
        wlm.tl.predict(cells, 2.5, genes=True)
    seen = []

    def linear(positions):
        seen.append((positions.shape, positions.dtype))
        decoded = positions @ np.ones((3, cells.n_vars))
        positions[:] = 0  # what a decoder does to its argument is its own business
        return decoded

    out = wlm.tl.predict(cells, [2.5, 5], genes=linear)
    assert seen == [((120, 3), np.float32)] and out.var_names.equals(cells.var_names)
    assert np.allclose(out.X, out.obsm["X_scVI"].sum(axis=1, keepdims=True), atol=1e-3) and out.X.std() > 0
    assert out.uns["wlm_prediction"]["decoding"] == "callable" and out.X.dtype == np.float32


def test_decoders_name_their_genes(fitted):
    known = list(fitted.var_names[[4, 2]])
    first = wlm.tl.predict(fitted, 2.5, genes=lambda x: pd.DataFrame(x[:, :2], columns=known))
    assert list(first.var_names) == known and np.array_equal(first.X, first.obsm["X_pca"][:, :2])
    assert first.var["program"].equals(fitted.var.loc[known, "program"]) and "wlm_decode_r2" not in first.var
    other = wlm.tl.predict(fitted, 2.5, genes=lambda x: pd.DataFrame(x[:, :2], columns=["GATA1", known[0]]))
    assert list(other.var_names) == ["GATA1", known[0]] and other.var.empty


@pytest.mark.parametrize(
    ("decoder", "error", "message"),
    [
        ("GATA1", KeyError, "not in var_names: .GATA1."),
        (7, TypeError, "genes must be True, False, names of genes, or a function"),
        (lambda x: x[:-1], ValueError, r"found shape \(59, 5\) for n = 60"),
        (lambda x: x[:, 0], ValueError, r"found shape \(60,\)"),
        (lambda x: x, ValueError, "5 columns without names, while n_vars = 40"),
        (lambda x: pd.DataFrame(x[:, :2], columns=["a", "a"]), ValueError, "the name 'a' more than once"),
        (lambda x: pd.DataFrame(x[:9], columns=list("abcde")), ValueError, r"found shape \(9, 5\)"),
        (lambda x: np.full((60, 40), np.nan), ValueError, "NaN or infinite values in 60 of 60 cells"),
        (lambda x: pd.DataFrame({"a": ["much"] * 60}), TypeError, "found DataFrame, which is no array of numbers"),
        (lambda x: csr_matrix(np.ones((60, 40))), TypeError, "found csr_matrix"),
        (lambda x: None, ValueError, r"the decoder must return.*found shape \(\)"),
    ],
)
def test_decoders_that_return_something_else(fitted, decoder, error, message):
    with pytest.raises(error, match=message):
        wlm.tl.predict(fitted, 2.5, genes=decoder)


def test_impossible_decoding_is_refused_before_the_simulation(fitted, monkeypatch):
    def simulated(*args, **kwargs):
        raise AssertionError("cells were moved")

    monkeypatch.setattr(wlm.core.dynamics.Dynamics, "simulate", simulated)
    del fitted.varm["PCs"]
    with pytest.raises(KeyError, match="PCs"):
        wlm.tl.predict(fitted, 2.5, genes=True)
