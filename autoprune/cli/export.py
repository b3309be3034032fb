"""The command `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoprune.cli.options import FolderArgument
from autoprune.cli.output import print_path, report_errors
from autoprune.errors import ConfigurationError, UnknownNameError, error_message


@report_errors
def export(
    folder: FolderArgument,
    candidate: Annotated[int, typer.Option(help="Number of the candidate, as `front` and `choose` print it.")],
    to: Annotated[Path, typer.Option(help="File to write.")],
    format: Annotated[  # noqa: A002  # the option's name
        str,
        typer.Option(
            help="safetensors; sparse: smaller where many weights are zero, for autoprune alone; torch_export: the "
            "whole model as a .pt2 file; onnx: the whole model as an .onnx file, for inputs of the shapes of the "
            "example inputs."
        ),
    ] = "safetensors",
    script: Annotated[
        Path | None, typer.Option(help="Study script, for formats that hold the whole model.", dir_okay=False)
    ] = None,
) -> None:
    """Write a candidate as files that need neither the study nor Optuna."""
    from autoprune.export.exportable import Exportable
    from autoprune.export.formats import EXPORT_FORMATS
    from autoprune.front.run import Run
    from autoprune.study.script import load_script

    if format not in EXPORT_FORMATS:
        raise UnknownNameError("--format", format, EXPORT_FORMATS)
    chosen = EXPORT_FORMATS[format]
    if chosen.needs_model and script is None:
        remedy = "Add --script STUDY.py, the file that `autoprune run` was given."
        raise ConfigurationError(error_message(f"--format {format}", "come with the study script", "none", remedy))
    task = load_script(script).task if script is not None and chosen.needs_model else None
    for path in chosen.write(Exportable.of_run(Run.open(folder), candidate, task), to):
        print_path(path)
