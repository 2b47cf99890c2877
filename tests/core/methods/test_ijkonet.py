"""iJKOnet: its parts against closed forms, and energies recovered from snapshots of known flows."""

import numpy as np
import pytest
import torch
from oracles import Quadratic, standardised
from oracles import flow as known_flow

from wlm.core.methods import IJKOnet, JKOnetStar
from wlm.core.methods import ijkonet as module
from wlm.core.methods.ijkonet import Maps, draw, partners, quadratic_part, squared_distances
from wlm.core.populations import Populations
from wlm.core.snapshots import Snapshots
from wlm.core.training import TrainingError, train
from wlm.core.units import Units


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def perturbed(module, scale=0.5):
    """The module with parameters that are not zero."""
    with torch.no_grad():
        for k, p in enumerate(module.parameters()):
            p.add_(scale * torch.randn(p.shape, generator=seeded(k)))
    return module


def test_the_bound_of_the_objective_is_exact():
    x = torch.randn(300, 2, generator=seeded())
    snapshots = Snapshots(torch.tensor([0.0, 1.0, 2.0]), [x, 0.9 * x, 0.9 * x + 1.0], None)
    assert torch.allclose(
        squared_distances(snapshots, seeded()),
        torch.stack([(0.1 * x).square().sum(1).mean(), torch.tensor(2.0)]),
        rtol=1e-4,
    )


def test_maps_know_their_derivatives():
    maps = perturbed(Maps(3, 16, torch.tensor([0.0, 1.0, 3.0]))).double()
    x = torch.randn(2, 6, 3, generator=seeded(), dtype=torch.float64)
    u = torch.randn(2, 6, 3, generator=seeded(1), dtype=torch.float64)
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


@pytest.mark.slow
def test_a_quadratic_well_is_recovered_from_gaussians(gaussian):
    a, c, populations, fit = gaussian
    for k in (1, 2):
        x = populations[k]
        error = -fit.dynamics.force(x, k) - a * (x - c)
        assert np.square(error).sum(1).mean() < 0.02 * np.square(a * (populations[0] - c)).sum(1).mean()


@pytest.mark.slow
def test_the_misfit_vanishes_where_a_potential_explains_every_step(gaussian):
    *_, fit = gaussian
    assert abs(fit.history["misfit"][-1]) < 0.1


@pytest.mark.slow
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
    model = IJKOnet(n_steps=200)
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2000, 2)), rng.normal(size=(2000, 2)) / (1 + a)
    dynamics = train(Populations(np.array([0.0, 1.0]), (x, y)), model).dynamics
    error = np.square(-dynamics.force(y, 1) - a * y).sum(1).mean()
    z = dynamics.simulate(x, [0.0, 1.0])[0][-1]
    envelope = dynamics.energy(z, 1).mean() + 0.5 * np.square(z - x).sum(1).mean()
    gap = objective(a) - (envelope - dynamics.energy(y, 1).mean())
    zero = np.square(a * y).sum(1).mean()  # the error of no energy at all
    assert abs(gap) < 0.1 * objective(a) + 0.02 and error < 0.1 * zero


@pytest.mark.slow
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


@pytest.mark.slow
def test_an_interaction_is_recovered_from_two_groups_that_attract_each_other():
    """W(z) = -2 exp(-|z|^2 / 8) and no V: groups that start apart and of different sizes fall together."""

    def slope(x):
        z = x[:, None] - x[None]
        return (0.5 * z * np.exp(-np.square(z).sum(-1, keepdims=True) / 8)).mean(1)

    rng = np.random.default_rng(0)
    x0 = np.concatenate([rng.normal([-2, 0], 0.7, (400, 2)), rng.normal([2, 0.5], 0.5, (200, 2))])
    times = np.array([0.0, 1.0, 2.0, 3.0])
    populations = flow(slope, x0, times, n_inner=20)
    dynamics = train(Populations(times, populations), IJKOnet(energy="V+W", n_steps=250)).dynamics
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


