"""The report as a whole: its numbers are those that are stored, and it is one safe, complete file."""

import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from report_page import Page

import wlm
from wlm._report import html

HOSTILE = "<script>alert('x')</script>"


def hostile(cells):
    """Cells all of whose names are meant to break a page."""
    a = cells.copy()
    a.obs_names = [f"{HOSTILE}{name}" for name in a.obs_names]
    a.var_names = [f'"><img src=x onerror=alert(1)>{name}' for name in a.var_names]
    a.obs[f"cell_type {HOSTILE}"] = pd.Categorical(
        np.where(a.obs["fate"] == "A", f"{HOSTILE} & young", "=cmd|'old'"),
        categories=[f"{HOSTILE} & young", "=cmd|'old'"],
    )
    return a


@pytest.fixture(scope="module")
def fitted_hostile(_bifurcation, quick):
    a = hostile(_bifurcation)
    a.obsm["X_umap"] = a.obsm["X_pca"][:, :2] * [1, -1]
    wlm.tl.fit(a, "day", holdout=2, **{**quick, "n_steps": 5, "backtest": True})
    return a


@pytest.fixture(scope="module")
def table(_bifurcation, quick):
    return wlm.tl.evaluate(
        _bifurcation,
        "day",
        holdout=[2, 3],
        metrics="w1",
        n_boot=20,
        **{k: v for k, v in quick.items() if k != "show_progress"},
    )


@pytest.fixture(scope="module")
def reported(fitted_hostile, table, tmp_path_factory):
    """The object before and after, and the page."""
    folder = tmp_path_factory.mktemp("report")
    before = fitted_hostile.copy()
    drivers = wlm.tl.drivers(fitted_hostile, n_perm=20, n_boot=20)
    path = wlm.report(fitted_hostile, folder / "r.html", evaluation=table, drivers=drivers, show_progress=False)
    return before, Page(path.read_text()), path, drivers


def same(a, b):
    """Whether two objects hold the same."""
    for slot in ("obsm", "varm", "layers", "obsp", "uns"):
        assert list(getattr(a, slot)) == list(getattr(b, slot))
    pd.testing.assert_frame_equal(a.obs, b.obs)
    pd.testing.assert_frame_equal(a.var, b.var)
    assert all(np.array_equal(a.obsm[k], b.obsm[k], equal_nan=True) for k in a.obsm)
    assert (a.X != b.X).sum() == 0
    assert str(a.uns["wlm"]["checksum"]) == str(b.uns["wlm"]["checksum"])
    return True


@pytest.mark.slow
def test_numbers_are_those_of_the_fit(reported):
    a, page, _, drivers = reported
    uns = a.uns["wlm"]
    found = page.tables["training_times"]
    for name in ("w1", "floor", "sd_ratio", "outside"):
        assert np.allclose(found[name], uns["training_times"][name], rtol=1e-6)
    assert found["day"].tolist() == uns["training_times"]["times"].tolist()
    assert np.allclose(page.tables["training_history"]["loss"], uns["history"]["loss"], rtol=1e-6)
    back = page.tables["forecast_backtest"]
    assert np.allclose(back["w1"], np.ravel(uns["forecast"]["w1"]), rtol=1e-6)
    assert page.said("forecast").startswith("What forecasts follow") and uns["forecast"]["words"][1:] in page.said(
        "forecast"
    )
    assert page.tables["times"]["cells"].tolist() == [60] * 5
    assert page.tables["times"]["role"].tolist()[2] == "held out"
    assert f"{uns['friction']:.3g} per time unit" in page.said("fitted")
    assert np.allclose(page.tables["coverage"]["measured"], uns["coverage"]["measured"], rtol=1e-6)
    assert np.allclose(page.tables["drivers"]["effect"], drivers["effect"], rtol=1e-6)
    assert page.tables["drivers"]["gene"].tolist() == drivers.index.tolist()


