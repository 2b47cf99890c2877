"""scanpy's arguments: those of every plot on every plot, and those of cells on each plot of cells in an embedding."""

import inspect

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure

import wlm

#: Arguments that scanpy's plots of cells have.
SCANPY = (
    *("color", "groups", "palette", "cmap", "vmin", "vmax", "title", "size", "alpha", "frameon", "legend_loc"),
    *("legend_fontsize", "ncols", "figsize", "dpi", "dimensions", "use_raw", "layer", "ax", "show", "return_fig"),
)


@pytest.fixture(scope="module")
def _ready(_fitted):
    """A diagnosed fit with rates of growth and fates, labels, a layer and a raw of other values."""
    adata = _fitted.copy()
    x = adata.obsm["X_pca"]
    adata.obs["type"] = pd.Categorical(
        np.array(["a", "b", "c"])[np.digitize(x[:, 0], np.quantile(x[:, 0], [0.3, 0.6]))]
    )
    adata.raw = adata.copy()
    adata.layers["double"] = adata.X * 2
    wlm.tl.diagnose(adata)
    last = adata.obs["type"][adata.obs["day"] == 4]
    wlm.tl.terminal_states(adata, label_key="type", states=sorted(last.unique()))
    wlm.tl.fates(adata)
    return adata


@pytest.fixture(scope="module")
def _grown(_bifurcation, quick):
    adata = wlm.tl.fit(_bifurcation, "day", growth=True, copy=True, **{**quick, "n_steps": 3})
    adata.obs["type"] = pd.Categorical(np.array(["a", "b", "c"])[np.arange(adata.n_obs) % 3])
    adata.raw = adata.copy()
    adata.layers["double"] = adata.X * 2
    return adata


def scores():
    rows = [
        {"time": t, "model": m, "seed": 0, "n_observed": 9, "n_predicted": 9, "w1": w + t}
        for t in (1.0, 2.0)
        for m, w in (("wlm", 0.5), ("previous", 1.0), ("floor", 0.2))
    ]
    table = pd.DataFrame(rows)
    difference = {"model": "wlm", "baseline": "previous", "kind": "interpolation", "metric": "w1", "n_times": 2}
    table.attrs["differences"] = [difference | {"difference": -0.5, "low": -0.6, "high": -0.4}]
    return table


def effects():
    rows = [{"statistic": "mean", "name": "", "time": t, "effect": t, "low": t - 1, "high": t + 1} for t in (0.0, 1.0)]
    return pd.DataFrame(rows).assign(condition="drug", reference="control", p_adj=[0.6, 0.01])


def ranked():
    columns = {"effect": [1.0, -0.5], "low": [0.5, -1.0], "high": [1.5, 0.1], "q": [0.01, 0.5], "at 1": [1.0, 0.2]}
    return pd.DataFrame(columns | {"role": ["driver", ""], "at 2": [0.5, -0.2]}, index=["G1", "G2"])


def screened():
    rows = [
        {"perturbation": p, "statistic": "distance", "name": "", "time": 3.0, "effect": e}
        for p, e in zip("ab", (1, 2), strict=True)
    ]
    return pd.DataFrame(rows).assign(low=np.nan, high=np.nan, null_low=0.0, null_high=1.5)


#: Each plot, and how many panels it has by itself and on axes of somebody else.
def planned():
    """A table of wlm.tl.plan."""
    table = pd.DataFrame({"time": [1.0], "n_cells": [80]})
    now = np.array([0, 1, 0, 2, 0.0])
    opened = {"time": np.arange(5.0), "disagreement": now, "low": 0.5 * now, "high": 2 * now, "left": 0.1 * now}
    table.attrs = {"open": {k: v.tolist() for k, v in opened.items()}, "observed": [0.0, 2.0, 4.0]}
    table.attrs |= {"even": [3.0], "advantage": {"low": 0.1}, "time": "day"}
    return table


