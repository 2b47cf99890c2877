"""Training: reproducible, isolated from global state, and able to recover known mechanics."""

import copy

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist

from wlm.core.divergences import sinkhorn_loss
from wlm.core.dynamics import Dynamics
from wlm.core.methods import WLM
from wlm.core.methods import wlm as wlm_method
from wlm.core.populations import Populations
from wlm.core.training import TrainingError, train

SMALL = {"width": 32, "hidden": 64, "n_inducing": 4, "batch_size": 128}


def oscillators(n=200, times=(0.0, 0.5, 1.0, 1.5), omega2=(1.0, 2.0), seed=0):
    """Independent oscillators with the potential sum(omega2 * x**2) / 2, no friction, exact."""
    rng = np.random.default_rng(seed)
    omega = np.sqrt(omega2)
    x0, v0 = rng.normal(size=(2, n, 2)) + np.array([[[1.0, 0.5]], [[0.0, 0.5]]])
    x = [x0 * np.cos(omega * t) + v0 / omega * np.sin(omega * t) for t in times]
    v = [-x0 * omega * np.sin(omega * t) + v0 * np.cos(omega * t) for t in times]
    return Populations(np.array(times), tuple(x), tuple(v))


@pytest.mark.slow
@pytest.mark.parametrize("heads", [4, 0])
def test_recovers_a_known_quadratic_potential(heads):
    populations = oscillators()
    method = WLM(n_steps=500, friction=0, acceleration_penalty=0.0, initial_velocity="data", heads=heads, **SMALL)
    dynamics = train(populations, method, seed=0).dynamics
    x = populations.positions[1]
    expected = -np.array([1.0, 2.0]) * x
    force = dynamics.force(x, 0.5)
    relative = np.linalg.norm(force - expected) / np.linalg.norm(expected)
    assert relative < 0.2
    # Energies are defined up to a constant.
    energy, true = dynamics.energy(x, 0.5), 0.5 * (np.array([1.0, 2.0]) * x**2).sum(1)
    assert np.corrcoef(energy, true)[0, 1] > 0.97
    # The rollout keeps to the exact orbit past the times it was trained on.
    ahead = oscillators(times=(0.0, 2.0))
    predicted = dynamics.simulate(ahead.positions[0], [0.0, 2.0], v=ahead.velocities[0])[0][-1]
    error = np.sqrt(np.square(predicted - ahead.positions[1]).mean())
    assert error < 0.25 * ahead.positions[1].std()


@pytest.mark.slow
def test_friction_is_learned():
    """Cells that coast to rest without force, each in its own direction: x = x0 + v0 (1 - exp(-gamma t)) / gamma."""
    rng, gamma, times = np.random.default_rng(0), 1.5, np.array([0.0, 0.5, 1.0, 1.5])
    x0, v0 = rng.normal(size=(150, 2)), 2 * rng.normal(size=(150, 2))
    x = tuple(x0 + v0 * (1 - np.exp(-gamma * t)) / gamma for t in times)
    v = tuple(v0 * np.exp(-gamma * t) for t in times)
    method = WLM(n_steps=150, friction=0.2, friction_lr=0.1, blur=0.15, **SMALL)
    friction = train(Populations(times, x, v), method).dynamics.rates()["friction"]
    assert friction == pytest.approx(gamma, rel=0.2)


@pytest.mark.slow
def test_longest_horizon_grows_over_the_first_half(monkeypatch):
    reached = []
    p = oscillators(20, times=np.arange(13.0))

    def horizon(*arguments):
        reached.append(len(arguments[0]))
        return sinkhorn_loss(*arguments, p=2, blur=1.0)

    monkeypatch.setattr(wlm_method, "sinkhorn_loss", lambda *a, **_: horizon(*a))
    monkeypatch.setattr(WLM, "RESTART", 0.0)
    monkeypatch.setattr(WLM, "CURRICULUM", 1.0)
    train(p, WLM(n_steps=60, **SMALL))
    assert max(reached[:5]) <= 5 < max(reached[:40]) and 10 < max(reached) <= 12