@pytest.mark.slow
def test_a_penalty_on_the_interaction_makes_it_smaller():
    """Two groups that shrink towards the middle, as V or W can explain: with a penalty W explains less of it."""
    rng = np.random.default_rng(0)
    x0 = np.concatenate([rng.normal([-2, 0], 0.7, (100, 2)), rng.normal([2, 0.5], 0.5, (50, 2))])
    populations = Populations(np.arange(3.0), tuple(x0 * 0.8**k for k in range(3)))
    speed = {}
    for penalty in (0.0, 10.0):
        method = IJKOnet(energy="V+W", n_steps=60, interaction_penalty=penalty)
        dynamics = train(populations, method).dynamics
        z = torch.randn(200, 2, generator=seeded())
        with torch.no_grad():
            pull = dynamics.model.interaction.gradient(z, torch.zeros(()))
        speed[penalty] = pull.square().mean().item()
    assert speed[10.0] < 0.5 * speed[0.0]


@pytest.mark.slow
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


# The game, at a known energy and known maps


class Stretch(torch.nn.Module):
    """Maps that stretch all populations by one factor, in place of :class:`Maps`."""

    factor = 1.0

    def __init__(self, dim, width, times):
        super().__init__()
        self.s = torch.nn.Parameter(torch.tensor(self.factor))
        self.register_buffer("tau", times.diff()[:, None])
        self.register_buffer("end", times[1:, None])

    def forward(self, x, directions=None):
        return self.s * x, None if directions is None else (self.s - 1) * directions


def game(monkeypatch, p, factor, parts, **options):
    """One step at an energy of ``parts`` (see ``oracles.flow``) with all cells in each batch: its log, and its losses.

    These are what the maps descended, and what the energy did.
    """
    losses, plain = [], torch.Tensor.backward

    def backward(self, *arguments, **more):
        losses.append(self.item())
        return plain(self, *arguments, **more)

    class Known(IJKOnet):
        def build(self, spec):
            return known_flow(*parts, times=spec.times)

    energy = "+".join(name for name, part in zip("VWU", parts, strict=True) if part is not None)
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "backward", backward)
        patch.setattr(module, "Maps", type("Factor", (Stretch,), {"factor": factor}))
        settings = {"lr": 1e-12, "map_lr": 1e-12, "inner_steps": 1, "refine": 0, "batch_size": len(p.positions[0])}
        fit = train(p, Known(n_steps=1, energy=energy, **{**settings, **options}))
    return {k: float(v[0]) for k, v in fit.history.items()}, *losses


def stretched(scales=(1.0, 1.4, 0.9), times=(0.0, 0.5, 2.0), n=60, d=2):
    """Populations of one shape and these sizes, in random order; their scales and intervals in standard units."""
    rng, x = np.random.default_rng(0), standardised(n, d)
    p = Populations(np.asarray(times), tuple(s * x[rng.permutation(n)] for s in scales))
    units = Units.of(p)
    return p, np.asarray(scales) / units.length, np.diff(times) / units.time, d


@pytest.mark.parametrize("factor", [1.0, 1.3])
@pytest.mark.parametrize("diffusion", [None, 0.3])
def test_maps_descend_the_objective_and_the_energy_climbs_it(monkeypatch, factor, diffusion):
    """For V = k |x|^2 / 2 and T = s x every term is known, of populations of one shape: E|x|^2 = d scale^2."""
    p, s, tau, d = stretched()
    k, theta = 0.7, diffusion or 0.0
    seen, maps, energy = game(monkeypatch, p, factor, (Quadratic(k), None, diffusion))
    v = lambda scale: k * d * scale**2 / 2  # noqa: E731
    moved, log_det = factor * s[:-1], d * np.log(factor)
    value = v(moved) + (factor - 1) ** 2 * d * s[:-1] ** 2 / (2 * tau) - theta * log_det
    growth = d * np.log(s[1:] / s[:-1])
    assert maps == pytest.approx(value.mean(), rel=1e-4, abs=1e-5)
    gain = v(moved) - v(s[1:]) + theta * (growth - log_det)
    assert energy == pytest.approx(-gain.mean(), rel=1e-4, abs=1e-5)
    objective = (value - v(s[1:]) + theta * growth).mean()
    assert seen["loss"] == pytest.approx(objective, rel=1e-4, abs=1e-5)
    # Without entropy the objective is at most W2^2 / 2 tau, of which it falls short by the misfit.
    bound = (d * np.diff(s) ** 2 / (2 * tau)).mean()
    assert seen["misfit"] == pytest.approx(1 - objective / bound, rel=1e-4, abs=1e-4)


