"""Tools: fit, predict, evaluate, diagnose, drivers, gene_trends."""

from wlm.tl._diagnose import diagnose
from wlm.tl._drivers import drivers
from wlm.tl._evaluate import evaluate
from wlm.tl._fit import fit
from wlm.tl._gene_trends import gene_trends
from wlm.tl._predict import predict

__all__ = ["diagnose", "drivers", "evaluate", "fit", "gene_trends", "predict"]
