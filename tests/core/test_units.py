"""Standard units: what they standardise, and that they are one affine map."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wlm.core.populations import Populations
from wlm.core.units import Units

NUMBERS = st.floats(-1e3, 1e3, width=32)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(2, 9), min_size=2, max_size=4).flatmap(
        lambda sizes: st.tuples(*(arrays(np.float64, (n, 3), elements=NUMBERS) for n in sizes))
    ),
    st.floats(-50, 50),
    st.lists(st.floats(0.1, 20), min_size=4, max_size=4),
)
def test_every_time_weighs_the_same_in_mean_and_variance(positions, origin, gaps):
    times = origin + np.concatenate([[0], np.cumsum(gaps)])[: len(positions)]
    if max(np.ptp(x) for x in positions) < 1e-3 and np.ptp([x.mean() for x in positions]) < 1e-3:
        return
    units = Units.of(Populations(times, positions))
    standard = [units.standard_position(x) for x in positions]
    size = max(np.abs(x).max() for x in positions) / units.length  # what is lost by subtraction
    np.testing.assert_allclose(np.mean([z.mean(0) for z in standard], axis=0), 0, atol=1e-12 * (1 + size))
    assert np.mean([np.square(z).mean() for z in standard]) == pytest.approx(1, rel=1e-9)
    for x, z in zip(positions, standard, strict=True):
        np.testing.assert_allclose(units.data_position(z), x, atol=1e-9)
    t = units.standard_time(times)
    assert t[0] == 0 and np.diff(t).mean() == pytest.approx(1)
    np.testing.assert_allclose(np.diff(t) / t[-1], np.diff(times) / (times[-1] - times[0]))


def test_a_velocity_is_a_length_over_a_time():
    """Cells that move by (6, 0) in 4 units of time do so in standard units too."""
    x = np.random.default_rng(0).normal(size=(20, 2))
    units = Units.of(Populations(np.array([3.0, 7.0]), (x, x + [6.0, 0.0])))
    step = units.standard_position(x + [6.0, 0.0]) - units.standard_position(x)
    speed = step / (units.standard_time(7.0) - units.standard_time(3.0))
    np.testing.assert_allclose(speed * units.velocity, np.tile([1.5, 0.0], (20, 1)), atol=1e-12)


def test_cells_in_one_place_have_no_length():
    with pytest.raises(ValueError, match="nothing to learn"):
        Units.of(Populations(np.array([0.0, 1.0]), (np.ones((3, 2)), np.ones((2, 2)))))
