"""The settings of the experiments of the WLM paper, as far as its text gives them."""

from __future__ import annotations

from typing import Any

#: The authors' settings by experiment (paper, section 5 and appendix), on top of the defaults of ``PaperWLM``. The
#: small vortex has 111 cells a time and is drawn whole. Steps of the last two are not stated: 10,000, as for "eb".
PAPER: dict[str, dict[str, Any]] = {
    "eb": {
        "n_steps": 10_000,
        "batch_size": 1024,
        "initial_velocity": "zero",
        "friction": 1.0,
        "friction_lr": 1e-2,
        "p": 1,
        "blur": 1.25,
        "hidden": 256,
        "weight_decay": 1e-3,
    },
    "vortex": {
        "n_steps": 50_000,
        "batch_size": 1024,
        "initial_velocity": "data",
        "friction": 0.1,
        "friction_lr": 1e-3,
        "time_features": True,
        "width": 256,
        "heads": 1,
        "hidden": 64,
        "ema": 0.9999,
        "weight_decay": 1e-2,
    },
    "vortex_forecast": {
        "n_steps": 50_000,
        "batch_size": 1024,
        "initial_velocity": "data",
        "friction": 1.0,
        "friction_lr": 1e-3,
        "width": 256,
        "heads": 1,
        "hidden": 64,
        "ema": 0.9999,
        "weight_decay": 1e-2,
    },
    "sde": {"n_steps": 10_000, "batch_size": 1024, "initial_velocity": "zero", "friction": 1.0, "friction_lr": 1e-2},
    "boids": {"n_steps": 10_000, "batch_size": 1024, "initial_velocity": "data", "friction": 0.0, "p": 1},
}
