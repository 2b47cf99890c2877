"""Tools: fit, predict, evaluate, diagnose; fates, drivers, gene trends; compare, perturb; transitions, CellRank."""

from wlm.tl._ancestors import ancestors
from wlm.tl._compare import compare
from wlm.tl._composition import composition
from wlm.tl._diagnose import diagnose
from wlm.tl._drivers import drivers
from wlm.tl._energy_difference import energy_difference
from wlm.tl._evaluate import evaluate
from wlm.tl._evaluate_clones import evaluate_clones
from wlm.tl._fates import fates
from wlm.tl._fit import fit
from wlm.tl._gene_trends import gene_trends
from wlm.tl._perturb import perturb
from wlm.tl._plan import plan
from wlm.tl._predict import predict
from wlm.tl._terminal_states import terminal_states
from wlm.tl._to_cellrank import to_cellrank
from wlm.tl._transitions import transitions

__all__ = [
    "ancestors",
    "compare",
    "composition",
    "diagnose",
    "drivers",
    "evaluate",
    "energy_difference",
    "evaluate_clones",
    "fates",
    "fit",
    "gene_trends",
    "perturb",
    "plan",
    "predict",
    "terminal_states",
    "to_cellrank",
    "transitions",
]
