"""One HTML file with everything that is known of a fit."""

from wlm._report.verb import report

__all__ = ["report"]
