"""The command `note`."""

from __future__ import annotations

from typing import Annotated

import typer

from autoprune.cli.options import FolderArgument
from autoprune.cli.output import report_errors, tell


@report_errors
def note(
    folder: FolderArgument,
    text: Annotated[
        str | None, typer.Argument(help='The note, in place of the one that is there; "" removes it.')
    ] = None,
    candidate: Annotated[
        int | None, typer.Option(help="Number of the candidate that the note is on; the run when not given.")
    ] = None,
) -> None:
    """Write a note on a candidate or on the run into its folder; without a text, print the notes.

    Reports and dashboards show them.
    """
    from autoprune.front.run import Run

    run = Run.open(folder)
    if text is None:
        for line in run.annotations.lines(candidate):
            tell(line)
        return
    before = run.annotations.note_on(candidate)
    run.annotate(text, candidate)
    if before and before != text:
        tell(f"It replaces this note: {before}", err=True)
