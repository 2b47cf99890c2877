"""Objects on disk: what is read of them, that X never is, and that the numbers are those of memory."""

import anndata as ad
import dask.array as da
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import zarr
from anndata._core.file_backing import AnnDataFileManager
from anndata.experimental import read_lazy
from scipy.sparse import csr_matrix

import wlm
from wlm._adata.columns import is_lazy

FIELDS = ("velocity", "force", "next")


def refuse(block):
    raise AssertionError("X was read")


def unreadable(adata):
    """A dask array of the shape of X that raises when it is computed."""
    return da.zeros(adata.shape, chunks=(50, adata.n_vars)).map_blocks(refuse, dtype=np.float64, meta=np.zeros((0, 0)))


def on_disk(adata, kind, folder):
    """The cells as users of large data hold them, with an X (and a layer) that cannot be read."""
    if kind == "zarr arrays":
        adata.write_zarr(folder / "cells.zarr")
        store = zarr.open(folder / "cells.zarr", mode="r")
        rep = da.from_zarr(store["obsm/X_pca"])
        return ad.AnnData(unreadable(adata), obs=adata.obs, var=adata.var, obsm={"X_pca": rep}, varm=dict(adata.varm))
    if kind == "backed":
        adata.write_h5ad(folder / "cells.h5ad")
        return ad.read_h5ad(folder / "cells.h5ad", backed="r")
    name = "cells.h5ad" if kind == "lazy h5ad" else "cells.zarr"
    adata.write_h5ad(folder / name) if kind == "lazy h5ad" else adata.write_zarr(folder / name)
    lazy = read_lazy(folder / name)
    lazy.X = unreadable(adata)
    lazy.layers["spliced"] = unreadable(adata)
    return lazy


KINDS = ["backed", "lazy h5ad", "lazy zarr", "zarr arrays"]


@pytest.fixture(scope="module")
def _labelled(_bifurcation):
    cells = _bifurcation.copy()
    cells.obs["when"] = pd.Categorical([f"day {t:g}" for t in cells.obs["day"]])
    cells.obs["treatment"] = pd.Categorical(np.where(np.arange(cells.n_obs) % 2, "drug", "none"))
    cells.obs["w"] = np.linspace(1, 3, cells.n_obs)
    cells.obsm["v"] = np.random.default_rng(0).normal(size=(cells.n_obs, 5))
    return cells


@pytest.fixture
def labelled(_labelled):
    """Cells with times and conditions as text, and weights; a fresh copy."""
    return _labelled.copy()


@pytest.fixture(params=KINDS)
def lazy(request, labelled, tmp_path, monkeypatch):
    adata = on_disk(labelled, request.param, tmp_path)
    if "v" not in adata.obsm:
        adata.obsm["v"] = da.from_array(labelled.obsm["v"])
    if request.param != "backed":  # of obsm, only what is named may be read
        adata.obsm["latent"] = unreadable(labelled)
    if request.param == "backed":
        get = AnnDataFileManager.__getitem__
        monkeypatch.setattr(AnnDataFileManager, "__getitem__", lambda f, k: refuse(None) if k == "X" else get(f, k))
    return adata


def same_fields(a, b, key="wlm"):
    column = wlm._adata.columns.read_column(a, f"{key}_potential")
    assert np.array_equal(column, b.obs[f"{key}_potential"])
    assert all(np.array_equal(a.obsm[f"{key}_{n}"], b.obsm[f"{key}_{n}"], equal_nan=True) for n in FIELDS)


@pytest.fixture(scope="module")
def in_memory(_labelled, quick):
    """Arguments of a fit and of an evaluation, and what they give in memory."""
    arguments = {"holdout": "day 2", "velocity_key": "v", "weight_key": "w", **quick}
    options = {k: v for k, v in arguments.items() if k != "show_progress"} | {"metrics": ("w1",)}
    memory = without_x(_labelled)
    table = wlm.tl.evaluate(memory, "when", **options)
    return arguments, options, table, wlm.tl.fit(memory, "when", copy=True, **arguments)


@pytest.mark.slow
def test_the_fit_is_that_of_memory_and_x_is_not_read(lazy, in_memory):
    arguments, options, expected_table, memory = in_memory
    wlm.tl.fit(lazy, "when", **arguments)
    predicted = wlm.tl.predict(lazy, ["day 2", "day 5"])
    wlm.tl.diagnose(lazy)
    figure = wlm.pl.rollout(lazy, return_fig=True)
    plt.close(figure)
    pd.testing.assert_frame_equal(wlm.tl.evaluate(lazy, "when", **options), expected_table)
    same_fields(lazy, memory)
    expected = wlm.tl.predict(memory, [2, 5])
    assert np.array_equal(predicted.obsm["X_pca"], expected.obsm["X_pca"]) and predicted.obs.equals(expected.obs)
    with pytest.raises(ValueError, match="to_memory"):
        wlm.tl.predict(lazy, 3, genes=True)