def sisters():
    """A table of wlm.tl.evaluate_clones."""
    table = pd.DataFrame({"model": ["wlm", "itself", "regression"], "n_cells": 60, "n_clones": 20})
    for metric in ("distance", "accuracy", "brier", "auroc", "calibration"):
        table[metric], table[f"{metric}_low"], table[f"{metric}_high"] = [0.6, 0.8, 0.5], 0.4, 0.9
    p = np.array([0.1, 0.3, np.nan, 0.7, 0.9])
    curve = {"probability": p, "share": p, "share_low": p - 0.1, "share_high": p + 0.1, "n": [9, 4, 0, 4, 9]}
    table.attrs = {"curve": {m: {k: list(v) for k, v in curve.items()} for m in table["model"]}, "labels": ["a", "b"]}
    table.attrs |= {"start": 1.0, "end": 2.0, "time": "day"}
    return table


PLOTS = {
    "rollout": (lambda a, g, **k: wlm.pl.rollout(a, times=[2], **k), 3, 3),
    "velocity": (lambda a, g, **k: wlm.pl.velocity(a, **k), 1, 1),
    "potential": (lambda a, g, **k: wlm.pl.potential(a, **k), 1, 1),
    "growth": (lambda a, g, **k: wlm.pl.growth(g, **k), 1, 1),
    "fate_probabilities": (lambda a, g, **k: wlm.pl.fate_probabilities(a, **k), 2, 2),
    "composition": (lambda a, g, **k: wlm.pl.composition(a, "type", n_cells=20, **k), 1, 1),
    "fates": (lambda a, g, **k: wlm.pl.fates(a, "type", **k), 1, 1),
    "genes": (lambda a, g, **k: wlm.pl.genes(a, "gene003", n_cells=20, **k), 1, 1),
    "training": (lambda a, g, **k: wlm.pl.training(a, **k), 2, 1),
    "friction": (lambda a, g, **k: wlm.pl.friction(a, **k), 1, 1),
    "energy": (lambda a, g, **k: wlm.pl.energy(a, **k), 1, 1),
    "evaluation": (lambda a, g, **k: wlm.pl.evaluation(scores(), **k), 2, 1),
    "comparison": (lambda a, g, **k: wlm.pl.comparison(effects(), **k), 1, 1),
    "drivers": (lambda a, g, **k: wlm.pl.drivers(ranked(), **k), 2, 1),
    "perturbation": (lambda a, g, **k: wlm.pl.perturbation(screened(), **k), 1, 1),
    "plan": (lambda a, g, **k: wlm.pl.plan(planned(), **k), 1, 1),
    "clones": (lambda a, g, **k: wlm.pl.clones(sisters(), **k), 2, 1),
}
every_plot = pytest.mark.parametrize("name", PLOTS)


@pytest.fixture
def draw(_ready, _grown, name):
    return lambda **style: PLOTS[name][0](_ready, _grown, **style)


def axes_of(found):
    return found if isinstance(found, list) else [found]


@every_plot
def test_every_plot_takes_what_every_plot_takes(name, draw):
    figure = draw(return_fig=True, figsize=(7, 6), dpi=70, frameon=False)
    assert isinstance(figure, Figure) and figure.get_size_inches().tolist() == [7, 6] and figure.dpi == 70
    drawn = [ax for ax in figure.axes if ax.get_visible() and ax.get_label() != "<colorbar>"]
    assert len(drawn) >= PLOTS[name][1]
    for ax in drawn[: PLOTS[name][1]]:
        assert not ax.axison or not any(s.get_visible() for s in ax.spines.values())
    for ax in axes_of(draw(frameon=True))[:1]:
        assert ax.axison and all(s.get_visible() for s in ax.spines.values())
    assert draw(show=True) is None
    found = draw(show=False, title="a title of one's own")
    assert isinstance(found, Axes) or (isinstance(found, list) and all(isinstance(ax, Axes) for ax in found))
    titles = [axes_of(found)[0].figure.get_suptitle(), *(ax.get_title() for ax in axes_of(found))]
    assert "a title of one's own" in [t.split("\n")[0] for t in titles]


