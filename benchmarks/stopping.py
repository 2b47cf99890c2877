"""What patience saves and costs: held-out W1, steps and seconds with and without it.

Embryoid bodies (1,500 cells of each time, time 2 held out), EMT (time 1) and the simulated bifurcation (day 2), all
without velocities: jkonet_star and ijkonet with their defaults, WLM with five times its default steps. Runs are kept in
benchmarks/results/stopping.json and not repeated with the same code.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
from _report import RESULTS, key, machine, parser, run_missing
from leave_one_out import DATA

import wlm
from wlm.core.metrics import w1

SETTINGS: dict[str, list[dict[str, Any]]] = {
    "jkonet_star": [{}, {"patience": 100}, {"patience": 200}],
    "ijkonet": [{}, {"patience": 150}, {"patience": 300}],
    "wlm": [{"n_steps": 400}, {"n_steps": 400, "patience": 40}, {"n_steps": 400, "patience": 80}],
}
FOLDS = {"eb": 2.0, "emt": 1.0, "bifurcation": 2.0}
#: Cells of each time of embryoid bodies.
N_CELLS = 1500


def run(data: str, method: str, options: dict[str, Any], seed: int, n_steps: int | None) -> dict[str, float]:
    adata, time_key, rep = (wlm.datasets.embryoid_body(), "time", "X_pca") if data == "eb" else DATA[data]()
    at = adata.obs[time_key].astype(float).to_numpy()
    rng = np.random.default_rng(seed)
    kept = [rng.permutation(np.flatnonzero(at == t))[:N_CELLS] for t in np.unique(at)]
    adata = adata[np.sort(np.concatenate(kept))].copy()
    extra, held = {**options, **({} if n_steps is None else {"n_steps": n_steps})}, FOLDS[data]
    # What the first fit of a process loads is not counted.
    wlm.tl.fit(adata[::10].copy(), time_key, use_rep=rep, n_steps=1, device="cpu", backtest=False, show_progress=False)
    begin = time.process_time()
    wlm.tl.fit(
        *(adata, time_key),
        method=method,
        use_rep=rep,
        holdout=held,
        rng=seed,
        device="cpu",
        backtest=False,
        show_progress=False,
        **extra,
    )
    seconds, params = time.process_time() - begin, adata.uns["wlm"]["params"]
    y = adata.obsm[rep][adata.obs[time_key].astype(float) == held]
    steps = params.get("stopped", adata.uns["wlm"]["history"]["step"][-1])
    x = wlm.tl.predict(adata, held, rng=seed).obsm[rep]
    return {"W1": w1(x, y), "s": seconds, "steps": float(steps)}


def main() -> None:
    p = parser(__doc__, seeds=2)
    arguments = p.parse_args()
    folds, settings, n_steps, path = list(FOLDS), SETTINGS, None, RESULTS / "stopping.json"
    if arguments.quick:
        folds, settings = ["emt"], {"jkonet_star": SETTINGS["jkonet_star"][:2]}
        arguments.seeds, n_steps, path = 1, 20, RESULTS / "stopping-quick.json"
    jobs = [
        (data, method, options, seed, n_steps)
        for method, each in settings.items()
        for options in each
        for data in folds
        for seed in range(arguments.seeds)
    ]
    done = run_missing(path, jobs, run, arguments.jobs, fresh=arguments.quick)
    rows = [{"method": j[1], "patience": j[2].get("patience", 0), "data": j[0], **done[key(j)]} for j in jobs]
    table = pd.DataFrame(rows).groupby(["method", "patience", "data"], sort=False).mean().unstack("data")
    print(
        f"{machine()}\nmeans over {arguments.seeds} seed(s); seconds of processor time of a fit, without its back-test"
    )
    print(table.to_string(float_format=lambda x: f"{x:.4g}"))


if __name__ == "__main__":
    main()
