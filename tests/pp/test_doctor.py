"""``pp.doctor``: every check speaks up on the fault it is for, is silent without it, and changes nothing."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse
from scipy.stats.contingency import association

import wlm
from wlm.pp import _checks, _cost, _doctor, _gene_checks, _rows

RUN_TIME = _cost.check_run_time


@pytest.fixture(autouse=True)
def _no_training(monkeypatch):
    """The model is timed in the tests of that only."""
    monkeypatch.setattr(_doctor, "check_run_time", lambda *_: _checks.Finding("ok", "a second"))


def row(adata, check, **arguments):
    report = wlm.pp.doctor(adata, **arguments).set_index("check")
    return report.loc[check]


def with_obs(adata, **columns):
    for name, values in columns.items():
        adata.obs[name.replace("__", ".")] = values
    return adata


# The report


def test_report_has_the_same_rows_whatever_is_wrong(cells):
    empty = ad.AnnData(np.ones((3, 2), dtype=np.float32))
    for adata in (cells, empty):
        report = wlm.pp.doctor(adata)
        assert list(report.columns) == ["check", "level", "found", "advice"]
        assert tuple(report["check"]) == _doctor.CHECKS
        assert report["level"].isin(["ok", "note", "warning", "error"]).all()
        assert report[["found", "advice"]].map(lambda text: isinstance(text, str)).all(axis=None)
        assert report.loc[report["level"].isin(["warning", "error"]), "advice"].ne("").all()
    assert report.attrs["call"] == "" and report.attrs["arguments"] == {}


def test_a_sound_object_has_no_warning_and_the_call_that_is_proposed_runs(cells, quick):
    report = wlm.pp.doctor(cells)
    assert not report["level"].isin(["warning", "error"]).any(), report.to_string()
    assert report.attrs["call"] == "wlm.tl.fit(adata, 'day')"
    report = wlm.pp.doctor(cells, n_dims=3, device="cpu")
    assert report.attrs["call"] == "wlm.tl.fit(adata, 'day', n_dims=3, device='cpu')"
    arguments = report.attrs["arguments"]
    wlm.tl.fit(cells, **{k: v for k, v in arguments.items() if k != "time_key"}, time_key="day", **quick)


def test_errors_are_what_a_fit_refuses(cells, quick):
    """An object that a fit refuses has an error, and the other way round."""
    faults = {
        "none": lambda a: a,
        "no rep": lambda a: a.obsm.pop("X_pca"),
        "nan": lambda a: a.obsm["X_pca"].__setitem__((3, 1), np.nan),
        "missing": lambda a: with_obs(a, day=a.obs["day"].astype(float).where(np.arange(a.n_obs) > 2)),
        "text": lambda a: with_obs(a, day="early"),
        "one time": lambda a: with_obs(a, day=1),
        "one cell": lambda a: with_obs(a, day=np.where(np.arange(a.n_obs) == 0, 9, a.obs["day"])),
        "names": lambda a: setattr(a, "obs_names", ["x"] * a.n_obs),
        "same": lambda a: a.obsm["X_pca"].fill(1),
    }
    for name, spoil in faults.items():
        adata = cells.copy()
        spoil(adata)
        errors = wlm.pp.doctor(adata, time_key="day")["level"].eq("error").any()
        try:
            wlm.tl.fit(adata, "day", **quick)
        except (KeyError, ValueError):
            assert errors, name
        else:
            assert not errors, name


def test_sizes_methods_and_names_that_are_taken_are_what_a_fit_refuses(cells, quick):
    cells.obsm["v"] = np.random.default_rng(0).normal(size=(cells.n_obs, 5))
    for check, asked, spoil in (
        ("time", {}, lambda a: with_obs(a, day=a.obs["day"] * 1e300)),
        ("representation", {}, lambda a: a.obsm.__setitem__("X_pca", a.obsm["X_pca"] * 1e-30)),
        ("velocity", {"method": "ijkonet", "velocity_key": "v"}, lambda a: a),
        ("velocity", {"velocity_key": "v"}, lambda a: a.obsm["v"].fill(0)),
        ("columns", {}, lambda a: a.uns.__setitem__("wlm", {"mine": 1})),
    ):
        adata = cells.copy()
        spoil(adata)
        report = wlm.pp.doctor(adata, time_key="day", **asked)
        assert report.loc[report["level"] == "error", "check"].tolist() == [check]
        options = {} if asked.get("method") == "ijkonet" else quick
        with pytest.raises(ValueError):
            wlm.tl.fit(adata, "day", **asked, **options)
    assert report.attrs["call"] == "wlm.tl.fit(adata, 'day', key_added='wlm_fit')"
    wlm.tl.fit(adata, **report.attrs["arguments"], **quick)


@pytest.mark.slow
def test_the_call_has_fewer_dimensions_where_there_are_many(cells, quick):
    cells.obsm["X_pca"] = np.random.default_rng(0).normal(size=(cells.n_obs, 60)).astype(np.float32)
    report = wlm.pp.doctor(cells)
    assert report.attrs["call"] == "wlm.tl.fit(adata, 'day', n_dims=50)"
    assert wlm.pp.doctor(cells, n_dims=55).attrs["arguments"]["n_dims"] == 55
    wlm.tl.fit(cells, **report.attrs["arguments"], **quick)


def test_the_summary_has_problems_first_in_a_line_each(cells):
    cells.obs["batch"] = cells.obs["day"].astype(str)
    cells.obs_names = ["x"] * cells.n_obs
    cells.obsm["X_pca"] = np.hstack([cells.obsm["X_pca"]] * 11)
    report = wlm.pp.doctor(cells)
    lines = report.attrs["summary"].splitlines()
    levels = [line.split()[0] for line in lines]
    open_ = report[report["level"].ne("ok") & report["found"].ne("not checked")]
    assert levels[: len(open_)] == sorted(open_["level"], key=["error", "warning", "note"].index)
    for check, level, found, advice in open_.itertuples(index=False):
        assert sum(line == f"{level:8s} {check}: {found} -> {advice}" for line in lines) == 1
    assert levels[len(open_) :] == ["expected", "expected", "ok"] and "missing times, spacing" in lines[-1]
    assert "not checked: " in wlm.pp.doctor(ad.AnnData(np.ones((3, 2)))).attrs["summary"].splitlines()[-1]


def test_nothing_is_changed(cells):
    cells.layers["velocity"] = np.random.default_rng(0).normal(size=cells.shape)
    before = cells.copy()
    wlm.pp.doctor(cells, velocity_key="velocity")
    assert cells.uns.keys() == before.uns.keys() and cells.obsm.keys() == before.obsm.keys()
    pd.testing.assert_frame_equal(cells.obs, before.obs)
    assert np.array_equal(cells.obsm["X_pca"], before.obsm["X_pca"])
    assert (cells.X != before.X).sum() == 0 and np.array_equal(cells.layers["velocity"], before.layers["velocity"])


# anndata 0.13 asks for options that pandas 3.1 calls deprecated.
@pytest.mark.filterwarnings("error", "ignore:The '(future.infer_string|mode.chained_assignment)' option is deprecated")
def test_odd_objects_have_a_report_all_the_same():
    """Whatever it is: no exception, no warning of a library, the same rows."""

    def of(n, day, n_dims=3, **columns):
        obs = pd.DataFrame({"day": day, **columns}, index=pd.RangeIndex(n).astype(str))
        rng = np.random.default_rng(0)
        return ad.AnnData(rng.random((n, 4)), obs=obs, obsm={"X_pca": rng.random((n, n_dims))})

    half = pd.Categorical([None, "a", "b", "a"] * 10)
    odd = [
        *(of(0, []), of(1, [1]), of(4, [np.nan] * 4), of(40, [1, np.inf] * 20), of(40, [True, False] * 20)),
        *(of(40, pd.Categorical(["d1", "d2", None, "d3"] * 10), batch=half), of(41, [1, 2] * 20 + [3])),
        *(of(40, [1, "x"] * 20), of(60, [1, 2, 3] * 20, n_dims=1), of(40, [1, 2] * 20)[:, :0].copy()),
    ]
    table, matrix = of(60, [1, 2, 3] * 20), of(60, [1, 2, 3] * 20)
    table.obsm["X_pca"] = pd.DataFrame(table.obsm["X_pca"], index=table.obs_names, columns=list("abc"))
    matrix.obsm["X_pca"] = sparse.csr_matrix(matrix.obsm["X_pca"])
    matrix.varm["PCs"], matrix.layers["velocity"] = np.ones((4, 2)), np.full((60, 4), np.nan)
    for adata in (*odd, table, matrix):
        for velocity_key in (None, "velocity"):
            report = wlm.pp.doctor(adata, time_key="day", velocity_key=velocity_key)
            assert tuple(report["check"]) == _doctor.CHECKS
        assert wlm.pp.doctor(adata)["found"].ne("").all()


def test_what_is_no_anndata_or_no_device_is_refused(cells):
    with pytest.raises(TypeError, match="AnnData"):
        wlm.pp.doctor(cells.obs)
    with pytest.raises(ValueError, match="device 'abacus'"):
        wlm.pp.doctor(cells, device="abacus")


# Times


@pytest.mark.parametrize(
    ("columns", "chosen"),
    [
        ({"stage": ["E8.5", "E9"], "leiden": ["0", "1"]}, "stage"),
        ({"age(days)": [12, 35], "sample": ["P1", "P2"]}, "age(days)"),
        ({"age(days)": [12, 35], "day": [0, 23]}, "day"),
        ({"label": ["12h", "24h"], "n": [1, 2]}, "label"),
        ({"dpt_pseudotime": [0.1, 0.2], "latent_time": [0.1, 0.2], "Timepoint": ["d0", "d1"]}, "Timepoint"),
        ({"collectionDay": [1, 2], "cluster_day": [1, 2]}, "collectionDay"),
        ({"leiden": ["0", "1"], "n": [1, 2]}, None),
        ({"day": [4, 4]}, None),
    ],
    ids=str,
)
def test_the_column_that_looks_like_a_time_is_found(columns, chosen):
    obs = pd.DataFrame({k: np.repeat(v, 30) for k, v in columns.items()}).rename(index=str)
    report = wlm.pp.doctor(ad.AnnData(obs=obs))
    assert report.attrs["arguments"].get("time_key") == chosen
    if chosen is None:
        time = report.set_index("check").loc["time"]
        assert time.level == "error" and "time_key" in time.advice


@pytest.mark.parametrize(
    ("columns", "chosen"),
    [
        ({"subject": ["P1", "P2"], "time_point": ["D-1", "D3"]}, "time_point"),
        ({"subject": ["P1", "P2"], "when": ["D-1", "D3"]}, "when"),
        ({"case": ["P1", "P2"], "n": [3, 5]}, None),
        ({"mouse_nr": ["E1", "E2"], "label": ["E8.5", "E9.5"]}, "label"),
        ({"age": [34, 71], "time_point": ["D-1", "D3"]}, "time_point"),
        ({"age": [34, 71], "days_post_infection": [0, 3]}, "days_post_infection"),
        ({"age": [34, 71], "Collection_Day": [0, 3]}, "Collection_Day"),
        ({"donor_age": [34, 71], "sampling.time": [0, 3]}, "sampling.time"),
        ({"age_years": [34, 71], "label": ["12h", "24h"]}, "label"),
        ({"age": [34, 71], "sex": ["f", "m"]}, "age"),
        ({"age_days": [3, 7], "label": ["12h", "24h"]}, "age_days"),
    ],
    ids=str,
)
def test_donors_and_their_age_are_no_sampling_times(columns, chosen):
    obs = pd.DataFrame({k: np.repeat(v, 30) for k, v in columns.items()}).rename(index=str)
    assert wlm.pp.doctor(ad.AnnData(obs=obs)).attrs["arguments"].get("time_key") == chosen


@pytest.mark.parametrize("bad", [np.iinfo("i4").min, np.inf, "soon"], ids=str)
def test_a_column_that_is_named_like_a_time_and_cannot_be_read_is_reported_as_a_fit_would(cells, quick, bad):
    cells.obs["day"] = cells.obs["day"].astype(object).where(np.arange(cells.n_obs) > 3, bad).tolist()
    found = row(cells, "time")
    with pytest.raises((ValueError, TypeError)) as refused:
        wlm.tl.fit(cells, "day", **quick)
    assert found.level == "error" and f"{found.found}; {found.advice}" == str(refused.value)


def test_the_unit_in_the_name_of_a_column_is_seen(cells):
    assert row(with_obs(cells, **{"age(days)": cells.obs["day"]}), "time", time_key="age(days)").found.endswith("(day)")


def test_a_guess_among_several_is_said(cells):
    assert row(cells, "time").level == "ok"
    with_obs(cells, stage=cells.obs["day"].map("E{}".format))
    assert row(cells, "time").level == "note" and "stage" in row(cells, "time").advice
    assert row(cells, "time", time_key="day").level == "ok"


def test_missing_column_names_the_likely_one(cells):
    assert row(cells, "time", time_key="age").advice == "day could be meant"


@pytest.mark.parametrize(
    ("n_times", "level", "words"),
    [(1, "error", "two times"), (2, "warning", "held out"), (60, "warning", "pseudotime")],
)
def test_number_of_times(cells, n_times, level, words):
    with_obs(cells, day=np.arange(cells.n_obs) % n_times)
    found = row(cells, "time", time_key="day")
    assert found.level == level and words in found.advice


def test_missing_times(cells):
    assert row(cells, "missing times").level == "ok"
    with_obs(cells, day=cells.obs["day"].astype(float).where(np.arange(cells.n_obs) >= 7))
    found = row(cells, "missing times")
    assert found.level == "error" and found.found.startswith("7 of 300") and "notna" in found.advice


def test_spacing(cells):
    assert row(cells, "spacing").level == "ok"
    with_obs(cells, day=cells.obs["day"].replace({4: 14}))
    assert row(cells, "spacing").level == "note" and "from 1 to 11" in row(cells, "spacing").found


def test_cells_per_time(cells):
    assert row(cells, "cells per time").level == "ok"
    few = cells[np.r_[0:30, 60:300]].copy()
    assert row(few, "cells per time").level == "warning" and "under 50 cells at 0" in row(few, "cells per time").advice
    uneven = _checks.check_counts(np.array([0.0, 1.0]), np.array([100, 2100]))
    assert uneven.level == "warning" and "weight_key" in uneven.advice
    assert _checks.check_counts(np.array([0.0, 1.0]), np.array([100, 1900])).level == "ok"
    assert row(cells[:61].copy(), "cells per time").level == "error"


def test_cell_names(cells):
    assert row(cells, "cell names").level == "ok"
    cells.obs_names = ["a", *cells.obs_names[1:-1], "a"]
    assert row(cells, "cell names").level == "error"


# Batches


def test_a_batch_in_one_time_only_is_a_warning(cells):
    day = cells.obs["day"].astype(str)
    half = np.where(np.arange(cells.n_obs) % 2, "a", "b")
    one, two = (row(with_obs(cells, batch=b), "batch") for b in ("run" + day, "run" + day + half))
    assert one.level == two.level == "warning"
    assert "5 levels" in one.found and "10 levels" in two.found
    assert "same time" in two.advice and "same time" not in one.advice


def test_a_batch_that_goes_partly_with_time_is_a_note_and_a_spread_one_is_fine(cells):
    rng = np.random.default_rng(0)
    partly = np.where(rng.random(cells.n_obs) < 0.2, 0, cells.obs["day"] // 2)
    assert row(with_obs(cells, donor=partly), "batch").level == "note"
    assert row(with_obs(cells, donor=rng.integers(3, size=cells.n_obs)), "batch").level == "ok"


def test_what_is_no_batch_is_not_taken_for_one(cells):
    day = cells.obs["day"]
    with_obs(cells, stage=day.map("E{}".format), clusters="c" + day.astype(str), sample_depth=np.sqrt(day + 0.5))
    assert row(cells, "batch", time_key="day").found == "no column of obs is named like a batch"
    named = ("orig__ident", "sample_id", "sampleID", "Replicates", "library", "10x_channel")
    for name in named:
        assert row(with_obs(cells.copy(), **{name: "s" + day.astype(str)}), "batch").level == "warning", name
    assert row(with_obs(cells, batch=day.astype(float)), "batch", time_key="day").level == "warning"


def test_cramer_is_that_of_scipy():
    table = np.random.default_rng(0).integers(1, 50, size=(4, 3))
    assert np.isclose(_checks.cramer_v(table), association(table, method="cramer"))
    assert np.isclose(_checks.cramer_v(np.eye(3, dtype=int) * 7), 1)


# Coordinates


def test_missing_representation_says_what_to_run(cells):
    logged = cells.copy()
    del logged.obsm["X_pca"]
    assert row(logged, "representation").advice == "run sc.pp.pca(adata)"
    counts = wlm.datasets.bifurcation(20, n_genes=40, rng=0)
    found = row(counts, "representation")
    assert found.level == "error" and "normalize_total" in found.advice and "log1p" in found.advice
    assert "X_pca" in row(cells, "representation", use_rep="X_scvi").advice


def test_representation(cells):
    assert row(cells, "representation").level == "ok"
    assert "3 of 5 dimensions" in row(cells, "representation", n_dims=3).found
    assert row(cells, "representation", n_dims=9).level == "error"
    cells.obsm["X_umap"] = cells.obsm["X_pca"][:, :2]
    assert row(cells, "representation", use_rep="X_umap").level == "warning"
    cells.obsm["X_wide"] = np.random.default_rng(0).normal(size=(cells.n_obs, 60))
    assert "n_dims" in row(cells, "representation", use_rep="X_wide").advice


def test_duplicates(cells):
    assert row(cells, "duplicates").level == "ok"
    cells.obsm["X_pca"][5:8] = cells.obsm["X_pca"][4]
    cells.obsm["X_pca"][9, 0] = cells.obsm["X_pca"][10, 0]  # one coordinate is no copy
    assert row(cells, "duplicates").found.startswith("3 of 300") and row(cells, "duplicates").level == "warning"


def test_shift():
    rng = np.random.default_rng(0)
    times = np.repeat([0.0, 1.0], 500)
    # In any number of dimensions two samples of one population are no shift, and a clear one is.
    for d in (1, 5, 50):
        x = rng.normal(size=(1000, d)).astype(np.float32)
        still = _checks.check_shift(x, times, np.unique(times))
        assert still.level == "note" and "0 to 1" in still.advice
        x[500:] += 0.5
        assert _checks.check_shift(x, times, np.unique(times)).level == "ok"
        x[500:] += 5
        assert "hardly overlap" in _checks.check_shift(x, times, np.unique(times)).advice


# Loadings


def test_loadings(cells):
    assert row(cells, "loadings").level == "ok" and "X give" in row(cells, "loadings").found
    changed = cells.copy()
    sc.pp.scale(changed)
    assert row(changed, "loadings").level == "note" and "sc.pp.pca" in row(changed, "loadings").advice
    changed.layers["logged"] = cells.X
    assert "layers['logged']" in row(changed, "loadings").found
    del cells.varm["PCs"]
    assert row(cells, "loadings").level == "note"
    cells.layers["velocity"] = np.ones(cells.shape)
    assert row(cells, "loadings", velocity_key="velocity").level == "error"
    cells.obsm["X_other"] = cells.obsm["X_pca"]
    assert row(cells, "loadings", use_rep="X_other").level == "ok"


def test_pca_of_raw_counts():
    adata = wlm.datasets.bifurcation(60, n_genes=40, rng=1)
    sc.pp.pca(adata, n_comps=5)
    assert row(adata, "loadings").level == "warning" and "raw counts" in row(adata, "loadings").found


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
@pytest.mark.parametrize("backed", [True, False])
def test_matrices_of_any_kind(cells, tmp_path, form, backed):
    x = cells.X.toarray() if sparse.issparse(cells.X) else cells.X
    cells.X = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": np.array}[form](x)
    if backed:
        cells.write_h5ad(tmp_path / "cells.h5ad")
        cells = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    found = row(cells, "loadings")
    if form == "csc" and backed:
        assert found.level == "note" and "not compared" in found.found
    else:
        assert found.level == "ok"
    view = cells[cells.obs["day"] < 3]
    assert row(view, "loadings").level == ("note" if backed else "ok")
    assert row(view, "time").found.endswith("0, 1, 2")


def test_dask_is_read_in_rows(cells):
    dask = pytest.importorskip("dask.array")
    x = cells.X.toarray() if sparse.issparse(cells.X) else cells.X
    cells.X = dask.from_array(x, chunks=(50, -1))
    assert row(cells, "loadings").level == "ok"


def test_sampled_rows():
    assert _rows.sample_rows(20).tolist() == list(range(20))
    for n in (501, 10_007):
        rows = _rows.sample_rows(n)
        assert len(rows) == 500 and rows[0] == 0 and rows[-1] == n - 1 and (np.diff(rows) >= 0).all()
    assert (np.diff(_rows.sample_rows(10_007)) > 0).all()


# Velocities


@pytest.fixture
def moving(cells):
    """Cells with velocities, in the principal components and in genes, that carry each day's mean to the next."""
    day = cells.obs["day"].to_numpy(int)
    means = np.array([cells.obsm["X_pca"][day == t].mean(0) for t in range(5)])
    drift = np.diff(means, axis=0)[np.minimum(day, 3)]
    cells.obsm["v"] = drift + 0.1 * np.random.default_rng(0).normal(size=drift.shape)
    # X is log(1 + c s): the rates of s for which it changes by v.
    s, x = cells.layers["spliced"].toarray(), cells.X.toarray()
    c = np.expm1(x).sum(1, keepdims=True) / s.sum(1, keepdims=True)
    cells.layers["velocity"] = cells.obsm["v"] @ cells.varm["PCs"].T * (1 + c * s) / c
    return cells


