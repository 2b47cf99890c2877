"""Growth against closed forms: cells that multiply at known rates, at rest and in motion."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles import Spring, dynamics, mechanics, units
from torch import nn

from wlm.core import growth
from wlm.core.divergences import self_term, sinkhorn_loss
from wlm.core.growth import (
    Growth,
    Prior,
    Rate,
    effective_share,
    grown,
    price,
    resampled,
    roughness,
    size_error,
    with_mass,
)
from wlm.core.integrators import leapfrog
from wlm.core.methods import WLM
from wlm.core.particles import Particles, together
from wlm.core.populations import Populations
from wlm.core.prediction import fields, predict, rollout
from wlm.core.training import train

SMALL = {"width": 8, "heads": 2, "hidden": 8, "n_inducing": 2, "batch_size": 64}
#: Motion is dear: what changes is growth.
AT_REST = {"acceleration_penalty": 10.0, "friction": 3.0, "initial_velocity": "zero", **SMALL}


class Quadratic(nn.Module):
    """g(x) = c + b.x - x'Qx / 2."""

    prior, network = None, None

    def __init__(self, c=0.0, b=(0.0, 0.0), q=((0.0, 0.0), (0.0, 0.0))):
        super().__init__()
        self.c, self.b, self.q = (torch.tensor(a, dtype=torch.float64) for a in (c, b, q))

    def forward(self, x):
        x = x.double()
        return (self.c + x @ self.b - 0.5 * ((x @ self.q) * x).sum(-1)).float()


def with_rates(rates, potential=None, friction=0.0, step=0.05):
    model = mechanics(Spring(0.0) if potential is None else potential, friction, step)
    model.rates = rates
    return model


def cloud(n=4000, seed=0):
    """Cells whose mean and covariance are exactly 0 and 1."""
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x - x.mean(0)
    return (x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / n)).T).float()


def moments(p):
    share = p.shares.double()
    mean = (share[:, None] * p.x.double()).sum(0)
    z = p.x.double() - mean
    return mean, (share[:, None] * z).T @ z


def rolled(model, x, v, times):
    with torch.no_grad():
        return model.rollout(Particles(x, v), torch.tensor(times), torch.Generator())


def test_two_clusters_at_rest_change_their_log_odds_by_the_difference_of_their_rates():
    """log m = g t, exactly for the trapezoid, whatever the step."""
    x = torch.cat([torch.full((30, 2), -3.0), torch.full((10, 2), 3.0)])
    rates = Quadratic(0.5, (0.1, 0.0))  # 0.2 left, 0.8 right
    path = rolled(with_rates(rates, step=0.7), x, torch.zeros_like(x), [0.0, 1.0, 2.5])
    right = path.shares[:, 30:].sum(-1)
    odds = (right / (1 - right)).log()
    np.testing.assert_allclose(odds - math.log(10 / 30), 0.6 * np.array([0.0, 1.0, 2.5]), atol=1e-5)
    np.testing.assert_allclose(path.log_w[:, 0], [0.0, 0.2, 0.5], atol=1e-6)


@pytest.mark.parametrize("rate", [0.0, 0.7])
def test_a_gaussian_that_contracts_and_grows_by_a_quadratic_rate_stays_one(rate):
    """v = -Kx: m' = -Km + S(b - Qm), S' = -KS - SK' - SQS, (log M)' = c + b.m - m'Qm/2 - tr(QS)/2."""
    b, q, c = np.array([0.3, -0.2]), np.array([[0.4, 0.1], [0.1, 0.2]]), 0.1
    x = cloud(40_000)
    # Free flight with v0 = -rate x0 contracts like 1 - rate t: K(t) = rate / (1 - rate t).
    path = rolled(with_rates(Quadratic(c, b, q), step=0.02), x, -rate * x, [0.0, 1.0])
    m, s, log_m, h = np.zeros(2), np.eye(2), 0.0, 1e-4
    for i in range(10_000):
        k = rate / (1 - rate * i * h)
        log_m += h * (c + b @ m - m @ q @ m / 2 - np.trace(q @ s) / 2)
        m, s = m + h * (-k * m + s @ (b - q @ m)), s + h * (-2 * k * s - s @ q @ s)
    mean, covariance = moments(Particles(path.x[-1], None, path.log_w[-1]))
    np.testing.assert_allclose(mean, m, atol=0.01)
    np.testing.assert_allclose(covariance, s, atol=0.015)
    assert path.log_w[-1].logsumexp(-1).item() - math.log(len(x)) == pytest.approx(log_m, abs=0.005)


