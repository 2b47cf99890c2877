"""What a method supplies. Nothing outside ``core.methods`` knows a method by name."""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch

from wlm.core.inertia import Inertia
from wlm.core.model import Model, Spec
from wlm.core.populations import Array, Populations
from wlm.core.snapshots import Snapshots


class DivergenceError(RuntimeError):
    """A method's own sign that training cannot go on; its text says what was found and what to try."""


@dataclass
class State:
    """A training run in progress: whatever ``step`` changes, and what is thrown away afterwards.

    ``skipped`` counts the last steps in a row that changed nothing, for want of a usable gradient.
    """

    snapshots: Snapshots
    generator: torch.Generator
    optimizer: torch.optim.Optimizer
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    skipped: int = 0


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Configuration of a method: frozen scalars, checked when made."""

    name: ClassVar[str]
    #: Whether velocities of the cells can be used.
    takes_velocity: ClassVar[bool] = True

    n_steps: int
    ema: float

    @abstractmethod
    def check(self, *, has_velocity: bool) -> None:
        """Refuse a configuration that the data cannot serve, before any work starts."""

    def estimate_velocities(self, populations: Populations) -> tuple[tuple[Array, ...] | None, Inertia | None]:
        """Velocities that training is to take for measured, from the populations alone, and how far these show inertia.

        Both None where the method has no use for them.
        """
        return None, None

    @abstractmethod
    def build(self, spec: Spec) -> Model:
        """An untrained model. Needs no data, so that loading uses it too."""

    @abstractmethod
    def init(self, model: Model, spec: Spec, snapshots: Snapshots, generator: torch.Generator) -> State:
        """Optimisers, and whatever else training needs."""

    @abstractmethod
    def step(self, model: Model, spec: Spec, state: State) -> dict[str, float]:
        """One update of ``model``; returns scalars to log, ``loss`` among them."""

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """Make a config from keyword options; a wrong name raises a TypeError that lists the right ones."""
        names = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(options) - names)
        if unknown:
            raise TypeError(f"unknown option(s) {unknown} for method {cls.name!r}; options are {sorted(names)}")
        return cls(**{k: v.item() if isinstance(v, np.generic) else v for k, v in options.items()})

    def to_json(self) -> str:
        """The config as JSON."""
        return json.dumps(dataclasses.asdict(self))

    def _require(
        self,
        field: str,
        kind: type,
        low: float | None = None,
        high: float | None = None,
        *,
        open_low: bool = False,
    ) -> None:
        """Check that a field is a number of the right kind within [low, high]."""
        value = getattr(self, field)
        number = isinstance(value, int if kind is int else (int, float))
        if not number or isinstance(value, bool):
            raise TypeError(f"{field} must be {'an integer' if kind is int else 'a number'}, found {value!r}")
        if not np.isfinite(value) or (low is not None and (value <= low if open_low else value < low)):
            raise ValueError(f"{field} must be {'above' if open_low else 'at least'} {low}, found {value!r}")
        if high is not None and value > high:
            raise ValueError(f"{field} must be at most {high}, found {value!r}")

    def _require_one_of(self, field: str, choices: tuple[Any, ...]) -> None:
        value = getattr(self, field)
        if not any(value is c or (type(value) is type(c) and value == c) for c in choices):
            raise ValueError(f"{field} must be one of {list(choices)}, found {value!r}")
