"""Copy a model for a trace or proof, and set the conditions under which it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from autoprune.errors import TraceError, describe_exception
from autoprune.task.clone import clone_with
from autoprune.task.modes import seeded
from autoprune.trace.values import named_tensors


def copy_for_tracing(model: nn.Module) -> nn.Module:
    """Copy a model in eval mode; the copy shares nothing with it.

    Args:
        model: The model, with its weights in memory.

    Returns:
        The copy.

    Raises:
        TraceError: If the model has lazy or meta weights, or cannot be copied.
    """
    if any(isinstance(tensor, UninitializedParameter | UninitializedBuffer) for _, tensor in named_tensors(model)):
        raise TraceError("the model must have weights, but got lazy modules: call it once first")
    try:
        scratch = clone_with(model).eval()
    except Exception as error:  # user code runs in here
        raise TraceError(
            f"the model must be copyable with copy.deepcopy, but got {describe_exception(error)}"
        ) from error
    own = {id(tensor) for _, tensor in named_tensors(model)}
    if scratch is model or any(id(tensor) in own for _, tensor in named_tensors(scratch)):
        raise TraceError("the model must copy its weights in copy.deepcopy, but got a copy that shares some of them")
    if any(tensor.is_meta for _, tensor in named_tensors(model)):
        raise TraceError("the model must have weights, but got some on the meta device")
    return scratch


@contextmanager
def plain_operators(model: nn.Module) -> Iterator[None]:
    """Run a model without fused operators, so that attention and recurrent layers dispatch their single steps.

    Random draws of torch, NumPy and Python are the same each time; the caller's generators are restored.

    Args:
        model: The model that is about to run.

    Yields:
        Nothing.
    """
    fast_path = torch.backends.mha.get_fastpath_enabled()
    recurrent = any(isinstance(module, nn.RNNBase | nn.RNNCellBase) for module in model.modules())
    mkldnn = torch._C._get_mkldnn_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    torch._C._set_mkldnn_enabled(mkldnn and not recurrent)
    try:
        with seeded(model, 0):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        torch._C._set_mkldnn_enabled(mkldnn)
