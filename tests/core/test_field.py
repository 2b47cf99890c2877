"""Paths and fields from populations alone: motions with known velocities, and the evidence in closed form."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from wlm.core.field import Basis, _likelihood, agreed, integrated, learn_paths, smoothness
from wlm.core.populations import Populations


def turning(times, n=60, rate=1.0, seed=0):
    """Cells that turn around the origin at one rate: position determines velocity."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2)) * [1.0, 0.3] + [2.0, 0.0]
    out = []
    for t in times:
        c, s = np.cos(rate * t), np.sin(rate * t)
        out.append((x @ np.array([[c, s], [-s, c]]))[rng.permutation(n)])
    return Populations(np.asarray(times, dtype=float), tuple(out))


def crossing(n=80, seed=0):
    """Two lineages that pass through each other at constant velocity, apart in the other dimension by nothing."""
    rng, times = np.random.default_rng(seed), np.arange(5.0)
    start = np.concatenate([rng.normal(scale=0.1, size=(n, 2)) - [2, 0], rng.normal(scale=0.1, size=(n, 2)) + [2, 0]])
    v = np.repeat([[1.0, 0.0], [-1.0, 0.0]], n, axis=0)
    return Populations(times, tuple((start + t * v)[rng.permutation(2 * n)] for t in times))


def test_the_field_of_a_rotation_is_found_with_its_velocities():
    times = np.linspace(0, np.pi, 5)
    paths = learn_paths(turning(times))
    assert paths.scale is not None and paths.error < 0.02 < paths.persistence and paths.bends
    true = np.stack([-paths.positions[..., 1], paths.positions[..., 0]], -1)
    assert np.abs(paths.velocities - true).max() < 0.25 and np.abs(paths.velocities - true).mean() < 0.06
    # Without it, splines are straight at both ends.
    curves = learn_paths(turning(times), path="spline")
    assert curves.scale is None and np.abs(curves.velocities - true)[0].mean() > 0.2


def test_units_and_the_order_of_cells_do_not_matter():
    p = turning(np.linspace(0, np.pi, 5))
    other = Populations(3 * p.times + 7, tuple(5 * x - 2 for x in p.positions))
    a, b = learn_paths(p), learn_paths(other)
    assert (a.scale, a.curved) == (b.scale, b.curved)
    np.testing.assert_allclose(b.positions, 5 * a.positions - 2, atol=1e-8)
    np.testing.assert_allclose(b.velocities, 5 / 3 * a.velocities, atol=1e-4)
    np.testing.assert_allclose([b.error, b.persistence, b.evidence], [a.error, a.persistence, a.evidence], rtol=1e-3)


def test_a_displacement_in_time_is_met_in_the_mean_over_an_interval():
    """Weak form: with intervals of unequal length, cells at constant velocity have that velocity."""
    rng, times = np.random.default_rng(0), np.array([0.0, 1.0, 3.0, 3.5, 6.0])
    x = rng.normal(size=(50, 2))
    p = Populations(times, tuple((x + t * np.array([2.0, -1.0]))[rng.permutation(50)] for t in times))
    paths = learn_paths(p)
    np.testing.assert_allclose(paths.velocities, np.broadcast_to([2.0, -1.0], paths.velocities.shape), atol=0.05)


def test_lineages_that_cross_have_no_field():
    """Where position does not determine velocity, persistence predicts better."""
    paths = learn_paths(crossing())
    assert paths.persistence < paths.error and paths.scale is None
    assert "position does not determine" in paths.words and paths.note()["path"] in ("spline", "straight")


def test_noise_is_led_straight():
    """Cells drawn anew at each time, as if they had jumped there: rough paths, so no curves."""
    rng = np.random.default_rng(0)
    paths = learn_paths(Populations(np.arange(7.0), tuple(rng.normal(size=(100, 3)) for _ in range(7))))
    assert paths.scale is None or paths.error > 0.7


