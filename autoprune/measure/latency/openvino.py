"""The backend that runs an exported model in OpenVINO on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from autoprune.errors import describe_exception
from autoprune.measure.latency.backend import BackendError, Prepared
from autoprune.measure.latency.exported import FileCall, arrays_of, prepare_exported
from autoprune.records.profile import LatencyProfile
from autoprune.task.data import Inputs


def prepare_openvino(model: nn.Module, inputs: Inputs, profile: LatencyProfile) -> Prepared:
    """Export a model, and prepare requests of OpenVINO on the CPU.

    Args:
        model: Model in eval mode.
        inputs: Inputs of a call.
        profile: Number of threads.

    Returns:
        The prepared model. It is loaded as a newly compiled one.

    Raises:
        BackendError: The model cannot be exported, or OpenVINO does not take it.
    """
    return prepare_exported(model, inputs, profile, openvino_call)


def openvino_call(file: Path, inputs: Inputs, profile: LatencyProfile) -> FileCall:
    """Compile an ONNX file with OpenVINO for the CPU, and run it once.

    Real numbers stay in float32, where OpenVINO would use bfloat16 by itself on some processors.

    Args:
        file: The file.
        inputs: Inputs of a call.
        profile: Number of threads.

    Returns:
        Function that runs the model.

    Raises:
        BackendError: OpenVINO does not take the model or the inputs.
    """
    import openvino

    settings = {"INFERENCE_NUM_THREADS": profile.threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    try:
        core = openvino.Core()
        request = core.compile_model(core.read_model(str(file)), "CPU", settings).create_infer_request()
        given = arrays_of(inputs)
        request.infer(given)
    except Exception as error:  # OpenVINO raises RuntimeError, TypeError and classes of its own
        raise BackendError(f"OpenVINO does not run it: {describe_exception(error, 300)}") from error

    def run() -> list[NDArray[np.generic]]:
        return list(request.infer(given).values())

    return run