def test_no_velocity_and_velocities_that_were_not_asked_for(cells, moving):
    found = row(moving, "velocity")
    assert found.level == "note" and "velocity_key='velocity'" in found.advice
    del moving.layers["velocity"]
    assert row(moving, "velocity").level == "ok" and row(moving, "velocity").found.startswith("none")


@pytest.mark.parametrize(("key", "scale"), [("v", "the shift is 1 times"), ("velocity", "which the fit calibrates")])
def test_right_velocities_are_fine(moving, key, scale):
    found = row(moving, "velocity", velocity_key=key)
    assert found.level == "ok" and scale in found.found, found.found
    assert f"velocity_key={key!r}" in wlm.pp.doctor(moving, velocity_key=key).attrs["call"]


def test_auto_takes_what_a_fit_would_take(moving):
    assert "layers['velocity']" in row(moving, "velocity", velocity_key="auto").found
    wlm.pp.project_velocity(moving)
    assert "obsm['velocity_projected']" in row(moving, "velocity", velocity_key="auto").found
    del moving.layers["velocity"], moving.obsm["velocity_projected"]
    assert row(moving, "velocity", velocity_key="auto").level == "error"


def test_velocities_that_are_wrong(moving):
    def found(v):
        moving.obsm["v"] = v
        return row(moving, "velocity", velocity_key="v")

    v = moving.obsm["v"].copy()
    assert found(-v).level == "warning" and "against" in found(-v).advice
    assert found(10 * v).level == "warning" and "velocity_scale=0.1" in found(10 * v).advice
    assert found(0 * v).level == "error" and found(0 * v + np.nan).level == "error"
    assert found(v[:, :2]).level == "error"
    assert found(np.where(moving.obs["day"].to_numpy()[:, None] > 2, np.nan, v)).level == "note"
    assert row(moving, "velocity", velocity_key="nix").level == "error"
    aside = np.linalg.svd(v)[2][-1]  # a direction in which nothing goes
    assert found(np.tile(aside, (len(v), 1))).level == "note"


