"""Each plot as a picture, beside the one that was looked at when it was made (with ``--mpl``).

After a change that is meant to be seen, run ``pytest tests/pl/test_images.py --mpl-generate-path=tests/pl/baseline``,
look at every picture that git says has changed, and commit it.
"""

from functools import partial

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import wlm

# The root mean square difference of pixels (0 to 255) that other processors and their last digits may make.
picture = partial(
    pytest.mark.mpl_image_compare, baseline_dir="baseline", style="default", savefig_kwargs={"dpi": 55}, tolerance=3
)


def _drivers(adata):
    names = list(adata.var_names[::3])
    return wlm.tl.drivers(adata, ("fate", "A"), n_perm=50, n_boot=50, transcription_factors=names)


PLOTS = {
    "rollout": lambda a: wlm.pl.rollout(a, return_fig=True),
    "rollout_color": lambda a: wlm.pl.rollout(a, color="type", times=[2, 5], return_fig=True),
    "potential": lambda a: wlm.pl.potential(a, key="seed", return_fig=True),
    "potential_1d": lambda a: wlm.pl.potential(a, projection="1d", return_fig=True),
    "potential_3d": lambda a: wlm.pl.potential(a, projection="3d", return_fig=True),
    "velocity_stream": lambda a: wlm.pl.velocity(a, return_fig=True),
    "velocity_quiver": lambda a: wlm.pl.velocity(a, kind="quiver", return_fig=True),
    "friction": lambda a: wlm.pl.friction(a, return_fig=True),
    "energy": lambda a: wlm.pl.energy(a, return_fig=True),
    "training": lambda a: wlm.pl.training(a, return_fig=True),
    "composition": lambda a: wlm.pl.composition(a, "type", times=[5], return_fig=True),
    "fates": lambda a: wlm.pl.fates(a, "type", return_fig=True),
    "fate-probabilities": lambda a: wlm.pl.fate_probabilities(a, return_fig=True),
    "fate-probabilities_simplex": lambda a: wlm.pl.fate_probabilities(a, key="three", kind="simplex", return_fig=True),
    "genes": lambda a: wlm.pl.genes(a, list(a.var_names[:3]), times=[5], return_fig=True),
    "genes_by_type": lambda a: wlm.pl.genes(a, list(a.var_names[:3]), groupby="type", times=[5], return_fig=True),
    "drivers": lambda a: wlm.pl.drivers(_drivers(a), n_genes=12, return_fig=True),
}


@pytest.fixture(scope="module")
def drawn(_bifurcation, quick):
    # Initial velocities are learned: which paths are chosen may rest on last digits, which differ between processors.
    options = {**quick, "n_steps": 10, "initial_velocity": "learned"}
    adata = wlm.tl.fit(_bifurcation, "day", holdout=2, copy=True, **options)
    x = adata.obsm["X_pca"][:, 0]
    adata.obs["type"] = pd.Categorical(
        np.array(["early", "middle", "late"])[np.digitize(x, np.quantile(x, [0.3, 0.6]))]
    )
    wlm.tl.diagnose(adata)
    # Contours of flat places move by pixels with the last digits of a training: these are of the weights of the seed.
    wlm.tl.fit(adata, "day", holdout=2, key_added="seed", **{**options, "lr": 1e-12})
    # The same fit once more, with three ends.
    adata.uns["three"], adata.obsm["three_velocity"] = adata.uns["wlm"], adata.obsm["wlm_velocity"]
    for key, n in (("wlm", 2), ("three", 3)):
        wlm.tl.terminal_states(adata, key=key, n_states=n)
        wlm.tl.fates(adata, key=key)
    return adata


def pictures(test):
    """One test for each plot, since pytest-mpl names pictures after tests."""
    for name, draw in PLOTS.items():

        def one(drawn, draw=draw):
            return draw(drawn)

        one.__name__ = f"test_picture_of_{name.replace('-', '_')}"
        globals()[one.__name__] = picture(filename=f"{name.replace('-', '_')}.png")(one)
    return test


@pictures
def test_every_plot_has_a_picture():
    drawn_here = {name.split("_")[0].replace("-", "_") for name in PLOTS}
    drawn_here |= {"evaluation", "animate", "comparison", "growth", "perturbation", "plan", "clones"}
    assert set(wlm.pl.__all__) == drawn_here


@picture(filename="animate.png")
def test_picture_of_a_film(drawn):
    film = wlm.pl.animate(drawn, n_frames=10)
    film._func(6)
    film._draw_was_started = True  # it is looked at here, and not played
    return film._fig


@pytest.fixture(scope="module")
def grown():
    """Two models with rates of their own, so that they disagree on some signs."""
    adata = wlm.datasets.branching_growth(60, days=(0, 2, 3, 4), n_founders=300)
    adata.obs["rate"] = adata.obs["true_growth"].astype(float)
    small = {"n_steps": 4, "batch_size": 64, "width": 8, "heads": 2, "hidden": 8, "n_inducing": 2}
    wlm.tl.fit(
        adata, "day", use_rep="X_position", growth="prior", growth_key="rate", n_models=2, show_progress=False, **small
    )
    adata.obs.loc[adata.obs["wlm_growth"].abs() < 0.02, "wlm_growth_agreement"] = 0.5
    return adata


