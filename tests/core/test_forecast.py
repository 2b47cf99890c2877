"""Forecasts by the model, by straight lines and by a field, at parts of the pace."""

import numpy as np
import pytest
import torch
from oracles import dynamics
from torch import nn

from wlm.core.forecast import PACES, Forecast, best, in_words
from wlm.core.model import Model
from wlm.core.particles import together

X = np.random.default_rng(0).normal(size=(5, 2)).astype("f4")
V = np.array([[1.0, 0.0]] * 4 + [[0.0, -2.0]], dtype="f4")
TIMES = [4.0, 7.0]


class Falling(Model):
    """Cells that start with the velocity given and fall along the second axis."""

    def __init__(self, g=1.0):
        super().__init__()
        self.g = nn.Parameter(torch.tensor([0.0, -g]), requires_grad=False)

    def initial_velocity(self, x):
        return None

    def rollout(self, start, times, generator):
        t = (times - times[0])[:, None, None]
        path = [start._replace(x=start.x + s * start.v + s**2 / 2 * self.g, v=start.v + s * self.g) for s in t]
        return together(path)

    def energy(self, p, t):
        return p.x @ -self.g

    def force(self, p, t):
        return self.g.expand_as(p.x)

    def constants(self):
        return {}


@pytest.mark.parametrize("pace", PACES)
@pytest.mark.parametrize("by", ["model", "straight", "field"])
def test_cells_are_where_they_would_be_at_a_part_of_the_time(by, pace):
    forecast = Forecast(by, pace, dynamics(Falling(g=3.0)) if by == "field" else None)
    x, v, _ = forecast.move(dynamics(Falling()), X, V, 3.0, TIMES)
    g = {"model": 1.0, "straight": 0.0, "field": 3.0}[by] * np.array([0.0, -1.0])
    for k, t in enumerate(TIMES):
        s = pace * (t - 3.0)
        np.testing.assert_allclose(x[k], X + s * V + s**2 / 2 * g, atol=1e-5)
        np.testing.assert_allclose(v[k], pace * (V + s * g), atol=1e-5)  # per unit of the true time


def test_the_nearest_leads_and_of_equal_ones_the_slower():
    scores = np.array([[3.0, 2.0, 1.0, 2.0, 3.0], [3.0, 2.5, 2.0, 1.5, 0.9], [3.0, 2.0, 1.0, 2.0, 3.0]])
    names = ["model", "straight", "field"]
    assert best(scores, names) == ("straight", 1.0)
    assert best(scores[[0, 2]], ["model", "field"]) == ("model", 0.5)
    assert best(np.full((2, 5), 1.0) - [0.1, 0.1, 0.1, 0.1, 0.0], names[:2]) == ("model", 0.0)


def test_the_model_leads_unless_another_is_better_by_more_than_chance():
    names = ["model", "straight"]
    for least, leader in ((0.981, ("model", 1.0)), (0.979, ("straight", 0.5))):
        scores = np.array([[1.0] * 5, [1.0, 1.0, least, 1.0, 1.0]])
        assert best(scores, names) == leader


def test_the_outcome_in_words():
    scores = np.array([[3.0, 2.0, 1.0, 2.0, 3.1], [3.0, 2.5, 2.0, 1.5, 0.9]])
    text = in_words(scores, ["model", "straight"], 8.0)
    assert "follow straight lines" in text and "pace" not in text and "cells at 8 (W1 0.9; a copy" in text
    assert "the model alone 3.1" in text
    assert "the model at 0.5 of the pace" in in_words(scores[:1], ["model"], 8.0)
    assert "keep the cells where they were" in in_words(scores[:, [0, 4, 4, 4, 4]] + [0, 9, 9, 9, 9], ["model", "s"], 8)
