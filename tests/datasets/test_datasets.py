"""Simulated cells against their own truth, and the download path against a loopback server."""

import dataclasses
import gzip
import hashlib
import http.server
import io
import threading

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy.io import mmwrite
from scipy.sparse import csr_matrix
from scipy.stats import kstest, poisson

import wlm
from wlm.datasets import _bifurcation, _fetch, _larry, _particles, _real
from wlm.datasets._fetch import Source, fetch
from wlm.datasets._potentials import JKO_POTENTIALS, slope


def test_bifurcation_has_what_it_promises():
    adata = wlm.datasets.bifurcation(80, n_genes=30)
    assert adata.shape == (400, 30) and adata.obs_names.is_unique
    assert adata.obs["day"].unique().tolist() == [0, 1, 2, 3, 4]
    assert (adata.X != adata.layers["spliced"]).nnz == 0
    assert set(adata.obs["fate"].cat.categories) == {"A", "B"} and adata.obs["fate"].value_counts().min() > 100
    for layer in ("spliced", "unspliced"):
        counts = adata.layers[layer].toarray()
        assert counts.dtype == np.float32 and (counts >= 0).all() and np.array_equal(counts, counts.round())


def test_drift_is_minus_the_gradient_of_the_potential():
    z, h = np.random.default_rng(0).uniform(-1, 1.5, (50, 2)), 1e-6
    for k, e in enumerate(np.eye(2)):
        slope = (_bifurcation.potential(z + h * e) - _bifurcation.potential(z - h * e)) / (2 * h)
        assert np.allclose(-slope, _bifurcation._drift(z)[:, k], atol=1e-6)


def test_cells_progress_and_branch():
    adata = wlm.datasets.bifurcation(400, rng=2)
    z, day = adata.obsm["latent"], adata.obs["day"].to_numpy()
    assert (np.diff([z[day == d, 0].mean() for d in range(5)]) > 0.1).all()
    spread = [np.abs(z[day == d, 1]).mean() for d in range(5)]
    assert spread[4] > 4 * spread[0]
    last = day == 4
    assert np.array_equal(adata.obs["fate"][last] == "A", z[last, 1] > 0)
    assert np.allclose(adata.obs["true_potential"], _bifurcation.potential(z), atol=1e-4)


def test_true_velocity_is_the_change_of_the_expected_counts():
    """The same cells followed one step longer: the mean change of their counts is the step times their velocity."""
    short, long = (wlm.datasets.bifurcation(400, days=[d, 4], noise=False, rng=3) for d in (2.0, 2.05))
    short, long = short[:400], long[:400]
    change = (long.layers["spliced"] - short.layers["spliced"]).toarray() / 0.05
    velocity = 0.5 * (short.layers["true_velocity"] + long.layers["true_velocity"])
    assert np.corrcoef(change.ravel(), velocity.ravel())[0, 1] > 0.995
    assert np.abs(change - velocity).mean() < 0.05 * np.abs(velocity).mean() + 1e-2
    still = wlm.datasets.bifurcation(50, noise=False)
    still = still[still.obs["day"] == 0]
    assert np.abs(still.layers["true_velocity"]).max() < 1e-3 * still.layers["spliced"].max()


def test_counts_are_poisson_given_their_means():
    noisy, mean = (wlm.datasets.bifurcation(300, n_genes=10, noise=n, rng=5) for n in (True, False))
    first = noisy.obs["day"].to_numpy() == 0
    housekeeping = np.flatnonzero(noisy.var["program"] == "housekeeping")[0]
    level = mean.layers["spliced"].toarray()[first, housekeeping]
    assert np.allclose(level, level[0])
    counts = noisy.layers["spliced"].toarray()[first, housekeeping]
    # Capture spreads the mean by 20 % on top: the counts are wider than Poisson, but not by much.
    assert 0.8 * level[0] < counts.mean() < 1.25 * level[0] and counts.var() < 1.2 * level[0] + (0.3 * level[0]) ** 2
    assert kstest(poisson.rvs(level[0], size=300, random_state=0), counts).statistic < 0.2


def test_leaving_days_out_does_not_change_the_others():
    full, part = wlm.datasets.bifurcation(30, rng=1), wlm.datasets.bifurcation(30, rng=1, leave_out=[2])
    rest = full[full.obs["day"] != 2]
    assert part.obs_names.equals(rest.obs_names) and (part.X != rest.X).nnz == 0


