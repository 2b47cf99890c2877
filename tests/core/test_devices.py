"""Where a fit computes: threads that are few, and as they were afterwards."""

import numpy as np
import pytest
import torch

from wlm.core.devices import few_threads, get_device, n_threads
from wlm.core.methods import WLM
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
