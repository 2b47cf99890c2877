"""What verbs find out of a fit, written beside it: terminal states, fates, transitions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anndata as ad

from wlm._store.fit import StoredFit

#: The name of a fit unless another was given.
DEFAULT_KEY = "wlm"
#: What there may be of a fit ``K`` by slot, as ``K_<name>``: it goes with the fit that it was computed from.
RESULTS = {
    "uns": ("terminal", "fates", "transitions"),
    "obs": ("terminal", "initial", "fate_entropy", "fate_spread", "fate_descendants"),
    "obsm": ("fates",),
    "obsp": ("transitions",),
}


def read_result(target: Any, fit: StoredFit, name: str, verb: str) -> Mapping[str, Any]:
    """The entry ``K_<name>`` of ``uns``, which ``wlm.tl.<verb>`` wrote for this fit.

    Raises
    ------
    KeyError
        If it is not there.
    ValueError
        If it was computed from another fit.
    """
    key = f"{fit.key}_{name}"
    again = f"run wlm.tl.{verb}(adata{'' if fit.key == DEFAULT_KEY else f', key={fit.key!r}'})"
    if key not in target.uns:
        raise KeyError(f"uns[{key!r}] is missing; {again} first")
    found = target.uns[key]
    if not isinstance(found, Mapping) or str(found.get("fit")) != fit.checksum:
        raise ValueError(f"uns[{key!r}] was computed from another fit than uns[{fit.key!r}] is now; {again} again")
    return found


def write_result(target: Any, key: str, slots: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Write entries ``K_<name>`` by slot, all of them computed; returns the names of what was written."""
    if isinstance(target, ad.AnnData) and target.is_view:
        target._init_as_actual(target.copy())
    written = []
    for slot, entries in slots.items():
        for name, value in entries.items():
            getattr(target, slot)[f"{key}_{name}"] = value
            written.append(f"{slot}[{f'{key}_{name}'!r}]")
    return written


def forget(target: Any, key: str, names: Mapping[str, tuple[str, ...]] = RESULTS) -> None:
    """Remove what was found out of a fit that is replaced, or of terminal states that are."""
    for slot, entries in names.items():
        table = getattr(target, slot)
        for name in entries:
            if f"{key}_{name}" in table:
                # What stands for a DataFrame in lazy objects cannot delete columns itself.
                del (table.ds if hasattr(table, "ds") else table)[f"{key}_{name}"]
