"""Small vortex, interpolation: times 0, 2, 4, 6, 8 are trained on, 1, 3, 5, 7 predicted from the previous one.

Cells start with the data's velocities; beside them are cubic curves with the velocities at both ends, without training.
With --forecast all times but the last are trained on, and 8 is predicted.
"""

import time

import numpy as np
import pandas as pd
from _report import options, parser, peak_memory, prepare, report
from joblib import Parallel, delayed

import wlm
from wlm.core.arrival import cubic
from wlm.core.metrics import w1
from wlm.core.transport import interpolate

TEST = (1.0, 3.0, 5.0, 7.0)


def run(seed: int, extra: dict, test: tuple[float, ...] = TEST) -> tuple[list[dict], float]:
    prepare()
    adata = wlm.datasets.vortex()
    begin = time.perf_counter()
    wlm.tl.fit(
        adata,
        "time",
        use_rep="X_position",
        velocity_key="velocity",
        holdout=test,
        rng=seed,
        device="cpu",
        show_progress=False,
        **extra,
    )
    seconds = time.perf_counter() - begin
    of = {t: adata.obsm["velocity"][adata.obs["time"] == t] for t in range(9)}
    at = {t: adata.obsm["X_position"][adata.obs["time"] == t] for t in range(9)}
    predicted = wlm.tl.predict(adata, test, rng=seed)
    rows = []
    for t in test:
        models = {"wlm": predicted.obsm["X_position"][predicted.obs["time"] == t]}
        if seed == 0:
            models["previous"] = at[t - 1]
            if t + 1 in at:
                models |= {"next": at[t + 1], "ot_midpoint": interpolate(at[t - 1], at[t + 1], 0.5)}
                ends = [(at[s].astype(float), of[s].astype(float)) for s in (t - 1, t + 1)]
                models["cubic"] = cubic(np.array([t - 1, t + 1]), *ends, t)
        rows += [{"time": t, "model": m, "seed": seed, "n": len(x), "w1": w1(x, at[t])} for m, x in models.items()]
    return rows, seconds


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--forecast", action="store_true")
    arguments = p.parse_args()
    test = (8.0,) if arguments.forecast else TEST
    extra = options(arguments.option)
    if arguments.quick:
        extra = {"n_steps": 20, **extra}
        arguments.seeds = 1
    results = Parallel(n_jobs=arguments.jobs)(delayed(run)(seed, extra, test) for seed in range(arguments.seeds))
    report(
        ("vortex-forecast" if arguments.forecast else "vortex") + ("-quick" if arguments.quick else ""),
        f"Small vortex, {'forecast' if arguments.forecast else 'interpolation'} from the time before, 111 particles",
        pd.DataFrame([row for rows, _ in results for row in rows]),
        {
            "options": extra or "defaults",
            "fits": ", ".join(f"{s:.0f} s" for _, s in results) + f" on one thread each, {arguments.jobs} at a time",
            "peak memory of a process": f"{peak_memory():.2f} GB",
        },
    )


if __name__ == "__main__":
    main()
