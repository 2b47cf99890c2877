"""What is looked at before a fit: one set of checks, which :func:`wlm.tl.fit` and :func:`wlm.pp.doctor` share."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._adata.labels import show_all

#: An interval this many times as long as the next shorter one is hardly one between two samples.
FAR = 1000
#: The same where one of its ends is a number that people write for a missing one (-999, 9999).
FAR_CODE = 100
#: Sizes of times and coordinates between which their squares are numbers in single precision.
MAGNITUDE = 1e-15, 1e15
#: Fewer cells than this hardly show the shape of a population.
FEW_CELLS = 50
#: Cells of each time whose pairs are looked at.
N_PAIRED = 1000
#: Columns that predictions write.
PREDICTED = ("origin", "from_time")
#: Parts of the names of coordinates that are made for drawing.
_DRAWN = ("umap", "tsne", "draw_graph", "phate", "pacmap", "trimap", "spring")
#: Columns of ``obs`` with the depth of sequencing, by usual names.
_DEPTHS = ("total_counts", "n_counts", "nCount_RNA", "nCount_ATAC", "n_fragment", "n_fragments", "n_genes_by_counts")


def check_names(names: pd.Index, axis: str = "obs") -> None:
    """Refuse names of cells or genes that cannot be stored as text, or that are not unique as text.

    Raises
    ------
    ValueError
        If they are a MultiIndex, or not unique.
    """
    if isinstance(names, pd.MultiIndex):
        raise ValueError(
            f"{axis}_names have {names.nlevels} levels, text is wanted; "
            f"run adata.{axis}_names = ['_'.join(map(str, name)) for name in adata.{axis}_names]"
        )
    if axis == "obs" and not (names.is_unique and (names.dtype.kind in "iu" or names.astype(str).is_unique)):
        raise ValueError("obs_names are not unique; run adata.obs_names_make_unique() first")


def check_tables(adata: Any) -> None:
    """Refuse an object with a table in ``obsm`` or ``varm`` of other names than its own: anndata reads none of them."""
    for slot, axis in (("obsm", "obs"), ("varm", "var")):
        try:
            getattr(adata, slot)
        except ValueError:
            own = getattr(adata, axis).index
            tables = [k for k, v in getattr(adata, f"_{slot}").items() if not own.equals(getattr(v, "index", own))]
            if not tables:
                raise
            table = getattr(adata, f"_{slot}")[tables[0]]
            theirs, ours = (as_text(names[:2]).tolist() for names in (table.index, own))
            raise ValueError(
                f"{slot} cannot be read: {axis}_names were changed after the table {slot}[{tables[0]!r}] was added, "
                f"which has {theirs}, ... where {axis}_names are {ours}, ...; "
                f"run adata.{axis}.index = adata._{slot}[{tables[0]!r}].index"
            ) from None


def check_writable(target: Any) -> None:
    """Refuse an object to which nothing can be written: some cells or genes of one on disk, or names of two levels."""
    if target.isbacked and target.is_view:
        raise ValueError(
            "adata is a view of an object on disk, to which nothing can be written; run adata = adata.to_memory() first"
        )
    check_names(target.obs_names)
    check_names(target.var_names, "var")


def as_text(names: pd.Index | NDArray[Any]) -> NDArray[np.object_]:
    """Names of cells or genes (n,) as text, which any file can hold."""
    return np.asarray(pd.Index(names).astype(str).to_numpy(dtype=object), dtype=object)


def check_magnitude(name: str, values: NDArray[np.floating]) -> None:
    """Refuse numbers that are too large or too small to compute with."""
    largest = max(float(values.max()), -float(values.min()))
    low, high = MAGNITUDE
    if not low < largest < high:
        raise ValueError(
            f"{name} holds values up to {largest:g}, beyond what can be computed with ({low:g} to {high:g}); "
            "give them in another unit"
        )


def far_times(observed: NDArray[np.float64]) -> tuple[str, float, float] | None:
    """Words for an interval that is far longer than the others, and the two times at its ends; None without one."""
    gaps = np.diff(observed)
    order = np.argsort(gaps)
    for shorter, longer in zip(order[:-1], order[1:], strict=True):
        ratio, ends = gaps[longer] / gaps[shorter], observed[longer : longer + 2]
        outer = [t for t in (observed[0], observed[-1]) if t in ends and re.fullmatch(r"-?999+", f"{t:.0f}")]
        if ratio >= (FAR_CODE if outer else FAR):
            texts = dict(zip(observed.tolist(), show_all(observed), strict=True))
            a, b, c, d = (texts[float(t)] for t in (*ends, *observed[shorter : shorter + 2]))
            words = f"from {a} to {b} it is {ratio:,.0f} times as long as from {c} to {d}"
            return words, float(ends[0]), float(ends[1])
    return None


def same_place(x: NDArray[np.float32]) -> float:
    """The share of the pairs of cells (n, d) that are at the same position, among some of the cells."""
    some = np.ascontiguousarray(x[:: max(1, len(x) // N_PAIRED)]) + np.float32(0)  # no negative zero
    n = len(some)
    rows = some.view(np.dtype((np.void, some.dtype.itemsize * some.shape[1]))).ravel()
    counts = np.unique(rows, return_counts=True)[1]
    return float((counts * (counts - 1)).sum() / (n * (n - 1))) if n > 1 else 0.0


def check_distances(x: NDArray[np.float32], times: NDArray[np.float64], wanted: NDArray[np.float64], name: str) -> None:
    """Refuse coordinates (n, d) in which cells mostly have no distance from each other, at any of the wanted times.

    Raises
    ------
    ValueError
        If all cells of each time, or half of their pairs or more, are at the same position.
    """
    # Up to rounding: what is left of equal numbers after subtracting their mean is no spread.
    spread = max(np.ptp(x[times == t], axis=0).max() for t in wanted)
    if spread <= 1e-6 * max(x.max(), -x.min()):
        raise ValueError(f"{name} has all cells of each time at the same position; compute it again")
    shares = [same_place(x[times == t]) for t in wanted]
    if min(shares) >= 0.5:  # their median distance is zero then
        raise ValueError(
            f"{name} has half of the pairs of cells or more at every time at the same position ({min(shares):.0%} or "
            "more); take coordinates in which cells differ, for example the principal components of more genes"
        )


def odd_rep(use_rep: str, x: NDArray[np.float32], obs: Any) -> tuple[str, str] | None:
    """What is wrong with a representation for its name, and what to do; None if nothing is."""
    name = use_rep.lower()
    if any(drawn in name for drawn in _DRAWN):
        return (
            "made for drawing",
            "distances and speeds mean little in a picture of the cells: fit on principal components and draw on it",
        )
    if "lsi" in re.split(r"[^a-z]+", name) and x.shape[1] > 1:
        depths = [obs[column] for column in _DEPTHS if list(obs.columns).count(column) == 1]
        known = [abs(_correlation(x[:, 0], np.asarray(depth))) for depth in depths]
        if not known or max(known) > 0.5:
            return (
                "its first component is mostly the depth of sequencing",
                f"run adata.obsm[{use_rep!r}] = adata.obsm[{use_rep!r}][:, 1:] (unless that was done)",
            )
    return None


def _correlation(a: NDArray[np.float32], b: NDArray[Any]) -> float:
    if b.dtype.kind not in "iuf" or not (np.ptp(a) and np.ptp(b)):
        return 0.0
    ranks = [pd.Series(values).rank() for values in (a, b)]
    return float(np.nan_to_num(np.corrcoef(ranks)[0, 1]))


def check_flag(name: str, value: Any) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, found {value!r}")


def check_integer(name: str, value: Any, least: int = 1, *, optional: bool = False) -> None:
    """Refuse what is no integer of at least so much; None passes where it is ``optional``."""
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, found {value!r}")
