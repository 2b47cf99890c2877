"""Reading a fit back from AnnData or MuData (written by :mod:`wlm._store.write`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from wlm._adata.cells import read_weights
from wlm._adata.conditions import select_condition
from wlm._adata.labels import Style
from wlm._adata.mudata import get_source, get_target, having
from wlm._adata.reading import Reading
from wlm._adata.times import read_times, rounding_of, snap, with_unit
from wlm._logging import logger
from wlm._store.group import conditions
from wlm._store.integrity import checksum, fingerprint, times_fingerprint
from wlm._version import __version__
from wlm.core.dynamics import Dynamics
from wlm.core.forecast import Forecast
from wlm.core.methods import METHODS, Method, Spec
from wlm.core.model import drawing_from
from wlm.core.prediction import Ensemble, Member, Rollout, curved
from wlm.core.units import Units

#: Version of the layout of ``uns[key]``: 2 added the checksum, the fingerprint of all cells, ensembles and coverage;
#: 3 how the labels of the times are written, and the times of some cells; 4 growth, and what forecasts follow.
FORMAT = 4


@dataclass(frozen=True)
class StoredFit:
    """A fit read back from ``uns[key]``; ``others`` are further models, ``forecast`` what leads past it."""

    key: str
    dynamics: Dynamics
    time_key: str
    observed: NDArray[np.float64]
    training: NDArray[np.float64]
    measured: NDArray[np.float64]
    unit: str
    use_rep: str
    n_dims: int
    uns: Mapping[str, Any]
    others: tuple[Member, ...] = ()
    forecast: Forecast | None = None

    @property
    def condition(self) -> Mapping[str, Any] | None:
        """``key``, ``value`` and ``group`` of the condition that was fitted, if it was one of several."""
        return self.uns["params"].get("condition")

    @property
    def style(self) -> Style:
        """How the times of the data were written."""
        return Style(self.unit, str(self.uns["time"]["hyphen"]))

    def times(self, adata: ad.AnnData) -> NDArray[np.float64]:
        """Times of the cells (n_obs,), read as the fit read them: missing ones are refused, or NaN."""
        nan = str(self.uns["params"].get("nan", "raise"))
        hyphen = None if self.style.hyphen == "unclear" else self.style.hyphen
        times, style = read_times(adata, self.time_key, nan, hyphen)
        times = snap(times, self.observed)
        then = np.asarray(self.uns["time"]["cells"], dtype=np.float64)
        other_unit = bool(style.unit and self.unit and style.unit != self.unit)
        prints = str(self.uns["time"].get("fingerprint", "")), times_fingerprint(adata.obs_names, times, self.observed)
        if other_unit or _differ(prints) or not self._same(adata, times, then, rounding_of(self.observed)):
            raise ValueError(
                f"uns[{self.key!r}] was fitted to other times than obs[{self.time_key!r}] holds now"
                f"{f' (the unit was {self.unit}, it is {style.unit})' if other_unit else ''}; "
                f"restore obs[{self.time_key!r}] or run wlm.tl.fit again"
            )
        return times

    def _same(self, adata: ad.AnnData, now: NDArray[np.float64], then: NDArray[np.float64], atol: float) -> bool:
        """Whether those of the cells that were noted at the fit which are here have the values (n,) they had then."""
        if len(then) == 0 or not adata.obs_names.is_unique:
            return True  # of a format that noted none; or cells cannot be told apart
        index = adata.obs_names.astype(str).get_indexer(
            pd.Index(np.asarray(self.uns["representation"]["cells"], dtype=object))
        )
        return np.allclose(now[index[index >= 0]], then[index >= 0], rtol=0, atol=atol, equal_nan=True)

    def weights_of(self, adata: ad.AnnData) -> NDArray[np.float64] | None:
        """Weights of the cells (n_obs,), or None if the fit has none."""
        key = self.uns["params"].get("weight_key")
        if key is None:
            return None
        weights = read_weights(adata, str(key), self.times(adata))
        then = np.asarray(self.uns["time"].get("weights", ()), dtype=np.float64)
        if not self._same(adata, weights, then, 1e-6 * float(weights.max())):
            raise ValueError(
                f"uns[{self.key!r}] was fitted to other weights than obs[{key!r}] holds now; "
                f"restore obs[{key!r}] or run wlm.tl.fit again"
            )
        return weights

    @property
    def ensemble(self) -> Ensemble:
        """All its models; the path of the first is the stored rollout."""
        rollout = self.uns["rollout"]
        path = Rollout(
            np.asarray(rollout["times"], dtype=np.float64),
            np.asarray(rollout["positions"]),
            np.asarray(rollout["velocities"]),
            np.arange(len(rollout["origin"])),
            np.asarray(rollout["weights"]) if "weights" in rollout else None,
        )
        return Ensemble(
            (Member(self.dynamics, path), *self.others),
            self.training,
            self.measured,
            self.seed,
            curved(self.uns),
            self.forecast,
        )

    @property
    def reading(self) -> Reading:
        """The data arguments of the fit."""
        return Reading.of(self.time_key, self.uns["params"])

    @property
    def seed(self) -> int:
        """The seed of the first model."""
        return int(self.uns["params"]["seed"])

    @property
    def time_label(self) -> str:
        """The key of the times with their unit, for an axis."""
        return with_unit(self.time_key, self.unit)

    @property
    def checksum(self) -> str:
        """What tells it from other fits; empty of one of format 1."""
        return str(self.uns.get("checksum", ""))

    @property
    def group(self) -> str:
        """The key that the fields at the cells are named after."""
        return self.key if self.condition is None else str(self.condition["group"])


def open_fit(adata: Any, key: str, mod: str | None, *, columns: Sequence[str] = ()) -> tuple[ad.AnnData, StoredFit]:
    """A stored fit, and the cells that it is about, to read from: of its modality, and of its condition.

    ``columns`` of ``obs`` are wanted besides those of the fit.

    Raises
    ------
    KeyError, ValueError
        If there is no fit, it is damaged, or what it was made on is missing.
    """
    fit = get_fit(adata, key, mod)
    wanted = [*fit.reading.columns.values(), *columns]
    clone_key = fit.reading.clone_key
    if clone_key is not None and clone_key not in get_target(adata, mod).obsm:
        wanted.append(clone_key)
    velocity_key = fit.uns["params"].get("velocity_key")
    if fit.condition is not None:
        wanted.append(str(fit.condition["key"]))
    source = get_source(
        adata,
        mod,
        columns=wanted,
        arrays=[fit.use_rep, velocity_key if velocity_key in get_target(adata, mod).obsm else None],
    )
    selected = select_condition(source, fit.condition)
    _check_condition(source, selected, fit)
    return selected, fit


def _check_condition(source: ad.AnnData, selected: ad.AnnData, fit: StoredFit) -> None:
    """Refuse cells of the fit that are of another condition now."""
    if fit.condition is None:
        return
    noted = pd.Index(np.asarray(fit.uns["representation"]["cells"], dtype=object))
    here = noted[noted.isin(source.obs_names.astype(str))]
    if not here.isin(selected.obs_names.astype(str)).all():
        key = fit.condition["key"]
        raise ValueError(
            f"uns[{fit.key!r}] was fitted to other conditions than obs[{key!r}] holds now; "
            f"restore obs[{key!r}] or run wlm.tl.fit again"
        )


def get_fit(adata: Any, key: str, mod: str | None) -> StoredFit:
    """A stored fit of an AnnData, of a modality, or of the joint level of a MuData."""
    target = get_target(adata, mod)
    there = having(adata, "uns", key)
    if key not in target.uns and there:
        raise KeyError(f"uns[{key!r}] is missing here; modalities have it: pass {' or '.join(there)}")
    return read_fit(target, key)


def read_fit(adata: Any, key: str) -> StoredFit:
    """Rebuild the fit stored in ``uns[key]``. No code is executed: weights are plain arrays.

    Raises
    ------
    KeyError
        If there is no fit under ``key``.
    ValueError
        If what is stored there is damaged, or of a newer format, or is a list of fits.
    """
    if key not in adata.uns:
        raise KeyError(f"uns[{key!r}] is missing; run wlm.tl.fit(adata, time_key, key_added={key!r}) first")
    uns = adata.uns[key]
    if not isinstance(uns, Mapping) or "format" not in uns:
        raise ValueError(f"uns[{key!r}] was not written by wlm.tl.fit; choose the key_added of a fit")
    several = conditions(uns)
    if several:
        choice = " or ".join(f"key={k!r}" for k in several.values())
        names = " or ".join(f"condition={name!r}" for name in several)
        raise ValueError(f"uns[{key!r}] stands for a fit of each condition; choose one: {choice}, the same as {names}")
    return parse_fit(key, uns)


def parse_fit(key: str, uns: Mapping[str, Any]) -> StoredFit:
    """The fit that ``uns``, stored or to be stored under ``key``, describes; see :func:`read_fit`."""
    again = f"restore uns[{key!r}] from the file that it was saved in, or run wlm.tl.fit again"
    try:
        version = 0 if np.ndim(uns["format"]) else int(uns["format"])
        if version < 1:
            raise ValueError  # found in damaged objects
    except (TypeError, ValueError):
        raise ValueError(f"uns[{key!r}] is damaged (format {uns['format']!r}); {again}") from None
    if version > FORMAT:
        raise ValueError(
            f"uns[{key!r}] has format {version}, written by wlm {uns.get('version', '?')}; "
            f"this is wlm {__version__}, which reads up to {FORMAT}: update wlm"
        )
    if (version >= 2 or "checksum" in uns) and str(uns.get("checksum")) != checksum(uns):
        raise ValueError(f"uns[{key!r}] is damaged: it is not what wlm.tl.fit wrote there; {again}")
    if version >= 2 and "weights" not in uns:
        raise ValueError(f"uns[{key!r}] was stored without its model; run wlm.tl.fit again with store_model=True")
    try:
        uns = _migrate(uns)
        method = METHODS[str(uns["method"])].from_json(uns["config"])
        spec = Spec(**json.loads(uns["spec"]))
        time, rep = uns["time"], uns["representation"]
        units = Units(
            np.asarray(rep["location"], dtype=np.float64),
            float(rep["scale"]),
            float(time["origin"]),
            float(time["scale"]),
        )

        def dynamics(weights: Mapping[str, Any]) -> Dynamics:
            return _dynamics(method, spec, units, weights)

        observed = np.asarray(time["values"], dtype=np.float64)
        training = observed[~np.isin(observed, np.asarray(time["holdout"], dtype=np.float64))]
        ensemble = uns.get("ensemble", {})
        mass = np.asarray(ensemble["mass"], dtype=np.float64) if "mass" in ensemble else None
        later = observed[observed >= training[0]]
        others = tuple(
            Member(
                dynamics(m["weights"]),
                Rollout(
                    later,
                    np.asarray(m["positions"]),
                    np.asarray(m["velocities"]),
                    np.arange(m["positions"].shape[1]),
                    np.asarray(m["mass"]) if "mass" in m else mass,
                ),
            )
            for m in (ensemble["models"][str(i)] for i in range(1, len(ensemble.get("models", {})) + 1))
        )
        return StoredFit(
            key,
            dynamics(uns["weights"]),
            str(time["key"]),
            observed,
            training,
            np.asarray(time["measured"], dtype=np.float64),
            str(time["unit"]),
            str(rep["key"]),
            int(rep["n_dims"]),
            uns,
            others,
            as_forecast(uns.get("forecast"), units),
        )
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"uns[{key!r}] is damaged ({reason}); {again}") from error


def _dynamics(method: Method[Any, Any], spec: Spec, units: Units, weights: Mapping[str, Any]) -> Dynamics:
    with drawing_from():
        model = method.build(spec)
    state = {name: torch.as_tensor(np.array(weights[name.replace(".", "_")])) for name in model.state_dict()}
    model.load_state_dict(state)
    return Dynamics(model.eval(), method, spec, units)


def as_forecast(note: Mapping[str, Any] | None, units: Units) -> Forecast | None:
    """What forecasts follow, by the back-test of the fit."""
    if note is None:
        return None
    field = None
    if "field" in note:
        stored = note["field"]
        method = METHODS[str(stored["method"])].from_json(stored["config"])
        field = _dynamics(method, Spec(**json.loads(stored["spec"])), units, stored["weights"])
    return Forecast(str(note["by"]), float(note["share"]), field)


def _differ(prints: tuple[str, str]) -> bool:
    """Whether these are of the same cells, and say something else of them."""
    (names, *then), (others, *now) = (text.split(" ") for text in prints)
    return names == others and then != now


def _migrate(uns: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a fit of an older format would hold in this one."""
    if int(uns["format"]) == 1:  # without a fingerprint of all cells: changes are noticed in some of them only
        uns = {**uns, "format": 2, "representation": {**uns["representation"], "fingerprint": ""}}
    if int(uns["format"]) == 2:  # a hyphen before a number was a separator in labels; negative times were not labels
        negative = bool((np.asarray(uns["time"]["values"], dtype=np.float64) < 0).any())
        time = {**uns["time"], "hyphen": "sign" if negative else "separator", "cells": np.empty(0)}
        uns = {**uns, "format": 3, "time": time}
    if int(uns["format"]) == 3:  # cells were conserved, and forecasts those of the model
        uns = {**uns, "format": 4}
    return uns


