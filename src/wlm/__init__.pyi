from . import core as core
from . import datasets as datasets
from . import pl as pl
from . import pp as pp
from . import tl as tl
from ._report import report as report
from ._settings import settings as settings
from ._store.load import load as load
from ._version import __version__ as __version__

__all__ = ["__version__", "core", "datasets", "load", "pl", "pp", "report", "settings", "tl"]
