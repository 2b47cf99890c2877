"""Rates of growth of fits under the null: many comparisons that draw their samples from one pool of fits.

A comparison of four against four samples takes eight trainings, and 200 of them 1,600. Here each sample of a pool is
fitted once, and every comparison draws its own samples from the pool, without replacement. Comparisons then share
samples, so that they are not independent and intervals are a little too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from _report import prepare
from joblib import Parallel, delayed

from wlm._adata.reading import Reading
from wlm._adata.samples import read_samples
from wlm._logging import quiet
from wlm.core.methods import get_method
from wlm.core.permutation import labelings, p_values, statistics
from wlm.tl._features import Feature, Observed, _growth, numbers
from wlm.tl._models import prepare_all, train_model

#: Days, cells of a sample a day, dimensions, distance of the two types in standard deviations of their cells.
DAYS, N_CELLS, N_DIMS, APART = 3, 60, 3, 5.0
#: Standard deviations between samples: of the logarithm of the odds of the types, and of the means of their cells.
ODDS_SD, MEAN_SD = 0.3, 0.1
TYPES = ("A", "B")


def simulate(seed: int, n: int, rate: float, arm: str) -> ad.AnnData:
    """``n`` samples of two types of cells, of which B multiplies by ``rate`` a day faster than A."""
    x, rows = [], []
    for i in range(n):
        rng = np.random.default_rng([seed, i])
        odds = ODDS_SD * rng.normal()
        for day in range(DAYS):
            b = rng.random(N_CELLS) < 1 / (1 + np.exp(-odds - rate * day))
            mean = np.zeros(N_DIMS) + MEAN_SD * rng.normal(size=N_DIMS) + 0.3 * day * (np.arange(N_DIMS) == 1)
            x.append(mean + APART * np.outer(b - 0.5, np.arange(N_DIMS) == 0) + rng.normal(size=(N_CELLS, N_DIMS)))
            rows += [(day, arm, f"{arm}{i}", TYPES[int(cell)]) for cell in b]
    obs = pd.DataFrame(rows, columns=["day", "arm", "mouse", "type"])
    return ad.AnnData(obs=obs.set_index(obs.index.astype(str)), obsm={"X_pca": np.concatenate(x).astype(np.float32)})


def pool(adata: ad.AnnData, arguments: dict[str, Any], jobs: int) -> tuple[dict[str, list[Feature]], np.ndarray]:
    """Statistics of all samples, each fitted once, and the condition of each sample (n,).

    ``composition`` needs no fit; ``growth`` has what each type adds to the net rate of the whole, as ``tl.compare``
    with ``label_key``; ``deviation`` the standard deviation of the rates over the cells, as without.
    """
    reading = Reading(time_key="day", condition_key="arm").resolved(adata, None)
    source = reading.source(adata, None, "mouse", None, "type")
    samples, _ = read_samples(source, reading, "mouse", None, 2)
    labels, n = source.obs["type"].to_numpy(dtype=object), len(samples.names)
    rows = [samples.of(k) for k in range(n)]
    with quiet():
        config = get_method("wlm", arguments)
        parts = {str(name): samples.cells.only(own) for name, own in zip(samples.names, rows, strict=True)}
        prepared = [cells for cells, _ in prepare_all(parts, config, None, 0).values()]
    found = Parallel(n_jobs=jobs)(delayed(_rates)(cells, config) for cells in prepared)
    out: dict[str, list[Feature]] = {"growth": [], "deviation": []}
    for t in samples.times:
        ats = [cells.at(t) for cells in prepared]
        for name, kinds in (("growth", TYPES), ("deviation", ())):
            values = {
                k: _growth(found[k][at], labels[rows[k]][at] if kinds else None, kinds, None)
                for k, at in enumerate(ats)
            }
            out[name].append(numbers(name, t, values, n, kinds or [name]))
    observed = Observed(statistics=["composition"], max_cells=2, seed=0, n_jobs=1, labels=labels)
    return out | {"composition": observed.features(samples)}, samples.conditions


def _rates(cells: Any, config: Any) -> np.ndarray:
    """Net rates of the cells of one sample, by a fit to it."""
    prepare()
    with quiet():
        return np.asarray(train_model(cells, config, 0, 0, torch.device("cpu")).fields["growth"], dtype=np.float64)


def compared(features: dict[str, list[Feature]], chosen: np.ndarray) -> dict[str, float]:
    """P-values of samples ``chosen`` (2 n,), the first half against the second: at the last day, and of all days."""
    group = np.arange(len(chosen)) >= len(chosen) // 2
    groups, present = labelings(group, np.zeros(len(group), dtype=np.intp), 999, 0), np.ones(len(group), dtype=bool)
    out = {}
    for name, fs in features.items():
        values = np.concatenate([statistics(f.distances[np.ix_(chosen, chosen)][None], present, groups) for f in fs])
        out[f"{name}, last day"] = p_values(values[-1:]).item()
        out[f"{name}, together"] = p_values(values.sum(axis=0, keepdims=True)).item()
    return out


def comparisons(
    arguments: dict[str, Any], *, sizes: tuple[int, int], n_simulations: int, n: int, rates: Sequence[float], jobs: int
) -> dict[str, pd.DataFrame]:
    """P-values of comparisons of ``n`` against ``n`` samples, by law.

    The pool has ``sizes`` samples: of one law, and of each of the ``rates`` at which B is faster. Comparisons within
    one law are also made with samples of which no two comparisons share any.
    """
    parts = [simulate(0, sizes[0], 0.0, "control")]
    parts += [simulate(k, sizes[1], rate, f"B faster by {rate:g} a day") for k, rate in enumerate(rates, start=1)]
    adata = ad.concat(parts, index_unique="-")
    features, arms = pool(adata, arguments, jobs)
    control, rng = np.flatnonzero(arms == "control"), np.random.default_rng(0)
    drawn = {"one law": [rng.permutation(control)[: 2 * n] for _ in range(n_simulations)]}
    drawn["one law, no sample twice"] = list(
        rng.permutation(control)[: len(control) // (2 * n) * 2 * n].reshape(-1, 2 * n)
    )
    for arm in dict.fromkeys(arms[arms != "control"]):
        own = np.flatnonzero(arms == arm)
        drawn[arm] = [
            np.concatenate([rng.permutation(part)[:n] for part in (control, own)]) for _ in range(n_simulations)
        ]
    return {law: pd.DataFrame([compared(features, some) for some in draws]) for law, draws in drawn.items()}
