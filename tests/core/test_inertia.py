"""Inertia from populations alone: motions with known velocities, and populations without any."""

import numpy as np
import pytest

from wlm.core import inertia as module
from wlm.core.chains import spline_interpolation
from wlm.core.inertia import Inertia, measure_inertia, spline_velocities
from wlm.core.methods import WLM, IJKOnet
from wlm.core.populations import Populations
from wlm.core.training import train

SMALL = {"width": 8, "heads": 2, "hidden": 16, "n_inducing": 2, "batch_size": 32, "n_steps": 2}


def moving(shift, times, n=60, spread=0.3, seed=0, weights=None):
    """One cloud, carried along by ``shift`` (t -> (2,)) without changing its shape, its cells in random order."""
    rng = np.random.default_rng(seed)
    cloud = spread * rng.normal(size=(n, 2))
    x = tuple((cloud + shift(t))[rng.permutation(n)] for t in times)
    return Populations(np.asarray(times, dtype=float), x, None, weights)


def circle(t):
    return np.array([np.cos(t), np.sin(t)])


def straight(t):
    return np.array([2.0, -1.0]) * t


TURN = np.linspace(0, 2 * np.pi, 9)


def test_cells_that_turn_keep_their_velocity():
    inertia = measure_inertia(moving(circle, TURN))
    np.testing.assert_array_equal(inertia.times, TURN[1:-1])
    # The chord between neighbours of a left-out point is a quarter of the circle: it passes this much inside.
    np.testing.assert_allclose(inertia.straight, 1 - np.cos(np.pi / 4), rtol=1e-3)
    assert inertia.found and inertia.spline.max() < 0.5 * inertia.straight.min()


