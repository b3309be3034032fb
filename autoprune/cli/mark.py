"""The command `mark`."""

from __future__ import annotations

from typing import Annotated

import typer

from autoprune.cli.options import FolderArgument
from autoprune.cli.output import report_errors, tell
from autoprune.errors import ConfigurationError, error_message


@report_errors
def mark(
    folder: FolderArgument,
    number: Annotated[int | None, typer.Argument(help="Number of the candidate.")] = None,
    none: Annotated[bool, typer.Option("--none", help="Remove the mark.")] = False,
) -> None:
    """Mark a candidate as the chosen one, in the run folder; without a number, print the marked one.

    Reports and dashboards show the mark, and a later run does not delete the weights of the marked candidate.
    """
    from autoprune.front.run import Run

    run = Run.open(folder)
    if none and number is not None:
        raise ConfigurationError(error_message("a mark", "be on a number, or removed with --none", "both"))
    if none or number is not None:
        run.mark(number)
        removed = any(record.number == number and record.removed for record in run.records)
        if removed:
            tell(
                f"The weights of candidate {number} were deleted; its plan makes them again (evaluate_plan).", err=True
            )
    elif run.annotations.chosen is not None:
        typer.echo(run.annotations.chosen)
