"""What predicted cells get from observed ones: labels, coordinates, genes by name, and a place in the same object."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import wlm
from wlm._adata import neighbours
from wlm._adata.labels import Style
from wlm._adata.neighbours import from_neighbours
from wlm._adata.times import write_times
from wlm._store.fit import open_fit
from wlm.core.transport import nearest
from wlm.pl._basis import embedding


@pytest.fixture
def mapped(fitted):
    """With a map that is a function of the components, and a type with an order of its own."""
    x = fitted.obsm["X_pca"]
    fitted.obsm["X_umap"] = np.stack([x[:, 0] + x[:, 1], x[:, 0] - 2], axis=1)
    late = np.where(x[:, 0] < np.median(x[:, 0]), "early", "late")
    fitted.obs["type"] = pd.Categorical(late, categories=["late", "early", "never"])
    return fitted


def test_labels_and_numbers_are_those_of_neighbours(mapped):
    out = wlm.tl.predict(mapped, [1.5, 2], labels=["type", "latent_time"], basis="umap")
    known = (mapped.obs["day"] != 2).to_numpy()  # day 2 was held out
    x, y = mapped.obsm["X_pca"], out.obsm["X_pca"]
    expected = from_neighbours(x[known], mapped.obs["type"].astype(str).to_numpy()[known], y)
    assert np.array_equal(out.obs["type"].astype(str), expected)
    assert list(out.obs["type"].cat.categories) == ["late", "early", "never"]
    numbers = from_neighbours(x[known], mapped.obs["latent_time"].to_numpy()[known], y)
    assert np.allclose(out.obs["latent_time"], numbers)
    # A linear map is carried out.
    own = np.stack([y[:, 0] + y[:, 1], y[:, 0] - 2], axis=1)
    assert np.allclose(out.obsm["X_umap"], own, atol=1e-2)
    plain = wlm.tl.predict(mapped, [1.5, 2])
    assert np.array_equal(plain.obsm["X_pca"], y) and "type" not in plain.obs


def test_a_predicted_cell_lands_on_an_island_and_not_between_them(mapped):
    # Two islands far apart, which the components do not show: neighbours of a cell are on both.
    island = np.arange(mapped.n_obs) % 2
    own = np.random.default_rng(0).normal(size=(mapped.n_obs, 2))
    mapped.obsm["X_umap"] = np.stack([100.0 * island, np.zeros(mapped.n_obs)], axis=1) + own
    out = wlm.tl.predict(mapped, [1.5, 2], basis="umap")
    places = out.obsm["X_umap"]
    known = (mapped.obs["day"] != 2).to_numpy()
    seen = mapped.obsm["X_umap"][known]
    far = np.linalg.norm(mapped.obsm["X_pca"][known][None] - out.obsm["X_pca"][:, None], axis=2)
    assert np.allclose(places, seen[far.argmin(1)], atol=1e-4), "the place of the nearest cell of the training times"
    assert set(np.round(places[:, 0] / 100)) == {0, 1}
    # The figures have the same place, where they know the same cells.
    fit = open_fit(mapped[known].copy(), "wlm", None)[1]
    drawn = embedding(mapped[known], fit, "umap", (0, 1))
    assert not drawn.linear and np.allclose(drawn.project(out.obsm["X_pca"]), places, atol=1e-4)


def test_the_place_of_a_cell_that_was_observed_is_near_its_own(mapped):
    from wlm._adata.neighbours import projection

    x, shown = mapped.obsm["X_pca"], mapped.obsm["X_umap"]
    near = projection(x, shown)(x)
    assert np.sqrt(np.square(near - shown).mean()) < 0.3 * shown.std()


def test_genes_by_name_are_columns_of_all_genes(mapped):
    names = ["gene007", "gene003"]
    whole, some = wlm.tl.predict(mapped, 2, genes=True), wlm.tl.predict(mapped, 2, genes=names)
    assert list(some.var_names) == names and np.allclose(some.X, whole[:, names].X, atol=1e-5)
    assert np.allclose(some.var["wlm_decode_r2"], whole.var.loc[names, "wlm_decode_r2"])
    assert np.allclose(wlm.tl.predict(mapped, 2, genes="gene003").X[:, 0], some.X[:, 1])


def test_observed_and_predicted_cells_in_one_object(mapped, tmp_path):
    mapped.obs["day"] = pd.Categorical([f"D{t:g}" for t in mapped.obs["day"]])
    wlm.tl.fit(mapped, "day", n_dims=3, holdout="D2", method="flow", path="straight", show_progress=False)
    before = mapped.copy()
    both = wlm.tl.predict(mapped, ["D2", 2.5], genes=["gene003"], labels="type", basis="umap", append=True, n_cells=20)
    new = both.obs["wlm_predicted"].to_numpy()
    assert new.sum() == 40 and both.n_obs == mapped.n_obs + 40 and both.obs_names.is_unique
    assert both.obs["day"].cat.categories.tolist() == ["D0", "D1", "D2", "D2.5", "D3", "D4"]
    day, kind = (both.obs[name].astype(str) for name in ("day", "type"))
    assert set(day[new]) == {"D2", "D2.5"} and (day[~new] == mapped.obs["day"].astype(str)).all()
    # All dimensions: the three that were fitted as predicted, the others of neighbours.
    alone = wlm.tl.predict(mapped, ["D2", 2.5], n_cells=20)
    assert both.obsm["X_pca"].shape == (mapped.n_obs + 40, 5)
    assert np.allclose(both.obsm["X_pca"][new][:, :3], alone.obsm["X_pca"])
    assert np.array_equal(both.obsm["X_pca"][~new], mapped.obsm["X_pca"])
    assert np.allclose(both.X[~new].ravel(), mapped[:, "gene003"].X.toarray().ravel())
    assert (kind[~new] == mapped.obs["type"].astype(str)).all() and both.obs["fate"][new].isna().all()
    assert both.obs["latent_time"][new].isna().all() and both.obs["origin"][~new].isna().all()
    both.write_h5ad(tmp_path / "both.h5ad")
    back = ad.read_h5ad(tmp_path / "both.h5ad")
    assert np.array_equal(back.obsm["X_umap"], both.obsm["X_umap"])
    assert list(before.obs) == list(mapped.obs) and before.n_obs == mapped.n_obs


@pytest.mark.parametrize(
    ("labels", "wanted", "expected"),
    [
        (["E8.5", "E9.0", "E10"], [8.5, 9.25, 10], ["E8.5", "E9.25", "E10"]),
        (["day 0", "day 2"], [1, 2], ["day 1", "day 2"]),
        (["2 h", "4 h"], [3.5], ["3.5 h"]),
        (["day -1", "day 0", "day 1"], [-0.5, 2], ["day -0.5", "day 2"]),
        ([1, 2], [1.5], [1.5]),
    ],
)
def test_times_are_written_as_the_column_writes_them(labels, wanted, expected):
    from wlm._adata.times import read_column_of_times

    column = pd.Series(labels)
    known, style = read_column_of_times(column, "stage")
    assert isinstance(style, Style)
    assert list(write_times(column, known, wanted, style)) == expected


def test_several_conditions_are_appended_each_to_its_own(mapped):
    mapped.obs["dish"] = np.where(np.arange(mapped.n_obs) % 2, "a", "b")
    wlm.tl.fit(mapped, "day", condition_key="dish", method="flow", path="straight", show_progress=False)
    both = wlm.tl.predict(mapped, 5, labels="type", append=True)
    assert both.n_obs == mapped.n_obs + 60 and (both.obs["day"] == 5).sum() == 60
    assert both.obs["type"].notna().all() and set(both.obs["dish"]) == {"a", "b"}


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        ({"labels": "nothing"}, KeyError, "nothing"),
        ({"labels": "day"}, ValueError, r"predictions write obs\['day'\] themselves"),
        ({"labels": "gaps"}, ValueError, "has numbers that are missing or infinite"),
        ({"labels": 3}, TypeError, "not iterable|labels must be"),
        ({"basis": "tsne"}, KeyError, "basis 'tsne' is neither in obsm as it is nor as 'X_tsne'"),
        ({"basis": "broken"}, ValueError, "obsm.'X_broken'. has NaN"),
        ({"genes": ["gene003", "other"]}, KeyError, "not in var_names: 'other'"),
        ({"genes": []}, ValueError, "genes must name one or more"),
        ({"genes": 3}, TypeError, "names of genes, or a function"),
        ({"genes": np.asarray, "append": True}, ValueError, "a function says nothing of it"),
    ],
    ids=str,
)
def test_bad_input_is_refused(mapped, call, error, words):
    mapped.obs["gaps"] = np.where(np.arange(mapped.n_obs) < 3, np.nan, 1.0)
    mapped.obsm["X_broken"] = np.full((mapped.n_obs, 2), np.nan)
    with pytest.raises(error, match=words):
        wlm.tl.predict(mapped, 2, **call)


@pytest.mark.parametrize("values", [np.repeat(["a", "b"], 400), np.repeat([0.0, 2.0], 400)])
def test_many_cells_have_their_neighbours_in_parts(values, monkeypatch):
    rng, asked = np.random.default_rng(0), []
    x = rng.normal(size=(800, 5)).astype(np.float32)
    x[:400, 0] += 3
    y = x[rng.permutation(800)[:700]] + 0.1 * rng.normal(size=(700, 5)).astype(np.float32)
    exact = from_neighbours(x, values, y)
    monkeypatch.setattr(neighbours, "nearest_cells", lambda *given: asked.append(given) or nearest(*given))
    monkeypatch.setattr(neighbours, "EXACT", 500)
    monkeypatch.setattr("wlm.core.transport.EXACT", 500)
    monkeypatch.setattr("wlm.core.transport.PART", 400)
    found = from_neighbours(x, values, y)
    assert [(len(a), len(b), k) for a, b, k in asked] == [(700, 800, 15)]
    assert found.shape == exact.shape and found.dtype == exact.dtype
    # Labels as numbers: the same for nearly all cells, though each has asked half of the others.
    a, b = (z if z.dtype.kind == "f" else (z == "b").astype(float) for z in (found, exact))
    assert np.abs(a - b).mean() < 0.1 and np.corrcoef(a, b)[0, 1] > 0.9
