"""Note the modules that run, with their arguments and outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from autoprune.trace.flow import ModuleCall, PassedTensor
from autoprune.trace.graph import ChannelGraph


@contextmanager
def track_modules(model: nn.Module, graph: ChannelGraph) -> Iterator[None]:
    """Record module calls: `module` and `inputs` of the graph are those of the innermost module that runs.

    Args:
        model: The model that is about to run.
        graph: The channels to write to.

    Yields:
        Nothing; the hooks are removed at the end.
    """
    stack: list[ModuleCall] = [ModuleCall("", ())]
    handles = []

    def enter(name: str) -> Callable[[nn.Module, tuple[object, ...], Mapping[str, object]], None]:
        def hook(module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
            # Before the forward, as a module may change its arguments in place.
            took = _passed(graph, (*enumerate(args), *kwargs.items()))
            stack.append(ModuleCall(name, took, began=len(graph.flow.operators)))
            graph.module = name
            graph.inputs.append(args)
            graph.made.append([])
            if args and isinstance(args[0], Tensor):
                _follow_widths(graph, module, args[0])

        return hook

    def leave(module: nn.Module, args: tuple[object, ...], output: object) -> None:
        del module, args
        ended = stack.pop()
        graph.inputs.pop()
        graph.made.pop()
        graph.module = stack[-1].module
        _give(graph, output)
        several = isinstance(output, tuple | list)
        outputs = list(output) if isinstance(output, tuple | list) else [output]
        ended.gave, ended.outputs = _passed(graph, enumerate(outputs)), len(outputs) if several else 0
        ended.plain = all(value is None or isinstance(value, Tensor) for value in outputs)
        ended.ended = len(graph.flow.operators)
        graph.flow.calls.append(ended)

    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue  # takes no hooks; its operators are seen as those of the module around it
        handles.append(module.register_forward_pre_hook(enter(name), with_kwargs=True))
        handles.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _passed(graph: ChannelGraph, values: Iterable[tuple[int | str, object]]) -> tuple[PassedTensor, ...]:
    """Return the tensors among arguments or outputs."""
    return tuple(
        PassedTensor(place, graph.flow.number(value), tuple(value.shape), value.dtype, graph.axes(value))
        for place, value in values
        if isinstance(value, Tensor)
    )


def _give(graph: ChannelGraph, output: object) -> None:
    """Note the outputs of a part for the module around it, if that module is tied."""
    if graph.module in graph.tied_modules and graph.made:
        graph.made[-1] += graph.channels_in(output)


def _follow_widths(graph: ChannelGraph, module: nn.Module, given: Tensor) -> None:
    axes = graph.axes(given)
    if isinstance(module, nn.modules.instancenorm._InstanceNorm):
        graph.note_number("num_features", axes[1], module.num_features)  # no tensor of that width unless affine
    elif isinstance(module, nn.RMSNorm) and len(module.normalized_shape) == 1:
        # Decomposed into single operators if there is no kernel for it.
        if not module.elementwise_affine:
            graph.note_number("normalized_shape", axes[-1], module.normalized_shape[0])
        graph.role(module.weight, 0, "scale")
    elif isinstance(module, nn.Transformer):
        graph.note_number("d_model", axes[-1], module.d_model)
