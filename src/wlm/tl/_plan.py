"""Which time to sample next, how many cells, and what that gains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._adata.cells import read_rep
from wlm._adata.checks import check_integer
from wlm._adata.columns import dense
from wlm._adata.times import read_labels
from wlm._logging import logger
from wlm._random import RNG, as_seed
from wlm._store.fit import StoredFit, check_representation, open_fit
from wlm._store.glossary import explain, in_lines
from wlm._store.group import fit_key
from wlm.core.design import Contest, Disagreement, Pick, Price, contest, even_orders, given, greedy, picked, worth
from wlm.tl._courses import Cells, Checked, check, draw, frames, noise_at

#: Points into which each interval between training times is cut, unless candidates are given.
POINTS = 8
#: Samples of the courses that intervals are taken from, and courses for each observed time that is left out.
N_BOOT, N_CHECK = 100, 16


def plan(
    adata: Any,
    *,
    key: str = "wlm",
    condition: str | None = None,
    n_times: int = 1,
    n_cells: int | None = None,
    cost: float | Mapping[str, Any] | None = None,
    candidates: Any = None,
    until: Any = None,
    pace: float = 0.5,
    n_courses: int = 48,
    rng: RNG = 0,
    mod: str | None = None,
) -> pd.DataFrame:
    r"""Say which time to sample next, how many cells, and what that gains over evenly spaced times.

    The plan rests on courses of the population. Each goes through a bootstrap sample of at most 300 cells per training
    time, by turns along the models of the fit, straight lines, and smooth curves through optimal couplings, and is
    early or late within each interval. The data leave most open where the courses disagree. A sampled time settles the
    disagreement there and, as far as courses that differ there also differ elsewhere, around it. Times are picked
    greedily, each for the largest drop of the mean disagreement over the window. Nothing is trained, and ``adata`` does
    not change.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit to at least three training times: two cannot show how the motion bends.
    key
        Name ``K`` of the fit; of fits by condition, the key of one.
    condition
        Of fits by condition, which one; the same as its key.
    n_times
        Number of times to pick.
    n_cells
        Number of cells to measure at each time; by default as many as pay, see below.
    cost
        Cost of an experiment. A number is the cost of a day in cells: 500 if a day costs as much as 500 cells. Or
        ``{"day": ..., "cell": ...}`` in any currency, where the cost of a day may be a dict by time with the
        ``candidates``. Times are then picked by their gain per cost. By default nothing has a price.
    candidates
        Times that can be sampled; by default the eighths of each interval between training times.
    until
        Time, after the last training time, up to which to look ahead. There courses continue along the forecast of the
        fit, straight lines and curves, at a share of their pace. More is open farther ahead, so late times will be
        picked.
    pace
        Unevenness of the pace of a course: within each interval, at share s of the time, the course has gone the share
        :math:`s^{\exp(z)}` of its way, where z is normal with this standard deviation. With 0 only the kinds of path
        and the cells make courses disagree.
    n_courses
        Number of courses, at least 12.
    rng
        Seed, numpy Generator or SeedSequence.
    mod
        Modality of a MuData that was fitted.

    Returns
    -------
    A row for each pick, in order:

    ``time``, ``n_cells``
        When to sample, and how many cells. Without ``n_cells``, and without a price, as many as settle 90 % of the
        squared disagreement there. n cells settle :math:`n / (n + n_0)` of it, where the floor of :math:`n_0` cells,
        their distance from their own population by chance, is as large as the disagreement: below it cells pay, far
        beyond it they do not. With prices, the n that settles most per cost, :math:`\sqrt{n_0\,day / cell}`. At
        least 50, with which populations can be compared, and at most ten times the cells of the largest population.
    ``disagreement``, ``floor``
        Root mean square distance of the courses from their mean there, before the pick, and of ``n_cells`` cells from
        their population; sliced 2-Wasserstein times :math:`\sqrt d`, in ``use_rep`` units.
    ``gain``, ``share``
        The drop of the mean disagreement over the window by the pick, and that drop as a share of the present
        disagreement.
    ``even_time``, ``even_gain``
        What evenly spaced sampling would pick (the middle of the longest gap; of equally long ones the first is named),
        and what the whole even plan up to here would gain (the mean, where gaps are equally long).
    ``cost``, ``gain_per_cost``
        With ``cost``.

    ``attrs["verdict"]`` says it in words (``attrs["glossary"]`` what these mean), and whether **evenly spaced is as
    good**, that is, whether the 95 % interval of the advantage of the picks includes zero. The interval is over
    bootstrap samples of the courses, corrected for the optimism of picks that the same courses chose.
    ``attrs["advantage"]`` has it: ``value``, ``low``, ``high`` (gain per cost, if there is one). ``attrs["open"]`` has
    the disagreement over time: lists of ``time``, ``disagreement`` with its 95 % interval ``low`` and ``high`` over
    courses, ``left`` after the picks, and the ``gain`` of each candidate (NaN of times that are none).
    ``attrs["checked"]``: at inner training ``times`` left out in turn, how far the courses through the others were from
    the cells, ``found``, and their disagreement, ``expected``; the disagreement is corrected by ``scale``.
    ``attrs["observed"]`` are the training times, ``attrs["even"]`` the times of one even plan, ``attrs["time"]`` the
    column of times with its unit. :func:`wlm.pl.plan` draws it.

    Raises
    ------
    KeyError
        If there is no fit, or what it needs is missing.
    ValueError
        If the fit has two training times, or is of several conditions, or candidates were observed or cannot be
        predicted, or there are fewer of them than ``n_times``, or a cost is negative.
    TypeError
        If ``cost`` is of another kind.

    Examples
    --------
    >>> import scanpy as sc
    >>> import wlm
    >>> adata = wlm.datasets.bifurcation(n_cells=100, leave_out=[1])
    >>> sc.pp.normalize_total(adata)
    >>> sc.pp.log1p(adata)
    >>> sc.pp.pca(adata, n_comps=5)
    >>> wlm.tl.fit(adata, "day", n_steps=20, show_progress=False)
    >>> wlm.tl.plan(adata, candidates=[1.0, 2.5, 3.5])["time"].tolist()
    [1.0]
    """
    key = fit_key(adata, key, condition, mod)
    source, fit = open_fit(adata, key, mod)
    check_integer("n_times", n_times)
    check_integer("n_courses", n_courses, 12)
    check_integer("n_cells", n_cells, 2, optional=True)
    if isinstance(pace, bool) or not isinstance(pace, (int, float, np.integer, np.floating)) or not 0 <= pace <= 2:
        raise ValueError(f"pace must be a number from 0 to 2, found {pace!r}")
    if len(fit.training) < 3:
        middle = float(fit.training.mean())
        raise ValueError(
            f"uns[{key!r}] was fitted to two times, {fit.training.tolist()}, which say nothing of how the motion bends "
            f"between them; sample the middle, {middle:g}, or fit to three times at least"
        )
    seed = as_seed(rng)
    grid, asked = _grid(fit, candidates, until)
    times = np.unique(np.concatenate([grid, asked]))
    places = np.flatnonzero(np.isin(times, asked)).tolist()
    if len(places) < n_times:
        raise ValueError(f"n_times={n_times} times cannot be picked of {len(places)} candidate(s): {asked.tolist()}")
    cells = _cells(source, fit)
    price = _price(
        cost, times, asked, fit, n_cells, most=10 * int(max(len(cells.population(t)[0]) for t in cells.times))
    )
    along = frames(cells)
    checked = check(cells, N_CHECK, along, seed, pace=pace)
    courses = draw(cells, times, n_courses, along, seed, pace=pace)
    noise = noise_at(cells, times, along, seed)
    whole = Disagreement(times, checked.scale**2 * courses.covariance(), noise, _weights(times, grid))
    picks = greedy(whole, places, n_times, price)
    result, drawn = contest(
        *(whole, courses, fit.training, places, n_times, price), scale=checked.scale, n_boot=N_BOOT, seed=seed
    )
    even = even_orders(fit.training, times, places, n_times)
    table = _table(picks, whole, even, price)
    table.attrs = _attrs(fit, whole, drawn, picks, places, price, checked)
    table.attrs |= {
        "advantage": {"value": result.value, "low": result.low, "high": result.high},
        "even": [float(times[k]) for k in even[0]],
        "n_courses": len(courses),
        "seed": seed,
    }
    table.attrs["verdict"] = _verdict(table, picks, result, whole, fit, price)
    table.attrs["glossary"] = explain("plan", table.attrs["verdict"])
    logger.info("%s", in_lines("plan", table.attrs["verdict"]))
    return table


def _grid(fit: StoredFit, candidates: Any, until: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The times over which the disagreement is averaged, and those that can be sampled."""
    first, last = float(fit.training[0]), float(fit.training[-1])
    end = last
    if until is not None:
        named = read_labels(until, fit.style, "until")
        if len(named) != 1 or named[0] <= last:
            raise ValueError(f"until must be one time after the last training time, {last:g}, found {until!r}")
        end = float(named[0])
    asked = None if candidates is None else np.unique(read_labels(candidates, fit.style, "candidates"))
    if asked is not None and len(asked):
        if asked[0] < first:
            raise ValueError(
                f"candidate {asked[0]:g} is before the first training time, {first:g}: nothing leads there"
            )
        seen = asked[np.isin(asked, fit.training)]
        if len(seen):
            raise ValueError(f"candidates {seen.tolist()} were sampled: they are training times of uns[{fit.key!r}]")
        if until is not None and asked[-1] > end:
            raise ValueError(f"candidate {asked[-1]:g} is after until={end:g}")
        end = max(end, float(asked[-1]))
    knots = np.append(fit.training, end) if end > last else fit.training
    grid = np.unique(
        np.concatenate([np.linspace(a, b, POINTS + 1) for a, b in zip(knots[:-1], knots[1:], strict=True)])
    )
    return grid, grid[~np.isin(grid, fit.training)] if asked is None else asked


