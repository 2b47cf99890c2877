"""What follows from a fit: fates, genes over time, drivers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import wlm
from wlm._logging import quiet as no_information
from wlm.cli.app import app, guarded
from wlm.cli.arguments import AsJson, Condition, Debug, Force, In, Key, Quiet, Seed, Table, print_table, without_nan
from wlm.cli.files import TABLES, read, writing


@app.command()
@guarded
def fates(
    source: In,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUT", help="Also write IN with the fates: .h5ad or .zarr.")
    ] = None,
    key: Key = "wlm",
    condition: Condition = None,
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
    as_json: AsJson = False,
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
        from wlm._store.group import fit_key  # imports numpy, for which --help must not wait

        key = fit_key(adata, key, condition, None)
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
        typer.echo(json.dumps(without_nan(found)))
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


@app.command()
@guarded
def gene_trends(
    source: In,
    genes: Annotated[list[str], typer.Argument(metavar="GENES...", help="Names of genes.")],
    output: Table = None,
    groupby: Annotated[str | None, typer.Option(help="Column of obs with labels, or fates.")] = None,
    key: Key = "wlm",
    condition: Condition = None,
    times: Annotated[list[str] | None, typer.Option("--time", help="A time to include; repeatable.")] = None,
    layer: Annotated[str | None, typer.Option(help="Where observed expression is. [default: as the PCA]")] = None,
    n_cells: Annotated[int | None, typer.Option(help="Predicted cells for each time; all by default.")] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
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
            adata,
            genes,
            groupby=groupby,
            key=key,
            condition=condition,
            times=times or None,
            layer=layer,
            n_cells=n_cells,
            rng=seed,
        )
        table.attrs["verdict"] = ""
        write(table)
    print_table(table, {"rows": table.to_dict("records")} if as_json else None, index=False)


@app.command()
@guarded
def drivers(
    source: In,
    fate: Annotated[
        str | None, typer.Option(help="Name of a fate, or a column of obs. [default: the flow of all cells]")
    ] = None,
    label: Annotated[str | None, typer.Option(help="The label that is the fate, where --fate is a column.")] = None,
    output: Table = None,
    key: Key = "wlm",
    condition: Condition = None,
    times: Annotated[list[str] | None, typer.Option("--time", help="A time to compare cells at; repeatable.")] = None,
    n_perm: Annotated[int, typer.Option(help="Permutations.")] = 1000,
    n_boot: Annotated[int, typer.Option(help="Samples for intervals; 0 for none.")] = 200,
    transcription_factors: Annotated[
        str | None,
        typer.Option(help="Genes to mark: jaspar, a column of var, or a file with names, one a line."),
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
    names: Any = transcription_factors
    if names is not None and Path(names).is_file():
        names = Path(names).read_text().split()
    with writing(output, kinds=TABLES, force=force) as write:
        adata = read(source)
        with no_information():  # the verdict is printed with the table
            table = wlm.tl.drivers(
                adata,
                fate if label is None or fate is None else (fate, label),
                key=key,
                condition=condition,
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
        typer.echo(json.dumps(without_nan({**table.attrs, "genes": rows.to_dict("records")})))
        return
    shown = ["effect", "low", "high", "p", "q", "role", "decode_r2", *(["tf"] if "tf" in table else [])]
    typer.echo(table[shown].head(top).to_string(float_format=lambda x: f"{x:.4g}"))
    typer.echo(f"{table.attrs['verdict']} ({table.attrs['assumption']})")


@app.command()
@guarded
def diagnose(
    source: In,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="OUT", help="Also write IN with the diagnosis: .h5ad or .zarr."),
    ] = None,
    key: Key = "wlm",
    condition: Condition = None,
    seeds: Annotated[int, typer.Option(help="Fits to take the spread of the friction over.")] = 1,
    holdout: Annotated[
        list[str] | None,
        typer.Option(help="A time to hold out to see whether velocities help; repeatable. Or: each. [default: none]"),
    ] = None,
    label_key: Annotated[
        str | None, typer.Option(help="Column of obs with labels: how much of what changes their shares is growth.")
    ] = None,
    n_jobs: Annotated[int, typer.Option(help="Fits at the same time; -1 is one for each core.")] = 1,
    seed: Seed = 0,
    as_json: AsJson = False,
    force: Force = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Say what kind of dynamics the fit in IN has found: friction, energies, inertia.

    Example: wlm diagnose fitted.h5ad --seeds 3 -o diagnosed.h5ad
    """
    with writing(output, force=force) as write:
        adata = read(source)
        with no_information():  # the verdict is printed with the table
            table = wlm.tl.diagnose(
                adata,
                key=key,
                condition=condition,
                seeds=seeds,
                holdout="each" if holdout == ["each"] else holdout or None,
                label_key=label_key,
                n_jobs=n_jobs,
                rng=seed,
                show_progress=sys.stderr.isatty() and not quiet,
            )
        write(adata)
    found = {"rows": table.reset_index(names="quantity").to_dict("records")}
    found |= {name: table.attrs[name] for name in ("verdict", "glossary")}
    if "composition" in table.attrs:
        found["composition"] = table.attrs["composition"].to_dict("records")
    print_table(table, found if as_json else None, digits=3, na_rep="-")
