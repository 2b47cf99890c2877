"""The command line: the same numbers as Python, exit codes and messages for pipelines, and never half a file."""

import json
import os
import shlex
import subprocess
import sys

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from command_line import failed, run

import wlm

SHORT = {"n_steps": 5, "width": 16}
OPTIONS = [f"--option={name}={value}" for name, value in SHORT.items()]


@pytest.fixture
def source(cells, tmp_path):
    cells.write_h5ad(tmp_path / "in.h5ad")
    return tmp_path / "in.h5ad"


@pytest.fixture
def out(tmp_path):
    """A file to write to, in a folder of its own."""
    (tmp_path / "results").mkdir()
    return tmp_path / "results" / "out.h5ad"


@pytest.fixture
def fitted_file(fitted, tmp_path):
    fitted.write_h5ad(tmp_path / "fitted.h5ad")
    return tmp_path / "fitted.h5ad"


# The whole path


@pytest.mark.slow
def test_fit_predict_and_evaluate_are_those_of_python(cells, source, tmp_path):
    fitted, predicted, table = tmp_path / "fitted.h5ad", tmp_path / "predicted.h5ad", tmp_path / "table.csv"
    result = run("fit", source, "--time-key", "day", "-o", fitted, "--holdout", 2, "--n-dims", 4, "--seed", 3, *OPTIONS)
    assert result.exit_code == 0 and result.stdout == "", result.output
    wlm.tl.fit(cells, "day", holdout=2, n_dims=4, rng=3, show_progress=False, **SHORT)
    theirs = ad.read_h5ad(fitted)
    for key in ("wlm_velocity", "wlm_force", "wlm_next"):
        assert np.array_equal(theirs.obsm[key], cells.obsm[key], equal_nan=True)
    assert np.allclose(theirs.X.toarray() if hasattr(theirs.X, "toarray") else theirs.X, cells.to_df())

    result = run("predict", fitted, "2", "2.5", "-o", predicted, "--n-cells", 7, "--genes", "--seed", 1)
    assert result.exit_code == 0 and result.stdout == "", result.output
    ours = wlm.tl.predict(cells, [2, 2.5], n_cells=7, genes=True, rng=1)
    theirs = ad.read_h5ad(predicted)
    assert np.array_equal(theirs.obsm["X_pca"], ours.obsm["X_pca"]) and np.allclose(theirs.X, ours.X)
    assert theirs.obs["day"].tolist() == [2.0] * 7 + [2.5] * 7

    result = run("evaluate", source, "--time-key", "day", "-o", table, "--metric", "w1", "--holdout", 2, *OPTIONS)
    assert result.exit_code == 0, result.output
    ours = wlm.tl.evaluate(cells, "day", holdout=[2], metrics=["w1"], **SHORT)
    pd.testing.assert_frame_equal(pd.read_csv(table), ours, check_dtype=False)
    assert result.stdout.split()[:6] == list(ours.columns)
    assert result.stdout.endswith("\n" + ours.attrs["verdict"] + "\n")


@pytest.mark.slow
def test_labels_zarr_and_tables_in_json(cells, tmp_path):
    cells.obs["stage"] = cells.obs["day"].map(lambda t: f"E{8 + t / 2:g}").astype("category")
    cells.write_zarr(tmp_path / "in.zarr")
    source, fitted = tmp_path / "in.zarr", tmp_path / "fitted.zarr"
    result = run("fit", source, "--time-key", "stage", "-o", fitted, "--holdout", "E8.5", "--holdout", "E9", *OPTIONS)
    assert result.exit_code == 0, result.output
    assert ad.read_zarr(fitted).uns["wlm"]["time"]["holdout"].tolist() == [8.5, 9]
    result = run("predict", fitted, "E9.25", "-o", tmp_path / "p.h5ad", "--from-time", "E8", "--quiet")
    assert result.exit_code == 0 and result.output == "", result.output
    assert set(ad.read_h5ad(tmp_path / "p.h5ad").obs["from_time"]) == {8.0}
    arguments = ["--time-key", "stage", "--holdout", "E9", "--metric", "w1", "-o", tmp_path / "t.json"]
    result = run("evaluate", source, *arguments, "--no-baselines", *OPTIONS)
    assert result.exit_code == 0, result.output
    kept = json.loads((tmp_path / "t.json").read_text())
    assert [r["time"] for r in kept["rows"]] == [9] and kept["verdict"] == ""


