"""Predictions, bridging, carried momentum and metrics, against cases with a known answer."""

import numpy as np
import ot
import pytest
import torch

from wlm.core.methods import WLM, IJKOnet
from wlm.core.metrics import METRICS, mmd, w1, w2
from wlm.core.populations import Populations
from wlm.core.prediction import predict, rollout
from wlm.core.training import train
from wlm.core.transport import coupling, interpolate, partners


def free(shift=(4.0, 0.0), n=80):
    """Dynamics without force or friction, from a fit of zero learning effect, and two populations."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 2)).astype(np.float32)
    y = (rng.normal(size=(n, 2)) + shift).astype(np.float32)
    method = WLM(n_steps=1, lr=1e-12, friction=0, width=8, heads=2, hidden=8, n_inducing=2)
    return train(Populations(np.array([0.0, 2.0]), (x, y)), method).dynamics, x, y


def test_without_force_and_velocity_bridging_is_the_linear_interpolation_of_optimal_transport():
    dynamics, x, y = free()
    positions, velocities = predict(dynamics, x, 0 * x, 0.0, [0.5, 1.0], target=y, target_time=2.0)
    i, j, _ = coupling(x, y)
    partner = y[j[np.argsort(i)]]
    for k, share in enumerate((0.25, 0.5)):
        assert np.allclose(positions[k], x + share * (partner - x), atol=1e-4)
        assert np.allclose(velocities[k], (partner - x) / 2, atol=1e-4)
    assert np.allclose(interpolate(x, y, 0.5), positions[1], atol=1e-4)


def test_a_prediction_that_hits_the_target_is_not_corrected():
    dynamics, x, _ = free()
    v = np.broadcast_to(np.float32([1.0, -1.0]), x.shape)
    y = x + 2 * v
    plain = predict(dynamics, x, v, 0.0, [1.0])[0]
    bridged = predict(dynamics, x, v, 0.0, [1.0], target=y, target_time=2.0)[0]
    assert np.allclose(plain[0], x + v, atol=1e-4) and np.allclose(plain, bridged, atol=1e-4)


def test_steady_cells_keep_a_constant_speed_to_the_same_end():
    """Under a constant force a free cell is slow first; a steady one is half-way at half-time."""
    dynamics, x, _ = free()
    v = np.zeros_like(x)
    y = x + np.float32([4.0, 0.0])
    fall = lambda share: predict(dynamics, x, v, 0.0, [0.5], target=y, target_time=2.0, steady=share)  # noqa: E731
    dynamics.model.rollout = lambda x, v, t, g, w=None: (  # a uniformly accelerated motion that ends at y
        torch.stack([x + torch.tensor([1.0, 0.0]) * 4 / dynamics.units.length * (s / 1.0) ** 2 for s in t]),
        torch.stack([v for _ in t]),
    )
    accelerated, steady, mixed = (fall(s)[0][0] - x for s in (0.0, 1.0, 0.5))
    assert np.allclose(accelerated, [0.25, 0], atol=1e-4) and np.allclose(steady, [1, 0], atol=1e-4)
    share = (np.abs(mixed[:, 0] - 1) < 1e-3).mean()
    assert 0.3 < share < 0.7 and set(mixed[:, 0].round(2)) == {0.25, 1.0}


def test_times_come_back_in_the_order_asked_and_beyond_the_target_unbridged():
    dynamics, x, y = free()
    v = np.ones_like(x)
    positions, _ = predict(dynamics, x, v, 0.0, [3.0, 1.0], target=y, target_time=2.0)
    assert np.allclose(positions[0], x + 3, atol=1e-4)
    assert not np.allclose(positions[1], x + 1, atol=0.1)


def test_populations_are_coupled_in_parts_when_large():
    _, x, y = free()
    few = interpolate(x, y[:3], 1.0)
    assert len(np.unique(few.round(4), axis=0)) == 3
    parts = partners(x, y, np.random.default_rng(0), size=30)
    assert np.array_equal(np.unique(parts, axis=0), np.unique(y, axis=0))


def test_momentum_is_handed_to_the_right_branch():
    dynamics, x, _ = free(n=200)
    rng = np.random.default_rng(1)
    side = np.repeat([-6.0, 6.0], 100)[:, None]
    x = (rng.normal(size=(200, 2)) * 0.5 + side * [0, 1]).astype(np.float32)
    v = np.where(side > 0, [[1.0, 2.0]], [[-1.0, -2.0]]).astype(np.float32)
    y = (rng.normal(size=(300, 2)) * 0.5 + np.repeat([-6.0, 6.0], 150)[:, None] * [0, 1]).astype(np.float32)
    carried = dynamics.carry_velocity(x, v, y)
    assert np.allclose(carried[:150], [-1, -2], atol=0.05) and np.allclose(carried[150:], [1, 2], atol=0.05)


def test_rollout_passes_through_every_observed_time():
    dynamics, x, _ = free()
    path = rollout(dynamics, x, np.ones_like(x), np.arange(len(x)), np.array([0.0, 0.5, 2.0]))
    assert path.times[[0, 5, 10]].tolist() == [0.0, 0.5, 2.0] and path.positions.shape == (11, 80, 2)
    assert np.allclose(path.at(0.5)[0], x[path.origin] + 0.5, atol=1e-4)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_metrics_are_zero_on_equal_clouds_symmetric_and_increasing(name):
    metric, x = METRICS[name], np.random.default_rng(0).normal(size=(60, 3))
    assert metric(x, x[::-1]) == pytest.approx(0, abs=1e-6)
    assert metric(x, x + 1) == pytest.approx(metric(x + 1, x)) and metric(x, x + 1) < metric(x, x + 2)


def test_transport_distances_in_closed_form():
    x = np.random.default_rng(0).normal(size=(50, 2))
    assert w1(x, x + [3, 4]) == pytest.approx(5) and w2(x, x + [3, 4]) == pytest.approx(5)
    assert w1(np.zeros((2, 1)), np.array([[1.0], [3.0], [5.0]])) == pytest.approx(3)
    a, b = x[:, :1], np.random.default_rng(1).normal(size=(50, 1))
    assert w1(a, b) == pytest.approx(ot.wasserstein_1d(a.ravel(), b.ravel()))


def test_mmd_against_its_definition():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 2)), rng.normal(size=(5, 2)) + 1
    z = np.concatenate([x, y])
    square = ((z[:, None] - z[None]) ** 2).sum(-1)
    h = square[~np.eye(12, dtype=bool)].mean()
    k = lambda a, b: sum(np.exp(-((a - b) ** 2).sum() / (h * 2.0**e)) for e in range(-2, 3))  # noqa: E731
    mean = lambda p, q: np.mean([[k(a, b) for b in q] for a in p])  # noqa: E731
    assert mmd(x, y) == pytest.approx(mean(x, x) + mean(y, y) - 2 * mean(x, y))


@pytest.mark.parametrize("name", sorted(METRICS))
def test_weights_in_metrics_count_cells(name):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 3)), rng.normal(size=(40, 3)) + 0.5
    a, b = rng.integers(1, 4, 30), rng.integers(1, 4, 40)
    expected = METRICS[name](np.repeat(x, a, axis=0), np.repeat(y, b, axis=0))
    # MMD's bandwidth is that of the different points, so repeats change it a little.
    assert METRICS[name](x, y, a, b) == pytest.approx(expected, rel=0.05 if name == "mmd" else 1e-6)
    assert METRICS[name](x, y, np.ones(30), np.ones(40)) == pytest.approx(METRICS[name](x, y))


def test_weights_decide_whopartners_whom():
    """Two cells, two places: with weights 9:1 on both sides everyone stays, without on one side most must move."""
    x = np.repeat([[0.0, 0.0], [10.0, 0.0]], 200, axis=0)
    heavy = np.repeat([0.9, 0.1], 200)
    stay = interpolate(x, x, 1.0, a=heavy, b=heavy)
    assert np.allclose(stay, x)
    move = interpolate(x, x, 1.0, b=heavy)
    assert (move[200:, 0] < 5).mean() == pytest.approx(0.8, abs=0.08) and np.allclose(move[:200], x[:200])


def test_large_populations_move_in_parts_that_stand_for_the_whole():
    """Exactly where cells do not feel each other; else nearly, and the nearer the larger the parts."""
    rng = np.random.default_rng(1)
    clouds = tuple((rng.normal(size=(400, 2)) + [t, 0]).astype(np.float32) for t in (0.0, 1.0))
    x = rng.normal(size=(3000, 2)).astype(np.float32)
    alone = train(Populations(np.array([0.0, 1.0]), clouds), IJKOnet(n_steps=30, width=16, map_width=16)).dynamics
    whole, parts = (alone.simulate(x, [0.0, 0.5, 1.0], chunk_size=size)[0] for size in (3000, 700))
    assert np.allclose(whole, parts, atol=1e-4) and np.allclose(whole[0], x, atol=1e-5)

    together = train(
        Populations(np.array([0.0, 1.0]), clouds), WLM(n_steps=40, width=16, heads=2, hidden=16, n_inducing=4)
    ).dynamics
    w = rng.uniform(0.5, 2, size=3000)
    for weights in (None, w):
        whole = together.simulate(x, [0.0, 1.0], w=weights, chunk_size=3000)[0][-1]
        moved = np.sqrt(np.square(whole - x).sum(1).mean())
        errors = []
        for size in (100, 1000):
            parts = together.simulate(x, [0.0, 1.0], w=weights, chunk_size=size)[0][-1]
            errors.append(np.sqrt(np.square(parts - whole).sum(1).mean()) / moved)
        assert 0 < errors[1] < errors[0] and errors[1] < 0.03


def test_fields_of_large_populations_are_those_of_their_parts(monkeypatch):
    dynamics, x, _ = free(n=300)
    energy, force = dynamics.energy(x, 0.0), dynamics.force(x, 0.0)
    monkeypatch.setattr("wlm.core.dynamics._parts", lambda n, size=0: np.array_split(np.arange(n), 3))
    assert np.allclose(dynamics.energy(x, 0.0), energy, atol=1e-5)
    assert np.allclose(dynamics.force(x, 0.0), force, atol=1e-5)
    assert dynamics.velocity(x, 0.0) is None
