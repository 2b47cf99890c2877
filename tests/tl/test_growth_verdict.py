"""Whether growth is supported, in words, and rates without a network against known ones."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from wlm._adata.reading import Reading
from wlm.core.methods import WLM, IJKOnet
from wlm.tl._growth_verdict import (
    _slope,
    compare_growth,
    compare_sizes,
    growth_verdict,
    naive_in_words,
    naive_rates,
    sizes_in_words,
)
from wlm.tl._scores import Population

TIMES = np.array([0.0, 1.0, 3.0])


def cells_of(x, day, w=None):
    import anndata as ad

    names = [f"c{i}" for i in range(len(x))]
    obs = pd.DataFrame({"day": day} | ({} if w is None else {"w": w}), index=names)
    reading = Reading(
        **dict.fromkeys("n_dims velocity_key velocity_scale strata_key condition_key growth_key totals".split()),
        time_key="day",
        use_rep="X_pca",
        weight_key=None if w is None else "w",
        nan="raise",
    )
    return reading.parts(ad.AnnData(obs=obs, obsm={"X_pca": x.astype(np.float32)}))[""].cells


def clusters(counts, seed=0):
    """Two clusters at rest, 30 apart, with so many cells each on days 0, 1, 3."""
    rng = np.random.default_rng(seed)
    x = [rng.normal(size=(n, 2)) / 10 + [30.0 * k, 0] for pair in counts for k, n in enumerate(pair)]
    day = np.repeat([0.0, 1.0, 3.0], [sum(pair) for pair in counts])
    labels = np.concatenate([np.repeat(["a", "b"], pair) for pair in counts])
    return np.concatenate(x), day, labels


@pytest.mark.parametrize("weighted", [False, True])
def test_clusters_at_rest_have_the_difference_of_their_rates(weighted):
    """Odds of b against a go from 1 to 2 in a day and to 8 in two more: log 2 a day; by counts, or by weights."""
    x, day, labels = clusters([(80, 80)] * 3 if weighted else [(80, 80), (60, 120), (20, 160)])
    odds = {0.0: 1.0, 1.0: 2.0, 3.0: 8.0}
    w = np.where(labels == "b", [odds[t] for t in day], 1.0) if weighted else None
    rates = {rate.label: rate for rate in naive_rates(cells_of(x, day, w), labels, TIMES, 0)}
    assert rates["b"].slope == pytest.approx(np.log(2), abs=0.02)
    assert rates["a"].slope == pytest.approx(-rates["b"].slope)
    assert 0.05 < rates["b"].error < 0.15
    assert rates["b"].row_sums - rates["a"].row_sums == pytest.approx(np.log(2), abs=0.05)


def test_the_error_is_that_of_repeated_samples():
    rng, found = np.random.default_rng(0), []
    for _ in range(300):
        found.append(_slope(TIMES, [rng.random(100) < p for p in (0.5, 0.6, 0.75)], [None] * 3))
    slopes, errors = np.array(found).T
    assert errors.mean() == pytest.approx(slopes.std(), rel=0.15)


def test_a_label_that_is_all_or_nothing_has_no_slope():
    x, day, labels = clusters([(50, 50), (100, 0), (100, 0)])
    rates = naive_rates(cells_of(x, day), labels, TIMES, 0)
    assert all(np.isnan(rate.slope) for rate in rates) and naive_in_words(rates, "day") == ""


def populations(shares, n, seed=0):
    """Cells of two clusters, of which a share is in the second; observed cells are drawn by chance."""
    rng = np.random.default_rng(seed)
    found = []
    for k, share in enumerate(shares):
        second = rng.random(n) < share if k == 0 else np.arange(n) < round(share * n)
        x = rng.normal(size=(n, 2)) / 10 + 3.0 * second[:, None]
        found.append(Population(x, None, np.where(second, "b", "a")))
    return found


def test_growth_that_explains_the_shares_is_supported():
    observed, growing, conserved = populations([0.7, 0.7, 0.3], 400)
    rows = compare_growth([growing], [conserved], observed, ("w1", "composition"), 40)
    assert [row["metric"] for row in rows] == ["w1", "composition"]
    assert all(row["low"] < row["high"] < 0 for row in rows)
    assert rows[1]["difference"] == pytest.approx(-0.3, abs=0.05)
    assert growth_verdict("growth", 3.0, rows).startswith("growth SUPPORTED: last time forecast from 3, growth against")


def test_shares_that_differ_by_chance_support_nothing():
    """A false rate moves the forecast a little, and half of the samples are on its side: 5 % may pass, not 50 %."""
    passed, better = 0, 0
    for seed in range(40):
        observed, growing, conserved = populations([0.5, 0.52, 0.5], 400, seed)
        rows = compare_growth([growing], [conserved], observed, ("composition",), 40)
        better += rows[0]["difference"] < 0
        passed += "growth SUPPORTED" in growth_verdict("growth", 3.0, rows)
    assert better > 12 and passed <= 4


def test_the_verdict_takes_every_metric_and_an_interval():
    row = {"metric": "w1", "growth": 0.3, "conserved": 0.6}
    better = row | {"difference": -0.3, "low": -0.4, "high": -0.2}
    unclear = row | {"difference": -0.3, "low": -0.7, "high": 0.1}
    worse = row | {"difference": 0.3, "low": 0.2, "high": 0.4}
    assert "w1 0.3 against 0.6 (-0.3, 95 % -0.4 to -0.2)" in growth_verdict("growth", 3, [better])
    assert all("growth NOT SUPPORTED" in growth_verdict("growth", 3, [r]) for r in (unclear, worse))
    assert growth_verdict("growth", 3, [better, better | {"metric": "composition"}]).startswith("growth SUPPORTED")
    assert "NOT SUPPORTED" in growth_verdict("growth", 3, [better, unclear | {"metric": "composition"}])
    assert growth_verdict("growth", 3, [row | {"difference": -1.0}]) == "" == growth_verdict("growth", 3, [])


def test_sizes_are_compared_with_cells_that_all_multiply_alike():
    """1, 2, 4 and then 12 hundred cells on days 0, 1, 2 and 3: alike they would have been 8 hundred."""
    x, times = np.zeros((40, 2)), np.repeat([0.0, 1.0, 2.0, 3.0], 10)
    cells = cells_of(x + np.arange(40)[:, None], times, np.full(40, 0.5))
    cells = replace(cells, sizes=np.array([100.0, 200.0, 400.0, 1200.0]))
    # The 10 cells of day 1, of weight 1 / 2, have become 25 and 36, geometric mean 30: six times as many.
    growing = [Population(x[:10], np.full(10, w)) for w in (2.5, 3.6)]
    row = compare_sizes(growing, cells)
    assert row["growth_ratio"] == pytest.approx(1.0) and row["growth"] == pytest.approx(0, abs=1e-9)
    assert row["conserved_ratio"] == pytest.approx(2 / 3) and row["conserved"] == pytest.approx(np.log(1.5))
    assert row["difference"] == pytest.approx(-np.log(1.5)) and row["metric"] == "size"
    assert "1.00 times the observed one with growth, 0.67 times if all" in sizes_in_words(row)
    assert compare_sizes(growing, replace(cells, sizes=None)) is None
    assert compare_sizes(growing, replace(cells, sizes=np.array([100.0, 200.0, 400.0, np.nan]))) is None


def test_twins_differ_in_growth_alone():
    """With growth WLM learns how cells start, unless it is told, or velocities say: so does its twin."""
    assert WLM(growth=True, n_steps=7).conserved(has_velocity=False) == WLM(initial_velocity="learned", n_steps=7)
    assert WLM(growth=True).conserved(has_velocity=True) == WLM()
    given = WLM(growth="prior", initial_velocity="zero")
    assert given.conserved(has_velocity=False) == WLM(initial_velocity="zero")
    assert IJKOnet().conserved(has_velocity=False) == IJKOnet()
