"""Fitted dynamics in the units of the data, against springs of known strength and plans of another library."""

import numpy as np
import ot
import pytest
import torch
from oracles import Spring, dynamics, finite_difference, mechanics, standardised, units

from wlm.core.dynamics import CARRY_BLUR

#: Data units that are not the standard ones: 3 lengths, 2 times, another origin of each.
SCALE = units(length=3.0, time=2.0, location=(10.0, -5.0), origin=7.0)
CENTRE = np.array([10.0, -5.0])


def spring(rate, friction=0.0, scale=SCALE, step=0.02):
    return dynamics(mechanics(Spring(rate), friction, step), scale)


def test_a_spring_swings_with_its_frequency_in_units_of_the_data():
    """In standard units omega^2 is the rate, in those of the data it is by the square of a time unit less."""
    x, v, omega = standardised(30, 2) + CENTRE, standardised(30, 2, 1), np.sqrt(1.7) / 2
    times = np.array([7.0, 8.0, 11.0])
    positions, velocities, _ = spring(1.7).simulate(x, times, v=v)
    for t, xt, vt in zip(times - 7, positions, velocities, strict=True):
        z = x - CENTRE
        np.testing.assert_allclose(xt, CENTRE + z * np.cos(omega * t) + v / omega * np.sin(omega * t), atol=2e-3)
        np.testing.assert_allclose(vt, -z * omega * np.sin(omega * t) + v * np.cos(omega * t), atol=2e-3)


@pytest.mark.parametrize("friction", [0.0, 0.6])
def test_force_and_energy_have_the_units_of_the_data_and_the_mobility(friction):
    x = standardised(30, 2) + CENTRE
    model = spring(1.7, friction)
    strength = (1 + friction) * 1.7 / 4
    np.testing.assert_allclose(model.force(x, 7.0), -strength * (x - CENTRE), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(model.energy(x, 7.0), strength / 2 * np.square(x - CENTRE).sum(1), rtol=1e-4, atol=1e-4)
    slope = finite_difference(lambda z: model.energy(z, 7.0), x, 1e-2)
    np.testing.assert_allclose(model.force(x, 7.0), -slope, rtol=1e-2, atol=1e-2)


def test_friction_slows_down_in_units_of_the_data():
    """Without a force, v = v0 exp(-gamma t), and gamma is per unit of time of the data."""
    gamma, v = 0.8, standardised(30, 2)
    model = spring(0.0, gamma)
    assert model.rates()["friction"] == pytest.approx(gamma / 2)
    positions, velocities, _ = model.simulate(np.zeros((30, 2)), [7.0, 9.0], v=v)
    decay = np.exp(-gamma / 2 * 2)
    np.testing.assert_allclose(velocities[-1], v * decay, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(positions[-1], v * (1 - decay) / (gamma / 2), rtol=1e-2, atol=1e-3)


def entropic_mean(x, v, y, a, b, eps):
    """Mean of ``v`` under POT's entropic plan between ``x`` and ``y``, at cost |x - y|^2 / 2, for each of ``y``."""
    coupling = ot.sinkhorn(a, b, 0.5 * ot.dist(x, y), eps, method="sinkhorn_log", numItermax=20_000, stopThr=1e-10)
    return coupling.T @ v / coupling.sum(0)[:, None]


@pytest.mark.parametrize("weighted", [False, True])
def test_carried_velocities_are_means_under_the_entropic_plan(weighted):
    """A wide cloud and a narrow one: the plan's potential is as large as its costs, and decides."""
    rng = np.random.default_rng(0)
    x, y = 1.5 * rng.normal(size=(120, 2)), 0.6 * rng.normal(size=(90, 2)) + [0.5, 0.0]
    v = np.stack([np.sin(x[:, 0]), x[:, 1]], 1)
    a, b = (rng.uniform(0.05, 3, n) for n in (120, 90)) if weighted else (np.ones(120), np.ones(90))
    blur = 0.3
    model = dynamics(mechanics(Spring(1.0), 0.0), units(), blur=blur)
    weights = {"a": a, "b": b} if weighted else {}
    carried = model.carry_velocity(x, v, y, **weights)
    expected = entropic_mean(x, v, y, a / a.sum(), b / b.sum(), (CARRY_BLUR * blur) ** 2)
    np.testing.assert_allclose(carried, expected, atol=0.04)
    if weighted:  # each of the two sides matters
        for only in ({"a": a}, {"b": b}):
            assert np.abs(model.carry_velocity(x, v, y, **only) - expected).max() > 0.1


def test_carried_velocities_keep_to_units_of_the_data():
    rng = np.random.default_rng(0)
    x, y, v = (rng.normal(size=(60, 2)) for _ in range(3))
    plain = dynamics(mechanics(Spring(1.0), 0.0), units(), blur=0.3).carry_velocity(x, v, y)
    scaled = dynamics(mechanics(Spring(1.0), 0.0), SCALE, blur=0.3)
    np.testing.assert_allclose(scaled.carry_velocity(CENTRE + 3 * x, 5 * v, CENTRE + 3 * y), 5 * plain, atol=1e-3)


def test_weights_are_relative():
    """Ten times the weights are the same weights, and equal ones are none."""
    torch.manual_seed(0)
    net = mechanics()
    torch.nn.init.normal_(net.potential.energy.weight)
    x, model = standardised(20, 2), dynamics(net, units())
    w = np.random.default_rng(0).uniform(1, 5, 20)
    for field in (model.energy, model.force):
        np.testing.assert_allclose(field(x, 0.0, w=10 * w), field(x, 0.0, w=w), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(field(x, 0.0, w=np.full(20, 3.0)), field(x, 0.0), rtol=1e-4, atol=1e-5)
        assert np.abs(field(x, 0.0, w=w) - field(x, 0.0)).max() > 1e-3