def test_an_existing_out_is_replaced_only_by_force(source, fitted_file, tmp_path):
    for name in ("p.h5ad", "p.zarr"):
        out = tmp_path / name
        assert run("predict", fitted_file, 1, "-o", out).exit_code == 0
        assert failed(run("predict", fitted_file, 2, "-o", out), 2, "--force")
        read = ad.read_h5ad if name.endswith("h5ad") else ad.read_zarr
        assert set(read(out).obs["day"]) == {1.0}
        assert run("predict", fitted_file, 2, "-o", out, "--force").exit_code == 0
        assert set(read(out).obs["day"]) == {2.0}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fitted.h5ad", "in.h5ad", "p.h5ad", "p.zarr"]


def test_fates_are_those_of_python(fitted, fitted_file, out):
    result = run("fates", fitted_file, "-o", out, "--n-states", 2, "--seed", 1, "--json")
    assert result.exit_code == 0, result.output
    table = wlm.tl.terminal_states(fitted, n_states=2, rng=1)
    wlm.tl.fates(fitted, rng=1)
    theirs = ad.read_h5ad(out)
    assert np.array_equal(theirs.obsm["wlm_fates"], fitted.obsm["wlm_fates"])
    printed = json.loads(result.stdout)
    assert [row["state"] for row in printed["states"]] == table["state"].tolist()
    note = fitted.uns["wlm_fates"]
    assert [row["observed"] for row in printed["fates"]] == note["observed"].tolist()
    assert printed["states"][0]["stay_sd"] is None and printed["missed"] == note["missed"]
    result = run("fates", fitted_file, "--n-states", 2, "--at", 4)
    assert result.exit_code == 0 and "state 1: observed" in result.stdout and "balanced transport" in result.stdout
    assert failed(run("fates", fitted_file, "--label-key", "type"), 2, "obs['type'] is missing")
    assert failed(run("fates", fitted_file, "--n-states", 1), 2, "one terminal state")


# Errors

FAULTS = {
    "no file": (["fit", "nowhere.h5ad", "--time-key", "day"], "there is no 'nowhere.h5ad'"),
    "not an object": (["fit", "SOURCE.csv", "--time-key", "day"], "IN must end in .h5ad or .zarr"),
    "broken": (["fit", "BROKEN", "--time-key", "day"], "BROKEN"),
    "other hdf5": (["fit", "OTHER", "--time-key", "day"], "OTHER"),
    "time key": (["fit", "IN", "--time-key", "age"], "obs['age'] is missing"),
    "representation": (["fit", "IN", "--time-key", "day", "--use-rep", "X_scvi"], "obsm['X_scvi'] is missing"),
    "velocity": (["fit", "IN", "--time-key", "day", "--velocity-key", "velo"], "neither in obsm"),
    "holdout": (["fit", "IN", "--time-key", "day", "--holdout", "17"], "holdout time 17 was not observed"),
    "label": (["fit", "IN", "--time-key", "day", "--holdout", "soon"], "cannot read these times"),
    "method": (["fit", "IN", "--time-key", "day", "--method", "magic"], "method 'magic' does not exist"),
    "option": (["fit", "IN", "--time-key", "day", "--option", "steps=3"], "unknown option(s) ['steps']"),
    "argument": (["fit", "IN", "--time-key", "day", "--option", "n_dims=3"], "unknown option(s) ['n_dims']"),
    "form": (["fit", "IN", "--time-key", "day", "--option", "n_steps"], "NAME=VALUE"),
    "value": (["fit", "IN", "--time-key", "day", "--option", "n_steps=many"], "n_steps must be an integer"),
    "device": (["fit", "IN", "--time-key", "day", "--device", "abacus"], "device 'abacus' cannot be used"),
    "no fit": (["predict", "IN", "2"], "uns['wlm']"),
    "too early": (["predict", "FITTED", "-o", "OUT", "--", "-1"], "cannot predict -1"),
    "no time": (["predict", "FITTED", "late"], "cannot read these times"),
    "n_cells": (["predict", "FITTED", "2", "--n-cells", "0"], "n_cells must be an integer of at least 1"),
    "metric": (["evaluate", "IN", "--time-key", "day", "--metric", "w3"], "metrics must be among"),
    "fate": (["drivers", "FITTED", "--fate", "end"], "neither a stored fate"),
    "clones": (["evaluate-clones", "FITTED"], "clone_key 'X_clone' is neither"),
    "gene": (["gene-trends", "FITTED", "gene999"], "not in var_names"),
    "cost": (["plan", "FITTED", "--cost", "much"], "--cost wants a number, or JSON"),
    "label alone": (["drivers", "FITTED", "--label", "A"], "pass the column too"),
    "seeds": (["evaluate", "IN", "--time-key", "day", "--seeds", "0"], "seeds must be an integer"),
}


