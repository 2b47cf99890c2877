"""Constants with their units."""

import numpy as np
import pytest

from wlm.core.model import Quantity
from wlm.core.units import Units

UNITS = Units(np.zeros(2), 3.0, 10.0, 2.0)


@pytest.mark.parametrize(
    ("length", "time", "value", "unit"),
    [
        (0, -1, 5 / 2, "1/day"),
        (2, -1, 5 * 9 / 2, "mm^2/day"),
        (1, -2, 5 * 3 / 4, "mm/day^2"),
        (0, 1, 10, "day"),
        (-1, 0, 5 / 3, "1/mm"),
        (0, 0, 5, "1"),
        (1, 1, 30, "mm day"),
    ],
)
def test_a_quantity_in_the_units_of_the_data(length, time, value, unit):
    quantity = Quantity(5.0, length=length, time=time)
    assert quantity.in_data(UNITS) == pytest.approx(value, rel=1e-12)
    assert quantity.unit("mm", "day") == unit
