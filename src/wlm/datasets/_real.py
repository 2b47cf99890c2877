"""Real data of others as AnnData."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd

from wlm.datasets._fetch import Source, cached, fetch

_EB_FULL = Source(
    "eb_velocity_v5.npz",
    "https://raw.githubusercontent.com/KrishnaswamyLab/TrajectoryNet/master/data/eb_velocity_v5.npz",
    git_sha1="06b92296690840bb4c146085b6cd18ad89667c74",
)
_EB_TABLE = Source("eb5.npz", None, sha256="b5ec03f337d7848afc356f2650fb0c54672fed0c846295969d37ccacc097504d")
_EMT = Source(
    "emt.csv",
    "https://raw.githubusercontent.com/zhenyiizhang/DeepRUOTv2/a47fcb035c76f1aaaec41b3d9a7ccce1638a360a/data/emt.csv",
    sha256="820eca0ca6a9b8c5aba970dda04052b2e2ea4489b712b948559fe5cd185a8294",
)
_VORTEX = Source("vortex_small.npz", None, sha256="30168f54f8eb2ea59f23f28adf01e71917491dceffd61106801a493a2c23e0ce")
_EB_DAYS = ("0-3", "6-9", "12-15", "18-21", "24-27")


def embryoid_body(*, full: bool = False) -> ad.AnnData:
    """Human embryoid bodies over 27 days: 16,819 cells in five samples.

    Moon et al. 2019 (Mendeley Data ``v6n743h5ng``), with the principal components and RNA velocities of
    Tong et al. 2020 (TrajectoryNet), downloaded from there on first use.

    Parameters
    ----------
    full
        All 100 principal components, the RNA velocities and the PHATE embedding; else the usual table
        of five components, which is also read from a file ``eb5.npz`` in the cache folder.

    Returns
    -------
    AnnData of shape (16819, 0):

    ``obsm["X_pca"]``
        float32, (n, 5) or (n, 100), each component scaled to mean 0 and variance 1 over all cells.
    ``obsm["velocity_pca"]``, ``obsm["X_phate"]``
        With ``full=True``: velocities divided by the same scale, shape (n, 100), and PHATE coordinates.
    ``obs["time"]``, ``obs["days"]``
        Number of the sample 0-4, and the days it spans.
    """
    path = None if full else cached(_EB_TABLE)
    with np.load(path or fetch(_EB_FULL)) as data:
        labels = data["sample_labels"].astype(int)
        pcs = data["pcs"].astype(np.float64)
        delta = data["pcs_delta"].astype(np.float64) if full else None
        phate = data["phate"].astype(np.float32) if full else None
    if not full:
        pcs = pcs[:, :5]
    scale = pcs.std(axis=0)
    obsm = {"X_pca": ((pcs - pcs.mean(axis=0)) / scale).astype(np.float32)}
    if delta is not None and phate is not None:
        obsm["velocity_pca"] = (delta / scale).astype(np.float32)
        obsm["X_phate"] = phate
    obs = pd.DataFrame(
        {"time": labels.astype(float), "days": pd.Categorical.from_codes(labels, list(_EB_DAYS), ordered=True)},
        index=[f"cell{i}" for i in range(len(labels))],
    )
    return ad.AnnData(obs=obs, obsm=obsm)


def emt() -> ad.AnnData:
    """Epithelial-mesenchymal transition: 3,133 A549 cells under TGF-beta at four times.

    Cook and Vanderhyden 2020, in the ten latent dimensions prepared by Sha et al. 2024; downloaded on
    first use.

    Returns
    -------
    AnnData of shape (3133, 0) with ``obsm["X_latent"]``, float32 (n, 10), and ``obs["time"]``, the number
    of the sample 0-3.
    """
    table = pd.read_csv(fetch(_EMT))
    obs = pd.DataFrame({"time": table["samples"].to_numpy(float)}, index=[f"cell{i}" for i in range(len(table))])
    latent = table.drop(columns="samples").to_numpy(np.float32)
    return ad.AnnData(obs=obs, obsm={"X_latent": latent})


def vortex() -> ad.AnnData:
    """Particles in a vortex of the Gulf of Mexico: 111 at nine times, with their velocities.

    HYCOM reanalysis (public domain) as prepared by Petrović et al. 2025. The prepared file has no public
    address of its own; it is read from the cache folder (``vortex_small.npz``).

    Returns
    -------
    AnnData of shape (999, 0) with ``obsm["X_position"]`` and ``obsm["velocity"]``, float32 (n, 2), and
    ``obs["time"]`` 0-8.
    """
    with np.load(fetch(_VORTEX)) as data:
        positions, velocities = data["positions"], data["velocities"]
    n_times, n = positions.shape[:2]
    obs = pd.DataFrame(
        {"time": np.repeat(np.arange(float(n_times)), n)},
        index=[f"t{t}_{i}" for t in range(n_times) for i in range(n)],
    )
    return ad.AnnData(
        obs=obs,
        obsm={
            "X_position": positions.reshape(-1, 2).astype(np.float32),
            "velocity": velocities.reshape(-1, 2).astype(np.float32),
        },
    )
