"""The options of every method, with type, default and meaning, for the page of ``wlm.tl.fit`` (see conf.py).

They are read from the fields and the docstrings of the methods, so that the page never lags behind.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any

from wlm.core.methods import DEFAULT, METHODS

#: Whose page ends with the options.
PAGES = ("wlm.tl.fit",)


def meanings(method: type) -> dict[str, list[str]]:
    """What each option means, as lines, by the docstring of the method, or else of those that it inherits from."""
    found: dict[str, list[str]] = {}
    for owner in reversed(method.__mro__):
        if "__doc__" in vars(owner) and owner.__doc__:
            found |= dict(_parameters(inspect.cleandoc(owner.__doc__)))
    return found


def _parameters(doc: str) -> Iterator[tuple[str, list[str]]]:
    """Name and text of each entry of the section Parameters; names that share an entry have the same text."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\S[^\n]*\n-{3,}\n|\Z)", doc, re.DOTALL | re.MULTILINE)
    for entry in re.finditer(r"^(\S.*)\n((?:(?:[ ]{4}.*)?\n?)*)", section[1] if section else "", re.MULTILINE):
        lines = [line.strip() for line in entry[2].strip().splitlines()]
        for name in entry[1].split(","):
            yield name.strip(), lines


def options(method: type) -> list[tuple[str, str, str, list[str]]]:
    """Name, type, default and meaning of each option."""
    said = meanings(method)
    rows = []
    for field in dataclasses.fields(method):  # type: ignore[arg-type]
        default = "required" if field.default is dataclasses.MISSING else repr(field.default)
        rows.append((field.name, str(field.type), default, said.get(field.name, [])))
    return rows


def entries(name: str, method: type) -> list[str]:
    """The options of a method as lines of reStructuredText, folded unless it is the default method."""
    lines = [f".. dropdown:: Options of {name}{', the default method' if name == DEFAULT else ''}"]
    lines += ["   :open:", ""] if name == DEFAULT else [""]
    # A list and no table, whose columns are too narrow on a phone.
    for option, kind, default, meaning in options(method):
        lines += [f"   **{option}** : ``{kind}`` = ``{default}``", *(f"      {line}" for line in meaning), ""]
    return lines


def add(app: Any, what: str, name: str, obj: Any, own: Any, lines: list[str]) -> None:
    """Append the options of all methods to the page of a verb."""
    if name not in PAGES:
        return
    lines += [
        "",
        ".. rubric:: Options of the methods",
        "",
        "Pass them by name, as in ``n_steps=400``. Each has its type and its default.",
        "",
    ]
    for method in sorted(METHODS, key=lambda known: known != DEFAULT):
        lines += entries(method, METHODS[method])
