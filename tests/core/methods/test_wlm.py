"""WLM's objective, schedule and defaults: on motions whose loss and penalty are known, with a potential of zero."""

import math

import numpy as np
import pytest
import torch
from oracles import dynamics

from wlm.core.methods import WLM, Spec
from wlm.core.methods import wlm as wlm_method
from wlm.core.methods._rollouts import _repeated
from wlm.core.particles import Particles
from wlm.core.populations import Populations
from wlm.core.training import train

#: Nothing is learned, and batches are whole populations.
FROZEN = {"lr": 1e-12, "batch_size": 48, "friction_lr": 0.0, "width": 8, "heads": 2, "hidden": 8, "n_inducing": 2}
TIMES = (0.0, 0.5, 2.0, 3.0)


def flight(times=TIMES, *, weighted=False, measured=None, n=48, spread=(0.2, 0.1)):
    """Cells that fly apart at constant speeds, as a gradient does, in random order; velocities of the first times."""
    rng = np.random.default_rng(0)
    x0 = rng.normal(size=(n, 2))
    v, w = x0 * spread + [1.0, -0.5], np.exp(1.5 * x0[:, 0])
    orders = [rng.permutation(n) for _ in times]
    x = tuple((x0 + v * t)[i] for t, i in zip(times, orders, strict=True))
    known = len(times) if measured is None else measured
    velocities = tuple(v[i] if k < known else np.full_like(v, np.nan) for k, i in enumerate(orders))
    return Populations(np.asarray(times), x, velocities, tuple(w[i] for i in orders) if weighted else None)


@pytest.fixture
def totals(monkeypatch):
    """What is differentiated in each step."""
    seen, plain = [], torch.Tensor.backward

    def backward(self, *arguments, **options):
        seen.append(self.item())
        return plain(self, *arguments, **options)

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    return seen


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("measured", [None, 1])
@pytest.mark.parametrize("p", [1, 2])
def test_a_rollout_that_is_right_costs_nothing_from_wherever_it_starts(weighted, measured, p, totals):
    """Over irregular times, from measured velocities or from the momentum that rollouts from the first time brought."""
    method = WLM(n_steps=12, friction=0, initial_velocity="data", p=p, blur=0.1, **FROZEN)
    loss = train(flight(weighted=weighted, measured=measured), method).history["loss"]
    # Marginals are met to a percent, momenta that are means over neighbours to a little more; a target of a
    # neighbouring time, or copies in place of weights, cost more than 0.1.
    assert np.abs(loss).max() < 0.03
    np.testing.assert_allclose(totals, loss, atol=2e-3)  # and constant velocities have no penalty


def test_momentum_is_carried_to_the_branch_it_belongs_to():
    """Two groups that pass each other's places: a mean over both would miss all later times."""
    p = flight(spread=(0.0, 0.0))
    side = [np.sign(x[:, 1] - x[:, 1].mean())[:, None] for x in p.positions]
    x = tuple(z + s * [3.0 * (t - 1), 8.0] for z, s, t in zip(p.positions, side, TIMES, strict=True))
    v = tuple(v + s * [3.0, 0.0] for v, s in zip(p.velocities, side, strict=True))
    p = Populations(p.times, x, (v[0], *(np.full_like(v[0], np.nan) for _ in TIMES[1:])))
    method = WLM(n_steps=12, friction=0, initial_velocity="data", blur=0.1, **FROZEN)
    assert np.abs(train(p, method).history["loss"]).max() < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("weighted", [False, True])
