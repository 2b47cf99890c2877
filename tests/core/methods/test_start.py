"""Fields of initial velocities: their loss in closed form, and the field that it finds."""

import numpy as np
import pytest
import torch

from wlm.core.methods._start import GradientField, dice_loss, fit_dice
from wlm.core.snapshots import Snapshots


class Plane(torch.nn.Module):
    """s(x, t) = (1 + t) b x, whose gradient is (1 + t) b."""

    b = torch.tensor([0.7, -0.3])

    def scalar(self, x, t):
        return (1 + t) * (x @ self.b)

    def forward(self, x, t):
        return ((1 + t) * self.b).expand_as(x)


def test_the_action_is_that_of_the_trapezoid_rule():
    """Over [t, u] E s rises by the mean of both ends of the field, and half of its square is what it costs."""
    generator = torch.Generator().manual_seed(0)
    populations = [torch.randn(n, 2, generator=generator) + k for k, n in enumerate((20, 30, 40))]
    times = torch.tensor([0.0, 0.5, 2.0])
    b, expected = Plane.b, 0.0
    for k in range(2):
        t, u = times[k].item(), times[k + 1].item()
        shift = (populations[k].mean(0) - populations[k + 1].mean(0)) @ b
        expected += (1 + (t + u) / 2) * shift + 0.5 * (u - t) * ((1 + t) ** 2 + (1 + u) ** 2) / 2 * (b @ b)
    torch.testing.assert_close(dice_loss(Plane(), populations, times), expected)


def test_a_field_is_the_gradient_of_its_scalar():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        field = GradientField(3, 8).double()
        torch.nn.init.normal_(field.last)
    x = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    t = torch.tensor(0.4, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(field.scalar(x, t).sum(), x)
    torch.testing.assert_close(field(x, t), gradient)


@pytest.mark.slow
def test_dice_finds_the_velocity_of_least_energy():
    """Cells that move by a constant velocity: the field is that velocity, everywhere and always."""
    x0, shift, times = np.random.default_rng(0).normal(size=(400, 2)), np.array([0.4, -0.2]), torch.arange(4.0)
    positions = [torch.tensor(x0 + float(t) * shift, dtype=torch.float32) for t in times]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        field = GradientField(2, 32)
    fit_dice(field, Snapshots(times, positions, None), torch.Generator().manual_seed(0))
    for k in (0, 2):
        v = field(positions[k], times[k])
        assert np.allclose(v.mean(0), shift, atol=0.05) and v.std(0).max() < 0.15
    # It is the gradient of its scalar.
    x = positions[1][:10].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(field.scalar(x, times[1]).sum(), x)
    assert torch.allclose(gradient, field(x, times[1]), atol=1e-5)