def test_price_s_equation():
    """d<x>/dt = <v> + Cov(g, x)."""
    x, h = cloud(), 1e-3
    v = x @ torch.tensor([[0.2, 0.0], [0.5, -0.1]]) + 0.3
    rates = Quadratic(0.2, (0.7, -0.4), ((0.3, 0.0), (0.0, 0.1)))
    path = rolled(with_rates(rates, step=h), x, v, [0.0, h])
    change = (moments(Particles(path.x[1], None, path.log_w[1]))[0] - x.double().mean(0)) / h
    g = rates(x).double()
    covariance = ((g - g.mean())[:, None] * x.double()).mean(0)
    np.testing.assert_allclose(change, v.double().mean(0) + covariance, atol=2e-3)


def test_a_drift_and_a_growth_that_no_snapshot_can_tell_apart():
    """On N(m, S), a drift S b without growth and growth b.x without motion make the same populations for ever."""
    x, b = cloud(20_000), np.array([0.5, -0.3])
    still = rolled(with_rates(Quadratic(0.0, b)), x, torch.zeros_like(x), [0.0, 1.0, 2.0])
    drift = rolled(with_rates(Quadratic()), x, torch.tensor(b).float().expand_as(x), [0.0, 1.0, 2.0])
    for k in (1, 2):
        grown_, moved = (moments(Particles(p.x[k], None, p.log_w[k])) for p in (still, drift))
        np.testing.assert_allclose(grown_[0], moved[0], atol=0.05)
        np.testing.assert_allclose(grown_[1], moved[1], atol=0.15)
    some = slice(0, 1500)
    losses = []
    for p in (still, drift):
        a = torch.softmax(p.log_w[1][some], -1)
        target = cloud(1500, seed=1) + torch.tensor(b).float()
        losses.append(sinkhorn_loss(p.x[1][some], target, a, blur=0.3)[0] + self_term(target, blur=0.3))
    assert abs(losses[0] - losses[1]) < 0.02  # a displacement by b alone costs |b|^2 / 2 = 0.17


@pytest.mark.parametrize("friction", [0.0, 1.5])
def test_masses_are_second_order_in_the_step(friction):
    """x = x0 cos t in a spring of rate 1, so that log m = b x0 sin t; with friction against a fine step."""
    x = cloud(50).double()
    end = torch.tensor([0.0, 2.0], dtype=torch.float64)
    gamma = torch.tensor(friction, dtype=torch.float64)

    def log_mass(n):
        start = Particles(x, torch.zeros_like(x))
        return list(leapfrog(lambda p, t: -p.x, start, end, gamma, [n], lambda z: z @ z.new_tensor([0.4, 0.1])))[
            0
        ].log_w

    exact = x @ x.new_tensor([0.4, 0.1]) * math.sin(2.0) if friction == 0 else log_mass(20_000)
    errors = [float((log_mass(n) - exact).abs().max()) for n in (10, 20, 40)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1) and errors[1] / errors[2] == pytest.approx(4, rel=0.1)


def test_the_force_sees_the_masses_of_its_time():
    """Two weights that have grown apart give the force of a population with these weights."""
    seen = []
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0]])

    def acceleration(p, t):
        seen.append(p.log_w)
        return torch.zeros_like(p.x)

    times = torch.tensor([0.0, 0.5, 1.0])
    rate = torch.tensor([0.3, -0.3])
    list(leapfrog(acceleration, Particles(x, 0 * x), times, torch.tensor(0.0), [1, 1], lambda z: rate))
    np.testing.assert_allclose(torch.stack(seen), np.outer([0, 0.5, 1], rate), atol=1e-6)


def test_rates_that_are_the_same_everywhere_change_no_share_and_leading_axes_do_not_matter():
    log_w, rate = torch.randn(3, 2, 7), torch.full((3, 2, 7), 0.4)
    after = grown(log_w, rate, rate, torch.tensor(0.5))
    torch.testing.assert_close(after, log_w + 0.2)
    torch.testing.assert_close(torch.softmax(after, -1), torch.softmax(log_w, -1))
    far = grown(torch.zeros(1000), torch.linspace(-50, 50, 1000), torch.linspace(-50, 50, 1000), torch.tensor(1.0))
    mean = far.logsumexp(-1) - math.log(1000)  # the clamp moves it a little
    assert float(mean - far.min()) == pytest.approx(growth.MAX_LOG_MASS, abs=0.05) and float(far.max()) == 50


