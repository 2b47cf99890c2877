"""Tables of verbs that keep nothing in the object, and the back-test of forecasts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from wlm._report.blocks import LeftOut, Listing, Table, Words
from wlm._report.figures import picture
from wlm._report.subject import Subject
from wlm._report.words import glossary, objects
from wlm._store.words import at, number, percent
from wlm.pl import comparison as draw_comparison
from wlm.pl import evaluation as draw_evaluation


def scorecard(s: Subject) -> list[Any]:
    """The table of ``wlm.tl.evaluate``, and how many held-out cells the bands held."""
    blocks: list[Any] = []
    table = s.tables.get("evaluate")
    covered = s.fit.uns.get("coverage")
    run = f"table = wlm.tl.evaluate({objects(s)}, {s.fit.time_key!r}); wlm.report(..., evaluation=table)"
    if table is None and covered is None:
        raise LeftOut(
            "no scores were given: whether the model beats answers that need none is open, so do not rely on its "
            "predictions yet",
            run,
        )
    if table is not None:
        verdict = [line for line in str(table.attrs.get("verdict", "")).splitlines() if line]
        blocks.append(Listing(verdict) if verdict else Words("The table came without a verdict.", "note"))
        blocks += glossary("groups" if "group" in table else "evaluate", verdict or sorted(set(table["model"])))
        for part, name in _by_condition(table):
            blocks.append(
                picture(
                    *(draw_evaluation, part),
                    alt=f"Scores of the model and of naive answers at each held-out time{name}.",
                    caption=f"Scores at each held-out time{name}: lower is better. Grey markers need no model.",
                )
            )
        blocks.append(Table(table, "scores", "Scores by held-out time, model and seed"))
        if table.attrs.get("differences"):
            frame = pd.DataFrame(table.attrs["differences"])
            blocks.append(Table(frame, "score_differences", "Differences to the answers that need no model"))
    else:
        blocks.append(Words(f"No scores beside naive answers were given; run {run}", "note"))
    if covered is not None:
        blocks += _coverage(s, covered)
    return blocks


def _coverage(s: Subject, covered: Mapping[str, Any]) -> list[Any]:
    names = ("times", "lead", "measured")
    table = pd.DataFrame({name: np.asarray(covered[name], dtype=float) for name in names})
    nominal = float(covered["nominal"])
    text = (
        f"Bands that should hold {percent(nominal)} of the held-out cells, in each dimension by itself, held "
        f"{percent(table['measured'].mean())} of them."
    )
    tone = "good" if table["measured"].mean() >= nominal - 0.1 else "bad"
    return [
        Words(text, tone),
        Table(table.rename(columns={"times": s.fit.time_key}), "coverage", "Held-out cells within the bands"),
    ]


def _by_condition(table: pd.DataFrame) -> list[tuple[pd.DataFrame, str]]:
    """The table, or that of each condition."""
    if "condition" not in table:
        return [(table, "")]
    return [(table[table["condition"] == name], f" of {name}") for name in dict.fromkeys(table["condition"])]


def forecast(s: Subject) -> list[Any]:
    """The back-test: the last training time, predicted from the others."""
    note = s.fit.uns.get("forecast")
    if note is None:
        reason = (
            "forecasts of fits with growth are those of the model, without a back-test"
            if s.fit.dynamics.grows
            else "the fit made no back-test: it was switched off (backtest=False), there are fewer than three training "
            "times, or the last one is far from the others"
        )
        raise LeftOut(reason)
    words = str(note["words"])
    naive = float(note["share"]) == 0
    frame = forecast_table(note)
    return [
        Words(words[:1].upper() + words[1:] + ".", "bad" if naive else "good"),
        Words(
            f"This rests on one time, {at(s.fit, float(note['time']))}, {float(note['lead']):g} after the one before. "
            "Forecasts that are farther ahead than that were not tested.",
            "note",
        ),
        picture(
            *(_draw_paces, note),
            unit=f"{s.fit.use_rep} units",
            alt="W1 to the cells of the last training time by pace, a line for each way to lead the cells.",
            caption=f"The last training time, {at(s.fit, float(note['time']))}, predicted from the others: lower is "
            "better. A pace of 0 is a copy of the cells before.",
        ),
        Table(frame, "forecast_backtest", "W1 to the last training time by leader and pace", rows=30),
    ]


def forecast_table(note: Mapping[str, Any]) -> pd.DataFrame:
    """The scores of the back-test, a row for each leader and pace."""
    w1 = np.asarray(note["w1"], dtype=float)
    paces = np.asarray(note["pace"], dtype=float)
    return pd.DataFrame(
        [(str(name), pace, w1[i, k]) for i, name in enumerate(note["names"]) for k, pace in enumerate(paces)],
        columns=["led by", "pace", "w1"],
    )


def _draw_paces(note: Mapping[str, Any], *, unit: str, show: bool, return_fig: bool) -> Any:
    """W1 by pace."""
    figure, ax = plt.subplots(figsize=(4.6, 3), layout="constrained")
    for (name, part), color, marker in zip(
        forecast_table(note).groupby("led by", sort=False), ("#0072B2", "#D55E00", "#009E73"), "os^", strict=False
    ):
        ax.plot(part["pace"], part["w1"], marker=marker, color=color, lw=1.6, label=str(name))
    ax.axhline(float(np.asarray(note["w1"])[0, 0]), color="0.5", lw=0.8, ls="--", label="copy of the cells before")
    ax.set(xlabel="share of the pace", ylabel=f"W1 ({unit})", ylim=(0, None))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def comparison(s: Subject) -> list[Any]:
    """The table of ``wlm.tl.compare``."""
    table = s.tables.get("compare")
    if table is None:
        raise LeftOut(
            "no comparison was given",
            f"table = wlm.tl.compare({objects(s)}, {s.fit.time_key!r}, condition_key, sample_key=...); "
            "wlm.report(..., comparison=table)",
        )
    alpha = float(table.attrs.get("alpha", 0.05))
    sure = int((table["p_adj"] < alpha).sum())
    verdict = [line for line in str(table.attrs.get("verdict", "")).splitlines() if line]
    return [
        Listing(verdict) if verdict else Words(f"{sure} of {len(table)} effects have an adjusted p below {alpha:g}."),
        *glossary("compare", verdict),
        picture(
            *(draw_comparison, table),
            alt="Effects of the conditions over time with intervals, a panel for each statistic.",
            caption=f"Effects over time with 95 % intervals over samples; filled: adjusted p below {number(alpha)}.",
        ),
        Table(table, "comparison", "What differs between the conditions"),
    ]
