"""What holds for every report."""

import matplotlib.pyplot as plt
import pytest


@pytest.fixture(autouse=True)
def no_figures_left():
    rc, interactive = dict(plt.rcParams), plt.isinteractive()
    yield
    assert not plt.get_fignums()
    assert dict(plt.rcParams) == rc and plt.isinteractive() == interactive