def test_what_a_rate_costs():
    """sd 0.5 of the residual at all times; its mean is free. Sizes by hand."""
    known = lambda x: 0.5 * x[..., 0] + 3.0  # noqa: E731
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [9.0, 9.0]])
    log_w = torch.tensor([0.0, 0.0, -60.0])
    path = together([Particles(x, torch.ones(3, 2), log_w + k) for k in range(3)])
    times = torch.tensor([0.0, 0.3, 1.0])
    assert float(price(known, path, times, 2.0, math.inf)) == pytest.approx(1.0, rel=1e-3)
    bounded_price = 2.0 * 0.25 * (1 - math.exp(-0.5 / 0.25))
    assert float(price(known, path, times, 2.0, 0.25)) == pytest.approx(bounded_price, rel=1e-3)
    rate = Rate(2, 16)
    with torch.no_grad():
        rate.last.normal_(generator=torch.Generator().manual_seed(0))
    z = torch.randn(5, 2).requires_grad_()
    (slope,) = torch.autograd.grad(rate(z).sum(), z)
    torch.testing.assert_close(rate.slope(z.detach()), slope)
    assert roughness(rate, path, times).item() == pytest.approx(rate.slope(x)[:2].square().sum(-1).mean().item())
    assert float(size_error(path, torch.tensor([5.0, 6.0, 7.0]))) == pytest.approx(0.0, abs=1e-9)
    assert float(size_error(path, torch.tensor([5.0, 6.0, 9.0]))) == pytest.approx(2.0)  # (0 + 2^2) / 2
    assert float(with_mass(Particles(x)).log_w.abs().max()) == 0


def test_a_prior_is_learned_where_it_is_known_and_stays_within_what_is_known():
    x = [torch.rand(300, 2, generator=torch.Generator().manual_seed(k)) * 4 - 2 for k in range(2)]
    rates = [torch.sin(z[:, 0]) for z in x]
    rates[0][::3] = math.nan
    field = Prior(2)
    field.learn(x, rates, torch.Generator().manual_seed(0))
    z = torch.rand(200, 2, generator=torch.Generator().manual_seed(5)) * 3 - 1.5
    assert float((field(z) - torch.sin(z[:, 0])).abs().max()) < 0.2
    assert float(field.explained) > 0.95
    assert float(field(torch.full((1, 2), 100.0)).abs()) <= 1
    noise = Prior(2)
    noise.learn(x, [torch.randn(300, generator=torch.Generator().manual_seed(k)) for k in range(2)], torch.Generator())
    assert float(noise.explained) < 0.05


def known_prior(smoothing):
    """Rates 0.4 that are known around the origin, with a factor of 1 / 2."""
    rates = Growth(2, prior=True, residual=True, level=False)
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)) / 10
    rates.prior.learn([x, x], [torch.full((200,), 0.4)] * 2, torch.Generator().manual_seed(0))
    rates.prior.smoothing.fill_(smoothing)
    rates.raw_scale.data.fill_(math.log(math.expm1(0.5)))
    return rates


def test_rates_of_observed_cells_are_their_own():
    """c (p - mean of the cells around), 0 where p is unknown; with the mean that is c p, without any smoothing."""
    rates, x = known_prior(1.0), torch.zeros(3, 2)
    known = torch.tensor([1.0, -0.2, math.nan])
    with torch.no_grad():
        np.testing.assert_allclose(rates.own(x, known), [0.3, -0.3, 0.0], atol=1e-6)
        np.testing.assert_allclose(rates(x) + rates.own(x, known), [0.5, -0.1, 0.2], atol=1e-6)
        assert not Growth(2, prior=False, residual=True, level=False).own(x, known).any()
    # In the data's units: a time unit is two of the model's, so that rates are half as large there.
    model = dynamics(with_rates(rates), units(time=0.5), times=(0.0, 1.0))
    found = model.growth(np.zeros((3, 2)), 0.0, known=2 * known.double().numpy())
    np.testing.assert_allclose(found, 2 * (np.array([0.5, -0.1, 0.2]) - 0.2), atol=1e-5)
    np.testing.assert_allclose(
        model.own_growth(np.zeros((3, 2)), 2 * known.double().numpy()), [0.6, -0.6, 0], atol=1e-5
    )


def test_a_cell_keeps_its_own_rate_while_it_is_near():
    """Mean of e^(-D^2 / 2h^2) over the way, by quadrature; all of it at rest, a vanishing part far away."""
    rates, end = known_prior(0.7), torch.tensor([[0.0, 0.0], [0.5, 0.0], [0.0, -2.0], [60.0, 80.0]])
    x = torch.zeros_like(end)
    way = np.linspace(0, 1, 10_001)
    expected = [np.trapezoid(np.exp(-((s * way) ** 2) / (2 * 0.7**2)), way) for s in (0.0, 0.5, 2.0)]
    near = rates.prior.nearby(x, end).numpy()
    np.testing.assert_allclose(near[:3], expected, atol=1e-4)
    assert near[3] < 0.01
    own = rates.own(x, torch.full((4,), 1.4), end).detach()
    np.testing.assert_allclose(own, 0.5 * near, atol=1e-6)


