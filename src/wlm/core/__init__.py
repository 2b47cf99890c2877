"""The mechanics, in torch and numpy alone: populations, energies, integrators, divergences, training, dynamics."""

from wlm.core import (
    diagnosis,
    divergences,
    dynamics,
    energies,
    integrators,
    methods,
    metrics,
    populations,
    prediction,
    training,
)

__all__ = [
    "diagnosis",
    "divergences",
    "dynamics",
    "energies",
    "integrators",
    "methods",
    "metrics",
    "populations",
    "prediction",
    "training",
]
