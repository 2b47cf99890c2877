"""The next experiment."""

from __future__ import annotations

import json
from typing import Annotated

import typer

import wlm
from wlm._logging import quiet as no_information
from wlm.cli.app import app, guarded
from wlm.cli.arguments import AsJson, Condition, Debug, Force, In, Key, Quiet, Seed, Table, print_table
from wlm.cli.files import TABLES, read, writing


@app.command()
@guarded
def plan(
    source: In,
    output: Table = None,
    key: Key = "wlm",
    condition: Condition = None,
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
    as_json: AsJson = False,
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
                condition=condition,
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
    print_table(table, {**table.attrs, "rows": table.to_dict("records")} if as_json else None, index=False)
