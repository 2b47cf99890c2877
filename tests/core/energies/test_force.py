"""The force of a population's energy: its derivatives against automatic ones."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from wlm.core.energies.force import Compiled, force
from wlm.core.energies.population import PopulationPotential
from wlm.core.particles import Particles


def potential(n_inducing=8, time_features=False, dim=3):
    torch.manual_seed(0)
    net = PopulationPotential(dim, width=32, hidden=64, n_inducing=n_inducing, time_features=time_features)
    torch.nn.init.normal_(net.energy.weight, std=0.5)
    return net


@pytest.mark.parametrize("n_inducing", [0, 8])
def test_force_and_its_gradients_agree_with_automatic_differentiation(n_inducing):
    net, t = potential(n_inducing), torch.tensor(0.0)
    x, lam = torch.randn(60, 3, requires_grad=True), torch.randn(60, 3)
    parameters = [p for p in net.parameters() if p.requires_grad]
    ours = torch.autograd.grad(force(net, Particles(x), t), [x, *parameters], lam, allow_unused=True)
    with sdpa_kernel(SDPBackend.MATH):
        (gradient,) = torch.autograd.grad(net(x, t).sum(), x, create_graph=True)
        exact = torch.autograd.grad(-gradient, [x, *parameters], lam, allow_unused=True)
    assert torch.allclose(force(net, Particles(x), t), -gradient, atol=1e-5)
    flat = lambda gs: torch.cat([g.flatten() for g in gs if g is not None])  # noqa: E731
    assert torch.cosine_similarity(ours[0].flatten(), exact[0].flatten(), dim=0) > 0.999
    # Constant shifts of the energy have no gradient: None in one, zero in the other.
    used = [k for k, g in enumerate(exact) if g is not None and ours[k] is not None]
    a, b = flat([ours[k] for k in used[1:]]), flat([exact[k] for k in used[1:]])
    assert torch.cosine_similarity(a, b, dim=0) > 0.9999 and abs(a.norm() / b.norm() - 1) < 5e-3


def test_the_gradient_of_a_weighted_force_in_positions_weights_and_parameters():
    net, x, t = potential(8), torch.randn(30, 3, requires_grad=True), torch.tensor(0.0)
    w, lam = torch.rand(30) + 0.5, torch.randn(30, 3)
    parameters = [p for p in net.parameters() if p.requires_grad]
    log_w = w.log().requires_grad_()
    inputs = [x, log_w, *parameters]
    ours = torch.autograd.grad((lam * force(net, Particles(x, None, log_w), t)).sum(), inputs, allow_unused=True)
    with sdpa_kernel(SDPBackend.MATH):
        w = torch.exp(log_w)
        exact = -torch.autograd.grad((w * net(x, t, log_w)).sum(), x, create_graph=True)[0] / w[:, None]
        theirs = torch.autograd.grad((lam * exact).sum(), inputs, allow_unused=True)
    assert ours[1].abs().max() > 0.05, "nothing to compare"
    for a, b in zip(ours, theirs, strict=True):
        if b is not None and b.norm() > 1e-3:
            assert torch.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.999
            assert a.norm().item() == pytest.approx(b.norm().item(), rel=2e-2)


@pytest.mark.slow
def test_compiled_derivatives_are_those_of_the_plain_ones():
    """Forces on weighted cells, and the gradients of a loss of theirs in positions and parameters.

    In double precision: in single the order of sums, which differs between processors, shows in the fourth digit.
    """
    torch.manual_seed(0)
    double = {"dtype": torch.float64}
    potential = PopulationPotential(3, width=8, depth=1, heads=2, hidden=16, n_inducing=2).double()
    torch.nn.init.normal_(potential.energy.weight)
    compiled, t = Compiled(potential), torch.tensor(0.5, **double)
    for weighted in (True, False):
        log_w = (torch.rand(20, **double) + 0.5).log()
        start, direction = torch.randn(2, 20, 3, **double)
        results = []
        for which in (None, compiled):
            potential.zero_grad()
            x, own = start.clone().requires_grad_(), log_w.clone().requires_grad_(weighted)
            a = force(potential, Particles(x, None, own), t, compiled=which)
            (a * direction).sum().backward()
            gradients = [x.grad, *([own.grad] if weighted else [])]
            gradients += [p.grad.clone() for p in potential.parameters() if p.requires_grad]
            results.append([a.detach(), *gradients])
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)
        with torch.no_grad():  # compiled once, trained on
            potential.energy.weight.mul_(1.5)


@pytest.mark.slow
def test_every_shape_is_compiled():
    """The compiler's own limit counts all functions of a process, and runs what is beyond it without a word."""
    from torch._dynamo import config
    from torch._dynamo.utils import counters

    potential = PopulationPotential(2, width=4, depth=1, heads=1, hidden=4, n_inducing=0)
    compiled, t = Compiled(potential), torch.tensor(0.5)
    before = counters["stats"]["unique_graphs"]
    with config.patch(recompile_limit=1):
        for n in (3, 4, 5):
            compiled.gradient(torch.randn(n, 2), t, None)
    assert counters["stats"]["unique_graphs"] - before == 3


def test_compiling_needs_a_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ValueError, match=r"needs a C\+\+ compiler on the CPU"):
        Compiled(PopulationPotential(3))
