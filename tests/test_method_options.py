"""What the page of ``wlm.tl.fit`` says of the options of the methods."""

import dataclasses
import importlib.util
from pathlib import Path

import pytest

from wlm.core.methods import METHODS

SPEC = importlib.util.spec_from_file_location(
    "method_options", Path(__file__).parents[1] / "docs" / "method_options.py"
)
method_options = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(method_options)


@pytest.mark.parametrize(
    "name", sorted(name for name, method in METHODS.items() if method.__module__.startswith("wlm."))
)
def test_every_option_of_every_method_has_a_type_a_default_and_a_meaning(name):
    rows = method_options.options(METHODS[name])
    assert [row[0] for row in rows] == [field.name for field in dataclasses.fields(METHODS[name])]
    for option, kind, default, meaning in rows:
        assert kind and default != "required" and len(" ".join(meaning)) > 8, (name, option)


def test_options_are_those_of_the_code():
    rows = {row[0]: row for row in method_options.options(METHODS["wlm"])}
    _, kind, default, meaning = rows["n_steps"]
    assert (kind, default) == ("int", str(METHODS["wlm"]().n_steps)) and meaning[0].startswith("Training steps")
    assert rows["friction"][1:3] == ("float | None", "None")
    assert rows["p"][3] == rows["blur"][3], "they share an entry"


def test_the_page_of_fit_has_the_options_of_each_method():
    lines = []
    method_options.add(None, "function", "wlm.tl.predict", None, None, lines)
    assert lines == []
    method_options.add(None, "function", "wlm.tl.fit", None, None, lines)
    for name in METHODS:
        assert any(line.startswith(f".. dropdown:: Options of {name}") for line in lines)
    place = lines.index(f"   **n_steps** : ``int`` = ``{METHODS['wlm']().n_steps}``")
    assert lines[place + 1].startswith("      Training steps")
