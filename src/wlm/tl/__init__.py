"""Tools: fit, predict, evaluate, evaluate_clones, diagnose, drivers, gene_trends."""

from wlm.tl._diagnose import diagnose
from wlm.tl._drivers import drivers
from wlm.tl._evaluate import evaluate
from wlm.tl._evaluate_clones import evaluate_clones
from wlm.tl._fit import fit
from wlm.tl._gene_trends import gene_trends
from wlm.tl._predict import predict

__all__ = ["diagnose", "drivers", "evaluate", "evaluate_clones", "fit", "gene_trends", "predict"]
