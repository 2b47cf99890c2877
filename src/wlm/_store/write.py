"""Writing a fit into AnnData or MuData: plain arrays, numbers and strings (read by :mod:`wlm._store.fit`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import anndata as ad
import numpy as np
from numpy.typing import NDArray

from wlm._adata.cells import Cells
from wlm._adata.checks import PREDICTED, as_text, check_writable
from wlm._adata.columns import is_lazy
from wlm._adata.components import LOADINGS
from wlm._adata.genes import make_receipt
from wlm._store.fit import FORMAT
from wlm._store.group import conditions, group_of
from wlm._store.integrity import fingerprint, seal, times_fingerprint
from wlm._store.results import RESULTS, forget
from wlm._version import __version__
from wlm.core.dynamics import Dynamics
from wlm.core.prediction import Rollout
from wlm.core.training import Fit

#: Cells whose positions are kept to recognise the representation a fit belongs to.
N_FINGERPRINT = 64
#: What a fit says about each cell, in ``obsm`` and in ``obs`` (the second only of fits with velocities).
FIELDS = ("velocity", "force", "next")
COLUMNS = ("potential", "velocity_agreement", "spread", "growth", "growth_agreement", "growth_spread", "descendants")


def describe_fit(
    adata: ad.AnnData,
    cells: Cells,
    models: Sequence[tuple[Fit, Rollout]],
    params: dict[str, Any],
) -> dict[str, Any]:
    """What ``uns[key]`` is to hold of a fit to the ``cells`` of ``adata``; nothing is written.

    ``models`` are the fits of an ensemble with their rollouts.
    """
    fit, rollout = models[0]
    dynamics = fit.dynamics
    units = dynamics.units
    some = np.random.default_rng(0).permutation(len(cells.names))[:N_FINGERPRINT]
    # X on disk is not read for this: decoding then looks for the receipt when it is asked for.
    decodable = cells.use_rep in LOADINGS and not is_lazy(adata)
    receipt = make_receipt(adata, cells.use_rep, cells.x.shape[1]) if decodable else None
    decoding = {} if receipt is None else {**asdict(receipt), "genes": as_text(adata.var_names)}
    held = cells.observed[~np.isin(cells.observed, cells.training)]
    return {
        "format": FORMAT,
        "version": __version__,
        "method": dynamics.method.name,
        "config": dynamics.method.to_json(),
        "params": {k: v for k, v in params.items() if v is not None},
        "time": {
            "key": cells.time_key,
            "values": cells.observed,
            "unit": cells.unit,
            "hyphen": cells.hyphen,
            "cells": cells.times[some],
            "fingerprint": times_fingerprint(cells.names, cells.times, cells.observed),
            **({} if cells.w is None else {"weights": cells.w[some]}),
            "holdout": held,
            "measured": np.array([t for t in cells.observed if dynamics.needs_velocity and cells.measured(t)]),
            "origin": units.origin,
            "scale": units.time,
        },
        "representation": {
            "key": cells.use_rep,
            "n_dims": cells.x.shape[1],
            "n_obs": len(cells.names),
            "location": np.asarray(units.location, dtype=np.float64),
            "scale": units.length,
            "fingerprint": fingerprint(cells.names, cells.x),
            "cells": as_text(cells.names[some]),
            "positions": cells.x[some],
            **decoding,
        },
        "spec": json.dumps(asdict(dynamics.spec)),
        "weights": _weights(dynamics),
        **({} if len(models) == 1 else {"ensemble": _ensemble(cells, models)}),
        "history": dict(fit.history),
        "rollout": {
            "times": rollout.times,
            "positions": rollout.positions,
            "velocities": rollout.velocities,
            "origin": as_text(cells.names[rollout.origin]),
            **({"weights": np.asarray(rollout.weights)} if dynamics.grows else {}),
        },
        **dynamics.rates(),
    }


def _weights(dynamics: Dynamics) -> dict[str, NDArray[np.float32]]:
    return {
        name.replace(".", "_"): value.detach().cpu().numpy().astype(np.float32)
        for name, value in dynamics.model.state_dict().items()
    }


def describe_field(field: Dynamics) -> dict[str, Any]:
    """What ``uns[key]["forecast"]["field"]`` is to hold of a field that forecasts follow."""
    return {
        "method": field.method.name,
        "config": field.method.to_json(),
        "spec": json.dumps(asdict(field.spec)),
        "weights": _weights(field),
    }


def _ensemble(cells: Cells, models: Sequence[tuple[Fit, Rollout]]) -> dict[str, Any]:
    """The models but the first: weights, and the rollout at the observed times, which brings velocities there."""
    rates = [fit.dynamics.rates() for fit, _ in models]
    first = models[0][1]
    at = [int(np.argmin(np.abs(first.times - t))) for t in cells.observed[cells.observed >= first.times[0]]]
    return {
        **{name: np.array([r[name] for r in rates]) for name in rates[0]},
        **({} if first.weights is None or first.weights.ndim == 2 else {"mass": np.asarray(first.weights)}),
        "models": {
            str(i): {
                "weights": _weights(fit.dynamics),
                "positions": rollout.positions[at],
                "velocities": rollout.velocities[at],
                **({"mass": np.asarray(rollout.weights)[at]} if fit.dynamics.grows else {}),
            }
            for i, (fit, rollout) in enumerate(models[1:], start=1)
        },
    }


def write_fits(
    target: Any,
    key: str,
    condition_key: str | None,
    fits: Mapping[str, tuple[Any, dict[str, Any], Mapping[str, Any]]],
) -> list[str]:
    """Write the one fit, under ``""``, or those of all conditions; returns the names of the keys that were written."""
    if condition_key is None:
        return write_fit(target, key, *fits[""][1:])
    return write_conditions(target, key, condition_key, fits)


def write_fit(target: Any, key: str, uns: dict[str, Any], fields: Mapping[str, Any]) -> list[str]:
    """Write a fit into an AnnData or MuData; returns the names of the keys that were written.

    Everything has been computed before the first write, so that the object is never left half-written.
    """
    if isinstance(target, ad.AnnData) and target.is_view:
        target._init_as_actual(target.copy())  # or what is removed from a view comes back with the first assignment
    for old in conditions(target.uns.get(key)).values():  # they shared the fields that are replaced
        if group_of(target.uns.get(old)) == key:
            target.uns.pop(old)
            target.uns.pop(f"{old}_diagnosis", None)
            forget(target, old)
            _write_r2(target, old, {})
    target.uns.pop(f"{key}_diagnosis", None)  # of the fit that is replaced
    forget(target, key)
    columns = [name for name in COLUMNS if name in fields]
    for name in COLUMNS:
        if name not in fields:
            _drop(target.obs, f"{key}_{name}")  # of a fit with velocities that is replaced by one without
    target.uns[key] = seal(uns)
    for name in columns:
        target.obs[f"{key}_{name}"] = fields[name]
    for name in FIELDS:
        target.obsm[f"{key}_{name}"] = fields[name]
    return [
        f"uns[{key!r}]",
        *(f"obs['{key}_{name}']" for name in columns),
        *(f"obsm['{key}_{name}']" for name in FIELDS),
        *_write_r2(target, key, uns),
    ]


def _write_r2(target: Any, key: str, uns: Mapping[str, Any]) -> list[str]:
    """Write how well genes can be decoded, and return the name of that column; or remove that of an older fit."""
    name, r2 = f"{key}_decode_r2", uns.get("representation", {}).get("r2")
    if r2 is not None:
        target.var[name] = r2
        return [f"var[{name!r}]"]
    _drop(target.var, name)
    return []


def _drop(frame: Any, name: str) -> None:
    """Remove a column, if it is there, from a DataFrame or what stands for one in lazy objects."""
    if name in frame:
        del (frame.ds if hasattr(frame, "ds") else frame)[name]


def write_conditions(
    target: Any,
    key: str,
    condition_key: str,
    fits: Mapping[str, tuple[NDArray[np.bool_], dict[str, Any], Mapping[str, Any]]],
) -> list[str]:
    """Write a fit for each condition: which cells it has (n_obs,), its ``uns``, and its fields at those cells.

    Each fit gets a key of its own. The fields go into the same columns, as every cell has one condition.
    """
    fields: dict[str, NDArray[np.float32]] = {}
    for mask, _, own in fits.values():
        for name, values in own.items():
            fields.setdefault(name, np.full((len(mask), *values.shape[1:]), np.nan, dtype=np.float32))[mask] = values
    keys = {value: f"{key}_{value}" for value in fits}
    index = {
        "format": FORMAT,
        "version": __version__,
        "condition_key": condition_key,
        "conditions": np.array(list(keys), dtype=object),
        "keys": np.array(list(keys.values()), dtype=object),
    }
    written = write_fit(target, key, index, fields)
    for value, (_, uns, _) in fits.items():
        condition = {"key": condition_key, "value": value, "group": key}
        target.uns.pop(f"{keys[value]}_diagnosis", None)
        forget(target, keys[value])
        target.uns[keys[value]] = seal(uns | {"params": uns["params"] | {"condition": condition}})
        written += [f"uns[{keys[value]!r}]", *_write_r2(target, keys[value], uns)]
    return written


def check_keys(
    target: Any, key: str, inputs: Sequence[str | None], values: Sequence[str], columns: Mapping[str, str]
) -> None:
    """Refuse a name that cannot be stored, or under which something else would be lost, and what cannot be written to.

    ``inputs`` are the keys of ``obsm`` that the fit reads, ``values`` the conditions to be fitted, ``columns`` those of
    ``obs`` by the arguments that name them.
    """
    check_writable(target)
    if not isinstance(key, str) or not key or "/" in key:
        raise ValueError(f"key_added must be a non-empty string without '/', found {key!r}")
    for name in (key, *(f"{key}_{value}" for value in values)):
        there = target.uns.get(name)
        if there is not None and not (isinstance(there, Mapping) and "format" in there):
            raise ValueError(f"uns[{name!r}] holds something that is not a fit; choose another key_added")
        if name != key and there is not None and group_of(there) != key:
            raise ValueError(f"uns[{name!r}] holds another fit, which would be lost; choose another key_added")
    found = ("diagnosis", *RESULTS["uns"])
    taken = {f"{name}_{what}" for name in (key, *(f"{key}_{value}" for value in values)) for what in found}
    lost = [value for value in values if f"{key}_{value}" in taken]
    if lost:
        raise ValueError(f"conditions {lost} have names that results are stored under; rename these categories")
    for argument, column in columns.items():
        if column in PREDICTED and argument not in ("strata_key", "sample_key"):
            raise ValueError(f"{argument} {column!r} is a column that predictions write; choose another name")
        if column in {f"{key}_{name}" for name in (*COLUMNS, "outside")}:
            raise ValueError(f"the fit would overwrite its own input obs[{column!r}]; choose another key_added")
    own = [name for name in inputs if name in {f"{key}_{field}" for field in FIELDS}]
    if own:
        raise ValueError(f"the fit would overwrite its own input obsm[{own[0]!r}]; choose another key_added")