def test_the_penalty_is_the_mean_square_of_acceleration_along_the_path(weighted, totals, monkeypatch):
    """Cells that coast: v = v0 exp(-gamma t), so that |dv/dt| is gamma |v|. The first step is left out."""
    gamma, weight = 0.8, 5.0
    monkeypatch.setattr(WLM, "RESTART", 0.0)
    p = flight((0.0, 1.0, 2.0), weighted=weighted)
    options = {"acceleration_penalty": weight, "max_step": 0.01, **FROZEN}
    fit = train(p, WLM(n_steps=4, friction=gamma, initial_velocity="data", **options))
    square = np.square(p.velocities[0] / fit.dynamics.units.velocity).sum(1)
    mean = np.average(square, weights=None if p.weights is None else p.weights[0])
    # Rollouts go on for one interval, or two, over which the mean is taken.
    expected = {t: weight * gamma * mean * (1 - math.exp(-2 * gamma * t)) / (2 * t) for t in (1, 2)}
    horizons = set()
    for found in totals - fit.history["loss"]:
        horizon = min(expected, key=lambda t: abs(expected[t] - found))
        assert found == pytest.approx(expected[horizon], rel=0.05)
        horizons.add(horizon)
    assert horizons == {1, 2}


def test_the_penalty_is_less_where_velocities_are_measured(totals):
    """By default 0.01, and 0.03 where they are not: relative to those of a known weight, for the same path."""

    class Moving(WLM):
        def build(self, spec):
            model = super().build(spec)
            if model.start is not None:
                torch.nn.init.normal_(model.start.last, generator=torch.Generator().manual_seed(0))
            return model

    p = flight((0.0, 1.0))
    for populations, start, default in ((p, "data", 0.01), (Populations(p.times, p.positions), "learned", 0.03)):
        found = []
        for penalty in (None, 1.0):
            totals.clear()
            method = Moving(n_steps=2, friction=5.0, initial_velocity=start, acceleration_penalty=penalty, **FROZEN)
            loss = train(populations, method).history["loss"]
            found.append(totals[0] - loss[0])
        assert found[0] == pytest.approx(default * found[1], rel=0.05)


