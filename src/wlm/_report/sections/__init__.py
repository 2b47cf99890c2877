"""The sections of the report, in their order: a function of the subject each, which returns blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wlm._report.sections.fates import composition, fates
from wlm._report.sections.fitted import fitted
from wlm._report.sections.genes import drivers, genes
from wlm._report.sections.given import given
from wlm._report.sections.landscape import growth, landscape
from wlm._report.sections.limits import limits
from wlm._report.sections.methods import methods
from wlm._report.sections.missing import missing, on_map
from wlm._report.sections.scores import comparison, forecast, scorecard
from wlm._report.subject import Subject

#: Name, title and function.
SECTIONS: tuple[tuple[str, str, Callable[[Subject], list[Any]]], ...] = (
    ("given", "What was given", given),
    ("fitted", "What was fitted, and whether it fits", fitted),
    ("scorecard", "Scores on times that a fit has not seen", scorecard),
    ("forecast", "What forecasts follow", forecast),
    ("missing", "Missing times", missing),
    ("map", "On your map", on_map),
    ("landscape", "Landscape and flow", landscape),
    ("genes", "Genes", genes),
    ("composition", "Composition", composition),
    ("fates", "Fates", fates),
    ("growth", "Growth", growth),
    ("drivers", "Drivers", drivers),
    ("comparison", "Comparison of conditions", comparison),
    ("limits", "Limits", limits),
    ("methods", "Methods", methods),
)
