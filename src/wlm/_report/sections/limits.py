"""What the numbers rest on, and what they do not say."""

from __future__ import annotations

from typing import Any

import numpy as np

from wlm._adata.components import LOADINGS
from wlm._report.blocks import Listing, Words
from wlm._report.subject import Subject
from wlm._store.words import at, meets, per_time
from wlm.pp._checks import LEVELS


def limits(s: Subject) -> list[Any]:
    """Assumptions and doubts of this fit, in plain words."""
    return [
        Words("Read these before you rely on a number of this report."),
        Listing([*_of_all(s), *_of_this_fit(s)]),
    ]


def _of_all(s: Subject) -> list[str]:
    """What holds for every fit of this kind."""
    fit = s.fit
    points = [
        "No cell was followed. Each measurement destroys its cells, so paths are those of the model: populations can "
        "be right at every time where the paths between them are not. Only lineage tracing or a perturbation decides.",
        f"Distances are those in {fit.n_dims} dimensions of obsm['{fit.use_rep}']. What these do not hold, such as "
        "rare programmes of few genes, the fit has not seen.",
        "The samples stand for the population: if one time point lost a cell type in dissociation, the fit explains "
        "that by motion.",
    ]
    if fit.dynamics.grows:
        relative = bool(fit.uns.get("growth", {}).get("relative", True))
        points.append(
            "Growth is relative: a type that becomes more common may divide faster or die less, and motion can explain "
            "a part of it; proportions alone do not tell these apart."
            if relative
            else "Growth rests on the totals that were given for each time."
        )
    else:
        points.append(
            "Cells are conserved (balanced transport): if cells divide or die at different rates, that appears as "
            "motion from one type to another. Compare with a fit with growth=True."
        )
    if fit.use_rep in LOADINGS:
        points.append("Genes are decoded linearly from the components; R² of each gene says how much of it they hold.")
    return points


def _of_this_fit(s: Subject) -> list[str]:
    """What is to be said of this one."""
    fit, points = s.fit, []
    tone, text = meets(fit)
    if tone == "bad":
        points.append(text)
    held = [t for t in fit.observed if t not in fit.training]
    if held and fit.use_rep in LOADINGS:
        points.append(
            "The components were computed with the held-out cells too, unless you took these out before the PCA."
        )
    if not held and "evaluate" not in s.tables:
        points.append("No time was held out and no scores were given: nothing here shows that predictions hold.")
    if len(fit.training) < 3:
        points.append("Two training times fix a change, not a law: any curve between them fits equally well.")
    gaps = np.diff(fit.training)
    if len(gaps) > 1 and gaps.max() > 3 * np.median(gaps):
        k = int(np.argmax(gaps))
        points.append(
            f"Between {at(fit, fit.training[k])} and {fit.training[k + 1]:g} there are {gaps[k]:g} {per_time(fit)}s "
            "without data, much longer than the other intervals: what happens there is the least certain."
        )
    if not fit.others:
        points.append(
            f"One model, one seed ({fit.seed}): another seed gives other numbers, and this report shows no spread. "
            "An ensemble does: wlm.tl.fit(..., n_models=5)."
        )
    if "stopped" in fit.uns["params"]:
        points.append(f"Training was interrupted after {fit.uns['params']['stopped']} steps.")
    note = fit.uns.get("forecast")
    if note is not None and float(note["share"]) == 0:
        points.append("For forecasts, nothing was better than a copy of the last cells: do not forecast with this fit.")
    checks = s.doctor[s.doctor["level"].isin(LEVELS[LEVELS.index("warning") :])]
    points += [
        f"{row.check}: {row.found}{f' ({row.advice})' if row.advice else ''}."
        for row in checks.itertuples()
        if row.check in ("batch", "spacing", "cells per time", "shift", "duplicates", "representation")
    ]
    return points
