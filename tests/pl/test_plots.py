"""Plots: what is drawn, options, and that nothing is left behind or written."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

import wlm


@pytest.fixture(autouse=True)
def no_figures_left():
    rc = dict(plt.rcParams)
    yield
    plt.close("all")
    assert dict(plt.rcParams) == rc


def test_rollout_has_a_panel_for_each_time_and_one_for_paths(fitted):
    figure = wlm.pl.rollout(fitted, return_fig=True)
    panels = [a for a in figure.axes if a.get_visible()]
    titles = [a.get_title() for a in panels]
    states = ["0, start", "1, trained on", "2, held out", "3, trained on", "4, trained on"]
    assert titles == [*(f"day {s}" for s in states), "paths from day 0"]
    assert len(panels[-1].collections[1].get_segments()) == 60
    predicted = panels[2].collections[-1].get_offsets()
    assert np.allclose(predicted, wlm.tl.predict(fitted, 2).obsm["X_pca"][:, :2], atol=1e-4)
    assert panels[0].get_xlabel() == "PC1" and len(figure.legends) == 1


def test_rollout_at_chosen_times_components_and_axes(fitted):
    figure, grid = plt.subplots(1, 4)
    axes = wlm.pl.rollout(fitted, times=[2, 5.5], components=(2, 1), ax=grid)
    assert axes[2].get_title() == "day 5.5, not observed" and axes[0].get_xlabel() == "PC3" and axes[0].figure is figure
    with pytest.raises(ValueError, match="4 axes"):
        wlm.pl.rollout(fitted, times=[2, 5.5], ax=grid[:2])


def test_rollout_in_another_embedding_puts_predicted_cells_among_their_neighbours(fitted):
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0][:, :2]
    fitted.obsm["X_umap"] = fitted.obsm["X_pca"] @ rotation
    figure = wlm.pl.rollout(fitted, basis="umap", times=[2], return_fig=True)
    panel = figure.axes[1]
    assert panel.get_xlabel() == "UMAP1"
    drawn = np.asarray(panel.collections[-1].get_offsets())
    exact = wlm.tl.predict(fitted, 2).obsm["X_pca"] @ rotation
    assert np.linalg.norm(drawn - exact, axis=1).mean() < 0.5 * fitted.obsm["X_umap"].std()


def test_training_draws_loss_and_friction(fitted):
    figure = wlm.pl.training(fitted, return_fig=True)
    loss, friction = figure.axes
    assert loss.get_yscale() == "symlog" and "standard units" in loss.get_ylabel()
    assert "1/time unit" in friction.get_ylabel()
    own = plt.subplots()[1]
    assert wlm.pl.training(fitted, ax=own)[0] is own
    last = friction.lines[0].get_ydata()[-1]
    assert last == pytest.approx(fitted.uns["wlm"]["friction"], rel=0.2)


@pytest.mark.parametrize("plot", [wlm.pl.rollout, wlm.pl.training])
def test_plots_write_nothing_and_need_a_fit(plot, fitted, cells):
    keys = sorted(fitted.obsm), sorted(fitted.uns), list(fitted.obs)
    assert plot(fitted) is not None and plot(fitted, show=True) is None
    assert (sorted(fitted.obsm), sorted(fitted.uns), list(fitted.obs)) == keys
    with pytest.raises(KeyError, match="run wlm.tl.fit"):
        plot(cells)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"basis": "tsne"}, KeyError, "neither in obsm"),
        ({"components": (0, 5)}, ValueError, "components"),
        ({"times": [0]}, ValueError, "after the first training time"),
        ({"times": ["2 h", "day 3"]}, ValueError, "different units"),
    ],
    ids=str,
)
def test_impossible_plots(fitted, call, error, message):
    with pytest.raises(error, match=message):
        wlm.pl.rollout(fitted, **call)
