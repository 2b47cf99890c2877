"""``pl.comparison`` draws what the table says."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import wlm


@pytest.fixture
def table():
    rows = [
        {"condition": c, "reference": "control", "statistic": s, "name": n, "time": t, "effect": t + k}
        | {"low": t + k - 0.5, "high": t + k + 0.5, "p_adj": 0.01 if t == 2 else 0.5}
        for k, c in enumerate(("drug", "sham"))
        for s, names in (("distance", [""]), ("mean", ["", "PC1", "PC2"]))
        for n in names
        for t in (np.nan, 0.0, 1.0, 2.0)
    ]
    out = pd.DataFrame(rows)
    out.attrs |= {"time": "stage (embryonic day)", "alpha": 0.05}
    return out


def test_a_panel_for_each_statistic_with_effects_intervals_and_what_is_sure(table):
    distance, mean = wlm.pl.comparison(table)
    assert distance.get_title() == "observed cells" and mean.get_title() == "means of the components"
    assert distance.get_xlabel() == "stage (embryonic day)" and "units of the embedding" in distance.get_ylabel()
    drug, sham = [c for c in distance.collections if len(c.get_offsets()) == 3]
    assert drug.get_offsets().data[:, 1].tolist() == [0, 1, 2] and sham.get_offsets().data[:, 1].tolist() == [1, 2, 3]
    assert not np.allclose(drug.get_facecolor()[0], drug.get_facecolor()[2]), "hollow where it is not sure"
    lines = [c for c in distance.collections if hasattr(c, "get_segments") and len(c.get_segments()) == 3]
    assert [s[:, 1].tolist() for s in lines[0].get_segments()] == [[-0.5, 0.5], [0.5, 1.5], [1.5, 2.5]]
    names = [t.get_text() for t in distance.figure.legends[0].get_texts()]
    assert names == [f"{c} against control, {w}" for c in ("drug", "sham") for w in ("adjusted p < 0.05", "not sure")]


def test_one_statistic_and_one_name(table):
    figure, ax = plt.subplots()
    assert wlm.pl.comparison(table, statistic="mean", name="PC2", ax=ax) is ax and ax.get_title() == "PC2"
    assert ax.get_legend() is not None and not figure.legends
    assert len(wlm.pl.comparison(table, statistic="distance", return_fig=True).axes) == 1


def test_legends_stay_within_figures(table):
    for statistic in (None, "mean"):
        figure = wlm.pl.comparison(table, statistic=statistic, return_fig=True)
        figure.canvas.draw()
        box = figure.legends[0].get_window_extent()
        assert (
            box.x0 >= 0 and box.x1 <= figure.bbox.x1 and not any(box.overlaps(a.get_tightbbox()) for a in figure.axes)
        )


def test_other_tables_are_refused(table):
    with pytest.raises(ValueError, match="what wlm.tl.compare returns"):
        wlm.pl.comparison(table.drop(columns="p_adj"))
    with pytest.raises(KeyError, match="statistic 'speed' is not in the table"):
        wlm.pl.comparison(table, statistic="speed")
    with pytest.raises(KeyError, match="'PC9' is no name of 'mean'"):
        wlm.pl.comparison(table, statistic="mean", name="PC9")
    with pytest.raises(ValueError, match="name the statistic too"):
        wlm.pl.comparison(table, name="PC1")
    with pytest.raises(ValueError, match="ax must hold"):
        wlm.pl.comparison(table, ax=plt.subplots()[1])