@pytest.mark.parametrize("weights", [None, [1.0, 3.0, 1.0, 1.0]])
def test_own_rates_share_descendants_out_among_the_cells(weights):
    """Cells at rest for two units of time: their descendants are e^(2 c p) over the mean, known or not."""
    rates, x = known_prior(1.0), np.zeros((8, 2), dtype=np.float32)
    model = dynamics(with_rates(rates), units(), times=(0.0, 2.0))
    known, w = np.array([1.0, -0.2, math.nan, 0.4] * 2), None if weights is None else np.array(weights * 2)
    times = np.repeat([0.0, 2.0], 4)
    path = rollout(model, x[:4], np.zeros((4, 2)), np.arange(4), np.array([0.0, 2.0]), w=None if w is None else w[:4])
    found = fields(model, x, np.zeros((8, 2)), times, np.array([0.0, 2.0]), path, w=w, known=known)
    expected = np.exp(2 * 0.5 * np.array([1.0, -0.2, 0.4, 0.4]))
    np.testing.assert_allclose(found["descendants"][:4], expected / np.average(expected, weights=weights), rtol=1e-4)
    assert np.isnan(found["descendants"][4:]).all()


def test_effective_share_and_resampling_are_those_of_the_weights():
    """E[copies] = w; each cell has its expectation, rounded down or up."""
    w = np.random.default_rng(0).lognormal(0, 1.5, 60)
    assert effective_share(np.ones(10)) == pytest.approx(1) and effective_share(np.eye(10)[0] + 1e-12) == pytest.approx(
        0.1
    )
    expected = 60 * w / w.sum()
    rng = np.random.default_rng(1)
    copies = np.stack([np.bincount(resampled(w, 60, rng), minlength=60) for _ in range(2000)])
    assert (np.abs(copies - expected) < 1 + 1e-9).all() and (copies.sum(1) == 60).all()
    np.testing.assert_allclose(copies.mean(0), expected, atol=4 * 0.5 / math.sqrt(2000))


def still_clusters(rate, times=(0.0, 1.0, 2.0), n=200, sizes=None, seed=0):
    """Two resting clusters whose log-odds grow by ``rate`` per unit of time."""
    rng, positions = np.random.default_rng(seed), []
    for t in times:
        right = round(n / (1 + math.exp(-rate * (t - times[0]) + 0.8)))
        side = np.where(np.arange(n) < right, 3.0, -3.0)
        positions.append(np.stack([side, np.zeros(n)], 1) + 0.3 * rng.normal(size=(n, 2)))
    return Populations(np.asarray(times), tuple(positions), sizes=sizes)


@pytest.fixture(scope="module")
def clusters():
    """A fit to clusters at rest; no motion can explain their shares at this price."""
    return train(still_clusters(0.7), WLM(n_steps=120, growth=True, **AT_REST), seed=0)


@pytest.mark.slow
def test_learned_rates_of_two_clusters_are_the_slope_of_their_log_odds(clusters):
    x = np.array([[3.0, 0.0], [-3.0, 0.0]])
    right, left = clusters.dynamics.growth(x, 0.0)
    assert right - left == pytest.approx(0.7, abs=0.15) and right == pytest.approx(-left)


@pytest.mark.slow
def test_a_population_that_moves_by_growth_is_weighted_in_predictions(clusters):
    p = still_clusters(0.7)
    x = p.positions[0]
    moved = predict(clusters.dynamics, x, np.zeros_like(x), 0.0, [1.0, 2.0])
    np.testing.assert_allclose(moved.weights.mean(1), 1.0, rtol=1e-5)
    for k in (0, 1):
        share = np.average(moved.positions[k][:, 0] > 0, weights=moved.weights[k])
        assert share == pytest.approx((p.positions[k + 1][:, 0] > 0).mean(), abs=0.04)
    # In parts, each of which stands for the whole, masses are the same.
    parts = clusters.dynamics.simulate(x, [0.0, 2.0], v=np.zeros_like(x), chunk_size=70)
    np.testing.assert_allclose(parts.weights[-1], moved.weights[1], rtol=0.1)


