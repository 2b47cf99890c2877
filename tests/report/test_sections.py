"""Each section by itself: what it says, and why it is left out."""

import sys

import numpy as np
import pandas as pd
import pytest

import wlm
from wlm._report.blocks import LeftOut, Listing, Table, Words
from wlm._report.sections.fates import composition, fates
from wlm._report.sections.fitted import fitted as fitted_section
from wlm._report.sections.genes import drivers, genes
from wlm._report.sections.given import given
from wlm._report.sections.landscape import growth, landscape
from wlm._report.sections.limits import limits
from wlm._report.sections.methods import call, methods
from wlm._report.sections.missing import missing, on_map
from wlm._report.sections.scores import comparison, forecast, scorecard
from wlm._report.subject import read_subject
from wlm.core.methods import METHODS


def subject(adata, **options):
    names = ("label_key", "basis", "genes")
    return read_subject(
        adata,
        options.pop("key", "wlm"),
        options.pop("mod", None),
        **{name: options.pop(name, None) for name in names},
        tables=options,
        seed=0,
    )


def said(blocks):
    """All words of some blocks."""
    parts = []
    for block in blocks:
        parts += [block.text] if isinstance(block, Words) else list(block.items) if isinstance(block, Listing) else []
    return " ".join(parts)


def table(blocks, name):
    return next(block.frame for block in blocks if isinstance(block, Table) and block.name == name)


def left_out(section, of, *words):
    with pytest.raises(LeftOut) as error:
        section(of)
    assert all(word in f"{error.value.reason} {error.value.run}" for word in words), error.value.reason
    return True


@pytest.fixture
def bare(fitted):
    """Cells without labels, genes or maps."""
    del fitted.obs["fate"]
    return fitted[:, :0].copy()


def test_what_is_missing_is_left_out_with_the_reason(bare):
    s = subject(bare)
    assert s.label_key is None and s.map is None
    assert left_out(composition, s, "no column of obs is named like", "label_key=")
    assert left_out(on_map, s, "no embedding for drawing", "sc.tl.umap")
    assert left_out(genes, s, "no genes")
    assert left_out(growth, s, "conserves cells", "growth=True")
    assert left_out(drivers, s, "no table of drivers", "wlm.tl.drivers(adata, fate)")
    assert left_out(comparison, s, "no comparison", "wlm.tl.compare(adata, 'day'")
    assert left_out(forecast, s, "no back-test", "backtest=False")
    assert "no genes" in said(given(s))
    # One that needs nothing of these is there.
    assert table(landscape(s), "energy_by_time").columns.tolist() == ["day", "cells", "mean energy", "sd energy"]


def test_without_scores_the_reader_is_warned(cells, quick):
    wlm.tl.fit(cells, "day", **{**quick, "n_steps": 2})
    s = subject(cells)
    assert left_out(scorecard, s, "do not rely on", "wlm.tl.evaluate(adata, 'day')")
    assert "No time was held out and no scores were given" in said(limits(s))
    assert "One model, one seed (0)" in said(limits(s)) and "Cells are conserved" in said(limits(s))
    blocks = missing(s)
    assert table(blocks, "predicted_times")["day"].tolist() == [0.5, 1.5, 2.5, 3.5]
    assert not any(isinstance(b, Table) and b.name == "held_out_scores" for b in blocks)


def test_genes_that_cannot_be_decoded_say_what_to_run(fitted, cells, quick):
    fitted.X = fitted.X * 2  # no longer what the components were computed on
    with pytest.raises(ValueError, match="pass the layer= that does"):
        genes(subject(fitted))
    cells.obsm["X_latent"] = cells.obsm["X_pca"][:, :3].copy()
    wlm.tl.fit(cells, "day", use_rep="X_latent", **{**quick, "n_steps": 2})
    assert left_out(genes, subject(cells), "cannot be decoded", "genes=function")
    del cells.obsm["X_latent"]
    cells.X = cells.X.multiply(cells.X).tocsr()
    wlm.tl.fit(cells, "day", **{**quick, "n_steps": 2})
    assert left_out(genes, subject(cells), "no matrix of the object explains", "sc.pp.pca(adata)")


def test_genes_are_those_that_change_or_that_are_asked_for(fitted):
    s = subject(fitted)
    found = table(genes(s), "gene_trends")
    names = found["gene"].unique().tolist()
    # By hand: the decoded mean at each training time.
    x, loadings = fitted.obsm["X_pca"], fitted.varm["PCs"][:, :5]
    means = [x[(fitted.obs["day"] == t).to_numpy()].mean(axis=0) @ loadings.T for t in (0, 1, 3, 4)]
    change = np.where(fitted.var["wlm_decode_r2"] >= 0.3, np.ptp(means, axis=0), -1)
    assert names == fitted.var_names[np.argsort(-change, kind="stable")[: len(names)]].tolist()
    asked = genes(subject(fitted, genes="gene007"))
    assert set(table(asked, "gene_trends")["gene"]) == {"gene007"} and "as asked for" in said(asked)
    ranked = pd.DataFrame({"effect": [1.0, 0.5]}, index=["gene009", "gene001"])
    assert set(table(genes(subject(fitted, drivers=ranked)), "gene_trends")["gene"]) == {"gene009", "gene001"}


