"""WLM as its paper states it, with the settings of its experiments as far as its text gives them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from wlm.core.methods.wlm import WLM
from wlm.core.model import Spec
from wlm.core.populations import Populations

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


@dataclass(frozen=True, kw_only=True)
class PaperWLM(WLM):
    """The algorithm as the paper states it, ``method="wlm_paper"``; ``WLM.paper`` has the settings of experiments.

    It differs from ``"wlm"`` in what is not an option there: every rollout starts at the first time and goes as far as
    any other with the same probability, with one step of the integrator in each interval (eight in predictions); four
    blocks in which every cell attends to every other; a constant learning rate; no penalty on acceleration, no clipping
    of gradients; observed cells of later times start at rest unless their velocities are given; the blur is half the
    median distance between cells. The dropout of the experiment on embryoid bodies is left out.

    Parameters
    ----------
    n_steps, lr, n_inducing, ema, acceleration_penalty
        As for :class:`~wlm.core.methods.WLM`, with the authors' defaults.
    """

    name: ClassVar[str] = "wlm_paper"
    earlier: ClassVar[Mapping[str, Any]] = {"depth": 4}
    takes: ClassVar[frozenset[str]] = frozenset({"velocity"})
    DEPTH: ClassVar[int] = 4
    CLIP: ClassVar[float] = math.inf
    RESTART: ClassVar[float] = 0.0
    CURRICULUM: ClassVar[float] = 0.0
    MOMENTUM: ClassVar[str] = "none"
    JITTER: ClassVar[float] = 1.0

    n_steps: int = 10_000
    lr: float = 1e-4
    hidden: int = 512
    n_inducing: int = 0
    ema: float = 0.999
    acceleration_penalty: float | None = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_one_of("growth", (False,))  # the paper's populations conserve cells

    def prepare(
        self, populations: Populations, choice: str | None = None
    ) -> tuple[Populations, dict[str, dict[str, Any]]]:
        if populations.velocities is not None:  # cells of the paper start with them, and arrive anyhow
            self.check(has_velocity=True)
            return populations, {}
        return super().prepare(populations, choice)

    @classmethod
    def of(cls, experiment: str) -> PaperWLM:
        """The settings of an experiment, see ``WLM.paper``."""
        if experiment not in PAPER:
            raise ValueError(f"experiment must be one of {list(PAPER)}, found {experiment!r}")
        return cls(**PAPER[experiment])

    def _blur(self, spec: Spec) -> float:
        return self.blur or 5 * spec.blur  # of a tenth of the median distance

    def _step(self, spec: Spec) -> float:
        return self.max_step or math.inf

    def _prediction_step(self, spec: Spec) -> float:
        return 1 / 8

    def _rate(self, step: int) -> float:
        return 1.0