def test_goes_through_scanpys_usual_steps():
    adata = wlm.datasets.bifurcation(100)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=10)
    pc = adata.obsm["X_pca"]
    progress = np.abs(np.corrcoef(np.c_[pc[:, :3], adata.obsm["latent"]].T))[:3, 3:]
    assert progress[:, 0].max() > 0.85 and progress[:, 1].max() > 0.85


@pytest.mark.parametrize(
    "call", [{"n_cells": 1}, {"n_genes": 2}, {"days": [1, 1]}, {"days": [-1, 0]}, {"leave_out": [7]}], ids=str
)
def test_impossible_simulations(call):
    with pytest.raises(ValueError, match="found|names"):
        wlm.datasets.bifurcation(**call)


@pytest.fixture
def server(tmp_path):
    """A loopback HTTP server; yields its address, the folder it serves, and the list of requested paths."""
    served, requests = tmp_path / "served", []
    served.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(served))

        def log_message(self, *args):
            requests.append(self.path)

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}", served, requests
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("WLM_DATA_DIR", str(folder))
    return folder


def git_sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@pytest.mark.parametrize("checksum", ["sha256", "git_sha1"])
def test_downloads_once_verifies_and_caches(server, cache, checksum):
    url, served, requests = server
    data = b"cells" * 1000
    (served / "f.bin").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest() if checksum == "sha256" else git_sha1(data)
    source = Source("f.bin", f"{url}/f.bin", **{checksum: digest})
    assert fetch(source).read_bytes() == data and fetch(source).read_bytes() == data
    assert len(requests) == 1 and [p.name for p in cache.iterdir()] == ["f.bin"]


def test_a_wrong_file_is_neither_kept_nor_used(server, cache):
    url, served, _ = server
    (served / "f.bin").write_bytes(b"other")
    source = Source("f.bin", f"{url}/f.bin", sha256="0" * 64)
    with pytest.raises(ValueError, match="not the expected file"):
        fetch(source)
    assert list(cache.iterdir()) == []
    (cache / "f.bin").write_bytes(b"tampered")
    with pytest.raises(ValueError, match="delete it and call again"):
        fetch(source)


def test_no_network_names_the_folder_to_put_the_file_in(server, cache):
    url, _, _ = server
    with pytest.raises(ConnectionError, match=f"put it into {cache}"):
        fetch(Source("f.bin", f"{url}/missing.bin", sha256="0" * 64))
    with pytest.raises(FileNotFoundError, match="no public address"):
        wlm.datasets.vortex()


def test_full_embryoid_bodies_from_a_file_of_the_same_layout(server, cache, monkeypatch):
    url, served, _ = server
    rng = np.random.default_rng(0)
    pcs, labels = rng.normal(size=(50, 100)) * 3 + 1, np.arange(50) % 5
    np.savez(served / "eb.npz", pcs=pcs, pcs_delta=pcs / 7, sample_labels=labels, phate=rng.normal(size=(50, 2)))
    data = (served / "eb.npz").read_bytes()
    monkeypatch.setattr(_real, "_EB_FULL", Source("eb.npz", f"{url}/eb.npz", git_sha1=git_sha1(data)))
    adata = wlm.datasets.embryoid_body(full=True)
    z = adata.obsm["X_pca"]
    assert z.shape == (50, 100) and np.allclose(z.mean(0), 0, atol=1e-5) and np.allclose(z.std(0), 1, atol=1e-5)
    assert np.allclose(adata.obsm["velocity_pca"], pcs / pcs.std(0) / 7, atol=1e-5)
    table = wlm.datasets.embryoid_body()
    assert np.allclose(table.obsm["X_pca"], z[:, :5], atol=1e-6) and "velocity_pca" not in table.obsm
    assert table.obs["time"].tolist() == labels.tolist()