def _weights(times: NDArray[np.float64], grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights (k,) of the times in a mean over the window (trapezoids between the times of the ``grid``)."""
    half = np.diff(grid) / 2
    weights = np.zeros(len(times))
    weights[np.isin(times, grid)] = np.append(half, 0) + np.insert(half, 0, 0)
    return weights / weights.sum()


def _cells(source: Any, fit: StoredFit) -> Cells:
    """The cells of the training times, and the models."""
    x = read_rep(source, fit.use_rep, fit.n_dims)
    check_representation(source, fit, x)
    velocity_key = f"{fit.group}_velocity"
    if velocity_key not in source.obsm:
        raise KeyError(f"obsm[{velocity_key!r}] is missing; run wlm.tl.fit again")
    at, w = fit.times(source), fit.weights_of(source)
    gone = [t for t in fit.training if (at == t).sum() < 2]
    if gone:
        raise ValueError(f"adata has no cells of the training times {gone}, which uns[{fit.key!r}] was fitted to")
    there = np.isin(at, fit.training)
    v = dense(source.obsm[velocity_key])
    return Cells(
        times=fit.training,
        at=at[there],
        x=x[there],
        v=np.asarray(v, dtype=np.float32)[there],
        w=None if w is None else w[there],
        ensemble=fit.ensemble,
    )


def _price(
    cost: Any,
    times: NDArray[np.float64],
    asked: NDArray[np.float64],
    fit: StoredFit,
    n_cells: int | None,
    most: int,
) -> Price:
    """What sampling costs at each time."""
    day: Any = 0.0
    cell: Any = 0.0
    if isinstance(cost, Mapping):
        unknown = sorted(set(map(str, cost)) - {"day", "cell"})
        if unknown or not cost:
            raise ValueError(f"cost must name 'day', 'cell' or both, found {sorted(map(str, cost))}")
        day, cell = cost.get("day", 0.0), cost.get("cell", 0.0)
    elif cost is not None:
        day, cell = cost, 1.0
    of_times = np.zeros(len(times))
    if isinstance(day, Mapping):
        known = {float(read_labels(t, fit.style, "cost")[0]): _amount(value, "day") for t, value in day.items()}
        missing = [float(t) for t in asked if float(t) not in known]
        if missing:
            raise ValueError(
                f"cost['day'] has no entry for the candidates {missing[:5]}; name each of them, or give one number"
            )
        places = np.flatnonzero(np.isin(times, asked))
        of_times[places] = [known[float(times[k])] for k in places]
    else:
        of_times[:] = _amount(day, "day")
    per_cell = _amount(cell, "cell")
    priced = of_times[np.isin(times, asked)]
    if cost is not None and per_cell == 0 and not priced.all():
        raise ValueError("cost has days that cost nothing, and no cost of a cell; what is free needs no plan")
    return Price(of_times, per_cell, n_cells, most)


def _amount(value: Any, name: str) -> float:
    """A cost that is a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"cost must be a number, or a dict with 'day' and 'cell', found {value!r} for {name}")
    if not np.isfinite(value) or value < 0:
        raise ValueError(f"the cost of a {name} must not be negative, found {value!r}")
    return float(value)


