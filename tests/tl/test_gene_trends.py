"""Trends of genes: the numbers are those of the predicted and of the observed cells."""

import numpy as np
import pandas as pd
import pytest

import wlm
from wlm._adata.neighbours import from_neighbours

GENES = ["gene002", "gene005"]


@pytest.fixture
def grouped(fitted):
    """With a type by position, and fates as wlm.tl.fates stores them."""
    x = fitted.obsm["X_pca"][:, 1]
    fitted.obs["type"] = pd.Categorical(np.where(x < np.median(x), "early", "late"))
    p = np.random.default_rng(0).random(fitted.n_obs).astype(np.float32)
    fitted.obsm["wlm_fates"] = np.stack([p, 1 - p], axis=1)
    fitted.uns["wlm_fates"] = {"names": ["A", "B"]}
    return fitted


def test_all_cells_together_have_the_quantiles_and_means_of_prediction_and_observation(fitted):
    table = wlm.tl.gene_trends(fitted, GENES, times=[6])
    assert list(table.columns) == ["gene", "time", "kind", "n", "mean", "q05", "q25", "median", "q75", "q95"]
    cells = wlm.tl.predict(fitted, [2, 6], genes=True)
    for t, kind in ((2.0, "predicted"), (6.0, "forecast")):
        for gene in GENES:
            values = cells[cells.obs["day"] == t, gene].X.ravel()
            wide = 0.05 * float(np.ptp(values))  # which cells are bridged how depends on the times asked for
            (row,) = table[(table["gene"] == gene) & (table["time"] == t) & (table["kind"] == kind)].itertuples()
            assert row.n == len(values) and row.mean == pytest.approx(values.mean(), abs=wide)
            assert row.median == pytest.approx(np.median(values), abs=wide)
    observed = table[table["kind"].isin(["observed", "held out"])]
    for row in observed.itertuples():
        values = fitted[fitted.obs["day"] == row.time, row.gene].X.toarray().ravel()
        assert [row.mean, row.q25, row.q95] == pytest.approx([values.mean(), *np.quantile(values, [0.25, 0.95])])
        assert (row.kind == "held out") == (row.time == 2)
    assert table.attrs["last"] == 4 and table.attrs["layer"] == "X"
    assert table.attrs["decode_r2"]["gene002"] == pytest.approx(fitted.var.loc["gene002", "wlm_decode_r2"])


def test_types_are_those_of_the_cells_and_of_the_neighbours_of_predicted_ones(grouped):
    table = wlm.tl.gene_trends(grouped, GENES, groupby="type").set_index(["gene", "group", "time", "kind"])
    day, kind = grouped.obs["day"].to_numpy(), grouped.obs["type"].astype(str).to_numpy()
    values = grouped[:, "gene002"].X.toarray().ravel()
    for name in ("early", "late"):
        there = (day == 1) & (kind == name)
        row = table.loc[("gene002", name, 1.0, "observed")]
        assert row["n"] == there.sum() and row["mean"] == pytest.approx(values[there].mean())
    cells = wlm.tl.predict(grouped, [2], genes=True)
    known = day != 2
    labels = from_neighbours(grouped.obsm["X_pca"][known], kind[known], cells.obsm["X_pca"])
    sizes = table.xs("gene002").xs((2.0, "predicted"), level=("time", "kind"))["n"]
    assert abs(sizes["late"] - (labels == "late").sum()) <= 6  # other times are asked for in the same call
    assert sizes.sum() == cells.n_obs


def test_fates_weigh_cells_by_their_probabilities_and_are_kept(grouped):
    table = wlm.tl.gene_trends(grouped, "gene002", groupby="fates").set_index(["group", "time", "kind"])
    day, p = grouped.obs["day"].to_numpy(), grouped.obsm["wlm_fates"][:, 0].astype(float)
    values = grouped[:, "gene002"].X.toarray().ravel()
    row = table.loc[("A", 3.0, "observed")]
    assert row["mean"] == pytest.approx(np.average(values[day == 3], weights=p[day == 3]), rel=1e-5)
    assert row["n"] == pytest.approx(p[day == 3].sum())
    # Predicted cells of day 2 are those of day 1 on their way.
    assert table.loc[("A", 2.0, "predicted")]["n"] == pytest.approx(p[day == 1].sum())
    assert table.attrs["groups"] == ["A", "B"]


def test_groups_of_few_cells_have_no_mean(grouped):
    grouped.obs["type"] = np.where(np.arange(grouped.n_obs) % 60 < 3, "rare", "other")
    table = wlm.tl.gene_trends(grouped, "gene002", groupby="type")
    rare = table[(table["group"] == "rare") & (table["kind"] == "observed")]
    assert (rare["n"] == 3).all() and rare[["mean", "median", "q95"]].isna().all(axis=None)
    assert table.loc[table["group"] == "other", "mean"].notna().all()


def test_nothing_is_written_and_a_seed_repeats_itself(grouped):
    before = grouped.copy()
    one, two = (wlm.tl.gene_trends(grouped, GENES, groupby="type", n_cells=30, rng=3) for _ in range(2))
    pd.testing.assert_frame_equal(one, two)
    assert list(grouped.obs) == list(before.obs) and sorted(grouped.uns) == sorted(before.uns)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        ({"genes": "other"}, KeyError, "not in var_names"),
        ({"genes": GENES, "groupby": "nothing"}, KeyError, "nothing"),
        ({"genes": GENES, "groupby": "latent_time"}, ValueError, "holds numbers"),
        ({"genes": GENES, "groupby": "fates"}, KeyError, r"run wlm.tl.fates\(adata\) first"),
        ({"genes": GENES, "layer": "raw"}, KeyError, "layer 'raw' is missing"),
    ],
)
def test_impossible_calls(fitted, call, error, words):
    with pytest.raises(error, match=words):
        wlm.tl.gene_trends(fitted, **call)
