"""A fit that is interrupted, killed or out of luck: the object as it was, and what can be saved of the work."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import wlm

KILLED = """
import sys
import anndata as ad
import wlm
adata = ad.read_h5ad(sys.argv[1])
wlm.tl.fit(adata, "day", checkpoint=sys.argv[2], n_steps=40, batch_size=32, width=8, heads=2, hidden=8,
           n_inducing=2, show_progress=False)
adata.write_h5ad(sys.argv[3])
"""


SAVED = """
import sys
import os
import anndata as ad, numpy as np, torch, wlm
for threads in (1, 2):
    os.environ["WLM_NUM_THREADS"] = str(threads)
    adata = ad.read_h5ad(sys.argv[1])
    wlm.tl.fit(adata, "day", n_steps=5, show_progress=False)
    assert adata.uns["wlm"]["params"]["threads"] == threads
    w = adata.uns["wlm"]["weights"]
    np.save(f"{sys.argv[2]}_{threads}.npy", np.concatenate([w[k].ravel() for k in sorted(w)]))
"""
FORKED = """
import multiprocessing
import numpy as np, torch, wlm
torch.set_num_threads(2)
adata = wlm.datasets.gradient_flow_sde(n_cells=200, n_times=3)
torch.cdist(torch.ones(2000, 5), torch.ones(2000, 5)).sum()
def fit(_):
    return wlm.tl.fit(adata, "time", use_rep="X_position", n_steps=2, copy=True).obsm["wlm_force"].sum()
fit(0)
with multiprocessing.get_context("fork").Pool(1) as pool:
    assert np.isfinite(pool.map_async(fit, [0]).get(100)).all()
