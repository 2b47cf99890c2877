"""wlm: learn how cell populations move, from time-labelled single cells.

Submodules load on first use (SPEC 1), so that ``wlm.core`` works where only torch, numpy and scipy are installed.
"""

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["core", "datasets", "load", "pl", "pp", "tl"]


def __getattr__(name: str) -> Any:
    if name == "load":
        return importlib.import_module("wlm._load").load
    if name in __all__:
        return importlib.import_module(f"wlm.{name}")
    raise AttributeError(f"module 'wlm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
