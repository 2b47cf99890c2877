"""Transitions between observed cells, and CellRank with them."""

import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

import wlm
from wlm.tl._links import Observed, link
from wlm.tl._transitions import _likeliest

N = 50


def splitting(seed=0):
    """Cells that go to the right or to the left, in eight dimensions."""
    rng = np.random.default_rng(seed)
    day = np.repeat([0.0, 1.0, 2.0], N)
    side = np.where(np.arange(3 * N) % 2, 1.0, -1.0)
    x = rng.normal(scale=0.3, size=(3 * N, 8))
    x[:, 0] += 2 * side * day
    adata = ad.AnnData(rng.poisson(3, size=(3 * N, 4)).astype(np.float32), obsm={"X_pca": x.astype(np.float32)})
    adata.obs_names = [f"c{i}" for i in range(3 * N)]
    adata.obs["day"], adata.obs["side"] = day, pd.Categorical(np.where(side > 0, "right", "left"))
    return adata


@pytest.fixture(scope="module")
def _split():
    adata = splitting()
    wlm.tl.fit(adata, "day", method="flow", show_progress=False)
    wlm.tl.transitions(adata, n_neighbors=12)
    return adata


@pytest.fixture
def split(_split):
    return _split.copy()


def test_rows_sum_to_one_and_go_to_the_next_time(split):
    matrix, day = split.obsp["wlm_transitions"], split.obs["day"].to_numpy()
    assert isinstance(matrix, csr_matrix) and matrix.dtype == np.float32
    assert np.allclose(matrix.sum(axis=1), 1, atol=1e-5) and matrix.data.min() > 0
    assert np.diff(matrix.indptr).max() <= 12
    entries = matrix.tocoo()
    assert set(zip(day[entries.row], day[entries.col], strict=True)) == {(0, 1), (1, 2), (2, 2)}
    side = (split.obs["side"] == "right").to_numpy()
    late = day[entries.row] >= 1
    assert entries.data[late & (side[entries.row] != side[entries.col])].sum() < 1, "sides are far from each other"


def test_all_of_the_transitions_are_the_steps_of_the_fates(split):
    """With room for every entry, nothing is left out."""
    wlm.tl.transitions(split, n_neighbors=N)
    observed = Observed.of(split, "wlm", None)
    step = link(observed, 0.0, n_draws=1, seed=0, n_candidates=N).step(0) @ np.eye(N)
    assert np.allclose(split.obsp["wlm_transitions"][:N][:, N : 2 * N].toarray(), step, atol=1e-6)
    assert np.allclose(split.uns["wlm_transitions"]["kept"], 1)


def test_the_likeliest_entries_are_kept():
    rng = np.random.default_rng(0)
    dense = rng.dirichlet(np.ones(7), size=5)
    found, kept = _likeliest(csr_matrix(np.eye(5)), (csr_matrix(dense),), 3)
    best = np.sort(dense, axis=1)[:, -3:]
    for row, expected in zip(found.toarray(), best, strict=True):
        assert np.sort(row)[-3:] == pytest.approx(expected / expected.sum()) and (row > 0).sum() == 3
    assert kept == pytest.approx(best.sum(1).mean())


def test_cells_within_the_last_time_follow_the_field():
    """All move to the right: so do they among the cells of the last time, by about as much as their neighbourhood."""
    rng = np.random.default_rng(0)
    day = np.repeat([0.0, 1.0, 2.0], 100)
    x = rng.uniform(0, 4, size=(300, 2))
    x[:, 0] += day
    adata = ad.AnnData(obs=pd.DataFrame({"day": day}, index=map(str, range(300))), obsm={"X_pca": x})
    wlm.tl.fit(adata, "day", method="flow", show_progress=False)
    wlm.tl.transitions(adata, n_neighbors=15)
    last = day == 2
    inner = last & (x[:, 0] > 3) & (x[:, 0] < 5)
    step = (adata.obsp["wlm_transitions"] @ x)[inner] - x[inner]
    assert step[:, 0].mean() > 0.3 and abs(step[:, 1].mean()) < 0.25


def test_cells_without_a_time_and_held_out_ones():
    adata = splitting()
    adata.obs.loc[adata.obs_names[3], "day"] = np.nan
    wlm.tl.fit(adata, "day", method="flow", holdout=1, nan="drop", show_progress=False)
    wlm.tl.transitions(adata)
    matrix, day = adata.obsp["wlm_transitions"], adata.obs["day"].to_numpy()
    assert matrix[3, 3] == 1 and matrix[3].nnz == 1 and matrix[:, 3].nnz == 1
    entries = matrix.tocoo()
    known = entries.row != 3
    assert set(zip(day[entries.row[known]], day[entries.col[known]], strict=True)) == {(0, 2), (1, 2), (2, 2)}


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_they_survive_a_file(split, tmp_path, kind):
    getattr(split, f"write_{kind}")(tmp_path / f"a.{kind}")
    back = getattr(ad, f"read_{kind}")(tmp_path / f"a.{kind}")
    assert (back.obsp["wlm_transitions"] != split.obsp["wlm_transitions"]).nnz == 0