@pytest.mark.parametrize(("arguments", "words"), FAULTS.values(), ids=FAULTS.keys())
def test_unusable_input_is_one_line_and_code_2(arguments, words, source, fitted_file, out, tmp_path):
    (tmp_path / "broken.h5ad").write_bytes(b"no such thing")
    with h5py.File(tmp_path / "other.h5ad", "w") as file:
        file["a"] = [1, 2]
    if arguments[0] in ("evaluate", "evaluate-clones", "drivers", "gene-trends", "plan"):
        out = out.with_suffix(".csv")
    files = {"IN": source, "FITTED": fitted_file, "OUT": out}
    files |= {"BROKEN": tmp_path / "broken.h5ad", "OTHER": tmp_path / "other.h5ad"}
    words = str(files.get(words, words))
    arguments = [str(files.get(a, a)) for a in arguments]
    result = run(*arguments, *([] if "-o" in arguments else ["-o", out]))
    assert failed(result, 2, words)
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("fault", ["folder", "suffix", "readonly", "kind"])
def test_an_out_that_cannot_be_is_refused_before_the_fit(fault, source, out, monkeypatch):
    monkeypatch.setattr(wlm.tl, "fit", lambda *_, **__: pytest.fail("the fit has begun"))
    if fault == "folder":
        out, words = out.parent / "none" / "out.h5ad", "does not exist"
    elif fault == "suffix":
        out, words = out.with_suffix(".h5"), "OUT must end in .h5ad or .zarr"
    elif fault == "kind":
        out.mkdir()
        words = "is a folder"
    else:
        monkeypatch.setattr(os, "access", lambda path, _: path != out.parent)
        words = "cannot be written to"
    assert failed(run("fit", source, "--time-key", "day", "-o", out, "--force"), 2, words)


def test_usage_is_code_2_and_help_and_version_are_0(source, out):
    for arguments in (
        [],
        ["fit"],
        ["fit", source],
        ["fut"],
        ["fit", source, "--time-key", "day", "-o", out, "--steps"],
    ):
        result = run(*arguments)
        assert result.exit_code == 2 and "Traceback" not in result.output, arguments
        assert "Usage: " in result.output
    assert run("--version").stdout == f"wlm {wlm.__version__}\n"
    names = ["fit", "predict", "fates", "evaluate", "evaluate-clones", "drivers", "gene-trends", "compare", "doctor"]
    names += ["plan", "info", "plot", "report", "diagnose", "velocity"]
    for arguments in (["--help"], *([name, "-h"] for name in names)):
        result = run(*arguments)
        assert result.exit_code == 0 and result.stdout.startswith("Usage: ")
    assert "Exit codes" in run("--help").stdout


def test_scores_on_clones_are_those_of_python(fitted, fitted_file, tmp_path):
    fitted.obs["clone"] = [f"clone {i % 60 // 6}" for i in range(fitted.n_obs)]
    fitted.write_h5ad(fitted_file)
    ask = ["evaluate-clones", fitted_file, "--clone-key", "clone", "--label-key", "fate", "--start", 1, "--n-boot", 10]
    result = run(*ask, "-o", tmp_path / "clones.csv")
    assert result.exit_code == 0, result.stderr
    ours = wlm.tl.evaluate_clones(fitted, clone_key="clone", label_key="fate", start=1, n_boot=10)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "clones.csv"), ours, check_dtype=False)
    assert ours.attrs["verdict"] in result.stdout
    printed = run(*ask, "--label", "A", "--label", "B", "--json").stdout
    assert "NaN" not in printed and "null" in printed  # JSON has no NaN: bins of the curves that are empty
    found = json.loads(printed)
    assert found["labels"] == ["A", "B"] and found["rows"][0]["model"] == "wlm"


