"""What a cut kept, read from the values that arrive: every element of the dense model carries its own number."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

#: Cuts a model; the decoder knows nothing else of it.
Cut = Callable[[nn.Module], nn.Module]
#: How the name of a direction of torch's weight norm ends.
DIRECTION = ".original1"


class DecodeError(Exception):
    """A cut that is no part of the dense model: the message says of which tensor."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a cut left of every tensor.

    kept: name -> positions of the dense tensor that stay, axis by axis.
    gone: tensors that the cut model has no more.
    factors: name -> by what each element that stays was multiplied.
    """

    kept: Mapping[str, tuple[Tensor, ...]]
    gone: frozenset[str]
    factors: Mapping[str, Tensor]


def decode(model: nn.Module, cut: Cut) -> Decoded:
    """Find out what a cut keeps from two copies: one whose elements are their places, one whose elements are one.

    Whole numbers, which modules index with, are left as they are; only those that lose something are read in the same
    way, from a copy more. Raises DecodeError.
    """
    dense = _named(model)
    numbers = {name for name, tensor in dense.items() if tensor.is_floating_point()}
    places, ones = (_named(cut(_filled(model, fill, numbers))) for fill in (_places, torch.ones_like))
    if not places.keys() <= dense.keys():
        raise DecodeError(f"{sorted(places.keys() - dense.keys())[0]} is no tensor of the dense model")
    others = places.keys() - numbers
    smaller = {name for name in others if places[name].shape != dense[name].shape}
    indices = _named(cut(_filled(model, _places, smaller))) if smaller else {}
    for name in others:
        places[name] = indices[name] if name in smaller else _places(dense[name].double())
        ones[name] = torch.ones_like(places[name])
    kept = {name: _positions(name, places[name], ones[name], dense[name]) for name in places}
    return Decoded(kept=kept, gone=frozenset(dense.keys() - places.keys()), factors=ones)


def check_values(model: nn.Module, smaller: nn.Module, decoded: Decoded) -> None:
    """Demand that a cut of the model itself holds the values at the places that were read. Raises DecodeError."""
    dense = _named(model)
    for name, tensor in _named(smaller).items():
        wanted = dense[name][torch.meshgrid(*decoded.kept[name], indexing="ij")] if dense[name].ndim else dense[name]
        if tensor.is_floating_point():
            wanted = wanted * decoded.factors[name]
        if wanted.shape != tensor.shape or not torch.allclose(tensor, wanted, rtol=1e-12, atol=0, equal_nan=True):
            raise DecodeError(f"{name} of the cut model has other values than the dense model at the places it kept")


@torch.no_grad()
def removed(model: nn.Module, decoded: Decoded) -> nn.Module:
    """A copy of the dense model in which NaN stands for every element that a cut removed.

    Parameters of which nothing is left belong to what was dropped whole, and are zero; of a weight norm its lengths
    are, as directions of zero are none. Scales are as they were.
    """
    scratch = copy.deepcopy(model)
    parameters = dict(scratch.named_parameters())
    for name, tensor in _named(scratch).items():
        if not tensor.is_floating_point():
            continue
        if name in decoded.gone:
            if name in parameters and not name.endswith(DIRECTION):
                tensor.zero_()
            continue
        for axis, positions in enumerate(decoded.kept[name]):
            if len(positions) < tensor.shape[axis]:
                gone = torch.ones(tensor.shape[axis], dtype=torch.bool)
                gone[positions] = False
                tensor.index_fill_(axis, gone.nonzero().squeeze(1), math.nan)
    return scratch


def _named(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def _filled(model: nn.Module, fill: Callable[[Tensor], Tensor], names: Container[str]) -> nn.Module:
    """A copy in which these tensors have other elements, of types that are wide enough for a place."""
    scratch = copy.deepcopy(model)
    for name, parameter in scratch.named_parameters():
        if name in names:
            parameter.data = fill(parameter.detach().double())
    known = {
        id(buffer): fill(buffer.double() if buffer.is_floating_point() else buffer.long())
        for name, buffer in scratch.named_buffers()
        if name in names
    }
    for module in scratch.modules():
        module._buffers.update({name: known[id(b)] for name, b in module._buffers.items() if id(b) in known})
    return scratch


def _places(tensor: Tensor) -> Tensor:
    """The place of each element, from one on: zero times a factor would be any place's."""
    return torch.arange(1, tensor.numel() + 1, dtype=tensor.dtype).view(tensor.shape)


def _positions(name: str, places: Tensor, ones: Tensor, dense: Tensor) -> tuple[Tensor, ...]:
    if places.shape != ones.shape or places.ndim != dense.ndim:
        raise DecodeError(f"{name} has shape {list(places.shape)} where the dense model has {list(dense.shape)}")
    quotient = places.double() / ones.double()
    flat = quotient.round()
    if places.numel() == 0 or not torch.allclose(quotient, flat, rtol=1e-9, atol=0):
        raise DecodeError(f"{name} holds other values than those of the dense model times a factor")
    left, found = flat.long() - 1, []
    for axis in reversed(range(dense.ndim)):
        coordinate = left % dense.shape[axis]
        left = left // dense.shape[axis]
        line = coordinate.movedim(axis, 0).reshape(coordinate.shape[axis], -1)
        if not bool((line == line[:, :1]).all()) or len(line[:, 0].unique()) != len(line):
            raise DecodeError(f"axis {axis} of {name} is no choice of positions of the dense model")
        found.append(line[:, 0])
    return tuple(reversed(found))
