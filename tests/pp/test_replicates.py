"""Replicates with a planted batch effect, whose share is known."""

import numpy as np
import pytest

import wlm
from wlm.pp import _replicates as replicates

TIMES = np.repeat([0.0, 1.0, 2.0], 400)
BATCH = np.tile([0, 1], 600)


def planted(shift, day=2.0, batch=BATCH, seed=0):
    """Cells that move by ``day`` between times, in another direction than batches are shifted in."""
    x = np.random.default_rng(seed).normal(size=(1200, 3))
    x[:, 0] += day * TIMES
    x[:, 1] += shift * batch
    return x


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0, 2.0])
def test_the_share_is_the_planted_one(shift):
    share = replicates.batch_share(planted(shift), TIMES, BATCH)
    assert share == pytest.approx((shift / 2) ** 2, abs=0.02 + 0.25 * (shift / 2) ** 2)


def test_cells_mix_unless_batches_are_apart():
    assert replicates.mixing(planted(0), TIMES, BATCH) == pytest.approx(1, abs=0.07)
    assert 0.3 < replicates.mixing(planted(2), TIMES, BATCH) < 0.8
    assert replicates.mixing(planted(9), TIMES, BATCH) < 0.01


def test_a_correction_erases_all_where_batches_are_times_and_nothing_where_they_are_balanced():
    x = planted(0)
    assert replicates.erased(x, TIMES, TIMES.astype(int)) == pytest.approx(1)
    assert replicates.erased(x, TIMES, BATCH) == pytest.approx(0, abs=1e-3)
    partly = np.where(np.arange(1200) % 4 == 0, BATCH, (TIMES > 0).astype(int))
    assert 0.2 < replicates.erased(x, TIMES, partly) < 0.9


def report(cells, values):
    cells.obs["donor"] = values
    return wlm.pp.doctor(cells, time_key="day").set_index("check").loc["replicates"]


def test_doctor_says_it(cells):
    rng = np.random.default_rng(0)
    batch = rng.integers(2, size=cells.n_obs)
    quiet = report(cells, [f"d{b}" for b in batch])
    assert quiet["level"] == "ok" and "levels of obs['donor'] at one time are apart by" in quiet["found"]
    cells.obsm["X_pca"][:, 0] += 30 * batch
    loud = report(cells, [f"d{b}" for b in batch])
    assert loud["level"] == "warning" and "batch effect" in loud["advice"] and "mix to 0%" in loud["found"]
    nested = report(cells, cells.obs["day"].astype(str))
    assert nested["level"] == "ok" and nested["found"].startswith("no time has two levels")