@pytest.fixture
def larry_files(server, cache, monkeypatch):
    """The authors' files in small: 6 cells, 4 genes, 3 clones."""
    url, served, requests = server
    table = pd.DataFrame(
        {
            "Library": ["d2", "d2", "LK", "LK", "LSK", "LSK"],
            "Cell barcode": ["AA-C", "AT-C", "AA-C", "GG-C", "GG-C", "TT-C"],
            "Time point": [2.0, 2.0, 4.0, 4.0, 6.0, 6.0],
            "Starting population": ["Lin-Kit+Sca1+", "Lin-Kit+Sca1-"] * 3,
            "Cell type annotation": ["undiff", "undiff", "Monocyte", "undiff", "Neutrophil", "Monocyte"],
            "Well": [0, 0, 1, 2, 1, 2],
            "SPRING-x": np.arange(6.0),
            "SPRING-y": -np.arange(6.0),
        }
    )
    counts, clones = (
        np.arange(24.0).reshape(6, 4),
        np.array([[1, 0, 0], [0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]]),
    )
    contents = {
        "metadata.txt": table.to_csv(sep="\t", index=False).encode(),
        "gene_names.txt": b"Gata1\nMpo\nSpi1\nMpo\n",
    }
    for name, matrix in {"normed_counts.mtx": counts, "clone_matrix.mtx": clones}.items():
        buffer = io.BytesIO()
        mmwrite(buffer, csr_matrix(matrix))
        contents[name] = buffer.getvalue()
    for name, data in contents.items():
        (served / f"{name}.gz").write_bytes(gzip.compress(data))
    for which, name in {
        "_METADATA": "metadata.txt",
        "_CLONES": "clone_matrix.mtx",
        "_COUNTS": "normed_counts.mtx",
        "_GENES": "gene_names.txt",
    }.items():
        monkeypatch.setattr(_larry, which, Source(f"{name}.gz", f"{url}/{name}.gz", gzipped=True))
    return served, counts, clones, requests


def test_larry_is_what_its_authors_files_say(larry_files, cache):
    _, counts, clones, requests = larry_files
    small = wlm.datasets.larry(genes=False)
    assert len(requests) == 2 and small.n_vars == 0  # neither counts nor genes are fetched
    adata = wlm.datasets.larry()
    assert len(requests) == 4 and (adata.X.toarray() == counts).all() and adata.X.dtype == np.float32
    assert adata.var_names.tolist() == ["Gata1", "Mpo", "Spi1", "Mpo-1"] and adata.obs_names[2] == "LK_AA-C"
    for found in (small, adata):
        assert found.obs["day"].tolist() == [2, 2, 4, 4, 6, 6] and found.obs_names.is_unique
        assert found.obs["cell_type"].tolist()[2:5] == ["Monocyte", "undiff", "Neutrophil"]
        assert found.obs["well"].tolist() == list("001212") and found.obs["library"].tolist()[-1] == "LSK"
        assert (found.obsm["X_clone"].toarray() == clones).all()
        assert (found.obsm["X_spring"] == np.stack([np.arange(6), -np.arange(6)], 1)).all()
    for name in ("normed_counts.mtx.gz", "metadata.txt.gz"):  # what was read once is kept in one file
        (cache / name).unlink()
    assert (wlm.datasets.larry().X.toarray() == counts).all() and len(requests) == 4


def test_larry_refuses_files_that_are_damaged_or_of_other_cells(larry_files, cache):
    served, counts, _, _ = larry_files
    whole = (served / "normed_counts.mtx.gz").read_bytes()
    (served / "normed_counts.mtx.gz").write_bytes(whole[:-9])
    with pytest.raises(ValueError, match="not the expected file"):
        wlm.datasets.larry()
    assert not (cache / "normed_counts.mtx.gz").exists() and not (cache / "larry.h5ad").exists()
    buffer = io.BytesIO()
    mmwrite(buffer, csr_matrix(counts[:5]))
    (served / "normed_counts.mtx.gz").write_bytes(gzip.compress(buffer.getvalue()))
    with pytest.raises(ValueError, match="5 rows, and there are 6 cells"):
        wlm.datasets.larry()
    (cache / "metadata.txt.gz").write_bytes(gzip.compress(b"Library\tTime point\nd2\t2\n"))
    with pytest.raises(ValueError, match="no columns .*Cell type annotation"):
        wlm.datasets.larry(genes=False)


def small_file(path, clones, **changed):
    """A file of CoSpar's layout in small: 5 cells, 3 genes."""
    parts = {
        "x": np.array([[0, 2, 0], [1, 0, 0], [0, 0, 3], [4, 5, 0], [0, 0, 0]]),
        "days": ["2", "4", "4", "6", "6"],
        "states": ["undiff", "Baso", "undiff", "Monocyte", "Baso"],
        **changed,
    }
    obs = pd.DataFrame(
        {"time_info": parts["days"], "state_info": parts["states"]}, index=list("19753"), dtype="category"
    )
    ad.AnnData(
        csr_matrix(parts["x"].astype(np.float32)),
        obs=obs,
        var=pd.DataFrame(index=["Gata1", "Mpo", "Spi1"]),
        obsm={"X_emb": np.arange(10.0).reshape(5, 2), "X_clone": csr_matrix(clones, dtype=float), "X_pca": np.eye(5)},
    ).write_h5ad(path)
    return path


