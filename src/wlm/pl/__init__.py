"""Plots. None of them writes to the object it draws."""

from wlm.pl._rollout import rollout
from wlm.pl._training import training

__all__ = ["rollout", "training"]
