"""The integrator against closed forms: order, reversibility, and both limits of friction."""

import math

import pytest
import torch

from wlm.core.integrators import half_kick, leapfrog, substeps_for
from wlm.core.particles import Particles


def integrate(acceleration, x, v, t_end, n, gamma):
    times = torch.tensor([0.0, t_end], dtype=torch.float64)
    (p,) = leapfrog(acceleration, Particles(x, v), times, torch.tensor(gamma, dtype=torch.float64), [n])
    return p.x, p.v


def start():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 50, 3, generator=generator, dtype=torch.float64)


def oscillator(p, t):
    return -p.x


def damped(x0, v0, t, gamma):
    """Solution of x'' = -gamma x' - (1 + gamma) x, underdamped."""
    decay, omega = gamma / 2, math.sqrt(1 + gamma - gamma**2 / 4)
    a, b = x0, (v0 + decay * x0) / omega
    return math.exp(-decay * t) * (a * math.cos(omega * t) + b * math.sin(omega * t))


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0])
def test_second_order_on_the_damped_oscillator(gamma):
    x0, v0 = start()
    exact = damped(x0, v0, 2.0, gamma)
    steps = torch.tensor([10, 20, 40, 80, 160])
    errors = torch.stack([(integrate(oscillator, x0, v0, 2.0, int(n), gamma)[0] - exact).abs().max() for n in steps])
    slope = torch.diff(errors.log()) / torch.diff(-steps.double().log())
    assert torch.allclose(slope, torch.full_like(slope, 2.0), atol=0.1)


def test_oscillator_keeps_period_and_energy_over_ten_periods():
    x0, v0 = start()
    x, v = integrate(oscillator, x0, v0, 20 * math.pi, 2000, 0.0)
    assert torch.allclose(x, x0, atol=2e-2) and torch.allclose(v, v0, atol=2e-2)
    energy = lambda x, v: 0.5 * (x.square() + v.square()).sum()  # noqa: E731
    assert abs(energy(x, v) / energy(x0, v0) - 1) < 1e-3


def test_time_reversal_without_friction():
    x0, v0 = start()
    anharmonic = lambda p, t: -p.x - p.x**3  # noqa: E731
    x, v = integrate(anharmonic, x0, v0, 1.0, 50, 0.0)
    assert (x - x0).abs().max() > 0.1
    back, v_back = integrate(anharmonic, x, -v, 1.0, 50, 0.0)
    assert torch.allclose(back, x0, atol=1e-12) and torch.allclose(-v_back, v0, atol=1e-12)


def test_overdamped_limit_is_the_gradient_flow_whatever_the_initial_velocity():
    x0, v0 = start()
    x, v = integrate(oscillator, x0, v0, 1.0, 200, 1e6)
    assert torch.allclose(x, x0 * math.exp(-1.0), atol=5e-3)
    assert torch.allclose(v, -x, atol=1e-2)


def test_half_kick_is_continuous_where_its_formula_changes():
    h = torch.tensor(1.0, dtype=torch.float64)
    below, above = (half_kick(torch.tensor(g, dtype=torch.float64), h)[1] for g in (1.9999e-3, 2.0001e-3))
    assert abs(above - below) < 1e-6
    assert half_kick(torch.tensor(0.0), torch.tensor(0.5))[1] == 0.25


def test_half_kick_has_a_finite_gradient_at_zero_friction():
    gamma = torch.tensor(0.0, requires_grad=True)
    m, c = half_kick(gamma, torch.tensor(1.0))
    (m + c).backward()
    assert torch.isfinite(gamma.grad)


def test_one_acceleration_per_step():
    calls = []

    def counted(p, t):
        calls.append(float(t))
        return -p.x

    x0, v0 = start()
    times = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    states = list(leapfrog(counted, Particles(x0, v0), times, torch.tensor(0.5, dtype=torch.float64), [2, 4]))
    assert len(states) == 2 and calls == [0, 0.5, 1, 1.5, 2, 2.5, 3]


def test_substeps_are_never_longer_than_asked():
    times = torch.tensor([0.0, 1.0, 1.2, 4.0])
    assert substeps_for(times, 0.5) == [2, 1, 6]
