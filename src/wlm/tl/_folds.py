"""Fits that have not seen some times, and what they predict for them."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch

from wlm._adata.cells import Cells
from wlm._logging import quiet
from wlm._version import __version__
from wlm.core import checkpoint as checkpoints
from wlm.core.devices import get_device
from wlm.core.methods import METHODS
from wlm.tl._fit import fit
from wlm.tl._models import get_method
from wlm.tl._predict import predict
from wlm.tl._scores import Population


def slim(cells: Cells) -> ad.AnnData:
    """Only what a fit reads, for cheap copies to workers."""
    obsm = {"x": cells.x} if cells.v is None else {"x": cells.x, "v": cells.v}
    columns = {"time": cells.times, "w": cells.w, "stratum": cells.strata}
    obs = {name: values for name, values in columns.items() if values is not None}
    small = ad.AnnData(obs=pd.DataFrame(obs, index=cells.names), obsm=obsm)
    return small if np.isfinite(cells.times).all() else small[np.isfinite(cells.times)].copy()


def scale_argument(cells: Cells, velocity_scale: float | str | None) -> dict[str, Any]:
    """The ``velocity_scale`` that a fit to the cells of :func:`slim` needs, which do not know their source."""
    if cells.v is None:
        return {}
    return {"velocity_scale": "calibrate" if velocity_scale is None and cells.rna else velocity_scale}


def refit(small: ad.AnnData, holdout: Any, seed: int, **arguments: Any) -> ad.AnnData:
    """A fit to the cells of :func:`slim` that are not at the times ``holdout``; ``arguments`` are those of ``fit``."""
    own = small[~np.isin(small.obs["time"], holdout)].copy()
    own_keys = {
        "use_rep": "x",
        "velocity_key": "v" if "v" in small.obsm else None,
        "weight_key": "w" if "w" in small.obs else None,
        "strata_key": "stratum" if "stratum" in small.obs else None,
    }
    with quiet():
        fit(own, "time", **{**arguments, **own_keys}, rng=seed, show_progress=False)
    return own


def predict_fold(
    small: ad.AnnData,
    t: float,
    method: str,
    seed: int,
    device: str,
    options: dict[str, Any],
    scale: dict[str, Any],
    cache: Path | None,
) -> tuple[Population, float]:
    """Cells predicted for time ``t`` by a fit that has not seen it, and the seconds the fit took."""
    if "v" in small.obsm and not METHODS[method].takes_velocity:
        small, scale = small.copy(), {}
        del small.obsm["v"]
    file = None if cache is None else cache / f"{_name(small, t, method, seed, device, options, scale)}.npz"
    if file is not None and file.exists():
        known = checkpoints.read(file)
        w = None if known["w"] is None else known["w"].numpy()
        return Population(known["x"].numpy(), w, limits=known["limits"].numpy()), known["seconds"]
    own = refit(small, t, seed, method=method, device=device, **options, **scale)
    with quiet():
        predicted = predict(own, t, rng=seed)
    w = predicted.obs["w"].to_numpy() if "w" in predicted.obs else None
    note = predicted.uns["wlm_prediction"]
    found = Population(predicted.obsm["x"], w, limits=np.stack([note["lower"][0], note["upper"][0]]))
    seconds = float(own.uns["wlm"]["params"]["seconds"])
    if file is not None:
        arrays = {"x": found.x, "w": found.w, "limits": found.limits}
        tensors = {k: None if a is None else torch.as_tensor(a) for k, a in arrays.items()}
        try:
            checkpoints.write(file, {**tensors, "seconds": seconds})
        except OSError as error:  # a full disk is no reason to lose the evaluation as well
            warnings.warn(f"a finished fit could not be kept in cache: {error}", stacklevel=2)
    return found, seconds


def _name(
    small: ad.AnnData, t: float, method: str, seed: int, device: str, options: dict[str, Any], scale: dict[str, Any]
) -> str:
    """A name for a fit, different for whatever could change its prediction."""
    options, n_models = {k: v for k, v in options.items() if k != "n_models"}, options["n_models"]
    config = get_method(method, options).to_json()
    threads = torch.get_num_threads() if get_device(device).type == "cpu" else 0
    settings = (
        threads,
        __version__,
        torch.__version__,
        method,
        config,
        n_models,
        float(t),
        seed,
        str(get_device(device)),
        scale,
    )
    digest = hashlib.sha256(repr(settings).encode())
    digest.update("\0".join(map(str, small.obs_names)).encode())
    for values in (small.obsm["x"], *(small.obs.get(k) for k in ("time", "w", "stratum")), small.obsm.get("v")):
        digest.update(b"-" if values is None else np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:32]