@pytest.mark.slow
def test_totals_give_the_mean_rate_and_nothing_else_does():
    """Equal shares for ever, and e^(0.5 t) cells: a mean rate of 0.5 per unit of time, in the units of the data."""
    times = (3.0, 5.0, 7.0)
    p = still_clusters(0.0, times, sizes=1e4 * np.exp(0.5 * np.array([0.0, 2.0, 4.0])))
    options = {"n_steps": 10, "growth": True, "initial_velocity": "zero", **SMALL}
    dynamics_ = train(p, WLM(**options)).dynamics
    assert dynamics_.growth(p.positions[0], 3.0).mean() == pytest.approx(0.5, abs=0.05)
    moved = dynamics_.simulate(p.positions[0], [3.0, 7.0])
    assert moved.weights[-1].mean() == pytest.approx(math.exp(2.0), rel=0.2)
    alone = train(still_clusters(0.0, times), WLM(**options)).dynamics
    assert alone.growth(p.positions[0], 3.0).mean() == pytest.approx(0.0, abs=1e-6)
    assert alone.simulate(p.positions[0], [3.0, 7.0]).weights[-1].mean() == pytest.approx(1.0, abs=1e-5)


def test_totals_say_the_level_that_a_prior_leaves():
    """Training starts at the mean rate of the totals, whatever the mean of the prior; c = 1."""
    p = still_clusters(0.0, sizes=1e4 * np.exp([0.0, 0.5, 1.0]))
    p = replace(p, growth=tuple(np.where(x[:, 0] > 0, 2.0, 1.0) for x in p.positions))
    dynamics_ = train(p, WLM(n_steps=1, lr=1e-9, growth=True, initial_velocity="zero", **SMALL)).dynamics
    found = dynamics_.growth(p.positions[0], 0.0)
    assert found.mean() == pytest.approx(0.5, abs=0.2) and np.ptp(found) == pytest.approx(
        1, abs=0.1
    )  # one step of 0.05


def test_what_is_learned_besides_a_prior_is_dear_as_far_as_the_prior_counts():
    """A hundred times as dear where its factor is 1, ten times at a half, as without a prior at 0; never cheaper."""
    torch.manual_seed(0)
    rates, alone = (Growth(2, prior=prior, residual=True, level=False) for prior in (True, False))
    alone.network = rates.network
    torch.nn.init.normal_(rates.network.last)
    path = Particles(torch.randn(3, 1, 20, 2), None, torch.zeros(3, 1, 20))
    times = torch.tensor([[0.0], [1.0], [2.0]])
    base = WLM()._price(alone, path, times).item()
    for scale, factor in ((1e-6, 1), (0.5, 10), (1.0, 100), (3.0, 100)):
        rates.raw_scale.data.fill_(math.log(math.expm1(scale)))
        cost = WLM()._price(rates, path, times)
        assert cost.item() == pytest.approx(factor * base, rel=1e-3)
    (slope,) = torch.autograd.grad(cost, rates.raw_scale, allow_unused=True)
    assert slope is None, "the price is no reason to trust the prior less"


@pytest.mark.slow
def test_a_prior_of_the_wrong_sign_loses_its_weight_and_one_taken_as_it_is_stays():
    p = still_clusters(0.7)
    wrong = tuple(np.where(x[:, 0] > 0, -0.35, 0.35) for x in p.positions)
    fit = train(Populations(p.times, p.positions, growth=wrong), WLM(n_steps=60, lr=1e-2, growth=True, **AT_REST))
    x = np.array([[3.0, 0.0], [-3.0, 0.0]])
    right, left = fit.dynamics.growth(x, 0.0)
    assert right - left > 0.4 and fit.dynamics.model.rates.scale.item() < 0.8
    fit = train(Populations(p.times, p.positions, growth=wrong), WLM(n_steps=2, growth="prior", **AT_REST))
    right, left = fit.dynamics.growth(x, 0.0)
    assert right - left == pytest.approx(-0.7, abs=0.02)


def test_partners_are_coupled_by_the_masses_that_cells_have_by_then():
    """Half the cells multiply to 80 %: they have to fill the 80 % of the target that are near them."""
    x = np.array([[-3.0, 0.0]] * 20 + [[3.0, 0.0]] * 20)
    target = np.array([[-3.0, 1.0]] * 8 + [[3.0, 1.0]] * 32)
    rate = math.log(4) / 6
    model = dynamics(with_rates(Quadratic(0.0, (rate, 0.0))), units(), times=(0.0, 1.0))
    bridged = predict(model, x, np.zeros_like(x), 0.0, [0.999], target=target, target_time=1.0, steady=0.0)
    np.testing.assert_allclose(bridged.positions[0][:, 0], x[:, 0], atol=0.02)
    assert np.average(x[:, 0] > 0, weights=bridged.weights[0]) == pytest.approx(0.8, abs=1e-3)
