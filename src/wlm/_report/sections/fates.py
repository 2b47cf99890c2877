"""Cell types over time, and where cells end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from wlm._adata.columns import read_obs_labels
from wlm._logging import quiet
from wlm._report.blocks import LeftOut, Table, Words
from wlm._report.figures import picture
from wlm._report.subject import Subject
from wlm._report.words import objects
from wlm._store.words import at, percent, several
from wlm.pl import composition as draw_composition
from wlm.pl import fate_probabilities
from wlm.pl import fates as draw_fates
from wlm.tl import composition as find_composition
from wlm.tl import fates as find_fates
from wlm.tl import terminal_states
from wlm.tl._terminal_states import UNDECIDED

#: Cells of which fates are found for a report, at most.
MOST_CELLS = 30_000
#: Predicted cells for each time, at most; share of cells with other labels from which a prediction is called bad.
N_CELLS, MISSED = 2000, 0.15


def composition(s: Subject) -> list[Any]:
    """Shares of the labels, predicted and observed."""
    if s.label_key is None:
        raise LeftOut(s.why["labels"], "wlm.report(..., label_key='cell_type')")
    table = find_composition(s.adata, s.label_key, **s.common, n_cells=N_CELLS, rng=s.seed)
    missed = table.attrs["missed"]
    worst = max(missed, key=missed.get)
    return [
        Words(
            f"Shares of the labels in obs['{s.label_key}']. Predicted cells have the label of their nearest observed "
            f"cells. The largest share with another label than observed is {percent(missed[worst])}, at "
            f"{at(s.fit, worst)}.",
            "good" if missed[worst] <= MISSED else "bad",
        ),
        picture(
            *(draw_composition, s.adata, s.label_key),
            **s.common,
            n_cells=N_CELLS,
            rng=s.seed,
            alt=f"Shares of the labels of {s.label_key} over time: predicted as areas, observed as bars.",
            caption="Bars: observed shares. Areas: shares between them, predicted where nothing was trained on.",
        ),
        Table(table, "composition", "Shares of the labels, predicted and observed"),
    ]


def fates(s: Subject) -> list[Any]:
    """How likely cells end in each terminal state: what is stored, or found now."""
    blocks: list[Any] = []
    if s.result("terminal") is None or s.result("fates") is None:
        made = s.writable() if len(s.x) <= MOST_CELLS else None
        if made is None and len(s.x) > MOST_CELLS:
            raise LeftOut(
                f"terminal states and fates are not stored, and of {len(s.x):,} cells they are not made in passing",
                f"wlm.tl.terminal_states({objects(s)}, label_key=...{s.call}); wlm.tl.fates({objects(s)}{s.call})",
            )
        if made is None:
            raise LeftOut(
                "terminal states and fates are not in the object, which is on disk or a MuData",
                f"wlm.tl.terminal_states({objects(s)}, label_key=...{s.call}); wlm.tl.fates({objects(s)}{s.call})",
            )
        with quiet():
            terminal_states(made.adata, label_key=s.label_key, **s.common, rng=s.seed)
            find_fates(made.adata, **s.common, rng=s.seed)
        s = made
        by = f", label_key={s.label_key!r}" if s.label_key is not None else ""
        said = f"wlm.tl.terminal_states(adata{by}{s.call}) and wlm.tl.fates(adata{s.call})"
        blocks.append(Words(f"Found for this report by {said}, with their defaults.", "note"))
    note = s.result("fates")
    if note is None:
        raise LeftOut("the fates that are stored were computed from another fit", f"wlm.tl.fates({objects(s)}{s.call})")
    names = [str(name) for name in np.ravel(note["names"])]
    rows = {name: np.asarray(note[name], dtype=float) for name in ("observed", "predicted", "decided_at")}
    table = pd.DataFrame({"fate": names} | rows)
    missed, tolerated = float(note["missed"]), float(note["tolerated"])
    early = s.fit.training[0]
    blocks += [
        Words(
            f"Cells end in {several(n for n in names if n != UNDECIDED)} at {at(s.fit, float(note['at']))}"
            f"{'; some are in none of these (undecided)' if UNDECIDED in names else ''}. Chances follow couplings of "
            "each population to the next: they are paths of the model, not lineages that were seen."
        ),
        Words(
            f"The free rollout puts {percent(missed)} of the cells into other states than observed at the last "
            "training time"
            + (
                ", within what is tolerated."
                if missed <= tolerated
                else f" (more than {percent(tolerated)} is too many)."
            ),
            "good" if missed <= tolerated else "bad",
        ),
        picture(
            *(fate_probabilities, s.adata),
            **s.common,
            basis=s.map,
            alt=f"How likely each cell ends in {several(names)}, a panel for each.",
            caption="How likely each observed cell is to end in each state.",
        ),
    ]
    if s.label_key is not None:
        blocks.append(
            picture(
                *(draw_fates, s.adata, s.label_key),
                **s.common,
                alt=f"Bands from the labels of the first time to the states they end in, by {s.label_key}.",
                caption=f"Where the cells of {at(s.fit, float(early))} end, by obs['{s.label_key}'].",
            )
        )
    blocks.append(
        Table(table, "fates", "Fates: shares observed and by free rollout, and when half is decided", rows=30)
    )
    p = np.asarray(s.target.obsm[f"{s.key}_fates"], dtype=float)[s.rows]
    blocks.append(Table(_by_label(s, p, names), "fates_by_time", "Mean chances by time and label", rows=15))
    decided = {s.fit.time_key: np.asarray(note["times"], dtype=float)}
    decided |= {name: np.asarray(note[name], dtype=float) for name in ("entropy", "decided")}
    blocks.append(
        Table(pd.DataFrame(decided), "fates_decided", "How open fates are at each time (bits, share)", rows=30)
    )
    return blocks


def _by_label(s: Subject, p: np.ndarray, names: list[str]) -> pd.DataFrame:
    """Mean probabilities (n, f) at each time, of each label where there are labels."""
    frame = pd.DataFrame(p, columns=names)
    by: list[Any] = [pd.Series(s.times, name=s.fit.time_key)]
    if s.label_key is not None:
        by.append(pd.Series(read_obs_labels(s.cells, s.label_key), name=s.label_key))
    known = np.isfinite(p[:, 0]) & np.isfinite(s.times)
    grouped = frame[known].groupby([key[known] for key in by])
    found = grouped.mean()
    found.insert(0, "cells", grouped.size())
    return found.reset_index()
