r"""A velocity field from snapshots, by regression on chains of cells, without training by simulation.

The field is a linear function of features, :math:`f(x) = B^\top\phi(x)`, and is sought in weak form: over each interval
the mean of :math:`f` along a cell's path has to be the displacement over the time. Paths are the field's own, led
through the cells of their chain by a spline; cells are then coupled anew where the field takes both ends of an
interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wlm.core.chains import chain, draw, links, spline
from wlm.core.populations import Array, Populations
from wlm.core.transport import assignment

#: Most chains that the field is regressed on.
N_PATHS = 500
#: Random Fourier features.
N_FEATURES = 150
#: Length scales of these that are tried, over sqrt(d) and in mean standard deviations; infinity is a linear field.
SCALES = (np.inf, 2.0, 1.0, 0.5)
#: Ridge penalties that are tried, by row.
RIDGES = tuple(10.0**k for k in range(-5, 0))
#: Points of a path in an interval; repetitions of a path, of which all but the last go half way; new couplings.
POINTS, SWEEPS, RECOUPLED = 8, 3, 3
#: Evidence (per chain and dimension) below which paths are straight but for the field.
STRAIGHT = -0.1
#: Dimensions, those of most variance, that the evidence is averaged over.
N_EVIDENCE = 10
#: Fewest training times and cells of each.
N_TIMES, N_LEAST = 4, 10


@dataclass(frozen=True)
class Basis:
    """Features (..., 1 + d + p) of positions (..., d): one, the position, and waves of random direction."""

    waves: Array  # (d, p)
    phases: Array  # (p,)

    @classmethod
    def of(cls, dim: int, scale: float, n: int = N_FEATURES) -> Basis:
        """A basis with waves of length ``scale`` times sqrt(d), the same for the same arguments; linear if infinite."""
        rng, n = np.random.default_rng(0), n if np.isfinite(scale) else 0
        return cls(rng.normal(size=(dim, n)) / (scale * np.sqrt(dim)), rng.uniform(0, 2 * np.pi, n))

    def __call__(self, x: Array) -> Array:
        # Most of the time goes to cosines, which single precision makes faster; scores do not change by it.
        angles = (x @ self.waves + self.phases).astype(np.float32)
        waves = np.float32(np.sqrt(2 / max(1, len(self.phases)))) * np.cos(angles)
        return np.concatenate([np.ones((*x.shape[:-1], 1)), x, waves], axis=-1)


@dataclass(frozen=True)
class Paths:
    """What the populations say of motion without training, in their own units.

    ``times`` (T,); ``positions`` and ``velocities`` (T, m, d) of cells along their chains at these; whether cells are
    led by ``curved`` lines (splines) or straight ones; the ``evidence`` for curved ones; the length ``scale`` of the
    field, None if there is none; its squared ``error`` in predicting the displacements over intervals left out, as a
    share of their square, and that of taking each cell's other displacements instead, ``persistence``.
    """

    times: Array
    positions: Array
    velocities: Array
    curved: bool
    evidence: float
    scale: float | None
    error: float
    persistence: float

    @property
    def bends(self) -> bool:
        """Whether cells leave the straight line to their partner."""
        return self.curved or self.scale is not None

    @property
    def words(self) -> str:
        """The choice in a sentence."""
        if self.scale is not None:
            kind = "linear" if np.isinf(self.scale) else "smooth"
            return (
                f"cells follow a {kind} velocity field, which predicts the displacements over intervals left out with "
                f"{100 * self.error:.0f} % of their square unexplained ({100 * self.persistence:.0f} % by persistence)"
            )
        kind = "smooth curves" if self.curved else "straight lines"
        return (
            f"cells follow {kind} through optimal couplings (evidence {self.evidence:.2g}); position does not "
            "determine their velocity well enough for a field"
        )

    def note(self) -> dict[str, Any]:
        """The choice, for ``uns``."""
        base = "spline" if self.curved else "straight"
        return {
            "path": base if self.scale is None else f"field+{base}",
            "evidence": self.evidence,
            "scale": np.nan if self.scale is None else self.scale,
            "error": self.error,
            "persistence": self.persistence,
            "words": self.words,
        }


def agreed(choices: Sequence[Mapping[str, Any]]) -> str | None:
    """The ``path`` for populations of several conditions together, given what was chosen for each alone.

    By the means of what the choices rest on (:meth:`Paths.note`); None if they agree, or no more than one could tell.
    """
    told = [choice for choice in choices if "evidence" in choice]
    if len({choice["path"] for choice in told}) < 2:
        return None
    evidence, error, persistence = (np.mean([c[k] for c in told]) for k in ("evidence", "error", "persistence"))
    base = "spline" if evidence > STRAIGHT else "straight"
    return f"field+{base}" if error < persistence else base


def learn_paths(populations: Populations, *, path: str = "auto") -> Paths | None:
    """Paths of cells through all populations: straight lines or splines, around a velocity field where there is one.

    Parameters
    ----------
    populations
        At most ``N_PATHS`` cells of each are chained, always the same.
    path
        ``"auto"``: a field where it predicts better than persistence, curves where there is evidence for them;
        ``"field"``, the same with a field in any case; or what they are to be whatever the data say: ``"straight"``,
        ``"spline"``, ``"field+straight"``, ``"field+spline"``.

    Returns
    -------
    None for fewer than ``N_TIMES`` times, or a time with fewer than ``N_LEAST`` cells: too few to tell.
    """
    times = np.asarray(populations.times, dtype=np.float64)
    if len(times) < N_TIMES or min(x.shape[0] for x in populations.positions) < N_LEAST:
        return None
    clouds = draw(populations, N_PATHS)
    # Mean intervals, and mean standard deviations within a time.
    unit, location = float(np.diff(times).mean()), np.mean([x.mean(0) for x in clouds], axis=0)
    length = float(np.mean([np.sqrt(x.var(0).mean()) for x in clouds])) or 1.0
    clouds, t = [(x - location) / length for x in clouds], (times - times[0]) / unit
    chains = chain(clouds, links(clouds))
    evidence = smoothness(t, chains)
    curved = path.endswith("spline") if path not in ("auto", "field") else evidence > STRAIGHT
    scales = () if path in ("straight", "spline") else SCALES
    tried = [_Loop(t, clouds, Basis.of(chains.shape[2], scale), curved).run() for scale in scales]
    found = min(tried, key=lambda loop: loop.error, default=None)
    persistence = _persistence(t, chains if found is None else found.chains)
    if found is not None and (path != "auto" or found.error < persistence):
        z, v, scale = found.chains, found.slopes(), SCALES[tried.index(found)]
    else:
        z, v, scale = chains, _lead(t, chains, curved)(t, 1), None
    return Paths(
        times,
        z * length + location,
        v * length / unit,
        curved,
        evidence,
        scale,
        np.nan if found is None else found.error,
        persistence,
    )


class _Loop:
    """A field for one basis: regressed on paths, which it bends, until cells are coupled as it moves them."""

    def __init__(self, t: Array, clouds: Sequence[Array], basis: Basis, curved: bool):  # noqa: FBT001
        self.t, self.clouds, self.basis, self.curved = t, clouds, basis, curved
        self.grid = np.append(np.linspace(t[:-1], t[1:], POINTS, endpoint=False, axis=1).ravel(), t[-1])
        self.chains: Array
        self.path: Array
        self.weights: Array
        self.error, self.share = np.inf, 0.0

    def run(self) -> _Loop:
        self.follow(links(self.clouds))
        for _ in range(RECOUPLED):
            half = np.diff(self.t) / 2
            pairs = zip(self.clouds[:-1], self.clouds[1:], half, strict=True)
            self.follow([assignment(self.moved(x, h), self.moved(y, -h))[0] for x, y, h in pairs])
        return self

    def field(self, x: Array) -> Array:
        """Velocities (..., d) at ``x`` (..., d), as much of them as intervals left out confirm."""
        return self.share * (self.basis(x) @ self.weights)

    def moved(self, x: Array, duration: float, n: int = 4) -> Array:
        """Where the field takes ``x`` (n, d), by the midpoint rule."""
        h = duration / n
        for _ in range(n):
            x = x + h * self.field(x + h / 2 * self.field(x))
        return x

    def follow(self, partners: Sequence[NDArray[np.intp]]) -> None:
        """Regress on the chains of these partners, and let the field bend the paths."""
        self.chains = chain(self.clouds, partners)
        self.path = _lead(self.t, self.chains, self.curved)(self.grid)
        self.regress()
        for k in range(SWEEPS):
            run = self.integral(self.field(self.path))
            new = run + _lead(self.t, self.chains - run[::POINTS], self.curved)(self.grid)
            self.path = self.path + (1.0 if k == SWEEPS - 1 else 0.5) * (new - self.path)

    def integral(self, values: Array) -> Array:
        """Of ``values`` (G, m, p) on the grid, from its start, by the trapezoid rule."""
        out = np.zeros_like(values)
        np.cumsum(np.diff(self.grid)[:, None, None] * (values[1:] + values[:-1]) / 2, axis=0, out=out[1:])
        return out

    def regress(self) -> None:
        """The weights of the field, its penalty chosen by leaving out one interval at a time."""
        h = np.diff(self.t)[:, None, None]
        design = np.diff(self.integral(self.basis(self.path))[::POINTS], axis=0) / h  # (T - 1, m, p)
        wanted = np.diff(self.chains, axis=0) / h  # (T - 1, m, d)
        gram, right = design.transpose(0, 2, 1) @ design, design.transpose(0, 2, 1) @ wanted
        everywhere = (gram.sum(0), right.sum(0))
        penalty = np.eye(design.shape[2]) * design.shape[0] * design.shape[1]
        penalty[0, 0] *= 1e-6  # a drift of all cells costs nothing
        self.error = np.inf
        for ridge in RIDGES:
            left = np.linalg.solve(everywhere[0] - gram + ridge * penalty, everywhere[1] - right)
            error, share = unexplained(wanted, design @ left)
            if error < self.error:
                self.error, self.share = error, share
                self.weights = np.linalg.solve(everywhere[0] + ridge * penalty, everywhere[1])

    def slopes(self) -> Array:
        """Velocities (T, m, d) of the paths at the times of the populations."""
        rest = self.chains - self.integral(self.field(self.path))[::POINTS]
        return self.field(self.chains) + _lead(self.t, rest, self.curved)(self.t, 1)


def _lead(t: Array, z: Array, curved: bool) -> Callable[..., Array]:  # noqa: FBT001
    """Splines or straight lines through ``z`` (T, m, d); of the latter, slopes are means of both sides."""
    if curved:
        return spline(t, z)

    def straight(at: Array, order: int = 0) -> Array:
        if order:
            pieces = np.diff(z, axis=0) / np.diff(t)[:, None, None]
            return (np.concatenate([pieces[:1], pieces]) + np.concatenate([pieces, pieces[-1:]])) / 2
        k = np.clip(np.searchsorted(t, at, side="right") - 1, 0, len(t) - 2)
        share = ((at - t[k]) / (t[k + 1] - t[k]))[:, None, None]
        return (1 - share) * z[k] + share * z[k + 1]

    return straight


def unexplained(wanted: Array, predicted: Array) -> tuple[float, float]:
    """Share of the square of ``wanted`` that the best share in [0, 1] of ``predicted`` leaves, and that share."""
    square = (predicted**2).sum()
    share = float(np.clip((wanted * predicted).sum() / max(square, 1e-300), 0, 1))
    return float(((wanted - share * predicted) ** 2).sum() / max((wanted**2).sum(), 1e-300)), share


def _persistence(t: Array, chains: Array) -> float:
    """What is left unexplained of each displacement by the neighbouring ones of the same chain."""
    v = np.diff(chains, axis=0) / np.diff(t)[:, None, None]
    padded = np.concatenate([v[1:2], v, v[-2:-1]])
    return unexplained(v, (padded[:-2] + padded[2:]) / 2)[0]


def smoothness(t: Array, chains: Array) -> float:
    r"""Log evidence, per chain and dimension, for smooth against rough paths.

    Chains (T, m, d), each dimension less its mean and over the mean standard deviation, are taken for draws of a
    Gaussian process with independent noise: once the integral of a Brownian motion with a Gaussian initial velocity,
    :math:`c_0 + c_1 st + c_2(m^3/3 + m^2|s - t|/2) + c_3\delta_{st}` with :math:`m = \min(s, t)`, once a Brownian
    motion, :math:`c_0 + c_1 m + c_2\delta_{st}`. Both likelihoods are at their maximum over the non-negative c.
    """
    s, u = np.meshgrid(t, t)
    m, one, noise = np.minimum(s, u), np.ones_like(s), np.eye(len(t))
    smooth, rough = [one, s * u, integrated(s, u), noise], [one, m, noise]
    scale = chains.std(1).mean() or 1.0
    most = np.argsort(-chains.var(axis=(0, 1)), kind="stable")[:N_EVIDENCE]
    gains = []
    for j in most:
        x = (chains[:, :, j] - chains[:, :, j].mean()) / scale
        second = x @ x.T / x.shape[1]
        gains.append(_likelihood(smooth, second) - _likelihood(rough, second))
    return float(np.mean(gains))


def integrated(s: Array, u: Array) -> Array:
    """Covariance of the integral of a Brownian motion between the times ``s`` and ``u``."""
    m = np.minimum(s, u)
    return m**3 / 3 + m**2 * abs(s - u) / 2


def _likelihood(kernels: Sequence[Array], second: Array) -> float:
    """The largest mean log likelihood of draws with second moments ``second`` (T, T), up to a constant."""
    from scipy.optimize import minimize

    stack, jitter = np.stack(kernels), 1e-8 * np.eye(len(second))

    def loss(log_c: Array) -> tuple[float, Array]:
        parts = np.exp(log_c)[:, None, None] * stack
        inverse = np.linalg.inv(parts.sum(0) + jitter)
        value = -np.linalg.slogdet(inverse)[1] / 2 + (inverse * second).sum() / 2
        slope = inverse - inverse @ second @ inverse
        return value, (parts * slope).sum((1, 2)) / 2

    bounds = [(-14.0, 6.0)] * len(kernels)
    starts = [np.full(len(kernels), level) for level in (-1.0, -3.0)]
    starts += list(np.random.default_rng(0).uniform(-6, 2, (4, len(kernels))))
    return -min(minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).fun for start in starts)
