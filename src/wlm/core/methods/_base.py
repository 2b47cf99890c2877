"""What a method supplies. Nothing outside ``core.methods`` knows a method by name."""

from __future__ import annotations

import dataclasses
import difflib
import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch

from wlm.core.checkpoint import Stateful
from wlm.core.model import Model, Spec
from wlm.core.populations import Populations
from wlm.core.snapshots import Snapshots

#: Every method by the name users give it: a class with a ``name`` of its own is here as soon as its file is imported.
METHODS: dict[str, type[Method[Any, Any]]] = {}
#: What other packages call these arguments and options.
SYNONYMS = {
    "rng": ("seed", "random_state", "random_seed"),
    "n_steps": ("epochs", "n_epochs", "max_epochs", "steps", "n_iter", "max_iter", "iterations"),
    "lr": ("learning_rate",),
    "strata_key": ("batch_key", "sample_key", "donor_key"),
    "condition_key": ("groupby", "group_key"),
    "use_rep": ("basis", "embedding", "obsm_key", "rep"),
    "n_dims": ("n_pcs", "n_comps", "n_components"),
    "velocity_key": ("vkey",),
    "clone_key": ("lineage_key", "barcode_key"),
    "show_progress": ("verbose", "progress"),
    "friction": ("gamma", "damping"),
    "width": ("hidden_dim", "n_hidden"),
}


class DivergenceError(RuntimeError):
    """A method's own sign that training cannot go on; its text says what was found and what to try."""


@dataclass(kw_only=True)
class State:
    """A training run in progress: whatever ``step`` changes, and what is thrown away afterwards.

    ``skipped`` counts the last steps in a row that changed nothing, for want of a usable gradient.
    """

    snapshots: Snapshots
    generator: torch.Generator
    skipped: int = 0

    def parts(self) -> dict[str, Stateful | torch.Generator]:
        """Everything with a state besides the model, once: what a checkpoint keeps, and what a return restores."""
        return {"generator": self.generator}


M = TypeVar("M", bound=Model)
S = TypeVar("S", bound=State)


