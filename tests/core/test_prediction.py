"""Predictions, bridging and carried momentum, against cases with a known answer."""

import numpy as np
import pytest
import torch
from oracles import Spring, Tilt, dynamics, flow, mechanics, standardised

from wlm.core.methods import WLM, IJKOnet
from wlm.core.particles import Particles
from wlm.core.populations import Populations
from wlm.core.prediction import fields, predict, rollout
from wlm.core.training import train
from wlm.core.transport import coupling, interpolate


def free(shift=(4.0, 0.0), n=80):
    """Dynamics without force or friction, from a fit of zero learning effect, and two populations."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 2)).astype(np.float32)
    y = (rng.normal(size=(n, 2)) + shift).astype(np.float32)
    method = WLM(n_steps=1, lr=1e-12, friction=0, width=8, heads=2, hidden=8, n_inducing=2)
    return train(Populations(np.array([0.0, 2.0]), (x, y)), method).dynamics, x, y


def test_without_force_and_velocity_bridging_is_the_linear_interpolation_of_optimal_transport():
    dynamics, x, y = free()
    positions, velocities, _ = predict(dynamics, x, 0 * x, 0.0, [0.5, 1.0], target=y, target_time=2.0)
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


def test_paths_that_arrive_with_a_velocity_are_the_cubic_through_both_ends():
    """Without forces the rollout is straight; the correction makes it the cubic with these ends and slopes."""
    dynamics, x, _ = free()
    v = np.broadcast_to(np.float32([1.0, -1.0]), x.shape)
    cubic = lambda t: np.float32([t - 0.5 * t**2 + 0.25 * t**3, -t + t**2])  # noqa: E731  # slopes (1, -1) at 0
    slope = lambda t: np.float32([1 - t + 0.75 * t**2, -1 + 2 * t])  # noqa: E731
    order = np.random.default_rng(1).permutation(len(x))
    y, u = (x + cubic(2))[order], np.broadcast_to(slope(2), x.shape)
    for steady in (0.0, 1.0):
        positions, velocities, _ = predict(
            dynamics, x, v, 0.0, [0.5, 1.5], target=y, target_time=2.0, target_v=u, steady=steady
        )
        for k, t in enumerate((0.5, 1.5)):
            assert np.allclose(positions[k], x + cubic(t), atol=1e-3)
            assert np.allclose(velocities[k], slope(t), atol=1e-3)
    # At the later time and after it, the rollout is free.
    asked = {"target": y, "target_time": 2.0, "target_v": u, "steady": 1.0}
    assert np.allclose(
        predict(dynamics, x, v, 0.0, [3.0, 0.5, 2.0], **asked)[0][[0, 2]], [x + 3 * v, x + 2 * v], atol=1e-3
    )


def test_partners_meet_half_way_where_velocities_are_known():
    """Two cells that pass each other: ends alone would turn them back, their velocities do not."""
    dynamics, *_ = free()
    x, v = np.float32([[0, 0], [2, 0]]), np.float32([[0.75, 0], [-0.75, 0]])
    y, u = np.float32([[0.5, 0], [1.5, 0]]), np.float32([[-0.75, 0], [0.75, 0]])
    moved = predict(dynamics, x, v, 0.0, [0.5], target=y, target_time=2.0, target_v=u, steady=1.0)[0][0]
    assert np.allclose(moved[:, 0], [0.375, 1.625], atol=1e-4)
    without = predict(dynamics, x, 0 * v, 0.0, [0.5], target=y, target_time=2.0, steady=1.0)[0][0]
    assert np.allclose(without[:, 0], [0.125, 1.875], atol=1e-4)


def test_steady_cells_keep_a_constant_speed_to_the_same_end():
    """Under a constant force a free cell is slow first; a steady one is half-way at half-time."""
    dynamics, x, _ = free()
    v = np.zeros_like(x)
    y = x + np.float32([4.0, 0.0])
    fall = lambda share: predict(dynamics, x, v, 0.0, [0.5], target=y, target_time=2.0, steady=share)  # noqa: E731
    dynamics.model.rollout = lambda p, t, g: Particles(  # a uniformly accelerated motion that ends at y
        torch.stack([p.x + torch.tensor([1.0, 0.0]) * 4 / dynamics.units.length * (s / 1.0) ** 2 for s in t]),
        torch.stack([p.v for _ in t]),
    )
    accelerated, steady, mixed = (fall(s)[0][0] - x for s in (0.0, 1.0, 0.5))
    assert np.allclose(accelerated, [0.25, 0], atol=1e-4) and np.allclose(steady, [1, 0], atol=1e-4)
    share = (np.abs(mixed[:, 0] - 1) < 1e-3).mean()
    assert 0.3 < share < 0.7 and set(mixed[:, 0].round(2)) == {0.25, 1.0}


def test_times_come_back_in_the_order_asked_and_beyond_the_target_unbridged():
    dynamics, x, y = free()
    v = np.ones_like(x)
    positions = predict(dynamics, x, v, 0.0, [3.0, 1.0], target=y, target_time=2.0).positions
    assert np.allclose(positions[0], x + 3, atol=1e-4)
    assert not np.allclose(positions[1], x + 1, atol=0.1)


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


@pytest.mark.slow
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
        for size in (100, 1500):
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


def still():
    """Dynamics without force or friction that start with given velocities."""
    return dynamics(mechanics(Spring(0.0)), times=(0.0, 2.0))


def test_bridging_starts_where_the_cells_are_observed():
    """From time 3 to 5: at 3.5 a quarter of the error is due, and its rate is that of the whole interval."""
    x = standardised(60, 2)
    y = x + [4.0, 0.0]
    v = np.tile([1.0, 0.0], (60, 1))
    positions, velocities, _ = predict(still(), x, v, 3.0, [3.5, 4.0], target=y, target_time=5.0, steady=0.0)
    for found, t in zip(positions, (0.5, 1.0), strict=True):
        np.testing.assert_allclose(found, x + [t + t / 2 * 2.0, 0.0], atol=1e-4)
    np.testing.assert_allclose(velocities, np.tile([2.0, 0.0], (2, 60, 1)), atol=1e-4)


def test_by_default_half_of_the_cells_follow_the_cubic_alone_where_paths_have_velocities():
    """A spring pulls half of the cells to and fro on their way; the others take the cubic from rest to rest."""
    model = dynamics(mechanics(Spring(20.0)), times=(0.0, 2.0))
    x = standardised(400, 2) + [3.0, 0.0]
    y, zero = x + [4.0, 0.0], 0 * x
    go = lambda **o: predict(model, x, zero, 0.0, [0.5], target=y, target_time=2.0, target_v=zero, **o)[0][0]  # noqa: E731
    default, half, cubic = go(), go(steady=0.5), go(steady=1.0)
    np.testing.assert_array_equal(default, half)
    np.testing.assert_allclose(cubic, x + [4 * (3 / 16 - 2 / 64), 0], atol=1e-3)
    assert model.needs_velocity
    assert (np.abs(default - cubic).max(1) < 1e-3).mean() == pytest.approx(0.5, abs=0.1)


def test_by_default_half_of_the_cells_are_steady_where_there_are_no_velocities():
    x = standardised(400, 2)
    y, zero = x + [4.0, 0.0], 0 * x

    def fall(model, **options):
        model.model.rollout = accelerated(model)
        return predict(model, x, zero, 0.0, [0.5], target=y, target_time=2.0, **options)[0][0] - x

    class Start(torch.nn.Module):
        def forward(self, x, t):
            return torch.zeros_like(x)

    given, learned = still(), still()
    learned.model.start = Start()
    assert given.needs_velocity and not learned.needs_velocity
    # With velocities all keep the pace of the rollout, a sixteenth of the way at a quarter of the time.
    np.testing.assert_allclose(fall(given)[:, 0], 0.25, atol=1e-3)
    assert (np.abs(fall(learned)[:, 0] - 1) < 1e-3).mean() == pytest.approx(0.5, abs=0.1)
    np.testing.assert_allclose(fall(learned, steady=1.0)[:, 0], 1, atol=1e-3)


def test_bridges_lead_where_the_weights_are():
    """Two places: nine tenths of the weight on one of them at both times stay there, else most have to move."""
    x = np.repeat([[0.0, 0.0], [10.0, 0.0]], 100, axis=0) + 0.01 * standardised(200, 2)
    heavy, v = np.repeat([0.9, 0.1], 100), 0 * x
    go = lambda **w: predict(still(), x, v, 0.0, [1.999], target=x, target_time=2.0, steady=0.0, **w)[0][0]  # noqa: E731
    both, only_end, only_start = go(w=heavy, target_w=heavy), go(target_w=heavy), go(w=heavy)
    assert np.abs(both - x)[:, 0].max() < 1
    assert (only_end[100:, 0] < 5).mean() == pytest.approx(0.8, abs=0.12)
    assert (only_start[:100, 0] > 5).mean() == pytest.approx(0.4 / 0.9, abs=0.15)


def test_a_stored_rollout_keeps_cells_and_weights_together(monkeypatch):
    monkeypatch.setattr("wlm.core.prediction.N_ROLLOUT", 15)
    x, v, w = standardised(50, 2), standardised(50, 2, 1), np.linspace(1, 3, 50)
    path = rollout(still(), x, v, np.arange(100, 150), np.array([1.0, 2.0, 4.0]), w=w)
    chosen = path.origin - 100
    assert len(set(chosen.tolist())) == 15
    np.testing.assert_allclose(path.weights, w[chosen])
    for k, t in enumerate(path.times):
        np.testing.assert_allclose(path.positions[k], x[chosen] + (t - 1) * v[chosen], atol=1e-4)
        np.testing.assert_allclose(path.velocities[k], v[chosen], atol=1e-5)


def test_fields_of_a_flow_are_those_of_each_cells_own_time():
    observed = np.array([0.0, 0.4, 1.5])
    model = dynamics(flow(Tilt(), times=tuple(observed)), times=tuple(observed))
    x, times = standardised(60, 2), np.repeat(observed, 20)
    path = rollout(model, x[:20], None, np.arange(20), observed)
    found = fields(model, x, None, times, observed, path)
    stage = np.repeat([0.4, 0.4, 1.5], 20)
    np.testing.assert_allclose(found["potential"], stage * x.sum(1), atol=1e-4)
    for name in ("velocity", "force"):
        np.testing.assert_allclose(found[name], np.tile(-stage[:, None], (1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found["next"][:20], x[:20] - 0.4 * 0.4, atol=3e-3)
    np.testing.assert_allclose(found["next"][20:40], x[20:40] - 1.1 * 1.5, atol=3e-3)
    assert np.isnan(found["next"][40:]).all()


def test_cells_of_later_times_get_the_momentum_of_the_rollout_by_its_weights():
    """In each place a heavy and a light path that go opposite ways: what is handed over is their weighted mean."""
    x = np.repeat(10.0 * standardised(20, 2), 2, axis=0)
    v, w = np.tile([[1.0, 0.0], [-1.0, 0.0]], (20, 1)), np.tile([9.0, 1.0], 20)
    observed = np.array([0.0, 1e-3, 2.0])
    path = rollout(still(), x, v, np.arange(40), observed, w=w)
    all_x, given = np.tile(x, (3, 1)), np.concatenate([v, np.full_like(v, np.nan), np.full_like(v, np.nan)])
    found = fields(still(), all_x, given, np.repeat(observed, 40), observed, path, w=np.tile(w, 3))
    np.testing.assert_allclose(found["velocity"][:40], v, atol=1e-6)
    np.testing.assert_allclose(found["velocity"][40:80], np.tile([0.8, 0.0], (40, 1)), atol=0.02)
    np.testing.assert_allclose(found["next"][:40], x + 1e-3 * v, atol=1e-4)
    np.testing.assert_allclose(found["next"][40:80], x + (2 - 1e-3) * found["velocity"][40:80], atol=1e-3)


def accelerated(model):
    """Uniformly accelerated motion over (4, 0) in 2 units of time, as :meth:`Model.rollout`, whatever it is given."""

    def rollout(start, *arguments, **options):
        times = next(a for a in arguments if a.ndim == 1 and len(a) > 1)
        x = getattr(start, "x", start)
        moved = torch.stack([x + torch.tensor([1.0, 0.0]) * 4 / model.units.length * (t / 2) ** 2 for t in times])
        return type(start)(moved, torch.zeros_like(moved)) if hasattr(start, "x") else (moved, torch.zeros_like(moved))

    return rollout
