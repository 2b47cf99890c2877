"""All commands, in the order in which ``wlm --help`` lists them."""

# What the commands need is imported inside them: `wlm --help` answers at once.

from wlm.cli.app import app
from wlm.cli.finding import diagnose, drivers, fates, gene_trends
from wlm.cli.fitting import fit, predict
from wlm.cli.judging import compare, evaluate, evaluate_clones
from wlm.cli.planning import plan
from wlm.cli.preparing import doctor, velocity
from wlm.cli.showing import info, plot, report

#: The order of work.
ORDER = (
    *("doctor", "velocity", "fit", "info", "predict", "evaluate", "evaluate_clones", "diagnose", "compare", "plan"),
    *("fates", "drivers", "gene_trends", "plot", "report"),
)
app.registered_commands.sort(key=lambda command: ORDER.index(command.callback.__name__))  # type: ignore[union-attr]

__all__ = [
    "app",
    "compare",
    "diagnose",
    "doctor",
    "drivers",
    "evaluate",
    "evaluate_clones",
    "fates",
    "fit",
    "gene_trends",
    "info",
    "plan",
    "plot",
    "predict",
    "report",
    "velocity",
]
