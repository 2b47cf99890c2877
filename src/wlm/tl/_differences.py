"""The table of a comparison: effects, intervals and p-values over samples, and the verdict in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._adata.samples import Samples
from wlm.core.permutation import (
    comparable,
    interval,
    labelings,
    n_labelings,
    p_values,
    separation,
    smallest_p,
    statistics,
    step_down,
)
from wlm.tl._features import Feature

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
#: P-values, own and adjusted, by statistic, name ("" for the whole) and time (None for all together).
Tests = dict[tuple[str, str, float | None], tuple[float, float]]

#: Columns of the table.
COLUMNS = (
    *("condition", "reference", "statistic", "name", "time", "n_condition", "n_reference", "value", "reference_value"),
    *("effect", "low", "high", "p", "p_adj", "smallest_p"),
)

#: Statistics of fits: at one time they depend on the cells of others, so that they say nothing of when it begins.
OF_FITS = ("speed", "kinetic", "energy", "growth", "predicted")


def differences(features: Sequence[Feature], samples: Samples, reference: str, n_perm: int, seed: int) -> pd.DataFrame:
    """Every condition compared with the reference, by every feature."""
    others = [name for name in dict.fromkeys(samples.conditions) if name != reference]
    rows: list[dict[str, Any]] = []
    for condition in others:
        pair = _Pair.of(features, samples, condition, reference, n_perm, seed)
        rows += pair.rows()
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    for column in ("p_adj", "smallest_p"):  # the smallest that is left of it, too
        factor = len(others) if column == "p_adj" else 1
        table[column] = np.minimum(table[column] * factor, 1.0)
    return table


@dataclass(frozen=True)
class _Pair:
    """Two conditions: ``group`` (n,) marks the samples of the one, ``groups`` (k, n) all relabelings of them."""

    condition: str
    reference: str
    features: list[Feature]
    group: Bools
    strata: NDArray[np.intp]
    groups: Bools
    halved: bool

    @classmethod
    def of(
        cls, features: Sequence[Feature], samples: Samples, condition: str, reference: str, n_perm: int, seed: int
    ) -> _Pair:
        keep = np.flatnonzero(np.isin(samples.conditions, [condition, reference]))
        group, strata = samples.conditions[keep] == condition, samples.strata[keep]
        own = [
            Feature(
                f.statistic,
                f.time,
                f.present[keep],
                f.distances[np.ix_(keep, keep)],
                f.names,
                None if f.values is None else f.values[keep],
            )
            for f in features
        ]
        own = [f for f in own if (f.present & group).any() and (f.present & ~group).any()]
        return cls(condition, reference, own, group, strata, labelings(group, strata, n_perm, seed), samples.halved)

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the table: each statistic at all times together, at each time, and by name."""
        by_kind: dict[str, list[Feature]] = {}
        for f in self.features:
            by_kind.setdefault(f.statistic, []).append(f)
        tested = {kind: [f for f in fs if self._can_be_tested(f)] for kind, fs in by_kind.items()}
        tests = self._tests({kind: fs for kind, fs in tested.items() if fs})
        rows = []
        for kind, fs in by_kind.items():
            if len(fs) > 1:
                rows.append(self._row(tested[kind] or fs, "", None, tests))
            rows += [self._row([f], "", f.time, tests) for f in fs]
            if len(fs[0].names) > 1:
                by_name = self._tests_by_name(tested[kind], tests)
                rows += [self._row([f], name, f.time, by_name) for f in fs for name in f.names]
        return rows

    def _can_be_tested(self, f: Feature) -> bool:
        """Whether there are two samples a side, and others that could have had their conditions."""
        group, strata = self.group[f.present], self.strata[f.present]
        return not self.halved and min(group.sum(), (~group).sum()) >= 2 and n_labelings(group, strata) > 1

    def _tests(self, tested: dict[str, list[Feature]]) -> Tests:
        """P-values of statistics as a whole, at their times and (None) at all of them together."""
        if not tested:
            return {}
        found = {
            kind: np.concatenate([statistics(f.distances[None], f.present, self.groups) for f in fs])
            for kind, fs in tested.items()
        }
        together = {kind: values.sum(axis=0, keepdims=True) for kind, values in found.items()}
        out: Tests = {}
        for family, keys in (
            (found, [(kind, "", f.time) for kind, fs in tested.items() for f in fs]),
            (together, [(kind, "", None) for kind in tested]),
        ):
            p = np.concatenate([p_values(values) for values in family.values()])
            adjusted = step_down(np.concatenate([comparable(values) for values in family.values()]))
            out |= dict(zip(keys, zip(p.tolist(), adjusted.tolist(), strict=True), strict=True))
        return out

    def _tests_by_name(self, tested: Sequence[Feature], whole: Tests) -> Tests:
        """P-values of the numbers of one statistic, never below those of the statistic itself."""
        found = {
            f.time: statistics(np.abs(f.values.T[:, :, None] - f.values.T[:, None, :]), f.present, self.groups)
            for f in tested
            if f.values is not None
        }
        if not found:
            return {}
        adjusted = step_down(np.concatenate(list(found.values()))).reshape(len(found), -1)
        return {
            (f.statistic, name, f.time): (float(p), max(float(down), whole[f.statistic, "", f.time][1]))
            for f, steps in zip(tested, adjusted, strict=True)
            for name, p, down in zip(f.names, p_values(found[f.time]), steps, strict=True)
        }

    def _row(self, fs: Sequence[Feature], name: str, t: float | None, tests: Tests) -> dict[str, Any]:
        """A row: two numbers, their difference with its interval, and the p-values."""
        present = np.flatnonzero(np.any([f.present for f in fs], axis=0))
        group, strata = self.group[present], self.strata[present]

        def values(keep: Bools) -> Floats:
            some = np.isin(np.arange(len(self.group)), present[keep])
            return np.mean([self._values(f, name, f.present & some) for f in fs], axis=0)

        whole = values(np.ones(len(present), dtype=bool))
        sizes = [1, 1] if self.halved else [int(group.sum()), int((~group).sum())]
        low = high = np.array([np.nan])
        if min(sizes) >= 2:
            low, high = interval(lambda keep: -np.diff(values(keep)), group)
        key = (fs[0].statistic, name, t)
        p, adjusted = tests.get(key, (np.nan, np.nan))
        least = max(smallest_p(group, strata), 1 / len(self.groups)) if key in tests else np.nan
        time = np.nan if t is None else t
        numbers = (*sizes, *whole, whole[0] - whole[1], low.item(), high.item(), p, adjusted, least)
        return dict(zip(COLUMNS, (self.condition, self.reference, fs[0].statistic, name, time, *numbers), strict=True))

    def _values(self, f: Feature, name: str, some: Bools) -> Floats:
        """Of some samples (n,): means of condition and reference, or mean distances across and within conditions."""
        group = self.group[some]
        if f.values is None or (name == "" and len(f.names) > 1):
            return np.ravel(separation(f.distances[None][:, some][:, :, some], group))
        column = f.values[some, f.names.index(name) if name else 0]
        with np.errstate(invalid="ignore"):  # where no sample is left there is no mean
            return np.array([column[part].sum() / np.float64(part.sum()) for part in (group, ~group)])


