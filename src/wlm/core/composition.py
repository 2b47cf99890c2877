r"""What changes the mean of a population: its cells move, and some of them multiply more than others.

Price's equation for a function :math:`\phi` of the state, with the density :math:`\rho` of the cells, their velocity v
and their net rate g:

.. math::

    \frac{d}{dt}\langle\phi\rangle = \langle v\cdot\nabla\phi\rangle + \mathrm{Cov}(g, \phi).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wlm.core.populations import Array


class Change(NamedTuple):
    """Changes of means along paths, (T - 1, ...) from each time to the next: ``growth`` + ``motion`` is all of it."""

    growth: NDArray[np.float64]
    motion: NDArray[np.float64]


def price(w: Array, phi: Array) -> Change:
    r"""Split the change of :math:`\langle\phi\rangle` along paths into what growth does and what motion does.

    Over a step, with shares :math:`a_i` of the cells and their values :math:`\phi_i`, the change is exactly
    :math:`\sum_i \Delta a_i\,\bar\phi_i + \sum_i \bar a_i\,\Delta\phi_i`, where bars are means of both ends. With short
    steps the first sum is the covariance with the net rate over time, the second the transport.

    Parameters
    ----------
    w
        Weights (T, n) of the cells along their paths, of any level.
    phi
        Their values (T, n, ...): of a label, 1 for the cells that have it and 0 for the others.
    """
    a = np.asarray(w, dtype=np.float64)
    a = a / a.sum(axis=1, keepdims=True)
    phi = np.asarray(phi, dtype=np.float64)
    middle, change = (phi[1:] + phi[:-1]) / 2, np.diff(phi, axis=0)
    return Change(
        np.einsum("tn,tn...->t...", np.diff(a, axis=0), middle),
        np.einsum("tn,tn...->t...", (a[1:] + a[:-1]) / 2, change),
    )
