"""Training speed against the plain formulation, side by side in one run on one thread.

The plain formulation is the paper's: a loop over times with geomloss (tensorized, scaling 0.9), the force by automatic
differentiation with a second-order graph, one integrator step per interval, AdamW at a constant 1e-4.

The blur is half the median distance between cells in both. Dropout (0.1 on EB) is left out of the authors' settings.

steps            time of each stage of a training step, at three shapes, with the same network in both formulations
quality          time until a held-out W1, on embryoid bodies (held-out time 2) or the small vortex: the plain
                 formulation with the authors' network and settings for --minutes, ours with fits of 25 to 800 steps
versus REF       a default fit and its held-out W1, on this source and on that of an earlier commit, by turns on this
                 machine; with --evaluate also a whole evaluation of embryoid bodies, with --busy N instead the time
                 on the clock beside N busy processes, with --start that of importing and of the doctor
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from typing import Any

import geomloss
import numpy as np
import pandas as pd
import torch
from _report import RESULTS, machine, parser, prepare, timed
from _versus import crowded, start, versus
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import wlm
from wlm.core.divergences import sinkhorn_loss
from wlm.core.energies.force import force
from wlm.core.energies.population import PopulationPotential
from wlm.core.integrators import half_kick, leapfrog
from wlm.core.metrics import w1
from wlm.core.particles import Particles
from wlm.core.snapshots import median_distance

#: Cells, dimensions, width, heads, hidden width, intervals.
SHAPES = [(111, 2, 256, 1, 64, 4), (400, 2, 256, 1, 64, 9), (1024, 5, 64, 4, 256, 4)]


def plain_force(energy: PopulationPotential, x: Tensor, t: Tensor) -> Tensor:
    """The force with a second-order graph."""
    if not x.requires_grad:
        x = x.detach().requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        return -torch.autograd.grad(energy(x, t).sum(), x, create_graph=True)[0]


def plain_rollout(energy: PopulationPotential, x: Tensor, v: Tensor, times: Tensor, gamma: Tensor) -> list[Tensor]:
    """One leapfrog step per interval, kept for the backward pass."""
    out, a = [], plain_force(energy, x, times[0])
    for t, h in zip(times[1:], times.diff(), strict=True):
        m, c = half_kick(gamma, h)
        v = m * v + c * a
        x = x + h * v
        a = plain_force(energy, x, t)
        v = m * v + c * a
        out.append(x)
    return out


def stages(n: int, d: int, width: int, heads: int, hidden: int, k: int, repeat: int, inducing: int) -> dict[str, Any]:
    """Time of rollout, divergence, backward pass and all three, in both formulations."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    energy = PopulationPotential(d, width=width, depth=4, heads=heads, hidden=hidden, n_inducing=inducing)
    torch.nn.init.normal_(energy.energy.weight, std=0.1)
    x, v = torch.randn(n, d, generator=generator), 0.1 * torch.randn(n, d, generator=generator)
    y = torch.randn(k, n, d, generator=generator)
    times, gamma = torch.arange(k + 1.0), torch.tensor(0.5)
    blur = 0.5 * median_distance([x], generator)
    theirs = geomloss.SamplesLoss("sinkhorn", p=2, blur=blur, scaling=0.9, backend="tensorized")
    parameters = [p for p in energy.parameters() if p.requires_grad]

    def ours_rollout() -> Tensor:
        start = Particles(x, v)
        return torch.stack([p.x for p in leapfrog(lambda p, t: force(energy, p, t), start, times, gamma, [1] * k)])

    def ours_loss(path: Tensor) -> Tensor:
        return sinkhorn_loss(path, y, p=2, blur=blur, tol=1e-2, max_iter=40)[0].mean()

    def plain_loss(path: list[Tensor]) -> Tensor:
        return torch.stack([theirs(p, q) for p, q in zip(path, y, strict=True)]).mean()

    def plain() -> list[Tensor]:
        return plain_rollout(energy, x, v, times, gamma)

    row: dict[str, Any] = {"cells": n, "d": d, "width": width, "heads": heads, "intervals": k, "inducing": inducing}
    seconds = {}
    for name, rollout, loss in (("ours", ours_rollout, ours_loss), ("plain", plain, plain_loss)):

        def backward(rollout: Callable = rollout, loss: Callable = loss) -> None:
            torch.autograd.grad(loss(rollout()), parameters, allow_unused=True)

        path = rollout()
        leaf = path.detach().requires_grad_() if name == "ours" else [p.detach().requires_grad_() for p in path]

        def divergence(loss: Callable = loss, leaf: Any = leaf) -> None:
            torch.autograd.grad(loss(leaf), leaf)

        for f in (divergence, backward):
            f()  # not counted
        roll, div, whole = (timed(f, repeat)[0] for f in (rollout, divergence, backward))
        seconds[name] = {"rollout": roll, "Sinkhorn": div, "backward": whole - roll - div, "step": whole}
    for stage in seconds["ours"]:
        row |= {
            f"{stage}, ms": 1e3 * seconds["ours"][stage],
            f"{stage}, x": seconds["plain"][stage] / seconds["ours"][stage],
        }
    return row


