"""Sinkhorn against closed forms and against geomloss."""

import geomloss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wlm.core.divergences import (
    cost,
    geomloss_divergence,
    plan,
    self_plan,
    self_term,
    sinkhorn_loss,
    uniform,
)


def cloud(n, d, seed, shift=0.0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator) * scale + shift


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("blur", [0.1, 0.5, 2.0])
def test_value_and_gradient_agree_with_geomloss(p, blur):
    x = torch.stack([cloud(200, 3, 0), cloud(200, 3, 1, shift=2.0)]).requires_grad_()
    y = torch.stack([cloud(150, 3, 2, scale=0.5), cloud(150, 3, 3)])
    loss = sinkhorn_loss(x, y, p=p, blur=blur)[0] + self_term(y, p=p, blur=blur)
    (ours,) = torch.autograd.grad(loss.sum(), x)
    oracle = geomloss.SamplesLoss("sinkhorn", p=p, blur=blur, scaling=0.99, backend="tensorized")(x, y)
    (theirs,) = torch.autograd.grad(oracle.sum(), x)
    assert torch.allclose(loss, oracle, rtol=2e-3, atol=1e-3)
    assert torch.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.999
    assert abs(ours.norm() / theirs.norm() - 1) < 0.01


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("blur", [0.3, 1.0])
def test_the_gradient_in_the_weights_is_that_of_geomloss(p, blur):
    """With light cells among them, whose potentials the iterations hardly look at."""
    x, y = cloud(80, 3, 0, shift=0.5).double(), cloud(60, 3, 2).double()
    w = torch.ones(80, dtype=torch.float64)
    w[:5] = 1e-3
    a, b = (w / w.sum()).requires_grad_(), uniform(y).requires_grad_()
    ours = torch.autograd.grad(sinkhorn_loss(x, y, a, b, p=p, blur=blur)[0], [a, b])
    oracle = geomloss.SamplesLoss("sinkhorn", p=p, blur=blur, scaling=0.999, backend="tensorized", debias=True)
    theirs = torch.autograd.grad(oracle(a, x, b, y), [a, b])
    # Weights sum to one: a constant in the gradient means nothing. Of b geomloss has the self term, which ours leaves
    # out. It ends after a fixed annealing, which is what the tolerance is for; the difference quotient below is exact.
    y_self = self_plan(cost(y, y, p), b.detach(), blur if p == 1 else blur**2, n_iter=200)[1]
    for one, other in zip((ours[0], ours[1] - y_self), theirs, strict=True):
        torch.testing.assert_close(one - one.mean(), other - other.mean(), rtol=0.0, atol=0.02)
        assert (one - one.mean()).abs().max() > 0.2


def test_the_gradient_in_the_weights_is_a_difference_quotient():
    x, y = cloud(40, 2, 0).double(), cloud(30, 2, 1, shift=1.0).double()
    a, b = torch.rand(2, 40, dtype=torch.float64).softmax(-1)[0], uniform(y)
    tight = {"p": 2, "blur": 0.5, "tol": 1e-10, "max_iter": 5000}
    for which in (0, 1):
        weights = [a.clone(), b.clone()]
        weights[which].requires_grad_()
        (gradient,) = torch.autograd.grad(sinkhorn_loss(x, y, *weights, **tight)[0], weights[which])
        direction = cloud(len(weights[which]), 1, 3).double()[:, 0]
        direction = (direction - direction.mean()) * 1e-3 * weights[which].detach()
        direction = direction - direction.mean()
        values = []
        for sign in (1, -1):
            moved = [w.detach() for w in weights]
            moved[which] = moved[which] + sign * direction
            values.append(sinkhorn_loss(x, y, *moved, **tight)[0])
        assert float((gradient * direction).sum()) == pytest.approx(float(values[0] - values[1]) / 2, rel=1e-3)


