"""Before a fit: looking an object over, and RNA velocities."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

import wlm
from wlm.cli.app import FAILED, app, guarded
from wlm.cli.arguments import AsJson, Debug, Device, Force, In, Nan, NDims, Out, Quiet, UseRep, VelocityKey
from wlm.cli.files import opened, read, writing


@app.command()
@guarded
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
    as_json: AsJson = False,
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


@app.command()
@guarded
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
