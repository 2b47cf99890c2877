"""The potential and its force: symmetries, and what the cells see of each other."""

import pytest
import torch

from wlm.core.energies.force import force
from wlm.core.energies.population import PopulationPotential
from wlm.core.particles import Particles


def potential(n_inducing=8, time_features=False, dim=3):
    torch.manual_seed(0)
    net = PopulationPotential(dim, width=32, hidden=64, n_inducing=n_inducing, time_features=time_features)
    torch.nn.init.normal_(net.energy.weight, std=0.5)
    return net


@pytest.mark.parametrize("n_inducing", [0, 8])
def test_permuting_cells_permutes_energies_and_forces(n_inducing):
    net, x, t = potential(n_inducing), torch.randn(40, 3), torch.tensor(0.3)
    order = torch.randperm(40)
    assert torch.allclose(net(x, t)[order], net(x[order], t), atol=1e-5)
    assert torch.allclose(force(net, Particles(x), t)[order], force(net, Particles(x[order]), t), atol=1e-5)


@pytest.mark.parametrize("n_inducing", [0, 8])
def test_cells_feel_the_population(n_inducing):
    net, x, t = potential(n_inducing), torch.randn(40, 3), torch.tensor(0.0)
    moved = x.clone()
    moved[1:] += 2
    assert (force(net, Particles(x), t)[0] - force(net, Particles(moved), t)[0]).abs().max() > 1e-3


def test_doubling_every_cell_leaves_energies_per_cell(n_inducing=8):
    net, x, t = potential(n_inducing), torch.randn(30, 3), torch.tensor(0.0)
    assert torch.allclose(net(torch.cat([x, x]), t)[:30], net(x, t), atol=1e-5)


def test_untrained_potential_exerts_no_force():
    net = PopulationPotential(3)
    assert force(net, Particles(torch.randn(10, 3)), torch.tensor(0.0)).abs().max() == 0


def test_time_features_matter_only_when_asked_for():
    x = torch.randn(10, 3)
    with_time, without = potential(time_features=True), potential()
    early, late = torch.tensor(0.0), torch.tensor(2.0)
    assert (with_time(x, early) - with_time(x, late)).abs().max() > 1e-3
    assert torch.equal(without(x, early), without(x, late))


@pytest.mark.parametrize("n_inducing", [0, 8])
def test_a_cell_of_weight_two_is_two_cells(n_inducing):
    net, x, t = potential(n_inducing), torch.randn(30, 3), torch.tensor(0.0)
    w = torch.ones(30)
    w[:10] = 2
    twice = torch.cat([x, x[:10]])
    w = w / w.mean()
    assert torch.allclose(net(x, t, w.log()), net(twice, t)[:30], atol=1e-5)
    assert torch.allclose(force(net, Particles(x, None, w.log()), t), force(net, Particles(twice), t)[:30], atol=1e-5)
    assert not torch.allclose(force(net, Particles(x, None, w.log()), t), force(net, Particles(x), t), atol=1e-3)
    assert torch.allclose(force(net, Particles(x, None, torch.zeros(30)), t), force(net, Particles(x), t), atol=1e-5)
