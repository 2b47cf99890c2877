"""A paragraph for the Methods of a paper, with citations, versions and seeds, and the call."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pandas as pd

from wlm._report.blocks import Code, Listing, Table, Words
from wlm._report.subject import Subject
from wlm._report.words import objects
from wlm._store.words import constants, number, several
from wlm._version import __version__

#: Packages that numbers of a fit or of this report depend on.
PACKAGES = ("numpy", "scipy", "torch", "pot", "geomloss", "scikit-learn", "pandas", "anndata", "scanpy", "matplotlib")


def methods(s: Subject) -> list[Any]:
    """The paragraph, the papers, what to call again, and the versions."""
    own = f"wlm {__version__}: population mechanics for time-labelled single cells (software, BSD-3-Clause)."
    papers = [own, *type(s.fit.dynamics.method).papers]
    made = str(s.fit.uns["version"])
    rows = [("wlm, of the fit", made), ("wlm, of this report", __version__), ("Python", platform.python_version())]
    rows += [(name, _installed(name)) for name in PACKAGES]
    options = s.fit.dynamics.method.options()
    settings = pd.DataFrame(
        [(name, repr(value)) for name, value in {**_params(s), **options}.items()], columns=["setting", "value"]
    )
    return [
        Words(_paragraph(s)),
        Words("To cite:"),
        Listing(papers, ordered=True),
        Words("The same fit again:"),
        Code(call(s)),
        Table(settings, "settings", "Settings of the fit: arguments, and options that are not the defaults", rows=40),
        Table(
            pd.DataFrame(rows, columns=["package", "version"]),
            "versions",
            "Versions, when this report was made",
            rows=20,
        ),
    ]


def _paragraph(s: Subject) -> str:
    fit, params = s.fit, s.fit.uns["params"]
    method = fit.dynamics.method
    counts = {f"{t:g}": int((s.times == t).sum()) for t in fit.observed}
    held = [f"{t:g}" for t in fit.observed if t not in fit.training]
    account = type(method).account or f"the method {method.name!r}"
    text = [
        f"Population dynamics were learned with wlm {fit.uns['version']} (method {method.name!r}), {account}.",
        f"Input were {sum(counts.values()):,} cells at {len(counts)} times ({fit.time_key} "
        f"{several((f'{t}: {n:,}' for t, n in counts.items()), 60)} cells) in {fit.n_dims} dimensions of {fit.use_rep}"
        + (f", with velocities {params['velocity_key']!r}." if params.get("velocity_key") else ", without velocities."),
    ]
    if held:
        text.append(f"Held out of training: {fit.time_key} {several(held)}.")
    models = 1 + len(fit.others)
    text.append(
        f"{'An ensemble of ' + str(models) + ' models was' if models > 1 else 'One model was'} trained for "
        f"{params.get('stopped', method.n_steps)} steps (seed {fit.seed}, {params.get('device', 'cpu')}), with the "
        + ("default options." if not method.options() else f"options {_options(method.options())}, else the defaults.")
    )
    numbers = [f"{name} was {number(value)} {unit}" for name, value, unit in constants(fit)]
    if numbers:
        text.append(f"The learned {several(numbers)}.")
    if "words" in fit.uns.get("forecast", {}):
        text.append(f"By a back-test on the last training time, {fit.uns['forecast']['words']}.")
    text.append(
        "Transport is balanced: cells move, and none are made or lost."
        if not fit.dynamics.grows
        else "Cells multiply at learned net rates."
    )
    return " ".join(text)


def _options(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options.items())


def _params(s: Subject) -> dict[str, Any]:
    """The arguments of the fit that were stored."""
    stored = {name: value for name, value in s.fit.uns["params"].items() if name != "condition"}
    if s.fit.condition is not None:
        stored |= {"condition_key": s.fit.condition["key"], "condition": s.fit.condition["value"]}
    return {"time_key": s.fit.time_key} | {name: _plain(value) for name, value in sorted(stored.items())}


def call(s: Subject) -> str:
    """The call that makes this fit."""
    fit, params = s.fit, s.fit.uns["params"]
    arguments: dict[str, Any] = {"method": fit.dynamics.method.name, "use_rep": fit.use_rep}
    arguments |= {name: _plain(value) for name, value in fit.reading.params().items() if value is not None}
    arguments.pop("time_key", None)
    if arguments.get("nan") == "raise":
        arguments.pop("nan")
    held = [float(t) for t in fit.observed if t not in fit.training]
    arguments |= {"holdout": held} if held else {}
    arguments |= {"n_models": int(params["n_models"])} if "n_models" in params else {}
    arguments |= fit.dynamics.method.options()
    arguments["rng"] = fit.seed
    if fit.condition is not None:
        arguments["condition_key"] = str(fit.condition["key"])
    if fit.group != "wlm":
        arguments["key_added"] = fit.group
    written = "".join(f", {name}={value!r}" for name, value in arguments.items())
    return f"wlm.tl.fit({objects(s)}, {fit.time_key!r}{written})"


def _plain(value: Any) -> Any:
    """Numbers of numpy as those of Python, arrays as lists."""
    return value.tolist() if hasattr(value, "tolist") else value


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
