"""Genes knocked out, turned down or up on a day, and the population after it beside its unperturbed twin."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from wlm._adata.cells import read_rep
from wlm._adata.checks import as_text, check_integer
from wlm._adata.columns import dense, is_lazy, read_column
from wlm._adata.components import LOADINGS
from wlm._adata.expression import read_rows
from wlm._adata.genes import get_matrix, read_receipt
from wlm._adata.neighbours import from_neighbours
from wlm._adata.times import find_observed, read_labels, with_unit
from wlm._logging import logger
from wlm._random import RNG, as_seed
from wlm._store.fit import StoredFit, check_representation, open_fit
from wlm._store.group import fit_key
from wlm._version import __version__
from wlm.core.uncertainty import outside
from wlm.tl._interventions import Genes, Outcome, Setting, intervene, words_of
from wlm.tl._progress import is_shown
from wlm.tl._simulation import some_of

#: What no output is without.
MEANING = (
    "genes are linear functions of the components, and a gene is set by moving cells along what goes with it among "
    "them: a marker moves them as a regulator does, and no regulatory network is behind this; confirm what matters by "
    "an experiment"
)


def perturb(
    adata: ad.AnnData,
    genes: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]],
    *,
    at: Any,
    times: Any,
    key: str = "wlm",
    condition: str | None = None,
    label_key: str | None = None,
    n_cells: int | None = 1000,
    min_r2: float = 0.1,
    max_outside: float = 0.5,
    n_null: int = 19,
    n_jobs: int = 1,
    cache: str | os.PathLike[str] | None = None,
    show_progress: bool | None = None,
    rng: RNG = 0,
    mod: str | None = None,
) -> Any:
    r"""Set genes to other levels on a day, and predict the population beside the same cells left alone.

    Genes are set through the decoder of the fit (PCA). All cells of the day make the smallest move, in standard
    deviations of these cells, that gives the decoded genes the requested level. They then move freely by the fitted
    dynamics, as their twins do, and are not led to observed cells.

    The meaning has limits. The decoder is linear, and genes that vary together among the cells of the day move
    together. A marker moves cells as a regulator does; no regulatory network is behind it. A shift is worth a look if
    it exceeds that of random genes of equal size, the models of an ensemble agree, and cells stay inside the data.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit on principal components.
    genes
        A gene to knock out; or levels by gene, set together: a number in the units of the matrix that PCA was computed
        on, ``"out"`` (its lowest value there, 0 of counts), ``"down"`` or ``"up"`` (its decoded 5 or 95 % quantile
        among the cells of the day). Or a list of these: a screen.
    at
        Training time at which genes are set.
    times
        One time or several after it.
    key
        Name ``K`` of the fit; of fits by condition, the key of one.
    condition
        Of fits by condition, which one; the same as its key.
    label_key
        Column of ``obs`` with labels, such as cell types or fates, whose shares are compared. Predicted cells get them
        from their 15 nearest observed cells of the training times.
    n_cells
        Number of cells to perturb and move, chosen at random; None for all cells of the day.
    min_r2
        Smallest share of a gene's variance that the decoder must explain; other genes are refused.
    max_outside
        Largest share of the cells that may leave the data by the move. Beyond it the perturbation is refused, and the
        error names the part that stays inside.
    n_null
        Number of random gene sets of the same size, turned up or down by moves of equal size, for comparison; 0 for
        none.
    n_jobs
        Number of perturbations of a screen to run at the same time, through joblib.
    cache
        Folder for finished perturbations of a screen: the same call, made again, makes only the missing ones.
    show_progress
        Whether to show a bar for a screen; by default if ``wlm.settings.verbosity`` is 2 or more.
    rng
        Seed, numpy Generator or SeedSequence.
    mod
        Modality of a MuData that was fitted.

    Returns
    -------
    Of one perturbation an AnnData with one row per predicted cell, as of :func:`wlm.tl.predict`, shape (n, 0):

    ``obs[time_key]``, ``obs["origin"]``, ``obs["from_time"]``
        The predicted time, the cell it started as, and ``at``.
    ``obsm[use_rep]``, ``obsm["K_unperturbed"]`` : float32, (n, d)
        Its position, and that of its twin, the same cell left alone, in ``use_rep`` units.
    ``obs["K_outside"]`` : bool
        Whether it is outside of the observed cells, see :func:`wlm.tl.predict`.
    ``obs[label_key]``, ``obs["unperturbed_<label_key>"]``
        With ``label_key``: labels of the cell and of its twin.
    ``uns["K_perturbation"]`` : dict
        ``genes``, ``levels``, ``before`` (decoded means) and ``r2`` (k,); ``at``, ``times`` (T,); ``move``, the mean
        size in standard deviations of the cells; ``inside``, the share of moved cells inside the data; ``reach``, the
        share of the move that keeps them there; ``n_null``, ``seed``, ``verdict`` in words, ``meaning``, and
        ``effects``, a dict of columns (make it a table with ``pandas.DataFrame``): ``statistic`` (``"distance"``, W1
        between population and twin in ``use_rep`` units; ``"composition"``, change in the share of a label;
        ``"genes"``, change in the decoded mean), ``name``, ``time``, ``effect`` by the first model, ``low`` and
        ``high`` over all models of an ensemble (NaN of one), ``null_low`` and ``null_high``, which hold 95 % of the
        effects of random genes of equal size, up or down, and ``p``, the share of these, with the perturbation counted
        among them, that are as large.

    Of a screen a DataFrame with these columns but of genes, after ``perturbation``, ``move``, ``inside`` and ``reach``;
    ``attrs["refused"]`` says for which perturbations, and why not. ``attrs["meaning"]`` as above.

    Raises
    ------
    KeyError
        If there is no fit or no such gene or column.
    ValueError
        If genes cannot be decoded well enough or set one by one, the perturbation leaves the data, or a time cannot be
        predicted.
    TypeError
        If ``genes`` or a level is of another kind.
    """
    key = fit_key(adata, key, condition, mod)
    cells, fit = open_fit(adata, key, mod, columns=[] if label_key is None else [label_key])
    screen = not isinstance(genes, (str, Mapping))
    asked = [_levels(g) for g in genes] if screen else [_levels(genes)]
    if not asked:
        raise ValueError("genes is an empty list; name a gene, or several to screen")
    _check_numbers(n_cells, n_null, min_r2, max_outside)
    seed = as_seed(rng)
    decoding = _read_genes(cells, fit, asked)
    setting, origins = _setting(cells, fit, decoding, at, times, label_key, n_cells, n_null, min_r2, seed)
    if screen:
        folder = None if cache is None else Path(cache)
        return _screen(setting, fit, asked, n_jobs, folder, max_outside, show_progress)
    if cache is not None:
        raise ValueError("cache keeps the perturbations of a screen; pass a list of genes, or leave it out")
    _check_r2(setting, asked[0])
    twin = setting.rollouts(None)
    outcome = intervene(setting, asked[0], twin, genes=True, max_outside=max_outside)
    predicted = _assemble(cells, fit, setting, outcome, twin, origins, label_key)
    logger.info("%s", predicted.uns[f"{key}_perturbation"]["verdict"])
    return predicted


def _levels(genes: Any) -> dict[str, Any]:
    """The levels that are asked for, by gene."""
    if isinstance(genes, str):
        return {genes: "out"}
    if not isinstance(genes, Mapping) or not genes:
        raise TypeError(f"genes must be a name, or levels by gene such as {{'GATA1': 'out'}}, found {genes!r}")
    for name, level in genes.items():
        number = isinstance(level, (int, float, np.integer, np.floating)) and not isinstance(level, bool)
        if not (number and np.isfinite(level)) and level not in ("out", "down", "up"):
            raise TypeError(f"the level of {name!r} must be a number, 'out', 'down' or 'up', found {level!r}")
    return {str(name): level for name, level in genes.items()}


def _check_numbers(n_cells: Any, n_null: Any, min_r2: Any, max_outside: Any) -> None:
    check_integer("n_cells", n_cells, 2, optional=True)
    check_integer("n_null", n_null, 0)
    for name, share in (("min_r2", min_r2), ("max_outside", max_outside)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name} must be a share from 0 to 1, found {share!r}")


def _read_genes(cells: ad.AnnData, fit: StoredFit, asked: Sequence[Mapping[str, Any]]) -> Genes:
    """What the decoder knows of the genes, and the lowest values of those that are to be knocked out."""
    names = as_text(cells.var_names)
    wanted = list(dict.fromkeys(name for levels in asked for name in levels))
    missing = [name for name in wanted if name not in set(names)]
    if missing:
        raise KeyError(f"genes {missing[:5]} are not in var_names")
    if is_lazy(cells):
        raise ValueError("genes cannot be decoded with X on disk; run adata = adata.to_memory() first")
    receipt = read_receipt(cells, fit.uns["representation"])
    loadings = np.asarray(cells.varm[LOADINGS[fit.use_rep]], dtype=np.float64)[:, : fit.n_dims]
    out = list(dict.fromkeys(name for levels in asked for name, level in levels.items() if level == "out"))
    lowest = {}
    if out:
        matrix = get_matrix(cells, receipt.layer)
        if matrix is None:
            raise KeyError(
                f"{receipt.layer!r}, the matrix that PCA was computed on, is missing; name levels as numbers"
            )
        values = read_rows(matrix[:, pd.Index(names).get_indexer(out)], slice(None))
        lowest = dict(zip(out, values.min(axis=0).tolist(), strict=True))
    return Genes(names, loadings, receipt.mean, receipt.r2.astype(np.float64), lowest)


def _setting(
    cells: ad.AnnData,
    fit: StoredFit,
    genes: Genes,
    at: Any,
    times: Any,
    label_key: str | None,
    n_cells: int | None,
    n_null: int,
    min_r2: float,
    seed: int,
) -> tuple[Setting, np.ndarray]:
    """Which cells are perturbed when, and the names of those that move on."""
    x = read_rep(cells, fit.use_rep, fit.n_dims)
    check_representation(cells, fit, x)
    velocity_key = f"{fit.group}_velocity"
    if velocity_key not in cells.obsm:
        raise KeyError(f"obsm[{velocity_key!r}] is missing; run wlm.tl.fit again")
    cell_times, weights = fit.times(cells), fit.weights_of(cells)
    named = read_labels(at, fit.style, "at")
    if len(named) != 1:
        raise ValueError(f"at must be one time, found {at!r}")
    start = find_observed(float(named[0]), fit.training, "the training time at")
    wanted = np.sort(read_labels(times, fit.style))
    if wanted[0] <= start:
        raise ValueError(f"times must be after {start:g}, at which genes are set, found {wanted[0]:g}")
    here = np.flatnonzero(cell_times == start)
    if len(here) < 2:
        raise ValueError(f"adata has no cells at {start:g} to start from")
    v = dense(cells.obsm[velocity_key])[here]
    if not np.isfinite(v).all():
        raise ValueError(f"obsm[{velocity_key!r}] has no velocity for the cells at {start:g}; run wlm.tl.fit again")
    trained = np.isin(cell_times, fit.training)
    labels = None if label_key is None else read_column(cells, label_key).astype(str).to_numpy()[trained]
    chosen = some_of(np.arange(len(here)), n_cells, seed)
    setting = Setting(
        ensemble=fit.ensemble,
        x=x[here],
        v=v,
        w=None if weights is None else weights[here],
        chosen=chosen,
        at=start,
        times=wanted,
        observed=x[trained],
        labels=labels,
        genes=genes,
        n_null=n_null,
        min_r2=min_r2,
        seed=seed,
    )
    return setting, as_text(cells.obs_names[here[chosen]])


def _check_r2(setting: Setting, asked: Mapping[str, Any]) -> None:
    """Refuse genes that the components do not hold."""
    r2 = {name: setting.genes.r2[setting.genes.place(name)] for name in asked}
    poor = {name: value for name, value in r2.items() if not value >= setting.min_r2}
    if poor:
        text = ", ".join(
            f"{name} cannot be decoded" if np.isnan(value) else f"{name} has R² {value:.2g}"
            for name, value in poor.items()
        )
        raise ValueError(
            f"the components hold too little of these genes to set them: {text}, at least {setting.min_r2:g} is "
            "wanted; choose genes with a larger var['<key>_decode_r2'], fit more components, or lower min_r2"
        )


def _screen(
    setting: Setting,
    fit: StoredFit,
    asked: Sequence[dict[str, Any]],
    n_jobs: int,
    cache: Path | None,
    max_outside: float,
    show_progress: bool | None,  # noqa: FBT001
) -> pd.DataFrame:
    """The effects of many perturbations, one below the other."""
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
    twin = setting.rollouts(None)
    parallel = Parallel(n_jobs=None if n_jobs == 1 else n_jobs, return_as="generator")
    jobs = (
        delayed(_one)(setting, levels, twin, max_outside, None if cache is None else _file(cache, fit, setting, levels))
        for levels in asked
    )
    tables, refused = [], {}
    with tqdm(total=len(asked), desc="wlm.tl.perturb", disable=not is_shown(show_progress)) as bar:
        for levels, found in zip(asked, parallel(jobs), strict=True):
            bar.set_postfix_str(words_of(levels), refresh=False)
            bar.update()
            if "refused" in found:
                refused[words_of(levels)] = found["refused"]
                continue
            table = pd.DataFrame(found["effects"]).astype({"name": str, "statistic": str})
            for k, name in enumerate(("move", "inside", "reach")):
                table.insert(k, name, found[name])
            table.insert(0, "perturbation", words_of(levels))
            tables.append(table)
    if not tables:
        raise ValueError(f"every perturbation was refused, for example: {next(iter(refused.values()))}")
    for name, why in refused.items():
        logger.warning("wlm.tl.perturb: %s was refused: %s", name, why)
    table = pd.concat(tables, ignore_index=True)
    table.attrs |= {"refused": refused, "meaning": MEANING}
    return table


def _one(
    setting: Setting, levels: dict[str, Any], twin: np.ndarray, max_outside: float, file: Path | None
) -> dict[str, Any]:
    """One perturbation of a screen: its effects or why it was refused, kept in a file."""
    if file is not None and file.exists():
        return dict(json.loads(file.read_text()))
    try:
        _check_r2(setting, levels)
        outcome = intervene(setting, levels, twin, genes=False, max_outside=max_outside)
    except ValueError as error:
        found: dict[str, Any] = {"refused": str(error)}
    else:
        found = {name: getattr(outcome, name) for name in ("move", "inside", "reach")}
        found["effects"] = {name: values.tolist() for name, values in outcome.effects.items()}
    if file is not None:
        half = file.with_suffix(f".{os.getpid()}.half")
        half.write_text(json.dumps(found))
        half.replace(file)
    return found


def _file(folder: Path, fit: StoredFit, setting: Setting, levels: Mapping[str, Any]) -> Path:
    """A name for a perturbation, different for whatever could change its effects."""
    told = (
        *(__version__, str(fit.uns.get("checksum")), sorted(levels.items()), setting.at, setting.times.tolist()),
        *(setting.n_null, setting.min_r2, setting.seed),
    )
    digest = hashlib.sha256(repr(told).encode())
    arrays = (setting.x, setting.v, setting.w, setting.chosen, setting.observed, setting.genes.weights)
    for values in (*arrays, setting.genes.mean, setting.genes.r2):
        digest.update(b"-" if values is None else np.ascontiguousarray(values).tobytes())
    digest.update("\0".join([] if setting.labels is None else setting.labels.tolist()).encode())
    return folder / f"{digest.hexdigest()[:32]}.json"


def _assemble(
    cells: ad.AnnData,
    fit: StoredFit,
    setting: Setting,
    outcome: Outcome,
    twin: np.ndarray,
    origins: np.ndarray,
    label_key: str | None,
) -> ad.AnnData:
    """The perturbed cells and their twins as an AnnData."""
    n, group = len(setting.chosen), fit.group
    positions, alone = (p[0].reshape(-1, p.shape[-1]) for p in (outcome.positions, twin))
    obs = pd.DataFrame(
        {
            fit.time_key: np.repeat(setting.times, n),
            "origin": np.tile(origins, len(setting.times)),
            "from_time": setting.at,
            f"{group}_outside": outside(positions, setting.observed),
        },
        index=[f"{fit.key}_{float(t)!r}_{i}" for t in setting.times for i in range(n)],
    )
    if label_key is not None and setting.labels is not None:
        for name, x in ((label_key, positions), (f"unperturbed_{label_key}", alone)):
            obs[name] = pd.Categorical(from_neighbours(setting.observed, setting.labels, x))
    if setting.w is not None:
        obs[str(fit.uns["params"]["weight_key"])] = np.tile(setting.w[setting.chosen], len(setting.times))
    names = list(outcome.levels)
    note = {
        "key": fit.key,
        "method": fit.dynamics.method.name,
        "version": str(fit.uns["version"]),
        "genes": np.array(names, dtype=object),
        "levels": np.array(list(outcome.levels.values())),
        "before": np.array([outcome.before[name] for name in names]),
        "r2": np.array([setting.genes.r2[setting.genes.place(name)] for name in names]),
        **{"at": setting.at, "times": setting.times, "n_null": setting.n_null, "seed": setting.seed},
        **{name: getattr(outcome, name) for name in ("move", "inside", "reach")},
        **{"effects": outcome.effects, "meaning": MEANING, "time": with_unit(fit.time_key, fit.unit)},
    }
    note["verdict"] = _verdict(note)
    return ad.AnnData(
        obs=obs,
        obsm={fit.use_rep: positions, f"{group}_unperturbed": alone},
        uns={f"{fit.key}_perturbation": note},
    )


def _points(share: float) -> str:
    """A change of a share of cells."""
    return f"{100 * share:+.1f} points"


def _verdict(note: dict[str, Any]) -> str:
    """What was done and what it changed at the last time, and what that means."""
    done = ", ".join(
        f"{name} {before:.3g} → {level:.3g} (R² {r2:.2f})"
        for name, before, level, r2 in zip(*(note[k] for k in ("genes", "before", "levels", "r2")), strict=True)
    )
    table = pd.DataFrame(note["effects"])
    last = table[(table["time"] == note["times"][-1]) & (table["statistic"] != "genes")]
    lines = [
        f"at {note['at']:g} {done}: a move of {note['move']:.2g} standard deviations, after which {note['inside']:.0%} "
        f"of the cells are inside the data ({note['reach']:.0%} of the move keeps them there)"
    ]
    for _, row in last.iterrows():
        what = "W1 to the cells left alone" if row["statistic"] == "distance" else f"share of {row['name']}"
        show = "{:.3g}".format if row["statistic"] == "distance" else _points
        models = "" if np.isnan(row["low"]) else f", models from {show(row['low'])} to {show(row['high'])}"
        null = f"; random genes of equal size {show(row['null_low'])} to {show(row['null_high'])}, p {row['p']:.2g}"
        lines.append(f"  at {row['time']:g}: {what} {show(row['effect'])}{models}{'' if np.isnan(row['p']) else null}")
    return "\n".join([*lines, f"  {note['meaning']}"])
