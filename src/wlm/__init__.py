"""wlm: learn how cell populations move, from time-labelled single cells.

Submodules load on first use (SPEC 1; what there is stands in ``__init__.pyi``), so that ``wlm.core`` works where only
torch, numpy and scipy are installed.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
