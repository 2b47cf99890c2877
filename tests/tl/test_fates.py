"""Fates, terminal states and ancestors on populations whose fates are known."""

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import HDBSCAN

import wlm
from wlm._adata.neighbours import from_neighbours
from wlm.tl._terminal_states import _stay

#: Cells of a time, and its times.
N, TIMES = 60, (0.0, 1.0, 2.0, 4.0)


def splitting(seed=0, n=N):
    """Cells of one place that go to the right or to the left, at one a day from day 1 on, by the toss of a coin.

    In eight dimensions, of which the others are noise: what a cell's neighbours in these have in common is its place
    along the first.
    """
    rng = np.random.default_rng(seed)
    day = np.repeat(TIMES, n)
    side = np.tile(np.where(np.arange(n) % 3 == 0, -1.0, 1.0), len(TIMES))
    x = rng.normal(scale=0.3, size=(len(day), 8))
    x[:, 0] += side * np.maximum(day - 0.5, 0) * 1.5
    adata = ad.AnnData(obsm={"X_pca": x.astype(np.float32)})
    adata.obs_names = [f"c{i}" for i in range(len(day))]
    adata.obs["day"] = day
    adata.obs["side"] = pd.Categorical(np.where(side > 0, "right", "left"))
    adata.obs["type"] = pd.Categorical(np.where(day < 2, "early", adata.obs["side"].astype(str)))
    return adata


@pytest.fixture(scope="module")
def _split():
    adata = splitting()
    wlm.tl.fit(adata, "day", method="flow", show_progress=False)
    wlm.tl.terminal_states(adata, label_key="type")
    wlm.tl.fates(adata)
    return adata


@pytest.fixture
def split(_split):
    return _split.copy()


def test_the_toss_of_a_coin_is_open_before_and_certain_after(split):
    assert split.uns["wlm_fates"]["names"].tolist() == ["left", "right"]
    p, day = split.obsm["wlm_fates"][:, 1], split.obs["day"].to_numpy()
    right = (split.obs["side"] == "right").to_numpy()
    assert np.allclose(split.obsm["wlm_fates"].sum(1), 1, atol=1e-5)
    # Where a cell of day 0 is says nothing of the coin: with its odds, two to one, the score is 2 / 9, and with each
    # cell sent to one side 4 / 9.
    brier = np.mean((p - right)[day == 0] ** 2)
    assert brier < 1.2 * 2 / 9 and p[day == 0].mean() == pytest.approx(2 / 3, abs=0.02)
    assert np.abs(p - right)[day >= 2].max() < 0.05
    note = split.uns["wlm_fates"]
    assert note["decided"][0] < 0.15 and note["decided"][2] > 0.9 and note["decided"][3] == 1
    assert 0 < note["decided_at"][0] < 2 and note["decided_at"][0] == pytest.approx(note["decided_at"][1])
    entropy = split.obs["wlm_fate_entropy"].to_numpy()
    q = np.clip(p, 1e-12, 1 - 1e-7).astype(float)
    assert entropy == pytest.approx(-q * np.log2(q) - (1 - q) * np.log2(1 - q), abs=1e-3)
    assert note["entropy"] == pytest.approx([entropy[day == t].mean() for t in TIMES], abs=1e-5)


def test_chances_add_up_to_the_observed_composition(split):
    """Balanced transport: at every time, to the tolerance of the couplings."""
    p, day = split.obsm["wlm_fates"], split.obs["day"]
    observed = split.uns["wlm_fates"]["observed"]
    assert observed == pytest.approx([1 / 3, 2 / 3])
    for t in TIMES:
        assert p[day == t].mean(0) == pytest.approx(observed, abs=0.02)


