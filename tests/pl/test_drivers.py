"""``pl.drivers`` draws what the table says."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import wlm


@pytest.fixture
def table():
    out = pd.DataFrame(
        {
            "effect": [-0.5, 0.3, 0.1],
            "low": [-0.7, 0.2, 0.15],  # sampling pulled the last one away
            "high": [-0.3, 0.4, 0.2],
            "q": [0.01, 0.5, 0.9],
            "role": ["driver", "marker", ""],
            "tf": [True, False, False],
            "at 0": [-0.25, 0.0, 0.1],
            "at 2": [-0.75, 0.6, 0.1],
        },
        index=["SPI1", "ELANE", "ACTB"],
    )
    out.attrs = {"fate": "Monocyte", "unit": "SD", "time": "stage (day)"}
    return out


def test_bars_intervals_and_the_path_are_those_of_the_table(table):
    bars, path = wlm.pl.drivers(table)
    assert [b.get_width() for b in bars.patches] == [-0.5, 0.3, 0.1]
    assert [t.get_text() for t in bars.get_yticklabels()] == ["SPI1 *", "ELANE", "ACTB"]
    assert bars.get_ylim()[0] > bars.get_ylim()[1]  # the first on top
    ends = [segment[:, 0].tolist() for segment in bars.collections[0].get_segments()]
    assert ends == [pytest.approx([-0.7, -0.3]), pytest.approx([0.2, 0.4]), pytest.approx([0.1, 0.2])]
    assert len({b.get_facecolor() for b in bars.patches}) == 3
    image = path.images[0]
    assert np.array_equal(image.get_array(), table[["at 0", "at 2"]]) and image.get_clim() == (-0.75, 0.75)
    assert [t.get_text() for t in path.get_xticklabels()] == ["0", "2"] and path.get_xlabel() == "stage (day)"
    assert "Monocyte" in bars.get_title() and "SD" in bars.get_xlabel()
    legend = [t.get_text() for t in bars.get_figure().legends[0].get_texts()]
    assert len(legend) == 4 and legend[-1] == "* transcription factor"


def test_axes_of_ones_own_hold_the_bars_and_tables_without_intervals_have_none(table):
    figure, ax = plt.subplots()
    assert wlm.pl.drivers(table.assign(low=np.nan, high=np.nan).drop(columns="tf"), n_genes=2, ax=ax) is ax
    assert len(ax.patches) == 2 and not ax.collections and figure.axes == [ax]
    assert wlm.pl.drivers(table, return_fig=True) is not figure


def test_other_tables_are_refused(table):
    for wrong in (table.drop(columns="q"), {"effect": 1}):
        with pytest.raises(ValueError, match="run table = wlm.tl.drivers"):
            wlm.pl.drivers(wrong)
    with pytest.raises(ValueError, match="no rows"):
        wlm.pl.drivers(table.iloc[:0])
    with pytest.raises(ValueError, match="n_genes must be an integer of at least 1"):
        wlm.pl.drivers(table, n_genes=0)
