"""The fit, and what it predicts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

import wlm
from wlm.cli.app import app, guarded
from wlm.cli.arguments import (
    BatchSize,
    CloneKey,
    Condition,
    ConditionKey,
    Debug,
    Device,
    Force,
    Growth,
    GrowthKey,
    In,
    Key,
    Lr,
    Nan,
    NDims,
    NModels,
    NSteps,
    Options,
    Out,
    Patience,
    Quiet,
    SampleKey,
    Seed,
    StrataKey,
    TimeKey,
    Totals,
    UseRep,
    VelocityKey,
    VelocityScale,
    WeightKey,
    check_method,
    read_number,
    read_options,
    read_switch,
)
from wlm.cli.files import read, writing


@app.command()
@guarded
def fit(
    source: In,
    time_key: TimeKey,
    output: Out,
    method: Annotated[str, typer.Option(help="Method.")] = "wlm",
    use_rep: UseRep = None,
    n_dims: NDims = None,
    velocity_key: VelocityKey = None,
    velocity_scale: VelocityScale = None,
    weight_key: WeightKey = None,
    strata_key: StrataKey = None,
    sample_key: SampleKey = None,
    condition_key: ConditionKey = None,
    clone_key: CloneKey = None,
    growth: Growth = None,
    growth_key: GrowthKey = None,
    totals: Totals = None,
    nan: Nan = "raise",
    holdout: Annotated[list[str] | None, typer.Option(help="A time to leave out of training; repeatable.")] = None,
    backtest: Annotated[bool, typer.Option(help="Ask the last training time what forecasts are to follow.")] = True,
    n_models: NModels = 1,
    patience: Patience = None,
    key_added: Annotated[str, typer.Option(help="Name under which the fit is stored.")] = "wlm",
    store_model: Annotated[bool, typer.Option(help="Store what predictions need.")] = True,
    checkpoint: Annotated[
        Path | None, typer.Option(help="File to write the training to; the same call goes on from it after a crash.")
    ] = None,
    on_interrupt: Annotated[
        str, typer.Option(help="What Ctrl-C does: raise, or keep the model so far and write it.")
    ] = "raise",
    seed: Seed = 0,
    device: Device = "auto",
    n_steps: NSteps = None,
    lr: Lr = None,
    batch_size: BatchSize = None,
    option: Options = None,
    force: Force = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Learn how the population moves; OUT is IN with the fit.

    Example: wlm fit in.h5ad --time-key day -o out.h5ad --holdout 3 --n-steps 400
    """
    options = {
        **({} if growth is None else {"growth": read_switch(growth)}),
        **read_options(option, n_steps=n_steps, lr=lr, batch_size=batch_size),
    }
    with writing(output, force=force) as write:
        check_method(method, options)
        adata = read(source)
        wlm.tl.fit(
            adata,
            time_key,
            method=method,
            use_rep=use_rep,
            n_dims=n_dims,
            velocity_key=velocity_key,
            velocity_scale=read_number(velocity_scale),
            weight_key=weight_key,
            strata_key=strata_key,
            sample_key=sample_key,
            condition_key=condition_key,
            clone_key=clone_key,
            growth_key=growth_key,
            totals=totals,
            nan=nan,
            holdout=holdout or None,
            backtest=backtest,
            n_models=n_models,
            patience=patience,
            key_added=key_added,
            store_model=store_model,
            checkpoint=checkpoint,
            on_interrupt=on_interrupt,
            rng=seed,
            device=device,
            show_progress=sys.stderr.isatty() and not quiet,
            **options,
        )
        write(adata)


@app.command()
@guarded
def predict(
    source: In,
    times: Annotated[list[str], typer.Argument(metavar="TIMES...", help="Times to predict, numbers or labels.")],
    output: Out,
    key: Key = "wlm",
    condition: Condition = None,
    from_time: Annotated[str | None, typer.Option(help="Observed time to start from.")] = None,
    n_cells: Annotated[int | None, typer.Option(help="Cells for each time; all by default.")] = None,
    resample: Annotated[
        bool | None, typer.Option(help="Of a fit with growth: rows in place of weights; by default where few count.")
    ] = None,
    genes: Annotated[bool, typer.Option("--genes", help="Decode the cells to gene expression.")] = False,
    gene: Annotated[list[str] | None, typer.Option(help="Decode this gene alone; repeatable.")] = None,
    labels: Annotated[
        list[str] | None, typer.Option("--label-key", help="Column of obs that predicted cells get; repeatable.")
    ] = None,
    basis: Annotated[
        list[str] | None,
        typer.Option(help="Embedding in which predicted cells get the place of the nearest cell; repeatable."),
    ] = None,
    append: Annotated[bool, typer.Option("--append", help="OUT holds the observed cells too.")] = False,
    chunk_size: Annotated[int, typer.Option(help="Cells that move at once; bounds memory and time.")] = 10_000,
    seed: Seed = 0,
    force: Force = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Predict the cells at any times from the fit in IN; OUT holds the predicted cells.

    Example: wlm predict fitted.h5ad 2 2.5 -o predicted.h5ad
    """
    with writing(output, force=force) as write:
        adata = read(source)
        predicted = wlm.tl.predict(
            adata,
            times,
            key=key,
            condition=condition,
            from_time=from_time,
            n_cells=n_cells,
            resample=resample,
            genes=gene or genes,
            labels=labels,
            basis=basis,
            append=append,
            chunk_size=chunk_size,
            rng=seed,
        )
        write(predicted)
