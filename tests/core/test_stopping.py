"""Stopping when nothing is left to learn: cells set aside, their distance, patience."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from wlm.core import stopping
from wlm.core.dynamics import Moved
from wlm.core.methods import WLM, Flow, JKOnetStar
from wlm.core.metrics import w1
from wlm.core.populations import Populations
from wlm.core.stopping import Watch, check_enough, distance, set_aside
from wlm.core.training import train


def drift(n=120, seed=0):
    """Three Gaussian populations that move to the right, whose cells have numbers as strata."""
    rng = np.random.default_rng(seed)
    x = tuple(rng.normal(size=(n, 2)).astype(np.float32) + np.float32([2 * k, 0]) for k in range(3))
    return Populations(
        np.arange(3.0), x, weights=tuple(1 + rng.random(n) for _ in range(3)), strata=(np.arange(n),) * 3
    )


class Script:
    """Dynamics that stand for a model of one number."""

    def __init__(self, number):
        self.model = torch.nn.Linear(1, 1)
        torch.nn.init.constant_(self.model.weight, number)


def scripted(monkeypatch, values, patience=4):
    """A watch that sees the distances ``values`` at its looks."""
    left = iter(values)
    monkeypatch.setattr(stopping, "distance", lambda *_: next(left))
    return Watch(drift(), patience, seed=0)


def test_a_tenth_of_each_time_is_set_aside_and_not_trained_on():
    p = drift(125)
    ours, held = set_aside(p, seed=3)
    for k in range(3):
        assert len(held.strata[k]) == 12 and sorted([*ours.strata[k], *held.strata[k]]) == list(range(125))
        for part in (ours, held):
            assert np.array_equal(part.positions[k], p.positions[k][part.strata[k]])
            assert np.array_equal(part.weights[k], p.weights[k][part.strata[k]])
    assert not np.array_equal(set_aside(p, seed=4)[1].strata[0], held.strata[0]), "each seed sets others aside"


def test_of_many_cells_five_hundred_are_enough():
    assert {len(x) for x in set_aside(drift(6000), seed=0)[1].positions} == {500}


def test_few_cells_are_refused_before_any_work():
    with pytest.raises(ValueError, match=r"at least 10, and time 0 has 99 cells; leave patience out"):
        check_enough(drift(99))
    with pytest.raises(ValueError, match="leave patience out"):
        train(drift(99), WLM(n_steps=5), patience=2)


def test_it_is_over_when_the_distance_has_not_fallen_by_a_percent_for_so_long(monkeypatch):
    # Looks at every step; 0.991 is no fall below 1.0, and 0.98 is one.
    watch = scripted(monkeypatch, [1.0, 0.991, 0.992, 0.98, 0.975, 0.974, 0.973, 0.972])
    over = []
    for step in range(8):
        watch.look(step, Script(step))
        over.append(watch.over(step))
    assert over == [False] * 7 + [True] and watch.least_step == 3 and watch.least == 0.98
    assert watch.best(torch.nn.Linear(1, 1)).weight.item() == 3, "the model that came nearest is kept"
    assert "stopped after 7 of 100 steps" in watch.words(7, 100) and "not fallen for 4" in watch.words(7, 100)
    assert watch.words(6, 6).startswith("all 6 steps were made; the model of step 3")


def test_it_looks_four_times_within_its_patience(monkeypatch):
    watch = scripted(monkeypatch, [5.0, 4.0, 3.0], patience=40)
    assert [watch.look(step, Script(step)) for step in range(21)] == [5.0] * 10 + [4.0] * 10 + [3.0]


def test_an_untrained_model_that_is_lost_is_no_best(monkeypatch):
    watch = scripted(monkeypatch, [np.inf, np.inf, 2.0])
    for step in range(3):
        watch.look(step, Script(step))
    assert watch.least == 2.0 and watch.best(torch.nn.Linear(1, 1)).weight.item() == 2


@pytest.mark.parametrize("grows", [False, True])
def test_the_distance_is_from_each_population_to_the_next(grows):
    p, last = drift(), np.linspace(1, 3, 120, dtype=np.float32)

    def simulate(x, times, *, v=None, w=None, seed=0):
        positions = np.stack([x + np.float32([0, t - times[0]]) for t in times])
        return Moved(positions, np.zeros_like(positions), np.stack([w] * (len(times) - 1) + [last]) if grows else None)

    moving = SimpleNamespace(
        simulate=simulate, needs_velocity=False, velocity=lambda x, t, w: x, start_velocity=lambda v, seed: v
    )
    expected = [
        w1(p.positions[k] + [0, 1], p.positions[k + 1], last if grows else p.weights[k], p.weights[k + 1])
        for k in range(2)
    ]
    assert distance(moving, p, 0) == pytest.approx(np.mean(expected), rel=1e-5)


def test_cells_start_with_their_velocities_and_lost_ones_are_infinitely_far():
    p = drift()
    p = Populations(p.times, p.positions, tuple(np.full((120, 2), k + 1.0, dtype=np.float32) for k in range(3)))
    seen = []

    def simulate(x, times, *, v=None, w=None, seed=0):
        seen.append(v[0, 0])
        return Moved(np.stack([x + (np.nan if len(seen) == 3 else 0)] * len(times)), np.stack([v] * len(times)))

    still = SimpleNamespace(simulate=simulate, needs_velocity=True, velocity=lambda x, t, w: None)
    assert distance(still, p, 0) == np.inf
    assert seen == [1.0, 1.0, 2.0], "the rollout, then each population with its own velocities"


def test_a_training_ends_when_nothing_is_left_to_learn():
    p, method = drift(200), JKOnetStar(n_steps=400, width=16)
    fit = train(p, method, patience=20)
    assert fit.n_steps < 200 and not fit.interrupted and f"stopped after {fit.n_steps} of 400" in fit.words
    value = fit.history["validation"]
    assert len(value) == len(fit.history["step"]) == fit.n_steps
    # What is kept is as near as the nearest, but for falls of less than a per cent.
    assert distance(fit.dynamics, set_aside(p, 0)[1], 0) <= value.min() / 0.99
    plain = train(p, JKOnetStar(n_steps=3, width=16))
    assert plain.words is None and "validation" not in plain.history


def test_patience_goes_on_from_a_checkpoint_to_the_same_bits(tmp_path):
    p, method = drift(), WLM(n_steps=12, width=16, hidden=16, batch_size=32)
    whole = train(p, method, patience=4)

    def stop(step, _):
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(p, method, patience=4, checkpoint=tmp_path / "fit", on_step=stop)
    again = train(p, method, patience=4, checkpoint=tmp_path / "fit")
    assert again.n_steps == whole.n_steps and again.words == whole.words
    for name, weights in whole.dynamics.model.state_dict().items():
        assert torch.equal(weights, again.dynamics.model.state_dict()[name]), name
    once_more = train(p, method, patience=4, checkpoint=tmp_path / "fit")
    assert once_more.n_steps == whole.n_steps, "a training that is over makes no more steps"


@pytest.mark.parametrize(
    ("method", "patience", "message"),
    [
        (WLM(), 0, "patience must be at least 1 step, found 0"),
        (JKOnetStar(solver="ridge"), 5, "method 'jkonet_star' makes one step"),
        (Flow(), 5, "method 'flow' makes one step, after which nothing can stop; leave patience out"),
    ],
)
def test_impatience_is_refused(method, patience, message):
    with pytest.raises(ValueError, match=message):
        train(drift(), method, patience=patience)
