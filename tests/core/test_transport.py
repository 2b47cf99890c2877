"""Couplings of two clouds of cells, against those of known maps."""

import numpy as np
import ot
import pytest
from oracles import standardised
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from scipy.stats import norm

from wlm.core import transport
from wlm.core.transport import (
    among_neighbours,
    assignment,
    coupling,
    interpolate,
    nearest,
    neighbourhoods,
    noisy_coupling,
    partners,
    relaxed_midpoint,
    residual,
    semi_relaxed,
    shares,
)


def test_populations_are_coupled_in_parts_when_large():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(80, 2)), rng.normal(size=(80, 2)) + [4.0, 0.0]
    few = interpolate(x, y[:3], 1.0)
    assert len(np.unique(few.round(4), axis=0)) == 3
    parts = partners(x, y, np.random.default_rng(0), size=30)
    assert np.array_equal(np.unique(parts, axis=0), np.unique(y, axis=0))


def test_weights_decide_who_partners_whom():
    """Two cells, two places: with weights 9:1 on both sides everyone stays, without on one side most must move."""
    x = np.repeat([[0.0, 0.0], [10.0, 0.0]], 200, axis=0)
    heavy = np.repeat([0.9, 0.1], 200)
    stay = interpolate(x, x, 1.0, a=heavy, b=heavy)
    assert np.allclose(stay, x)
    move = interpolate(x, x, 1.0, b=heavy)
    assert (move[200:, 0] < 5).mean() == pytest.approx(0.8, abs=0.08) and np.allclose(move[:200], x[:200])


def test_the_coupling_of_a_cloud_and_its_stretched_image_is_the_stretch():
    """A gradient of a convex function is optimal; whatever the order, and with weights of its own for each cell."""
    rng = np.random.default_rng(0)
    x = standardised(60, 2)
    order, w = rng.permutation(60), rng.uniform(0.1, 3, 60)
    y = (x @ np.array([[2.0, 0.5], [0.5, 1.0]]) + [1.0, -3.0])[order]
    i, j, mass = coupling(x, y, w, w[order])
    plan = np.zeros((60, 60))
    plan[i, order[j]] = mass
    np.testing.assert_allclose(plan, np.diag(w / w.sum()), atol=1e-12)
    columns, cost = assignment(x, y)
    assert np.array_equal(order[columns], np.arange(60))
    np.testing.assert_allclose(cost, np.square(x - y[columns]).sum(1))
    np.testing.assert_allclose(assignment(x, y, "euclidean")[1].mean(), np.sqrt(cost).mean(), rtol=0.1)


def test_a_partner_is_drawn_in_proportion_to_the_mass_between():
    """Many cells in one place, and three places of known weight: each gets its share of the cells."""
    x, y = np.zeros((1, 2)), np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
    weights, rng = np.array([7.0, 2.0, 1.0]), np.random.default_rng(0)
    drawn = np.array([partners(x, y, rng, None, weights)[0, 0] for _ in range(2000)])
    found = [(drawn == place).mean() for place in (1, 2, 3)]
    np.testing.assert_allclose(found, [0.7, 0.2, 0.1], atol=0.04)


def test_interpolation_goes_the_share_of_the_way():
    x = standardised(40, 2)
    np.testing.assert_allclose(interpolate(x, 2 * x + [1.0, 0.0], 0.25), 1.25 * x + [0.25, 0.0], atol=1e-12)
    heavy = np.where(np.arange(40) < 20, 9.0, 1.0)
    np.testing.assert_allclose(interpolate(x, 2 * x, 0.5, a=heavy, b=heavy), 1.5 * x, atol=1e-12)


def test_a_coupling_with_noise_is_the_entropic_one_of_pot():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 3)), 1.5 * rng.normal(size=(50, 3)) + 0.3
    a, b = rng.uniform(0.5, 2, 60), rng.uniform(0.5, 2, 50)
    for weights in ({}, {"a": a, "b": b}):
        p, q = (shares(weights.get(k), n) for k, n in (("a", 60), ("b", 50)))
        expected = ot.sinkhorn(p, q, ot.dist(x, y), 2 * 0.5**2, stopThr=1e-12, numItermax=100_000)
        found = noisy_coupling(x, y, 0.5, 60, **weights).toarray()
        assert np.abs(found - expected / expected.sum(1, keepdims=True)).max() < 5e-3
        assert found.sum(1) == pytest.approx(np.ones(60))
        assert np.abs(p @ found - q).sum() < 2e-3


def test_a_coupling_with_noise_is_the_schroedinger_bridge_of_gaussians():
    """Between N(0, s) and N(0, r) on a line the covariance is sqrt(s r + e^2 / 4) - e / 2, with e the variance."""
    n, sigma = 500, 0.7
    quantiles = norm.ppf((np.arange(n) + 0.5) / n)
    x, y = quantiles[:, None], 1.5 * quantiles[:, None]
    found = noisy_coupling(x, y, sigma, n)
    covariance = np.mean(x[:, 0] * (found @ y[:, 0]))
    expected = np.sqrt(x.var() * y.var() + sigma**4 / 4) - sigma**2 / 2
    assert covariance == pytest.approx(expected, rel=0.01)


def test_without_noise_a_coupling_finds_each_cell_again():
    rng = np.random.default_rng(1)
    x, order = rng.normal(size=(40, 5)), rng.permutation(40)
    found = noisy_coupling(x, x[order], 1e-3, 5)
    assert found.toarray()[np.arange(40), np.argsort(order)] == pytest.approx(np.ones(40))
    assert found.nnz < 40 * 40 / 2


