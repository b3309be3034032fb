"""The command `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoprune.cli.options import FolderArgument
from autoprune.cli.output import print_path, report_errors


@report_errors
def report(
    folder: FolderArgument,
    to: Annotated[
        Path | None, typer.Option(help="File to write; report.html in the run folder when not given.")
    ] = None,
) -> None:
    """Write the self-contained HTML report of a run."""
    from autoprune.front.run import Run
    from autoprune.report.html import write_report

    print_path(write_report(Run.open(folder), to))
