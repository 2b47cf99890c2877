"""Energies and inertia of dynamics whose law is known in closed form."""

import numpy as np
import pytest
import torch
from oracles import Spring as OracleSpring
from oracles import dynamics
from oracles import mechanics as oracle_mechanics
from torch import nn

from wlm.core.diagnosis import agreement, conservation_error, energies
from wlm.core.dynamics import Dynamics
from wlm.core.methods import WLM, Spec
from wlm.core.methods._mechanics import Mechanics
from wlm.core.prediction import Rollout, rollout
from wlm.core.units import Units


class Spring(nn.Module):
    """u = |x|^2 / 2 / (1 + gamma) for each cell: with the mobility, the force is -x."""

    def __init__(self, gamma):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5 / (1 + gamma)))
        self.embed = nn.Linear(1, 1)

    def forward(self, x, t, log_w=None):
        return self.scale * x.square().sum(-1)


def spring(gamma, *, length=1.0, time=1.0):
    model = Mechanics(Spring(gamma), gamma, None, rest=False, step=0.05)
    return Dynamics(model, WLM(), Spec(2, 1.0, has_velocity=True, n_times=9), Units(np.zeros(2), length, 0.0, time))


def path(dynamics, x, v, end=4.0):
    return rollout(dynamics, x, v, np.arange(len(x)), np.linspace(0, end, 9))


@pytest.fixture
def start():
    return np.random.default_rng(0).normal(size=(2, 40, 2))


def test_a_frictionless_spring_keeps_its_energy_and_is_all_inertia(start):
    x, v = start
    dynamics = spring(0.0, length=3.0, time=2.0)
    run = path(dynamics, x, v)
    found, inertia, _ = energies(dynamics, run)
    assert found.kinetic[0] == pytest.approx(0.5 * np.square(v).sum(1).mean(), rel=1e-5)
    # In units of 3 lengths and 2 times the spring has frequency 1/2: potential x^2 / 8.
    assert found.potential[-1] == pytest.approx(
        (np.square(run.positions[-1]).sum(1).mean() - np.square(x).sum(1).mean()) / 8, abs=1e-3
    )
    assert np.allclose(found.dissipated, 0) and found.imbalance < 2e-3 and inertia == 1.0
    assert conservation_error(dynamics, run) < 2e-3


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_friction_takes_what_is_lost(start, gamma):
    dynamics = spring(gamma)
    found, inertia, _ = energies(dynamics, path(dynamics, *start))
    assert found.imbalance < 5e-3 and 0 < inertia < 1
    assert found.dissipated[-1] == pytest.approx(found.kinetic[0] - found.kinetic[-1] - found.potential[-1], rel=2e-2)
    assert conservation_error(dynamics, path(dynamics, *start)) < 2e-3  # without the friction


def test_a_gradient_flow_has_no_inertia_and_velocities_along_the_force(start):
    dynamics = spring(100.0)
    found, inertia, alignment = energies(dynamics, path(dynamics, start[0], -start[0] / 100))
    assert inertia < 1e-3 and alignment > 0.999
    assert found.dissipated[-1] == pytest.approx(-found.potential[-1], rel=1e-2)


def test_a_coarse_integration_shows_in_the_balance(start):
    dynamics = spring(0.0)
    fine = path(dynamics, *start)
    coarse = path(dynamics, *start, end=80.0)  # steps of half a time unit
    assert conservation_error(dynamics, coarse) > 5 * conservation_error(dynamics, fine)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 10.0])
def test_free_flight_loses_exactly_what_friction_takes(start, gamma):
    dynamics = spring(gamma)
    dynamics.model.potential.scale.data.zero_()
    found, inertia, alignment = energies(dynamics, path(dynamics, *start))
    assert found.imbalance < 1e-4 and np.isnan(alignment)
    assert np.isnan(inertia) if gamma == 0 else inertia == pytest.approx(0.5)
    if gamma:
        assert found.dissipated[-1] == pytest.approx(found.kinetic[0] - found.kinetic[-1], rel=1e-4)


class Sideways(nn.Module):
    """Cells multiply the faster the farther they are to the right."""

    def forward(self, x):
        return 0.8 * x[..., 0]


