"""Simulated and real cells to learn with."""

from wlm.datasets._bifurcation import bifurcation

__all__ = ["bifurcation"]