@every_plot
def test_every_plot_draws_on_axes_of_somebody_else(name, draw):
    n = PLOTS[name][2]
    figure, grid = plt.subplots(1, n, squeeze=False)
    size = figure.get_size_inches().tolist()
    titles = [f"title {k}" for k in range(n)]
    found = axes_of(draw(ax=grid[0, 0] if n == 1 else grid[0], title=titles))
    assert set(found) >= set(grid[0]) and all(ax.figure is figure for ax in found)
    assert [ax.get_title().split("\n")[0] for ax in grid[0]] == titles
    assert plt.get_fignums() == [figure.number] and figure.get_size_inches().tolist() == size
    for call in ({"figsize": (3, 3)}, {"dpi": 50}):
        with pytest.raises(ValueError, match="is of a new figure, and ax= has its own"):
            draw(ax=grid[0], **call)
    with pytest.raises(TypeError, match="ax must be axes"):
        draw(ax=figure)
    with pytest.raises(ValueError, match=f"ax must hold {n} axes"):
        draw(ax=[*grid[0], *grid[0]])
    assert len(plt.get_fignums()) == 1, "what is refused leaves no figure"


@every_plot
def test_every_plot_says_how_to_save_and_what_was_meant(name, draw):
    with pytest.raises(TypeError, match=rf"pl.{name} writes no files; .*\.figure\.savefig\('figure.png'\)"):
        draw(save="x.png")
    with pytest.raises(TypeError, match="no argument 'titel'; did you mean title="):
        draw(titel="x")
    known = inspect.signature(getattr(wlm.pl, name)).parameters
    assert {"title", "figsize", "dpi", "frameon", "ax", "show", "return_fig"} <= set(known)
    for argument in set(SCANPY) - set(known):
        with pytest.raises(TypeError, match=f"{argument}= means nothing here; leave it out"):
            draw(**{argument: 1})


def test_every_public_plot_is_here():
    assert set(wlm.pl.__all__) == {*PLOTS, "animate"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"alpha": 2}, "alpha must be a number from 0 to 1"),
        ({"size": [1, 2]}, "size must be a positive number"),
        ({"dpi": 0}, "dpi must be a positive number"),
        ({"ncols": 1.5}, "ncols must be a positive integer"),
        ({"figsize": 3}, "figsize must be a width and a height"),
        ({"show": 1}, "show must be True or False"),
        ({"frameon": "no"}, "frameon must be True or False"),
        ({"cmap": "none such"}, "cmap must be a colormap"),
        ({"legend_loc": "somewhere"}, "legend_loc must be one of 'auto', 'right margin'"),
        ({"color": 3}, "color must be text"),
        ({"title": ["a", "b"]}, "title must have one for each of the 1 panels, found 2"),
        ({"dimensions": (0, 9)}, "components .* do not exist"),
        ({"dimensions": "PC1"}, "dimensions must be two dimensions"),
        ({"dimensions": (0, 2), "components": (1, 2)}, "are the same; give one"),
        ({"color": ["type", "day"], "dimensions": [(0, 1)] * 3}, "color names 2 and dimensions 3"),
        ({"groups": ["a"]}, "groups= is about labels, and there is no color="),
        ({"color": "day", "palette": "Set1"}, "palette= is about labels, and color='day'"),
        ({"color": "type", "vmin": 0}, "vmin= is about numbers, and color='type'"),
        ({"color": "day", "layer": "double"}, "layer= is about a gene, and color='day'"),
        ({"color": "type", "groups": ["z"]}, r"groups \['z'\] are no labels of obs\['type'\]"),
        ({"color": "type", "palette": ["red"]}, "palette has 1 colours for 3 labels"),
        ({"color": "type", "palette": {"a": "red"}}, "palette has no colour for 'b', 'c'"),
        ({"color": "type", "palette": ["red", "blue", "reddish"]}, "'reddish', which is no colour"),
        ({"color": "type", "palette": "none such"}, "no colormap of matplotlib"),
        ({"color": "day", "vmin": "1%"}, "percentile such as 'p99'"),
        ({"color": "day", "vmin": 9, "vmax": 1}, "vmin must be at most vmax"),
        ({"color": "day", "vmax": [1, 2], "dimensions": [(0, 1)] * 3}, None),
        ({"color": "gene003", "use_raw": True, "layer": "double"}, "from raw or from a layer"),
        ({"color": "typ"}, "neither a column of obs nor a gene; did you mean 'type'"),
        ({"color": "gene003", "layer": "none"}, "layer 'none' is missing"),
        ({"color": "day", "legend_loc": "on data"}, "is for labels of cells"),
    ],
    ids=str,
)
def test_arguments_that_mean_nothing_are_refused(_ready, call, message):
    if message is None:
        assert len(wlm.pl.velocity(_ready, **call)) == 3  # one colour, whose vmax is the first
        return
    with pytest.raises((ValueError, KeyError), match=message):
        wlm.pl.velocity(_ready, **call)


