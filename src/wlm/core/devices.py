"""Where to compute."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from wlm.core import processes

#: Not empty in a process that was forked.
_FORKED: list[bool] = []


def _alone() -> None:
    """A forked process inherits the OpenMP pool of its parent without its threads, and would wait for them for ever."""
    _FORKED.append(True)
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_alone)


def get_device(device: str) -> torch.device:
    """The device to run on; ``"auto"`` is CUDA or else the CPU. Processes of ``torchrun`` have a CUDA device each."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and processes.count() > 1 and torch.cuda.device_count() > 1:
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    try:
        where = torch.device(device)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
    return where


def n_threads() -> int:
    """Threads of a fit on the CPU: one, or as many as ``WLM_NUM_THREADS`` says (not in a forked process).

    A step is thousands of small operations. More threads gain little there, wait for each other as soon as anything
    else runs, and add up in another order on each machine.
    """
    text = os.environ.get("WLM_NUM_THREADS", "1")
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"WLM_NUM_THREADS must be a positive whole number, found {text!r}")
    return 1 if _FORKED else int(text)


@contextmanager
def few_threads(device: torch.device) -> Iterator[None]:
    """Compute with :func:`n_threads` on the CPU; afterwards torch has those that it had."""
    before = torch.get_num_threads()
    wanted = n_threads() if device.type == "cpu" else before
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)
