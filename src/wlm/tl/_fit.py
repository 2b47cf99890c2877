"""Fitting dynamics to time-labelled cells."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import anndata as ad
import numpy as np

from wlm._adata.cells import Cells
from wlm._adata.checks import check_flag
from wlm._adata.columns import take_cells
from wlm._adata.mudata import get_target
from wlm._adata.reading import Reading
from wlm._logging import hint, logger
from wlm._random import RNG
from wlm._store.fit import as_forecast
from wlm._store.results import DEFAULT_KEY
from wlm._store.words import UNMET
from wlm._store.write import check_keys, describe_fit, write_fits
from wlm.core.devices import get_device, n_threads
from wlm.core.methods import DEFAULT, Method, get_method
from wlm.core.uncertainty import same_sign, spread
from wlm.tl._backtest import forecast_note
from wlm.tl._backtest import steps as n_backtest_steps
from wlm.tl._growth import measure_growth
from wlm.tl._models import Run, Trained, check_growth, check_samples, ensemble_of, named, prepare_all, stop_early
from wlm.tl._progress import Progress
from wlm.tl._simulation import measure_coverage, measure_free


def fit(
    adata: ad.AnnData,
    time_key: str,
    *,
    method: str | Method[Any, Any] = DEFAULT,
    use_rep: str | None = None,
    n_dims: int | None = None,
    velocity_key: str | None = None,
    velocity_scale: float | str | None = None,
    weight_key: str | None = None,
    strata_key: str | None = None,
    sample_key: str | None = None,
    condition_key: str | None = None,
    clone_key: str | None = None,
    growth: bool | str = False,
    growth_key: str | None = None,
    totals: Mapping[Any, float] | str | None = None,
    holdout: Any = None,
    backtest: bool = True,
    nan: str = "raise",
    n_models: int = 1,
    patience: int | None = None,
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
        Cells with times in ``obs`` and coordinates in ``obsm``: an AnnData, also backed or lazy, or a MuData. If a time
        has more than 100,000 cells, training uses a random sample of this size, the same for every seed. ``X`` is read
        only if it is in memory, to find the mean that PCA subtracted.
    time_key
        Column of ``obs`` with the times: numbers, or labels such as ``"day 3"``, ``"E8.5"``, ``"12h"`` (see
        :func:`wlm.pp.parse_time`). At least two distinct times; their real spacing counts.
    method
        ``"wlm"``, second-order mechanics with a learned potential and friction; ``"ijkonet"``, the gradient flow of a
        learned energy, by inverse optimisation of the JKO scheme; ``"jkonet_star"``, the same by regression on optimal
        couplings, a fast baseline; ``"flow"``, curves through optimal couplings around a velocity field, in seconds,
        without any training by simulation. Only the first takes velocities. Or a method with its options, such as
        ``wlm.core.methods.WLM.paper("eb")``.
    use_rep
        Key of ``obsm`` with the coordinates, shape (n_obs, d): principal components, or any others (scVI, Harmony,
        diffusion maps), for which :func:`wlm.tl.predict` needs a decoder to return genes. By default ``"X_pca"``, else
        ``"pca"`` (scanpy 2).
    n_dims
        Use only the first dimensions; all by default.
    velocity_key
        Velocities of the cells: a key of ``obsm`` (n_obs, >= d), or a layer of gene velocities, which the fit projects
        (see :func:`wlm.pp.project_velocity`). ``"auto"`` finds RNA velocity in the usual places and logs its choice.
        Velocities may be missing (all NaN) at whole times after the first: cells start there with the momentum that the
        rollout brings.
    velocity_scale
        Factor to units per unit of ``time_key``. By default 1 for a key of ``obsm``. RNA velocities (a layer, or the
        output of :func:`wlm.pp.project_velocity`) have their own unit of time and are calibrated, with the factor that
        best predicts the displacement between training populations. ``"calibrate"`` does so for any velocities.
    weight_key
        Column of ``obs`` with positive weights: a cell of weight 2 counts as two such cells, in training and in
        predictions. Use it for uneven sampling; by default all cells count the same. For cells that divide and die, use
        ``growth``.
    strata_key
        Column of ``obs`` with samples, donors or other groups. Every training batch then holds each group in proportion
        to its cells; otherwise the shares vary by chance. It changes no weights: see ``weight_key``.
    sample_key
        Column of ``obs`` with samples (donors, animals, wells), for an ensemble (``n_models``). Every model but the
        first then trains on samples that are drawn again with replacement, among those that were seen at the same
        times: the spread over models is that of other samples, and not of seeds alone. A sample that no other was seen
        at the same times with stays in every model, and a warning says so.
    condition_key
        Column of ``obs`` with conditions, at most 20: each is fitted separately, with the same settings and seed.
    clone_key
        Clones of the cells, for ``method="wlm"``: a column of ``obs`` with names, missing or empty for cells without
        one, or a key of ``obsm`` with a matrix (n_obs, n_clones), dense or sparse. Training then also draws each
        predicted cell towards the mean of its sisters, the cells of its clone at that time (``wlm.core.sisters``).
        Clones that a fit has seen cannot judge it: keep some for :func:`wlm.tl.evaluate_clones`. A clone is in one
        condition.
    growth
        Whether cells divide and die, for ``method="wlm"``. False conserves them: motion then explains changing
        proportions. True learns a smooth net rate (births less deaths) of each state. The rate has a price, so the fit
        prefers motion if it explains the populations as well; with ``growth_key`` it learns a factor of the given rates
        and a residual. ``"prior"`` takes the rates of ``growth_key`` as they are. Populations only tell differences of
        rates between cells, so rates are **relative** to the mean of the population at each time, unless you give
        ``totals``. The fit never takes numbers of observed cells for sizes of populations.
    growth_key
        Column of ``obs`` with net rates of the cells per unit of ``time_key``, signed, NaN where unknown, for example
        from growth curves of cell types. Along paths, and where it is unknown, the rate is the mean around.
    totals
        Sizes of the whole populations, which make rates absolute: a dict such as ``{0: 1e5, 3: 8e5}`` with every
        training time, or a column of ``obs`` with one number for all cells of a time.
    holdout
        One or several times to leave out of training.
    backtest
        Whether to ask the data what forecasts should follow; this needs three training times or more. A fit to all
        training times but the last, with half as many steps and the seed of the first model, predicts the cells of the
        last. After the last training time :func:`wlm.tl.predict` then follows whichever answer came closest: the model,
        straight lines at the velocities of the cells, or, for a single model of ``method="wlm"``, a velocity field
        regressed on these velocities; each at the full pace, a part of it, or none, which is a copy. Without a
        back-test, or with ``growth``, forecasts follow the model.
    nan
        Cells without a time raise an error; ``"drop"`` leaves them out and writes NaN as their results.
    n_models
        Number of models in an ensemble, with the same settings and different seeds; with ``growth`` all but the first
        train on cells drawn again from those of each time. Results come from the first model, except for those that
        say how far the models agree (``spread``, below; see also :func:`wlm.tl.predict`). They train one by one, or at
        the same time within ``with joblib.parallel_config(backend="loky", n_jobs=...)``.
    patience
        Stop a training early: a tenth of the cells of each time (500 at most) is set aside; these are moved to the next
        time four times in as many steps; training ends when their mean W1 to the cells set aside there has not fallen
        by 1 % for so long, and the model that came nearest is kept. By default all ``n_steps`` of the method are made;
        the back-test makes all of its steps either way.
    key_added
        Name ``K`` under which the results are stored.
    mod
        Modality of a MuData to fit, which also gets the results. Columns of ``obs`` come from it, else from
        ``mdata.obs``. Without ``mod``, ``use_rep`` and ``velocity_key`` are keys of ``mdata.obsm``, columns come from
        ``mdata.obs``, else from the modalities, and results go to ``mdata.obs``, ``obsm`` and ``uns``.
    store_model
        Whether to store the model. Without it a fit is small but cannot predict: ``uns[K]`` lacks weights, ensemble and
        rollout.
    checkpoint
        File for the training state, written periodically. The same call, made again after a crash, resumes from it and
        reaches the same result. The file is deleted at the end. Several trainings (an ensemble, conditions) write
        separate files beside it.
    on_interrupt
        What Ctrl-C during training does: ``"raise"`` leaves ``adata`` unchanged; ``"keep"`` writes the model as it is
        by then (``uns[K]["params"]["stopped"]`` is the step) or, for an ensemble, the complete models. Checkpoints are
        then kept. With ``patience``, ``"stopped"`` is also the step after which nothing was left to learn,
        and ``"stopping"`` says why.
    rng
        Seed, numpy Generator or SeedSequence. The same seed on the same device gives the same numbers, bit-identical on
        the CPU. There a fit uses one thread, whatever the machine and torch's setting, which it restores. The
        environment variable ``WLM_NUM_THREADS`` gives it more threads, which then add in another order.
    device
        ``"auto"`` takes CUDA if there is a device, else the CPU; or any torch device.
    show_progress
        Whether to show a bar with the model that is trained and the time left, one for all models and conditions; by
        default if ``wlm.settings.verbosity`` is 2 or more.
    copy
        Return a copy of ``adata`` with the results instead of writing to it.
    **method_options
        Options of the method, see :class:`wlm.core.methods.WLM`, :class:`wlm.core.methods.IJKOnet`,
        :class:`wlm.core.methods.JKOnetStar` and :class:`wlm.core.methods.Flow`.

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
        Share of held-out coordinates inside the predicted 95 % band (``nominal``). ``measured`` (k,): that share at
        each of the held-out ``times`` (k,), averaged over dimensions; ``lead`` (k,): the time since the population that
        predicts them; ``horizon``: the longest lead of a time after the last training time up to which the share stayed
        at 85 % or above (NaN if no such time is held out).
    ``uns[K]["ensemble"]`` : dict, with ``n_models``
        The other models, and ``friction`` or ``diffusion`` (n_models,) of all.
    ``obs["K_spread"]`` : float32, with ``n_models``
        Root mean square distance of ``K_next`` from its mean over the models, in ``use_rep`` units: where it is large,
        they disagree.
    ``uns[K]["velocity"]`` : dict, with ``velocity_key``
        ``scale`` used, whether it was ``calibrated``, ``times`` and mean cosine ``agreement`` (T,) of velocities
        and observed drift at the training times.
    ``uns[K]["training_times"]`` : dict
        Distance between a free rollout of the (first) model from the first time and the training cells, at the later
        training ``times`` (T - 1,): ``w1``, and its ``floor`` between as many other cells of that time, at most 500 a
        side; ``sd_ratio``, the standard deviation over the observed one (all NaN for fewer than four cells);
        ``outside``, the share of cells without an observed cell nearby. More than three floors cause a warning.
    ``uns[K]["forecast"]`` : dict, with ``backtest``
        What forecasts follow, ``by`` (``"model"``, ``"straight"``, ``"field"``) and ``share`` of its pace, with a
        sentence, ``words``; the ``time`` that was predicted, ``lead`` after the one before, and the ``w1`` (k, 5) of
        each of ``names`` (k,) at each ``pace`` (5,), of at most 500 cells a side; the first column is a copy. If the
        field leads, ``field`` holds its weights.
    ``uns[K]["choice"]`` : dict, of ``method="wlm"`` and ``"flow"``
        What cells follow between the training times: ``path`` (``"straight"``, ``"spline"``, ``"field+straight"`` or
        ``"field+spline"``), a sentence, ``words``, and with four training times or more what the choice rests on, see
        :class:`wlm.core.field.Paths`. With ``condition_key`` the choice is one for all conditions, by their means;
        ``alone`` is what a condition would have chosen by itself. If it is not straight, WLM starts with the velocities
        of the paths, which ``obsm["K_velocity"]`` of the training times then holds (option ``initial_velocity`` of
        :class:`wlm.core.methods.WLM`; no choice is made if that names something else). With ``velocity_key`` and three
        training times or more ``path`` is ``"velocities"`` if cells arrive at the next population with its velocities,
        ``"rollout"`` if these say too little, see ``wlm.core.arrival``.
    ``uns[K]["growth"]`` : dict, with ``growth``
        ``mode`` (``"learned"``, ``"prior and residual"`` or ``"prior"``), a sentence on what the rates rest on,
        ``words``, whether rates are ``relative``, and at the observed ``times`` (T,) from the first training time on,
        ``ess`` (T,): how many equal cells the stored rollout is worth there, as a share of its cells. With
        ``growth_key`` also ``prior_scale``, the factor of the given rates, and ``prior_r2``, the share of their
        variance that the states explain; with ``totals`` ``mean_rate`` (T,), that of the population.
    ``obs["K_growth"]`` : float32, with ``growth``
        Net rate of each cell per time unit; without ``totals`` relative to the mean of the population at its time.
        Cells with a rate in ``growth_key`` have a factor of their own, not that of the cells around.
    ``obs["K_growth_agreement"]``, ``obs["K_growth_spread"]`` : float32, with ``growth`` and ``n_models``
        Share of the models that agree with the first on the sign of the rate, and its standard deviation over models.
    ``obs["K_descendants"]`` : float32, with ``growth``
        Expected descendants of each cell at the next observed time; relative without ``totals``: 1 on average. NaN
        where ``K_next`` is NaN.
    ``obs["K_velocity_agreement"]`` : float32, with ``velocity_key``
        The cosine for each cell; NaN for held-out times.
    ``obs["K_potential"]`` : float32
        Energy of each cell in the population of its own time, in ``use_rep`` units squared per time unit squared; for
        gradient flows V, plus the mean interaction energy with the other cells if there is one, per time unit, up to a
        constant.
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
    asked = method_options if growth is False else {**method_options, "growth": growth}
    config, where = get_method(method, asked), get_device(device)
    check_growth([config], growth_key, totals)
    config.check_clones(has_clones=clone_key is not None)
    check_flag("backtest", backtest)
    reading = Reading(
        time_key=time_key,
        use_rep=use_rep,
        n_dims=n_dims,
        velocity_key=velocity_key,
        velocity_scale=velocity_scale,
        weight_key=weight_key,
        strata_key=strata_key,
        sample_key=sample_key,
        condition_key=condition_key,
        growth_key=growth_key,
        totals=totals,
        clone_key=clone_key,
        nan=nan,
    ).resolved(adata, mod)
    _check_target(adata, mod, key_added, reading, [], copy=copy)
    source = reading.source(adata, mod)
    parts = reading.parts(source, holdout)
    _check_target(adata, mod, key_added, reading, [condition for condition in parts if condition], copy=copy)
    for part in parts.values():
        config.check(has_velocity=part.cells.v is not None)
    stop_early({condition: part.cells for condition, part in parts.items()}, [config], patience)
    for condition, part in parts.items():
        with named(condition):
            check_samples(part.cells, sample_key, n_models)
    run = Run.of(
        config,
        where,
        condition_key=condition_key,
        n_models=n_models,
        rng=rng,
        checkpoint=checkpoint,
        on_interrupt=on_interrupt,
        patience=patience,
    )
    began = time.perf_counter()
    read = {condition: part.cells for condition, part in parts.items()}
    prepared = prepare_all(read, config, velocity_scale, run.seeds[0])
    tests = {condition: backtest * n_backtest_steps(cells.training, config) for condition, cells in read.items()}
    with Progress(f"wlm.tl.fit on {where}", run.steps(len(parts)) + sum(tests.values()), show_progress) as progress:
        models, interrupted = run.train({condition: cells for condition, (cells, _) in prepared.items()}, progress)
        if backtest and not interrupted:
            for condition, (cells, notes) in prepared.items():
                progress.say(f"{condition}, back-test".removeprefix(", "))
                asked_of = config, velocity_scale, run.seeds, where
                with named(condition):
                    found = forecast_note(parts[condition].cells, cells, *asked_of, tell=progress.tell)
                progress.end(tests[condition])
                notes |= {} if found is None else {"forecast": found}
    total, fits, rates = time.perf_counter() - began, {}, []
    for condition, (cells, notes) in prepared.items():
        rows, prefix = parts[condition].rows, f"{condition}: " if condition else ""
        own = take_cells(source, rows) if condition else source
        uns, fields = _described(own, cells, notes, models[condition], reading, run, prefix)
        if not store_model:
            uns = {k: x for k, x in uns.items() if k not in ("weights", "ensemble", "rollout")}
        fits[condition] = rows, uns, fields
        rates.append(_rates(models[condition][0], cells.unit or "time unit", prefix))
    # All is computed: from here on the object is written.
    out = adata.copy() if copy else adata
    written = write_fits(get_target(out, mod), key_added, condition_key, fits)
    if not interrupted:
        run.tidy(len(parts))
    said = config.name, where, total, "; ".join(filter(None, rates)) or "-", ", ".join(written)
    logger.info("fitted %s on %s in %.0f s (%s); added %s", *said)
    named_key = "" if key_added == DEFAULT_KEY else f", key={key_added!r}"
    hint(
        "next: wlm.pl.training(adata%s) and wlm.pl.rollout(adata%s) show whether it fits, wlm.tl.evaluate(adata, %r) "
        "whether it beats answers that need no model, and wlm.report(adata%s) writes all into one file",
        *(named_key, named_key, time_key, named_key),
    )
    return out if copy else None


def _check_target(
    adata: Any,
    mod: str | None,
    key_added: str,
    reading: Reading,
    conditions: Sequence[str],
    copy: bool,  # noqa: FBT001
) -> None:
    """Refuse what could not be written in the end."""
    target = get_target(adata, mod)
    columns = reading.columns | ({} if reading.clone_key is None else {"clone_key": reading.clone_key})
    check_keys(target, key_added, [reading.velocity_key, reading.use_rep, reading.clone_key], conditions, columns)
    if copy and (adata.isbacked or target.isbacked):
        raise ValueError("a backed object cannot be copied in memory; use copy=False, or adata.to_memory() first")


def _described(
    source: ad.AnnData,
    cells: Cells,
    notes: dict[str, dict[str, Any]],
    trained: Sequence[Trained],
    reading: Reading,
    run: Run,
    prefix: str,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What ``uns`` is to hold of the models of one condition, and what its cells get."""
    fields, stopped = trained[0].fields, trained[-1].fit.n_steps
    params = {**reading.params(), "method": run.config.name, "seed": run.seeds[0]}
    params |= {"device": str(run.where), "seconds": round(sum(m.seconds for m in trained), 1)}
    params |= {"threads": n_threads()} if run.where.type == "cpu" else {}
    params |= {"n_models": len(trained)} if len(run.seeds) > 1 else {}
    params |= {} if run.patience is None else {"patience": run.patience}
    params |= {"stopped": stopped} if stopped < run.config.n_steps else {}
    words = [model.fit.words for model in trained if model.fit.words]
    params |= {"stopping": "; ".join(words)} if words else {}
    for line in words:
        logger.info("%s%s", prefix, line)
    if "velocity" in notes:
        fields["velocity_agreement"] = notes["velocity"].pop("cells")
    if len(trained) > 1:
        fields["spread"] = spread(np.stack([m.fields["next"] for m in trained]))
        if "growth" in fields:
            fields["growth_agreement"] = same_sign(np.stack([m.fields["growth"] for m in trained]))
            fields["growth_spread"] = spread(np.stack([m.fields["growth"][:, None] for m in trained]))
    uns = describe_fit(source, cells, [(m.fit, m.path) for m in trained], params)
    for name, note in notes.items():
        uns[name] = note
        if "words" in note:
            logger.info("%s%s", prefix, note["words"])
    if run.config.grows:
        uns["growth"] = measure_growth(cells, trained[0].fit.dynamics, trained[0].path)
        logger.info("%s%s", prefix, uns["growth"]["words"])
    uns["training_times"] = measure_free(cells, trained[0].path, run.seeds[0])
    _warn_unmet(uns["training_times"], prefix)
    if len(cells.training) < len(cells.observed):
        forecast = as_forecast(notes.get("forecast"), trained[0].fit.dynamics.as_stored().units)
        ensemble = replace(ensemble_of(cells, trained, run.seeds[0]), forecast=forecast)
        uns["coverage"] = measure_coverage(cells, ensemble, fields["velocity"], run.seeds[0])
    return uns, fields


def _warn_unmet(found: Mapping[str, Any], prefix: str) -> None:
    """Say at which training times a free rollout ends far from the cells that it was trained on."""
    unmet = np.flatnonzero(found["w1"] > UNMET * found["floor"])
    if len(unmet):
        k = unmet[np.argmax(found["w1"][unmet] - found["floor"][unmet])]
        logger.warning(
            "%sa free rollout from the first time is more than %g floors away from the cells at %g (W1 %.3g, of two "
            "samples of them %.3g): the training has not met them; give it more n_steps, or predict from a time nearby "
            "(uns['training_times'] of the fit has all times, wlm.pl.training draws them)",
            *(prefix, UNMET, found["times"][k], found["w1"][k], found["floor"][k]),
        )


def _rates(model: Trained, unit: str, prefix: str) -> str:
    """What the first model has found besides its energy, for the log."""
    dynamics = model.fit.dynamics
    found = ", ".join(
        f"{name} {q.in_data(dynamics.units):.3g} {q.unit('length unit', unit).replace('1/', 'per ')}"
        for name, q in dynamics.model.constants().items()
    )
    return f"{prefix}{found}" if found else prefix.removesuffix(": ")
