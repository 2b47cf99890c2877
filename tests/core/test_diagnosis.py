"""Energies and inertia of dynamics whose law is known in closed form."""

import numpy as np
import pytest
import torch
from torch import nn

from wlm.core.diagnosis import conservation_error, energies
from wlm.core.dynamics import Dynamics
from wlm.core.methods import WLM, Spec
from wlm.core.methods._mechanics import Mechanics
from wlm.core.prediction import rollout
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


def test_motion_against_the_force_is_not_a_gradient_flow(start):
    """The conservative form of a gradient flow: cells that climb and slow down."""
    dynamics = spring(0.0)
    climbing = path(dynamics, start[0], start[0], end=0.5)
    assert energies(dynamics, climbing)[2] < -0.9
