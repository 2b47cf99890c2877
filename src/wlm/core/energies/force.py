r"""The force that a population's energy exerts on each of its cells, with a first-order backward pass."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class _Force(torch.autograd.Function):
    r"""The force :math:`-\nabla_x U` with a first-order backward pass.

    The gradient of :math:`\langle\lambda, -\nabla_x U\rangle` needs the derivative of U along
    :math:`\lambda` only, taken here as a central difference. That avoids the second-order graph
    (memory does not grow with depth) and lets fused attention kernels run in both passes.
    """

    #: Root-mean-square displacement of the difference, in standardised units: the error is
    #: O(STEP**2) against rounding of O(1e-7 / STEP).
    STEP = 1e-2

    @staticmethod
    def forward(
        ctx: Any,
        energy: nn.Module,
        through_positions: bool,  # noqa: FBT001 - torch passes positions only
        compiled: Compiled | None,
        x: Tensor,
        t: Tensor,
        w: Tensor | None,
        *parameters: Tensor,
    ) -> Tensor:
        ctx.energy, ctx.through_positions, ctx.compiled, ctx.t, ctx.w = energy, through_positions, compiled, t, w
        ctx.save_for_backward(x)
        if compiled is not None:
            gradient = compiled.gradient(x.detach(), t, w)
        else:
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(_total(energy, x, t, w), x)
        return -gradient if w is None else -gradient / w.unsqueeze(-1)

    @staticmethod
    def backward(ctx: Any, lam: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        if ctx.w is not None:
            lam = lam / ctx.w.unsqueeze(-1)
        step = _Force.STEP / lam.square().mean().sqrt().clamp_min(1e-30)
        sign = x.new_tensor([1.0, -1.0]).view(2, *[1] * x.ndim)
        both = (x + sign * (step * lam)).detach()
        if ctx.compiled is not None:
            gx, gradients = ctx.compiled.slope_gradients(both, ctx.t, ctx.w, step, ctx.through_positions)
            return None, None, None, gx, None, None, *gradients
        with torch.enable_grad():
            both.requires_grad_(ctx.through_positions)
            slope = _slope(_total(ctx.energy, both, ctx.t, ctx.w, dim=tuple(range(1, both.ndim - 1))), step)
            inputs = [p for p in ctx.energy.parameters() if p.requires_grad]
            if ctx.through_positions:
                inputs.insert(0, both)
            gradients = list(torch.autograd.grad(slope, inputs, allow_unused=True))
        gx = gradients.pop(0).sum(0) if ctx.through_positions else None
        return None, None, None, gx, None, None, *gradients


def _total(
    energy: Callable[..., Tensor], x: Tensor, t: Tensor, w: Tensor | None, dim: tuple[int, ...] | None = None
) -> Tensor:
    """Energy of whole populations, each cell counting as often as its weight says."""
    return (energy(x, t) if w is None else w * energy(x, t, w)).sum(dim=dim)


def _slope(energy: Tensor, step: Tensor) -> Tensor:
    """The central difference of the energies (2,) a ``step`` to either side, with the sign of the force."""
    return -(energy[0] - energy[1]) / (2 * step)


class Compiled:
    """The two derivatives of an energy that a force needs, compiled for training.

    Parameters
    ----------
    energy
        As for :func:`force`. Its parameters are read at each call, so that it can be trained.

    Raises
    ------
    ValueError
        If the energy is on the CPU and there is no C++ compiler.
    """

    def __init__(self, energy: nn.Module):
        device = next(energy.parameters()).device
        compiler = shlex.split(os.environ.get("CXX", {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")))[0]
        if device.type == "cpu" and shutil.which(compiler) is None:
            raise ValueError(f"compile=True needs a C++ compiler on the CPU, and there is no {compiler!r}; install it")
        self._energy = energy
        self._gradient = torch.compile(torch.func.grad(self._total_at, argnums=1))
        self._both = {
            through: torch.compile(torch.func.grad(self._slope_at, argnums=(0, 1) if through else (0,)))
            for through in (True, False)
        }

    def gradient(self, x: Tensor, t: Tensor, w: Tensor | None) -> Tensor:
        """Gradient of the energy of a population ``x`` (n, d) in ``x``."""
        return self._gradient(self._parameters(), x, t, w)

    def slope_gradients(
        self,
        both: Tensor,
        t: Tensor,
        w: Tensor | None,
        step: Tensor,
        through_positions: bool,  # noqa: FBT001
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """Gradients of the slope between the populations ``both`` (2, n, d): in their positions, and in parameters."""
        found = self._both[through_positions](self._parameters(), both, t, w, step)
        by_name = found[0]
        names = [name for name, p in self._energy.named_parameters() if p.requires_grad]
        return (found[1].sum(0) if through_positions else None), [by_name[name] for name in names]

    def _parameters(self) -> dict[str, Tensor]:
        return {name: p.detach() for name, p in self._energy.named_parameters()}

    def _total_at(self, parameters: dict[str, Tensor], x: Tensor, t: Tensor, w: Tensor | None) -> Tensor:
        return _total(self._bound(parameters), x, t, w)

    def _slope_at(
        self, parameters: dict[str, Tensor], both: Tensor, t: Tensor, w: Tensor | None, step: Tensor
    ) -> Tensor:
        return _slope(_total(self._bound(parameters), both, t, w, dim=(-1,)), step)

    def _bound(self, parameters: dict[str, Tensor]) -> Callable[..., Tensor]:
        return lambda *arguments: torch.func.functional_call(self._energy, parameters, arguments)


def force(
    energy: nn.Module,
    x: Tensor,
    t: Tensor,
    w: Tensor | None = None,
    *,
    through_positions: bool = True,
    compiled: Compiled | None = None,
) -> Tensor:
    r"""Force :math:`a_i = -\nabla_{x_i} U(\{x_j\}, t)` on each cell (paper, Prop. 3.1).

    For cells of weight :math:`w_i` it is :math:`-\nabla_{x_i} U / w_i`, as for that many cells at the same place.

    Parameters
    ----------
    energy
        Module mapping positions (..., n, d) and a time to energies per cell (..., n).
    x
        Positions, shape (..., n, d).
    t
        Time, scalar.
    w
        Weights of the cells, shape (..., n), 1 on average; all equal by default.
    through_positions
        Whether the backward pass also differentiates with respect to ``x``. ``False`` treats the
        point of evaluation as a constant (the truncated gradient).
    compiled
        The derivatives of ``energy``, compiled.

    Returns
    -------
    Accelerations, shape (..., n, d).
    """
    parameters = [p for p in energy.parameters() if p.requires_grad]
    return _Force.apply(energy, through_positions, compiled, x, t, w, *parameters)
