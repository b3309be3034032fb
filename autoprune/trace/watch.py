"""Run a model once, and follow its channels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from autoprune.errors import TraceError, describe_exception
from autoprune.structure.reasons import OUTPUT, ROW
from autoprune.task.clone import BorrowedWeights
from autoprune.task.data import Inputs, call
from autoprune.task.models import borrowing_message
from autoprune.task.modes import LossMode
from autoprune.trace.dispatch import TRACE_SECONDS, Tracer
from autoprune.trace.flow import Flow
from autoprune.trace.graph import ChannelGraph
from autoprune.trace.hooks import track_modules
from autoprune.trace.running import copy_for_tracing, plain_operators
from autoprune.trace.values import clone_inputs, outputs_in


def run(
    model: nn.Module,
    example_inputs: Inputs,
    *,
    seconds: float = TRACE_SECONDS,
    tied: frozenset[str] = frozenset(),
    in_training: bool = False,
) -> tuple[ChannelGraph, nn.Module]:
    """Trace a copy of a model in eval mode.

    Args:
        model: The model.
        example_inputs: Inputs of its forward.
        seconds: Time limit of the trace.
        tied: As in `ChannelGraph`.
        in_training: Also couple the channels that the forward of training mode couples, without dropout and updates of
            statistics.

    Returns:
        The channels of the trace, and the copy.

    Raises:
        TraceError: If the model cannot be copied or run, or computes with another model's weights.
    """
    scratch = copy_for_tracing(model)
    with BorrowedWeights(model) as borrowed:
        with _explained():
            tracer = Tracer(ChannelGraph(scratch, tied=tied, until=_follow.__code__), seconds=seconds)
            _follow(tracer, scratch, example_inputs)
        if in_training:
            _follow_training(tracer, scratch, example_inputs)
    if borrowed.found:
        raise TraceError(borrowing_message(model, borrowed))
    return tracer.graph, scratch


def watch(scratch: nn.Module, example_inputs: Inputs) -> tuple[ChannelGraph, list[Tensor]]:
    """Trace a model in eval mode, without a copy.

    Args:
        scratch: The model, which may be changed.
        example_inputs: Inputs of its forward.

    Returns:
        The channels of the trace, and the outputs.

    Raises:
        TraceError: If the model does not run.
    """
    with _explained():
        graph = ChannelGraph(scratch, until=_follow.__code__)
        return graph, _follow(Tracer(graph), scratch, example_inputs)


@contextmanager
def _explained() -> Iterator[None]:
    """Turn errors of a model that does not run into TraceErrors."""
    try:
        yield
    except TraceError:
        raise
    except Exception as error:  # user code runs in here
        raise TraceError(f"the model must run on example_inputs, but got {describe_exception(error)}") from error


def _follow(tracer: Tracer, scratch: nn.Module, example_inputs: Inputs) -> list[Tensor]:
    """Trace one forward and freeze its outputs."""
    graph, inputs = tracer.graph, clone_inputs(example_inputs)
    with torch.no_grad(), plain_operators(scratch), track_modules(scratch, graph), tracer:
        outputs = outputs_in(call(scratch, inputs))
    graph.end()
    graph.flow.results = {graph.flow.number(tensor) for tensor in outputs}
    for nodes, reason, value in graph.picked:
        if nodes is not None and not graph.flow.is_unread(value):
            graph.union_find.freeze(nodes.tolist(), reason)
    graph.freeze_all(outputs, OUTPUT)
    for nodes in graph.embedding_rows:
        graph.freeze(nodes, ROW)
    return outputs


def _follow_training(tracer: Tracer, scratch: nn.Module, example_inputs: Inputs) -> None:
    """Couple channels as a forward in training mode at rest does; costs, values and steps stay those of eval mode."""
    graph = tracer.graph
    known = (graph.flow, graph.steps, graph.positions, graph.contracted, graph.picked)
    graph.flow, graph.steps, graph.positions, graph.contracted, graph.picked = Flow(), [], {}, [], []
    try:
        with LossMode(trains=True).on(scratch):
            _follow(tracer, scratch, example_inputs)
    except Exception:  # user code runs in here, and a model that does not train has no such channels
        graph.end()
    finally:
        graph.flow, graph.steps, graph.positions, graph.contracted, graph.picked = known
