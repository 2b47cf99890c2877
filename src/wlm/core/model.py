"""What a fitted model can do, and what the data determine about it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from wlm.core.particles import Particles
from wlm.core.units import Units

#: torch draws initial weights from one generator for the whole process, so that threads have to wait for each other.
_DRAWING = threading.RLock()


@contextmanager
def drawing_from(seed: int | None = None) -> Iterator[None]:
    """Draw from torch's global generator, seeded if ``seed`` is given, and leave it as it was."""
    with _DRAWING, torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.default_generator.manual_seed(seed)  # of the CPU only: torch.manual_seed would reseed every device
        yield


@dataclass(frozen=True)
class Spec:
    """What the data determine about a model: enough, with the method's config, to rebuild it without data.

    Parameters
    ----------
    n_dims
        Dimension d of the state space.
    blur
        Length below which the data are not resolved, a tenth of the median distance within a population, in
        standard units.
    has_velocity
        Whether there are velocities to start with, measured or of splines.
    n_times
        Number of training times.
    times
        The training times, in standard units.
    has_prior, has_sizes
        Whether rates of growth are given for cells, and the sizes of the populations.
    """

    n_dims: int
    blur: float
    has_velocity: bool
    n_times: int
    times: tuple[float, ...] = ()
    has_prior: bool = False
    has_sizes: bool = False


@dataclass(frozen=True)
class Quantity:
    """A constant of a model in standard units, with its powers of length and time: friction has (0, -1)."""

    value: float
    length: int = 0
    time: int = 0

    def in_data(self, units: Units) -> float:
        """The value in the units of the data."""
        scale = units.length**self.length
        return self.value * (scale / units.time**-self.time if self.time < 0 else scale * units.time**self.time)

    def unit(self, length: str, time: str) -> str:
        """Its unit, given those of length and time: ``"1/day"``, ``"X_pca units^2/day"``."""
        powers = [(length, self.length), (time, self.time)]
        above, below = (
            " ".join(name if abs(n) == 1 else f"{name}^{abs(n)}" for name, n in powers if n * sign > 0)
            for sign in (1, -1)
        )
        return f"{above or '1'}/{below}" if below else above or "1"


class Model(nn.Module, ABC):
    """A dynamical model in standard units (see :class:`~wlm.core.units.Units`)."""

    #: Order of the equations in time: forces are lengths over time to this power, energies lengths squared over it.
    order: ClassVar[int] = 2
    #: Share of the cells that go straight to the next training population where its cells have no velocities; None
    #: where the model's need for velocities decides, see :func:`wlm.core.prediction.predict`.
    steady: ClassVar[float | None] = None

    @abstractmethod
    def initial_velocity(self, x: Tensor) -> Tensor | None:
        """Velocity (n, d) with which cells at ``x`` (n, d) start at time 0, or None if it must be given."""

    def velocity(self, p: Particles, t: Tensor) -> Tensor | None:
        """Velocity (n, d) of each cell, if position and time determine it; else None."""
        return None

    def growth(self, p: Particles, t: Tensor) -> Tensor | None:
        """Net rate (..., n) of births less deaths at which each cell multiplies, or None if cells are conserved."""
        return None

    def own_growth(self, x: Tensor, known: Tensor, end: Tensor | None = None) -> Tensor:
        """What cells at ``x`` (n, d) have beyond :meth:`growth` (n,), whose rates are ``known`` (n,), NaN where not.

        If they go to ``end`` (n, d), the mean over the way.
        """
        return torch.zeros_like(known)

    def growth_notes(self) -> dict[str, str | float]:
        """What the rates of growth rest on, by name: ``mode``, a word or two, and numbers."""
        return {}

    def start_velocity(self, v: Tensor, generator: torch.Generator) -> Tensor:
        """Velocity (n, d) with which observed cells start, given the one ``v`` carried to them or measured."""
        return v

    @abstractmethod
    def rollout(self, start: Particles, times: Tensor, generator: torch.Generator) -> Particles:
        """Move cells from ``times[0]`` through ``times``.

        Parameters
        ----------
        start
            The cells at ``times[0]``: positions and velocities (n, d), weights (n,).
        times
            Increasing times, shape (T,).
        generator
            Source of randomness, for stochastic models.

        Returns
        -------
        The cells at all times, the start included: every array has a leading axis T. Where cells grow, their weights
        have changed.
        """

    @abstractmethod
    def energy(self, p: Particles, t: Tensor) -> Tensor:
        """Energy (n,) of each cell in its population at time ``t``."""

    @abstractmethod
    def force(self, p: Particles, t: Tensor) -> Tensor:
        """Driving force on each cell (n, d), friction not included."""

    @abstractmethod
    def constants(self) -> dict[str, Quantity]:
        """The scalars that the model has learned, ``friction`` or ``diffusion`` for example, by name."""