def test_the_small_larry_is_what_its_file_says_whatever_clones_it_has(server, cache, tmp_path, monkeypatch):
    url, served, requests = server
    every = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0], [0, 0, 1]])
    path = small_file(served / "all.h5ad", every)
    digest = hashlib.sha256(_larry._shared(path)).hexdigest()
    source = dataclasses.replace(_larry._SMALL, url=f"{url}/all.h5ad", sha256=digest)
    monkeypatch.setattr(_larry, "_SMALL", source)
    adata = wlm.datasets.larry_clones()
    assert len(requests) == 1 and (adata.obsm["X_clone"].toarray() == every).all()
    assert adata.obs["day"].tolist() == [2, 4, 4, 6, 6] and adata.obs["cell_type"].tolist()[1:3] == ["Baso", "undiff"]
    assert adata.var_names.tolist() == ["Gata1", "Mpo", "Spi1"] and adata.X.dtype == np.float32
    assert adata.X.toarray()[3].tolist() == [4, 5, 0] and adata.obsm["X_spring"][4].tolist() == [8, 9]
    assert set(adata.obsm) == {"X_spring", "X_clone"}  # components without loadings would decode no genes
    small_file(cache / "larry_clones.h5ad", every[:, :2])
    assert wlm.datasets.larry_clones().obsm["X_clone"].shape == (5, 2) and len(requests) == 1
    changes = ({"x": np.ones((5, 3))}, {"days": list("22466")}, {"states": ["undiff"] * 5})
    for changed in changes:
        small_file(cache / "larry_clones.h5ad", every, **changed)
        with pytest.raises(ValueError, match="not the expected file"):
            wlm.datasets.larry_clones()
    (cache / "larry_clones.h5ad").write_bytes(b"no HDF5 at all")
    with pytest.raises(ValueError, match="not the expected file"):
        wlm.datasets.larry_clones()


def test_sources_are_pinned():
    for source in (_real._EB_FULL, _real._EB_TABLE, _real._EMT, _real._VORTEX):
        assert (source.sha256 is None) != (source.git_sha1 is None) and not source.gzipped
        assert source.url is None or source.url.startswith("https://")
    for source in (_larry._METADATA, _larry._CLONES, _larry._COUNTS, _larry._GENES):
        assert source.gzipped and source.url.startswith("https://") and source.url.endswith(source.name)
    commit = _larry._SMALL.url.split("/")[5]
    assert len(_larry._SMALL.sha256) == 64 and len(commit) == 40 and set(commit) <= set("0123456789abcdef")


@pytest.mark.shared
def test_real_data(real_data, monkeypatch):
    monkeypatch.setenv("WLM_DATA_DIR", str(real_data))
    eb, emt, vortex = wlm.datasets.embryoid_body(), wlm.datasets.emt(), wlm.datasets.vortex()
    assert eb.obs["time"].value_counts().sort_index().tolist() == [2381, 4163, 3278, 3665, 3332]
    assert np.allclose(eb.obsm["X_pca"].std(0), 1, atol=1e-4)
    blood = wlm.datasets.larry_clones()
    assert blood.obs["day"].value_counts().sort_index().tolist() == [34, 316, 431] and blood.n_vars == 2481
    assert np.allclose(blood.X.sum(axis=1), 10_000, rtol=1e-5) and blood.obs["cell_type"].nunique() == 12
    assert {"Gata1", "Klf4", "Gfi1"} <= set(blood.var_names) and blood.obsm["X_clone"].shape[0] == 781
    assert emt.obsm["X_latent"].shape == (3133, 10) and vortex.obsm["X_position"].shape == (999, 2)


def test_cache_folder_without_the_variable(monkeypatch):
    monkeypatch.delenv("WLM_DATA_DIR", raising=False)
    assert _fetch.cache_folder().name == "wlm"


@pytest.mark.parametrize("name", sorted(_particles.POTENTIALS))
def test_gradients_are_those_of_the_potentials(name):
    energy, gradient = _particles.POTENTIALS[name]
    x, h = np.random.default_rng(0).normal(size=(50, 2)), 1e-6
    slope = [(energy(x + h * e) - energy(x - h * e)) / (2 * h) for e in np.eye(2)]
    assert np.allclose(np.stack(slope, 1), gradient(x), atol=1e-5)


