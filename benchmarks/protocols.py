"""Published protocols other than leave one out, by every method here with its defaults, beside naive answers.

eb-two-out       embryoid bodies, 5 principal components: trained on times 0, 2, 4, tl.predict of times 1
                 and 3; W2 (exact) of 1000 cells a side, the protocol of the iJKOnet paper
emt-from-start   A549 cells, 10 latent dimensions: trained on all times but one, which is rolled out freely from day 0,
                 no later population met on the way; W1 of all cells, the protocol of WFR-FM

Runs are kept in benchmarks/results/protocols.json and not repeated with the same code; --fresh starts anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from _report import RESULTS, key, machine, options, parser, prepare, run_missing

import wlm
from wlm._store.fit import get_fit
from wlm.core.metrics import w1, w2
from wlm.core.transport import interpolate

#: Methods by the name of the row, with their options.
METHODS: dict[str, dict[str, Any]] = {
    "wlm": {"method": "wlm"},
    "flow": {"method": "flow"},
    "ijkonet V+U": {"method": "ijkonet", "energy": "V+U"},
}
#: Cells a side of a score of embryoid bodies.
N_SCORED = 1000

Row = dict[str, Any]


def eb_two_out(name: str, seed: int, extra: dict[str, Any], *, quick: bool) -> list[Row]:
    adata = wlm.datasets.embryoid_body()[:: 20 if quick else 1].copy()
    wlm.tl.fit(
        adata,
        "time",
        holdout=[1, 3],
        rng=seed,
        device="cpu",
        backtest=False,
        show_progress=False,
        **METHODS[name],
        **extra,
    )
    x, day = adata.obsm["X_pca"], adata.obs["time"].to_numpy(float)
    rows = []
    for t in (1.0, 3.0):
        before, after, there = (x[day == s] for s in (t - 1, t + 1, t))
        found = {name: wlm.tl.predict(adata, t, rng=seed).obsm["X_pca"]}
        if name == "wlm":
            half = np.random.default_rng(seed).permutation(len(there))
            middle = interpolate(before, after, 0.5, seed=seed)
            found |= {"previous": before, "next": after, "ot_midpoint": middle, "floor": there[half[: len(half) // 2]]}
        for model, y in found.items():
            observed = there if model != "floor" else there[half[len(half) // 2 :]]
            rng = np.random.default_rng(seed)
            a, b = (z[rng.permutation(len(z))[:N_SCORED]] for z in (y, observed))
            rows.append({"model": model, "time": t, "n": len(b), "score": w2(a, b)})
    return rows


def emt_from_start(name: str, seed: int, extra: dict[str, Any], *, quick: bool) -> list[Row]:
    adata = wlm.datasets.emt()[:: 10 if quick else 1].copy()
    x, day = adata.obsm["X_latent"], adata.obs["time"].to_numpy(float)
    observed, rows = np.unique(day), []
    for t in observed[1:-1]:
        wlm.tl.fit(
            *(adata, "time"),
            use_rep="X_latent",
            holdout=t,
            rng=seed,
            device="cpu",
            backtest=False,
            show_progress=False,
            **METHODS[name],
            **extra,
        )
        dynamics, first = get_fit(adata, "wlm", None).dynamics, day == observed[0]
        v = adata.obsm["wlm_velocity"][first] if dynamics.needs_velocity else None
        moved = dynamics.simulate(x[first], [observed[0], t], v=v, seed=seed).positions[-1]
        rows.append({"model": name, "time": t, "n": int((day == t).sum()), "score": w1(moved, x[day == t])})
        if name == "wlm":
            before = observed[observed < t][-1]
            rows.append({**rows[-1], "model": "previous", "score": w1(x[day == before], x[day == t])})
    return rows


RUNS = {"eb-two-out": eb_two_out, "emt-from-start": emt_from_start}


def run(protocol: str, name: str, seed: int, extra: dict[str, Any], quick: bool) -> list[Row]:  # noqa: FBT001
    return RUNS[protocol](name, seed, extra, quick=quick)


if __name__ == "__main__":
    p = parser(__doc__, seeds=5)
    p.add_argument("protocol", choices=[*RUNS, "all"])
    p.add_argument("--method", action="append", choices=sorted(METHODS), help="only this one; repeatable")
    p.add_argument("--fresh", action="store_true", help="do not use runs that are there already")
    arguments = p.parse_args()
    prepare()
    extra = options(arguments.option)
    chosen = arguments.method or list(METHODS)
    if arguments.quick:
        arguments.seeds, chosen, extra = 1, chosen[:2], {**extra}
    protocols = list(RUNS) if arguments.protocol == "all" else [arguments.protocol]
    jobs = [(q, m, s, extra, arguments.quick) for q in protocols for m in chosen for s in range(arguments.seeds)]
    done = run_missing(RESULTS / "protocols.json", jobs, run, arguments.jobs, fresh=arguments.fresh)
    print(machine())
    for q in protocols:
        table = pd.DataFrame([{"seed": j[2], **row} for j in jobs if j[0] == q for row in done[key(j)]])
        table = table.drop_duplicates(["model", "time", "seed"])
        each = table.groupby(["model", "seed"])["score"].mean().groupby("model")
        out = table.pivot_table(index="model", columns="time", values="score", aggfunc="mean")
        out = out.assign(mean=each.mean(), sd=each.std(), seeds=each.size())
        print(f"\n{q}: {'W2' if q == 'eb-two-out' else 'W1'}, {arguments.seeds} seed(s)")
        print(out.sort_values("mean").to_string(float_format="%.4f"))
