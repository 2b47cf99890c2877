"""Tests of samples against each other: pseudo-F, relabelings, step-down p-values, intervals."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from wlm.core.permutation import (
    comparable,
    interval,
    labelings,
    n_labelings,
    p_values,
    pseudo_f,
    separation,
    smallest_p,
    step_down,
)

GROUP = np.array([True, True, True, False, False, False, False])


@pytest.fixture
def numbers():
    return np.random.default_rng(0).normal(size=7) + 1.5 * GROUP


def gaps(values):
    return np.abs(values[:, None] - values)[None]


def test_pseudo_f_of_numbers_is_the_square_of_students_t(numbers):
    t = stats.ttest_ind(numbers[GROUP], numbers[~GROUP]).statistic
    assert pseudo_f(gaps(numbers), GROUP[None])[0, 0] == pytest.approx(t**2)


def test_pseudo_f_of_vectors_is_that_of_their_sums_of_squares():
    x = np.random.default_rng(1).normal(size=(7, 3))
    d = np.linalg.norm(x[:, None] - x, axis=-1)
    between = sum(g.sum() * np.square(x[g].mean(0) - x.mean(0)).sum() for g in (GROUP, ~GROUP))
    within = sum(np.square(x[g] - x[g].mean(0)).sum() for g in (GROUP, ~GROUP))
    assert pseudo_f(d[None], GROUP[None])[0, 0] == pytest.approx(between / (within / 5))
    assert pseudo_f(np.zeros((1, 7, 7)), GROUP[None])[0, 0] == 0


def test_all_relabelings_are_made_once_where_they_are_few():
    groups = labelings(GROUP, np.zeros(7, dtype=int), 99, 0)
    assert (groups[0] == GROUP).all()
    assert {tuple(np.flatnonzero(g)) for g in groups} == set(combinations(range(7), 3)) and len(groups) == 35


def test_samples_stay_in_their_strata():
    strata = np.array([0, 1, 1, 0, 0, 1, 1])
    groups = labelings(GROUP, strata, 99, 0)
    assert len(groups) == n_labelings(GROUP, strata) == 3 * 6
    assert (groups[:, strata == 0].sum(axis=1) == 1).all()
    some = labelings(GROUP, strata, 5, 0)
    assert len(some) == 6 and (some[0] == GROUP).all() and (some[:, strata == 0].sum(axis=1) == 1).all()


@pytest.mark.parametrize(("a", "b", "p"), [(3, 3, 0.1), (4, 4, 2 / 70), (3, 4, 1 / 35), (2, 2, 1 / 3)])
def test_the_smallest_p_is_that_of_groups_far_apart(a, b, p):
    group = np.arange(a + b) < a
    strata = np.zeros(a + b, dtype=int)
    values = np.where(group, 100.0, 0) + np.random.default_rng(2).normal(size=a + b)
    found = pseudo_f(gaps(values), labelings(group, strata, 99, 0))
    assert smallest_p(group, strata) == pytest.approx(p) == pytest.approx(p_values(found)[0])


def test_p_values_of_numbers_are_those_of_scipy(numbers):
    found = pseudo_f(gaps(numbers), labelings(GROUP, np.zeros(7, dtype=int), 99, 0))

    def t(x, y, axis):
        return np.abs(stats.ttest_ind(x, y, axis=axis).statistic)

    theirs = stats.permutation_test(
        (numbers[GROUP], numbers[~GROUP]), t, n_resamples=99, alternative="greater", vectorized=True
    )
    assert p_values(found)[0] == pytest.approx(theirs.pvalue)


def test_pairs_of_one_donor_are_compared_as_signs_are_flipped(numbers):
    paired = np.tile([True, False], 4)
    values = np.random.default_rng(3).normal(size=8) + np.repeat([0, 5, 10, 20.0], 2)
    found = pseudo_f(gaps(values), labelings(paired, np.repeat(range(4), 2), 99, 0))
    change = values[paired] - values[~paired]
    theirs = stats.permutation_test((change,), np.mean, permutation_type="samples", n_resamples=99)
    assert p_values(found)[0] == pytest.approx(theirs.pvalue)


def test_step_down_is_that_of_its_definition():
    found = np.random.default_rng(4).normal(size=(5, 40))
    found[1, 0], found[3, 0] = 6, 2.2
    order = np.argsort(-found[:, 0])
    expected, least = np.empty(5), 0.0
    for k, h in enumerate(order):
        least = max(least, (found[order[k:]].max(axis=0) >= found[h, 0]).mean())
        expected[h] = least
    assert step_down(found) == pytest.approx(expected)
    assert (step_down(found) >= p_values(found) - 1e-12).all()


def test_a_scale_does_not_change_the_order_of_one_kind():
    found = np.random.default_rng(5).exponential(size=(3, 50))
    scaled = comparable(found)
    assert np.quantile(scaled, (0.5, 0.95)) == pytest.approx([0, 1])
    assert p_values(scaled) == pytest.approx(p_values(found))


def test_separation_of_two_pairs():
    d = np.array([[0, 1, 5, 6], [1, 0, 7, 8], [5, 7, 0, 3], [6, 8, 3, 0]], dtype=float)
    across, within = separation(d[None], np.array([True, True, False, False]))
    assert across[0] == 6.5 and within[0] == 2
    assert np.isnan(separation(d[None, :2, :2], np.array([True, False]))[1][0])


def test_the_interval_of_a_difference_of_means_is_welchs(numbers):
    low, high = interval(lambda keep: np.array([numbers[keep & GROUP].mean() - numbers[keep & ~GROUP].mean()]), GROUP)
    theirs = stats.ttest_ind(numbers[GROUP], numbers[~GROUP], equal_var=False).confidence_interval()
    assert (low[0], high[0]) == pytest.approx((theirs.low, theirs.high))
