"""The units a model works in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wlm.core.populations import Array, Populations


@dataclass(frozen=True)
class Units:
    """Affine map between data and the standard units of a model.

    In standard units the pooled training cells have mean zero and mean variance one per dimension
    (one scale for all dimensions, so that distances keep their proportions), the first time is 0
    and the mean interval between training times is 1.
    """

    location: Array
    length: float
    origin: float
    time: float

    @classmethod
    def of(cls, populations: Populations) -> Units:
        """The units that standardise ``populations``, every time weighing the same."""
        location = np.mean([x.mean(0) for x in populations.positions], axis=0)
        square = [np.square(x - location).mean() for x in populations.positions]
        length = float(np.sqrt(np.mean(square)))
        if length == 0:
            raise ValueError("all cells have the same position; there is nothing to learn")
        t = populations.times
        return cls(location, length, float(t[0]), float((t[-1] - t[0]) / (len(t) - 1)))

    def standard_position(self, x: Array) -> Array:
        """Positions (..., d) in standard units."""
        return (x - self.location) / self.length

    def data_position(self, x: Array) -> Array:
        """Inverse of :meth:`standard_position`."""
        return x * self.length + self.location

    def standard_time(self, t: Array | float) -> Array:
        """Times in standard units."""
        return (np.asarray(t, dtype=np.float64) - self.origin) / self.time

    @property
    def velocity(self) -> float:
        """One standard unit of velocity, in data units."""
        return self.length / self.time