def points(name, found):
    """The cells that ``color`` colours, on the axes where they are."""
    axes = axes_of(found._fig.axes[0] if name == "animate" else found)
    ax = {"rollout": axes[1] if len(axes) > 1 else axes[0]}.get(name, axes[-1])
    shown = [c for c in ax.collections if isinstance(c, PathCollection) and len(c.get_offsets()) > 1]
    shown = [c for c in shown if len(c.get_facecolors()) + np.size(c.get_array()) > 1]
    return ax, shown[-1]


def colors(collection):
    array = collection.get_array()
    rgba = collection.get_facecolors() if array is None else collection.to_rgba(array)
    return {to_hex(c) for c in rgba}


CLOUDS = {
    "rollout": lambda a, g, **k: wlm.pl.rollout(a, times=[2], **k),
    "velocity": lambda a, g, **k: wlm.pl.velocity(a, kind="quiver", **k),
    "potential": lambda a, g, **k: wlm.pl.potential(a, forces=False, **k),
    "growth": lambda a, g, **k: wlm.pl.growth(g, **k),
    "fate_probabilities": lambda a, g, **k: wlm.pl.fate_probabilities(
        a, fate="a" if "a" in a.uns["wlm_fates"]["names"] else None, **k
    ),
    "animate": lambda a, g, **k: film(a, **k),
}


def film(adata, **style):
    made = wlm.pl.animate(adata, n_frames=2, max_cells=60, **style)
    made._draw_was_started = True
    return made


@pytest.fixture
def cloud(_ready, _grown, name):
    return lambda **style: CLOUDS[name](_ready, _grown, **style)


@pytest.fixture
def gene(_ready, _grown, name):
    return (_grown if name == "growth" else _ready).var_names[3]


every_cloud = pytest.mark.parametrize("name", CLOUDS)


@every_cloud
def test_labels_groups_and_palettes_colour_cells(name, cloud):
    palette = {"a": "#ff0000", "b": "#00ff00", "c": "#0000ff"}
    ax, drawn = points(name, cloud(color="type", palette=palette, size=33, alpha=0.5))
    assert colors(drawn) <= set(palette.values()) and len(colors(drawn)) > 1
    assert drawn.get_sizes().tolist() == [33] and drawn.get_alpha() == 0.5
    _, some = points(name, cloud(color="type", palette=palette, groups=["c"]))
    assert colors(some) <= {"#0000ff", "#d3d3d3"} and "#d3d3d3" in colors(some)
    _, named = points(name, cloud(color="type", palette="Set1"))
    assert colors(named) <= {to_hex(c) for c in plt.colormaps["Set1"].colors[:3]}


@every_cloud
def test_genes_layers_raw_and_scales_colour_cells(name, cloud, gene):
    def drawn(**style):
        return points(name, cloud(color=gene, **style))[1]

    gray = drawn(cmap="gray", vmin=-1e6, vmax=1e6)
    assert all(max(abs(np.diff(to_rgba(c)[:3]))) < 1e-6 for c in colors(gray)) and len(colors(gray)) <= 2
    by_share = drawn(cmap="gray", vmin="p10", vmax=lambda values: np.quantile(values, 0.9))
    assert len(colors(by_share)) > len(colors(gray))
    limits = {"cmap": "gray", "vmin": 0, "vmax": 20}
    assert colors(drawn(layer="double", **limits)) != colors(drawn(use_raw=True, **limits))
    assert colors(drawn(use_raw=True, **limits)) == colors(drawn(**limits))


