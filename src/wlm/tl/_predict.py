"""Predicting cells at times that were not observed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._adata.cells import read_rep
from wlm._adata.checks import as_text, check_integer
from wlm._adata.columns import dense, is_lazy
from wlm._adata.conditions import naming
from wlm._adata.decoders import Decoder, get_decoder
from wlm._adata.times import find_observed, read_labels
from wlm._logging import logger
from wlm._random import RNG, as_seed
from wlm._store.fit import StoredFit, check_representation, open_fit
from wlm._store.group import fit_key, get_conditions
from wlm.core.dynamics import CHUNK
from wlm.core.growth import LEAST_ESS, effective_share
from wlm.core.uncertainty import LEVEL, band, outside, spread
from wlm.tl._annotate import annotate, append_to, check, check_append, names_of
from wlm.tl._simulation import Predicted, choose, simulate
from wlm.tl._simulation import resample as resample_cells


def predict(
    adata: ad.AnnData,
    times: Any,
    *,
    key: str = "wlm",
    condition: str | None = None,
    from_time: Any = None,
    n_cells: int | None = None,
    resample: bool | None = None,
    genes: bool | str | Sequence[str] | Callable[[NDArray[np.float32]], Any] = False,
    labels: str | Sequence[str] | None = None,
    basis: str | Sequence[str] | None = None,
    append: bool = False,
    chunk_size: int = CHUNK,
    rng: RNG = 0,
    mod: str | None = None,
) -> ad.AnnData:
    """Predict the population at any time, between the observed ones or after the last.

    Cells start from an observed population with the velocities of the fit (``obsm["K_velocity"]``). Strictly between
    two training times the prediction also meets the later population; without velocities (measured or from splines)
    half of the cells travel there at constant speed (see :func:`wlm.core.prediction.predict`). At a training time the
    prediction is the free rollout. After the last it follows the answer that came closest to the last training time in
    the back-test of the fit (``uns["K"]["forecast"]``, see :func:`wlm.tl.fit`): the model, straight lines or a velocity
    field, at the full pace, a part of it, or none. Without a back-test it follows the model.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit.
    times
        One time or several, as numbers or labels, later than the start.
    key
        Name ``K`` of the fit. If ``K`` stands for fits by condition, all of them predict; the key ``K_C`` of one
        condition predicts only its cells, and the result columns are still named after ``K``, as in the fit.
    condition
        Of fits by condition, the one that predicts; the same as its key ``K_C``. By default all predict.
    from_time
        Observed time to start from; by default the last training time before each of ``times``.
    n_cells
        Number of cells to return for each time, chosen at random (with replacement if there are fewer); by default all.
        Either way the whole starting population is simulated, or ``chunk_size`` of its cells if it is larger. If the
        fit has weights or growth, cells are drawn with replacement in proportion to their weights at that time, and
        then count the same.
    resample
        For a fit with growth: replace weights by rows of equal weight; the average number of rows of a cell is its
        weight. By default this happens at times at which few cells stand for most, that is, if the weights are worth
        less than 30 % of the cells. A mother then has several rows, and cells that die out have none.
    genes
        True decodes the cells to gene expression through ``varm["PCs"]``, for a fit on ``"X_pca"``; names of genes
        decode only these. A function is a decoder for any representation: it takes positions (n, d), float32, in
        ``use_rep`` units, and returns expression, an array (n, n_vars) or a DataFrame (n, n_genes) with gene names as
        columns.
    labels
        Columns of ``obs`` that predicted cells get from their 15 nearest cells of the training times (closer cells
        weigh more): the label with the largest weight, or the mean of numbers.
    basis
        Embeddings in which predicted cells get coordinates, as keys of ``obsm`` with or without ``X_`` (``"umap"``):
        those of the nearest cell of the training times, since a mean over neighbours on two islands of a UMAP would lie
        in the void; an embedding that is a linear map of the fitted representation is carried out. The name of that
        representation adds its dimensions that were not fitted, as means over the 15 nearest cells, by closeness.
    append
        Return observed and predicted cells in one object, told apart by ``obs["K_predicted"]``. Times then have the
        format of the column (``"E8.5"``), the representation has all its dimensions, and with ``genes`` observed cells
        have the expression that the PCA was computed on.
    chunk_size
        Largest number of cells that move together. Larger populations are split at random into equal parts, each
        simulated as a stand-in for the whole: run time grows linearly with the number of cells, and memory only with
        the size of the result. In parts of 10,000 out of 50,000, cells ended 4 % of their way from their end in the
        whole, in parts of 25,000 3 % (``benchmarks/scaling.py``).
    rng
        Seed, numpy Generator or SeedSequence.
    mod
        Modality of a MuData that was fitted; without it, the fit of its joint representation.

    Returns
    -------
    AnnData (also of a MuData) with one row per predicted cell, shape (n, 0), or (n, n_genes) if decoded:

    ``obs[time_key]`` : float64
        The predicted time.
    ``obs["origin"]``, ``obs["from_time"]``
        Name and time of the cell it started as.
    ``obs[weight_key]`` : float64
        If the fit has weights and ``n_cells`` is not given: the weight of that cell.
    ``obs["K_weight"]`` : float64
        If the fit has growth: the number of cells that the row stands for at this time. It is relative, 1 on average,
        unless the fit has ``totals``; then it is the expected number of descendants of a cell of ``from_time``, times
        its weight there.
    ``obs[condition_key]`` : category
        If the fit is one of a condition: its name.
    ``obs[labels]``, ``obsm[basis]``
        What was asked for.
    ``obsm[use_rep]``, ``obsm["K_velocity"]`` : float32, (n, d)
        Position and velocity, in ``use_rep`` units (per time unit).
    ``obs["K_outside"]`` : bool
        Whether the cell has left the data: it is farther from the observed cells of the training times than all but 1 %
        of these are from each other.
    ``obs["K_spread"]`` : float32
        Of a fit with ``n_models``: root mean square distance of the cell from its mean over the models, in ``use_rep``
        units; ``obsm`` has the cell of the first model.
    ``X`` : float32
        If decoded: expression, with ``genes=True`` in the units that the PCA was computed on. Genes that
        PCA cannot decode get their mean.
    ``var["K_decode_r2"]`` : float32
        With ``genes=True``: see :func:`wlm.tl.fit`; NaN marks genes that cannot be decoded.
    ``uns["K_prediction"]`` : dict
        (``uns["K_C_prediction"]`` with the key of one condition.) Fit, version, seed, whether each time was bridged,
        and if decoded ``decoding``: ``"pca, X"``, ``"pca, layer <name>"`` or ``"callable"``. ``lower`` and ``upper``
        (T, d) are the band that holds ``level`` (95 %) of the predicted cells of all models in each dimension,
        ``mean_sd`` (T, d) the standard deviation of the population's mean over the models. Of a fit with growth,
        ``ess`` (T,) is how many equal cells the weighted population is worth, as a share of its cells, and
        ``resampled`` (T,) says where rows count the same. ``uns["K"]["coverage"]`` has the share of observed cells
        inside such bands at held-out times, see :func:`wlm.tl.fit`.

    Raises
    ------
    KeyError
        If there is no fit, or what it needs, a gene, a column or an embedding is missing from ``adata``.
    ValueError
        If ``resample`` is asked of a fit without growth, or with ``n_cells``; if a time cannot be predicted, ``adata``
        no longer holds the representation of the fit, genes cannot be decoded, or a decoder returns another shape or
        numbers that are not finite.
    TypeError
        If ``genes`` is neither a bool nor names nor a function, or a decoder returns no numbers.

    Examples
    --------
    >>> import scanpy as sc
    >>> import wlm
    >>> adata = wlm.datasets.bifurcation(n_cells=100, leave_out=[2])
    >>> sc.pp.normalize_total(adata)
    >>> sc.pp.log1p(adata)
    >>> sc.pp.pca(adata, n_comps=5)
    >>> wlm.tl.fit(adata, "day", n_steps=20, show_progress=False)
    >>> missing = wlm.tl.predict(adata, 2)
    >>> missing.obsm["X_pca"].shape
    (100, 5)
    """
    key = fit_key(adata, key, condition, mod)
    several = get_conditions(adata, key, mod)
    if several:
        asked = {"from_time": from_time, "n_cells": n_cells, "resample": resample, "genes": genes}
        asked |= {"chunk_size": chunk_size, "labels": labels, "basis": basis, "append": append}
        asked |= {"rng": as_seed(rng), "mod": mod}
        return _predict_conditions(adata, times, key, several, asked)
    names = names_of("labels", labels)
    adata, fit = open_fit(adata, key, mod, columns=names)
    x = read_rep(adata, fit.use_rep, fit.n_dims)
    check_representation(adata, fit, x)
    velocity_key = f"{fit.group}_velocity"
    if velocity_key not in adata.obsm:
        raise KeyError(f"obsm[{velocity_key!r}] is missing; run wlm.tl.fit again")
    v = dense(adata.obsm[velocity_key])
    shown = check(adata, fit, names, names_of("basis", basis))
    if append:
        check_append(adata, genes)
        shown |= {fit.use_rep: fit.use_rep}
    if genes is not False and not callable(genes) and is_lazy(adata) and "mean" not in fit.uns["representation"]:
        raise ValueError("genes cannot be decoded with X on disk; run adata = adata.to_memory() first")
    cell_times = fit.times(adata)
    weight_key, weights = fit.uns["params"].get("weight_key"), fit.weights_of(adata)
    wanted = read_labels(times, fit.style)
    present = fit.training[np.isin(fit.training, cell_times)]
    starts = _starts(wanted, from_time, fit, present, np.unique(cell_times[np.isfinite(cell_times)]))
    check_integer("n_cells", n_cells, optional=True)
    check_integer("chunk_size", chunk_size)
    _check_resample(fit, resample, n_cells)
    decoder = get_decoder(adata, genes, fit.uns["representation"], f"{key}_decode_r2")

    seed = as_seed(rng)
    warn_beyond_horizon(fit, wanted)
    parts = simulate(
        fit.ensemble,
        x,
        v,
        cell_times,
        wanted,
        starts,
        present,
        weights=weights,
        seed=seed,
        chunk_size=chunk_size,
        n_cells=n_cells,
        velocities_in=f"obsm[{velocity_key!r}]",
    )
    parts.sort(key=lambda part: int(np.flatnonzero(wanted == part.time)[0]))
    limits = [band(part.positions, part.weights) for part in parts]
    # The whole population moves, since every cell feels it; the choice is made afterwards.
    parts, worth = _chosen(fit, parts, n_cells, resample, seed)
    predicted = _assemble(adata, fit, parts, decoder, seed)
    observed = x[np.isin(cell_times, fit.training)]
    predicted.obs[f"{fit.group}_outside"] = outside(np.asarray(predicted.obsm[fit.use_rep]), observed)
    predicted.uns[f"{key}_prediction"] |= {
        "level": LEVEL,
        **worth,
        "lower": np.stack([low for low, _ in limits]),
        "upper": np.stack([high for _, high in limits]),
    }
    if fit.forecast is not None and (wanted > fit.training[-1]).any():
        note = {"by": fit.forecast.by, "share": fit.forecast.pace}
        predicted.uns[f"{key}_prediction"]["forecast"] = note
    if fit.others:
        predicted.obs[f"{fit.group}_spread"] = np.concatenate([spread(part.positions) for part in parts])
        means = np.stack([_means(part) for part in parts])
        predicted.uns[f"{key}_prediction"]["mean_sd"] = means.std(axis=1, ddof=1)
    if weights is not None and n_cells is None:
        predicted.obs[weight_key] = np.concatenate([weights[part.cells] for part in parts])
    if fit.dynamics.grows:
        own = [np.asarray(part.w) for part in parts]
        own = own if fit.dynamics.spec.has_sizes else [w / w.mean() for w in own]
        predicted.obs[f"{fit.group}_weight"] = np.concatenate(own)
    keys = list(dict.fromkeys(shown.values()))
    annotate(predicted, adata, fit, x, np.isin(cell_times, fit.training), names, keys)
    return append_to(predicted, adata, fit, key, keys) if append else predicted


def _check_resample(fit: StoredFit, resample: bool | None, n_cells: int | None) -> None:  # noqa: FBT001
    """Refuse a choice of rows that has no meaning."""
    if resample is None:
        return
    if not fit.dynamics.grows:
        raise ValueError(f"uns[{fit.key!r}] conserves cells, whose weights stay; leave resample out")
    if n_cells is not None:
        raise ValueError("n_cells draws cells by their weights already; leave resample out, or n_cells")


def _chosen(
    fit: StoredFit,
    parts: list[Predicted],
    n_cells: int | None,
    resample: bool | None,  # noqa: FBT001
    seed: int,
) -> tuple[list[Predicted], dict[str, NDArray[Any]]]:
    """The rows that are returned, and of a fit with growth what weighted populations are worth."""
    if n_cells is not None:
        parts, whole = [choose(part, n_cells, seed) for part in parts], parts
    else:
        whole = parts
    if not fit.dynamics.grows:
        return parts, {}
    ess = np.array([effective_share(np.asarray(part.w)) for part in whole])
    drawn = np.full(len(parts), n_cells is not None)
    if n_cells is None:
        drawn = ess < LEAST_ESS if resample is None else np.full(len(parts), resample)
        parts = [resample_cells(part, seed) if often else part for part, often in zip(parts, drawn, strict=True)]
    return parts, {"ess": ess, "resampled": drawn}


def _means(part: Predicted) -> NDArray[np.float64]:
    """Mean position (m, d) of the population by each model."""
    if part.weights is None:
        return part.positions.mean(axis=1)
    shares = part.weights / part.weights.sum(axis=1, keepdims=True)
    return np.einsum("mn,mnd->md", shares, part.positions)


def warn_beyond_horizon(fit: StoredFit, wanted: NDArray[np.float64]) -> None:
    """Say if forecasts go farther than those that were found to hold at held-out times."""
    last = float(fit.training[-1])
    horizon = float(fit.uns["coverage"]["horizon"]) if "coverage" in fit.uns else np.nan
    if np.isnan(horizon):  # no time after the last was held out
        tested = float(fit.uns["forecast"]["lead"]) if "forecast" in fit.uns else 0.0
        if (wanted - last > tested * (1 + 1e-6)).any():
            logger.warning(
                "unchecked forecast: %g is %g after the last training time, %g, and %s (uns[%r]); "
                "wlm.tl.evaluate with holdout='all' says what forecasts are worth",
                *(wanted.max(), wanted.max() - last, last),
                f"the back-test of this fit went {tested:g} ahead" if tested else "no forecast of this fit was tested",
                fit.key,
            )
        return
    far = wanted[wanted - last > horizon * (1 + 1e-6)]
    if len(far):
        logger.warning(
            "%g is beyond the forecast horizon of uns[%r]: at held-out times after the last training time, %g, "
            "bands held the observed cells %s",
            far[0],
            fit.key,
            last,
            f"up to {last + horizon:g}, and no farther" if horizon > 0 else "nowhere",
        )


def _predict_conditions(adata: Any, times: Any, key: str, keys: dict[str, str], asked: dict[str, Any]) -> ad.AnnData:
    """The predictions of all conditions, one after the other, under the name of them all."""
    parts = []
    for condition, own in keys.items():
        with naming(condition):
            part = predict(adata, times, key=own, **asked)
        parts.append(part)
    together = ad.concat(parts, merge="same")
    first = parts[0].uns[f"{next(iter(keys.values()))}_prediction"]
    together.uns[f"{key}_prediction"] = {
        **{name: first[name] for name in ("method", "version", "seed")},
        **({"decoding": first["decoding"]} if "decoding" in first else {}),
        "of": {name: part.uns[f"{own}_prediction"] for (name, own), part in zip(keys.items(), parts, strict=True)},
        "key": key,
        "conditions": np.array(list(keys), dtype=object),
        "keys": np.array(list(keys.values()), dtype=object),
    }
    return together


def _starts(
    wanted: NDArray[np.float64],
    from_time: Any,
    fit: StoredFit,
    present: NDArray[np.float64],
    all_times: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The observed time that each wanted time starts from."""
    if from_time is None:
        if len(present) == 0:
            raise ValueError(f"adata has no cells of the training times {fit.training.tolist()} to start from")
        early = wanted[wanted <= present[0]]
        if len(early):
            raise ValueError(
                f"cannot predict {early[0]:g}: predictions start from cells of an earlier training time, "
                f"and the first in adata is {present[0]:g}"
            )
        return np.array([present[present < t][-1] for t in wanted])
    named = read_labels(from_time, fit.style, "from_time")
    if len(named) > 1:
        raise ValueError(f"from_time must be one time, found {from_time!r}")
    start = find_observed(float(named[0]), all_times, "from_time")
    early = wanted[wanted <= start]
    if len(early):
        raise ValueError(f"cannot predict {early[0]:g} from {start:g}: times must be later than from_time")
    return np.full(len(wanted), start)


