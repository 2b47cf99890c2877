"""``tl.compare``: conditions over samples, on cells whose law is known."""

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import stats

import wlm


def simulate(n=4, *, shift=0.0, at=2, days=4, followed=True, n_cells=40, spread=0.0, seed=0):
    """``2 n`` samples of Gaussian cells; those of the drug are shifted along the first dimension at one day."""
    rng = np.random.default_rng(seed)
    x, rows = [], []
    for i in range(2 * n):
        arm = "control" if i < n else "drug"
        for day in range(days):
            mean = np.array([0.5 * day + shift * (arm == "drug" and day == at), 0, 0]) + spread * rng.normal(size=3)
            x.append(mean + rng.normal(size=(n_cells, 3)))
            rows += [(float(day), arm, f"m{i}" if followed else f"m{i}d{day}")] * n_cells
    obs = pd.DataFrame(rows, columns=["day", "arm", "mouse"])
    obs.index = obs.index.astype(str)
    cells = np.concatenate(x).astype(np.float32)
    obs["type"] = np.where(cells[:, 0] > 1, "A", "B")
    var = pd.DataFrame(index=["one", "two"])
    return ad.AnnData(cells @ np.array([[1.0, 0], [0, 1], [0, 0]]), obs=obs, var=var, obsm={"X_pca": cells})


@pytest.fixture(scope="module")
def shifted():
    return simulate(shift=2.0)


@pytest.fixture(scope="module")
def table(shifted):
    return wlm.tl.compare(shifted, "day", "arm", sample_key="mouse", label_key="type", genes=["one", "two"])


def row(table, statistic, time, name=""):
    chosen = table[(table["statistic"] == statistic) & (table["name"] == name)]
    chosen = chosen[chosen["time"].isna() if time is None else chosen["time"] == time]
    assert len(chosen) == 1
    return chosen.iloc[0]


def test_the_day_that_was_shifted_is_found_and_no_other(table):
    assert table.attrs["first"] == {"drug": 2.0}
    whole = table[(table["name"] == "") & table["time"].notna()]
    sure = whole[whole["p_adj"] < 0.05]
    assert set(sure["time"]) == {2.0} and set(sure["statistic"]) == {"distance", "mean", "composition", "genes"}
    assert table.attrs["verdict"].startswith("DIFFERENT: drug and control, 4 against 4 samples a time, first at 2")
    assert whole["smallest_p"].to_numpy() == pytest.approx(2 / 70)


def test_effects_of_numbers_are_differences_of_sample_means_with_welchs_interval(table, shifted):
    means = shifted.to_df()["one"].groupby([shifted.obs["arm"], shifted.obs["mouse"], shifted.obs["day"]]).mean()
    a, b = (means.xs((arm,), level=("arm",)).xs(2.0, level="day") for arm in ("drug", "control"))
    found, theirs = row(table, "genes", 2.0, "one"), stats.ttest_ind(a, b, equal_var=False)
    assert found["effect"] == pytest.approx(a.mean() - b.mean(), rel=1e-5)
    assert (found["low"], found["high"]) == pytest.approx(tuple(theirs.confidence_interval()), rel=1e-4)
    assert row(table, "genes", 2.0, "two")["p_adj"] > 0.05, "this gene does not follow the shift"
    share = pd.crosstab([shifted.obs["mouse"], shifted.obs["day"]], shifted.obs["type"], normalize="index")["A"]
    drug = [f"m{i}" for i in range(4, 8)]
    assert row(table, "composition", 2.0, "A")["value"] == pytest.approx(share[drug].xs(2.0, level="day").mean())


def test_names_are_never_surer_than_their_statistic(table):
    named = table[(table["name"] != "") & table["p_adj"].notna()]
    whole = table[table["name"] == ""].set_index(["statistic", "time"])["p_adj"]
    assert (
        len(named) and (named["p_adj"] >= whole[list(zip(named["statistic"], named["time"], strict=True))].values).all()
    )


def test_w1_of_shifted_cells_is_the_shift(table):
    # Of two translated populations W1 is the translation; samples of 40 cells have a floor besides.
    whole = row(table, "distance", 2.0)
    assert whole["value"] > 2.0 and 1.0 < whole["effect"] < 2.0