def test_labels_are_chosen_by_name_and_never_times_or_results(fitted):
    assert subject(fitted).label_key == "fate"
    fitted.obs["cell_type"] = "one"  # one label is none
    assert subject(fitted).label_key == "fate"
    fitted.obs["cell_type"] = pd.Categorical(np.where(fitted.obs["day"] < 2, "a", "b"))
    assert subject(fitted).label_key == "cell_type"
    fitted.obs["cell_type"] = fitted.obs["cell_type"].astype(object)
    fitted.obs.loc[fitted.obs_names[0], "cell_type"] = np.nan
    assert subject(fitted).label_key == "fate"
    fitted.obs["leiden"] = np.arange(fitted.n_obs) % 3  # numbers
    fitted.obs["wlm_cluster"] = "x"
    del fitted.obs["fate"]
    assert subject(fitted).label_key is None


def test_a_map_is_found_and_named_ones_are_taken(fitted):
    fitted.obsm["X_umap"], fitted.obsm["latent2"] = fitted.obsm["X_pca"][:, :2], fitted.obsm["X_pca"][:, 1:3]
    assert subject(fitted).map == "X_umap" and subject(fitted, basis="umap").map == "X_umap"
    assert subject(fitted, basis="latent2").map == "latent2"
    assert "not how far they are" in said(on_map(subject(fitted)))


def test_whether_it_fits_in_words(fitted):
    good = said(fitted_section(subject(fitted)))
    found = fitted.uns["wlm"]["training_times"]
    ratio = float((found["w1"] / found["floor"]).max())
    word = "meets its training data" if ratio <= 3 else "does not meet"
    assert word in good and f"{ratio:.3g} times" in good
    assert "Held out" not in good and "held out: day 2" in good
    assert "wlm.tl.diagnose(adata, seeds=3)" in good


def test_a_fit_that_misses_its_data_says_so(fitted):
    import copy

    from wlm._store.integrity import seal

    uns = copy.deepcopy(dict(fitted.uns["wlm"]))
    uns.pop("checksum")
    uns["training_times"] = {**uns["training_times"], "w1": 5 * uns["training_times"]["floor"]}
    fitted.uns["wlm"] = seal(uns)
    s = subject(fitted)
    words = next(b for b in fitted_section(s) if isinstance(b, Words) and "does not meet" in b.text)
    assert words.tone == "bad" and "day 1, day 3 and day 4" in words.text and "5 times" in words.text
    assert words.text in said(limits(s))


@pytest.mark.slow
def test_a_diagnosis_is_shown(fitted):
    found = wlm.tl.diagnose(fitted)
    blocks = fitted_section(subject(fitted))
    values = table(blocks, "diagnosis").set_index("quantity")["value"]
    assert values["friction"] == pytest.approx(found.loc["friction", "value"])
    assert values["inertia"] == pytest.approx(found.loc["inertia", "value"])
    energies = table(blocks, "energies")
    assert np.allclose(energies["kinetic"], fitted.uns["wlm_diagnosis"]["kinetic_path"])
    assert values["grown"] == 0 and not energies["grown"].any(), "cells are conserved"


def test_forecasts_that_are_no_better_than_a_copy_are_called_bad(fitted):
    import copy

    from wlm._store.integrity import seal

    uns = copy.deepcopy(dict(fitted.uns["wlm"]))
    uns.pop("checksum")
    w1 = np.array([[1.0, 1.5, 2, 2.5, 3], [1.0, 1.2, 1.4, 1.6, 1.8]])
    uns["forecast"] = {
        "time": 4.0,
        "lead": 1.0,
        "names": np.array(["model", "straight"], dtype=object),
        "pace": np.array([0, 0.25, 0.5, 0.75, 1]),
        "w1": w1,
        "by": "model",
        "share": 0.0,
        "words": "forecasts keep the cells where they were",
    }
    fitted.uns["wlm"] = seal(uns)
    s = subject(fitted)
    blocks = forecast(s)
    assert blocks[0].tone == "bad" and blocks[0].text == "Forecasts keep the cells where they were."
    assert np.allclose(table(blocks, "forecast_backtest")["w1"], w1.ravel())
    assert "do not forecast with this fit" in said(limits(s))


