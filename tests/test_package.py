"""The package as a whole: lazy import, the core on its own, signatures, docstrings, nothing unsafe."""

import ast
import doctest
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import wlm

SOURCE = Path(wlm.__file__).parent
PUBLIC = [(module, name) for module in ("pp", "tl", "pl", "datasets") for name in getattr(wlm, module).__all__]


@pytest.mark.slow
def test_import_is_lazy_and_the_core_needs_torch_and_numpy_only():
    blocked = [
        "anndata",
        "scanpy",
        "pandas",
        "matplotlib",
        "scipy",
        "ot",
        "geomloss",
        "tqdm",
        "pooch",
        "joblib",
        "sklearn",
    ]
    code = f"""
import sys
import wlm
assert "torch" not in sys.modules and "anndata" not in sys.modules
for name in {blocked}:
    sys.modules[name] = None
import numpy as np
from wlm.core.methods import METHODS
from wlm.core.populations import Populations
from wlm.core.training import train
rng = np.random.default_rng(0)
cells = tuple(rng.normal(size=(20, 2)) + k for k in range(3))
fit = train(Populations(np.arange(3.0), cells), METHODS["wlm"](n_steps=2, width=8, heads=2))
x = fit.dynamics.simulate(rng.normal(size=(5, 2)), [0, 1])[0]
import wlm.core.prediction
assert x.shape == (2, 5, 2)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("module", "name"), PUBLIC)
def test_public_functions_are_documented_and_take_keywords(module, name):
    function = getattr(getattr(wlm, module), name)
    doc = inspect.getdoc(function)
    assert doc and "Returns" in doc
    parameters = inspect.signature(function).parameters
    for parameter in parameters:
        if parameter != "method_options":
            line = rf"^\s*(\*\*)?([\w*]+, )*(\*\*)?{parameter}(, [\w*]+)*$"
            assert re.search(line, doc, re.MULTILINE), f"{name}: {parameter} is not documented"
    if "adata" in parameters:
        positional = [p for p, q in parameters.items() if q.kind is q.POSITIONAL_OR_KEYWORD]
        assert positional in (
            ["adata"],
            ["adata", "time_key"],
            ["adata", "time_key", "condition_key"],
            ["adata", "times"],
            ["adata", "genes"],
            ["adata", "fate"],
            ["adata", "groupby"],
            ["adata", "label_key", "times"],
            ["adata", "fate"],
        )


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_docstring_examples_run(path):
    name = ".".join(("wlm", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
    module = __import__(name, fromlist=["_"])
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


def test_no_pickle_no_eval_and_no_assert():
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            assert not isinstance(node, ast.Assert), f"{path}: assert is no validation"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [a.name for a in node.names] + [getattr(node, "module", None) or ""]
                assert not any("pickle" in n for n in names), path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), path