@pytest.fixture
def rates(monkeypatch):
    """Learning rates and weight decays of the groups of parameters, at each step."""
    seen, plain = [], torch.optim.AdamW.step

    def step(self, *arguments, **options):
        seen.append([(group["lr"], group["weight_decay"]) for group in self.param_groups])
        return plain(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    return seen


def test_learning_rates_rise_for_a_twentieth_of_the_steps_and_fall_along_a_cosine(rates):
    more = {**FROZEN, "lr": 1e-4, "friction_lr": None}
    train(flight(), WLM(n_steps=40, initial_velocity="data", weight_decay=0.02, **more))
    assert len(rates) == 40
    share = [0.5, 1.0, *(0.01 + 0.99 * (1 + math.cos(math.pi * k / 38)) / 2 for k in range(38))]
    np.testing.assert_allclose([r[0][0] for r in rates], 1e-4 * np.array(share), rtol=1e-6)
    np.testing.assert_allclose([r[1][0] for r in rates], 0.01 * np.array(share), rtol=1e-6)
    assert {(r[0][1], r[1][1]) for r in rates} == {(0.02, 0.0)}  # friction does not decay


def test_without_velocities_friction_starts_high_and_learns_fast(rates):
    p = flight()
    without = Populations(p.times, p.positions)
    options = {**FROZEN, "friction_lr": None, "n_steps": 2, "initial_velocity": "learned"}
    train(without, WLM(**options))
    train(without, WLM(**{**options, "friction_lr": 0.5}))
    assert [r[1][0] for r in rates[:2]] == pytest.approx([0.1, 0.1]) and rates[2][1][0] == pytest.approx(0.5)
    for has_velocity, friction in ((True, 0.1), (False, 3.0)):
        spec = Spec(2, 0.1, has_velocity=has_velocity, n_times=3, times=(0.0, 1.0, 2.0))
        assert WLM().build(spec).friction.item() == pytest.approx(friction)


@pytest.mark.parametrize(
    ("options", "n_times", "steps"), [({}, 3, 4), ({"max_step": 0.2}, 3, 10), ({}, 33, 1), ({}, 17, 2)]
)
def test_predictions_take_half_a_training_step(options, n_times, steps):
    """That is a quarter of an interval, or a thirty-second of all of the time where that is more."""
    times = tuple(float(t) for t in range(n_times))
    small = {"width": 8, "heads": 2, "hidden": 8, "n_inducing": 2}
    model = WLM(**small, **options).build(Spec(2, 0.1, has_velocity=True, n_times=n_times, times=times))
    calls = []
    model.potential.register_forward_hook(lambda *_: calls.append(1))
    x = np.random.default_rng(0).normal(size=(10, 2))
    dynamics(model).simulate(x, [0.0, 1.0], v=x)
    assert len(calls) == steps + 1


def test_the_gradient_of_the_potential_is_clipped(monkeypatch):
    """Its norm is what is logged, and ``CLIP`` what is left of it."""
    norms, plain = [], torch.nn.utils.clip_grad_norm_

    def clip(parameters, size, *arguments, **options):
        parameters = list(parameters)
        before = plain(parameters, size, *arguments, **options)
        after = math.sqrt(sum(p.grad.square().sum().item() for p in parameters if p.grad is not None))
        norms.append((before.item(), after, size))
        return before

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    monkeypatch.setattr(WLM, "CLIP", 1e-3)
    p = flight()
    resting = Populations(p.times, p.positions)
    history = train(resting, WLM(n_steps=3, initial_velocity="zero", **FROZEN)).history
    for logged, (before, after, size) in zip(history["gradient_norm"], norms, strict=True):
        assert size == 1e-3 < before == pytest.approx(logged, rel=1e-5) and after == pytest.approx(1e-3, rel=1e-3)


def test_of_a_smaller_population_a_rollout_has_every_cell_in_turn():
    x = torch.arange(6.0).reshape(3, 2)
    p = _repeated(Particles(x, 10 * x, torch.arange(3.0)), 7)
    i = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    assert torch.equal(p.x, x[i]) and torch.equal(p.v, 10 * x[i]) and torch.equal(p.log_w, i.float())
    assert _repeated(p, 7) is p


def test_rollouts_start_at_all_times_with_velocities_and_go_one_or_two_intervals(monkeypatch):
    """Multiple shooting: what is integrated in a step has an axis for the starts; a few are drawn of many."""
    seen, plain = [], wlm_method.refine
    monkeypatch.setattr(wlm_method, "refine", lambda times, steps: seen.append(times) or plain(times, steps))
    monkeypatch.setattr(WLM, "RESTART", 1.0)
    train(flight(), WLM(n_steps=20, initial_velocity="data", **FROZEN))
    scale = np.diff(TIMES).mean()
    starts = {len(t): np.round(scale * t[0].numpy(), 4).tolist() for t in seen}
    assert starts == {2: [0.0, 0.5, 2.0], 3: [0.0, 0.5]}
    for t in seen:
        first = [TIMES.index(s) for s in starts[len(t)]]
        np.testing.assert_allclose(scale * t.numpy().T, [TIMES[k : k + len(t)] for k in first], atol=1e-6)
    seen.clear()
    train(flight(tuple(range(13))), WLM(n_steps=10, initial_velocity="data", **FROZEN))
    assert {t.shape[1] for t in seen} == {wlm_method.MOST_ROLLOUTS}
    assert len({float(t[0, -1]) for t in seen}) > 1


def test_rollouts_that_leave_the_data_do_not_keep_the_others_from_learning(totals):
    """Velocities that hold for two intervals, and would lead far away over the third."""
    p = flight()
    x = (*p.positions[:3], p.positions[2])
    p = Populations(np.array([0.0, 0.5, 2.0, 60.0]), x, p.velocities)
    loss = train(p, WLM(n_steps=12, friction=0, initial_velocity="data", blur=0.1, **FROZEN)).history["loss"]
    assert np.abs(loss).max() < 0.03
