"""What holds for every plot."""

import matplotlib.pyplot as plt
import pytest


@pytest.fixture(autouse=True)
def no_figures_left():
    rc = dict(plt.rcParams)
    yield
    plt.close("all")
    assert dict(plt.rcParams) == rc
