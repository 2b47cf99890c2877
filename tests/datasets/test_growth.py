"""Simulated populations that grow, against their own rates."""

import numpy as np
import pytest

import wlm
from wlm.datasets._toggle import _drift, net_rate


def test_the_toggle_switches_from_the_first_gene_to_the_second_and_the_third_rests():
    adata = wlm.datasets.gene_toggle(200, n_founders=1000, rng=1)
    states = adata.obs.groupby(["time", "state"], observed=False).size().unstack()
    assert states.loc[0, "gene 2"] == 0 and states.loc[32, "gene 1"] == 0
    assert abs(states.loc[0, "gene 3"] - 100) < 30 and states.loc[32, "gene 2"] > 120
    last = adata[(adata.obs["time"] == 32) & (adata.obs["state"] == "gene 2")].X.mean(0)
    # A stable state of the equations, but for gene 3, whose noise is kept from going below zero.
    assert np.abs(_drift(last[None].astype(float))[0, :2]).max() < 0.02
    assert (adata.X >= 0).all() and np.array_equal(adata.X, adata.obsm["X_position"])


def test_the_toggle_divides_as_its_rates_say():
    """d log N / dt is the mean net rate: over 32 units of time, up to the noise of births and deaths."""
    times = np.arange(0, 33, 2.0)
    adata = wlm.datasets.gene_toggle(1000, times=times, n_founders=3000)
    mean = adata.obs.groupby("time")["true_growth"].mean().to_numpy()
    sizes = adata.uns["truth"]["sizes"]
    expected = np.trapezoid(mean, times)
    assert np.log(sizes[-1] / sizes[0]) == pytest.approx(expected, abs=0.05)
    np.testing.assert_allclose(adata.obs["true_growth"], net_rate(adata.X.astype(float)), rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [({"times": [0, 0]}, "distinct"), ({"times": [-1, 2]}, "not negative"), ({"n_founders": 10}, "n_founders")],
)
def test_impossible_toggles(call, message):
    with pytest.raises(ValueError, match=message):
        wlm.datasets.gene_toggle(100, **call)


def test_branching_growth_is_the_same_as_before():
    """The sum of a simulation with its seed, from the version that first had it."""
    adata = wlm.datasets.branching_growth(50, n_founders=200, rng=3)
    assert adata.uns["truth"]["sizes"].tolist() == [200, 335, 540, 885, 1610, 3125]
