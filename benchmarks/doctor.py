"""Time and memory of ``wlm doctor`` on 100,000 x 2,000 cells in a file: the target is 5 s and 500 MB.

Each figure is of a fresh process; what importing the libraries takes of it is measured by a process that does nothing
else. CPU is the time on the processor, which a busy machine does not stretch. Memory is the peak resident size.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from _report import machine, parser, prepare
from scipy import sparse

N_GENES, N_PCS, N_TIMES = 2000, 50, 5
# What the command imports, also inside its functions.
IMPORTS = "import anndata, h5py, torch, typer, wlm.cli, wlm.tl"
CHILD = """
import json, resource, sys, time
begin = time.perf_counter()
{imports}
imported = time.perf_counter()
{work}
cpu = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
try:  # getrusage would count the memory of the process that started this one
    kilobytes = float(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
except OSError:
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
out = {{"imports": imported - begin, "work": time.perf_counter() - imported, "MB": kilobytes / 1024, "cpu": cpu}}
print(json.dumps(out), file=sys.stderr)
"""


def write_cells(path: Path, n: int) -> None:
    """Sparse cells whose principal components fit their loadings, written in parts so that this stays small too."""
    rng = np.random.default_rng(0)
    loadings = np.linalg.qr(rng.normal(size=(N_GENES, N_PCS)))[0]
    parts = []
    for size in np.diff(np.linspace(0, n, 11).astype(int)):
        part = sparse.random(size, N_GENES, density=0.1, format="csr", dtype=np.float32, rng=rng)
        parts.append(part)
    x = sparse.vstack(parts, format="csr")
    scores = x @ loadings
    obs = pd.DataFrame(
        {"day": np.arange(n) * N_TIMES // n, "sample": pd.Categorical(rng.integers(0, 8, n).astype(str))},
        index=pd.RangeIndex(n).astype(str),
    )
    adata = ad.AnnData(
        x, obs=obs, obsm={"X_pca": (scores - scores.mean(axis=0)).astype(np.float32)}, varm={"PCs": loadings}
    )
    adata.write_h5ad(path)


def measure(work: str) -> dict[str, float]:
    """Seconds and peak memory of a fresh process."""
    code = CHILD.format(imports=IMPORTS, work=work)
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(child.stderr.splitlines()[-1])


def main() -> None:
    arguments = parser(__doc__).parse_args()
    prepare()
    n = 5_000 if arguments.quick else 100_000
    repeat = 1 if arguments.quick else 5
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.h5ad"
        write_cells(path, n)
        megabytes = path.stat().st_size / 1e6
        command = f"wlm.cli.app(['doctor', {str(path)!r}, '--device', 'cpu'], standalone_mode=False)"
        backed = f"wlm.pp.doctor(anndata.read_h5ad({str(path)!r}, backed='r'), device='cpu')"
        runs = {
            "imports alone": "pass",
            "wlm doctor FILE": command,
            "wlm.pp.doctor(backed object)": backed,
        }
        results = {name: pd.DataFrame([measure(work) for _ in range(repeat)]).median() for name, work in runs.items()}
    alone = results["imports alone"]["MB"]
    table = pd.DataFrame(
        {
            name: {
                "total, s": r["imports"] + r["work"],
                "imports, s": r["imports"],
                "work, s": r["work"],
                "CPU, s": r["cpu"],
                "peak, MB": r["MB"],
                "beyond imports, MB": r["MB"] - alone,
            }
            for name, r in results.items()
        }
    ).T
    print(f"doctor on {n:,} x {N_GENES:,} cells ({megabytes:.0f} MB on disk), medians of {repeat}\n{machine()}")
    print(table.to_string(float_format=lambda x: f"{x:.1f}"))


if __name__ == "__main__":
    main()
