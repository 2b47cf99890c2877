"""The package's logger: it writes information to standard error; ``logging.getLogger("wlm")`` changes that."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger("wlm")
if not logger.handlers:
    _handler = logging.StreamHandler()
    _handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    logger.addHandler(_handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


@contextmanager
def quiet() -> Iterator[None]:
    """Show warnings only, for calls inside that the user did not make."""
    level = logger.level
    logger.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        logger.setLevel(level)
