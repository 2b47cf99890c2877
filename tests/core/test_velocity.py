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
