"""Gradient flows with set coefficients against what they do in closed form; nothing is trained here."""

import numpy as np
import pytest
import torch
from oracles import (
    Quadratic,
    Tilt,
    dynamics,
    flow,
    implicit_ornstein_uhlenbeck,
    ornstein_uhlenbeck,
    standardised,
    units,
)

from wlm.core.methods._gradient_flow import GradientFlow
from wlm.core.particles import Particles

CENTRE = np.array([1.0, -0.5])
TIMES = (0.0, 0.4, 1.5)


def well(rate, diffusion=None, scheme="implicit", scale=None):
    return dynamics(flow(Quadratic(rate, CENTRE), None, diffusion, times=TIMES, scheme=scheme), scale, times=TIMES)


def test_the_stochastic_simulation_is_an_ornstein_uhlenbeck_process():
    """Its moments at every time, from a population that is far from rest: drift and noise, each to a few percent."""
    rate, diffusion = 1.2, 0.5
    x = 0.3 * standardised(20_000, 2) + [-2.0, 1.0]
    times = np.array([0.0, 0.25, 1.0, 4.0])
    found = well(rate, diffusion, "sde").simulate(x, times)[0]
    for t, z in zip(times, found, strict=True):
        mean, variance = ornstein_uhlenbeck(x.mean(0), x.var(0), rate, diffusion, t, CENTRE)
        # Euler's step of 0.05 is off by rate * step / 2 = 3 %, a sample of 20,000 by about 2 %.
        np.testing.assert_allclose(z.mean(0) - CENTRE, mean - CENTRE, atol=0.05)
        np.testing.assert_allclose(z.var(0), variance, rtol=0.06)


def test_the_stochastic_simulation_is_that_of_euler_and_maruyama():
    """Exactly its moments: of n steps of h, the mean shrinks by 1 - rate h each, and the variance by its square."""
    rate, diffusion, h, n = 2.0, 0.3, 0.05, 12
    x = standardised(20_000, 2)
    z = well(rate, diffusion, "sde").simulate(x, [0.0, n * h])[0][-1]
    mean, variance = x.mean(0), x.var(0)
    for _ in range(n):
        mean, variance = mean - h * rate * (mean - CENTRE), (1 - h * rate) ** 2 * variance + 2 * diffusion * h
    np.testing.assert_allclose(z.mean(0), mean, atol=4 * np.sqrt(variance.max() / len(x)))
    np.testing.assert_allclose(z.var(0), variance, rtol=4 * np.sqrt(2 / len(x)))
    # Without noise, cell by cell.
    plain = well(rate, None, "sde").simulate(x, [0.0, n * h])[0][-1]
    np.testing.assert_allclose(plain, CENTRE + (1 - h * rate) ** n * (x - CENTRE), atol=1e-4)


def test_implicit_steps_go_from_one_training_time_to_the_next():
    """Diffusion, then an implicit Euler step, as long as the interval; after the last as long as a mean one, 1."""
    rate, diffusion = 1.5, 0.4
    x = standardised(20_000, 2) + [2.0, 0.0]
    times = [*TIMES, 2.5, 3.5]
    found = well(rate, diffusion).simulate(x, times)[0]
    plain = well(rate).simulate(x, times)[0]
    mean, variance, exact = x.mean(0), x.var(0), x
    for h, noisy, z in zip(np.diff(times), found[1:], plain[1:], strict=True):
        mean, variance = implicit_ornstein_uhlenbeck(mean, variance, rate, diffusion, h, CENTRE)
        exact = CENTRE + (exact - CENTRE) / (1 + h * rate)
        np.testing.assert_allclose(noisy.mean(0), mean, atol=0.02)
        np.testing.assert_allclose(noisy.var(0), variance, rtol=0.04)
        np.testing.assert_allclose(z, exact, atol=3e-3)


def test_between_training_times_a_step_is_as_much_shorter():
    x = standardised(50, 2)
    t = 0.1
    np.testing.assert_allclose(well(1.5).simulate(x, [0.0, t])[0][-1], CENTRE + (x - CENTRE) / (1 + t * 1.5), atol=3e-3)