@pytest.mark.parametrize(("times", "n"), [((0.0, 1.0, 2.0), 60), ((0.0, 1.0, 2.0, 3.0), 9)])
def test_too_few_times_or_cells_do_not_tell(times, n):
    assert learn_paths(turning(times, n=n)) is None


def test_the_basis_is_the_same_and_linear_without_a_scale():
    x = np.random.default_rng(0).normal(size=(4, 3))
    assert np.array_equal(Basis.of(3, 1.0)(x), Basis.of(3, 1.0)(x)) and Basis.of(3, 1.0)(x).shape == (4, 154)
    np.testing.assert_array_equal(Basis.of(3, np.inf)(x), np.column_stack([np.ones(4), x]))
    # Waves of length scale * sqrt(d): the kernel that they stand for is Gaussian.
    many = Basis.of(2, 2.0, 20_000)
    waves = many(np.array([[0.0, 0.0], [1.0, 2.0]]))[:, 3:]
    assert waves[0] @ waves[1] == pytest.approx(np.exp(-5 / (2 * 4 * 2)), abs=0.02)


def test_the_likelihood_is_that_of_the_best_gaussian():
    """Of one kernel there is a closed form: c = tr(K^-1 S) / T."""
    rng, t = np.random.default_rng(0), np.arange(1.0, 5.0)
    kernel = np.minimum(*np.meshgrid(t, t)) + np.eye(4)
    draws = np.linalg.cholesky(2.5 * kernel) @ rng.normal(size=(4, 300))
    c = np.trace(np.linalg.solve(kernel, draws @ draws.T / 300)) / 4
    normal = multivariate_normal(np.zeros(4), c * kernel).logpdf(draws.T).mean() + 2 * np.log(2 * np.pi)
    assert _likelihood([kernel], draws @ draws.T / 300) == pytest.approx(normal, abs=1e-5)


def test_the_covariance_of_an_integrated_brownian_motion():
    """The motion is the integral of (t - r) dB(r): its covariance is that of these weights up to the earlier time."""
    r = (np.arange(20_000) + 0.5) / 10_000
    for s, u in ((0.5, 0.5), (0.5, 2.0), (1.7, 0.3)):
        weights = np.clip(s - r, 0, None) @ np.clip(u - r, 0, None) / 10_000
        assert integrated(np.array(s), np.array(u)) == pytest.approx(weights, rel=1e-3)


def test_smooth_paths_have_evidence_and_rough_ones_none():
    rng, t = np.random.default_rng(0), np.arange(6.0)
    steps = rng.normal(size=(6, 200, 2))
    rough = 1 + np.cumsum(steps, 0)
    smooth = 1 + np.cumsum(np.cumsum(steps, 0), 0)
    assert smoothness(t, smooth) > 0.3 and smoothness(t, rough) < -0.1
    assert smoothness(10 * t / 10, 7 * smooth) == pytest.approx(smoothness(t, smooth), rel=1e-3)


def test_conditions_agree_by_the_means_of_what_their_choices_rest_on():
    def note(path, evidence, error, persistence=0.5):
        return {"path": path, "evidence": evidence, "error": error, "persistence": persistence}

    field, line = note("field+spline", 0.4, 0.1), note("straight", -0.3, 0.7)
    assert agreed([field, line]) == "field+spline"
    assert agreed([field, line, line, line]) == "straight"
    assert agreed([note("field+spline", 0.4, 0.3), note("straight", -0.7, 0.6)]) == "field+straight"
    assert agreed([note("field+spline", 0.9, 0.3), note("straight", -0.6, 0.9)]) == "spline"
    assert agreed([field, field]) is None and agreed([field, {"path": "straight"}]) is None


@pytest.mark.parametrize("path", ["straight", "spline", "field+straight", "field+spline"])
def test_a_choice_that_is_made_is_kept(path):
    rng = np.random.default_rng(0)
    p = Populations(np.arange(4.0), tuple(rng.normal(size=(30, 2)) + t for t in range(4)))
    paths = learn_paths(p, path=path)
    assert paths.note()["path"] == path and paths.bends == (path != "straight")
