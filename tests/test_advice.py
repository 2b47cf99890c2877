"""Every advice that can be pasted is pasted: it runs, and the call that was refused works afterwards."""

import ast

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

import wlm
from wlm.pp import _checks, _doctor

SHORT = {"n_steps": 1, "batch_size": 16, "width": 8, "hidden": 8, "n_inducing": 2, "initial_velocity": "zero"}
SHORT |= {"show_progress": False}


def code_in(message):
    """The longest piece of code after the first "run" of a message."""
    words = message.split("run ", 1)[1].split(" ")
    for end in range(len(words), 0, -1):
        text = " ".join(words[:end]).rstrip(",;.:")
        try:
            ast.parse(text)
        except SyntaxError:
            continue
        return text
    raise AssertionError(f"no code in {message!r}")


def pasted(adata, message):
    """The object after the advice of a message was run."""
    scope = {"adata": adata, "wlm": wlm, "sc": sc, "pd": pd, "np": np, "anndata": ad}
    exec(code_in(message), scope)
    return scope["adata"]


@pytest.fixture(scope="module")
def _made():
    """36 cells on each of three days, with components and velocities of genes."""
    rng = np.random.default_rng(0)
    day = np.repeat([0.0, 1, 3], 36)
    s = rng.poisson(rng.gamma(2, 4, 12) * np.exp(0.2 * day[:, None] * np.linspace(-1, 1, 12))).astype(float)
    obs = pd.DataFrame({"day": day, "arm": np.tile(["a", "b"], 54)}, index=[f"c{i}" for i in range(108)])
    adata = ad.AnnData(s, obs=obs, layers={"Ms": s, "velocity": s * np.linspace(-0.2, 0.2, 12)})
    adata.layers["spliced"], adata.layers["unspliced"] = s.copy(), rng.poisson(0.4 * s) + 1.0
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=4)
    return adata


@pytest.fixture
def made(_made):
    return _made.copy()


def put(column, values):
    def spoil(adata, path):
        adata.obs[column] = values(adata.obs["day"]) if callable(values) else values

    return spoil


def at(slot, key, values):
    def spoil(adata, path):
        getattr(adata, slot)[key] = values(adata) if callable(values) else values

    return spoil


def without(slot, *keys):
    def spoil(adata, path):
        for key in keys:
            del getattr(adata, slot)[key]

    return spoil


def index(axis, names):
    def spoil(adata, path):
        setattr(adata, f"{axis}_names", names(getattr(adata, f"{axis}_names")))

    return spoil


def on_disk(adata, path):
    adata.write_h5ad(path)
    return ad.read_h5ad(path, backed="r")


def again(adata, path):
    wlm.pp.project_velocity(adata)
    adata.var["some"] = np.arange(adata.n_vars) > 2
    sc.pp.pca(adata, n_comps=4, mask_var="some")


def renamed(*names):
    def spoil(adata, path):
        layers = [adata.layers.pop(name) for name in ("spliced", "unspliced")]
        del adata.layers["velocity"], adata.layers["Ms"]
        for name in names:
            adata.layers[name] = layers[0]

    return spoil


def fit(adata, **arguments):
    return wlm.tl.fit(adata, **{"time_key": "day", **SHORT, **arguments})


