"""Shared parts of the backends that run an exported ONNX file."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.measure.latency.backend import BackendError, Loaded, Prepared
from autoprune.measure.latency.eager import eager_call
from autoprune.measure.latency.inputs import tensors_of
from autoprune.measure.latency.onnx_file import check_outputs, export_onnx, export_onnx_quickly
from autoprune.records.profile import LatencyProfile
from autoprune.task.data import Inputs

#: Function without arguments that runs a loaded file once and returns its outputs.
FileCall = Callable[[], list[NDArray[np.generic]]]
#: (file, inputs of a call, profile) -> the loaded file. Raises BackendError.
LoadFile = Callable[[Path, Inputs, LatencyProfile], FileCall]


def prepare_exported(model: nn.Module, inputs: Inputs, profile: LatencyProfile, load_file: LoadFile) -> Prepared:
    """Export a model to a temporary file, which a runtime loads.

    The quick exporter is tried first. It gives runtimes the same operators in a tenth of the time, but does not know
    every model: where it fails, or its outputs differ from PyTorch's, the usual one exports.

    Args:
        model: Model in eval mode.
        inputs: Inputs of a call.
        profile: Settings of the runtime.
        load_file: Loads the file into the runtime.

    Returns:
        The prepared model.

    Raises:
        BackendError: The model cannot be exported, or the runtime does not take it or gives other outputs.
    """
    folder = Path(tempfile.mkdtemp(prefix="autoprune-onnx-"))

    def close() -> None:
        shutil.rmtree(folder, ignore_errors=True)

    def outputs_of(file: Path) -> list[Tensor]:
        return [torch.from_numpy(array) for array in load_file(file, inputs, profile)()]

    try:
        expected = tensors_of(eager_call(model, inputs)())
        try:
            file = export_onnx_quickly(model, inputs, folder / "quick.onnx")
            check_outputs(expected, outputs_of(file))
        except BackendError:
            file = export_onnx(model, inputs, folder / "model.onnx")[0]
            check_outputs(expected, outputs_of(file))
    except BaseException:
        close()
        raise

    def load() -> Loaded:
        return Loaded(run=load_file(file, inputs, profile))

    return Prepared(load=load, outputs=lambda: outputs_of(file), close=close, compared=True)


def arrays_of(inputs: Inputs) -> list[NDArray[np.generic]]:
    """Copy the tensors of inputs into arrays, in the order in which an exported model takes them.

    Args:
        inputs: Inputs of a call.

    Returns:
        The arrays.

    Raises:
        TypeError: NumPy lacks the number type of a tensor.
    """
    return [tensor.detach().cpu().numpy().copy() for tensor in tensors_of(inputs)]