def test_the_energy_learns_from_cells_that_were_brought_to_the_optimum(monkeypatch):
    """Which is x / (1 + tau k), wherever the maps put them."""
    p, s, tau, d = stretched()
    k = 0.7
    *_, energy = game(monkeypatch, p, 1.0, (Quadratic(k), None, None), refine=60)
    gain = k * d / 2 * ((s[:-1] / (1 + tau * k)) ** 2 - s[1:] ** 2)
    assert energy == pytest.approx(-gain.mean(), rel=1e-3)


@pytest.mark.parametrize("penalty", [0.0, 2.0])
def test_an_interaction_counts_every_pair_once_and_has_no_quadratic_part(monkeypatch, penalty):
    """W = c |z|^2 / 2 on five cells, of which all pairs are met; it has the quadratic part c, which is penalised."""
    p, s, tau, d = stretched(n=5)
    k, c = 0.7, 0.5
    _, _, alone = game(monkeypatch, p, 1.2, (Quadratic(k), None, None))
    _, _, energy = game(monkeypatch, p, 1.2, (Quadratic(k), Quadratic(c), None), interaction_penalty=penalty)
    # The mean of |x - x'|^2 over pairs of other cells is 2 d n / (n - 1), and a pair shares its energy.
    pairs = lambda scale: 0.5 * c / 2 * 2 * d * scale**2 * 5 / 4  # noqa: E731
    pull = c * np.linalg.norm(standardised(5, d), axis=1) * 5 / 4
    speed = pull * (s[1:] * tau / (np.sqrt(d) * np.abs(np.diff(s))))[:, None]
    expected = -(pairs(1.2 * s[:-1]) - pairs(s[1:])).mean() + module.GAUGE * c**2 + penalty * np.square(speed).mean()
    assert energy - alone == pytest.approx(expected, rel=1e-3)


def test_cells_are_brought_to_the_optimum_with_their_interactions(monkeypatch):
    """Their partners stay where the maps put them, here where they were: z = x - tau (k z + c (z - mean of others))."""
    p, s, tau, d = stretched(n=5)
    k, c = 0.7, 0.5
    *_, energy = game(monkeypatch, p, 1.0, (Quadratic(k), Quadratic(c), None), refine=60)
    # Of a centred cloud the mean of the others is -x / (n - 1).
    z = s[:-1] * (1 - tau * c / 4) / (1 + tau * (k + c))
    total = lambda scale: (k / 2 + 0.5 * c * 5 / 4) * d * scale**2  # noqa: E731
    assert energy == pytest.approx(-(total(z) - total(s[1:])).mean() + module.GAUGE * c**2, rel=1e-3)


def test_entropy_learns_at_a_lower_rate(monkeypatch):
    """Since the energy waits for maps that are not refined; unless the rate is given."""
    rates, plain = [], IJKOnet.init

    def init(self, *arguments):
        state = plain(self, *arguments)
        rates.append({name: o.param_groups[0]["lr"] for name, o in state.optimizers.items()})
        return state

    monkeypatch.setattr(IJKOnet, "init", init)
    small = {"n_steps": 1, "width": 4, "map_width": 4, "batch_size": 20}
    for options in ({}, {"energy": "V+U"}, {"lr": 5e-4}):
        train(stretched()[0], IJKOnet(**small, **options))
    assert rates == [{"energy": lr, "maps": 5e-3} for lr in (0.01, 0.003, 5e-4)]


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
