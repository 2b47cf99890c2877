"""What drives the cells: the energy and the flow, and the rates at which they multiply."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from wlm._adata.columns import read_obs_labels
from wlm._report.blocks import LeftOut, Table, Words
from wlm._report.figures import picture
from wlm._report.subject import Subject
from wlm._report.words import objects
from wlm._store.words import per_time
from wlm.pl import growth as draw_growth
from wlm.pl import potential, velocity

#: Cells in tables of cells, at most.
MOST_CELLS = 4000


def landscape(s: Subject) -> list[Any]:
    """Energy, forces and velocities in the first two dimensions."""
    if s.fit.n_dims < 2:
        raise LeftOut("the cells have one dimension, and a landscape is drawn in two")
    column = f"{s.fit.group}_potential"
    if column not in s.target.obs:
        raise LeftOut(f"obs['{column}'] was removed", f"wlm.tl.fit({objects(s)}, {s.fit.time_key!r})")
    energy = s.target.obs[column].to_numpy(dtype=float)[s.rows]
    return [
        Words(
            "The energy that the dynamics follow, and where cells are going. Each cell's energy is that in the "
            "population of its own time, up to a constant: what counts are differences between places, not the values. "
            "It says what the model needs to explain the motion; no molecule was measured by it."
        ),
        picture(
            *(potential, s.adata),
            **s.common,
            alt="The energy as a map over the first two dimensions, with arrows along the force.",
            caption="Energy, averaged over nearby cells, and arrows along the force on them.",
        ),
        picture(
            *(velocity, s.adata),
            **s.common,
            alt="Streamlines of the velocity of cells over the first two dimensions.",
            caption="Where cells are going at their own time.",
        ),
        Table(_by_time(s, energy, "energy"), "energy_by_time", "Energy of the cells by time"),
        Table(_cells(s, {"energy": energy}), "cells", "Energy and velocity of cells", rows=0, needed=False),
    ]


def _by_time(s: Subject, values: np.ndarray, name: str) -> pd.DataFrame:
    """Mean and standard deviation of numbers of cells at each time, and of each label."""
    frame = pd.DataFrame({s.fit.time_key: s.times, name: values})
    by = [s.fit.time_key]
    if s.label_key is not None:
        frame[s.label_key] = read_obs_labels(s.cells, s.label_key)
        by.append(s.label_key)
    frame = frame[np.isfinite(values) & np.isfinite(s.times)]
    found = frame.groupby(by, observed=True)[name].agg(["size", "mean", "std"]).reset_index()
    return found.rename(columns={"size": "cells", "mean": f"mean {name}", "std": f"sd {name}"})


def _cells(s: Subject, columns: dict[str, np.ndarray]) -> pd.DataFrame:
    """A row for some of the cells: name, time, the first two dimensions, and what is known of them."""
    some = np.sort(np.random.default_rng(0).permutation(len(s.x))[:MOST_CELLS])
    frame = {"cell": s.cells.obs_names.astype(str)[some], s.fit.time_key: s.times[some]}
    frame |= {f"{s.fit.use_rep} {k + 1}": s.x[some, k] for k in range(2)}
    v = f"{s.fit.group}_velocity"
    if v in s.target.obsm:
        moving = np.asarray(s.target.obsm[v])[s.rows][some]
        frame |= {f"velocity {k + 1}": moving[:, k] for k in range(2)}
    return pd.DataFrame(frame | {name: values[some] for name, values in columns.items()})


def growth(s: Subject) -> list[Any]:
    """Net rates of the cells."""
    note = s.fit.uns.get("growth")
    if note is None:
        raise LeftOut(
            "this fit conserves cells: where proportions change, it moves cells, and does not ask whether they divide "
            "or die",
            f"wlm.tl.fit({objects(s)}, {s.fit.time_key!r}, growth=True)",
        )
    column = f"{s.fit.group}_growth"
    if column not in s.target.obs:
        raise LeftOut(f"obs['{column}'] was removed", f"wlm.tl.fit({objects(s)}, {s.fit.time_key!r}, growth=True)")
    rates = s.target.obs[column].to_numpy(dtype=float)[s.rows]
    words = str(note["words"])
    share = pd.DataFrame(
        {s.fit.time_key: np.asarray(note["times"], dtype=float), "worth of the rollout": np.asarray(note["ess"])}
    )
    unit = f"1/{per_time(s.fit)}"
    return [
        Words(f"{words[:1].upper()}{words[1:]}."),
        Words(
            "Rates are relative: a cell at 0 multiplies as the mean of its time does."
            if bool(note["relative"])
            else "Rates are absolute: a cell at 0 neither multiplies nor dies.",
            "note",
        ),
        picture(
            *(draw_growth, s.adata),
            **s.common,
            basis=s.map,
            alt="Net growth rate of the cells on an embedding.",
            caption=f"Net growth rate of each cell ({unit}).",
        ),
        Table(_by_time(s, rates, f"rate ({unit})"), "growth_rates", "Net rates by time"),
        Table(share, "growth_worth", "How many equal cells the rollout is worth, as a share of its cells", rows=30),
    ]