@pytest.mark.parametrize("backend", ["auto", "tensorized"])
def test_geomloss_as_the_loss_is_ours_with_its_constant(backend):
    x = torch.stack([cloud(60, 3, 0), cloud(60, 3, 1, shift=2.0)]).requires_grad_()
    y, b = torch.stack([cloud(50, 3, 2), cloud(50, 3, 3)]), torch.rand(2, 50).softmax(-1)
    theirs = geomloss_divergence(x, y, uniform(x), b, p=2, blur=0.5, backend=backend)
    ours = sinkhorn_loss(x, y, None, b, p=2, blur=0.5)[0] + self_term(y, b, p=2, blur=0.5)
    torch.testing.assert_close(theirs, ours, rtol=0.02, atol=2e-3)
    one, other = (torch.autograd.grad(v.sum(), x)[0].flatten() for v in (theirs, ours))
    assert torch.cosine_similarity(one, other, dim=0) > 0.999


@settings(max_examples=15, deadline=None)
@given(st.floats(0.3, 3.0), st.floats(-3.0, 3.0), st.floats(0.7, 2.0))
def test_entropic_transport_between_gaussians_in_closed_form(scale, shift, blur):
    """One-dimensional Gaussians, on quantiles: Janati et al. 2020, theorem 1 (at cost |x-y|^2 and 2 sigma^2)."""
    n = 600
    z = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)
    z = z / z.std(correction=0)
    x, y = z[:, None], scale * z[:, None] + shift
    sigma2 = blur**2
    a = uniform(x)
    _, f, g = plan(cost(x, y, 2), a, a, sigma2, tol=1e-7, max_iter=2000)
    value = float((a * f).sum() + (a * g).sum())
    d = np.sqrt(4 * scale**2 + sigma2**2)
    expected = shift**2 + 1 + scale**2 - d + sigma2 * (1 - np.log(2 * sigma2)) + sigma2 * np.log(d + sigma2)
    assert value == pytest.approx(expected / 2, rel=0.02, abs=0.01)


def test_padding_with_weight_zero_changes_nothing():
    x, y = cloud(80, 2, 0).double(), cloud(60, 2, 1, shift=1.0).double()
    padded = torch.cat([y, torch.full((20, 2), 50.0, dtype=torch.float64)])
    weights = torch.cat([uniform(y), torch.zeros(20, dtype=torch.float64)])
    c, a = cost(x, y, 2), uniform(x)
    short, f, _ = plan(c, a, uniform(y), 0.25, tol=1e-6, max_iter=2000)
    wide, f_wide, _ = plan(cost(x, padded, 2), a, weights, 0.25, tol=1e-6, max_iter=2000)
    assert torch.allclose(wide[:, :60], short, atol=1e-7) and wide[:, 60:].abs().max() < 1e-20
    assert torch.allclose(f - f.mean(), f_wide - f_wide.mean(), atol=1e-5)  # up to the usual constant


def test_divergence_vanishes_between_a_cloud_and_itself_and_grows_with_distance():
    x = cloud(100, 4, 0)
    values = [
        (sinkhorn_loss(x + s, x, p=2, blur=0.7)[0] + self_term(x, p=2, blur=0.7)).item() for s in (0.0, 0.5, 1.0, 2.0)
    ]
    assert abs(values[0]) < 1e-3
    # Shifted copies are at half the squared shift, summed over four dimensions.
    assert values[1:] == pytest.approx([0.5, 2.0, 8.0], rel=0.02)


def test_infinite_costs_give_nan_instead_of_an_endless_loop():
    x = cloud(10, 2, 0)
    loss, _ = sinkhorn_loss(x * float("inf"), x, p=2, blur=0.5)
    assert torch.isnan(loss)


def test_marginals_are_met_at_small_blur():
    x, y = cloud(100, 2, 0).double(), cloud(100, 2, 1, shift=1.0).double()
    p, _, _ = plan(cost(x, y, 2), uniform(x), uniform(y), 0.1**2, tol=1e-3, max_iter=2000)
    assert (p.sum(0) - 0.01).abs().sum() < 2e-3 and (p.sum(1) - 0.01).abs().sum() < 2e-3


def test_far_clouds_and_small_blur_stay_finite_and_point_the_right_way():
    x, y = cloud(50, 2, 0).requires_grad_(), cloud(50, 2, 1, shift=100.0)
    loss, p = sinkhorn_loss(x, y, p=2, blur=0.05)
    (gradient,) = torch.autograd.grad(loss, x)
    assert torch.isfinite(gradient).all() and (gradient < 0).all()
    assert torch.allclose(p.sum(), torch.tensor(1.0), atol=1e-2)