@pytest.mark.slow
def test_growth_is_shown_with_its_unit(cells, quick):
    wlm.tl.fit(cells, "day", growth=True, **{**quick, "n_steps": 2})
    s = subject(cells)
    blocks = growth(s)
    assert "Rates are relative" in said(blocks)
    rates = table(blocks, "growth_rates")
    by_hand = cells.obs.groupby(["day", "fate"], observed=True)["wlm_growth"].mean().to_numpy()
    assert np.allclose(rates["mean rate (1/time unit)"], by_hand, rtol=1e-4)
    assert "Growth is relative" in said(limits(s)) and "without a back-test" in LeftOut_of(forecast, s)


def LeftOut_of(section, s):
    with pytest.raises(LeftOut) as error:
        section(s)
    return error.value.reason


def test_scores_of_samples_left_out_are_explained_as_such(fitted):
    scores = pd.DataFrame(
        {"group": ["a", "a", "b", "b"], "time": 1.0, "model": ["wlm", "previous"] * 2, "seed": 0}
        | {"n_observed": 9, "n_predicted": 9, "w1": [1.0, 2.0, 1.5, 2.0]}
    )
    starts, copies = "previous: the cells that the prediction starts from", "previous: a copy of the cells"
    assert starts in said(scorecard(subject(fitted, evaluate=scores)))
    of_times = scores.drop(columns="group")
    assert copies in said(scorecard(subject(fitted, evaluate=of_times))), "the answers, if there is no verdict"
    of_times.attrs["verdict"] = scores.attrs["verdict"] = "WORSE THAN previous (+3 %, 95 % +1 to +5 %)"
    words = said(scorecard(subject(fitted, evaluate=of_times)))
    assert "WORSE THAN: " in words and copies in words and "what other cells of the same samples would" in words
    words = said(scorecard(subject(fitted, evaluate=scores)))
    assert starts in words and "what other samples would change" in words


def test_a_comparison_is_shown(fitted):
    rng = np.random.default_rng(0)
    fitted.obs["mouse"] = rng.choice([f"m{i}" for i in range(6)], fitted.n_obs)
    fitted.obs["arm"] = np.where(fitted.obs["mouse"] < "m3", "control", "drug")
    found = wlm.tl.compare(fitted, "day", "arm", sample_key="mouse", min_cells=5)
    blocks = comparison(subject(fitted, compare=found))
    assert np.allclose(table(blocks, "comparison")["effect"], found["effect"], equal_nan=True)
    assert found.attrs["verdict"].splitlines()[0] in said(blocks)


def test_problems_of_the_data_are_in_the_limits(fitted):
    fitted.obs["batch"] = fitted.obs["day"].map(lambda t: f"run {t:g}").astype("category")
    s = subject(fitted)
    doctor = s.doctor.set_index("check")
    assert doctor.loc["batch", "level"] == "warning"
    assert doctor.loc["batch", "found"] in said(limits(s)) and "warns about batch" in said(given(s))


def test_fates_of_another_fit_are_not_shown(fitted, quick):
    wlm.tl.terminal_states(fitted, n_states=2)
    wlm.tl.fates(fitted)
    stale = {name: fitted.uns[name] for name in ("wlm_terminal", "wlm_fates")}
    other = fitted.copy()
    wlm.tl.fit(other, "day", **{**quick, "n_steps": 3})
    other.uns |= stale
    s = subject(other)
    assert s.result("fates") is None
    assert "Found for this report" in said(fates(s))


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_has_its_report(cells, quick, method):
    options = {"n_steps": 2, "show_progress": False}
    options |= {k: quick[k] for k in ("batch_size", "width") if k in METHODS[method].__dataclass_fields__}
    wlm.tl.fit(cells, "day", method=method, **options)
    s = subject(cells)
    for section in (given, fitted_section, missing, genes, composition, fates, limits, methods):
        assert section(s), section.__name__
    assert call(s).startswith(f"wlm.tl.fit(adata, 'day', method={method!r}")
    assert METHODS[method].account and METHODS[method].account in said(methods(s))
    try:
        assert landscape(s)
    except LeftOut as error:
        assert "energy" in error.reason or "removed" in error.reason


def test_an_ensemble_has_its_spread(cells, quick):
    wlm.tl.fit(cells, "day", n_models=2, **{**quick, "n_steps": 2})
    s = subject(cells)
    text = said(fitted_section(s))
    sd = np.std(cells.uns["wlm"]["ensemble"]["friction"], ddof=1)
    assert "an ensemble of 2 models" in text and f"over 2 models {sd:.3g}" in text
    assert "one seed" not in said(limits(s)).lower() and "n_models=2" in call(s)


def test_fates_of_many_cells_are_left_to_the_user(fitted, monkeypatch):
    module = sys.modules["wlm._report.sections.fates"]

    monkeypatch.setattr(module, "MOST_CELLS", 299)
    assert left_out(fates, subject(fitted), "of 300 cells", "wlm.tl.terminal_states(adata")


def test_labels_that_are_none_are_refused(fitted):
    with pytest.raises(ValueError, match="holds numbers"):
        subject(fitted, label_key="latent_time")
