"""Sisters: shares, distances and scores against loops and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from wlm.core.clones import (
    bootstrap,
    brier,
    calibration_curve,
    calibration_error,
    correct,
    distances,
    sister_shares,
)


def test_sisters_are_later_cells_of_the_same_clone():
    shares = sister_shares(np.array([0, 1, -1, 2]), np.array([0, 0, -1, 1, 3]))
    assert np.array_equal(shares, [[0.5, 0.5, 0, 0, 0], [0, 0, 0, 1, 0], [0] * 5, [0] * 5])


def test_distances_are_means_over_sisters_and_over_all():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, 4)), rng.normal(size=(5, 4))
    own, every = distances(x, y, sister_shares(np.array([0, 1, 2]), np.array([0, 0, 1, 2, 2])))
    apart = [[np.linalg.norm(a - b) for b in y] for a in x]
    assert np.allclose(own, [np.mean(apart[0][:2]), apart[1][2], np.mean(apart[2][3:])])
    assert np.allclose(every, np.mean(apart, axis=1))


def test_ties_count_in_part():
    truth = np.array([[1, 0, 0], [0.5, 0.5, 0], [0, 0, 1], [0.4, 0.3, 0.3]])
    probability = np.array([[0.6, 0.3, 0.1], [0.6, 0.3, 0.1], [0.4, 0.2, 0.4], [0.1, 0.9, 0]])
    assert correct(probability, truth).tolist() == [1, 0.5, 0.5, 0]


def test_brier_is_that_of_every_sister():
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(2), 20)
    truth = rng.choice([0, 0.25, 0.5, 1], 20)
    sisters = [np.repeat([1, 0], [round(4 * q), 4 - round(4 * q)]) for q in truth]
    expected = [2 * brier_score_loss(s, np.full(4, a), labels=[0, 1]) for s, a in zip(sisters, p[:, 0], strict=True)]
    assert np.allclose(brier(p, np.stack([truth, 1 - truth], 1)), expected)
    assert brier(np.array([[1.0, 0], [1, 0]]), np.array([[1.0, 0], [0, 1]])).tolist() == [0, 2]


def test_calibration_is_the_difference_by_bins():
    rng = np.random.default_rng(3)
    p = rng.random(40000)
    both, weights = np.stack([p, 1 - p], axis=1), np.ones(len(p))
    hit = rng.random(len(p)) < p
    honest = np.stack([hit, ~hit], axis=1).astype(float)
    assert calibration_error(both, honest, weights) < 0.01
    # Errors of two labels with nearly the same probability do not cancel.
    unsure, first = np.tile([0.45, 0.55], (4, 1)), np.tile([1.0, 0.0], (4, 1))
    assert calibration_error(unsure, first, np.ones(4)) == pytest.approx(0.55)
    # As sure as can be, and right as often as a probability of 0.3 says.
    sure, right = np.tile([1.0, 0.0], (len(p), 1)), (rng.random(len(p)) < 0.3).astype(float)
    truth = np.stack([right, 1 - right], axis=1)
    assert calibration_error(sure, truth, weights) == pytest.approx(0.7, abs=0.01)
    assert calibration_error(sure, truth, right + 1e-9) == pytest.approx(0, abs=1e-6)  # of those that are right


def test_the_calibration_curve_is_that_of_the_bins():
    p = np.array([[0.1, 0.9], [0.3, 0.7], [0.3, 0.7]])
    truth = np.array([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
    mean, share, n = calibration_curve(p, truth, np.array([1.0, 1.0, 3.0]))
    assert n.tolist() == [1, 4, 0, 4, 1] and np.isnan([mean[2], share[2]]).all()
    assert np.allclose(mean[[0, 1, 3, 4]], [0.1, 0.3, 0.7, 0.9])
    assert np.allclose(share[[0, 1, 3, 4]], [0, (1 + 1.5) / 4, 1.5 / 4, 1])
    assert calibration_curve(np.ones((2, 1)), np.ones((2, 1)), np.ones(2))[2].tolist() == [0, 0, 0, 0, 2]


def test_intervals_are_those_of_clones_and_not_of_cells():
    rng = np.random.default_rng(2)
    clones = np.repeat(np.arange(40), 25)
    values = rng.normal(size=40)[clones]  # all cells of a clone are alike

    def mean(w):
        return float(np.average(values, weights=w))

    low, high = bootstrap(mean, clones, 2000, rng)
    assert (high - low) / 2 == pytest.approx(1.96 * values[::25].std() / np.sqrt(40), rel=0.15)
    assert np.isnan(bootstrap(mean, clones, 0, rng)).all()
