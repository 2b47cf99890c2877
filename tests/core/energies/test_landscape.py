"""Potentials of single cells: gradients by hand against automatic ones."""

import pytest
import torch

from wlm.core.energies.landscape import Features, Potential


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def perturbed(module, scale=0.5):
    """The module with parameters that are not zero."""
    with torch.no_grad():
        for k, p in enumerate(module.parameters()):
            p.add_(scale * torch.randn(p.shape, generator=seeded(k)))
    return module


@pytest.mark.parametrize("duration", [None, 3.0])
@pytest.mark.parametrize("even", [False, True])
def test_the_gradient_of_a_potential_is_that_of_its_values(duration, even):
    v = perturbed(Potential(3, 16, duration, even=even)).double()
    x = torch.randn(5, 7, 3, generator=seeded(), dtype=torch.float64, requires_grad=True)
    t = torch.linspace(0, 3, 5, dtype=torch.float64)[:, None]
    (slope,) = torch.autograd.grad(v(x, t).sum(), x)
    value, ours = v.with_gradient(x, t)
    assert torch.allclose(ours, slope) and torch.allclose(value, v(x, t))
    if duration is None:
        assert torch.allclose(v(x, t), v(-x, t)) == even


@pytest.mark.parametrize("even", [False, True])
def test_the_gradient_of_features_is_that_of_their_values(even):
    v = perturbed(Features(2, even=even))
    v.place(torch.randn(200, 2, generator=seeded()))
    x = torch.randn(9, 2, generator=seeded(1), requires_grad=True)
    t = torch.zeros(())
    (slope,) = torch.autograd.grad(v(x, t).sum(), x)
    assert torch.allclose(v.gradient(x, t), slope, rtol=1e-4, atol=1e-4)
    # The gradients of all features, of which the potential is a sum.
    assert torch.allclose(v.design(x) @ v.coefficients, slope, rtol=1e-4, atol=1e-4)
    assert torch.allclose(v(x, t), v(-x, t)) == even
