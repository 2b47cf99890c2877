"""Our own velocities: their parts by hand, and all of it beside scVelo."""

import anndata as ad
import numpy as np
import pytest
from scipy.sparse import csr_matrix

import wlm
from wlm.pp._steady_state import neighbour_weights, steady_state


def cosine(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def compare(make, mode, **options):
    ours, theirs = make(), make()
    wlm.pp.velocity(ours, method="steady_state", mode=mode, **options)
    wlm.pp.velocity(theirs, method="scvelo", mode=mode, **options)
    assert ours.uns["velocity_params"]["method"] == "steady_state" and "method" not in theirs.uns["velocity_params"]
    genes = theirs.var["velocity_genes"].to_numpy(bool)
    assert (ours.var["velocity_genes"].to_numpy(bool) == genes).mean() > 0.999
    layers = [np.nan_to_num(a.layers["velocity"][:, genes]) for a in (ours, theirs)]
    assert cosine(*layers).min() > 0.98
    assert cosine(ours.obsm["velocity_projected"], theirs.obsm["velocity_projected"]).min() > 0.98
    size = [np.linalg.norm(a.obsm["velocity_projected"], axis=1) for a in (ours, theirs)]
    assert np.allclose(*size, rtol=1e-2)
    for name in ("Ms", "Mu"):
        assert np.allclose(ours.layers[name], theirs.layers[name], rtol=1e-4, atol=1e-5, equal_nan=True)
    return ours


@pytest.mark.scvelo
@pytest.mark.parametrize("mode", ["deterministic", "stochastic"])
@pytest.mark.parametrize("noise", [False, True])
def test_velocities_are_those_of_scvelo_on_simulated_cells(mode, noise):
    compare(lambda: wlm.datasets.bifurcation(80, noise=noise, rng=3), mode)


@pytest.mark.scvelo
@pytest.mark.parametrize("mode", ["deterministic", "stochastic"])
def test_velocities_are_those_of_scvelo_on_the_users_components(mode):
    import scanpy as sc

    def make():
        adata = wlm.datasets.bifurcation(60, rng=4)
        sc.pp.normalize_total(adata)
        sc.pp.log1p(adata)
        sc.pp.pca(adata, n_comps=8)
        adata.var["highly_variable"] = np.arange(adata.n_vars) % 3 > 0
        return adata

    adata = compare(make, mode)
    assert not adata.var.loc[~adata.var["highly_variable"], "velocity_genes"].any()


@pytest.mark.scvelo
@pytest.mark.shared
@pytest.mark.parametrize("mode", ["deterministic", "stochastic"])
def test_velocities_are_those_of_scvelo_on_real_cells(real_data, mode):
    compare(lambda: ad.read_h5ad(real_data / "dentate_50_raw.h5ad"), mode, n_neighbors=10)


def test_the_modes_differ():
    found = [
        wlm.pp.velocity(wlm.datasets.bifurcation(60, rng=0), method="steady_state", mode=mode, copy=True)
        for mode in ("deterministic", "stochastic")
    ]
    gamma = [a.var["velocity_gamma"].to_numpy() for a in found]
    genes = found[0].var["velocity_genes"].to_numpy(bool)
    assert (np.abs(gamma[0] - gamma[1])[genes] > 1e-3).mean() > 0.5


def test_weights_are_the_mean_over_a_cell_and_its_neighbours():
    graph = csr_matrix(np.array([[0, 0.3, 0], [0.3, 0, 0.9], [0, 0.9, 1.0]]))
    wanted = np.array([[1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 1 / 3], [0, 1 / 2, 1 / 2]])
    assert np.allclose(neighbour_weights(graph).toarray(), wanted)


def test_a_steady_state_has_no_velocity_and_its_ratio_is_found():
    rng = np.random.default_rng(0)
    gamma = rng.uniform(0.1, 2, 6)
    s = rng.gamma(2, 5, (200, 6))
    found = steady_state(csr_matrix(s), csr_matrix(gamma * s), csr_matrix((200, 200)))
    assert np.allclose(found.gamma, gamma) and np.allclose(found.velocity, 0, atol=1e-5) and found.genes.all()
    assert np.allclose(found.r2, 1)


def test_cells_above_the_line_are_induced():
    rng = np.random.default_rng(0)
    s = rng.gamma(2, 5, (300, 4))
    u = 0.5 * s
    low = s < np.percentile(s, 50, axis=0)
    u[low] += 1.0
    found = steady_state(csr_matrix(s), csr_matrix(u), csr_matrix((300, 300)))
    assert np.allclose(found.gamma, 0.5, rtol=1e-3)
    assert np.allclose(found.velocity[low], 1, atol=1e-2) and np.allclose(found.velocity[~low], 0, atol=0.1)


@pytest.mark.parametrize("mode", ["deterministic", "stochastic"])
def test_poisson_counts_give_the_ratio_in_both_modes(mode):
    """At the steady state u and s are Poisson, so that both equations hold with the same ratio."""
    rng = np.random.default_rng(0)
    rates = rng.uniform(5, 50, (4000, 1)) * np.ones((1, 3))
    s, u = rng.poisson(rates), rng.poisson(0.4 * rates)
    order = np.argsort(rates[:, 0])
    near = csr_matrix(abs(np.subtract.outer(np.arange(400), np.arange(400))) < 30, dtype=float)
    pick = np.sort(rng.permutation(4000)[:400])
    found = steady_state(csr_matrix(s[order][pick]), csr_matrix(u[order][pick]), near, mode=mode)
    assert np.allclose(found.gamma, 0.4, rtol=0.1)


def test_genes_without_molecules_and_candidates():
    rng = np.random.default_rng(1)
    s = rng.poisson(rng.gamma(1, 10, (100, 8))).astype(float)
    u = rng.poisson(0.4 * s).astype(float)
    s[:, 0] = u[:, 1] = 0
    for mode in ("deterministic", "stochastic"):
        candidates = np.arange(8) != 4
        graph = csr_matrix((100, 100))
        found = steady_state(csr_matrix(s), csr_matrix(u), graph, mode=mode, candidates=candidates)
        assert np.isfinite(found.velocity).all() and np.isfinite(found.gamma).all() and np.isfinite(found.r2).all()
        assert found.genes.tolist() == [False, False, True, True, False, True, True, True]
        assert found.gamma[0] == 0 and found.gamma[1] == 0
