"""Bands, coverage and flags against closed forms."""

import numpy as np
import pytest

from wlm.core.uncertainty import LEVEL, band, coverage, horizon, outside, quantiles, spread


def test_band_of_a_normal_sample_holds_its_share_of_another_one():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 20_000, 3)) * [1, 2, 3]
    limits = band(x[None])
    assert limits == pytest.approx(np.outer([-1.96, 1.96], [1, 2, 3]), rel=0.05)
    assert coverage(y, limits) == pytest.approx(LEVEL, abs=0.005)
    assert coverage(y + 100, limits) == 0


def test_models_that_disagree_widen_the_band_and_the_spread():
    x = np.random.default_rng(0).normal(size=(500, 2))
    apart = np.stack([x, x + [10, 0]])
    one, two = band(x[None]), band(apart)
    # The 5 % quantile of one and the 95 % quantile of the other.
    assert (two[1] - two[0])[0] == pytest.approx(10 + 2 * 1.645, abs=0.5) and (one[1] - one[0])[0] < 4.5
    assert two[:, 1] == pytest.approx(one[:, 1], abs=0.1)
    # Two models at distance 10: the deviation from the mean is 5 each, and 50 / (2 - 1) its mean square.
    assert spread(apart) == pytest.approx(np.full(500, np.sqrt(50)))
    assert spread(np.stack([x, x])) == pytest.approx(0)


def test_weights_count_as_repeated_cells():
    rng = np.random.default_rng(1)
    x, w = rng.normal(size=(5000, 2)), rng.integers(1, 5, size=5000)
    assert band(x[None], w.astype(float)) == pytest.approx(band(np.repeat(x, w, axis=0)[None]), abs=0.05)
    limits = np.array([[-1.0, -1.0], [1.0, 1.0]])
    assert coverage(x, limits, w) == pytest.approx(coverage(np.repeat(x, w, axis=0), limits))


@pytest.mark.parametrize(
    ("lead", "measured", "expected"),
    [
        ([], [], np.nan),
        ([1, 2, 3], [0.95, 0.9, 0.5], 2),
        ([3, 1, 2], [0.99, 0.9, 0.5], 1),
        ([1], [0.5], 0),
        ([1, 2], [0.9, 0.86], 2),
    ],
)
def test_horizon_ends_where_coverage_first_fails(lead, measured, expected):
    assert horizon(np.array(lead), np.array(measured)) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("n", [3, 1000, 12_000])
def test_few_cells_of_the_data_and_all_cells_far_away_are_outside(n):
    rng = np.random.default_rng(0)
    data, new = rng.normal(size=(n, 4)), rng.normal(size=(2000, 4))
    far = outside(new + 50, data)
    assert far.all() and far.shape == (2000,)
    if n > 100:
        assert outside(new, data).mean() == pytest.approx(0.01, abs=0.01)


def test_a_cell_stands_in_the_middle_of_its_share_of_the_weight():
    values = np.array([[3.0], [0.0], [1.0], [2.0]])
    assert quantiles(values, [0.125, 0.5], np.ones(4)).ravel() == pytest.approx([0.0, 1.5])
    assert quantiles(values, [0.25, 0.625], np.array([1.0, 2.0, 1.0, 0.0001])).ravel() == pytest.approx(
        [0, 1], abs=1e-3
    )
