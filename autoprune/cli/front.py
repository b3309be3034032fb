"""The command `front`."""

from __future__ import annotations

from typing import Annotated

import typer

from autoprune.cli.options import FolderArgument
from autoprune.cli.output import report_errors
from autoprune.display import csv_text, json_rows
from autoprune.errors import ConfigurationError, error_message


@report_errors
def front(
    folder: FolderArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Print the front of a run as a table."""
    from autoprune.front.run import Run
    from autoprune.report.terminal import show_doubts, show_ending, show_front

    if as_json and as_csv:
        raise ConfigurationError(error_message("the format", "be --json or --csv", "both"))
    opened = Run.open(folder)
    found = opened.front()
    if as_json:
        typer.echo(json_rows(found.rows(opened.annotations)))
    elif as_csv:
        typer.echo(csv_text(found.rows(opened.annotations)), nl=False)
    if as_json or as_csv:
        show_doubts(found, stderr=True)
    else:
        show_front(found, opened.annotations)
        show_ending(opened.ending)
