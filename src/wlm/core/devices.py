"""Where to compute."""

from __future__ import annotations

import os

import torch

from wlm.core import processes


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
