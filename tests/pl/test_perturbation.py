"""``pl.perturbation`` draws what a perturbation and a screen say."""

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import wlm


def rows_of(effects, statistic, names, time):
    return [
        {"statistic": statistic, "name": n, "time": time, "effect": e, "low": e - 0.1, "high": e + 0.1}
        | {"null_low": -0.3, "null_high": 0.3, "p": 0.05 if abs(e) > 0.3 else 0.5}
        for n, e in zip(names, effects, strict=True)
    ]


@pytest.fixture
def perturbed():
    rows = []
    for time, more in ((2.0, 0.0), (4.0, 0.2)):
        rows += rows_of([1.5 + more], "distance", [""], time)
        rows += rows_of([0.3 + more, -0.3 - more], "composition", ["A", "B"], time)
        rows += rows_of(np.linspace(-1, 0.95, 20), "genes", [f"g{i}" for i in range(20)], time)
    table = pd.DataFrame(rows)
    note = {"genes": np.array(["g0"], dtype=object), "before": np.array([1.0]), "levels": np.array([0.2]), "at": 1.0}
    note["effects"] = {c: table[c].to_numpy() for c in table}
    return ad.AnnData(np.zeros((1, 0)), uns={"wlm_perturbation": note})


@pytest.fixture
def screen(perturbed):
    table = pd.DataFrame(perturbed.uns["wlm_perturbation"]["effects"])
    table = table[table["statistic"] != "genes"]
    return pd.concat([table.assign(perturbation="g0 up"), table.assign(perturbation="g1 up", effect=-table["effect"])])


def drawn(ax):
    """The effect by the label at its height, from above, and the faces of the points."""
    points = [c for c in ax.collections if len(c.get_offsets()) > 0 and not hasattr(c, "get_segments")][0]
    names = {label.get_position()[1]: label.get_text() for label in ax.get_yticklabels()}
    return {names[y]: round(float(x), 6) for x, y in points.get_offsets().data}, points.get_facecolor()


def test_labels_and_the_genes_that_change_most(perturbed):
    labels, genes = wlm.pl.perturbation(perturbed)
    found, faces = drawn(labels)
    assert found == {"A": 0.5, "B": -0.5} and labels.get_xlabel() == "change in share of cells"
    found, faces = drawn(genes)
    assert list(found)[:2] == ["g0", "g19"] and len(found) == 10 and found["g0"] == -1
    assert labels.figure.get_suptitle() == "g0 1 → 0.2 at 1, seen at 4"
    assert [p.get_width() for p in labels.patches] == pytest.approx([0.6, 0.6])


def test_points_are_filled_beyond_random_genes_only(perturbed):
    axes = wlm.pl.perturbation(perturbed, time=2, n_genes=20)
    _, faces = drawn(axes[0])
    assert (faces == 1).all(), "0.3 is not beyond 0.3"
    found, faces = drawn(axes[1])
    beyond = np.abs(list(found.values())) > 0.3
    assert ((faces != 1).any(axis=1) == beyond).all() and beyond.any() and not beyond.all()


def test_a_screen_is_ordered_by_its_effect_on_one_label(screen):
    ax = wlm.pl.perturbation(screen, name="A")
    found, _ = drawn(ax)
    assert found == {"g1 up": -0.5, "g0 up": 0.5} and ax.get_xlabel() == "change in share of A"
    assert wlm.pl.perturbation(screen, name="").get_xlabel().startswith("W1")


def test_given_axes_hold_the_labels_alone_and_legends_stay_inside(perturbed):
    figure, ax = plt.subplots()
    assert wlm.pl.perturbation(perturbed, ax=ax) is ax and not figure.legends
    figure = wlm.pl.perturbation(perturbed, return_fig=True)
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
    assert not any(box.overlaps(a.get_tightbbox()) for a in figure.axes)


def test_what_is_none_is_refused(perturbed, screen):
    with pytest.raises(ValueError, match="what wlm.tl.perturb returns"):
        wlm.pl.perturbation(screen.drop(columns="perturbation"))
    with pytest.raises(KeyError, match="'other_perturbation'"):
        wlm.pl.perturbation(perturbed, key="other")
    with pytest.raises(ValueError, match="time 3 was not predicted"):
        wlm.pl.perturbation(perturbed, time=3)
    with pytest.raises(KeyError, match="'C' is no label"):
        wlm.pl.perturbation(screen, name="C")
    with pytest.raises(ValueError, match="name chooses the label of a screen"):
        wlm.pl.perturbation(perturbed, name="A")
