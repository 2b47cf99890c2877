"""The paper's own algorithm and settings."""

import json
import warnings

import numpy as np
import pytest
import torch

import wlm
from wlm.core.methods import METHODS, WLM, IJKOnet, Spec
from wlm.core.methods.wlm_paper import PAPER
from wlm.core.populations import Populations
from wlm.core.training import train

SPEC = Spec(5, 0.2, has_velocity=False, n_times=5, times=(0.0, 1.0, 2.0, 3.0, 4.0))


def populations(n=30, n_times=4):
    rng = np.random.default_rng(0)
    return Populations(np.arange(float(n_times)), tuple(rng.normal(size=(n, 2)) + k for k in range(n_times)))


def test_the_settings_of_each_experiment():
    """Table 1 and appendix of the paper, written down a second time."""
    eb, vortex, boids = (WLM.paper(name) for name in ("eb", "vortex", "boids"))
    assert (eb.p, eb.blur, eb.batch_size, eb.weight_decay, eb.hidden, eb.n_steps) == (1, 1.25, 1024, 1e-3, 256, 10_000)
    assert (eb.friction, eb.friction_lr, eb.lr, eb.ema, eb.width, eb.heads) == (1.0, 1e-2, 1e-4, 0.999, 64, 4)
    assert (vortex.p, vortex.heads, vortex.width, vortex.hidden, vortex.time_features) == (2, 1, 256, 64, True)
    assert (vortex.friction, vortex.friction_lr, vortex.ema, vortex.n_steps) == (0.1, 1e-3, 0.9999, 50_000)
    assert (boids.friction, boids.p, boids.time_features) == (0.0, 1, False)
    forecast = WLM.paper("vortex_forecast")
    assert forecast.friction == 1.0 and not forecast.time_features
    assert set(PAPER) == {"eb", "vortex", "vortex_forecast", "sde", "boids"}
    with pytest.raises(ValueError, match="experiment must be one of"):
        WLM.paper("moons")


def test_the_network_and_the_steps_are_the_papers():
    model = WLM.paper("eb").build(SPEC)
    assert len(model.potential.blocks) == 4 and all(block.inducing is None for block in model.potential.blocks)
    assert model._step == 1 / 8 and WLM.paper("sde")._blur(SPEC) == pytest.approx(1.0)  # half of the median distance


def test_rollouts_start_at_the_first_time_and_take_one_step_an_interval(monkeypatch):
    from wlm.core.methods import wlm as module

    seen, plain = [], module.refine

    def watched(times, substeps):
        seen.append((float(times[0]), len(times), set(substeps)))
        return plain(times, substeps)

    monkeypatch.setattr(module, "refine", watched)
    fit = train(populations(), WLM.paper("sde").from_options({"n_steps": 60, "width": 8, "hidden": 8, "batch_size": 8}))
    assert {start for start, _, _ in seen} == {0.0} and {s for _, _, steps in seen for s in steps} == {1}
    horizons = np.bincount([n - 1 for _, n, _ in seen], minlength=4)[1:]
    assert (horizons > 8).all(), "each of three horizons with the same probability"
    assert fit.dynamics.method.name == "wlm_paper"
    v = torch.ones(3, 2)
    assert fit.dynamics.model.start_velocity(v, torch.Generator()).abs().max() == 0


def test_a_configured_method_is_fitted_stored_and_read(cells):
    method = WLM.paper("eb")
    small = {"n_steps": 3, "width": 8, "hidden": 8, "batch_size": 16}
    wlm.tl.fit(cells, "day", method=method, show_progress=False, **small)
    stored = json.loads(cells.uns["wlm"]["config"])
    assert cells.uns["wlm"]["method"] == "wlm_paper" and stored["blur"] == 1.25 and stored["width"] == 8
    assert wlm.tl.predict(cells, 1.5).n_obs == 60
    table = wlm.tl.evaluate(cells, "day", method=method, holdout=2, n_boot=0, **small)
    assert "wlm_paper" in set(table["model"])


def test_every_backend_of_the_divergence_trains():
    losses = {
        name: train(populations(), WLM(n_steps=8, width=8, hidden=8, n_inducing=2, divergence=name)).history["loss"]
        for name in ("sinkhorn", "geomloss", "geomloss-tensorized")
    }
    np.testing.assert_array_equal(losses["geomloss"], losses["geomloss-tensorized"])
    np.testing.assert_allclose(losses["geomloss"][:3], losses["sinkhorn"][:3], rtol=0.1, atol=0.01)


@pytest.mark.parametrize(
    ("method", "kept", "gone"),
    [
        (WLM, {"depth": 2, "clip": 1.0, "restart": 0.5, "learn_friction": True}, {"gradient": "truncated"}),
        (IJKOnet, {"optimistic": False, "gradient_bound": None, "warm_start": False}, {"weight_decay": 0.1}),
    ],
)
def test_configs_with_options_that_are_gone(method, kept, gone):
    text = json.dumps({**json.loads(method(n_steps=7).to_json()), **kept})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert method.from_json(text) == method(n_steps=7)
    (name,) = gone
    with pytest.warns(UserWarning, match=f"made with {name}=.*predictions are the same"):
        assert method.from_json(json.dumps({"n_steps": 7, **gone})) == method(n_steps=7)


def test_options_that_are_constants_now_have_the_value_they_had():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        old = WLM.from_json(
            json.dumps({"depth": 1, "restart": 0.2, "clip": 3.0, "curriculum": 0.0, "momentum": "none"})
        )
    assert (old.DEPTH, old.RESTART, old.CLIP, old.CURRICULUM) == (1, 0.2, 3.0, 0.0)
    assert (WLM.DEPTH, WLM.RESTART, WLM.CLIP, WLM.CURRICULUM) == (1, 0.75, 1.0, 0.5)
    model = old.build(SPEC)
    assert len(model.potential.blocks) == 1
    # Fits of versions without the option had two blocks, those of the paper's algorithm four.
    for method, depth in ((WLM, 2), (type(WLM.paper("eb")), 4)):
        read = method.from_json('{"n_steps": 7}')
        assert len(read.build(SPEC).potential.blocks) == depth
        assert len(method.from_json(read.to_json()).build(SPEC).potential.blocks) == depth
    v, generator = torch.ones(200, 2), torch.Generator().manual_seed(0)
    assert model.start_velocity(v, generator).abs().max() == 0
    mixed = WLM.from_json(json.dumps({"momentum": "mixed"})).build(SPEC).start_velocity(v, generator)
    assert 0.4 < float(mixed.mean()) < 0.6 and float(mixed.max()) <= 1 and bool((mixed[:, 0] == mixed[:, 1]).all())


def test_no_method_has_more_options_than_a_person_can_read():
    import dataclasses

    counts = {name: len(dataclasses.fields(method)) for name, method in METHODS.items()}
    counts["wlm"] -= 1  # growth is an argument of tl.fit
    assert counts["wlm"] <= 20 and counts["ijkonet"] <= 14
