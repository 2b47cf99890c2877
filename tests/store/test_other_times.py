"""A fit and columns that were rewritten after it: times, weights and conditions are compared with those of the fit."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import wlm

SHORT = {"n_steps": 1, "batch_size": 16, "width": 8, "hidden": 8, "n_inducing": 2, "initial_velocity": "zero"}
SHORT |= {"show_progress": False}
DAYS = [0.0, 2, 8]
READERS = {
    "predict": lambda a: wlm.tl.predict(a, 10),
    "diagnose": wlm.tl.diagnose,
    "rollout": wlm.pl.rollout,
    "composition": lambda a: wlm.pl.composition(a, "type"),
    "fates": lambda a: wlm.pl.fates(a, "type"),
    "terminal states": lambda a: wlm.tl.terminal_states(a, label_key="type"),
    "transitions": wlm.tl.transitions,
    "table of shares": lambda a: wlm.tl.composition(a, "type"),
    "genes": lambda a: wlm.pl.genes(a, ["0"]),
}


@pytest.fixture(scope="module")
def _made():
    import scanpy as sc

    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {"day": np.repeat(DAYS, 40), "weight": 1.0 + np.arange(120) % 3}, index=[f"c{i}" for i in range(120)]
    )
    obs["type"], obs["arm"] = np.tile(["a", "b"], 60), np.tile(["x", "y"], 60)
    adata = ad.AnnData(rng.poisson(3 + obs["day"].to_numpy()[:, None], (120, 6)).astype(np.float32), obs=obs)
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=3)
    wlm.tl.fit(adata, "day", weight_key="weight", **SHORT)
    return adata


@pytest.fixture
def made(_made):
    return _made.copy()


@pytest.mark.parametrize("reader", READERS)
def test_other_times_are_refused_by_all_that_reads_them(made, reader):
    made.obs["day"] = made.obs["day"].map({0: 0, 2: 1, 8: 2}).astype(float)
    with pytest.raises(ValueError, match=r"fitted to other times .*restore obs\['day'\] or run wlm.tl.fit again"):
        READERS[reader](made)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d * 24,
        lambda d: (24 * d).map("{:g}h".format),
        lambda d: d.map({0: 2.0, 2: 0.0, 8: 8.0}),
        lambda d: d.where(np.arange(120) != 7, 8.0),
        lambda d: d.sample(frac=1, random_state=0).to_numpy(),
    ],
    ids=["hours", "labels", "two swapped", "one cell", "shuffled"],
)
def test_times_that_were_changed_in_any_way_are_refused(made, change):
    made.obs["day"] = change(made.obs["day"])
    with pytest.raises(ValueError, match="fitted to other times"):
        wlm.tl.predict(made, 10)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.astype(np.float32),
        lambda d: d.astype(int),
        lambda d: d.astype("category"),
        lambda d: d.map("{:g}".format),
        lambda d: d.map("D{:g}".format),
        lambda d: d + 1e-9,
    ],
    ids=["float32", "int", "category", "text", "labels", "rounded"],
)
def test_the_same_times_in_another_form_are_the_same(made, change):
    expected = wlm.tl.predict(made, 10).obsm["X_pca"]
    made.obs["day"] = change(made.obs["day"])
    assert np.array_equal(wlm.tl.predict(made, 10).obsm["X_pca"], expected)


def test_fewer_cells_and_more_are_as_welcome_as_before(made):
    assert wlm.tl.predict(made[::2], 10).n_obs == 20
    more = made[:30].copy()
    more.obs_names = "new" + more.obs_names
    more.obs["day"] = 5.0
    both = ad.concat([made, more], merge="same", uns_merge="first")
    both.varm["PCs"] = made.varm["PCs"]
    assert wlm.tl.predict(both, 10).n_obs == 40
    assert wlm.tl.predict(made[::-1], 10).n_obs == 40


def test_other_units_weights_and_conditions_are_refused(made):
    made.obs["day"] = made.obs["day"].map("D{:g}".format)
    wlm.tl.fit(made, "day", key_added="days", **SHORT)
    made.obs["day"] = made.obs["day"].str.replace("D", "h")
    with pytest.raises(ValueError, match="the unit was day, it is hour"):
        wlm.tl.predict(made, 10, key="days")
    made.obs["day"] = np.repeat(DAYS, 40)
    made.obs["weight"] = made.obs["weight"].to_numpy()[::-1] + 1
    with pytest.raises(ValueError, match=r"fitted to other weights .*restore obs\['weight'\]"):
        wlm.tl.predict(made, 10)
    wlm.tl.fit(made, "day", condition_key="arm", key_added="arms", **SHORT)
    made.obs["arm"] = made.obs["arm"].map({"x": "y", "y": "x"})
    with pytest.raises(ValueError, match=r"fitted to other conditions .*restore obs\['arm'\]"):
        wlm.tl.predict(made, 10, key="arms")
