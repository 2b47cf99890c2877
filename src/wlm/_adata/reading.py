"""The data arguments of a fit: written down once, resolved once, stored with the fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import anndata as ad

from wlm._adata.calibration import resolve_velocity
from wlm._adata.cells import Cells, read_cells
from wlm._adata.checks import check_tables
from wlm._adata.components import find_rep
from wlm._adata.conditions import read_conditions
from wlm._adata.growth import Totals
from wlm._adata.mudata import get_source, get_target


@dataclass(frozen=True)
class Part:
    """The cells of one condition, or all: which ``rows`` of the object they are, and what was read of them."""

    rows: Any
    cells: Cells


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Which columns and arrays a fit reads, and how; the arguments of :func:`wlm.tl.fit` of these names."""

    time_key: str
    use_rep: str | None = None
    n_dims: int | None = None
    velocity_key: str | None = None
    velocity_scale: float | str | None = None
    weight_key: str | None = None
    strata_key: str | None = None
    sample_key: str | None = None
    growth_key: str | None = None
    totals: Totals | None = None
    clone_key: str | None = None
    condition_key: str | None = None
    nan: str = "raise"

    @classmethod
    def of(cls, time_key: str, arguments: Mapping[str, Any]) -> Reading:
        """The data arguments among those of a verb, or among the stored parameters of a fit."""
        names = {f.name for f in fields(cls)} - {"time_key"}
        return cls(time_key=time_key, **{k: arguments[k] for k in names & set(arguments) if arguments[k] is not None})

    def resolved(self, adata: Any, mod: str | None) -> Reading:
        """The same with the keys that None and ``"auto"`` stand for."""
        target = get_target(adata, mod)
        check_tables(target)
        use_rep = find_rep(target, self.use_rep)
        velocity_key = resolve_velocity(target, self.velocity_key, self.velocity_scale, use_rep)
        return replace(self, use_rep=use_rep, velocity_key=velocity_key)

    def source(self, adata: Any, mod: str | None, *more: str | None) -> ad.AnnData:
        """The object to read from; ``more`` columns of ``obs`` are wanted besides."""
        columns, arrays = [*self.columns.values(), *more], [self.use_rep, self.velocity_key]
        if self.clone_key is not None:  # a column of obs, or a matrix
            (arrays if self.clone_key in get_target(adata, mod).obsm else columns).append(self.clone_key)
        return get_source(adata, mod, columns=columns, arrays=arrays)

    def parts(self, source: ad.AnnData, holdout: Any = None) -> dict[str, Part]:
        """The cells of each condition by its name, or all of them under ``""``.

        Raises
        ------
        KeyError, ValueError, TypeError
            As :func:`wlm._adata.cells.read_cells` and :func:`wlm._adata.conditions.read_conditions`.
        """
        keys = {k: v for k, v in asdict(self).items() if k not in ("time_key", "velocity_scale", "condition_key")}
        if self.condition_key is None:
            return {"": Part(slice(None), read_cells(source, self.time_key, holdout=holdout, **keys))}
        found = read_conditions(source, self.time_key, self.condition_key, holdout=holdout, **keys)
        return {condition: Part(rows, cells) for condition, (rows, cells) in found.items()}

    @property
    def columns(self) -> dict[str, str]:
        """The columns of ``obs`` that are read, by the arguments that name them."""
        names = ("time_key", "weight_key", "strata_key", "sample_key", "condition_key", "growth_key", "totals")
        return {name: value for name in names if isinstance(value := getattr(self, name), str)}

    def params(self) -> dict[str, Any]:
        """What is stored of it; the condition is stored apart."""
        stored = {k: v for k, v in asdict(self).items() if k != "condition_key"}
        if isinstance(self.totals, Mapping):
            stored["totals"] = {str(t): float(size) for t, size in self.totals.items()}
        return stored