def test_cells_are_not_samples():
    """Mice that differ, and nothing else: cells are nearly always sure of a difference, samples are not."""
    by_cells = by_samples = 0
    for seed in range(10):
        adata = simulate(spread=0.5, days=2, n_cells=150, seed=seed)
        x, drug, first = adata.obsm["X_pca"], adata.obs["arm"] == "drug", adata.obs["day"] == 0
        by_cells += (stats.ttest_ind(x[drug & first], x[~drug & first]).pvalue < 0.05 / 3).any()
        by_samples += wlm.tl.compare(adata, "day", "arm", sample_key="mouse").attrs["first"]["drug"] == 0
    assert by_cells >= 8 and by_samples <= 2


def test_three_against_three_cannot_be_sure_of_a_day_but_of_all_together():
    followed = wlm.tl.compare(simulate(3, shift=3), "day", "arm", sample_key="mouse")
    assert "CANNOT TELL" in followed.attrs["verdict"] and "0.1" in followed.attrs["verdict"]
    assert row(followed, "distance", 2.0)["p"] == pytest.approx(0.1)
    # Other mice every day are exchanged day by day, which gives more relabelings for the question of any difference.
    adata = simulate(3, shift=3, followed=False)
    moved = adata.obsm["X_pca"]
    moved[(adata.obs["arm"] == "drug").to_numpy(), 1] += 3
    others = wlm.tl.compare(adata, "day", "arm", sample_key="mouse", n_perm=999)
    assert row(others, "distance", None)["p_adj"] < 0.05 < row(others, "distance", 2.0)["p_adj"]
    assert "over all times together, at none of them by itself" in others.attrs["verdict"]


@pytest.mark.parametrize("n", [1, None])
def test_without_samples_there_are_effects_and_no_p_values(n):
    adata = simulate(n or 3, shift=3)
    table = wlm.tl.compare(adata, "day", "arm", sample_key="mouse" if n else None)
    assert table[["p", "p_adj", "low", "high"]].isna().all(axis=None)
    assert table.attrs["verdict"].startswith("NO P-VALUE") and np.isnan(table.attrs["first"]["drug"])
    assert row(table, "distance", 2.0)["effect"] > 1 > abs(row(table, "distance", 1.0)["effect"])


def test_smaller_samples_do_not_look_different():
    """A quarter of the cells in one condition raises the floor of W1, and nothing else."""
    adata = simulate(n_cells=120, seed=2)
    few = (adata.obs["arm"] == "drug").to_numpy() & (np.arange(adata.n_obs) % 4 > 0)
    table = wlm.tl.compare(adata[~few].copy(), "day", "arm", sample_key="mouse")
    assert np.isnan(table.attrs["first"]["drug"])
    distance = table[(table["statistic"] == "distance") & table["time"].notna()]
    assert (distance["effect"].abs() < 0.1).all()


def test_donors_that_were_split_are_compared_as_pairs():
    adata = simulate(6, seed=3)
    donor = adata.obs["mouse"].str[1:].astype(int) % 6
    adata.obsm["X_pca"][:, 0] += 5 * donor.to_numpy() + 1.0 * (adata.obs["arm"] == "drug").to_numpy()
    adata.obs["donor"] = donor.astype(str)
    unpaired = wlm.tl.compare(adata, "day", "arm", sample_key="mouse")
    paired = wlm.tl.compare(adata, "day", "arm", sample_key="mouse", batch_key="donor")
    assert row(unpaired, "mean", 1.0)["p"] > 0.3
    assert row(paired, "mean", 1.0)["p"] == pytest.approx(2 / 2**6)


def test_batches_that_are_conditions_or_days_are_named_before_anything_is_computed(shifted, caplog, monkeypatch):
    adata = shifted.copy()
    adata.obs["plate"] = "plate of " + adata.obs["arm"].astype(str)
    monkeypatch.setattr(logging.getLogger("wlm"), "propagate", True)
    monkeypatch.setattr("wlm.tl._compare.Observed.features", lambda *_: (_ for _ in ()).throw(RuntimeError("computed")))
    with pytest.raises(RuntimeError, match="computed"):
        wlm.tl.compare(adata, "day", "arm", sample_key="mouse")
    assert "CONFOUNDED" in caplog.text
    monkeypatch.undo()
    assert wlm.tl.compare(adata, "day", "arm", sample_key="mouse").attrs["verdict"].startswith("CONFOUNDED")
    table = wlm.tl.compare(adata, "day", "arm", sample_key="mouse", batch_key="plate")
    assert table["p"].isna().all() and "NO P-VALUE" in table.attrs["verdict"]
    adata.obs["plate"] = "plate of " + adata.obs["day"].astype(str)
    assert "one time only" in wlm.tl.compare(adata, "day", "arm", sample_key="mouse").attrs["notes"][0]


