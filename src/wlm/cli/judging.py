"""What a fit is worth, and what differs between conditions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

import wlm
from wlm._logging import quiet as no_information
from wlm.cli.app import app, guarded
from wlm.cli.arguments import (
    AsJson,
    BatchSize,
    CloneKey,
    Condition,
    ConditionKey,
    Debug,
    Device,
    Force,
    GrowthKey,
    Held,
    In,
    Key,
    Lr,
    Nan,
    NDims,
    NModels,
    NSteps,
    Options,
    Patience,
    Quiet,
    Seed,
    StrataKey,
    Table,
    TimeKey,
    Totals,
    UseRep,
    VelocityKey,
    VelocityScale,
    WeightKey,
    check_method,
    print_table,
    read_number,
    read_options,
)
from wlm.cli.files import TABLES, read, writing


@app.command()
@guarded
def evaluate(
    source: In,
    time_key: TimeKey,
    output: Table = None,
    method: Annotated[list[str] | None, typer.Option(help="Method; repeatable. [default: wlm]")] = None,
    use_rep: UseRep = None,
    n_dims: NDims = None,
    velocity_key: VelocityKey = None,
    velocity_scale: VelocityScale = None,
    weight_key: WeightKey = None,
    strata_key: StrataKey = None,
    condition_key: ConditionKey = None,
    clone_key: CloneKey = None,
    growth_key: GrowthKey = None,
    totals: Totals = None,
    nan: Nan = "raise",
    holdout: Held = None,
    group_key: Annotated[
        str | None, typer.Option(help="Column of obs with donors or other samples, to leave out instead of times.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="w1, w2, mmd, energy, coverage or composition; repeatable. [default: w1, w2, mmd]"),
    ] = None,
    label_key: Annotated[str | None, typer.Option(help="Column of obs with labels, for composition.")] = None,
    baselines: Annotated[bool, typer.Option(help="Score the naive answers too.")] = True,
    seeds: Annotated[int, typer.Option(help="Fits per held-out time.")] = 1,
    backtest: Annotated[bool, typer.Option(help="As for fit, where the last time is held out.")] = True,
    n_jobs: Annotated[int, typer.Option(help="Fits at the same time; -1 is one for each core.")] = 1,
    n_models: NModels = 1,
    patience: Patience = None,
    max_cells: Annotated[int, typer.Option(help="Cells scored a side, at most.")] = 5000,
    n_boot: Annotated[int, typer.Option(help="Samples for intervals of differences; 0 for none.")] = 100,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for finished fits; the same call makes only those that it lacks.")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    n_steps: NSteps = None,
    lr: Lr = None,
    batch_size: BatchSize = None,
    option: Options = None,
    as_json: AsJson = False,
    force: Force = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Hold out times one by one, fit on the others, and print the scores beside those of the naive answers.

    Example: wlm evaluate in.h5ad --time-key day --seeds 3 -o scores.csv
    """
    options = read_options(option, n_steps=n_steps, lr=lr, batch_size=batch_size)
    with writing(output, kinds=TABLES, force=force) as write:
        for name in method or ["wlm"]:
            check_method(name, options)
        adata = read(source)
        with no_information():  # the verdict is printed with the table
            table = wlm.tl.evaluate(
                adata,
                time_key,
                method=method or "wlm",
                holdout=holdout[0] if holdout in (["each"], ["all"]) else holdout or "each",
                metrics=metric or ("w1", "w2", "mmd"),
                baselines=baselines,
                seeds=seeds,
                backtest=backtest,
                n_jobs=n_jobs,
                rng=seed,
                use_rep=use_rep,
                n_dims=n_dims,
                velocity_key=velocity_key,
                velocity_scale=read_number(velocity_scale),
                weight_key=weight_key,
                strata_key=strata_key,
                condition_key=condition_key,
                group_key=group_key,
                clone_key=clone_key,
                growth_key=growth_key,
                totals=totals,
                label_key=label_key,
                nan=nan,
                device=device,
                n_models=n_models,
                patience=patience,
                max_cells=max_cells,
                n_boot=n_boot,
                cache=cache,
                show_progress=sys.stderr.isatty() and not quiet,
                **options,
            )
        write(table)
    print_table(table, {**table.attrs, "rows": table.to_dict("records")} if as_json else None, index=False)


