"""``wlm info``, ``wlm plot`` and ``wlm report``: what Python says, in words, in pictures and in one file."""

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from command_line import failed, run
from PIL import Image

import wlm


@pytest.fixture
def fitted_file(fitted, tmp_path):
    fitted.write_h5ad(tmp_path / "fitted.h5ad")
    return tmp_path / "fitted.h5ad"


# info


def test_info_says_what_the_fit_is(fitted, fitted_file):
    wlm.tl.terminal_states(fitted, n_states=2)
    fitted.write_h5ad(fitted_file)
    result = run("info", fitted_file)
    assert result.exit_code == 0, result.output
    uns = fitted.uns["wlm"]
    for words in (
        "wlm: method 'wlm', one model of 15 steps, seed 0",
        "obs['day']: 0, 1, 3 and 4; held out: 2",
        "300 cells in 5 dimensions of obsm['X_pca'], no velocities",
        f"friction: {uns['friction']:.3g} per time unit",
        uns["choice"]["words"],
        "also stored: terminal states",
    ):
        assert words in result.stdout, words
    found = json.loads(run("info", fitted_file, "--json").stdout)["fits"]
    assert [one["key"] for one in found] == ["wlm"]
    one = found[0]
    assert one["training"] == [0, 1, 3, 4] and one["held_out"] == [2] and one["cells"] == 300
    assert one["constants"][0]["value"] == pytest.approx(uns["friction"]) and one["error"] is None
    training = uns["training_times"]
    assert one["meets_training_times"] == bool((training["w1"] <= 3 * training["floor"]).all())
    assert one["results"] == ["terminal"] and one["steps"] == 15


def test_info_of_several_fits_of_none_and_of_a_damaged_one(cells, quick, tmp_path):
    cells.write_h5ad(tmp_path / "in.h5ad")
    result = run("info", tmp_path / "in.h5ad")
    assert result.exit_code == 0 and "holds no fit; wlm doctor" in result.stdout
    assert json.loads(run("info", tmp_path / "in.h5ad", "--json").stdout) == {"fits": []}
    cells.obs["arm"] = pd.Categorical(np.where(np.arange(cells.n_obs) % 2, "drug", "none"))
    wlm.tl.fit(cells, "day", condition_key="arm", **{**quick, "n_steps": 1})
    wlm.tl.fit(cells, "day", key_added="bare", store_model=False, **{**quick, "n_steps": 1})
    cells.write_zarr(tmp_path / "in.zarr")
    found = {one["key"]: one for one in json.loads(run("info", tmp_path / "in.zarr", "--json").stdout)["fits"]}
    assert set(found) == {"wlm", "wlm_drug", "wlm_none", "bare"}
    assert found["wlm"]["conditions"] == {"drug": "wlm_drug", "none": "wlm_none"}
    assert found["wlm_drug"]["condition"] == "drug" and found["wlm_drug"]["cells"] == 150
    assert "without its model" in found["bare"]["error"] and found["bare"]["training"] == [0, 1, 2, 3, 4]
    text = run("info", tmp_path / "in.zarr").stdout
    assert "drug (--key wlm_drug)" in text and "not usable: " in text
    cells.uns["wlm_drug"]["friction"] = 17.0
    cells.write_h5ad(tmp_path / "in.h5ad")
    text = run("info", tmp_path / "in.h5ad").stdout
    assert "wlm_drug" in text and "is damaged" in text


def test_info_of_no_object_is_refused(tmp_path):
    assert failed(run("info", tmp_path / "none.h5ad"), 2, "there is no")
    assert failed(run("info", tmp_path / "none.csv"), 2, "IN must end in")


# plot


def test_plots_by_name(fitted, fitted_file, tmp_path, monkeypatch):
    asked = {}

    def spy(name):
        draw = getattr(wlm.pl, name)

        def drawn(*arguments, **options):
            asked[name] = options
            return draw(*arguments, **options)

        drawn.__signature__ = __import__("inspect").signature(draw)
        monkeypatch.setattr(wlm.pl, name, drawn)

    spy("rollout")
    out = tmp_path / "rollout.png"
    result = run(
        "plot", fitted_file, "rollout", "-o", out, "--color", "fate", "--time", 2, "--option=n_paths=5", "--dpi", 40
    )
    assert result.exit_code == 0, result.output
    given = {name: value for name, value in asked["rollout"].items() if name not in ("show", "return_fig")}
    assert given == {"color": "fate", "times": ["2"], "n_paths": 5}
    with Image.open(out) as image:
        assert image.width > 200 and np.asarray(image).std() > 5
        size = image.size
    also = run("plot", fitted_file, "rollout", "-o", out, "--force", "--color", "fate", "--time", 2, "--option=dpi=40")
    assert also.exit_code == 0, also.output
    with Image.open(out) as image:
        assert image.size == size, "by either name"
    for more, words in ((["--dpi", 40], "dpi is given twice"), ([], "--dpi must be a number of at least 20")):
        one = run("plot", fitted_file, "rollout", "-o", out, "--force", *more, "--option=dpi=4")
        assert one.exit_code == 2 and words in one.stderr, one.output
    for kind, options, name in (
        ("training", [], "t.svg"),
        ("composition", ["--groupby", "fate"], "c.pdf"),
        ("genes", ["--gene", "gene001", "--gene", "gene002"], "g.png"),
        ("animate", ["--option=n_frames=3", "--option=max_cells=20"], "a.gif"),
    ):
        result = run("plot", fitted_file, kind, "-o", tmp_path / name, *options)
        assert result.exit_code == 0, result.output
        assert (tmp_path / name).stat().st_size > 1000


