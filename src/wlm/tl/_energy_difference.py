"""How the energy landscapes of two fits differ, in one gauge."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._adata.times import read_labels
from wlm._logging import logger
from wlm.core.dynamics import Dynamics
from wlm.tl._links import Observed


def energy_difference(
    adata: Any, *, key: str, reference: str, times: Any = None, mod: str | None = None
) -> pd.DataFrame:
    r"""Subtract the energy of one fit from that of another, at the cells of both.

    An energy is known only up to a constant, and the energy of a population depends on its cells. Both fits are
    therefore evaluated on the same population, the observed cells of both at a time, where each side counts half. From
    each energy its mean over that population is subtracted. The difference shows the hills and valleys that one
    landscape has and the other lacks.

    Parameters
    ----------
    adata
        An AnnData or MuData with both fits, for example those of two conditions, which ``fit(..., condition_key=)``
        names ``"K_<condition>"``. Both must have the same method, representation and time column.
    key, reference
        Names of the fits: the energy of ``key`` minus that of ``reference``.
    times
        Times at which to compare, in the format of the time column; by default all times that both fits were trained
        on.
    mod
        Modality of a MuData.

    Returns
    -------
    A row for each observed cell of these times, with its name as index:

    ``time``
        Its time.
    ``energy``, ``reference_energy``
        In the gauge, float64: of length\ :sup:`2` / time\ :sup:`2`, or length\ :sup:`2` / time for methods of first
        order.
    ``difference``
        ``energy - reference_energy``. Cells roll away from where it is high under the one fit and not under the other.

    ``attrs["unit"]`` is the unit, ``attrs["notes"]`` what the numbers rest on. Nothing of ``adata`` is changed.

    Raises
    ------
    KeyError, ValueError
        If a fit is missing or damaged, both are one, or they differ in method, representation, order or times.

    Notes
    -----
    With a learned friction the scale of an energy is only as sure as the friction: a steep landscape with much friction
    explains slow cells as well as a flat one with little. Methods of first order (``"ijkonet"``, ``"jkonet_star"``)
    have no such freedom.

    Examples
    --------
    >>> import wlm  # doctest: +SKIP
    >>> wlm.tl.fit(adata, "day", condition_key="arm", method="ijkonet")  # doctest: +SKIP
    >>> table = wlm.tl.energy_difference(adata, key="wlm_drug", reference="wlm_control")  # doctest: +SKIP
    >>> adata.obs["bump"] = table["difference"]  # doctest: +SKIP
    """
    if key == reference:
        raise ValueError(f"key and reference are both {key!r}; name two fits, such as 'wlm_drug' and 'wlm_control'")
    sides = [Observed.of(adata, name, mod) for name in (key, reference)]
    one, other = (side.fit for side in sides)
    for what, a, b in (
        ("method", one.dynamics.method.name, other.dynamics.method.name),
        ("use_rep", one.use_rep, other.use_rep),
        ("number of dimensions", one.n_dims, other.n_dims),
        ("column of times", one.time_key, other.time_key),
    ):
        if a != b:
            raise ValueError(f"fits differ in {what}: {a!r} of {key!r}, {b!r} of {reference!r}; fit both alike")
    common = np.intersect1d(one.training, other.training)
    if times is None:
        wanted = common
    else:
        wanted = np.unique(read_labels(times, one.style))
        absent = wanted[~np.isin(wanted, common)]
        if len(absent):
            raise ValueError(f"{absent[0]:g} is not a training time of both fits, which share {_listed(common)}")
    if len(wanted) == 0:
        raise ValueError(f"fits share no training time: {_listed(one.training)}, {_listed(other.training)}")
    parts = [_at(sides, float(t)) for t in wanted]
    table = pd.concat(parts)
    order = one.dynamics.model.order
    table.attrs["unit"] = f"{one.use_rep}**2 / {one.unit or 'time'}" + ("**2" if order == 2 else "")
    table.attrs["notes"] = [
        "each energy has mean zero over the cells of both fits at a time",
        *(["its scale is as sure as the friction that was learned with it"] if order == 2 else []),
    ]
    spread = float(table["difference"].std() / max(table["reference_energy"].std(), 1e-300))
    logger.info(
        "energies of %s and %s differ by %.0f %% of the spread of the latter, over %d cells at %d times",
        *(key, reference, 100 * spread, len(table), len(wanted)),
    )
    return table


def _listed(times: NDArray[np.float64]) -> str:
    return ", ".join(f"{t:g}" for t in times)


def _at(sides: list[Observed], t: float) -> pd.DataFrame:
    """Both energies of the cells of both fits at one time."""
    rows = [side.at(t) for side in sides]
    names = np.concatenate([side.cells.obs_names[i] for side, i in zip(sides, rows, strict=True)])
    x = np.concatenate([side.x[i] for side, i in zip(sides, rows, strict=True)])
    shares = []
    for side, i in zip(sides, rows, strict=True):
        own = side.w(i)
        own = np.ones(len(i)) if own is None else own
        shares.append(own / own.sum())
    w = np.concatenate(shares)
    energies = [_gauged(side.fit.dynamics, x, t, w) for side in sides]
    table = pd.DataFrame(
        {"time": t, "energy": energies[0], "reference_energy": energies[1], "difference": energies[0] - energies[1]},
        index=pd.Index(names),
    )
    return table[~table.index.duplicated()]  # fits that share cells


def _gauged(dynamics: Dynamics, x: NDArray[np.float32], t: float, w: NDArray[np.float64]) -> NDArray[np.float64]:
    """Energy (n,) of each cell of the population ``x`` (n, d), whose mean by the weights ``w`` (n,) is zero."""
    energy = dynamics.energy(x, t, w=w * (len(w) / w.sum())).astype(np.float64)  # weights of one on average
    return energy - np.average(energy, weights=w)
