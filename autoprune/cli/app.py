"""The command line. Commands import what they need when they run, so that --help is quick."""

from __future__ import annotations

import typer

from autoprune.cli.choose import choose
from autoprune.cli.dashboard import dashboard
from autoprune.cli.doctor import doctor
from autoprune.cli.explain import explain
from autoprune.cli.export import export
from autoprune.cli.export_optuna import export_optuna
from autoprune.cli.front import front
from autoprune.cli.importances import importances
from autoprune.cli.mark import mark
from autoprune.cli.note import note
from autoprune.cli.profile import profile
from autoprune.cli.report import report
from autoprune.cli.run import run
from autoprune.cli.solve import solve

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Search how to prune a trained PyTorch model: smaller, faster, and how much accuracy it costs.",
)
#: Commands in the order of the help.
COMMANDS = (
    *(explain, profile, run, front, choose, mark, note, importances, solve, report, dashboard),
    *(export, export_optuna, doctor),
)
for command in COMMANDS:
    app.command()(command)
