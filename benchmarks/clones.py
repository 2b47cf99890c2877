"""Clones: are predicted blood cells near their sisters, and do they have their fate?

Blood progenitors in culture with barcodes (larry_clones.h5ad of CoSpar's tests, 781 cells, half of the clones, in the
folder WLM_DATA_DIR or ../shared/data), days 2, 4 and 6, the first ten components. Cells of day 4 are predicted at day 6
by each method and compared with the cells of their clone there, which no fit has seen; monocytes against neutrophils.
Below them are naive answers and those that were trained on other clones. Intervals are over clones (seed 0), the spread
is over seeds.

With --trained fits are made with half of the clones in training (clone_key) and scored by the other half, with several
weights, on these cells and on a simulation in which two groups change places. With --published the task of Weinreb et
al. 2020: the fate, among ten, that dominates the clone of each of 2,081 cells of day 2; it needs the full data in the
cache (wlm.datasets.larry).
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import _clones_published
import _clones_training
import anndata as ad
import pandas as pd
from _report import RESULTS, key, machine, options, parser, prepare, run_missing

import wlm

FILE = "larry_clones.h5ad"
METHODS = ("wlm", "ijkonet", "flow")
LABELS = ["Monocyte", "Neutrophil"]


def run(method: str, seed: int, n_dims: int, n_boot: int, extra: dict[str, Any]) -> dict[str, Any]:
    """The rows of one fit."""
    adata = ad.read_h5ad(Path(os.environ["WLM_DATA_DIR"]) / FILE)
    begin = time.perf_counter()
    wlm.tl.fit(adata, "time_info", method=method, n_dims=n_dims, rng=seed, device="cpu", show_progress=False, **extra)
    seconds = time.perf_counter() - begin
    # Fates by the noise of the fit, beside the one end of each prediction.
    wlm.tl.terminal_states(adata, label_key="state_info", states=LABELS)
    wlm.tl.fates(adata, rng=seed)
    table = wlm.tl.evaluate_clones(
        adata, label_key="state_info", labels=LABELS, start=4, end=6, n_boot=n_boot if seed == 0 else 0
    )
    table["model"] = table["model"].replace("fates", f"{method}, fates")
    return {"seconds": seconds, "rows": table.to_dict("records")}


def published(arguments: Any) -> None:
    """The published task, where the full data are."""
    adata = _clones_published.cells(arguments.dims)
    if adata is None:
        raise SystemExit(
            "the full data are not in the cache; run wlm.datasets.larry() once where there is a network (about a "
            "gigabyte), or put larry.h5ad into the folder WLM_DATA_DIR"
        )
    extra = options(arguments.option) | ({"n_steps": 5} if arguments.quick else {})
    seeds = range(1 if arguments.quick else arguments.seeds)
    _clones_published.show([_clones_published.run(adata, "wlm", seed, extra) for seed in seeds])
    print(machine())


def trained(arguments: Any, extra: dict[str, Any]) -> None:
    """Fits that have seen half of the clones."""
    if arguments.quick:
        _clones_training.WEIGHTS, _clones_training.N_BOOT = (None, 1.0), 20
    jobs = _clones_training.jobs(arguments.seeds, arguments.dims, extra)
    path = RESULTS / ("clones-trained-quick.json" if arguments.quick else "clones-trained.json")
    done = run_missing(path, jobs, trained_run, arguments.jobs, fresh=arguments.quick)
    _clones_training.show([done[key(job)] for job in jobs], jobs)
    print(f"{machine()}; wrote {path}")


def trained_run(_: str, *job: Any) -> dict[str, Any]:
    """One job of ``_clones_training``."""
    return _clones_training.run(*job)


def main() -> None:
    p = parser(__doc__, seeds=5)
    p.add_argument("--dims", type=int, default=10, help="components")
    p.add_argument("--trained", action="store_true", help="fits with half of the clones in training instead")
    p.add_argument("--published", action="store_true", help="the task with ten fates on the full data instead")
    arguments = p.parse_args()
    prepare()
    if arguments.published:
        published(arguments)
        return
    if not (Path(os.environ.get("WLM_DATA_DIR", "")) / FILE).exists():
        raise SystemExit(f"{FILE} is not in the folder WLM_DATA_DIR; put it there first")
    extra = {name: options(arguments.option) for name in METHODS}
    n_boot = 1000
    if arguments.quick:
        extra["wlm"], extra["ijkonet"] = {"n_steps": 5}, {"n_steps": 5}
        arguments.seeds, n_boot = 1, 20
    if arguments.trained:
        trained(arguments, extra["wlm"])
        return
    # Flow has no randomness in its fit.
    jobs = [
        (method, seed, arguments.dims, n_boot, extra[method])
        for method in METHODS
        for seed in range(1 if method == "flow" else arguments.seeds)
    ]
    path = RESULTS / ("clones-quick.json" if arguments.quick else "clones.json")
    done = run_missing(path, jobs, run, arguments.jobs, fresh=arguments.quick)
    rows = []
    for job in jobs:
        for row in done[key(job)]["rows"]:
            if row["model"].split(",")[0] == job[0] or job[:2] == (METHODS[0], 0):
                rows.append({"seed": job[1], **row})
    table = pd.DataFrame(rows)
    shown = []
    for name, part in table.groupby("model", sort=False):
        line: dict[str, Any] = {"answer": name, "seeds": len(part)}
        for metric in ("distance", "accuracy", "brier", "auroc", "calibration"):
            first = part[part["seed"] == 0].iloc[0]
            line[metric] = f"{part[metric].mean():.3f} [{first[f'{metric}_low']:.2f}, {first[f'{metric}_high']:.2f}]"
            line[f"sd {metric}"] = f"{part[metric].std():.3f}" if len(part) > 1 else "-"
        shown.append(line)
    first = table.iloc[0]
    print(f"\nday 4 to 6, {first['n_cells']} cells of {first['n_clones']} clones, {first['n_labelled']} with a fate")
    print(pd.DataFrame(shown).to_string(index=False))
    seconds = {m: sum(done[key(j)]["seconds"] for j in jobs if j[0] == m) for m in METHODS}
    print(f"fits on one thread, s in all: {seconds}; {machine()}; wrote {path}")


if __name__ == "__main__":
    main()