def test_several_conditions_are_compared_with_the_reference_and_pay_for_it(shifted):
    adata = shifted.copy()
    extra = adata[adata.obs["arm"] == "control"].copy()
    extra.obs["arm"], extra.obs["mouse"] = "sham", "s" + extra.obs["mouse"].astype(str)
    adata = ad.concat([adata, extra], index_unique="-")
    two = wlm.tl.compare(shifted, "day", "arm", sample_key="mouse")
    three = wlm.tl.compare(adata, "day", "arm", sample_key="mouse", reference="control")
    assert set(three["condition"]) == {"drug", "sham"}
    one = three[three["condition"] == "drug"].reset_index(drop=True)
    assert one["p"].to_numpy() == pytest.approx(two["p"].to_numpy(), nan_ok=True)
    assert one["p_adj"].to_numpy() == pytest.approx(np.minimum(2 * two["p_adj"], 1).to_numpy(), nan_ok=True)


def test_what_is_missing_is_said(shifted):
    gone = (shifted.obs["mouse"] == "m1") & (shifted.obs["day"] == 1)
    few = (shifted.obs["mouse"] == "m5") & (shifted.obs["day"] == 3) & (np.arange(shifted.n_obs) % 10 > 0)
    table = wlm.tl.compare(shifted[~(gone | few)].copy(), "day", "arm", sample_key="mouse")
    notes = "\n".join(table.attrs["notes"])
    assert "sample m1 (control) has no cells at 1" in notes and "m5 at 3 (4)" in notes
    assert row(table, "distance", 1.0)["n_reference"] == 3 and row(table, "distance", 3.0)["n_condition"] == 3
    alone = shifted[(shifted.obs["arm"] == "drug") | (shifted.obs["day"] != 3)].copy()
    table = wlm.tl.compare(alone, "day", "arm", sample_key="mouse")
    assert 3.0 not in set(table["time"]) and "3 (drug)" in "\n".join(table.attrs["notes"])


def test_weights_count_as_copies_do():
    adata = simulate(3, shift=1, n_cells=30)
    twice = np.arange(adata.n_obs) % 3 == 0
    adata.obs["w"] = np.where(twice, 2.0, 1.0)
    copies = ad.concat([adata, adata[twice]], index_unique="-")
    weighted = wlm.tl.compare(adata, "day", "arm", sample_key="mouse", weight_key="w", label_key="type")
    copied = wlm.tl.compare(copies, "day", "arm", sample_key="mouse", label_key="type")
    for statistic in ("mean", "composition"):
        ours, theirs = (t[t["statistic"] == statistic]["value"].to_numpy() for t in (weighted, copied))
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)


