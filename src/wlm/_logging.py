"""The package's logger, ``logging.getLogger("wlm")``: what is set on it, or on logging as a whole, holds.

Where nobody has set anything, it writes information to standard error. ``wlm.settings.verbosity`` sets its level.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: The level of hints, below information: what a number means, and what to run next.
HINT = 15
logging.addLevelName(HINT, "HINT")

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


def hint(message: str, *arguments: object) -> None:
    """Say what helps those who are new to it, if they have asked for hints."""
    logger.log(HINT, message, *arguments)


def get_level() -> int:
    """The level that users have chosen, inside :func:`quiet` too."""
    with _lock:
        return _level if _calls else logger.getEffectiveLevel()


def set_level(level: int) -> None:
    """Choose the level; calls that are quiet now stay so until they end."""
    global _level
    with _lock:
        if _calls:
            _level = level
            level = max(level, logging.WARNING)
        logger.setLevel(level)


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