def without_x(adata):
    """The cells without genes: the same fit is possible."""
    return ad.AnnData(obs=adata.obs, obsm=dict(adata.obsm))


@pytest.fixture(scope="module")
def conditions_in_memory(_labelled, quick):
    return wlm.tl.fit(without_x(_labelled), "when", condition_key="treatment", copy=True, **quick)


@pytest.mark.slow
def test_conditions_on_disk(lazy, conditions_in_memory, quick):
    memory = conditions_in_memory
    wlm.tl.fit(lazy, "when", condition_key="treatment", **quick)
    same_fields(lazy, memory)
    for key in ("wlm", "wlm_drug"):
        a, b = wlm.tl.predict(lazy, 2.5, key=key), wlm.tl.predict(memory, 2.5, key=key)
        assert np.array_equal(a.obsm["X_pca"], b.obsm["X_pca"])


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_lazy_results_are_kept_and_read_again(labelled, suffix, quick, tmp_path):
    lazy = on_disk(labelled, f"lazy {suffix}", tmp_path)
    out = wlm.tl.fit(lazy, "when", copy=True, **quick)
    assert "wlm" not in lazy.uns and "wlm_potential" not in lazy.obs
    wlm.tl.fit(lazy, "when", **quick)
    lazy.X = labelled.X
    lazy.layers["spliced"] = labelled.layers["spliced"]
    written = lazy.to_memory()
    assert np.array_equal(written.obs["wlm_potential"], wlm._adata.columns.read_column(out, "wlm_potential"))
    assert np.array_equal(written.obsm["wlm_velocity"], out.obsm["wlm_velocity"])
    expected = wlm.tl.predict(lazy, 2.5).obsm["X_pca"]
    assert np.array_equal(wlm.tl.predict(out, 2.5).obsm["X_pca"], expected)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_a_fit_on_disk_predicts_lazily(fitted, suffix, tmp_path):
    path = tmp_path / f"fitted.{suffix}"
    fitted.write_h5ad(path) if suffix == "h5ad" else fitted.write_zarr(path)
    lazy = read_lazy(path)
    lazy.X = unreadable(fitted)
    expected = wlm.tl.predict(fitted, 2, genes=True)
    # The mean of PCA was stored with the fit, so that genes are decoded without X.
    found = wlm.tl.predict(lazy, 2, genes=True)
    assert np.array_equal(found.obsm["X_pca"], expected.obsm["X_pca"]) and np.array_equal(found.X, expected.X)
    figures = [plot(lazy, return_fig=True) for plot in (wlm.pl.rollout, wlm.pl.training, wlm.pl.friction)]
    assert len(figures) == 3
    plt.close("all")


@pytest.mark.slow
def test_views_of_lazy_objects(labelled, quick, tmp_path):
    lazy = on_disk(labelled, "lazy zarr", tmp_path)
    early = labelled.obs["day"].to_numpy() < 3
    view, memory = lazy[early], without_x(labelled)[early].copy()
    wlm.tl.fit(view, "when", **quick)
    wlm.tl.fit(memory, "when", **quick)
    same_fields(view, memory)
    assert "wlm" not in lazy.uns and "wlm_potential" not in lazy.obs


def test_lazy_velocities_of_genes_are_projected_in_parts(cells, quick, tmp_path):
    cells.layers["velocity"] = csr_matrix(cells.layers["true_velocity"])
    expected = wlm.tl.fit(cells, "day", velocity_key="velocity", copy=True, **quick)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    lazy = read_lazy(tmp_path / "cells.h5ad")  # with its X, which the derivative of the logarithm needs
    wlm.tl.fit(lazy, "day", velocity_key="velocity", **quick)
    same_fields(lazy, expected)


def test_a_missing_column_of_a_lazy_object(lazy, quick):
    with pytest.raises(KeyError, match=r"obs\['age'\] is missing; obs has"):
        wlm.tl.fit(lazy, "age", **quick)
    assert "wlm" not in lazy.uns


@pytest.mark.parametrize("x", [None, np.zeros((3, 2)), csr_matrix((3, 2))], ids=["none", "dense", "sparse"])
def test_what_is_in_memory_is_not_lazy(x):
    adata = ad.AnnData(x, obs=pd.DataFrame(index=list("abc")))
    assert not is_lazy(adata) and not is_lazy(adata[:2])
    if x is not None:
        adata.layers["a"] = da.from_array(np.zeros((3, 2)))
        assert is_lazy(adata) and is_lazy(adata[:2])
