"""Chains of cells and the splines through them: motions with known velocities."""

import numpy as np
import pytest

from wlm.core import chains as module
from wlm.core.chains import spline_interpolation, spline_velocities
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


def test_the_interpolation_passes_through_the_populations_and_along_the_motion():
    p = moving(circle, TURN)
    at, between = (spline_interpolation(p, t) for t in (TURN[2], TURN[2] + np.pi / 8))
    np.testing.assert_allclose(np.sort(at, 0), np.sort(p.positions[2], 0), atol=1e-9)
    true = p.positions[2] - circle(TURN[2]) + circle(TURN[2] + np.pi / 8)
    np.testing.assert_allclose(np.sort(between, 0), np.sort(true, 0), atol=0.02)


def test_velocities_are_those_of_the_sample_that_is_trained_on(monkeypatch):
    """Of many cells, all get velocities, and those of the sample are what training starts with."""
    p = moving(circle, TURN)
    monkeypatch.setattr("wlm.core.populations.MOST", 20)
    some, velocities = p.sampled(), spline_velocities(p)
    for x, v, y, w in zip(p.positions, velocities, some.positions, spline_velocities(some), strict=True):
        rows = [int(np.flatnonzero((x == cell).all(1))[0]) for cell in y]
        np.testing.assert_allclose(v[rows], w, atol=1e-6)


def test_the_spline_is_the_natural_one():
    """Through 0, 1, 0 it is (3 t - t^3) / 2 up to the middle, whose slope is 3/2 at first and 0 in the middle."""
    p = moving(lambda t: np.array([1.0 - (t - 1.0) ** 2, 0.0]), (0.0, 1.0, 2.0), spread=1e-6)
    np.testing.assert_allclose(spline_interpolation(p, 0.5)[:, 0], (1.5 - 0.125) / 2, atol=1e-4)
    for v, slope in zip(spline_velocities(p), (1.5, 0.0, -1.5), strict=True):
        np.testing.assert_allclose(v[:, 0], slope, atol=1e-4)


def test_training_starts_with_velocities_of_paths_where_they_bend_or_are_asked_for():
    turning, resting = moving(circle, TURN), moving(lambda t: np.zeros(2), TURN)
    with_velocity = Populations(turning.times, turning.positions, turning.positions)
    needs = lambda p, **o: train(p, WLM(**SMALL, **o)).dynamics.needs_velocity  # noqa: E731
    assert needs(turning) and not needs(resting)
    assert needs(resting, initial_velocity="paths") and not needs(turning, initial_velocity="learned")
    assert IJKOnet().prepare(turning) == (turning, {})
    prepared, notes = WLM().prepare(with_velocity)  # measured ones are not replaced
    assert prepared is with_velocity and notes["choice"]["path"] == "rollout"
    for start in ("spline", "paths"):
        with pytest.raises(ValueError, match="no use for measured velocities"):
            train(with_velocity, WLM(initial_velocity=start, **SMALL))


def test_paths_give_the_velocities_of_the_motion_and_say_what_they_are():
    p, note = WLM().prepare(moving(circle, TURN))
    for t, v in zip(TURN, p.velocities, strict=True):
        # The field may turn the cloud as well, which cells in random order do not show: the mean is that of the motion.
        assert np.abs(v.mean(0) - [-np.sin(t), np.cos(t)]).max() < 0.2 and v.dtype == np.float32
    assert note["choice"]["path"].endswith("spline") and "cells follow" in note["choice"]["words"]
    splines, note = WLM(initial_velocity="spline").prepare(moving(circle, TURN))
    for v, expected in zip(splines.velocities, spline_velocities(moving(circle, TURN)), strict=True):
        np.testing.assert_array_equal(v, expected)
    assert note["choice"]["path"] == "spline"


@pytest.mark.parametrize("few", [moving(circle, TURN[:3]), moving(circle, TURN, n=9)])
def test_too_few_times_or_cells_are_said(few):
    unchanged, note = WLM().prepare(few)
    assert unchanged is few and note["choice"]["path"] == "straight"
    assert note["choice"]["words"].startswith("there are too few times or cells")
    with pytest.raises(ValueError, match="needs 4 training times of 10 cells at least.*choose 'learned'"):
        WLM(initial_velocity="paths").prepare(few)
    assert WLM(initial_velocity="spline").prepare(few)[0].velocities is not None


def test_straight_paths_leave_the_start_to_be_learned():
    resting = moving(lambda t: np.zeros(2), TURN)
    unchanged, note = WLM().prepare(resting)
    assert unchanged is resting and note["choice"]["path"] == "straight"
    assert note["choice"]["words"].endswith("initial velocities are learned")