def test_a_step_without_a_usable_gradient_is_skipped_but_not_for_ever(monkeypatch):
    p = oscillators(20)
    norm = torch.nn.utils.clip_grad_norm_
    steps = []

    def sometimes(parameters, clip):
        steps.append(1)
        return norm(parameters, clip) if len(steps) != 3 else torch.tensor(torch.inf)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", sometimes)
    history = train(p, WLM(n_steps=6, **SMALL)).history
    assert history["gradient_norm"][2] == 0 and (np.delete(history["gradient_norm"], 2) > 0).all()
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(torch.nan))
    with pytest.raises(TrainingError, match="gradient_norm became nan at step 10"):
        train(p, WLM(n_steps=30, **SMALL))


@pytest.mark.slow
@pytest.mark.parametrize(("bad", "stops"), [(lambda n: n == 39, False), (lambda n: n > 40, True)])
@pytest.mark.parametrize(("added", "became"), [(torch.nan, "nan"), (1e4, "inf")])
def test_a_rollout_that_leaves_all_numbers_or_the_data_is_skipped_but_not_for_ever(
    monkeypatch, bad, stops, added, became
):
    p, calls, plain = oscillators(20), [], wlm_method.force

    def sometimes(energy, p, t, **options):
        calls.append(1)
        return plain(energy, p, t, **options) + (added if bad(len(calls)) else 0)

    monkeypatch.setattr(wlm_method, "force", sometimes)
    if stops:
        with pytest.raises(TrainingError, match=f"became {became} at step"):
            train(p, WLM(n_steps=60, **SMALL))
    else:
        history = train(p, WLM(n_steps=12, **SMALL)).history
        assert np.isfinite(history["loss"]).all() and (history["gradient_norm"] == 0).sum() == 1


@pytest.mark.parametrize("options", [{}, {"divergence": "geomloss", "initial_velocity": "zero", "time_features": True}])
def test_same_seed_same_numbers_and_global_state_untouched(options):
    populations = oscillators(50)
    torch.manual_seed(123)
    np.random.seed(123)  # noqa: NPY002 - it is the global state that is watched
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    runs = [train(populations, WLM(n_steps=6, **SMALL, **options), seed=s) for s in (5, 5, 6)]
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
    weights = [torch.cat([p.flatten() for p in r.dynamics.model.parameters()]) for r in runs]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert np.array_equal(runs[0].history["loss"], runs[1].history["loss"])


@pytest.mark.slow
@pytest.mark.parametrize("start", ["zero", "learned", "estimated"])
def test_starts_without_velocities(start):
    p = oscillators(60)
    populations = Populations(p.times, p.positions)
    fit = train(populations, WLM(n_steps=5, initial_velocity=start, **SMALL))
    v = fit.dynamics.simulate(p.positions[0], [0.0, 0.5]).velocities
    assert v.shape == (2, 60, 2) and np.isfinite(v).all()
    assert (np.abs(v[0]).max() == 0) == (start == "zero")


def test_learned_initial_velocity_is_a_gradient_field():
    p = oscillators(60)
    model = train(
        Populations(p.times, p.positions), WLM(n_steps=30, initial_velocity="learned", **SMALL)
    ).dynamics.model.double()
    x = torch.randn(2, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: model.initial_velocity(x[None])[0], x)
    assert jacobian.abs().max() > 1e-4 and torch.allclose(jacobian, jacobian.T, atol=1e-6)


@pytest.mark.slow
def test_diverging_training_stops_with_the_step_and_advice(monkeypatch):
    monkeypatch.setattr(WLM, "CLIP", 1e18)
    with np.errstate(all="ignore"), pytest.raises(TrainingError, match=r"at step \d+ of 60.*smaller learning rate"):
        train(oscillators(30), WLM(n_steps=60, lr=1e18, **SMALL))


def test_units_do_not_matter():
    """The same cells in other units of length and time give the same dynamics in those units."""
    p = oscillators(60)
    q = Populations(10 * p.times + 3, tuple(100 * x + 7 for x in p.positions), tuple(10 * v for v in p.velocities))
    a, b = (train(pops, WLM(n_steps=10, **SMALL)).dynamics for pops in (p, q))
    x, v = p.positions[0], p.velocities[0]
    xa, va, _ = a.simulate(x, [0.0, 1.0], v=v)
    xb, vb, _ = b.simulate(100 * x + 7, [3.0, 13.0], v=10 * v)
    assert np.allclose(100 * xa + 7, xb, rtol=1e-3, atol=0.05) and np.allclose(10 * va, vb, rtol=1e-3, atol=0.02)
    assert a.rates()["friction"] == pytest.approx(10 * b.rates()["friction"], rel=1e-4)
    assert np.allclose(100 * a.force(x, 0.5) / 10**2, b.force(100 * x + 7, 8.0), rtol=1e-2, atol=1e-3)