def test_trends_of_genes_are_those_of_python(fitted, fitted_file, tmp_path):
    ask = ["gene-trends", fitted_file, "gene002", "gene005", "--groupby", "fate", "--time", 5]
    result = run(*ask, "-o", tmp_path / "trends.csv")
    assert result.exit_code == 0, result.stderr
    ours = wlm.tl.gene_trends(fitted, ["gene002", "gene005"], groupby="fate", times=[5])
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "trends.csv"), ours)
    assert len(json.loads(run(*ask, "--json").stdout)["rows"]) == len(ours) and "forecast" in result.stdout


def test_predictions_get_labels_and_a_place_and_observed_cells(fitted_file, tmp_path):
    out = tmp_path / "both.h5ad"
    ask = ["predict", fitted_file, 2.5, "--label-key", "fate", "--basis", "latent", "--gene", "gene003", "--append"]
    result = run(*ask, "-o", out)
    assert result.exit_code == 0, result.stderr
    both = ad.read_h5ad(out)
    assert both.obs["fate"].notna().all() and both.obsm["latent"].shape == (both.n_obs, 2)
    assert both.obs["wlm_predicted"].sum() == 60 and list(both.var_names) == ["gene003"]


def test_drivers_are_those_of_python(fitted, fitted_file, tmp_path):
    table, names = tmp_path / "drivers.csv", tmp_path / "factors.txt"
    names.write_text("gene001\ngene002\n")
    ask = ["drivers", fitted_file, "--fate", "fate", "--label", "A", "--n-perm", 20, "--n-boot", 20]
    result = run(*ask, "--transcription-factors", names, "-o", table)
    assert result.exit_code == 0, result.stderr
    ours = wlm.tl.drivers(fitted, ("fate", "A"), n_perm=20, n_boot=20, transcription_factors=["gene001", "gene002"])
    pd.testing.assert_frame_equal(pd.read_csv(table, index_col="gene", keep_default_na=False), ours, check_dtype=False)
    assert ours.attrs["verdict"] in result.stdout and str(ours.index[0]) in result.stdout
    found = json.loads(run(*ask, "--time", 1, "--json").stdout)
    assert found["times"] == [1, 4] and len(found["genes"]) == len(ours)
    assert {"gene", "effect", "q", "decode_r2"} <= set(found["genes"][0])


@pytest.mark.slow
def test_divergence_is_code_3(source, out):
    arguments = ["--option=n_steps=50", "--option=lr=1e30", "--option=width=16"]
    assert failed(run("fit", source, "--time-key", "day", "-o", out, *arguments), 3, "smaller learning rate")
    assert list(out.parent.iterdir()) == []


