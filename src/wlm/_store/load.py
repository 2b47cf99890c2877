"""A fit out of a file, without the cells that it was made on."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from wlm._store.fit import read_fit
from wlm.core.dynamics import Dynamics


def load(path: str | os.PathLike[str], *, key: str = "wlm", mod: str | None = None) -> Dynamics:
    """Read the dynamics of a fit from a file that :func:`wlm.tl.fit` wrote its object to; nothing else is read.

    Parameters
    ----------
    path
        A ``.h5ad``, ``.h5mu`` or ``.zarr``.
    key
        Name of the fit; of fits by condition, the key of one.
    mod
        Modality of a MuData that was fitted; without it, the fit of its joint representation.

    Returns
    -------
    The first model of the fit, which moves any cells given as arrays in the units of its representation: see
    :meth:`~wlm.core.dynamics.Dynamics.simulate`, ``energy``, ``force`` and ``rates``. No code in the file is executed.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    KeyError
        If it has no fit of this name.
    ValueError
        If it is no such file, or the fit in it is damaged, of a newer format, or stored without its model.

    Examples
    --------
    >>> import wlm
    >>> adata = wlm.datasets.gradient_flow_sde(n_cells=50, n_times=3)
    >>> wlm.tl.fit(adata, "time", use_rep="X_position", n_steps=5, show_progress=False)
    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     adata.write_h5ad(pathlib.Path(folder, "cells.h5ad"))
    ...     dynamics = wlm.load(pathlib.Path(folder, "cells.h5ad"))
    >>> dynamics.energy(adata.obsm["X_position"], 0.0).shape
    (150,)
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no {str(path)!r}")
    kind = path.suffix.lower()
    if kind not in (".h5ad", ".h5mu", ".zarr"):
        raise ValueError(f"path must end in .h5ad, .h5mu or .zarr, found {str(path)!r}")
    where = f"uns/{key}" if mod is None else f"mod/{mod}/uns/{key}"
    try:
        uns = _read(path, kind, where)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error}") from error
    if uns is None:
        raise KeyError(f"{where!r} is missing in {str(path)!r}; write an object there that wlm.tl.fit has fitted")
    return read_fit(SimpleNamespace(uns={key: uns}), key).dynamics


def _read(path: Path, kind: str, where: str) -> Any:
    """What an open file holds there, or None."""
    from anndata.io import read_elem

    if kind == ".zarr":
        import zarr

        group = zarr.open_group(path, mode="r")
        return read_elem(group[where]) if where in group else None
    import h5py

    with h5py.File(path, "r") as file:
        return read_elem(file[where]) if where in file else None