@every_cloud
def test_dimensions_titles_frames_and_sizes_of_figures(name, cloud):
    ax, _ = points(name, cloud(dimensions=(1, 0), color="type"))
    assert ax.get_xlabel().endswith("2") and ax.get_ylabel().endswith("1")
    found = cloud(figsize=(6, 5), dpi=60, frameon=False, title="own")
    figure = found._fig if name == "animate" else axes_of(found)[0].figure
    assert figure.get_size_inches().tolist() == [6, 5] and figure.dpi == 60
    assert not figure.axes[0].axison
    titles = [figure.get_suptitle(), *(ax.get_title() for ax in figure.axes)]
    assert any(t.startswith("own") for t in titles)


@every_cloud
def test_legends_are_where_they_are_asked_to_be(name, cloud):
    def legends(found):
        figure = found._fig if name == "animate" else axes_of(found)[0].figure
        own = [ax.get_legend() for ax in figure.axes if ax.get_legend() is not None]
        return figure, [g for g in [*figure.legends, *own] if "a" in [t.get_text() for t in g.get_texts()]]

    figure, (legend,) = legends(cloud(color="type", legend_fontsize=5))
    assert {t.get_fontsize() for t in legend.get_texts()} == {5}
    _, (inside,) = legends(cloud(color="type", legend_loc="upper left"))
    assert inside.axes is not None and inside._loc == 2
    figure, (right,) = legends(cloud(color="type", legend_loc="right margin"))
    figure.canvas.draw()
    assert right.get_window_extent().x0 > max(ax.get_window_extent().x0 for ax in figure.axes)
    assert legends(cloud(color="type", legend_loc="none"))[1] == []
    assert legends(cloud(color="type", legend_loc=None))[1] == []
    figure, found = legends(cloud(color="type", legend_loc="on data", legend_fontsize=7))
    texts = [t for ax in figure.axes for t in ax.texts if t.get_text() in "abc"]
    assert found == [] and {t.get_text() for t in texts} >= {"a", "b"} and {t.get_fontsize() for t in texts} == {7}


@pytest.mark.parametrize("name", [n for n in CLOUDS if n != "animate"])
def test_lists_of_colours_and_dimensions_are_panels_in_columns(name, cloud, gene):
    def panels(**style):
        figure = axes_of(cloud(**style))[0].figure
        return [ax for ax in figure.axes if ax.get_visible() and ax.get_label() != "<colorbar>"]

    one, two = panels(color="type"), panels(color=["type", gene])
    assert len(two) > len(one)
    assert len({round(ax.get_position().x0, 2) for ax in panels(color=["type", gene], ncols=1)}) <= 2
    both = panels(dimensions=[(0, 1), (1, 0)])
    assert {ax.get_xlabel()[-1] for ax in both} == {"1", "2"}


def test_a_film_is_no_figure_and_has_one_panel(_ready):
    with pytest.raises(TypeError, match=r"writes no files; .*file='film.gif'"):
        wlm.pl.animate(_ready, save=True)
    for argument in ("return_fig", "show", "ncols"):
        with pytest.raises(TypeError, match="means nothing here"):
            wlm.pl.animate(_ready, **{argument: 1})
    with pytest.raises(ValueError, match="a film has one panel"):
        wlm.pl.animate(_ready, color=["type", "day"])


def test_signatures_and_docstrings_name_the_shared_arguments():
    for name in ("rollout", "velocity", "potential", "growth", "fate_probabilities"):
        signature = inspect.signature(getattr(wlm.pl, name))
        assert set(SCANPY) <= set(signature.parameters)
        assert signature.parameters["legend_loc"].default == "auto" and signature.parameters["title"].default is None
        doc = inspect.getdoc(getattr(wlm.pl, name))
        assert "legend_loc\n    Where the legend is" in doc and doc.index("legend_loc") < doc.index("Returns\n---")


def test_clones_of_a_file_without_labels_say_what_is_missing():
    """Of JSON a column of nothing comes back as None, not as NaN."""
    table = pd.DataFrame({"model": ["wlm"], "distance": [0.5], "distance_low": 0.4, "distance_high": 0.6})
    table = table.assign(n_clones=3, brier=[None], brier_low=[None], brier_high=[None])
    with pytest.raises(ValueError, match="no answer has a brier: it needs labels"):
        wlm.pl.clones(table, metric="brier")