def test_velocities_are_those_of_the_motion():
    for k, v in enumerate(spline_velocities(p := moving(circle, TURN))):
        true = np.array([-np.sin(TURN[k]), np.cos(TURN[k])])
        assert v.shape == p.positions[k].shape and v.dtype == np.float32
        # Natural splines are straight at their ends, circles are not.
        assert np.abs(v - true).max() < (0.4 if k in (0, 8) else 0.1)
    for v in spline_velocities(moving(straight, (0.0, 1.0, 4.0))):
        np.testing.assert_allclose(v, np.tile([2.0, -1.0], (60, 1)), atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_cells_outside_the_chains_get_the_velocity_of_their_neighbours(monkeypatch, weighted):
    monkeypatch.setattr(module, "N_CHAINS", 25)
    weights = tuple(np.linspace(1, 3, 60) for _ in TURN) if weighted else None
    parts = spline_velocities(moving(straight, TURN, weights=weights))
    # Chains of different random cells are not parallel, so that only the mean is that of the motion.
    assert np.isfinite(parts).all()
    np.testing.assert_allclose(np.mean(parts, axis=(0, 1)), [2, -1], atol=0.1)


def test_the_order_of_cells_and_units_do_not_matter():
    p = moving(circle, TURN)
    rng = np.random.default_rng(1)
    orders = [rng.permutation(60) for _ in TURN]
    mixed = Populations(3 * p.times, tuple(5 * x[o] for x, o in zip(p.positions, orders, strict=True)))
    for v, w, order in zip(spline_velocities(p), spline_velocities(mixed), orders, strict=True):
        np.testing.assert_allclose(w, 5 / 3 * v[order], atol=1e-5)
    np.testing.assert_allclose(measure_inertia(mixed).spline, 5 * measure_inertia(p).spline)


@pytest.mark.parametrize("n", [10, 50, 300])
@pytest.mark.parametrize("seed", range(3))
def test_populations_without_inertia_are_not_taken_for_inertial(n, seed):
    rng = np.random.default_rng(seed)
    times = np.arange(6.0)
    x = rng.normal(size=(n, 3))
    walk = [x := x + 0.5 * rng.normal(size=x.shape) for _ in times]
    spreading = [rng.normal(size=(n, 3)) * (1 + t) for t in times]
    relaxing = [rng.normal(size=(n, 3)) + 4 * np.exp(-t) for t in times]
    for clouds in (walk, spreading, relaxing):
        assert not measure_inertia(Populations(times, tuple(clouds))).found


def test_straight_lines_through_all_times_are_no_sign_of_it():
    inertia = measure_inertia(moving(straight, (0.0, 1.0, 3.0, 4.0)))
    np.testing.assert_allclose([inertia.straight, inertia.spline], 0, atol=1e-9)
    assert not inertia.found


def test_three_times_do_not_tell():
    p = moving(circle, TURN[:3])
    assert measure_inertia(p) is None
    assert WLM().prepare(p) == (p, {})
    assert WLM(initial_velocity="spline").prepare(p)[0].velocities is not None


def test_training_starts_with_them_where_they_are_found_or_asked_for():
    turning, resting = moving(circle, TURN), moving(lambda t: np.zeros(2), TURN)
    with_velocity = Populations(turning.times, turning.positions, turning.positions)
    needs = lambda p, **o: train(p, WLM(**SMALL, **o)).dynamics.needs_velocity  # noqa: E731
    assert needs(turning) and not needs(resting)
    assert needs(resting, initial_velocity="spline") and not needs(turning, initial_velocity="learned")
    assert IJKOnet().prepare(turning) == (turning, {})
    assert WLM().prepare(with_velocity) == (with_velocity, {})  # measured ones are not replaced
    with pytest.raises(ValueError, match="no use for measured velocities"):
        train(with_velocity, WLM(initial_velocity="spline", **SMALL))


def test_the_interpolation_passes_through_the_populations_and_along_the_motion():
    p = moving(circle, TURN)
    at, between = (spline_interpolation(p, t) for t in (TURN[2], TURN[2] + np.pi / 8))
    np.testing.assert_allclose(np.sort(at, 0), np.sort(p.positions[2], 0), atol=1e-9)
    true = p.positions[2] - circle(TURN[2]) + circle(TURN[2] + np.pi / 8)
    np.testing.assert_allclose(np.sort(between, 0), np.sort(true, 0), atol=0.02)


def test_few_cells_do_not_tell():
    assert measure_inertia(moving(circle, TURN, n=9)) is None and measure_inertia(moving(circle, TURN, n=10)).found


def test_velocities_are_those_of_the_sample_that_is_trained_on(monkeypatch):
    """Of many cells, all get velocities, and those of the sample are what training starts with."""
    p = moving(circle, TURN)
    monkeypatch.setattr("wlm.core.populations.MOST", 20)
    some, velocities = p.sampled(), spline_velocities(p)
    for x, v, y, w in zip(p.positions, velocities, some.positions, spline_velocities(some), strict=True):
        rows = [int(np.flatnonzero((x == cell).all(1))[0]) for cell in y]
        np.testing.assert_allclose(v[rows], w, atol=1e-6)
    np.testing.assert_array_equal(measure_inertia(p).spline, measure_inertia(some).spline)


def test_the_spline_is_the_natural_one():
    """Through 0, 1, 0 it is (3 t - t^3) / 2 up to the middle, whose slope is 3/2 at first and 0 in the middle."""
    p = moving(lambda t: np.array([1.0 - (t - 1.0) ** 2, 0.0]), (0.0, 1.0, 2.0), spread=1e-6)
    np.testing.assert_allclose(spline_interpolation(p, 0.5)[:, 0], (1.5 - 0.125) / 2, atol=1e-4)
    for v, slope in zip(spline_velocities(p), (1.5, 0.0, -1.5), strict=True):
        np.testing.assert_allclose(v[:, 0], slope, atol=1e-4)


@pytest.mark.parametrize(
    ("straight", "spline", "found"),
    [
        ([1.0, 1.0, 1.0], [0.8, 0.8, 0.8], True),
        ([1.0, 1.0, 1.0], [0.95, 0.95, 0.95], False),  # better, but not by a tenth
        ([1.0, 1.0, 1.0], [0.1, 1.1, 1.1], False),  # by far, but at one of three times
        ([1.0, 1.0], [0.1, 1.1], False),
    ],
)
def test_inertia_is_found_where_splines_are_better_by_a_tenth_at_most_times(straight, spline, found):
    assert Inertia(np.arange(len(straight)), np.array(straight), np.array(spline)).found is found


def test_a_straight_line_through_irregular_times_goes_its_share_of_the_way():
    """Left out at a third of the way: in the units of a parabola t^2 the chord is off by (t - a)(b - t)."""
    times = (0.0, 1.0, 2.0, 5.0, 6.0)
    p = moving(lambda t: np.array([t**2, 0.0]), times, spread=1e-3)
    expected = [(t - a) * (b - t) for a, t, b in zip(times[:-2], times[1:-1], times[2:], strict=True)]
    np.testing.assert_allclose(measure_inertia(p).straight, expected, rtol=1e-2)
