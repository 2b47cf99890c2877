"""One HTML file with everything that is known of a fit."""

from wlm._report.report import report

__all__ = ["report"]