"""

#: Two threads sleep while they wait for each other: other tests need the cores.
PATIENT = {**os.environ, "OMP_WAIT_POLICY": "passive"}


def interrupt_at(monkeypatch, n):
    """Raise KeyboardInterrupt in the ``n``-th step of every training."""
    plain = wlm.core.methods.WLM.step
    calls = []

    def step(self, model, spec, state):
        calls.append(1)
        if len(calls) == n:
            raise KeyboardInterrupt
        return plain(self, model, spec, state)

    monkeypatch.setattr(wlm.core.methods.WLM, "step", step)


@pytest.mark.slow
def test_ctrl_c_leaves_the_object_as_it_was(fitted, quick, monkeypatch):
    before = fitted.copy()
    interrupt_at(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        wlm.tl.fit(fitted, "day", **quick)
    assert sorted(fitted.uns) == sorted(before.uns) and fitted.uns["wlm"]["checksum"] == before.uns["wlm"]["checksum"]
    for key in before.obsm:
        assert np.array_equal(fitted.obsm[key], before.obsm[key], equal_nan=True)


@pytest.mark.slow
def test_ctrl_c_can_keep_the_model_so_far(cells, quick, monkeypatch):
    interrupt_at(monkeypatch, 4)
    with pytest.warns(UserWarning, match="interrupted after 3 of 6 steps"):
        wlm.tl.fit(cells, "day", on_interrupt="keep", **quick)
    assert cells.uns["wlm"]["params"]["stopped"] == 3 and len(cells.uns["wlm"]["history"]["step"]) == 3
    assert np.isfinite(wlm.tl.predict(cells, 2).obsm["X_pca"]).all()


@pytest.mark.slow
def test_ctrl_c_in_an_ensemble_keeps_the_models_that_are_complete(cells, quick, monkeypatch, tmp_path):
    interrupt_at(monkeypatch, 6 + 6 + 4)
    call = {"on_interrupt": "keep", "n_models": 4, "checkpoint": tmp_path / "fit.npz", **quick}
    with pytest.warns(UserWarning, match="interrupted after 3 of 6"):
        wlm.tl.fit(cells, "day", **call)
    assert cells.uns["wlm"]["params"]["n_models"] == 2 and len(cells.uns["wlm"]["ensemble"]["models"]) == 1
    assert len(list(tmp_path.iterdir())) == 3, "the rest can be trained later"
    wlm.tl.fit(cells, "day", **call)
    assert cells.uns["wlm"]["params"]["n_models"] == 4 and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_ensemble_goes_on_from_its_checkpoints_and_deletes_them(cells, quick, monkeypatch, tmp_path):
    expected = wlm.tl.fit(cells, "day", n_models=2, copy=True, **quick)
    call = {"n_models": 2, "checkpoint": tmp_path / "fit.npz", **quick}
    with monkeypatch.context() as patch:
        interrupt_at(patch, 6 + 4)
        with pytest.raises(KeyboardInterrupt):
            wlm.tl.fit(cells, "day", **call)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["fit_0.npz", "fit_1.npz"]
    steps = []
    plain = wlm.core.methods.WLM.step
    monkeypatch.setattr(wlm.core.methods.WLM, "step", lambda *a: (steps.append(1), plain(*a))[1])
    wlm.tl.fit(cells, "day", **call)
    assert len(steps) <= 6 - 3, "only what was missing is trained"
    assert not list(tmp_path.iterdir())
    assert np.array_equal(cells.obs["wlm_spread"], expected.obs["wlm_spread"], equal_nan=True)


@pytest.mark.slow
def test_a_killed_fit_goes_on_to_the_same_weights(cells, tmp_path):
    cells = cells[::3].copy()
    cells.write_h5ad(tmp_path / "cells.h5ad")
    files = [tmp_path / "cells.h5ad", tmp_path / "fit.npz", tmp_path / "out.h5ad"]
    command = [sys.executable, "-c", KILLED, *map(str, files)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not files[1].exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not files[2].exists()
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert not files[1].exists()
    options = {"n_steps": 40, "batch_size": 32, "width": 8, "heads": 2, "hidden": 8, "n_inducing": 2}
    whole = wlm.tl.fit(cells, "day", copy=True, show_progress=False, **options)
    import anndata as ad

    resumed = ad.read_h5ad(files[2])
    for name, values in whole.uns["wlm"]["weights"].items():
        assert np.array_equal(values, resumed.uns["wlm"]["weights"][name]), name


def test_a_checkpoint_that_cannot_be_is_refused_before_the_fit(cells, tmp_path, monkeypatch):
    monkeypatch.setattr("wlm.tl._models.train", None)
    for bad, message in ((tmp_path / "no" / "fit.npz", "no folder to write to"), (tmp_path, "is a folder")):
        with pytest.raises(ValueError, match=message):
            wlm.tl.fit(cells, "day", checkpoint=bad)
    with pytest.raises(ValueError, match="on_interrupt must be"):
        wlm.tl.fit(cells, "day", on_interrupt="stop")
    cells.obs["treatment"] = np.where(np.arange(cells.n_obs) % 2, "a", "b")
    with pytest.raises(ValueError, match="one by one"):
        wlm.tl.fit(cells, "day", on_interrupt="keep", condition_key="treatment")


@pytest.mark.slow
def test_another_process_with_as_many_threads_gives_the_same_bits(cells, tmp_path):
    """With one and with two threads, in two processes that fit with both."""
    cells = cells[::3].copy()
    cells.write_h5ad(tmp_path / "cells.h5ad")
    for k in range(2):
        command = [sys.executable, "-c", SAVED, str(tmp_path / "cells.h5ad"), str(tmp_path / str(k))]
        subprocess.run(command, check=True, env=PATIENT)
    for threads in (1, 2):
        assert np.array_equal(*(np.load(tmp_path / f"{k}_{threads}.npy") for k in range(2)))


@pytest.mark.slow
@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_forked_worker_fits_where_its_parent_has_used_threads(threads):
    """It would wait for the threads of its parent for ever, had it not one of its own."""
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=120, env={**PATIENT, "WLM_NUM_THREADS": threads})
