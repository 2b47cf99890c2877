"""JKOnet* against steps that solve its equation exactly."""

import numpy as np
import pytest
import torch
from oracles import Quadratic, flow, standardised

from wlm.core.methods import JKOnetStar
from wlm.core.methods.jkonet_star import pair_mean
from wlm.core.populations import Populations
from wlm.core.training import train
from wlm.core.units import Units


def test_a_cell_that_was_drawn_twice_does_not_meet_itself():
    z = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]]])
    assert pair_mean(z.norm(dim=-1), z, 1).item() == 2
    assert torch.allclose(pair_mean(z, z, 1), torch.tensor([[0.5, 1.5]]))


@pytest.mark.slow
def test_regression_recovers_a_quadratic_well_in_closed_form_and_by_a_network():
    a = np.array([1.0, 0.3])
    x0 = np.random.default_rng(0).normal(size=(800, 2)) + [1.0, 1.0]
    populations = tuple(x0 / (1 + a) ** k for k in range(3))
    for options in ({"solver": "ridge"}, {"solver": "neural"}):
        dynamics = train(Populations(np.arange(3.0), populations), JKOnetStar(**options)).dynamics
        x = populations[1]
        assert np.square(-dynamics.force(x, 1) - a * x).mean() < 0.02 * np.square(a * x).mean()


#: Few enough cells that the density is one Gaussian, which it then is exactly.
N = 49


def jko_step(rate, diffusion, *, tau, start=1.5, pull=0.0):
    """Scale s of the next population of an exact JKO step from the scale ``start``, at which this is solved:

    (s - start) / tau + rate s + pull s n / (n - 1) - diffusion / s = 0, for Gaussians of these standard deviations.
    """
    a = 1 / tau + rate + pull * N / (N - 1)
    return (start / tau + np.sqrt((start / tau) ** 2 + 4 * a * diffusion)) / (2 * a)


def solved(rate=0.0, diffusion=0.0, pull=0.0, times=(0.0, 0.5, 2.0)):
    """Populations of exact steps in standard units, their cells in random order."""
    rng, scales = np.random.default_rng(0), [1.5]
    for tau in np.diff(times):
        scales.append(jko_step(rate, diffusion, tau=tau, start=scales[-1], pull=pull))
    x = standardised(N, 2)
    p = Populations(np.asarray(times), tuple(s * x[rng.permutation(N)] for s in scales))
    return p, Units.of(p)


def known(model):
    """JKOnet* that starts, and stays, with this energy."""

    class Known(JKOnetStar):
        def build(self, spec):
            return model(spec)

    return Known(n_steps=1, lr=1e-12, batch_size=4000, energy=model.energy)


class Parts:
    """A gradient flow with coefficients in the units of the data."""

    def __init__(self, units, rate=None, diffusion=None, pull=None):
        time, area = units.time, units.time / units.length**2
        self.parts = (
            None if rate is None else Quadratic(rate * time),
            None if pull is None else Quadratic(pull * time),
            None if diffusion is None else diffusion * area,
        )
        present = zip("VWU", self.parts, strict=True)
        self.energy = "+".join(name for name, part in present if part is not None)

    def __call__(self, spec):
        return flow(*self.parts, times=spec.times)


@pytest.mark.parametrize(
    "truth",
    [{"rate": 0.8}, {"rate": 0.3, "diffusion": 0.5}, {"rate": 1.0, "diffusion": 0.1}, {"pull": 0.8, "diffusion": 0.2}],
)
def test_the_energy_of_exact_steps_has_no_error_and_its_opposite_has(truth):
    """Potential, entropy and interaction: the gradient of the right energy cancels the displacement at every cell."""
    p, units = solved(**truth)
    right = train(p, known(Parts(units, **truth))).history["loss"][0]
    # The others that an interaction is averaged over are drawn.
    assert right < (0.01 if "pull" in truth else 1e-4)
    for name in truth:
        wrong = {**truth, name: 0.3 * truth[name]}
        assert train(p, known(Parts(units, **wrong))).history["loss"][0] > 2e-3 + 5 * right


@pytest.mark.parametrize("truth", [{"rate": 0.8}, {"rate": 0.3, "diffusion": 0.5}, {"pull": 0.8, "diffusion": 0.2}])
def test_the_closed_form_finds_the_energy_of_exact_steps(truth):
    p, _ = solved(**truth)
    energy = {"rate": "V", "pull": "W"}[next(iter(truth))] + ("+U" if "diffusion" in truth else "")
    found = train(p, JKOnetStar(solver="ridge", energy=energy, ridge=1e-6)).dynamics
    if "diffusion" in truth:
        assert found.rates()["diffusion"] == pytest.approx(truth["diffusion"], rel=0.05)
    x = p.positions[1]
    strength = truth.get("rate", 0) + truth.get("pull", 0) * N / (N - 1)
    error = found.force(x, 0.5) + strength * x
    assert np.square(error).mean() < 0.01 * np.square(strength * x).mean()


def test_a_negative_diffusion_is_none():
    """A population that shrinks as if it diffused backwards."""
    x = standardised(N, 2)
    backwards = Populations(np.array([0.0, 1.0]), (x, 0.7 * x))
    found = train(backwards, JKOnetStar(solver="ridge", energy="W+U")).dynamics
    assert 0 <= found.rates()["diffusion"] < 0.05


def test_cells_count_by_their_weight():
    """Half of the cells move; what an energy of zero leaves unexplained is the weighted mean of their squares."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 2)) * 0.1 + np.repeat([[-3.0, 0.0], [3.0, 0.0]], 50, axis=0)
    w, step = np.repeat([1.0, 9.0], 50), np.repeat([[0.0, 1.0], [0.0, 0.5]], 50, axis=0)
    p = Populations(np.array([0.0, 2.0]), (x, x + step), weights=(w, w))
    found = train(p, known(Parts(Units.of(p), rate=0.0)))
    # Between two times there is one standard unit of time.
    expected = (0.1 * 1.0 + 0.9 * 0.25) / found.dynamics.units.length**2
    assert found.history["loss"][0] == pytest.approx(expected, rel=0.05)
    closed, copied = (
        train(q, JKOnetStar(solver="ridge")).dynamics
        for q in (p, Populations(p.times, tuple(np.repeat(z, w.astype(int), axis=0) for z in p.positions)))
    )
    np.testing.assert_allclose(closed.force(x + step, 2.0), copied.force(x + step, 2.0), atol=0.1)
