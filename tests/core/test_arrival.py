"""Measured velocities are trusted where they predict training times that were left out, and only there."""

import numpy as np
import pytest

from wlm.core.arrival import agreed, arrival, cubic
from wlm.core.methods import WLM
from wlm.core.populations import Populations


def turning(scale=1.0, noise=0.0, n=80, times=(0.0, 1.0, 2.0, 3.0), spread=0.3):
    """Cells on an ellipse that turn about the origin, with their velocities times ``scale``."""
    rng = np.random.default_rng(0)
    times = np.array(times)
    x0 = rng.normal(size=(n, 2)) * [spread, spread / 3] + [2, 0]
    turns = [np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]]) for t in times]
    positions = [x0 @ turn.T for turn in turns]
    velocities = [scale * np.stack([-x[:, 1], x[:, 0]], 1) + noise * rng.normal(size=x.shape) for x in positions]
    return Populations(times, tuple(positions), tuple(velocities))


def test_true_velocities_are_trusted_and_wrong_ones_are_not():
    assert arrival(turning())["path"] == "velocities"
    assert arrival(turning(-1.0))["path"] == "rollout"
    assert arrival(turning(0.0))["path"] == "rollout"  # at rest at both ends: as good as no velocities, no better
    assert arrival(turning(noise=3.0))["path"] == "rollout"


def test_the_evidence_compares_with_straight_lines():
    """On a circle a straight line cuts the corner by 1 - cos(1) of the radius; the cubic misses it by far less."""
    note = arrival(turning(spread=0.003))
    h = 1.0  # half of the time between the neighbours
    radius = np.cos(h) + np.sin(h) * h / 2  # of the middle of the cubic between two points a turn of 2h apart
    assert np.isclose(note["evidence"], np.log((1 - np.cos(h)) / abs(1 - radius)), rtol=0.02)
    assert f"{np.exp(-note['evidence']):.2f} times" in note["words"] and "arrive" in note["words"]


def test_partners_meet_half_way():
    """Two cells pass each other in straight lines: by position alone each would get the end of the other."""
    x, v = np.array([[0.0, 0.0], [0.0, 2.0]]), np.array([[1.0, 1.2], [1.0, -1.0]])
    found = cubic(np.array([1.0, 3.0]), (x, v), (x + 2 * v, v), 2.0)
    np.testing.assert_allclose(found, x + v, atol=1e-12)


@pytest.mark.parametrize(("unit", "length"), [(10.0, 1.0), (1.0, 50.0)])
def test_units_do_not_matter(unit, length):
    p = turning()
    other = Populations(
        unit * p.times,
        tuple(length * x for x in p.positions),
        tuple(length / unit * v for v in p.velocities),
    )
    assert np.isclose(arrival(other)["evidence"], arrival(p)["evidence"], rtol=1e-5)


def test_uneven_times_count():
    assert arrival(turning(times=(0.0, 0.3, 1.8)))["evidence"] > 1


def test_what_is_asked_for_is_done_whatever_the_evidence():
    assert arrival(turning(), "rollout")["path"] == "rollout"
    assert arrival(turning(-1.0), "velocities")["path"] == "velocities"


def test_too_few_to_tell():
    assert arrival(turning(times=(0.0, 1.0))) is None
    assert arrival(turning(n=9)) is None
    p = turning()
    assert arrival(Populations(p.times, p.positions)) is None
    gaps = (p.velocities[0], *(np.full_like(v, np.nan) for v in p.velocities[1:]))
    assert arrival(Populations(p.times, p.positions, gaps)) is None


def test_weights_count():
    """Cells that move against the others do not, with next to no weight."""
    p = turning()
    n = len(p.positions[0])
    mixed = tuple(np.concatenate([v, -v]) for v in p.velocities)
    positions = tuple(np.concatenate([x, x]) for x in p.positions)
    weights = tuple(np.repeat([1.0, 1e-9], n) for _ in p.times)
    assert arrival(Populations(p.times, positions, mixed))["path"] == "rollout"
    assert arrival(Populations(p.times, positions, mixed, weights))["path"] == "velocities"


def test_conditions_agree_by_the_mean_evidence():
    good, bad = {"path": "velocities", "evidence": 1.0}, {"path": "rollout", "evidence": -0.5}
    assert agreed([good, good]) is None
    assert agreed([good, bad]) == "velocities" == WLM().agree([good, bad])
    assert agreed([good, {**bad, "evidence": -2.0}]) == "rollout"


def test_wlm_asks_where_it_starts_with_them():
    p = turning()
    prepared, notes = WLM().prepare(p)
    assert prepared is p and notes["choice"]["path"] == "velocities"
    assert WLM().prepare(p, "rollout")[1]["choice"]["path"] == "rollout"
    assert WLM(initial_velocity="learned").prepare(p)[1] == {}
    assert WLM.paper("vortex").prepare(p)[1] == {}