def test_gradient_flow_of_the_quadratic_potential_is_an_ornstein_uhlenbeck_process():
    adata = wlm.datasets.gradient_flow_sde("quadratic", 20_000, n_times=5, dt=0.1, sigma=0.8, rng=1)
    t, x = adata.obs["time"].to_numpy(), adata.obsm["X_position"]
    for s in np.unique(t):
        variance = 0.2 * np.exp(-2 * s) + 0.32 * (1 - np.exp(-2 * s))
        assert x[t == s].var() == pytest.approx(variance, rel=0.03)
        assert abs(x[t == s].mean()) < 0.01
    # The canonical velocity at the first time, where the density is N(0, 0.2): (sigma^2 / 2 / 0.2 - 1) x.
    assert np.allclose(adata.obsm["velocity"][t == 0], (0.32 / 0.2 - 1) * x[t == 0], atol=1e-5)
    assert np.isnan(adata.obsm["velocity"][t > 0]).all()
    assert np.allclose(adata.obsm["true_drift"], -x) and np.allclose(
        adata.obs["true_potential"], (x**2).sum(1) / 2, atol=1e-5
    )


def test_pairing_of_the_gradient_flows():
    together, apart = (
        wlm.datasets.gradient_flow_sde("wavy_plateau", 2000, n_times=3, paired=p).obsm["X_position"].reshape(3, -1)
        for p in (True, False)
    )
    assert np.corrcoef(together[0], together[2])[0, 1] > 0.8 and abs(np.corrcoef(apart[0], apart[2])[0, 1]) < 0.1


def test_boids_obey_their_rules():
    alone = wlm.datasets.boids(30, n_times=5, radius=1e-9, separation_radius=0, limit=1e9, rng=1)
    x, v = (alone.obsm[k].reshape(5, 30, 2) for k in ("X_position", "velocity"))
    assert np.allclose(x, x[0] + 0.5 * np.arange(5)[:, None, None] * v[0], atol=1e-4)  # nobody in sight: straight on
    # Everyone in sight, alignment alone: velocities relax to their mean, which is kept.
    flock = wlm.datasets.boids(30, n_times=20, radius=1e9, cohesion=0, separation=0, limit=1e9, rng=1)
    v = flock.obsm["velocity"].reshape(20, 30, 2)
    assert np.allclose(v.mean(1), v[0].mean(0), atol=1e-5) and v[-1].std() < 0.1 * v[0].std()
    # A pair: attraction of cohesion, repulsion of separation, equal and opposite.
    for weights, sign in (({"cohesion": 0.1, "separation": 0}, 1), ({"cohesion": 0, "separation": 0.1}, -1)):
        pair = wlm.datasets.boids(2, n_times=2, radius=1e9, separation_radius=1e9, alignment=0, limit=1e9, **weights)
        x, v = (pair.obsm[k].reshape(2, 2, 2) for k in ("X_position", "velocity"))
        change = (v[1] - v[0]) / 0.5
        assert np.allclose(change[0], sign * 0.1 * (x[0, 1] - x[0, 0]), atol=1e-5) and np.allclose(
            change.sum(0), 0, atol=1e-5
        )
    out = wlm.datasets.boids(50, n_times=200, rng=0)
    assert np.linalg.norm(out.obsm["X_position"], axis=1).max() < 9  # the boundary turns them back


