"""A training run as plain arrays: to go back to a good state, and to go on after a crash.

Files hold arrays and JSON only (``numpy.savez`` without pickle), so that reading one executes no code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from struct import error as StructError
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor, nn

Plain = bool | int | float | str | None


class Stateful(Protocol):
    """A part of a training run that changes: modules, optimisers, schedules, :class:`Memory`, or a method's own kind.

    A kind of a method's own also has ``slow_down(factor)``, for what of it is a learning rate.
    """

    def state_dict(self) -> Any:
        """All that changes: dicts, lists and tuples of tensors, numbers, texts and None."""

    def load_state_dict(self, state_dict: Any) -> Any:
        """Become what ``state_dict`` was taken from."""


class Memory(dict[Any, Any]):
    """What a training remembers from one step to the next: tensors, numbers, texts, and tuples or dicts of them."""

    def state_dict(self) -> dict[Any, Any]:
        """The entries."""
        return dict(self)

    def load_state_dict(self, state_dict: dict[Any, Any]) -> None:
        """Forget all, and remember these entries."""
        self.clear()
        self.update(state_dict)


def capture(parts: Mapping[str, Stateful | torch.Generator]) -> dict[str, Any]:
    """A copy of all that changes in the parts of a training run.

    Raises
    ------
    TypeError
        If a part has no state, or one that holds something else than dicts, lists and tuples of tensors, numbers, texts
        and None: it would be lost.
    """
    return {name: _copied(_state(name, part), name) for name, part in parts.items()}


def restore(parts: Mapping[str, Stateful | torch.Generator], saved: Mapping[str, Any], device: torch.device) -> None:
    """Bring the parts of a training run, in place, back to where ``saved`` was captured from them."""
    for name, part in parts.items():
        if isinstance(part, torch.Generator):
            part.set_state(saved[name].cpu())
        else:
            part.load_state_dict(_copied(saved[name], name, device))  # a copy: optimisers keep what they are given


def slow_down(parts: Mapping[str, Any], factor: float) -> None:
    """Multiply the learning rates of all optimisers and schedules by ``factor``, each once.

    Raises
    ------
    TypeError
        If a part is of an unknown kind without a ``slow_down`` of its own.
    """
    for part in {id(part): part for part in parts.values()}.values():
        if isinstance(part, torch.optim.Optimizer):
            for group in part.param_groups:
                for name in ("lr", "initial_lr"):
                    if name in group:
                        group[name] *= factor
        elif isinstance(part, torch.optim.lr_scheduler.LRScheduler):
            part.base_lrs = [lr * factor for lr in part.base_lrs]
        elif hasattr(part, "slow_down"):
            part.slow_down(factor)
        elif not isinstance(part, (nn.Module, torch.Generator, Memory)):
            raise TypeError(f"a {type(part).__name__} has no learning rate that is known; give it slow_down(factor)")


def _state(name: str, part: Any) -> Any:
    if isinstance(part, torch.Generator):
        return part.get_state()
    if not hasattr(part, "state_dict"):
        raise TypeError(f"{name!r} of a training run is a {type(part).__name__} without a state_dict")
    return part.state_dict()


def _copied(value: Any, name: str, device: torch.device | None = None) -> Any:
    """A deep copy of a state, on ``device`` if that is given."""
    if isinstance(value, Tensor):
        return value.detach().clone() if device is None else value.detach().to(device, copy=True)
    if isinstance(value, dict):
        return {k: _copied(v, f"{name}/{k}", device) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_copied(v, f"{name}/{i}", device) for i, v in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, Plain) and not isinstance(value, np.generic):
        return value
    raise TypeError(
        f"{name!r} of a training run is a {type(value).__name__}, which is not kept; tensors, numbers, texts, None "
        "are, and dicts, lists and tuples of them"
    )


def write(path: Path, tree: Any) -> None:
    """Write such a tree of tensors and numbers; the file is complete or, after a crash, the one before."""
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
