"""A training run as plain arrays: to go back to a good state, and to go on after a crash.

Files hold arrays and JSON only (``numpy.savez`` without pickle), so that reading one executes no code.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from struct import error as StructError
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor, nn

#: What an object of a training run is when it does not change: the method makes it again.
FIXED = object()
Stateful = nn.Module | torch.optim.Optimizer | torch.optim.lr_scheduler.LRScheduler


def capture(value: Any) -> Any:
    """A copy of all that changes in ``value``: nested dicts, lists and tuples of tensors, numbers and strings."""
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, Stateful):
        return capture(value.state_dict())
    if isinstance(value, nn.Parameter):
        return FIXED  # belongs to a module, which is captured itself
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        parts = {k: capture(v) for k, v in value.items()}
        return {k: v for k, v in parts.items() if v is not FIXED}
    if isinstance(value, (list, tuple)):
        items = [capture(v) for v in value]
        return FIXED if any(v is FIXED for v in items) else type(value)(items)
    return value if value is None or isinstance(value, (bool, int, float, str)) else FIXED


def restore(value: Any, saved: Any, device: torch.device) -> Any:
    """``value`` as it was when ``saved`` was captured from it; objects with a state are changed in place."""
    if isinstance(value, torch.Generator):
        value.set_state(saved.cpu())
        return value
    if isinstance(value, Stateful):
        value.load_state_dict(capture(saved))  # a copy: optimisers keep what they are given
        return value
    if isinstance(saved, Tensor):
        return saved.to(device, copy=True)
    if isinstance(saved, dict):
        # What changes is as saved, what was not there then is gone, what never changes stays.
        old = value if isinstance(value, dict) else {}
        fixed = {k: v for k, v in old.items() if k not in saved and capture(v) is FIXED}
        return {**fixed, **{k: restore(old.get(k), v, device) for k, v in saved.items()}}
    if isinstance(saved, (list, tuple)):
        parts = value if isinstance(value, (list, tuple)) and len(value) == len(saved) else [None] * len(saved)
        return type(saved)(restore(v, s, device) for v, s in zip(parts, saved, strict=True))
    return saved


def slow_down(value: Any, factor: float) -> None:
    """Multiply the learning rates of all optimisers and schedules in ``value`` by ``factor``."""
    if isinstance(value, torch.optim.Optimizer):
        for group in value.param_groups:
            for name in ("lr", "initial_lr"):
                if name in group:
                    group[name] *= factor
    elif isinstance(value, torch.optim.lr_scheduler.LRScheduler):
        value.base_lrs = [lr * factor for lr in value.base_lrs]
    elif isinstance(value, dict):
        for part in value.values():
            slow_down(part, factor)
    elif isinstance(value, (list, tuple)):
        for part in value:
            slow_down(part, factor)


def write(path: Path, tree: Any) -> None:
    """Write what :func:`capture` returned; the file is complete or, after a crash, the one before."""
    arrays: list[np.ndarray] = []
    skeleton = json.dumps(_flatten(tree, arrays))
    scratch = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with scratch.open("wb") as file:
            np.savez(file, skeleton=np.array(skeleton), **{f"a{i}": a for i, a in enumerate(arrays)})  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def read(path: Path) -> Any:
    """Read what :func:`write` wrote.

    Raises
    ------
    ValueError
        If it is not such a file, or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return _grow(json.loads(str(file["skeleton"])), file)
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except (
        OSError,
        ArithmeticError,
        LookupError,
        EOFError,
        RuntimeError,
        StructError,
        TypeError,
        ValueError,
        BadZipFile,
    ) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{str(path)!r} is not a checkpoint that can be read ({reason}); delete it") from error


def _flatten(tree: Any, arrays: list[np.ndarray]) -> Any:
    """The tree as JSON, with tensors replaced by their number in ``arrays``."""
    if isinstance(tree, Tensor):
        arrays.append(tree.cpu().numpy())
        return {"array": len(arrays) - 1}
    if isinstance(tree, dict):
        return {"dict": [[k, _flatten(v, arrays)] for k, v in tree.items()]}
    if isinstance(tree, (list, tuple)):
        return {type(tree).__name__: [_flatten(v, arrays) for v in tree]}
    return {"value": tree}


def _grow(node: dict[str, Any], file: Any) -> Any:
    """The tree of a skeleton."""
    ((kind, content),) = node.items()
    if kind == "array":
        return torch.as_tensor(file[f"a{content}"])
    if kind == "dict":
        return {k: _grow(v, file) for k, v in content}
    if kind in ("list", "tuple"):
        items = [_grow(v, file) for v in content]
        return items if kind == "list" else tuple(items)
    if kind != "value":
        raise ValueError(f"unknown kind {kind!r}")
    return content
