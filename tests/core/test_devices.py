"""Where a fit computes: threads that are few, and as they were afterwards."""

import numpy as np
import pytest
import torch

from wlm.core.devices import few_threads, get_device, n_threads
from wlm.core.divergences import _gradient, _transform, cost, uniform
from wlm.core.methods import WLM
from wlm.core.model import Spec
from wlm.core.particles import Particles
from wlm.core.populations import Populations
from wlm.core.training import train


@pytest.fixture
def two_threads():
    """What torch of a machine with two cores starts with."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_a_training_has_one_thread_and_leaves_those_that_there_were(two_threads, monkeypatch):
    monkeypatch.delenv("WLM_NUM_THREADS")
    rng, seen = np.random.default_rng(0), []
    p = Populations(np.arange(3.0), tuple(rng.normal(size=(20, 2)) + t for t in range(3)))
    small = WLM(n_steps=2, batch_size=16, width=8, heads=2, hidden=8, n_inducing=2)
    train(p, small, on_step=lambda *_: seen.append(torch.get_num_threads()))
    assert seen == [1, 1] and torch.get_num_threads() == 2
    monkeypatch.setenv("WLM_NUM_THREADS", "3")
    train(p, small, on_step=lambda *_: seen.append(torch.get_num_threads()))
    assert seen[2:] == [3, 3] and torch.get_num_threads() == 2


def test_threads_are_given_back_after_an_error(two_threads, monkeypatch):
    monkeypatch.delenv("WLM_NUM_THREADS")
    with pytest.raises(KeyError), few_threads(torch.device("cpu")):
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == 2
    with few_threads(torch.device("meta")):  # other devices do not compute with them
        assert torch.get_num_threads() == 2


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", ""])
def test_a_number_of_threads_that_is_none_is_refused(text, monkeypatch):
    monkeypatch.setenv("WLM_NUM_THREADS", text)
    with pytest.raises(ValueError, match="WLM_NUM_THREADS must be a positive whole number, found "):
        n_threads()


def test_a_device_that_is_not_there_is_named():
    assert get_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="device 'cuda:99' cannot be used"):
        get_device("cuda:99")


@pytest.mark.parametrize("options", [{}, {"heads": 0}, {"initial_velocity": "learned", "growth": True}])
def test_mechanics_stay_on_the_device_of_their_cells(options):
    # A tensor that some line made on the processor would meet those of another device, and fail.
    spec = Spec(n_dims=3, blur=0.1, has_velocity=not options.get("growth"), n_times=3, times=(0.0, 1.0, 2.5))
    model = WLM(**{"width": 8, "heads": 2, "hidden": 8, "n_inducing": 2, **options}).build(spec).to("meta")
    x = torch.empty(20, 3, device="meta")
    start = Particles(x, torch.empty_like(x), torch.empty(20, device="meta") if options.get("growth") else None)
    times = torch.tensor(spec.times)  # of the processor: they say how many steps there are
    path = model.rollout(start, times, torch.Generator())
    assert path.x.shape == (3, 20, 3) and {z.device.type for z in path if z is not None} == {"meta"}
    at = Particles(path.x[-1], path.v[-1], None if path.log_w is None else path.log_w[-1])
    for found in (model.energy(at, times[-1]), model.force(at, times[-1]), model.initial_velocity(x)):
        assert found is None or found.device.type == "meta"
    loss = path.x.square().mean() + (0 if path.log_w is None else path.log_w.square().mean())
    loss.backward()
    learned = [p for p in model.parameters() if p.requires_grad and p.grad is not None]
    assert len(learned) > 5 and all(p.grad.device.type == "meta" for p in learned)


def test_costs_and_divergences_stay_on_the_device_of_their_cells():
    x, y = torch.empty(2, 20, 3, device="meta", requires_grad=True), torch.empty(2, 10, 3, device="meta")
    a = uniform(x)
    f = _transform(cost(x, y, 2), torch.empty(2, 10, device="meta"), uniform(y), 0.1)
    gradient = _gradient(torch.empty(2, 20, 10, device="meta"), cost(x, y, 1), x, y, 1)
    assert {z.device.type for z in (a, f, gradient)} == {"meta"}
    assert f.shape == (2, 20) and gradient.shape == (2, 20, 3)
