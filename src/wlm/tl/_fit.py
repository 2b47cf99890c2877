"""Fitting dynamics to time-labelled cells."""

from __future__ import annotations

import logging
import os
import time
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import anndata as ad
import numpy as np
import torch
from joblib import Parallel, delayed

from wlm._adata.calibration import calibrate, resolve_velocity
from wlm._adata.cells import Cells, read_cells
from wlm._adata.conditions import naming, read_conditions
from wlm._adata.mudata import get_source, get_target
from wlm._logging import logger
from wlm._random import RNG, as_seeds
from wlm._store.write import check_keys, describe_fit, write_conditions, write_fit
from wlm.core.devices import get_device
from wlm.core.inertia import Inertia
from wlm.core.uncertainty import spread
from wlm.tl._models import Trained, check_running, check_sharing, checkpoint_files, get_method, train_model
from wlm.tl._simulation import measure_coverage


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
    strata_key: str | None = None,
    condition_key: str | None = None,
    holdout: Any = None,
    nan: str = "raise",
    n_models: int = 1,
    key_added: str = "wlm",
    mod: str | None = None,
    store_model: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    on_interrupt: str = "raise",
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
        Cells with times in ``obs`` and coordinates in ``obsm``: an AnnData, also backed or lazy, or a MuData. Of more
        than 100,000 cells at a time a random sample of so many is trained on, which no seed changes.
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
    strata_key
        Column of ``obs`` with samples, donors or other groups. Every batch of a training then holds each of them in
        proportion to its cells, where it varies by chance otherwise. It changes no weights: see ``weight_key``.
    condition_key
        Column of ``obs`` with conditions, at most 20: each is fitted by itself, with the same settings and seed.
    holdout
        A time, or times, to leave out of training.
    nan
        Cells without a time are refused, or with ``"drop"`` left out: what is written is NaN for them.
    n_models
        Models of an ensemble: the same data and settings, other seeds. All that is written is by the first, but for
        what says how far they agree (``spread``, below; see also :func:`wlm.tl.predict`). They are trained one after
        the other, or at the same time within ``with joblib.parallel_config(backend="loky", n_jobs=...)``.
    key_added
        Name ``K`` under which the results are stored.
    mod
        Modality of a MuData that is fitted and gets the results. Columns of ``obs`` are taken from it, or else
        from ``mdata.obs``. Without it, ``use_rep`` and ``velocity_key`` are keys of ``mdata.obsm``, columns are
        those of ``mdata.obs`` or else of the modalities, and results go to ``mdata.obs``, ``obsm`` and ``uns``.
    store_model
        Without its model a fit is small, but nothing can be predicted with it: ``uns[K]`` lacks weights, ensemble and
        rollout.
    checkpoint
        File to write the training to, now and then. The same call, made again after a crash, goes on from it to the
        same result. It is deleted in the end. Several trainings (an ensemble, conditions) have files of their own
        beside it.
    on_interrupt
        What Ctrl-C during training does: ``"raise"`` leaves ``adata`` unchanged, ``"keep"`` writes the model as it is
        by then (``uns[K]["params"]["stopped"]`` is the step), or of an ensemble the models that are complete.
        Checkpoints are then kept.
    rng
        Seed, numpy Generator or SeedSequence. The same seed on the same device gives the same numbers, on the CPU to
        the bit if the number of threads is the same as well (``torch.set_num_threads``): more of them add up in
        another order.
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
    ``uns[K]["coverage"]`` : dict, with ``holdout``
        How many of the held-out cells lie where the fit predicts 95 % of them to be (``nominal``), in each dimension by
        itself, averaged over dimensions: ``measured`` (k,) at the held-out ``times`` (k,), which are ``lead`` (k,)
        after the population that predicts them; ``horizon``, the longest lead of a time after the last training time up
        to which at least 85 % did (NaN if no such time is held out).
    ``uns[K]["ensemble"]`` : dict, with ``n_models``
        The other models, and ``friction`` or ``diffusion`` (n_models,) of all.
    ``obs["K_spread"]`` : float32, with ``n_models``
        Root mean square distance of ``K_next`` from its mean over the models, in ``use_rep`` units: where it is large,
        they disagree.
    ``uns[K]["velocity"]`` : dict, with ``velocity_key``
        ``scale`` used, whether it was ``calibrated``, ``times`` and mean cosine ``agreement`` (T,) of velocities
        and observed drift at the training times.
    ``uns[K]["inertia"]`` : dict, of WLM on four training times or more, if ``velocity_key`` is not given
        What the populations say of inertia: W1 (k,) of each inner training population at ``times`` (k,) to its
        prediction from all others by ``straight`` lines and by ``spline``; ``used``, whether cells started with the
        velocities of the splines, as they do by default where these are at least 10 % better (option
        ``initial_velocity`` of :class:`wlm.core.methods.WLM`; not there if that is neither ``"auto"`` nor
        ``"spline"``). ``obsm["K_velocity"]`` of the training times then holds them.
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
        Where each cell is predicted to be at the next observed time; NaN for the last. Without
        ``velocity_key``, cells of a held-out time before the first training time have neither velocity nor next
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
        If training diverges, again and again from its last good state on; ``adata`` is unchanged.

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
    config, where = get_method(method, method_options), get_device(device)
    target = get_target(adata, mod)
    velocity_key = resolve_velocity(target, velocity_key, velocity_scale, use_rep)
    check_keys(target, key_added, [velocity_key, use_rep])
    if weight_key in ("origin", "from_time"):
        raise ValueError(f"weight_key {weight_key!r} is a column that predictions write; choose another name")
    if copy and (adata.isbacked or target.isbacked):
        raise ValueError("a backed object cannot be copied in memory; use copy=False, or adata.to_memory() first")
    columns = [time_key, weight_key, strata_key, condition_key]
    source = get_source(adata, mod, columns=columns, arrays=[use_rep, velocity_key])
    keys: dict[str, Any] = {
        "use_rep": use_rep,
        "n_dims": n_dims,
        "velocity_key": velocity_key,
        "weight_key": weight_key,
        "strata_key": strata_key,
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
    # Within joblib.parallel_config several trainings run side by side, without bars.
    one_by_one = Parallel().n_jobs == 1 or (condition_key is None and n_models == 1)
    check_running(n_models, checkpoint, on_interrupt, condition_key, one_by_one=one_by_one)
    check_sharing(config, one_by_one=one_by_one)
    seeds = as_seeds(rng, n_models)
    notes: dict[str, dict[str, Any]] = {}
    if velocity_key is not None:
        for condition, (rows, cells) in parts.items():
            with naming(condition) if condition else nullcontext():
                cells, notes[condition] = calibrate(cells, velocity_scale, seed=seeds[0])
            parts[condition] = rows, cells
    estimates: dict[str, tuple[Inertia | None, bool]] = {}
    for condition, (rows, cells) in parts.items():
        velocities, inertia = config.estimate_velocities(cells.populations())
        estimates[condition] = inertia, velocities is not None
        if velocities is not None:
            parts[condition] = rows, cells.with_velocities(velocities)
    if show_progress is None:
        show_progress = logger.isEnabledFor(logging.INFO)

    jobs = [(condition, i) for condition in parts for i in range(n_models)]
    files = checkpoint_files(checkpoint, len(jobs))
    models: dict[str, list[Trained]] = {condition: [] for condition in parts}
    began, interrupted = time.perf_counter(), False
    shown = show_progress and one_by_one
    calls = [
        (parts[condition][1], config, seeds[i], seeds[0], where, condition, shown, file, on_interrupt)
        for (condition, i), file in zip(jobs, files, strict=True)
    ]
    results = (
        (train_model(*call) for call in calls)
        if one_by_one
        else Parallel()(delayed(train_model)(*call) for call in calls)
    )
    for (condition, _), model in zip(jobs, results, strict=True):
        models[condition].append(model)
        interrupted = model.fit.n_steps < config.n_steps
        if interrupted:
            if len(models[condition]) > 1:
                models[condition].pop()  # a model that is not trained would blur what the others say
            break  # interrupted: what there is by now is kept
    total = time.perf_counter() - began

    fits, rates = {}, []
    for condition, (rows, cells) in parts.items():
        part = source if condition_key is None else source[rows]
        trained = models[condition]
        annotation, stopped = trained[0].fields, trained[-1].fit.n_steps
        params = {"time_key": time_key, "method": method, **keys, "velocity_scale": velocity_scale, "seed": seeds[0]}
        params |= {"device": str(where), "seconds": round(sum(m.seconds for m in trained), 1)}
        params |= {"threads": torch.get_num_threads()} if where.type == "cpu" else {}
        params |= {"n_models": len(trained)} if n_models > 1 else {}
        params |= {"stopped": stopped} if stopped < config.n_steps else {}
        note = notes.get(condition)
        if note is not None:
            annotation["velocity_agreement"] = note["cells"]
        if len(trained) > 1:
            annotation["spread"] = spread(np.stack([m.fields["next"] for m in trained]))
        uns = describe_fit(part, cells, [(m.fit, m.path) for m in trained], params, note)
        inertia, used = estimates[condition]
        if inertia is not None:
            uns["inertia"] = {**asdict(inertia), "used": used}
            if used and inertia.found:
                logger.info(
                    "%scells keep their velocity: splines through the training populations predict each of them from "
                    "the others %.0f %% better than straight lines do, and gave the initial velocities",
                    f"{condition}: " if condition else "",
                    100 * (1 - inertia.spline.mean() / inertia.straight.mean()),
                )
        if len(cells.training) < len(cells.observed):
            uns["coverage"] = measure_coverage(cells, uns, annotation["velocity"], seeds[0])
        if not store_model:
            uns = {k: x for k, x in uns.items() if k not in ("weights", "ensemble", "rollout")}
        fits[condition] = rows, uns, annotation
        unit = cells.unit or "time unit"
        found = ", ".join(f"{k} {x:.3g} per {unit}" for k, x in trained[0].fit.dynamics.rates().items())
        rates.append(": ".join(text for text in (condition, found) if text))
    # All is computed: from here on the object is written.
    out = adata.copy() if copy else adata
    target = get_target(out, mod)
    if condition_key is None:
        written = write_fit(target, key_added, *fits[""][1:])
    else:
        written = write_conditions(target, key_added, condition_key, fits)
    if not interrupted:
        for file in files:
            if file is not None:
                file.unlink(missing_ok=True)
    logger.info(
        "fitted %s on %s in %.0f s (%s); added %s", method, where, total, "; ".join(rates) or "-", ", ".join(written)
    )
    return out if copy else None
