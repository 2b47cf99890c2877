"""Simulated and real cells to learn with."""

from wlm.datasets._bifurcation import bifurcation
from wlm.datasets._growth import branching_growth
from wlm.datasets._larry import larry, larry_clones
from wlm.datasets._oscillator import repressilator
from wlm.datasets._particles import boids, gradient_flow_sde
from wlm.datasets._potentials import potential_flow
from wlm.datasets._real import embryoid_body, emt, vortex
from wlm.datasets._toggle import gene_toggle

__all__ = [
    "bifurcation",
    "boids",
    "branching_growth",
    "embryoid_body",
    "emt",
    "gene_toggle",
    "gradient_flow_sde",
    "larry",
    "larry_clones",
    "potential_flow",
    "repressilator",
    "vortex",
]
