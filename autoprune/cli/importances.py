"""The command `importances`."""

from __future__ import annotations

from typing import Annotated

import typer

from autoprune.cli.options import FolderArgument
from autoprune.cli.output import report_errors


@report_errors
def importances(
    folder: FolderArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print which parameters of the space mattered, for each objective and for the quality at equal cost."""
    import json

    from autoprune.front.run import Run
    from autoprune.report.terminal import show_importances

    found = Run.open(folder).importances()
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1))
    else:
        show_importances(found)
