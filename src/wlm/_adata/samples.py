"""Samples: which cells belong to which animal, donor or culture, of which condition, on which days."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._adata.cells import Cells
from wlm._adata.columns import read_column
from wlm._adata.labels import show_all
from wlm._adata.reading import Reading


@dataclass(frozen=True)
class Samples:
    """Samples by ``names`` (n,), each of one of ``conditions`` (n,), and the ``cells`` they are made of.

    ``rows`` are the cells of each sample at each of its times, by sample and time; ``strata`` (n,) numbers those that
    could have had each other's condition: samples of the same times, and of the same batches where these are known.
    ``halved`` says that they are random halves of samples, which stand in where there is one of a condition.
    """

    names: NDArray[np.object_]
    conditions: NDArray[np.object_]
    strata: NDArray[np.intp]
    times: NDArray[np.float64]
    cells: Cells
    rows: dict[tuple[int, float], NDArray[np.intp]]
    halved: bool = False

    def present(self, t: float) -> NDArray[np.bool_]:
        """Which samples (n,) have cells at time ``t``."""
        return np.array([(k, t) in self.rows for k in range(len(self.names))])

    def of(self, sample: int) -> NDArray[np.intp]:
        """All cells of a sample."""
        return np.sort(np.concatenate([rows for (k, _), rows in self.rows.items() if k == sample]))

    def halves(self, seed: int) -> Samples:
        """Two random halves of each sample."""
        rng, rows = np.random.default_rng(seed), {}
        for (k, t), own in self.rows.items():
            order = rng.permutation(own)
            for half in (0, 1):
                rows[2 * k + half, t] = np.sort(order[half::2])
        names = np.array([f"{name}, half {half}" for name in self.names for half in (1, 2)], dtype=object)
        twice: dict[str, Any] = {k: np.repeat(getattr(self, k), 2) for k in ("conditions", "strata")}
        return replace(self, names=names, **twice, rows=rows, halved=True)


def read_samples(
    source: ad.AnnData, reading: Reading, sample_key: str | None, batch_key: str | None, min_cells: int
) -> tuple[Samples, list[str]]:
    """The samples of all conditions, and words on what was left out or is missing; each condition is one without a key.

    Raises
    ------
    KeyError, ValueError, TypeError
        As for :meth:`wlm._adata.reading.Reading.parts`; or if samples are missing, span conditions, or have too few
        cells; or if conditions share no time.
    """
    parts = reading.parts(source)
    if len(parts) < 2:
        raise ValueError(
            f"obs[{reading.condition_key!r}] has one condition, {next(iter(parts))!r}; two are compared: "
            "name the column that tells them apart"
        )
    cells, condition = _whole(source, parts)
    known = np.isfinite(cells.times)
    sample = condition if sample_key is None else _labels(source, sample_key, known)
    spans = pd.crosstab(sample[known], condition[known])
    several = spans.index[(spans > 0).sum(axis=1) > 1].tolist()
    if several:
        raise ValueError(
            f"{len(several)} sample(s) of obs[{sample_key!r}] span conditions ({several[:3]}, ...); a sample has one. "
            f"If donors were split, each part is a sample and the donor the batch: run adata.obs['sample'] = adata.obs"
            f"[{sample_key!r}].astype(str) + '_' + adata.obs[{reading.condition_key!r}].astype(str), and pass "
            f"sample_key='sample', batch_key={sample_key!r}"
        )
    batch = None if batch_key is None else _labels(source, batch_key, known)
    rows, notes = _rows(cells, sample, condition, list(parts), min_cells)
    names = np.array(list(dict.fromkeys(name for name, _ in rows)), dtype=object)
    number = {name: k for k, name in enumerate(names)}
    of = {name: str(condition[rows[name, t][0]]) for name, t in rows}
    numbered = {(number[name], t): own for (name, t), own in rows.items()}
    patterns = [
        tuple((t, *(() if batch is None else sorted(set(batch[own])))) for (k, t), own in numbered.items() if k == i)
        for i in range(len(names))
    ]
    notes += _missing(names, of, [tuple(t for t, *_ in pattern) for pattern in patterns], sample_key)
    strata = pd.factorize(pd.Series(patterns, dtype=object))[0]
    conditions = np.array([of[name] for name in names], dtype=object)
    return Samples(names, conditions, strata, np.unique([t for _, t in rows]), cells, numbered), notes


def _whole(source: ad.AnnData, parts: dict[str, Any]) -> tuple[Cells, NDArray[np.object_]]:
    """The cells of all conditions in the order of the object, without a time where there is no condition."""
    first = next(iter(parts.values())).cells
    n = source.n_obs
    times, x = np.full(n, np.nan), np.zeros((n, first.x.shape[1]), dtype=np.float32)
    w = None if first.w is None else np.ones(n)
    condition = np.full(n, "", dtype=object)
    for name, part in parts.items():
        times[part.rows], x[part.rows], condition[part.rows] = part.cells.times, part.cells.x, name
        if w is not None:
            w[part.rows] = part.cells.w
    observed = np.unique(times[np.isfinite(times)])
    whole = replace(
        first, names=source.obs_names, times=times, x=x, w=w, observed=observed, training=observed, v=None, strata=None
    )
    return whole, condition


def _labels(source: ad.AnnData, key: str, known: NDArray[np.bool_]) -> NDArray[np.object_]:
    """A column of labels (n_obs,) as text; refuses cells with a time and without a label."""
    column = read_column(source, key)
    absent = column.isna().to_numpy() & known
    if absent.any():
        raise ValueError(
            f"obs[{key!r}] is missing for {absent.sum()} of {len(column)} cells "
            f"({list(source.obs_names[absent][:3])}, ...); leave these cells out, or give them a label"
        )
    return column.astype(str).to_numpy(dtype=object)


def _rows(
    cells: Cells, sample: NDArray[np.object_], condition: NDArray[np.object_], wanted: list[str], min_cells: int
) -> tuple[dict[tuple[str, float], NDArray[np.intp]], list[str]]:
    """The cells of each sample at each time, without those times at which it has too few, and words on these."""
    known = np.isfinite(cells.times)
    table = pd.DataFrame({"sample": sample, "time": cells.times, "condition": condition})[known]
    rank = {name: k for k, name in enumerate(wanted)}
    groups = table.groupby(["condition", "sample", "time"], sort=True, observed=True).indices
    places = np.flatnonzero(known)
    ordered = sorted(groups.items(), key=lambda item: (rank[item[0][0]], *item[0][1:]))
    rows = {(name, float(t)): places[own] for (_, name, t), own in ordered if len(own) >= min_cells}
    few = [f"{name} at {t:g} ({len(own)})" for (_, name, t), own in ordered if len(own) < min_cells]
    if not rows:
        raise ValueError(
            f"no sample has {min_cells} cells at any time ({', '.join(few[:3])}, ...); name the column of the animals, "
            "donors or cultures with sample_key, or pass a lower min_cells"
        )
    notes = [f"fewer than {min_cells} cells, left out: {', '.join(few)}"] if few else []
    by_time = pd.DataFrame([(t, condition[own[0]]) for (_, t), own in rows.items()], columns=["time", "condition"])
    shared = by_time.groupby("time")["condition"].nunique() > 1
    if not shared.any():
        raise ValueError(
            f"conditions share no time: {by_time.groupby('condition')['time'].unique().map(list).to_dict()}; time and "
            "condition cannot be told apart"
        )
    if not shared.all():
        alone = by_time[by_time["time"].isin(shared.index[~shared])].drop_duplicates()
        text = ", ".join(f"{t:g} ({name})" for t, name in alone.itertuples(index=False))
        notes.append(f"times of one condition only, not compared: {text}")
    return rows, notes


def _missing(
    names: NDArray[np.object_], of: dict[str, str], patterns: list[tuple[float, ...]], sample_key: str | None
) -> list[str]:
    """Words on samples that were followed over several times and lack some that others of their condition have."""
    notes = []
    for name, own in zip(names, patterns, strict=True):
        others = {t for other, theirs in zip(names, patterns, strict=True) if of[other] == of[name] for t in theirs}
        absent = sorted(others - set(own))
        if sample_key is not None and absent and len(own) > 1:
            notes.append(f"sample {name} ({of[name]}) has no cells at {', '.join(show_all(absent))}")
    return notes
