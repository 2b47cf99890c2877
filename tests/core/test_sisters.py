"""Sisters in training: distances against loops, and motions that positions alone mistake."""

import numpy as np
import pytest
import torch
from oracles import crossing

from wlm.core.methods import WLM, get_method
from wlm.core.methods._rollouts import MechanicsState
from wlm.core.particles import Particles
from wlm.core.populations import Populations
from wlm.core.prediction import rollout
from wlm.core.sisters import Sisters
from wlm.core.training import train
from wlm.core.units import Units

SMALL = {"width": 8, "heads": 2, "hidden": 8, "n_inducing": 2, "batch_size": 64}


def test_sisters_are_where_the_mean_of_their_clone_is():
    rng = np.random.default_rng(0)
    positions = [torch.as_tensor(rng.normal(size=(n, 3)), dtype=torch.float32) for n in (5, 4, 3)]
    # Clone 9 has cells at one time, and clone 4 at the last two.
    clones = [np.array([7, 7, -1, 9, 2]), np.array([4, 2, 7, -1]), np.array([4, 4, 2])]
    sisters = Sisters.of(positions, clones)
    assert [c.tolist() for c in sisters.clones] == [[2, 2, -1, -1, 0], [1, 0, 2, -1], [1, 1, 0]]
    assert sisters.there.tolist() == [[True, False, True], [True, True, True], [True, True, False]]
    torch.testing.assert_close(sisters.means[0, 2], positions[0][:2].mean(0))
    torch.testing.assert_close(sisters.means[2, 1], positions[2][:2].mean(0))


@pytest.mark.parametrize("weighted", [False, True])
def test_distance_is_that_of_a_loop(weighted):
    rng = np.random.default_rng(1)
    positions = [torch.as_tensor(rng.normal(size=(6, 2)), dtype=torch.float32) for _ in range(3)]
    clones = [np.array([0, 0, 1, 1, -1, 5]), np.array([0, 1, 1, -1, -1, 2]), np.array([0, 0, 2, 2, -1, 0])]
    sisters = Sisters.of(positions, clones)
    log_w = torch.as_tensor(rng.normal(size=(2, 1, 4)), dtype=torch.float32) if weighted else None
    path = Particles(torch.as_tensor(rng.normal(size=(2, 1, 4, 2)), dtype=torch.float32), None, log_w)
    own, target = torch.tensor([[0, 1, -1, 2]]), torch.tensor([[1], [2]])
    total = mass = 0.0
    for h in range(2):
        for i, c in enumerate([0, 1, -1, 2]):
            there = clones[h + 1] == c
            if c < 0 or not there.any():  # clone 1 has no cell at the last time
                continue
            w = float(path.shares[h, 0, i])
            gap = path.x[h, 0, i] - positions[h + 1][torch.as_tensor(there)].mean(0)
            total, mass = total + w * float(gap.square().sum()) / 2, mass + w
    assert float(sisters.distance(path, own, target)) == pytest.approx(total / mass, rel=1e-5)
    assert float(sisters.distance(path, torch.full((1, 4), -1), target)) == 0
    nobody = Sisters.of(positions, [np.full(6, -1)] * 3)
    assert float(nobody.distance(path, own, target)) == 0


def test_a_rollout_that_ends_far_away_does_not_poison_cells_without_sisters():
    positions = [torch.zeros(2, 1), torch.zeros(2, 1)]
    sisters = Sisters.of(positions, [np.array([0, -1]), np.array([0, -1])])
    x = torch.tensor([[[[1.0], [torch.inf]]]], requires_grad=True)
    found = sisters.distance(Particles(x), torch.tensor([[0, -1]]), torch.tensor([[1]]))
    found.backward()
    assert float(found.detach()) == 0.5 and torch.isfinite(x.grad).all()


def test_clones_teach_a_motion_that_populations_hide():
    """Two groups change places. Nothing seems to move, unless sisters say so: the other clones are right then too."""
    x, clones = crossing(40)
    half, off = np.where(clones < 20, clones, -1), {}
    for name, given in (("without", None), ("with", (half, half))):
        method = WLM(n_steps=20, lr=0.05, **SMALL)
        dynamics = train(Populations(np.array([0.0, 1.0]), tuple(x), clones=given), method).dynamics
        path = rollout(dynamics, x[0].astype(np.float32), None, np.arange(40), np.array([0.0, 1.0]))
        off[name] = np.linalg.norm(path.positions[-1] - x[1], axis=1)[20:].mean()  # of clones that were not given
    assert off["without"] > 1.9 and off["with"] < 1.0


