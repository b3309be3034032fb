"""The command `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoprune.cli.options import FolderArgument
from autoprune.cli.output import print_path, report_errors
from autoprune.errors import UnknownNameError


@report_errors
def export(
    folder: FolderArgument,
    candidate: Annotated[int, typer.Option(help="Number of the candidate, as `front` and `choose` print it.")],
    to: Annotated[Path, typer.Option(help="File to write.")],
    format: Annotated[  # noqa: A002  # the option's name
        str, typer.Option(help="safetensors, or sparse: smaller where many weights are zero, for autoprune alone.")
    ] = "safetensors",
) -> None:
    """Write a candidate as files that need neither the study nor Optuna."""
    from autoprune.export.formats import EXPORT_FORMATS
    from autoprune.front.run import Run

    if format not in EXPORT_FORMATS:
        raise UnknownNameError("--format", format, EXPORT_FORMATS)
    opened = Run.open(folder)
    for path in EXPORT_FORMATS[format](opened.folder, opened.front().get(candidate), to):
        print_path(path)
