"""The mechanics, in torch, numpy and scipy alone: populations, energies, integrators, divergences, training."""

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
