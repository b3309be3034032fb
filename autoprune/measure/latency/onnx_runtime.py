"""The backend that runs an exported model in ONNX Runtime on the CPU."""

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


def prepare_onnx_runtime(model: nn.Module, inputs: Inputs, profile: LatencyProfile) -> Prepared:
    """Export a model, and prepare sessions of ONNX Runtime on the CPU.

    Args:
        model: Model in eval mode.
        inputs: Inputs of a call.
        profile: Number of threads.

    Returns:
        The prepared model. It is loaded as a new session.

    Raises:
        BackendError: The model cannot be exported, or ONNX Runtime does not take it.
    """
    return prepare_exported(model, inputs, profile, onnx_runtime_call)


def onnx_runtime_call(file: Path, inputs: Inputs, profile: LatencyProfile) -> FileCall:
    """Load an ONNX file into ONNX Runtime on the CPU, and run it once.

    With one thread, ONNX Runtime computes in the calling thread. Threads do not spin while they wait.

    Args:
        file: The file.
        inputs: Inputs of a call.
        profile: Number of threads.

    Returns:
        Function that runs the model.

    Raises:
        BackendError: ONNX Runtime does not take the model or the inputs.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = profile.threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        feed = dict(zip((one.name for one in session.get_inputs()), arrays_of(inputs), strict=True))
        session.run(None, feed)
    except Exception as error:  # ONNX Runtime raises classes of its own that share no base
        raise BackendError(f"ONNX Runtime does not run it: {describe_exception(error, 300)}") from error

    def run() -> list[NDArray[np.generic]]:
        return list(session.run(None, feed))

    return run
