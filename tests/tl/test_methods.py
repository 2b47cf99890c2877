"""What every method keeps to, and nothing outside ``core.methods`` needs to know by name."""

import inspect
from pathlib import Path

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pytest

import wlm
from wlm.core.methods import METHODS as ALL

SMALL = {
    "wlm": {"width": 16, "hidden": 16, "n_inducing": 4},
    "ijkonet": {"width": 16, "map_width": 16, "inner_steps": 1, "refine": 1},
    "jkonet_star": {"width": 16},
    "flow": {},
}
#: Methods that wlm comes with: other tests add their own, and the paper's algorithm, WLM with other constants, has its.
METHODS = {name: ALL[name] for name in SMALL}
FIRST_ORDER = [name for name, method in METHODS.items() if "velocity" not in method.takes]
#: First-order methods whose energy can be chosen.
GRADIENT_FLOWS = [name for name in FIRST_ORDER if hasattr(METHODS[name], "energy")]
ENERGIES = ["V+U", "V+W", "W+U", "V+W+U"]


def options(name, **more):
    quick = {"n_steps": 6, "batch_size": 32, "backtest": False, "show_progress": False}
    return {"method": name, **quick, **SMALL[name], **more}


@pytest.fixture(scope="module")
def fits(_bifurcation):
    """A quick fit by each method, that has not seen day 2."""
    return {name: wlm.tl.fit(_bifurcation, "day", holdout=2, copy=True, **options(name)) for name in SMALL}


@pytest.mark.parametrize("name", METHODS)
def test_a_fit_writes_the_same_keys(fits, name):
    adata = fits[name]
    uns = adata.uns["wlm"]
    assert uns["method"] == name
    assert {"format", "version", "config", "params", "time", "representation", "weights", "history", "rollout"} <= set(
        uns
    )
    assert np.isfinite(adata.obs["wlm_potential"]).all()
    last = (adata.obs["day"] == 4).to_numpy()
    for field in ("velocity", "force", "next"):
        assert adata.obsm[f"wlm_{field}"].shape == (adata.n_obs, 5)
        assert np.isfinite(adata.obsm[f"wlm_{field}"][~last]).all()
    assert np.isnan(adata.obsm["wlm_next"][last]).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        {"method": "ijkonet", "energy": "V+W+U", "time_varying": True},
        {"method": "jkonet_star", "energy": "V+W+U", "solver": "ridge"},
    ],
)
def test_everything_of_an_energy_survives_a_file(cells, more, tmp_path):
    cells = cells[::6].copy()  # simulating pairs of features takes its time
    wlm.tl.fit(cells, "day", n_dims=2, **{**options(more["method"]), **more})
    cells.write_h5ad(tmp_path / "fit.h5ad")
    back = ad.read_h5ad(tmp_path / "fit.h5ad")
    ours, theirs = (wlm.tl.predict(a, [1.5, 5], rng=1).obsm["X_pca"] for a in (cells, back))
    assert np.array_equal(ours, theirs) and np.isfinite(ours).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("write", ["write_h5ad", "write_zarr"])