def verdict(table: pd.DataFrame, alpha: float, notes: Sequence[str]) -> dict[str, Any]:
    """The comparison in words, what confounds it first, and the first time at which each condition differs."""
    lines, first = [note for note in notes if note.startswith("CONFOUNDED")], {}
    for (condition, reference), part in table.groupby(["condition", "reference"], sort=False):
        whole = part[(part["name"] == "") & part["time"].notna()]
        together = part[(part["name"] == "") & part["time"].isna()]
        found = whole[(whole["p_adj"] < alpha) & ~whole["statistic"].isin(OF_FITS)]
        fitted = whole[(whole["p_adj"] < alpha) & whole["statistic"].isin(OF_FITS)]
        first[condition] = float(found["time"].min()) if len(found) else np.nan
        pair = f"{condition} and {reference}, {_sizes(whole)}"
        strongest = f"largest distance between conditions: {_words(_strongest(whole))}"
        if whole["p"].isna().all():
            lines.append(
                f"NO P-VALUE: {pair}: that needs two samples a side which could have had each other's condition, and "
                f"more cells are no substitute for more samples; {strongest}"
            )
            continue
        least = whole["smallest_p"].min()
        if len(found):
            at = found[found["time"] == first[condition]]
            what = "; ".join(_words(row) for _, row in at.iterrows())
            lines.append(f"DIFFERENT: {pair}, first at {first[condition]:g} ({what})")
        elif (together["p_adj"] < alpha).any():
            lines.append(f"DIFFERENT: {pair}, over all times together, at none of them by itself; {strongest}")
        elif least >= alpha:
            lines.append(
                f"CANNOT TELL: {pair}: at a single time so few samples allow no p-value below {least:.2g}, whatever "
                f"the difference; {strongest}"
            )
        else:
            lines.append(f"NO DIFFERENCE FOUND: {pair}; {strongest}")
        if len(fitted):
            what = "; ".join(_words(row) for _, row in fitted.iterrows())
            lines.append(f"  fits to each sample, which know what comes later, differ in {what}")
        if len(together):
            row = together.loc[together["p_adj"].idxmin()]
            lines.append(f"  all times together: {row['statistic']}, adjusted p {row['p_adj']:.2g}")
        n = whole["time"].nunique(), whole["statistic"].nunique()
        lines.append(
            f"  smallest p that these samples allow at a time: {least:.2g}; p-values exchange samples, never cells, "
            f"adjusted for {n[0]} time(s) and {n[1]} statistic(s); finding nothing does not prove that nothing differs"
        )
    lines += [note for note in notes if not note.startswith("CONFOUNDED")]
    return {"verdict": "\n".join(lines), "first": first}


def _strongest(whole: pd.DataFrame) -> pd.Series:
    """The row of the distance, or of another statistic, with the largest effect."""
    rows = whole[whole["statistic"] == "distance"]
    return rows.loc[rows["effect"].idxmax()]


def _sizes(whole: pd.DataFrame) -> str:
    """Samples a side, those of the times with fewest and most."""
    sides = [
        f"{n.min()}" if n.min() == n.max() else f"{n.min()} to {n.max()}" for n in (whole[c] for c in COLUMNS[5:7])
    ]
    return f"{sides[0]} against {sides[1]} samples a time"


def _words(row: pd.Series) -> str:
    """An effect with its interval, and its adjusted p-value where there is one."""
    limits = "" if np.isnan(row["low"]) else f", 95 % {row['low']:+.3g} to {row['high']:+.3g}"
    p = "" if np.isnan(row["p_adj"]) else f", adjusted p {row['p_adj']:.2g}"
    return f"{row['statistic']} at {row['time']:g} {row['effect']:+.3g}{limits}{p}"
