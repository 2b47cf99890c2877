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

from wlm.core.energies.moments import MomentPotential
from wlm.core.particles import Particles

#: Most shapes of populations, in one process, that derivatives are compiled for.
MOST_SHAPES = 128


def force(energy: nn.Module, p: Particles, t: Tensor, *, compiled: Compiled | None = None) -> Tensor:
    r"""Force :math:`a_i = -\nabla_{x_i} U(\{x_j\}, t)` on each cell (paper, Prop. 3.1).

    For cells of weight :math:`w_i` it is :math:`-\nabla_{x_i} U / w_i`, as for that many cells at the same place. It is
    differentiable in positions, weights and parameters.

    Parameters
    ----------
    energy
        Module mapping positions (..., n, d), a time and logarithms of weights (..., n) or None to energies per cell
        (..., n). One that knows its force (:class:`~wlm.core.energies.moments.MomentPotential`) is asked for it.
    p
        The cells, positions (..., n, d).
    t
        Time, scalar.
    compiled
        The derivatives of ``energy``, compiled.

    Returns
    -------
    Accelerations, shape (..., n, d).
    """
    if isinstance(energy, MomentPotential):
        return energy.acceleration(p.x, t, p.log_w)
    parameters = [parameter for parameter in energy.parameters() if parameter.requires_grad]
    return _Force.apply(energy, compiled, p.x, t, p.log_w, *parameters)


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
        compiled: Compiled | None,
        x: Tensor,
        t: Tensor,
        log_w: Tensor | None,
        *parameters: Tensor,
    ) -> Tensor:
        ctx.energy, ctx.compiled, ctx.t = energy, compiled, t
        if compiled is not None:
            gradient = compiled.gradient(x.detach(), t, log_w)
        else:
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(_total(energy, x, t, log_w), x)
        a = -gradient if log_w is None else -gradient / _relative(log_w).unsqueeze(-1)
        ctx.save_for_backward(x, log_w, a if ctx.needs_input_grad[4] else None)
        return a

    @staticmethod
    def backward(ctx: Any, lam: Tensor) -> tuple[Tensor | None, ...]:
        x, log_w, a = ctx.saved_tensors
        # Where only the weights are differentiated by, lam * a is what the division by them adds.
        product = None if a is None else (lam * a).sum(-1)
        if log_w is not None:
            lam = lam / _relative(log_w).unsqueeze(-1)
        step = _Force.STEP / lam.square().mean((-2, -1)).sqrt().clamp_min(1e-30)  # of each population
        sign = x.new_tensor([1.0, -1.0]).view(2, *[1] * x.ndim)
        both = (x + sign * (step[..., None, None] * lam)).detach()
        if ctx.compiled is not None:
            gx, gw, gradients = ctx.compiled.slope_gradients(both, ctx.t, log_w, step, product)
            return None, None, gx, None, gw, *gradients
        with torch.enable_grad():
            both.requires_grad_()
            inputs = [both, *(p for p in ctx.energy.parameters() if p.requires_grad)]
            if product is not None:
                log_w = log_w.detach().requires_grad_()
                inputs.insert(1, log_w)
            total = _total(ctx.energy, both, ctx.t, log_w, dim=(-1,))
            gradients = list(
                torch.autograd.grad(_slope(total, step) - _division(product, log_w), inputs, allow_unused=True)
            )
        gx = gradients.pop(0).sum(0)
        gw = None if product is None else gradients.pop(0)
        return None, None, gx, None, gw, *gradients


def _relative(log_w: Tensor) -> Tensor:
    """Weights (..., n) that are one on average."""
    return log_w.shape[-1] * torch.softmax(log_w, dim=-1)


def _total(
    energy: Callable[..., Tensor], x: Tensor, t: Tensor, log_w: Tensor | None, dim: tuple[int, ...] | None = None
) -> Tensor:
    """Energy of whole populations, each cell counting as often as its weight says."""
    return (energy(x, t) if log_w is None else _relative(log_w) * energy(x, t, log_w)).sum(dim=dim)


