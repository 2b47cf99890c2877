"""Held-out times with wlm, other tools and the naive answers: the same cells, folds, score and time, in one run.

Each tool predicts a held-out time from the other times (of the vortex: the odd times from the even ones), in a process
of its own, on one thread; the naive answers share one. WLM with its defaults runs first; trainings of other tools last
as long as its fit and prediction did on that fold, in processor time, which other work on the machine does not
stretch. With ``--best`` they train once more, for as long as their own examples do (rows "full"):
a tool made for long trainings is not judged by a few seconds alone. Settings are those of the tools' own examples:

ot-cfm       torchcfm's single-cell example: minibatch OT, sigma 0.1, an MLP of width 64 in space and time, batches of
             256, Adam with 1e-4; integrated from the time before. Full: 10,000 steps
otp-fm       otpfm's settings for embryoid bodies in 5 dimensions (``W2Inf``, strength 500, width 0.15, 4 layers of
             256, Adam with 5e-4), on the vortex those for the Gulf of Mexico (strength 800, box, width 0.2, 10 layers
             of 128, 1e-3, squared loss); its curriculum over the training; from the first time through all, 50 steps
             for each interval. Full: 300 epochs, on the vortex 2000
moscot       ``TemporalProblem`` with its defaults between the neighbours; a partner for each cell, drawn from the plan,
             and the point between both
cytobridge   CytoBridge's ``dynamical_ot``, the example of its readme (velocities alone): a neural ODE in steps of 0.1,
             Sinkhorn losses at the times given, batches of 256, Adam with 1e-4. Its schedule counts epochs, which are
             scaled to the time by their measured pace. From the time before, in steps of 0.01. Full: 1000 epochs
spline       natural cubic splines through optimal couplings of all other times, 2500 cells at most: no training either

Environments are made on the first run: ``.venv-peers`` from benchmarks/peers.txt, in the versions of
benchmarks/peers-constraints.txt, and ``.venv-cytobridge``, without wlm, from benchmarks/cytobridge.txt: CytoBridge
wants numpy 1.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
PYTHON = HERE.parent / ".venv-peers" / "bin" / "python"
CYTOBRIDGE = HERE.parent / ".venv-cytobridge" / "bin" / "python"
#: Times that are held out together, fold by fold.
FOLDS: dict[str, list[list[float]]] = {
    "eb": [[1.0], [2.0], [3.0]],
    "emt": [[1.0], [2.0]],
    "bifurcation": [[1.0], [2.0], [3.0]],
    "vortex": [[1.0, 3.0, 5.0, 7.0]],
}
TOOLS = ("wlm", "ijkonet", "ot-cfm", "otp-fm", "moscot", "cytobridge")
#: Tools with a schedule of their own, for ``--best``.
FULL = ("ot-cfm", "otp-fm", "cytobridge")
NAIVE = ("floor", "spline", "ot_midpoint", "previous", "next")

Cells = dict[float, np.ndarray]


def data(name: str) -> tuple[Any, str, str]:
    """An object, its column of times and its representation."""
    from leave_one_out import DATA

    import wlm

    if name in DATA:
        return DATA[name]()
    return (
        (wlm.datasets.embryoid_body(), "time", "X_pca")
        if name == "eb"
        else (wlm.datasets.vortex(), "time", "X_position")
    )


def ours(
    method: str, adata: Any, time_key: str, use_rep: str, held: list[float], seed: int, extra: dict[str, Any]
) -> list[np.ndarray]:
    import wlm

    velocity = "velocity" if method == "wlm, velocities" else None
    method = method.split(",")[0]
    options = {"use_rep": use_rep, "velocity_key": velocity, "method": method, "rng": seed, "device": "cpu", **extra}
    wlm.tl.fit(adata, time_key, holdout=held, show_progress=False, **options)
    predicted = wlm.tl.predict(adata, held, rng=seed)
    return [predicted.obsm[use_rep][predicted.obs[time_key] == t] for t in held]


def training(budget: float | None, steps: int) -> Iterator[float]:
    """The share of a training that is over, before each step: of the seconds given, or else of the steps."""
    begin = time.process_time()
    done = 0
    while (gone := (time.process_time() - begin) / budget if budget else done / steps) < 1:
        yield gone
        done += 1


def ot_cfm(cells: Cells, held: list[float], budget: float | None) -> list[np.ndarray]:
    import torch
    from torchcfm.conditional_flow_matching import ExactOptimalTransportConditionalFlowMatcher
    from torchcfm.models import MLP
    from torchdiffeq import odeint

    times = sorted(cells)
    tensors = [torch.tensor(cells[t], dtype=torch.float32) for t in times]
    mean, scale = torch.cat(tensors).mean(0), torch.cat(tensors).std()
    tensors = [(x - mean) / scale for x in tensors]
    model = MLP(dim=tensors[0].shape[1], time_varying=True, w=64)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    matcher = ExactOptimalTransportConditionalFlowMatcher(sigma=0.1)
    for _ in training(budget, steps=10_000):
        parts = []
        for k, (a, b) in enumerate(zip(tensors[:-1], tensors[1:], strict=True)):
            n = min(256, len(a), len(b))
            t, x, u = matcher.sample_location_and_conditional_flow(
                a[torch.randint(len(a), (n,))], b[torch.randint(len(b), (n,))]
            )
            span = times[k + 1] - times[k]
            parts.append((x, times[k] + t * span, u / span))
        x, t, u = (torch.cat(part) for part in zip(*parts, strict=True))
        loss = (model(torch.cat([x, t[:, None]], 1)) - u).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def speed(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return model(torch.cat([x, t.expand(len(x), 1)], 1))

    out = []
    for wanted in held:
        before = max(k for k, t in enumerate(times) if t < wanted)
        with torch.no_grad():
            at = torch.tensor([times[before], wanted], dtype=torch.float32)
            moved = odeint(speed, tensors[before], at, atol=1e-4, rtol=1e-4)[-1]
        out.append((moved * scale + mean).numpy())
    return out


def otp_fm(cells: Cells, held: list[float], budget: float | None, *, vortex: bool) -> list[np.ndarray]:
    from collections import OrderedDict

    import torch
    from otpfm import OTPFM, Curriculum
    from otpfm.potentials import W2InfPotential

    times = sorted(cells)
    tensors = [torch.tensor(cells[t], dtype=torch.float32) for t in times]
    mean, scale = torch.cat(tensors).mean(0), torch.cat(tensors).std(0)
    tensors = [(x - mean) / scale for x in tensors]
    unit = [float((t - times[0]) / (times[-1] - times[0])) for t in times]
    settings = (
        {"strength": 800.0, "lambda_type": "box", "width": 0.2}
        if vortex
        else {"strength": 500.0, "lambda_type": "gaussian", "width": 0.15}
    )
    network = {"layernorm": True, "residual_every": 2, "activation_fn": "silu"}
    network |= (
        {"hidden_dim": 128, "num_hidden_layers": 10}
        if vortex
        else {"hidden_dim": 256, "num_hidden_layers": 4, "dropout": 0.1}
    )
    model = OTPFM(
        d=tensors[0].shape[1],
        tks=unit[1:-1],
        potentials=OrderedDict((t, W2InfPotential(tk=t, **settings)) for t in unit[1:-1]),
        flownet_args=network,
        lossfn="mse" if vortex else "adaptive",
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3 if vortex else 5e-4)
    n = 64 if vortex else 256
    # The settings for the ocean pair the snapshots by optimal transport, those for the cells at random.
    chain = aligned(tensors) if vortex else None

    def step(alpha: float) -> None:
        if chain is not None:
            batch = chain[torch.randint(len(chain), (n,))]
        else:
            batch = torch.stack([x[torch.randint(len(x), (n,))] for x in tensors], 1)
        loss = model.forward_with_loss(batch, otp_alpha=alpha)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.update_ema()

    model.train()
    schedule = Curriculum(total_iterations=1_000_000)
    # Its examples go through the cells of the smallest time in an epoch; of those in 5 dimensions, through nine tenths.
    smallest = min(len(x) for x in tensors)
    steps = 2000 * math.ceil(smallest / n) if vortex else 300 * math.ceil(0.9 * smallest / n)
    for gone in training(budget, steps):
        step(schedule(int(1e6 * gone)))
    model.eval()
    with torch.no_grad():
        path, at = model.sample(tensors[0], n_steps=50)
    nearest = [int((at - (t - times[0]) / (times[-1] - times[0])).abs().argmin()) for t in held]
    return [(path[k] * scale + mean).numpy() for k in nearest]


def aligned(tensors: list[Any]) -> Any:
    """Snapshots of equally many particles, each matched with the one before by optimal transport: (n, times, d)."""
    import torch
    from scipy.optimize import linear_sum_assignment

    chain = [tensors[0]]
    for x in tensors[1:]:
        chain.append(x[torch.as_tensor(linear_sum_assignment(torch.cdist(chain[-1], x).square().numpy())[1])])
    return torch.stack(chain, 1)


def moscot(cells: Cells, held: float, rng: np.random.Generator) -> np.ndarray:
    import anndata as ad
    import pandas as pd
    from moscot.problems.time import TemporalProblem

    before, after = max(t for t in cells if t < held), min(t for t in cells if t > held)
    x, y = cells[before], cells[after]
    obs = pd.DataFrame({"time": pd.Categorical([before] * len(x) + [after] * len(y))})
    obs.index = obs.index.astype(str)
    pair = ad.AnnData(np.concatenate([x, y]), obs=obs, obsm={"X": np.concatenate([x, y])})
    problem = TemporalProblem(pair).prepare(time_key="time", joint_attr="X").solve()
    plan = np.asarray(problem[before, after].solution.transport_matrix)
    share = np.cumsum(plan, 1) / plan.sum(1, keepdims=True)
    partner = (share < rng.random((len(x), 1))).sum(1).clip(max=len(y) - 1)
    tau = (held - before) / (after - before)
    return (1 - tau) * x + tau * y[partner]


def cytobridge(cells: Cells, held: list[float], budget: float | None, seed: int) -> dict[str, Any]:
    """What ``_cytobridge.py`` answers in its environment: predicted cells, seconds and memory."""
    times = sorted(cells)
    request: dict[str, Any] = {f"cells{k}": cells[t] for k, t in enumerate(times)}
    request |= {"times": times, "held": held, "budget": budget or 0.0, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = f"{folder}/cells.npz", f"{folder}/answer.npz"
        np.savez(asked, **request)
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        call = [str(CYTOBRIDGE), str(HERE / "_cytobridge.py"), asked, answered]
        done = subprocess.run(call, capture_output=True, text=True, env=env, check=False)
        if done.returncode:
            raise RuntimeError(f"CytoBridge:\n{done.stderr[-3000:]}")
        with np.load(answered) as answer:
            return dict(answer)


def one(
    name: str, tool: str, held: list[float], seed: int, budget: float | None, extra: dict[str, Any]
) -> dict[str, Any]:
    """A fold of a tool, in this process: W1, processor time in seconds, and peak memory beyond that before the work.

    A ``budget`` of None lets a peer train for as long as its own examples do.
    """
    import torch
    from _report import peak_memory, prepare

    from wlm.core.chains import spline_interpolation
    from wlm.core.metrics import w1
    from wlm.core.populations import Populations
    from wlm.core.transport import interpolate

    prepare()
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    adata, time_key, use_rep = data(name)
    at = {float(t): np.asarray(adata.obsm[use_rep])[adata.obs[time_key] == t] for t in np.unique(adata.obs[time_key])}
    seen = {t: x for t, x in at.items() if t not in held}
    around = [(max(t for t in seen if t < h), min(t for t in seen if t > h)) for h in held]
    truth, memory, begin = [at[h] for h in held], peak_memory(), time.process_time()
    used: dict[str, float] = {}
    if tool in ("previous", "next"):
        predicted = [at[before if tool == "previous" else after] for before, after in around]
    elif tool == "floor":
        orders = [rng.permutation(len(x)) for x in truth]
        predicted = [x[order[::2]] for x, order in zip(truth, orders, strict=True)]
        truth = [x[order[1::2]] for x, order in zip(truth, orders, strict=True)]
    elif tool == "spline":
        populations = Populations(np.array(sorted(seen)), tuple(seen[t] for t in sorted(seen)))
        predicted = [spline_interpolation(populations, h, 2500) for h in held]
    elif tool == "ot_midpoint":
        predicted = [
            interpolate(at[before], at[after], (h - before) / (after - before), seed=seed)
            for h, (before, after) in zip(held, around, strict=True)
        ]
    elif tool == "ot-cfm":
        predicted = ot_cfm(seen, held, budget)
    elif tool == "otp-fm":
        predicted = otp_fm(seen, held, budget, vortex=name == "vortex")
    elif tool == "moscot":
        predicted = [moscot(seen, h, rng) for h in held]
    elif tool == "cytobridge":
        answer = cytobridge(seen, held, budget, seed)
        predicted = [answer[f"cells{k}"] for k in range(len(held))]
        used = {"s": float(answer["seconds"]), "MB": float(answer["memory"])}  # its imports and measured pace apart
    else:
        predicted = ours(tool, adata, time_key, use_rep, held, seed, extra)
    used = used or {"s": time.process_time() - begin, "MB": 1000 * (peak_memory() - memory)}
    scores = [w1(x, y) for x, y in zip(predicted, truth, strict=True)]
    return {"w1": float(np.mean(scores)), **used, "n": len(predicted[0])}


def environment() -> None:
    """``.venv-peers`` and ``.venv-cytobridge``, made where they are missing."""
    peers = ["-r", HERE / "peers.txt", "-c", HERE / "peers-constraints.txt", "--editable", HERE.parent]
    install(PYTHON, peers, ("wlm", "torch", "torchcfm", "otpfm", "moscot", "jax", "POT"))
    # All that its imports need is listed, and torchvision, torchaudio and others that it asks for are not.
    install(CYTOBRIDGE, ["--no-deps", "-r", HERE / "cytobridge.txt"], ("CytoBridge", "torch", "numpy", "POT"))


def install(python: Path, what: list[Any], shown: tuple[str, ...]) -> None:
    """An environment, made where it is missing, and the versions in it."""
    if not python.exists():
        print(f"installing {what} into {python.parents[1].name} (a minute or two)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        pip += ["--no-compile"]  # compiling takes longer than the rest, for modules that nobody imports
        subprocess.run([*pip, *map(str, what)], check=True)
    versions = f"import importlib.metadata as m; print(*(f'{{p}} {{m.version(p)}}' for p in {shown}), sep=', ')"
    print(subprocess.run([python, "-c", versions], check=True, capture_output=True, text=True).stdout.strip())


def child(name: str, tools: list[str], *arguments: Any) -> dict[str, dict[str, Any]]:
    """Results of :func:`one` by tool, from a process of the peers' environment."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    env["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    call = [str(PYTHON), __file__, "--one", json.dumps([name, tools, arguments])]
    done = subprocess.run(call, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise RuntimeError(f"{name}, {tools}, {arguments}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def processes(name: str, arguments: argparse.Namespace) -> list[tuple[list[str], bool]]:
    """The tools of each process, and whether they keep their own schedule: wlm first, whose time the others get."""
    velocities = ("wlm, velocities",) if name == "vortex" else ()
    parts = [([tool], False) for tool in (*TOOLS, *velocities)] + [(list(NAIVE), False)]
    parts += [([tool], True) for tool in FULL if arguments.best]
    wanted = ("wlm", *(arguments.tool or (*TOOLS, *velocities, *FULL, *NAIVE)))
    kept = [([tool for tool in tools if tool in wanted], full) for tools, full in parts]
    kept = [(tools, full) for tools, full in kept if tools]
    # A small version is mostly imports: everything after wlm shares a process.
    return [kept[0], ([tool for tools, _ in kept[1:] for tool in tools], False)] if arguments.quick else kept


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        name, tools, rest = json.loads(sys.argv[2])
        print(json.dumps({tool: one(name, tool, *rest) for tool in tools}))
        return
    import pandas as pd
    from _report import RESULTS, code, machine

    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seeds", type=int, default=1)
    p.add_argument("--quick", action="store_true", help="a small version that only shows that it runs")
    p.add_argument("--best", action="store_true", help="peers with their own full schedules as well (hours)")
    p.add_argument("--environment", action="store_true", help="only make the environments, where they are missing")
    p.add_argument("--data", action="append", choices=list(FOLDS), help="only this data set; repeatable")
    p.add_argument("--tool", action="append", choices=sorted({*TOOLS, *FULL, *NAIVE}), help="only this; repeatable")
    arguments = p.parse_args()
    if arguments.quick and (arguments.best or arguments.data or arguments.tool):
        p.error("--quick runs each tool on a fold of the vortex, none to its full schedule")
    environment()
    if arguments.environment:
        return
    path = RESULTS / f"peers{'-quick' if arguments.quick else ''}.json"
    RESULTS.mkdir(exist_ok=True)
    done = json.loads(path.read_text()) if path.exists() and not arguments.quick else {}
    extra = {"n_steps": 5} if arguments.quick else {}
    for name in ["vortex"] if arguments.quick else arguments.data or FOLDS:
        for seed in range(1 if arguments.quick else arguments.seeds):
            for held in FOLDS[name][: 1 if arguments.quick else None]:
                budget: float | None = None
                for tools, full in processes(name, arguments):
                    keys = {t: json.dumps([code(), name, f"{t}, full" if full else t, held, seed]) for t in tools}
                    missing = [t for t in tools if keys[t] not in done]
                    found = child(name, missing, held, seed, None if full else budget, extra) if missing else {}
                    for tool, result in found.items():
                        done[keys[tool]] = result
                        print("done:", keys[tool], {k: round(v, 3) for k, v in result.items()}, flush=True)
                    path.write_text(json.dumps(done, indent=1))
                    if tools == ["wlm"]:
                        budget = min(done[keys["wlm"]]["s"], 1.0 if arguments.quick else math.inf)
    rows = [(*json.loads(k)[1:], *v.values()) for k, v in done.items() if json.loads(k)[0] == code()]
    frame = pd.DataFrame(rows, columns=["data", "tool", "held", "seed", "W1", "s", "MB", "n"]).drop(columns="held")
    table = frame.groupby(["data", "tool"], sort=False)[["W1", "s", "MB"]].mean()
    table["W1 / wlm"] = table["W1"] / table["W1"].xs("wlm", level="tool").reindex(table.index, level="data")
    print(machine())
    print(table.to_string(float_format="%.3f"))
    print(f"means over held-out times and {frame['seed'].nunique()} seed(s); wrote {path}")


if __name__ == "__main__":
    main()
