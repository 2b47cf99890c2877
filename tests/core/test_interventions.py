"""Moves that set genes: the least of all that do, and random ones of the same size."""

import numpy as np
import pytest
from scipy.optimize import minimize

from wlm.core.interventions import covariance, least_move, random_move, reach, size


@pytest.fixture
def law():
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(4, 4))
    return rng.normal(size=(400, 4)) @ mix, rng.normal(size=(2, 4))


def test_covariance_is_numpys_with_a_ridge_and_counts_weights_as_copies(law):
    x, _ = law
    ours = covariance(x)
    assert ours - np.cov(x.T) == pytest.approx(1e-3 * np.trace(np.cov(x.T)) / 4 * np.eye(4), abs=1e-9)
    w = np.where(np.arange(len(x)) < 100, 2.0, 1.0)
    assert covariance(x, w) == pytest.approx(covariance(np.concatenate([x, x[:100]])), rel=0.02)
    flat = np.column_stack([x[:, 0], x[:, 0]])
    assert np.linalg.cond(covariance(flat)) < 1e5


def test_the_least_move_sets_the_genes_and_no_smaller_one_does(law):
    x, weights = law
    sigma = covariance(x)
    wanted = np.array([[0.7, -1.2]])
    move = least_move(wanted, weights, sigma)
    assert move @ weights.T == pytest.approx(wanted)
    inverse = np.linalg.inv(sigma)
    constraint = {"type": "eq", "fun": lambda m: weights @ m - wanted[0]}
    found = minimize(lambda m: m @ inverse @ m, np.zeros(4), constraints=constraint, tol=1e-12)
    assert size(move, sigma)[0] ** 2 == pytest.approx(found.fun, rel=1e-3)


def test_the_least_move_is_the_regression_of_position_on_the_genes(law):
    x, weights = law
    genes = x @ weights.T
    slopes = np.linalg.lstsq(genes - genes.mean(0), x - x.mean(0), rcond=None)[0]
    assert least_move(np.eye(2), weights, np.cov(x.T)) == pytest.approx(slopes)


def test_genes_that_go_together_are_refused(law):
    x, weights = law
    with pytest.raises(ValueError, match="cannot be set one by one"):
        least_move(np.zeros((1, 2)), np.stack([weights[0], 2 * weights[0]]), covariance(x))


def test_random_moves_have_the_sizes_that_are_asked(law):
    x, weights = law
    sigma, sizes = covariance(x), np.array([0.5, 2.0, 0.0])
    moves = random_move(sizes, weights, sigma, np.random.default_rng(1))
    assert size(moves, sigma) == pytest.approx(sizes)


def test_reach_is_where_a_move_leaves_the_data():
    rng = np.random.default_rng(2)
    observed = rng.uniform(size=(4000, 2)).astype(np.float32) * [10, 1]
    x = observed[observed[:, 0] < 1]
    inside, share = reach(x, np.tile([[8.5, 0.0]], (len(x), 1)), observed)
    assert inside > 0.9 and share == 1
    inside, share = reach(x, np.tile([[18.0, 0.0]], (len(x), 1)), observed)
    assert inside == 0 and share == pytest.approx(0.5)
    assert reach(x, np.zeros((len(x), 2)), observed)[1] == 1