def test_terminal_states_are_the_types_that_stay(split):
    table = wlm.tl.terminal_states(split, label_key="type").set_index(["kind", "state"])
    assert table.loc[("terminal", "right"), "stay"] > 0.95 and table.loc[("terminal", "left"), "stay"] > 0.95
    assert table["taken"].all() and np.isnan(table["stay_sd"]).all()
    assert table.loc[("terminal", "left"), "share"] == pytest.approx(1 / 3)
    assert table.loc[("initial", "early"), "n_cells"] == N
    member = split.obs["wlm_terminal"]
    assert member.notna().sum() == N and (member.dropna() == split.obs["side"][member.notna()]).all()
    assert set(split.obs["wlm_initial"].dropna()) == {"early"}
    assert "wlm_fates" not in split.uns and "wlm_fates" not in split.obsm, "fates of other states would be wrong"
    # Speeds: one and a half a day over two days, in radii of 0.3 sqrt(8).
    assert table.loc[("terminal", "right"), "speed"] == pytest.approx(3 / 0.85, rel=0.3)


def test_a_type_that_leaves_is_no_end(split):
    """All cells of "early" at day 2 would have become something else by day 4."""
    split.obs["type"] = pd.Categorical(np.where(split.obs["day"] < 4, "early", split.obs["side"].astype(str)))
    few = np.flatnonzero((split.obs["day"] == 4).to_numpy() & (split.obs["side"] == "right").to_numpy())[:3]
    split.obs.iloc[few, split.obs.columns.get_loc("type")] = "early"
    table = wlm.tl.terminal_states(split, label_key="type").set_index(["kind", "state"])
    early = table.loc[("terminal", "early")]
    assert early["stay"] == pytest.approx(3 / 60, abs=0.03) and not early["taken"]
    assert np.isnan(table.loc[("terminal", "left"), "stay"]) and table.loc[("terminal", "left"), "taken"]
    wlm.tl.fates(split)
    assert split.uns["wlm_fates"]["names"].tolist() == ["left", "right", "undecided"]
    assert split.obsm["wlm_fates"][few, 2] == pytest.approx(1)
    named = wlm.tl.terminal_states(split, label_key="type", states=["early", "left"])
    assert named.loc[named["taken"] & (named["kind"] == "terminal"), "state"].tolist() == ["early", "left"]


def test_shares_that_stay_are_those_of_a_known_step():
    step = np.array([[1.0, 0.0], [0.25, 0.75], [0.0, 1.0]])
    before, after = np.array([False, True, True]), np.array([False, True])
    assert _stay(step, before, after, None, forward=True) == pytest.approx(1.75 / 2)
    assert _stay(step, before, after, np.array([1.0, 2.0, 1.0]), forward=True) == pytest.approx(2.5 / 3)
    assert _stay(step, before, ~after, None, forward=False) == pytest.approx(0.25 / 1.25)
    assert np.isnan(_stay(step, before & False, after, None, forward=True))


def test_groups_with_a_gap_are_found_without_labels(split):
    table = wlm.tl.terminal_states(split)
    found = table[table["kind"] == "terminal"]
    assert found["state"].tolist() == ["state 1", "state 2"] and found["n_cells"].tolist() == [40, 20]
    member = split.obs["wlm_terminal"]
    assert ((member == "state 1") == ((split.obs["side"] == "right") & (split.obs["day"] == 4))).all()
    assert wlm.tl.terminal_states(split, n_states=3).query("kind == 'terminal'")["taken"].tolist() == [True] * 3
    split.obs["day"] = split.obs["day"].to_numpy()[::-1].copy()
    wlm.tl.fit(split, "day", method="flow", show_progress=False)
    with pytest.raises(ValueError, match="no groups with a gap.*label_key= .*n_states="):
        wlm.tl.terminal_states(split)


def test_among_many_cells_groups_are_sought_in_a_sample(split, monkeypatch):
    seen, plain = [], HDBSCAN.fit_predict
    monkeypatch.setattr(HDBSCAN, "fit_predict", lambda self, x: seen.append(len(x)) or plain(self, x))
    monkeypatch.setattr("wlm.tl._terminal_states.MOST", 55)
    for rng in (0, 1):
        found = wlm.tl.terminal_states(split, rng=rng).query("kind == 'terminal'")
        assert found["state"].tolist() == ["state 1", "state 2"] and found["n_cells"].tolist() == [40, 20]
    assert seen == [55, 55]
    monkeypatch.setattr("wlm.tl._terminal_states.MOST", 60)
    wlm.tl.terminal_states(split)
    assert seen[-1] == 60


