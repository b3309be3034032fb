"""State of a trial between two optimizer steps, from which it goes on bit-identically."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from autoprune.codec import Format, stored
from autoprune.errors import SurgeryError, error_message
from autoprune.plan.kept import KeptChannels
from autoprune.records.work import Work

#: Kind of tensors, such as "mask" -> name, such as that of a parameter -> tensor.
TensorsByKind = Mapping[str, Mapping[str, Tensor]]


@stored(Format(what="the state of a fine-tune", apart=("tensors",), refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingState:
    """State of a fine-tune right after a pass over the train split.

    Attributes:
        step: Optimizer steps done.
        epoch: Passes over the train split done.
        work: Work done.
        loss_scale: Factor of the loss in float16; 1 in other formats.
        scaled_steps: Steps in a row without overflow in float16.
        tensors: State of the optimizer, masks, movement, gradients, losses, random generators and recovery steps.
    """

    step: int
    epoch: int
    work: Work
    loss_scale: float = 1.0
    scaled_steps: int = 0
    tensors: TensorsByKind = field(default_factory=dict, repr=False)

    def of_kind(self, kind: str) -> Mapping[str, Tensor]:
        """Return the tensors of a kind.

        Args:
            kind: The kind.

        Returns:
            Name -> tensor; empty for a kind without any.
        """
        return self.tensors.get(kind, {})

    def below(self, prefix: str) -> dict[str, Mapping[str, Tensor]]:
        """Return the kinds whose names start with a prefix.

        Args:
            prefix: The prefix.

        Returns:
            Rest of the kind's name -> name -> tensor.
        """
        return {kind.removeprefix(prefix): named for kind, named in self.tensors.items() if kind.startswith(prefix)}


@stored(Format(what="the state of a trial", version=1, apart=("model",), any_number=("rungs",), refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrialState:
    """State of a trial right after a pass over the train split.

    Attributes:
        training: State of the fine-tune.
        kept: Channels of the model, in dense indices.
        progress: Progress of the last pruning step, where the schedule follows the loss.
        identity: Fingerprint of everything that decides the trial; another trial cannot go on from here.
        seconds: Phase -> seconds so far.
        rungs: (share of the fine-tune's steps, quality) of each rung so far.
        rung_samples: Samples passed forward at rungs so far.
        model: Parameters and buffers of the model by name.
    """

    training: TrainingState
    kept: KeptChannels
    progress: float
    identity: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    rungs: tuple[tuple[float, float], ...] = ()
    rung_samples: int = 0
    model: Mapping[str, Tensor] = field(default_factory=dict, repr=False)


@torch.no_grad()
def load_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put parameters and buffers into a model, which keeps its memory formats.

    Args:
        model: A model of the same architecture, changed in place.
        tensors: Result of `task.checkpoint.model_tensors`, or more.

    Raises:
        SurgeryError: A parameter is missing, or has another shape.
    """
    for name, parameter in model.named_parameters():
        if name not in tensors or tensors[name].shape != parameter.shape:
            got = tuple(tensors[name].shape) if name in tensors else "none"
            raise SurgeryError(error_message(f"the stored {name}", f"have shape {tuple(parameter.shape)}", got))
        parameter.copy_(tensors[name])
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    there = dict(model.named_buffers())
    for prefix, module in model.named_modules():
        for leaf in module._buffers:
            name = f"{prefix}.{leaf}" if prefix else leaf
            own, found = there.get(name), tensors.get(name)
            if found is None:
                continue
            if own is not None and own.shape == found.shape and own.dtype == found.dtype:
                own.copy_(found)
            else:  # a forward may change the shape of a buffer, or make it
                setattr(module, leaf, found.to(own.device if own is not None else device, copy=True))
