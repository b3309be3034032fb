"""Numbers that modules store beside their weights, made true again after a cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from autoprune.criteria.kept import KeptChannels
from autoprune.trace.topology import Topology


def repair(module: nn.Module) -> None:
    """Set in_channels, num_features and the like of one module from its weights' shapes, in place."""
    for kind, fix in REPAIRS.items():
        if isinstance(module, kind):
            fix(module)
            return


def rescale(model: nn.Module, topology: Topology, kept: KeptChannels) -> None:
    """Set the numbers that follow a group's width, such as num_heads, in place."""
    values: dict[tuple[str, str], int] = {}
    for group in topology.groups:
        width = len(kept.groups.get(group.name, range(group.channels)))
        for attribute in group.attributes:
            key = (attribute.module, attribute.name)
            values[key] = values.get(key, attribute.value) * width // group.channels
    for (module, name), value in values.items():
        setattr(model.get_submodule(module), name, value)


def _convolution(module: nn.Module) -> None:
    assert isinstance(module, nn.modules.conv._ConvNd)
    first, second = module.weight.shape[:2]
    if module.transposed:
        module.in_channels, module.out_channels = first, second * module.groups
        return
    module.out_channels, module.in_channels = first, second * module.groups


def _linear(module: nn.Module) -> None:
    assert isinstance(module, nn.Linear)
    module.out_features, module.in_features = module.weight.shape


def _norm(module: nn.Module) -> None:
    assert isinstance(module, nn.modules.batchnorm._NormBase)
    for tensor in (module.weight, module.running_mean):
        if tensor is not None:
            module.num_features = len(tensor)
            return


def _layer_norm(module: nn.Module) -> None:
    assert isinstance(module, nn.LayerNorm | nn.RMSNorm)
    if module.weight is not None and len(module.normalized_shape) == 1:
        module.normalized_shape = tuple(module.weight.shape)


def _group_norm(module: nn.Module) -> None:
    assert isinstance(module, nn.GroupNorm)
    if not module.affine:
        return
    module.num_channels = len(module.weight)


def _embedding(module: nn.Module) -> None:
    assert isinstance(module, nn.Embedding)
    module.num_embeddings, module.embedding_dim = module.weight.shape


def _prelu(module: nn.Module) -> None:
    assert isinstance(module, nn.PReLU)
    module.num_parameters = len(module.weight)


REPAIRS: Mapping[type[nn.Module], Callable[[nn.Module], None]] = {
    nn.modules.conv._ConvNd: _convolution,
    nn.Linear: _linear,
    nn.modules.batchnorm._NormBase: _norm,
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.Embedding: _embedding,
    nn.PReLU: _prelu,
}
