"""Several processes that train one model: each computes some batches of a step, and all apply the same mean gradient.

Started by ``torchrun``, or in a process group of one's own.
"""

from __future__ import annotations

import atexit
import hashlib
import os
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def count() -> int:
    """How many processes train together: those of the process group, or that ``torchrun`` has started."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return int(os.environ.get("WORLD_SIZE", 1)) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def share(method: Any) -> bool:
    """Whether processes share the batches of this method's steps."""
    return getattr(method, "n_batches", 1) > 1 and count() > 1


def agree(text: str, device: torch.device) -> bool:
    """Whether all processes have the same text."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    ends = torch.tensor([number, -number], dtype=torch.int64, device=device)
    dist.all_reduce(ends, dist.ReduceOp.MAX)
    return bool(ends.sum() == 0)


def join(device: torch.device) -> tuple[int, int]:
    """Rank of this process and number of processes, after the process group has been made where there is none yet."""
    if count() == 1:
        return 0, 1
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)
    return dist.get_rank(), dist.get_world_size()


def add_up(parameters: Sequence[Tensor], value: float) -> float:
    """Replace the gradient of each parameter by its sum over all processes; returns the sum of ``value``.

    A parameter that has a gradient in none of them keeps having none.
    """
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    there = grads[0].new_tensor([p.grad is not None for p in parameters])
    both = torch.cat([*(g.flatten() for g in grads), there, there.new_tensor([value])])
    dist.all_reduce(both)
    sums = both.split([*(g.numel() for g in grads), len(grads), 1])
    for p, g, n in zip(parameters, sums[: len(grads)], sums[-2].tolist(), strict=True):
        p.grad = g.view_as(p) if n else None
    return sums[-1].item()