@dataclass(frozen=True, kw_only=True)
class Method(ABC, Generic[M, S]):
    """Configuration of a method: frozen scalars, checked when made.

    A method is one file: a subclass with a ``name``, its options as fields, and the four functions below. ``M`` is the
    kind of its model, ``S`` that of its training state.
    """

    name: ClassVar[str] = ""
    #: What it does, in a sentence for the Methods of a paper, and the papers to cite for it.
    account: ClassVar[str] = ""
    papers: ClassVar[tuple[str, ...]] = ()
    #: What it can use besides the positions of the cells: ``"velocity"``, ``"clones"``; whether they may multiply:
    #: ``"growth"``.
    takes: ClassVar[frozenset[str]] = frozenset()
    #: Scalars that ``step`` returns besides the loss and the model's constants, with what they mean, for plots.
    scalars: ClassVar[Mapping[str, str]] = {}
    #: Options of earlier versions: what is now always so, and the constant of the class that stands for it, or None.
    dropped: ClassVar[Mapping[str, tuple[Any, str | None]]] = {}
    #: What configs of earlier versions mean by not naming one of these.
    earlier: ClassVar[Mapping[str, Any]] = {}

    n_steps: int
    lr: float | None
    batch_size: int
    ema: float

    def __init_subclass__(cls, **arguments: Any):
        super().__init_subclass__(**arguments)
        if "name" in vars(cls):
            METHODS[cls.name] = cls

    @property
    def grows(self) -> bool:
        """Whether cells divide and die in its models."""
        return getattr(self, "growth", False) is not False

    def check_growth(self, *, has_rates: bool) -> None:
        """Refuse growth that rests on rates of cells which are not given."""
        if getattr(self, "growth", False) == "prior" and not has_rates:
            raise ValueError(
                "growth='prior' takes the rates of the cells as they are given, and none are; name their column of obs "
                "as growth_key, or choose growth=True to learn rates"
            )

    def check_clones(self, *, has_clones: bool) -> None:
        """Refuse clones that the method would not use."""
        if has_clones and "clones" not in self.takes:
            others = " or ".join(f"method={name!r}" for name, other in METHODS.items() if "clones" in other.takes)
            raise ValueError(
                f"method {self.name!r} has no use for clones in training; leave clone_key out, or use {others}. "
                "wlm.tl.evaluate_clones scores any fit by them"
            )

    def conserved(self, *, has_velocity: bool) -> Self:
        """The same method without growth, for comparison: every other choice is the one that it makes with growth."""
        return dataclasses.replace(self, growth=False) if self.grows else self  # type: ignore[call-arg]

    def check(self, *, has_velocity: bool) -> None:
        """Refuse a configuration that the data cannot serve, before any work starts."""
        if has_velocity and "velocity" not in self.takes:
            others = " or ".join(f"method={name!r}" for name, other in METHODS.items() if "velocity" in other.takes)
            raise ValueError(
                f"method {self.name!r} learns first-order dynamics, in which positions determine velocities; "
                f"leave velocity_key out, or use {others}"
            )

    def prepare(
        self, populations: Populations, choice: str | None = None
    ) -> tuple[Populations, dict[str, dict[str, Any]]]:
        """What the method learns from the data before training.

        Parameters
        ----------
        populations
            What was observed.
        choice
            What :meth:`agree` found for several conditions; by default the method chooses from these populations.

        Returns
        -------
        populations
            What is to be trained on: those given, perhaps with velocities.
        notes
            For ``uns`` of a fit, by name; ``words`` in one of them is a sentence for the log.

        Raises
        ------
        ValueError
            As for :meth:`check`.
        """
        self.check(has_velocity=populations.velocities is not None)
        return populations, {}

    def agree(self, choices: Sequence[Mapping[str, Any]]) -> str | None:
        """One choice for all conditions, given the notes ``choice`` that :meth:`prepare` made of each; or None."""
        return None

    def companion(self, populations: Populations) -> tuple[Method[Any, Any], Populations] | None:
        """A velocity field that may forecast better than the model: a method, and what it is to be trained on.

        ``populations`` are prepared ones.
        """
        return None

    @abstractmethod
    def build(self, spec: Spec) -> M:
        """An untrained model. Needs no data, so that loading uses it too."""

    @abstractmethod
    def init(self, model: M, spec: Spec, snapshots: Snapshots, generator: torch.Generator) -> S:
        """Optimisers, and whatever else training needs."""

    @abstractmethod
    def step(self, model: M, spec: Spec, state: S) -> dict[str, float]:
        """One update of ``model``; returns scalars to log, ``loss`` among them."""

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """Make a config from keyword options; a wrong name raises a TypeError that lists the right ones."""
        names = {f.name for f in dataclasses.fields(cls)}
        if "growth" not in cls.takes and "growth" in options:
            options = dict(options)
            if (growth := options.pop("growth")) is not False:
                others = " or ".join(f"method={name!r}" for name, other in METHODS.items() if "growth" in other.takes)
                raise ValueError(
                    f"method {cls.name!r} conserves cells: it moves them and makes none, so growth={growth!r} has no "
                    f"meaning in it; use {others}, or leave growth out"
                )
        unknown = sorted(set(options) - names)
        if unknown:
            raise TypeError(
                f"unknown option(s) {unknown} for method {cls.name!r}{_meant(unknown, names)}; "
                f"options are {sorted(names)}"
            )
        return cls(**{k: v.item() if isinstance(v, np.generic) else v for k, v in options.items()})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The config that :meth:`to_json` wrote, in this version or an earlier one.

        An option that is a constant now has the value it had then; one that is gone for good is warned about if it was
        not what is now always so: it was of the training alone.
        """
        options, constants = {**cls.earlier, **json.loads(text)}, {}
        for name, (always, constant) in cls.dropped.items():
            value = options.pop(name, always)
            if value == always:
                continue
            if constant is not None:
                constants[constant] = value
                continue
            warnings.warn(
                f"the fit was made with {name}={value!r}, an option of earlier versions; predictions are the same, "
                f"another fit would have {always!r}",
                stacklevel=2,
            )
        method = cls.from_options(options)
        for name, value in constants.items():
            object.__setattr__(method, name, value)
        return method

    def options(self) -> dict[str, Any]:
        """The options that are not the defaults."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if getattr(self, f.name) != f.default}

    def to_json(self) -> str:
        """The config as JSON, with the constants that were options once."""
        constants = {name: getattr(self, constant) for name, (_, constant) in self.dropped.items() if constant}
        return json.dumps(dataclasses.asdict(self) | constants)

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


def _meant(unknown: list[str], names: set[str]) -> str:
    """What may have been meant by arguments that do not exist, in words."""
    meant = {wrong: right for right, wrongs in SYNONYMS.items() for wrong in wrongs}
    found = []
    for name in unknown:
        near = [meant[name]] if name in meant else difflib.get_close_matches(name, [*names, *SYNONYMS], n=1)
        found += near
    return f"; did you mean {', '.join(dict.fromkeys(found))}?" if found else ""


def get_method(method: str | Method[Any, Any], options: Mapping[str, Any]) -> Method[Any, Any]:
    """The configured method; wrong names are refused with the right ones.

    ``method`` is a name, or a method that is configured already, of which ``options`` replace some.
    """
    if isinstance(method, Method):
        return method.from_options({**method.options(), **options})
    if method not in METHODS:
        raise ValueError(f"method {method!r} does not exist; methods are {sorted(METHODS)}")
    return METHODS[method].from_options(options)
