"""Tables of verbs, read from the files that the command line writes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd


def read_table(path: str | os.PathLike[Any]) -> pd.DataFrame:
    """A table in a ``.json``, ``.csv`` or ``.tsv``; what else a ``.json`` holds, such as the verdict, is in ``attrs``.

    Raises
    ------
    FileNotFoundError, ValueError, TypeError
        If there is none, or it is no such file.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"a table must be a DataFrame or the path of one, found {type(path).__name__}")
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (".csv", ".tsv", ".json"):
        raise ValueError(f"a table must end in .csv, .tsv or .json, found {str(path)!r}")
    if not path.exists():
        raise FileNotFoundError(f"there is no {str(path)!r}")
    try:
        if kind != ".json":
            table = pd.read_csv(path, sep="\t" if kind == ".tsv" else ",", keep_default_na=True)
        else:
            found = json.loads(path.read_text(encoding="utf-8"))
            table = pd.DataFrame(found.pop("rows"))
            table.attrs |= found
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{str(path)!r} is no table that wlm wrote: {error}") from error
    for name in {"name", "role", "condition"} & set(table.columns):  # empty text, which files cannot tell from nothing
        table[name] = table[name].fillna("")
    return table