def steps(repeat: int, *, quick: bool) -> pd.DataFrame:
    shapes = SHAPES[:1] if quick else SHAPES
    return pd.DataFrame([stages(*shape, repeat, inducing) for shape in shapes for inducing in (0, 16)])


def plain_fit(data: str, minutes: float, seed: int = 0) -> list[tuple[float, int, float]]:
    """Train the plain formulation and score it on the way: seconds, iterations, held-out W1."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    if data == "eb":
        adata, rep, held = wlm.datasets.embryoid_body(), "X_pca", [2]
        p, blur, batch, gamma0, gamma_lr, decay, ema = 1, 1.25, 1024, 1.0, 1e-2, 1e-3, 0.999
        energy = PopulationPotential(5, depth=4, hidden=256, n_inducing=0)
    else:
        adata, rep, held = wlm.datasets.vortex(), "X_position", [1, 3, 5, 7]
        p, batch, gamma0, gamma_lr, decay, ema = 2, 111, 0.1, 1e-3, 1e-2, 0.9999
        energy = PopulationPotential(2, width=256, depth=4, heads=1, hidden=64, n_inducing=0, time_features=True)
    label = adata.obs["time"].to_numpy()
    cells = {t: torch.tensor(adata.obsm[rep][label == t]) for t in np.unique(label)}
    v = {t: torch.zeros_like(x) for t, x in cells.items()}
    if data == "vortex":
        v = {t: torch.tensor(adata.obsm["velocity"][label == t]) for t in cells}
        blur = 0.5 * median_distance(list(cells.values()), generator)
    observed = [t for t in cells if t not in held]
    times = torch.tensor(observed, dtype=torch.float32)
    log_gamma = torch.tensor(math.log(gamma0), requires_grad=True)
    optimizer = torch.optim.AdamW(
        [
            {"params": energy.parameters(), "weight_decay": decay},
            {"params": [log_gamma], "lr": gamma_lr, "weight_decay": 0},
        ],
        lr=1e-4,
    )
    divergence = geomloss.SamplesLoss("sinkhorn", p=p, blur=blur, scaling=0.9, backend="tensorized")
    average = torch.optim.swa_utils.AveragedModel(energy, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(ema))
    curve, spent, iteration, due = [], 0.0, 0, 1.0
    while spent < 60 * minutes:
        begin = time.perf_counter()
        horizon = int(torch.randint(1, len(observed), (), generator=generator))
        i = torch.randperm(len(cells[observed[0]]), generator=generator)[:batch]
        path = plain_rollout(energy, cells[observed[0]][i], v[observed[0]][i], times[: horizon + 1], log_gamma.exp())
        targets = [cells[t] for t in observed[1 : horizon + 1]]
        targets = [y[torch.randperm(len(y), generator=generator)[:batch]] for y in targets]
        loss = torch.stack([divergence(x, y) for x, y in zip(path, targets, strict=True)]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update_parameters(energy)
        spent += time.perf_counter() - begin
        iteration += 1
        if spent > due:  # scored ever more rarely
            gamma = log_gamma.exp().detach()
            best = min(score(model, cells, v, held, gamma) for model in (energy, average.module))
            curve.append((spent, iteration, best))
            due = spent * 1.25
    return curve


def score(energy: PopulationPotential, cells: dict, v: dict, held: list[int], gamma: Tensor) -> float:
    """Mean W1 of held-out times, each from the previous one, in ten steps."""
    out = []
    for t in held:
        span = torch.tensor([t - 1.0, float(t)])
        with torch.no_grad():
            start = Particles(cells[t - 1], v[t - 1])
            states = leapfrog(lambda p, s: force(energy, p, s), start, span, gamma, [10])
            out.append(w1(next(iter(states)).x.numpy(), cells[t].numpy()))
    return float(np.mean(out))


def our_fit(data: str, n_steps: int, seed: int = 0) -> tuple[float, int, float]:
    """Seconds of a fit with default settings but ``n_steps``, its steps, and its held-out W1."""
    if data == "eb":
        adata, rep, velocity, held = wlm.datasets.embryoid_body(), "X_pca", None, [2]
    else:
        adata, rep, velocity, held = wlm.datasets.vortex(), "X_position", "velocity", [1, 3, 5, 7]
    begin = time.perf_counter()
    options = {"use_rep": rep, "velocity_key": velocity, "holdout": held, "n_steps": n_steps}
    wlm.tl.fit(adata, "time", rng=seed, device="cpu", show_progress=False, **options)
    seconds = time.perf_counter() - begin
    predicted = wlm.tl.predict(adata, held, rng=seed)
    at = [[a.obsm[rep][a.obs["time"] == t] for a in (predicted, adata)] for t in held]
    return seconds, n_steps, float(np.mean([w1(*pair) for pair in at]))


def quality(data: str, minutes: float, *, quick: bool) -> dict[str, Any]:
    ours = [our_fit(data, n) for n in ((5, 10) if quick else (25, 50, 100, 200, 400, 800))]
    plain = plain_fit(data, 0.1 if quick else minutes)
    best = min(plain, key=lambda row: row[2])
    first = next((row for row in ours if row[2] <= best[2]), None)
    ratio = best[0] / first[0] if first else float("nan")
    return {"data": data, "ours": ours, "plain": plain, "best of plain": best, "ours as good": first, "ratio": ratio}


def asked_versus(arguments: Any) -> tuple[str, pd.DataFrame]:
    """The table of ``versus`` that was asked for, and its name."""
    ref, quick = arguments.ref, arguments.quick
    if arguments.start:
        return "speed-start", start(ref, quick=quick)
    if arguments.busy:
        return "speed-busy", crowded(ref, arguments.busy, quick=quick)
    print("one thread; cpu: seconds of processor time")
    table = versus(ref, arguments.seeds, evaluate=arguments.evaluate, quick=quick)
    return "speed-versus", table.groupby("data").mean().drop(columns="seed").T


def main() -> None:
    p = parser(__doc__)
    p.add_argument("what", choices=["steps", "quality", "versus"])
    p.add_argument("ref", nargs="?", default="HEAD", help="commit, for versus")
    p.add_argument("--evaluate", action="store_true", help="of versus: also a whole evaluation")
    p.add_argument("--busy", type=int, help="of versus: only fits alone and beside so many busy processes")
    p.add_argument("--start", action="store_true", help="of versus: only importing the package, and the doctor")
    p.add_argument("--data", choices=["eb", "vortex"], default="vortex")
    p.add_argument("--minutes", type=float, default=15)
    arguments = p.parse_args()
    prepare()
    print(machine())
    if arguments.what == "steps":
        table = steps(1 if arguments.quick else 5, quick=arguments.quick)
        print(table.to_string(index=False, float_format=lambda x: f"{x:.3g}"))
        print("times are ours; x is how many times longer the plain formulation takes with the same network")
        name, result = "speed-steps", table.to_dict("records")
    elif arguments.what == "versus":
        name, table = asked_versus(arguments)
        print(table.to_string(float_format=lambda x: f"{x:.4g}"))
        result = table.reset_index().to_dict("records")
    else:
        result = quality(arguments.data, arguments.minutes, quick=arguments.quick)
        for kind in ("ours", "plain"):
            for seconds, n, value in result[kind]:
                print(f"{kind:6s} {n:6d} steps {seconds:8.1f} s   held-out W1 {value:.4f}")
        seconds, n, value = result["best of plain"]
        print(f"best of the plain formulation within its time: {value:.4f} after {seconds:.0f} s ({n} iterations)")
        if result["ours as good"] is None:
            print("none of our fits was as good")
        else:
            seconds, n, value = result["ours as good"]
            print(f"ours: {value:.4f} after {seconds:.0f} s ({n} steps), {result['ratio']:.1f} times faster")
        name = f"speed-{arguments.data}"
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}{'-quick' if arguments.quick else ''}.json"
    path.write_text(json.dumps({"machine": machine(), "result": result}, indent=1))
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
