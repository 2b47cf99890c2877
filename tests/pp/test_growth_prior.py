"""Rates from genes: cells whose proliferation is known, genes that are missing, columns of other tools."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import wlm
from wlm._adata.gene_sets import APOPTOSIS, PROLIFERATION, symbols


@pytest.fixture(scope="module")
def _cells():
    """Logarithms of 400 cells: cycling ones have twice the genes of the cycle, dying ones those of apoptosis."""
    rng = np.random.default_rng(0)
    genes = [*PROLIFERATION, *APOPTOSIS, *(f"GENE{i}" for i in range(300))]
    level = rng.gamma(2, 1, len(genes))
    cycling, dying = np.arange(400) % 4 == 0, np.arange(400) % 4 == 1
    mean = np.tile(level, (400, 1))
    mean[np.ix_(cycling, np.arange(97))] *= 2
    mean[np.ix_(dying, np.arange(97, 136))] *= 2
    adata = ad.AnnData(np.log1p(rng.poisson(mean)).astype(np.float32), var=pd.DataFrame(index=genes))
    adata.obs["day"] = np.repeat([0, 1], 200)
    adata.obs["truth"] = cycling.astype(float) - dying
    adata.obsm["X_pca"] = (adata.obs["truth"].to_numpy()[:, None] + 0.1 * rng.normal(size=(400, 2))).astype(np.float32)
    return adata


@pytest.fixture
def cells(_cells):
    return _cells.copy()


def test_the_sets_have_the_genes_that_are_said_and_none_in_common():
    assert (len(PROLIFERATION), len(APOPTOSIS)) == (97, 39) and not set(PROLIFERATION) & set(APOPTOSIS)
    assert ("Trp53",) in symbols(APOPTOSIS, "mouse") and ("Mki67",) in symbols(PROLIFERATION, "mouse")
    assert ("MLF1IP", "CENPU") in symbols(PROLIFERATION, "human")
    assert not set("BCL2 BCL2L1 MCL1 XIAP BIRC3 BIRC5".split()) & set(APOPTOSIS)  # these prevent it


@pytest.mark.parametrize("organism", ["human", "mouse"])
def test_cycling_cells_grow_and_dying_ones_shrink(cells, organism):
    if organism == "mouse":
        known = {h: m[0] for h, m in zip(PROLIFERATION, symbols(PROLIFERATION, "mouse"), strict=True)}
        cells.var_names = [known.get(g, g.capitalize()) for g in cells.var_names]
        with pytest.raises(ValueError, match="pass organism='mouse'"):
            wlm.pp.growth_prior(cells)
    before = cells.copy()
    wlm.pp.growth_prior(cells, time_key="day", organism=organism, scale=0.5)
    rate = cells.obs["wlm_growth_prior"]
    assert np.corrcoef(rate, cells.obs["truth"])[0, 1] > 0.9
    assert rate.groupby(cells.obs["day"]).mean().abs().max() < 1e-9 and rate.std(ddof=0) == pytest.approx(0.5)
    assert set(cells.obs) - set(before.obs) == {"wlm_growth_prior"} and (cells.X == before.X).all()
    assert "97 genes" in cells.uns["wlm_growth_prior"]["source"]


def test_genes_in_both_sets_count_for_neither_and_an_empty_set_is_left_out(cells):
    both = [*PROLIFERATION[:30], *APOPTOSIS[:5]]
    wlm.pp.growth_prior(cells, proliferation=both, apoptosis=list(APOPTOSIS))
    note = cells.uns["wlm_growth_prior"]
    assert list(note["proliferation"]) == list(PROLIFERATION[:30]) and len(note["apoptosis"]) == 34
    wlm.pp.growth_prior(cells, apoptosis=[], key_added="births")
    of = cells.obs.groupby("truth")["births"].mean()
    assert of[1] > of[0] + 0.5 and of[-1] == pytest.approx(of[0], abs=0.3)


def test_columns_of_other_tools_are_read(cells):
    truth = cells.obs["truth"]
    cells.obs["S_score"], cells.obs["G2M_score"] = truth, truth
    wlm.pp.growth_prior(cells, apoptosis=[])
    assert "S_score" in cells.uns["wlm_growth_prior"]["source"]
    assert np.corrcoef(cells.obs["wlm_growth_prior"], truth)[0, 1] > 0.95
    cells.obs["proliferation"], cells.obs["apoptosis"] = np.maximum(truth, 0), np.maximum(-truth, 0)
    wlm.pp.growth_prior(cells, time_key="day")
    assert "obs['proliferation'], apoptosis by obs['apoptosis']" in cells.uns["wlm_growth_prior"]["source"]
    cells.obs["cell_growth_rate"] = np.exp(0.3 * truth)
    wlm.pp.growth_prior(cells, time_key="day")
    np.testing.assert_allclose(cells.obs["wlm_growth_prior"], 0.3 * (truth - truth.mean()), atol=0.05)


def test_the_result_is_a_prior_of_a_fit(cells):
    wlm.pp.growth_prior(cells, time_key="day")
    small = {"n_steps": 2, "batch_size": 40, "width": 8, "heads": 2, "hidden": 8, "n_inducing": 2}
    wlm.tl.fit(cells, "day", growth="prior", growth_key="wlm_growth_prior", show_progress=False, **small)
    assert np.corrcoef(cells.obs["wlm_growth"], cells.obs["truth"])[0, 1] > 0.9
    assert cells.uns["wlm"]["growth"]["prior_r2"] > 0.5


@pytest.mark.parametrize(
    ("spoil", "asked", "words"),
    [
        (lambda a: a[:, -50:].copy(), {}, "a choice of highly variable ones loses them"),
        (lambda a: ad.AnnData(np.round(np.expm1(a.X)), a.obs, a.var, obsm=dict(a.obsm)), {}, "holds counts"),
        (lambda a: a, {"organism": "pig"}, "'human' or 'mouse'"),
        (lambda a: a, {"scale": 0}, "positive number"),
        (lambda a: a, {"proliferation": [], "apoptosis": []}, "same for all cells"),
    ],
)
def test_what_cannot_be_scored_is_refused_with_the_reason(cells, spoil, asked, words):
    adata = spoil(cells)
    with pytest.raises(ValueError, match=words):
        wlm.pp.growth_prior(adata, **asked)
    assert "wlm_growth_prior" not in adata.obs
    with pytest.raises(KeyError, match="missing"):
        wlm.pp.growth_prior(cells, layer="logs")