def test_plots_of_tables(tmp_path):
    rows = [
        {"time": t, "model": m, "seed": 0, "n_observed": 9, "n_predicted": 9, "w1": w}
        for t in (1.0, 2.0)
        for m, w in (("wlm", 1.0), ("previous", 2.0), ("floor", 0.5))
    ]
    (tmp_path / "scores.json").write_text(json.dumps({"rows": rows, "verdict": "", "time": "day"}))
    pd.DataFrame(rows).to_csv(tmp_path / "scores.csv", index=False)
    for name in ("scores.json", "scores.csv"):
        result = run("plot", tmp_path / name, "evaluation", "-o", tmp_path / "e.png", "--force")
        assert result.exit_code == 0, result.output


FAULTS = {
    "kind": (["sankey"], "there is no plot 'sankey'; plots are animate"),
    "argument": (["training", "--color", "fate"], "training takes no color; it takes key, condition, mod"),
    "wanted": (["fates"], "fates wants --groupby"),
    "genes": (["genes"], "genes wants --gene"),
    "option": (["rollout", "--option", "n_path=3"], "rollout takes no n_path"),
    "one time": (["fates", "--groupby", "fate", "--time", "1", "--time", "2"], "fates draws one --time, found 2"),
    "column": (["rollout", "--color", "age"], "color 'age' is missing"),
    "film": (["animate"], "OUT must end in .gif or .mp4"),
}


@pytest.mark.parametrize(("arguments", "words"), FAULTS.values(), ids=FAULTS.keys())
def test_what_cannot_be_drawn_is_one_line(arguments, words, fitted_file, tmp_path):
    assert failed(run("plot", fitted_file, *arguments, "-o", tmp_path / "p.png"), 2, words)
    assert [p.name for p in tmp_path.iterdir()] == ["fitted.h5ad"]


# report


@pytest.mark.slow
def test_the_report_is_that_of_python(fitted, fitted_file, tmp_path):
    out = tmp_path / "report.html"
    ask = ["report", fitted_file, "-o", out, "--label-key", "fate", "--gene", "gene003", "--title", "Mine", "--seed", 3]
    result = run(*ask, "--json")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["path"] == str(out) and printed["megabytes"] == pytest.approx(out.stat().st_size / 1e6, abs=1e-3)
    left = {s["name"]: s["left_out"] for s in printed["sections"]}
    assert left["genes"] is None and "conserves cells" in left["growth"] and printed["dropped_tables"] == []
    ours = wlm.report(
        ad.read_h5ad(fitted_file),
        tmp_path / "ours.html",
        label_key="fate",
        genes=["gene003"],
        title="Mine",
        rng=3,
        show_progress=False,
    )
    assert out.read_text() == ours.read_text()
    assert failed(run(*ask), 2, "--force")


def test_a_report_of_no_fit_says_what_to_run(cells, tmp_path):
    cells.write_h5ad(tmp_path / "in.h5ad")
    out = tmp_path / "report.html"
    assert failed(run("report", tmp_path / "in.h5ad", "-o", out), 2, "run wlm.tl.fit(adata, time_key")
    assert failed(run("report", tmp_path / "in.h5ad", "-o", tmp_path / "report.txt"), 2, "OUT must end in .html")
    assert not out.exists()


def test_every_argument_of_the_report_has_an_option():
    import inspect

    python = inspect.signature(wlm.report).parameters
    command = inspect.signature(wlm.cli.commands.report).parameters
    elsewhere = {"adata_or_path": "source", "path": "output", "genes": "gene", "rng": "seed", "mod": None}
    for name in set(python) - {"show_progress"}:
        there = elsewhere.get(name, name)
        assert there is None or there in command, name


# diagnose


@pytest.mark.slow
def test_the_diagnosis_is_that_of_python(fitted, fitted_file, tmp_path):
    out = tmp_path / "diagnosed.h5ad"
    result = run("diagnose", fitted_file, "-o", out)
    assert result.exit_code == 0, result.output
    table = wlm.tl.diagnose(fitted)
    assert table.attrs["verdict"] in result.stdout
    assert ad.read_h5ad(out).uns["wlm_diagnosis"]["inertia"] == fitted.uns["wlm_diagnosis"]["inertia"]
    printed = json.loads(run("diagnose", fitted_file, "--json").stdout)
    values = {row["quantity"]: row["value"] for row in printed["rows"]}
    assert values["friction"] == pytest.approx(table.loc["friction", "value"]) and values["friction_sd"] is None
    assert "composition" not in printed
    changes = json.loads(run("diagnose", fitted_file, "--label-key", "fate", "--json").stdout)["composition"]
    for one in changes:
        assert one["growth"] + one["motion"] == pytest.approx(one["change"], abs=1e-6)
    assert failed(run("diagnose", fitted_file, "--seeds", 0), 2, "seeds must be an integer of at least 1")


# options of methods


def test_options_with_names_of_their_own(cells, tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(wlm.tl, "fit", lambda *_, **options: asked.update(options))
    cells.write_h5ad(tmp_path / "in.h5ad")
    ask = ["fit", tmp_path / "in.h5ad", "--time-key", "day", "-o", tmp_path / "out.h5ad"]
    result = run(*ask, "--n-steps", 7, "--lr", 0.01, "--batch-size", 32, "--option", "width=16")
    assert result.exit_code == 0, result.output
    assert {k: asked[k] for k in ("n_steps", "lr", "batch_size", "width")} == {
        "n_steps": 7,
        "lr": 0.01,
        "batch_size": 32,
        "width": 16,
    }
    assert failed(run(*ask, "--n-steps", 7, "--option", "n_steps=8", "--force"), 2, "n_steps is given twice")
    assert failed(run(*ask, "--n-steps", 0, "--force"), 2, "n_steps must be at least 1")
