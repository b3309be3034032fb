"""The backend that calls the PyTorch model itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from autoprune.measure.latency.backend import Loaded, Prepared
from autoprune.measure.latency.inputs import copied, memory_bytes, tensors_of
from autoprune.records.profile import LatencyProfile
from autoprune.task.clone import clone_with
from autoprune.task.data import Inputs, call

#: Models of more bytes are not copied to another place in memory: they stream from it, wherever it is.
_COPIED_BYTES = 256 * 2**20


def device_of(model: nn.Module) -> torch.device:
    """Find the device of a model.

    Args:
        model: The model.

    Returns:
        The device of its first tensor; the CPU for a model without.
    """
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))


def eager_call(model: nn.Module, inputs: Inputs) -> Callable[[], object]:
    """Make a plain call of a model in inference mode, which ends when the device has finished.

    Args:
        model: The model.
        inputs: Inputs of the call.

    Returns:
        The call.
    """
    return finished(lambda: call(model, inputs), device_of(model))


def finished(run: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """Run a function in inference mode until the device has finished.

    Args:
        run: The function.
        device: Where it computes.

    Returns:
        The function, which returns what `run` does.
    """

    def to_end() -> object:
        with torch.inference_mode():
            outputs = run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return outputs

    return to_end


def prepare_eager(model: nn.Module, inputs: Inputs, _: LatencyProfile) -> Prepared:
    """Prepare plain calls of the model.

    Args:
        model: Model in eval mode.
        inputs: Inputs of a call.

    Returns:
        The prepared model. It is loaded as a copy, unless it is large.
    """
    is_small = memory_bytes(model) <= _COPIED_BYTES

    def load() -> Loaded:
        return Loaded(run=eager_call(clone_with(model) if is_small else model, copied(inputs)))

    def outputs() -> list[Tensor]:
        return tensors_of(eager_call(model, inputs)())

    return Prepared(load=load, outputs=outputs)
