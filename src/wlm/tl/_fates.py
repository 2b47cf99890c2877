"""How likely each observed cell is to end in each terminal state, and when that is decided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._adata.checks import check_integer, check_writable
from wlm._adata.columns import read_column
from wlm._adata.mudata import get_target
from wlm._adata.neighbours import from_neighbours
from wlm._adata.times import read_labels
from wlm._logging import logger
from wlm._random import RNG, as_seed
from wlm._store.group import fit_key
from wlm._store.results import forget, read_result, write_result
from wlm.core.fates import decided, decided_at, entropy, pull_back
from wlm.core.transport import shares
from wlm.tl._links import N_DRAWS, Link, Observed, all_links, rollouts
from wlm.tl._predict import warn_beyond_horizon
from wlm.tl._terminal_states import UNDECIDED

#: What chances are of.
COUNTS = ("lineages", "cells")
#: Share of the cells in another state than observed, beyond what samples differ by, from which a fit is warned about.
MISSED = 0.1


def fates(
    adata: Any,
    *,
    key: str = "wlm",
    condition: str | None = None,
    at: Any = None,
    count: str = "lineages",
    n_draws: int = N_DRAWS,
    rng: RNG = 0,
    mod: str | None = None,
) -> None:
    r"""Compute how likely each observed cell is to end in each terminal state.

    Every model of the fit moves the cells from each observed time to the next training time, stochastic models several
    times. There the most likely coupling places them among the observed cells, if predictions have Gaussian noise whose
    size is the residual of the fit (a Schrödinger bridge, the entropic coupling with :math:`\epsilon = 2\sigma^2`,
    Léonard 2014). From there they continue. Cells are also measured with noise, so a cell's chances are the mean over
    its 15 nearest cells of the same time, and over those whose neighbour it is. With transitions :math:`P_k` from the
    :math:`k`-th population to the next and members :math:`E` of the terminal states, fates are
    :math:`P_k P_{k+1} \cdots P_{K-1} E`.

    Without growth, transport is balanced: every population turns into the whole of the next one, so the chances of
    early cells add up to the composition observed at the last time. If cells of one fate divide more than others, this
    is the share of descendants, not the share of cells that choose the fate. With growth, cells are coupled by the
    masses that they have grown to, and ``count`` chooses between the two. The free rollout of the fit is not led this
    way; the log warns if its composition at the last time misses the observed one.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit, after :func:`wlm.tl.terminal_states`.
    key
        Name ``K`` of the fit; of fits by condition, the key of one.
    condition
        Of fits by condition, which one; the same as its key.
    at
        Time at which cells must be in a state: by default the last training time, or a later one. Until then the last
        population moves freely, with noise that grows as in the last interval.
    count
        What the chances count, in a fit with growth. ``"lineages"``: a single line of descent, one cell at a time,
        however many sisters branch off; this gives the share of founders that choose the fate. ``"cells"``: the
        descendants at the end, of which there are more where cells multiply; weighted by their descendants, early cells
        add up to the composition of the last time. Without growth the two are the same.
    n_draws
        Number of repetitions of stochastic dynamics, and of the noise after the last training time.
    rng
        Seed, numpy Generator or SeedSequence.
    mod
        Modality of a MuData that was fitted; without it, the fit of its joint representation.

    Returns
    -------
    None. Written to ``adata``:

    ``obsm["K_fates"]`` : float32, (n_obs, n_fates)
        Probabilities, which sum to one; NaN for cells without a time. Columns are ``uns["K_fates"]["names"]``: the
        terminal states, and ``"undecided"`` if cells of the last time are in none. Cells observed before the first
        training time or after the last get those of the nearest cells of that time.
    ``obs["K_fate_entropy"]`` : float32
        Entropy of the probabilities, in bits: 0 where one end is certain, 1 for two ends as in the toss of a coin.
    ``obs["K_fate_descendants"]`` : float32, of fits with growth, with ``count="cells"``
        Expected descendants of each cell at the end, over their mean at the time of the cell.
    ``obs["K_fate_spread"]`` : float32, of fits with ``n_models``
        Root mean square difference of the probabilities from their mean over the models.
    ``uns["K_fates"]`` : dict
        ``names``; ``at``; ``count``; ``times`` (T,), those observed, with mean ``entropy`` (T,), the share of the fate
        that is ``decided`` (T,) by then (see :func:`wlm.core.fates.decided`), for each fate against all others in
        ``decided_by_fate`` (T, n_fates), and ``decided_at`` (n_fates,), when half of it is; ``noise`` (T,), the
        standard deviation of predictions from there in each dimension, in ``use_rep`` units; ``observed`` and
        ``predicted`` (n_fates,), the composition of the last training time and that of the free rollout to it from
        the first, half the sum of whose differences is ``missed``: above ``tolerated``, 0.1 and what two samples
        differ by, it is warned about; ``seed``, ``n_draws``.

    Raises
    ------
    KeyError
        If there is no fit, or terminal states are missing.
    ValueError
        If there is one terminal state, ``at`` is before the last training time, ``count`` is neither ``"cells"`` nor
        ``"lineages"``, or ``adata`` is not what was fitted.

    Examples
    --------
    >>> import scanpy as sc
    >>> import wlm
    >>> adata = wlm.datasets.bifurcation(n_cells=100, rng=0)
    >>> sc.pp.normalize_total(adata)
    >>> sc.pp.log1p(adata)
    >>> sc.pp.pca(adata, n_comps=5)
    >>> wlm.tl.fit(adata, "day", n_steps=20, show_progress=False)
    >>> table = wlm.tl.terminal_states(adata)
    >>> wlm.tl.fates(adata)
    >>> adata.obsm["wlm_fates"].shape
    (500, 2)
    """
    key = fit_key(adata, key, condition, mod)
    target = get_target(adata, mod)
    check_writable(target)
    check_integer("n_draws", n_draws)
    if count not in COUNTS:
        raise ValueError(f"count must be one of {list(COUNTS)}, found {count!r}")
    observed = Observed.of(adata, key, mod)
    fit, seed = observed.fit, as_seed(rng)
    names, members = _terminal(target, observed)
    end = _end(observed, at)
    if end > fit.training[-1]:
        warn_beyond_horizon(fit, np.array([end]))
    links = all_links(observed, n_draws=n_draws, seed=seed)
    growing = count == "cells" and fit.dynamics.grows
    noise = _noise_of(observed, links)
    chances = _last(observed, members, names, end, n_draws=n_draws, seed=seed, noise=noise, growing=growing)
    ends = _runs(observed, links, chances, growing=growing)  # of each cell: how many, if they are counted
    runs = [one / one.sum(1, keepdims=True) for one in ends] if growing else ends
    p = np.mean(runs, axis=0)
    descendants = _descendants(observed, ends) if growing else None
    note = _note(observed, names, members, p, links, descendants)
    note |= {"at": end, "count": count, "seed": seed, "n_draws": int(n_draws), "fit": fit.checksum}
    obs = {"fate_entropy": _or_missing(entropy(p), p)}
    if descendants is not None:
        obs["fate_descendants"] = descendants
    if fit.others:
        n_models = 1 + len(fit.others)
        models = np.stack([np.mean(runs[m::n_models], axis=0) for m in range(n_models)])
        obs["fate_spread"] = _or_missing(np.sqrt(models.var(axis=0, ddof=1).mean(-1)), p)
    forget(target, key, {"obs": ("fate_spread", "fate_descendants")})
    slots: dict[str, dict[str, Any]] = {
        "obsm": {"fates": observed.whole(p.astype(np.float32), np.nan)},
        "obs": {name: observed.whole(values.astype(np.float32), np.nan) for name, values in obs.items()},
        "uns": {"fates": note},
    }
    written = write_result(target, key, slots)
    _warn_if_missed(note, observed)
    said = "; ".join(f"{name} {share:.0%}" for name, share in zip(names, note["observed"], strict=True))
    assumed = "transport by the growth of the fit" if fit.dynamics.grows else "balanced transport"
    logger.info("fates at %g (%s, %s); added %s", end, said, assumed, ", ".join(written))


def _terminal(target: Any, observed: Observed) -> tuple[list[str], NDArray[Any]]:
    """Names of the terminal states, and the one of each cell of the last training time."""
    fit = observed.fit
    states = read_result(target, fit, "terminal", "terminal_states")
    names = [str(name) for name in np.ravel(states["names"])]
    if len(names) < 2:
        raise ValueError(
            f"there is one terminal state, {names[0]!r}, and every cell ends there; name others with "
            "wlm.tl.terminal_states(adata, label_key=..., states=[...]), or set its n_states"
        )
    column = f"{fit.key}_terminal"
    if column not in target.obs:
        raise KeyError(f"obs[{column!r}] is missing; run wlm.tl.terminal_states again")
    last = observed.at(fit.training[-1])
    values = read_column(target, column).astype(object).iloc[observed.rows[last]]
    members = values.fillna(UNDECIDED).astype(str).to_numpy(dtype=object)
    absent = [name for name in names if name not in members]
    if absent:
        raise ValueError(
            f"obs[{column!r}] has no cell of {absent} at the last training time; run wlm.tl.terminal_states again"
        )
    return (names + [UNDECIDED] if UNDECIDED in members else names), members


def _end(observed: Observed, at: Any) -> float:
    """The time at which cells have to be in a state."""
    last = float(observed.fit.training[-1])
    if at is None:
        return last
    wanted = read_labels(at, observed.fit.style, "at")
    if len(wanted) != 1:
        raise ValueError(f"at must be one time, found {at!r}")
    if wanted[0] < last:
        raise ValueError(
            f"at={wanted[0]:g} is before the last training time, {last:g}, whose cells are the terminal states; "
            f"leave at out, or choose a later time"
        )
    return float(wanted[0])


def _noise_of(observed: Observed, links: Sequence[Link]) -> float:
    """Variance of the noise per time, in the last interval between training times."""
    last = next(one for one in links if one.time == observed.fit.training[-2])
    return last.noise**2 / (last.to - last.time)


def _one_hot(labels: NDArray[Any], names: Sequence[str]) -> NDArray[np.float64]:
    """Members (n, f) of the states."""
    return (labels[:, None] == np.array(names, dtype=object)[None]).astype(float)


def _last(
    observed: Observed,
    members: NDArray[Any],
    names: Sequence[str],
    end: float,
    *,
    n_draws: int,
    seed: int,
    noise: float,
    growing: bool,
) -> list[NDArray[np.float64]]:
    """Probabilities (n, f) of the states for the cells of the last training time, one for each run.

    If ``growing``, times the cells that each has become.
    """
    last = float(observed.fit.training[-1])
    if end == last:
        return [_one_hot(members, names)]
    x = observed.x[observed.at(last)]
    n_models, rng = 1 + len(observed.fit.others), np.random.default_rng(seed)
    moved, w = rollouts(observed, last, end, n_draws=n_draws, seed=seed), observed.w(observed.at(last))
    found = []
    for run in range(n_models * n_draws):
        z, mass = moved[run % len(moved)]
        z = z + np.sqrt(noise * (end - last)) * rng.normal(size=z.shape)
        found.append(_one_hot(from_neighbours(x, members, z), names))
        if growing and mass is not None:
            found[-1] *= (mass if w is None else mass / w)[:, None]
    return found


def _runs(
    observed: Observed, links: Sequence[Link], chances: Sequence[NDArray[np.float64]], *, growing: bool
) -> list[NDArray[np.float64]]:
    """Probabilities (n, f) of all cells, NaN where there is no time, by each model and draw.

    If ``growing``, descendants of each cell that end in a state, up to a common factor for each time.
    """
    training = observed.fit.training
    chain = [one for one in links if one.time in training[:-1]]
    beside = [one for one in links if one.time not in training]
    n_runs = max(len(chances), *(len(one.arrivals) for one in links))
    out = []
    for run in range(n_runs):
        p = np.full((len(observed.x), chances[0].shape[1]), np.nan)
        p[observed.at(training[-1])] = chances[run % len(chances)]
        steps = [one.step(run, growing=growing) for one in chain]
        for one, found in zip(chain, pull_back(steps, chances[run % len(chances)]), strict=True):
            p[one.cells] = found
        for one in beside:  # held out: cells start there, and no path goes through them
            p[one.cells] = one.step(run, growing=growing) @ p[one.targets]
        out.append(p)
    return out


def _descendants(observed: Observed, ends: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Descendants (n,) of each cell at the end, over the mean of its time, of ``ends`` (n, f) by each run."""
    out = np.full(len(observed.x), np.nan)
    for t in np.unique(observed.times[np.isfinite(observed.times)]):
        i = observed.at(t)
        each = np.stack([one[i].sum(1) for one in ends])
        out[i] = (each / np.average(each, axis=1, weights=observed.w(i))[:, None]).mean(0)
    return out


