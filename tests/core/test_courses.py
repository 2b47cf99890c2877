"""Courses go through the cells, and where there is but one way they all take it."""

import numpy as np
import pytest

from wlm.core.courses import PATHS, course, redrawn, smooth, straight
from wlm.core.design import warped

TIMES = np.array([0.0, 1.0, 3.0])


@pytest.mark.parametrize("path", PATHS)
def test_they_go_through_the_cells_and_uniform_motion_is_one_line(path):
    rng = np.random.default_rng(0)
    x, v = rng.normal(size=(20, 2)), np.array([3.0, -1.0])
    clouds = [x + t * v for t in TIMES]
    wanted = np.array([0, 0.3, 1, 2, 3, 4.0])
    found = course(TIMES, clouds, wanted, path)
    assert np.allclose(found, x + wanted[:, None, None] * v), "past the last time it goes on"


def test_curves_bend_where_lines_do_not():
    chains = np.array([0.0, 0.0, 2.0])[:, None, None]
    assert (
        straight(TIMES, chains, np.array([0.5]))[0, 0, 0] == 0 and smooth(TIMES, chains, np.array([0.5]))[0, 0, 0] < 0
    )


def test_a_course_is_early_or_late_within_intervals_and_slower_past_the_last():
    wanted = np.array([0, 0.5, 1, 2, 3, 5.0])
    assert warped(TIMES, wanted, np.ones(2), 1.0).tolist() == wanted.tolist()
    assert warped(TIMES, wanted, np.array([2.0, 0.5]), 0.25) == pytest.approx([0, 0.25, 1, 1 + 2 * 0.5**0.5, 3, 3.5])


def test_cells_are_redrawn_by_their_weights():
    w = np.array([1.0, 0.0, 3.0])
    rows = redrawn(np.zeros((3, 2)), 4000, np.random.default_rng(0), w)
    assert np.bincount(rows, minlength=3) / 4000 == pytest.approx([0.25, 0, 0.75], abs=0.03)
