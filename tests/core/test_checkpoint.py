"""Faults of a training: crashes, interruptions, numbers that are none, full disks, small devices."""

import collections
import io
import zipfile

import numpy as np
import pytest
import torch

from wlm.core import checkpoint as checkpoints
from wlm.core.methods import METHODS
from wlm.core.methods.ijkonet import IJKOnet
from wlm.core.methods.wlm import WLM
from wlm.core.populations import Populations
from wlm.core.training import TrainingError, train

MECHANICS = {"width": 8, "heads": 2, "hidden": 8, "n_inducing": 2, "batch_size": 32}
SMALL = {
    "wlm": MECHANICS,
    "wlm_paper": MECHANICS,
    "ijkonet": {"width": 8, "map_width": 8, "inner_steps": 1, "refine": 1, "batch_size": 32},
    "jkonet_star": {"width": 8, "batch_size": 32},
}


def clouds(n=40, d=2):
    rng = np.random.default_rng(0)
    return Populations(np.array([0.0, 1.0, 3.0]), tuple(rng.normal(size=(n, d)) + [t, 0] for t in (0, 1, 3)))


def method(name, n_steps, **more):
    return METHODS[name](n_steps=n_steps, **{**SMALL[name], **more})


def weights(fit):
    return torch.cat([p.flatten() for p in fit.dynamics.model.state_dict().values()])


def stop_at(n):
    def on_step(step, scalars):
        if step == n:
            raise KeyboardInterrupt

    return on_step


@pytest.fixture(scope="module", params=SMALL)
def whole(request):
    """The name of a method, and a training by it that nothing has interrupted."""
    return request.param, train(clouds(), method(request.param, 40), seed=3)


@pytest.mark.parametrize("step", [1, 17, 40])
def test_a_training_goes_on_from_its_file_to_the_same_bits(whole, step, tmp_path):
    (name, whole), file = whole, tmp_path / "run.npz"
    with pytest.raises(KeyboardInterrupt):
        train(clouds(), method(name, 40), seed=3, checkpoint=file, on_step=stop_at(step))
    steps = []
    resumed = train(clouds(), method(name, 40), seed=3, checkpoint=file, on_step=lambda n, s: steps.append(n))
    assert len(steps) <= 40 - step + 1 and (not steps or steps[-1] == 40), "it began anew"
    assert torch.equal(weights(whole), weights(resumed))
    for key, values in whole.history.items():
        assert np.array_equal(values, resumed.history[key]), key


def test_the_checkpoint_of_another_training_is_refused(tmp_path):
    file = tmp_path / "run.npz"
    train(clouds(), method("wlm", 4), checkpoint=file)
    for other in (
        lambda: train(clouds(), method("wlm", 4), seed=1, checkpoint=file),
        lambda: train(clouds(), method("wlm", 5), checkpoint=file),
        lambda: train(clouds(41), method("wlm", 4), checkpoint=file),
        lambda: train(clouds(), method("ijkonet", 4), checkpoint=file),
    ):
        with pytest.raises(ValueError, match="checkpoint of another fit"):
            other()


