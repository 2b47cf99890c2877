"""The command ``wlm``: the verbs of ``wlm.pp`` and ``wlm.tl`` for files, made for pipelines.

Exit codes: 0 fine; 1 ``doctor`` found errors, or something failed that should not (with a traceback); 2 wrong usage
or unusable input; 3 training diverged; 130 interrupted. Results go to standard output, everything else to standard
error.
"""

# What the commands need is imported inside them: `wlm --help` answers at once.

from __future__ import annotations

import functools
import json
import shlex
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

import wlm
from wlm._logging import quiet as no_information
from wlm.cli.files import TABLES, opened, read, writing

FAILED, UNUSABLE, DIVERGED, INTERRUPTED = 1, 2, 3, 130

app = typer.Typer(
    name="wlm",
    help="Learn how cell populations move, from time-labelled single cells.\n\n"
    "IN and OUT are .h5ad or .zarr. Results go to standard output, progress and messages to standard error.\n\n"
    "Exit codes: 0 fine; 1 doctor found errors (or an unforeseen failure); 2 wrong usage or unusable input; "
    "3 training diverged; 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain text, in a log file too
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

In = Annotated[Path, typer.Argument(metavar="IN", help="Cells, .h5ad or .zarr.")]
Out = Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Where to write, .h5ad or .zarr.")]
TimeKey = Annotated[str, typer.Option(help="Column of obs with the times.")]
UseRep = Annotated[
    str | None, typer.Option(help="Key of obsm with the coordinates; by default X_pca, or pca where only that is.")
]
NDims = Annotated[int | None, typer.Option(help="Use only the first dimensions.")]
VelocityKey = Annotated[str | None, typer.Option(help="Velocities: a key of obsm, a layer, or auto.")]
VelocityScale = Annotated[
    str | None, typer.Option(help="Factor to speeds, or 'calibrate'. [default: calibrated for RNA velocities, else 1]")
]
ConditionKey = Annotated[str | None, typer.Option(help="Column of obs with conditions, each with a fit of its own.")]
Nan = Annotated[str, typer.Option(help="Cells without a time: raise, or drop to leave them out.")]
WeightKey = Annotated[str | None, typer.Option(help="Column of obs with weights of the cells.")]
StrataKey = Annotated[
    str | None, typer.Option(help="Column of obs with samples, which every batch holds in proportion to their cells.")
]
Growth = Annotated[
    str | None,
    typer.Option(help="Do cells divide and die? true (rates are learned), prior, or false. [default: false]"),
]
GrowthKey = Annotated[str | None, typer.Option(help="Column of obs with net rates of the cells per unit of time.")]
Totals = Annotated[
    str | None,
    typer.Option(help="Column of obs with the size of the population at each time; without, rates are relative."),
]
Held = Annotated[
    list[str] | None,
    typer.Option(
        help="A time to hold out, each on its own; repeatable. Or: each (inner one), all (also the last). "
        "[default: each]"
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Device = Annotated[str, typer.Option(help="auto (CUDA where there is one, else cpu), or a torch device.")]
NModels = Annotated[int, typer.Option(help="Models of an ensemble.")]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="NAME=VALUE", help="Option of the method, such as n_steps=400; repeatable."),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite OUT.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, warnings only.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Give errors of the input one line and their exit code; what is unforeseen keeps its traceback."""

    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            with no_information() if kwargs.get("quiet") else nullcontext():
                command(*args, **kwargs)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            _fail("interrupted", INTERRUPTED)
        except (KeyError, ValueError, TypeError, OSError, ImportError) as error:
            _fail(error, UNUSABLE, debug=kwargs["debug"])
        except RuntimeError as error:
            from wlm.core.training import TrainingError

            if not isinstance(error, TrainingError):
                raise
            _fail(error, DIVERGED, debug=kwargs["debug"])

    return guarded


def _fail(error: Exception | str, code: int, *, debug: bool = False) -> NoReturn:
    """Say in one line what is wrong, and leave."""
    if debug:
        traceback.print_exc()
    # The text of a KeyError is its argument, not the quoted form that str() gives.
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    typer.echo(f"wlm: error: {' '.join(str(text).split()) or type(error).__name__}", err=True)
    raise typer.Exit(code)


def _version(*, asked: bool) -> None:
    if asked:
        typer.echo(f"wlm {wlm.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version.", is_eager=True, callback=lambda value: _version(asked=value)
        ),
    ] = False,
) -> None:
    """Parse what comes before the command."""


@app.command()
@_guarded
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
    condition_key: ConditionKey = None,
    growth: Growth = None,
    growth_key: GrowthKey = None,
    totals: Totals = None,
    nan: Nan = "raise",
    holdout: Annotated[list[str] | None, typer.Option(help="A time to leave out of training; repeatable.")] = None,
    backtest: Annotated[bool, typer.Option(help="Ask the last training time what forecasts are to follow.")] = True,
    n_models: NModels = 1,
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
    option: Options = None,
    force: Force = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Learn how the population moves; OUT is IN with the fit.

    Example: wlm fit in.h5ad --time-key day -o out.h5ad --holdout 3 --option n_steps=400
    """
    options = {**({} if growth is None else {"growth": _switch(growth)}), **_options(option)}
    with writing(output, force=force) as write:
        _check_method(method, options)
        adata = read(source)
        wlm.tl.fit(
            adata,
            time_key,
            method=method,
            use_rep=use_rep,
            n_dims=n_dims,
            velocity_key=velocity_key,
            velocity_scale=_number(velocity_scale),
            weight_key=weight_key,
            strata_key=strata_key,
            condition_key=condition_key,
            growth_key=growth_key,
            totals=totals,
            nan=nan,
            holdout=holdout or None,
            backtest=backtest,
            n_models=n_models,
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
@_guarded
def predict(
    source: In,
    times: Annotated[list[str], typer.Argument(metavar="TIMES...", help="Times to predict, numbers or labels.")],
    output: Out,
    key: Annotated[str, typer.Option(help="Name of the fit.")] = "wlm",
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
        list[str] | None, typer.Option(help="Embedding that predicted cells get a place in; repeatable.")
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


@app.command()
@_guarded
def fates(
    source: In,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUT", help="Also write IN with the fates: .h5ad or .zarr.")
    ] = None,
    key: Annotated[str, typer.Option(help="Name of the fit.")] = "wlm",
    label_key: Annotated[
        str | None, typer.Option(help="Column of obs with cell types; without it, groups of cells are found.")
    ] = None,
    state: Annotated[
        list[str] | None, typer.Option(help="A label to take as terminal; repeatable. [default: those that stay]")
    ] = None,
    n_states: Annotated[int | None, typer.Option(help="Without labels, how many groups there are.")] = None,
    at: Annotated[str | None, typer.Option(help="Time of the fates: the last training time, or a later one.")] = None,
    count: Annotated[
        str, typer.Option(help="With growth, what chances are of: lineages, or cells, the descendants at the end.")
    ] = "lineages",
    n_draws: Annotated[int, typer.Option(help="Repetitions of stochastic dynamics.")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    seed: Seed = 0,
    force: Force = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find terminal states and how likely each cell ends in each; OUT is IN with both.

    Example: wlm fates fitted.h5ad --label-key cell_type -o fates.h5ad
    """
    with writing(output, force=force) as write:
        adata = read(source)
        common: dict[str, Any] = {"key": key, "n_draws": n_draws, "rng": seed}
        table = wlm.tl.terminal_states(adata, label_key=label_key, states=state or None, n_states=n_states, **common)
        wlm.tl.fates(adata, at=at, count=count, **common)
        write(adata)
    note = adata.uns[f"{key}_fates"]
    columns = ("names", "observed", "predicted", "decided_at")
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*(note[k].tolist() for k in columns), strict=True)]
    if as_json:
        found = {"states": table.to_dict("records"), "fates": rows}
        found |= {k: float(note[k]) for k in ("at", "missed", "tolerated")}
        typer.echo(json.dumps(_without_nan(found)))
        return
    typer.echo(table.to_string(index=False, float_format=lambda x: f"{x:.3g}"))
    by = f"of {note['count']}, by the growth of the fit" if "growth" in adata.uns[key] else "by balanced transport"
    typer.echo(f"\nfates at {note['at']:g}, {by}:")
    for row in rows:
        when = (
            "never half decided"
            if row["decided_at"] != row["decided_at"]
            else f"half decided by {row['decided_at']:.3g}"
        )
        typer.echo(f"  {row['names']}: observed {row['observed']:.0%}, free rollout {row['predicted']:.0%}; {when}")


def _without_nan(value: Any) -> Any:
    """The same with None, which JSON has, for numbers that are none."""
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and value != value else value


@app.command()
@_guarded
def evaluate(
    source: In,
    time_key: TimeKey,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="TABLE", help="Also write the table: .csv, .tsv or .json.")
    ] = None,
    method: Annotated[list[str] | None, typer.Option(help="Method; repeatable. [default: wlm]")] = None,
    use_rep: UseRep = None,
    n_dims: NDims = None,
    velocity_key: VelocityKey = None,
    velocity_scale: VelocityScale = None,
    weight_key: WeightKey = None,
    strata_key: StrataKey = None,
    condition_key: ConditionKey = None,
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
    max_cells: Annotated[int, typer.Option(help="Cells scored a side, at most.")] = 5000,
    n_boot: Annotated[int, typer.Option(help="Samples for intervals of differences; 0 for none.")] = 100,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for finished fits; the same call makes only those that it lacks.")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    option: Options = None,
    force: Force = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Hold out times one by one, fit on the others, and print the scores beside those of the naive answers.

    Example: wlm evaluate in.h5ad --time-key day --seeds 3 -o scores.csv
    """
    options = _options(option)
    with writing(output, kinds=TABLES, force=force) as write:
        for name in method or ["wlm"]:
            _check_method(name, options)
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
                velocity_scale=_number(velocity_scale),
                weight_key=weight_key,
                strata_key=strata_key,
                condition_key=condition_key,
                group_key=group_key,
                growth_key=growth_key,
                totals=totals,
                label_key=label_key,
                nan=nan,
                device=device,
                n_models=n_models,
                max_cells=max_cells,
                n_boot=n_boot,
                cache=cache,
                **options,
            )
        write(table)
    typer.echo(table.to_string(index=False, float_format=lambda x: f"{x:.4g}"))
    if table.attrs["verdict"]:
        typer.echo(table.attrs["verdict"])


@app.command()
@_guarded
def gene_trends(
    source: In,
    genes: Annotated[list[str], typer.Argument(metavar="GENES...", help="Names of genes.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="TABLE", help="Also write the table: .csv, .tsv or .json.")
    ] = None,
    groupby: Annotated[str | None, typer.Option(help="Column of obs with labels, or fates.")] = None,
    key: Annotated[str, typer.Option(help="Name of the fit.")] = "wlm",
    times: Annotated[list[str] | None, typer.Option("--time", help="A time to include; repeatable.")] = None,
    layer: Annotated[str | None, typer.Option(help="Where observed expression is. [default: as the PCA]")] = None,
    n_cells: Annotated[int | None, typer.Option(help="Predicted cells for each time; all by default.")] = None,
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    force: Force = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Follow the expression of genes over time, observed and predicted, of all cells or by group.

    Example: wlm gene-trends fitted.h5ad GATA1 SPI1 --groupby cell_type -o trends.csv
    """
    with writing(output, kinds=TABLES, force=force) as write:
        adata = read(source)
        table = wlm.tl.gene_trends(
            adata, genes, groupby=groupby, key=key, times=times or None, layer=layer, n_cells=n_cells, rng=seed
        )
        table.attrs["verdict"] = ""
        write(table)
    if as_json:
        typer.echo(json.dumps({"rows": json.loads(table.to_json(orient="records"))}))
        return
    typer.echo(table.to_string(index=False, float_format=lambda x: f"{x:.4g}"))


@app.command()
@_guarded
def evaluate_clones(
    source: In,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="TABLE", help="Also write the table: .csv, .tsv or .json.")
    ] = None,
    clone_key: Annotated[
        str, typer.Option(help="Column of obs with clones, or key of obsm with a matrix of cells and clones.")
    ] = "X_clone",
    label_key: Annotated[str | None, typer.Option(help="Column of obs with labels, such as cell types.")] = None,
    labels: Annotated[
        list[str] | None, typer.Option("--label", help="A label to tell apart; repeatable. [default: all]")
    ] = None,
    start: Annotated[str | None, typer.Option(help="Observed time. [default: the last training time but one]")] = None,
    end: Annotated[str | None, typer.Option(help="Observed time. [default: the last training time]")] = None,
    key: Annotated[str, typer.Option(help="Name of the fit.")] = "wlm",
    n_boot: Annotated[int, typer.Option(help="Samples of clones for intervals; 0 for none.")] = 1000,
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
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
                n_boot=n_boot,
                rng=seed,
            )
        write(table)
    if as_json:
        typer.echo(json.dumps({**table.attrs, "rows": json.loads(table.to_json(orient="records"))}))
        return
    typer.echo(table.to_string(index=False, float_format=lambda x: f"{x:.4g}"))
    typer.echo(table.attrs["verdict"])


@app.command()
@_guarded
def drivers(
    source: In,
    fate: Annotated[
        str | None, typer.Option(help="Name of a fate, or a column of obs. [default: the flow of all cells]")
    ] = None,
    label: Annotated[str | None, typer.Option(help="The label that is the fate, where --fate is a column.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="TABLE", help="Also write the table: .csv, .tsv or .json.")
    ] = None,
    key: Annotated[str, typer.Option(help="Name of the fit.")] = "wlm",
    times: Annotated[list[str] | None, typer.Option("--time", help="A time to compare cells at; repeatable.")] = None,
    n_perm: Annotated[int, typer.Option(help="Permutations.")] = 1000,
    n_boot: Annotated[int, typer.Option(help="Samples for intervals; 0 for none.")] = 200,
    transcription_factors: Annotated[
        Path | None, typer.Option(help="File with the names of transcription factors, one a line.")
    ] = None,
    top: Annotated[int, typer.Option(help="Genes to print.")] = 20,
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, all genes.")] = False,
    force: Force = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Rank the genes that the dynamics of the fit in IN turn towards a fate.

    Example: wlm drivers fitted.h5ad --fate fate --label A -o drivers.csv
    """
    if label is not None and fate is None:
        raise ValueError("--label names a label of a column; pass the column too: --fate COLUMN")
    names = None if transcription_factors is None else transcription_factors.read_text().split()
    with writing(output, kinds=TABLES, force=force) as write:
        adata = read(source)
        with no_information():  # the verdict is printed with the table
            table = wlm.tl.drivers(
                adata,
                fate if label is None or fate is None else (fate, label),
                key=key,
                times=times or None,
                n_perm=n_perm,
                n_boot=n_boot,
                transcription_factors=names,
                rng=seed,
            )
        rows = table.reset_index()
        rows.attrs = table.attrs
        write(rows)
    if as_json:
        typer.echo(json.dumps({**table.attrs, "genes": json.loads(rows.to_json(orient="records"))}))
        return
    shown = ["effect", "low", "high", "p", "q", "role", "decode_r2", *(["tf"] if "tf" in table else [])]
    typer.echo(table[shown].head(top).to_string(float_format=lambda x: f"{x:.4g}"))
    typer.echo(f"{table.attrs['verdict']} ({table.attrs['assumption']})")


@app.command()
@_guarded
def velocity(
    source: In,
    output: Out,
    method: Annotated[
        str, typer.Option(help="scvelo, steady_state (wlm's own), or auto: scVelo where it can run.")
    ] = "auto",
    mode: Annotated[str, typer.Option(help="The model: deterministic, stochastic or dynamical.")] = "deterministic",
    min_shared_counts: Annotated[int, typer.Option(help="Keep genes with that many counts of both kinds.")] = 20,
    n_top_genes: Annotated[int, typer.Option(help="Keep the most variable genes.")] = 2000,
    n_comps: Annotated[int, typer.Option(help="Principal components.")] = 30,
    n_neighbors: Annotated[int, typer.Option(help="Neighbours for the moments.")] = 30,
    subset_genes: Annotated[bool, typer.Option("--subset-genes", help="Remove the genes that were not used.")] = False,
    bins: Annotated[
        int | None, typer.Option(help="Also order the cells by velocity pseudotime, and put them into that many bins.")
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compute RNA velocities from spliced and unspliced counts; OUT is IN with them, and with principal components.

    Example: wlm velocity counts.h5ad -o in.h5ad
    """
    with writing(output, force=force) as write:
        adata = read(source)
        wlm.pp.velocity(
            adata,
            method=method,
            mode=mode,
            min_shared_counts=min_shared_counts,
            n_top_genes=n_top_genes,
            n_comps=n_comps,
            n_neighbors=n_neighbors,
            pseudotime=bins is not None,
            subset_genes=subset_genes,
        )
        if bins is not None:
            wlm.pp.bin_time(adata, key="velocity_pseudotime", n_bins=bins)
        write(adata)


@app.command()
@_guarded
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
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="TABLE", help="Also write the table: .csv, .tsv or .json.")
    ] = None,
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
    option: Options = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
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
                **_options(option),
            )
        write(table)
    if as_json:
        typer.echo(json.dumps({"rows": json.loads(table.to_json(orient="records")), "verdict": table.attrs["verdict"]}))
        return
    whole = table[table["name"] == ""].drop(columns="name")
    typer.echo(whole.to_string(index=False, float_format=lambda x: f"{x:.3g}", na_rep="-"))
    typer.echo(table.attrs["verdict"])


@app.command()
@_guarded
def plan(
    source: In,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="TABLE", help="Also write the table: .csv, .tsv or .json.")
    ] = None,
    key: Annotated[str, typer.Option(help="Name of the fit.")] = "wlm",
    n_times: Annotated[int, typer.Option(help="Times to pick.")] = 1,
    n_cells: Annotated[int | None, typer.Option(help="Cells to measure at each. [default: as many as pay]")] = None,
    cost: Annotated[str | None, typer.Option(help="Cost of a day in cells, or JSON with day and cell.")] = None,
    candidates: Annotated[
        list[str] | None, typer.Option("--candidate", help="A time that can be sampled; repeatable.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Also look beyond the last time, up to this one.")] = None,
    pace: Annotated[float, typer.Option(help="How uneven the pace of a course may be.")] = 0.5,
    n_courses: Annotated[int, typer.Option(help="Courses to draw.")] = 48,
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    force: Force = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Say which time to sample next, how many cells, and whether evenly spaced is as good, by the fit in IN.

    Example: wlm plan fitted.h5ad --n-times 2 --cost 500
    """
    with writing(output, kinds=TABLES, force=force) as write:
        try:
            price = None if cost is None else json.loads(cost)
        except json.JSONDecodeError:
            raise ValueError(
                f'--cost wants a number, or JSON such as \'{{"day": 800, "cell": 0.5}}\', found {cost!r}'
            ) from None
        adata = read(source)
        with no_information():  # the verdict is printed with the table
            table = wlm.tl.plan(
                adata,
                key=key,
                n_times=n_times,
                n_cells=n_cells,
                cost=price,
                candidates=candidates or None,
                until=until,
                pace=pace,
                n_courses=n_courses,
                rng=seed,
            )
        write(table)
    if as_json:
        typer.echo(json.dumps(_without_nan({**table.attrs, "rows": table.to_dict("records")})))
        return
    typer.echo(table.to_string(index=False, float_format=lambda x: f"{x:.4g}"))
    typer.echo(table.attrs["verdict"])


@app.command()
@_guarded
def doctor(
    source: In,
    time_key: Annotated[
        str | None, typer.Option(help="Column of obs with the times; by default it is guessed.")
    ] = None,
    use_rep: UseRep = None,
    n_dims: NDims = None,
    velocity_key: VelocityKey = None,
    method: Annotated[str, typer.Option(help="Method whose training is timed.")] = "wlm",
    nan: Nan = "raise",
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Look cells over before a fit, and propose the call. The exit code is 1 if a fit would refuse them.

    Reads a sample of the expression only, so that large files take seconds.
    """
    with opened(source) as adata:
        report = wlm.pp.doctor(
            adata,
            time_key=time_key,
            use_rep=use_rep,
            n_dims=n_dims,
            velocity_key=velocity_key,
            method=method,
            nan=nan,
            device=device,
        )
    errors = int((report["level"] == "error").sum())
    command = _fit_command(source, report.attrs["arguments"])
    if as_json:
        checks = report.to_dict("records")
        typer.echo(json.dumps({"checks": checks, "errors": errors, "call": report.attrs["call"], "command": command}))
    else:
        typer.echo(report.attrs["summary"])
        if command:
            typer.echo(f"\n{'After mending the errors:' if errors else 'To fit:'}")
            typer.echo(f"  {report.attrs['call']}\n  {command}")
    if errors:
        raise typer.Exit(FAILED)


def _fit_command(source: Path, arguments: dict[str, Any]) -> str:
    """The proposed call as a command."""
    if not arguments:
        return ""
    words = ["wlm", "fit", str(source), "-o", str(source.with_name(f"{source.stem}_fitted{source.suffix}"))]
    for name, value in arguments.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def _options(pairs: list[str] | None) -> dict[str, Any]:
    """Options of the method: values are JSON (numbers, true, null), or else text."""
    options = {}
    for pair in pairs or []:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"--option wants NAME=VALUE, found {pair!r}")
        try:
            options[name.strip()] = json.loads(text)
        except json.JSONDecodeError:
            options[name.strip()] = text
    return options


def _number(text: str | None) -> float | str | None:
    """A number where the text is one."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _switch(text: str) -> bool | str:
    """A truth value where the text is one."""
    return {"true": True, "false": False}.get(text.lower(), text)


def _check_method(name: str, options: dict[str, Any]) -> None:
    """Refuse a wrong option before a large file is read."""
    from wlm.core.methods import get_method

    get_method(name, options)