def test_interruption_is_code_130(source, out, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(wlm.tl, "fit", interrupt)
    assert failed(run("fit", source, "--time-key", "day", "-o", out), 130, "interrupted")
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_a_failed_write_leaves_what_was_there(kind, fitted_file, out, monkeypatch):
    out = out.with_suffix(f".{kind}")
    assert run("predict", fitted_file, 1, "-o", out).exit_code == 0
    write = getattr(ad.AnnData, f"write_{kind}")

    def half(self, path, **arguments):
        write(self, path, **arguments)
        raise OSError("no space left on device")

    monkeypatch.setattr(ad.AnnData, f"write_{kind}", half)
    assert failed(run("predict", fitted_file, 2, "-o", out, "--force"), 2, "no space left")
    assert [p.name for p in out.parent.iterdir()] == [out.name]
    assert set((ad.read_h5ad if kind == "h5ad" else ad.read_zarr)(out).obs["day"]) == {1.0}


def test_debug_shows_the_traceback_and_bugs_keep_theirs(source, out, monkeypatch):
    result = run("fit", source, "--time-key", "age", "-o", out, "--debug")
    assert result.exit_code == 2 and "Traceback" in result.stderr and "wlm: error: obs['age']" in result.stderr

    def bug(*_, **__):
        raise RuntimeError("a bug")

    monkeypatch.setattr(wlm.tl, "fit", bug)
    result = run("fit", source, "--time-key", "day", "-o", out)
    assert result.exit_code == 1 and isinstance(result.exception, RuntimeError)


def test_option_values(monkeypatch):
    from wlm.cli.arguments import read_options

    read = read_options(["a=1", "b=0.5", "c=true", "d=null", "e=zero", "f=x=y"])
    assert read == {"a": 1, "b": 0.5, "c": True, "d": None, "e": "zero", "f": "x=y"}


# Doctor


@pytest.mark.slow
def test_doctor_prints_the_report_and_a_command_that_parses(source, cells):
    result = run("doctor", source, "--n-dims", 3)
    assert result.exit_code == 0, result.output
    report = wlm.pp.doctor(cells, n_dims=3)
    assert all(check in result.stdout for check in report["check"]) and report.attrs["call"] in result.stdout
    command = shlex.split(result.stdout.splitlines()[-1])
    out = source.with_name("in_fitted.h5ad")
    assert command == ["wlm", "fit", str(source), "-o", str(out), "--time-key", "day", "--n-dims", "3"]
    assert run(*command[1:], *OPTIONS).exit_code == 0 and out.exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_doctor_sees_in_a_file_what_it_sees_in_memory(cells, tmp_path, kind):
    cells.layers["velocity"] = np.random.default_rng(0).normal(size=cells.shape)
    cells.obsm["table"] = pd.DataFrame({"a": np.arange(cells.n_obs)}, index=cells.obs_names)
    path = tmp_path / f"in.{kind}"
    cells.write_h5ad(path) if kind == "h5ad" else cells.write_zarr(path)
    result = run("doctor", path, "--json", "--velocity-key", "velocity")
    assert result.exit_code == 0, result.output
    read = json.loads(result.stdout)
    ours = wlm.pp.doctor(cells, velocity_key="velocity")
    assert read["errors"] == 0 and read["call"] == ours.attrs["call"]
    for theirs, mine in zip(read["checks"], ours.to_dict("records"), strict=True):
        assert theirs == mine or mine["check"] == "run time"


def test_doctor_exits_with_1_for_errors_and_2_for_no_object(source, cells, tmp_path):
    del cells.obsm["X_pca"]
    cells.write_h5ad(source)
    result = run("doctor", source)
    assert result.exit_code == 1 and "sc.pp.pca(adata)" in result.stdout and "not checked: " in result.stdout
    assert "After mending the errors:" in result.stdout
    result = run("doctor", source, "--json", "--time-key", "nix")
    assert result.exit_code == 1 and json.loads(result.stdout)["errors"] == 2
    assert json.loads(result.stdout)["command"] == ""
    with h5py.File(tmp_path / "other.h5ad", "w") as file:
        file["a"] = [1, 2]
    assert failed(run("doctor", tmp_path / "other.h5ad"), 2, "holds no AnnData")
    assert failed(run("doctor", tmp_path / "none.zarr"), 2, "there is no")


# As a process


def process(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "wlm", *map(str, arguments)], capture_output=True, text=True, check=False, **options
    )


@pytest.mark.slow
def test_a_process_keeps_standard_output_clean(source, out):
    done = process("fit", source, "--time-key", "day", "-o", out, *OPTIONS)
    assert done.returncode == 0 and done.stdout == "" and out.exists(), done.stderr
    assert "wlm: fitted" in done.stderr and f"wlm: wrote {out}" in done.stderr
    failure = process("predict", out, "0", "-o", out.with_name("none.h5ad"))
    assert failure.returncode == 2 and failure.stdout == "" and "Traceback" not in failure.stderr
    assert failure.stderr.splitlines()[-1].startswith("wlm: error: cannot predict 0")
    assert [p.name for p in out.parent.iterdir()] == [out.name]


def test_help_does_not_wait_for_torch():
    code = "import sys; from wlm.cli import app; app(['--help'], standalone_mode=False); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not any(f"'{name}'" in done.stdout for name in ("torch", "anndata", "pandas", "numpy"))


@pytest.mark.shared
def test_doctor_of_real_cells(real_data):
    result = run("doctor", real_data / "dentate_50.h5ad")
    print(result.stdout)
    assert result.exit_code == 0 and "wlm.tl.fit(adata, 'age(days)')" in result.stdout
    result = run("doctor", real_data / "reprogramming_250.h5ad")
    print(result.stdout)
    assert result.exit_code == 1 and "sc.pp.pca(adata)" in result.stdout


def test_clones_reach_the_fit(source, out):
    call = ["fit", source, "--time-key", "day", "-o", out, "--no-backtest", *OPTIONS]
    assert failed(run(*call, "--clone-key", "absent"), 2, "neither a column of obs")
    result = run(*call, "--clone-key", "fate")
    assert result.exit_code == 0, result.stderr
    assert ad.read_h5ad(out).uns["wlm"]["params"]["clone_key"] == "fate"


