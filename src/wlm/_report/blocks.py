"""What a section of the report is made of; the template turns it into HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pandas as pd


class LeftOut(Exception):
    """A section that the object holds nothing for: why, and the call that would fill it, if there is one."""

    def __init__(self, reason: str, run: str = ""):
        super().__init__(reason)
        self.reason, self.run = reason, run


@dataclass(frozen=True)
class Words:
    """A paragraph; ``tone`` is ``""``, ``"good"``, ``"bad"`` or ``"note"``."""

    kind: ClassVar[str] = "words"
    text: str
    tone: str = ""


@dataclass(frozen=True)
class Listing:
    """Points, or steps if they are ``ordered``."""

    kind: ClassVar[str] = "listing"
    items: Sequence[str]
    ordered: bool = False


@dataclass(frozen=True)
class Code:
    """Something to copy."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class Table:
    """A table; shown up to ``rows`` of it (0 hides it), and whole as a file of this ``name`` to download.

    ``needed`` tables are never left out to keep the report small.
    """

    kind: ClassVar[str] = "table"
    frame: pd.DataFrame
    name: str
    caption: str
    rows: int = 12
    needed: bool = True


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI, with what it shows for those who do not see it, and its size in CSS pixels."""

    kind: ClassVar[str] = "picture"
    uri: str
    alt: str
    caption: str
    width: int
    height: int


@dataclass(frozen=True)
class Film:
    """An inline SVG with a slider through time; ``frames`` are the data that the script moves the cells by."""

    kind: ClassVar[str] = "film"
    svg: str
    frames: str
    labels: Sequence[str]
    caption: str


@dataclass
class Section:
    """A part of the report; one that is left out says why, and what to ``run``."""

    name: str
    title: str
    blocks: list[Any] = field(default_factory=list)
    left_out: str = ""
    run: str = ""

    @property
    def tables(self) -> list[Table]:
        """Its tables."""
        return [block for block in self.blocks if isinstance(block, Table)]
