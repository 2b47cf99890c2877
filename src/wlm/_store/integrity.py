"""Whether a stored fit is what was written, and which cells it was made on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def seal(uns: Mapping[str, Any]) -> dict[str, Any]:
    """``uns`` with its checksum."""
    return {**uns, "checksum": checksum(uns)}


def checksum(uns: Mapping[str, Any]) -> str:
    """A hash of all that a fit holds, which is the same after a round-trip through a file.

    Files turn numbers without dimensions into Python's, and text into one of several kinds of arrays.
    """
    digest = hashlib.sha256()

    def add(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for k in sorted(value, key=str):
                if name or k != "checksum":
                    add(f"{name}/{k}", value[k])
            return
        array = np.asarray(value)
        digest.update(f"{name} {array.shape}".encode())
        if array.dtype.kind in "biuf":
            digest.update(array.astype("<f8").tobytes())
        else:
            digest.update("\0".join(map(str, np.asarray(value, dtype=object).ravel().tolist())).encode())

    try:
        add("", uns)
    except (TypeError, ValueError, AttributeError) as error:
        return f"none ({error})"  # what wlm.tl.fit never stores
    return digest.hexdigest()


def times_fingerprint(names: pd.Index, times: NDArray[np.float64], observed: NDArray[np.float64]) -> str:
    """A hash of which cells there are and at which of the observed times, whatever their order."""
    at = np.searchsorted(observed, times).astype(np.float32)  # those without a time are after the last
    between = ~np.isin(times, observed) & np.isfinite(times)
    at[between] += np.float32(0.5)
    return fingerprint(names, at[:, None])


def fingerprint(names: pd.Index, x: NDArray[np.float32]) -> str:
    """A hash of which cells there are and where, whatever their order."""
    texts = names.to_numpy(dtype=object).astype(str)
    order = np.argsort(texts, kind="stable")
    digest = hashlib.sha256("\0".join(texts[order]).encode())
    cells = digest.hexdigest()[:16]
    for part in np.array_split(order, len(order) // 65_536 + 1):  # never a copy of all
        digest.update(np.ascontiguousarray(x[part], dtype="<f4").tobytes())
    return f"{cells} {digest.hexdigest()[:32]}"
