"""Times that nobody sampled, or that were held out: what the fit predicts there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from wlm._report.blocks import LeftOut, Picture, Table, Words
from wlm._report.figures import picture
from wlm._report.film import film
from wlm._report.subject import Subject
from wlm._report.words import most
from wlm._store.words import at, number, several
from wlm.pl import rollout
from wlm.tl import predict
from wlm.tl._scores import Population, halves, naive, population_at, score

#: Most times between training times that are predicted, most panels of a figure, most cells scored a side.
BETWEEN, PANELS, SCORED = 4, 10, 1000
#: Cells predicted for each time, at most.
N_CELLS = 2000


def missing(s: Subject) -> list[Any]:
    """Predictions of held-out times and of the middles of the longest intervals, as numbers and as a film."""
    fit = s.fit
    held, between = held_out(s), _between(s)
    wanted = np.unique([*held, *between])
    blocks: list[Any] = []
    if len(held):
        table = held_scores(s, held)
        blocks += [*_held_words(s, table), Table(table, "held_out_scores", "Held-out times, scored", rows=40)]
    if len(between):
        blocks.append(
            Words(
                f"Nobody sampled {several(at(fit, t) for t in between)}, the middle of the longest intervals between "
                "training times: what the fit predicts there cannot be checked against these cells. Other times: "
                "wlm.tl.predict."
            )
        )
    if fit.n_dims > 1:
        blocks += [film(s), _rollout(s, wanted)]
    if len(wanted):
        blocks.append(Table(_moments(s, wanted), "predicted_times", "Predicted cells at times without training data"))
    return blocks


def _rollout(s: Subject, wanted: np.ndarray) -> Picture:
    """Observed and predicted populations at all times that are there and those that are wanted."""
    fit = s.fit
    shown = np.unique([*fit.observed[fit.observed > fit.training[0]], *wanted])
    return picture(
        *(rollout, s.adata),
        **s.common,
        times=shown if len(shown) <= PANELS else None,
        rng=s.seed,
        alt="A panel for each time: observed cells in grey, predicted ones in blue, and paths in the last panel.",
        caption="Each panel starts from the observed cells of the training time before: predicted and observed cells "
        "should overlap. Paths in the last panel run freely from the first time.",
    )


def held_out(s: Subject) -> np.ndarray:
    """Observed times after the first training time that the fit has not seen."""
    return np.array([t for t in s.fit.observed if t not in s.fit.training and t > s.fit.training[0]])


def _between(s: Subject) -> np.ndarray:
    """The middles of the longest intervals between training times in which nothing was observed."""
    training, observed = s.fit.training, s.fit.observed
    gaps = [
        (b - a, (a + b) / 2)
        for a, b in zip(training[:-1], training[1:], strict=True)
        if not ((observed > a) & (observed < b)).any()
    ]
    longest = sorted(gaps, key=lambda gap: (-gap[0], gap[1]))[:BETWEEN]
    return np.sort([middle for _, middle in longest])


def held_scores(s: Subject, held: np.ndarray) -> pd.DataFrame:
    """W1 to the held-out cells of the prediction and of answers that need no model; see :func:`wlm.tl.evaluate`."""
    fit = s.fit
    unused: dict[str, Any] = dict.fromkeys(("velocity_key", "velocity_scale", "growth_key", "totals", "strata_key"))
    reading = replace(fit.reading, clone_key=None, **unused)
    cells = reading.parts(s.cells)[""].cells
    predicted = predict(s.adata, list(held), **s.common, n_cells=most(s, SCORED), rng=s.seed)
    there = predicted.obs[fit.time_key].to_numpy(dtype=float)
    weights = predicted.obs.get(f"{fit.key}_weight")
    rows = []
    for t in held:
        own = cells.without(np.setdiff1d(held, [t]))
        observed = population_at(own, t, None).capped(SCORED)
        here = np.isclose(there, t)
        model = Population(
            np.asarray(predicted.obsm[fit.use_rep])[here],
            None if weights is None else weights.to_numpy(dtype=float)[here],
        )
        rows.append(score(t, f"this fit ({fit.dynamics.method.name})", fit.seed, model, observed, ["w1"]))
        for name, population in naive(own, None, float(t), s.seed).items():
            rows.append(score(t, name, s.seed, population.capped(SCORED), observed, ["w1"]))
        rows.append(score(t, "floor", s.seed, *halves(observed, s.seed), ["w1"]))
    table = pd.DataFrame(rows).drop(columns="seed").rename(columns={"time": fit.time_key})
    return table


def _held_words(s: Subject, table: pd.DataFrame) -> list[Any]:
    """A sentence for each held-out time: the fit beside the best answer that needs no model."""
    blocks = []
    for t, part in table.groupby(s.fit.time_key, sort=False):
        scores = part.set_index("model")["w1"]
        own = float(scores.iloc[0])
        others = scores.iloc[1:].drop("floor")
        best, least = str(others.idxmin()), float(others.min())
        word, tone = ("nearer", "good") if own < least else ("no nearer", "bad")
        blocks.append(
            Words(
                f"At {at(s.fit, float(t))}, held out, the prediction is {word} to the cells than the best answer that "
                f"needs no model: W1 {number(own)} against {number(least)} ({best}); two halves of the true cells are "
                f"{number(float(scores['floor']))} apart (fewer cells, so a little farther). One seed, without an "
                "interval: wlm.tl.evaluate gives one.",
                tone,
            )
        )
    return blocks


def _moments(s: Subject, wanted: np.ndarray) -> pd.DataFrame:
    """Number, share outside the data, and mean and standard deviation of the predicted cells in each dimension."""
    fit = s.fit
    predicted = predict(s.adata, list(wanted), **s.common, n_cells=most(s, N_CELLS), rng=s.seed)
    there = predicted.obs[fit.time_key].to_numpy(dtype=float)
    outside = predicted.obs[f"{fit.key}_outside"].to_numpy(dtype=float)
    weights = predicted.obs.get(f"{fit.key}_weight")
    x = np.asarray(predicted.obsm[fit.use_rep], dtype=float)
    rows = []
    for t in wanted:
        here = np.isclose(there, t)
        w = np.ones(int(here.sum())) if weights is None else weights.to_numpy(dtype=float)[here]
        mean = np.average(x[here], axis=0, weights=w)
        sd = np.sqrt(np.average((x[here] - mean) ** 2, axis=0, weights=w))
        row = {fit.time_key: t, "observed": "held out" if t in fit.observed else "no", "cells": int(here.sum())}
        row["outside the data"] = float(np.average(outside[here], weights=w))
        for k in range(fit.n_dims):
            row |= {f"mean {k + 1}": mean[k], f"sd {k + 1}": sd[k]}
        rows.append(row)
    return pd.DataFrame(rows)


def on_map(s: Subject) -> list[Any]:
    """The same populations on the embedding made for drawing, in the colours of their labels."""
    if s.map is None:
        raise LeftOut(s.why["map"], "sc.pp.neighbors(adata); sc.tl.umap(adata)")
    colours = f", in the colours of obs['{s.label_key}']" if s.label_key is not None else ""
    return [
        Words(
            f"Populations on obsm['{s.map}']{colours}. Predicted cells are placed by their nearest observed cells: the "
            "map shows which cells they resemble, not how far they are from them.",
        ),
        picture(
            *(rollout, s.adata),
            **s.common,
            basis=s.map,
            color=s.label_key,
            rng=s.seed,
            alt=f"A panel for each time on {s.map}: observed and predicted cells{colours}.",
            caption=f"Observed and predicted populations on {s.map}{colours}.",
        ),
    ]
