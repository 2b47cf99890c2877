"""What tests compare with: closed forms, finite differences, and models whose every coefficient is set.

Tests are imported by ``--import-mode=importlib``, which puts none of their folders on the path; pytest's ``pythonpath``
(see ``pyproject.toml``) puts this folder there, so that every test says ``from oracles import …``.
"""

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from wlm.core.dynamics import Dynamics
from wlm.core.methods import WLM, JKOnetStar
from wlm.core.methods._gradient_flow import GradientFlow
from wlm.core.model import Spec
from wlm.core.units import Units

# Closed forms


def gaussian_w2(mean, covariance, other_mean, other_covariance):
    """W2 of two Gaussians: |m - m'|^2 + tr(C + C' - 2 (C^1/2 C' C^1/2)^1/2), the Bures-Wasserstein distance."""
    root = _root(covariance)
    cross = _root(root @ other_covariance @ root)
    square = np.square(np.subtract(mean, other_mean)).sum() + np.trace(covariance + other_covariance - 2 * cross)
    return np.sqrt(max(square, 0.0))


def _root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def ornstein_uhlenbeck(mean, variance, rate, diffusion, t, centre=0.0):
    """Mean and variance after ``t`` of dX = -rate (X - centre) dt + sqrt(2 diffusion) dB, each dimension by itself."""
    decay = np.exp(-rate * t)
    return centre + (mean - centre) * decay, variance * decay**2 + diffusion / rate * (1 - decay**2)


def implicit_ornstein_uhlenbeck(mean, variance, rate, diffusion, h, centre=0.0):
    """The same after one step of the splitting that a JKO step is simulated by: diffusion, then implicit Euler."""
    shrink = 1 / (1 + h * rate)
    return centre + (mean - centre) * shrink, (variance + 2 * diffusion * h) * shrink**2


def finite_difference(f, x, step=1e-3):
    """Gradient (n, d) of the sum of ``f``, values (n,) at ``x`` (n, d) that depend on their own row."""
    x = np.asarray(x, dtype=np.float64)
    columns = []
    for e in np.eye(x.shape[1]):
        columns.append((np.asarray(f(x + step * e), np.float64) - np.asarray(f(x - step * e), np.float64)) / (2 * step))
    return np.stack(columns, axis=1)


def standardised(n, d, seed=0):
    """Cells (n, d) whose sample mean is exactly 0 and whose sample covariance is exactly the identity."""
    z = np.random.default_rng(seed).normal(size=(n, d))
    z -= z.mean(0)
    return z @ np.linalg.inv(np.linalg.cholesky(np.cov(z.T, bias=True).reshape(d, d))).T


# Models with known coefficients


class Quadratic(nn.Module):
    """V(x) = rate |x - centre|^2 / 2, or W(z) where the centre is 0, and its gradient."""

    def __init__(self, rate, centre=0.0):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(float(rate)))
        self.register_buffer("centre", torch.as_tensor(centre, dtype=torch.float32))

    def forward(self, x, t):
        return 0.5 * self.rate * (x - self.centre).square().sum(-1)

    def with_gradient(self, x, t):
        return self(x, t), self.gradient(x, t)

    def gradient(self, x, t):
        return self.rate * (x - self.centre)


class Tilt(nn.Module):
    """V(x, t) = t sum(x): a potential whose slope is the time at which it is asked."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.tensor(1.0))

    def forward(self, x, t):
        return self.one * t * x.sum(-1)

    def with_gradient(self, x, t):
        return self(x, t), self.gradient(x, t)

    def gradient(self, x, t):
        return (self.one * t).unsqueeze(-1).expand_as(x) if t.ndim else (self.one * t).expand_as(x)


def flow(potential=None, interaction=None, diffusion=None, *, times=(0.0, 1.0), scheme="implicit", dim=2):
    """A gradient flow of these parts."""
    present = {"V": potential, "W": interaction, "U": diffusion}
    energy = "+".join(name for name, part in present.items() if part is not None)
    model = GradientFlow(dim, energy, 4, times, time_varying=isinstance(potential, Tilt), scheme=scheme)
    model.potential, model.interaction = potential, interaction
    if diffusion is not None:
        set_diffusion(model, diffusion)
    return model


def set_diffusion(model, diffusion):
    """Set theta_3 of a gradient flow."""
    with torch.no_grad():
        model.raw_diffusion.copy_(torch.tensor(float(diffusion), dtype=torch.float64).expm1().log())


class Spring(nn.Module):
    """u = rate |x|^2 / 2 of each cell, which sees no others."""

    def __init__(self, rate, dim=2):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(float(rate)))
        self.embed = nn.Linear(dim, 1).requires_grad_(requires_grad=False)

    def forward(self, x, t, log_w=None):
        return 0.5 * self.rate * x.square().sum(-1)


def mechanics(potential=None, friction=0.0, step=0.05):
    """Second-order dynamics of a potential, by default a small untrained one; they start with given velocities."""
    small = {"width": 8, "heads": 2, "hidden": 8, "n_inducing": 2}
    method = WLM(friction=friction, max_step=2 * step, initial_velocity="data", **small)
    model = method.build(Spec(2, 0.1, has_velocity=True, n_times=2, times=(0.0, 1.0)))
    if potential is not None:
        model.potential = potential
    return model


def units(length=1.0, time=1.0, location=(0.0, 0.0), origin=0.0):
    """Units of the data."""
    return Units(np.asarray(location, dtype=float), length, origin, time)


def dynamics(model, scale=None, *, blur=0.1, times=(0.0, 1.0)):
    """A model in units of the data, by default the standard ones."""
    first_order = isinstance(model, GradientFlow)
    dim = 2 if scale is None else len(scale.location)
    spec = Spec(dim, blur, has_velocity=not first_order, n_times=len(times), times=tuple(times))
    return Dynamics(model.eval(), JKOnetStar() if first_order else WLM(), spec, units() if scale is None else scale)


# Data


class Drawn:
    """The part of a numpy generator that tests use, with numbers that Hypothesis draws, and so makes simple again."""

    def __init__(self, data):
        self.data = data

    def integers(self, n):
        return self.data.draw(st.integers(0, int(n) - 1))

    def random(self, size):
        return self.uniform(0, 1, size)

    def uniform(self, low, high, size):
        return self.data.draw(arrays(np.float64, size, elements=st.floats(low, high)))

    def normal(self, size):
        return self.uniform(-4, 4, size)


# Simulations


def crossing(n=60, seed=0):
    """Two groups that change places between two times: positions (2, n, 2), and the clone (n,) of each pair of cells.

    Each population looks as the other does, so that without clones nothing seems to move.
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2)) * [0.2, 0.4] + np.where(np.arange(n) % 2, 1.0, -1.0)[:, None] * [1, 0]
    y = x * [-1, 1] + 0.05 * rng.normal(size=(n, 2))
    return np.stack([x, y]), np.arange(n)