def _assemble(
    adata: ad.AnnData, fit: StoredFit, parts: list[Predicted], decoder: Decoder | None, seed: int
) -> ad.AnnData:
    """The predicted cells as an AnnData."""
    positions = np.concatenate([p.positions[0] for p in parts])
    obs = pd.DataFrame(
        {
            fit.time_key: np.repeat([p.time for p in parts], [len(p.cells) for p in parts]),
            "origin": np.concatenate([as_text(adata.obs_names[p.cells]) for p in parts]),
            "from_time": np.repeat([p.start for p in parts], [len(p.cells) for p in parts]),
        },
        index=[f"{fit.key}_{p.time!r}_{i}" for p in parts for i in range(len(p.cells))],
    )
    if fit.condition is not None:
        obs[str(fit.condition["key"])] = pd.Categorical([str(fit.condition["value"])] * len(obs))
    decoded, var = (None, None) if decoder is None else decoder.decode(positions)
    return ad.AnnData(
        decoded,
        obs=obs,
        var=var,
        obsm={fit.use_rep: positions, f"{fit.group}_velocity": np.concatenate([p.velocities for p in parts])},
        uns={
            f"{fit.key}_prediction": {
                "key": fit.key,
                "method": fit.dynamics.method.name,
                "version": str(fit.uns["version"]),
                "times": np.array([p.time for p in parts]),
                "from_time": np.array([p.start for p in parts]),
                "bridged": np.array([p.bridged for p in parts]),
                "seed": seed,
                **({} if decoder is None else {"decoding": decoder.note}),
            }
        },
    )
