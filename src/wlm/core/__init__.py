"""The mechanics, in torch and numpy alone: populations, energies, integrators, divergences, training, dynamics."""

from wlm.core import divergences, dynamics, energies, integrators, methods, metrics, populations, prediction, training

__all__ = [
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
