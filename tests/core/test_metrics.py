"""Distances between clouds against closed forms and their definitions."""

import numpy as np
import ot
import pytest
from oracles import gaussian_w2, standardised

from wlm.core.metrics import METRICS, energy, mmd, w1, w2


@pytest.mark.parametrize("name", sorted(METRICS))
def test_metrics_are_zero_on_equal_clouds_symmetric_and_increasing(name):
    metric, x = METRICS[name], np.random.default_rng(0).normal(size=(60, 3))
    assert metric(x, x[::-1]) == pytest.approx(0, abs=1e-6)
    assert metric(x, x + 1) == pytest.approx(metric(x + 1, x)) and metric(x, x + 1) < metric(x, x + 2)


def test_transport_distances_in_closed_form():
    x = np.random.default_rng(0).normal(size=(50, 2))
    assert w1(x, x + [3, 4]) == pytest.approx(5) and w2(x, x + [3, 4]) == pytest.approx(5)
    assert w1(np.zeros((2, 1)), np.array([[1.0], [3.0], [5.0]])) == pytest.approx(3)
    a, b = x[:, :1], np.random.default_rng(1).normal(size=(50, 1))
    assert w1(a, b) == pytest.approx(ot.wasserstein_1d(a.ravel(), b.ravel()))


def test_mmd_against_its_definition():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 2)), rng.normal(size=(5, 2)) + 1
    z = np.concatenate([x, y])
    square = ((z[:, None] - z[None]) ** 2).sum(-1)
    h = square[~np.eye(12, dtype=bool)].mean()
    k = lambda a, b: sum(np.exp(-((a - b) ** 2).sum() / (h * 2.0**e)) for e in range(-2, 3))  # noqa: E731
    mean = lambda p, q: np.mean([[k(a, b) for b in q] for a in p])  # noqa: E731
    assert mmd(x, y) == pytest.approx(mean(x, x) + mean(y, y) - 2 * mean(x, y))


@pytest.mark.parametrize("name", sorted(METRICS))
def test_weights_in_metrics_count_cells(name):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 3)), rng.normal(size=(40, 3)) + 0.5
    a, b = rng.integers(1, 4, 30), rng.integers(1, 4, 40)
    expected = METRICS[name](np.repeat(x, a, axis=0), np.repeat(y, b, axis=0))
    # MMD's bandwidth is that of the different points, so repeats change it a little.
    assert METRICS[name](x, y, a, b) == pytest.approx(expected, rel=0.05 if name == "mmd" else 1e-6)
    assert METRICS[name](x, y, np.ones(30), np.ones(40)) == pytest.approx(METRICS[name](x, y))


def test_energy_distance_of_points_and_of_normal_samples():
    assert energy(np.zeros((1, 1)), np.full((1, 1), 3.0)) == pytest.approx(6)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 3000, 1))
    x, y = x - x.mean(), y - y.mean()
    # For N(0, 1) and N(m, 1): 2 E|X - Y| - 2 E|X - X'|, with the mean of a folded normal.
    from scipy.stats import norm

    m, s = 1.5, np.sqrt(2)
    folded = s * np.sqrt(2 / np.pi) * np.exp(-(m**2) / 4) + m * (1 - 2 * norm.cdf(-m / s))
    assert energy(x, y + m) == pytest.approx(2 * folded - 4 / np.sqrt(np.pi), rel=0.05)
    w = rng.integers(1, 4, size=len(x))
    assert energy(x, y, w) == pytest.approx(energy(np.repeat(x, w, axis=0), y))


def test_w2_of_an_affine_image_is_that_of_gaussians():
    """The optimal map between a cloud and its image under a symmetric positive map is that map, as for Gaussians."""
    x = standardised(200, 2)
    a = np.array([[1.5, 0.4], [0.4, 0.7]])
    expected = gaussian_w2(np.zeros(2), np.eye(2), np.array([1.0, 2.0]), a @ a.T)
    assert w2(x, x @ a + [1.0, 2.0]) == pytest.approx(expected, rel=1e-6)
