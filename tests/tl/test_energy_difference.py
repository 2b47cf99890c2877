"""Energies of two fits in one gauge: a bump that one landscape has and the other lacks."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import wlm

CENTRE, WIDTH = np.array([1.0, 0.3]), 0.5


def energy(x, bump):
    """A bowl, with a bump of this height."""
    return 0.4 * np.square(x).sum(1) + bump * np.exp(-np.square(x - CENTRE).sum(1) / (2 * WIDTH**2))


def cells(bump, n, seed, n_times=5, step=0.4, dt=0.01, diffusion=0.05):
    """Cells that slide down the energy with noise, others each time."""
    rng, out = np.random.default_rng(seed), []
    for k in range(n_times):
        x = rng.normal(size=(n, 2)) * 0.6 + [2.0, 0.0]
        for _ in range(round(k * step / dt)):
            r = x - CENTRE
            slope = 0.8 * x - bump * np.exp(-np.square(r).sum(1) / (2 * WIDTH**2))[:, None] * r / WIDTH**2
            x = x - dt * slope + np.sqrt(2 * diffusion * dt) * rng.normal(size=x.shape)
        out.append(x)
    obs = pd.DataFrame({"day": np.repeat(np.round(step * np.arange(n_times), 2), n), "arm": f"bump{bump:g}"})
    obs.index = [f"{seed}-{i}" for i in range(len(obs))]
    return ad.AnnData(obs=obs, obsm={"X_pca": np.concatenate(out).astype(np.float32)})


def both(n, method, **options):
    adata = ad.concat([cells(0.0, n, 0), cells(1.0, n, 1)])
    wlm.tl.fit(
        adata, "day", condition_key="arm", method=method, show_progress=False, backtest=False, device="cpu", **options
    )
    return adata


@pytest.fixture(scope="module")
def quick_fits():
    return both(40, "jkonet_star", n_steps=20)


@pytest.mark.slow
def test_a_known_bump_is_found():
    adata = both(300, "jkonet_star")
    table = wlm.tl.energy_difference(adata, key="wlm_bump1", reference="wlm_bump0")
    x = adata[table.index].obsm["X_pca"]
    truth = energy(x, 1.0) - energy(x, 0.0)
    truth = truth - pd.Series(truth).groupby(table["time"].to_numpy()).transform("mean").to_numpy()
    found = table["difference"].to_numpy()
    assert np.corrcoef(found, truth)[0, 1] > 0.9
    assert 0.6 < found @ truth / (truth @ truth) < 1.3, "its height, in units of the data"
    assert table.attrs["unit"] == "X_pca**2 / time"


def test_the_gauge(quick_fits):
    """Of each energy the mean over both sides is zero, each side counting half; their difference is antisymmetric."""
    table = wlm.tl.energy_difference(quick_fits, key="wlm_bump1", reference="wlm_bump0")
    assert len(table) == quick_fits.n_obs and sorted(table["time"].unique()) == [0, 0.4, 0.8, 1.2, 1.6]
    assert np.allclose(table.groupby("time")[["energy", "reference_energy"]].mean(), 0, atol=1e-5)
    assert np.allclose(table["difference"], table["energy"] - table["reference_energy"])
    back = wlm.tl.energy_difference(quick_fits, key="wlm_bump0", reference="wlm_bump1")
    assert np.allclose(back["difference"][table.index], -table["difference"], atol=1e-5)
    # One side with fewer cells counts as much as the other: the mean is of the sides' means.
    fewer = quick_fits[(quick_fits.obs["arm"] == "bump0") | (np.arange(quick_fits.n_obs) % 2 == 0)].copy()
    table = wlm.tl.energy_difference(fewer, key="wlm_bump1", reference="wlm_bump0")
    means = table.groupby([table["time"], fewer.obs["arm"][table.index].to_numpy()])["energy"].mean().unstack()
    assert np.allclose(means.sum(axis=1), 0, atol=1e-5) and np.abs(means.to_numpy()).max() > 1e-3


def test_what_differs_is_where_the_fits_say(quick_fits):
    """The slope of an energy is the force of its fit: without gauge the same, and with it."""
    table = wlm.tl.energy_difference(quick_fits, key="wlm_bump1", reference="wlm_bump0", times=0.8)
    own = quick_fits[(quick_fits.obs["arm"] == "bump1") & (quick_fits.obs["day"] == 0.8)]
    stored = own.obs["wlm_potential"] - own.obs["wlm_potential"].mean()
    here = table["energy"][own.obs_names]
    assert np.allclose(here - here.mean(), stored, atol=1e-4), "the potential that the fit stored"
    assert set(table["time"]) == {0.8} and len(table) == 80


def test_the_object_is_left_alone(quick_fits):
    before = quick_fits.copy()
    wlm.tl.energy_difference(quick_fits, key="wlm_bump1", reference="wlm_bump0")
    assert set(quick_fits.obs) == set(before.obs) and set(quick_fits.uns) == set(before.uns)


def test_second_order_says_what_its_scale_rests_on(quick):
    adata = cells(0.0, 30, 0)
    for key in ("a", "b"):
        wlm.tl.fit(adata, "day", key_added=key, **quick)
    table = wlm.tl.energy_difference(adata, key="a", reference="b")
    assert table.attrs["unit"] == "X_pca**2 / time**2" and "friction" in table.attrs["notes"][1]
    assert len(table) == adata.n_obs and np.allclose(table["difference"], 0), "fits that share cells list each once"


def test_bad_input(quick_fits, quick):
    with pytest.raises(ValueError, match="name two fits"):
        wlm.tl.energy_difference(quick_fits, key="wlm_bump1", reference="wlm_bump1")
    with pytest.raises(KeyError, match="run wlm.tl.fit"):
        wlm.tl.energy_difference(quick_fits, key="wlm_bump1", reference="none")
    with pytest.raises(ValueError, match="0.3 is not a training time of both fits"):
        wlm.tl.energy_difference(quick_fits, key="wlm_bump1", reference="wlm_bump0", times=[0.3])
    adata = cells(0.0, 30, 0)
    wlm.tl.fit(adata, "day", key_added="a", **quick)
    wlm.tl.fit(adata, "day", key_added="b", method="flow", show_progress=False, backtest=False)
    wlm.tl.fit(adata, "day", key_added="c", n_dims=1, **quick)
    wlm.tl.fit(adata, "day", key_added="d", holdout=[0.4, 0.8], **quick)
    with pytest.raises(ValueError, match="fits differ in method: 'wlm' of 'a', 'flow' of 'b'"):
        wlm.tl.energy_difference(adata, key="a", reference="b")
    with pytest.raises(ValueError, match="number of dimensions: 2 of 'a', 1 of 'c'"):
        wlm.tl.energy_difference(adata, key="a", reference="c")
    with pytest.raises(ValueError, match=r"0.4 is not a training time of both fits, which share 0, 1.2, 1.6"):
        wlm.tl.energy_difference(adata, key="a", reference="d", times=0.4)
    assert set(wlm.tl.energy_difference(adata, key="a", reference="d")["time"]) == {0.0, 1.2, 1.6}
