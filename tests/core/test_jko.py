"""Steps of the JKO scheme, entropies and log-determinants against closed forms."""

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wlm.core.jko import log_det, nearest_neighbour_entropy, prox


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.01, 100), st.floats(0.05, 3), st.integers(1, 6))
def test_an_implicit_step_in_a_quadratic_well_has_a_closed_form(stiffness, h, d):
    x = torch.randn(40, d, generator=seeded(), dtype=torch.float64)
    z = prox(
        lambda z: (0.5 * stiffness * z.square().sum(-1), stiffness * z),
        x,
        torch.tensor(h, dtype=torch.float64),
        x,
        n_iter=60,
        tol=1e-6,
    )
    assert torch.allclose(z, x / (1 + h * stiffness), atol=1e-3)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 5), st.floats(0.2, 5))
def test_entropy_of_a_gaussian(d, scale):
    x = scale * torch.randn(3000, d, generator=seeded(d))
    exact = d / 2 * math.log(2 * math.pi * math.e * scale**2)
    assert abs(nearest_neighbour_entropy(x) - exact) < 0.05 * d + 0.05


def test_entropy_of_weighted_cells_is_that_of_the_population_they_stand_for():
    """Uniform cells on [0, 1] with weights 2 x have the density 2 x, whose entropy is 1/2 - log 2."""
    x = torch.rand(4000, 1, generator=seeded())
    assert abs(nearest_neighbour_entropy(x, 2 * x[:, 0]) - (0.5 - math.log(2))) < 0.08


def test_entropy_does_not_mistake_weights_that_vary_from_cell_to_cell_for_structure():
    """Weights that are drawn at random leave the density, and so the entropy, of uniform cells as they were: 0."""
    x = torch.rand(4000, 1, generator=seeded())
    w = torch.where(torch.rand(4000, generator=seeded(1)) < 0.5, 1.0, 30.0)
    assert abs(nearest_neighbour_entropy(x, w)) < 0.15


def test_an_implicit_step_may_start_where_the_slope_is_steep():
    x = torch.tensor([[0.5]], dtype=torch.float64)
    z = prox(lambda z: (50 * z.square().sum(-1), 100 * z), x, torch.tensor(10.0, dtype=torch.float64), x, n_iter=5)
    assert abs(float(z)) < 0.05


def test_log_determinants_exact_and_by_series():
    d = 12
    a = 0.15 * torch.randn(d, d, generator=seeded()) / math.sqrt(d)
    exact = torch.linalg.slogdet(torch.eye(d) + a)[1]
    x = torch.zeros(4000, d)
    estimates = log_det(lambda u: u @ a.T, x, seeded(1))
    assert abs(estimates.mean() - exact) < 4 * estimates.std() / math.sqrt(len(x)) + 1e-3
    slopes = torch.linspace(-0.3, 0.5, d)  # of independent dimensions: no noise, and terms of every order count
    np.testing.assert_allclose(log_det(lambda u: u * slopes, x[:3], seeded()), (1 + slopes).log().sum(), atol=0.01)
    b = torch.randn(3, 3, generator=seeded(2))
    assert torch.allclose(
        log_det(lambda u: u @ b.T, torch.zeros(5, 3), seeded()), torch.linalg.slogdet(torch.eye(3) + b)[1]
    )
