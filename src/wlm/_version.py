"""The version, read by the build and noted in every fit."""

__version__ = "0.1.0"
