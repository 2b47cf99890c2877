"""``pl.plan`` draws what the table says."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import wlm


@pytest.fixture
def table():
    out = pd.DataFrame({"time": [3.0, 1.0], "n_cells": [1200, 80]})
    t = np.arange(5.0)
    now = np.array([0, 1, 0, 2, 0.0])
    opened = {"time": t, "disagreement": now, "low": 0.5 * now, "high": 2 * now, "left": 0.1 * now}
    out.attrs = {"open": {k: v.tolist() for k, v in opened.items()}, "observed": [0.0, 2.0, 4.0]}
    out.attrs |= {"even": [1.0, 3.0], "advantage": {"low": 0.1}, "time": "stage (day)"}
    return out


def test_the_disagreement_the_picks_and_even_spacing(table):
    ax = wlm.pl.plan(table)
    now, left = ax.lines
    assert now.get_ydata().tolist() == [0, 1, 0, 2, 0] and left.get_ydata().tolist() == [0, 0.1, 0, 0.2, 0]
    marks = [c.get_offsets().data[:, 0].tolist() for c in ax.collections if len(c.get_offsets()) == 2]
    assert [3.0, 1.0] in marks and [1.0, 3.0] in marks
    assert [t.get_text() for t in ax.texts] == ["1: 3\n1,200 cells", "2: 1\n80 cells"]
    assert ax.get_xlabel() == "stage (day)" and "sliced W2" in ax.get_ylabel()
    assert ax.get_title() == "picks gain more than evenly spaced"
    plt.close("all")


def test_the_title_says_where_even_spacing_is_as_good(table):
    table.attrs["advantage"] = {"low": -0.1}
    figure, ax = plt.subplots()
    assert wlm.pl.plan(table, ax=ax) is ax and ax.get_title() == "evenly spaced is as good"
    plt.close("all")


def test_another_table_is_refused(table):
    with pytest.raises(ValueError, match=r"run table = wlm\.tl\.plan"):
        wlm.pl.plan(pd.DataFrame({"time": [1.0], "n_cells": [1]}))