def test_ancestors_are_bayes_rule(split):
    table = wlm.tl.ancestors(split, "left", times=[0, 1])
    assert table["time"].tolist() == [0] * N + [1] * N
    for _, part in table.groupby("time"):
        p = split.obsm["wlm_fates"][split.obs_names.get_indexer(part.index), 0]
        assert np.allclose(part["share"], p / p.sum(), atol=1e-6) and part["share"].is_monotonic_decreasing
    late = wlm.tl.ancestors(split, "left", times=2, groupby="side").set_index("label")
    assert late.loc["left", "share"] > 0.95 and late.loc["left", "enrichment"] == pytest.approx(3, rel=0.1)
    assert wlm.tl.ancestors(split, "left")["time"].nunique() == 4
    with pytest.raises(ValueError, match="fate 'up' does not exist; fates are"):
        wlm.tl.ancestors(split, "up")
    with pytest.raises(ValueError, match="was not observed"):
        wlm.tl.ancestors(split, "left", times=3)


def test_fates_of_a_later_time(split, caplog):
    before = split.obsm["wlm_fates"].copy()
    with caplog.at_level(logging.WARNING, "wlm"):
        wlm.tl.fates(split, at=6.5, n_draws=3)
    assert "unchecked forecast" in caplog.text
    assert split.uns["wlm_fates"]["at"] == 6.5
    # Both sides go on where they are: nothing changes.
    assert np.abs(split.obsm["wlm_fates"] - before).max() < 0.1
    with pytest.raises(ValueError, match="before the last training time"):
        wlm.tl.fates(split, at=2)
    with pytest.raises(ValueError, match="at must be one time"):
        wlm.tl.fates(split, at=[5, 6])


def test_weights_count_as_so_many_cells():
    """Cells of the left with weight 2 are half of the population."""
    adata = splitting()
    adata.obs["w"] = np.where(adata.obs["side"] == "left", 2.0, 1.0)
    wlm.tl.fit(adata, "day", method="flow", weight_key="w", show_progress=False)
    wlm.tl.terminal_states(adata, label_key="type")
    wlm.tl.fates(adata)
    start = (adata.obs["day"] == 0).to_numpy()
    p, w = adata.obsm["wlm_fates"][start, 0], adata.obs["w"][start]
    assert adata.uns["wlm_fates"]["observed"] == pytest.approx([0.5, 0.5])
    assert np.average(p, weights=w) == pytest.approx(0.5, abs=0.02)


def test_held_out_cells_and_cells_without_a_time():
    adata = splitting()
    adata.obs.loc[adata.obs_names[5], "day"] = np.nan
    wlm.tl.fit(adata, "day", method="flow", holdout=[1, 4], nan="drop", show_progress=False)
    wlm.tl.terminal_states(adata)
    wlm.tl.fates(adata)
    p, day = adata.obsm["wlm_fates"], adata.obs["day"]
    assert (
        np.isnan(p[5]).all() and np.isnan(adata.obs["wlm_fate_entropy"].iloc[5]) and np.isfinite(p).all(1).sum() == 239
    )
    assert adata.uns["wlm_terminal"]["time"] == 2
    right = adata.uns["wlm_fates"]["names"].tolist().index("state 1")
    late = (day == 4).to_numpy()
    assert np.abs(p[late, right] - (adata.obs["side"] == "right")[late]).max() < 1e-6, "those of the nearest cells"
    assert np.isnan(adata.uns["wlm_fates"]["noise"][[2, 3]]).all()
    assert adata.uns["wlm_fates"]["times"].tolist() == list(TIMES)


