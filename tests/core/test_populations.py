"""What training draws from: samples of large populations, arrays on disk, and strata."""

import dask.array as da
import h5py
import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wlm.core import populations as module
from wlm.core.methods import METHODS, WLM
from wlm.core.populations import Populations
from wlm.core.snapshots import Snapshots
from wlm.core.training import train
from wlm.core.units import Units

SMALL = {"n_steps": 3, "batch_size": 32, "width": 8, "heads": 2, "hidden": 16, "n_inducing": 2}


def populations(n=400, d=3, seed=0, **extra):
    rng = np.random.default_rng(seed)
    return Populations(np.arange(3.0), tuple(rng.normal(size=(n, d)).astype(np.float32) for _ in range(3)), **extra)


def on_disk(kind, arrays, folder):
    if kind == "dask":
        return tuple(da.from_array(a, chunks=(150, -1)) for a in arrays)
    if kind == "memmap":
        for k, a in enumerate(arrays):
            np.save(folder / f"{k}.npy", a)
        return tuple(np.load(folder / f"{k}.npy", mmap_mode="r") for k in range(len(arrays)))
    if kind == "zarr":
        group = zarr.open_group(folder / "x.zarr", mode="w")
        return tuple(group.create_array(str(k), data=a, chunks=(150, a.shape[1])) for k, a in enumerate(arrays))
    file = h5py.File(folder / "x.h5", "w")
    return tuple(file.create_dataset(str(k), data=a) for k, a in enumerate(arrays))


@pytest.mark.parametrize("kind", ["dask", "memmap", "zarr", "h5py"])
def test_samples_of_arrays_on_disk_are_those_of_memory(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 64)
    x, v = populations().positions, populations(seed=1).positions
    strata = tuple(np.repeat([0, 1], 200) for _ in x)
    memory = Populations(np.arange(3.0), x, v, strata=strata)
    (tmp_path / "v").mkdir()
    disk = Populations(np.arange(3.0), on_disk(kind, x, tmp_path), on_disk(kind, v, tmp_path / "v"), strata=strata)
    for most in (50, 10_000):
        found, expected = disk.sampled(most), memory.sampled(most)
        for name in ("positions", "velocities", "strata"):
            for a, b in zip(getattr(found, name), getattr(expected, name), strict=True):
                assert isinstance(a, np.ndarray) and len(a) == min(most, 400)
                np.testing.assert_array_equal(a, b)
    a, b = (train(p, WLM(**SMALL)).history["loss"] for p in (disk, memory))
    np.testing.assert_array_equal(a, b)


def test_arrays_on_disk_are_checked_as_they_are_read():
    x = list(populations().positions)
    x[1] = x[1].copy()
    x[1][7] = np.nan
    lazy = Populations(np.arange(3.0), tuple(da.from_array(a) for a in x))
    with pytest.raises(ValueError, match="positions at time 1 contain NaN"):
        lazy.sampled()


def test_a_sample_keeps_cells_together_and_shares_of_strata():
    rng = np.random.default_rng(0)
    strata = tuple(rng.choice(3, p=[0.7, 0.25, 0.05], size=400) for _ in range(3))
    x = populations().positions
    weights = tuple(1 + np.abs(a[:, 0]).astype(np.float64) for a in x)
    p = Populations(np.arange(3.0), x, tuple(2 * a for a in x), weights, strata)
    some = p.sampled(100)
    for k in range(3):
        np.testing.assert_array_equal(some.velocities[k], 2 * some.positions[k])
        np.testing.assert_array_equal(some.weights[k], 1 + np.abs(some.positions[k][:, 0]).astype(np.float64))
        assert len(np.unique(some.positions[k], axis=0)) == 100
        counts, all_counts = (np.bincount(s[k], minlength=3) for s in (some.strata, strata))
        assert np.abs(counts - all_counts / 4).max() <= 1
    assert p.sampled(400) is p
    for a, b in zip(p.sampled(100).positions, some.positions, strict=True):
        np.testing.assert_array_equal(a, b)  # the same at every call


@given(
    arrays(np.int64, st.integers(2, 60), elements=st.integers(0, 4)),
    st.integers(1, 80),
    st.none() | arrays(np.float64, 60, elements=st.floats(0.5, 2)),
)
@settings(deadline=None)
def test_batches_hold_strata_in_proportion(strata, n, weights):
    """Up to less than two cells each, for any sizes; without replacement, or by weight."""
    size, generator = len(strata), torch.Generator().manual_seed(0)
    w = np.ones(size) if weights is None else weights[:size]
    x = np.arange(2.0 * size).reshape(size, 2)
    p = Populations(np.arange(2.0), (x, x), None, None if weights is None else (w, w), (strata, strata))
    snapshots = Snapshots.of(p, Units.of(p), torch.device("cpu"))
    i = snapshots.draw(0, n, generator).numpy()
    assert len(set(i.tolist())) == len(i) == min(n, size)
    shares = np.bincount(strata, minlength=5) / size
    assert np.abs(np.bincount(strata[i], minlength=5) - shares * len(i)).max() < 2
    j = snapshots.draw_by_weight(0, n, generator).numpy()
    assert len(j) == n
    shares = np.bincount(strata, weights=w, minlength=5) / w.sum()
    assert np.abs(np.bincount(strata[j], minlength=5) - shares * n).max() < 2 + 1e-3