@app.command()
@guarded
def evaluate_clones(
    source: In,
    output: Table = None,
    clone_key: Annotated[
        str, typer.Option(help="Column of obs with clones, or key of obsm with a matrix of cells and clones.")
    ] = "X_clone",
    label_key: Annotated[str | None, typer.Option(help="Column of obs with labels, such as cell types.")] = None,
    labels: Annotated[
        list[str] | None, typer.Option("--label", help="A label to tell apart; repeatable. [default: all]")
    ] = None,
    start: Annotated[str | None, typer.Option(help="Observed time. [default: the last training time but one]")] = None,
    end: Annotated[str | None, typer.Option(help="Observed time. [default: the last training time]")] = None,
    key: Key = "wlm",
    condition: Condition = None,
    n_boot: Annotated[int, typer.Option(help="Samples of clones for intervals; 0 for none.")] = 1000,
    seed: Seed = 0,
    as_json: AsJson = False,
    force: Force = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Score what the fit in IN predicts against the cells' own sisters: cells of the same clone, observed later.

    Example: wlm evaluate-clones fitted.h5ad --clone-key clone --label-key cell_type
    """
    with writing(output, kinds=TABLES, force=force) as write:
        adata = read(source)
        with no_information():  # the verdict is printed with the table
            table = wlm.tl.evaluate_clones(
                adata,
                clone_key=clone_key,
                label_key=label_key,
                labels=labels or None,
                start=start,
                end=end,
                key=key,
                condition=condition,
                n_boot=n_boot,
                rng=seed,
            )
        write(table)
    print_table(table, {**table.attrs, "rows": table.to_dict("records")} if as_json else None, index=False)


@app.command()
@guarded
def compare(
    source: In,
    time_key: TimeKey,
    condition_key: Annotated[str, typer.Option(help="Column of obs with the conditions.")],
    sample_key: Annotated[
        str | None, typer.Option(help="Column of obs with animals, donors or cultures; no p-values without it.")
    ] = None,
    batch_key: Annotated[
        str | None, typer.Option(help="Column of obs with batches, within which samples are exchanged.")
    ] = None,
    output: Table = None,
    reference: Annotated[str | None, typer.Option(help="Condition to compare with. [default: the first]")] = None,
    label_key: Annotated[str | None, typer.Option(help="Column of obs with labels whose shares are compared.")] = None,
    gene: Annotated[list[str] | None, typer.Option(help="Gene whose mean is compared; repeatable.")] = None,
    layer: Annotated[str | None, typer.Option(help="Layer with the values of the genes. [default: X]")] = None,
    method: Annotated[str | None, typer.Option(help="Also fit each sample by this method.")] = None,
    time: Annotated[list[str] | None, typer.Option(help="Time to predict by these fits; repeatable.")] = None,
    use_rep: UseRep = None,
    n_dims: NDims = None,
    weight_key: WeightKey = None,
    nan: Nan = "raise",
    alpha: Annotated[float, typer.Option(help="Level of the verdict.")] = 0.05,
    n_perm: Annotated[int, typer.Option(help="Most relabelings.")] = 9999,
    max_cells: Annotated[int, typer.Option(help="Cells of a sample in a distance, at most.")] = 500,
    min_cells: Annotated[int, typer.Option(help="Cells of a sample at a time, at least.")] = 10,
    n_jobs: Annotated[int, typer.Option(help="Distances and fits at the same time; -1 is one for each core.")] = 1,
    seed: Seed = 0,
    device: Device = "auto",
    n_steps: NSteps = None,
    lr: Lr = None,
    batch_size: BatchSize = None,
    option: Options = None,
    as_json: AsJson = False,
    force: Force = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Say what differs between conditions, when, and how sure that is, over samples.

    Example: wlm compare in.h5ad --time-key day --condition-key arm --sample-key mouse -o differences.csv
    """
    with writing(output, kinds=TABLES, force=force) as write:
        adata = read(source)
        with no_information():  # the verdict is printed with the table
            table = wlm.tl.compare(
                adata,
                time_key,
                condition_key,
                sample_key=sample_key,
                batch_key=batch_key,
                reference=reference,
                label_key=label_key,
                genes=gene or (),
                layer=layer,
                method=method,
                times=time or None,
                use_rep=use_rep,
                n_dims=n_dims,
                weight_key=weight_key,
                nan=nan,
                alpha=alpha,
                n_perm=n_perm,
                max_cells=max_cells,
                min_cells=min_cells,
                n_jobs=n_jobs,
                rng=seed,
                device=device,
                show_progress=sys.stderr.isatty() and not quiet,
                **read_options(option, n_steps=n_steps, lr=lr, batch_size=batch_size),
            )
        write(table)
    found = {"rows": table.to_dict("records"), **{name: table.attrs[name] for name in ("verdict", "glossary")}}
    whole = table[table["name"] == ""].drop(columns="name")
    print_table(whole, found if as_json else None, digits=3, index=False, na_rep="-")
