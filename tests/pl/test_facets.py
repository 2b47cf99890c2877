"""Figures of fits by condition: a panel or block of panels for each, on shared axes and colours."""

import functools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver

import wlm
from wlm._store.fit import get_fit
from wlm.pl._basis import embedding


@pytest.fixture(scope="module")
def both(_bifurcation, quick):
    """Two conditions of unlike cells: the drug has farther ones, of other types, and other numbers."""
    adata = _bifurcation[::2].copy()
    drug = np.arange(adata.n_obs) % 3 == 0
    adata.obs["arm"] = pd.Categorical(np.where(drug, "drug", "none"), categories=["none", "drug"])
    late = adata.obs["day"] == 4
    adata.obs["type"] = np.where(adata.obsm["X_pca"][:, 1] > 0, "up", "down")
    adata.obs.loc[drug & ~late & (np.arange(adata.n_obs) % 2 == 0), "type"] = "odd"
    adata.obs["dose"] = np.where(drug, 5.0, 1.0) + np.linspace(0, 1, adata.n_obs)
    wlm.tl.fit(adata, "day", condition_key="arm", growth=True, **{**quick, "n_steps": 4})
    for condition in ("none", "drug"):
        wlm.tl.terminal_states(adata, condition=condition, label_key="type", states=["down", "up"])
        wlm.tl.fates(adata, condition=condition)
        wlm.tl.diagnose(adata, condition=condition)
    return adata


PLOTS = {
    "rollout": (lambda a, **k: wlm.pl.rollout(a, times=[2], **k), 3),
    "velocity": (lambda a, **k: wlm.pl.velocity(a, kind="quiver", **k), 1),
    "potential": (lambda a, **k: wlm.pl.potential(a, **k), 1),
    "descent": (lambda a, **k: wlm.pl.potential(a, projection="1d", **k), 1),
    "surface": (lambda a, **k: wlm.pl.potential(a, projection="3d", **k), 1),
    "growth": (lambda a, **k: wlm.pl.growth(a, **k), 1),
    "fate_probabilities": (lambda a, **k: wlm.pl.fate_probabilities(a, **k), 2),
    "composition": (lambda a, **k: wlm.pl.composition(a, "type", n_cells=20, **k), 1),
    "fates": (lambda a, **k: wlm.pl.fates(a, "type", **k), 1),
    "genes": (lambda a, **k: wlm.pl.genes(a, ["gene003", "gene004"], n_cells=20, **k), 2),
    "training": (lambda a, **k: wlm.pl.training(a, **k), 3),  # with the twin
    "energy": (lambda a, **k: wlm.pl.energy(a, **k), 1),
    "friction": (lambda a, **k: wlm.pl.friction(a, **k), 1),
}
every_plot = pytest.mark.parametrize("name", PLOTS)


def listed(found):
    return found if isinstance(found, list) else [found]


