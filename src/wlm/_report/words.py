"""What proposed calls and verbs are given, by what the object is, and what the words of verdicts mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wlm._adata.mudata import is_mudata
from wlm._report.blocks import Listing, Words
from wlm._report.subject import Subject
from wlm._store.glossary import explain


def most(s: Subject, cells: int) -> int | None:
    """``cells`` for ``n_cells`` of verbs, or None, all of them, where no training time has more."""
    return None if max(len(s.at(t)) for t in s.fit.training) <= cells else cells


def objects(s: Subject) -> str:
    """What the object is called in proposed calls."""
    return "mdata" if is_mudata(s.adata) else "adata"


def glossary(verb: str, verdict: Sequence[str]) -> list[Any]:
    """What the words in the lines of a verdict mean, as blocks."""
    found = explain(verb, "\n".join(verdict))
    return [Words("In other words:", "note"), Listing(found)] if found else []