def test_bad_input_is_refused(split, monkeypatch):
    for arguments in ({"n_neighbors": 0}, {"n_draws": True}):
        with pytest.raises(ValueError, match="must be an integer of at least 1"):
            wlm.tl.transitions(split, **arguments)
    with pytest.raises(ValueError, match="kind must be 'transitions' or 'couplings'"):
        wlm.tl.to_cellrank(split, kind="velocity")
    monkeypatch.setitem(sys.modules, "cellrank", None)
    with pytest.raises(ImportError, match=r"pip install 'wlm\[cellrank\]'"):
        wlm.tl.to_cellrank(split)
    monkeypatch.setattr("wlm.bridges.cellrank.version", lambda name: "1.5.1")
    with pytest.raises(ImportError, match="version 1.5.1 is too old.*2.0 or newer"):
        wlm.tl.to_cellrank(split)


# CellRank itself


@pytest.mark.cellrank
@pytest.mark.parametrize("kind", ["transitions", "couplings"])
def test_cellrank_finds_the_two_ends(split, kind):
    import cellrank

    wlm.tl.transitions(split, n_neighbors=N)
    before = split.copy()
    kernel = wlm.tl.to_cellrank(split, kind=kind)
    assert np.allclose(kernel.transition_matrix.sum(axis=1), 1)
    assert pd.api.types.is_float_dtype(split.obs["day"]) and set(split.uns) == set(before.uns)
    day, right = split.obs["day"].to_numpy(), (split.obs["side"] == "right").to_numpy()
    ours = split.obsp["wlm_transitions"][day < 2].toarray()
    assert np.allclose(csr_matrix(kernel.transition_matrix)[day < 2].toarray(), ours, atol=1e-5)
    estimator = cellrank.estimators.GPCCA(kernel)
    estimator.compute_schur(6, method="brandts")
    estimator.compute_macrostates(2, n_cells=5)
    member = np.asarray(estimator.macrostates_memberships)[day == 2].argmax(1)
    assert len(set(zip(member, right[day == 2], strict=True))) == 2, "each side is a macrostate"
    ends = {side: split.obs_names[(day == 2) & (split.obs["side"] == side)].tolist() for side in ("left", "right")}
    estimator.set_terminal_states(ends)
    estimator.compute_fate_probabilities()
    found = pd.DataFrame(np.asarray(estimator.fate_probabilities), columns=estimator.fate_probabilities.names)
    wlm.tl.terminal_states(split, label_key="side")
    wlm.tl.fates(split)
    assert np.abs(found["right"] - split.obsm["wlm_fates"][:, 1]).max() < 0.05, "those of wlm.tl.fates"
    drivers = estimator.compute_lineage_drivers(return_drivers=True)
    assert len(drivers) == 4


@pytest.mark.cellrank
def test_cellrank_is_refused_cells_that_go_nowhere(split):
    with pytest.raises(ValueError, match="cells were removed since"):
        wlm.tl.to_cellrank(split[split.obs["day"].to_numpy() * N + np.arange(3 * N) % N != N + 5].copy())
    del split.uns["wlm_transitions"]
    with pytest.raises(KeyError, match=r"run wlm.tl.transitions\(adata\) first"):
        wlm.tl.to_cellrank(split)
    adata = splitting()
    adata.obs.loc[adata.obs_names[3], "day"] = np.nan
    wlm.tl.fit(adata, "day", method="flow", holdout=1, nan="drop", show_progress=False)
    wlm.tl.transitions(adata)
    with pytest.raises(ValueError, match="1 cells have no time.*notna") as refused:
        wlm.tl.to_cellrank(adata)
    adata = adata[adata.obs["day"].notna()].copy()
    assert "adata = adata[adata.obs['day'].notna()].copy()" in str(refused.value)
    assert wlm.tl.to_cellrank(adata).transition_matrix.shape == (3 * N - 1, 3 * N - 1)
    with pytest.raises(ValueError, match="choose kind='transitions'"):
        wlm.tl.to_cellrank(adata, kind="couplings")


@pytest.mark.cellrank
@pytest.mark.shared
def test_cellrank_takes_real_cells(real_data):
    """Blood progenitors: CellRank gets from days 2 and 4 to the types of day 6, and ranks genes by it."""
    import cellrank

    adata = ad.read_h5ad(real_data / "larry_clones.h5ad")
    adata.obs["day"] = adata.obs["time_info"].astype(float)
    wlm.tl.fit(adata, "day", method="flow", show_progress=False)
    wlm.tl.transitions(adata)
    last = adata.obs["day"] == 6
    types = adata.obs["state_info"].astype(str)
    names = types[last].unique().tolist()  # all of them: any may be a group that no path leaves
    assert {"Neutrophil", "Monocyte"} <= set(names)
    estimator = cellrank.estimators.GPCCA(wlm.tl.to_cellrank(adata))
    estimator.set_terminal_states({name: adata.obs_names[last & (types == name)].tolist() for name in names})
    estimator.compute_fate_probabilities(show_progress_bar=False)
    found = pd.DataFrame(np.asarray(estimator.fate_probabilities), columns=estimator.fate_probabilities.names)
    assert np.allclose(found.sum(1), 1, atol=1e-4)
    drivers = estimator.compute_lineage_drivers(lineages=["Neutrophil"])
    assert len(drivers) == adata.n_vars and drivers["Neutrophil_corr"].max() > 0.3
    end = (types[last] == "Neutrophil").to_numpy()
    assert found["Neutrophil"][last.to_numpy()][end].mean() > 0.9
    early = (adata.obs["day"] == 4).to_numpy()
    of_type = (types == "Neutrophil").to_numpy()
    assert found["Neutrophil"][early & of_type].mean() > 2 * found["Neutrophil"][early & ~of_type].mean()