@pytest.mark.slow
def test_numbers_are_those_of_the_verbs(reported):
    a, page = reported[0].copy(), reported[1]
    label = f"cell_type {HOSTILE}"
    ours = wlm.tl.composition(a, label, n_cells=2000)
    theirs = page.tables["composition"]
    assert np.allclose(theirs["predicted"], ours["predicted"], rtol=1e-6, equal_nan=True)
    assert theirs["label"].tolist() == ours["label"].tolist()
    wlm.tl.terminal_states(a, label_key=label)
    wlm.tl.fates(a)
    assert np.allclose(page.tables["fates"]["predicted"], a.uns["wlm_fates"]["predicted"], rtol=1e-6)
    assert np.allclose(page.tables["fates_decided"]["entropy"], a.uns["wlm_fates"]["entropy"], rtol=1e-6)
    row = page.tables["fates_by_time"].iloc[0]
    first = ((a.obs["day"] == 0) & (a.obs[label] == row[label])).to_numpy()
    assert row["day"] == 0 and row["cells"] == first.sum()
    chances = row[list(a.uns["wlm_fates"]["names"])].astype(float)
    assert np.allclose(chances, a.obsm["wlm_fates"][first].mean(axis=0), rtol=1e-5)
    genes = page.tables["gene_trends"]["gene"].unique().tolist()
    ours = wlm.tl.gene_trends(a, genes)
    assert len(genes) == 6 and np.allclose(page.tables["gene_trends"]["mean"], ours["mean"], rtol=1e-5)
    energy = page.tables["energy_by_time"]
    by_hand = a.obs.groupby(["day", label], observed=True)["wlm_potential"].mean()
    assert np.allclose(energy["mean energy"], by_hand.to_numpy(), rtol=1e-5)


@pytest.mark.slow
def test_held_out_cells_are_scored_as_by_hand(reported):
    from wlm.core.metrics import w1
    from wlm.core.transport import interpolate

    a, page, _, _ = reported
    x, day = a.obsm["X_pca"], a.obs["day"].to_numpy()
    predicted = wlm.tl.predict(a, [2]).obsm["X_pca"]
    scores = page.tables["held_out_scores"].set_index("model")["w1"]
    assert scores["this fit (wlm)"] == pytest.approx(w1(predicted, x[day == 2]), rel=1e-5)
    assert scores["previous"] == pytest.approx(w1(x[day == 1], x[day == 2]), rel=1e-5)
    middle = interpolate(x[day == 1], x[day == 3], 0.5)
    assert scores["ot_midpoint"] == pytest.approx(w1(middle, x[day == 2]), rel=1e-5)
    moments = page.tables["predicted_times"].set_index("day")
    assert moments.index.tolist() == [0.5, 2, 3.5]
    assert moments.loc[2, "mean 1"] == pytest.approx(predicted[:, 0].mean(), rel=1e-4)
    assert moments.loc[2, "sd 3"] == pytest.approx(predicted[:, 2].std(), rel=1e-4)


@pytest.mark.slow
def test_the_scorecard_is_that_of_evaluate(reported, table):
    _, page, _, _ = reported
    assert np.allclose(page.tables["scores"]["w1"], table["w1"], rtol=1e-6)
    assert all(line in page.said("scorecard") for line in table.attrs["verdict"].splitlines())
    assert table.attrs["verdict"].splitlines()[0] in page.said("summary")
    differences = pd.DataFrame(table.attrs["differences"])
    assert np.allclose(page.tables["score_differences"]["low"], differences["low"], rtol=1e-6)


@pytest.mark.parametrize(
    ("word", "tone"), [("BETTER THAN", "good"), ("WORSE THAN", "bad"), ("NO DIFFERENCE FROM", "note")]
)
def test_a_draw_is_neither_good_nor_bad(fitted, table, tmp_path, monkeypatch, word, tone):
    only(monkeypatch, "limits")
    own = table.copy()
    own.attrs["verdict"] = f"{word} spline (-0.8 %): interpolation, wlm"
    page = wlm.report(fitted, tmp_path / "r.html", evaluation=own, show_progress=False).read_text()
    (card,) = re.findall(rf'<div class="card (\w+)"><dt>[^/]*?</span>\s*Held-out times</dt>\s*<dd>{word}', page) or [
        None
    ]
    assert card == tone


@pytest.mark.slow
def test_methods_can_be_cited_and_repeated(reported, quick):
    a, page, _, _ = reported
    text = page.said("methods")
    assert "A Call to Lagrangian Action" in text and f"wlm {wlm.__version__}" in text and "seed 0" in text
    assert "n_steps=5" in text and "day 0: 60" in text
    versions = page.tables["versions"].set_index("package")["version"]
    assert versions["numpy"] == np.__version__
    call = re.search(r"wlm\.tl\.fit\(adata, .*?rng=0\)", text).group()
    again = eval(call, {"wlm": _Recorder(a), "adata": a})
    assert np.array_equal(again.obsm["wlm_velocity"], a.obsm["wlm_velocity"], equal_nan=True)


class _Recorder:
    """Stands for the module in a call that is to be made on a copy."""

    def __init__(self, a):
        self.a, self.tl = a, self

    def __getattr__(self, name):
        return getattr(wlm, name)

    def fit(self, _, *arguments, **options):
        return wlm.tl.fit(self.a, *arguments, copy=True, show_progress=False, **options)


