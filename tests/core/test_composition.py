"""Price's equation against closed forms: who grows, who moves, and both at once."""

import numpy as np
import pytest

from wlm.core.composition import price


def test_clusters_at_rest_change_by_growth_alone():
    """Two clusters of equal size, rates 1 and 0: the share of the first is a logistic function of time."""
    times = np.linspace(0, 2, 5)
    w = np.exp(times[:, None] * np.array([1.0, 0.0]))
    phi = np.broadcast_to(np.array([1.0, 0.0]), w.shape)
    share = 1 / (1 + np.exp(-times))
    found = price(w, phi)
    np.testing.assert_allclose(found.growth, np.diff(share), atol=1e-12)
    np.testing.assert_allclose(found.motion, 0, atol=1e-12)


def test_a_front_that_passes_is_motion_alone_whatever_all_cells_multiply_by():
    x = np.linspace(0, 1, 101)[None] + np.linspace(0, 0.5, 6)[:, None]
    phi = (x > 1).astype(float)
    found = price(np.exp(3 * np.linspace(0, 1, 6))[:, None] * np.ones_like(x), phi)
    np.testing.assert_allclose(found.growth, 0, atol=1e-12)
    np.testing.assert_allclose(found.motion, np.diff(phi.mean(1)), atol=1e-12)


def test_a_gaussian_that_drifts_and_grows_by_a_linear_rate():
    """Mean of N(m, s^2) with the drift v and the rate bx: v t is motion, s^2 b t is growth, and the sum is exact."""
    rng, t, v, b, s = np.random.default_rng(0), np.linspace(0, 1, 41), 0.7, 0.8, 0.6
    z = rng.standard_normal(20000)
    x = s * np.concatenate([z, -z])[None] + v * t[:, None]
    log_w = b * (x[:1] * t[:, None] + v * t[:, None] ** 2 / 2)  # the integral of bx along each path
    found = price(np.exp(log_w), x)
    assert found.growth.sum() == pytest.approx(s**2 * b, rel=0.02)
    assert found.motion.sum() == pytest.approx(v, rel=1e-9)
    a = np.exp(log_w) / np.exp(log_w).sum(1, keepdims=True)
    np.testing.assert_allclose(found.growth + found.motion, np.diff((a * x).sum(1)), atol=1e-12)


def test_the_parts_do_not_depend_on_the_step_to_second_order():
    """Cells that move into the region where they multiply: rate x, path x = z + t, phi = x^2."""
    z = np.linspace(-1, 1, 201)

    def growth(n):
        t = np.linspace(0, 1, n + 1)[:, None]
        return price(np.exp(z * t + t**2 / 2), (z + t) ** 2).growth.sum()

    exact = growth(4096)
    errors = [abs(growth(n) - exact) for n in (8, 16, 32)]
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 2, atol=0.1)
