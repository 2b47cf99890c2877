"""Fates as absorption, against chains that are solved by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.sparse import csr_array
from scipy.stats import entropy as scipy_entropy

from wlm.core.fates import decided, decided_at, entropy, pull_back


def test_fates_are_those_of_a_chain_that_is_walked_many_times():
    """The share of walkers that end in each state, of 20,000 from each start."""
    rng = np.random.default_rng(0)
    steps = [rng.dirichlet(np.ones(5), size=4), rng.dirichlet(np.ones(3), size=5)]
    ends = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    found = pull_back([csr_array(steps[0]), steps[1]], ends)
    assert [p.shape for p in found] == [(4, 2), (5, 2)]
    for start in range(4):
        walkers = rng.choice(5, size=20_000, p=steps[0][start])
        walkers = np.array([rng.choice(3, p=steps[1][i]) for i in walkers])
        assert ends[walkers].mean(0) == pytest.approx(found[0][start], abs=0.015)


@given(hnp.arrays(float, (6, 4), elements=st.floats(0.0, 1.0)))
def test_entropy_is_that_of_scipy(raw):
    p = (raw + 1e-9) / (raw + 1e-9).sum(1, keepdims=True)
    assert entropy(p) == pytest.approx(scipy_entropy(p, base=2, axis=1), abs=1e-9)


def test_entropy_of_coins_and_of_certain_ends():
    assert entropy(np.array([[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]])) == pytest.approx([1, 0, 0.8112781])
    assert np.all(entropy(np.eye(3)) == 0)


def test_what_is_decided_is_mutual_information():
    """A coin that says where a cell is: all of one side end in A, half of the other."""
    p = np.repeat([[1.0, 0.0], [0.5, 0.5]], 10, axis=0)
    total = scipy_entropy([0.75, 0.25], base=2)
    assert decided(p) == pytest.approx((total - 0.5) / total)
    # The same population with one cell for each side, and weights.
    assert decided(p[[0, 10]], np.array([3.0, 3.0])) == pytest.approx((total - 0.5) / total)
    total = scipy_entropy([0.625, 0.375], base=2)  # three of four cells on the side where both ends are open
    assert decided(p[[0, 10]], np.array([1.0, 3.0])) == pytest.approx((total - 0.75) / total)
    assert decided(np.full((5, 2), 0.5)) == 0 and decided(np.eye(2)) == 1
    assert np.isnan(decided(np.tile([1.0, 0.0], (4, 1))))


def test_when_half_is_decided():
    times = np.array([0.0, 1.0, 3.0])
    assert decided_at(times, np.array([0.0, 0.25, 0.75])) == 2
    assert decided_at(times, np.array([0.6, 0.7, 1.0])) == 0
    assert np.isnan(decided_at(times, np.array([0.0, 0.1, 0.4])))
    assert decided_at(times, np.array([0.1, 0.4, 0.5])) == 3