def test_rna_velocities_that_cannot_be_calibrated_are_an_error(moving, quick):
    """As in the fit, which finds their scale by the drift between populations."""
    for smooth in (False, True):
        if smooth:
            sc.pp.neighbors(moving)
        moving.layers["velocity"] = -moving.layers["velocity"]
        for velocity_key, projected in (("velocity", False), ("auto", True)):
            if projected:
                wlm.pp.project_velocity(moving)
            found = row(moving, "velocity", velocity_key=velocity_key)
            try:
                wlm.tl.fit(moving, "day", velocity_key=velocity_key, **quick)
            except ValueError as error:
                assert "against the observed drift" in str(error)
                assert found.level == "error" and "against the observed drift" in found.found
            else:
                assert found.level != "error"
        moving.obsm.pop("velocity_projected")


def test_velocity_pca_is_no_speed(moving):
    moving.obsm["velocity_pca"] = moving.obsm["v"]
    found = row(moving, "velocity", velocity_key="velocity_pca")
    assert found.level == "warning" and "not a speed" in found.advice


def test_velocities_of_few_genes(moving):
    genes = np.argsort(np.square(moving.varm["PCs"]).sum(1))
    moving.layers["velocity"][:, genes[5:]] = np.nan
    found = row(moving, "velocity", velocity_key="velocity")
    assert found.level == "warning" and "few genes" in found.advice
    moving.obsm["X_other"] = moving.obsm["X_pca"]
    found = row(moving, "velocity", velocity_key="velocity", use_rep="X_other")
    assert found.level == "error" and "projected" in found.found


