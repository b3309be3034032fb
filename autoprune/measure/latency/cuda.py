"""Backends that time a model on a GPU by its own events, call by call or as a CUDA graph. Not tested on a GPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from autoprune.errors import describe_exception
from autoprune.measure.latency.backend import BackendError, Loaded, Prepared
from autoprune.measure.latency.inputs import tensors_of
from autoprune.records.profile import LatencyProfile
from autoprune.task.clone import clone_with
from autoprune.task.data import Inputs, call
from autoprune.task.nested import to_device

_WARM_UP = 3
#: Calls of a stretch.
_CALLS = 10


def lacks_cuda() -> str:
    """Say whether a GPU is missing.

    Returns:
        A sentence; "" where there is one.
    """
    return (
        "" if torch.cuda.is_available() else "torch sees no CUDA GPU. Choose another backend, or install a CUDA build."
    )


def prepare_cuda_events(model: nn.Module, inputs: Inputs, _: LatencyProfile) -> Prepared:
    """Prepare calls of a model on the GPU, timed by events around them.

    Args:
        model: Model in eval mode, on any device; a copy goes to the GPU.
        inputs: Inputs of a call.

    Returns:
        The prepared model.

    Raises:
        BackendError: The model does not run on the GPU.
    """
    return _prepare(model, inputs, lambda run: run)


def prepare_cuda_graphs(model: nn.Module, inputs: Inputs, _: LatencyProfile) -> Prepared:
    """Prepare a model as a CUDA graph, which is replayed without the work of Python and of launches.

    Args:
        model: Model in eval mode, on any device; a copy goes to the GPU.
        inputs: Inputs of a call.

    Returns:
        The prepared model.

    Raises:
        BackendError: The model does not run on the GPU, or does what a graph cannot record, such as waiting for it.
    """
    return _prepare(model, inputs, _recorded)


def _recorded(run: Callable[[], object]) -> Callable[[], object]:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = run()

    def replay() -> object:
        graph.replay()
        return outputs

    return replay


def _prepare(
    model: nn.Module, inputs: Inputs, made: Callable[[Callable[[], object]], Callable[[], object]]
) -> Prepared:
    device = torch.device("cuda")

    def load() -> Loaded:
        own = clone_with(model).to(device)
        given: Inputs = to_device(inputs, device)  # type: ignore[assignment]  # the same type

        def plain() -> object:
            with torch.inference_mode():
                return call(own, given)

        run = made(plain)
        for _ in range(_WARM_UP):
            run()
        torch.cuda.synchronize()
        return Loaded(run=lambda: _finished(run), device_ms=lambda: _timed(run))

    def outputs() -> list[Tensor]:
        got = tensors_of(load().run())
        return [tensor.clone() for tensor in got]

    try:
        load()
    except Exception as error:  # the user's model may raise anything
        raise BackendError(f"it does not run on the GPU: {describe_exception(error, 300)}") from error
    return Prepared(load=load, outputs=outputs)


def _finished(run: Callable[[], object]) -> object:
    got = run()
    torch.cuda.synchronize()
    return got


def _timed(run: Callable[[], object]) -> list[float]:
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(_CALLS)]
    for start, end in events:
        start.record()
        run()
        end.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in events]