def _slope(energy: Tensor, step: Tensor) -> Tensor:
    """The central difference of the energies (2, ...) a ``step`` (...,) to either side, with the sign of the force."""
    return -((energy[0] - energy[1]) / (2 * step)).sum()


def _division(product: Tensor | None, log_w: Tensor | None) -> Tensor | float:
    """What the division of a force by the weights contributes to their gradient; ``product`` (..., n) is constant."""
    if product is None or log_w is None:
        return 0.0
    return (product.detach() * torch.log_softmax(log_w, dim=-1)).sum()


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
        self._gradient = _compiled(torch.func.grad(self._total_at, argnums=1), device)
        self._both = _compiled(torch.func.grad(self._slope_at, argnums=(0, 1)), device)
        self._with_weights = _compiled(torch.func.grad(self._slope_at, argnums=(0, 1, 3)), device)

    def gradient(self, x: Tensor, t: Tensor, log_w: Tensor | None) -> Tensor:
        """Gradient of the energy of populations ``x`` (..., n, d) in ``x``."""
        return self._gradient(self._parameters(), x, t, log_w)

    def slope_gradients(
        self, both: Tensor, t: Tensor, log_w: Tensor | None, step: Tensor, product: Tensor | None
    ) -> tuple[Tensor, Tensor | None, list[Tensor | None]]:
        """Gradients of the slope between the populations ``both`` (2, ..., n, d): in positions, weights and parameters.

        That in weights is None without the ``product`` (n,) of the force with its gradient.
        """
        which = self._both if product is None else self._with_weights
        found = which(self._parameters(), both, t, log_w, step, product)
        names = [name for name, p in self._energy.named_parameters() if p.requires_grad]
        return found[1].sum(0), None if product is None else found[2], [found[0][name] for name in names]

    def _parameters(self) -> dict[str, Tensor]:
        return {name: p.detach() for name, p in self._energy.named_parameters()}

    def _total_at(self, parameters: dict[str, Tensor], x: Tensor, t: Tensor, log_w: Tensor | None) -> Tensor:
        return _total(self._bound(parameters), x, t, log_w)

    def _slope_at(
        self,
        parameters: dict[str, Tensor],
        both: Tensor,
        t: Tensor,
        log_w: Tensor | None,
        step: Tensor,
        product: Tensor | None,
    ) -> Tensor:
        # One leading axis: the compiler has failed with two.
        lead = both.shape[:-2]
        t = t.expand(lead).reshape(-1) if t.ndim else t
        weights = None if log_w is None else log_w.expand(both.shape[:-1]).flatten(0, -2)
        slope = _slope(_total(self._bound(parameters), both.flatten(0, -3), t, weights, dim=(-1,)).view(lead), step)
        return slope if product is None else slope - _division(product, log_w)

    def _bound(self, parameters: dict[str, Tensor]) -> Callable[..., Tensor]:
        return lambda *arguments: torch.func.functional_call(self._energy, parameters, arguments)


def _compiled(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """The function, compiled; on a GPU its kernels start as one graph, whose results the next start overwrites."""
    import torch._dynamo.config as settings

    graphed = device.type == "cuda"
    compiled = torch.compile(function, mode="reduce-overhead" if graphed else None, dynamic=False)
    # The compiler counts the shapes of all functions that torch.func has made together, and after 8 runs them plain.
    limit = "recompile_limit" if hasattr(settings, "recompile_limit") else "cache_size_limit"  # torch < 2.6

    def launched(*arguments: Any) -> Any:
        with settings.patch({limit: MOST_SHAPES}):
            if not graphed:
                return compiled(*arguments)
            torch.compiler.cudagraph_mark_step_begin()
            return _copied(compiled(*arguments))

    return launched


def _copied(found: Any) -> Any:
    """Copies of the tensors in tuples and dictionaries."""
    if isinstance(found, Tensor):
        return found.clone()
    if isinstance(found, dict):
        return {name: _copied(value) for name, value in found.items()}
    return tuple(map(_copied, found))