def _table(picks: list[Pick], whole: Disagreement, even: list[tuple[int, ...]], price: Price) -> pd.DataFrame:
    """A row for each pick."""
    rows = []
    for i, pick in enumerate(picks):
        now = float(whole.mean)
        rows.append(
            {
                "time": float(whole.times[pick.k]),
                "n_cells": pick.n,
                "disagreement": float(pick.before.open[pick.k]),
                "floor": float(np.sqrt(whole.noise[pick.k] / pick.n)),
                "gain": pick.gain,
                "share": pick.gain / now if now > 0 else 0.0,
                "even_time": float(whole.times[even[0][i]]),
                "even_gain": float(np.mean([_gain(whole, order[: i + 1], price) for order in even])),
            }
        )
        if not price.free:
            rows[-1] |= {"cost": pick.cost, "gain_per_cost": pick.value}
    return pd.DataFrame(rows)


def _gain(whole: Disagreement, order: tuple[int, ...], price: Price) -> float:
    """What these times gain together."""
    return sum(pick.gain for pick in given(whole, order, price))


def _attrs(
    fit: StoredFit,
    whole: Disagreement,
    drawn: NDArray[np.float64],
    picks: list[Pick],
    places: list[int],
    price: Price,
    checked: Checked,
) -> dict[str, Any]:
    """The disagreement over time, and what it rests on."""
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    gain = np.full(len(whole.times), np.nan)
    gain[places] = [picked(whole, k, price).gain for k in places]
    columns = {
        "time": whole.times,
        "disagreement": whole.open,
        "low": np.minimum(low, whole.open),
        "high": np.maximum(high, whole.open),
        "left": picks[-1].after.open,
        "gain": gain,
    }
    return {
        "open": {name: values.tolist() for name, values in columns.items()},
        "checked": {
            "times": checked.times.tolist(),
            "found": checked.found.tolist(),
            "expected": checked.expected.tolist(),
            "scale": checked.scale,
        },
        "observed": fit.training.tolist(),
        "time": fit.time_label,
    }


