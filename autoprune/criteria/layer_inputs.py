"""Inputs of layers while a model runs, by the names of the weights that read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.hooks import RemovableHandle

Args = tuple[object, ...]
Kwargs = Mapping[str, object]


class LayerInput(NamedTuple):
    """Tensor that a weight reads.

    Attributes:
        weight: Name of the weight.
        x: Input tensor.
        axis: Axis of x's channels, counted from the end.
        weight_axis: Axis of the weight that runs along these channels.
        parts: Thirds of the weight's rows that read x, where queries, keys and values share one weight; () for all
            rows.
    """

    weight: str
    x: Tensor
    axis: int
    weight_axis: int = 1
    parts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InputPositions:
    """Positions of one group's channels on the input axis of a weight.

    Attributes:
        group: Name of the group.
        where: Positions, int64 [remaining channels, k].
        size: Length of the axis.
    """

    group: str
    where: Tensor
    size: int

    def products(self, x: Tensor, gradient: Tensor, axis: int) -> Tensor:
        """Compute |sum over positions of x times its gradient| for each sample and channel.

        The first axis of x holds the samples unless it holds the channels: then there is one sample. The weight of a
        grouped convolution has the input axis of one group: the groups are summed like positions.

        Args:
            x: Input of the weight.
            gradient: Gradient of the loss to x, of x's shape.
            axis: Axis of x's channels, counted from the end.

        Returns:
            Float [samples, channels].
        """
        product = (x.detach() * gradient).float()
        if x.ndim + axis == 0:
            product = product.unsqueeze(0)
        sums = product.movedim(axis, -1).flatten(1, -2).sum(1) if product.ndim > 2 else product
        sums = sums.reshape(len(sums), -1, self.size).sum(1)
        read: Tensor = sums[:, self.where.to(sums.device)].sum(2)
        return read.abs()


Callback = Callable[[LayerInput], None]
#: (module, positional arguments, keyword arguments) -> the inputs of its weights, under their names in the module.
InputsOf = Callable[[nn.Module, Args, Kwargs], Iterator[LayerInput]]


@contextmanager
def capture_inputs(model: nn.Module, see: Callback) -> Iterator[None]:
    """Call a function with the input of each weight while the model runs. Only layers that are called as modules are
    captured.

    Captured are convolutions, linear layers and Hugging Face's Conv1D; nn.MultiheadAttention, whose output projection
    is taken out of its forward and applied after it; the inputs of nn.RNN, nn.LSTM and nn.GRU, but not of their inner
    layers and steps; inputs and states of nn.RNNCell, nn.LSTMCell and nn.GRUCell. A weight that several layers share
    has the first layer's name, as among the model's parameters.

    Args:
        model: Model that runs inside the context.
        see: Function that takes each LayerInput.

    Yields:
        Nothing; run the model inside the block.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    handles: list[RemovableHandle] = []
    again: set[nn.Module] = set()

    def show(read: LayerInput) -> None:
        x = read.x
        # Nested sequences without padding, from torch's encoder: concatenate their entries.
        see(read._replace(x=torch.cat([part.flatten(0, -2) for part in x.unbind()])) if x.is_nested else read)

    for path, module in model.named_modules():
        reads = _reads_of(module)
        if reads is None:
            continue
        before = _before(reads, _named(path, module, names), show, again)
        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        if _projects_by_itself(module):
            name = _named(f"{path}.out_proj" if path else "out_proj", module.out_proj, names)("weight")
            handles.append(module.register_forward_hook(_behind(name, show, again), with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _named(path: str, module: nn.Module, names: Mapping[int, str]) -> Callable[[str], str]:
    """Return the function from a parameter's name in a module to its name in the model."""

    def name(own: str) -> str:
        return names.get(id(getattr(module, own)), f"{path}.{own}" if path else own)

    return name


def _before(
    reads: InputsOf, name: Callable[[str], str], see: Callback, again: set[nn.Module]
) -> Callable[[nn.Module, Args, dict[str, object]], None]:
    def hook(module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        if module not in again:
            for read in reads(module, args, kwargs):
                see(read._replace(weight=name(read.weight)))

    return hook


def _behind(
    name: str, see: Callback, again: set[nn.Module]
) -> Callable[[nn.Module, Args, dict[str, object], object], object]:
    """Hook an attention: run it again without its output projection, report the projection's input, and project.

    torch's forward passes the projection's weight to a function, so that no hook of the projection ever runs.
    again: modules that are in this second run.
    """

    def hook(module: nn.Module, args: Args, kwargs: dict[str, object], output: object) -> object:
        if module in again:
            return None
        projection = module.out_proj
        assert isinstance(projection, nn.Linear) and isinstance(output, tuple)
        weight, bias = projection.weight, projection.bias
        identity = torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
        plain = {"out_proj.weight": identity} | ({} if bias is None else {"out_proj.bias": torch.zeros_like(bias)})
        again.add(module)
        try:
            mixed = torch.func.functional_call(module, plain, args, kwargs)[0]
        finally:
            again.discard(module)
        see(LayerInput(name, mixed, -1))
        return (F.linear(mixed, weight, bias), *output[1:]) if mixed.requires_grad else None

    return hook


def _projects_by_itself(module: nn.Module) -> bool:
    """Tell whether an attention has torch's forward and a projection of only weight and bias."""
    if not isinstance(module, nn.MultiheadAttention) or type(module).forward is not nn.MultiheadAttention.forward:
        return False
    return "weight" in module.out_proj._parameters


def _reads_of(module: nn.Module) -> InputsOf | None:
    if any(kind.__name__ == "Conv1D" for kind in type(module).__mro__) and _is_matrix(module):
        return _transposed_linear  # Hugging Face's; its weight is [inputs, outputs]
    for kind, reads in _READS.items():
        if isinstance(module, kind):
            return reads
    return None


def _is_matrix(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim == 2


def _given(args: Args, kwargs: Kwargs, position: int, name: str) -> object:
    return args[position] if len(args) > position else kwargs.get(name)


def _linear(module: nn.Module, args: Args, kwargs: Kwargs) -> Iterator[LayerInput]:
    del module
    x = _given(args, kwargs, 0, "input")
    if isinstance(x, Tensor):
        yield LayerInput("weight", x, -1)


def _transposed_linear(module: nn.Module, args: Args, kwargs: Kwargs) -> Iterator[LayerInput]:
    del module
    x = _given(args, kwargs, 0, "x")
    if isinstance(x, Tensor):
        yield LayerInput("weight", x, -1, 0)


def _convolution(module: nn.Module, args: Args, kwargs: Kwargs) -> Iterator[LayerInput]:
    assert isinstance(module, nn.modules.conv._ConvNd)
    x = _given(args, kwargs, 0, "input")
    if isinstance(x, Tensor):
        yield LayerInput("weight", x, 1 - module.weight.ndim, 0 if module.transposed else 1)


def _recurrent(module: nn.Module, args: Args, kwargs: Kwargs) -> Iterator[LayerInput]:
    assert isinstance(module, nn.RNNBase)
    x = _given(args, kwargs, 0, "input")
    x = x.data if isinstance(x, PackedSequence) else x
    if isinstance(x, Tensor):
        for direction in ("", "_reverse") if module.bidirectional else ("",):
            yield LayerInput(f"weight_ih_l0{direction}", x, -1)


def _cell(module: nn.Module, args: Args, kwargs: Kwargs) -> Iterator[LayerInput]:
    del module
    x, state = _given(args, kwargs, 0, "input"), _given(args, kwargs, 1, "hx")
    state = state[0] if isinstance(state, tuple | list) else state
    for name, value in (("weight_ih", x), ("weight_hh", state)):
        if isinstance(value, Tensor):
            yield LayerInput(name, value, -1)


def _attention(module: nn.Module, args: Args, kwargs: Kwargs) -> Iterator[LayerInput]:
    assert isinstance(module, nn.MultiheadAttention)
    given = [_given(args, kwargs, place, name) for place, name in enumerate(("query", "key", "value"))]
    fused: Tensor | None = getattr(module, "in_proj_weight", None)
    if fused is None:
        for own, x in zip(("q_proj_weight", "k_proj_weight", "v_proj_weight"), given, strict=True):
            if isinstance(x, Tensor):
                yield LayerInput(own, x, -1)
        return
    for place, x in enumerate(given):
        # Report a tensor once, however often it is read.
        if isinstance(x, Tensor) and all(x is not other for other in given[:place]):
            yield LayerInput("in_proj_weight", x, -1, 1, tuple(part for part, other in enumerate(given) if other is x))


_READS: Mapping[type[nn.Module], InputsOf] = {
    nn.Linear: _linear,
    nn.modules.conv._ConvNd: _convolution,
    nn.MultiheadAttention: _attention,
    nn.RNNBase: _recurrent,
    nn.RNNCellBase: _cell,
}