def test_projection_is_that_of_a_fit(moving):
    from wlm._adata.velocity import project_layer

    moving.layers["velocity"][:, 3] = np.nan
    moving.layers["velocity"][7] = np.nan
    moving.var["velocity_genes"] = np.arange(moving.n_vars) != 5
    rows = np.arange(0, moving.n_obs, 3)
    ours = _gene_checks.project(moving, "X_pca", "velocity", _rows.Matrices(moving, rows), rows)
    theirs = project_layer(moving, "velocity", "X_pca", smooth=False)
    assert np.allclose(ours.velocity, theirs.velocity[rows], equal_nan=True, atol=1e-5)
    assert np.isclose(ours.share, theirs.share) and ours.space == theirs.space == "log"


# Time and memory


def test_run_time_is_measured_without_touching_the_global_generator(cells, monkeypatch):
    import torch

    state = torch.get_rng_state()
    x, times = cells.obsm["X_pca"], cells.obs["day"].to_numpy(float)
    found = RUN_TIME(x, times, np.unique(times), "cpu")
    assert found.level == "ok" and "80 steps" in found.found and "on cpu" in found.found
    assert torch.equal(torch.get_rng_state(), state)
    monkeypatch.setattr(_cost, "CELLS_PER_STEP", 1e-6)
    assert RUN_TIME(x, times, np.unique(times), "cpu").level == "note"
    assert RUN_TIME(x[:61], times[:61], np.unique(times[:61]), "cpu").found.startswith("not measured")


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "1 s"), (59, "59 s"), (200, "3 min"), (7200, "2.0 h")])
def test_durations(seconds, text):
    assert _cost.duration(seconds) == text


