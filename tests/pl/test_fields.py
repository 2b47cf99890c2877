"""The landscape and the field in the plane, against fits whose energies and velocities are set to known functions."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

import wlm
from wlm._store.integrity import seal
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
    assert "sd, 2 models" in [t.get_text() for t in ax.figure.legends[0].get_texts()]


def known_energy(x, t):
    """A valley that bends back along PC1, and is closed by a ridge in PC2 where no path goes."""
    return 3.0 * t + 0.5 * x[:, 0] + 100.0 * (np.abs(x[:, 1]) > 50)


@pytest.fixture
def branches(fitted, monkeypatch):
    """A rollout that goes two ways, with a known energy."""
    energy = lambda self, x, t, w=None: known_energy(np.asarray(x), t)  # noqa: E731
    monkeypatch.setattr("wlm.core.dynamics.Dynamics.energy", energy)
    stored = fitted.uns["wlm"]["rollout"]
    times = np.asarray(stored["times"])[:, None]
    positions = np.zeros_like(stored["positions"])
    upper = np.arange(positions.shape[1]) < 20
    positions[..., 1] = np.where(upper, 1, -1) * np.sqrt(times)
    positions[..., 0] = np.where(upper, times, -2 * times)
    stored["positions"] = positions
    fitted.uns["wlm"] = seal(fitted.uns["wlm"])
    last = (fitted.obs["day"] == 4).to_numpy()
    high = fitted.obsm["X_pca"][:, 1] > 0
    fitted.obs["branch"] = np.where(high, "up", "down")
    assert last.any() and 0 < high[last].mean() < 1
    return fitted


def test_in_one_dimension_the_energy_is_that_along_the_paths_of_each_branch(branches):
    ax = wlm.pl.potential(branches, projection="1d", color="branch")
    assert ax.get_xlabel() == "day" and ax.get_ylabel().startswith("energy (PC²/time²)")
    texts = [t.get_text() for t in ax.figure.legends[0].get_texts()]
    n = branches.uns["wlm"]["rollout"]["positions"].shape[1]
    assert texts[:2] == [f"down (n = {n - 20})", "up (n = 20)"]
    # 3 t + PC1 / 2 is 3.5 t on the upper and 2 t on the lower branch; the mean over all would be neither.
    for line, slope in zip(ax.lines, (2.0, 3.5), strict=True):
        t, energy = line.get_data()
        assert np.allclose(energy, slope * t, atol=1e-4)
    whole = wlm.pl.potential(branches, projection="1d", times=[1, 3])
    t = whole.lines[0].get_xdata()
    assert (t.min(), t.max()) == (1, 3) and len(whole.lines) == 1


def test_mean_energy_along_paths_is_the_potential_energy_of_the_balance(fitted):
    """``pl.energy`` has it from the integration of the motion."""
    wlm.tl.diagnose(fitted)
    found = fitted.uns["wlm_diagnosis"]
    t, energy = wlm.pl.potential(fitted, projection="1d").lines[0].get_data()
    balance = np.interp(t, found["times"], found["potential_path"])
    assert np.ptp(balance) > 0 and np.corrcoef(energy, balance)[0, 1] > 0.95


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"basis": "umap"}, "leave basis, components"),
        ({"components": (1, 0)}, "leave basis, components"),
        ({"dimensions": (1, 0)}, "dimensions= is about points and panels"),
        ({"size": 3}, "size= is about points"),
        ({"cmap": "magma"}, "cmap= is about points"),
        ({"times": [2]}, "give two times"),
        ({"color": "wlm_potential"}, "one column of obs with labels"),
        ({"projection": "3d", "color": "day"}, "color= is about points"),
    ],
    ids=str,
)
def test_what_means_nothing_along_paths_and_on_surfaces_is_refused(fitted, call, message):
    with pytest.raises(ValueError, match=message):
        wlm.pl.potential(fitted, **{"projection": "1d", **call})


def test_the_landscape_is_light_and_cells_in_colours_stand_out(known):
    """Every colour of it is far from those of labels, and from low to high it gets lighter."""
    known.obs["type"] = np.where(np.arange(known.n_obs) % 2, "a", "b")
    for color, chroma in ((None, 1.0), ("type", 0.02)):
        ax = wlm.pl.potential(known, color=color, forces=False)
        shades = ax.collections[0].cmap(np.linspace(0, 1, 20))[:, :3]
        light = shades @ [0.2126, 0.7152, 0.0722]
        assert (np.diff(light) > 0).all() and light.min() > 0.45 and np.ptp(shades, axis=1).max() <= chroma
        own = np.unique(np.round(ax.collections[-1].get_facecolors()[:, :3], 3), axis=0)
        assert np.linalg.norm(own[:, None] - shades, axis=-1).min() > 0.3
