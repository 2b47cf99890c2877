"""Energies are tested in double precision."""

import pytest
import torch


@pytest.fixture(autouse=True)
def double_precision():
    """In single, the order of sums shows, and that differs between processors."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
