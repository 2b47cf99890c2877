"""Seeds from whatever users pass as ``rng``; the global state is never used."""

import numpy as np

RNG = int | np.random.Generator | np.random.SeedSequence


def as_seed(rng: RNG) -> int:
    """A seed in [0, 2**63) from ``rng``; a Generator is advanced, an integer is the seed itself."""
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(2**63))
    if isinstance(rng, np.random.SeedSequence):
        return int(rng.generate_state(1, np.uint64)[0]) >> 1
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool) and 0 <= rng < 2**63:
        return int(rng)
    raise TypeError(f"rng must be a non-negative integer, a numpy Generator or a SeedSequence, found {rng!r}")


def as_seeds(rng: RNG, n: int) -> list[int]:
    """``n`` seeds from ``rng``, the first being that of :func:`as_seed`."""
    first = as_seed(rng)
    return [first, *(int(s) for s in np.random.default_rng(first).integers(2**63, size=n - 1))]