@every_plot
def test_each_condition_has_its_panels_on_shared_axes(both, name):
    draw, n = PLOTS[name]
    axes = draw(both)
    assert len(axes) == 2 * n and all(isinstance(ax, Axes) and isinstance(ax.figure, Figure) for ax in axes)
    assert len({ax.figure for ax in axes}) == 1
    alone = {c: listed(draw(both, condition=c)) for c in ("none", "drug")}
    for k in range(n):
        pair = axes[k], axes[n + k]
        for along in ("x", "y", *("z" for _ in pair[:1] if name == "surface")):
            first, second = (getattr(ax, f"get_{along}lim")() for ax in pair)
            assert first == second
            ends = np.array([getattr(alone[c][k], f"get_{along}lim")() for c in alone])
            # Of embeddings, the margin is a share of the wider range.
            wide = (0.01 if name == "rollout" else 1e-6) * np.ptp(ends)
            if (name, along) not in {("training", "y"), ("surface", "z")}:
                assert first == pytest.approx((ends[:, 0].min(), ends[:, 1].max()), abs=wide + 1e-9)
    titled = [ax.get_title().split("\n")[0] for ax in axes]
    if name == "training":  # the twin axes have no title
        titled = [t for t in titled if t]
    assert titled == ["none"] * (len(titled) // 2) + ["drug"] * (len(titled) // 2)
    assert len(axes[0].figure.legends) <= 2, "one legend of all conditions, and one of points and lines"


@pytest.mark.parametrize("name", ["velocity", "growth", "rollout", "potential", "surface"])
def test_numbers_have_one_scale(both, name):
    """The colour bars of both conditions say the same, and hold what each of them alone would show."""
    extra = {"color": "dose"} if name in ("velocity", "rollout") else {}

    def bars(**style):
        figure = PLOTS[name][0](both, return_fig=True, **style, **extra)
        return [ax.get_ylim() for ax in figure.axes if ax.get_label() == "<colorbar>"]

    (first, second), alone = bars(), np.array([bars(condition=c)[0] for c in ("none", "drug")])
    assert first == pytest.approx(second)
    if name != "surface" and name != "potential":  # whose energies alone have another zero
        assert first == pytest.approx((alone[:, 0].min(), alone[:, 1].max()))
    assert bars(vmin=-3, vmax=9) == [(-3, 9)] * 2


def test_points_of_one_value_or_label_have_one_colour(both):
    for color, palette in (("type", {"up": "#ff0000", "down": "#00ff00", "odd": "#0000ff"}), ("dose", None)):
        axes = wlm.pl.rollout(both, times=[4], color=color, palette=palette)
        observed = [ax.collections[1].get_facecolors() for ax in (axes[1], axes[4])]
        shown = [{to_hex(c) for c in colors} for colors in observed]
        if palette:
            assert shown[0] <= set(palette.values()) and shown[0] == shown[1] == {"#ff0000", "#00ff00"}
            legend = next(g for g in axes[0].figure.legends if g.get_title().get_text() == "type")
            found = dict(zip([t.get_text() for t in legend.get_texts()], legend.legend_handles, strict=True))
            assert {n: to_hex(h.get_facecolor()) for n, h in found.items()} == palette
        else:  # doses of the two do not overlap, so that on one scale no colour does
            assert not shown[0] & shown[1]


def test_the_legend_has_labels_of_each_condition_in_their_order(both):
    figure = wlm.pl.composition(both, "type", n_cells=20, times=[1], min_share=0.0, return_fig=True)
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["up", "odd", "down", "left: predicted", "right: observed"]


def test_arrows_are_as_long_for_the_same_speed(both):
    axes = wlm.pl.velocity(both, kind="quiver")
    scales = [one.scale for ax in axes for one in ax.collections if isinstance(one, Quiver)]
    alone = [
        one.scale
        for c in ("none", "drug")
        for one in wlm.pl.velocity(both, kind="quiver", condition=c).collections
        if isinstance(one, Quiver)
    ]
    assert len(set(alone)) == 2 and scales == [max(alone)] * 2


def test_energies_of_several_fits_are_less_their_means(both):
    axes = wlm.pl.potential(both, forces=False)
    labels = [ax.get_ylabel() for ax in axes[0].figure.axes if ax.get_label() == "<colorbar>"]
    assert len(labels) == 2 and all(label.endswith("less the mean of each condition") for label in labels)
    levels = [ax.collections[0].levels for ax in axes]
    assert np.array_equal(*levels)
    for c, ax in zip(("none", "drug"), axes, strict=True):
        own = both.obs["wlm_potential"][both.obs["arm"] == c]
        assert levels[0][0] < own.min() - own.mean() + 0.5 * np.ptp(own) < levels[0][-1], ax.get_title()


def test_what_lies_beyond_is_counted_on_the_shared_axes(both):
    """Of the smaller condition alone more cells lie beyond the axes than on those that hold both."""
    drug, every = both[both.obs["arm"] == "drug"].copy(), both.obsm["X_pca"][:, :2]
    fit = get_fit(drug, "wlm_drug", None)
    assert embedding(drug, fit, None, (0, 1)).beyond(every) > 0
    shared = embedding(drug, fit, None, (0, 1), both)
    assert shared.beyond(every) == 0 and len(shared.points) == drug.n_obs
    low, high = shared.limits
    for ax in wlm.pl.rollout(both, times=[2]):
        assert (*ax.get_xlim(), *ax.get_ylim()) == pytest.approx((low[0], high[0], low[1], high[1]))


def test_titles_axes_and_columns_are_those_of_several_panels(both):
    draw = functools.partial(wlm.pl.velocity, kind="quiver")
    figure, grid = plt.subplots(1, 2)
    assert draw(both, ax=grid) == list(grid) and [ax.get_title() for ax in grid] == ["none", "drug"]
    assert draw(both, ax=grid, title=["A", "B"]) == list(grid)
    assert [ax.get_title() for ax in grid] == ["A", "B"]
    with pytest.raises(ValueError, match="as many axes for each of the 2 conditions; found 1"):
        draw(both, ax=grid[0])
    figure = draw(both, title="all", ncols=1, figsize=(4, 7), dpi=50, return_fig=True)
    assert figure.get_suptitle() == "all" and figure.get_size_inches().tolist() == [4, 7] and figure.dpi == 50
    top, bottom = (ax for ax in figure.axes if ax.get_label() != "<colorbar>")
    assert top.get_position().y0 > bottom.get_position().y1
    assert draw(both, show=True) is None
    n = len(plt.get_fignums())
    with pytest.raises(KeyError, match="color 'typ' is missing"):
        draw(both, color="typ")
    broken = both.copy()
    del broken.uns["wlm_drug_fates"]
    with pytest.raises(KeyError, match="wlm_drug_fates"):
        wlm.pl.fate_probabilities(broken)
    assert len(plt.get_fignums()) == n, "what is refused leaves no figure"


def test_titles_stand_above_what_is_written_over_the_axes(both):
    for ax in wlm.pl.fates(both, "type"):
        figure = ax.figure
        figure.canvas.draw()
        renderer = figure.canvas.get_renderer()
        below = max(text.get_window_extent(renderer).y1 for text in ax.texts)
        assert ax.title.get_window_extent(renderer).y0 >= below - 1


def test_films_tables_and_wrong_names_are_of_one_condition(both):
    with pytest.raises(ValueError, match="choose one: key='wlm_none' or key='wlm_drug', the same as condition='none'"):
        wlm.pl.animate(both, n_frames=2)
    assert len(wlm.pl.animate(both, n_frames=2, condition="drug", max_cells=20)._fig.axes) > 0
    with pytest.raises(ValueError, match="condition 'placebo' has no fit"):
        wlm.pl.velocity(both, condition="placebo")
    table = wlm.tl.composition(both, "type", [2], condition="drug", n_cells=10)
    with pytest.raises(ValueError, match="and this is a table"):
        wlm.pl.composition(table, condition="drug")
