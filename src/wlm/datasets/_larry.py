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


def _shared(path: Path) -> bytes:
    """What all files of the 781 cells have in common, as bytes: all but the clones, of which some have half."""
    adata = ad.read_h5ad(path)
    x = sparse.csr_matrix(adata.X)
    x.eliminate_zeros()
    x.sort_indices()
    names = (adata.var_names, adata.obs["time_info"], adata.obs["state_info"])
    numbers = ((x.data, "<f4"), (x.indices, "<i4"), (x.indptr, "<i4"), (adata.obsm["X_emb"], "<f4"))
    return b"".join(
        [
            *("\n".join(column.astype(str)).encode() for column in names),
            *(np.ascontiguousarray(values, dtype=kind).tobytes() for values, kind in numbers),
        ]
    )


_SMALL = Source(
    "larry_clones.h5ad",
    "https://raw.githubusercontent.com/AllonKleinLab/cospar/aaabd04e4790a85357695c4f8ac3fbf3a26374f8/"
    "tests/data/test_adata_preprocessed.h5ad",
    sha256="8832557b4b515b37f6596fb1ba8ded36f3503040db982e8141f4cad09619539d",
    contents=_shared,
)


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


def larry_clones() -> ad.AnnData:
    """Of those blood cells 781 with genes, all with a lineage barcode, on days 2, 4 and 6 (34, 316 and 431 cells).

    Weinreb et al. 2020, as chosen and prepared for the tests of CoSpar (Wang et al. 2022, MIT), from the repository of
    CoSpar on first use: less than a megabyte, for tutorials and tests. These are cells of a few hundred clones and no
    random sample of the culture, so shares of cell types are not those of :func:`larry`.

    Returns
    -------
    AnnData of shape (781, 2481):

    ``X``
        float32, sparse: counts, normalised to 10,000 a cell over these genes; not logarithms.
    ``obs["day"]``
        2, 4 or 6.
    ``obs["cell_type"]``
        ``"undiff"`` or one of eleven mature types, some of two or three cells.
    ``obsm["X_spring"]``
        float32 (n, 2), the authors' map, laid out with all days in view: scores on it are optimistic.
    ``obsm["X_clone"]``
        Sparse (n, n_clones): whether a cell is of a clone. The file of CoSpar has 339 clones. A file
        ``larry_clones.h5ad`` in the cache folder may have fewer: that of wlm's own tests has 169, as the others are
        kept apart to score by, and 355 of its cells are of none.

    Raises
    ------
    ConnectionError
        If the file cannot be downloaded; the message names the folder to put it into.
    ValueError
        If the file has other cells, genes, expression, days, types or positions on the map. Its clones are not checked.
    """
    given = ad.read_h5ad(fetch(_SMALL))
    obs = pd.DataFrame(
        {
            "day": given.obs["time_info"].astype(str).astype(float).to_numpy(),
            "cell_type": pd.Categorical(given.obs["state_info"].astype(str)),
        },
        index=[f"cell{name}" for name in given.obs_names],
    )
    return ad.AnnData(
        X=sparse.csr_matrix(given.X, dtype=np.float32),
        obs=obs,
        var=pd.DataFrame(index=given.var_names.astype(str)),
        obsm={
            "X_spring": np.asarray(given.obsm["X_emb"], dtype=np.float32),
            "X_clone": sparse.csr_matrix(given.obsm["X_clone"], dtype=np.float32),
        },
    )


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