@pytest.mark.parametrize("scheme", ["implicit", "sde"])
def test_velocity_force_and_energy_are_those_of_the_potential(scheme):
    x, model = standardised(40, 2), well(1.5, None, scheme)
    np.testing.assert_allclose(model.velocity(x, 0.0), -1.5 * (x - CENTRE), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.force(x, 0.0), model.velocity(x, 0.0))
    np.testing.assert_allclose(model.energy(x, 0.0), 0.75 * np.square(x - CENTRE).sum(1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.simulate(x, [0.0, 0.4])[1][0], -1.5 * (x - CENTRE), rtol=1e-5, atol=1e-5)


def test_a_potential_of_a_time_drives_the_interval_that_ends_there():
    """V(x, t) = t sum(x) has the slope t, so that velocities tell which t was asked for."""
    x = standardised(30, 2)
    tilt = dynamics(flow(Tilt(), times=TIMES), times=TIMES)
    for t, stage in ((0.0, 0.4), (0.2, 0.4), (0.4, 0.4), (0.41, 1.5), (1.5, 1.5), (2.0, 1.5)):
        np.testing.assert_allclose(tilt.velocity(x, t), np.full_like(x, -stage), rtol=1e-6)
        np.testing.assert_allclose(tilt.energy(x, t), stage * x.sum(1), atol=1e-5)
    end = tilt.simulate(x, [0.0, 0.4, 1.5, 2.5])[0]
    for k, shift in enumerate(np.cumsum([0.4 * 0.4, 1.1 * 1.5, 1.0 * 1.5]), start=1):
        np.testing.assert_allclose(end[k], x - shift, atol=3e-3)
    sde = dynamics(flow(Tilt(), times=TIMES, scheme="sde"), times=TIMES)
    np.testing.assert_allclose(sde.simulate(x, [0.0, 0.4, 1.5])[0][-1], x - 0.4 * 0.4 - 1.1 * 1.5, atol=1e-4)


def others(x, w):
    """Weighted mean (n, d) of the other cells, for each."""
    total = (w[:, None] * x).sum(0) - w[:, None] * x
    return total / (w.sum() - w)[:, None]


@pytest.mark.parametrize("weighted", [False, True])
def test_an_interaction_is_the_mean_over_the_other_cells(weighted):
    x = standardised(40, 2) * [1.0, 2.0]
    w = np.random.default_rng(1).uniform(0.2, 3, 40) if weighted else None
    c, every = 0.7, np.ones(40) if w is None else w
    model = dynamics(flow(None, Quadratic(c), 0.1))
    np.testing.assert_allclose(model.velocity(x, 0.0, w=w), -c * (x - others(x, every)), rtol=1e-4, atol=1e-5)
    square = np.square(x[:, None] - x[None]).sum(-1)
    weights = every[None] * (1 - np.eye(40))
    expected = 0.5 * c * (weights * square).sum(1) / weights.sum(1)
    np.testing.assert_allclose(model.energy(x, 0.0, w=w), expected, rtol=1e-4)


def test_implicit_steps_meet_the_others_where_these_have_moved():
    """z = x - h (k z + c (z - mean of the other z)), which is linear."""
    x, k, c, h = standardised(40, 2) + [2.0, 0.0], 1.0, 0.6, 0.4
    model = dynamics(flow(Quadratic(k), Quadratic(c), times=(0.0, h, 1.0)), times=(0.0, h, 1.0))
    n = len(x)
    mean = x.mean(0) / (1 + h * k)
    # c (z_i - mean of others) = c n / (n - 1) (z_i - mean of all)
    exact = mean + (x - x.mean(0)) / (1 + h * (k + c * n / (n - 1)))
    np.testing.assert_allclose(model.simulate(x, [0.0, h])[0][-1], exact, atol=0.01)


def test_in_units_of_the_data():
    """dX = -(rate / time)(X - centre) dt, noise of diffusion length^2 / time, and steps between the training times."""
    scale = units(length=3.0, time=2.0, location=(10.0, -5.0), origin=7.0)
    rate, diffusion = 1.5, 0.4
    model = well(rate, diffusion, scale=scale)
    x = 3.0 * (standardised(2000, 2) + [2.0, 0.0]) + [10.0, -5.0]
    centre = 3.0 * CENTRE + [10.0, -5.0]
    np.testing.assert_allclose(model.velocity(x, 7.0), -rate / 2 * (x - centre), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(model.force(x, 7.0), -rate / 2 * (x - centre), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(model.energy(x, 7.0), rate / 4 * np.square(x - centre).sum(1), rtol=1e-4, atol=1e-3)
    end = model.simulate(x, [7.0, 7.0 + 2 * 0.4])[0][-1]
    mean, variance = implicit_ornstein_uhlenbeck(x.mean(0), x.var(0), rate / 2, diffusion * 9 / 2, 0.8, centre)
    np.testing.assert_allclose(end.mean(0), mean, atol=0.2)
    np.testing.assert_allclose(end.var(0), variance, rtol=0.15)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def perturbed(module, scale=0.5):
    """The module with parameters that are not zero."""
    with torch.no_grad():
        for k, p in enumerate(module.parameters()):
            p.add_(scale * torch.randn(p.shape, generator=seeded(k)))
    return module


def test_paths_do_not_depend_on_the_times_that_are_asked_for():
    for scheme in ("implicit", "sde"):
        model = perturbed(GradientFlow(2, "V+U", 8, (0.0, 1.0, 2.5), time_varying=True, scheme=scheme), 0.3)
        x = torch.randn(30, 2, generator=seeded())
        few = model.rollout(Particles(x), torch.tensor([0.0, 0.7, 3.2]), seeded(3)).x
        many = model.rollout(Particles(x), torch.tensor([0.0, 0.2, 0.7, 1.0, 1.9, 3.2]), seeded(3)).x
        assert torch.allclose(few, many[[0, 2, 5]], atol=1e-5)