def _or_missing(values: NDArray[np.float64], p: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values (n,), NaN where there are no probabilities."""
    return np.where(np.isnan(p[:, 0]), np.nan, values)


def _note(
    observed: Observed,
    names: Sequence[str],
    members: NDArray[Any],
    p: NDArray[np.float64],
    links: Sequence[Link],
    descendants: NDArray[np.float64] | None,
) -> dict[str, Any]:
    """What is said of the fates as a whole, where cells count as often as they have descendants, if that is known."""
    times = np.unique(observed.times[np.isfinite(observed.times)])
    there = [observed.at(t) for t in times]

    def mass(i: NDArray[np.intp]) -> NDArray[np.float64]:
        return shares(observed.w(i), len(i)) * (1.0 if descendants is None else descendants[i])

    by_fate = np.array([[decided(np.stack([q, 1 - q], 1), mass(i)) for q in p[i].T] for i in there])  # (T, f)
    noise = {one.time: one.noise for one in links}
    last = observed.at(observed.fit.training[-1])
    composition = shares(observed.w(last), len(last)) @ _one_hot(members, names)
    predicted = _free(observed, members, names)
    # Mean of half the sum of the differences between two samples of one population.
    n = 1 / len(last) + 1 / len(observed.fit.uns["rollout"]["origin"])
    chance = float(np.sqrt(composition * (1 - composition) * n * 2 / np.pi).sum() / 2)
    return {
        "names": np.array(names, dtype=object),
        "times": times,
        "entropy": np.array([np.average(entropy(p[i]), weights=mass(i)) for i in there]),
        "decided": np.array([decided(p[i], mass(i)) for i in there]),
        "decided_by_fate": by_fate,
        "decided_at": np.array([decided_at(times, column) for column in by_fate.T]),
        "noise": np.array([noise.get(t, np.nan) for t in times]),
        "observed": composition,
        "predicted": predicted,
        "missed": float(np.abs(composition - predicted).sum() / 2),
        "tolerated": MISSED + chance,
    }


def _free(observed: Observed, members: NDArray[Any], names: Sequence[str]) -> NDArray[np.float64]:
    """Composition (f,) of the last training time by the free rollout from the first, mean over models."""
    last = float(observed.fit.training[-1])
    x, found = observed.x[observed.at(last)], []
    for member in observed.fit.ensemble.members:
        z, w = member.path.at(last)[0], member.path.mass(last)
        if w is None and observed.weights is not None:  # the stored path of the first model notes none
            origin = pd.Index(np.asarray(observed.fit.uns["rollout"]["origin"], dtype=object))
            index = observed.cells.obs_names.astype(str).get_indexer(origin)
            w = observed.weights[index] if (index >= 0).all() else None
        found.append(shares(w, len(z)) @ _one_hot(from_neighbours(x, members, z), names))
    return np.mean(found, axis=0)


def _warn_if_missed(note: dict[str, Any], observed: Observed) -> None:
    """Say where the fit, by itself, does not lead to what is observed."""
    if note["missed"] <= note["tolerated"]:
        return
    k = int(np.argmax(np.abs(note["predicted"] - note["observed"])))
    logger.warning(
        "the free rollout of uns[%r] misses the composition of the last training time, %g: %.0f %% of its cells are in "
        "another state than observed, %s has %.0f %% where %.0f %% were observed. Bridges hide this from the fates: "
        "look at wlm.pl.training, and train longer (n_steps) before you believe them",
        *(observed.fit.key, observed.fit.training[-1], 100 * note["missed"]),
        *(note["names"][k], 100 * note["predicted"][k], 100 * note["observed"][k]),
    )
