"""The methods, by name."""

from wlm.core.methods._base import Method
from wlm.core.methods.ijkonet import IJKOnet
from wlm.core.methods.jkonet_star import JKOnetStar
from wlm.core.methods.wlm import WLM
from wlm.core.model import Model, Spec

#: Every method by the name users give it. A new method is a new file and one entry here.
METHODS: dict[str, type[Method]] = {m.name: m for m in (WLM, IJKOnet, JKOnetStar)}

__all__ = ["METHODS", "WLM", "IJKOnet", "JKOnetStar", "Method", "Model", "Spec"]
