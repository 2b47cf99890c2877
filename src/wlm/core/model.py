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
    """

    n_dims: int
    blur: float
    has_velocity: bool
    n_times: int
    times: tuple[float, ...] = ()


class Model(nn.Module, ABC):
    """A dynamical model in standard units (see :class:`~wlm.core.units.Units`)."""

    #: Order of the equations in time: forces are lengths over time to this power, energies lengths squared over it.
    order: ClassVar[int] = 2

    @abstractmethod
    def initial_velocity(self, x: Tensor) -> Tensor | None:
        """Velocity (n, d) with which cells at ``x`` (n, d) start at time 0, or None if it must be given."""

    def velocity(self, x: Tensor, t: Tensor, w: Tensor | None = None) -> Tensor | None:
        """Velocity (n, d) of cells at ``x`` (n, d), if position and time determine it; else None."""
        return None

    def start_velocity(self, v: Tensor, generator: torch.Generator) -> Tensor:
        """Velocity (n, d) with which observed cells start, given the one ``v`` carried to them or measured."""
        return v

    @abstractmethod
    def rollout(
        self, x: Tensor, v: Tensor, times: Tensor, generator: torch.Generator, w: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Move cells from ``times[0]`` through ``times``.

        Parameters
        ----------
        x, v
            Positions and velocities at ``times[0]``, shape (n, d).
        times
            Increasing times, shape (T,).
        generator
            Source of randomness, for stochastic models.
        w
            Weights of the cells, shape (n,), 1 on average; all equal by default.

        Returns
        -------
        positions, velocities
            Shape (T, n, d), the start included.
        """

    @abstractmethod
    def energy(self, x: Tensor, t: Tensor, w: Tensor | None = None) -> Tensor:
        """Energy of each cell (n,) of a population ``x`` (n, d) with weights ``w`` (n,) at time ``t``."""

    @abstractmethod
    def force(self, x: Tensor, t: Tensor, w: Tensor | None = None) -> Tensor:
        """Driving force on each cell (n, d), friction not included."""

    @abstractmethod
    def rates(self) -> dict[str, float]:
        """Scalars of the model that have the unit 1/time (``friction``) or length**2/time (``diffusion``)."""
