"""The package's logger, ``logging.getLogger("wlm")``: what is set on it, or on logging as a whole, holds.

Where nobody has set anything, it writes information to standard error.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger("wlm")
# This file is imported with the first module that needs it, which may be long after a user has chosen.
if logger.level == logging.NOTSET:
    logger.setLevel(logging.INFO)
if not logger.hasHandlers():
    _handler = logging.StreamHandler()
    _handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    logger.addHandler(_handler)
    logger.propagate = False


_lock, _calls, _level = threading.Lock(), 0, logging.INFO


@contextmanager
def quiet() -> Iterator[None]:
    """Show warnings only, for calls inside that the user did not make; several threads may be inside."""
    global _calls, _level
    with _lock:
        if _calls == 0:
            _level = logger.level
            logger.setLevel(max(_level, logging.WARNING))
        _calls += 1
    try:
        yield
    finally:
        with _lock:
            _calls -= 1
            if _calls == 0:
                logger.setLevel(_level)
