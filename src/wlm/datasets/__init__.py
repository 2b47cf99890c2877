"""Simulated and real cells to learn with."""

from wlm.datasets._bifurcation import bifurcation
from wlm.datasets._real import embryoid_body, emt, vortex

__all__ = ["bifurcation", "embryoid_body", "emt", "vortex"]