@pytest.mark.slow
def test_models_of_an_ensemble_and_draws_are_averaged(quick):
    adata = splitting(n=40)
    wlm.tl.fit(adata, "day", n_models=2, **{**quick, "n_steps": 10})
    table = wlm.tl.terminal_states(adata, label_key="type")
    assert np.isfinite(table["stay_sd"]).all()
    wlm.tl.fates(adata)
    both, spread = adata.obsm["wlm_fates"].copy(), adata.obs["wlm_fate_spread"].to_numpy()
    # The first model alone, and the second by what is missing to twice the mean.
    only = adata.copy()
    del only.uns["wlm"]["ensemble"]
    from wlm._store.integrity import checksum

    only.uns["wlm"]["checksum"] = only.uns["wlm_terminal"]["fit"] = checksum(only.uns["wlm"])
    wlm.tl.fates(only)
    first = only.obsm["wlm_fates"]
    second = 2 * both - first
    expected = np.sqrt(np.stack([first, second]).var(0, ddof=1).mean(1))
    assert spread == pytest.approx(expected, abs=1e-5) and spread.max() > 0
    assert "wlm_fate_spread" not in only.obs, "a fit of one model has none"


@pytest.mark.slow
def test_diffusion_is_drawn():
    import wlm.tl._links as links

    adata = splitting(n=30)
    wlm.tl.fit(adata, "day", method="ijkonet", energy="V+U", simulation="sde", n_steps=5, show_progress=False)
    observed = links.Observed.of(adata, "wlm", None)
    found = links.rollouts(observed, 0.0, 1.0, n_draws=3, seed=0)
    assert len(found) == 3 and not np.array_equal(found[0], found[1])
    wlm.tl.fit(adata, "day", method="flow", show_progress=False)
    assert len(links.rollouts(links.Observed.of(adata, "wlm", None), 0.0, 1.0, n_draws=3, seed=0)) == 1


