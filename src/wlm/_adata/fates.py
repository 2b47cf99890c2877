"""The probability of a fate for each cell: of a fit's fates, of a column of numbers, or of a label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._adata.columns import dense, read_column


def fate_names(target: Any, key: str, checksum: Any) -> list[str]:
    """Names of the fates that are stored for a fit, none if there are no fates.

    ``checksum`` is that of the fit; fates that note another one were computed from another fit, and are refused.
    """
    if f"{key}_fates" not in target.obsm or f"{key}_fates" not in target.uns:
        return []
    note = target.uns[f"{key}_fates"]
    if str(note.get("fit", checksum)) != str(checksum):
        raise ValueError(
            f"uns['{key}_fates'] was computed from another fit than uns[{key!r}] is now; run wlm.tl.fates(adata) again"
        )
    return [str(name) for name in note["names"]]


def read_fate(
    cells: ad.AnnData, target: Any, keys: Sequence[str], fate: Any, checksum: Any
) -> tuple[str, NDArray[np.float64]]:
    """The name of a fate, and its probability (n_obs,) for each of the ``cells``, NaN where it is unknown.

    Parameters
    ----------
    cells
        The cells of the fit, with the columns of ``obs`` that are asked for.
    target
        The object that holds ``obsm["K_fates"]``, of which ``cells`` are a part.
    keys
        Names K under which fates may be stored.
    fate
        One of the names in ``uns["K_fates"]``, a column of ``obs`` with probabilities, or a pair of a column of
        labels and one of its labels.
    checksum
        Of the fit, see :func:`fate_names`.

    Raises
    ------
    KeyError, ValueError, TypeError
        If there is no such fate, or its column holds neither probabilities nor labels.
    """
    if isinstance(fate, str):
        for key in keys:
            names = fate_names(target, key, checksum)
            if fate in names:
                rows = target.obs_names.astype(str).get_indexer(cells.obs_names.astype(str))
                table = dense(target.obsm[f"{key}_fates"], f"obsm['{key}_fates']")
                return fate, _probabilities(table[rows, names.index(fate)], f"obsm['{key}_fates']")
        known = [name for key in keys for name in fate_names(target, key, checksum)]
        if fate not in cells.obs:
            there = f"uns['{keys[0]}_fates'] has {known}" if known else "wlm.tl.fates has not been run"
            raise KeyError(
                f"fate {fate!r} is neither a stored fate ({there}) nor a column of obs, which has "
                f"{list(cells.obs.columns)}; for a label pass the column too: fate=('column', {fate!r})"
            )
        column = read_column(cells, fate)
        if not pd.api.types.is_numeric_dtype(column):
            labels = list(pd.unique(column.dropna().astype(str)))[:5]
            raise ValueError(
                f"obs[{fate!r}] holds labels, and which of them is the fate is not said; pass "
                f"fate=({fate!r}, {labels[0] if labels else 'label'!r}), or another of {labels}"
            )
        return fate, _probabilities(column.to_numpy(dtype=np.float64, na_value=np.nan), f"obs[{fate!r}]")
    if not (isinstance(fate, tuple) and len(fate) == 2 and isinstance(fate[0], str)):
        raise TypeError(
            f"fate must be None, the name of a fate or of a column of obs, or a pair (column, label), found {fate!r}"
        )
    column, label = read_column(cells, fate[0]), str(fate[1])
    text, known_label = column.astype(str).to_numpy(), column.notna().to_numpy()
    labels = sorted(set(text[known_label]))
    if label not in labels:
        raise KeyError(f"obs[{fate[0]!r}] has no label {label!r}; it has {labels[:20]}")
    return label, np.where(known_label, (text == label).astype(np.float64), np.nan)


def _probabilities(values: NDArray[Any], name: str) -> NDArray[np.float64]:
    """Numbers between 0 and 1, or NaN."""
    p = np.asarray(values, dtype=np.float64)
    known = p[~np.isnan(p)]
    if len(known) == 0:
        raise ValueError(f"{name} is missing for all cells of the fit; a probability of each is wanted")
    if known.min() < -1e-6 or known.max() > 1 + 1e-6:
        raise ValueError(
            f"{name} holds numbers from {known.min():g} to {known.max():g}; probabilities between 0 and 1 are wanted"
        )
    return np.clip(p, 0, 1)
