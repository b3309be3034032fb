"""Update attributes such as `in_channels` and `num_heads` after a cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction

from torch import Tensor, nn

from autoprune.errors import SurgeryError, error_message
from autoprune.plan.kept import KeptChannels
from autoprune.structure.groups import remaining
from autoprune.structure.topology import Topology
from autoprune.trace.numbers import put_number


def update_weight_numbers(module: nn.Module) -> None:
    """Set in_channels, num_features and the like of one module from the shapes of its weights, in place.

    Args:
        module: The module; classes outside `UPDATES` are left unchanged.
    """
    for kind, fix in UPDATES.items():
        if isinstance(module, kind):
            fix(module)
            return


def update_group_numbers(model: nn.Module, topology: Topology, kept: KeptChannels) -> None:
    """Set the numbers that follow a group's width, such as num_heads, in place.

    Args:
        model: The cut model.
        topology: Topology of the dense model.
        kept: Channels and blocks that stay.

    Raises:
        SurgeryError: If a module has no such number.
    """
    shares = {
        group.name: Fraction(kept.widths.get(group.name, group.channels), group.channels) for group in topology.groups
    }
    values = {
        (attribute.module, attribute.name): remaining(attribute.spans, shares)
        for group in topology.groups
        for attribute in group.attributes
    }
    gone = topology.dropped(kept.dropped)
    for (path, name), value in values.items():
        if any(block.holds(path) for block in gone):
            continue
        try:
            put_number(model.get_submodule(path), name, value)
        except (LookupError, AttributeError, TypeError) as error:
            where = f"{path}.{name}" if path else name
            raise SurgeryError(
                error_message("the model to cut", f"keep a whole number in {where}", str(error))
            ) from error


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
    assert isinstance(module, nn.Embedding | nn.EmbeddingBag)
    module.num_embeddings, module.embedding_dim = module.weight.shape


def _prelu(module: nn.Module) -> None:
    assert isinstance(module, nn.PReLU)
    module.num_parameters = len(module.weight)


def _bilinear(module: nn.Module) -> None:
    assert isinstance(module, nn.Bilinear)
    module.out_features, module.in1_features, module.in2_features = module.weight.shape


def _attention(module: nn.Module) -> None:
    assert isinstance(module, nn.MultiheadAttention)
    packed: Tensor | None = module.in_proj_weight
    separate = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
    weights = separate if packed is None else (packed,) * 3
    module.embed_dim, module.kdim, module.vdim = (weight.shape[1] for weight in weights)


def _recurrent(module: nn.Module) -> None:
    assert isinstance(module, nn.RNNBase)
    shapes = {name: tensor.shape for name, tensor in module.named_parameters(recurse=False)}
    module.input_size = shapes["weight_ih_l0"][1]
    if module.proj_size:
        module.proj_size = shapes["weight_hh_l0"][1]
    module.hidden_size = shapes["weight_hr_l0" if module.proj_size else "weight_hh_l0"][1]
    module._init_flat_weights()


def _recurrent_cell(module: nn.Module) -> None:
    assert isinstance(module, nn.RNNCellBase)
    module.input_size, module.hidden_size = module.weight_ih.shape[1], module.weight_hh.shape[1]


UPDATES: Mapping[type[nn.Module], Callable[[nn.Module], None]] = {
    nn.modules.conv._ConvNd: _convolution,
    nn.Linear: _linear,
    nn.modules.batchnorm._NormBase: _norm,
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.Embedding: _embedding,
    nn.PReLU: _prelu,
    nn.MultiheadAttention: _attention,
    nn.RNNBase: _recurrent,
    nn.RNNCellBase: _recurrent_cell,
    nn.Bilinear: _bilinear,
    nn.EmbeddingBag: _embedding,
}
