"""Does ``tl.perturb`` know which way a gene turns a switch, and that bystanders do not?

A switch of two genes that inhibit each other and activate themselves decides between two fates. Regulators, which
differ between cells and stay as they are, push it to one side; bystanders vary as much and do nothing. Cells are seen
on five days, other ones every day. Every regulator and bystander is turned up on the first day, and the share of a fate
on the last day is compared with that of the cells left alone. The true shift is that of simulated cells whose gene is
raised to the same quantile.

``--blood``: known regulators of blood cells (``wlm.datasets.larry_clones``) are turned up on day 2, when the cells are
undifferentiated, and the fate that they are known for is looked for on day 6; markers of the fates beside them.
"""

import time

import _perturb_blood
import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from _report import machine, options, parser, prepare

import wlm

N_REGULATORS, N_BYSTANDERS, N_MARKERS, DAYS = 8, 16, 6, 5
#: Noise of the switch per square root of a day, its rate per day, and of the measurement.
NOISE, RATE, MEASURED, DT = 0.15, 1.5, 0.1, 0.05


def switch(seed: int, n: int, effects: np.ndarray, raised: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """States (days, n, 2) of the switch and levels (n, genes) of regulators and bystanders; one of them raised."""
    rng = np.random.default_rng(seed)
    levels = rng.normal(size=(n, len(effects)))
    if raised is not None:
        levels[:, raised] = np.quantile(levels[:, raised], 0.95)
    push = levels @ effects
    state, seen = 0.3 + 0.05 * rng.normal(size=(n, 2)), []
    for step in range(round((DAYS - 1) / DT) + 1):
        if step % round(1 / DT) == 0:
            seen.append(state.copy())
        power = np.maximum(state, 0) ** 2
        inhibited = power / (0.5 + power + 2 * power[:, ::-1])
        drift = RATE * (2 * inhibited - state + 0.15 * np.stack([push, -push], axis=1) + 0.1)
        state = state + DT * drift + NOISE * np.sqrt(DT) * rng.normal(size=state.shape)
    return np.stack(seen), levels


def simulate(seed: int, n: int) -> tuple[ad.AnnData, np.ndarray]:
    """Cells on all days, with components and the fate of the side that is ahead, and the effects of the genes."""
    rng = np.random.default_rng([seed, 1])
    sign = np.resize([1.0, -1.0], N_REGULATORS)
    effects = np.concatenate([sign * rng.uniform(0.4, 1.0, N_REGULATORS), np.zeros(N_BYSTANDERS)])
    weights = rng.uniform(0.5, 1.5, (2, N_MARKERS)) * np.array([[1.0], [1.0]])
    values = []
    for day in range(DAYS):
        states, levels = switch(1000 * seed + day, n, effects)
        markers = [states[day][:, [side]] * weights[side] for side in (0, 1)]
        values.append(np.concatenate([*markers, 0.5 * levels], axis=1))
    x = np.concatenate(values)
    names = [f"{side}{i}" for side in "AB" for i in range(N_MARKERS)]
    names += [f"regulator{i}" for i in range(N_REGULATORS)] + [f"bystander{i}" for i in range(N_BYSTANDERS)]
    adata = ad.AnnData((3 + x + MEASURED * rng.normal(size=x.shape)).astype(np.float32))
    adata.var_names, adata.obs_names = names, [f"c{i}" for i in range(len(x))]
    adata.obs["day"] = np.repeat(np.arange(DAYS, dtype=float), n)
    ahead = (
        x[:, :N_MARKERS].sum(axis=1) / weights[0].sum() > x[:, N_MARKERS : 2 * N_MARKERS].sum(axis=1) / weights[1].sum()
    )
    adata.obs["fate"] = pd.Categorical(np.where(ahead, "A", "B"))
    sc.pp.pca(adata, n_comps=min(30, adata.n_vars - 1))
    return adata, effects


def true_shift(seed: int, n: int, effects: np.ndarray, gene: int) -> float:
    """Change in the share of fate A on the last day, of simulated cells whose gene is raised."""
    shares = [
        (states[-1][:, 0] > states[-1][:, 1]).mean()
        for states in (switch(seed, n, effects, raised)[0] for raised in (gene, None))
    ]
    return float(shares[0] - shares[1])


def screened(seed: int, n: int, n_null: int, method: str, extra: dict) -> pd.DataFrame:
    """Predicted and true shifts of all regulators and bystanders."""
    adata, effects = simulate(seed, n)
    wlm.tl.fit(adata, "day", method=method, rng=seed, show_progress=False, **extra)
    genes = [name for name in adata.var_names if name.startswith(("regulator", "bystander"))]
    table = wlm.tl.perturb(
        adata,
        [{gene: "up"} for gene in genes],
        **{"at": 0, "times": DAYS - 1, "label_key": "fate", "n_cells": 300, "n_null": n_null},
        max_outside=1,
        show_progress=False,
        rng=seed,
    )
    rows = table[table["name"] == "A"].assign(seed=seed)
    rows["gene"] = rows["perturbation"].str.split().str[0]
    truth = {gene: true_shift(10**6 + seed, 20 * n, effects, k) for k, gene in enumerate(genes)}
    signs = dict(zip(genes, np.sign(effects), strict=True))
    return rows.assign(truth=rows["gene"].map(truth), sign=rows["gene"].map(signs))


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--cells", type=int, default=300, help="cells a day")
    p.add_argument("--method", help="flow by default, with --blood wlm")
    p.add_argument("--blood", action="store_true", help="blood cells in place of the simulation")
    arguments = p.parse_args()
    prepare()
    if arguments.blood:
        print(machine(), flush=True)
        extra = options(arguments.option)
        _perturb_blood.main(arguments.seeds, arguments.method or "wlm", extra, quick=arguments.quick)
        return
    method = arguments.method or "flow"
    seeds, n, n_null = (1, 80, 3) if arguments.quick else (arguments.seeds, arguments.cells, 19)
    print(machine(), flush=True)
    began = time.perf_counter()
    found = []
    for seed in range(seeds):
        found.append(screened(seed, n, n_null, method, options(arguments.option)))
        print(f"seed {seed}: {time.perf_counter() - began:.0f} s", flush=True)
    table = pd.concat(found)
    regulators, bystanders = table[table["sign"] != 0], table[table["sign"] == 0]
    beyond = bystanders["p"] <= 0.05 + 1e-9
    print(f"\n{method}, {n} cells a day, {seeds} seed(s), {n_null} random genes for each")
    right = np.sign(regulators["effect"]) == regulators["sign"]
    sizes = regulators["effect"].abs().mean(), regulators["truth"].abs().mean()
    print(f"regulators: sign right for {right.mean():.1%} of {len(regulators)}")
    print(f"  mean size of the shift {sizes[0]:.3f}, true {sizes[1]:.3f}")
    print(f"  correlation with the truth {np.corrcoef(regulators['effect'], regulators['truth'])[0, 1]:.2f}")
    print(f"bystanders: nothing beyond the null for {1 - beyond.mean():.1%} of {len(bystanders)}")
    print(f"  mean size of the shift {bystanders['effect'].abs().mean():.3f}")


if __name__ == "__main__":
    main()