def test_a_fit_that_misses_the_composition_is_warned_about(quick, caplog):
    """An untrained fit leaves cells where they start, on the left."""
    rng = np.random.default_rng(0)
    day = np.repeat([0.0, 1.0], 60)
    x = rng.normal(scale=0.3, size=(120, 2)).astype(np.float32)
    side = np.where((day == 1) & (np.arange(120) % 2 == 0), "right", "left")
    x[:, 0] += 4 * (side == "right")
    adata = ad.AnnData(obs=pd.DataFrame({"day": day, "side": side}, index=map(str, range(120))), obsm={"X_pca": x})
    wlm.tl.fit(adata, "day", initial_velocity="zero", **{**quick, "n_steps": 1})
    wlm.tl.terminal_states(adata, label_key="side")
    with caplog.at_level(logging.WARNING, "wlm"):
        wlm.tl.fates(adata)
    assert "50 % of its cells are in another state than observed" in caplog.text
    note = adata.uns["wlm_fates"]
    assert note["predicted"] == pytest.approx([1, 0]) and note["observed"] == pytest.approx([0.5, 0.5])
    assert note["missed"] == pytest.approx(0.5) and 0.1 < note["tolerated"] < 0.3
    # The bridges hide it: half of the cells go to the right all the same.
    assert adata.obsm["wlm_fates"][day == 0, 1].mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_results_survive_a_file(split, tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    getattr(split, f"write_{kind}")(path)
    back = getattr(ad, f"read_{kind}")(path)
    assert np.array_equal(back.obsm["wlm_fates"], split.obsm["wlm_fates"])
    again = wlm.tl.ancestors(back, "left", times=0)
    assert np.allclose(again["share"], wlm.tl.ancestors(split, "left", times=0)["share"])
    wlm.tl.fates(back)
    assert np.array_equal(back.obsm["wlm_fates"], split.obsm["wlm_fates"])


def test_the_same_seed_gives_the_same_numbers_and_views_are_written_to(split):
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    view = split[:]
    wlm.tl.fates(view, rng=np.random.SeedSequence(3))
    wlm.tl.fates(split, rng=np.random.SeedSequence(3))
    assert np.array_equal(view.obsm["wlm_fates"], split.obsm["wlm_fates"])
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_a_new_fit_takes_the_results_of_the_old_one_away(split):
    wlm.tl.fit(split, "day", method="flow", n_dims=1, show_progress=False)
    left = [*split.uns, *split.obs, *split.obsm]
    assert not [name for name in left if "fate" in name or "terminal" in name or "initial" in name]


def test_conditions_have_fates_of_their_own():
    adata = ad.concat([splitting(0), splitting(1)], keys=["a", "b"], label="arm", index_unique="-")
    wlm.tl.fit(adata, "day", method="flow", condition_key="arm", show_progress=False)
    with pytest.raises(ValueError, match="choose one: key='wlm_a' or key='wlm_b'"):
        wlm.tl.terminal_states(adata)
    wlm.tl.terminal_states(adata, key="wlm_a")
    wlm.tl.fates(adata, key="wlm_a")
    known = np.isfinite(adata.obsm["wlm_a_fates"]).all(1)
    assert (known == (adata.obs["arm"] == "a")).all()
    alone = adata[adata.obs["arm"] == "a"].copy()
    wlm.tl.fates(alone, key="wlm_a")
    assert np.allclose(alone.obsm["wlm_a_fates"], adata.obsm["wlm_a_fates"][known], atol=1e-6)


def test_a_modality_has_fates(split):
    mudata = pytest.importorskip("mudata")
    for name in [k for k in split.uns if k != "wlm"]:
        del split.uns[name]
    mdata = mudata.MuData({"rna": split, "other": splitting()})
    wlm.tl.terminal_states(mdata, mod="rna", label_key="type")
    wlm.tl.fates(mdata, mod="rna")
    assert mdata["rna"].obsm["wlm_fates"].shape == (240, 2)
    assert len(wlm.tl.ancestors(mdata, "left", mod="rna", times=0)) == N


def spoilt(adata, how):
    if how == "no fit":
        del adata.uns["wlm"]
    elif how == "no states":
        del adata.uns["wlm_terminal"]
    elif how == "one state":
        wlm.tl.terminal_states(adata, label_key="type", states=["left"])
    elif how == "of another fit":
        states, column = dict(adata.uns["wlm_terminal"]), adata.obs["wlm_terminal"].copy()
        wlm.tl.fit(adata, "day", method="flow", n_dims=1, show_progress=False)
        adata.uns["wlm_terminal"], adata.obs["wlm_terminal"] = states, column
    elif how == "no members":
        adata.obs["wlm_terminal"] = adata.obs["wlm_terminal"].cat.remove_categories(["left"])
    elif how == "no last time":
        return adata[adata.obs["day"] < 4].copy()
    return adata


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("no fit", KeyError, "run wlm.tl.fit"),
        ("no states", KeyError, "run wlm.tl.terminal_states.* first"),
        ("one state", ValueError, "one terminal state, 'left'.*states="),
        ("of another fit", ValueError, "computed from another fit.*terminal_states.* again"),
        ("no members", ValueError, "has no cell of .'left'."),
        ("no last time", ValueError, "no cells of the training time 4"),
    ],
)
def test_fates_are_refused_with_the_remedy(split, how, error, message):
    adata = spoilt(split, how)
    before = adata.copy()
    with pytest.raises(error, match=message):
        wlm.tl.fates(adata)
    assert (
        set(adata.uns) == set(before.uns)
        and list(adata.obs) == list(before.obs)
        and set(adata.obsm) == set(before.obsm)
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"label_key": "absent"}, KeyError, "is missing"),
        ({"label_key": "day"}, ValueError, "holds numbers"),
        ({"states": ["left"]}, ValueError, "name it: label_key="),
        ({"label_key": "type", "states": "left"}, TypeError, r"write states=\['left'\]"),
        ({"label_key": "type", "states": ["early"]}, ValueError, "'early'.* have no cell at 4"),
        ({"label_key": "type", "n_states": 2}, ValueError, "leave it or label_key out"),
        ({"n_states": 0}, ValueError, "n_states must be an integer of at least 1"),
        ({"n_states": 61}, ValueError, "more than the 60 cells"),
        ({"label_key": "type", "min_share": 1}, ValueError, "min_share must be"),
        ({"label_key": "type", "n_draws": 0}, ValueError, "n_draws must be"),
        ({"label_key": "type", "rng": -1}, TypeError, "rng must be"),
    ],
)
def test_terminal_states_refuse_what_contradicts_itself(split, arguments, error, message):
    before = set(split.uns), list(split.obs), set(split.obsm)
    with pytest.raises(error, match=message):
        wlm.tl.terminal_states(split, **arguments)
    assert (set(split.uns), list(split.obs), set(split.obsm)) == before


