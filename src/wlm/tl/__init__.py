"""Tools: fit, predict, evaluate, diagnose, compare."""

from wlm.tl._compare import compare
from wlm.tl._diagnose import diagnose
from wlm.tl._evaluate import evaluate
from wlm.tl._fit import fit
from wlm.tl._predict import predict

__all__ = ["compare", "diagnose", "evaluate", "fit", "predict"]
