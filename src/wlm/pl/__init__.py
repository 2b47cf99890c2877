"""Plots. None of them writes to the object it draws."""

from wlm.pl._energy import energy, friction
from wlm.pl._evaluation import evaluation
from wlm.pl._fields import potential, velocity
from wlm.pl._genes import genes
from wlm.pl._rollout import rollout
from wlm.pl._training import training

__all__ = ["energy", "evaluation", "friction", "genes", "potential", "rollout", "training", "velocity"]
