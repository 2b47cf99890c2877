"""The command ``wlm``."""

from wlm.cli.commands import app

__all__ = ["app"]