def test_equal_weights_change_nothing_and_unequal_ones_do():
    p = oscillators(60)
    rng = np.random.default_rng(0)
    same = tuple(np.full(60, 3.0) for _ in p.times)
    other = tuple(rng.uniform(0.2, 5, 60) for _ in p.times)
    weighted = [Populations(p.times, p.positions, p.velocities, w) for w in (None, same, other)]
    losses = [train(q, WLM(n_steps=6, **SMALL)).history["loss"] for q in weighted]
    assert np.allclose(losses[0], losses[1], rtol=1e-3, atol=1e-5) and not np.allclose(losses[0], losses[2], rtol=1e-2)


@pytest.mark.slow
def test_weights_move_mass():
    """The same cells at both times, but the weights move from left to right: so must the cells."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 2)) * 0.3 + np.repeat([[-1.0, 0.0], [1.0, 0.0]], 50, axis=0)
    left, right = np.repeat([9.0, 1.0], 50), np.repeat([1.0, 9.0], 50)
    method = WLM(n_steps=90, initial_velocity="zero", **SMALL)
    for weights, shift in (((left, right), 1.6), ((left, left), 0.0)):
        dynamics = train(Populations(np.array([0.0, 1.0]), (x, x), weights=weights), method).dynamics
        end = dynamics.simulate(x, [0.0, 1.0], w=weights[0])[0][-1]
        assert np.average(end[:, 0] - x[:, 0], weights=weights[0]) == pytest.approx(shift, abs=0.4)


def test_unequal_populations_and_irregular_times():
    rng = np.random.default_rng(0)
    sizes, times = (300, 7, 90), np.array([0.0, 0.3, 4.0])
    populations = Populations(times, tuple(rng.normal(size=(n, 3)) + t for n, t in zip(sizes, times, strict=True)))
    fit = train(populations, WLM(n_steps=5, **SMALL))
    assert np.isfinite(fit.history["loss"]).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lr": 0}, ValueError, "lr must be above 0"),
        ({"n_steps": 2.5}, TypeError, "n_steps must be an integer"),
        ({"friction": -1}, ValueError, "friction must be at least 0"),
        ({"friction": float("nan")}, ValueError, "friction"),
        ({"divergence": "exact"}, ValueError, "divergence must be one of"),
        ({"p": 3}, ValueError, "p must be one of"),
        ({"width": 30, "heads": 4}, ValueError, "multiple of heads"),
        ({"ema": 2}, ValueError, "ema must be at most 1"),
        ({"max_step": 0}, ValueError, "max_step must be above 0"),
        ({"acceleration_penalty": "much"}, TypeError, "acceleration_penalty must be a number"),
        ({"friction_lr": -1}, ValueError, "friction_lr must be at least 0"),
        ({"compile": "yes"}, ValueError, "compile must be one of"),
        ({"learning_rate": 1}, TypeError, "unknown option.*did you mean lr.*options are.*lr"),
        ({"seed": 1}, TypeError, "did you mean rng?"),
        ({"epochs": 1}, TypeError, "did you mean n_steps?"),
        ({"batch_key": "donor"}, TypeError, "did you mean strata_key?"),
        ({"n_step": 1, "widht": 2}, TypeError, "did you mean n_steps, width?"),
    ],
)
def test_wrong_options_fail_at_once(options, error, message):
    with pytest.raises(error, match=message):
        WLM.from_options(options)


@pytest.mark.parametrize(
    ("times", "positions", "message"),
    [
        ([0.0], [np.zeros((3, 2))], "at least two times"),
        ([0.0, 0.0], [np.zeros((3, 2))] * 2, "times must increase"),
        ([0.0, 1.0], [np.zeros((3, 2)), np.zeros((3, 3))], "differ in dimension"),
        ([0.0, 1.0], [np.zeros((3, 2)), np.full((3, 2), np.nan)], "NaN"),
        ([0.0, 1.0], [np.zeros((3, 2)), np.zeros((1, 2))], "at least 2"),
        ([0.0, 1.0, 2.0], [np.zeros((3, 2))] * 2, "3 times but 2 populations"),
    ],
)
def test_impossible_populations_are_refused(times, positions, message):
    with pytest.raises(ValueError, match=message):
        Populations(np.array(times), tuple(positions))


@pytest.mark.parametrize(("weights", "message"), [(np.ones(4), "shape"), (np.array([1.0, 0, 1]), "must be positive")])
def test_impossible_weights_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        Populations(np.array([0.0, 1.0]), (np.eye(3),) * 2, weights=(np.ones(3), weights))


@pytest.mark.gpu
def test_cpu_and_gpu_agree():
    """The same weights give the same dynamics; batches, drawn by each device's own generator, differ."""
    populations = oscillators(60)
    state = torch.cuda.get_rng_state()
    gpu = train(populations, WLM(n_steps=20, **SMALL), device="cuda").dynamics
    assert torch.equal(state, torch.cuda.get_rng_state())
    cpu = Dynamics(copy.deepcopy(gpu.model).cpu(), gpu.method, gpu.spec, gpu.units)
    x, v = populations.positions[0], populations.velocities[0]
    for a, b in zip(cpu.simulate(x, [0.0, 1.0], v=v)[:2], gpu.simulate(x, [0.0, 1.0], v=v)[:2], strict=True):
        assert np.allclose(a, b, atol=1e-3)
    assert np.allclose(cpu.energy(x, 0.5), gpu.energy(x, 0.5), atol=1e-3)
    assert np.allclose(cpu.force(x, 0.5), gpu.force(x, 0.5), atol=1e-3)
    assert np.allclose(cpu.carry_velocity(x, v, x + 1), gpu.carry_velocity(x, v, x + 1), atol=1e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{}, {"n_batches": 2}, {"compile": True}, {"initial_velocity": "spline"}])