def test_the_repressilator_oscillates_and_its_velocity_is_that_of_its_law():
    out = wlm.datasets.repressilator(100, n_times=41, rng=0)
    x, v = (out.obsm[k].reshape(41, 100, 3) for k in ("X_genes", "true_velocity"))
    assert np.array_equal(out.X, out.obsm["X_genes"])
    mean = x.mean(1)
    crossings = (np.diff(np.sign(mean - mean.mean(0)), axis=0) != 0).sum(0)
    assert (crossings >= 3).all(), "each gene goes up and down more than once"
    # Central differences of the mean; every time has cells of its own, so they are as noisy as these are few. The start
    # is left out, where transcripts change within less than an interval.
    slope, true = ((mean[2:] - mean[:-2]) / 2)[3:], v.mean(1)[1:-1][3:]
    assert np.corrcoef(slope.ravel(), true.ravel())[0, 1] > 0.99
    assert np.polyfit(true.ravel(), slope.ravel(), 1)[0] == pytest.approx(1, abs=0.1)
    # The genes take their turns in a ring: each peaks after the one that its repressor represses has.
    phase = [int(np.argmax(mean[10:30, i])) for i in range(3)]
    assert len(set(phase)) == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: wlm.datasets.repressilator(1), "at least 2 cells and 2 times"),
        (lambda: wlm.datasets.repressilator(duration=0), "duration must be positive"),
        (lambda: wlm.datasets.gradient_flow_sde("cubic"), "potential must be one of"),
        (lambda: wlm.datasets.gradient_flow_sde(n_times=1), "at least 2 particles and 2 times"),
        (lambda: wlm.datasets.gradient_flow_sde(dt=0), "dt must be positive"),
        (lambda: wlm.datasets.boids(1), "at least 2 boids"),
        (lambda: wlm.datasets.boids(radius=-1), "dt and radius must be positive and separation_radius between"),
    ],
)
def test_particles_refuse_what_cannot_be_simulated(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# The fifteen potentials of the plane

#: Values at (1, 2) by hand, of the formulas in the papers.
AT_1_2 = {
    "styblinski_tang": 0.5 * (1 - 16 + 5 + 16 - 64 + 10),
    "holder_table": 10 * abs(np.sin(1) * np.cos(2) * np.exp(abs(1 - np.sqrt(5) / np.pi))),
    "zigzag_ridge": 1 + 3 * np.cos(1) + 2,
    "oakley_ohagan": 5 * (np.sin(1) + np.cos(1) + 2 + np.sin(2) + np.cos(2) + 6),
    "watershed": (1 + 6) / 10,
    "ishigami": np.sin(1) + 7 * np.sin(2) ** 2 + 0.1 * 1.5**4 * np.sin(1),
    "friedman": (
        10 * np.sin(np.pi * 60)
        + 20 * (-12 * np.sin(-5) - 0.5) ** 2
        + 10 * (-12 * np.cos(-5) - 1) ** 2
        + 0.5 * np.sin(12)
    )
    / 100,
    "sphere": -50,
    "bohachevsky": 10 * (1 + 8 + 0.3 - 0.4),
    "flowers": 1 + 2 * np.sin(1) + 2 + 2 * np.sin(2**1.2),
    "wavy_plateau": -1 + 0.5 - 3 + 1 + 1 + 8 - 12 + 1,
    "double_exp": 200 * (np.exp(-5 / 20) + np.exp(-41 / 20)),
    "relu": -150,
    "rotational": -500 * (np.arctan2(7, 6) + np.pi),
    "flat": 0,
}


@pytest.mark.parametrize("name", JKO_POTENTIALS)
def test_potentials_have_the_values_and_slopes_of_their_formulas(name):
    value, gradient = slope(name, np.array([[1.0, 2.0]]))
    assert np.allclose(value, AT_1_2[name], atol=1e-9)
    x, h = np.random.default_rng(0).uniform(-3, 3, (20, 2)), 1e-6
    for i, e in enumerate(np.eye(2)):
        difference = (slope(name, x + h * e)[0] - slope(name, x - h * e)[0]) / (2 * h)
        assert np.allclose(slope(name, x)[1][:, i], difference, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("paired", [True, False])
def test_potential_flow_takes_explicit_steps_from_a_square(paired):
    adata = wlm.datasets.potential_flow("watershed", 40, n_times=3, dt=0.1, paired=paired, rng=3)
    x = adata.obsm["X_position"].reshape(3, 40, 2)
    step = x[0] + 0.1 * adata.obsm["true_drift"][:40]
    assert np.abs(x[0]).max() <= 4
    assert np.allclose(x[1], step, atol=1e-5) == paired
    assert adata.obs["time"].unique().tolist() == [0, 0.1, 0.2]
    again = wlm.datasets.potential_flow("watershed", 40, n_times=3, dt=0.1, paired=paired, rng=3)
    assert np.array_equal(adata.obsm["X_position"], again.obsm["X_position"])


def test_potential_flow_says_what_it_wants():
    with pytest.raises(ValueError, match="potential must be one of .*'wavy_plateau'.* found 'hill'"):
        wlm.datasets.potential_flow("hill")
    with pytest.raises(ValueError, match="at least 2 particles"):
        wlm.datasets.potential_flow(n_cells=1)
    with pytest.raises(ValueError, match="dt must be positive"):
        wlm.datasets.potential_flow(dt=0)
