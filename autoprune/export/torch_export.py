"""Export of a candidate's whole model as a program of torch.export, which runs without its Python classes."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from autoprune.errors import ConfigurationError, error_message, user_code
from autoprune.export.exportable import Exportable
from autoprune.records.atomic import write_atomically


def export_program(exportable: Exportable, to: Path) -> tuple[Path, ...]:
    """Write a .pt2 file, which `torch.export.load` reads and `torch._inductor` or ExecuTorch compile.

    The program takes inputs of the shapes of the example inputs.

    Args:
        exportable: Candidate with its model.
        to: File to write, ending in .pt2.

    Returns:
        Path of the file.

    Raises:
        ConfigurationError: Another ending, or a candidate without its model.
        UserCodeError: The model cannot be exported.
    """
    if to.suffix != ".pt2":
        raise ConfigurationError(error_message("--to", "end in .pt2", str(to)))
    if exportable.model is None or exportable.example_inputs is None:
        raise ConfigurationError(
            error_message("a format that holds the whole model", "be given the study script", "none", "Add --script.")
        )
    given = exportable.example_inputs
    args = given if isinstance(given, tuple) else () if isinstance(given, dict) else (given,)
    kwargs = given if isinstance(given, dict) else None
    with torch.no_grad(), user_code("torch.export of the model"):
        program = torch.export.export(exportable.model, args, kwargs)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    write_atomically(to, buffer.getvalue())
    return (to,)
