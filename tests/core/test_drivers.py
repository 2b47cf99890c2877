"""What goes with a fate: against numpy, against permutations counted one by one, rotations drawn, and closed forms."""

from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from wlm.core.drivers import (
    covariance,
    fate_gradient,
    means,
    permutation_p,
    permuted_slopes,
    resampled_slopes,
    rotation_p,
    slopes,
)
from wlm.core.dynamics import Dynamics
from wlm.core.methods import METHODS
from wlm.core.model import Model, Spec
from wlm.core.particles import Particles
from wlm.core.populations import Populations
from wlm.core.training import train
from wlm.core.units import Units


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    times = np.repeat([0.0, 1.0, 3.0], [40, 30, 50])
    p = rng.random(120)
    return rng.normal(size=(120, 4)) + 100 + p[:, None] * [1, 0, -1, 2], p, times


def test_slopes_are_numpys_covariances_over_deviations(cells):
    x, p, times = cells
    found = slopes(x, p, times)
    for row, t in zip(found, np.unique(times), strict=True):
        i = times == t
        expected = np.cov(np.column_stack([p, x])[i].T, ddof=0)[0, 1:] / p[i].std()
        assert np.allclose(row, expected)
    assert np.allclose(means(x, times)[2], x[times == 3].mean(0))
    pooled = sum(np.cov(x[times == t].T, ddof=0) * (times == t).sum() for t in np.unique(times)) / len(x)
    assert np.allclose(covariance(x, times), pooled)


def test_a_weight_counts_as_that_many_cells(cells):
    x, p, times = cells
    w = np.random.default_rng(1).integers(1, 4, len(p))
    again = np.repeat(np.arange(len(p)), w)
    for f in (slopes, lambda x, p, t, w=None: means(x, t, w)):
        assert np.allclose(f(x, p, times, w.astype(float)), f(x[again], p[again], times[again]))
    some = times == 1
    one = covariance(x[some], times[some], w[some].astype(float))
    assert np.allclose(one, np.cov(x[again][times[again] == 1].T, ddof=0))


def test_cells_that_all_have_the_same_fate_say_nothing(cells):
    x, p, times = cells
    found = slopes(x, np.where(times == 1, 0.3, p), times)
    assert (found[1] == 0).all() and (found[[0, 2]] != 0).all()


def test_permuted_fates_stay_in_their_time_and_have_all_values(cells):
    x, p, times = cells
    null = permuted_slopes(np.column_stack([p, x]), p, times, 300, np.random.default_rng(0))
    assert null.shape == (300, 3, 5)
    for k, t in enumerate((0, 1, 3)):  # of a fate with itself permuted: sd times a correlation of mean 0
        assert np.abs(null[:, k, 0]).max() < p[times == t].std() and abs(null[:, k, 0].mean()) < 0.02


def test_p_values_of_permutations_are_those_of_all_permutations():
    rng = np.random.default_rng(2)
    x, p, times = rng.normal(size=(6, 1)), rng.random(6), np.zeros(6)
    every = np.array([abs(slopes(x, np.array(q), times)[0, 0]) for q in permutations(p)])
    found = slopes(x, p, times)[0]
    exact = (every >= abs(found[0]) * (1 - 1e-9)).mean()
    null = permuted_slopes(x, p, times, 20000, rng)[:, 0]
    assert permutation_p(found, null)[0] == pytest.approx(exact, abs=0.012)
    assert permutation_p(np.array([9.0]), null)[0] == 1 / 20001


def test_intervals_of_resampled_means_are_standard_errors(cells):
    x, p, times = cells
    drawn = resampled_slopes(x, None, times, 2000, np.random.default_rng(0))
    assert np.allclose(drawn.std(0)[2], x[times == 3].std(0) / np.sqrt(50), rtol=0.1)
    drawn = resampled_slopes(x, p, times, 2000, np.random.default_rng(0))
    assert np.allclose(drawn.mean(0), slopes(x, p, times), atol=0.05)


