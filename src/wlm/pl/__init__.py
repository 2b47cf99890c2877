"""Plots. None of them writes to the object it draws."""

from wlm.pl._animate import animate
from wlm.pl._clones import clones
from wlm.pl._comparison import comparison
from wlm.pl._composition import composition
from wlm.pl._drivers import drivers
from wlm.pl._energy import energy, friction
from wlm.pl._evaluation import evaluation
from wlm.pl._fate_probabilities import fate_probabilities
from wlm.pl._fates import fates
from wlm.pl._genes import genes
from wlm.pl._growth import growth
from wlm.pl._perturbation import perturbation
from wlm.pl._plan import plan
from wlm.pl._potential import potential
from wlm.pl._rollout import rollout
from wlm.pl._training import training
from wlm.pl._velocity import velocity

__all__ = [
    "animate",
    "clones",
    "comparison",
    "composition",
    "drivers",
    "energy",
    "evaluation",
    "fate_probabilities",
    "fates",
    "friction",
    "genes",
    "growth",
    "perturbation",
    "plan",
    "potential",
    "rollout",
    "training",
    "velocity",
]
