"""Export of a candidate's whole model as an ONNX file, which runs without Python."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from autoprune.errors import ConfigurationError, UserCodeError, error_message
from autoprune.export.exportable import Exportable, check_ending
from autoprune.measure.latency.backend import BackendError, lacks_packages
from autoprune.measure.latency.exported import arrays_of
from autoprune.measure.latency.inputs import tensors_of
from autoprune.measure.latency.onnx_file import check_outputs, export_onnx, onnx_outputs
from autoprune.records.atomic import write_atomically
from autoprune.task.data import call


def export_onnx_model(exportable: Exportable, to: Path) -> tuple[Path, ...]:
    """Write an .onnx file, after its outputs on the example inputs were found equal to those of the model.

    The file takes inputs of the shapes of the example inputs.

    Args:
        exportable: Candidate with its model.
        to: File to write, ending in .onnx. Weights of more than 1.5 GiB go to a file beside it, with the ending .data.

    Returns:
        Paths of the files.

    Raises:
        ConfigurationError: Another ending, a candidate without its model, or packages that are missing.
        UserCodeError: The model cannot be exported, or the file gives other outputs.
    """
    check_ending(to, ".onnx")
    model, inputs = exportable.live()
    missing = lacks_packages("onnx", "onnx", "onnxscript")()
    if missing:
        raise ConfigurationError(error_message("the format onnx", "find its packages", "none of some", missing))
    with tempfile.TemporaryDirectory(prefix="autoprune-onnx-") as folder:
        try:
            files = export_onnx(model, inputs, Path(folder) / to.name)
            with torch.no_grad():
                expected = tensors_of(call(model, inputs))
            check_outputs(expected, [torch.from_numpy(array) for array in onnx_outputs(files[0], arrays_of(inputs))])
        except BackendError as error:
            raise UserCodeError(f"The candidate was not written as ONNX: {error}.") from error
        for file in reversed(files):
            write_atomically(to.with_name(file.name), file.read_bytes())
    return tuple(to.with_name(file.name) for file in files)