def test_memory_counts_what_a_fit_reads(cells):
    n = 1_000_000
    big = ad.AnnData(
        obs=pd.DataFrame(index=pd.RangeIndex(n).astype(str)), obsm={"X_pca": np.zeros((n, 50), np.float32)}
    )
    assert "3.8 GB for a fit" in _cost.check_memory(big, big.obsm["X_pca"], None).found
    assert "200 MB for the object" in _cost.check_memory(big, None, None).found
    small = _cost.check_memory(cells, cells.obsm["X_pca"], None).found
    assert "0.6 GB for a fit, and 1 MB" in small


# Real cells


@pytest.mark.shared
def test_dentate_gyrus(real_data):
    adata = ad.read_h5ad(real_data / "dentate_50.h5ad")
    report = wlm.pp.doctor(adata).set_index("check")
    print(report.to_string())
    assert report.attrs["call"] == "wlm.tl.fit(adata, 'age(days)')"
    assert not report["level"].eq("error").any()
    assert report.loc["time", "level"] == "warning" and "12, 35" in report.loc["time", "found"]
    assert report.loc["cells per time", "level"] == "warning"
    assert report.loc["loadings", "level"] == "ok" and "layers['velocity']" in report.loc["velocity", "found"]


@pytest.mark.shared
def test_reprogramming(real_data):
    adata = ad.read_h5ad(real_data / "reprogramming_250.h5ad")
    report = wlm.pp.doctor(adata).set_index("check")
    print(report.to_string())
    assert report.attrs["arguments"] == {"time_key": "day"}
    assert report.loc["batch", "level"] == "ok" and "Cramér" in report.loc["batch", "found"]
    assert report.loc[report["level"] == "error"].index.tolist() == ["representation"]
    sc.pp.pca(adata, n_comps=10)
    assert not wlm.pp.doctor(adata)["level"].isin(["warning", "error"]).any()


def test_a_method_without_training_steps_is_timed_too(cells):
    x, times = cells.obsm["X_pca"], cells.obs["day"].to_numpy(dtype=float)
    finding = RUN_TIME(x, times, np.unique(times), "cpu", "flow")
    assert finding.level == "ok" and "without training by steps" in finding.found
