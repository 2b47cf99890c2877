"""The package's logger: it writes information to standard error; ``logging.getLogger("wlm")`` changes that."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger("wlm")
if not logger.handlers:
    _handler = logging.StreamHandler()
    _handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    logger.addHandler(_handler)
    logger.setLevel(logging.INFO)
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
