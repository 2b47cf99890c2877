"""What proposed calls and verbs are given, by what the object is."""

from __future__ import annotations

from wlm._adata.mudata import is_mudata
from wlm._report.subject import Subject


def most(s: Subject, cells: int) -> int | None:
    """``cells`` for ``n_cells`` of verbs, or None, all of them, where no training time has more."""
    return None if max(len(s.at(t)) for t in s.fit.training) <= cells else cells


def objects(s: Subject) -> str:
    """What the object is called in proposed calls."""
    return "mdata" if is_mudata(s.adata) else "adata"
