"""Read from torch's modules what no tensor shows: kinds of normalisation and lower limits of widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from autoprune.structure.groups import Member
from autoprune.trace.graph import ChannelGraph

#: Kinds of normalisation: classes of torch, and parts of the class names of other libraries.
_NORMS: Mapping[str, tuple[tuple[type[nn.Module], ...], tuple[str, ...]]] = {
    "batch": ((nn.modules.batchnorm._BatchNorm,), ("BatchNorm",)),
    "layer": ((nn.LayerNorm, nn.RMSNorm), ("LayerNorm", "RMSNorm")),
}


def normalisations(model: nn.Module) -> tuple[str, ...]:
    """Return the kinds of normalisation in a model.

    Args:
        model: The model.

    Returns:
        "batch" (over the samples of a batch) and "layer" (LayerNorm and RMSNorm), as far as the model has them.
    """
    return tuple(
        kind
        for kind, (types, names) in _NORMS.items()
        if any(isinstance(m, types) or any(name in type(m).__name__ for name in names) for m in model.modules())
    )


def min_channels_of(graph: ChannelGraph, members: Sequence[Member]) -> int:
    """Return the fewest channels of a group that torch's modules allow.

    An LSTM with a projection needs more hidden units than projected ones.

    Args:
        graph: The channels.
        members: Members of the group.

    Returns:
        The number, 1 or more.
    """
    least = 1
    for member in members:
        path, _, name = member.tensor.rpartition(".")
        module = graph.modules.get(path)
        if isinstance(module, nn.RNNBase) and name.startswith("weight_hr") and member.axis == 1:
            least = max(least, module.proj_size + 1)
    return least
