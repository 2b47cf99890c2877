"""One training over several conditions: a shared potential that is told the condition of the population it sees."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from wlm.core.dynamics import Dynamics
from wlm.core.energies.population import PopulationPotential
from wlm.core.methods.wlm import WLM
from wlm.core.model import Spec, drawing_from
from wlm.core.populations import Populations
from wlm.core.snapshots import Snapshots, median_distance
from wlm.core.training import BLUR, _follow
from wlm.core.units import Units


class ConditionedPotential(PopulationPotential):
    """The potential with a vector for each condition, zero before training, added to the embedding of every cell.

    That is what a vector beside the features of the cells comes to, of which the embedding takes a linear function.
    ``current`` is the condition of the population that is seen.
    """

    def __init__(self, *arguments: Any, n_conditions: int, **options: Any):
        super().__init__(*arguments, **options)
        self.vectors = nn.Parameter(torch.zeros(n_conditions, self.embed.out_features))
        self.current = 0

    def embedded(self, x: Tensor, t: Tensor) -> Tensor:
        return super().embedded(x, t) + self.vectors[self.current]


def union(parts: Mapping[str, Populations]) -> Populations:
    """The cells of all conditions together."""
    times = np.unique(np.concatenate([part.times for part in parts.values()]))
    clouds = [
        [x for part in parts.values() for s, x in zip(part.times, part.positions, strict=True) if s == t] for t in times
    ]
    return Populations(times, tuple(np.concatenate(some) for some in clouds))


def train_jointly(parts: Mapping[str, Populations], config: WLM, seed: int) -> dict[str, Dynamics]:
    """Dynamics of each condition, of one potential and friction, trained on prepared populations.

    A step has the rollouts of a step of each condition, and the mean of their losses. It skips what does not leave
    finite gradients, and never goes back.
    """
    if not config.heads or config.growth is not False or config.n_batches > 1:
        raise ValueError("conditions are trained jointly with attention, without growth, one batch a step")
    units = Units.of(union(parts))
    snapshots = [Snapshots.of(part, units, torch.device("cpu")) for part in parts.values()]
    generators = [torch.Generator().manual_seed(seed + 1000 * i) for i in range(len(parts))]
    specs = [
        Spec(
            n_dims=part.n_dims,
            blur=BLUR * median_distance(own.positions, generator),
            has_velocity=own.velocities is not None,
            n_times=len(part.times),
            times=tuple(own.times.tolist()),
        )
        for part, own, generator in zip(parts.values(), snapshots, generators, strict=True)
    ]
    with drawing_from(seed):
        model = config.build(specs[0])
        plain, size = model.potential, {"width": config.width, "depth": config.DEPTH, "heads": config.heads}
        size |= {"hidden": config.hidden, "n_inducing": config.n_inducing, "time_features": config.time_features}
        model.potential = ConditionedPotential(specs[0].n_dims, n_conditions=len(parts), **size)
    model.potential.load_state_dict(plain.state_dict(), strict=False)
    states = [config.init(model, *own) for own in zip(specs, snapshots, generators, strict=True)]
    average = AveragedModel(model, multi_avg_fn=_follow(config.ema))
    average.update_parameters(model)
    optimizer = states[0].optimizer
    for _ in range(config.n_steps):
        optimizer.zero_grad(set_to_none=True)
        value, momenta = 0.0, []
        for k, (spec, state) in enumerate(zip(specs, states, strict=True)):
            model.potential.current = k
            loss, penalty, momentum = config._objective(model, spec, state, state.batches[0])
            ((loss + penalty) / len(parts)).backward()
            value += loss.item() / len(parts)
            momenta.append(momentum)
        norm = torch.nn.utils.clip_grad_norm_(states[0].fields, config.CLIP)
        if math.isfinite(norm.item()) and value < config._too_far(specs[0]):
            optimizer.step()
            for state, momentum in zip(states, momenta, strict=True):
                state.batches[0].carried |= momentum
        with warnings.catch_warnings():  # those of the others know of no optimizer that has made a step
            warnings.simplefilter("ignore", UserWarning)
            for state in states:
                state.schedule.step()
        average.update_parameters(model)
    out = {}
    for k, (name, spec) in enumerate(zip(parts, specs, strict=True)):
        own = deepcopy(average.module).eval()
        own.potential.current = k
        out[name] = Dynamics(own, config, spec, units)
    return out
