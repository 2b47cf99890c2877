"""Do cells keep their velocity? Splines against straight lines on populations left out of training, on every data set.

For each: W1 of the inner training populations, each predicted from all others (see ``wlm.core.inertia``), the ratio of
the means, and whether WLM without velocities would start with those of the splines. Of the vortex, the embryoid bodies
and the bifurcation also without the times that the benchmarks hold out. No training: half a minute in all.
"""

import argparse
from typing import Any

import numpy as np
import pandas as pd
from _report import machine, prepare
from leave_one_out import bifurcation, emt

import wlm
from wlm.core.inertia import measure_inertia
from wlm.core.populations import Populations
from wlm.datasets._particles import POTENTIALS
from wlm.datasets._potentials import JKO_POTENTIALS


def row(name: str, adata: Any, time_key: str, use_rep: str, wanted: slice | list[int] = slice(None)) -> dict[str, Any]:
    of_cells = adata.obs[time_key].to_numpy(float)
    times = np.unique(of_cells)[wanted]
    inertia = measure_inertia(Populations(times, tuple(np.asarray(adata.obsm[use_rep])[of_cells == t] for t in times)))
    if inertia is None:
        return {}
    straight, spline = inertia.straight.mean(), inertia.spline.mean()
    return {"data": name, "times": len(times), "straight": straight, "spline": spline} | {
        "spline / straight": spline / straight,
        "inertia": inertia.found,
    }


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true", help="fewer particles, and without the flock")
    arguments = p.parse_args()
    prepare()
    n, rows = 200 if arguments.quick else 1000, []
    vortex = wlm.datasets.vortex()
    for name, wanted in (("all", slice(None)), ("0, 2, 4, 6, 8", slice(0, None, 2)), ("0 to 7", slice(8))):
        rows.append(row(f"vortex, {name}", vortex, "time", "X_position", wanted))
    for name, data in (
        ("embryoid bodies", (wlm.datasets.embryoid_body(), "time", "X_pca")),
        ("bifurcation", bifurcation()),
        ("EMT", emt()),
    ):
        rows.append(row(name, *data))
        if name != "EMT":
            rows += [row(f"{name}, without {k}", *data, [i for i in range(5) if i != k]) for k in (1, 2, 3)]
    for potential in JKO_POTENTIALS:
        rows.append(row(f"flow, {potential}", wlm.datasets.potential_flow(potential, n), "time", "X_position"))
    for potential in POTENTIALS:
        adata = wlm.datasets.gradient_flow_sde(potential, n)
        rows.append(row(f"SDE, {potential}", adata, "time", "X_position", slice(10)))
    if not arguments.quick:
        rows.append(row("flock, 0 to 49", wlm.datasets.boids(), "time", "X_position", slice(50)))
    print(machine())
    print(pd.DataFrame([r for r in rows if r]).to_string(index=False, float_format="%.3f"))


if __name__ == "__main__":
    main()
