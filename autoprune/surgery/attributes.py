"""Numbers that modules store beside their weights, made true again after a cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn


def repair(module: nn.Module) -> None:
    """Set in_channels, num_features and the like of one module from its weights' shapes, in place."""
    for kind, fix in REPAIRS.items():
        if isinstance(module, kind):
            fix(module)
            return


def _convolution(module: nn.Module) -> None:
    assert isinstance(module, nn.modules.conv._ConvNd)
    first, second = module.weight.shape[:2]
    if module.transposed:
        module.in_channels, module.out_channels = first, second * module.groups
        return
    if module.groups == module.in_channels and second == 1 and module.groups > 1:
        # Depthwise: as many groups as input channels are left; a multiplier stays what it was.
        multiplier = module.out_channels // module.groups
        module.groups = first // multiplier
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
    nn.Embedding: _embedding,
    nn.PReLU: _prelu,
}