def test_a_damaged_checkpoint_is_refused_and_nothing_in_it_is_executed(tmp_path):
    file = tmp_path / "run.npz"
    expected = weights(train(clouds(), method("wlm", 4), checkpoint=file))
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    for k in range(60):
        if k % 2:
            broken = whole[: rng.integers(len(whole))]
        else:
            broken = bytearray(whole)
            for i in rng.integers(len(whole), size=20):
                broken[i] = rng.integers(256)
        file.write_bytes(bytes(broken))
        try:
            fit = train(clouds(), method("wlm", 4), checkpoint=file)
        except ValueError as error:
            assert "checkpoint" in str(error)
        else:  # bytes changed that mean nothing
            assert k % 2 == 0 and torch.equal(weights(fit), expected)
    objects = io.BytesIO()
    np.save(objects, np.array([object()], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("skeleton.npy", objects.getvalue())
    with pytest.raises(ValueError, match="not a checkpoint that can be read .*delete it"):
        train(clouds(), method("wlm", 4), checkpoint=file)


def test_capture_is_a_copy_that_does_not_share_memory():
    x = torch.ones(3)
    memory = checkpoints.Memory({1: [x, (2, None, "b")]})
    saved = checkpoints.capture({"a": memory})
    x.add_(1)
    assert saved["a"][1][0].tolist() == [1, 1, 1] and saved["a"][1][1] == (2, None, "b")
    memory["later"] = 3.0
    checkpoints.restore({"a": memory}, saved, torch.device("cpu"))
    assert memory[1][0].tolist() == [1, 1, 1] and "later" not in memory
    memory[1][0].add_(1)
    assert saved["a"][1][0].tolist() == [1, 1, 1]


@pytest.mark.parametrize("lost", [np.ones(2), np.float64(1), np.int64(1), {1, 2}, collections.deque([1]), object()])
def test_capture_refuses_what_it_would_lose(lost):
    with pytest.raises(TypeError, match=r"'a/x/1' of a training run is a .*, which is not kept"):
        checkpoints.capture({"a": checkpoints.Memory({"x": [1.0, lost]})})
    with pytest.raises(TypeError, match="without a state_dict"):
        checkpoints.capture({"a": lost})


def test_every_learning_rate_is_slowed_down_once_whatever_it_is_called():
    """A return to a good state makes both players of iJKOnet slower by the same factor."""
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    parts = {"optimizer": optimizer, "the same": optimizer, "schedule": schedule, "memory": checkpoints.Memory()}
    checkpoints.slow_down(parts, 0.3)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.3) and schedule.base_lrs == [pytest.approx(0.3)]
    with pytest.raises(TypeError, match="slow_down"):
        checkpoints.slow_down({"own": collections.Counter()}, 0.3)


def test_both_players_of_the_game_are_slowed_down_by_the_factor_of_the_docs(monkeypatch):
    rates, step = [], IJKOnet.step

    def sometimes(self, model, spec, state):
        rates.append({name: o.param_groups[0]["lr"] for name, o in state.optimizers.items()})
        scalars = step(self, model, spec, state)
        return {**scalars, "loss": float("nan")} if len(rates) == 10 else scalars

    monkeypatch.setattr(IJKOnet, "step", sometimes)
    with pytest.warns(UserWarning, match="going back to step 9"):
        train(clouds(), method("ijkonet", 20), seed=3)
    for name in ("energy", "maps"):
        assert rates[10][name] == pytest.approx(0.3 * rates[9][name])


def test_a_full_disk_costs_the_checkpoint_and_not_the_training(tmp_path, monkeypatch):
    def full(path, tree):
        raise OSError(28, "No space left on device")

    expected = train(clouds(), method("wlm", 6))
    monkeypatch.setattr(checkpoints, "write", full)
    with pytest.warns(UserWarning, match="no checkpoint is written any more.*No space left"):
        fit = train(clouds(), method("wlm", 6), checkpoint=tmp_path / "run.npz")
    assert torch.equal(weights(fit), weights(expected))


def test_a_crash_while_writing_leaves_the_file_of_before(tmp_path, monkeypatch):
    file = tmp_path / "run.npz"
    checkpoints.write(file, {"a": torch.ones(2)})
    monkeypatch.setattr(np, "savez", lambda f, **arrays: (f.write(b"half"), (_ for _ in ()).throw(OSError("gone")))[1])
    with pytest.raises(OSError, match="gone"):
        checkpoints.write(file, {"a": torch.zeros(2)})
    assert checkpoints.read(file)["a"].tolist() == [1, 1] and list(tmp_path.iterdir()) == [file]


class Sometimes(WLM):
    """WLM whose loss is NaN at the calls that ``fails`` names, and which notes its learning rates."""

    def step(self, model, spec, state):
        calls, rates = CALLS
        calls.append(1)
        scalars = super().step(model, spec, state)
        rates.append(state.optimizer.param_groups[0]["lr"])
        if FAILS(len(calls)):
            with torch.no_grad():
                next(model.parameters()).fill_(torch.nan)
            scalars["loss"] = float("nan")
        return scalars


CALLS, FAILS = ([], []), None


def run(monkeypatch, fails, n_steps=40):
    module = Sometimes.__module__
    import sys

    monkeypatch.setattr(sys.modules[module], "CALLS", ([], []))
    monkeypatch.setattr(sys.modules[module], "FAILS", fails)
    fit = train(clouds(), Sometimes(n_steps=n_steps, **SMALL["wlm"]), seed=3)
    return fit, sys.modules[module].CALLS


@pytest.mark.slow
def test_a_lost_loss_goes_back_to_the_last_good_state_with_lower_rates(monkeypatch):
    with pytest.warns(UserWarning, match=r"loss became nan at step 30 of 40; going back to step 28 with lower"):
        fit, (calls, rates) = run(monkeypatch, lambda n: n == 30)
    assert len(calls) == 42 and torch.isfinite(weights(fit)).all()
    assert fit.history["step"].tolist() == list(range(1, 41))
    plain = train(clouds(), method("wlm", 40), seed=3)
    assert np.array_equal(fit.history["loss"][:28], plain.history["loss"][:28])
    assert not np.array_equal(fit.history["loss"][29:], plain.history["loss"][29:])
    assert rates[30] == pytest.approx(0.3 * rates[28])  # the 29th step, for the second and the first time


def test_a_loss_that_stays_lost_stops_with_the_step_and_advice(monkeypatch):
    with (
        pytest.warns(UserWarning),
        pytest.raises(TrainingError, match=r"step 29 of 40, for the 4th time; .*\(lr=") as e,
    ):
        run(monkeypatch, lambda n: n >= 30)
    assert "0.000108" in str(e.value)


def test_a_device_without_memory_gets_smaller_batches(monkeypatch):
    plain, sizes = WLM.step, []

    def small(self, model, spec, state):
        sizes.append(self.batch_size)
        if self.batch_size > 32:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return plain(self, model, spec, state)

    monkeypatch.setattr(WLM, "step", small)
    with pytest.warns(UserWarning, match="batches of 32 cells, not 64"):
        fit = train(clouds(), method("wlm", 4, batch_size=128))
    assert sizes == [128, 64, 32, 32, 32, 32] and fit.dynamics.method.batch_size == 32
    monkeypatch.setattr(
        WLM, "step", lambda *_: (_ for _ in ()).throw(torch.cuda.OutOfMemoryError("CUDA out of memory"))
    )
    with pytest.warns(UserWarning), pytest.raises(TrainingError, match="ran out of memory with batches of 32 cells"):
        train(clouds(), method("wlm", 4, batch_size=64))


def test_an_interrupted_training_can_be_kept():
    whole = train(clouds(), method("wlm", 40), seed=3)
    with pytest.warns(UserWarning, match="interrupted after 20 of 40 steps"):
        fit = train(clouds(), method("wlm", 40), seed=3, on_step=stop_at(20), on_interrupt="keep")
    assert fit.n_steps == 20 and np.array_equal(fit.history["loss"], whole.history["loss"][:20])
    assert torch.isfinite(weights(fit)).all() and not torch.equal(weights(fit), weights(whole))
    with pytest.raises(KeyboardInterrupt):
        train(clouds(), method("wlm", 40), on_step=stop_at(20))


def test_a_checkpoint_of_other_strata_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    x = tuple(rng.normal(size=(40, 2)) for _ in range(2))
    strata = [None, (np.arange(40) % 2,) * 2, (np.arange(40) % 3,) * 2]
    parts = [Populations(np.arange(2.0), x, strata=s) for s in strata]
    config = WLM(n_steps=3, width=8, heads=2, hidden=16, n_inducing=2)
    for k, p in enumerate(parts):
        train(p, config, checkpoint=tmp_path / str(k))
        for other in range(3):
            if other < k:
                with pytest.raises(ValueError, match="another fit"):
                    train(p, config, checkpoint=tmp_path / str(other))
