"""What is stored: older and newer formats, damage, other cells, small files, and reading a fit on its own."""

import copy
import logging
import os
from contextlib import nullcontext
from pathlib import Path

import anndata as ad
import mudata
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles import Drawn

import wlm
from wlm._store.integrity import checksum, seal

#: Formats of zarr that the installed anndata writes.
ZARR = ["zarr2", "zarr3"] if hasattr(ad.settings, "zarr_write_format") else ["zarr2"]
OLD = Path(__file__).parent / "data" / "fit_format1.h5ad"
EXAMPLES = int(os.environ.get("WLM_EXAMPLES", "200"))


@pytest.fixture
def warnings_of_wlm(caplog):
    logging.getLogger("wlm").addHandler(caplog.handler)
    yield caplog
    logging.getLogger("wlm").removeHandler(caplog.handler)


def test_a_fit_of_the_first_format_predicts_what_it_predicted_then():
    adata = ad.read_h5ad(OLD)
    assert adata.uns["wlm"]["format"] == 1 and "checksum" not in adata.uns["wlm"]
    predicted = wlm.tl.predict(adata, [2, 4], rng=1)
    np.testing.assert_allclose(predicted.obsm["X_pca"], adata.uns["expected"], rtol=1e-4, atol=1e-5)
    assert wlm.pl.training(adata, return_fig=True) is not None
    assert wlm.tl.diagnose(adata).loc["friction", "value"] == pytest.approx(adata.uns["wlm"]["friction"])


def test_a_fit_of_the_second_format_predicts_and_its_checksum_is_looked_at(fitted):
    expected = wlm.tl.predict(fitted, 2).obsm["X_pca"]
    uns = {k: v for k, v in fitted.uns["wlm"].items() if k != "checksum"} | {"format": 2}
    added = ("hyphen", "cells", "fingerprint")
    uns["time"] = {k: v for k, v in uns["time"].items() if k not in added}
    assert not set(added) & set(uns["time"]) and set(added) <= set(fitted.uns["wlm"]["time"])
    fitted.uns["wlm"] = seal(uns)
    assert np.array_equal(wlm.tl.predict(fitted, "day-2").obsm["X_pca"], expected)  # as such labels were read then
    fitted.uns["wlm"]["time"]["unit"] = "week"
    with pytest.raises(ValueError, match="is damaged: it is not what wlm.tl.fit wrote there"):
        wlm.tl.predict(fitted, 2)


def test_a_newer_format_is_refused_with_advice(fitted):
    fitted.uns["wlm"] |= {"format": 99, "version": "9.1"}
    with pytest.raises(ValueError, match=r"format 99, written by wlm 9.1; .* reads up to 4: update wlm"):
        wlm.tl.predict(fitted, 2)


def _round_trip(adata, path, kind):
    if kind == "h5ad":
        adata.write_h5ad(path)
        return ad.read_h5ad(path)
    if kind == "h5mu":
        mudata.MuData({"rna": adata}).write(path)
        return mudata.read(path)["rna"]
    with ad.settings.override(zarr_write_format=int(kind[-1])) if len(ZARR) > 1 else nullcontext():
        adata.write_zarr(path)
    return ad.read_zarr(path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["h5ad", "h5mu", *ZARR])
def test_the_checksum_survives_files_and_copies_and_predictions_are_the_same(fitted, tmp_path, kind):
    before = fitted.uns["wlm"]["checksum"]
    assert checksum(fitted.copy().uns["wlm"]) == before
    expected = wlm.tl.predict(fitted, [2, 5], rng=0).obsm["X_pca"]
    for k in range(2):  # what was read is written again
        fitted = _round_trip(fitted, tmp_path / f"{k}.{kind}", kind)
        assert checksum(fitted.uns["wlm"]) == before
        assert np.array_equal(wlm.tl.predict(fitted, [2, 5], rng=0).obsm["X_pca"], expected)
    if kind[:4] == "zarr" and len(ZARR) > 1:
        import zarr

        assert zarr.open_group(tmp_path / f"0.{kind}", mode="r").metadata.zarr_format == int(kind[-1])


def leaves(tree, path=()):
    """Paths of everything in nested dicts."""
    for key, value in tree.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))


def _at(tree, path):
    for key in path[:-1]:
        tree = tree[key]
    return tree, path[-1]


def _cut(value, rng):
    """The value with its end missing."""
    sized = isinstance(value, str) or np.ndim(value) > 0
    return value[: rng.integers(len(value))] if sized and len(value) else None


