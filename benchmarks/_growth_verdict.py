"""Is growth found where it is, and only there? The verdict of ``tl.evaluate`` on simulations of both kinds."""

from __future__ import annotations

import time
from typing import Any

import pandas as pd

import wlm

#: The last day, forecast from all others.
FORECAST = 5.0
#: First seed of the simulations: prices and the verdict were chosen on smaller ones, and none of these was seen then.
FIRST_SEED = 30


def jobs(n_simulations: int, n_cells: int, extra: dict[str, Any]) -> list[tuple]:
    """Half of the simulations with growth, half without."""
    seeds = range(FIRST_SEED, FIRST_SEED + -(-n_simulations // 2))
    return [("verdict", kind, seed, n_cells, extra) for seed in seeds for kind in ("growing", "control")]


def run(_: str, kind: str, seed: int, n_cells: int, extra: dict[str, Any]) -> dict[str, Any]:
    """The verdict of one simulation."""
    n_founders = max(10 * n_cells, 1000)
    adata = wlm.datasets.branching_growth(n_cells, equal=kind == "control", n_founders=n_founders, rng=seed)
    begin = time.process_time()
    table = wlm.tl.evaluate(
        adata,
        "day",
        method={"growth": {"method": "wlm", "growth": True, **extra}},
        holdout=[FORECAST],
        metrics=("w1", "composition"),
        label_key="branch",
        use_rep="X_position",
        rng=seed,
        device="cpu",
    )
    rates = {rate["label"]: rate for rate in table.attrs["naive_growth"]}
    return {
        "seconds": time.process_time() - begin,
        "verdict": table.attrs["verdict"],
        "growth": table.attrs["growth"],
        "slope": rates["A"]["slope"],
        "row sums": rates["A"]["row_sums"] - rates["B"]["row_sums"],
    }


def show(found: list[dict[str, Any]], asked: list[tuple]) -> None:
    """How often the verdict is right, and what it rests on."""
    rows = []
    for job, result in zip(asked, found, strict=True):
        supported = "growth SUPPORTED" in result["verdict"]
        rows.append(
            {"kind": job[1], "seed": job[2], "supported": supported, "right": supported == (job[1] == "growing")}
        )
        for row in result["growth"]:
            kept = ("growth", "conserved", "difference", "low", "high")
            rows[-1] |= {f"{row['metric']} {name}": row[name] for name in kept}
        rows[-1] |= {"slope": result["slope"], "row sums": result["row sums"]}
    table = pd.DataFrame(rows)
    print(table.sort_values(["kind", "seed"]).to_string(index=False, float_format=lambda v: f"{v:.3f}"))
    by_kind = table.groupby("kind")["right"]
    print(f"\nright in {table['right'].sum()} of {len(table)} simulations:")
    print("\n".join(f"  {kind}: {part.sum()} of {len(part)}" for kind, part in by_kind))
    print(f"seconds of the processor for each: {sum(r['seconds'] for r in found) / len(found):.0f}")
