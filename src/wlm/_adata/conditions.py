"""Conditions: the cells of each, and one fit for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import anndata as ad
import numpy as np
from numpy.typing import NDArray

from wlm._adata.cells import Cells, read_cells
from wlm._adata.checks import PREDICTED
from wlm._adata.clones import check_conditions, read_clones
from wlm._adata.columns import check_column, read_column, take_cells
from wlm._adata.times import read_holdout, read_times
from wlm.core.training import TrainingError

#: A column with more distinct values is more likely cell names or a measurement.
MAX_CONDITIONS = 20


def read_conditions(
    adata: ad.AnnData, time_key: str, condition_key: str, *, holdout: Any = None, **arguments: Any
) -> dict[str, tuple[NDArray[np.bool_], Cells]]:
    """Which cells each condition has, (n_obs,) bool, and what :func:`wlm._adata.cells.read_cells` makes of them.

    ``holdout`` must be observed in some condition; in the others it has nothing to leave out.

    Raises
    ------
    KeyError, ValueError, TypeError
        As for ``read_cells``, with the condition named; or if conditions are missing, too many, or have
        fewer than two training times.
    """
    times, style = read_times(adata, time_key, arguments.get("nan", "raise"))
    known = np.isfinite(times)
    masks = _masks(adata, time_key, condition_key, known)
    if isinstance(arguments.get("totals"), Mapping):
        raise ValueError(
            "totals of several conditions need a column of obs, the size of each condition's population at each time; "
            "found one dict for all"
        )
    for key in (arguments.get(name) for name in ("weight_key", "strata_key", "sample_key", "growth_key", "totals")):
        if key is not None:
            check_column(adata, key)
    if arguments.get("clone_key") is not None:
        clones = read_clones(adata, arguments["clone_key"])
        check_conditions(clones, read_column(adata, condition_key), condition_key, arguments["clone_key"])
    held = read_holdout(holdout, np.unique(times[known]), style)
    few = [c for c, mask in masks.items() if len(np.setdiff1d(times[mask & known], held)) < 2]
    if few:
        raise ValueError(
            f"at least two training times are needed in every condition of obs[{condition_key!r}]; {few} have fewer: "
            "leave these cells out, or hold out less"
        )
    found = {}
    for condition, mask in masks.items():
        here = held[np.isin(held, times[mask])]
        with naming(condition):
            own: dict[str, Any] = {"holdout": here if len(here) else None, "known": (times[mask], style)}
            found[condition] = mask, read_cells(take_cells(adata, mask), time_key, **own, **arguments)
    return found


def select_condition(adata: ad.AnnData, condition: Mapping[str, Any] | None) -> ad.AnnData:
    """The cells of the condition that a fit belongs to; all of them if it belongs to none."""
    if condition is None:
        return adata
    key, value = str(condition["key"]), str(condition["value"])
    labels = read_column(adata, key).astype(str).to_numpy()
    if not (labels == value).any():
        raise ValueError(
            f"obs[{key!r}] has no cell of {value!r}, the condition of this fit; it has {sorted(set(labels))}"
        )
    return take_cells(adata, labels == value)


@contextmanager
def naming(condition: str) -> Iterator[None]:
    """Say in errors which condition they come from."""
    try:
        yield
    except (KeyError, ValueError, TypeError, TrainingError) as error:
        kind = next(k for k in (KeyError, ValueError, TypeError, TrainingError) if isinstance(error, k))
        raise kind(f"condition {condition!r}: {error.args[0] if error.args else error}") from error


def _masks(
    adata: ad.AnnData, time_key: str, condition_key: str, known: NDArray[np.bool_]
) -> dict[str, NDArray[np.bool_]]:
    """Cells of each condition (n_obs,), in the order of the categories; those without a time need have none."""
    if condition_key in (*PREDICTED, time_key):
        raise ValueError(f"condition_key {condition_key!r} is a column that predictions write; choose another name")
    column = read_column(adata, condition_key)
    absent = column.isna() & known
    if absent.any():
        raise ValueError(
            f"obs[{condition_key!r}] is missing for {absent.sum()} of {len(column)} cells "
            f"({list(adata.obs_names[absent.to_numpy()][:3])}, ...); leave them out, or name their condition"
        )
    codes = column.astype("category").cat.remove_unused_categories().cat
    labels = column.astype(str).to_numpy()  # as select_condition reads them
    names = [str(labels[np.argmax(codes.codes == i)]) for i in range(len(codes.categories))]
    if len(names) > MAX_CONDITIONS:
        raise ValueError(
            f"obs[{condition_key!r}] has {len(names)} conditions ({names[:3]}, ...), at most {MAX_CONDITIONS} are "
            "fitted; choose a column with fewer"
        )
    bad = [name for name in names if "/" in name or not name]
    if bad or len(set(names)) < len(names):
        raise ValueError(
            f"conditions of obs[{condition_key!r}] are part of the names of stored fits, so they must be distinct, not "
            f"empty and without '/', found {bad or names}; run adata.obs[{condition_key!r}] = "
            f"adata.obs[{condition_key!r}].map(lambda c: str(c).replace('/', '-') or 'none', na_action='ignore') first"
        )
    return {name: codes.codes.to_numpy() == i for i, name in enumerate(names)}
