"""Where to read and where to write: an AnnData as it is, one modality of a MuData, or its joint level.

``mudata`` is never imported here: whoever passes a MuData has imported it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import anndata as ad
import pandas as pd

from wlm._adata.columns import layer_names


def is_mudata(data: Any) -> bool:
    """Whether ``data`` is a MuData."""
    module = sys.modules.get("mudata")
    return module is not None and isinstance(data, module.MuData)


def get_target(data: Any, mod: str | None) -> Any:
    """The object in whose ``obs``, ``obsm`` and ``uns`` results land.

    An AnnData itself; of a MuData the modality ``mod``, or without one the MuData.
    """
    if not is_mudata(data):
        if not isinstance(data, ad.AnnData):
            raise TypeError(f"adata must be an AnnData object, or a MuData, found {type(data).__name__}")
        if mod is not None:
            raise ValueError(f"mod={mod!r} names a modality of a MuData, but adata is an AnnData; leave mod out")
        return data
    if mod is None:
        return data
    if mod not in data.mod:
        raise KeyError(f"modality {mod!r} does not exist; modalities are {list(data.mod)}")
    modality = data.mod[mod]
    if not isinstance(modality, ad.AnnData):
        raise TypeError(f"modality {mod!r} is a {type(modality).__name__}; pass the AnnData or MuData inside it")
    return modality


def get_source(
    data: Any, mod: str | None, *, columns: Iterable[str | None], arrays: Iterable[str | None]
) -> ad.AnnData:
    """The AnnData to read from; nothing may be written to it.

    ``columns`` of ``obs`` may stand in the modality or at the level above it, ``arrays`` are the keys of
    ``obsm`` (or layers) that will be read; None in either is ignored. Where a MuData makes it necessary,
    the result is a new object with these columns that shares every array with it.
    """
    target = get_target(data, mod)
    if target is data and not is_mudata(data):
        return data
    wanted = [c for c in columns if c is not None]
    if mod is None:
        return _joint(data, wanted, [a for a in arrays if a is not None])
    if all(c in target.obs for c in wanted):
        return target
    obs = pd.DataFrame({c: _column(data, mod, c) for c in wanted}, index=target.obs_names)
    return ad.AnnData(
        None if target.isbacked else target.X,
        obs=obs,
        var=target.var,
        obsm=dict(target.obsm),
        varm=dict(target.varm),
        layers={name: target.layers[name] for name in layer_names(target)},
        obsp=dict(target.obsp),
        uns=_notes(target, arrays),
    )


def having(data: Any, slot: str, key: str) -> list[str]:
    """Modalities that have ``key`` in ``slot``, as the arguments that choose them; none in an AnnData."""
    if not is_mudata(data):
        return []
    return [f"mod={name!r}" for name, a in data.mod.items() if key in (getattr(a, slot, None) or {})]


def _column(mdata: Any, mod: str, key: str) -> pd.Series:
    """A column of ``obs`` for the cells of a modality: its own, or else that of the MuData, aligned by name."""
    modality = mdata.mod[mod]
    for name in (key, key.removeprefix(f"{mod}:")):
        if name in modality.obs:
            return modality.obs[name]
    found = [name for name in (key, f"{mod}:{key}") if name in mdata.obs]
    if not found:
        raise KeyError(
            f"obs[{key!r}] is in neither level: mdata[{mod!r}].obs has {list(modality.obs.columns)}, "
            f"mdata.obs has {list(mdata.obs.columns)}"
        )
    _check_unique(mdata)
    absent = modality.obs_names[~modality.obs_names.isin(mdata.obs_names)]
    if len(absent):
        raise ValueError(
            f"mdata.obs[{found[0]!r}] lacks {len(absent)} of {modality.n_obs} cells of {mod!r} "
            f"({list(absent[:3])}, ...); run mdata.update() and fill them in, or put the column in mdata[{mod!r}].obs"
        )
    return mdata.obs[found[0]].reindex(modality.obs_names)


def _joint(mdata: Any, columns: list[str], arrays: list[str]) -> ad.AnnData:
    """The level above the modalities: all cells, and what is in ``mdata.obsm``."""
    for key in arrays:
        if key not in mdata.obsm:
            there = having(mdata, "obsm", key) + having(mdata, "layers", key)
            raise KeyError(
                f"mdata.obsm[{key!r}] is missing; "
                + (f"modalities have it: pass {' or '.join(there)}" if there else f"mdata.obsm has {_own(mdata)}")
            )
    _check_unique(mdata)
    obs = pd.DataFrame({c: _joint_column(mdata, c) for c in columns}, index=mdata.obs_names)
    return ad.AnnData(obs=obs, obsm={key: mdata.obsm[key] for key in _own(mdata)}, uns=_notes(mdata, arrays))


def _notes(target: Any, arrays: Iterable[str | None]) -> dict[str, Any]:
    """What ``uns`` says about arrays, and about the logarithm of ``X``."""
    return {key: target.uns[key] for key in (*arrays, "log1p") if key is not None and key in target.uns}


def _joint_column(mdata: Any, key: str) -> pd.Series:
    """A column of ``obs`` for all cells: that of the MuData, or else those of its modalities put together."""
    if key in mdata.obs:
        return mdata.obs[key]
    parts = {name: a.obs[key] for name, a in mdata.mod.items() if key in a.obs}
    mod, _, rest = key.partition(":")
    if not parts and mod in mdata.mod and rest in mdata.mod[mod].obs:
        parts = {mod: mdata.mod[mod].obs[rest]}
    if not parts:
        raise KeyError(f"obs[{key!r}] is missing; mdata.obs has {list(mdata.obs.columns)}, and no modality has it")
    values = pd.concat([part.dropna() for part in parts.values()])
    several = values.astype(str).groupby(level=0).nunique() > 1
    if several.any():
        raise ValueError(
            f"obs[{key!r}] differs between the modalities {list(parts)} for {several.sum()} cells "
            f"({list(several.index[several][:3])}, ...); write mdata.obs[{key!r}]"
        )
    absent = mdata.obs_names[~mdata.obs_names.isin(values.index)]
    if len(absent):
        raise ValueError(
            f"obs[{key!r}] of {list(parts)} lacks {len(absent)} of {mdata.n_obs} cells ({list(absent[:3])}, ...); "
            f"write mdata.obs[{key!r}], or name one modality: mod={next(iter(parts))!r}"
        )
    return values[~values.index.duplicated()].reindex(mdata.obs_names)


def _own(mdata: Any) -> list[str]:
    """Keys of ``mdata.obsm`` without the masks that say which cells a modality has."""
    return [key for key in mdata.obsm if key not in mdata.mod]


def _check_unique(mdata: Any) -> None:
    if not mdata.obs_names.is_unique:
        raise ValueError("obs_names are not unique; run mdata.obs_names_make_unique() first")