def check_representation(adata: ad.AnnData, fit: StoredFit, x: NDArray[np.float32]) -> None:
    """Refuse an object whose coordinates are not those the fit was made on; warn if it is stale otherwise."""
    rep = fit.uns["representation"]
    now, then = fingerprint(adata.obs_names, x), str(rep["fingerprint"])
    if now == then:
        return
    index = adata.obs_names.astype(str).get_indexer(pd.Index(np.asarray(rep["cells"], dtype=object)))
    here = index >= 0
    old = np.asarray(rep["positions"])[here]
    if not np.allclose(x[index[here]], old, rtol=1e-4, atol=1e-4 * float(rep["scale"])):
        raise ValueError(
            f"obsm[{fit.use_rep!r}] is not the representation that uns[{fit.key!r}] was fitted on "
            "(cells of the same name have other coordinates); restore it, or run wlm.tl.fit again"
        )
    if not then:
        return  # of a format that did not note all cells
    if now.split(" ")[0] == then.split(" ")[0]:
        found = "cells of the same names, whose coordinates are not all the same"
    else:
        found = f"other cells than these {adata.n_obs}, from which predictions start"
    logger.warning(
        "uns[%r] is stale: it was fitted on %d cells, %s; for a fit to what is here, run wlm.tl.fit again",
        fit.key,
        int(rep["n_obs"]),
        found,
    )
