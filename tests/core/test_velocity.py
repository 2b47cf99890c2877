"""Calibration of velocities: known motions have known speeds."""

import numpy as np
import pytest

from wlm.core.populations import Populations
from wlm.core.velocity import agreement


def rotation(angle, n_times=4, n=400, noise=0.0):
    """A blob that turns about the origin by ``angle`` per unit of time, with its velocities."""
    rng = np.random.default_rng(0)
    times = np.arange(n_times, dtype=float)
    positions, velocities = [], []
    for t in times:
        z = (3 + 0.3 * rng.normal(size=n) + 0.3j * rng.normal(size=n)) * np.exp(1j * angle * t)
        v = 1j * angle * z
        positions.append(np.stack([z.real, z.imag], 1))
        velocities.append(np.stack([v.real, v.imag], 1) + noise * rng.normal(size=(n, 2)))
    return Populations(times, tuple(positions), tuple(velocities))


@pytest.mark.parametrize("unit", [0.1, 1.0, 24.0])
def test_scale_recovers_the_unit_of_time(unit):
    true = rotation(0.5)
    given = Populations(true.times, true.positions, tuple(v * unit for v in true.velocities))
    # The trapezoidal rule along an arc of 0.5 is off by (0.5 / 2) / tan(0.5 / 2) = 2 %; samples add a little.
    assert agreement(given).scale * unit == pytest.approx(1, abs=0.05)


def test_cosines_are_one_along_the_motion_and_minus_one_against_it():
    true = rotation(0.3)
    along = agreement(true)
    back = agreement(Populations(true.times, true.positions, tuple(-v for v in true.velocities)))
    for inner in (1, 2):  # central differences have no bias along an arc
        assert np.median(along.cells[inner]) > 0.95 and np.median(back.cells[inner]) < -0.95
    assert back.scale == pytest.approx(-along.scale)


def test_noise_shrinks_the_scale():
    clean, noisy = agreement(rotation(0.5)), agreement(rotation(0.5, noise=1.5))
    # |v|^2 = (3 * 0.5)^2 = 2.25; the mean of two noisy velocities has noise 2 * 1.5^2 / 2.
    assert noisy.scale / clean.scale == pytest.approx(2.25 / (2.25 + 2.25), abs=0.08)


def test_times_without_velocities_are_left_out():
    true = rotation(0.5, n_times=5)
    velocities = list(true.velocities)
    velocities[4] = np.full_like(velocities[4], np.nan)
    found = agreement(Populations(true.times, true.positions, tuple(velocities)))
    assert found.scale == pytest.approx(1, abs=0.05)
    assert np.isnan(found.cells[4]).all() and np.isfinite(found.cells[0]).all()


def test_weights_count_as_copies():
    true = rotation(0.4, n=60)
    rng = np.random.default_rng(1)
    velocities = tuple(v * (1 + (rng.random(60) < 0.5))[:, None] for v in true.velocities)
    counts = [rng.integers(1, 4, 60) for _ in true.times]
    weighted = Populations(true.times, true.positions, velocities, tuple(c.astype(float) for c in counts))
    copied = Populations(
        true.times,
        *(
            tuple(np.repeat(a, c, axis=0) for a, c in zip(arrays, counts, strict=True))
            for arrays in (true.positions, velocities)
        ),
    )
    assert agreement(weighted).scale == pytest.approx(agreement(copied).scale, rel=1e-6)


def test_nothing_to_compare_is_refused():
    true = rotation(0.5)
    with pytest.raises(ValueError, match="no velocities to compare"):
        agreement(Populations(true.times, true.positions))
    with pytest.raises(ValueError, match="other than zero"):
        agreement(Populations(true.times, true.positions, tuple(0 * v for v in true.velocities)))


def expansion(times, n=150, unit=1.0):
    """Cells that move away from the origin, each at its own constant speed: transport by a gradient, so optimal."""
    x0 = np.random.default_rng(0).normal(size=(n, 2)) * [1.0, 2.0] + [0.5, 0.0]
    speed = x0 * [0.4, 0.2]
    order = [np.random.default_rng(k).permutation(n) for k in range(len(times))]
    x = tuple((x0 + t * speed)[i] for t, i in zip(times, order, strict=True))
    return Populations(np.asarray(times, float), x, tuple(unit * speed[i] for i in order))


@pytest.mark.parametrize("unit", [1.0, 5.0, -1.0])
def test_the_scale_is_exact_at_irregular_times(unit):
    given = expansion([0.0, 0.5, 2.5, 6.0], unit=unit)
    found = agreement(given)
    assert found.scale == pytest.approx(1 / unit, rel=1e-6)
    for cells in found.cells:  # of ten neighbours the drift is a mean
        assert np.median(np.sign(unit) * cells) > 0.98


def test_the_scale_weighs_cells_by_the_mass_that_is_coupled():
    """Half of the cells are given twice their velocity, and have nearly all of the weight."""
    true = expansion([0.0, 1.0])
    left = [x[:, 0] < np.median(x[:, 0]) for x in true.positions]
    velocities = tuple(v * np.where(side, 2.0, 1.0)[:, None] for v, side in zip(true.velocities, left, strict=True))
    for heavy, expected in ((1000.0, 0.5), (1e-3, 1.0)):
        weights = tuple(np.where(side, heavy, 1.0) for side in left)
        found = agreement(Populations(true.times, true.positions, velocities, weights)).scale
        assert found == pytest.approx(expected, rel=0.02)


def test_the_drift_of_an_inner_time_is_from_the_one_before_to_the_one_after():
    """Cells that go and come back faster: of the middle time the drift is the difference of both ways."""
    x = np.random.default_rng(0).normal(size=(100, 2))
    positions = (x, x + [2.0, 1.0], x + [0.0, 2.0])
    velocities = tuple(np.tile([0.0, 1.0], (100, 1)) for _ in positions)
    cells = agreement(Populations(np.array([0.0, 1.0, 2.0]), positions, velocities)).cells
    drifts = ([2.0, 1.0], [0.0, 2.0], [-2.0, 1.0])
    for found, drift in zip(cells, drifts, strict=True):
        np.testing.assert_allclose(found, drift[1] / np.hypot(*drift), atol=1e-5)
