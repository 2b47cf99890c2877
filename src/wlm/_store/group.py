"""The fits of several conditions, which belong together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from wlm._adata.mudata import get_target
from wlm._store.integrity import checksum


def conditions(uns: Any) -> dict[str, str]:
    """The key of the fit of each condition, if ``uns`` lists such fits; empty otherwise."""
    if not isinstance(uns, Mapping) or "condition_key" not in uns:
        return {}
    if "checksum" in uns and str(uns["checksum"]) != checksum(uns):
        raise ValueError("the list of fits by condition is damaged; restore it from its file, or run wlm.tl.fit again")
    try:
        values, keys = (np.asarray(uns[name], dtype=object).tolist() for name in ("conditions", "keys"))
        return dict(zip(map(str, values), map(str, keys), strict=True))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the list of fits by condition is damaged ({error}); run wlm.tl.fit again") from None


def group_of(uns: Any) -> str | None:
    """The key under which the fits of several conditions were made, if ``uns`` is one of them."""
    params = uns.get("params") if isinstance(uns, Mapping) else None
    condition = params.get("condition") if isinstance(params, Mapping) else None
    return None if condition is None else str(condition["group"])


def get_conditions(adata: Any, key: str, mod: str | None) -> dict[str, str]:
    """The key of the fit of each condition, if ``key`` stands for several; empty otherwise."""
    target = get_target(adata, mod)
    found = conditions(target.uns.get(key))
    gone = [k for k in found.values() if group_of(target.uns.get(k)) != key]
    if gone:
        raise ValueError(f"fits {gone} that uns[{key!r}] lists were replaced or removed; run wlm.tl.fit again")
    return found


def fit_key(adata: Any, key: str, condition: str | None, mod: str | None) -> str:
    """The key of the fit of a ``condition``, one of those that ``key`` stands for; without one, ``key`` as it is.

    Raises
    ------
    KeyError
        If there is nothing under ``key``.
    ValueError
        If there is no fit of this condition.
    """
    if condition is None:
        return key
    found = get_conditions(adata, key, mod)
    if str(condition) in found:
        return found[str(condition)]
    if found:
        raise ValueError(f"condition {condition!r} has no fit; uns[{key!r}] stands for fits of {list(found)}")
    uns = get_target(adata, mod).uns
    if key not in uns:
        raise KeyError(
            f"uns[{key!r}] is missing; run wlm.tl.fit(adata, time_key, condition_key=..., key_added={key!r}) first"
        )
    group = group_of(uns[key])
    raise ValueError(
        f"uns[{key!r}] is one fit and stands for no others; leave condition={condition!r} out, or "
        + (f"pass key={group!r}" if group else f"run wlm.tl.fit(..., condition_key=..., key_added={key!r})")
    )
