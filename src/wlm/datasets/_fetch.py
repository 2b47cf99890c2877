"""Files of others: fetched once from where their authors put them, verified, and kept in a cache folder."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pooch

from wlm._logging import logger


@dataclass(frozen=True)
class Source:
    """A file: its name in the cache, where it comes from, and its checksum (sha256, or git's blob SHA-1).

    Of a ``gzipped`` file whose authors publish none, the checksum inside counts: it tells a whole
    file from a damaged one. With ``contents``, the sha256 is that of what this function reads from the
    file, so that files that differ in the rest are the same.
    """

    name: str
    url: str | None
    sha256: str | None = None
    git_sha1: str | None = None
    gzipped: bool = False
    contents: Callable[[Path], bytes] | None = None

    def verify(self, path: Path) -> bool:
        """Whether the file at ``path`` is the one that is meant."""
        if self.gzipped:
            return _whole(path)
        try:
            data = path.read_bytes() if self.contents is None else self.contents(path)
        except (OSError, KeyError, ValueError):
            if self.contents is None:
                raise
            return False
        if self.sha256 is not None:
            return hashlib.sha256(data).hexdigest() == self.sha256
        # The object name git gives a file: what a repository's tree lists, so no second download is trusted.
        header = b"blob %d\0" % len(data)
        return hashlib.sha1(header + data, usedforsecurity=False).hexdigest() == self.git_sha1


def _whole(path: Path) -> bool:
    """Whether gzip reads the file to its end and finds its checksum there."""
    try:
        with gzip.open(path) as file:
            while file.read(1 << 20):
                pass
    except (OSError, EOFError, zlib.error):
        return False
    return True


def cache_folder() -> Path:
    """``WLM_DATA_DIR`` if set, else the user's cache folder."""
    return Path(os.environ.get("WLM_DATA_DIR") or pooch.os_cache("wlm"))


def cached(source: Source) -> Path | None:
    """The verified file in the cache, or None."""
    path = cache_folder() / source.name
    if not path.exists():
        return None
    if not source.verify(path):
        raise ValueError(f"{path} is not the expected file (its checksum differs); delete it and call again")
    return path


def fetch(source: Source) -> Path:
    """The file, from the cache or else downloaded and verified.

    Raises
    ------
    FileNotFoundError
        If it is not in the cache and has no public address of its own.
    ConnectionError
        If it cannot be downloaded.
    ValueError
        If what is in the cache, or was downloaded, is another file.
    """
    path = cached(source)
    if path is not None:
        return path
    folder = cache_folder()
    if source.url is None:
        raise FileNotFoundError(
            f"{source.name} has no public address of its own; put the file into {folder} "
            "(or the folder in WLM_DATA_DIR)"
        )
    folder.mkdir(parents=True, exist_ok=True)
    part = f"{source.name}.part-{os.getpid()}"
    logger.info("downloading %s to %s", source.url, folder)
    downloader = pooch.HTTPDownloader(timeout=60)
    try:
        # pooch knows no git checksums: the file is verified here, before it gets its name.
        got = Path(pooch.retrieve(source.url, known_hash=None, fname=part, path=folder, downloader=downloader))
    except OSError as error:
        raise ConnectionError(
            f"{source.url} could not be downloaded ({error}); "
            f"fetch it by other means and put it into {folder} as {source.name}"
        ) from error
    try:
        if not source.verify(got):
            raise ValueError(f"{source.url} is not the expected file (its checksum differs); it was not kept")
        got.replace(folder / source.name)
    finally:
        got.unlink(missing_ok=True)
    return folder / source.name