def test_one_condition_of_several_is_named_by_an_option(cells, tmp_path):
    cells.obs["arm"] = ["drug", "none"] * (cells.n_obs // 2)
    wlm.tl.fit(cells, "day", condition_key="arm", show_progress=False, backtest=False, **SHORT)
    fitted, out = tmp_path / "fitted.h5ad", tmp_path / "predicted.h5ad"
    cells.write_h5ad(fitted)
    result = run("predict", fitted, "2.5", "-o", out, "--condition", "drug", "--n-cells", 5)
    assert result.exit_code == 0, result.output
    ours = wlm.tl.predict(cells, 2.5, condition="drug", n_cells=5)
    theirs = ad.read_h5ad(out)
    assert np.array_equal(theirs.obsm["X_pca"], ours.obsm["X_pca"]) and set(theirs.obs["arm"]) == {"drug"}
    failed(run("predict", fitted, "2.5", "-o", tmp_path / "no.h5ad", "--condition", "pill"), 2, "pill")


@pytest.mark.slow
def test_velocities_conditions_and_missing_times_reach_the_fit(cells, tmp_path, out):
    cells.layers["velocity"] = cells.layers["true_velocity"]
    cells.obs["treatment"] = pd.Categorical(np.where(np.arange(cells.n_obs) % 2, "drug", "none"))
    cells.obs.loc[cells.obs_names[5], "day"] = np.nan
    cells.write_h5ad(tmp_path / "in.h5ad")
    command = ["fit", tmp_path / "in.h5ad", "--time-key", "day", "-o", out, "--velocity-key", "auto", *OPTIONS]
    assert failed(run(*command), 2, "is missing for 1 of 300 cells")
    command += ["--nan", "drop", "--condition-key", "treatment"]
    assert failed(run(*command, "--velocity-scale", "fast"), 2, "velocity_scale must be a positive number")
    assert run(*command, "--velocity-scale", "0.5").exit_code == 0
    wlm.tl.fit(
        cells, "day", velocity_key="velocity", velocity_scale=0.5, condition_key="treatment", nan="drop", **SHORT
    )
    theirs = ad.read_h5ad(out)
    assert np.array_equal(theirs.obsm["wlm_velocity"], cells.obsm["wlm_velocity"], equal_nan=True)
    assert theirs.uns["wlm_drug"]["velocity"]["scale"] == 0.5


@pytest.mark.slow
@pytest.mark.scvelo
@pytest.mark.shared
def test_raw_counts_to_a_rollout(real_data, tmp_path):
    names = ["velocity", "fitted", "predicted"]
    cells, fitted, predicted = (tmp_path / f"{name}.h5ad" for name in names)
    raw = real_data / "dentate_50_raw.h5ad"
    result = run("velocity", raw, "-o", cells, "--n-neighbors", 15, "--bins", 3)
    assert result.exit_code == 0 and result.stdout == "", result.output
    report = run("doctor", cells, "--time-key", "velocity_pseudotime_bin", "--velocity-key", "auto")
    assert report.exit_code == 0 and "velocity_pseudotime_bin" in report.stdout, report.output
    result = run(
        *("fit", cells, "--time-key", "velocity_pseudotime_bin", "--velocity-key", "auto", "--n-dims", 10),
        *("-o", fitted, *OPTIONS),
    )
    assert result.exit_code == 0, result.output
    assert run("predict", fitted, "0.5", "0.7", "1.0", "-o", predicted, "--genes").exit_code == 0
    found = ad.read_h5ad(predicted)
    assert sorted(set(found.obs["velocity_pseudotime_bin"])) == [0.5, 0.7, 1.0]
    assert np.isfinite(found.obsm["X_pca"]).all() and found.n_vars == ad.read_h5ad(cells).n_vars
    # The scale from scVelo's unit of time to pseudotime, and what is known of it, went along.
    assert ad.read_h5ad(fitted).uns["wlm"]["velocity"]["scale"] > 0


def test_velocities_need_counts(source, out):
    adata = ad.read_h5ad(source)
    del adata.layers["unspliced"]
    adata.write_h5ad(source)
    assert failed(run("velocity", source, "-o", out), 2, "layers ['unspliced'] are missing")
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "elsewhere"),
    [
        # An object, the modality of a MuData (of which the command reads none), and what Python alone can hold.
        ("fit", {"adata", "mod", "rng", "show_progress", "copy", "method_options"}),
        ("evaluate", {"adata", "mod", "rng", "show_progress", "metrics", "method_options"}),
        ("predict", {"adata", "mod", "rng"}),
        ("drivers", {"adata", "mod", "rng"}),
        ("gene_trends", {"adata", "mod", "rng"}),
        ("diagnose", {"adata", "mod", "rng", "show_progress"}),
        ("evaluate_clones", {"adata", "mod", "rng"}),
        ("compare", {"adata", "mod", "rng", "show_progress", "genes", "times", "method_options"}),
        ("plan", {"adata", "mod", "rng"}),
    ],
)
def test_every_argument_of_python_has_an_option_with_the_same_default(name, elsewhere):
    import inspect

    python = inspect.signature(getattr(wlm.tl, name)).parameters
    command = inspect.signature(getattr(wlm.cli.commands, name)).parameters
    for argument in set(python) - elsewhere:
        assert argument in command, argument
        default = command[argument].default
        if argument not in ("time_key", "times", "condition_key") and (name, argument) != ("gene_trends", "genes"):
            assert default in (python[argument].default, None), argument


