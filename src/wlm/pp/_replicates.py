"""Replicates, for :func:`wlm.pp.doctor`: how far they are apart at one time, and what a correction would erase."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm.core.transport import nearest
from wlm.pp._checks import Finding, batch_columns, worst

#: Fewest cells of a level at a time that is compared, and most.
LEAST, MOST = 10, 300
#: Shares of the squared distance between times above which replicates are noted, and warned about.
NOTED, WARNED = 0.1, 0.5
#: Overlap (1 where levels are mixed) below which it is noted.
APART = 0.8


def check_replicates(obs: pd.DataFrame, x: NDArray[np.float32], times: NDArray[np.float64]) -> Finding:
    """Whether levels of a batch lie on top of each other where a time has several."""
    found = [_check(column, obs[column], x, times) for column in batch_columns(obs)]
    told = [finding for finding in found if finding is not None]
    if not told:
        return Finding("ok", f"no time has two levels of a batch with {LEAST} cells each")
    return worst(told)


def _check(column: str, values: pd.Series, x: NDArray[np.float32], times: NDArray[np.float64]) -> Finding | None:
    known = np.isfinite(times) & values.notna().to_numpy()
    cells, times, codes = x[known].astype(np.float64), times[known], pd.factorize(values[known])[0]
    share, overlap = batch_share(cells, times, codes), mixing(cells, times, codes)
    if np.isnan(share):
        return None
    lost = erased(cells, times, codes)
    name = f"obs[{column!r}]"
    words = (
        f"levels of {name} at one time are apart by {share:.0%} of the squared distance between consecutive times, "
        f"their cells mix to {overlap:.0%} of what chance would mix; a correction would erase {lost:.0%} of the change "
        "in time"
    )
    if share <= NOTED and overlap >= APART:
        return Finding("ok", words)
    advice = "take what is no larger than the distance between replicates for a batch effect"
    if lost > WARNED:
        advice += ", and do not correct for it: most of the change in time would go"
    else:
        advice += ", or integrate over the levels and pass the result as use_rep"
    return Finding("warning" if share > WARNED else "note", words, advice)


def batch_share(x: NDArray[np.float64], times: NDArray[np.float64], codes: NDArray[np.intp]) -> float:
    """Squared distance between the means of two levels at one time over that of two consecutive times.

    Averages over pairs and times, less what samples of these sizes differ by chance; NaN where no time has two levels.
    At most 1: levels that are farther apart than times.
    """
    within, between = [], []
    observed = np.unique(times)
    for t in observed:
        here = times == t
        levels = [x[here & (codes == b)] for b in np.unique(codes[here])]
        levels = [part for part in levels if len(part) >= LEAST]
        within += [_apart(a, b) for i, a in enumerate(levels) for b in levels[:i]]
    if not within or len(observed) < 2:
        return float("nan")
    for t, u in zip(observed[:-1], observed[1:], strict=True):
        between.append(_apart(x[times == t], x[times == u]))
    batch, day = max(float(np.mean(within)), 0.0), max(float(np.mean(between)), 0.0)
    return min(batch / day, 1.0) if day > 0 else float(batch > 0)


def _apart(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Squared distance of the means of ``a`` (n, d) and ``b`` (m, d), less its mean by chance."""
    chance = sum(float(part.var(axis=0, ddof=1).sum()) / len(part) if len(part) > 1 else 0.0 for part in (a, b))
    return float(np.square(a.mean(axis=0) - b.mean(axis=0)).sum()) - chance


def mixing(x: NDArray[np.float64], times: NDArray[np.float64], codes: NDArray[np.intp]) -> float:
    """How often the nearest cell of the same time is of another level, over what chance would give; 0 to 1.

    Of times with two levels at least, at most ``MOST`` cells of each level; NaN where there is none.
    """
    rng, other, expected = np.random.default_rng(0), 0.0, 0.0
    for t in np.unique(times):
        rows = [
            rng.permutation(i)[:MOST] for b in np.unique(codes) if len(i := np.flatnonzero((times == t) & (codes == b)))
        ]
        rows = [i for i in rows if len(i) >= LEAST]
        if len(rows) < 2:
            continue
        i = np.concatenate(rows)
        near = nearest(x[i], x[i], 2)[1]
        own = np.arange(len(i))
        first = np.where(near[:, 0] == own, near[:, 1], near[:, 0])
        other += float((codes[i][first] != codes[i]).sum())
        expected += sum(len(part) * (len(i) - len(part)) / (len(i) - 1) for part in rows)
    return min(other / expected, 1.0) if expected else float("nan")


def erased(x: NDArray[np.float64], times: NDArray[np.float64], codes: NDArray[np.intp]) -> float:
    """Share of the squared change of the mean over time that goes if each level is moved to the mean of all.

    1 where each level is of one time, 0 where all times have the same shares of the levels.
    """
    centre = x.mean(axis=0)
    levels = np.stack([x[codes == b].mean(axis=0) - centre for b in range(codes.max() + 1)])
    before, after = 0.0, 0.0
    for t in np.unique(times):
        here = times == t
        mean = x[here].mean(axis=0) - centre
        moved = mean - np.bincount(codes[here], minlength=len(levels)) / here.sum() @ levels
        before += here.sum() * float(np.square(mean).sum())
        after += here.sum() * float(np.square(moved).sum())
    return float(np.clip(1 - after / before, 0, 1)) if before > 0 else 0.0
