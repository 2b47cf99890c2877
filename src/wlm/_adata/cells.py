"""What a fit reads from AnnData (the way back is :mod:`wlm._store`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._adata.checks import check_distances, check_magnitude, check_names, far_times, odd_rep
from wlm._adata.clones import read_sisters
from wlm._adata.columns import dense, layer_names, read_column
from wlm._adata.components import LOADINGS
from wlm._adata.growth import Totals, read_growth, read_totals
from wlm._adata.labels import Style, show
from wlm._adata.times import MAX_TIMES, _list, read_holdout, read_times
from wlm._adata.velocity import check_components, is_rna_velocity, project_layer
from wlm._logging import logger
from wlm.core.populations import Populations

#: Largest ratio of two weights: beyond it the light cells are lost in the rounding of the gradient.
MAX_WEIGHT_RATIO = 1e4
#: Draws of samples before it is given up that two cells are left of each time.
N_TRIES = 100


@dataclass(frozen=True)
class Cells:
    """What the core needs to know of an AnnData: when and where each cell is, and how it moves.

    ``times`` (n,) float64, NaN for cells to leave out; ``x`` and ``v`` (n, d) float32; ``w`` (n,) float64, the weights,
    and ``strata`` and ``samples`` (n,), the number of each cell's stratum and sample, or None; ``observed`` and
    ``training`` are the distinct times, all of them and without the held-out ones; ``rna`` says that velocities are per
    unit of a time of their own, ``curved`` that cells arrive at the next population with its velocities; ``growth``
    (n,), net rates of the cells, and ``sizes`` (T,) of the populations at the ``observed`` times, both NaN where
    unknown, or None; ``clones`` (n,) the number of each cell's clone, -1 for cells without one, or None.
    """

    names: pd.Index
    time_key: str
    times: NDArray[np.float64]
    unit: str
    use_rep: str
    x: NDArray[np.float32]
    v: NDArray[np.float32] | None
    observed: NDArray[np.float64]
    training: NDArray[np.float64]
    w: NDArray[np.float64] | None = None
    rna: bool = False
    strata: NDArray[np.intp] | None = None
    hyphen: str = "unclear"
    curved: bool = False
    growth: NDArray[np.float64] | None = None
    sizes: NDArray[np.float64] | None = None
    clones: NDArray[np.intp] | None = None
    samples: NDArray[np.intp] | None = None

    def __sizeof__(self) -> int:
        """Bytes of the arrays: joblib sends what is large to the workers of a dask cluster once."""
        arrays = (self.times, self.x, self.v, self.w, self.strata, self.growth, self.clones, self.samples)
        return object.__sizeof__(self) + sum(a.nbytes for a in arrays if a is not None)

    @property
    def style(self) -> Style:
        """How the times are written."""
        return Style(self.unit, self.hyphen)

    def at(self, t: float) -> NDArray[np.intp]:
        """Indices of the cells observed at time ``t``."""
        return np.flatnonzero(self.times == t)

    def measured(self, t: float) -> bool:
        """Whether the cells at time ``t`` have velocities of their own."""
        return self.v is not None and bool(np.isfinite(self.v[self.at(t)]).all())

    def with_velocities(self, velocities: Sequence[NDArray[np.floating]]) -> Cells:
        """The same cells with these velocities (n_k, d) at the training times, and none at others."""
        v = np.full_like(self.x, np.nan)
        for t, at_t in zip(self.training, velocities, strict=True):
            v[self.at(t)] = at_t
        return replace(self, v=v)

    def without(self, held: Any) -> Cells:
        """The cells that have a time, but not one of ``held``; all their times are trained on."""
        return self.only(np.isfinite(self.times) & ~np.isin(self.times, held))

    def only(self, keep: NDArray[Any]) -> Cells:
        """Some of the cells, a mask (n,) or their places; all their times are trained on."""
        times = self.times[keep]
        observed = np.unique(times)
        rows: dict[str, Any] = {
            name: getattr(self, name) for name in ("names", "x", "v", "w", "strata", "growth", "clones", "samples")
        }
        rows = {name: None if values is None else values[keep] for name, values in rows.items()}
        sizes = None if self.sizes is None else self.sizes[np.isin(self.observed, observed)]
        return replace(self, times=times, observed=observed, training=observed, sizes=sizes, **rows)

    def exchangeable(self, samples: NDArray[np.intp]) -> list[NDArray[np.intp]]:
        """The ``samples`` (n,) that were seen at the same training times, together: any could stand for another."""
        there = np.isin(self.times, self.training)
        seen: dict[tuple[float, ...], list[int]] = {}
        for sample in np.unique(samples[there]):
            seen.setdefault(tuple(np.unique(self.times[there & (samples == sample)])), []).append(int(sample))
        return [np.array(block) for block in seen.values()]

    def resampled(self, samples: NDArray[np.intp], seed: int) -> Cells:
        """The cells of ``samples`` (n,) drawn again, with replacement, among those seen at the same times.

        A sample that is drawn twice counts twice, by weights, and cells of one that is not have no time: a bootstrap of
        samples.

        Raises
        ------
        ValueError
            If a time is left with fewer than two cells again and again.
        """
        rng, blocks, there = np.random.default_rng(seed), self.exchangeable(samples), np.isin(self.times, self.training)
        for _ in range(N_TRIES):
            count = np.zeros(samples.max() + 1)
            for block in blocks:
                np.add.at(count, rng.choice(block, len(block)), 1)
            drawn = count[samples]
            kept = there & (drawn > 0)
            if all((kept & (self.times == t)).sum() >= 2 for t in self.training):
                w = drawn if self.w is None else drawn * self.w
                return replace(self, times=np.where(kept, self.times, np.nan), w=np.where(kept, w, 1.0))
        raise ValueError("samples that are drawn again leave a time with fewer than two cells; leave sample_key out")

    def without_growth(self) -> Cells:
        """The same cells for a method that conserves them."""
        return replace(self, growth=None, sizes=None)

    def without_clones(self) -> Cells:
        """The same cells for a method that has no use for their clones."""
        return replace(self, clones=None)

    def without_velocities(self) -> Cells:
        """The same cells for a method that has no use for their velocities."""
        return replace(self, v=None, rna=False)

    def populations(self) -> Populations:
        """The training populations."""
        index = [self.at(t) for t in self.training]
        v, w, s, g, c = self.v, self.w, self.strata, self.growth, self.clones
        return Populations(
            self.training,
            tuple(self.x[i] for i in index),
            None if v is None else tuple(v[i] for i in index),
            None if w is None else tuple(w[i] for i in index),
            None if s is None else tuple(s[i] for i in index),
            None if g is None else tuple(g[i] for i in index),
            None if self.sizes is None else self.sizes[np.isin(self.observed, self.training)],
            None if c is None else tuple(c[i] for i in index),
        )


def read_cells(
    adata: ad.AnnData,
    time_key: str,
    *,
    use_rep: str = "X_pca",
    n_dims: int | None = None,
    velocity_key: str | None = None,
    weight_key: str | None = None,
    strata_key: str | None = None,
    sample_key: str | None = None,
    growth_key: str | None = None,
    totals: Totals | None = None,
    clone_key: str | None = None,
    holdout: Any = None,
    nan: str = "raise",
    known: tuple[NDArray[np.float64], Style] | None = None,
) -> Cells:
    """Read times, representation, velocities and weights, and refuse what cannot be fitted.

    Velocities are read as they are, see :func:`wlm._adata.calibration.calibrate`. ``known`` are the times (n,) and
    their style, if they were read before, from more cells than these.

    Raises
    ------
    KeyError
        If ``time_key``, ``use_rep``, ``velocity_key``, ``weight_key``, ``strata_key``, ``sample_key``, ``growth_key``
        or ``clone_key`` is missing.
    ValueError
        If times or coordinates are missing or unreadable, or too few times or cells are left.
    """
    check_names(adata.obs_names)
    times, style = read_times(adata, time_key, nan) if known is None else known
    x = read_rep(adata, use_rep, n_dims)
    v, rna = None, False
    if velocity_key is not None:
        v = _read_velocity(adata, velocity_key, use_rep, x.shape[1])
        rna = is_rna_velocity(adata, velocity_key, use_rep)
    observed, counts = np.unique(times[np.isfinite(times)], return_counts=True)
    if len(observed) > MAX_TIMES:
        logger.warning(
            "obs[%r] has %d distinct times; populations are compared time by time, so sampling times are wanted: "
            "if this is a pseudotime, bin it with wlm.pp.bin_time",
            time_key,
            len(observed),
        )
    far, odd = far_times(observed), odd_rep(use_rep, x, adata.obs)
    if far is not None:
        logger.warning(
            "obs[%r] has an interval far longer than others: %s; if a time stands for a missing one, "
            "leave its cells out",
            time_key,
            far[0],
        )
    if odd is not None:
        logger.warning("obsm[%r] is odd to fit on (%s); %s", use_rep, *odd)
    held = read_holdout(holdout, observed, style)
    training = observed[~np.isin(observed, held)]
    if len(training) < 2:
        raise ValueError(
            f"at least two training times are needed; obs[{time_key!r}] has {_list(observed)}"
            + (f", of which {_list(held)} are held out" if len(held) else "")
        )
    check_magnitude(f"obs[{time_key!r}]", observed - observed[0])
    check_magnitude(f"obsm[{use_rep!r}]", x)
    if counts.min() < 2:
        raise ValueError(_too_few(time_key, observed, counts))
    check_distances(x, times, training, f"obsm[{use_rep!r}]")
    if v is not None and velocity_key is not None:
        check_velocity_gaps(v, velocity_key, times, training[0])
        if not rna and not np.nan_to_num(v).any():  # others are refused where they are calibrated
            raise ValueError(
                f"velocities in {velocity_key!r} are zero for all cells; compute them again, or fit without "
                "velocity_key (initial_velocity='zero' starts cells at rest)"
            )
    w = None if weight_key is None else read_weights(adata, weight_key, times)
    strata = None if strata_key is None else read_strata(adata, strata_key, times)
    return Cells(
        *(adata.obs_names, time_key, times, style.unit, use_rep, x, v, observed, training),
        *(w, rna, strata, style.hyphen),
        growth=None if growth_key is None else read_growth(adata, growth_key, times, training),
        sizes=None if totals is None else read_totals(adata, totals, times, observed, training, style),
        clones=None if clone_key is None else read_sisters(adata, clone_key, times, training),
        samples=None if sample_key is None else read_strata(adata, sample_key, times),
    )


def _too_few(time_key: str, observed: NDArray[np.float64], counts: NDArray[np.intp]) -> str:
    """What to say of times with one cell."""
    text = "at least 2 cells are needed at every time"
    if len(observed) > MAX_TIMES:
        return (
            f"{text}, and obs[{time_key!r}] has {len(observed)} times for {counts.sum()} cells; "
            f"run wlm.pp.bin_time(adata, key={time_key!r}) and fit to obs[{time_key + '_bin'!r}]"
        )
    return (
        f"{text}; time(s) {_list(observed[counts < 2])} have one: leave them out, or give them the time of a neighbour"
    )


def read_rep(adata: ad.AnnData, use_rep: str, n_dims: int | None = None) -> NDArray[np.float32]:
    """Coordinates (n, d) of the representation; refuses missing or non-finite ones."""
    if use_rep not in adata.obsm:
        missing = use_rep in LOADINGS and not any(name in adata.obsm for name in LOADINGS)
        remedy = "run sc.pp.pca(adata) first" if missing else f"obsm has {list(adata.obsm)}"
        raise KeyError(f"obsm[{use_rep!r}] is missing; {remedy}")
    x = dense(adata.obsm[use_rep], f"obsm[{use_rep!r}]")
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"obsm[{use_rep!r}] must have two axes and at least one column, found shape {x.shape}")
    if n_dims is not None:
        if isinstance(n_dims, bool) or not isinstance(n_dims, (int, np.integer)):
            raise TypeError(f"n_dims must be an integer, found {n_dims!r}")
        if not 1 <= n_dims <= x.shape[1]:
            raise ValueError(f"n_dims must be between 1 and the {x.shape[1]} of obsm[{use_rep!r}], found {n_dims}")
        x = x[:, :n_dims]
    bad = ~np.isfinite(x).all(axis=1)
    if bad.any():
        raise ValueError(
            f"obsm[{use_rep!r}] has NaN or infinite values in {bad.sum()} cells ({list(adata.obs_names[bad][:3])}, "
            "...); leave these cells out, or compute it again"
        )
    return np.ascontiguousarray(x)


def read_weights(adata: ad.AnnData, weight_key: str, times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights (n,) of the cells, 1 for those without a time; refuses what is not a positive number."""
    w = pd.to_numeric(read_column(adata, weight_key), errors="coerce").to_numpy(dtype=np.float64, copy=True)
    w[~np.isfinite(times)] = 1.0
    bad = np.logical_not(np.isfinite(w) & (w > 0))
    if bad.any():
        raise ValueError(
            f"weights in obs[{weight_key!r}] must be positive numbers; {bad.sum()} of {len(w)} are not "
            f"({list(adata.obs_names[bad][:3])}, ...): leave those cells out"
        )
    if w.max() / w.min() > MAX_WEIGHT_RATIO:
        raise ValueError(
            f"weights in obs[{weight_key!r}] range from {w.min():g} to {w.max():g}; the largest may be at most "
            f"{MAX_WEIGHT_RATIO:g} times the smallest: leave out cells that hardly count"
        )
    return w


