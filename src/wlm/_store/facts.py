"""What a fit is, in a few plain facts and in words, from its entry of ``uns`` alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wlm._store.fit import parse_fit
from wlm._store.group import conditions
from wlm._store.words import constants, meets, number, several

#: What verbs add to a fit ``K`` as ``K_<name>`` in ``uns``, and what that is.
RESULTS = {"diagnosis": "a diagnosis", "terminal": "terminal states", "fates": "fates", "transitions": "transitions"}


def facts(key: str, uns: Mapping[str, Any], others: Sequence[str] = ()) -> dict[str, Any]:
    """What ``uns[key]`` holds, as plain values; ``others`` are all keys of ``uns``.

    ``error`` is None, or says why nothing can be predicted from it: it is damaged, of a newer wlm, or without its
    model. A list of fits by condition has ``conditions`` in place of the rest.
    """
    several_fits = conditions(uns)
    if several_fits:
        return {"key": key, "condition_key": str(uns["condition_key"]), "conditions": several_fits}
    found: dict[str, Any] = {"key": key, "version": str(uns.get("version", "?")), "error": None}
    try:
        time, rep, params = uns["time"], uns["representation"], uns["params"]
        held = np.asarray(time["holdout"], dtype=float)
        observed = np.asarray(time["values"], dtype=float)
        found |= {
            "method": str(uns["method"]),
            "time_key": str(time["key"]),
            "unit": str(time["unit"]),
            "training": observed[~np.isin(observed, held)].tolist(),
            "held_out": held.tolist(),
            "cells": int(rep["n_obs"]) if "n_obs" in rep else None,
            "use_rep": str(rep["key"]),
            "dimensions": int(rep["n_dims"]),
            "velocity_key": params.get("velocity_key"),
            "condition": str(params["condition"]["value"]) if "condition" in params else None,
            "seed": int(params["seed"]),
            "models": int(params.get("n_models", 1)),
            "seconds": float(params["seconds"]) if "seconds" in params else None,
            "device": params.get("device"),
            "results": [name for name in RESULTS if f"{key}_{name}" in others],
        }
        fit = parse_fit(key, uns)
    except (KeyError, TypeError, ValueError) as error:
        return found | {"error": str(error)}
    tone, text = meets(fit)
    found |= {
        "steps": int(params.get("stopped", fit.dynamics.method.n_steps)),
        "constants": [{"name": name, "value": value, "unit": unit} for name, value, unit in constants(fit)],
        "meets_training_times": {"good": True, "bad": False}.get(tone),
        "training": fit.training.tolist(),
        "words": [text, *(str(uns[k]["words"]) for k in ("choice", "forecast", "growth") if "words" in uns.get(k, {}))],
    }
    return found


def in_words(found: Mapping[str, Any]) -> list[str]:
    """The facts, a line each."""
    if "conditions" in found:
        listed = [f"{condition} (--key {key})" for condition, key in found["conditions"].items()]
        return [f"{found['key']}: fits by obs[{found['condition_key']!r}]: {several(listed, 20)}"]
    if "method" not in found:
        return [f"{found['key']}: {found['error']}"]
    models = "one model" if found["models"] == 1 else f"{found['models']} models"
    steps = f" of {found['steps']} steps" if "steps" in found else ""
    lines = [f"{found['key']}: method {found['method']!r}, {models}{steps}, seed {found['seed']}"]
    unit = f", in {found['unit']}" if found["unit"] else ""
    held = f"; held out: {several(f'{t:g}' for t in found['held_out'])}" if found["held_out"] else ""
    lines.append(f"times: obs[{found['time_key']!r}]{unit}: {several((f'{t:g}' for t in found['training']), 50)}{held}")
    size = f"{found['cells']:,} cells in " if found["cells"] is not None else ""
    velocity = f"velocities {found['velocity_key']!r}" if found["velocity_key"] else "no velocities"
    only = f", those of condition {found['condition']!r}" if found["condition"] is not None else ""
    lines.append(f"cells: {size}{found['dimensions']} dimensions of obsm[{found['use_rep']!r}], {velocity}{only}")
    if found["seconds"] is not None:
        lines.append(f"made by wlm {found['version']} in {found['seconds']:g} s on {found['device']}")
    lines += [f"{c['name']}: {number(c['value'])} {c['unit']}" for c in found.get("constants", ())]
    lines += [line[:1].lower() + line[1:] for line in found.get("words", ())]
    if found["results"]:
        lines.append(f"also stored: {several(RESULTS[name] for name in found['results'])}")
    if found["error"] is not None:
        lines.append(f"not usable: {found['error']}")
    return lines
