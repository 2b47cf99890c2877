"""Tools: fit, predict, evaluate, diagnose; terminal states, fates and ancestors."""

from wlm.tl._ancestors import ancestors
from wlm.tl._diagnose import diagnose
from wlm.tl._evaluate import evaluate
from wlm.tl._fates import fates
from wlm.tl._fit import fit
from wlm.tl._predict import predict
from wlm.tl._terminal_states import terminal_states

__all__ = ["ancestors", "diagnose", "evaluate", "fates", "fit", "predict", "terminal_states"]
