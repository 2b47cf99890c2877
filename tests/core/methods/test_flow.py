"""Paths without training: where cells go between times and after the last, against known motions."""

import numpy as np
import pytest
import torch

from wlm.core.field import Basis
from wlm.core.methods import WLM, Flow
from wlm.core.methods.flow import VelocityField, _velocities
from wlm.core.particles import Particles
from wlm.core.populations import Populations
from wlm.core.prediction import predict
from wlm.core.snapshots import Snapshots
from wlm.core.training import train
from wlm.core.units import Units

TURN = np.linspace(0, np.pi, 5)


def turned(x, t):
    c, s = np.cos(t), np.sin(t)
    return x @ np.array([[c, s], [-s, c]])


@pytest.fixture(scope="module")
def start():
    return np.random.default_rng(0).normal(size=(60, 2)) * [1.0, 0.3] + [2.0, 0.0]


@pytest.fixture(scope="module")
def populations(start):
    rng = np.random.default_rng(1)
    return Populations(TURN, tuple(turned(start, t)[rng.permutation(60)] for t in TURN))


def test_several_fits_agree_on_what_is_left_to_the_method(populations):
    """What was asked for is not overruled."""
    bent = Flow().prepare(populations)[1]["choice"]
    straight = bent | {"path": "straight", "error": 9.0, "evidence": -9.0}
    for method, asked in ((Flow(), Flow(path="spline")), (WLM(), WLM(initial_velocity="zero"))):
        assert method.agree([bent, straight]) == "straight" and method.agree([bent, bent]) is None
        assert asked.agree([bent, straight]) is None


def test_a_rotation_is_interpolated_and_forecast(start, populations):
    prepared, notes = Flow().prepare(populations)
    assert notes["choice"]["path"].startswith("field") and len(prepared.velocities) == 5
    dynamics = train(populations, Flow()).dynamics
    x, v = populations.positions[1], prepared.velocities[1]
    between = predict(
        dynamics,
        x,
        v,
        TURN[1],
        [TURN[1] + np.pi / 8],
        target=populations.positions[2],
        target_time=TURN[2],
        target_v=prepared.velocities[2],
    )[0][0]
    assert np.abs(between - turned(x, np.pi / 8)).mean() < 0.05
    forecast = dynamics.simulate(populations.positions[4], [TURN[4], TURN[4] + 0.5], v=prepared.velocities[4])[0][1]
    assert np.abs(forecast - turned(populations.positions[4], 0.5)).mean() < 0.12


def test_straight_lines_are_the_interpolation_of_optimal_transport(populations):
    prepared, notes = Flow(path="straight").prepare(populations)
    assert notes["choice"]["path"] == "straight" and np.isnan(prepared.velocities[1]).all()
    dynamics = train(populations, Flow(path="straight")).dynamics
    x, y = populations.positions[:2]
    moved, v, _ = predict(dynamics, x, prepared.velocities[0], 0.0, [TURN[1] / 4], target=y, target_time=TURN[1])
    end = x + 4 * (moved[0] - x)
    np.testing.assert_allclose(np.sort(end, 0), np.sort(y, 0), atol=1e-4)
    np.testing.assert_allclose(v[0], (end - x) / TURN[1], atol=1e-4)


def test_the_field_of_straight_lines_is_that_of_their_middles():
    """Cells at 0, 1 and 4 in turn: lines have slopes 1 and 3, in between."""
    p = Populations(
        np.array([0.0, 1.0, 2.0]), tuple(np.full((10, 1), x) + 1e-3 * np.eye(10, 1) for x in (0.0, 1.0, 4.0))
    )
    snapshots = Snapshots.of(
        Flow(path="straight").prepare(p)[0], Units(np.zeros(1), 1.0, 0.0, 1.0), torch.device("cpu")
    )
    x, v = _velocities(snapshots)
    np.testing.assert_allclose(x, np.repeat([[[0.5]], [[2.5]]], 10, axis=1), atol=2e-3)
    np.testing.assert_allclose(v, np.repeat([[[1.0]], [[3.0]]], 10, axis=1), atol=2e-3)


def test_three_times_are_led_straight_and_curves_refused(populations):
    few = Populations(TURN[:3], populations.positions[:3])
    assert "too few times" in Flow().prepare(few)[1]["choice"]["words"]
    with pytest.raises(ValueError, match="needs four training times.*choose path='straight' or 'auto'"):
        Flow(path="spline").prepare(few)
    with pytest.raises(ValueError, match="path must be one of"):
        Flow(path="curve")


def test_two_times_forecast_a_copy(populations):
    """One interval cannot be left out, so nothing says that its motion goes on."""
    p = Populations(TURN[:2], populations.positions[:2])
    dynamics = train(p, Flow()).dynamics
    x = p.positions[1]
    np.testing.assert_allclose(dynamics.simulate(x, [TURN[1], TURN[2]], v=x)[0][1], x, atol=1e-5)


def test_weights_and_velocities_of_the_data(populations):
    with pytest.raises(ValueError, match="leave velocity_key out"):
        Flow().prepare(Populations(TURN, populations.positions, populations.positions))
    weighted = Populations(TURN, populations.positions, None, tuple(np.linspace(1, 2, 60) for _ in TURN))
    assert Flow().prepare(weighted)[0].weights is weighted.weights


def test_the_midpoint_rule_and_the_greatest_speed():
    """f(x) = A x with A a rotation: the rollout is the matrix exponential, to second order, and no faster than said."""
    model = VelocityField(2, 3)
    with torch.no_grad():
        model.weights[1:3] = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    x, generator = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.Generator()
    end = model.rollout(Particles(x, x), torch.tensor([0.0, 0.5, 1.0]), generator)
    exact = torch.tensor(turned(x.double().numpy(), 1.0), dtype=torch.float32)
    torch.testing.assert_close(end.x[-1], exact, atol=6e-3, rtol=0)
    torch.testing.assert_close(end.v[0], model.at(x))
    model.fastest.fill_(0.5)
    assert model.at(x).norm(dim=1).tolist() == pytest.approx([0.5, 0.5])


def test_the_features_of_the_model_are_those_that_it_was_fitted_with():
    basis, model = Basis.of(3, 1.0, 5), VelocityField(3, 5)
    model.waves.copy_(torch.as_tensor(basis.waves))
    model.phases.copy_(torch.as_tensor(basis.phases))
    x = np.random.default_rng(0).normal(size=(4, 3))
    np.testing.assert_allclose(model.features(torch.as_tensor(x, dtype=torch.float32)), basis(x), atol=1e-5)


def test_the_potential_of_a_gradient_field_is_its_own():
    """Cells that relax to the origin, v = -x: the energy is x^2 / 2 up to a constant, as far as features reach."""
    rng, times = np.random.default_rng(0), np.arange(5.0) / 2
    x = rng.normal(size=(200, 2)) + [2.0, 1.0]
    p = Populations(times, tuple((x * np.exp(-t))[rng.permutation(200)] for t in times))
    dynamics = train(p, Flow()).dynamics
    energy = dynamics.energy(x, 0.0)
    assert np.corrcoef(energy, (x**2).sum(1) / 2)[0, 1] > 0.99
    assert np.polyfit((x**2).sum(1) / 2, energy, 1)[0] == pytest.approx(1, abs=0.2)
    force = dynamics.force(x, 0.0)
    assert np.abs(force + x).mean() < 0.15