@pytest.mark.slow
def test_hostile_names_are_text(reported, monkeypatch):
    _, page, path, _ = reported
    assert HOSTILE not in page.source and "<img src=x" not in page.source
    assert len(re.findall("<script", page.source)) == 2  # the frames of the film, and the script
    assert f"{HOSTILE} & young" in page.said("composition") and f"cell_type {HOSTILE}" in page.said("map")
    assert any("onerror=alert(1)>gene" in g for g in page.tables["gene_trends"]["gene"])
    only(monkeypatch, "limits")
    titled = wlm.report(reported[0], path.with_name("t.html"), title=HOSTILE, show_progress=False)
    assert HOSTILE not in titled.read_text() and "&lt;script&gt;" in titled.read_text()


@pytest.mark.slow
def test_one_file_that_loads_nothing(reported):
    _, page, path, _ = reported
    assert path.stat().st_size < 3e6
    assert "http" not in page.source.replace("http-equiv", "")
    for tag, attrs in page.tags:
        for name in ("src", "href"):
            assert name not in attrs or attrs[name].startswith(("data:", "#")), (tag, attrs[name][:60])
    assert not page.find("iframe") and not page.find("object") and "@import" not in page.source
    policy = next(m["content"] for m in page.find("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'") and "script-src 'sha256-" in policy


@pytest.mark.slow
def test_accessible_by_its_marks(reported):
    _, page, _, _ = reported
    assert page.find("html")[0]["lang"] == "en" and len(page.find("title")) == 2  # of the page and of the film
    assert page.headings[0] == "h1" and set(page.headings[1:]) == {"h2"}
    assert all(len(image["alt"]) > 20 and image["width"] for image in page.find("img"))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [a["href"][1:] for a in page.find("a") if a["href"].startswith("#")]
    assert set(links) <= set(ids) and {s for s, *_ in html_sections()} <= set(links)
    assert all(th["scope"] == "col" for th in page.find("th"))


def html_sections():
    from wlm._report.sections import SECTIONS

    return SECTIONS


@pytest.mark.slow
def test_the_object_is_not_changed(fitted_hostile, reported):
    assert same(reported[0], fitted_hostile)
    assert not any("fate" in key or "terminal" in key for key in [*fitted_hostile.uns, *fitted_hostile.obsm])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_a_file_gives_the_same_report(fitted_hostile, table, tmp_path, monkeypatch, kind):
    only(monkeypatch, "given", "fitted", "scorecard", "forecast", "missing", "fates", "limits", "methods")
    path = tmp_path / f"in.{kind}"
    a = fitted_hostile.copy()
    a.obs = a.obs.rename(columns={f"cell_type {HOSTILE}": "cell_type"})  # "/" is no name in a file
    getattr(a, f"write_{kind}")(path)
    (tmp_path / "scores.json").write_text(table.assign().to_json(orient="table") and _as_the_command_writes(table))
    pages = [
        wlm.report(given, tmp_path / name, evaluation=scores, show_progress=False).read_text()
        for name, given, scores in (("a.html", a, table), ("b.html", path, tmp_path / "scores.json"))
    ]
    assert pages[0] == pages[1]


def _as_the_command_writes(table):
    import json

    return json.dumps({"rows": table.to_dict("records"), **table.attrs})


def test_stored_fates_are_taken_as_they_are(fitted, tmp_path, monkeypatch):
    wlm.tl.terminal_states(fitted, n_states=3)
    wlm.tl.fates(fitted, at=5)
    before = fitted.copy()
    only(monkeypatch, "fates")
    page = Page(wlm.report(fitted, tmp_path / "r.html", show_progress=False).read_text())
    assert page.tables["fates"]["fate"].tolist() == ["state 1", "state 2", "state 3"]
    assert "at day 5" in page.said("fates") and "Found for this report" not in page.said("fates")
    assert same(before, fitted)


def only(monkeypatch, *names):
    """Leave the other sections out of reports."""
    import wlm._report.verb as module

    monkeypatch.setattr(module, "SECTIONS", [s for s in html_sections() if s[0] in names])


def test_tables_of_cells_make_room(fitted, tmp_path, monkeypatch):
    only(monkeypatch, "landscape")
    whole = wlm.report(fitted, tmp_path / "a.html", show_progress=False)
    assert "cells" in Page(whole.read_text()).tables
    monkeypatch.setattr(html, "MOST", whole.stat().st_size - 100)
    page = Page(wlm.report(fitted, tmp_path / "b.html", show_progress=False).read_text())
    assert "cells" not in page.tables and "energy_by_time" in page.tables
    assert "these tables are not in it: cells" in page.text["landscape"]
    monkeypatch.setattr(html, "MOST", 1000)
    with pytest.raises(ValueError, match="fewer cells"):
        wlm.report(fitted, tmp_path / "c.html", show_progress=False)
    assert not (tmp_path / "c.html").exists()


# What is refused


def test_what_is_refused_before_any_work(cells, fitted, tmp_path, monkeypatch):
    out = tmp_path / "r.html"
    only(monkeypatch)
    with pytest.raises(KeyError, match=r"run wlm\.tl\.fit\(adata, time_key"):
        wlm.report(cells, out)
    with pytest.raises(KeyError, match="label_key|obs\\['age'\\]"):
        wlm.report(fitted, out, label_key="age")
    with pytest.raises(KeyError, match="basis 'tsne'"):
        wlm.report(fitted, out, basis="tsne")
    with pytest.raises(KeyError, match="not in var_names"):
        wlm.report(fitted, out, genes=["GATA1"])
    with pytest.raises(ValueError, match=r"path must end in \.html"):
        wlm.report(fitted, tmp_path / "r.pdf")
    with pytest.raises(FileNotFoundError, match="folder"):
        wlm.report(fitted, tmp_path / "none" / "r.html")
    with pytest.raises(ValueError, match="no table of wlm.tl.evaluate"):
        wlm.report(fitted, out, evaluation=pd.DataFrame({"time": [1]}))
    with pytest.raises(TypeError, match="a table must be a DataFrame or the path"):
        wlm.report(fitted, out, drivers=3)
    with pytest.raises(FileNotFoundError, match="there is no"):
        wlm.report(fitted, out, comparison=tmp_path / "none.csv")
    with pytest.raises(FileNotFoundError, match="there is no"):
        wlm.report(tmp_path / "none.h5ad", out)
    with pytest.raises(ValueError, match=r"\.h5ad, \.h5mu or \.zarr"):
        wlm.report(tmp_path / "cells.csv", out)
    with pytest.raises(TypeError, match="AnnData"):
        wlm.report(3, out)
    moved = fitted.copy()
    moved.obsm["X_pca"] = moved.obsm["X_pca"] + 1
    with pytest.raises(ValueError, match="not the representation"):
        wlm.report(moved, out)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_report_leaves_the_old_one(fitted, tmp_path, monkeypatch):
    import wlm._report.verb as module

    out = tmp_path / "r.html"
    out.write_text("old")

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "SECTIONS", [("given", "Given", interrupt)])
    with pytest.raises(KeyboardInterrupt):
        wlm.report(fitted, out, show_progress=False)
    assert out.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_progress_is_shown_if_asked(fitted, tmp_path, monkeypatch, capsys):
    only(monkeypatch, "limits", "methods")
    wlm.report(fitted, tmp_path / "r.html", show_progress=True)
    assert "2/2" in capsys.readouterr().err
    wlm.report(fitted, tmp_path / "r.html", show_progress=False)
    assert "2/2" not in capsys.readouterr().err