def _flip(value, rng):
    """The value with one of its bits, or characters, changed."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "iuf" and value.size:
        raw = bytearray(value.tobytes())
        raw[rng.integers(len(raw))] ^= 1 << rng.integers(8)
        return np.frombuffer(bytes(raw), dtype=value.dtype).reshape(value.shape)
    if isinstance(value, str) and value:
        i = rng.integers(len(value))
        return value[:i] + chr(ord(value[i]) ^ 1) + value[i + 1 :]
    return value + 1 if isinstance(value, (int, float, np.number)) and not isinstance(value, bool) else "other"


DAMAGE = {
    "removed": lambda parent, key, rng: parent.pop(key),
    "cut": lambda parent, key, rng: parent.__setitem__(key, _cut(parent[key], rng)),
    "flipped": lambda parent, key, rng: parent.__setitem__(key, _flip(parent[key], rng)),
    "none": lambda parent, key, rng: parent.__setitem__(key, None),
    "text": lambda parent, key, rng: parent.__setitem__(key, "garbage"),
    "number": lambda parent, key, rng: parent.__setitem__(key, -7),
    "dict": lambda parent, key, rng: parent.__setitem__(key, {}),
    "object": lambda parent, key, rng: parent.__setitem__(key, np.array([object()], dtype=object)),
    "nan": lambda parent, key, rng: parent.__setitem__(key, np.full(np.shape(parent[key]), np.nan)),
    "shape": lambda parent, key, rng: parent.__setitem__(key, np.zeros((3, *np.shape(parent[key])))),
    "added": lambda parent, key, rng: parent.__setitem__(f"{key}x", 1),
}


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_damaged_fit_is_refused_with_a_clear_error(_fitted, data):
    """Every damage to what is stored is found, before anything is computed, by whatever reads it."""
    adata = ad.AnnData(obs=_fitted.obs.copy(), obsm=dict(_fitted.obsm))
    uns = copy.deepcopy(dict(_fitted.uns["wlm"]))
    rng = Drawn(data)
    kinds = data.draw(st.lists(st.sampled_from(sorted(DAMAGE)), min_size=1, max_size=3))
    for kind in kinds:
        paths = sorted(leaves(uns))
        parent, key = _at(uns, paths[rng.integers(len(paths))])
        DAMAGE[kind](parent, key, rng)
    adata.uns["wlm"] = uns
    if checksum(uns) == _fitted.uns["wlm"]["checksum"] and uns.get("format") == 4:
        return  # a zero made zero
    reader = data.draw(st.sampled_from(["predict", "rollout", "training", "diagnose", "load"]))
    with pytest.raises((ValueError, KeyError)) as found:
        if reader == "predict":
            wlm.tl.predict(adata, 2)
        elif reader == "diagnose":
            wlm.tl.diagnose(adata)
        elif reader == "load":
            wlm._store.fit.parse_fit("wlm", uns) if "format" in uns else wlm._store.fit.read_fit(adata, "wlm")
        else:
            getattr(wlm.pl, reader)(adata)
    text = str(found.value)
    assert "uns['wlm']" in text and ("wlm.tl.fit" in text or "update wlm" in text), text


def _some(values, rng, other):
    """The values with a few in a row, wherever they begin, replaced by another."""
    first = rng.integers(len(values) - 5)
    return values.where((np.arange(len(values)) < first) | (np.arange(len(values)) >= first + 5), other)


#: What other tools make of a column of times after a fit; whether it still says the same.
REWRITTEN = {
    "text": (lambda d, r: d.map("{:g}".format), True),
    "labels": (lambda d, r: d.map("D{:g}".format), True),
    "separated": (lambda d, r: d.map("day {:g}".format), True),
    "categories": (lambda d, r: d.astype("category"), True),
    "single precision": (lambda d, r: d.astype(np.float32), True),
    "nullable": (lambda d, r: d.astype("Int64"), True),
    "rounding": (lambda d, r: d + 1e-12, True),
    "hours": (lambda d, r: d * 24, False),
    "labels in hours": (lambda d, r: (d * 24).map("{:g}h".format), False),
    "numbers of another order": (lambda d, r: d.map({0: 4, 1: 0, 2: 3, 3: 1, 4: 2}), False),
    "shifted": (lambda d, r: d - 1, False),
    "shuffled": (lambda d, r: d.to_numpy()[::-1].copy(), False),
    "some others": (lambda d, r: _some(d, r, 4.0), None),
    "some missing": (lambda d, r: _some(d, r, np.nan), False),
    "NA of R": (lambda d, r: _some(d.astype("i4"), r, np.iinfo("i4").min), False),
    "some infinite": (lambda d, r: _some(d, r, np.inf), False),
    "dates": (lambda d, r: d.astype(int) + 20210301, False),
    "hyphens": (lambda d, r: d.map("D-{:g}".format), None),
    "words": (lambda d, r: d.map(lambda t: "late" if t else "early"), False),
}


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(REWRITTEN)), st.data())
def test_a_rewritten_column_of_times_is_refused_or_says_the_same(_fitted, how, data):
    adata = ad.AnnData(obs=_fitted.obs.copy(), obsm=dict(_fitted.obsm), uns={"wlm": _fitted.uns["wlm"]})
    rewrite, same = REWRITTEN[how]
    adata.obs["day"] = rewrite(adata.obs["day"].astype(float), Drawn(data))
    try:
        found = wlm.tl.predict(adata, 4, from_time=3, n_cells=5, rng=0)
    except (ValueError, TypeError) as error:
        assert not same and "obs['day']" in str(error), f"{how}: {error}"
    else:
        expected = wlm.tl.predict(_fitted, 4, from_time=3, n_cells=5, rng=0)
        assert same is not False, how
        assert found.obs["origin"].tolist() == expected.obs["origin"].tolist(), how


def test_only_what_is_there_is_read_and_a_resealed_forgery_cannot_run_code(fitted):
    """A checksum is no signature: who edits on purpose can seal again, and gets what arrays and JSON can say."""
    fitted.uns["wlm"]["config"] = '{"n_steps": "__import__(\'os\').abort()"}'
    fitted.uns["wlm"] = seal(fitted.uns["wlm"])
    with pytest.raises(ValueError, match="damaged .*n_steps must be an integer"):
        wlm.tl.predict(fitted, 2)


def test_subsets_views_and_new_cells_predict_and_are_told_that_the_fit_is_stale(fitted, warnings_of_wlm):
    whole = wlm.tl.predict(fitted.copy(), 4, from_time=3, rng=0)
    assert "stale" not in warnings_of_wlm.text
    shuffled = fitted[np.random.default_rng(0).permutation(fitted.n_obs)]
    wlm.tl.predict(shuffled, 4)
    assert "stale" not in warnings_of_wlm.text, "the order of cells is not theirs"
    part = fitted[fitted.obs["day"] >= 3]
    moved = wlm.tl.predict(part, 4, from_time=3, rng=0)
    assert "stale: it was fitted on 300 cells, other cells than these 120" in warnings_of_wlm.text
    assert np.array_equal(moved.obsm["X_pca"], whole.obsm["X_pca"])
    warnings_of_wlm.clear()
    new = fitted[:7].copy()
    new.obs_names = [f"new{i}" for i in range(7)]
    both = ad.concat([fitted, new], uns_merge="first")
    wlm.tl.predict(both, 4, from_time=3)
    assert "these 307" in warnings_of_wlm.text
    warnings_of_wlm.clear()
    others = [6, 7]
    fitted.obsm["X_pca"][others] += 0.5
    sample = fitted.uns["wlm"]["representation"]["cells"]
    assert not set(fitted.obs_names[others]) & set(sample), "choose cells that are not in the sample"
    wlm.tl.predict(fitted, 4)
    assert "cells of the same names, whose coordinates are not all the same" in warnings_of_wlm.text
    with pytest.raises(KeyError, match="run wlm.tl.fit"):
        wlm.tl.predict(ad.concat([fitted[:10], new]), 4)  # anndata drops uns


def test_another_representation_is_refused(fitted):
    fitted.obsm["X_pca"] = -fitted.obsm["X_pca"]
    with pytest.raises(ValueError, match="is not the representation .* restore it, or run wlm.tl.fit again"):
        wlm.tl.predict(fitted, 4)


@pytest.mark.slow
def test_a_fit_without_its_model_is_small_and_says_so(cells, quick, tmp_path):
    wlm.tl.fit(cells, "day", n_models=2, store_model=False, **quick)
    assert {"weights", "ensemble", "rollout"}.isdisjoint(cells.uns["wlm"])
    assert np.isfinite(cells.obs["wlm_potential"]).all() and "friction" in cells.uns["wlm"]
    size = sum(np.asarray(v).nbytes for v in cells.uns["wlm"]["history"].values())
    assert size < 10_000
    for call in (lambda: wlm.tl.predict(cells, 5), lambda: wlm.tl.diagnose(cells), lambda: wlm.pl.rollout(cells)):
        with pytest.raises(ValueError, match="stored without its model; .*store_model=True"):
            call()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_the_dynamics_are_read_from_a_file_without_its_cells(fitted, tmp_path, suffix):
    path = tmp_path / f"fit.{suffix}"
    getattr(fitted, f"write_{suffix}")(path)
    dynamics = wlm.load(path)
    here = (fitted.obs["day"] == 3).to_numpy()
    x = fitted.obsm["X_pca"][here]
    np.testing.assert_allclose(dynamics.energy(x, 3.0), fitted.obs["wlm_potential"][here], rtol=1e-5)
    np.testing.assert_allclose(dynamics.force(x, 3.0), fitted.obsm["wlm_force"][here], rtol=1e-4, atol=1e-6)
    assert dynamics.rates()["friction"] == pytest.approx(fitted.uns["wlm"]["friction"])
    with pytest.raises(KeyError, match="'uns/other' is missing"):
        wlm.load(path, key="other")


def test_files_that_hold_no_fit_are_refused(fitted, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no"):
        wlm.load(tmp_path / "none.h5ad")
    for name, message in (("fit.csv", "must end in"), ("fit.h5ad", "cannot be read")):
        (tmp_path / name).write_text("no such file")
        with pytest.raises(ValueError, match=message):
            wlm.load(tmp_path / name)
    fitted.uns["mine"] = {"a": 1}
    fitted.uns["wlm"]["friction"] = 7.0
    fitted.write_h5ad(tmp_path / "damaged.h5ad")
    with pytest.raises(ValueError, match="was not written by wlm.tl.fit"):
        wlm.load(tmp_path / "damaged.h5ad", key="mine")
    with pytest.raises(ValueError, match="is damaged"):
        wlm.load(tmp_path / "damaged.h5ad")
