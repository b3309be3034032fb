"""Export of a candidate's whole model as a program of torch.export, which runs without its Python classes."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from autoprune.errors import user_code
from autoprune.export.exportable import Exportable, check_ending
from autoprune.records.atomic import write_atomically
from autoprune.task.nested import arguments


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
    check_ending(to, ".pt2")
    model, given = exportable.live()
    args, kwargs = arguments(given)
    with torch.no_grad(), user_code("torch.export of the model"):
        program = torch.export.export(model, args, kwargs)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    write_atomically(to, buffer.getvalue())
    return (to,)
