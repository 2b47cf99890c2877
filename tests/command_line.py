"""The command line in tests: running a command, and what a refusal looks like."""

from typer.testing import CliRunner

from wlm.cli import app


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def failed(result, code, words):
    """One line on standard error with ``words``, nothing on standard output, and this exit code."""
    assert result.exit_code == code, result.output
    assert result.stdout == "" and "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("wlm: error: ")]
    assert len(lines) == 1 and words in lines[0], result.stderr
    return True
