"""Run a model once under a tracer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autoprune.errors import TraceError, describe_exception
from autoprune.structure.reasons import OUTPUT, ROW
from autoprune.task.clone import BorrowedWeights
from autoprune.task.data import Inputs, call
from autoprune.task.models import borrowing_message
from autoprune.task.modes import LossMode
from autoprune.trace.flow import Flow
from autoprune.trace.modules import track_modules
from autoprune.trace.running import copy_for_tracing, plain_operators
from autoprune.trace.tracer import TRACE_SECONDS, Tracer
from autoprune.trace.values import clone_inputs, outputs_in


def run(
    model: nn.Module,
    example_inputs: Inputs,
    *,
    seconds: float = TRACE_SECONDS,
    tied: frozenset[str] = frozenset(),
    in_training: bool = False,
) -> tuple[Tracer, nn.Module]:
    """Trace a copy of a model in eval mode.

    Args:
        model: The model.
        example_inputs: Inputs of its forward.
        seconds: Time limit of the trace.
        tied: As in `Tracer`.
        in_training: Also couple the channels that the forward of training mode couples, without dropout and updates of
            statistics.

    Returns:
        The tracer and the copy.

    Raises:
        TraceError: If the model cannot be copied or run, or computes with another model's weights.
    """
    scratch = copy_for_tracing(model)
    with BorrowedWeights(model) as borrowed:
        tracer, _ = watch(scratch, example_inputs, seconds=seconds, tied=tied)
        if in_training:
            _watch_training(tracer, scratch, example_inputs)
    if borrowed.found:
        raise TraceError(borrowing_message(model, borrowed))
    return tracer, scratch


def watch(
    scratch: nn.Module, example_inputs: Inputs, *, seconds: float = TRACE_SECONDS, tied: frozenset[str] = frozenset()
) -> tuple[Tracer, list[Tensor]]:
    """Trace a model in eval mode, without a copy.

    Args:
        scratch: The model, which may be changed.
        example_inputs: Inputs of its forward.
        seconds: Time limit of the trace.
        tied: As in `Tracer`.

    Returns:
        The tracer and the outputs.

    Raises:
        TraceError: If the model does not run.
    """
    try:
        tracer = Tracer(scratch, seconds=seconds, tied=tied, until=watch.__code__)
        return tracer, _follow(tracer, scratch, example_inputs)
    except TraceError:
        raise
    except Exception as error:  # user code runs in here
        raise TraceError(f"the model must run on example_inputs, but got {describe_exception(error)}") from error


def _follow(tracer: Tracer, scratch: nn.Module, example_inputs: Inputs) -> list[Tensor]:
    """Trace one forward and freeze its outputs."""
    inputs = clone_inputs(example_inputs)
    with torch.no_grad(), plain_operators(scratch), track_modules(scratch, tracer), tracer:
        outputs = outputs_in(call(scratch, inputs))
    tracer.module = tracer.operator = ""
    tracer.flow.results = {tracer.flow.number(tensor) for tensor in outputs}
    for nodes, reason, value in tracer.picked:
        if nodes is not None and not tracer.flow.is_unread(value):
            tracer.union_find.freeze(nodes.tolist(), reason)
    tracer.freeze_all(outputs, OUTPUT)
    for nodes in tracer.embedding_rows:
        tracer.freeze(nodes, ROW)
    return outputs


def _watch_training(tracer: Tracer, scratch: nn.Module, example_inputs: Inputs) -> None:
    """Couple channels as a forward in training mode at rest does; costs, values and steps stay those of eval mode."""
    known = (tracer.flow, tracer.steps, tracer.positions, tracer.contracted, tracer.picked)
    tracer.flow, tracer.steps, tracer.positions, tracer.contracted, tracer.picked = Flow(), [], {}, [], []
    try:
        with LossMode(trains=True).on(scratch):
            _follow(tracer, scratch, example_inputs)
    except Exception:  # user code runs in here, and a model that does not train has no such channels
        tracer.module = tracer.operator = ""
    finally:
        tracer.flow, tracer.steps, tracer.positions, tracer.contracted, tracer.picked = known
