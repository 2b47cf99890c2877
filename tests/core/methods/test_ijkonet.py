"""iJKOnet and JKOnet*: their parts against closed forms, and energies recovered from snapshots of known flows."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wlm.core.energies.landscape import Features, Potential
from wlm.core.jko import log_det, nearest_neighbour_entropy, prox
from wlm.core.methods import IJKOnet, JKOnetStar
from wlm.core.methods._flow import GradientFlow
from wlm.core.methods.ijkonet import Maps, draw, partners, quadratic_part, squared_distances
from wlm.core.methods.jkonet_star import pair_mean
from wlm.core.particles import Particles
from wlm.core.populations import Populations
from wlm.core.snapshots import Snapshots
from wlm.core.training import TrainingError, train


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def perturbed(module, scale=0.5):
    """The module with parameters that are not zero."""
    with torch.no_grad():
        for k, p in enumerate(module.parameters()):
            p.add_(scale * torch.randn(p.shape, generator=seeded(k)))
    return module


@pytest.mark.parametrize("duration", [None, 3.0])
@pytest.mark.parametrize("even", [False, True])
def test_the_gradient_of_a_potential_is_that_of_its_values(duration, even):
    v = perturbed(Potential(3, 16, duration, even=even)).double()
    x = torch.randn(5, 7, 3, generator=seeded(), dtype=torch.float64, requires_grad=True)
    t = torch.linspace(0, 3, 5, dtype=torch.float64)[:, None]
    (slope,) = torch.autograd.grad(v(x, t).sum(), x)
    value, ours = v.with_gradient(x, t)
    assert torch.allclose(ours, slope) and torch.allclose(value, v(x, t))
    if duration is None:
        assert torch.allclose(v(x, t), v(-x, t)) == even


@pytest.mark.parametrize("even", [False, True])
def test_the_gradient_of_features_is_that_of_their_values(even):
    v = perturbed(Features(2, even=even))
    v.place(torch.randn(200, 2, generator=seeded()))
    x = torch.randn(9, 2, generator=seeded(1), requires_grad=True)
    t = torch.zeros(())
    (slope,) = torch.autograd.grad(v(x, t).sum(), x)
    assert torch.allclose(v.gradient(x, t), slope, rtol=1e-4, atol=1e-4)
    assert torch.allclose(v(x, t), v(-x, t)) == even


@settings(max_examples=20, deadline=None)
@given(st.floats(0.01, 100), st.floats(0.05, 3), st.integers(1, 6))
def test_an_implicit_step_in_a_quadratic_well_has_a_closed_form(stiffness, h, d):
    x = torch.randn(40, d, generator=seeded(), dtype=torch.float64)
    z = prox(
        lambda z: (0.5 * stiffness * z.square().sum(-1), stiffness * z),
        x,
        torch.tensor(h, dtype=torch.float64),
        x,
        n_iter=60,
        tol=1e-6,
    )
    assert torch.allclose(z, x / (1 + h * stiffness), atol=1e-3)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 5), st.floats(0.2, 5))
def test_entropy_of_a_gaussian(d, scale):
    x = scale * torch.randn(3000, d, generator=seeded(d))
    exact = d / 2 * math.log(2 * math.pi * math.e * scale**2)
    assert abs(nearest_neighbour_entropy(x) - exact) < 0.05 * d + 0.05


def test_entropy_of_weighted_cells_is_that_of_the_population_they_stand_for():
    """Uniform cells on [0, 1] with weights 2 x have the density 2 x, whose entropy is 1/2 - log 2."""
    x = torch.rand(4000, 1, generator=seeded())
    assert abs(nearest_neighbour_entropy(x, 2 * x[:, 0]) - (0.5 - math.log(2))) < 0.08


def test_entropy_does_not_mistake_weights_that_vary_from_cell_to_cell_for_structure():
    """Weights that are drawn at random leave the density, and so the entropy, of uniform cells as they were: 0."""
    x = torch.rand(4000, 1, generator=seeded())
    w = torch.where(torch.rand(4000, generator=seeded(1)) < 0.5, 1.0, 30.0)
    assert abs(nearest_neighbour_entropy(x, w)) < 0.15


def test_a_cell_that_was_drawn_twice_does_not_meet_itself():
    z = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]]])
    assert pair_mean(z.norm(dim=-1), z, 1).item() == 2
    assert torch.allclose(pair_mean(z, z, 1), torch.tensor([[0.5, 1.5]]))


def test_the_bound_of_the_objective_is_exact():
    x = torch.randn(300, 2, generator=seeded())
    snapshots = Snapshots(torch.tensor([0.0, 1.0, 2.0]), [x, 0.9 * x, 0.9 * x + 1.0], None)
    assert torch.allclose(
        squared_distances(snapshots, seeded()),
        torch.stack([(0.1 * x).square().sum(1).mean(), torch.tensor(2.0)]),
        rtol=1e-4,
    )


def test_an_implicit_step_may_start_where_the_slope_is_steep():
    x = torch.tensor([[0.5]], dtype=torch.float64)
    z = prox(lambda z: (50 * z.square().sum(-1), 100 * z), x, torch.tensor(10.0, dtype=torch.float64), x, n_iter=5)
    assert abs(float(z)) < 0.05


def test_log_determinants_exact_and_by_series():
    d = 12
    a = 0.15 * torch.randn(d, d, generator=seeded()) / math.sqrt(d)
    exact = torch.linalg.slogdet(torch.eye(d) + a)[1]
    x = torch.zeros(4000, d)
    estimates = log_det(lambda u: u @ a.T, x, seeded(1))
    assert abs(estimates.mean() - exact) < 4 * estimates.std() / math.sqrt(len(x)) + 1e-3
    b = torch.randn(3, 3, generator=seeded(2))
    assert torch.allclose(
        log_det(lambda u: u @ b.T, torch.zeros(5, 3), seeded()), torch.linalg.slogdet(torch.eye(3) + b)[1]
    )


def test_maps_know_their_derivatives():
    maps = perturbed(Maps(3, 16, torch.tensor([0.0, 1.0, 3.0])))
    x = torch.randn(2, 6, 3, generator=seeded())
    u = torch.randn(2, 6, 3, generator=seeded(1))
    moved, along = maps(x, u[None])
    again, exact = torch.func.jvp(lambda x: maps(x)[0], (x,), (u,))
    assert torch.allclose(moved, again)
    assert torch.allclose(along[0], exact - u, atol=1e-5)


def test_partners_are_other_cells_and_all_as_likely():
    x = torch.arange(6.0).view(1, 6, 1)
    seen = torch.zeros(6, 6)
    for seed in range(400):
        for other in partners(x, seeded(seed)):
            assert (other != x).all()
            seen[torch.arange(6), other[0, :, 0].long()] += 1
    share = seen[~torch.eye(6, dtype=torch.bool)] / seen.sum()
    assert (share - 1 / 30).abs().max() < 0.005


def test_batches_are_drawn_by_weight():
    x = torch.arange(50.0)[:, None]
    w = torch.where(torch.arange(50) < 10, 4.0, 1.0)
    snapshots = Snapshots(torch.tensor([0.0, 1.0]), [x, x], None, [w / w.mean(), torch.ones(50)])
    first, second = draw(snapshots, 20_000, seeded())[..., 0]
    assert abs((first < 10).float().mean() - 0.5) < 0.02
    assert abs((second < 10).float().mean() - 0.2) < 0.02


def test_paths_do_not_depend_on_the_times_that_are_asked_for():
    for scheme in ("implicit", "sde"):
        model = perturbed(GradientFlow(2, "V+U", 8, (0.0, 1.0, 2.5), time_varying=True, scheme=scheme), 0.3)
        x = torch.randn(30, 2, generator=seeded())
        few = model.rollout(Particles(x), torch.tensor([0.0, 0.7, 3.2]), seeded(3)).x
        many = model.rollout(Particles(x), torch.tensor([0.0, 0.2, 0.7, 1.0, 1.9, 3.2]), seeded(3)).x
        assert torch.allclose(few, many[[0, 2, 5]], atol=1e-5)


def flow(gradient, x, times, n_inner=200, diffusion=0.0, seed=0):
    """Snapshots of the gradient flow of one population, by small explicit steps."""
    rng = np.random.default_rng(seed)
    out, t = [x], times[0]
    for end in times[1:]:
        h = (end - t) / n_inner
        for _ in range(n_inner):
            x = x - h * gradient(x) + np.sqrt(2 * diffusion * h) * rng.normal(size=x.shape)
        t = end
        out.append(x)
    return tuple(out)


# Energies recovered


@pytest.fixture(scope="module")
def gaussian():
    """Three snapshots of exact implicit steps in the well (x - c) A (x - c) / 2, and their fit."""
    a, c = np.array([1.5, 0.4]), np.array([1.0, -0.5])
    rng = np.random.default_rng(0)
    populations, mean, sd = [], np.zeros(2), np.ones(2)
    for _ in range(3):
        populations.append(mean + sd * rng.normal(size=(1000, 2)))
        mean, sd = (mean + a * c) / (1 + a), sd / (1 + a)
    fit = train(Populations(np.arange(3.0), tuple(populations)), IJKOnet(n_steps=400))
    return a, c, populations, fit


def test_a_quadratic_well_is_recovered_from_gaussians(gaussian):
    a, c, populations, fit = gaussian
    for k in (1, 2):
        x = populations[k]
        error = -fit.dynamics.force(x, k) - a * (x - c)
        assert np.square(error).sum(1).mean() < 0.02 * np.square(a * (populations[0] - c)).sum(1).mean()


def test_the_misfit_vanishes_where_a_potential_explains_every_step(gaussian):
    *_, fit = gaussian
    assert abs(fit.history["misfit"][-1]) < 0.1


def test_the_error_of_the_gradient_is_bounded_by_the_gap(gaussian):
    r"""Theorem 3.1: for one step, the squared error of the gradient is at most a constant times the objective's gap.

    For quadratic potentials both have closed forms. The gap of b against the true a, for a standard normal rho_0, is
    that of the Moreau envelopes less that of the energies; the constant is that of (1/tau + largest curvature).
    """
    a = gaussian[0]

    def objective(b):
        # min_z b z^2 / 2 + (x - z)^2 / 2 = b x^2 / (2 (1 + b)), and the energy at rho_1 = N(0, 1 / (1 + a)^2).
        return float((b / (2 * (1 + b)) - b / (2 * (1 + a) ** 2)).sum())

    for b in np.random.default_rng(1).uniform(-0.5, 4, (50, 2)):
        error = float(((b - a) ** 2 / (1 + a) ** 2).sum())
        gap = objective(a) - objective(b)
        assert gap >= 0
        assert error <= 2 * (1 + max(a.max(), b.max())) * gap + 1e-12
    model = IJKOnet(n_steps=300)
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2000, 2)), rng.normal(size=(2000, 2)) / (1 + a)
    dynamics = train(Populations(np.array([0.0, 1.0]), (x, y)), model).dynamics
    error = np.square(-dynamics.force(y, 1) - a * y).sum(1).mean()
    z = dynamics.simulate(x, [0.0, 1.0])[0][-1]
    envelope = dynamics.energy(z, 1).mean() + 0.5 * np.square(z - x).sum(1).mean()
    gap = objective(a) - (envelope - dynamics.energy(y, 1).mean())
    zero = np.square(a * y).sum(1).mean()  # the error of no energy at all
    assert abs(gap) < 0.1 * objective(a) + 0.02 and error < 0.1 * zero


def test_a_double_well_is_recovered_up_to_a_constant():
    def slope(x):
        return np.stack([x[:, 0] ** 3 - x[:, 0], 0.5 * x[:, 1]], 1)

    x0 = np.random.default_rng(0).uniform(-2, 2, (1500, 2))
    times = np.linspace(0, 0.5, 6)
    fit = train(Populations(times, flow(slope, x0, times)), IJKOnet(n_steps=600))
    x = np.random.default_rng(1).uniform([-1.6, -1], [1.6, 1], (2000, 2))
    true = x[:, 0] ** 4 / 4 - x[:, 0] ** 2 / 2 + x[:, 1] ** 2 / 4
    ours = fit.dynamics.energy(x, 0.5)
    residual = (ours - ours.mean()) - (true - true.mean())
    assert residual.var() < 0.1 * true.var()
    barrier = fit.dynamics.energy(np.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]), 0.5)
    assert barrier[0] > barrier[1:].max() + 0.1


def test_an_interaction_is_recovered_from_two_groups_that_attract_each_other():
    """W(z) = -2 exp(-|z|^2 / 8) and no V: groups that start apart and of different sizes fall together."""

    def slope(x):
        z = x[:, None] - x[None]
        return (0.5 * z * np.exp(-np.square(z).sum(-1, keepdims=True) / 8)).mean(1)

    rng = np.random.default_rng(0)
    x0 = np.concatenate([rng.normal([-2, 0], 0.7, (400, 2)), rng.normal([2, 0.5], 0.5, (200, 2))])
    times = np.array([0.0, 1.0, 2.0, 3.0])
    populations = flow(slope, x0, times, n_inner=20)
    dynamics = train(Populations(times, populations), IJKOnet(energy="V+W", n_steps=400)).dynamics
    true = np.concatenate([-slope(x) for x in populations[1:]])
    ours = np.concatenate([dynamics.force(x, t) for x, t in zip(populations[1:], times[1:], strict=True)])
    assert np.square(true - ours).mean() < 0.1 * np.square(true).mean()
    # The mean stays in place, so W is known up to c |z|^2 / 2, and has no such part over the pairs that were seen.
    units, model = dynamics.units, dynamics.model
    z = np.concatenate([x - np.roll(x, shift, 0) for x in populations[1:] for shift in (100, 250)])
    with torch.no_grad():
        pull = model.interaction.gradient(torch.tensor(z / units.length).float(), torch.zeros(())).numpy()
        seen = torch.tensor(units.standard_position(np.stack(populations[1:]))).float()
        assert abs(quadratic_part(model, seen, seeded())) < 0.1
    true = 0.5 * z * np.exp(-np.square(z).sum(1, keepdims=True) / 8)
    error = true - pull * units.velocity
    error -= z * (z * error).sum() / np.square(z).sum()
    # Over a few times V can also take a part of W that is not quadratic: about a tenth here.
    assert np.square(error).mean() < 0.2 * np.square(true).mean()


def test_a_penalty_on_the_interaction_makes_it_smaller():
    """Two groups that shrink towards the middle, as V or W can explain: with a penalty W explains less of it."""
    rng = np.random.default_rng(0)
    x0 = np.concatenate([rng.normal([-2, 0], 0.7, (100, 2)), rng.normal([2, 0.5], 0.5, (50, 2))])
    populations = Populations(np.arange(3.0), tuple(x0 * 0.8**k for k in range(3)))
    speed = {}
    for penalty in (0.0, 10.0):
        method = IJKOnet(energy="V+W", n_steps=100, interaction_penalty=penalty)
        dynamics = train(populations, method).dynamics
        z = torch.randn(200, 2, generator=seeded())
        with torch.no_grad():
            pull = dynamics.model.interaction.gradient(z, torch.zeros(()))
        speed[penalty] = pull.square().mean().item()
    assert speed[10.0] < 0.5 * speed[0.0]


def test_diffusion_is_recovered_from_an_ornstein_uhlenbeck_process():
    """dX = -X dt + sqrt(2 D) dB from N(2, 0.1): all marginals are Gaussians with known moments."""
    diffusion, times = 0.5, np.array([0.0, 0.1, 0.2, 0.4, 0.8, 1.6])
    rng = np.random.default_rng(0)
    populations = []
    for t in times:
        variance = 0.1 * np.exp(-2 * t) + diffusion * (1 - np.exp(-2 * t))
        populations.append(2 * np.exp(-t) + np.sqrt(variance) * rng.normal(size=(2000, 2)))
    fit = train(Populations(times, tuple(populations)), IJKOnet(energy="V+U", n_steps=1000))
    assert abs(fit.dynamics.rates()["diffusion"] / diffusion - 1) < 0.1


def test_regression_recovers_a_quadratic_well_in_closed_form_and_by_a_network():
    a = np.array([1.0, 0.3])
    x0 = np.random.default_rng(0).normal(size=(800, 2)) + [1.0, 1.0]
    populations = tuple(x0 / (1 + a) ** k for k in range(3))
    for options in ({"solver": "ridge"}, {"solver": "neural"}):
        dynamics = train(Populations(np.arange(3.0), populations), JKOnetStar(**options)).dynamics
        x = populations[1]
        assert np.square(-dynamics.force(x, 1) - a * x).mean() < 0.02 * np.square(a * x).mean()


# Faults


def test_a_lost_game_says_at_which_step_and_what_to_try():
    x = np.random.default_rng(0).normal(size=(2, 100, 2))
    with pytest.raises(TrainingError, match=r"step \d+ of 300: the game .* diverged \(misfit .*lr=.*inner_steps"):
        train(Populations(np.arange(2.0), tuple(x)), IJKOnet(lr=30.0, n_steps=300, refine=0))


@pytest.mark.parametrize("method", [IJKOnet, JKOnetStar])
def test_options_that_do_not_fit_together(method):
    with pytest.raises(ValueError, match=r"energy must be one of \['V', 'V\+U', 'V\+W', 'W\+U', 'V\+W\+U'\]"):
        method(energy="V+X")
    with pytest.raises(ValueError, match="time_varying is about the potential"):
        method(energy="W+U", time_varying=True)
    if method is IJKOnet:
        with pytest.raises(ValueError, match="batch_size must be at least 2 for pairs"):
            method(energy="V+W", batch_size=1)
    with pytest.raises(ValueError, match="leave velocity_key out"):
        method().check(has_velocity=True)