def test_the_residual_of_a_shift_is_the_shift():
    x = np.random.default_rng(2).normal(size=(80, 4)).astype(np.float32)
    assert residual(x, x + np.float32(0.5)) == pytest.approx(0.5, rel=1e-5)
    assert residual(x, x, a=np.ones(80), b=np.ones(80)) == pytest.approx(0, abs=1e-6)
    # One heavy cell: the others hardly count.
    y = x.copy()
    y[1:] += 3
    w = np.where(np.arange(80) == 0, 1e6, 1.0)
    assert residual(x, y, a=w, b=w) < 0.05


def test_nearest_cells_are_those_of_a_tree():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(300, 4)).astype(np.float32), rng.normal(size=(200, 4)).astype(np.float32)
    distance, index = cKDTree(y).query(x, k=7)
    found = nearest(x, y, 7)
    assert np.array_equal(found[1], index) and np.allclose(found[0], distance, atol=1e-3)
    assert nearest(x, y, 500)[1].shape == (300, 200)
    means = among_neighbours(x, y, 7) @ y
    assert np.allclose(means, y[index].mean(1), atol=1e-5)
    w = rng.uniform(1, 2, 200)
    expected = (w[index][..., None] * y[index]).sum(1) / w[index].sum(1, keepdims=True)
    assert np.allclose(among_neighbours(x, y, 7, b=w) @ y, expected, atol=1e-5)


def test_of_many_cells_each_finds_its_nearest_in_a_part_that_stands_for_the_whole(monkeypatch):
    rng = np.random.default_rng(0)
    y = rng.normal(size=(1500, 4)).astype(np.float32)
    x = np.concatenate([y[:900] + 0.1, y[:300]])
    exact, few = nearest(x, y, 5), nearest(x[:400], y, 5)
    monkeypatch.setattr(transport, "EXACT", 500)
    monkeypatch.setattr(transport, "PART", 400)
    assert np.array_equal(nearest(x[:400], y, 5)[1], few[1])  # few of one side are compared with all of the other
    distances, rows = nearest(x, y, 5)  # three parts of 400 and 500
    np.testing.assert_allclose(distances, np.linalg.norm(x[:, None] - y[rows], axis=2), atol=3e-3)
    assert (np.diff(distances, axis=1) >= 0).all() and len(np.unique(rows)) > 1000
    # A third of the cells is less dense: as many are farther away, by the root of 3 that the dimension says.
    assert np.median(distances[:, -1]) / np.median(exact[0][:, -1]) == pytest.approx(3 ** (1 / 4), rel=0.1)
    itself, back = nearest(y, y, 5)[1], nearest(y, x, 5)[1]
    assert np.array_equal(itself[:, 0], np.arange(len(y)))
    i = np.concatenate([np.repeat(np.arange(1200), 5), back.ravel()])
    j = np.concatenate([rows.ravel(), np.repeat(np.arange(1500), 5)])
    pairs = coo_array((np.ones(len(i)), (i, 1200 + j)), shape=(2700, 2700))
    n_parts, part = connected_components(pairs, directed=False)
    assert n_parts == 3 and np.bincount(part).tolist() == [900] * 3  # the same parts in both directions
    assert nearest(x, y, 1000)[1].shape == (1200, 500)


@pytest.mark.parametrize("weighted", [False, True])
def test_neighbourhoods_keep_the_population(weighted):
    rng = np.random.default_rng(4)
    x = np.concatenate([rng.normal(size=(150, 3)), rng.normal(size=(20, 3)) + 8])  # a type of few cells
    w = shares(rng.uniform(0.2, 2, 170) if weighted else None, 170)
    found = neighbourhoods(x, 10, w=w)
    assert found.sum(axis=1) == pytest.approx(np.ones(170))
    assert np.abs(w @ found - w).sum() < 2e-3
    assert found.diagonal().min() > 0 and found[150:, :150].nnz == 0


def test_a_semi_relaxed_coupling_is_that_of_pot():
    rng = np.random.default_rng(0)
    x, y, a, b = rng.normal(size=(30, 2)), rng.normal(size=(40, 2)) + 0.5, rng.uniform(1, 2, 30), rng.uniform(1, 2, 40)
    cost = ot.dist(x, y) / np.median(ot.dist(x, x))
    expected = ot.unbalanced.sinkhorn_unbalanced(
        shares(a, 30), shares(b, 40), cost, 0.02, (0.1, np.inf), numItermax=20000, stopThr=1e-12
    )
    found = semi_relaxed(x, y, a=a, b=b)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(found.sum(0), shares(b, 40), rtol=1e-9)


def test_row_sums_are_the_descendants_of_clusters_at_rest():
    """Two clusters far apart, one of which trebles: a price on rows shrinks nothing, since nobody could move there."""
    rng = np.random.default_rng(0)
    near, far = rng.normal(size=(50, 2)) / 10, rng.normal(size=(150, 2)) / 10 + [30.0, 0.0]
    x, y = np.concatenate([near, near + [30.0, 0.0]]), np.concatenate([near, far])
    grown = semi_relaxed(x, y).sum(1) * 100
    assert grown[50:].mean() / grown[:50].mean() == pytest.approx(3, rel=0.01)
    z, w = relaxed_midpoint(x, y, 0.5)
    assert w.mean() == pytest.approx(1) and w[50:].mean() / w[:50].mean() == pytest.approx(np.sqrt(3), rel=0.05)
    assert (z[:50, 0] < 5).all() and (z[50:, 0] > 25).all()
    assert np.isfinite(semi_relaxed(x, y + 500)).all(), "far populations are coupled as well"
