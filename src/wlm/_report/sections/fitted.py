"""What was fitted, and how near it comes to what it was trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from wlm._report.blocks import Table, Words
from wlm._report.figures import picture
from wlm._report.subject import Subject
from wlm._report.words import objects
from wlm._store.words import constants, duration, meets, number, several
from wlm.pl import energy, friction, training

#: What the numbers of the diagnosis mean.
DIAGNOSIS = {
    "friction": "how fast a velocity is lost",
    "friction_sd": "its standard deviation over seeds",
    "relaxation": "mean intervals between training times in which 63 % of a velocity is lost",
    "inertia": "share of inertia in the motion: 0 is a gradient flow, 1 Newton's mechanics",
    "alignment": "cosine of velocities and forces: 1 in a gradient flow",
    "kinetic": "change of kinetic energy from the first to the last time, mean per cell",
    "potential": "change of potential energy",
    "dissipated": "energy lost to friction",
    "grown": "energy brought by cells with more of it that multiply more",
    "imbalance": "largest error of the energy balance, relative to the energy exchanged",
    "conservation_error": "the same without friction",
    "velocity_gain": "how much lower the held-out W1 is with velocities",
}

#: Energies along the rollout; diagnoses of an earlier wlm lack the last.
ENERGIES = ("kinetic", "potential", "dissipated", "grown")


def fitted(s: Subject) -> list[Any]:
    """The fit in words, its numbers, and the distances to its training times."""
    fit, uns = s.fit, s.fit.uns
    blocks: list[Any] = [Words(_identity(s))]
    numbers = constants(fit)
    if numbers:
        blocks.append(Words(" ".join(_in_words(name, value, unit, s) for name, value, unit in numbers)))
    blocks += [Words(_sentence(uns[name]["words"])) for name in ("choice", "growth") if "words" in uns.get(name, {})]
    tone, text = meets(fit)
    blocks.append(Words(text, tone))
    blocks.append(
        picture(
            *(training, s.adata),
            **s.common,
            alt="The training loss by step, and the distance of a free rollout to the cells of each training time.",
            caption="Left: the loss should have fallen and levelled off. Right: how far a free rollout from the first "
            "time is from the cells it was trained on (W1, the mean distance that cells would have to be moved), and "
            "how far two samples of these cells are from each other.",
        )
    )
    if "training_times" in uns:
        blocks.append(Table(training_table(s), "training_times", "How near the training times are met", rows=50))
    # In one order, whether the fit was read from a file, which sorts names, or not.
    names = sorted(uns["history"], key=lambda name: (name != "step", name != "loss", name))
    history = {name: np.asarray(uns["history"][name]) for name in names}
    blocks.append(Table(pd.DataFrame(history), "training_history", "The course of training", rows=0, needed=False))
    return [*blocks, *_diagnosis(s)]


def training_table(s: Subject) -> pd.DataFrame:
    """``uns[K]["training_times"]`` with the distance in floors."""
    found = s.fit.uns["training_times"]
    names = ("times", "w1", "floor", "sd_ratio", "outside")
    table = pd.DataFrame({name: np.asarray(found[name], dtype=float) for name in names if name in found})
    table.insert(3, "w1 in floors", table["w1"] / table["floor"])
    return table.rename(columns={"times": s.fit.time_key})


def _identity(s: Subject) -> str:
    """Which method, from where to where, by which seed."""
    fit, params = s.fit, s.fit.uns["params"]
    steps = params.get("stopped", fit.dynamics.method.n_steps)
    models = 1 + len(fit.others)
    text = (
        f"Method {fit.dynamics.method.name!r}, "
        f"{f'an ensemble of {models} models' if models > 1 else 'one model'} of {steps} training steps, seed {fit.seed}"
    )
    if "seconds" in params:
        text += f", {params['seconds']:g} s on {params.get('device', '?')}"
    held = [t for t in fit.observed if t not in fit.training]
    text += f". It was trained on {len(fit.training)} times, {fit.time_key} {several(f'{t:g}' for t in fit.training)}"
    return f"{text}; held out: {fit.time_key} {several(f'{t:g}' for t in held)}." if held else f"{text}."


def _in_words(name: str, value: float, unit: str, s: Subject) -> str:
    """A constant of the dynamics with its unit and what it means."""
    others = np.asarray(s.fit.uns.get("ensemble", {}).get(name, []), dtype=float)
    spread = f" (standard deviation over {len(others)} models {number(others.std(ddof=1))})" if len(others) > 1 else ""
    text = f"{name.capitalize()}: {number(value)} {unit}{spread}."
    if name == "friction" and value > 0:
        text += (
            f" Without a push, a cell loses 63 % of its velocity in {duration(s.fit, 1 / value)}: high friction "
            "means that cells slide downhill, low friction that they carry on by momentum."
        )
    return text


def _sentence(words: str) -> str:
    words = str(words)
    return words[:1].upper() + words[1:] + ("" if words.endswith(".") else ".")


def _diagnosis(s: Subject) -> list[Any]:
    """What ``wlm.tl.diagnose`` stored, or that it may be run."""
    note = s.target.uns.get(f"{s.key}_diagnosis")
    if "friction" not in s.fit.dynamics.rates():
        return []
    if note is None:
        run = f"wlm.tl.diagnose({objects(s)}{s.call}, seeds=3)"
        return [Words(f"How sure the friction is, and where the energy goes, says {run}; it was not run.", "note")]
    rows = [(name, float(note[name]), meaning) for name, meaning in DIAGNOSIS.items() if name in note]
    table = pd.DataFrame(rows, columns=["quantity", "value", "meaning"])
    path = pd.DataFrame(
        {s.fit.time_key: np.asarray(note["times"], dtype=float)}
        | {name: np.asarray(note[f"{name}_path"], dtype=float) for name in ENERGIES if f"{name}_path" in note}
    )
    return [
        Table(table, "diagnosis", "What wlm.tl.diagnose found", rows=20),
        picture(
            *(friction, s.adata),
            **s.common,
            alt="Friction by training step, and that of fits with other seeds.",
            caption="How the friction was learned, and what fits with other seeds found.",
        ),
        picture(
            *(energy, s.adata),
            **s.common,
            alt="Kinetic, potential and dissipated energy along the rollout, and their sum.",
            caption="Where the energy goes along the rollout; the sum should stay level.",
        ),
        Table(path, "energies", "Energies along the rollout", rows=0, needed=False),
    ]
