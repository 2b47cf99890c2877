"""The mechanics, in torch and numpy alone: populations, energies, integrators, divergences, training, dynamics."""
