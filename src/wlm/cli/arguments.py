"""Arguments that commands share, and how their text is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pandas as pd

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
SampleKey = Annotated[
    str | None, typer.Option(help="Column of obs with samples, which all models of an ensemble but one draw again.")
]
Growth = Annotated[
    str | None,
    typer.Option(help="Do cells divide and die? true (rates are learned), prior, or false. [default: false]"),
]
CloneKey = Annotated[
    str | None, typer.Option(help="Clones: a column of obs, or a key of obsm with a matrix of cells and clones.")
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
NModels = Annotated[int, typer.Option(help="Models of an ensemble; with growth all but one redraw the cells.")]
Patience = Annotated[
    int | None, typer.Option(help="Steps after which a training ends if cells set aside are predicted no better.")
]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="NAME=VALUE", help="Option of the method, such as n_steps=400; repeatable."),
]
NSteps = Annotated[int | None, typer.Option(help="Training steps. [default: the method's]")]
Lr = Annotated[float | None, typer.Option(help="Learning rate. [default: the method's]")]
BatchSize = Annotated[int | None, typer.Option(help="Cells of each time in a step. [default: the method's]")]
Table = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="TABLE", help="Also write the table: .csv, .tsv or .json.")
]
Key = Annotated[str, typer.Option(help="Name of the fit.")]
Condition = Annotated[str | None, typer.Option(help="Of fits by condition, which one; the same as its key.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite OUT.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, warnings only.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def read_options(pairs: list[str] | None, **named: Any) -> dict[str, Any]:
    """Options of the method: those with a name of their own, and pairs, whose values are JSON or else text."""
    options = {name: value for name, value in named.items() if value is not None}
    for pair in pairs or []:
        name, equals, text = pair.partition("=")
        name = name.strip()
        if not equals or not name:
            raise ValueError(f"--option wants NAME=VALUE, found {pair!r}")
        if name in options:
            raise ValueError(f"{name} is given twice, the second time by --option {pair!r}; leave one of them out")
        try:
            options[name] = json.loads(text)
        except json.JSONDecodeError:
            options[name] = text
    return options


def read_number(text: str | None) -> float | str | None:
    """A number where the text is one."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def read_switch(text: str) -> bool | str:
    """A truth value where the text is one."""
    return {"true": True, "false": False}.get(text.lower(), text)


def check_method(name: str, options: dict[str, Any]) -> None:
    """Refuse a wrong option before a large file is read."""
    from wlm.core.methods import get_method

    get_method(name, options)


def print_table(table: pd.DataFrame, found: dict[str, Any] | None, *, digits: int = 4, **style: Any) -> None:
    """Print what was ``found`` as JSON; without it the table, and its verdict if it has one: the log explains that."""
    if found is not None:
        typer.echo(json.dumps(without_nan(found)))
        return
    typer.echo(table.to_string(float_format=lambda x: f"{x:.{digits}g}", **style))
    if table.attrs.get("verdict"):
        typer.echo(table.attrs["verdict"])


def without_nan(value: Any) -> Any:
    """The same with None, which JSON has, for numbers that are none."""
    if isinstance(value, dict):
        return {k: without_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and value != value else value
