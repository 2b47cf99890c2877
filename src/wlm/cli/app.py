"""The command ``wlm``: what comes before each command, and how errors end.

Exit codes: 0 fine; 1 ``doctor`` found errors, or something failed that should not (with a traceback); 2 wrong usage
or unusable input; 3 training diverged; 130 interrupted. Results go to standard output, everything else to standard
error.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from typing import Annotated, Any, NoReturn

import typer

import wlm
from wlm._logging import quiet as no_information

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


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Give errors of the input one line and their exit code; what is unforeseen keeps its traceback."""

    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            with no_information() if kwargs.get("quiet") else nullcontext():
                command(*args, **kwargs)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            fail("interrupted", INTERRUPTED)
        except (KeyError, ValueError, TypeError, OSError, ImportError) as error:
            fail(error, UNUSABLE, debug=kwargs["debug"])
        except RuntimeError as error:
            from wlm.core.training import TrainingError

            if not isinstance(error, TrainingError):
                raise
            fail(error, DIVERGED, debug=kwargs["debug"])

    return guarded


def fail(error: Exception | str, code: int, *, debug: bool = False) -> NoReturn:
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
