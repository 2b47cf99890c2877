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
    assert scores.get_xlabel() == "held-out stage (embryonic day)"
    assert scores.get_ylabel().startswith("W1") and [t.get_text() for t in scores.get_xticklabels()] == ["1", "2.5"]
    names = [t.get_text() for t in scores.get_legend().get_texts()]
    assert names == ["floor (half against half)", "previous time", "wlm", "ijkonet"]
    drawn = np.concatenate([c.get_offsets().data[:, 1] for c in scores.collections if isinstance(c, PathCollection)])
    assert set(np.round(drawn, 6)) >= set(np.round(table.loc[table["model"] != "floor", "w1"], 6))
    assert [t.get_text() for t in differences.get_yticklabels()] == ["wlm - previous time", "ijkonet - previous time"]
    assert differences.lines[0].get_xdata().tolist() == [-2, 1]
    # The same method has the same colour on both sides.
    handle = scores.get_legend().legend_handles[names.index("wlm")]
    assert np.allclose(
        np.ravel(handle.get_edgecolor())[:3], plt.matplotlib.colors.to_rgb(differences.lines[0].get_color())
    )


def test_a_part_of_the_table_is_drawn_without_what_it_lacks(table):
    scores, differences = wlm.pl.evaluation(table[table["model"] != "ijkonet"])
    assert [t.get_text() for t in differences.get_yticklabels()] == ["wlm - previous time"]
    assert not isinstance(wlm.pl.evaluation(table[table["time"] == 1]), np.ndarray), "differences are over other times"


def test_another_metric_and_given_axes(table):
    figure, ax = plt.subplots()
    assert wlm.pl.evaluation(table, metric="coverage", ax=ax) is ax and ax.get_ylabel() == "coverage"
    assert wlm.pl.evaluation(table, metric="coverage", return_fig=True).axes[0].get_ylabel() == "coverage"


def test_other_tables_are_refused(table):
    with pytest.raises(ValueError, match="what wlm.tl.evaluate returns"):
        wlm.pl.evaluation(table.drop(columns="seed"))
    with pytest.raises(KeyError, match="metric 'mmd' is not in the table"):
        wlm.pl.evaluation(table, metric="mmd")
    with pytest.raises(ValueError, match="one condition at a time"):
        wlm.pl.evaluation(table.assign(condition=["a", "b"] * 5))
