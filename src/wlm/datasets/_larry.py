"""Blood progenitors with lineage barcodes, whose sisters are the truth of fates."""

from __future__ import annotations

import gzip
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from wlm.datasets._fetch import Source, cache_folder, fetch

_HOME = "https://kleintools.hms.harvard.edu/paper_websites/state_fate2020/"
_METADATA, _CLONES, _COUNTS, _GENES = (
    Source(f"stateFate_inVitro_{name}.gz", f"{_HOME}stateFate_inVitro_{name}.gz", gzipped=True)
    for name in ("metadata.txt", "clone_matrix.mtx", "normed_counts.mtx", "gene_names.txt")
)
#: Columns of the authors' table, and what they are called here.
_COLUMNS = {
    "Time point": "day",
    "Cell type annotation": "cell_type",
    "Starting population": "population",
    "Well": "well",
    "Library": "library",
}
_MAP = ["SPRING-x", "SPRING-y"]


def larry(*, genes: bool = True) -> ad.AnnData:
    """Mouse blood progenitors in culture with lineage barcodes: 130,887 cells on days 2, 4 and 6.

    Weinreb et al. 2020 (Science 367, eaaw3381), the experiment *in vitro*, from the authors' page on first use. Clones
    tell the fate of a cell by its sisters: see :func:`wlm.tl.evaluate_clones`.

    Parameters
    ----------
    genes
        With the expression of all genes: about a gigabyte to download, and several of memory while it is read for the
        first time (the cache then holds it as ``larry.h5ad``). Otherwise the table of cells, the map and the clones.

    Returns
    -------
    AnnData of shape (130887, 25289), or (130887, 0):

    ``X``
        float32, sparse: counts, normalised to equal totals by the authors.
    ``obs["day"]``
        2, 4 or 6.
    ``obs["cell_type"]``
        ``"undiff"`` or one of ten mature types.
    ``obs["population"]``, ``obs["well"]``, ``obs["library"]``
        The sorted population (LSK or LK), the set of wells (0 on day 2), the sequencing library.
    ``obsm["X_spring"]``
        float32 (n, 2), the authors' map. It was laid out with all days in view: scores on it are optimistic.
    ``obsm["X_clone"]``
        Sparse (n, n_clones): whether a cell is of a clone. Most cells of day 2 are of none.

    Raises
    ------
    ConnectionError
        If a file cannot be downloaded; the message names the folder to put it into.
    ValueError
        If a file is damaged, or the files are not of the same cells.
    """
    kept = cache_folder() / "larry.h5ad"
    if genes and kept.exists():
        return ad.read_h5ad(kept)
    table = pd.read_csv(fetch(_METADATA), sep="\t")
    missing = [c for c in (*_COLUMNS, *_MAP, "Cell barcode") if c not in table.columns]
    if missing:
        raise ValueError(
            f"{_METADATA.name} has no columns {missing}, found {list(table.columns)}; delete it, call again"
        )
    obs = table[list(_COLUMNS)].rename(columns=_COLUMNS)
    obs["day"] = obs["day"].astype(float)
    for column in ("cell_type", "population", "well", "library"):
        obs[column] = pd.Categorical(obs[column].astype(str))
    # A barcode is that of a droplet: libraries share some.
    obs.index = pd.Index(table["Library"].astype(str) + "_" + table["Cell barcode"].astype(str))
    if not obs.index.is_unique:
        obs.index = obs.index + "_" + pd.Index([str(i) for i in range(len(obs))])
    adata = ad.AnnData(
        X=_matrix(fetch(_COUNTS), len(obs)).astype(np.float32) if genes else None,
        obs=obs,
        var=pd.DataFrame(index=ad.utils.make_index_unique(pd.Index(_lines(fetch(_GENES))))) if genes else None,
        obsm={
            "X_spring": table[_MAP].to_numpy(np.float32),
            "X_clone": _matrix(fetch(_CLONES), len(obs)).astype(np.float32),
        },
    )
    if genes:
        part = kept.with_suffix(".part")
        adata.write_h5ad(part)
        part.replace(kept)
    return adata


def _matrix(path: Path, n: int) -> sparse.csr_matrix:
    """The sparse matrix (n, m) at ``path``, a row for each cell."""
    from scipy.io import mmread

    found = sparse.csr_matrix(mmread(path))
    if found.shape[0] != n:
        raise ValueError(f"{path} has {found.shape[0]} rows, and there are {n} cells; delete it and call again")
    return found


def _lines(path: Path) -> list[str]:
    with gzip.open(path, "rt") as file:
        return file.read().split()