def test_compare_is_that_of_python(cells, tmp_path):
    rng = np.random.default_rng(0)
    cells.obs["mouse"] = rng.choice([f"m{i}" for i in range(6)], cells.n_obs)
    cells.obs["arm"] = np.where(cells.obs["mouse"] < "m3", "control", "drug")
    cells.write_h5ad(tmp_path / "in.h5ad")
    table = tmp_path / "table.csv"
    keys = ["--time-key", "day", "--condition-key", "arm", "--sample-key", "mouse", "--min-cells", 5]
    result = run("compare", tmp_path / "in.h5ad", *keys, "-o", table, "--gene", cells.var_names[0])
    assert result.exit_code == 0, result.stderr
    ours = wlm.tl.compare(cells, "day", "arm", sample_key="mouse", min_cells=5, genes=[cells.var_names[0]])
    pd.testing.assert_frame_equal(pd.read_csv(table, keep_default_na=True).fillna({"name": ""}), ours)
    assert ours.attrs["verdict"] in result.stdout
    printed = json.loads(run("compare", tmp_path / "in.h5ad", *keys, "--json").stdout)
    assert (
        len(printed["rows"]) == len(ours) - (ours["statistic"] == "genes").sum() and "CANNOT TELL" in printed["verdict"]
    )


@pytest.mark.slow
def test_ensembles_checkpoints_and_folds(source, out, tmp_path):
    small = [*OPTIONS, "--n-models", "2"]
    assert (
        run("fit", source, "--time-key", "day", "-o", out, "--checkpoint", tmp_path / "fit.npz", *small).exit_code == 0
    )
    adata = ad.read_h5ad(out)
    assert len(adata.uns["wlm"]["ensemble"]["models"]) == 1 and not list(tmp_path.glob("*.npz"))
    table = tmp_path / "scores.csv"
    folds = ["--cache", tmp_path / "folds", "--holdout", "all", "--metric", "energy", "--metric", "composition"]
    result = run("evaluate", source, "--time-key", "day", "-o", table, *folds, "--label-key", "fate", *small)
    assert result.exit_code == 0, result.stderr
    found = pd.read_csv(table)
    assert {"energy", "composition"} <= set(found) and set(found["time"]) == {1, 2, 3, 4}
    assert len(list((tmp_path / "folds").iterdir())) == 4 and ": forecast, wlm, mean energy" in result.stdout


def test_plan_is_that_of_python(fitted, fitted_file, tmp_path):
    table = tmp_path / "plan.csv"
    ask = ["plan", fitted_file, "--n-courses", 12, "--cost", '{"day": 50, "cell": 0.5}', "--candidate", "0.5"]
    result = run(*ask, "--candidate", "1.5", "-o", table)
    assert result.exit_code == 0, result.stderr
    ours = wlm.tl.plan(fitted, n_courses=12, cost={"day": 50, "cell": 0.5}, candidates=[0.5, 1.5])
    pd.testing.assert_frame_equal(pd.read_csv(table), ours)
    assert ours.attrs["verdict"] in result.stdout
    printed = json.loads(run(*ask, "--candidate", "1.5", "--json").stdout)
    assert printed["rows"] == ours.to_dict("records") and printed["open"]["gain"][0] is None
