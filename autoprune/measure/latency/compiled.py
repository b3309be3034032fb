"""The backend that runs the model through torch.compile."""

from __future__ import annotations

import os
import shutil
from types import FunctionType

import torch
from torch import Tensor, nn

from autoprune.errors import describe_exception
from autoprune.measure.latency.backend import BackendError, Loaded, Prepared, quiet
from autoprune.measure.latency.eager import device_of, finished
from autoprune.measure.latency.inputs import copied, tensors_of
from autoprune.records.profile import LatencyProfile
from autoprune.task.clone import clone_with
from autoprune.task.data import Inputs, call


def lacks_compiler() -> str:
    """Say whether the C++ compiler is missing that torch.compile calls.

    Returns:
        A sentence; "" where there is one.
    """
    names = (os.environ.get("CXX", "g++"), "clang++")
    return "" if any(map(shutil.which, names)) else "torch.compile needs a C++ compiler. Install g++, or set CXX."


def prepare_compiled(model: nn.Module, inputs: Inputs, _: LatencyProfile) -> Prepared:
    """Compile a copy of a model for inputs of these shapes, as one graph.

    Args:
        model: Model in eval mode.
        inputs: Inputs of a call.

    Returns:
        The prepared model; it lies in one place in memory.

    Raises:
        BackendError: The model is not one graph, or cannot be compiled.
    """
    own, given = clone_with(model), copied(inputs)

    def forward() -> object:
        return call(own, given)

    # Compiled code is kept with the code of the function, a few for each. A study has many models.
    apart = FunctionType(forward.__code__.replace(), forward.__globals__, closure=forward.__closure__)
    compiled = torch.compile(apart, fullgraph=True, dynamic=False)
    run = finished(compiled, device_of(model))
    try:
        with quiet():
            run()
    except Exception as error:  # the compiler runs the user's code, and raises many kinds of errors
        reason = next(iter(describe_exception(error, 2000).splitlines()), "")
        raise BackendError(f"torch.compile does not take it as one graph: {reason[:400]}") from error

    def outputs() -> list[Tensor]:
        return tensors_of(run())

    return Prepared(load=lambda: Loaded(run=run), outputs=outputs)
