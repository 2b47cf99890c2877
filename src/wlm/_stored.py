"""How a fit is written into AnnData and read back: plain arrays, numbers and strings, no code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

import wlm
from wlm._adata import Cells
from wlm._genes import pca_mean
from wlm.core.dynamics import Dynamics
from wlm.core.methods import METHODS, Spec
from wlm.core.populations import Units
from wlm.core.prediction import Rollout
from wlm.core.training import Fit

#: Version of the layout of ``uns[key]``.
FORMAT = 1
#: Cells whose positions are kept to recognise the representation a fit belongs to.
N_FINGERPRINT = 64


def write_fit(
    adata: ad.AnnData,
    key: str,
    cells: Cells,
    fit: Fit,
    rollout: Rollout,
    fields: Mapping[str, Any],
    params: dict[str, Any],
    velocity: dict[str, Any] | None = None,
) -> list[str]:
    """Write a fit into ``adata``; returns the names of the keys that were written.

    ``velocity`` is what :func:`wlm._adata.calibrate` noted.

    Everything is computed before the first write, so that the object is never left half-written.
    """
    dynamics = fit.dynamics
    units = dynamics.units
    fingerprint = np.random.default_rng(0).permutation(len(cells.names))[:N_FINGERPRINT]
    # A backed X is not read for this: decoding then looks for the mean when it is asked for.
    mean = pca_mean(adata) if cells.use_rep == "X_pca" and not adata.isbacked else None
    decoding = {} if mean is None else {"mean": mean, "genes": adata.var_names.to_numpy(dtype=object)}
    held = cells.observed[~np.isin(cells.observed, cells.training)]
    uns: dict[str, Any] = {
        "format": FORMAT,
        "version": wlm.__version__,
        "method": dynamics.method.name,
        "config": dynamics.method.to_json(),
        "params": {k: v for k, v in params.items() if v is not None},
        "time": {
            "key": cells.time_key,
            "values": cells.observed,
            "unit": cells.unit,
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
            "cells": cells.names[fingerprint].to_numpy(dtype=object),
            "positions": cells.x[fingerprint],
            **decoding,
        },
        "spec": json.dumps(asdict(dynamics.spec)),
        "weights": {
            name.replace(".", "_"): value.detach().cpu().numpy().astype(np.float32)
            for name, value in dynamics.model.state_dict().items()
        },
        "history": dict(fit.history),
        "rollout": {
            "times": rollout.times,
            "positions": rollout.positions,
            "velocities": rollout.velocities,
            "origin": cells.names[rollout.origin].to_numpy(dtype=object),
        },
        **dynamics.rates(),
    }
    obs = {"potential": fields["potential"]}
    if velocity is not None:
        obs["velocity_agreement"] = velocity["cells"]
        uns["velocity"] = {k: v for k, v in velocity.items() if k != "cells"}
    adata.uns.pop(f"{key}_diagnosis", None)  # of the fit that is replaced
    if f"{key}_velocity_agreement" in adata.obs and velocity is None:
        del adata.obs[f"{key}_velocity_agreement"]
    adata.uns[key] = uns
    for name, values in obs.items():
        adata.obs[f"{key}_{name}"] = values
    for name in ("velocity", "force", "next"):
        adata.obsm[f"{key}_{name}"] = fields[name]
    return [
        f"uns[{key!r}]",
        *(f"obs['{key}_{n}']" for n in obs),
        *(f"obsm['{key}_{n}']" for n in ("velocity", "force", "next")),
    ]


@dataclass(frozen=True)
class StoredFit:
    """A fit read back from ``uns[key]``."""

    key: str
    dynamics: Dynamics
    time_key: str
    observed: NDArray[np.float64]
    training: NDArray[np.float64]
    measured: NDArray[np.float64]
    unit: str
    use_rep: str
    n_dims: int
    uns: Mapping[str, Any]


def read_fit(adata: ad.AnnData, key: str) -> StoredFit:
    """Rebuild the fit stored in ``uns[key]``. No code is executed: weights are plain arrays.

    Raises
    ------
    KeyError
        If there is no fit under ``key``.
    ValueError
        If what is stored there is damaged, or of a newer format.
    """
    if not isinstance(adata, ad.AnnData):
        raise TypeError(f"adata must be an AnnData object, found {type(adata).__name__}")
    if key not in adata.uns:
        raise KeyError(f"uns[{key!r}] is missing; run wlm.tl.fit(adata, time_key, key_added={key!r}) first")
    uns = adata.uns[key]
    if not isinstance(uns, Mapping) or "format" not in uns:
        raise ValueError(f"uns[{key!r}] was not written by wlm.tl.fit; choose the key_added of a fit")
    if int(uns["format"]) > FORMAT:
        raise ValueError(
            f"uns[{key!r}] has format {uns['format']}, written by wlm {uns.get('version', '?')}; "
            f"this is wlm {wlm.__version__}, which reads up to {FORMAT}: update wlm"
        )
    try:
        method = METHODS[str(uns["method"])].from_options(json.loads(uns["config"]))
        spec = Spec(**json.loads(uns["spec"]))
        time, rep = uns["time"], uns["representation"]
        units = Units(
            np.asarray(rep["location"], dtype=np.float64),
            float(rep["scale"]),
            float(time["origin"]),
            float(time["scale"]),
        )
        with torch.random.fork_rng(devices=[]):
            model = method.build(spec)
        state = {name: torch.as_tensor(np.array(uns["weights"][name.replace(".", "_")])) for name in model.state_dict()}
        model.load_state_dict(state)
        observed = np.asarray(time["values"], dtype=np.float64)
        training = observed[~np.isin(observed, np.asarray(time["holdout"], dtype=np.float64))]
        return StoredFit(
            key,
            Dynamics(model.eval(), method, spec, units),
            str(time["key"]),
            observed,
            training,
            np.asarray(time["measured"], dtype=np.float64),
            str(time["unit"]),
            str(rep["key"]),
            int(rep["n_dims"]),
            uns,
        )
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"uns[{key!r}] is damaged ({reason}); run wlm.tl.fit again") from error


def check_representation(adata: ad.AnnData, fit: StoredFit, x: NDArray[np.float32]) -> None:
    """Refuse an object whose coordinates are not those the fit was made on."""
    rep = fit.uns["representation"]
    index = adata.obs_names.get_indexer(pd.Index(np.asarray(rep["cells"], dtype=object)))
    here = index >= 0
    if not here.any():
        return
    if not np.allclose(x[index[here]], np.asarray(rep["positions"])[here], rtol=1e-4, atol=1e-4 * float(rep["scale"])):
        raise ValueError(
            f"obsm[{fit.use_rep!r}] is not the representation that uns[{fit.key!r}] was fitted on "
            "(cells of the same name have other coordinates); restore it, or run wlm.tl.fit again"
        )
