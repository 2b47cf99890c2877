"""Fitting dynamics to time-labelled cells."""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from typing import Any

import anndata as ad
import torch
from tqdm.auto import tqdm

from wlm._adata import Cells, read_cells
from wlm._calibration import calibrate, resolve_velocity
from wlm._conditions import naming, read_conditions
from wlm._logging import logger
from wlm._mudata import get_source, get_target
from wlm._random import RNG, as_seed
from wlm._writing import check_keys, describe_fit, write_conditions, write_fit
from wlm.core.methods import METHODS, Method
from wlm.core.prediction import Rollout, fields, rollout
from wlm.core.training import Fit, train


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
    condition_key: str | None = None,
    holdout: Any = None,
    nan: str = "raise",
    key_added: str = "wlm",
    mod: str | None = None,
    rng: RNG = 0,
    device: str = "auto",
    show_progress: bool | None = None,
    copy: bool = False,
    **method_options: Any,
) -> Any:
    """Learn how the population moves from time-labelled cells.

    Parameters
    ----------
    adata
        Cells with times in ``obs`` and coordinates in ``obsm``: an AnnData, also backed or lazy, or a MuData.
        ``X`` is read only where it is in memory, to find the mean that PCA subtracted.
    time_key
        Column of ``obs`` with the times: numbers, or labels such as ``"day 3"``, ``"E8.5"``, ``"12h"``
        (see :func:`wlm.pp.parse_time`). At least two distinct times, with their real spacing.
    method
        ``"wlm"``, second-order mechanics with a learned potential and friction; ``"ijkonet"``, the gradient flow of
        a learned energy, by inverse optimisation of the JKO scheme; ``"jkonet_star"``, the same by regression on
        optimal couplings, a fast baseline. The last two take no velocities.
    use_rep
        Key of ``obsm`` with the coordinates, shape (n_obs, d): principal components, or any others (scVI,
        Harmony, diffusion maps), from which :func:`wlm.tl.predict` gets to genes with a decoder only.
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
    condition_key
        Column of ``obs`` with conditions, at most 20: each is fitted by itself, with the same settings and seed.
    holdout
        A time, or times, to leave out of training.
    nan
        Cells without a time are refused, or with ``"drop"`` left out: what is written is NaN for them.
    key_added
        Name ``K`` under which the results are stored.
    mod
        Modality of a MuData that is fitted and gets the results. Columns of ``obs`` are taken from it, or else
        from ``mdata.obs``. Without it, ``use_rep`` and ``velocity_key`` are keys of ``mdata.obsm``, columns are
        those of ``mdata.obs`` or else of the modalities, and results go to ``mdata.obs``, ``obsm`` and ``uns``.
    rng
        Seed, numpy Generator or SeedSequence. The same seed on the same device gives the same numbers.
    device
        ``"auto"`` is CUDA where there is a device, else the CPU; or any torch device.
    show_progress
        Show a progress bar; by default if the logger ``wlm`` shows information.
    copy
        Return a copy of ``adata`` with the results instead of writing to it.
    **method_options
        Options of the method, see :class:`wlm.core.methods.WLM`, :class:`wlm.core.methods.IJKOnet` and
        :class:`wlm.core.methods.JKOnetStar`.

    Returns
    -------
    None, or the copy if ``copy=True``. Written to ``adata`` (of a MuData, where ``mod`` says):

    ``uns[K]`` : dict
        The fit: configuration, weights, times, ``representation``, ``friction`` (1/time unit) of second-order
        dynamics or ``diffusion`` (``use_rep`` units squared per time unit) of an energy with entropy, ``history``
        and ``rollout`` {times (T,), positions (T, n, d), velocities (T, n, d), origin (n,)}: the paths of
        at most 1000 cells of the first time. If ``X`` or a layer explains ``X_pca``, ``representation`` says
        how to get back to ``genes`` (n_vars,): ``layer``, the matrix that PCA was computed on (``"X"`` or a
        key of ``layers``), ``mean`` (n_vars,), what it subtracted, and ``r2`` (n_vars,), see below.
    ``uns[K]["velocity"]`` : dict, with ``velocity_key``
        ``scale`` used, whether it was ``calibrated``, ``times`` and mean cosine ``agreement`` (T,) of velocities
        and observed drift at the training times.
    ``obs["K_velocity_agreement"]`` : float32, with ``velocity_key``
        The cosine for each cell; NaN for held-out times.
    ``obs["K_potential"]`` : float32
        Energy of each cell in the population of its own time, in ``use_rep`` units squared per time
        unit squared; of gradient flows V, plus the mean interaction energy with the other cells where there is one,
        per time unit, up to a constant.
    ``obsm["K_velocity"]``, ``obsm["K_force"]`` : float32, (n_obs, d)
        Velocity, and acceleration by the potential, at each cell's own time, in ``use_rep`` units per
        time unit and per time unit squared. For gradient flows both are the drift, without diffusion.
    ``obsm["K_next"]`` : float32, (n_obs, d)
        Where each cell is predicted to be at the next observed time; NaN for the last. Without measured
        velocities, cells of a held-out time before the first training time have neither velocity nor next
        position.
    ``var["K_decode_r2"]`` : float32
        If ``X`` or a layer explains ``X_pca``: the share of each gene's variance over cells that the fitted
        components reconstruct, so how well predictions of it can be decoded at best; NaN for genes that
        cannot be decoded (constant, or without loadings as genes that are not highly variable).

    With ``condition_key`` there is a fit in ``uns["K_C"]`` for each condition ``C``, which other functions take
    as ``key="K_C"`` and which then speak of its cells only. ``uns["K"]`` lists them (``conditions``, ``keys``,
    ``condition_key``); the columns of ``obs`` and ``obsm`` hold for each cell what the fit of its condition says.

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
    target = get_target(adata, mod)
    velocity_key = resolve_velocity(target, velocity_key, velocity_scale, use_rep)
    check_keys(target, key_added, [velocity_key, use_rep])
    if weight_key in ("origin", "from_time"):
        raise ValueError(f"weight_key {weight_key!r} is a column that predictions write; choose another name")
    if copy and (adata.isbacked or target.isbacked):
        raise ValueError("a backed object cannot be copied in memory; use copy=False, or adata.to_memory() first")
    source = get_source(adata, mod, columns=[time_key, weight_key, condition_key], arrays=[use_rep, velocity_key])
    keys: dict[str, Any] = {
        "use_rep": use_rep,
        "n_dims": n_dims,
        "velocity_key": velocity_key,
        "weight_key": weight_key,
        "nan": nan,
    }
    parts: dict[str, tuple[Any, Cells]]
    if condition_key is None:
        parts = {"": (slice(None), read_cells(source, time_key, holdout=holdout, **keys))}
    else:
        parts = dict(read_conditions(source, time_key, condition_key, holdout=holdout, **keys))
        check_keys(target, key_added, [velocity_key, use_rep], list(parts))
    for _, cells in parts.values():
        config.check(has_velocity=cells.v is not None)
    seed = as_seed(rng)
    notes: dict[str, dict[str, Any]] = {}
    if velocity_key is not None:
        for condition, (rows, cells) in parts.items():
            with naming(condition) if condition else nullcontext():
                cells, notes[condition] = calibrate(cells, velocity_scale, seed=seed)
            parts[condition] = rows, cells
    where = get_device(device)
    if show_progress is None:
        show_progress = logger.isEnabledFor(logging.INFO)

    fits, rates, total = {}, [], 0.0
    for condition, (rows, cells) in parts.items():
        label = f"{condition}, {where}" if condition else str(where)
        with naming(condition) if condition else nullcontext():
            result, path, annotation, seconds = _train(cells, config, seed, where, label, show_progress)
        part = source if condition_key is None else source[rows]
        params = {"time_key": time_key, "method": method, **keys, "velocity_scale": velocity_scale, "seed": seed}
        params |= {"device": str(where), "seconds": round(seconds, 1)}
        note = notes.get(condition)
        if note is not None:
            annotation["velocity_agreement"] = note["cells"]
        fits[condition] = rows, describe_fit(part, cells, result, path, params, note), annotation
        unit = cells.unit or "time unit"
        found = ", ".join(f"{k} {x:.3g} per {unit}" for k, x in result.dynamics.rates().items())
        rates.append(": ".join(text for text in (condition, found) if text))
        total += seconds
    # All is computed: from here on the object is written.
    out = adata.copy() if copy else adata
    target = get_target(out, mod)
    if condition_key is None:
        written = write_fit(target, key_added, *fits[""][1:])
    else:
        written = write_conditions(target, key_added, condition_key, fits)
    logger.info(
        "fitted %s on %s in %.0f s (%s); added %s", method, where, total, "; ".join(rates) or "-", ", ".join(written)
    )
    return out if copy else None


def _train(
    cells: Cells,
    config: Method,
    seed: int,
    where: torch.device,
    label: str,
    show_progress: bool,  # noqa: FBT001
) -> tuple[Fit, Rollout, dict[str, Any], float]:
    """A fit to ``cells``, the paths from the first time, the fields at the cells, and the seconds it took."""
    began = time.perf_counter()
    with tqdm(total=config.n_steps, desc=f"wlm.tl.fit on {label}", disable=not show_progress) as bar:

        def on_step(step: int, scalars: dict[str, float]) -> None:
            bar.update()
            if step % max(1, config.n_steps // 50) == 0:
                bar.set_postfix({k: f"{x:.3g}" for k, x in scalars.items() if k != "gradient_norm"})

        result = train(cells.populations(), config, seed=seed, device=where, on_step=on_step)

    dynamics = result.dynamics
    v = cells.v if dynamics.needs_velocity else None
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
    return result, path, annotation, time.perf_counter() - began


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