@pytest.mark.slow
def test_fits_to_samples_say_speed_and_predict():
    """Cells of the drug move three times as fast, along another line."""
    rng = np.random.default_rng(0)
    day = np.tile(np.repeat([0.0, 1, 2], 20), 6)
    mouse = np.repeat([f"m{i}" for i in range(6)], 60)
    fast = mouse >= "m3"
    x = rng.normal(0, 0.2, size=(360, 2)) + day[:, None] * np.where(fast[:, None], [0, 3.0], [1.0, 0])
    obs = pd.DataFrame({"day": day, "mouse": mouse, "arm": np.where(fast, "fast", "slow")})
    adata = ad.AnnData(obs=obs.set_index(obs.index.astype(str)), obsm={"X_pca": x.astype(np.float32)})
    table = wlm.tl.compare(
        adata, "day", "arm", sample_key="mouse", reference="slow", method="flow", path="straight", times=[1.5, 3]
    )
    speed = row(table, "speed", 0.0)
    assert speed["value"] == pytest.approx(3, rel=0.1) and speed["reference_value"] == pytest.approx(1, rel=0.1)
    kinetic = row(table, "kinetic", 0.0)
    assert kinetic["value"] == pytest.approx(4.5, rel=0.15)
    assert kinetic["reference_value"] == pytest.approx(0.5, rel=0.15) and kinetic["p"] == pytest.approx(0.1)
    # At the start, where the cells are the same, landscapes are planes that fall along (1, 0) and (0, 3).
    energy = row(table, "energy", 0.0)
    assert energy["value"] == pytest.approx(0.2 * np.sqrt(1 + 9), rel=0.3)
    assert energy["reference_value"] < 0.5 * energy["value"] and energy["p"] == pytest.approx(0.1)
    predicted = row(table, "predicted", 1.5)
    assert predicted["effect"] == pytest.approx(1.5 * np.sqrt(1 + 9), rel=0.1) and predicted["p"] == pytest.approx(0.1)
    assert "fits to each sample" not in table.attrs["verdict"], "three against three are never sure"
    with pytest.raises(ValueError, match="seen at one time only"):
        single = adata.copy()
        single.obs["mouse"] = single.obs["mouse"].astype(str) + single.obs["day"].astype(str)
        wlm.tl.compare(single, "day", "arm", sample_key="mouse", method="flow")


@pytest.fixture(scope="module")
def grown(quick):
    """A fit with growth to each of two samples a side, and the table that compares them."""
    adata = simulate(2, n_cells=15, days=2)
    options = {k: v for k, v in quick.items() if k not in ("show_progress", "backtest")} | {"method": "wlm"}
    options |= {"n_steps": 3, "growth": True}
    table = wlm.tl.compare(adata, "day", "arm", sample_key="mouse", label_key="type", rng=0, **options)
    alone = {}
    for name in ("m0", "m1", "m2", "m3"):
        alone[name] = adata[adata.obs["mouse"] == name].copy()
        wlm.tl.fit(alone[name], "day", rng=0, show_progress=False, backtest=False, **options)
    return adata, table, alone


def test_energy_and_growth_are_those_of_fits_to_each_sample(grown):
    _, table, alone = grown
    here = {name: fit[fit.obs["day"] == 1.0] for name, fit in alone.items()}
    kinetic = [0.5 * np.square(fit.obsm["wlm_velocity"]).sum(axis=1).mean() for fit in here.values()]
    found = row(table, "kinetic", 1.0)
    assert found["reference_value"] == pytest.approx(np.mean(kinetic[:2]), rel=1e-4)
    assert found["effect"] == pytest.approx(np.mean(kinetic[2:]) - np.mean(kinetic[:2]), rel=1e-3)
    for label in "AB":
        added = [(fit.obs["wlm_growth"] * (fit.obs["type"] == label)).mean() for fit in here.values()]
        found = row(table, "growth", 1.0, label)
        assert found["value"] == pytest.approx(np.mean(added[2:]), rel=1e-4, abs=1e-7)
        assert found["reference_value"] == pytest.approx(np.mean(added[:2]), rel=1e-4, abs=1e-7)
    assert {"speed", "kinetic", "energy", "growth"} <= set(table["statistic"])


def test_energies_are_compared_on_the_same_cells_whatever_their_zero(grown):
    """Distances between landscapes: of planes known from their slopes, and blind to a constant."""
    from wlm.tl._features import _landscapes

    energies = {0: np.array([-1.0, 0, 1]), 1: np.array([2.0, 5, 8]), 3: np.array([1.0, 0, -1])}
    feature = _landscapes(2.0, energies, 4)
    assert feature.distances[0, 1] == pytest.approx(2 * np.sqrt(2 / 3))
    assert feature.distances[1, 3] == pytest.approx(4 * np.sqrt(2 / 3))
    assert np.isnan(feature.distances[2]).all() and feature.present.tolist() == [True, True, False, True]
    assert feature.values is None, "energies at cells are no numbers of their own in the table"
    adata, table, alone = grown
    common = adata.obsm["X_pca"][adata.obs["day"] == 1.0]  # fewer than max_cells: all of them
    energies = [wlm._store.fit.get_fit(fit, "wlm", None).dynamics.energy(common, 1.0) for fit in alone.values()]
    apart = [np.std(energies[i] - energies[j]) for i in (0, 1) for j in (2, 3)]
    assert row(table, "energy", 1.0)["value"] == pytest.approx(np.mean(apart), rel=1e-3)


