"""Shared cells. Real ones come from ``../shared/data`` or the folder in WLM_TEST_DATA."""

import os
import shutil
import tempfile

# One thread a worker, and the same numbers everywhere. numba, in scanpy's preprocessing, would set that of torch too.
os.environ["NUMBA_NUM_THREADS"] = "1"
# What torch compiles it caches without regard to the instruction set that this names, and would fail with another one.
if "ATEN_CPU_CAPABILITY" in os.environ:
    folder = os.path.join(tempfile.gettempdir(), f"torchinductor_{os.getuid()}_{os.environ['ATEN_CPU_CAPABILITY']}")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", folder)

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import matplotlib
import pytest
import scanpy as sc
import torch

import wlm

matplotlib.use("agg")
# More only to see that nothing depends on it: two test workers with two threads each wait for each other.
torch.set_num_threads(int(os.environ.get("WLM_TEST_THREADS", "1")))
os.environ["WLM_NUM_THREADS"] = os.environ.get("WLM_TEST_THREADS", "1")

REAL_DATA = Path(os.environ.get("WLM_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))

#: Options of a fit of a few steps: it is there, and no good.
QUICK = {
    "n_steps": 6,
    "backtest": False,
    "batch_size": 64,
    "width": 16,
    "hidden": 32,
    "n_inducing": 4,
    "show_progress": False,
}


def chromium() -> str | None:
    """Path of Chromium, if it is there."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


def scvelo_works() -> bool:
    """Whether scVelo is installed, and works: its last version, 0.3.4, fails with numpy 2.4 and with pandas 3."""
    if find_spec("scvelo") is None:
        return False
    numpy, pandas = (tuple(map(int, version(name).split(".")[:2])) for name in ("numpy", "pandas"))
    return numpy < (2, 4) and pandas < (3, 0)


def pytest_collection_modifyitems(config, items):
    """Deselect what this machine cannot run, and say so, instead of skipping test by test."""
    absent = set()
    if not REAL_DATA.exists():
        absent.add("shared")
    if not torch.cuda.is_available():
        absent.add("gpu")
    if not scvelo_works():
        absent.add("scvelo")
    if find_spec("playwright") is None or chromium() is None:
        absent.add("browser")
    if find_spec("cellrank") is None:
        absent.add("cellrank")
    dropped = [item for item in items if any(item.get_closest_marker(name) for name in absent)]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real cells."""
    return REAL_DATA


@pytest.fixture(scope="session")
def quick() -> dict:
    """Options of ``tl.fit`` for a training short enough to test everything but quality."""
    return dict(QUICK)


@pytest.fixture(scope="session")
def _bifurcation():
    adata = wlm.datasets.bifurcation(60, n_genes=40, rng=1)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=5)
    return adata


@pytest.fixture
def cells(_bifurcation):
    """60 cells on each of five days, with PCA; a fresh copy."""
    return _bifurcation.copy()


@pytest.fixture(scope="session")
def _fitted(_bifurcation):
    return wlm.tl.fit(_bifurcation, "day", holdout=2, copy=True, **{**QUICK, "n_steps": 15})


@pytest.fixture
def fitted(_fitted):
    """The same cells with a quick fit that has not seen day 2; a fresh copy."""
    return _fitted.copy()


@pytest.fixture(scope="session")
def _malformed_base():
    adata = wlm.datasets.bifurcation(12, n_genes=20, rng=2)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=5)
    return adata
