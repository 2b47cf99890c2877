"""What kind of dynamics a fit has found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wlm._adata.cells import Cells, read_rep, read_weights
from wlm._adata.checks import FEW_CELLS, check_integer
from wlm._adata.columns import dense
from wlm._adata.mudata import get_target
from wlm._logging import logger
from wlm._random import RNG, as_seed, as_seeds
from wlm._store.fit import StoredFit, check_representation, open_fit
from wlm._store.glossary import explain
from wlm._store.group import fit_key
from wlm.core.devices import get_device
from wlm.core.diagnosis import conservation_error, energies
from wlm.core.methods import Method
from wlm.core.prediction import Rollout
from wlm.tl._evaluate import evaluate
from wlm.tl._folds import Fold
from wlm.tl._price import composition_changes, in_words
from wlm.tl._progress import Job, Progress, Tell, run
from wlm.tl._simulation import measure_bridged


def diagnose(
    adata: ad.AnnData,
    *,
    key: str = "wlm",
    condition: str | None = None,
    seeds: int = 1,
    holdout: Any = None,
    label_key: str | None = None,
    n_jobs: int = 1,
    rng: RNG = 0,
    mod: str | None = None,
    show_progress: bool | None = None,
) -> pd.DataFrame:
    """Report friction, where the energy goes, how much inertia there is, and whether velocities helped.

    Parameters
    ----------
    adata
        An AnnData or MuData with a fit.
    key
        Name ``K`` of the fit; of fits by condition, the key of one.
    condition
        Of fits by condition, which one; the same as its key.
    seeds
        Number of fits for the spread of the friction: the stored one and ``seeds - 1`` more, with the same settings and
        other seeds. The other fits are not kept.
    holdout
        Times, or ``"each"``, to hold out in turn, to compare fits with and without the velocities (see
        :func:`wlm.tl.evaluate`), with ``seeds`` fits each. They use all cells, also those that this fit has not seen.
        By default there is no such comparison.
    label_key
        Column of ``obs`` with labels such as cell types, to split the changes of their shares into growth and motion.
    n_jobs
        Fits to run at the same time.
    rng
        Seed for the other fits.
    mod
        Modality of a MuData that was fitted; without it, the fit of its joint representation.
    show_progress
        Whether to show a bar for the other fits and one for each half of a comparison, with the time left; by default
        if ``wlm.settings.verbosity`` is 2 or more.

    Returns
    -------
    A row per quantity with the columns ``value``, ``unit`` and ``meaning``:

    ``friction``
        Of this fit, and ``friction_sd`` over seeds (NaN for one).
    ``relaxation``
        Mean intervals between training times in which friction takes away 63 % of a velocity.
    ``inertia``
        Share of the inertial term in the equation of motion along the rollout: 0 is a gradient flow,
        1 Newton's mechanics.
    ``alignment``
        Cosine between velocities and forces: 1 for a gradient flow, where they are proportional.
    ``kinetic``, ``potential``, ``dissipated``, ``grown``
        Changes from the first to the last time, mean per cell: the first three sum up to the last, which is 0 unless
        cells with more energy than others multiply more.
    ``imbalance``, ``conservation_error``
        Errors of the integration along the stored rollout: the largest deviation of the sum of these energies from its
        start, and that of the energy when the rollout is repeated without friction, both relative to the energy
        exchanged. Large values mean that the potential changes within a step of the
        integrator (fit with a smaller ``max_step``), or that it depends on time.
    ``velocity_gain``
        With ``holdout``: how much lower the mean W1 on held-out times is with velocities than without
        (where the method chooses how cells start), relative to without; and ``velocity_gain_sd`` over seeds.

    ``attrs["verdict"]`` says it in words, and what cells follow between the training times (``uns["K"]["choice"]``);
    ``attrs["glossary"]`` is a list of sentences on what the words mean.

    With ``label_key``, ``attrs["composition"]`` is a table of the change of each label's share from each training time
    (``from``) to the next (``to``): by ``growth``, because cells with the label multiply faster or more slowly than the
    mean, and by ``motion``, because cells come and go. By Price's equation the two add up to ``change``, that of the
    free rollout of at most 2000 observed cells; ``observed`` is that of the observed cells. Shares are of 1, and means
    over the models of the fit. Dynamics that conserve cells have motion alone.

    Written to ``adata``: ``uns["K_diagnosis"]``, the values by name, ``friction_seeds`` (seeds,), the columns of
    ``attrs["composition"]`` by name in ``composition``, and the energies along the rollout (``times``,
    ``kinetic_path``, ``potential_path``, ``dissipated_path``, ``grown_path``), which :func:`wlm.pl.energy` and
    :func:`wlm.pl.friction` draw; and ``bridged_w1`` (T,), W1 to the cells of each training time of what is predicted
    for it from its neighbours as if it were not there (NaN at the first and the last): to be seen beside the free
    rollout and the floor of ``uns["K"]["training_times"]``, by :func:`wlm.pl.training`.

    Raises
    ------
    KeyError
        If there is no fit, or no column ``label_key``.
    ValueError
        If the dynamics have no friction, ``label_key`` has numbers or missing labels, ``adata`` no longer holds the
        cells of the fit but more fits are needed, or a comparison is asked for and the fit has no velocities.

    Examples
    --------
    >>> import wlm
    >>> adata = wlm.datasets.gradient_flow_sde(n_cells=50, n_times=4)
    >>> wlm.tl.fit(adata, "time", use_rep="X_position", n_steps=20, show_progress=False)
    >>> bool(wlm.tl.diagnose(adata).loc["inertia", "value"] <= 1)
    True
    """
    key = fit_key(adata, key, condition, mod)
    given, target = adata, get_target(adata, mod)
    adata, stored = open_fit(adata, key, mod)
    times = stored.times(adata)  # refuses others than those of the fit
    check_representation(adata, stored, read_rep(adata, stored.use_rep, stored.n_dims))
    dynamics, params = stored.dynamics, stored.uns["params"]
    if "friction" not in dynamics.rates():
        raise ValueError(f"uns[{key!r}] has no friction; diagnose second-order dynamics, of method='wlm' for example")
    check_integer("seeds", seeds)
    start = getattr(dynamics.method, "initial_velocity", None)
    if holdout is not None and (params.get("velocity_key") is None or start not in ("auto", "data")):
        raise ValueError(f"uns[{key!r}] was fitted without velocities; leave holdout out, or fit with velocity_key")
    seed = as_seed(rng)
    changes = None if label_key is None else composition_changes(given, key, mod, label_key, seed)
    rollout = stored.uns["rollout"]
    path = Rollout(
        np.asarray(rollout["times"], dtype=np.float64),
        np.asarray(rollout["positions"]),
        np.asarray(rollout["velocities"]),
        np.arange(len(rollout["origin"])),
        _rollout_weights(adata, stored),
    )
    energy, inertia, alignment = energies(dynamics, path)
    friction = [dynamics.rates()["friction"]]
    if seeds > 1 or holdout is not None:
        _check_cells(adata, stored)
    if seeds > 1:
        friction += _other_frictions(adata, stored, _other_seeds(seed, seeds, params["seed"]), n_jobs, show_progress)
    unit = stored.unit or "time unit"
    squared = f"{stored.use_rep} units^2 / {unit}^2"
    gamma = friction[0]
    rows: dict[str, tuple[float, str, str]] = {
        "friction": (gamma, f"1/{unit}", "rate at which cells lose velocity"),
        "friction_sd": (float(np.std(friction, ddof=1)) if seeds > 1 else np.nan, f"1/{unit}", f"over {seeds} seed(s)"),
        "relaxation": (
            1 / (gamma * dynamics.units.time) if gamma > 0 else np.inf,
            "intervals",
            "time in which 63 % of a velocity is lost",
        ),
        "inertia": (inertia, "", "0: gradient flow, 1: Newton's mechanics"),
        "alignment": (alignment, "", "cosine of velocities and forces; 1: gradient flow"),
        "kinetic": (float(energy.kinetic[-1] - energy.kinetic[0]), squared, "change along the rollout"),
        "potential": (float(energy.potential[-1]), squared, "change along the rollout"),
        "dissipated": (float(energy.dissipated[-1]), squared, "taken away by friction along the rollout"),
        "grown": (float(energy.grown[-1]), squared, "brought by cells with more energy that multiply more"),
        "imbalance": (energy.imbalance, "", "error of the energy balance"),
        "conservation_error": (conservation_error(dynamics, path), "", "error of the energy without friction"),
    }
    if holdout is not None:
        gain = _velocity_gain(adata, stored, holdout, seeds, seed, n_jobs, show_progress)
        rows["velocity_gain"] = (float(gain.mean()), "", "W1 lower with measured velocities than without, relative")
        rows["velocity_gain_sd"] = (float(gain.std(ddof=1)) if seeds > 1 else np.nan, "", f"over {seeds} seed(s)")
    report = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "unit", "meaning"])
    target.uns[f"{key}_diagnosis"] = {
        **{name: row[0] for name, row in rows.items()},
        "friction_seeds": np.asarray(friction),
        "times": energy.times,
        "kinetic_path": energy.kinetic,
        "potential_path": energy.potential,
        "dissipated_path": energy.dissipated,
        "grown_path": energy.grown,
        "bridged_w1": _bridged(adata, stored, seed),
        **({} if changes is None else {"composition": {name: changes[name].to_numpy() for name in changes}}),
    }
    counts = np.array([np.count_nonzero(times == t) for t in stored.training])
    report.attrs["verdict"] = _verdict(report, counts, stored.uns.get("choice"))
    if changes is not None:
        report.attrs["composition"] = changes
        report.attrs["verdict"] += f"; {in_words(changes)}"
    report.attrs["glossary"] = explain("diagnose", report.attrs["verdict"])
    logger.info("%s; added uns[%r]", report.attrs["verdict"], f"{key}_diagnosis")
    logger.info("in other words:\n  %s", "\n  ".join(report.attrs["glossary"]))
    return report


def _bridged(adata: ad.AnnData, stored: StoredFit, seed: int) -> NDArray[np.float64]:
    """W1 of bridged predictions to the training times; NaN where ``adata`` no longer has what they need."""
    velocities, times = f"{stored.group}_velocity", stored.times(adata)
    if velocities not in adata.obsm:
        return np.full(len(stored.training), np.nan)
    x, v = read_rep(adata, stored.use_rep, stored.n_dims), dense(adata.obsm[velocities])
    known = np.where(np.isfinite(times), times, -np.inf)
    return measure_bridged(stored.ensemble, x, v, known, stored.weights_of(adata), seed)


def _rollout_weights(adata: ad.AnnData, stored: StoredFit) -> np.ndarray | None:
    """Weights of the cells that the stored rollout starts from, or at all its times if they grow."""
    if "weights" in stored.uns["rollout"]:
        return np.asarray(stored.uns["rollout"]["weights"])
    weight_key = stored.uns["params"].get("weight_key")
    if weight_key is None:
        return None
    index = adata.obs_names.astype(str).get_indexer(pd.Index(np.asarray(stored.uns["rollout"]["origin"], dtype=object)))
    if (index < 0).any():
        raise ValueError("adata lacks cells that the rollout of the fit starts from; run wlm.tl.fit again")
    return read_weights(adata, weight_key, stored.times(adata))[index]


def _check_cells(adata: ad.AnnData, stored: StoredFit) -> None:
    """Refuse to refit on other cells than those of the fit."""
    found, wanted = adata.n_obs, int(stored.uns["representation"]["n_obs"])
    if found != wanted:
        raise ValueError(f"the fit was made on {wanted} cells, adata has {found}; diagnose the object of the fit")


def _other_seeds(seed: int, n: int, used: int) -> list[int]:
    """``n - 1`` seeds that are not the one used before."""
    return [s for s in as_seeds(seed, n) if s != used][: n - 1]


def _other_frictions(
    adata: ad.AnnData,
    stored: StoredFit,
    seeds: list[int],
    n_jobs: int,
    show_progress: bool | None,  # noqa: FBT001
) -> list[float]:
    """Friction of fits with the same settings and other seeds."""
    cells = stored.reading.parts(adata)[""].cells
    cells = cells.without(stored.observed[~np.isin(stored.observed, stored.training)])
    fold = Fold(where=get_device(str(stored.uns["params"]["device"])), velocity_scale=stored.reading.velocity_scale)
    method = stored.dynamics.method
    jobs = [
        Job(_friction, (fold, cells, method, seed), f"fit {k} of {len(seeds)}", method.n_steps)
        for k, seed in enumerate(seeds, 1)
    ]
    with Progress("wlm.tl.diagnose", len(seeds) * method.n_steps, show_progress) as progress:
        return list(run(jobs, progress, n_jobs))


def _friction(fold: Fold, cells: Cells, method: Method[Any, Any], seed: int, *, tell: Tell | None = None) -> float:
    """Friction of one fit."""
    return fold.fit(cells, method, seed, tell)[1][0].fit.dynamics.rates()["friction"]


def _velocity_gain(
    adata: ad.AnnData,
    stored: StoredFit,
    holdout: Any,
    seeds: int,
    seed: int,
    n_jobs: int,
    show_progress: bool | None,  # noqa: FBT001
) -> np.ndarray:
    """Relative gain of mean W1 by velocities (seeds,), on the same held-out times and seeds."""
    given = {k: v for k, v in stored.reading.params().items() if v is not None and k != "time_key"}
    given |= {"device": stored.uns["params"]["device"], "method": stored.dynamics.method.name}
    given |= stored.dynamics.method.options()
    # Without velocities the method chooses how cells start.
    free = {k: v for k, v in given.items() if k not in ("velocity_key", "velocity_scale", "initial_velocity")}
    common = {"holdout": holdout, "metrics": ("w1",), "baselines": False, "seeds": seeds, "n_jobs": n_jobs, "rng": seed}
    common |= {"show_progress": show_progress}
    tables = [evaluate(adata, stored.time_key, **common, **chosen) for chosen in (given, free)]
    scores = [table.groupby("seed")["w1"].mean().sort_index().to_numpy() for table in tables]
    return 1 - scores[0] / scores[1]


def _verdict(report: pd.DataFrame, counts: NDArray[np.intp], choice: Mapping[str, Any] | None) -> str:
    """The report in words; ``counts`` (T,) are the cells at the training times, ``choice`` is of their paths."""
    inertia = report.loc["inertia", "value"]
    numbers = f"(inertia {inertia:.2f}, friction {report.loc['friction', 'value']:.3g})"
    of_paths = choice is not None and choice["path"] not in ("straight", "velocities", "rollout")
    if len(counts) < 3:
        text = f"two training times do not show whether the dynamics are inertial: many fits explain them {numbers}"
    elif of_paths:
        text = (
            "initial velocities are those of paths and not measured, so that this fit does not show whether the "
            f"dynamics are inertial {numbers}; fit with initial_velocity='learned' to ask"
        )
    else:
        kind = "close to a gradient flow" if inertia < 0.1 else "inertial" if inertia > 0.9 else "partly inertial"
        few = counts.min() < FEW_CELLS
        text = f"the dynamics {'may be' if few else 'are'} {kind} {numbers}"
        text += f"; a time with {counts.min()} cells is few to tell" if few else ""
    text += "" if choice is None else f"; {choice['words']}"
    if "velocity_gain" in report.index:
        gain = report.loc["velocity_gain", "value"]
        text += f"; velocities {'LOWER' if gain > 0 else 'RAISE'} the held-out W1 by {abs(gain):.1%}"
    return text