def test_rotations_in_closed_form_are_those_that_are_drawn():
    rng = np.random.default_rng(3)
    root = rng.normal(size=(6, 6))
    cov, loadings, direction = root @ root.T, rng.normal(size=(5, 6)), rng.normal(size=6)
    half = np.linalg.cholesky(cov)  # any root of the covariance
    turned = rng.normal(size=(40000, 6))
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    goal = np.linalg.solve(half, direction)
    for p, row in zip(rotation_p(loadings, direction, cov), loadings, strict=True):
        own = half.T @ row
        drawn = np.abs(turned @ goal) * np.linalg.norm(own)
        assert p == pytest.approx((drawn >= abs(own @ goal)).mean(), abs=0.01)
    assert abs(loadings[0] @ direction) == pytest.approx(abs(half.T @ loadings[0] @ goal))


def test_rotations_of_random_loadings_are_uniform_and_of_one_dimension_say_nothing():
    rng = np.random.default_rng(4)
    p = rotation_p(rng.normal(size=(3000, 8)), rng.normal(size=8), np.eye(8))
    assert kstest(p, "uniform").pvalue > 0.01
    assert (rotation_p(rng.normal(size=(3, 1)), np.ones(1), np.eye(1)) == 1).all()


class Growing(Model):
    """Cells go from the mean of their population at a rate: where each ends is known."""

    rate = 0.4
    differentiable = True

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def initial_velocity(self, x):
        return None

    def rollout(self, start, times, generator):
        mean = (start.shares.unsqueeze(-1) * start.x).sum(0)
        path = [mean + (start.x - mean) * torch.exp(self.rate * (t - times[0])) for t in times]
        path = torch.stack(path)
        return Particles(path if self.differentiable else path.detach())

    def energy(self, p, t):
        raise NotImplementedError

    def force(self, p, t):
        raise NotImplementedError

    def constants(self):
        return {}


def test_gradients_are_those_of_a_closed_form_in_the_units_of_the_data():
    rng = np.random.default_rng(5)
    units = Units(np.array([3.0, -1.0]), 2.5, 1.0, 2.0)
    dynamics = Dynamics(Growing(), SimpleNamespace(name="growing"), Spec(2, 0.1, False, 2), units)
    x, a, b = rng.normal(size=(30, 2)) * 2 + [3, -1], np.array([0.7, -0.3]), -1.1
    w = rng.uniform(0.5, 2, 30)
    p, gradient = fate_gradient(dynamics, x, None, (2.0, 5.0), (a, b), w=w)
    growth, mean = np.exp(0.4 * 3 / 2), np.average(x, axis=0, weights=w)
    expected = 1 / (1 + np.exp(-((mean + (x - mean) * growth) @ a + b)))
    assert np.allclose(p, expected, atol=2e-4)
    # The mean of the others does not move with a cell that is felt by none.
    assert np.allclose(gradient, (expected * (1 - expected))[:, None] * a * growth, atol=2e-5)
    dynamics.model.differentiable = False
    assert fate_gradient(dynamics, x, None, (2.0, 5.0), (a, b)) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("wlm", {"n_steps": 5, "width": 16, "hidden": 16, "batch_size": 30, "initial_velocity": "learned"}),
        ("flow", {"path": "straight"}),
        ("jkonet_star", {"n_steps": 5}),
        ("ijkonet", {"n_steps": 5}),
    ],
)
def test_gradients_are_differences_of_rollouts_with_every_method(method, options):
    rng = np.random.default_rng(6)
    cells = tuple(rng.normal(size=(40, 2)) * (1 + t) + t for t in range(3))
    dynamics = train(Populations(np.arange(3.0), cells), METHODS[method].from_options(options), seed=0).dynamics
    x, fate = cells[1].astype(np.float32), (np.array([0.8, -0.5]), 0.1)
    v = np.tile(np.float32([1.0, 0.5]), (40, 1))
    gradient = fate_gradient(dynamics, x, v, (1.0, 2.0), fate)[1]

    def probability(cell, step):
        light = np.append(np.ones(40), 1e-4)
        moved = np.concatenate([x, x[[cell]] + step])
        end = dynamics.simulate(moved, [1.0, 2.0], v=np.concatenate([v, v[[cell]]]), w=light)[0][-1, -1]
        return 1 / (1 + np.exp(-(end.astype(np.float64) @ fate[0] + fate[1])))

    for cell in (0, 7):
        for k, step in enumerate(0.05 * np.eye(2, dtype=np.float32)):
            difference = (probability(cell, step) - probability(cell, -step)) / 0.1
            assert gradient[cell, k] == pytest.approx(difference, rel=0.05, abs=2e-3)
