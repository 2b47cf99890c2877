"""A method is one file: this one, which nothing else in the package knows, goes through every verb."""

import inspect
import json
from dataclasses import dataclass
from typing import Any, ClassVar

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import wlm
from wlm.core.methods import METHODS, Method, Model, Quantity, Spec, State
from wlm.core.particles import Particles, together
from wlm.core.populations import Populations
from wlm.core.training import train


class Drift(Model):
    """Every cell moves with the same constant velocity: x' = drift."""

    order: ClassVar[int] = 1

    def __init__(self, n_dims: int):
        super().__init__()
        self.drift = nn.Parameter(torch.zeros(n_dims))

    def initial_velocity(self, x: Tensor) -> Tensor:
        return self.drift.detach().expand(x.shape)

    def velocity(self, p: Particles, t: Tensor) -> Tensor:
        return self.drift.detach().expand(p.x.shape)

    def rollout(self, start: Particles, times: Tensor, generator: torch.Generator) -> Particles:
        drift = self.drift.expand(start.x.shape)
        return together([start._replace(x=start.x + (t - times[0]) * drift, v=drift) for t in times])

    def energy(self, p: Particles, t: Tensor) -> Tensor:
        return -(p.x * self.drift).sum(-1)

    def force(self, p: Particles, t: Tensor) -> Tensor:
        return self.drift.detach().expand(p.x.shape)

    def constants(self) -> dict[str, Quantity]:
        return {"pace": Quantity(self.drift.norm().item(), length=1, time=-1)}


class Rate:
    """A learning rate that decays: a kind of state that no library knows."""

    def __init__(self, lr: float):
        self.lr = lr

    def state_dict(self) -> dict[str, float]:
        return {"lr": self.lr}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.lr = state_dict["lr"]

    def slow_down(self, factor: float) -> None:
        self.lr *= factor


@dataclass(kw_only=True)
class DriftState(State):
    rate: Rate

    def parts(self) -> dict[str, Any]:
        return super().parts() | {"rate": self.rate}


@dataclass(frozen=True, kw_only=True)
class DriftMethod(Method[Drift, DriftState]):
    """Options of ``method="drift"``."""

    name: ClassVar[str] = "drift"
    n_steps: int = 40
    lr: float = 0.3
    batch_size: int = 64
    ema: float = 0.5
    decay: float = 0.97

    def build(self, spec: Spec) -> Drift:
        return Drift(spec.n_dims)

    def init(self, model, spec, snapshots, generator) -> DriftState:
        return DriftState(snapshots=snapshots, generator=generator, rate=Rate(self.lr))

    def step(self, model: Drift, spec: Spec, state: DriftState) -> dict[str, float]:
        _, x, shares = state.snapshots.batches(self.batch_size, state.generator)
        means = (shares.unsqueeze(-1) * x).sum(1)
        pace = means.diff(dim=0) / state.snapshots.times.diff()[:, None]
        loss = (pace - model.drift).square().sum(-1).mean()
        loss.backward()
        with torch.no_grad():
            model.drift -= state.rate.lr * model.drift.grad
            model.drift.grad = None
        state.rate.lr *= self.decay
        return {"loss": loss.item(), **{k: q.value for k, q in model.constants().items()}}


@pytest.fixture(scope="module")
def _drifting():
    """150 cells on each of days 0, 2, 4, 6, drifting by (1, -0.5) a day."""
    rng = np.random.default_rng(0)
    day = np.repeat([0.0, 2.0, 4.0, 6.0], 150)
    x = rng.normal(size=(600, 3)) + day[:, None] * [1.0, -0.5, 0.0]
    adata = ad.AnnData(obs={"day": day, "type": np.where(rng.random(600) < 0.5, "a", "b")}, obsm={"X_pca": x})
    adata.obs_names = [f"c{i}" for i in range(600)]
    return adata


@pytest.fixture(scope="module")
def _own(_drifting):
    return wlm.tl.fit(_drifting, "day", method="drift", holdout=2, n_models=2, show_progress=False, copy=True)


@pytest.fixture
def own(_own):
    return _own.copy()


def test_a_class_with_a_name_is_a_method():
    assert METHODS["drift"] is DriftMethod
    with pytest.raises(TypeError, match="unknown option.*'drift'; did you mean decay"):
        DriftMethod.from_options({"decays": 1})