def test_options_run_on_the_gpu(options):
    p = oscillators(60)
    p = Populations(p.times, p.positions, None, None, tuple(np.arange(60) % 2 for _ in p.times))
    assert np.isfinite(train(p, WLM(n_steps=4, **options, **SMALL), device="cuda").history["loss"]).all()


def test_many_dimensions_are_not_taken_for_a_rollout_that_left_the_data():
    """In 100 dimensions, populations that are far apart are so in standard units as well."""
    rng = np.random.default_rng(0)
    p = Populations(np.array([0.0, 1.0]), tuple(0.1 * rng.normal(size=(50, 100)) + 2 * t for t in (0.0, 1.0)))
    history = train(p, WLM(n_steps=40, **SMALL)).history
    assert (
        history["loss"][0] > 100 and history["loss"][-1] < history["loss"][0] and (history["gradient_norm"] > 0).all()
    )


@pytest.mark.slow
def test_a_compiled_training_is_the_same_to_rounding():
    p = oscillators(40)
    small = {"n_steps": 3, "width": 8, "heads": 2, "hidden": 16, "n_inducing": 2, "batch_size": 40}
    losses = [train(p, WLM(compile=compiled, **small)).history["loss"] for compiled in (False, True)]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_what_is_kept_is_the_running_average_of_the_weights():
    """It forgets its start: the decay of step n is n / (n + 9), and ``ema`` at most."""
    seen = []

    class Watching(WLM):
        def step(self, model, spec, state):
            if not seen:
                seen.append([p.detach().clone() for p in model.parameters()])
            scalars = super().step(model, spec, state)
            seen.append([p.detach().clone() for p in model.parameters()])
            return scalars

    fit = train(oscillators(40), Watching(n_steps=12, ema=0.5, **SMALL))
    average = seen[0]
    for n, weights in enumerate(seen[1:], start=1):
        decay = min(0.5, n / (n + 9))
        average = [decay * a + (1 - decay) * w for a, w in zip(average, weights, strict=True)]
    for kept, expected in zip(fit.dynamics.model.parameters(), average, strict=True):
        torch.testing.assert_close(kept.detach(), expected, rtol=1e-4, atol=1e-6)


def test_the_blur_is_a_tenth_of_the_median_distance_in_standard_units():
    p = oscillators(100)
    fit = train(p, WLM(n_steps=1, **SMALL))
    expected = np.mean([np.median(pdist(x)) for x in p.positions]) / fit.dynamics.units.length / 10
    assert fit.dynamics.spec.blur == pytest.approx(expected, rel=0.01)
    np.testing.assert_allclose(fit.dynamics.spec.times, [0, 1, 2, 3], rtol=1e-6)