def test_without_labels_growth_is_how_unequal_rates_are():
    from wlm.tl._features import _growth

    assert _growth(np.array([1.0, 3.0]), None, [], None) == pytest.approx([1.0])
    assert _growth(np.array([1.0, 3.0]), None, [], np.array([3.0, 1.0])) == pytest.approx([np.sqrt(0.75)])
    labels = np.array(["a", "b", "b"], dtype=object)
    assert _growth(np.array([3.0, 1.0, 2.0]), labels, ["a", "b", "c"], None) == pytest.approx([1.0, 1.0, 0.0])


def test_nothing_is_changed_and_seeds_give_the_same(shifted):
    before = shifted.copy()
    one, two = (wlm.tl.compare(shifted, "day", "arm", sample_key="mouse", max_cells=20, rng=3) for _ in range(2))
    pd.testing.assert_frame_equal(one, two)
    assert shifted.obs.equals(before.obs) and list(shifted.uns) == list(before.uns)


def test_a_modality_with_columns_of_either_level(shifted):
    from mudata import MuData

    rna = shifted.copy()
    columns = rna.obs[["arm", "mouse"]].copy()
    rna.obs = rna.obs.drop(columns=["arm", "mouse"])
    mdata = MuData({"rna": rna})
    mdata.obs[["arm", "mouse"]] = columns
    arguments = {"sample_key": "mouse", "genes": ["one"]}
    pd.testing.assert_frame_equal(
        wlm.tl.compare(mdata, "day", "arm", mod="rna", **arguments), wlm.tl.compare(shifted, "day", "arm", **arguments)
    )