@picture(filename="growth.png")
def test_picture_of_growth(grown):
    return wlm.pl.growth(grown, return_fig=True)


@picture(filename="evaluation.png")
def test_picture_of_an_evaluation():
    rows = []
    for model, score in {"wlm": 0.7, "previous": 1.2, "next": 1.1, "ot_midpoint": 0.8, "floor": 0.5}.items():
        rows += [
            {"time": t, "model": model, "seed": 0, "n_observed": 9, "n_predicted": 9, "w1": score + 0.05 * t}
            for t in (1.0, 2.0)
        ]
    table = pd.DataFrame(rows)
    table.attrs["differences"] = [
        {"model": "wlm", "baseline": b, "kind": "interpolation", "metric": "w1", "n_times": 2}
        | {"difference": d, "low": d - 0.06, "high": d + 0.06}
        for b, d in (("previous", -0.5), ("next", -0.4), ("ot_midpoint", -0.1))
    ]
    return wlm.pl.evaluation(table, return_fig=True)


@picture(filename="comparison.png")
def test_picture_of_a_comparison():
    rows = [
        {"condition": c, "reference": "control", "statistic": s, "name": "", "time": t}
        | {"effect": e, "low": e - 0.2, "high": e + 0.2, "p_adj": 0.03 if e > 0.3 else 0.6}
        for c, more in (("drug", 0.5), ("sham", 0.0))
        for s in ("distance", "mean", "composition")
        for t, e in ((0.0, 0.0), (1.0, 0.1), (3.0, 0.1 + more))
    ]
    table = pd.DataFrame(rows)
    table.attrs |= {"time": "day", "alpha": 0.05}
    return wlm.pl.comparison(table, return_fig=True)


@picture(filename="perturbation.png")
def test_picture_of_a_perturbation():
    rows = []
    for statistic, names in (("composition", "AB"), ("genes", [f"gene{i}" for i in range(6)])):
        rows += [
            {"statistic": statistic, "name": n, "time": 4.0, "effect": e, "low": e - 0.1, "high": e + 0.1}
            | {"null_low": -0.3, "null_high": 0.3, "p": 0.05 if abs(e) > 0.3 else 0.5}
            for n, e in zip(names, np.linspace(0.5, -0.4, len(names)), strict=True)
        ]
    table = pd.DataFrame(rows)
    note = {"genes": ["gene5"], "before": [1.0], "levels": [0.2], "at": 1.0, "effects": dict(table.items())}
    perturbed = ad.AnnData(np.zeros((1, 0)), uns={"wlm_perturbation": note})
    return wlm.pl.perturbation(perturbed, return_fig=True)


@picture(filename="plan.png")
def test_picture_of_a_plan():
    times = np.linspace(0, 6, 25)
    now = np.sin(np.pi * times / 3) ** 2 * np.where(times < 3, 0.4, 1)
    left = now * np.where(np.abs(times - 4.5) < 1.5, 0.3, 1)
    table = pd.DataFrame({"time": [4.5], "n_cells": [1200]})
    table.attrs = {"open": {"time": times, "disagreement": now, "low": 0.8 * now, "high": 1.25 * now, "left": left}}
    table.attrs |= {"observed": [0.0, 3.0, 6.0], "even": [1.5], "advantage": {"low": 0.1}, "time": "stage (day)"}
    return wlm.pl.plan(table, return_fig=True)


@picture(filename="clones.png")
def test_picture_of_clones():
    table = pd.DataFrame({"model": ["wlm", "itself", "transport", "regression"], "n_cells": 60, "n_clones": 20})
    table["distance"], table["distance_low"] = [0.62, 0.79, 0.75, 0.55], [0.5, 0.7, 0.65, 0.45]
    table["distance_high"] = table["distance"] + 0.12
    p, n = np.array([0.08, 0.3, 0.5, 0.71, 0.93]), [30, 12, 5, 12, 30]
    curve = {"probability": p, "n": n}
    wlm_, taught = (curve | {"share": s, "share_low": s - 0.08, "share_high": s + 0.08} for s in (0.2 + 0.6 * p, p))
    table.attrs = {"curve": {"wlm": wlm_, "regression": taught}, "start": 4.0, "end": 6.0, "time": "day"}
    return wlm.pl.clones(table, return_fig=True)


@pytest.mark.parametrize("name", PLOTS)
def test_plots_take_space_for_their_legends(drawn, name):
    """No legend lies over an axes that it is not part of, or beyond the figure."""
    figure = PLOTS[name](drawn)
    figure.canvas.draw()
    own = [legend for ax in figure.axes if (legend := ax.get_legend()) is not None]
    for legend in [*figure.legends, *own]:
        box = legend.get_window_extent()
        assert box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y0 >= -1 and box.y1 <= figure.bbox.y1 + 1
        assert not any(a.get_visible() and box.overlaps(a.get_window_extent()) for a in figure.axes)
    for ax in figure.axes:
        texts = [t for t in (ax.title, ax.xaxis.label, ax.yaxis.label) if t.get_text() and ax.get_visible()]
        for text in texts:
            box = text.get_window_extent()
            assert box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1, text.get_text()
    plt.close(figure)
