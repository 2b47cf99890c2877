"""``pl.evaluation`` draws what the table says."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection

import wlm


@pytest.fixture
def table():
    rows = [
        {"time": t, "model": model, "seed": seed, "n_observed": 50, "n_predicted": 50, "w1": value + t, "coverage": 0.9}
        for t in (1.0, 2.5)
        for model, seeds, value in (("wlm", 2, 0.5), ("ijkonet", 1, 0.7), ("previous", 1, 2), ("floor", 1, 0.3))
        for seed in range(seeds)
    ]
    out = pd.DataFrame(rows)
    out.attrs["differences"] = [
        {
            "model": m,
            "baseline": "previous",
            "kind": "forecast",
            "metric": "w1",
            "n_times": 2,
            "difference": -1,
            "low": -2,
            "high": 1,
        }
        for m in ("wlm", "ijkonet")
    ]
    return out


def test_scores_baselines_floor_and_intervals_are_drawn(table):
    table.attrs["time"] = "stage (embryonic day)"
    scores, differences = wlm.pl.evaluation(table)
    assert scores.get_xlabel().startswith("held-out stage (embryonic day)")
    assert scores.get_ylabel() == "W1, % of the best naive answer"
    assert [t.get_text() for t in scores.get_xticklabels()] == ["1\n3", "2.5\n4.5"], "times, and what 100 % are"
    (legend,) = scores.figure.legends
    names = [t.get_text() for t in legend.get_texts()]
    assert names == ["floor (half against half)", "previous time", "wlm", "ijkonet"]
    drawn = np.concatenate([c.get_offsets().data[:, 1] for c in scores.collections if isinstance(c, PathCollection)])
    best = table["time"].map({1.0: 3.0, 2.5: 4.5})
    assert set(np.round(drawn, 6)) >= set(np.round((100 * table["w1"] / best)[table["model"] != "floor"], 6))
    labels = ["wlm - previous time, decides", "ijkonet - previous time, decides"]
    assert [t.get_text() for t in differences.get_yticklabels()] == labels
    assert differences.lines[0].get_xdata() == pytest.approx([-200 / 3.75, 100 / 3.75]), "of the mean of the best"
    # The same method has the same colour on both sides.
    handle = legend.legend_handles[names.index("wlm")]
    assert np.allclose(
        np.ravel(handle.get_edgecolor())[:3], plt.matplotlib.colors.to_rgb(differences.lines[0].get_color())
    )


def test_a_part_of_the_table_is_drawn_without_what_it_lacks(table):
    scores, differences = wlm.pl.evaluation(table[table["model"] != "ijkonet"])
    assert [t.get_text() for t in differences.get_yticklabels()] == ["wlm - previous time, decides"]
    assert not isinstance(wlm.pl.evaluation(table[table["time"] == 1]), list), "differences are over other times"


def test_another_metric_and_given_axes(table):
    figure, ax = plt.subplots()
    assert wlm.pl.evaluation(table, metric="coverage", ax=ax) is ax and ax.get_ylabel() == "coverage"
    assert wlm.pl.evaluation(table, metric="coverage", return_fig=True).axes[0].get_ylabel() == "coverage"


def test_other_tables_are_refused(table):
    with pytest.raises(ValueError, match="what wlm.tl.evaluate returns"):
        wlm.pl.evaluation(table.drop(columns="seed"))
    with pytest.raises(KeyError, match="metric 'mmd' is not in the table"):
        wlm.pl.evaluation(table, metric="mmd")
    with pytest.raises(ValueError, match="condition 'a' is not in the table, which has none"):
        wlm.pl.evaluation(table, condition="a")


def test_conditions_have_panels_with_the_same_axes_and_colours(table):
    more = table.assign(w1=table["w1"] * np.where(table["model"] == "wlm", 3, 1))
    both = pd.concat([table.assign(condition="a"), more.assign(condition="b")], ignore_index=True)
    both.attrs["differences"] = [
        {"condition": c, **row} for c in ("a", "b") for row in table.attrs.get("differences", [])
    ]
    axes = wlm.pl.evaluation(both)
    n = len(axes) // 2
    assert n == len(np.ravel(wlm.pl.evaluation(both, condition="b")))
    assert [ax.get_title() for ax in axes] == ["a"] * n + ["b"] * n
    assert axes[0].get_ylim() == axes[n].get_ylim() and len(axes[0].figure.legends) == 1
    alone = [np.ravel(wlm.pl.evaluation(both, condition=c))[0].get_ylim()[1] for c in ("a", "b")]
    assert axes[0].get_ylim()[1] == pytest.approx(max(alone)) and alone[0] != alone[1]
    if n == 2:
        assert axes[1].get_xlim() == axes[3].get_xlim()


def test_samples_left_out_are_compared_by_their_own_means():
    """Sample a has three times and b one: each counts once, as in the verdict."""
    scores = {"wlm": (1.0, 9.0), "previous": (2.0, 16.0), "others": (6.0, 10.0)}
    rows = [
        {"group": g, "time": t, "model": m, "seed": 0, "n_observed": 9, "n_predicted": 9, "w1": own[g == "b"]}
        for m, own in scores.items()
        for g, times in (("a", (1.0, 2.0, 3.0)), ("b", (3.0,)))
        for t in times
    ]
    table = pd.DataFrame(rows)
    from wlm.tl._groups import differences

    table.attrs["differences"] = differences(table, ["wlm"], "w1")
    left, right = wlm.pl.evaluation(table)
    # Over groups: wlm 5, previous 9, others 8. Over rows previous (5.5) would be better than others (7).
    assert [t.get_text() for t in right.get_yticklabels()] == [
        "wlm - previous time",
        "wlm - other samples, decides",
    ]
    drawn = [c.get_offsets()[0, 0] for c in right.collections]
    assert drawn == pytest.approx([100 * (5 - 9) / 8, 100 * (5 - 8) / 8])
    # At time 3, means over the samples: previous 9 and others 8, not the least score of any sample, 2.
    assert [t.get_text() for t in left.get_xticklabels()] == ["1\n2", "2\n2", "3\n8"]


def test_the_answer_with_the_best_mean_decides_and_metrics_without_a_scale_are_drawn_as_they_are(table):
    more = table[table["model"] == "previous"].assign(model="ot_midpoint", w1=lambda rows: rows["w1"] - 1)
    whole = pd.concat([table, more], ignore_index=True)
    whole.attrs["differences"] = [
        {"model": "wlm", "baseline": b, "kind": "forecast", "metric": "w1", "n_times": 2}
        | {"difference": d, "low": d - 0.5, "high": d + 0.5}
        for b, d in (("previous", -1.5), ("ot_midpoint", -0.5))
    ]
    _, right = wlm.pl.evaluation(whole)
    labels = [t.get_text() for t in right.get_yticklabels()]
    assert labels == ["wlm - previous time", "wlm - OT midpoint, decides"]
    assert right.lines[1].get_linewidth() > right.lines[0].get_linewidth()
    assert right.lines[1].get_xdata() == pytest.approx([-100 / 2.75, 0]), "per cent of the mean score of the best"
    scores, right = wlm.pl.evaluation(whole.assign(w1=whole["w1"] - 5))
    assert scores.get_ylabel() == "W1 (units of the embedding)" and "%" not in right.get_xlabel().split("\n")[0]
    assert right.lines[1].get_xdata() == pytest.approx([-1, 0])


def test_a_model_has_one_colour_whatever_it_is_drawn_with(table):
    def color(ax, name):
        texts = [t.get_text() for t in ax.figure.legends[0].get_texts()]
        return tuple(np.ravel(ax.figure.legends[0].legend_handles[texts.index(name)].get_edgecolor()))

    whole, alone = (wlm.pl.evaluation(t)[0] for t in (table, table[table["model"] != "wlm"]))
    assert color(whole, "ijkonet") == color(alone, "ijkonet") != color(whole, "wlm")
    own = table.replace({"model": {"wlm": "long", "ijkonet": "short"}})
    own.attrs = {}
    found = [color(wlm.pl.evaluation(t), "short") for t in (own, own[own["model"] != "long"])]
    assert found[0] == found[1]