def read_strata(adata: ad.AnnData, strata_key: str, times: NDArray[np.float64]) -> NDArray[np.intp]:
    """The number (n,) of each cell's stratum; refuses cells without one, unless they have no time either."""
    codes = pd.factorize(read_column(adata, strata_key))[0]
    bad = (codes < 0) & np.isfinite(times)
    if bad.any():
        raise ValueError(
            f"obs[{strata_key!r}] is missing for {bad.sum()} of {len(codes)} cells "
            f"({list(adata.obs_names[bad][:3])}, ...); leave those cells out, or give them a name of their own"
        )
    return codes


def _read_velocity(adata: ad.AnnData, key: str, use_rep: str, n_dims: int) -> NDArray[np.float32]:
    """Velocities (n, d): an ``obsm`` entry as it is, or a layer projected on the principal components."""
    if key in adata.obsm:
        check_components(adata, key, use_rep)
        v = dense(adata.obsm[key], f"obsm[{key!r}]")
        if v.ndim != 2 or v.shape[1] < n_dims:
            raise ValueError(f"obsm[{key!r}] has shape {v.shape}; {n_dims} dimensions of {use_rep!r} are used")
        v = v[:, :n_dims]
    elif key in adata.layers:
        v = project_layer(adata, key, use_rep).velocity[:, :n_dims]
    else:
        raise KeyError(
            f"velocity_key {key!r} is neither in obsm ({list(adata.obsm)}) nor in layers ({layer_names(adata)}); "
            "run wlm.pp.velocity(adata) first, or name the key that holds velocities"
        )
    return np.ascontiguousarray(v, dtype=np.float32)


def check_velocity_gaps(v: NDArray[np.floating], key: str, times: NDArray[np.float64], first: float) -> None:
    """Refuse velocities with gaps: a time has them for all of its cells or, past the first, for none."""
    bad = np.logical_not(np.isfinite(v).all(axis=1))
    for t in np.unique(times[bad]):
        here = np.flatnonzero(times == t)
        if t == first or np.isinf(v[here]).any() or np.isfinite(v[here]).any():
            raise ValueError(
                f"velocities in {key!r} are NaN or infinite for {bad[here].sum()} of {len(here)} cells "
                f"at {show(t, *times)}; they may be missing (all NaN) at whole times after the first training time only"
            )
