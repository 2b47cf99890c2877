"""What was given: the cells by time, and what the doctor says of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from wlm._report.blocks import Table, Words
from wlm._report.subject import Subject
from wlm._store.words import several
from wlm.pp._checks import LEVELS

#: Checks of a fit that is still to be made.
BEFORE = ("run time", "memory")


def given(s: Subject) -> list[Any]:
    """The cells, their times, and the check-up."""
    fit = s.fit
    there = np.isfinite(s.times)
    counts = [int((s.times == t).sum()) for t in fit.observed]
    role = ["trained on" if t in fit.training else "held out" for t in fit.observed]
    times = pd.DataFrame({fit.time_key: fit.observed, "cells": counts, "role": role})
    genes = f", and {s.cells.n_vars:,} genes" if s.cells.n_vars else "; the object holds no genes"
    text = (
        f"{int(there.sum()):,} cells at {len(fit.observed)} times (obs['{fit.time_key}']"
        f"{f', in {fit.unit}' if fit.unit else ''}), described by {fit.n_dims} dimensions of "
        f"obsm['{fit.use_rep}']{genes}."
    )
    if not there.all():
        text += f" {int((~there).sum()):,} more cells have no time and were left out."
    if fit.condition is not None:
        text += f" They are those whose obs['{fit.condition['key']}'] is {fit.condition['value']!r}."
    velocity = fit.uns["params"].get("velocity_key")
    text += f" Velocities were given: {velocity!r}." if velocity is not None else " No velocities were given."
    checks = s.doctor[~s.doctor["check"].isin(BEFORE)].reset_index(drop=True)
    problems = checks[checks["level"].isin(LEVELS[LEVELS.index("warning") :])]
    said = (
        Words(f"The check-up warns about {several(problems['check'])}; read the lines below.", "bad")
        if len(problems)
        else Words("The check-up found nothing that would mislead a fit.", "good")
    )
    return [
        Words(text),
        Table(times, "times", "Cells at each time", rows=50),
        said,
        Table(checks, "checkup", "The check-up of wlm.pp.doctor on these cells", rows=20),
    ]
