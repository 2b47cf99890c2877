"""Curves through chains of cells around a velocity field: regression, without training by simulation.

See :func:`wlm.core.field.learn_paths` for how the paths are found. Between two training times cells follow these paths;
after the last they follow the field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from wlm.core.chains import to_cells
from wlm.core.energies.landscape import Features
from wlm.core.field import SCALES, Basis, agreed, learn_paths, unexplained
from wlm.core.methods._base import Method, State
from wlm.core.model import Model, Quantity, Spec
from wlm.core.particles import Particles, together
from wlm.core.populations import Populations
from wlm.core.snapshots import Snapshots
from wlm.core.transport import partners

#: Longest step of the integrator, in mean intervals; ridge penalty of the potential, relative to each feature's size.
STEP, RIDGE = 0.125, 1e-6
#: Ridge penalties of the field, by row; most cells of a time that it is regressed on.
RIDGES, N_CELLS = tuple(10.0**k for k in range(-4, 1)), 1000


class VelocityField(Model):
    r"""The field :math:`f(x) = B^\top\phi(x)` and, as its energy, the potential whose slopes explain most of it.

    Parameters
    ----------
    dim
        Dimension d of the space.
    n_features
        Waves of the basis.
    """

    order: ClassVar[int] = 1
    steady: ClassVar[float | None] = 1.0
    waves: Tensor
    phases: Tensor
    fastest: Tensor

    def __init__(self, dim: int, n_features: int):
        super().__init__()
        self.register_buffer("waves", torch.zeros(dim, n_features))
        self.register_buffer("phases", torch.zeros(n_features))
        self.register_buffer("fastest", torch.tensor(torch.inf))
        # Parameters, as of every model; the regression sets them.
        self.weights = nn.Parameter(torch.zeros(1 + dim + n_features, dim), requires_grad=False)
        self.potential = Features(dim).requires_grad_(requires_grad=False)

    def features(self, x: Tensor) -> Tensor:
        """Features (..., 1 + d + p) of positions (..., d), those of :class:`~wlm.core.field.Basis`."""
        amplitude = math.sqrt(2 / len(self.phases))
        return torch.cat([torch.ones_like(x[..., :1]), x, amplitude * (x @ self.waves + self.phases).cos()], -1)

    def at(self, x: Tensor) -> Tensor:
        """Velocities (..., d) at ``x`` (..., d), nowhere faster than any cell was."""
        v = self.features(x) @ self.weights
        return v * (self.fastest / v.norm(dim=-1, keepdim=True).clamp_min(1e-12)).clamp_max(1.0)

    def explain(self, places: Tensor) -> None:
        """Set the potential to the one whose slopes explain most of the field at ``places`` (n, d)."""
        self.potential.place(places)
        gram: Any = 0.0
        right: Any = 0.0
        for x in places.split(1024):
            design = self.potential.design(x).double()  # (n, d, p)
            gram = gram + torch.einsum("ndp,ndq->pq", design, design)
            right = right - torch.einsum("ndp,nd->p", design, self.at(x).double())
        penalty = torch.diag(RIDGE * gram.diagonal().clamp_min(1e-12))
        self.potential.coefficients.copy_(torch.linalg.solve(gram + penalty, right))

    def initial_velocity(self, x: Tensor) -> Tensor | None:
        return None

    def rollout(self, start: Particles, times: Tensor, generator: torch.Generator) -> Particles:
        """Positions by the midpoint rule; velocities are those of the field, at the start too."""
        x, states = start.x, [start._replace(v=self.at(start.x))]
        for duration in times.diff().tolist():
            n = max(1, int(np.ceil(duration / STEP - 1e-6)))
            for _ in range(n):
                x = x + duration / n * self.at(x + duration / n / 2 * self.at(x))
            states.append(start._replace(x=x, v=self.at(x)))
        return together(states)

    def energy(self, p: Particles, t: Tensor) -> Tensor:
        return self.potential(p.x, t)

    def force(self, p: Particles, t: Tensor) -> Tensor:
        return self.at(p.x)

    def constants(self) -> dict[str, Quantity]:
        return {}


@dataclass(frozen=True, kw_only=True)
class Flow(Method[VelocityField, State]):
    """Options of ``method="flow"``.

    Parameters
    ----------
    path
        What leads cells from one training time to the next: ``"field"`` (a velocity field, with curves through the
        cells for what it leaves), ``"spline"`` (natural cubic splines through optimal couplings), ``"straight"``
        lines, or ``"auto"``: a field where it predicts intervals left out better than persistence does, and curves
        where the evidence is for them, see :func:`wlm.core.field.learn_paths`. With three training times lines are
        straight.
    n_features
        Waves of the field that forecasts follow.
    n_steps, lr, batch_size, ema
        Of the training that every method has; nothing is left to train here, so that ``n_steps`` is always 1.
    """

    name: ClassVar[str] = "flow"
    account: ClassVar[str] = (
        "regression: cells follow curves through chains of optimal couplings of the observed populations, around a "
        "velocity field that is regressed on them, without training by simulation"
    )

    path: str = "auto"
    n_features: int = 150
    n_steps: int = 1
    lr: float | None = None
    batch_size: int = 256
    ema: float = 0.0

    def __post_init__(self) -> None:
        self._require_one_of("path", ("auto", "field", "spline", "straight"))
        self._require("n_features", int, 1)
        self._require("batch_size", int, 1)
        object.__setattr__(self, "n_steps", 1)  # the regression is done before the first

    def agree(self, choices: Sequence[Mapping[str, Any]]) -> str | None:
        return agreed(choices) if self.path == "auto" else None

    def prepare(
        self, populations: Populations, choice: str | None = None
    ) -> tuple[Populations, dict[str, dict[str, Any]]]:
        populations, _ = super().prepare(populations)
        paths = None if self.path == "straight" else learn_paths(populations, path=choice or self.path)
        if paths is None and self.path in ("field", "spline"):
            raise ValueError(
                f"path={self.path!r} needs four training times of ten cells at least, found "
                f"{len(populations.times)} times; choose path='straight' or 'auto'"
            )
        if paths is None:
            words = "cells follow straight lines through optimal couplings"
            if self.path == "auto":
                words += ": there are too few times or cells to tell more"
            x, y = (np.asarray(z, dtype=np.float32) for z in populations.positions[:2])
            a, b = (None, None) if populations.weights is None else populations.weights[:2]
            shift = np.average(y, axis=0, weights=b) - np.average(x, axis=0, weights=a)
            drift = shift / (populations.times[1] - populations.times[0])
            first = np.broadcast_to(drift, x.shape).astype(np.float32)
            note: dict[str, Any] = {"path": "straight", "words": words}
        else:
            of_cells = to_cells(populations, paths.positions, paths.velocities)
            first, note = of_cells[0], paths.note()
            if paths.bends:
                return replace(populations, velocities=of_cells), {"choice": note}
        # Velocities at later times would bend the lines.
        none = (np.full(x.shape, np.nan, dtype=np.float32) for x in populations.positions[1:])
        return replace(populations, velocities=(first, *none)), {"choice": note}

    def build(self, spec: Spec) -> VelocityField:
        return VelocityField(spec.n_dims, self.n_features)

    def init(self, model: VelocityField, spec: Spec, snapshots: Snapshots, generator: torch.Generator) -> State:
        x, v = _velocities(snapshots)
        bases = [Basis.of(spec.n_dims, scale, self.n_features) for scale in SCALES]
        tried = [(*_regress(basis, x, v), basis) for basis in bases]
        _, weights, basis = min(tried, key=lambda found: found[0])
        n = len(basis.phases)  # a linear field has no waves: theirs have no weight
        with torch.no_grad():
            model.waves[:, :n] = torch.as_tensor(basis.waves)
            model.phases[:n] = torch.as_tensor(basis.phases)
            model.weights[: len(weights)] = torch.as_tensor(weights)
            speeds = np.concatenate([np.linalg.norm(part, axis=1) for part in v])
            model.fastest.fill_(float(speeds.max()))
            model.explain(torch.as_tensor(np.concatenate(x), dtype=model.waves.dtype, device=model.waves.device))
        return State(snapshots=snapshots, generator=generator)

    def step(self, model: VelocityField, spec: Spec, state: State) -> dict[str, float]:
        x, v = _velocities(state.snapshots)
        positions, wanted = (
            torch.as_tensor(np.concatenate(a), dtype=model.waves.dtype, device=model.waves.device) for a in (x, v)
        )
        return {"loss": float((model.at(positions) - wanted).square().sum(-1).mean())}


def _velocities(snapshots: Snapshots) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Cells of each time, drawn by weight, with their velocities; of straight lines, those towards their partners."""
    if snapshots.velocities is None:
        raise ValueError("Flow.prepare gives populations their velocities; train on what it returns")
    rng, generator = np.random.default_rng(0), torch.Generator(snapshots.times.device).manual_seed(0)
    some = [snapshots.draw_by_weight(k, min(len(z), N_CELLS), generator) for k, z in enumerate(snapshots.positions)]

    def drawn(arrays: list[Tensor]) -> list[np.ndarray]:
        return [z[i].cpu().double().numpy() for z, i in zip(arrays, some, strict=True)]

    positions, velocities = drawn(snapshots.positions), drawn(snapshots.velocities)
    if all(np.isfinite(u).all() for u in velocities):
        return positions, velocities
    x, v = [], []
    for k, tau in enumerate(snapshots.times.diff().tolist()):
        before, after = positions[k : k + 2]
        slope = (partners(before, after, rng) - before) / tau
        x.append(before + tau / 2 * slope)
        v.append(slope)
    return x, v


def _regress(basis: Basis, x: list[np.ndarray], v: list[np.ndarray]) -> tuple[float, np.ndarray]:
    """What is unexplained at times left out, and the weights (1 + d + p, d), for the best penalty.

    The field has the share that these times confirm: nothing is known of the next interval if there is but one.
    """
    designs = [basis(part) for part in x]
    grams, rights = [a.T @ a for a in designs], [a.T @ b for a, b in zip(designs, v, strict=True)]
    gram, right, n = np.sum(grams, axis=0), np.sum(rights, axis=0), sum(map(len, x))
    penalty = n * np.eye(len(gram))
    penalty[0, 0] *= 1e-6
    best = (np.inf, np.zeros_like(right))
    for ridge in RIDGES:
        left = [
            a @ np.linalg.solve(gram - g + ridge * penalty, right - r)
            for a, g, r in zip(designs, grams, rights, strict=True)
        ]
        error, share = unexplained(np.concatenate(v), np.concatenate(left))
        if error < best[0]:
            best = error, share * np.linalg.solve(gram + ridge * penalty, right)
    return best