def test_a_rollout_pays_half_the_square_by_the_weight(monkeypatch):
    """Nothing is learned: the loss is that without clones, and what cells that stay miss their sisters by."""
    x, clones = crossing()
    still = {"lr": 1e-12, "friction_lr": 0.0, "initial_velocity": "zero", "n_steps": 1, **SMALL}
    losses = []
    for given, weight in ((None, None), (clones, 0.5), (clones, None)):
        p = Populations(np.array([0.0, 1.0]), tuple(x), clones=None if given is None else (given, given))
        monkeypatch.setattr(WLM, "SISTERS", 1.0 if weight is None else weight)
        losses.append(train(p, WLM(**still)).history["loss"][0])
    square = np.square((x[1] - x[0]) / Units.of(p).length).sum(1).mean()
    assert losses[1] - losses[0] == pytest.approx(0.5 * square / 2, rel=0.05)
    assert losses[2] - losses[0] == pytest.approx(square / 2, rel=0.05)


def test_clones_decide_what_velocities_start_with():
    """Couplings know nothing of clones: paths through them would contradict what sisters say."""
    rng = np.random.default_rng(0)
    x = tuple(rng.normal(size=(40, 2)) + [3 * k, 0] for k in range(5))
    of = tuple(np.arange(40) for _ in x)
    with_clones, note = WLM().prepare(Populations(np.arange(5.0), x, clones=of))
    assert with_clones.velocities is None and "clones" in note["choice"]["words"]
    assert with_clones.clones is of
    asked, _ = WLM(initial_velocity="paths").prepare(Populations(np.arange(5.0), x, clones=of))
    assert asked.velocities is not None and asked.clones is of


def test_a_sample_of_the_cells_keeps_their_clones():
    x = tuple(np.arange(100.0).reshape(50, 2) for _ in range(2))
    some = Populations(np.array([0.0, 1.0]), x, clones=(np.arange(50), np.arange(50))).sampled(10)
    for z, c in zip(some.positions, some.clones, strict=True):
        assert len(c) == 10 and np.array_equal(z[:, 0], 2.0 * c)


@pytest.mark.parametrize("name", ["ijkonet", "jkonet_star", "flow", "wlm_paper"])
def test_methods_without_use_for_clones_refuse_them(name):
    with pytest.raises(ValueError, match="no use for clones in training.*method='wlm'.*evaluate_clones"):
        get_method(name, {}).check_clones(has_clones=True)
    with pytest.raises(ValueError, match="clones at time 1 have shape"):
        Populations(np.array([0.0, 1.0]), (np.zeros((2, 1)),) * 2, clones=(np.zeros(2, int), np.zeros(3, int)))


@pytest.mark.parametrize("batch_size", [16, 64])
def test_every_start_of_a_rollout_knows_its_clone(batch_size, monkeypatch):
    """Starts at the first time, of cells that an earlier rollout came by, and of small populations more than once."""
    rng, sizes = np.random.default_rng(0), (20, 40, 30)
    x = tuple(rng.normal(size=(n, 2)) + [2 * k, 0] for k, n in enumerate(sizes))
    clones = tuple(rng.integers(-1, 12, n) for n in sizes)
    seen, plain = [], (MechanicsState.start, MechanicsState.clones)

    def start(self, model, batch, cells, firsts):
        found = plain[0](self, model, batch, cells, firsts)
        seen.append((firsts, found.x, self.snapshots))
        return found

    def of(self, batch, cells, firsts, n):
        found = plain[1](self, batch, cells, firsts, n)
        seen[-1] += (found,)
        return found

    monkeypatch.setattr(MechanicsState, "start", start)
    monkeypatch.setattr(MechanicsState, "clones", of)
    train(Populations(np.arange(3.0), x, clones=clones), WLM(n_steps=12, **SMALL | {"batch_size": batch_size}))
    later = 0
    for firsts, starts, snapshots, found in seen:
        for k, z, own in zip(firsts, starts, found, strict=True):
            apart = torch.cdist(z, snapshots.positions[k])
            assert apart.min(1).values.max() < 1e-3
            assert own.tolist() == snapshots.sisters.clones[k][apart.argmin(1)].tolist()
            later += k > 0
    assert later > 2
