"""The methods, by name."""

from wlm.core.methods._base import METHODS, Method, State, get_method
from wlm.core.methods.flow import Flow
from wlm.core.methods.ijkonet import IJKOnet
from wlm.core.methods.jkonet_star import JKOnetStar
from wlm.core.methods.wlm import WLM
from wlm.core.methods.wlm_paper import PaperWLM
from wlm.core.model import Model, Quantity, Spec

#: The method that is used where none is named.
DEFAULT = WLM.name

__all__ = [
    "DEFAULT",
    "METHODS",
    "WLM",
    "Flow",
    "IJKOnet",
    "JKOnetStar",
    "Method",
    "Model",
    "PaperWLM",
    "Quantity",
    "Spec",
    "State",
    "get_method",
]
