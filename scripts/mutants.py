"""Do the tests notice a wrong sign? ``make mutants`` breaks one line of the core at a time and runs the tests of it.

Each entry of the table is a file of ``src/wlm/core``, a fragment that stands there exactly once, what to put in its
place, and the tests that have to fail then. ``src`` is copied, so that the working tree is never touched; what the
tests import besides wlm is imported once, and each run is a fork of that process.

    make mutants                          # all, two at a time (some minutes)
    make mutants MUTANTS="sde"            # those whose file, fragments or tests contain a word
    make mutants MUTANTS="--sample 12"    # every so many-th, as many as that: others on another day of the year

The exit status is 1 if a mutant survives, if a fragment is not there exactly once, or if tests fail without any change.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

# One thread each, and no database of failures that a mutant would fill. Before torch is imported.
os.environ.update(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1", MPLBACKEND="agg")
os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = os.path.join(tempfile.gettempdir(), f"wlm-mutants-{os.getuid()}")

ROOT = Path(__file__).parents[1]
CORE = Path("wlm", "core")
#: Seconds that the tests of a mutant may take: some never end.
TIMEOUT = 240


class Mutant(NamedTuple):
    """A fragment of a file of the core, what replaces it, and the tests (files of ``tests/core``, words for ``-k``)."""

    file: str
    old: str
    new: str
    tests: str

    def __str__(self) -> str:
        return f"{self.file}: {self.old.strip()}  ->  {self.new.strip()}"


#: By file: what stands there, what replaces it, and the tests that have to notice.
TABLE: dict[str, list[tuple[str, str, str]]] = {
    "arrival.py": [
        ("x + half * v, y - half * u", "x - half * v, y + half * u", "test_arrival.py"),
        ("evidence > TRUSTED", "evidence > -TRUSTED", "test_arrival.py"),
        ("np.log(straight / max(curved", "np.log(curved / max(straight", "test_arrival.py"),
        ("half = (times[1] - times[0]) / 2", "half = times[1] - times[0]", "test_arrival.py"),
    ],
    "forecast.py": [
        ("lead = self.pace * (np", "lead = (2 - self.pace) * (np", "test_forecast.py"),
        ("velocities=self.pace * found.velocities", "velocities=found.velocities", "test_forecast.py"),
        ("broadcast_to(self.pace * v, moved", "broadcast_to(v, moved", "test_forecast.py"),
        ("dynamics if self.field is None else self.field", "dynamics", "test_forecast.py"),
        ("(scores[i], i[1], i[0])", "(scores[i], -i[1], i[0])", "test_forecast.py"),
        ("(1 - MARGIN) * scores", "(1 + MARGIN) * scores", "test_forecast.py"),
    ],
    "drivers.py": [
        ("(1 + reached.sum(axis=0)) / (1 + len(null))", "reached.sum(axis=0) / len(null)", "test_drivers.py"),
        ("(loadings @ axes) * scale", "(loadings @ axes) / scale", "test_drivers.py -k rotations"),
        ("(axes.T @ direction) / scale", "(axes.T @ direction) * scale", "test_drivers.py -k rotations"),
        ("0.5, (d - 1) / 2)", "0.5, d / 2)", "test_drivers.py -k rotations"),
        ("fate[0] * dynamics.units.length", "fate[0] / dynamics.units.length", "test_drivers.py -k closed"),
        ("fate[1] + np.dot", "fate[1] - np.dot", "test_drivers.py -k closed"),
        ("_numpy(gradient) / dynamics", "_numpy(gradient) * dynamics", "test_drivers.py -k closed"),
        ("+ math.log(WEIGHTLESS)", "", "test_drivers.py -k closed"),
        ("(w * q) @ x / total", "(w * q) @ x", "test_drivers.py -k slopes"),
        ("np.square(q)", "np.abs(q)", "test_drivers.py -k slopes"),
    ],
    "clones.py": [
        ("w * (p - q)", "w * (p + q)", "test_clones.py"),
        ("(1 - 2 * probability)", "(1 + 2 * probability)", "test_clones.py"),
        ("(ours.sum(axis=1) * theirs.sum(axis=1))", "ours.sum(axis=1)", "test_clones.py"),
        ("counts[of].astype", "(0 * counts[of] + 1).astype", "test_clones.py"),
    ],
    "sisters.py": [
        ("(path.x - self.means", "(path.x + self.means", "test_sisters.py -k loop"),
        ("(2 * w.sum()", "(w.sum()", "test_sisters.py -k loop"),
        ("& (clones >= 0)", "", "test_sisters.py -k loop"),
        ("path.shares.detach() * known", "1.0 * known", "test_sisters.py -k loop"),
        ("names[n_times > 1]", "names", "test_sisters.py -k mean_of_their_clone"),
        ("total / size.clamp_min(1)", "total * size.clamp_min(1)", "test_sisters.py -k mean_of_their_clone"),
    ],
    "field.py": [
        ("self.moved(y, -h)", "self.moved(y, h)", "test_field.py"),
        (
            "return self.share * (self.basis(x) @ self.weights)",
            "return -self.share * (self.basis(x) @ self.weights)",
            "test_field.py",
        ),
        ("(values[1:] + values[:-1]) / 2", "(values[1:] + values[:-1])", "test_field.py"),
        ("self.chains - run[::POINTS]", "self.chains + run[::POINTS]", "test_field.py"),
        ("v * length / unit", "v * length * unit", "test_field.py"),
        ("m**3 / 3 + m**2 * abs(s - u) / 2", "m**3 / 3 - m**2 * abs(s - u) / 2", "test_field.py"),
        ("-np.linalg.slogdet(inverse)[1] / 2", "-np.linalg.slogdet(inverse)[1]", "test_field.py"),
        ("found.error < persistence", "found.error > persistence", "test_field.py"),
    ],
    "methods/flow.py": [
        ("x + duration / n / 2 * self.at(x)", "x + duration / n * self.at(x)", "methods/test_flow.py"),
        ("amplitude * (x @ self.waves", "2 * amplitude * (x @ self.waves", "methods/test_flow.py"),
        ("right - torch.einsum", "right + torch.einsum", "methods/test_flow.py"),
        ("x.append(before + tau / 2 * slope)", "x.append(before - tau / 2 * slope)", "methods/test_flow.py"),
    ],
    "growth.py": [
        ("log_w + h / 2 * (before + after)", "log_w + h * (before + after)", "test_growth.py -k clusters_at_rest"),
        ("log_w + h / 2 * (before + after)", "log_w + h * after", "test_growth.py -k second_order"),
        ("(r - mean).square()", "r.square()", "test_growth.py -k costs"),
        ("-torch.expm1(-sd / scale)", "torch.expm1(-sd / scale)", "test_growth.py -k costs"),
        ("* _silu_slope(h)) @ self.first.weight", ") @ self.first.weight", "test_growth.py -k costs"),
        ("- (log_sizes - log_sizes[0])", "+ (log_sizes - log_sizes[0])", "test_growth.py -k costs"),
        ("rate + self.scale * self.prior(x)", "rate - self.scale * self.prior(x)", "test_growth.py -k wrong_sign"),
        ("known - self.prior(x)", "self.prior(x) - known", "test_growth.py -k own"),
        ("more = self.scale * torch.nan", "more = torch.nan", "test_growth.py -k own"),
        ("math.sqrt(math.pi / 2) * torch.erf", "math.sqrt(math.pi) * torch.erf", "test_growth.py -k while_it_is_near"),
        ("torch.erf(far / math.sqrt(2))", "torch.erf(far)", "test_growth.py -k while_it_is_near"),
        ("self.log_count - square /", "self.log_count + square /", "test_growth.py -k known"),
        ("/ np.square(w).sum(-1) / w", "/ np.square(w).sum(-1) * w", "test_growth.py -k effective"),
        ("(np.arange(n) + rng.random()) / n", "np.arange(n) / n", "test_growth.py -k effective"),
    ],
    "integrators.py": [
        ("before, g = g, growth(p.x)", "before, g = g, g", "test_growth.py -k second_order"),
        ("(1 + gamma) * (h / 2) * quotient", "gamma * (h / 2) * quotient", "test_integrators.py"),
        ("(1 + gamma) * (h / 2) * quotient", "(1 + gamma) * h * quotient", "test_integrators.py"),
        ("1 - z / 2 + z * z / 6", "1 + z / 2 + z * z / 6", "test_integrators.py"),
        ("1 - z / 2 + z * z / 6", "1 - z / 2 + z * z / 2", "test_integrators.py"),
        ("m = torch.exp(-z)", "m = torch.exp(-2 * z)", "test_integrators.py"),
        ("z = gamma * h / 2", "z = gamma * h", "test_integrators.py"),
        ("+ h * v", "+ h * h * v", "test_integrators.py"),
        ("t = times[k] + (i + 1) * step", "t = times[k] + i * step", "test_integrators.py"),
        ("dt.abs().max() / step - 1e-6", "dt.abs().max() / step - 1", "test_integrators.py"),
        ("(u - t) * (i + 1) / n", "(u - t) * i / n", "test_integrators.py"),
        ("sum(substeps[: k + 1])", "sum(substeps[:k])", "test_integrators.py"),
        ("MAX_ADJOINT * median / size", "MAX_ADJOINT * size / median", "test_integrators.py"),
        ("g * torch.where(median > 0, factor, 1.0)", "g * factor", "test_integrators.py"),
    ],
    "divergences.py": [
        ("0.5 * distance.square()", "distance.square()", "test_divergences.py"),
        (
            "f = scale * (rows.amax(-1).log() - exponent.amax(-1))",
            "f = scale * (rows.amax(-1).log() + exponent.amax(-1))",
            "test_divergences.py",
        ),
        ("f = f + scale * u", "f = f - scale * u", "test_divergences.py"),
        ("kernel = rows * a.unsqueeze(-1)", "kernel = rows / len(a)", "test_divergences.py -k geomloss"),
        ("eps = blur if p == 1 else blur**2", "eps = blur", "test_divergences.py"),
        ("- 0.5 * vxx", "- vxx", "test_divergences.py"),
        ("_transform(cxy, g, b, eps) - f_self", "_transform(cxy, g, b, eps)", "test_divergences.py -k weights"),
        ("_transform(cxy.mT, f, a, eps)", "-_transform(cxy.mT, f, a, eps)", "test_divergences.py -k weights"),
        ("return -eps * torch.logsumexp", "return eps * torch.logsumexp", "test_divergences.py -k weights"),
        ("(f - cost(y[rows], x, 2)) / eps", "(-f - cost(y[rows], x, 2)) / eps", "test_dynamics.py -k carried"),
        ("/ eps + a.log(), dim=1)", "/ eps, dim=1)", "test_dynamics.py -k carried"),
        (
            "plan(cost(x, some, 2), a, b, eps)",
            "plan(cost(x, some, 2), uniform(x), b, eps)",
            "test_dynamics.py -k carried",
        ),
        (
            "_gradient(pxy, cxy, x, y, p) - _gradient(pxx, cxx, x, x, p)",
            "_gradient(pxy, cxy, x, y, p) + _gradient(pxx, cxx, x, x, p)",
            "test_divergences.py",
        ),
        ("(a * f).sum(-1) + (b * g).sum(-1)", "(a * f).sum(-1) + g.mean(-1)", "test_divergences.py -k geomloss"),
        ("w = plan if p == 2 else", "w = plan if p == 1 else", "test_divergences.py"),
        ("w.sum(-1, keepdim=True) * x - w @ y", "w @ y - w.sum(-1, keepdim=True) * x", "test_divergences.py"),
        ("return -0.5 * self_plan(", "return 0.5 * self_plan(", "test_divergences.py"),
    ],
    "units.py": [
        (
            "np.mean([x.mean(0) for x in populations.positions], axis=0)",
            "np.concatenate(populations.positions).mean(0)",
            "test_units.py",
        ),
        ("float(np.sqrt(np.mean(square)))", "float(np.mean(square))", "test_units.py"),
        ("(t[-1] - t[0]) / (len(t) - 1)", "t[1] - t[0]", "test_units.py"),
        ("x * self.length + self.location", "x * self.length - self.location", "test_units.py"),
        ("self.length / self.time", "self.length * self.time", "test_units.py"),
    ],
    "snapshots.py": [
        ("v / units.velocity", "v / units.length", "test_snapshots.py"),
        ("return float(torch.stack(medians).mean())", "return float(torch.stack(medians).max())", "test_snapshots.py"),
        (
            "torch.searchsorted(mass, (torch.arange(n) + share) / n * mass[-1], right=True)",
            "torch.searchsorted(mass, share * mass[-1], right=True)",
            "test_populations.py -k strata",
        ),
        ("ends[:-1] + (share * ends.diff()).long()", "ends[:-1]", "test_populations.py -k drawn"),
    ],
    "populations.py": [
        ("rng.integers(n, size=n)", "rng.permutation(n)", "test_populations.py -k redrawn"),
        ("[w * n for w, n", "[w for w, n", "test_populations.py -k redrawn"),
        ("order[rng.integers(ends[:-1], ends[1:])]", "order[ends[:-1] // 2]", "test_populations.py -k sample"),
    ],
    "fates.py": [
        ("p * np.log2(p)", "p * np.log(p)", "test_fates.py"),
        ("np.clip(1 - w @ entropy(p) / total", "np.clip(w @ entropy(p) / total", "test_fates.py"),
        ("total = float(entropy(w @ p))", "total = float(entropy(p.mean(0)))", "test_fates.py"),
        ("times[k - 1] + part", "times[k] + part", "test_fates.py"),
        ("reversed(steps)", "steps", "test_fates.py"),
    ],
    "transport.py": [
        ("return w / w.sum()", "return np.ones(n) / n", "test_transport.py"),
        ("rng.exponential(size=len(mass)) / mass", "rng.exponential(size=len(mass)) * mass", "test_transport.py"),
        ("None if b is None else b[j]", "None", "test_transport.py"),
        ("x + share * (partners", "x + (1 - share) * (partners", "test_transport.py"),
        ("return columns, cost[rows, columns]", "return columns, cost[rows, rows]", "test_transport.py"),
        ("y - y.mean(0), metric)", "y.mean(0) - y, metric)", "test_transport.py"),
        ("/ (2 * max(sigma, 1e-12) ** 2)", "/ max(sigma, 1e-12) ** 2", "test_transport.py"),
        ("mass @ square / x.shape[1]", "mass @ square", "test_transport.py"),
        ("g = log_b - columns", "g = log_b + columns", "test_transport.py"),
        ("[i * n + j, j * n + i]", "[i * n + j, i * n + j]", "test_transport.py"),
        ("np.asarray(b, dtype=np.float64)[index]", "np.ones(index.shape)", "test_transport.py"),
    ],
    "energies/force.py": [
        ("a = -gradient if log_w is None", "a = gradient if log_w is None", "energies -k not compil"),
        (
            "product = None if a is None else (lam * a)",
            "product = None if a is None else -(lam * a)",
            "energies -k weighted",
        ),
        ("_slope(total, step) - _division", "_slope(total, step) + _division", "energies -k weighted"),
        ("lam = lam / _relative(log_w)", "lam = lam * _relative(log_w)", "energies -k weighted"),
        ("_relative(log_w) * energy(x, t, log_w)", "energy(x, t, log_w)", "energies -k weight"),
        (
            "(energy[0] - energy[1]) / (2 * step)",
            "(energy[0] - energy[1]) / step",
            "energies -k automatic",
        ),
        ("return -((energy[0]", "return ((energy[0]", "energies -k automatic"),
        ("STEP = 1e-2", "STEP = 1.0", "energies -k automatic"),
    ],
    "energies/moments.py": [
        ("return -gradient", "return gradient", "energies/test_moments.py"),
        ("gradient = gradient + self.seen.pull", "gradient = gradient - self.seen.pull", "energies/test_moments.py"),
        ("self.seen.pull(_mean(by_z, log_w)", "self.seen.pull(_mean(by_z, None)", "energies/test_moments.py"),
        (
            "self.context(_mean(self.moments(h), log_w))",
            "self.context(_mean(self.moments(h), None))",
            "energies/test_moments.py",
        ),
        ("(outer @ self.hidden.weight) * inner", "outer @ self.hidden.weight", "energies/test_moments.py"),
    ],
    "energies/population.py": [
        ("z = z + self.attend(y, y, log_w)", "z = z + self.attend(y, y)", "energies/test_population.py -k weight"),
        (
            "self.gather(self.inducing.expand(*y.shape[:-2], -1, -1), y, log_w)",
            "self.gather(self.inducing.expand(*y.shape[:-2], -1, -1), y)",
            "energies/test_population.py -k weight",
        ),
    ],
    "energies/landscape.py": [
        ("sigma * (1 + h * (1 - sigma))", "sigma * (1 - h * (1 - sigma))", "energies -k not compil"),
        ("sigma + h * (1 - sigma**2)", "sigma + h * (1 - sigma)", "energies -k not compil"),
        ("/ (2 * self.size**2))", "/ self.size**2)", "energies -k not compil"),
        (
            "self._bump_slopes(x) - self._bump_slopes(-x)",
            "self._bump_slopes(x) + self._bump_slopes(-x)",
            "energies -k not compil",
        ),
        (
            "self._bump_slope(x) - self._bump_slope(-x)",
            "self._bump_slope(x) + self._bump_slope(-x)",
            "energies -k not compil",
        ),
        (
            "(self.centres.T - x.unsqueeze(-1)) / self.size**2",
            "(self.centres.T - x.unsqueeze(-1)) / self.size",
            "energies -k not compil",
        ),
        (
            "torch.stack(\n            [k * self._monomials(x, p)",
            "torch.stack(\n            [self._monomials(x, p)",
            "energies -k not compil",
        ),
    ],
    "jko.py": [
        ("/ (2 * h)).sum(-1), gradient", "/ h).sum(-1), gradient", "test_jko.py"),
        ("gradient + (z - x) / h", "gradient - (z - x) / h", "test_jko.py"),
        (
            "math.log(math.pi) * d / 2 - math.lgamma(d / 2 + 1)",
            "math.log(math.pi) * d / 2 + math.lgamma(d / 2 + 1)",
            "test_jko.py",
        ),
        ("+ 0.5772156649015329", "- 0.5772156649015329", "test_jko.py"),
        (
            "(share[who].mean(1) / (1 - share[i])).log()",
            "(share[who].mean(1) * n / (1 - share[i])).log()",
            "test_jko.py",
        ),
        ("total += float((share[i] * term).sum())", "total += float(term.sum() / n)", "test_jko.py"),
        ("total - (-1) ** k / k *", "total - (-1) ** k *", "test_jko.py"),
        ("total - (-1) ** k / k *", "total + (-1) ** k / k *", "test_jko.py"),
        ("columns.movedim(0, -1) + eye", "columns.movedim(0, -1) - eye", "test_jko.py"),
    ],
    "chains.py": [
        ('bc_type="natural"', 'bc_type="not-a-knot"', "test_chains.py -k natural"),
        ("index = partner[index]", "index = partner", "test_chains.py -k motion"),
        ("spline(times, chains)(times, 1)", "spline(times, chains)(times, 0)", "test_chains.py -k motion"),
    ],
    "velocity.py": [
        ("* pace).sum(1)) * dt", "* pace).sum(1))", "test_velocity.py"),
        ("np.square(pace).sum(1)) * dt**2", "np.square(pace).sum(1)) * dt", "test_velocity.py"),
        ("(v[k][i] + v[k + 1][j]) / 2", "v[k][i] + v[k + 1][j]", "test_velocity.py"),
        ("float(mass @ np.square(pace).sum(1))", "float(np.square(pace).sum(1).mean())", "test_velocity.py"),
        ("coupling(x[k], x[k + 1], w[k], w[k + 1])", "coupling(x[k], x[k + 1])", "test_velocity.py"),
        (
            "backward[k + 1] = _image(j, i, mass, x[k], len(x[k + 1]))",
            "backward[k] = _image(j, i, mass, x[k], len(x[k + 1]))",
            "test_velocity.py",
        ),
        ("(forward[k] - backward[k]) /", "(backward[k] - forward[k]) /", "test_velocity.py"),
        ("np.bincount(rows, mass * y[columns, c], n)", "np.bincount(rows, y[columns, c], n)", "test_velocity.py"),
    ],
    "dynamics.py": [
        ("known * self.units.time)", "known)", "test_growth.py -k own"),
        ("more.cpu().numpy().astype(np.float64) /", "more.cpu().numpy().astype(np.float64) *", "test_growth.py -k own"),
        ("known is None else found + self", "known is None else found - self", "test_growth.py -k own"),
        (
            "self.units.length**2 / self.units.time**self.model.order",
            "self.units.length**2 / self.units.time**2",
            "methods/test_gradient_flow.py -k units",
        ),
        (
            "* self.units.length / self.units.time**self.model.order",
            "* self.units.length / self.units.time**2",
            "methods/test_gradient_flow.py -k units",
        ),
        (
            "* self.units.length / self.units.time**self.model.order",
            "* self.units.length**2 / self.units.time**self.model.order",
            "test_dynamics.py -k units",
        ),
        (
            "moved.v.cpu().numpy() * self.units.velocity",
            "moved.v.cpu().numpy() / self.units.velocity",
            "test_dynamics.py -k units",
        ),
        ("(CARRY_BLUR * self.spec.blur) ** 2", "CARRY_BLUR * self.spec.blur", "test_dynamics.py -k carried"),
        ("start.x, start.shares, ys", "start.x, uniform(start.x), ys", "test_dynamics.py -k carried"),
        ("ys, ys[j], wb, self._tensor", "ys, ys[j], uniform(ys[j]), self._tensor", "test_dynamics.py -k carried"),
        ("self._tensor(np.log(w))", "self._tensor(w)", "test_dynamics.py test_diagnosis.py"),
    ],
    "model.py": [
        ("units.length**self.length", "units.length", "test_model.py"),
        ("scale / units.time**-self.time", "scale * units.time**-self.time", "test_model.py"),
        ("if n * sign > 0", "if n * sign < 0", "test_model.py"),
    ],
    "particles.py": [
        ("self.log_w.shape[-1] * torch.softmax", "torch.softmax", "test_particles.py"),
        ("(self.shares * values).sum(-1)", "(self.log_w * values).sum(-1)", "test_particles.py"),
        ("1.0 / self.x.shape[-2]", "1.0", "test_particles.py"),
    ],
    "diagnosis.py": [
        ("kinetic = 0.5 * (share * np.square", "kinetic = (share * np.square", "test_diagnosis.py"),
        ("kinetic = 0.5 * (share * np.square", "kinetic = 0.5 * (np.square", "test_diagnosis.py"),
        ("_logarithmic_mean(2 * gamma * kinetic)", "_logarithmic_mean(gamma * kinetic)", "test_diagnosis.py"),
        ("mean(np.square(force - gamma * v))", "mean(np.square(force + gamma * v))", "test_diagnosis.py"),
        ("(share * np.stack([dynamics.energy", "(np.stack([dynamics.energy", "test_diagnosis.py"),
        ("(share[..., None] * a.astype(np.float64)).mean()", "a.astype(np.float64).mean()", "test_diagnosis.py"),
        ("alignment = mean(v * force) / scale", "alignment = -mean(v * force) / scale", "test_diagnosis.py"),
        ("potential - potential[0], dissipated", "potential, dissipated", "test_diagnosis.py"),
        ("spread[0] / spread[1]", "spread[1] / spread[0]", "test_diagnosis.py -k agreement"),
        ("w1(x[i], y[first], wa, wb)", "w1(x[i], y[first])", "test_diagnosis.py -k agreement"),
        ("w1(y[first], y[second], wb, wc)", "w1(x[i], y[second], wa, wc)", "test_diagnosis.py -k agreement"),
        (
            "n = min(N_COMPARED, len(x), len(y) // 2)",
            "n = min(50, len(x), len(y) // 2)",
            "test_diagnosis.py -k agreement",
        ),
        ("total = kinetic + potential\n", "total = kinetic - potential\n", "test_diagnosis.py"),
        ("p.mean(0.5 * p.v.square()", "p.mean(p.v.square()", "test_diagnosis.py"),
        ("[p.mean(model.energy(p, t))", "[model.energy(p, t).mean()", "test_diagnosis.py"),
    ],
    "prediction.py": [
        ("descendants * np.exp(more)", "descendants * np.exp(-more)", "test_growth.py -k own"),
        ("/ np.average(found, weights=w)", "/ np.average(found)", "test_growth.py -k own"),
        ("moved.positions[-1]) * (observed[k + 1] - t)", "moved.positions[-1])", "test_growth.py -k own"),
        (
            "0.0 if dynamics.needs_velocity and target_v is None else 0.5",
            "0.0 if dynamics.needs_velocity else 0.5",
            "test_prediction.py -k default",
        ),
        (
            "s = (wanted[k] - start) / duration",
            "s = wanted[k] / target_time",
            "test_prediction.py -k bridg",
        ),
        ("positions[k] + s * error", "positions[k] + error", "test_prediction.py -k bridg"),
        ("x + s * (end - x)", "x + s * error", "test_prediction.py -k steady"),
        ("error) / duration", "error) / target_time", "test_prediction.py -k bridg"),
        ("s**2 * (3 - 2 * s) * error", "s**2 * (3 - s) * error", "test_prediction.py -k arrive"),
        ("(1 - s) * early - s * late)", "(1 - s) * early + s * late)", "test_prediction.py -k arrive"),
        ("(1 - s) * (1 - 3 * s) * early", "(1 - s) * (1 - 2 * s) * early", "test_prediction.py -k arrive"),
        ("- s * (2 - 3 * s) * late", "+ s * (2 - 3 * s) * late", "test_prediction.py -k arrive"),
        ("target - duration / 2 * target_v", "target + duration / 2 * target_v", "test_prediction.py -k half_way"),
        ("velocities[k] + change)", "change)", "test_prediction.py -k bridg"),
        ("error = end - positions[-1]", "error = positions[-1] - end", "test_prediction.py -k bridg"),
        (
            "0.0 if dynamics.needs_velocity and target_v is None else",
            "0.5 if dynamics.needs_velocity and target_v is None else",
            "test_prediction.py -k steady",
        ),
        (
            "partners(positions[-1], target, rng, w, target_w)",
            "partners(positions[-1], target, rng, None, target_w)",
            "test_prediction.py -k bridges_lead",
        ),
        (
            "partners(positions[-1], target, rng, w, target_w)",
            "partners(positions[-1], target, rng, w)",
            "test_prediction.py -k bridges_lead",
        ),
        ("np.flatnonzero(wanted < target_time)", "np.flatnonzero(wanted > start)", "test_prediction.py -k beyond"),
        (
            "w = None if w is None else w[keep]",
            "w = None if w is None else w[: len(keep)]",
            "test_prediction.py -k stored",
        ),
        (
            "moved.velocities, origin[keep], w if",
            "moved.velocities, keep, w if",
            "test_prediction.py -k stored",
        ),
        ("[t, observed[k + 1]]", "[t, observed[-1]]", "test_prediction.py -k fields_of_a_flow"),
        ("a=path.mass(t), b=w", "b=w", "test_prediction.py -k momentum"),
        ("w, weights = weights[-1], weights[:-1]", "weights = weights[:-1]", "test_growth.py -k partners"),
        (
            "np.argmin(np.abs(self.times - t))",
            "np.argmin(np.abs(self.times - t)) - 1",
            "test_prediction.py -k every_observed",
        ),
    ],
    "permutation.py": [
        (
            "total = square.sum(axis=(1, 2))[:, None] / (2 * n)",
            "total = square.sum(axis=(1, 2))[:, None] / n",
            "test_permutation.py",
        ),
        ("/ (2 * a.sum(axis=1))", "/ a.sum(axis=1)", "test_permutation.py"),
        ("(within / (n - 2))", "(within / (n - 1))", "test_permutation.py"),
        ("(2 if balanced else 1) / total", "1 / total", "test_permutation.py"),
        (
            "concatenate([every[first], every[~first]])",
            "concatenate([every[~first], every[first]])",
            "test_permutation.py",
        ),
        ("np.maximum.accumulate(found[order], axis=0)", "found[order]", "test_permutation.py"),
        ("np.maximum.accumulate(p[::-1])[::-1]", "p", "test_permutation.py"),
        ("(found - middle) / max", "(found + middle) / max", "test_permutation.py"),
        (
            "mean(pairs & across), mean(pairs & ~across)",
            "mean(pairs & ~across), mean(pairs & across)",
            "test_permutation.py",
        ),
        ("(size - 1) / size * np.square", "np.square", "test_permutation.py"),
        ("variances[0] + variances[1]", "variances[0] - variances[1]", "test_permutation.py"),
        ("/ (size - 1) for v, size", "/ size for v, size", "test_permutation.py"),
    ],
    "design.py": [
        ("np.sqrt(along.shape[1] / (N_QUANTILES", "np.sqrt(1 / (N_QUANTILES", "test_design.py"),
        ("((a - b) ** 2).sum() / 2 for", "((a - b) ** 2).sum() for", "test_design.py"),
        (
            "(own - mean).astype(np.float64) * m / (m - 1)",
            "(own + mean).astype(np.float64) * m / (m - 1)",
            "test_design.py",
        ),
        (
            "self.covariance - np.outer(own, own) / total",
            "self.covariance + np.outer(own, own) / total",
            "test_design.py",
        ),
        ("own[k] + self.noise[k] / n", "own[k] - self.noise[k] / n", "test_design.py"),
        ("half * self.day[k] / self.cell", "half * self.cell / self.day[k]", "test_design.py"),
        ("found.mean - left.mean", "left.mean - found.mean", "test_design.py"),
        ("times[-1] + ahead * (wanted", "times[-1] - ahead * (wanted", "test_courses.py"),
        ("(1 - EQUAL) * longest", "(1 + EQUAL) * longest", "test_design.py"),
    ],
    "courses.py": [
        ("(1 - share) * chains[k] + share", "share * chains[k] + share", "test_courses.py"),
        ("beyond * curve(last, 1)", "beyond * curve(last)", "test_courses.py"),
    ],
    "interventions.py": [
        ("return found + RIDGE", "return found - RIDGE", "test_interventions.py"),
        ("aweights=w", "aweights=None", "test_interventions.py"),
        ("np.linalg.solve(among, w @ sigma)", "np.linalg.solve(among, w)", "test_interventions.py"),
        ("(moves * np.linalg.solve(sigma, moves.T).T)", "(moves * moves)", "test_interventions.py"),
        ("sizes[:, None] * move / size(move, sigma)", "sizes[:, None] * move", "test_interventions.py"),
        ("outside(x + s * moves, observed)", "outside(x - s * moves, observed)", "test_interventions.py"),
        ("SHARES[first - 1]", "SHARES[first - 2]", "test_interventions.py"),
    ],
    "uncertainty.py": [
        ("tail = (1 - level) / 2", "tail = 1 - level", "test_uncertainty.py"),
        ("- 0.5 * w[order]", "- w[order]", "test_uncertainty.py"),
        ("ddof=1", "ddof=0", "test_uncertainty.py"),
        ("np.average(inside, weights=w)", "np.average(inside)", "test_uncertainty.py"),
        ("measured)[order] < FAILED", "measured)[order] > FAILED", "test_uncertainty.py"),
        ("1 - OUTSIDE", "0.5", "test_uncertainty.py"),
    ],
    "metrics.py": [
        ('np.sqrt(_exact(x, y, a, b, "sqeuclidean"))', '_exact(x, y, a, b, "sqeuclidean")', "test_metrics.py"),
        ("(n + m) * (n + m - 1)", "(n + m) ** 2", "test_metrics.py"),
        ("bandwidth * 2.0**k", "bandwidth * 2.0 ** (k + 1)", "test_metrics.py"),
        ("shares(a, n), -shares(b, m)", "shares(a, n), shares(b, m)", "test_metrics.py"),
        ("float(-signed @ cdist", "float(signed @ cdist", "test_metrics.py"),
        (
            "ot.emd2(shares(a, len(x)), shares(b, len(y))",
            "ot.emd2(shares(None, len(x)), shares(b, len(y))",
            "test_metrics.py",
        ),
    ],
    "training.py": [
        ("(seed) if redraw else", "(seed) if not redraw else", "test_populations.py -k redrawn"),
        ("min(ema, int(n) / (int(n) + 9))", "ema", "test_training.py -k running_average"),
        ("1 - decay)", "decay)", "test_training.py -k running_average"),
        ("BLUR * median_distance", "median_distance", "test_training.py -k blur"),
    ],
    "stopping.py": [
        ("(1 - FALL) * self.least", "self.least", "test_stopping.py -k fallen_by_a_percent"),
        (
            "step - self.least_step >= self.patience",
            "step - self.least_step > self.patience",
            "test_stopping.py -k fallen",
        ),
        (
            "self.least, self.least_step = self.value, step",
            "self.least, self.least_step = self.value, 0",
            "test_stopping.py",
        ),
        ("order[n:]", "order", "test_stopping.py -k set_aside"),
        (
            "w1(moved.positions[-1], x[k + 1], grown",
            "w1(moved.positions[-1], x[k + 1], w[k]",
            "test_stopping.py -k to_the_next",
        ),
        ("w1(moved.positions[-1], x[k + 1]", "w1(moved.positions[-1], x[k]", "test_stopping.py -k to_the_next"),
    ],
    "checkpoint.py": [
        ("group[name] *= factor", "group[name] /= factor", "test_checkpoint.py -k slowed"),
        ("[lr * factor for lr in part.base_lrs]", "list(part.base_lrs)", "test_checkpoint.py -k lower_rates"),
        ("{id(part): part for part in parts.values()}.values()", "parts.values()", "test_checkpoint.py -k slowed"),
        (
            "value.detach().clone() if device is None",
            "value.detach() if device is None",
            "test_checkpoint.py -k share_memory",
        ),
    ],
    "methods/_gradient_flow.py": [
        (
            "return value + pair, slope + pull",
            "return value + 0.5 * pair, slope + pull",
            "methods/test_gradient_flow.py",
        ),
        ("x - h * self.landscape", "x + h * self.landscape", "methods/test_gradient_flow.py"),
        ("(2 * diffusion * h).sqrt() * noise", "(diffusion * h).sqrt() * noise", "methods/test_gradient_flow.py"),
        (
            "(2 * diffusion * h).sqrt() * noise",
            "0.5 * (2 * diffusion * h).sqrt() * noise",
            "methods/test_gradient_flow.py",
        ),
        ("end > float(t) - 1e-6", "end > float(t) + 1e-6", "methods/test_gradient_flow.py"),
        ("for end in self._times[1:] if", "for end in self._times if", "methods/test_gradient_flow.py"),
        ("t.new_tensor(later[0] if later", "t.new_tensor(later[-1] if later", "methods/test_gradient_flow.py"),
        ("return t + SDE_STEP", "return t + 2 * SDE_STEP", "methods/test_gradient_flow.py"),
        ("default=t + 1.0)", "default=t + 2.0)", "methods/test_gradient_flow.py"),
        ("share * (i[:, None] != some)", "share * torch.ones_like(i[:, None] * some)", "methods/test_gradient_flow.py"),
        ("- others[some]", "+ others[some]", "methods/test_gradient_flow.py"),
        ("N_PROX, N_REPEAT = 60, 3", "N_PROX, N_REPEAT = 60, 1", "methods/test_gradient_flow.py"),
    ],
    "methods/_mechanics.py": [
        ("return (1 + self.friction) * (self.potential", "return (self.potential", "test_dynamics.py"),
        ("return ((1 + self.friction) * force", "return (self.friction * force", "test_dynamics.py"),
    ],
    "methods/_start.py": [
        (
            "field.scalar(x, u) + field.scalar(x, t)",
            "field.scalar(x, u) - field.scalar(x, t)",
            "methods/test_start.py -k action or scalar",
        ),
        ("+ 0.25 * dt * kinetic", "+ 0.5 * dt * kinetic", "methods/test_start.py -k action or scalar"),
        ("+ 0.25 * dt * kinetic", "+ 0.25 * kinetic", "methods/test_start.py -k action or scalar"),
        ("change.mean() - (field", "change.mean() + (field", "methods/test_start.py -k action or scalar"),
        ("sigma * (1 + h * (1 - sigma))", "sigma * (1 + h)", "methods/test_start.py -k action or scalar"),
    ],
    "methods/wlm.py": [
        ("self.SISTERS * apart", "-self.SISTERS * apart", "test_sisters.py -k pays"),
        ("path, clones, target)", "path, clones, target - 1)", "test_sisters.py -k pays"),
        ("rates.scale.detach()", "rates.scale", "test_growth.py -k dear"),
        ("mean - rates.scale *", "mean + rates.scale *", "test_growth.py -k totals_say"),
        ("self.BESIDES_PRIOR ** rates", "self.BESIDES_PRIOR * rates", "test_growth.py -k dear"),
        ("(paths.bends or self", "(not paths.bends or self", "test_chains.py -k paths"),
        ("passed[1:]", "passed[:-1]", "methods/test_wlm.py -k costs_nothing"),
        ("loss + state.constant[target]", "loss", "methods/test_wlm.py -k costs_nothing"),
        (
            'weight = 0.01 if self._start(spec) == "data" else 0.03',
            'weight = 0.03 if self._start(spec) == "data" else 0.01',
            "methods/test_wlm.py -k penalty",
        ),
        ("penalty = weight * mean_acc", "penalty = -weight * mean_acc", "methods/test_wlm.py -k penalty"),
        (
            'friction = 0.1 if start == "data" else 3.0',
            'friction = 3.0 if start == "data" else 0.1',
            "methods/test_wlm.py -k friction",
        ),
        (
            '(0.01 if self._start(spec) == "data" else 0.1)',
            '(0.1 if self._start(spec) == "data" else 0.01)',
            "methods/test_wlm.py -k friction or rates",
        ),
        ("return self._step(spec) / 2", "return self._step(spec)", "methods/test_wlm.py -k half"),
        ("(spec.n_times - 1) / 16", "(spec.n_times - 1) / 4", "methods/test_wlm.py -k half"),
        ("0.01 + 0.99 * 0.5 * (1 + math.cos", "0.01 + 0.99 * 0.5 * (1 - math.cos", "methods/test_wlm.py -k rates_rise"),
        ("return (step + 1) / warm_up", "return step / warm_up", "methods/test_wlm.py -k rates_rise"),
        ("self.n_steps // 20", "self.n_steps // 10", "methods/test_wlm.py -k rates_rise"),
        ("FIRST_HORIZON + int(grown * n_times)", "n_times", "test_training.py -k longest_horizon"),
        (
            "return [0], 1 + int(batch.draw() * longest)",
            "return [0], 1",
            "test_training.py -k longest_horizon",
        ),
    ],
    "methods/_rollouts.py": [
        ("batch.carried[k][3] if carried else cells[k]", "cells[k]", "test_sisters.py -k start_of_a_rollout"),
        ("% len(own)]", "% len(own) // 2]", "test_sisters.py -k start_of_a_rollout"),
        (
            "plan.mT @ path.v.detach() / plan.sum(-2)",
            "plan.mT @ path.v.detach() * 0.5 / plan.sum(-2)",
            "methods/test_wlm.py -k costs_nothing or branch",
        ),
        ("k, n = first + j, len", "k, n = first + j - 1, len", "methods/test_wlm.py -k costs_nothing or branch"),
        ("% len(p.x)", "% 1", "methods/test_wlm.py -k smaller"),
        ("(times[-1] - times[0])", "1.0", "methods/test_wlm.py -k penalty"),
        ("change / times[1:].diff(dim=0)", "change", "methods/test_wlm.py -k penalty"),
        ("states[0].mean(change)", "change.mean(-1)", "methods/test_wlm.py -k penalty"),
    ],
    "methods/ijkonet.py": [
        ("loss = -gain.mean()", "loss = gain.mean()", "methods/test_ijkonet.py -k descend"),
        (
            "gain = gain + growth - model.diffusion * log_dets",
            "gain = gain - growth - model.diffusion * log_dets",
            "methods/test_ijkonet.py -k descend",
        ),
        (
            "gain = gain + growth - model.diffusion * log_dets",
            "gain = gain + growth + model.diffusion * log_dets",
            "methods/test_ijkonet.py -k descend",
        ),
        (
            "return value - model.diffusion * log_dets, moved",
            "return value + model.diffusion * log_dets, moved",
            "methods/test_ijkonet.py -k descend",
        ),
        ("value - observed + growth", "value - observed - growth", "methods/test_ijkonet.py -k descend"),
        ("/ (2 * maps.tau.squeeze(-1))", "/ maps.tau.squeeze(-1)", "methods/test_ijkonet.py -k descend"),
        ("squares / (2 * maps.tau.flatten())", "squares / maps.tau.flatten()", "methods/test_ijkonet.py -k descend"),
        ("1 - objective / max(bound, 1e-3)", "objective / max(bound, 1e-3)", "methods/test_ijkonet.py -k descend"),
        ("out + 0.5 * pair_mean", "out + pair_mean", "methods/test_ijkonet.py -k every_pair"),
        (
            "GAUGE * quadratic_part(model, y, state.generator).square()",
            "GAUGE * quadratic_part(model, y, state.generator)",
            "methods/test_ijkonet.py -k every_pair",
        ),
        (
            "self.interaction_penalty * speed.square().mean()",
            "self.interaction_penalty * speed.mean()",
            "methods/test_ijkonet.py -k every_pair",
        ),
        (
            "prox(energy, x, maps.tau.unsqueeze(-1), moved",
            "prox(energy, x, 2 * maps.tau.unsqueeze(-1), moved",
            "methods/test_ijkonet.py -k optimum",
        ),
        (
            "slope + (share.unsqueeze(-1) * pull).sum(0)",
            "slope - (share.unsqueeze(-1) * pull).sum(0)",
            "methods/test_ijkonet.py -k optimum",
        ),
        ("shifts = 1 + torch.randperm(n - 1", "shifts = torch.randperm(n - 1", "methods/test_ijkonet.py -k partners"),
        ('(3e-3 if "U" in self.energy else 1e-2)', "1e-2", "methods/test_ijkonet.py -k lower_rate"),
    ],
    "methods/jkonet_star.py": [
        ("-(y[columns] - x[rows]) / tau", "-(y[columns] - x[rows])", "methods/test_jkonet_star.py -k exact_steps"),
        ("-(y[columns] - x[rows]) / tau", "(y[columns] - x[rows]) / tau", "methods/test_jkonet_star.py -k exact_steps"),
        (
            'error + model.diffusion * part["score"][i]',
            'error - model.diffusion * part["score"][i]',
            "methods/test_jkonet_star.py -k exact_steps",
        ),
        (
            'columns.append(part["score"][i].unsqueeze(-1))',
            'columns.append(-part["score"][i].unsqueeze(-1))',
            "methods/test_jkonet_star.py -k exact_steps",
        ),
        (
            "mixture.means_ - positions[:, None]",
            "positions[:, None] - mixture.means_",
            "methods/test_jkonet_star.py -k exact_steps",
        ),
        (
            'z = y[:, None] - part["others"][j]',
            'z = part["others"][j] - y[:, None]',
            "methods/test_jkonet_star.py -k exact_steps",
        ),
        (
            "columns.append(pull / total)",
            "columns.append(2 * pull / total)",
            "methods/test_jkonet_star.py -k exact_steps",
        ),
        (
            'torch.multinomial(part["mass"], n',
            'torch.multinomial(torch.ones_like(part["mass"]), n',
            "methods/test_jkonet_star.py -k weight",
        ),
        (
            'torch.einsum("n,ndp,nd->p", mass,',
            'torch.einsum("n,ndp,nd->p", torch.ones_like(mass),',
            "methods/test_jkonet_star.py -k weight or exact_steps",
        ),
        (
            "return (other * values).sum(dim) / other.sum(dim).clamp_min(1.0)",
            "return values.mean(dim)",
            "methods/test_jkonet_star.py -k meet_itself",
        ),
        ("float(solution[-1]) < DIFFUSION_FLOOR", "False", "methods/test_jkonet_star.py -k negative"),
    ],
}
MUTANTS = [Mutant(file, *row) for file, rows in TABLE.items() for row in rows]


@dataclass
class Job:
    """A run of tests in a fork: where its source and its output are, and how it ended (None: it is not over)."""

    label: str
    tests: str
    source: Path
    output: Path
    pid: int = 0
    start: float = 0.0
    status: int | None = None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("filter", nargs="?", default="", help="only mutants whose row contains this")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--sample", type=int, help="only as many, others every day of the year")
    parser.add_argument("--verbose", action="store_true", help="print what the tests of each mutant say")
    options = parser.parse_args()
    chosen = [m for m in MUTANTS if options.filter.lower() in "\n".join(m).lower()]
    if options.sample and options.sample < len(chosen):
        every, day = -(-len(chosen) // options.sample), datetime.date.today().timetuple().tm_yday
        chosen = chosen[day % every :: every]
    if not chosen:
        print(f"no mutant contains {options.filter!r}")
        return 1
    wrong = [f"{n} times in the file: {m}" for m in chosen if (n := _text(m.file).count(m.old)) != 1]
    if wrong:
        print("These fragments have to stand exactly once in their file:", *wrong, sep="\n  ")
        return 1
    begin = time.monotonic()
    _import_libraries()
    with tempfile.TemporaryDirectory(prefix="wlm-mutants-") as name:
        folder = Path(name)
        plain = folder / "plain"
        shutil.copytree(ROOT / "src", plain, ignore=shutil.ignore_patterns("__pycache__"))
        selections = _together({m.tests for m in chosen})
        jobs = [Job(tests, tests, plain, folder / f"plain{k}.txt") for k, tests in enumerate(selections)]
        failed = [job for job in _run(jobs, options.jobs, lambda job: None) if job.status != 0]
        for job in failed:
            print(f"Tests that fail without any change (status {job.status}): {job.tests}\n{job.output.read_text()}")
        if failed:
            return 1
        print(f"The tests pass without any change ({time.monotonic() - begin:.0f} s)", flush=True)
        mutants = [_mutated(m, folder / str(k)) for k, m in enumerate(chosen)]

        def report(job: Job) -> None:
            verdict = {0: "SURVIVED", 1: "noticed", None: "endless"}.get(job.status, f"broken (status {job.status})")
            print(f"{verdict:9} {time.monotonic() - job.start:4.0f} s  {job.label}", flush=True)
            if options.verbose or verdict.startswith("broken"):
                print(job.output.read_text())

        done = list(_run(mutants, options.jobs, report))
        # 0: nothing noticed; above 1: pytest itself failed, or there is no such test.
        bad = [job for job in done if job.status not in (1, None)]
        print(f"{len(done)} mutants, {len(bad)} survivors, {time.monotonic() - begin:.0f} s")
        for job in bad:
            print(f"  {job.label}\n      in spite of {job.tests}")
    return int(bool(bad))


def _together(selections: set[str]) -> list[str]:
    """The selections of the same files as one, so that no test runs twice."""
    words: dict[str, list[str]] = {}
    for selection in sorted(selections):
        files, _, some = selection.partition(" -k ")
        words.setdefault(files, []).append(some)
    return [files if "" in some else f"{files} -k {' or '.join(some)}" for files, some in words.items()]


def _text(file: str) -> str:
    return (ROOT / "src" / CORE / file).read_text()


def _mutated(m: Mutant, folder: Path) -> Job:
    """A job in a copy of the sources with one line changed."""
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "src" / CORE / m.file).write_text(_text(m.file).replace(m.old, m.new))
    return Job(str(m), m.tests, folder / "src", folder / "output.txt")


def _import_libraries() -> None:
    """Everything that takes time to import, but not wlm."""
    import anndata  # noqa: F401
    import dask.array  # noqa: F401
    import geomloss  # noqa: F401
    import h5py  # noqa: F401
    import hypothesis.extra.numpy  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import ot  # noqa: F401
    import pytest  # noqa: F401
    import scanpy  # noqa: F401
    import scipy.interpolate  # noqa: F401
    import sklearn.mixture  # noqa: F401
    import torch
    import torch._dynamo  # an optimiser imports it when it is made
    import zarr  # noqa: F401

    torch.set_num_threads(1)
    assert "wlm" not in sys.modules


def _run(jobs: Iterable[Job], n: int, report: Callable[[Job], None]) -> list[Job]:
    """Run the jobs, ``n`` at a time; one that takes too long is ended and keeps the status None."""
    waiting, running, done = list(jobs)[::-1], [], []
    while waiting or running:
        while waiting and len(running) < n:
            job = waiting.pop()
            job.start, job.pid = time.monotonic(), _fork(job)
            running.append(job)
        time.sleep(0.05)
        for job in list(running):
            pid, status = os.waitpid(job.pid, os.WNOHANG)
            if pid:
                job.status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() - job.start < TIMEOUT:
                continue
            else:
                os.kill(job.pid, signal.SIGKILL)
                os.waitpid(job.pid, 0)
            running.remove(job)
            done.append(job)
            report(job)
    return done


def _fork(job: Job) -> int:
    """Run the tests of a job in a child of this process; returns its number."""
    if pid := os.fork():
        return pid
    status = 70
    try:
        with job.output.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(ROOT)
        sys.path.insert(0, str(job.source))
        os.environ["PYTHONPATH"] = str(job.source)  # of processes that tests start
        sys.dont_write_bytecode = True
        import pytest

        files, _, words = job.tests.partition(" -k ")
        call = [f"tests/core/{file}" for file in files.split()] + (["-k", words] if words else [])
        status = int(pytest.main([*call, "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov"]))
        import wlm.core

        if not str(wlm.core.__file__).startswith(str(job.source)):
            print("another wlm was tested:", wlm.core.__file__)
            status = 71
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