def test_the_free_rollout_counts_cells_as_often_as_they_have_multiplied():
    adata = wlm.datasets.branching_growth(40, days=(0, 2, 4), n_founders=300)
    adata.obs["rate"] = np.where(adata.obsm["X_position"][:, 1] > 0, 0.5, -0.5)
    small = {"n_steps": 3, "batch_size": 32, "width": 8, "heads": 2, "hidden": 8, "n_inducing": 2}
    options = {"growth": "prior", "growth_key": "rate", "show_progress": False, **small}
    wlm.tl.fit(adata, "day", use_rep="X_position", **options)
    wlm.tl.terminal_states(adata, label_key="branch")
    wlm.tl.fates(adata)
    note, path = adata.uns["wlm_fates"], adata.uns["wlm"]["rollout"]
    last = (adata.obs["day"] == 4).to_numpy()
    ends = from_neighbours(
        adata.obsm["X_position"][last], adata.obs["wlm_terminal"][last].astype(str).to_numpy(), path["positions"][-1]
    )
    w = path["weights"][-1]
    expected = [w[ends == name].sum() / w.sum() for name in note["names"]]
    np.testing.assert_allclose(note["predicted"], expected, atol=1e-6)
    assert np.ptp(w) > 0.1 * w.mean()


def test_fates_of_lineages_and_of_descendants():
    """Counted as cells, chances of the first day add up to the composition of the last; lineages need not."""
    adata = wlm.datasets.branching_growth(60, days=(0, 2, 4), n_founders=300)
    adata.obs["rate"] = np.where(adata.obsm["X_position"][:, 1] > 0, 0.5, -0.5)
    small = {"n_steps": 3, "batch_size": 32, "width": 8, "heads": 2, "hidden": 8, "n_inducing": 2}
    options = {"growth": "prior", "growth_key": "rate", "show_progress": False, **small}
    wlm.tl.fit(adata, "day", use_rep="X_position", **options)
    wlm.tl.terminal_states(adata, label_key="branch")
    found = {}
    for count in ("cells", "lineages"):
        wlm.tl.fates(adata, count=count)
        found[count] = adata.obsm["wlm_fates"].copy()
        assert adata.uns["wlm_fates"]["count"] == count
        assert ("wlm_fate_descendants" in adata.obs) == (count == "cells")
        if count == "cells":
            w = adata.obs["wlm_fate_descendants"].to_numpy()
            note = adata.uns["wlm_fates"]
    first, middle = ((adata.obs["day"] == t).to_numpy() for t in (0, 2))
    for here in (first, middle):
        assert w[here].mean() == pytest.approx(1, abs=1e-5) and w[here].std() > 0.05
        np.testing.assert_allclose(
            np.average(found["cells"][here], axis=0, weights=w[here]), note["observed"], atol=5e-3
        )
    np.testing.assert_allclose(found["cells"].sum(1), 1, atol=1e-5)
    # Branch A multiplies: of the descendants of an undecided cell more are there than of its lineages.
    a = list(note["names"]).index("A")
    change = (found["cells"] - found["lineages"])[first, a]
    assert change.mean() > 0.01
    with pytest.raises(ValueError, match="count must be one of"):
        wlm.tl.fates(adata, count="clones")
    wlm.tl.fates(adata, count="cells")
    wlm.tl.terminal_states(adata, label_key="branch")
    assert not [name for name in adata.obs if name.startswith("wlm_fate_")], "fates of other states are removed"


def test_without_growth_lineages_and_cells_have_the_same_fates(split):
    wlm.tl.terminal_states(split, label_key="type")
    found = []
    for count in ("cells", "lineages"):
        wlm.tl.fates(split, count=count)
        found.append(split.obsm["wlm_fates"].copy())
        assert "wlm_fate_descendants" not in split.obs
    np.testing.assert_array_equal(*found)
