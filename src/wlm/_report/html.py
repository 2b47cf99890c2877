"""From sections to one HTML file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from wlm._report.blocks import Section, Table

TEMPLATES = Path(__file__).parent / "templates"
#: Bytes of the largest report. Tables that are not needed are left out until it is no larger.
MOST = 10_000_000


def render(sections: Sequence[Section], **about: Any) -> tuple[str, list[str]]:
    """The page, and the names of tables that were left out to keep it small.

    Raises
    ------
    ValueError
        If it is too large without them.
    """
    # Every value is escaped by the template, whatever names the cells have.
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": cell, "csv": csv_uri, "columns": columns}
    script, style = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.js", "report.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    dropped: list[str] = []
    optional = sorted(
        (table for section in sections for table in section.tables if not table.needed),
        key=lambda table: -len(csv_uri(table)),
    )
    while True:
        page = environment.get_template("report.html.jinja").render(
            sections=sections,
            script=Markup(script),
            style=Markup(style),
            digest=digest,
            dropped=dropped,
            **about,
        )
        size = len(page.encode())
        if size <= MOST:
            return page, dropped
        if not optional:
            raise ValueError(
                f"the report would have {size / 1e6:.0f} MB, and {MOST / 1e6:.0f} are allowed; report on fewer cells, "
                "labels or genes"
            )
        dropped.append(optional.pop(0).name)


def cell(value: Any) -> str:
    """What a cell of a table shows."""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (float, np.floating)):
        return "-" if np.isnan(value) else f"{value:.4g}"
    if isinstance(value, (int, np.integer)):
        return f"{value:,}"
    return "-" if value is None or value is pd.NA else str(value)


def csv_uri(table: Table) -> str:
    """A table as a file to download, numbers to seven digits."""
    text = table.frame.to_csv(index=False, float_format="%.7g", lineterminator="\n")
    return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"


def columns(frame: pd.DataFrame) -> Mapping[str, bool]:
    """Names of columns, and whether they hold numbers."""
    return {str(name): pd.api.types.is_numeric_dtype(frame[name]) for name in frame.columns}
