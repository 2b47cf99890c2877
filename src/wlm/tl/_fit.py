"""Fitting dynamics to time-labelled cells."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import anndata as ad
import torch
from tqdm.auto import tqdm

from wlm._adata import calibrate, read_cells, resolve_velocity
from wlm._logging import logger
from wlm._random import RNG, as_seed
from wlm._stored import write_fit
from wlm.core.methods import METHODS, Method
from wlm.core.prediction import fields, rollout
from wlm.core.training import train


def fit(
    adata: ad.AnnData,
    time_key: str,
    *,
    method: str = "wlm",
    use_rep: str = "X_pca",
    n_dims: int | None = None,
    velocity_key: str | None = None,
    velocity_scale: float | str | None = None,
    weight_key: str | None = None,
    holdout: Any = None,
    nan: str = "raise",
    key_added: str = "wlm",
    rng: RNG = 0,
    device: str = "auto",
    show_progress: bool | None = None,
    copy: bool = False,
    **method_options: Any,
) -> ad.AnnData | None:
    """Learn how the population moves from time-labelled cells.

    Parameters
    ----------
    adata
        Cells with times in ``obs`` and coordinates in ``obsm``.
    time_key
        Column of ``obs`` with the times: numbers, or labels such as ``"day 3"``, ``"E8.5"``, ``"12h"``
        (see :func:`wlm.pp.parse_time`). At least two distinct times, with their real spacing.
    method
        ``"wlm"``, second-order mechanics with a learned potential and friction.
    use_rep
        Key of ``obsm`` with the coordinates, shape (n_obs, d).
    n_dims
        Use only the first dimensions; all by default.
    velocity_key
        Velocities of the cells: a key of ``obsm`` (n_obs, >= d), or a layer of gene velocities, which is
        projected (see :func:`wlm.pp.project_velocity`). ``"auto"`` finds RNA velocity in the usual places and
        says what it chose. Velocities may be missing (all NaN) at whole times after the first: cells start
        there with the momentum that the rollout brings.
    velocity_scale
        Factor to units per unit of ``time_key``. By default 1 for a key of ``obsm``, and calibrated for RNA
        velocities (a layer, or what :func:`wlm.pp.project_velocity` wrote), which have a unit of time of their
        own: with the factor that best predicts the displacement between training populations.
        ``"calibrate"`` does so for any velocities.
    weight_key
        Column of ``obs`` with positive weights: a cell of weight 2 counts as two such cells, in training and
        in predictions. For growth and for uneven sampling; all cells count the same by default.
    holdout
        A time, or times, to leave out of training.
    nan
        Cells without a time are refused, or with ``"drop"`` left out: what is written is NaN for them.
    key_added
        Name ``K`` under which the results are stored.
    rng
        Seed, numpy Generator or SeedSequence. The same seed on the same device gives the same numbers.
    device
        ``"auto"`` is CUDA where there is a device, else the CPU; or any torch device.
    show_progress
        Show a progress bar; by default if the logger ``wlm`` shows information.
    copy
        Return a copy of ``adata`` with the results instead of writing to it.
    **method_options
        Options of the method, see :class:`wlm.core.methods.WLM`.

    Returns
    -------
    None, or the copy if ``copy=True``. Written to ``adata``:

    ``uns[K]`` : dict
        The fit: configuration, weights, times, representation (with the mean that PCA subtracted, if
        ``X`` or a layer explains ``X_pca``), ``friction`` (1/time unit), ``history``
        and ``rollout`` {times (T,), positions (T, n, d), velocities (T, n, d), origin (n,)}: the paths of
        at most 1000 cells of the first time.
    ``uns[K]["velocity"]`` : dict, with ``velocity_key``
        ``scale`` used, whether it was ``calibrated``, ``times`` and mean cosine ``agreement`` (T,) of velocities
        and observed drift at the training times.
    ``obs["K_velocity_agreement"]`` : float32, with ``velocity_key``
        The cosine for each cell; NaN for held-out times.
    ``obs["K_potential"]`` : float32
        Energy of each cell in the population of its own time, in ``use_rep`` units squared per time
        unit squared.
    ``obsm["K_velocity"]``, ``obsm["K_force"]`` : float32, (n_obs, d)
        Velocity, and acceleration by the potential, at each cell's own time, in ``use_rep`` units per
        time unit and per time unit squared.
    ``obsm["K_next"]`` : float32, (n_obs, d)
        Where each cell is predicted to be at the next observed time; NaN for the last. Without measured
        velocities, cells of a held-out time before the first training time have neither velocity nor next
        position.

    Raises
    ------
    KeyError, ValueError, TypeError
        If something is missing or does not fit together; before training, with ``adata`` unchanged.
    wlm.core.training.TrainingError
        If training diverges; ``adata`` is unchanged.

    Examples
    --------
    >>> import scanpy as sc
    >>> import wlm
    >>> adata = wlm.datasets.bifurcation(n_cells=100, rng=0)
    >>> sc.pp.normalize_total(adata)
    >>> sc.pp.log1p(adata)
    >>> sc.pp.pca(adata, n_comps=5)
    >>> wlm.tl.fit(adata, "day", n_steps=20, show_progress=False)
    >>> adata.obsm["wlm_velocity"].shape
    (500, 5)
    """
    config = get_method(method, method_options)
    _check_keys(adata, key_added, velocity_key, weight_key)
    if copy and getattr(adata, "isbacked", False):
        raise ValueError("a backed object cannot be copied in memory; use copy=False, or adata.to_memory() first")
    cells = read_cells(
        adata,
        time_key,
        use_rep=use_rep,
        n_dims=n_dims,
        velocity_key=velocity_key,
        weight_key=weight_key,
        holdout=holdout,
        nan=nan,
    )
    config.check(has_velocity=cells.v is not None)
    seed = as_seed(rng)
    note = None
    if velocity_key is not None:
        velocity_key = resolve_velocity(adata, velocity_key, use_rep)
        cells, note = calibrate(cells, velocity_scale, seed=seed)
    elif velocity_scale is not None:
        raise ValueError("velocity_scale needs velocity_key, the velocities to scale")
    where = get_device(device)
    if show_progress is None:
        show_progress = logger.isEnabledFor(logging.INFO)

    began = time.perf_counter()
    with tqdm(total=config.n_steps, desc=f"wlm.tl.fit on {where}", disable=not show_progress) as bar:

        def on_step(step: int, scalars: dict[str, float]) -> None:
            bar.update()
            if step % max(1, config.n_steps // 50) == 0:
                bar.set_postfix({k: f"{x:.3g}" for k, x in scalars.items() if k != "gradient_norm"})

        result = train(cells.populations(), config, seed=seed, device=where, on_step=on_step)

    dynamics = result.dynamics
    uses_velocity = dynamics.needs_velocity
    v = cells.v if uses_velocity else None
    start = cells.at(cells.training[0])
    path = rollout(
        dynamics,
        cells.x[start],
        None if v is None else v[start],
        start,
        cells.observed[cells.observed >= cells.training[0]],
        w=None if cells.w is None else cells.w[start],
        seed=seed,
    )
    annotation = fields(dynamics, cells.x, v, cells.times, cells.observed, path, w=cells.w, seed=seed)
    params = {
        "time_key": time_key,
        "method": method,
        "use_rep": use_rep,
        "n_dims": n_dims,
        "velocity_key": velocity_key,
        "velocity_scale": velocity_scale,
        "weight_key": weight_key,
        "nan": nan,
        "seed": seed,
        "device": str(where),
        "seconds": round(time.perf_counter() - began, 1),
    }
    target = adata.copy() if copy else adata
    written = write_fit(target, key_added, cells, result, path, annotation, params, note)
    rates = ", ".join(f"{k} {x:.3g} per {cells.unit or 'time unit'}" for k, x in dynamics.rates().items())
    logger.info(
        "fitted %s on %s in %.0f s (%s); added %s", method, where, params["seconds"], rates or "-", ", ".join(written)
    )
    return target if copy else None


def get_method(name: str, options: dict[str, Any]) -> Method:
    """The configured method; wrong names are refused with the right ones."""
    if name not in METHODS:
        raise ValueError(f"method {name!r} does not exist; methods are {sorted(METHODS)}")
    return METHODS[name].from_options(options)


def get_device(device: str) -> torch.device:
    """The device to run on; ``"auto"`` is CUDA or else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(device)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
    return where


def _check_keys(adata: ad.AnnData, key: str, velocity_key: str | None, weight_key: str | None) -> None:
    """Refuse a name that cannot be stored, or under which something else would be lost."""
    if not isinstance(key, str) or not key or "/" in key:
        raise ValueError(f"key_added must be a non-empty string without '/', found {key!r}")
    there = getattr(adata, "uns", {}).get(key)
    if there is not None and not (isinstance(there, Mapping) and "format" in there):
        raise ValueError(f"uns[{key!r}] holds something that is not a fit; choose another key_added")
    if weight_key in ("origin", "from_time"):
        raise ValueError(f"weight_key {weight_key!r} is a column that predictions write; choose another name")
    if velocity_key == f"{key}_velocity":
        raise ValueError(f"the fit would overwrite its own input obsm[{velocity_key!r}]; choose another key_added")
