"""``tl.evaluate``: the table, the baselines against closed forms, the verdict, and refusals."""

import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import wlm
from wlm.core.metrics import w1
from wlm.tl._scores import SCORES, Population, halves, matched, verdict


def moving_clouds(n=60, times=(0.0, 1.0, 4.0), noise=0.1, seed=0):
    """A cloud that moves along x at speed 1: the answer at every time is known."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.normal(scale=noise, size=(n, 2)) + [t, 0] for t in times]).astype(np.float32)
    obs = pd.DataFrame({"day": np.repeat(times, n)}, index=[f"c{i}" for i in range(len(x))])
    return ad.AnnData(obs=obs, obsm={"X_pca": x})


@pytest.mark.slow
def test_table_of_every_time_model_and_seed(cells, quick):
    options = {k: v for k, v in quick.items() if k != "show_progress"}
    table = wlm.tl.evaluate(cells, "day", seeds=2, metrics=("w1", "w2", "mmd"), **options)
    assert list(table.columns) == ["time", "model", "seed", "n_observed", "n_predicted", "w1", "w2", "mmd"]
    counts = table.groupby(["time", "model"]).size().unstack()
    assert counts.index.tolist() == [1, 2, 3] and (counts["wlm"] == 2).all()
    assert set(counts.columns) == {"wlm", "previous", "next", "pooled", "ot_midpoint", "spline", "floor"}
    assert (table.loc[table["model"] == "wlm", "n_predicted"] == 60).all()
    assert (table.loc[table["model"] == "floor", "n_observed"] == 30).all()
    assert (table["w2"] >= table["w1"] - 1e-9).all()
    fits = table[table["model"] == "wlm"]
    assert fits.groupby("time")["w1"].nunique().eq(2).all(), "two seeds must give two results"
    lines = table.attrs["verdict"].splitlines()
    assert table.attrs["time"] == "day"
    assert len(lines) == 3 and lines[0].endswith("; 3 held-out time(s), 2 seed(s)")
    for metric, line in zip(("w1", "w2", "mmd"), lines, strict=True):
        assert re.match(
            r"(BETTER THAN|WORSE THAN|NO DIFFERENCE FROM) \w+ \([+-].* %.*\): interpolation, wlm, mean ", line
        )
        assert f"mean {metric} {fits[metric].mean():.4g} +- " in line


def test_baselines_have_the_right_fraction_of_time(quick):
    adata = moving_clouds()
    table = wlm.tl.evaluate(adata, "day", metrics=("w1",), **{k: v for k, v in quick.items() if k != "show_progress"})
    score = table.set_index("model")["w1"]
    x, day = adata.obsm["X_pca"], adata.obs["day"].to_numpy()
    assert score["previous"] == pytest.approx(w1(x[day == 0], x[day == 1]))
    assert score["next"] == pytest.approx(3, abs=0.1)
    # A quarter of the way from 0 to 4: the midpoint would be off by one.
    assert score["ot_midpoint"] < 0.1 and score["floor"] < 0.1
    # Three quarters of the mixture stay where they were, one unit away, and a quarter is three units ahead.
    assert score["pooled"] == pytest.approx(0.75 * 1 + 0.25 * 3, abs=0.1)
    assert "spline" not in score, "through two times it is the straight line"


def test_at_equal_numbers_of_cells_a_perfect_prediction_has_the_score_of_the_floor():
    rng = np.random.default_rng(0)
    cloud = [Population(rng.normal(size=(n, 2))) for n in (200, 400, 90)]
    far = Population(cloud[1].x + [5, 0])
    populations = {(1.0, "right", 0): cloud[1], (1.0, "right", 1): cloud[1], (1.0, "off", 0): far}
    rows = {row["model"]: row for row in matched(populations, {1.0: cloud[0]}, "w1", seed=0)}
    assert [row["n"] for row in rows.values()] == [100, 100], "half of the observed cells"
    assert rows["right"]["floor"] == rows["off"]["floor"] == pytest.approx(SCORES["w1"](*halves(cloud[0], 0)))
    assert rows["right"]["score"] == pytest.approx(rows["right"]["floor"], rel=0.25)
    assert w1(cloud[1].x, cloud[0].x) < 0.8 * rows["right"]["floor"], "more cells score lower"
    assert rows["off"]["score"] == pytest.approx(5, rel=0.05)
    few = matched({**populations, (1.0, "few", 0): cloud[2]}, {1.0: cloud[0]}, "w1", seed=0)
    assert {row["n"] for row in few} == {90}, "no more than the smallest prediction has"


def test_the_spline_goes_through_all_other_times(quick):
    """A cloud that moves as a parabola: a spline through the other times is nearer to it than a line."""
    adata = moving_clouds(times=(0.0, 1.0, 2.0, 3.0, 4.0))
    adata.obsm["X_pca"][:, 1] += adata.obs["day"].to_numpy() ** 2
    options = {k: v for k, v in quick.items() if k != "show_progress"}
    table = wlm.tl.evaluate(adata, "day", holdout=[2], metrics=("w1",), **options)
    score = table.set_index("model")["w1"]
    # The line through (1, 1) and (3, 9) is 1 above the parabola, the natural spline through all four 1/8 below it.
    assert score["ot_midpoint"] == pytest.approx(1, abs=0.1) and score["spline"] < 0.5
    assert score["pooled"] > 4


def test_verdict_follows_the_numbers(quick):
    """An untrained model on an easy interpolation ties or loses, and the output says so."""
    options = {**quick, "n_steps": 1, "lr": 1e-9, "friction": 0}
    options.pop("show_progress")
    table = wlm.tl.evaluate(moving_clouds(), "day", holdout=[4], metrics=("w1",), **options)
    mean = table.groupby("model")["w1"].mean()
    assert "ot_midpoint" not in mean and "next" not in mean, "nothing follows the last time"
    assert mean["wlm"] == pytest.approx(mean["previous"], rel=0.05)
    row = next(r for r in table.attrs["differences"] if r["baseline"] == "previous")
    word = "BETTER THAN" if row["high"] < 0 else "WORSE THAN" if row["low"] > 0 else "NO DIFFERENCE FROM"
    change, low, high = (100 * row[k] / mean["previous"] for k in ("difference", "low", "high"))
    start = f"{word} previous ({change:+.1f} %, 95 % {low:+.1f} to {high:+.1f}): forecast, wlm, mean w1 "
    assert table.attrs["verdict"].startswith(start)


@pytest.mark.parametrize(
    ("difference", "interval", "words"),
    [
        (-0.5, (-0.7, -0.2), "BETTER THAN spline (-25.0 %, 95 % -35.0 to -10.0)"),
        (0.5, (0.2, 0.7), "WORSE THAN spline (+25.0 %, 95 % +10.0 to +35.0)"),
        (-0.5, (-0.7, 0.2), "NO DIFFERENCE FROM spline (-25.0 %, 95 % -35.0 to +10.0)"),
        (-0.5, None, "BETTER THAN spline (-25.0 %)"),
        (0.0, None, "NO DIFFERENCE FROM spline (+0.0 %)"),
    ],
)
def test_the_verdict_leads_with_the_result(difference, interval, words):
    rows = [("wlm", 2 + difference, 0.8), ("spline", 2.0, 1.0), ("previous", 3.0, 0.5), ("floor", 1.0, 0.95)]
    table = pd.DataFrame([{"time": 1.0, "model": m, "seed": 0, "w1": s, "coverage": c} for m, s, c in rows])
    row = {"model": "wlm", "baseline": "spline", "kind": "interpolation", "metric": "w1", "difference": difference}
    row |= {} if interval is None else dict(zip(("low", "high"), interval, strict=True))
    text = verdict(table, [row], {"interpolation": [1.0]}, ["wlm"], ["w1", "coverage"])
    first, second = text.splitlines()
    assert first == (
        f"{words}: interpolation, wlm, mean w1 {2 + difference:.4g} against 2, floor 1; 1 held-out time(s), 1 seed(s)"
    )
    assert second == "coverage of 95 %: interpolation, wlm, mean 80.0%"  # of which less is not better


@pytest.mark.slow
def test_jobs_give_the_same_numbers_as_one(cells, quick):
    options = {k: v for k, v in quick.items() if k != "show_progress"} | {
        "metrics": ("w1",),
        "holdout": [2],
        "seeds": 2,
    }
    one, two = (wlm.tl.evaluate(cells, "day", n_jobs=n, **options) for n in (1, 2))
    pd.testing.assert_frame_equal(one, two)


def test_weights_enter_scores_and_baselines(cells, quick):
    cells.obs["w"] = np.where(cells.obs["day"] == 2, np.random.default_rng(0).uniform(0.1, 5, cells.n_obs), 1.0)
    options = {k: v for k, v in quick.items() if k != "show_progress"}
    table = wlm.tl.evaluate(cells, "day", holdout=2, weight_key="w", metrics=("w1",), **options).set_index("model")
    x, day, w = cells.obsm["X_pca"], cells.obs["day"].to_numpy(), cells.obs["w"].to_numpy()
    expected = w1(x[day == 1], x[day == 2], None, w[day == 2])
    assert table.loc["previous", "w1"] == pytest.approx(expected)
    assert table.loc["previous", "w1"] != pytest.approx(w1(x[day == 1], x[day == 2]), rel=1e-3)


def test_object_is_not_changed(cells, quick):
    before = cells.obs.copy(), sorted(cells.obsm), sorted(cells.uns)
    wlm.tl.evaluate(
        cells, "day", holdout=1, metrics=("mmd",), **{k: v for k, v in quick.items() if k != "show_progress"}
    )
    assert cells.obs.equals(before[0]) and (sorted(cells.obsm), sorted(cells.uns)) == before[1:]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"metrics": ("w3",)}, ValueError, "metrics must be among"),
        ({"metrics": ()}, ValueError, "metrics must be among"),
        ({"seeds": 0}, ValueError, "seeds must be an integer of at least 1"),
        ({"method": "ot"}, ValueError, "does not exist"),
        ({"holdout": 0}, ValueError, "first time, 0, cannot be held out"),
        ({"holdout": 9}, ValueError, "was not observed"),
        ({"holdout": None}, ValueError, "must name times or be 'each'"),
        ({"learning_rate": 1}, TypeError, "unknown option"),
        ({"time_key": "age"}, KeyError, "is missing"),
        ({"device": "abacus"}, ValueError, "cannot be used"),
    ],
    ids=str,
)
def test_impossible_calls_fail_before_any_fit(cells, call, error, message, monkeypatch):
    monkeypatch.setattr("wlm.tl._folds.Fold.fit", None)
    with pytest.raises(error, match=message):
        wlm.tl.evaluate(cells, **{"time_key": "day", **call})


def test_two_times_cannot_be_evaluated(cells):
    two = cells[cells.obs["day"].isin([0, 4])].copy()
    with pytest.raises(ValueError, match="at least three times"):
        wlm.tl.evaluate(two, "day")


def options_of(quick, **more):
    return {**{k: v for k, v in quick.items() if k != "show_progress"}, **more}


@pytest.mark.slow
def test_interpolations_and_forecasts_are_judged_apart(cells, quick):
    table = wlm.tl.evaluate(cells, "day", holdout="all", metrics=("w1",), n_boot=20, **options_of(quick))
    assert sorted(table["time"].unique()) == [1, 2, 3, 4]
    rows = pd.DataFrame(table.attrs["differences"])
    assert set(rows["kind"]) == {"interpolation", "forecast"}
    assert set(rows.loc[rows["kind"] == "forecast", "baseline"]) == {"previous"}
    assert rows.loc[rows["kind"] == "interpolation", "n_times"].eq(3).all()
    mean = table[table["time"] < 4].groupby("model")["w1"].mean()
    row = rows[(rows["kind"] == "interpolation") & (rows["baseline"] == "ot_midpoint")].iloc[0]
    assert row["difference"] == pytest.approx(mean["wlm"] - mean["ot_midpoint"])
    assert (rows["low"] < rows["difference"]).all() and (rows["difference"] < rows["high"]).all()
    lines = table.attrs["verdict"].splitlines()
    assert [line.split(": ")[1].split(",")[0] for line in lines] == ["interpolation", "forecast"]


@pytest.mark.slow
@pytest.mark.parametrize(("n_observed", "n_predicted"), [(200, 200), (600, 100), (100, 600), (1500, 1500)])
def test_intervals_are_as_wide_as_the_differences_of_other_samples_vary(n_observed, n_predicted):
    from scipy.stats import wasserstein_distance

    from wlm.tl._scores import differences

    def sorted_w1(x, y):  # exact in one dimension, and fast
        return wasserstein_distance(x[:, 0], y[:, 0])

    rng = np.random.default_rng(0)
    found, wide, kinds = [], [], {"interpolation": [1.0]}
    for k in range(30):
        y = rng.normal(size=(n_observed, 1))
        a, b = (rng.normal(size=(n_predicted, 1)) + shift for shift in (0.5, 0.8))
        populations = {(1.0, "wlm", 0): Population(a), (1.0, "next", 0): Population(b)}
        table = pd.DataFrame(
            {"time": 1.0, "model": ["wlm", "next"], "seed": 0, "w1": [sorted_w1(z, y) for z in (a, b)]}
        )
        (row,) = differences(table, populations, {1.0: Population(y)}, kinds, ["wlm"], "w1", 40 if k < 6 else 0)
        found.append(row["difference"])
        if k < 6:
            wide.append(row["high"] - row["low"])
    # A 95 % interval is 3.9 standard deviations wide; that of 30 differences is known to about 13 %.
    assert 2.6 < np.mean(wide) / np.std(found, ddof=1) < 5.6


def test_models_are_scored_on_the_same_cells(cells, quick):
    call = options_of(quick, metrics=("w1",), holdout=2, max_cells=20, n_boot=20)
    table = wlm.tl.evaluate(cells, "day", **call).set_index("model")
    x, day = cells.obsm["X_pca"], cells.obs["day"].to_numpy()
    some = np.random.default_rng(0).permutation(60)[:20]
    assert table.loc["previous", "w1"] == pytest.approx(w1(x[day == 1][some], x[day == 2][some]))
    assert table.loc["previous", "n_observed"] == 20


def test_coverage_energy_and_composition_of_known_populations():
    adata = moving_clouds(n=100, times=(0.0, 1.0, 2.0))
    adata.obs["type"] = np.where(np.arange(adata.n_obs) % 4 == 0, "rare", "common")
    adata.obsm["X_pca"][adata.obs["type"] == "rare"] += [0, 5]
    metrics = ("energy", "coverage", "composition")
    small = {"n_steps": 2, "width": 8, "heads": 2, "hidden": 8, "n_inducing": 2}
    table = wlm.tl.evaluate(adata, "day", metrics=metrics, label_key="type", **small).set_index("model")
    assert table.loc["previous", "composition"] == 0 and table.loc["ot_midpoint", "composition"] == 0
    assert table.loc["previous", "energy"] > 5 * table.loc["floor", "energy"]
    # All of the one dimension is outside, and 95 % of the other inside.
    assert table.loc["previous", "coverage"] == pytest.approx(0.475, abs=0.03)
    assert table.loc["ot_midpoint", "coverage"] == pytest.approx(0.95, abs=0.05)
    adata.obs.loc[adata.obs["day"] == 1, "type"] = "rare"
    table = wlm.tl.evaluate(adata, "day", metrics=("composition",), label_key="type", n_boot=0, **small)
    assert table.set_index("model").loc["previous", "composition"] == pytest.approx(0.75)


@pytest.mark.slow
def test_an_interrupted_evaluation_goes_on_from_its_folds(cells, quick, tmp_path, monkeypatch):
    call = options_of(quick, metrics=("w1",), holdout=[1, 3], seeds=2, n_boot=0, n_models=2) | {"n_steps": 2}
    expected = wlm.tl.evaluate(cells, "day", **call)
    plain, fits = wlm.tl._folds.Fold.fit, []

    def counted(*arguments, **options):
        if len(fits) == 3:
            raise KeyboardInterrupt
        fits.append(arguments)
        return plain(*arguments, **options)

    monkeypatch.setattr("wlm.tl._folds.Fold.fit", counted)
    with pytest.raises(KeyboardInterrupt):
        wlm.tl.evaluate(cells, "day", cache=tmp_path / "folds", **call)
    assert len(list((tmp_path / "folds").iterdir())) == 3
    fits.clear()
    table = wlm.tl.evaluate(cells, "day", cache=tmp_path / "folds", **call)
    assert len(fits) == 1, "only the missing one"
    pd.testing.assert_frame_equal(table, expected)
    # Whatever could change a prediction makes it another fit.
    cells.obsm["X_pca"][0] += 0.1
    wlm.tl.evaluate(cells, "day", cache=tmp_path / "folds", **{**call, "holdout": 1})
    assert len(fits) == 3


@pytest.mark.slow
def test_folds_are_spread_over_the_workers_of_a_cluster_and_the_cells_sent_once(cells, quick, monkeypatch):
    import joblib
    from distributed import Client, LocalCluster

    sent, scatter = [], Client.scatter
    monkeypatch.setattr(Client, "scatter", lambda self, data, **k: sent.append(data) or scatter(self, data, **k))
    call = options_of(quick, metrics=("w1",), holdout=[1, 2])
    expected = wlm.tl.evaluate(cells, "day", **call)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        with joblib.parallel_config(backend="dask"):
            table = wlm.tl.evaluate(cells, "day", **call)
            assert [len(part.x) for part in sent if hasattr(part, "training")] == [300], "two folds share all the cells"
            models = wlm.tl.fit(cells, "day", n_models=2, copy=True, **quick)
            assert len([part for part in sent if hasattr(part, "training")]) == 2, "and two models those of a fit"
        workers = client.run(lambda: "wlm" in __import__("sys").modules)
    assert len(workers) == 2 and all(workers.values()), "both workers have worked"
    np.testing.assert_allclose(table["w1"], expected["w1"], rtol=1e-3)
    assert np.isfinite(models.obs["wlm_spread"][models.obs["day"] < 4]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"metrics": ("composition",)}, "need each other"),
        ({"label_key": "fate"}, "need each other"),
        ({"metrics": ("coverage",)}, "put a distance first"),
        ({"n_boot": -1}, "n_boot must be an integer of at least 0"),
        ({"n_boot": 1}, "n_boot must be 0 or at least 20"),
        ({"n_models": 0}, "n_models must be an integer of at least 1"),
    ],
    ids=str,
)
def test_metrics_that_do_not_go_together_are_refused(cells, call, message, monkeypatch):
    monkeypatch.setattr("wlm.tl._folds.Fold.fit", None)
    with pytest.raises(ValueError, match=message):
        wlm.tl.evaluate(cells, "day", **call)
