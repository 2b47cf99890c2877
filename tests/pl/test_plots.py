"""Plots: what is drawn, options, and that nothing is left behind or written."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

import wlm


def test_rollout_has_a_panel_for_each_time_and_one_for_paths(fitted):
    figure = wlm.pl.rollout(fitted, return_fig=True)
    panels = [a for a in figure.axes if a.get_visible()]
    titles = [a.get_title().split("\n")[0] for a in panels]
    states = ["0, start", "1, trained on", "2, held out", "3, trained on", "4, trained on"]
    assert titles == [*(f"day {s}" for s in states), "paths from day 0"]
    assert len(panels[-1].collections[1].get_segments()) == 60
    predicted = panels[2].collections[-1].get_offsets()
    assert np.allclose(predicted, wlm.tl.predict(fitted, 2).obsm["X_pca"][:, :2], atol=1e-4)
    assert panels[0].get_xlabel() == "PC1" and len(figure.legends) == 1


def test_rollout_at_chosen_times_components_and_axes(fitted):
    figure, grid = plt.subplots(1, 4)
    axes = wlm.pl.rollout(fitted, times=[2, 5.5], components=(2, 1), ax=grid)
    assert (
        axes[2].get_title().startswith("day 5.5, not observed")
        and axes[0].get_xlabel() == "PC3"
        and axes[0].figure is figure
    )
    with pytest.raises(ValueError, match="4 axes"):
        wlm.pl.rollout(fitted, times=[2, 5.5], ax=grid[:2])


def test_rollout_in_another_embedding_puts_predicted_cells_among_their_neighbours(fitted):
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0][:, :2]
    predicted = wlm.tl.predict(fitted, 2).obsm["X_pca"]

    def drawn():
        panel = wlm.pl.rollout(fitted, basis="umap", times=[2], return_fig=True).axes[1]
        assert panel.get_xlabel() == "UMAP1"
        return np.asarray(panel.collections[-1].get_offsets())

    # A linear map of the representation is known exactly.
    fitted.obsm["X_umap"] = fitted.obsm["X_pca"] @ rotation + 3
    assert np.allclose(drawn(), predicted @ rotation + 3, atol=1e-3)
    # Of others only the cells are known: a predicted one is at the nearest of them, and never between two.
    fitted.obsm["X_umap"] = np.tanh(fitted.obsm["X_pca"] @ rotation)
    found = drawn()
    distance = ((predicted[:, None] - fitted.obsm["X_pca"][None]) ** 2).sum(axis=-1)
    assert np.allclose(found, fitted.obsm["X_umap"][distance.argmin(axis=1)], atol=1e-5)


def test_training_draws_loss_and_friction_and_how_near_the_times_are_met(fitted):
    figure = wlm.pl.training(fitted, return_fig=True)
    loss, met, friction = figure.axes
    found = fitted.uns["wlm"]["training_times"]
    assert found["times"].tolist() == [1, 3, 4] and met.get_xlabel() == "day" and "X_pca units" in met.get_ylabel()
    for line, name in zip(met.lines, ("w1", "floor"), strict=True):
        np.testing.assert_array_equal(line.get_xydata(), np.column_stack([found["times"], found[name]]))
    wlm.tl.diagnose(fitted)
    drawn = wlm.pl.training(fitted, return_fig=True).axes[1].lines[1].get_ydata()
    np.testing.assert_array_equal(drawn, fitted.uns["wlm_diagnosis"]["bridged_w1"][1:])
    assert loss.get_yscale() == "symlog" and "standard units" in loss.get_ylabel()
    assert "1/time unit" in friction.get_ylabel()
    own = plt.subplots()[1]
    assert wlm.pl.training(fitted, ax=own)[0] is own and len(own.figure.axes) == 2
    last = friction.lines[0].get_ydata()[-1]
    assert last == pytest.approx(fitted.uns["wlm"]["friction"], rel=0.2)


def test_energy_draws_the_balance(fitted):
    with pytest.raises(KeyError, match="run wlm.tl.diagnose"):
        wlm.pl.energy(fitted)
    wlm.tl.diagnose(fitted)
    ax = wlm.pl.energy(fitted)
    lines = {line.get_label(): line.get_ydata() for line in ax.lines if not line.get_label().startswith("_")}
    assert np.allclose(lines["sum"], lines["kinetic"] + lines["potential"] + lines["dissipated"])
    assert ax.get_xlabel() == "day" and ax.get_ylabel() == "energy per cell (PC²/time²)"


@pytest.mark.slow
def test_friction_draws_the_fit_and_other_seeds(fitted):
    assert len(wlm.pl.friction(fitted).collections) == 1
    wlm.tl.diagnose(fitted, seeds=3)
    ax = wlm.pl.friction(fitted)
    others, kept = (c.get_offsets() for c in ax.collections)
    assert len(others) == 2 and kept[0, 1] == pytest.approx(fitted.uns["wlm"]["friction"])
    assert "1/time unit" in ax.get_ylabel()


@pytest.mark.parametrize("plot", [wlm.pl.rollout, wlm.pl.training, wlm.pl.friction, wlm.pl.energy])
def test_plots_write_nothing_and_need_a_fit(plot, fitted, cells):
    wlm.tl.diagnose(fitted)
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


def test_growth_says_that_rates_are_relative_and_refuses_fits_without(fitted):
    with pytest.raises(ValueError, match="growth=True"):
        wlm.pl.growth(fitted)
    adata = wlm.datasets.branching_growth(40, days=(0, 2, 4), n_founders=200)
    small = {"n_steps": 2, "batch_size": 40, "width": 8, "heads": 2, "hidden": 8, "n_inducing": 2}
    for totals, words in ((None, "relative to the mean of each time"), ({0: 1, 2: 3, 4: 8}, "births less deaths")):
        wlm.tl.fit(adata, "day", use_rep="X_position", growth=True, totals=totals, show_progress=False, **small)
        figure = wlm.pl.growth(adata, times=[2, 4], return_fig=True)
        points, bar = figure.axes[0].collections[-1], figure.axes[1]
        assert words in bar.get_ylabel() and "1/time" in bar.get_ylabel()
        shown = adata.obs["wlm_growth"][adata.obs["day"] > 0]
        assert sorted(points.get_array()) == pytest.approx(sorted(shown)) and points.norm.vmin == -points.norm.vmax
    del adata.obs["wlm_growth"]
    with pytest.raises(KeyError, match="run wlm.tl.fit again"):
        wlm.pl.growth(adata)
