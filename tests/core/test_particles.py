"""Weights of particles: shares, relative weights, means."""

import torch

from wlm.core.particles import Particles, together


def test_shares_and_relative_weights_do_not_depend_on_the_size_of_the_population():
    x, w = torch.randn(4, 2), torch.tensor([1.0, 2.0, 3.0, 4.0])
    for total in (1.0, 1e6):
        p = Particles(x, None, (total * w).log())
        torch.testing.assert_close(p.shares, w / 10)
        torch.testing.assert_close(p.w, w / 2.5)
        torch.testing.assert_close(p.mean(x[:, 0]), (w * x[:, 0]).sum() / 10)
        torch.testing.assert_close(torch.logsumexp(p.log_w, 0), torch.tensor(10 * total).log())  # which it still knows


def test_cells_without_weights_count_the_same():
    p = Particles(torch.randn(3, 5, 2))
    assert p.w is None and torch.equal(p.shares, torch.full((3, 5), 0.2))
    torch.testing.assert_close(p.mean(p.x[..., 0]), p.x[..., 0].mean(-1))


def test_states_of_several_times_are_stacked():
    states = [Particles(torch.full((4, 2), k), torch.zeros(4, 2), torch.full((4,), k)) for k in (1.0, 2.0)]
    path = together(states)
    assert path.x.shape == (2, 4, 2) and path.v.shape == (2, 4, 2) and path.log_w[:, 0].tolist() == [1.0, 2.0]
    assert together([s._replace(v=None) for s in states]).v is None
