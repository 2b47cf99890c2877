"""Are the numbers of the reference fits those of another commit, bit for bit?

``make unchanged REF=commit`` runs the same fits on both sources, one after the other on this machine with one thread
(stored numbers would differ between processors), and compares every array that they store or predict. A fit with
weights is compared up to rounding: what the weights are multiplied with may change its order.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
SMALL = {"batch_size": 64, "show_progress": False}
#: Where velocities come from by default has changed by intention.
LEARNED = {"initial_velocity": "learned"}
#: What differs between runs, or between versions by intention.
IGNORED = ("seconds", "version", "format", "checksum", "config", "params", "threads", "spec")
#: Relative difference that a fit with weights may have.
ROUNDING = 1e-3


def cells(n: int, rng: int) -> Any:
    """Simulated cells with principal components, made without a random solver."""
    import wlm

    adata = wlm.datasets.bifurcation(n, n_genes=40, rng=rng)
    x = np.log1p(np.asarray(adata.X.todense() if hasattr(adata.X, "todense") else adata.X, dtype=np.float64))
    x = x - x.mean(0)
    adata.obsm["X_pca"] = (x @ np.linalg.svd(x, full_matrices=False)[2][:5].T).astype(np.float32)
    adata.obs["weight"] = np.random.default_rng(rng).uniform(0.5, 2, adata.n_obs)
    adata.obs["half"] = np.where(np.arange(adata.n_obs) % 2 == 0, "a", "b")
    return adata


def fits() -> Iterator[tuple[str, Any]]:
    """The reference fits: name and what they leave behind."""
    import wlm

    base = cells(80, 1)

    def fitted(adata: Any, key: str, ask: float, **options: Any) -> Any:
        adata = adata.copy()
        wlm.tl.fit(adata, key, **{**SMALL, **options})
        predicted = wlm.tl.predict(adata, [ask], rng=3)
        return {"fit": kept(adata), "predicted": kept(predicted)}

    yield "mechanics", fitted(base, "day", 1.5, n_steps=60, **LEARNED)
    birds = wlm.datasets.boids(80, n_times=5)
    velocity = next(k for k in birds.obsm if "velocity" in k)
    position = next(k for k in birds.obsm if "position" in k)
    ask = float(np.unique(birds.obs["time"])[1:3].mean())
    yield (
        "mechanics with velocities",
        fitted(birds, "time", ask, use_rep=position, velocity_key=velocity, n_steps=60, time_features=True, p=1),
    )
    yield (
        "ensemble of mechanics, a time held out, two conditions",
        fitted(base, "day", 2.0, n_steps=25, n_models=2, holdout=2, condition_key="half", n_inducing=0, **LEARNED),
    )
    yield "gradient flow", fitted(base, "day", 1.5, n_steps=80, method="ijkonet", energy="V+W+U")
    yield "regression", fitted(base, "day", 1.5, n_steps=80, method="jkonet_star", energy="V+W")
    table = wlm.tl.evaluate(
        base, "day", method={"wlm": {"n_steps": 20, **LEARNED}, "ijkonet": {"n_steps": 40}}, n_boot=20
    )
    # Naive answers that only one of the two knows are no difference.
    table = table[table["model"].isin(["wlm", "ijkonet", "previous", "next", "ot_midpoint", "floor"])]
    yield "scores", {"table": {k: table[k].to_numpy() for k in ("time", "w1", "w2", "mmd", "n_predicted")}}
    yield "weights (up to rounding)", fitted(base, "day", 1.5, n_steps=8, weight_key="weight", **LEARNED)


def kept(adata: Any) -> dict[str, Any]:
    """Everything numeric that wlm has written."""
    return {
        "uns": {k: v for k, v in adata.uns.items() if k.startswith("wlm")},
        "obs": {k: adata.obs[k].to_numpy() for k in adata.obs if k.startswith("wlm")},
        "obsm": {k: adata.obsm[k] for k in adata.obsm},
    }


def flat(tree: Any, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """Arrays of numbers in a tree, by path."""
    if isinstance(tree, Mapping):
        for k, v in tree.items():
            if k not in IGNORED:
                yield from flat(v, f"{name}|{k}")
    else:
        array = np.asarray(tree)
        if array.dtype.kind in "biuf":
            yield name, array


def run(out: Path) -> None:
    """Make the reference fits with the wlm that is on the path, and write their numbers."""
    import torch

    torch.set_num_threads(1)
    arrays: dict[str, np.ndarray] = {}
    for name, tree in fits():
        arrays |= dict(flat(tree, name))
    np.savez(out, **arrays)


def compare(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> list[str]:
    """What differs, in words; what only one of the two stores is no difference of numbers, and is listed apart."""
    found = []
    for name in sorted(set(ours) & set(theirs)):
        a, b = ours[name], theirs[name]
        if a.shape != b.shape:
            found.append(f"{name}: shape {a.shape}, was {b.shape}")
        elif name.startswith("weights") and "|weights|" in name:
            continue  # parameters whose gradient is rounding walk where they like
        elif name.startswith("weights") and a.dtype.kind == "f":
            scale = max(float(np.nanmax(np.abs(b), initial=0)), 1e-30)
            if not np.allclose(a, b, rtol=0, atol=ROUNDING * scale, equal_nan=True):
                found.append(f"{name}: differs by {np.nanmax(np.abs(a - b)) / scale:.1e} of its size")
        elif not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            found.append(f"{name}: differs by up to {np.nanmax(np.abs(np.subtract(a, b, dtype=float))):.2e}")
    return found


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("ref", nargs="?", default="HEAD", help="commit to compare with")
    p.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    arguments = p.parse_args()
    if arguments.run is not None:
        run(arguments.run)
        return 0
    results = []
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder, "other")
        subprocess.run(["git", "worktree", "add", "--detach", "--quiet", other, arguments.ref], cwd=ROOT, check=True)
        try:
            for source in (ROOT, other):
                out = Path(folder, "numbers.npz")
                environment = {**os.environ, "PYTHONPATH": str(source / "src")}
                environment |= dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
                subprocess.run([sys.executable, __file__, "--run", out], env=environment, check=True, cwd=folder)
                with np.load(out) as file:
                    results.append(dict(file))
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", other], cwd=ROOT, check=True)
    ours, theirs = results
    found = compare(ours, theirs)
    for name in sorted(set(ours) ^ set(theirs)):
        print(f"only {'here' if name in ours else 'there'}: {name}")
    print("\n".join(found) if found else f"unchanged: {len(set(ours) & set(theirs))} arrays of the reference fits")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
