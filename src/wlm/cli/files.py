"""Files of the command line: reading whole or in part, and writing so that no half file is ever seen."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wlm._logging import logger
from wlm.cli.arguments import without_nan

if TYPE_CHECKING:
    import anndata as ad

OBJECTS = (".h5ad", ".zarr")
TABLES = (".csv", ".tsv", ".json")
FIGURES, FILMS, PAGES = (".png", ".svg", ".pdf"), (".gif", ".mp4"), (".html", ".htm")


def read(path: Path) -> ad.AnnData:
    """A whole object."""
    kind = _check_source(path)
    import anndata as ad

    with _readable(path):
        return ad.read_h5ad(path) if kind == ".h5ad" else ad.read_zarr(path)


@contextmanager
def opened(path: Path) -> Iterator[ad.AnnData]:
    """An object whose matrices, layers and graphs stay in the file until rows of them are read.

    ``read_h5ad(backed="r")`` leaves only ``X`` there, and there is no such thing for zarr.
    """
    kind = _check_source(path)
    import h5py

    if kind == ".h5ad":
        with _readable(path):
            file: Any = h5py.File(path, "r")
        with file:
            yield _unloaded(path, file)
    else:
        import zarr

        with _readable(path):
            file = zarr.open_group(path, mode="r")
        yield _unloaded(path, file)


class Notes(Mapping[str, Any]):
    """The entries of ``uns`` in an open file, read one by one."""

    def __init__(self, group: Any):
        self._group = group

    def __getitem__(self, key: str) -> Any:
        from anndata.io import read_elem

        return read_elem(self._group[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._group)

    def __len__(self) -> int:
        return len(self._group)

    def is_fit(self, key: str) -> bool:
        """Whether an entry is a fit, or the list of those of several conditions; nothing of it is read."""
        entry = self._group[key]
        names = set(entry) if hasattr(entry, "keys") else set()
        return {"format", "method", "time"} <= names or {"condition_key", "conditions"} <= names


@contextmanager
def read_notes(path: Path) -> Iterator[Notes]:
    """The ``uns`` of an object, of which nothing else is read."""
    kind = _check_source(path)
    if kind == ".h5ad":
        import h5py

        with _readable(path):
            file: Any = h5py.File(path, "r")
        with file:
            yield Notes(_uns(path, file))
    else:
        import zarr

        with _readable(path):
            file = zarr.open_group(path, mode="r")
        yield Notes(_uns(path, file))


def _uns(path: Path, file: Any) -> Any:
    if "obs" not in file or "var" not in file:
        raise ValueError(f"{str(path)!r} holds no AnnData: there is no obs or no var")
    return file["uns"] if "uns" in file else {}


def _unloaded(path: Path, file: Any) -> ad.AnnData:
    """The object in an open file, of which ``obs`` and ``var`` alone are loaded."""
    import anndata as ad
    from anndata.io import read_elem, sparse_dataset

    def element(name: str) -> Any:
        stored = file[name]
        encoding = stored.attrs.get("encoding-type", "array")
        if encoding in ("csr_matrix", "csc_matrix"):
            return sparse_dataset(stored)
        return stored if encoding == "array" else read_elem(stored)

    if "obs" not in file or "var" not in file:
        raise ValueError(f"{str(path)!r} holds no AnnData: there is no obs or no var")
    if "encoding-type" not in file["obs"].attrs:  # written by an anndata of before 2020
        return read(path)
    with _readable(path):
        slots = {
            slot: {key: element(f"{slot}/{key}") for key in file[slot]}
            for slot in ("obsm", "varm", "layers", "obsp")
            if slot in file
        }
        x = element("X") if "X" in file else None
        # Of uns only what says where velocities came from, and that X is logarithmic.
        notes = file["uns"] if "uns" in file else {}
        told = [k for k in notes if k in ("log1p", "PCs") or (hasattr(notes[k], "keys") and "vkey" in notes[k])]
        uns = {k: read_elem(file["uns"][k]) for k in told}
        return ad.AnnData(X=x, obs=read_elem(file["obs"]), var=read_elem(file["var"]), uns=uns, **slots)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Name the file in whatever a reader says of it."""
    try:
        yield
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as AnnData: {error}") from error


@contextmanager
def writing(path: Path | None, *, kinds: tuple[str, ...] = OBJECTS, force: bool) -> Iterator[Callable[[Any], None]]:
    """A function that writes an object or a table to ``path``; whether that is possible is checked now.

    What is neither is a function itself, of the path that it is to write to.

    It writes beside ``path`` and renames, so that ``path`` is never half a file and a failure leaves it as it was.
    """
    if path is None:
        yield lambda result: None
        return
    kind = _kind(path, kinds, "OUT")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder {str(folder)!r} of OUT does not exist")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"the folder {str(folder)!r} of OUT cannot be written to")
    if path.exists() and not force:
        raise FileExistsError(f"{str(path)!r} exists; give another OUT, or --force to overwrite it")
    if path.exists() and path.is_dir() != (kind == ".zarr"):
        raise FileExistsError(f"{str(path)!r} is {'a folder' if path.is_dir() else 'a file'}, which is not replaced")
    new, old = (folder / f".{path.stem}.{os.getpid()}.{name}{kind}" for name in ("new", "old"))

    def write(result: Any) -> None:
        if callable(result):  # it knows how to write itself
            result(new)
        elif kind == ".h5ad":
            result.write_h5ad(new)
        elif kind == ".zarr":
            result.write_zarr(new)
        elif kind == ".json":
            new.write_text(json.dumps(without_nan({"rows": result.to_dict("records"), **_plain(result.attrs)})))
        else:
            result.to_csv(new, index=False, sep="\t" if kind == ".tsv" else ",")
        if path.is_dir():  # a folder cannot be replaced in one go
            path.replace(old)
        new.replace(path)
        logger.info("wrote %s", path)

    try:
        yield write
    finally:
        if old.exists() and not path.exists():  # stopped between the two renames
            old.replace(path)
        for rest in (new, old):
            if rest.is_dir():
                shutil.rmtree(rest)
            rest.unlink(missing_ok=True)


def _plain(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """What tables say beside their rows, as far as it is plain."""
    found: dict[str, Any] = {}
    for name, value in attrs.items():
        try:
            found[str(name)] = json.loads(json.dumps(value))
        except (TypeError, ValueError):
            continue
    return found


def _check_source(path: Path) -> str:
    if path.suffix.lower() == ".loom":
        new = path.with_suffix(".h5ad")
        read = f"a = anndata.io.read_loom({str(path)!r}); a.var_names_make_unique(); a.write_h5ad({str(new)!r})"
        raise ValueError(
            f"IN must end in {' or '.join(OBJECTS)}, found {str(path)!r}; convert it, with pip install loompy: "
            f'python -c "import anndata; {read}"'
        )
    kind = _kind(path, OBJECTS, "IN")
    if not path.exists():
        raise FileNotFoundError(f"there is no {str(path)!r}")
    return kind


def _kind(path: Path, kinds: tuple[str, ...], name: str) -> str:
    kind = path.suffix.lower()
    if kind not in kinds:
        raise ValueError(f"{name} must end in {' or '.join(kinds)}, found {str(path)!r}")
    return kind