def test_predictions_survive_a_file(fits, name, write, tmp_path):
    adata = fits[name]
    path = tmp_path / "fit"
    getattr(adata, write)(path)
    back = (ad.read_h5ad if write == "write_h5ad" else ad.read_zarr)(path)
    days = [0.5, 2, 5.5]
    ours, theirs = (wlm.tl.predict(a, days, rng=1).obsm["X_pca"] for a in (adata, back))
    assert np.array_equal(ours, theirs) and np.isfinite(ours).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_fit_and_another_one_another(fits, _bifurcation, name):
    again = wlm.tl.fit(_bifurcation, "day", holdout=2, copy=True, **options(name))
    other = wlm.tl.fit(_bifurcation, "day", holdout=2, copy=True, rng=1, **options(name))
    first = fits[name].obsm["wlm_velocity"]
    assert np.array_equal(first, again.obsm["wlm_velocity"], equal_nan=True)
    assert not np.array_equal(first, other.obsm["wlm_velocity"], equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_plots_draw_every_method(fits, name):
    before = set(fits[name].uns)
    for draw in (wlm.pl.rollout, wlm.pl.training):
        figure = draw(fits[name], return_fig=True)
        figure.canvas.draw()
        plt.close(figure)
    assert set(fits[name].uns) == before


@pytest.mark.parametrize("name", METHODS)
def test_wrong_options_are_refused_with_the_right_ones(cells, name):
    before = cells.copy()
    with pytest.raises(TypeError, match=rf"unknown option\(s\) \['stepz'\] for method '{name}'.*n_steps"):
        wlm.tl.fit(cells, "day", method=name, stepz=3)
    assert set(cells.uns) == set(before.uns) and set(cells.obsm) == set(before.obsm)


@pytest.mark.slow
@pytest.mark.parametrize("name", GRADIENT_FLOWS)
@pytest.mark.parametrize("energy", ENERGIES)
def test_every_energy_fits_predicts_and_is_stored(cells, name, energy):
    wlm.tl.fit(cells, "day", **options(name, energy=energy, n_steps=3))
    assert ("diffusion" in cells.uns["wlm"]) == ("U" in energy)
    assert np.isfinite(wlm.tl.predict(cells, [1.5, 5]).obsm["X_pca"]).all()
    velocity, force = (cells.obsm[f"wlm_{field}"] for field in ("velocity", "force"))
    assert np.allclose(velocity, force)


@pytest.mark.parametrize("name", GRADIENT_FLOWS)
@pytest.mark.parametrize("extra", [{"time_varying": True}, {"simulation": "sde", "energy": "V+U"}])
def test_simulation_and_time(cells, name, extra):
    wlm.tl.fit(cells, "day", **options(name, **extra))
    ours = [wlm.tl.predict(cells, 4.7, rng=seed).obsm["X_pca"] for seed in (0, 0, 1)]
    assert np.array_equal(ours[0], ours[1])
    assert np.allclose(ours[0], ours[2]) == ("U" not in extra.get("energy", "V"))


@pytest.mark.slow
@pytest.mark.parametrize("name", FIRST_ORDER)
def test_cells_move_to_where_the_weight_is(cells, name):
    """Of the two ends of day 4, nearly all of the weight is given to one."""
    last = (cells.obs["day"] == 4).to_numpy()
    side = cells.obsm["X_pca"][:, 1] > np.median(cells.obsm["X_pca"][last, 1])
    ends = []
    for chosen in (side, ~side):
        cells.obs["w"] = np.where(last & ~chosen, 0.01, 1.0)
        more = {"energy": "V"} if name in GRADIENT_FLOWS else {}
        wlm.tl.fit(cells, "day", weight_key="w", holdout=[1, 2], **options(name, n_steps=60, lr=0.01, **more))
        ends.append(cells.obsm["wlm_next"][cells.obs["day"] == 3].mean(0))
    target = [np.average(cells.obsm["X_pca"][last & chosen], axis=0) for chosen in (side, ~side)]
    assert (ends[0] - ends[1]) @ (target[0] - target[1]) > 0.1 * np.square(target[0] - target[1]).sum()


@pytest.mark.parametrize("name", FIRST_ORDER)
def test_velocities_are_refused_by_first_order_methods(cells, name):
    cells.obsm["v"] = np.ones((cells.n_obs, 5))
    with pytest.raises(ValueError, match=f"method '{name}' learns first-order dynamics.*leave velocity_key out"):
        wlm.tl.fit(cells, "day", velocity_key="v", **options(name))
    assert "wlm" not in cells.uns


def test_energies_that_do_not_exist(cells):
    with pytest.raises(ValueError, match=r"energy must be one of \['V', 'V\+U', .* found 'potential'"):
        wlm.tl.fit(cells, "day", method="ijkonet", energy="potential")


def test_entropy_in_many_dimensions_warns_with_the_reason(cells):
    cells.obsm["X_wide"] = np.random.default_rng(0).normal(size=(cells.n_obs, 12))
    with pytest.warns(UserWarning, match=r"in 12 dimensions its nearest-neighbour estimate is biased.*without U"):
        wlm.tl.fit(cells, "day", use_rep="X_wide", **options("ijkonet", energy="V+U"))
    assert np.isfinite(cells.obsm["wlm_velocity"]).all()


def test_a_lost_game_leaves_the_object_unchanged(cells):
    with pytest.raises(wlm.core.training.TrainingError, match=r"diverged \(misfit"):
        wlm.tl.fit(cells, "day", **options("ijkonet", lr=50.0, n_steps=400, refine=0))
    assert "wlm" not in cells.uns and "wlm_velocity" not in cells.obsm


@pytest.mark.slow
def test_methods_are_evaluated_side_by_side_each_with_its_options(cells):
    own = ("method", "backtest", "show_progress")  # of tl.fit
    cells.obsm["v"] = cells.obsm["X_pca"] * 0.1
    methods = {name: {k: v for k, v in options(name).items() if k not in own} for name in SMALL}
    table = wlm.tl.evaluate(cells, "day", method=methods, holdout=[2], velocity_key="v", metrics=["w2"])
    assert set(SMALL) <= set(table["model"])
    for name in SMALL:
        assert name in table.attrs["verdict"]
    with pytest.raises(ValueError, match="found none"):
        wlm.tl.evaluate(cells, "day", method={})
    with pytest.raises(TypeError, match="unknown option"):
        wlm.tl.evaluate(cells, "day", method={"ijkonet": {"friction": 1.0}})


def test_methods_are_named_only_where_they_are_defined():
    """Saving, prediction, evaluation and plots work with what every model can do."""
    source = Path(inspect.getfile(wlm)).parent
    named = [
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        if path.parent.name != "methods" and any(f'== "{name}"' in path.read_text() for name in METHODS)
    ]
    assert named == []
