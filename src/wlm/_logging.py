"""The package's logger: messages go to standard error unless the application configures logging itself."""

import logging

logger = logging.getLogger("wlm")
if not logger.handlers:
    _handler = logging.StreamHandler()
    _handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    logger.addHandler(_handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