FIRST = np.arange(108) < 4
FIT = {
    "missing times": (put("day", lambda d: d.where(~FIRST)), {}),
    "infinite times": (put("day", lambda d: d.where(~FIRST, -np.inf)), {}),
    "NA of R": (put("day", lambda d: d.astype("i4").where(~FIRST, np.iinfo("i4").min)), {}),
    "NA of R as text": (put("day", lambda d: d.map("{:g}".format).where(~FIRST, "-2147483648")), {}),
    "dates as numbers": (put("day", lambda d: d.map({0: 20210228, 1: 20210301, 3: 20210303})), {}),
    "dates as text": (put("day", lambda d: d.map({0: "20210228", 1: "20210301", 3: "20210303"})), {}),
    "dates as categories": (put("day", lambda d: pd.Categorical(20210301 + d.astype(int))), {}),
    "hyphens": (put("day", lambda d: d.map({0: "D-1", 1: "D0", 3: "D01"})), {}),
    "hyphens of categories": (put("day", lambda d: d.map({0: "D-1", 1: "D0", 3: "D1"}).astype("category")), {}),
    "every cell its time": (put("day", np.linspace(0, 3, 108)), {"time_key": "day"}),
    "cell names twice": (index("obs", lambda names: ["x", "x", *names[2:]]), {}),
    "cell names of two levels": (index("obs", lambda n: pd.MultiIndex.from_arrays([["s"] * len(n), n])), {}),
    "gene names of two levels": (index("var", lambda n: pd.MultiIndex.from_arrays([["s"] * len(n), n])), {}),
    "a view of a file": (lambda adata, path: on_disk(adata, path)[::2], {}),
    "no components": (without("obsm", "X_pca"), {}),
    "no components, old loadings": (without("obsm", "X_pca"), {"velocity_key": "velocity"}),
    "text in a table": (
        at("obsm", "t", lambda a: pd.DataFrame({"a": a.obs["day"] + a.obsm["X_pca"][:, 0], "gate": "T"})),
        {"use_rep": "t"},
    ),
    "a genotype with a slash": (put("arm", np.tile(["WT", "RunX1/2Ko"], 54)), {"condition_key": "arm"}),
    "an empty condition": (put("arm", np.tile(["WT", ""], 54)), {"condition_key": "arm"}),
    "no loadings": (without("varm", "PCs"), {"velocity_key": "velocity"}),
    "loadings of another PCA": (
        at("varm", "PCs", lambda a: a.varm["PCs"] * [1, -1, -1, 1]),
        {"velocity_key": "velocity"},
    ),
    "velocities of a former PCA": (again, {"velocity_key": "velocity_projected"}),
    "no velocities": (without("layers", "velocity"), {"velocity_key": "velocity", "velocity_scale": 1.0}),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", FIT)
def test_the_advice_of_a_refused_fit(made, case, tmp_path):
    spoil, arguments = FIT[case]
    adata = spoil(made, tmp_path / "a.h5ad")
    adata = made if adata is None else adata
    with pytest.raises((ValueError, KeyError, TypeError)) as refused:
        fit(adata, **arguments)
    message = str(refused.value.args[0])
    adata = pasted(adata, message)
    if "bin_time" in message:
        arguments = arguments | {"time_key": "day_bin"}
    fit(adata, **arguments)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("double", ["day", "arm", "weight"])
def test_the_advice_for_columns_of_one_name(made, double):
    made.obs["weight"] = 1.0
    made.obs = pd.concat([made.obs, made.obs[[double]]], axis=1)
    arguments = {"weight_key": "weight", "condition_key": "arm"}
    with pytest.raises(ValueError, match="keep one") as refused:
        fit(made, **arguments)
    fit(pasted(made, str(refused.value)), **arguments)


OTHERS = {
    "velocity: a view": (lambda a, p: a[::2], lambda a: wlm.pp.velocity(a, method="steady_state")),
    "velocity: a file": (on_disk, lambda a: wlm.pp.velocity(a, method="steady_state")),
    "projection: no layer": (without("layers", "velocity"), wlm.pp.project_velocity),
    "projection: no loadings": (without("varm", "PCs"), wlm.pp.project_velocity),
    "projection: a mask of words": (
        at("var", "velocity_genes", lambda a: np.resize(["yes", "no"], a.n_vars)),
        wlm.pp.project_velocity,
    ),
    "predict: no fit": (lambda a, p: None, lambda a: wlm.tl.predict(a, 2)),
    "genes: names twice": (
        lambda a, p: (fit(a), index("var", lambda names: [names[0], *names[:-1]])(a, p)) and None,
        lambda a: wlm.pl.genes(a, ["3"]),
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", OTHERS)
def test_the_advice_of_other_functions(made, case, tmp_path):
    spoil, call = OTHERS[case]
    adata = spoil(made, tmp_path / "a.h5ad")
    adata = made if adata is None else adata
    with pytest.raises((ValueError, KeyError, TypeError)) as refused:
        call(adata)
    message = str(refused.value.args[0])
    if "time_key" in message:
        message = message.replace("time_key", "'day', n_steps=1")
    call(pasted(adata, message if "run " in message else f"run {message.rpartition(': ')[2]}"))


def test_the_advice_for_layers_of_another_name(made):
    renamed("mature", "nascent")(made, None)
    with pytest.raises(KeyError, match="rename them") as refused:
        wlm.pp.velocity(made, method="steady_state")
    made = pasted(made, "run " + refused.value.args[0].partition("rename them: ")[2])
    assert {"spliced", "unspliced"} <= set(made.layers) and "mature" not in made.layers


@pytest.mark.parametrize("kind", ["object", "category", "string"])
def test_the_advice_for_files_and_for_what_was_not_read(kind, tmp_path, made):
    """A path is no object: the advice reads it."""
    made.obs["arm"] = made.obs["arm"].astype(kind)
    made.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(TypeError, match="read_h5ad") as refused:
        wlm.pp.velocity(str(tmp_path / "a.h5ad"))
    assert pasted(None, str(refused.value)).n_obs == 108


# The doctor


DOCTOR = {
    "missing times": (put("day", lambda d: d.where(~FIRST)), "missing times", {}),
    "infinite times": (put("day", lambda d: d.where(~FIRST, np.inf)), "time", {}),
    "no components": (without("obsm", "X_pca"), "representation", {}),
    "counts in X": (
        lambda a, p: (without("obsm", "X_pca")(a, p), setattr(a, "X", a.layers["spliced"].copy())) and None,
        "representation",
        {},
    ),
    "no loadings": (without("varm", "PCs"), "loadings", {}),
    "loadings of another PCA": (at("varm", "PCs", lambda a: a.varm["PCs"] * [1, -1, -1, 1]), "loadings", {}),
    "velocities of a former PCA": (again, "velocity", {"velocity_key": "auto"}),
    "cell names twice": (index("obs", lambda names: ["x", "x", *names[2:]]), "cell names", {}),
    "text in a table": (
        at("obsm", "t", lambda a: pd.DataFrame({"a": a.obs["day"] + a.obsm["X_pca"][:, 0], "gate": "T"})),
        "representation",
        {"use_rep": "t"},
    ),
    "LSI": (at("obsm", "X_lsi", lambda a: a.obsm["X_pca"]), "representation", {"use_rep": "X_lsi"}),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", DOCTOR)
def test_the_advice_of_the_doctor(made, case, tmp_path, monkeypatch):
    monkeypatch.setattr(_doctor, "check_run_time", lambda *_: _checks.Finding("ok", "a second"))
    spoil, check, arguments = DOCTOR[case]
    spoil(made, tmp_path / "a.h5ad")
    before = wlm.pp.doctor(made, time_key="day", **arguments).set_index("check").loc[check]
    assert before.level != "ok"
    if case == "LSI":  # the depth is in one component, and known
        made.obs["n_counts"] = made.obsm["X_lsi"][:, 0] - made.obsm["X_lsi"].min()
    adata = pasted(made, before.advice)
    after = wlm.pp.doctor(adata, time_key="day", **arguments)
    assert _checks.LEVELS.index(after.set_index("check").loc[check].level) < _checks.LEVELS.index(before.level)
    assert not after["level"].eq("error").any()
    fit(adata, **{k: v for k, v in after.attrs["arguments"].items() if k != "time_key"})
