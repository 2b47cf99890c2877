"""The potential of moments: its force is the gradient of its energy, by cells, weights and parameters."""

import pytest
import torch

from wlm.core.energies.force import force
from wlm.core.energies.moments import MomentPotential
from wlm.core.methods import WLM
from wlm.core.particles import Particles


def potential(n_moments=5, *, time_features=False):
    torch.manual_seed(0)
    net = MomentPotential(3, width=16, n_moments=n_moments, time_features=time_features).double()
    torch.nn.init.normal_(net.energy.weight, std=0.5)
    return net


@pytest.mark.parametrize("n_moments", [0, 5])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("time_features", [False, True])
def test_the_force_is_the_gradient_that_automatic_differentiation_finds(n_moments, weighted, time_features):
    net, x = potential(n_moments, time_features=time_features), torch.randn(2, 20, 3, dtype=torch.float64)
    log_w = torch.randn(2, 20, dtype=torch.float64).requires_grad_() if weighted else None
    w = torch.ones(2, 20) if log_w is None else 20 * torch.softmax(log_w, -1)
    t = torch.tensor([0.3, 1.7], dtype=torch.float64)  # a time of each population
    x.requires_grad_()
    (gradient,) = torch.autograd.grad((w * net(x, t, log_w)).sum(), x, create_graph=True)
    found = force(net, Particles(x, None, log_w), t)
    assert torch.allclose(found, -gradient / w.unsqueeze(-1), atol=1e-12)
    # A loss of the force has the same gradients as through the second-order graph.
    inputs = [x, *net.parameters()] + ([] if log_w is None else [log_w])
    lam = torch.randn_like(found)
    ours, theirs = (
        torch.autograd.grad((lam * a).sum(), inputs, allow_unused=True, retain_graph=True, materialize_grads=True)
        for a in (found, -gradient / w.unsqueeze(-1))
    )
    assert sum(bool(g.abs().max() > 1e-3) for g in theirs) > 5
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(ours, theirs, strict=True))


def test_cells_feel_the_moments_of_the_population_and_without_them_nothing():
    x, t = torch.randn(40, 3, dtype=torch.float64), torch.tensor(0.0)
    moved = x.clone()
    moved[1:] += 2
    for n_moments in (5, 0):
        net = potential(n_moments)
        apart = (force(net, Particles(x), t)[0] - force(net, Particles(moved), t)[0]).abs().max()
        assert apart > 1e-3 if n_moments else apart == 0


def test_a_cell_of_weight_two_is_two_cells():
    net, x, t = potential(), torch.randn(30, 3, dtype=torch.float64), torch.tensor(0.0)
    w = torch.ones(30, dtype=torch.float64)
    w[:10] = 2
    twice = torch.cat([x, x[:10]])
    assert torch.allclose(net(x, t, w.log()), net(twice, t)[:30])
    assert torch.allclose(force(net, Particles(x, None, w.log()), t), force(net, Particles(twice), t)[:30])
    assert not torch.allclose(net(x, t, w.log()), net(x, t), atol=1e-3)


def test_an_untrained_potential_exerts_no_force_and_time_matters_when_asked_for():
    assert force(MomentPotential(3), Particles(torch.randn(10, 3)), torch.tensor(0.0)).abs().max() == 0
    x = torch.randn(10, 3, dtype=torch.float64)
    early, late = torch.tensor([0.0, 2.0], dtype=torch.float64)
    with_time, without = potential(time_features=True), potential()
    assert (with_time(x, early) - with_time(x, late)).abs().max() > 1e-3
    assert torch.equal(without(x, early), without(x, late))


def test_heads_0_is_refused_with_compile_and_takes_any_width():
    with pytest.raises(ValueError, match="compile=True compiles the derivatives of attention; with heads=0"):
        WLM(heads=0, compile=True)
    with pytest.raises(ValueError, match="width must be a multiple of heads, found 10 and 4"):
        WLM(width=10)
    assert WLM(heads=0, width=10).width == 10
