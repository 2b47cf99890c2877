"""Batches of populations in standard units."""

import numpy as np
import torch
from scipy.spatial.distance import pdist

from wlm.core.populations import Populations
from wlm.core.snapshots import Snapshots, median_distance
from wlm.core.units import Units

CPU = torch.device("cpu")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def populations(weighted=False):
    rng = np.random.default_rng(0)
    sizes = (30, 8, 50)
    x = tuple(4 * rng.normal(size=(n, 2)) + 3 for n in sizes)
    w = tuple(rng.uniform(0.1, 5, n) for n in sizes) if weighted else None
    return Populations(np.array([1.0, 2.0, 7.0]), x, tuple(2 * z for z in x), w)


def test_velocities_go_into_standard_units_with_positions_and_times():
    p = populations()
    units = Units.of(p)
    snapshots = Snapshots.of(p, units, CPU)
    for k, (x, v) in enumerate(zip(p.positions, p.velocities, strict=True)):
        later = units.standard_position(x + 0.5 * v)  # half a unit of time later
        moved = snapshots.positions[k] + snapshots.velocities[k] * 0.5 / units.time
        np.testing.assert_allclose(moved, later, atol=1e-4)
    np.testing.assert_allclose(snapshots.times, [0, 1 / 3, 2], rtol=1e-6)


def test_shares_of_a_batch_are_those_of_its_cells_and_padding_has_none():
    for weighted in (False, True):
        p = populations(weighted)
        snapshots = Snapshots.of(p, Units.of(p), CPU)
        cells, positions, shares = snapshots.batches(20, seeded())
        assert positions.shape == (3, 20, 2) and [len(i) for i in cells] == [20, 8, 20]
        np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)
        for k, i in enumerate(cells):
            w = np.ones(len(i)) if p.weights is None else p.weights[k][i.numpy()]
            np.testing.assert_allclose(shares[k, : len(i)], w / w.sum(), rtol=1e-5)
            np.testing.assert_allclose(positions[k, : len(i)], snapshots.positions[k][i])
        assert (shares[1, 8:] == 0).all()


def test_median_distance_is_the_mean_over_populations_of_each_ones_median():
    x = [torch.as_tensor(z) for z in populations().positions]
    # The lower of two middle ones, as torch takes it: of these counts of pairs it hardly matters.
    expected = np.mean([np.median(pdist(z)) for z in x])
    np.testing.assert_allclose(median_distance(x, seeded()), expected, rtol=0.02)
