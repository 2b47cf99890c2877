"""Labels and numbers of observed cells for predicted ones, by their neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Neighbours by which predicted cells get their labels.
N_NEIGHBOURS = 15


def from_neighbours(x: Any, values: NDArray[Any], y: Any) -> NDArray[Any]:
    """Values (m,) for cells at ``y`` (m, d) from those (n,) at ``x`` (n, d): labels by the weight of the nearest 15.

    Closer neighbours weigh more (by one over the distance). Numbers are averaged.
    """
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    kind = KNeighborsRegressor if np.asarray(values).dtype.kind in "biuf" else KNeighborsClassifier
    neighbours = kind(min(N_NEIGHBOURS, len(x)), weights="distance")
    return neighbours.fit(x, values).predict(y)