@pytest.mark.parametrize("gamma", [0.0, 0.5])
@pytest.mark.parametrize("units", [1.0, 3.0])
def test_the_balance_holds_with_what_growth_brings(start, gamma, units):
    """Each cell keeps its energy but for friction, and the mean changes since those on the right become more."""
    x, v = start
    dynamics = spring(gamma, length=units, time=2 * units)
    dynamics.model.rates = Sideways()
    run = rollout(dynamics, x, v, np.arange(len(x)), np.linspace(0, 4 * units, 33))
    found, *_ = energies(dynamics, run)
    assert found.imbalance < 1e-2
    assert np.abs(found.grown).max() > 0.05 * found.kinetic.max()
    if gamma == 0:
        own = 0.5 * np.square(run.velocities).sum(-1) + np.square(run.positions).sum(-1) / (2 * (2 * units) ** 2)
        w = np.stack([run.mass(t) for t in run.times])
        mean = (w * own).sum(1) / w.sum(1)
        np.testing.assert_allclose(found.grown[-1], mean[-1] - mean[0], rtol=0.02)


def test_cells_that_are_conserved_bring_nothing(start):
    assert not energies(spring(0.3), path(spring(0.3), *start))[0].grown.any()


def test_motion_against_the_force_is_not_a_gradient_flow(start):
    """The conservative form of a gradient flow: cells that climb and slow down."""
    dynamics = spring(0.0)
    climbing = path(dynamics, start[0], start[0], end=0.5)
    assert energies(dynamics, climbing)[2] < -0.9


@pytest.mark.parametrize("gamma", [0.0, 0.7])
def test_a_cell_of_weight_three_is_three_cells(start, gamma):
    """In every mean: of a rollout with weights, and of one whose cells are there as often."""
    counts = np.random.default_rng(1).integers(1, 5, len(start[0]))
    model = dynamics(oracle_mechanics(OracleSpring(1.0), gamma, 0.02))
    times = np.linspace(0, 3, 31)
    x, v, _ = model.simulate(start[0] + [1.0, 0.0], times, v=2 * start[1])
    weighted = Rollout(times, x, v, np.arange(40), counts.astype(float))
    copies = [np.repeat(a, counts, axis=1) for a in (x, v)]
    repeated = Rollout(times, *copies, np.arange(counts.sum()))
    (one, *rest), (other, *others) = energies(model, weighted), energies(model, repeated)
    for name in ("kinetic", "potential", "dissipated"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-4, atol=1e-4)
    assert rest == pytest.approx(others, rel=1e-3)
    assert conservation_error(model, weighted) == pytest.approx(conservation_error(model, repeated), rel=0.05)
    plain = energies(model, Rollout(times, x, v, np.arange(40)))[0]
    assert abs(plain.kinetic[0] / one.kinetic[0] - 1) > 0.02


def test_inertia_and_alignment_of_a_circle():
    """A spring without friction on a circle: velocity and force are at right angles; with gamma, inertia is known."""
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    x, v = np.stack([np.cos(angle), np.sin(angle)], 1), np.stack([-np.sin(angle), np.cos(angle)], 1)
    for gamma in (0.0, 0.5):
        model = dynamics(oracle_mechanics(OracleSpring(1.0), gamma))
        path = Rollout(np.array([0.0]), x[None].astype(np.float32), v[None].astype(np.float32), np.arange(12))
        found, inertia, alignment = energies(model, path)
        # dv/dt = -(1 + gamma) x - gamma v, whose parts are at right angles; friction is gamma v.
        square = (1 + gamma) ** 2 + gamma**2
        assert inertia == pytest.approx(square / (square + gamma**2), rel=1e-4)
        assert alignment == pytest.approx(0, abs=1e-5) and found.kinetic[0] == pytest.approx(0.5, rel=1e-5)


def test_agreement_of_known_clouds():
    """Moved by 3 along one axis, W1 is 3; spread by 2, the standard deviations are in the ratio 2."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=(400, 2))
    found = agreement(y[:300] + [3, 0], y, seed=1)
    assert found.w1 == pytest.approx(3, abs=0.25) and found.floor < 0.5 and found.sd_ratio == pytest.approx(1, abs=0.1)
    assert agreement(2 * y, y).sd_ratio == pytest.approx(2)
    # The second half of the cells has all the weight, and is elsewhere.
    x, a = np.concatenate([y, y + 100]), np.repeat([1e-12, 1.0], 400)
    weighted = agreement(x, y + 100, a, np.ones(400))
    assert weighted.w1 < 1 and weighted.sd_ratio == pytest.approx(1, abs=0.01)


def test_agreement_compares_as_many_cells_as_its_floor_has():
    y = np.random.default_rng(0).normal(size=(2000, 2))
    same, few = agreement(y, y), agreement(y[:20], y)
    assert same.w1 < 1.3 * same.floor and few.floor > 2 * same.floor  # 500 against 500, 20 against 20
    for n in (1, 2, 3):
        assert np.isnan([getattr(agreement(y, y[:n]), name) for name in ("w1", "floor", "sd_ratio")]).all()
