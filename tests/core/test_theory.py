"""What the theory says a population mechanics can do, learned from snapshots and held to exact solutions."""

import numpy as np
import pytest

from wlm.core.methods import WLM
from wlm.core.populations import Populations
from wlm.core.training import train

SMALL = {"width": 32, "hidden": 64, "n_inducing": 4, "batch_size": 128}
NAN = np.full((150, 2), np.nan)


def gradient_flow(times=(0.0, 0.4, 0.8, 1.2)):
    """Cells that shrink to the origin by the gradient flow of |x|^2 / 2: x = x0 exp(-t), exact."""
    x0 = np.random.default_rng(0).normal(size=(150, 2)) + [2.0, 0.0]
    return np.array(times), tuple(x0 * np.exp(-t) for t in times)


@pytest.fixture(scope="module")
def both_representations():
    """The same gradient flow, learned overdamped and as a conservative system with the exact initial velocity."""
    times, x = gradient_flow()
    options = {
        "n_steps": 250,
        "friction_lr": 0.0,
        "acceleration_penalty": 0.0,
        "max_step": 0.25,
        "blur": 0.1,
        **SMALL,
    }
    overdamped = WLM(friction=100.0, initial_velocity="zero", **options)
    conservative = WLM(friction=0.0, initial_velocity="data", **options)
    return (
        train(Populations(times, x), overdamped).dynamics,
        train(Populations(times, x, (-x[0], NAN, NAN, NAN)), conservative).dynamics,
    )


@pytest.mark.slow
def test_a_gradient_flow_is_learned_in_both_its_representations(both_representations):
    (x0, x1), ahead = gradient_flow((0.0, 1.2))[1], gradient_flow((0.0, 1.6))[1][1]
    overdamped, conservative = both_representations
    marginals = [
        overdamped.simulate(x0, [0.0, 1.2, 1.6])[0][1:],
        conservative.simulate(x0, [0.0, 1.2, 1.6], v=-x0)[0][1:],
    ]
    scale = x0.std()
    for at_end, forecast in marginals:
        assert np.sqrt(np.square(at_end - x1).mean()) < 0.05 * scale
        assert np.sqrt(np.square(forecast - ahead).mean()) < 0.12 * scale
    assert np.sqrt(np.square(marginals[0][0] - marginals[1][0]).mean()) < 0.06 * scale


@pytest.mark.slow
def test_the_two_representations_have_opposite_potentials(both_representations):
    """Overdamped the potential is F; conservative it is -|grad F|^2 / 2, here -F: it accelerates outwards."""
    overdamped, conservative = both_representations
    x = gradient_flow((0.0, 0.4))[1][1]
    inwards = overdamped.force(x, 0.4) / overdamped.rates()["friction"]
    assert np.linalg.norm(inwards + x) < 0.25 * np.linalg.norm(x)
    assert np.linalg.norm(conservative.force(x, 0.4) - x) < 0.5 * np.linalg.norm(x)


def oscillators(gamma, n=150, times=(0.0, 0.5, 1.0, 1.5, 2.0)):
    """Oscillators x'' = -x - gamma x', exact (gamma < 2)."""
    rng = np.random.default_rng(0)
    x0, v0 = rng.normal(size=(n, 2)) + [2.0, 0.0], rng.normal(size=(n, 2)) + [0.0, 2.0]
    w, g = np.sqrt(1 - gamma**2 / 4), gamma / 2
    b = (v0 + g * x0) / w
    x = [np.exp(-g * t) * (x0 * np.cos(w * t) + b * np.sin(w * t)) for t in times]
    v = [np.exp(-g * t) * ((b * w - g * x0) * np.cos(w * t) - (x0 * w + g * b) * np.sin(w * t)) for t in times]
    return Populations(np.array(times), tuple(x), tuple(v))


@pytest.mark.slow
def test_friction_tells_dissipative_from_conservative_dynamics():
    options = {"n_steps": 300, "friction": 0.3, "friction_lr": 0.1, "acceleration_penalty": 0.0, "blur": 0.15}
    method = WLM(**options, **SMALL)
    conservative, dissipative = (train(oscillators(g), method).dynamics.rates()["friction"] for g in (0.0, 1.2))
    assert conservative < 0.25 * dissipative
    assert dissipative == pytest.approx(1.2, rel=0.15)


def two_bodies(times, k=1.0):
    """Two bodies on a spring, their centre moving on: r'' = -2k r for the distance between them."""
    r0, u0, centre, drift = np.array([1.0, 0.0]), np.array([0.0, 0.9]), np.array([-1.0, 0.0]), np.array([0.8, 0.3])
    w = np.sqrt(2 * k)
    x, v = [], []
    for t in times:
        r = r0 * np.cos(w * t) + u0 / w * np.sin(w * t)
        u = -r0 * w * np.sin(w * t) + u0 * np.cos(w * t)
        c = centre + drift * t
        x.append(np.stack([c + r / 2, c - r / 2]))
        v.append(np.stack([drift + u / 2, drift - u / 2]))
    return Populations(np.array(times), tuple(x), tuple(v))


@pytest.mark.slow
def test_an_interaction_is_recovered_from_two_bodies():
    """The force between them, and no net force on both: no external potential does that while they move on."""
    populations = two_bodies(np.arange(0, 3.01, 0.3))
    method = WLM(n_steps=250, friction=0.0, acceleration_penalty=0.0, blur=0.05, **SMALL)
    dynamics = train(populations, method).dynamics
    for t in (0.75, 1.35, 2.25):
        x = two_bodies([0.0, t]).positions[1]
        force, between = dynamics.force(x, t), x[1] - x[0]
        assert np.linalg.norm(force[0] - between) < 0.3 * np.linalg.norm(between)
        assert np.linalg.norm(force.sum(0)) < 0.3 * np.linalg.norm(force[0])
