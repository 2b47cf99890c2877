"""The landscape and the field in the plane, against fits whose energies and velocities are set to known functions."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

import wlm
from wlm.pl._plane import Grid


@pytest.fixture
def known(fitted):
    """A fit whose stored fields are those of the energy PC1 + 2 PC2."""
    x = fitted.obsm["X_pca"]
    fitted.obs["wlm_potential"] = x[:, 0] + 2 * x[:, 1]
    for field in ("velocity", "force"):
        fitted.obsm[f"wlm_{field}"] = np.tile(np.float32([-1, -2, 0, 0, 0]), (fitted.n_obs, 1))
    return fitted


def test_an_average_of_a_linear_function_is_that_function_and_nothing_where_no_cells_are():
    rng = np.random.default_rng(0)
    points = rng.uniform(size=(4000, 2)) * [1, 50]
    points = points[(points[:, 0] < 0.3) | (points[:, 0] > 0.7)]
    grid = Grid.over(points, 30)
    found = grid.average(points, (points @ [2, 0.1])[:, None])[..., 0]
    x, y = grid.mesh
    empty = (x > 0.4) & (x < 0.6)
    assert np.isnan(found[empty]).all() and np.isfinite(found[(x > 0.05) & (x < 0.25) & (y > 2) & (y < 48)]).all()
    inner = np.isfinite(found) & (x > 0.05) & (x < 0.25) & (y > 3) & (y < 47)
    assert np.allclose(found[inner], (2 * x + 0.1 * y)[inner], atol=0.15)


def test_contours_follow_the_energy_and_arrows_the_force(known):
    figure = wlm.pl.potential(known, return_fig=True)
    ax, bar = figure.axes
    assert ax.get_xlabel() == "PC1" and bar.get_ylabel() == "energy (PC²/time²)"
    (quiver,) = [c for c in ax.collections if isinstance(c, plt.matplotlib.quiver.Quiver)]
    assert len(quiver.U) > 30 and np.allclose(quiver.V, 2 * quiver.U, rtol=1e-3) and (quiver.U < 0).all()
    levels = ax.collections[0].levels
    energy = known.obs["wlm_potential"]
    assert energy.min() < levels[2] and levels[-3] < energy.max() and (np.diff(levels) > 0).all()
    assert len(wlm.pl.potential(known, forces=False).collections) == len(ax.collections) - 1


def test_a_surface_and_its_axes(known):
    figure = wlm.pl.potential(known, projection="3d", return_fig=True)
    assert figure.axes[-1].get_ylabel() == "energy (PC²/time²)"
    with pytest.raises(ValueError, match="three-dimensional axes"):
        wlm.pl.potential(known, projection="3d", ax=plt.subplots()[1])
    with pytest.raises(ValueError, match="must be '1d', '2d' or '3d'"):
        wlm.pl.potential(known, projection="4d")


@pytest.mark.parametrize("components", [(0, 1), (1, 0)])
def test_quiver_has_the_velocities_of_the_components(known, components):
    ax = wlm.pl.velocity(known, kind="quiver", components=components)
    (quiver,) = [c for c in ax.collections if isinstance(c, plt.matplotlib.quiver.Quiver)]
    assert np.allclose(quiver.V / quiver.U, 2 if components == (0, 1) else 0.5, rtol=1e-3)


def test_streams_in_the_plane_and_directions_in_another_embedding(known):
    ax = wlm.pl.velocity(known)
    assert len(ax.patches) > 10, "arrows on the lines"
    known.obsm["X_umap"] = known.obsm["X_pca"][:, [1, 0]] * [1, -1]
    ax = wlm.pl.velocity(known, basis="umap", kind="quiver")
    (quiver,) = [c for c in ax.collections if isinstance(c, plt.matplotlib.quiver.Quiver)]
    mean = np.array([np.nanmean(quiver.U), np.nanmean(quiver.V)])
    # (-1, -2) in the representation is (-2, 1) there.
    assert mean @ [-2, 1] / np.linalg.norm(mean) / np.sqrt(5) > 0.9


def test_times_conditions_and_methods(cells, quick):
    cells.obs["treatment"] = np.where(np.arange(cells.n_obs) % 2, "a", "b")
    wlm.tl.fit(cells, "day", condition_key="treatment", **{**quick, "n_steps": 3})
    ax = wlm.pl.velocity(cells, key="wlm_a", times=[1, 2])
    assert len(ax.collections[0].get_offsets()) == 60
    with pytest.raises(ValueError, match="was not observed"):
        wlm.pl.potential(cells, key="wlm_a", times=1.5)
    small = {"method": "ijkonet", "n_steps": 3, "width": 8, "map_width": 8, "show_progress": False}
    wlm.tl.fit(cells, "day", key_added="j", **small)
    assert wlm.pl.potential(cells, key="j", return_fig=True).axes[1].get_ylabel() == "energy (PC²/time)"
    with pytest.raises(ValueError, match="kind must be"):
        wlm.pl.velocity(cells, key="j", kind="arrows")


@pytest.mark.slow
def test_nothing_is_written_and_files_stay_small(known, tmp_path):
    before = known.copy()
    many = known[np.random.default_rng(0).integers(known.n_obs, size=20_000)].copy()
    many.obs_names = [f"c{i}" for i in range(many.n_obs)]
    for name in ("potential", "velocity", "rollout"):
        figure = getattr(wlm.pl, name)(many, return_fig=True)
        figure.savefig(tmp_path / f"{name}.pdf")
        assert (tmp_path / f"{name}.pdf").stat().st_size < 5e6
        getattr(wlm.pl, name)(known)
    assert list(known.obs) == list(before.obs) and sorted(known.uns) == sorted(before.uns)


@pytest.mark.slow
def test_uncertainty_is_the_spread_of_energies_over_the_models(cells, quick):
    wlm.tl.fit(cells, "day", **quick)
    with pytest.raises(ValueError, match="holds one model.*n_models"):
        wlm.pl.potential(cells, uncertainty=True)
    wlm.tl.fit(cells, "day", n_models=2, **quick)
    figure = wlm.pl.potential(cells, uncertainty=True, times=[3], forces=False, return_fig=True)
    assert "sd over 2 models" in figure.axes[-1].get_ylabel()
    here = cells[cells.obs["day"] == 3]
    fit = wlm._store.fit.read_fit(cells, "wlm")
    one, two = (d.energy(here.obsm["X_pca"], 3.0) for d in (fit.dynamics, fit.others[0].dynamics))
    difference = (one - one.mean()) - (two - two.mean())
    low, high = figure.axes[-1].get_ylim()
    assert 0 <= low < high <= np.abs(difference).max() / np.sqrt(2) * 1.3
    ax = wlm.pl.potential(cells, projection="1d")
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["sd, 2 models", "mean over cells", "cells"]


def test_a_slice_is_the_mean_energy_along_a_component(known):
    known.obs["wlm_potential"] = 3 * known.obsm["X_pca"][:, 0]
    ax = wlm.pl.potential(known, projection="1d")
    at, energy = ax.lines[0].get_data()
    inner = slice(10, 50)
    slope = np.polyfit(at[inner], energy[inner], 1)[0]
    assert slope == pytest.approx(3, rel=0.15) and ax.get_xlabel() == "PC1"
    assert wlm.pl.potential(known, projection="1d", components=(1, 0)).get_xlabel() == "PC2"