def test_of_conditions_one_is_chosen(cells, quick, tmp_path, monkeypatch):
    cells.obs["arm"] = pd.Categorical(np.where(np.arange(cells.n_obs) % 2, "drug", "none"))
    wlm.tl.fit(cells, "day", condition_key="arm", **{**quick, "n_steps": 2})
    with pytest.raises(ValueError, match="key='wlm_drug' or key='wlm_none'"):
        wlm.report(cells, tmp_path / "r.html")
    only(monkeypatch, "given", "landscape", "fates", "methods")
    page = Page(wlm.report(cells, tmp_path / "r.html", key="wlm_drug", show_progress=False).read_text())
    assert "150 cells" in page.said("given") and "whose obs['arm'] is 'drug'" in page.said("given")
    assert "condition_key='arm'" in page.said("methods")
    assert page.tables["cells"]["cell"].isin(cells.obs_names[cells.obs["arm"] == "drug"]).all()


def test_of_a_mudata(fitted, tmp_path, monkeypatch):
    mudata = pytest.importorskip("mudata")
    mdata = mudata.MuData({"rna": fitted})
    only(monkeypatch, "given", "missing", "genes", "fates", "methods")
    page = Page(wlm.report(mdata, tmp_path / "r.html", mod="rna", show_progress=False).read_text())
    assert "Left out" not in page.said("missing") and "Left out" not in page.said("genes")
    assert "MuData" in page.said("fates") and "wlm.tl.fit(mdata" in page.said("methods")


def test_backed_objects(fitted, tmp_path, monkeypatch):
    fitted.write_h5ad(tmp_path / "in.h5ad")
    only(monkeypatch, "given", "missing", "fates")
    a = ad.read_h5ad(tmp_path / "in.h5ad", backed="r")
    page = Page(wlm.report(a, tmp_path / "r.html", show_progress=False).read_text())
    assert "Left out" not in page.said("missing") and "on disk" in page.said("fates")
