"""Colours: of labels, of models, and of what is neither."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import is_color_like, to_hex, to_rgb

from wlm._adata.columns import read_column
from wlm._store.fit import StoredFit

#: Okabe and Ito's colours, distinguishable with every kind of colour vision.
OBSERVED, PREDICTED, SECOND = "#9a9a9a", "#0072B2", "#D55E00"

#: The same, for up to eight labels without colours of their own.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")

#: What may be the colour of a path, the usual one first, and how far from those of labels it has to be (0 to 442).
PATHS = ("#5B2A86", "#4a4a4a", "#7f0000", "#00441b", "#000000", "#ff00ff", "#00e5ff", "#b8ff00")
PATH, _APART = PATHS[0], 60.0

#: Cells that ``groups`` leaves out, and all cells behind others.
FAINT, BEHIND = "#d3d3d3", "#e6e6e6"


def path_color(taken: Iterable[Any]) -> str:
    """A colour for paths that none of the labels has."""
    others = np.array([to_rgb(c) for c in taken]).reshape(-1, 3)
    if len(others) == 0:
        return PATH
    distance = [255 * np.linalg.norm(others - to_rgb(c), axis=1).min() for c in PATHS]
    far = [c for c, d in zip(PATHS, distance, strict=True) if d >= _APART]
    return far[0] if far else PATHS[int(np.argmax(distance))]


def label_colors(cells: Any, column: str, whole: Any, palette: Any = None) -> dict[str, Any]:
    """The colour of each label in a column of ``obs``: by ``palette``, or those of ``uns["<column>_colors"]``.

    Without them, colours that are told apart with every kind of colour vision for up to eight labels, which more cannot
    be: these get scanpy's palettes of 20, 28 and 102. Labels are those of the ``whole`` object, so that the cells of
    each condition have the same colours.
    """
    uns, series = whole.uns, read_column(whole if column in whole.obs else cells, column)
    categorical = isinstance(series.dtype, pd.CategoricalDtype)
    names = [str(c) for c in (series.cat.categories if categorical else sorted(series.dropna().unique(), key=str))]
    if palette is not None:
        return chosen_colors(names, palette)
    own = [str(c) for c in np.ravel(uns.get(f"{column}_colors", []))]
    if categorical and len(own) >= len(names):
        return dict(zip(names, own, strict=False))
    return default_colors(names)


def default_colors(names: Sequence[str]) -> dict[str, Any]:
    """Colours of labels that have none of their own."""
    if len(names) <= len(COLORS):
        return dict(zip(names, COLORS, strict=False))
    from scanpy.plotting.palettes import default_20, default_28, default_102

    chosen = next((p for p in (default_20, default_28, default_102) if len(names) <= len(p)), ["grey"] * len(names))
    return dict(zip(names, chosen, strict=False))


def chosen_colors(names: Sequence[str], palette: Any) -> dict[str, Any]:
    """The colours of a ``palette``: a colormap's name, a list or cycler of colours, or a dict by label."""
    if isinstance(palette, str):
        if palette not in colormaps:
            raise ValueError(f"palette {palette!r} is no colormap of matplotlib; name one, or give a list or a dict")
        many = colormaps[palette]
        listed = getattr(many, "colors", None)
        if listed is not None and len(names) <= len(listed) <= 20:  # colours made for labels
            return {name: to_hex(c) for name, c in zip(names, listed, strict=False)}
        return {name: to_hex(c) for name, c in zip(names, many(np.linspace(0, 1, max(len(names), 2))), strict=False)}
    if isinstance(palette, Mapping):
        gone = [name for name in names if name not in palette]
        if gone:
            raise ValueError(f"palette has no colour for {', '.join(map(repr, gone[:5]))}; it has {list(palette)}")
        found = {name: palette[name] for name in names}
    else:
        colors = palette.by_key().get("color", []) if hasattr(palette, "by_key") else list(palette)
        if len(colors) < len(names):
            raise ValueError(f"palette has {len(colors)} colours for {len(names)} labels, of which each needs its own")
        found = dict(zip(names, colors, strict=False))
    bad = [c for c in found.values() if not is_color_like(c)]
    if bad:
        raise ValueError(f"palette has {bad[0]!r}, which is no colour of matplotlib")
    return found


def name_colors(target: Any, fit: StoredFit, names: Sequence[str]) -> dict[str, Any]:
    """The colour of each fate: that of its label, where terminal states are labels of a column of ``obs``.

    Others have colours that the first labels of a column have not, so that the two are told apart.
    """
    column = target.uns.get(f"{fit.key}_terminal", {}).get("label_key")
    known = {} if column is None or str(column) not in target.obs else label_colors(target, str(column), target)
    rest = [name for name in names if name not in known and name != "undecided"]
    return {"undecided": OBSERVED} | known | {name: COLORS[(k + 3) % len(COLORS)] for k, name in enumerate(rest)}


def model_colors(models: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """A colour for each model, the same in every figure: methods by their place among the ``known`` ones.

    Settings with names of their own have one by their name, or the next that is free.
    """
    usual = {name: COLORS[k % 7] for k, name in enumerate(known)}  # without black
    colors = {m: usual[m] for m in models if m in usual}
    for name in sorted(m for m in models if m not in usual):
        turned = [COLORS[(zlib.crc32(name.encode()) + k) % 7] for k in range(7)]
        colors[name] = next((c for c in turned if c not in colors.values()), turned[0])
    return {m: colors[m] for m in models}
