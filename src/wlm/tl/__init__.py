"""Tools: fit, predict, evaluate, diagnose, compare, perturb."""

from wlm.tl._compare import compare
from wlm.tl._diagnose import diagnose
from wlm.tl._evaluate import evaluate
from wlm.tl._fit import fit
from wlm.tl._perturb import perturb
from wlm.tl._predict import predict

__all__ = ["compare", "diagnose", "evaluate", "fit", "perturb", "predict"]
