"""Comparing conditions over samples: what differs, when, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._adata.checks import check_integer
from wlm._adata.columns import read_column
from wlm._adata.components import LOADINGS
from wlm._adata.expression import read_rows
from wlm._adata.genes import get_matrix
from wlm._adata.reading import Reading
from wlm._adata.samples import Samples, read_samples
from wlm._adata.times import read_labels, with_unit
from wlm._logging import logger
from wlm._random import RNG, as_seed
from wlm._store.glossary import explain, in_lines
from wlm.core.devices import get_device
from wlm.core.methods import Method, get_method
from wlm.pp._checks import batch_columns
from wlm.tl._differences import differences, verdict
from wlm.tl._features import Fitted, Observed


def compare(
    adata: ad.AnnData,
    time_key: str,
    condition_key: str,
    *,
    sample_key: str | None = None,
    batch_key: str | None = None,
    reference: str | None = None,
    label_key: str | None = None,
    genes: Sequence[str] = (),
    layer: str | None = None,
    method: str | Method[Any, Any] | None = None,
    times: Any = None,
    use_rep: str | None = None,
    n_dims: int | None = None,
    weight_key: str | None = None,
    nan: str = "raise",
    alpha: float = 0.05,
    n_perm: int = 9999,
    max_cells: int = 500,
    min_cells: int = 10,
    n_jobs: int = 1,
    rng: RNG = 0,
    mod: str | None = None,
    device: str = "auto",
    show_progress: bool | None = None,
    **method_options: Any,
) -> pd.DataFrame:
    r"""Say what differs between conditions, on which days, and how sure that is, over samples.

    The unit is the sample. P-values come from exchanging conditions between samples, never from shuffling cells, which
    finds a difference between any two animals. Nothing is trained unless you give a ``method``, and ``adata`` does not
    change.

    Every statistic is a distance between samples at a time; conditions differ where samples of different conditions are
    farther apart than samples of the same (pseudo-F, Anderson, Austral Ecology 26, 2001). The test makes all
    relabelings if there are at most ``n_perm``. Samples change places only with samples of the same times and, with
    ``batch_key``, of the same batch. If a donor was split, the donor is the batch: this is the paired test.

    Parameters
    ----------
    adata, time_key, use_rep, n_dims, weight_key, nan, mod
        As for :func:`wlm.tl.fit`. Every condition needs at least two times.
    condition_key
        Column of ``obs`` with the conditions.
    sample_key
        Column of ``obs`` with the animals, donors or cultures; each belongs to one condition. Without it, or with fewer
        than two samples a side, the table has effect sizes but no p-values.
    batch_key
        Column of ``obs`` with batches, within which samples are exchanged.
    reference
        Condition to compare the others with; by default the first.
    label_key
        Column of ``obs`` with labels, such as cell types, whose shares are compared.
    genes
        Names of genes whose means are compared, read from ``layer`` (``X`` by default).
    layer
        Key of ``layers`` with their values.
    method, **method_options
        Also fit each sample by this method, with the same options and seed, and compare speeds, kinetic energies,
        landscapes and predicted populations, and with ``growth=True`` rates of growth. Every sample needs two times.
    times
        Times, after the first, at which to compare predicted populations; only with ``method``.
    alpha
        Level of the verdict.
    n_perm
        Largest number of relabelings; if more are possible, this many random ones.
    max_cells
        Largest number of cells of a sample for a W1; all samples of a time give the same number.
    min_cells
        A sample with fewer cells at a time is left out there.
    n_jobs
        Number of distances and fits to compute at the same time, through joblib.
    rng
        Seed, numpy Generator or SeedSequence.
    device
        Where fits run, as for :func:`wlm.tl.fit`.
    show_progress
        Whether to show a bar for the fits, with the time left; by default if ``wlm.settings.verbosity`` is 2 or more.

    Returns
    -------
    A row for each condition other than the reference, statistic, name and time:

    ``condition``, ``reference``, ``statistic``, ``name``, ``time``
        ``statistic`` is ``"distance"`` (W1 between observed populations, in units of ``use_rep``), ``"mean"`` (of the
        components), with ``label_key`` ``"composition"``, with ``genes`` ``"genes"``, with ``method`` ``"speed"``
        (``use_rep`` units per time unit), ``"kinetic"`` (mean of half the squared speed) and ``"energy"`` (root mean
        square difference between the energies that two fits give to the same cells, some of each sample, over which
        each has mean zero, as fits have no common zero; see :func:`wlm.tl.energy_difference`), of a method with
        ``growth=True`` ``"growth"``, and with ``times`` ``"predicted"``. Growth is, with ``label_key``, what each label
        adds to the net rate of the whole, its share times the mean rate of its cells; without, the standard deviation
        of the rates over the cells. ``name`` is empty for the statistic as a
        whole, else a component, label or gene. ``time`` is NaN for all times together.
    ``n_condition``, ``n_reference``
        Samples a side.
    ``value``, ``reference_value``, ``effect``
        Of a statistic as a whole: the mean distance between samples of different conditions, that between samples of
        the same condition, and their difference, which is 0 on average where conditions do not differ (shares: half the
        sum of absolute differences). With a name: the mean over samples of the condition, of the reference, and their
        difference. For all times together, means over times.
    ``low``, ``high``
        95 % interval of the effect, from leaving out samples (jackknife; of a difference of means, Welch's interval).
    ``p``, ``p_adj``
        Of the permutation test of the row alone, and adjusted for all times and statistics (step-down maxT, Westfall
        and Young 1993), and for the number of comparisons with the reference (Bonferroni). Rows with a name are
        adjusted for all times and names of their statistic, and never below the statistic at this time. Rows of all
        times together answer one question, whether there is any difference, and are adjusted for statistics.
    ``smallest_p``
        The smallest p-value that the samples of the row allow: three against three 0.1, four against four 0.029. More
        cells do not lower it.

    ``attrs["verdict"]`` says it in words, with what confounds it first; ``attrs["first"]`` is the first time at which
    the observed cells of each condition differ (NaN: none was found); ``attrs["notes"]`` lists what is missing or
    confounded; ``attrs["glossary"]`` says what the words of the verdict mean; ``attrs["time"]`` is the column of times
    with its unit. :func:`wlm.pl.comparison` draws the table.

    Raises
    ------
    KeyError, ValueError, TypeError
        If something is missing, a condition has one time, samples span conditions, or conditions share no time.

    Examples
    --------
    >>> import numpy as np
    >>> import anndata as ad
    >>> import pandas as pd
    >>> import wlm
    >>> rng = np.random.default_rng(0)
    >>> obs = pd.DataFrame({"day": np.tile(np.repeat([0, 1], 20), 8), "mouse": np.repeat(list("abcdefgh"), 40)})
    >>> obs["arm"] = np.where(obs["mouse"] < "e", "control", "drug")
    >>> x = rng.normal(size=(320, 2)) + 3.0 * ((obs["arm"] == "drug") & (obs["day"] == 1)).to_numpy()[:, None]
    >>> adata = ad.AnnData(obs=obs.set_index(obs.index.astype(str)), obsm={"X_pca": x})
    >>> table = wlm.tl.compare(adata, "day", "arm", sample_key="mouse")
    >>> table.attrs["first"]
    {'drug': 1.0}
    """
    _check(alpha=alpha, n_perm=n_perm, max_cells=max_cells, min_cells=min_cells)
    config = None if method is None else get_method(method, method_options)
    if config is None and (method_options or times is not None):
        given = [*method_options, *([] if times is None else ["times"])]
        raise TypeError(f"{given} are for fits; name a method as well, such as method='flow'")
    where, seed = get_device(device), as_seed(rng)
    reading = Reading(
        time_key=time_key,
        use_rep=use_rep,
        n_dims=n_dims,
        weight_key=weight_key,
        condition_key=condition_key,
        nan=nan,
    ).resolved(adata, mod)
    source = reading.source(adata, mod, sample_key, batch_key, label_key)
    samples, notes = read_samples(source, reading, sample_key, batch_key, min_cells)
    names = list(dict.fromkeys(samples.conditions))
    if reference is not None and reference not in names:
        raise ValueError(f"reference {reference!r} is not a condition of obs[{condition_key!r}], which has {names}")
    if config is not None:
        config.check(has_velocity=False)
    expression = None if len(genes) == 0 else _expression(source, genes, layer)
    notes = _confounded(samples, source, [time_key, condition_key, sample_key, label_key], batch_key) + notes
    for note in notes:
        logger.warning("wlm.tl.compare: %s", note)
    observed = Observed(
        statistics=["distance", "mean", *["composition"] * (label_key is not None), *["genes"] * (len(genes) > 0)],
        max_cells=max_cells,
        seed=seed,
        n_jobs=n_jobs,
        labels=None if label_key is None else read_column(source, label_key).astype(str).to_numpy(dtype=object),
        genes=expression,
        gene_names=list(genes),
        components="PC" if reading.use_rep in LOADINGS else f"{reading.use_rep} ",
    )
    fitted = None
    if config is not None:
        wanted = np.empty(0) if times is None else _wanted(times, samples)
        fitted = Fitted(
            config=config,
            where=where,
            wanted=wanted,
            max_cells=max_cells,
            seed=seed,
            n_jobs=n_jobs,
            labels=observed.labels,
            show_progress=show_progress,
        )
    if max(samples.conditions.tolist().count(name) for name in names) < 2:
        samples = samples.halves(seed)  # so that there is something that one sample against one can be compared with
    features = observed.features(samples) + ([] if fitted is None else fitted.features(samples))
    table = differences(features, samples, names[0] if reference is None else reference, n_perm, seed)
    table.attrs |= {"time": with_unit(time_key, samples.cells.unit), "notes": notes, "alpha": alpha}
    table.attrs |= verdict(table, alpha, notes)
    table.attrs["glossary"] = explain("compare", table.attrs["verdict"])
    logger.info("%s", in_lines("compare", table.attrs["verdict"]))
    return table


def _check(**numbers: Any) -> None:
    """Refuse numbers that ask for nothing."""
    alpha = numbers.pop("alpha")
    if not isinstance(alpha, (float, np.floating)) or not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, found {alpha!r}")
    for name, value in numbers.items():
        check_integer(name, value, 2 if name in ("max_cells", "min_cells") else 19)


def _wanted(times: Any, samples: Samples) -> NDArray[np.float64]:
    """The times at which populations are predicted, after the first."""
    wanted = read_labels(times, samples.cells.style)
    early = wanted[wanted <= samples.times[0]]
    if len(early):
        raise ValueError(f"cannot predict {early[0]:g}: predictions start from the first time, {samples.times[0]:g}")
    return np.sort(wanted)


def _expression(adata: ad.AnnData, genes: Sequence[str], layer: str | None) -> NDArray[np.float64]:
    """Values (n_obs, m) of the genes."""
    if isinstance(genes, str):
        raise TypeError(f"genes must be a list of names, found {genes!r}; write [{genes!r}]")
    names = adata.var_names.astype(str)
    missing = [gene for gene in genes if gene not in names]
    if missing:
        raise KeyError(f"genes {missing[:5]} are not in var_names")
    matrix = get_matrix(adata, "X" if layer is None else layer)
    if matrix is None:
        raise KeyError(f"{'X' if layer is None else f'layers[{layer!r}]'} is missing, where genes were to be read")
    return read_rows(matrix[:, names.get_indexer(list(genes))], slice(None))


def _confounded(samples: Samples, source: ad.AnnData, used: Sequence[str | None], batch_key: str | None) -> list[str]:
    """Words on batches that cannot be told from conditions or times."""
    obs, known = source.obs, np.isfinite(samples.cells.times)
    columns = batch_columns(obs) if batch_key is None else [batch_key]
    condition = np.full(source.n_obs, "", dtype=object)
    for (k, _), rows in samples.rows.items():
        condition[rows] = samples.conditions[k]
    there, notes = known & (condition != ""), []
    for column in columns:
        batch = obs[column].astype(str).to_numpy()[there]
        n = len(np.unique(batch))
        if column in used or not 2 <= n < len(samples.names):  # the samples themselves are no batches
            continue
        by_condition, by_time = (
            (pd.crosstab(batch, values) > 0).sum(axis=1).max() == 1
            for values in (condition[there], samples.cells.times[there])
        )
        if by_condition:
            notes.append(
                f"CONFOUNDED: each of the {n} batches of obs[{column!r}] has one condition only; a difference between "
                "conditions may be one between batches, and nothing in these data can tell"
            )
        if by_time:
            notes.append(
                f"each of the {n} batches of obs[{column!r}] has one time only: conditions are compared within times, "
                "but a change in time may be one of batches"
            )
    return notes
