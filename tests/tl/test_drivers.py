"""Drivers: against the programmes of simulated cells, direct computations, and what a null must not find."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy.stats import false_discovery_control

import wlm
from wlm._adata.transcription_factors import JASPAR, find_factors
from wlm.core.drivers import rotation_p


@pytest.fixture(scope="module")
def _branching():
    """100 cells on each of five days, whose own fate is known, and the quickest fit."""
    adata = wlm.datasets.bifurcation(100, n_genes=60, rng=3)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=6)
    wlm.tl.fit(adata, "day", method="flow", path="straight", show_progress=False)
    # As wlm.tl.fates stores them.
    a = (adata.obs["fate"] == "A").to_numpy(dtype=np.float32)
    adata.obsm["wlm_fates"], adata.uns["wlm_fates"] = np.stack([a, 1 - a], axis=1), {"names": ["to A", "to B"]}
    adata.obs["p"] = a
    return adata


@pytest.fixture
def branching(_branching):
    return _branching.copy()


@pytest.fixture(scope="module")
def _table(_branching):
    return wlm.tl.drivers(_branching, ("fate", "A"), n_perm=500)


def test_the_first_genes_are_those_of_the_branches_and_a_naive_ranking_has_others(_branching, _table):
    true = _branching.var["program"] == "branch"
    k = int(true.sum())
    assert true.loc[_table.index[:k]].mean() >= 0.9
    called = _table.index[_table["role"] == "driver"]
    assert len(called) >= k / 2 and true.loc[called].all()
    assert true.loc[_table["change"].abs().sort_values(ascending=False).index[:k]].mean() < 0.5


def test_effects_are_covariances_of_decoded_expression_in_standard_deviations(_branching, _table):
    x, loadings = _branching.obsm["X_pca"].astype(float), _branching.varm["PCs"]
    sd, p, day = _branching.X.toarray().std(axis=0), _branching.obs["p"].to_numpy(float), _branching.obs["day"]
    decoded = pd.DataFrame(x @ loadings.T / sd, columns=_branching.var_names)

    def slopes(values):
        days = [(day == t).to_numpy() for t in range(5)]
        return [np.cov(p[i], values[i].T, ddof=0)[0, 1:] / p[i].std() for i in days]

    by_time = slopes(decoded)
    expected = pd.Series(np.mean(by_time[:4], axis=0), index=_branching.var_names)
    assert np.allclose(_table["effect"], expected[_table.index], atol=1e-5)
    for t, column in enumerate(by_time):
        assert np.allclose(_table[f"at {t}"], pd.Series(column, _branching.var_names)[_table.index], atol=1e-5)
    assert np.allclose(_table["end"], _table["at 4"]) and _table["effect"].abs().is_monotonic_decreasing
    v = _branching.obsm["wlm_velocity"] @ loadings.T / sd
    expected = pd.Series(np.mean(slopes(v)[:4], axis=0), index=_branching.var_names)
    assert np.allclose(_table["velocity"], expected[_table.index], atol=1e-4)


def test_p_is_the_larger_of_two_and_q_is_that_of_benjamini_and_hochberg(_branching, _table):
    assert np.array_equal(_table["p"], _table[["p_fate", "p_rotation"]].max(axis=1))
    assert np.allclose(_table["q"], false_discovery_control(_table["p"]))
    assert _table["p_fate"].min() == pytest.approx(1 / 501)
    assert (_table["low"] <= _table["high"]).all()
    size = _table["effect"].abs() > 0.1  # far from zero an interval does not hold it
    assert (_table.loc[size, "low"] * _table.loc[size, "high"] > 0).all()
    assert np.allclose(_table["decode_r2"], _branching.var["wlm_decode_r2"][_table.index])


def test_gradients_have_the_sign_of_the_effects_of_the_branch(_branching, _table):
    branch = _table[_branching.var["program"][_table.index].to_numpy() == "branch"]
    assert (np.sign(branch["gradient"]) == np.sign(branch["effect"])).mean() > 0.95
    rest = _table.drop(index=branch.index)
    assert rest["gradient"].abs().median() < 0.3 * branch["gradient"].abs().median()


def test_a_name_of_fates_a_column_of_probabilities_and_a_label_are_the_same(_branching, _table):
    for fate in ("to A", "p"):
        other = wlm.tl.drivers(_branching, fate, n_perm=500)
        assert other.attrs["fate"] == fate
        pd.testing.assert_frame_equal(other, _table, check_exact=False, rtol=1e-5)
    opposite = wlm.tl.drivers(_branching, "to B", n_perm=5, n_boot=0)
    assert np.allclose(opposite["effect"][_table.index], -_table["effect"], atol=1e-6)
    assert opposite["low"].isna().all()


def test_fates_of_another_fit_are_refused(branching):
    branching.uns["wlm_fates"] = {"names": ["to A", "to B"], "fit": branching.uns["wlm"]["checksum"]}
    assert wlm.tl.drivers(branching, "to A", n_perm=5, n_boot=0).attrs["fate"] == "to A"
    branching.uns["wlm_fates"]["fit"] = "0123"
    with pytest.raises(ValueError, match=r"computed from another fit.*run wlm.tl.fates\(adata\) again"):
        wlm.tl.drivers(branching, "to A")


def test_the_same_seed_gives_the_same_table_and_nothing_is_written(_branching):
    before = _branching.copy()
    tables = [wlm.tl.drivers(_branching, "p", n_perm=20, n_boot=20, rng=r) for r in (1, np.random.SeedSequence(1), 2)]
    assert tables[0].equals(wlm.tl.drivers(_branching, "p", n_perm=20, n_boot=20, rng=1))
    assert not tables[0].equals(tables[2])
    assert list(before.obs) == list(_branching.obs) and list(before.uns) == list(_branching.uns)
    assert list(before.obsm) == list(_branching.obsm) and list(before.var) == list(_branching.var)


def test_fates_that_mean_nothing_have_no_drivers(branching):
    rng, found = np.random.default_rng(0), 0
    for _ in range(10):
        day = branching.obs["day"].to_numpy()
        p = np.zeros(len(day))
        for t in np.unique(day):
            p[day == t] = rng.permutation(branching.obs["p"][day == t])
        branching.obs["shuffled"] = p
        table = wlm.tl.drivers(branching, "shuffled", n_perm=200, n_boot=0)
        found += (table["role"] == "driver").any()
    assert found <= 3  # at 0.1 of ten: more than three have a probability of 1 %


def test_too_few_permutations_are_named(_branching, caplog):
    wlm.tl.drivers(_branching, "p", n_perm=5, n_boot=0)
    assert "no p-value can be smaller than 1 / 6" in caplog.text
    caplog.clear()
    wlm.tl.drivers(_branching, "p", n_perm=500, n_boot=0)
    assert "no p-value" not in caplog.text


def test_the_flow_is_the_mean_velocity_of_the_genes(_branching):
    table = wlm.tl.drivers(_branching)
    day, v = _branching.obs["day"].to_numpy(), _branching.obsm["wlm_velocity"].astype(float)
    sd = _branching.X.toarray().std(axis=0)
    expected = pd.Series(v[day < 4].mean(0) @ _branching.varm["PCs"].T / sd, index=_branching.var_names)
    assert np.allclose(table["effect"], expected[table.index], atol=1e-5)
    assert np.allclose(table["velocity"], table["effect"]) and "gradient" not in table and "p_fate" not in table
    x = _branching.obsm["X_pca"][day < 4].astype(float)
    p = rotation_p(_branching.varm["PCs"], v[day < 4].mean(0), np.cov(x.T, ddof=0))
    assert np.allclose(table["p"], pd.Series(p, index=_branching.var_names)[table.index])
    assert table.attrs["unit"] == "SD/time unit"
    progress = _branching.var["program"] == "progress"
    assert progress[table.index[:20]].mean() >= 0.8


def test_transcription_factors_are_those_of_the_user(_branching):
    table = wlm.tl.drivers(_branching, "p", n_perm=5, n_boot=0, transcription_factors=["gene001", "gene007", "GATA1"])
    assert sorted(table.index[table["tf"]]) == ["gene001", "gene007"]


def test_transcription_factors_come_with_their_source_in_any_case_or_from_a_column(branching):
    assert {"GATA1", "SPI1", "RUNX1", "MYC", "NKX2-5"} <= JASPAR and not {"ACTB", "CD34", "EWSR1-FLI1"} & JASPAR
    assert len(JASPAR) == 719 and all(name == name.upper() for name in JASPAR)
    branching.var["tf"] = branching.var_names == "gene003"
    call = {"n_perm": 2, "n_boot": 0}
    table = wlm.tl.drivers(branching, "p", transcription_factors="tf", **call)
    assert table.index[table["tf"]].tolist() == ["gene003"]
    with pytest.raises(ValueError, match="none of the 719 transcription factors of JASPAR.*gene symbols"):
        wlm.tl.drivers(branching, "p", transcription_factors="jaspar", **call)
    names = {"gene001": "Gata1", "gene002": "SPI1", "gene005": "Actb"}
    branching.var_names = [names.get(name, name) for name in branching.var_names]
    assert branching.var_names[find_factors(branching, "jaspar")].tolist() == ["Gata1", "SPI1"]
    for column in (False, 1.0):
        branching.var["tf"] = column
        with pytest.raises(ValueError, match="var.'tf'. must be True for transcription factors"):
            find_factors(branching, "tf")


def test_cells_without_a_fate_are_left_out_and_times_can_be_chosen(branching, caplog):
    day = branching.obs["day"]
    branching.obs["p"] = branching.obs["p"].where((day != 1) | (np.arange(500) % 20 == 0))
    table = wlm.tl.drivers(branching, "p", n_perm=20, n_boot=0)
    assert table.attrs["times"] == [0, 2, 3, 4] and "cells at 1 are left out" in caplog.text
    early = wlm.tl.drivers(branching, "p", times=["day 2"], n_perm=20, n_boot=0)
    assert early.attrs["times"] == [2, 4] and np.allclose(early["effect"], early["at 2"])


def test_late_genes_are_markers_and_no_drivers(branching):
    """A fate that is decided in the last interval: before, nothing goes with it."""
    day, rng = branching.obs["day"].to_numpy(), np.random.default_rng(0)
    p = branching.obs["p"].to_numpy(dtype=float)
    for t in range(4):
        p[day == t] = rng.permutation(p[day == t])
    branching.obs["p"] = p
    table = wlm.tl.drivers(branching, "p", n_perm=500, n_boot=0)
    markers = table.index[table["role"] == "marker"]
    assert len(markers) > 10 and (branching.var.loc[markers, "program"] == "branch").all()
    assert (table.loc[markers, "onset"] == 4).mean() > 0.9


def test_weights_count_cells(_branching):
    """Cells of weight 2 are those that are there twice."""
    adata = _branching.copy()
    adata.obs["w"] = np.where(np.arange(adata.n_obs) % 3 == 0, 2.0, 1.0)
    wlm.tl.fit(adata, "day", method="flow", path="straight", weight_key="w", show_progress=False)
    table = wlm.tl.drivers(adata, "p", n_perm=5, n_boot=5)
    again = np.repeat(np.arange(adata.n_obs), adata.obs["w"].astype(int))
    again = again[adata.obs["day"].to_numpy()[again] == 3]
    x, p = adata.obsm["X_pca"][again].astype(float), adata.obs["p"].to_numpy(float)[again]
    direction = np.cov(p, x.T, ddof=0)[0, 1:] / p.std()
    expected = pd.Series(direction @ adata.varm["PCs"].T / adata.X.toarray().std(axis=0), index=adata.var_names)
    assert np.allclose(table["at 3"], expected[table.index], atol=1e-5)


def test_it_works_from_a_file_and_on_dense_expression(branching, tmp_path):
    branching.X = branching.X.toarray()
    branching.write_h5ad(tmp_path / "fitted.h5ad")
    back = ad.read_h5ad(tmp_path / "fitted.h5ad")
    one, two = (wlm.tl.drivers(a, "to A", n_perm=20, n_boot=20) for a in (branching, back))
    pd.testing.assert_frame_equal(one, two)


@pytest.mark.parametrize(
    ("fate", "more", "error", "words"),
    [
        ("C", {}, KeyError, "neither a stored fate.*'to A', 'to B'.*nor a column"),
        ("fate", {}, ValueError, r"holds labels.*fate=\('fate', '"),
        (("fate", "C"), {}, KeyError, "no label 'C'; it has .'A', 'B'"),
        (("fate",), {}, TypeError, r"pair \(column, label\)"),
        (3, {}, TypeError, "fate must be None"),
        ("latent_time", {}, ValueError, "probabilities between 0 and 1"),
        ("only at the end", {}, ValueError, "does not differ between the cells.*not what it is"),
        ("p", {"times": 4}, ValueError, "times must be before the last, 4"),
        ("p", {"times": 2.5}, ValueError, "2.5 was not observed"),
        ("p", {"n_perm": 0}, ValueError, "n_perm must be an integer of at least 1"),
        ("p", {"n_boot": -1}, ValueError, "n_boot must be"),
        ("p", {"transcription_factors": ["GATA1"]}, ValueError, "none of the 1 transcription_factors"),
        ("p", {"key": "other"}, KeyError, "other"),
    ],
)
def test_bad_input_is_refused_with_what_to_do(branching, fate, more, error, words):
    branching.obs["only at the end"] = np.where(branching.obs["day"] == 4, branching.obs["p"], 0.0)
    with pytest.raises(error, match=words):
        wlm.tl.drivers(branching, fate, **more)


def test_representations_without_genes_are_refused(branching):
    branching.obsm["X_other"] = branching.obsm["X_pca"].copy()
    wlm.tl.fit(branching, "day", use_rep="X_other", method="flow", path="straight", show_progress=False)
    with pytest.raises(ValueError, match="no loadings of genes.*use_rep='X_pca'"):
        wlm.tl.drivers(branching, "p")
