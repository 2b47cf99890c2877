"""Objects with faults, drawn at random: a fit or a clear error, nothing else, and the object as it was."""

import inspect
import os
import tempfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles import Drawn
from scipy import sparse

import wlm
from wlm.pp import _checks, _doctor

EXAMPLES = int(os.environ.get("WLM_EXAMPLES", "220"))
#: What the public functions raise, with a message of theirs.
CLEAR = (KeyError, ValueError, TypeError)


def _put(adata, column, values):
    adata.obs[column] = values


def _each(n, values):
    return np.resize(np.array(values, dtype=object), n)


def _labels(adata, names, rng):
    """Labels of the days, with the usual ones where none is given; one in ten of another kind."""
    days = pd.to_numeric(adata.obs["day"], "coerce").fillna(0)
    odd = rng.random(adata.n_obs) < 0.1
    return [f"day {d:g}" if other else names.get(int(d), f"D{d:g}") for d, other in zip(days, odd, strict=True)]


#: Faults of an object; each takes the AnnData, a generator, and the call that will be made.
FAULTS = {
    "no time": lambda a, r, c: a.obs.drop(columns="day", inplace=True),
    "times as text": lambda a, r, c: _put(a, "day", [f"day {t:g}" for t in a.obs["day"]]),
    "times as categories": lambda a, r, c: _put(a, "day", pd.Categorical(a.obs["day"].astype(str))),
    "times that are words": lambda a, r, c: _put(a, "day", _each(a.n_obs, ["early", "late"])),
    "times of two units": lambda a, r, c: _put(a, "day", _each(a.n_obs, ["1h", "2d"])),
    "times that are booleans": lambda a, r, c: _put(a, "day", np.arange(a.n_obs) % 2 == 0),
    "some times missing": lambda a, r, c: _put(a, "day", np.where(r.random(a.n_obs) < 0.1, np.nan, 1.0)),
    "infinite time": lambda a, r, c: _put(a, "day", np.where(r.random(a.n_obs) < 0.1, np.inf, a.obs["day"])),
    "one time": lambda a, r, c: _put(a, "day", 1.0),
    "a time with one cell": lambda a, r, c: _put(a, "day", [9.0, *a.obs["day"][1:]]),
    "every cell its time": lambda a, r, c: _put(a, "day", np.arange(a.n_obs) / 7),
    "huge times": lambda a, r, c: _put(a, "day", a.obs["day"] * 1e300),
    "tiny times": lambda a, r, c: _put(a, "day", a.obs["day"] * 1e-300),
    # As other tools leave them: see tests/test_cases.py.
    "a day before": lambda a, r, c: _put(a, "day", _labels(a, {0: "D-1", 1: "D0", 2: "D1"}, r)),
    "days before": lambda a, r, c: _put(a, "day", _labels(a, {0: "D-14", 1: "D0", 2: "D7"}, r)),
    "hyphens": lambda a, r, c: _put(a, "day", _labels(a, {0: "day-0", 1: "day-1"}, r)),
    "NA of R": lambda a, r, c: _put(
        a, "day", np.where(r.random(a.n_obs) < 0.1, np.iinfo("i4").min, np.arange(a.n_obs) % 3)
    ),
    "nullable times": lambda a, r, c: _put(
        a, "day", pd.array(np.where(r.random(a.n_obs) < 0.1, None, np.arange(a.n_obs) % 3), dtype="Int64")
    ),
    "a code for missing": lambda a, r, c: _put(a, "day", np.where(r.random(a.n_obs) < 0.1, -999.0, a.obs["day"])),
    "dates as numbers": lambda a, r, c: _put(a, "day", 20210301 + np.arange(a.n_obs) % 5),
    "dates": lambda a, r, c: _put(a, "day", pd.Timestamp("2021-03-01") + pd.to_timedelta(np.arange(a.n_obs) % 5, "D")),
    "last bits": lambda a, r, c: _put(
        a, "day", pd.to_numeric(a.obs["day"], "coerce") + np.where(r.random(a.n_obs) < 0.5, 0.1 + 0.2, 0.3)
    ),
    "single precision in part": lambda a, r, c: _put(
        a, "day", np.where(r.random(a.n_obs) < 0.5, a.obs["day"] / 3, (a.obs["day"] / 3).astype(np.float32))
    ),
    "logarithms of times": lambda a, r, c: _put(a, "day", np.log(np.arange(a.n_obs) % 3 + 1e-300).clip(-np.inf)),
    "the time of an old prediction": lambda a, r, c: c.__setitem__("weight_key", "from_time"),
    "its own result": lambda a, r, c: (_put(a, "wlm_spread", 1.0), c.update(weight_key="wlm_spread")),
    "columns twice": lambda a, r, c: setattr(a, "obs", pd.concat([a.obs, a.obs[["fate"]]], axis=1)),
    "times twice": lambda a, r, c: setattr(a, "obs", pd.concat([a.obs, a.obs[["day"]]], axis=1)),
    "names of two levels": lambda a, r, c: setattr(
        a, "obs_names", pd.MultiIndex.from_arrays([np.arange(a.n_obs) % 2, a.obs_names])
    ),
    "genes of two levels": lambda a, r, c: setattr(
        a, "var_names", pd.MultiIndex.from_arrays([np.arange(a.n_vars) % 2, a.var_names])
    ),
    "names that are numbers": lambda a, r, c: setattr(a.obs, "index", range(a.n_obs)),
    "genes that are numbers": lambda a, r, c: setattr(a.var, "index", range(a.n_vars)),
    "most cells at one place": lambda a, r, c: a.obsm["X_pca"].__setitem__(r.random(a.n_obs) < 0.9, 0.0),
    "clones": lambda a, r, c: a.obsm.__setitem__("X_pca", r.random((a.n_obs, 5)) < 0.02),
    "complex coordinates": lambda a, r, c: a.obsm.__setitem__("X_pca", a.obsm["X_pca"] + 1j),
    "a table with gaps": lambda a, r, c: a.obsm.__setitem__(
        "X_pca",
        pd.DataFrame(np.asarray(a.obsm["X_pca"]), index=a.obs_names)
        .add_prefix("PC")
        .astype("Float64")
        .mask(lambda t: t > 2),
    ),
    "a sparse array": lambda a, r, c: a.obsm.__setitem__("X_pca", sparse.csr_array(np.asarray(a.obsm["X_pca"]))),
    "names of scanpy 2": lambda a, r, c: (
        a.obsm.__setitem__("pca", a.obsm.pop("X_pca")),
        a.varm.__setitem__("pca", a.varm.pop("PCs")),
    ),
    "a picture": lambda a, r, c: (a.obsm.__setitem__("X_umap", a.obsm["X_pca"][:, :2]), c.update(use_rep="X_umap")),
    "a mask as text": lambda a, r, c: (
        a.var.__setitem__("velocity_genes", _each(a.n_vars, ["True", "False", None])),
        c.update(velocity_key="true_velocity"),
    ),
    "a mask of words": lambda a, r, c: (
        a.var.__setitem__("velocity_genes", _each(a.n_vars, ["yes", "no"])),
        c.update(velocity_key="true_velocity"),
    ),
    "velocity and loadings of another PCA": lambda a, r, c: (
        a.varm.__setitem__("PCs", a.varm["PCs"] * [1, -1, -1, 1, -1]),
        c.update(velocity_key="true_velocity"),
    ),
    "logarithms of another base": lambda a, r, c: (
        a.uns.__setitem__("log1p", {"base": 2}),
        c.update(velocity_key="true_velocity"),
    ),
    "counts in X": lambda a, r, c: (
        setattr(a, "X", a.layers["spliced"].copy()),
        c.update(velocity_key="true_velocity"),
    ),
    "no X": lambda a, r, c: (setattr(a, "X", None), c.update(velocity_key="true_velocity")),
    "velocities of a former PCA": lambda a, r, c: (
        wlm.pp.project_velocity(a, vkey="true_velocity"),
        a.obsm.__setitem__("X_pca", a.obsm["X_pca"] * [1, -1, 1, -1, 1]),
        c.update(velocity_key="auto"),
    ),
    "a genotype with a slash": lambda a, r, c: (
        _put(a, "genotype", _each(a.n_obs, ["WT", "RunX1/2Ko"])),
        c.update(condition_key="genotype"),
    ),
    "no representation": lambda a, r, c: a.obsm.pop("X_pca"),
    "NaN coordinates": lambda a, r, c: a.obsm["X_pca"].__setitem__((3, 0), np.nan),
    "infinite coordinates": lambda a, r, c: a.obsm["X_pca"].__setitem__((3, 0), np.inf),
    "huge coordinates": lambda a, r, c: a.obsm.__setitem__("X_pca", a.obsm["X_pca"] * 1e30),
    "tiny coordinates": lambda a, r, c: a.obsm.__setitem__("X_pca", a.obsm["X_pca"] * 1e-30),
    "the same coordinates": lambda a, r, c: a.obsm.__setitem__("X_pca", np.ones_like(a.obsm["X_pca"])),
    "one coordinate the same": lambda a, r, c: a.obsm["X_pca"].__setitem__((slice(None), 1), 5.0),
    "no dimension": lambda a, r, c: a.obsm.__setitem__("X_pca", np.empty((a.n_obs, 0))),
    "coordinates as a table": lambda a, r, c: a.obsm.__setitem__(
        "X_pca", pd.DataFrame(np.asarray(a.obsm["X_pca"]), index=a.obs_names).add_prefix("PC")
    ),
    "sparse coordinates": lambda a, r, c: a.obsm.__setitem__("X_pca", sparse.csr_matrix(a.obsm["X_pca"])),
    "whole numbers": lambda a, r, c: a.obsm.__setitem__("X_pca", np.round(a.obsm["X_pca"]).astype(int)),
    "text coordinates": lambda a, r, c: a.obsm.__setitem__(
        "X_pca", pd.DataFrame({"a": ["x"] * a.n_obs}, index=a.obs_names)
    ),
    "names twice": lambda a, r, c: setattr(a, "obs_names", ["cell"] * a.n_obs),
    "genes twice": lambda a, r, c: setattr(a, "var_names", ["gene"] * a.n_vars),
    "no loadings": lambda a, r, c: a.varm.pop("PCs"),
    "loadings of another PCA": lambda a, r, c: a.varm.__setitem__("PCs", r.normal(size=(a.n_vars, 5))),
    "NaN loadings": lambda a, r, c: a.varm["PCs"].__setitem__((2, 0), np.nan),
    "X with NaN": lambda a, r, c: a.X.data.__setitem__(0, np.nan),
    "too many dimensions asked for": lambda a, r, c: c.__setitem__("n_dims", 99),
    "a dimension that is text": lambda a, r, c: c.__setitem__("n_dims", "3"),
    "velocity that is not there": lambda a, r, c: c.__setitem__("velocity_key", "nix"),
    "velocity of a layer": lambda a, r, c: c.__setitem__("velocity_key", "true_velocity"),
    "velocity with NaN": lambda a, r, c: (
        a.layers.__setitem__("v", np.where(r.random(a.shape) < 0.3, np.nan, r.normal(size=a.shape))),
        c.update(velocity_key="v"),
    ),
    "no velocity at all": lambda a, r, c: (
        a.layers.__setitem__("v", np.full(a.shape, np.nan)),
        c.update(velocity_key="v"),
    ),
    "velocity of zero": lambda a, r, c: (a.obsm.__setitem__("v", np.zeros((a.n_obs, 5))), c.update(velocity_key="v")),
    "velocity that is narrow": lambda a, r, c: (
        a.obsm.__setitem__("v", np.ones((a.n_obs, 1))),
        c.update(velocity_key="v"),
    ),
    "velocity to be found": lambda a, r, c: c.__setitem__("velocity_key", "auto"),
    "a scale without velocity": lambda a, r, c: c.__setitem__("velocity_scale", 2.0),
    "weights of zero": lambda a, r, c: (_put(a, "w", 0.0), c.update(weight_key="w")),
    "weights that are text": lambda a, r, c: (_put(a, "w", "heavy"), c.update(weight_key="w")),
    "very different weights": lambda a, r, c: (
        _put(a, "w", 10.0 ** r.uniform(-4, 4, a.n_obs)),
        c.update(weight_key="w"),
    ),
    "all held out": lambda a, r, c: c.__setitem__("holdout", [0, 1, 2, 3, 4]),
    "hold out what is not there": lambda a, r, c: c.__setitem__("holdout", 2.5),
    "hold out text": lambda a, r, c: c.__setitem__("holdout", "later"),
    "missing times dropped": lambda a, r, c: c.__setitem__("nan", "drop"),
    "conditions": lambda a, r, c: (
        _put(a, "treatment", pd.Categorical(_each(a.n_obs, ["drug", "none"]))),
        c.update(condition_key="treatment"),
    ),
    "conditions confounded with time": lambda a, r, c: (
        _put(a, "treatment", pd.Categorical([f"t{x}" for x in a.obs.get("day", np.zeros(a.n_obs))])),
        c.update(condition_key="treatment"),
    ),
    "a modality": lambda a, r, c: c.__setitem__("mod", "rna"),
    "a key with a slash": lambda a, r, c: c.__setitem__("key_added", "a/b"),
    "a key that is taken": lambda a, r, c: a.uns.__setitem__("wlm", {"mine": 1}),
    "an option that does not exist": lambda a, r, c: c.__setitem__("n_step", 5),
    "a method that does not exist": lambda a, r, c: c.__setitem__("method", "magic"),
    "a device that does not exist": lambda a, r, c: c.__setitem__("device", "abacus"),
}