def test_it_fits_predicts_and_has_its_constant_in_its_unit(own, capsys):
    stored = own.uns["wlm"]
    assert stored["pace"] == pytest.approx(np.hypot(1, 0.5), rel=0.1) and json.loads(stored["config"])["decay"] == 0.97
    assert np.allclose(own.obsm["wlm_velocity"], [1, -0.5, 0], atol=0.15)
    predicted = wlm.tl.predict(own, [3, 8])
    late = predicted[predicted.obs["day"] == 8].obsm["X_pca"].mean(0)
    assert np.allclose(late, [8, -4, 0], atol=0.5)


def test_it_is_evaluated_beside_others(_drifting):
    table = wlm.tl.evaluate(
        _drifting, "day", method={"drift": {"n_steps": 30}, "jkonet_star": {"n_steps": 20}}, n_boot=0
    )
    scores = table.groupby("model")["w1"].mean()
    assert scores["drift"] < scores["previous"]


def test_it_resumes_and_slows_down(tmp_path):
    rng = np.random.default_rng(0)
    p = Populations(np.arange(3.0), tuple(rng.normal(size=(50, 2)) + k for k in range(3)))
    whole = train(p, DriftMethod(), seed=1)

    def stop(step, scalars):
        if step == 21:
            raise KeyboardInterrupt

    file = tmp_path / "run.npz"
    with pytest.raises(KeyboardInterrupt):
        train(p, DriftMethod(), seed=1, checkpoint=file, on_step=stop)
    resumed = train(p, DriftMethod(), seed=1, checkpoint=file)
    assert torch.equal(whole.dynamics.model.drift, resumed.dynamics.model.drift)
    rates = []

    class Lost(DriftMethod):
        def step(self, model, spec, state):
            rates.append(state.rate.lr)
            scalars = super().step(model, spec, state)
            return {**scalars, "loss": np.nan} if len(rates) == 11 else scalars

    with pytest.warns(UserWarning, match="going back to step 10"):
        train(p, Lost(), seed=1)
    assert rates[11] == pytest.approx(0.3 * rates[10])


def test_it_is_saved_loaded_and_diagnosed(own, tmp_path):
    own.write_h5ad(tmp_path / "own.h5ad")
    assert wlm.load(tmp_path / "own.h5ad").rates() == pytest.approx({"pace": own.uns["wlm"]["pace"]})
    back = ad.read_h5ad(tmp_path / "own.h5ad")
    assert np.array_equal(wlm.tl.predict(back, 3).obsm["X_pca"], wlm.tl.predict(own, 3).obsm["X_pca"])
    with pytest.raises(ValueError, match="has no friction"):
        wlm.tl.diagnose(own)


def test_the_doctor_says_what_it_costs(_drifting):
    report = wlm.pp.doctor(_drifting, time_key="day", method="drift").set_index("check")
    assert "40 steps" in report.loc["run time", "found"]
    assert report.attrs["arguments"]["method"] == "drift" and "method='drift'" in report.attrs["call"]


def test_the_next_day_is_planned_and_samples_are_left_out(own):
    table = wlm.tl.plan(own, n_courses=12)
    assert 0 < table["time"].iloc[0] < 6 and table.attrs["observed"] == [0.0, 4.0, 6.0]
    own.obs["mouse"] = [f"m{i % 3}" for i in range(own.n_obs)]
    scores = wlm.tl.evaluate(own, "day", method="drift", group_key="mouse", metrics="w1", n_boot=0)
    means = scores.groupby("model")["w1"].mean()
    assert means["drift"] < 0.6 * means["previous"] and scores["group"].nunique() == 3


#: Plots of tables, of genes, of a friction and of rates, none of which these cells have.
OTHERS = {"evaluation", "comparison", "clones", "perturbation", "plan", "drivers", "genes", "energy", "friction"}
OTHERS |= {"growth"}


@pytest.mark.parametrize("name", [n for n in wlm.pl.__all__ if n not in OTHERS])
def test_every_plot_draws_it(own, name):
    plot = getattr(wlm.pl, name)
    if "fate" in name:
        wlm.tl.terminal_states(own, label_key="type", states=["a", "b"])
        wlm.tl.fates(own)
    takes = inspect.signature(plot).parameters
    more = {"groupby": "type"} if "groupby" in takes else {}
    plot(own, **more, **({"show": False} if "show" in takes else {}))
    plt.close("all")
