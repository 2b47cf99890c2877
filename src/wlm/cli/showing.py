"""What a file holds, drawn, and in one report."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

import wlm
from wlm.cli.app import app, guarded
from wlm.cli.arguments import AsJson, Condition, Debug, Force, In, Key, Quiet, Seed, read_options, without_nan
from wlm.cli.files import FIGURES, FILMS, PAGES, TABLES, read, read_notes, writing


@app.command()
@guarded
def info(
    source: In,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say which fits a file holds: method, times, cells, what was found. Only the fits are read.

    Example: wlm info fitted.h5ad
    """
    from wlm._store.facts import facts, in_words

    with read_notes(source) as notes:
        fits = [key for key in notes if notes.is_fit(key)]
        found = [facts(key, notes[key], list(notes)) for key in fits]
    if as_json:
        typer.echo(json.dumps(without_nan({"fits": found})))
        return
    if not found:
        typer.echo(f"{source} holds no fit; wlm doctor {source} proposes the command that makes one")
    for one in found:
        first, *rest = in_words(one)
        typer.echo("\n".join([first, *(f"  {line}" for line in rest)]))


@app.command()
@guarded
def plot(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="Cells with a fit, .h5ad or .zarr; or a table: .json, .csv, .tsv.")
    ],
    kind: Annotated[str, typer.Argument(metavar="KIND", help="Name of a plot of wlm.pl, such as rollout.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="OUT", help="Where to draw: .png, .svg or .pdf; a film: .gif or .mp4."),
    ],
    key: Annotated[str | None, typer.Option(help="Name of the fit. [default: wlm]")] = None,
    condition: Annotated[str | None, typer.Option(help="Of fits by condition, which one. [default: all]")] = None,
    basis: Annotated[str | None, typer.Option(help="Embedding to draw in, such as umap.")] = None,
    color: Annotated[str | None, typer.Option(help="Column of obs to colour cells by.")] = None,
    groupby: Annotated[str | None, typer.Option(help="Column of obs with labels.")] = None,
    gene: Annotated[list[str] | None, typer.Option(help="Gene to draw; repeatable.")] = None,
    time: Annotated[list[str] | None, typer.Option(help="Time to draw; repeatable.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="Any other argument of the plot.")
    ] = None,
    dpi: Annotated[int | None, typer.Option(help="Dots per inch of a .png or a film. [default: 150, 110]")] = None,
    force: Force = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Draw a plot of wlm.pl by its name: what a file holds, or a table that evaluate, compare or drivers wrote.

    Example: wlm plot fitted.h5ad rollout --basis umap --color cell_type -o rollout.png
    """
    if kind not in wlm.pl.__all__:
        raise ValueError(f"there is no plot {kind!r}; plots are {', '.join(sorted(wlm.pl.__all__))}")
    draw = getattr(wlm.pl, kind)
    asked = {
        "key": key,
        "condition": condition,
        "basis": basis,
        "color": color,
        "groupby": groupby,
        "genes": gene,
        "times": time,
    }
    if "time" in inspect.signature(draw).parameters:  # of plots of one time
        asked["time"] = asked.pop("times")
        if time is not None and len(time) > 1:
            raise ValueError(f"{kind} draws one --time, found {len(time)}")
        asked["time"] = None if time is None else time[0]
    arguments = read_options(option, **asked, dpi=dpi)
    film = "file" in inspect.signature(draw).parameters
    dots = arguments.get("dpi", 150) if film else arguments.pop("dpi", 150)
    if isinstance(dots, bool) or not isinstance(dots, (int, float)) or dots < 20:
        raise ValueError(f"--dpi must be a number of at least 20, found {dots!r}")
    _check_arguments(draw, kind, arguments)
    import matplotlib as mpl

    mpl.use("agg")
    with writing(output, kinds=FILMS if film else FIGURES, force=force) as write:
        given = _read(source)
        if film:
            write(lambda new: draw(given, file=new, **arguments))
            return
        figure = draw(given, show=False, return_fig=True, **arguments)
        write(lambda new: figure.savefig(new, dpi=dots))


def _read(source: Path) -> Any:
    """An object, or a table of a verb."""
    if source.suffix.lower() not in TABLES:
        return read(source)
    from wlm._report.tables import read_table

    table = read_table(source)
    return table.set_index("gene") if {"gene", "effect", "role"} <= set(table.columns) else table


def _check_arguments(draw: Any, kind: str, arguments: Mapping[str, Any]) -> None:
    """Refuse what the plot does not take, and say what it wants, before a large file is read."""
    first, *rest = inspect.signature(draw).parameters.values()
    takes = [p.name for p in rest if p.name not in ("ax", "show", "return_fig", "file", "save")]
    unknown = [name for name in arguments if name not in takes]
    if unknown:
        raise ValueError(f"{kind} takes no {', '.join(unknown)}; it takes {', '.join(takes)}")
    wanted = [p.name for p in rest if p.default is p.empty and p.kind is not p.VAR_KEYWORD and p.name not in arguments]
    if wanted:
        options = {"genes": "--gene", "times": "--time"}
        raise ValueError(f"{kind} wants {', '.join(options.get(n, f'--{n}') for n in wanted)}")


@app.command()
@guarded
def report(
    source: In,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Where to write, .html.")],
    key: Key = "wlm",
    condition: Condition = None,
    label_key: Annotated[
        str | None, typer.Option(help="Column of obs with cell types. [default: one that is named like it]")
    ] = None,
    basis: Annotated[str | None, typer.Option(help="Embedding to draw in. [default: UMAP, PHATE, ...]")] = None,
    gene: Annotated[
        list[str] | None, typer.Option(help="Gene to follow; repeatable. [default: those that change most]")
    ] = None,
    evaluation: Annotated[Path | None, typer.Option(help="Table of wlm evaluate, best as .json.")] = None,
    comparison: Annotated[Path | None, typer.Option(help="Table of wlm compare, best as .json.")] = None,
    drivers: Annotated[Path | None, typer.Option(help="Table of wlm drivers, best as .json.")] = None,
    title: Annotated[str | None, typer.Option(help="Title of the page.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: the sections, and what was left out.")] = False,
    seed: Seed = 0,
    force: Force = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write one HTML file with everything that is known of the fit in IN, for those who open no notebook.

    Example: wlm report fitted.h5ad -o report.html --evaluation scores.json
    """
    from wlm._report.verb import compose

    with writing(output, kinds=PAGES, force=force) as write:
        made = compose(
            read(source),
            key=key,
            condition=condition,
            label_key=label_key,
            basis=basis,
            genes=gene or None,
            evaluation=evaluation,
            comparison=comparison,
            drivers=drivers,
            title=title,
            mod=None,
            rng=seed,
            show_progress=sys.stderr.isatty() and not quiet,
        )
        write(lambda new: new.write_text(made.page, encoding="utf-8"))
    if as_json:
        sections = [
            {"name": s.name, "title": s.title, "left_out": s.left_out or None, "run": s.run or None}
            for s in made.sections
        ]
        found = {"path": str(output), "megabytes": round(made.megabytes, 3), "sections": sections}
        typer.echo(json.dumps(found | {"dropped_tables": list(made.dropped)}))
        return
    typer.echo(made.words)