def _held(adata, slot):
    """The arrays of a slot, also where anndata does not read them because a table has other names."""
    try:
        return getattr(adata, slot)
    except ValueError:
        return getattr(adata, f"_{slot}")


def state(adata):
    """Everything an object holds, to compare."""
    frames = {"obs": adata.obs.to_csv(), "var": adata.var.to_csv(), "uns": repr(sorted(adata.uns))}
    arrays = {
        "X": adata.X,
        **{f"{slot}/{k}": v for slot in ("obsm", "varm", "layers") for k, v in _held(adata, slot).items()},
    }
    dense = {k: v.toarray() if hasattr(v, "toarray") else np.asarray(v) for k, v in arrays.items()}
    return frames, {k: (v.dtype, v.shape, v.tobytes() if v.dtype != object else str(v)) for k, v in dense.items()}


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(sorted(FAULTS)), min_size=1, max_size=3, unique=True), st.data())
def test_a_malformed_object_gives_a_fit_or_a_clear_error(_malformed_base, faults, data):
    adata, rng = _malformed_base.copy(), Drawn(data)
    call = {
        "n_steps": 2,
        "batch_size": 16,
        "width": 8,
        "hidden": 8,
        "n_inducing": 2,
        "show_progress": False,
    }
    for fault in faults:
        try:
            FAULTS[fault](adata, rng, call)
        except (KeyError, AttributeError, IndexError, TypeError, ValueError, pd.errors.InvalidIndexError):
            continue  # one fault has removed what another would change
    before, could_be_saved = state(adata), _saved(adata)
    try:
        wlm.tl.fit(adata, "day", **call)
    except CLEAR as error:
        text = str(error.args[0])
        # Ours: a sentence that names what was found, not an index, a shape mismatch or a torch message.
        assert len(text) > 20 and _is_ours(error), f"{faults}: {type(error).__name__}: {text}"
        assert state(adata) == before, f"{faults}: the object was changed"
    else:
        potential = adata.obs["wlm_potential"].to_numpy()
        kept = np.isfinite(potential)
        assert kept.any() and np.isfinite(adata.obsm["wlm_force"][kept]).all(), faults
        assert _saved(adata) or not could_be_saved, f"{faults}: the object cannot be saved any more"


