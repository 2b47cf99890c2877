"""Tools: fit, predict, evaluate."""

from wlm.tl._evaluate import evaluate
from wlm.tl._fit import fit
from wlm.tl._predict import predict

__all__ = ["evaluate", "fit", "predict"]
