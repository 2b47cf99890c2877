"""Several batches in a step, by one process or by two: the same result."""

import os
import subprocess
import sys

import anndata as ad
import numpy as np
import pytest
import torch

import wlm
from wlm.core import processes
from wlm.core.methods import WLM
from wlm.core.populations import Populations
from wlm.core.training import train

SMALL = {"width": 16, "hidden": 32, "n_inducing": 4, "batch_size": 32}

#: What each of two processes does; rank and results by file.
SCRIPT = """
import sys
import numpy as np, torch
from wlm.core import processes
from wlm.core.methods import WLM, wlm as method
from wlm.core.training import train
sys.path.insert(0, {here!r})
from test_processes import SMALL, populations, state
torch.set_num_threads(1)
out = {{}}
for name, velocity in (("learned", False), ("data", True)):
    fit = train(populations(velocity), WLM(n_steps=6, n_batches=4, **SMALL), seed=3)
    out |= {{f"{{name}} {{k}}": v for k, v in state(fit).items()}}
rank = torch.distributed.get_rank()
assert processes.count() == 2 and processes.join(torch.device("cpu")) == (rank, 2)
# A step that one process cannot use is used by none.
plain, calls = method.force, []
def sometimes(*arguments, **options):
    calls.append(1)
    return plain(*arguments, **options) + (torch.nan if rank == 1 and len(calls) == 9 else 0)
method.force = sometimes
fit = train(populations(False), WLM(n_steps=8, n_batches=2, **SMALL), seed=3)
out |= {{f"skipped {{k}}": v for k, v in state(fit).items()}}
method.force = plain
# Others than the rest would train another model.
for wrong in ({{"seed": rank}}, {{"seed": 0, "method": WLM(n_steps=3 + rank, n_batches=2, **SMALL)}}):
    try:
        train(populations(False), wrong.pop("method", WLM(n_steps=3, n_batches=2, **SMALL)), **wrong)
        raise SystemExit("nothing was refused")
    except ValueError as error:
        assert "need the same cells, options and seed" in str(error), error
# Each by itself, with seeds of their own.
out |= {{f"alone {{k}}": v for k, v in state(train(populations(False), WLM(n_steps=3, **SMALL), seed=rank)).items()}}
for n_batches, checkpoint, wanted in ((3, None, "cannot share"), (2, "x", "checkpoint")):
    try:
        train(populations(False), WLM(n_steps=3, n_batches=n_batches), checkpoint=checkpoint)
        raise SystemExit("nothing was refused")
    except ValueError as error:
        assert wanted in str(error), error
np.savez(f"{{sys.argv[1]}}/{{rank}}.npz", **out)
"""


def populations(velocity):
    rng = np.random.default_rng(0)
    x, v = rng.normal(size=(2, 90, 2))
    times = np.arange(4.0)
    return Populations(times, tuple(x + v * t for t in times), tuple(v for _ in times) if velocity else None)


def state(fit):
    """The course of a training and the forces in the end; weights that have no effect are left to rounding."""
    x = populations(velocity=True).positions[1]
    return {**fit.history, "force": fit.dynamics.force(x, 1.0)}


@pytest.mark.slow
def test_two_processes_train_as_one_with_their_batches_joined(tmp_path):
    (tmp_path / "work.py").write_text(SCRIPT.format(here=os.path.dirname(__file__)))
    call = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*call, str(tmp_path / "work.py"), str(tmp_path)],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (np.load(tmp_path / f"{rank}.npz") for rank in (0, 1))
    for key in first.files:
        assert key.startswith("alone") or np.array_equal(first[key], second[key]), key
    assert (first["alone loss"] != second["alone loss"]).all()
    for name, velocity in (("learned", False), ("data", True)):
        one = state(train(populations(velocity), WLM(n_steps=6, n_batches=4, **SMALL), seed=3))
        for key, expected in one.items():
            np.testing.assert_allclose(first[f"{name} {key}"], expected, rtol=1e-3, atol=1e-5, err_msg=key)
    assert (first["skipped gradient_norm"] == 0).sum() == 1


def test_the_gradient_of_several_batches_is_their_mean(monkeypatch):
    """Of batches that are alike it is that of one; of others it is less noisy, and training differs."""
    p = populations(velocity=True)
    one, other = (state(train(p, WLM(n_steps=3, n_batches=n, **SMALL))) for n in (1, 2))
    assert not np.allclose(one["loss"], other["loss"])
    monkeypatch.setattr("wlm.core.methods.wlm.stream", lambda generator, i: generator.clone_state())
    alike = state(train(p, WLM(n_steps=3, n_batches=2, **SMALL)))
    reference = state(train(p, WLM(n_steps=3, n_batches=1, **SMALL)))
    for key, expected in reference.items():
        np.testing.assert_allclose(alike[key], expected, rtol=1e-4, atol=1e-6, err_msg=key)


@pytest.mark.slow
def test_training_with_several_batches_goes_on_from_a_checkpoint(tmp_path):
    p, method = populations(velocity=False), WLM(n_steps=20, n_batches=2, **SMALL)

    def stop(step, _):
        if step == 13:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(p, method, checkpoint=tmp_path / "c", on_step=stop)
    again, whole = state(train(p, method, checkpoint=tmp_path / "c")), state(train(p, method))
    assert all(np.array_equal(again[k], whole[k]) for k in whole)


def test_a_process_that_torchrun_did_not_start_is_alone(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")  # of another launcher
    assert processes.count() == 1 and processes.join(torch.device("cpu")) == (0, 1)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert processes.count() == 4
    with pytest.raises(ValueError, match="train one model after the other"):
        wlm.tl.evaluate(ad.AnnData(np.zeros((2, 2))), "day", n_batches=4, n_jobs=2)
    with pytest.raises(ValueError, match="cannot be interrupted one by one"):
        train(populations(velocity=False), WLM(n_batches=4), on_interrupt="keep")
    with pytest.raises(ValueError, match="4 processes cannot share 6 batches evenly"):
        WLM(n_batches=6).check(has_velocity=False)
    WLM(n_batches=1).check(has_velocity=False)
    WLM(n_batches=8).check(has_velocity=False)
