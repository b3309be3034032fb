"""Prepare models and inputs for proofs: precision, shared weights and few samples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from autoprune.proof.distance import distance
from autoprune.proof.forwards import Forwards
from autoprune.task.clone import clone_with, share_parameters
from autoprune.task.data import Inputs
from autoprune.trace.values import map_tensors, tensors_in

#: Samples that a proof runs on: an odd number, which sizes written in code rarely divide.
_FEW = 3
#: Largest relative difference of outputs between a few samples alone and in their batch.
_SAME = 1e-4


class Attempt(NamedTuple):
    """One way to set up a proof.

    Attributes:
        dtype: Precision of the computation; None for the model's own.
        shares: Whether weights are shared with the user's model.
        stirs_weights: Whether constant weights get noise.
        stirs_inputs: Whether inputs get noise.
    """

    dtype: torch.dtype | None
    shares: bool
    stirs_weights: bool
    stirs_inputs: bool


def _attempts(*ways: tuple[torch.dtype | None, bool]) -> tuple[Attempt, ...]:
    """Return the attempts for some (dtype, shares), the most telling first."""
    stirs = ((True, True), (True, False), (False, False))
    return tuple(Attempt(dtype, shares, *one) for dtype, shares in ways for one in stirs)


#: A model that compares dtypes itself needs weights of the proof's dtype; one that writes to its weights needs its own.
ATTEMPTS = _attempts((torch.float64, True), (torch.float64, False), (None, False))
#: Attempts in the model's precision, to look for repairs.
ROUGH_ATTEMPTS = _attempts((None, True))


def shapes_of(outputs: Iterable[Tensor]) -> list[torch.Size]:
    """Return the shapes of outputs.

    Args:
        outputs: The outputs.

    Returns:
        One shape each.
    """
    return [tensor.shape for tensor in outputs]


def first_samples(model: nn.Module, inputs: Inputs, forwards: Forwards) -> Inputs:
    """Take three samples of the inputs, if the model computes them alike alone and in their batch.

    A proof runs the model some dozens of times, and further samples would show nothing more.

    Args:
        model: The model.
        inputs: Its inputs.
        forwards: Runs the model.

    Returns:
        The three samples, or all inputs.
    """
    sizes = {len(tensor) if tensor.ndim else 0 for tensor in tensors_in(inputs)}
    if len(sizes) != 1 or min(sizes) <= _FEW:
        return inputs
    everything = forwards.outputs(share_parameters(model), inputs)
    if any(tensor.ndim == 0 for tensor in everything):
        return inputs
    fewer = map_tensors(inputs, lambda tensor: tensor[:_FEW])
    try:
        outputs = forwards.outputs(share_parameters(model), fewer)
    except Exception:  # user code runs in here
        return inputs
    alone = [tensor[:_FEW] for tensor in everything]
    same = shapes_of(alone) == shapes_of(outputs) and distance(outputs, alone) < _SAME
    return fewer if same else inputs


def shared_copy(model: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """Copy a model in eval mode: matrices are shared; biases, scales and buffers get the dtype of the proof.

    Convolutions compare the dtypes of inputs and biases before any operator could convert them.

    Args:
        model: The model.
        dtype: Precision of the proof.

    Returns:
        The copy.
    """
    parameters = {name for name, _ in model.named_parameters()}

    def own(name: str, tensor: Tensor) -> Tensor | None:
        if name in parameters and tensor.ndim > 1:
            return tensor
        return tensor.to(dtype, copy=True) if tensor.is_floating_point() else None

    return clone_with(model, own).eval()


def widen(model: nn.Module, attempt: Attempt) -> None:
    """Convert weights that no operator can convert in time, in place: recurrent modules compare dtypes themselves.

    Args:
        model: The copy to run.
        attempt: The attempt.
    """
    for module in model.modules() if attempt.dtype is not None else ():
        if not attempt.shares or isinstance(module, nn.RNNBase | nn.RNNCellBase):
            module.to(attempt.dtype)
