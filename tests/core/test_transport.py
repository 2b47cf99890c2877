"""Couplings of two clouds of cells, against those of known maps."""

import numpy as np
import pytest
from oracles import standardised

from wlm.core.transport import assignment, coupling, interpolate, partners


def test_populations_are_coupled_in_parts_when_large():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(80, 2)), rng.normal(size=(80, 2)) + [4.0, 0.0]
    few = interpolate(x, y[:3], 1.0)
    assert len(np.unique(few.round(4), axis=0)) == 3
    parts = partners(x, y, np.random.default_rng(0), size=30)
    assert np.array_equal(np.unique(parts, axis=0), np.unique(y, axis=0))


def test_weights_decide_who_partners_whom():
    """Two cells, two places: with weights 9:1 on both sides everyone stays, without on one side most must move."""
    x = np.repeat([[0.0, 0.0], [10.0, 0.0]], 200, axis=0)
    heavy = np.repeat([0.9, 0.1], 200)
    stay = interpolate(x, x, 1.0, a=heavy, b=heavy)
    assert np.allclose(stay, x)
    move = interpolate(x, x, 1.0, b=heavy)
    assert (move[200:, 0] < 5).mean() == pytest.approx(0.8, abs=0.08) and np.allclose(move[:200], x[:200])


def test_the_coupling_of_a_cloud_and_its_stretched_image_is_the_stretch():
    """A gradient of a convex function is optimal; whatever the order, and with weights of its own for each cell."""
    rng = np.random.default_rng(0)
    x = standardised(60, 2)
    order, w = rng.permutation(60), rng.uniform(0.1, 3, 60)
    y = (x @ np.array([[2.0, 0.5], [0.5, 1.0]]) + [1.0, -3.0])[order]
    i, j, mass = coupling(x, y, w, w[order])
    plan = np.zeros((60, 60))
    plan[i, order[j]] = mass
    np.testing.assert_allclose(plan, np.diag(w / w.sum()), atol=1e-12)
    columns, cost = assignment(x, y)
    assert np.array_equal(order[columns], np.arange(60))
    np.testing.assert_allclose(cost, np.square(x - y[columns]).sum(1))
    np.testing.assert_allclose(assignment(x, y, "euclidean")[1].mean(), np.sqrt(cost).mean(), rtol=0.1)


def test_a_partner_is_drawn_in_proportion_to_the_mass_between():
    """Many cells in one place, and three places of known weight: each gets its share of the cells."""
    x, y = np.zeros((1, 2)), np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
    weights, rng = np.array([7.0, 2.0, 1.0]), np.random.default_rng(0)
    drawn = np.array([partners(x, y, rng, None, weights)[0, 0] for _ in range(2000)])
    found = [(drawn == place).mean() for place in (1, 2, 3)]
    np.testing.assert_allclose(found, [0.7, 0.2, 0.1], atol=0.04)


def test_interpolation_goes_the_share_of_the_way():
    x = standardised(40, 2)
    np.testing.assert_allclose(interpolate(x, 2 * x + [1.0, 0.0], 0.25), 1.25 * x + [0.25, 0.0], atol=1e-12)
    heavy = np.where(np.arange(40) < 20, 9.0, 1.0)
    np.testing.assert_allclose(interpolate(x, 2 * x, 0.5, a=heavy, b=heavy), 1.5 * x, atol=1e-12)