def test_every_cell_is_drawn_as_often_as_any_other_or_by_its_weight():
    strata, w = np.repeat([0, 1, 2], [33, 60, 7]), np.linspace(1, 3, 100)
    x = np.random.default_rng(0).normal(size=(100, 2))
    p = Populations(np.arange(2.0), (x, x), None, (w, w), (strata, strata))
    snapshots, generator = Snapshots.of(p, Units.of(p), torch.device("cpu")), torch.Generator().manual_seed(0)
    for draw, expected in ((snapshots.draw, np.full(100, 0.3)), (snapshots.draw_by_weight, 30 * w / w.sum())):
        drawn = np.concatenate([draw(0, 30, generator).numpy() for _ in range(3000)])
        frequency = np.bincount(drawn, minlength=100) / 3000
        # Five standard deviations of a count, at most.
        assert np.abs(frequency - expected).max() < 5 * np.sqrt(0.5 / 3000)


@pytest.mark.parametrize("method", ["ijkonet", "jkonet_star", "wlm", "wlm_paper"])
def test_every_method_draws_by_strata(method, monkeypatch):
    """All that is drawn in a training has as many cells of either half of the populations as of the other."""
    config = METHODS[method](n_steps=3)
    drawn = []
    for name in ("draw", "draw_by_weight"):
        plain = getattr(Snapshots, name)

        def noting(self, k, n, generator, plain=plain):
            drawn.append(plain(self, k, n, generator))
            return drawn[-1]

        monkeypatch.setattr(Snapshots, name, noting)
    train(populations(strata=tuple(np.repeat([0, 1], 200) for _ in range(3))), config, seed=1)
    assert len(drawn) >= 3
    for cells in drawn:
        low = int((cells < 200).sum())
        assert abs(low - (len(cells) - low)) <= 2


def test_redrawn_cells_are_a_bootstrap_of_each_time():
    """Weights are how often a cell was drawn: n of n cells, 1 - 1/e of them once at least, mean and variance 1."""
    p = populations(strata=tuple(np.repeat([0, 1], 200) for _ in range(3)), weights=(np.full(400, 2.0),) * 3)
    drawn = []
    for seed in range(20):
        found = p.redrawn(seed)
        for x, w, s, whole in zip(found.positions, found.weights, found.strata, p.positions, strict=True):
            assert w.sum() == 800 and len(np.unique(x[:, 0])) == len(x)
            place = np.flatnonzero(np.isin(whole[:, 0], x[:, 0]))
            np.testing.assert_array_equal(whole[place], x)
            np.testing.assert_array_equal(s, place // 200)
            drawn.append(np.bincount(place, w / 2, minlength=400))
    drawn = np.array(drawn)
    assert (drawn > 0).mean() == pytest.approx(1 - np.exp(-1), abs=0.01)
    assert drawn.var() == pytest.approx(1, abs=0.05)
    assert np.abs(drawn.mean(0) - 1).max() < 5 / np.sqrt(60)
    again, other = p.redrawn(0), p.redrawn(1)
    np.testing.assert_array_equal(again.weights[0], p.redrawn(0).weights[0])
    assert len(other.weights[0]) != len(again.weights[0]) or (other.weights[0] != again.weights[0]).any()
    few = populations(n=2)
    assert all(len(x) == 2 for seed in range(5) for x in few.redrawn(seed).positions)
    assert few.redrawn(0).weights[0].tolist() == [1, 1] and few.redrawn(0).growth is None


def test_a_training_on_redrawn_cells_has_the_units_of_all(monkeypatch):
    p, seen = populations(), []
    plain = Snapshots.of.__func__
    monkeypatch.setattr(Snapshots, "of", classmethod(lambda cls, *a: seen.append(a[0]) or plain(cls, *a)))
    one, other = (train(p, WLM(**SMALL), seed=3, redraw=redraw).dynamics.units for redraw in (False, True))
    np.testing.assert_array_equal(one.location, other.location)
    assert one.length == other.length
    assert seen[0] is p and len(seen[1].positions[0]) < 400 and seen[1].weights[0].sum() == 400


def test_wrong_strata_are_refused():
    with pytest.raises(ValueError, match=r"strata at time 0 have shape \(3,\), wanted \(400,\)"):
        populations(strata=(np.zeros(3, dtype=int),) * 3)