BAD = {
    "a condition with one time": (lambda a: a[(a.obs["arm"] == "drug") | (a.obs["day"] == 0)], {}, "have fewer"),
    "one condition": (lambda a: a[a.obs["arm"] == "drug"], {}, "one condition, 'drug'"),
    "no such reference": (lambda a: a, {"reference": "placebo"}, "'placebo' is not a condition"),
    "few cells": (lambda a: a, {"min_cells": 200}, "no sample has 200 cells"),
    "a level of nothing": (lambda a: a, {"alpha": 0.0}, "alpha must be between"),
    "too few relabelings": (lambda a: a, {"n_perm": 3}, "n_perm must be an integer of at least 19"),
    "a time before all": (lambda a: a, {"method": "flow", "times": 0}, "cannot predict 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(shifted, name):
    spoil, arguments, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        wlm.tl.compare(spoil(shifted).copy(), "day", "arm", sample_key="mouse", **arguments)


def test_samples_that_span_conditions_are_named_with_the_way_out(shifted):
    adata = shifted.copy()
    adata.obs["donor"] = (adata.obs["mouse"].str[1:].astype(int) % 4).astype(str)
    with pytest.raises(ValueError, match="span conditions") as error:
        wlm.tl.compare(adata, "day", "arm", sample_key="donor")
    code, rest = str(error.value).split("run ")[1].split(", and pass ")
    exec(code, {"adata": adata})
    table = eval(f"wlm.tl.compare(adata, 'day', 'arm', {rest})", {"adata": adata, "wlm": wlm})
    assert table["p"].notna().any()


def test_conditions_without_a_common_time_and_missing_samples(shifted):
    adata = shifted.copy()
    adata.obs["day"] += 10 * (adata.obs["arm"] == "drug")
    with pytest.raises(ValueError, match="conditions share no time"):
        wlm.tl.compare(adata, "day", "arm", sample_key="mouse")
    adata = shifted.copy()
    adata.obs.loc[adata.obs_names[:3], "mouse"] = np.nan
    with pytest.raises(ValueError, match=r"obs\['mouse'\] is missing for 3 of"):
        wlm.tl.compare(adata, "day", "arm", sample_key="mouse")
    with pytest.raises(KeyError, match="genes"):
        wlm.tl.compare(shifted, "day", "arm", sample_key="mouse", genes=["GATA1"])
    with pytest.raises(TypeError, match="genes must be a list"):
        wlm.tl.compare(shifted, "day", "arm", sample_key="mouse", genes="one")
    with pytest.raises(TypeError, match="are for fits"):
        wlm.tl.compare(shifted, "day", "arm", sample_key="mouse", times=[2])


@pytest.fixture
def blood(real_data, monkeypatch):
    monkeypatch.setenv("WLM_DATA_DIR", str(real_data))
    adata = wlm.datasets.larry_clones()
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=20)
    return adata


def pooled(blood, rng, *, shuffled):
    """Cells of clones that are of either lineage on day 6, four pools of clones each; shuffled they mean nothing."""
    clones = blood.obsm["X_clone"].tocsc()
    late = (blood.obs["day"] == 6).to_numpy()
    sides = [
        clones.T @ (late & blood.obs["cell_type"].isin(kinds).to_numpy())
        for kinds in (["Neutrophil", "Monocyte"], ["Baso", "Mast", "Meg", "Erythroid", "Eos"])
    ]
    lineage = np.sign(sides[0] - sides[1])
    told = np.flatnonzero(lineage)
    if shuffled:
        lineage[told] = rng.permutation(lineage[told])
    names = np.full(clones.shape[1], None, dtype=object)
    for name, sign in (("A", 1), ("B", -1)):
        own = rng.permutation(np.flatnonzero(lineage == sign))
        names[own] = [f"{name}{i % 4}" for i in range(len(own))]
    cell, clone = clones.nonzero()
    blood.obs["pool"] = pd.Series(names[clone], index=blood.obs_names[cell], dtype=object)
    cells = blood[blood.obs["pool"].notna() & (blood.obs["day"] > 2)].copy()
    cells.obs["group"] = cells.obs["pool"].str[0]
    return cells


@pytest.mark.shared
def test_sisters_of_cells_of_two_lineages_differ_two_days_before(blood):
    """Clones are real, and so is the difference; shuffled clones of the same cells have none but by chance."""
    options = {"sample_key": "pool", "label_key": "cell_type", "min_cells": 3}
    table = wlm.tl.compare(pooled(blood, np.random.default_rng(0), shuffled=False), "day", "group", **options)
    day4 = table.query("name == '' and time == 4")
    assert (day4[["n_condition", "n_reference"]] == 4).all(axis=None) and (day4["p_adj"] < 0.05).all()
    assert set(table.attrs["first"].values()) == {4.0}
    # The smallest p of four against four is 0.029: of six tables without a difference none or one is called.
    called = [
        wlm.tl.compare(pooled(blood, np.random.default_rng(k), shuffled=True), "day", "group", **options).attrs[
            "verdict"
        ]
        for k in range(6)
    ]
    assert sum(verdict.startswith("DIFFERENT") for verdict in called) <= 1


@pytest.mark.shared
def test_a_loss_planted_in_real_cells_is_found_on_its_day_and_nothing_without_it(real_data, monkeypatch):
    monkeypatch.setenv("WLM_DATA_DIR", str(real_data))
    cells = wlm.datasets.embryoid_body()
    rng = np.random.default_rng(0)
    cells.obs["mouse"] = [f"m{i}" for i in rng.integers(8, size=cells.n_obs)]
    cells.obs["arm"] = np.where(cells.obs["mouse"] < "m4", "control", "drug")
    # Half of the cells on the side where the last ones are die from time 3 on, in the mice of the drug.
    x = cells.obsm["X_pca"][:, 0]
    upper = x * np.sign(x[cells.obs["time"] == 4].mean()) > 0.5
    cells.obs["side"] = np.where(upper, "upper", "lower")
    dies = upper & (cells.obs["time"] >= 3) & (cells.obs["arm"] == "drug") & (rng.random(cells.n_obs) < 0.5)
    options = {"sample_key": "mouse", "label_key": "side", "max_cells": 50}
    nothing = wlm.tl.compare(cells, "time", "arm", **options)
    assert nothing.attrs["verdict"].startswith("NO DIFFERENCE FOUND") and np.isnan(nothing.attrs["first"]["drug"])
    found = wlm.tl.compare(cells[~dies.to_numpy()].copy(), "time", "arm", **options)
    assert found.attrs["first"] == {"drug": 3.0}
    assert found.query("name == 'upper' and time == 3")["effect"].item() < -0.03