@pytest.mark.slow
@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_doctor_finds_an_error_where_a_fit_refuses_and_only_there(_malformed_base, fault, monkeypatch):
    monkeypatch.setattr(_doctor, "check_run_time", lambda *_: _checks.Finding("ok", "a second"))

    def spoiled():
        adata, call = _malformed_base.copy(), {}
        FAULTS[fault](adata, np.random.default_rng(0), call)
        return adata, call

    adata, call = spoiled()
    if set(call) - set(inspect.signature(wlm.pp.doctor).parameters) or {"method", "device"} & set(call):
        return  # what the doctor is not told, or refuses itself
    report = wlm.pp.doctor(adata, time_key="day", **call)
    errors = report.loc[report["level"] == "error", "check"].tolist()
    short = {"n_steps": 1, "batch_size": 16, "width": 8, "hidden": 8, "n_inducing": 2, "show_progress": False}
    try:
        wlm.tl.fit(spoiled()[0], "day", **call, **short)
    except CLEAR as error:
        # A time that is far off may be meant: a fit warns of it.
        assert errors, f"{fault}: {error}"
    else:
        assert set(errors) <= {"spacing"}, fault
    if set(errors) <= {"missing times", "columns", "spacing"}:
        wlm.tl.fit(adata, **report.attrs["arguments"], **short)


def _saved(adata):
    """Whether the object can be written to a file."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            adata.copy().write_h5ad(f"{folder}/a.h5ad")
        except Exception:  # noqa: BLE001, whatever it is
            return False
    return True


def _is_ours(error):
    """Whether the error was raised by a line of this package, and not by a library that it called."""
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    return "/wlm/" in trace.tb_frame.f_code.co_filename