def _verdict(
    table: pd.DataFrame, picks: list[Pick], result: Contest, whole: Disagreement, fit: StoredFit, price: Price
) -> str:
    """The plan in words: the comparison with even spacing first."""
    several = len(table) > 1
    named = ", ".join(f"{t:g}" for t in table["time"])
    even = ", ".join(f"{t:g}" for t in table["even_time"])
    gain, unit = sum(pick.gain for pick in picks), "" if price.free else " per cost"
    total = whole.mean
    share = gain / total if total > 0 else 0.0
    against = (
        f"{worth(picks, price):.3g}{unit} against {result.even:.3g}, 95 % of the advantage {result.low:+.2g} to "
        f"{result.high:+.2g} over courses"
    )
    head = (
        f"sample {fit.time_key} {named}: {'they gain' if several else 'it gains'} more than evenly spaced "
        f"{'times' if several else 'ones'} ({even}): {against}"
        if result.better
        else f"evenly spaced is as good: {even} (most would be gained at {named}, {against})"
    )
    cells = ", ".join(f"{n}" for n in table["n_cells"])
    lines = [
        head,
        f"{cells} cells; the mean disagreement over the window falls from {total:.3g} by {share:.0%} "
        f"(sliced W2, units of {fit.use_rep})",
    ]
    for row in table.itertuples():
        if row.disagreement < row.floor:
            lines.append(
                f"at {row.time:g} the courses differ by {row.disagreement:.2g}, less than {row.n_cells} cells differ "
                f"by chance ({row.floor:.2g}): there is little left to settle"
            )
    lines.append(
        "this is what courses through the observed cells leave open; an event that leaves no trace at the observed "
        "times is not among them"
    )
    return "\n".join(lines)
