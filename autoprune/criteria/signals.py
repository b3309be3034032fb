"""Signals: what criteria look at, gathered once on calibration data and shared by all of them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from autoprune.criteria.calibration import ActivationStatistics
from autoprune.criteria.kept import KeptChannels
from autoprune.errors import ConfigurationError, error_message
from autoprune.trace.blocks import DroppableBlock
from autoprune.trace.topology import ChannelGroup, Member, Topology

#: Names of the signals, as criteria ask for them.
SIGNALS = (
    "weights",
    "gradients",
    "activations",
    "activation_gradients",
    "hessian",
    "weight_hessian",
    "gates",
    "weight_gates",
    "block_gates",
    "movement",
    "blocks",
    "block_gradients",
    "block_losses",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """What is known of a model (dense or already cut) when channels are scored.

    kept: channels that the model still has.
    positions: (tensor, axis) -> dense positions that it still has, for every axis that was cut.
    weights: parameters and buffers by name.
    gradients: loss gradient per parameter, one tensor for each calibration batch.
    activations: name of a weight -> statistics of what that weight reads.
    activation_gradients: group -> name of a weight that reads it -> float [channels alive], the mean over samples
        of |sum over positions of x times the gradient of the loss of its batch to x|, x being what is read.
    hessian: diagonal of the Hessian of the mean loss over batches, estimated, for parameters that make channels.
    weight_hessian: the same for all parameters of two or more axes, whose probes are drawn together.
    gates: group -> log alpha of its hard-concrete gates, float [channels alive].
    weight_gates: name of a weight -> log alpha of a gate on each of its entries, float [shape of the weight].
    block_gates: name of a block -> log alpha of a gate on what it adds, float scalar.
    movement: name of a weight -> minus the sum over training steps of rate * gradient * weight.
    blocks: name of a block -> 1 less the mean cosine similarity between what enters and what leaves it.
    block_gradients: name of a block -> derivative of each batch's loss to a factor on what it adds, float [batches].
    block_losses: name of a block -> mean loss without the change that it makes.
    shapes: name of a parameter or buffer -> its shape in the dense model.
    seed: for criteria that draw at random.
    """

    kept: KeptChannels
    positions: Mapping[tuple[str, int], Tensor]
    weights: Mapping[str, Tensor]
    gradients: Mapping[str, Sequence[Tensor]] | None = None
    activations: Mapping[str, ActivationStatistics] | None = None
    activation_gradients: Mapping[str, Mapping[str, Tensor]] | None = None
    hessian: Mapping[str, Tensor] | None = None
    weight_hessian: Mapping[str, Tensor] | None = None
    gates: Mapping[str, Tensor] | None = None
    weight_gates: Mapping[str, Tensor] | None = None
    block_gates: Mapping[str, Tensor] | None = None
    movement: Mapping[str, Tensor] | None = None
    blocks: Mapping[str, float] | None = None
    block_gradients: Mapping[str, Tensor] | None = None
    block_losses: Mapping[str, float] | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    seed: int = 0

    def alive(self, group: ChannelGroup) -> Tensor:
        """Dense channels of a group that the model still has, int64 [channels]."""
        return self.kept.of(group.name, group.channels)

    def where(self, tensor: str, axis: int, index: Tensor) -> Tensor:
        """Positions on an axis of the model as it is now of dense positions `index` [channels, k].

        Of an axis that is a grid of two groups some positions have gone with the other group, of every channel
        equally many: they are left out, [channels, k'].
        """
        alive = self.positions.get((tensor, axis))
        if alive is None:
            return index
        flat = index.reshape(-1)
        where = torch.searchsorted(alive, flat).clamp(max=len(alive) - 1)
        return where[alive[where] == flat].reshape(len(index), -1)

    def need_gradients(self, criterion: str) -> Mapping[str, Sequence[Tensor]]:
        """The gradients, or an error that says how to get them."""
        if self.gradients is None:
            raise _missing(criterion, "gradients")
        return self.gradients

    def need_activations(self, criterion: str) -> Mapping[str, ActivationStatistics]:
        """The activations, or an error that says how to get them."""
        if self.activations is None:
            raise _missing(criterion, "activations")
        return self.activations

    def need_activation_gradients(self, criterion: str) -> Mapping[str, Mapping[str, Tensor]]:
        """The activations times their gradients, or an error that says how to get them."""
        if self.activation_gradients is None:
            raise _missing(criterion, "activation_gradients")
        return self.activation_gradients

    def need_hessian(self, criterion: str) -> Mapping[str, Tensor]:
        """The diagonal of the Hessian, or an error that says how to get it."""
        if self.hessian is None:
            raise _missing(criterion, "hessian")
        return self.hessian

    def need_weight_hessian(self, criterion: str) -> Mapping[str, Tensor]:
        """The diagonal of the Hessian for single weights, or an error that says how to get it."""
        if self.weight_hessian is None:
            raise _missing(criterion, "weight_hessian")
        return self.weight_hessian

    def need_gates(self, criterion: str) -> Mapping[str, Tensor]:
        """The gates, or an error that says how to get them."""
        if self.gates is None:
            raise _missing(criterion, "gates")
        return self.gates

    def need_weight_gates(self, criterion: str) -> Mapping[str, Tensor]:
        """The gates of single weights, or an error that says how to get them."""
        if self.weight_gates is None:
            raise _missing(criterion, "weight_gates")
        return self.weight_gates

    def need_block_gates(self, criterion: str) -> Mapping[str, Tensor]:
        """The gates of blocks, or an error that says how to get them."""
        if self.block_gates is None:
            raise _missing(criterion, "block_gates")
        return self.block_gates

    def need_movement(self, criterion: str) -> Mapping[str, Tensor]:
        """The movement, or an error that says how to get it."""
        if self.movement is None:
            raise _missing(criterion, "movement")
        return self.movement

    def need_blocks(self, criterion: str) -> Mapping[str, float]:
        """What blocks change, or an error that says how to get it."""
        if self.blocks is None:
            raise _missing(criterion, "blocks")
        return self.blocks

    def need_block_gradients(self, criterion: str) -> Mapping[str, Tensor]:
        """What the loss says of blocks, or an error that says how to get it."""
        if self.block_gradients is None:
            raise _missing(criterion, "block_gradients")
        return self.block_gradients

    def need_block_losses(self, criterion: str) -> Mapping[str, float]:
        """The losses without blocks, or an error that says how to get them."""
        if self.block_losses is None:
            raise _missing(criterion, "block_losses")
        return self.block_losses

    def as_cut(self, name: str, values: Tensor) -> Tensor:
        """Of values for every entry of a parameter of the dense model those that the model still has."""
        for axis in range(values.ndim):
            if (name, axis) in self.positions:
                values = values.index_select(axis, self.positions[name, axis])
        return values

    def noise(self, key: str, name: str) -> Tensor:
        """Uniform in [0, 1), of a parameter's shape: a function of seed, key and position in the dense model."""
        shape = self.shapes.get(name, tuple(self.weights[name].shape))
        return self.as_cut(name, dense_noise(f"{self.seed}/{key}", shape))


def remaining_blocks(topology: Topology, kept: KeptChannels) -> list[DroppableBlock]:
    """Blocks that a model still has: neither dropped nor a part of what is."""
    gone = topology.gone(kept.dropped)
    return [block for block in topology.blocks if block.name not in gone]


def block_weights(block: DroppableBlock, topology: Topology, signals: Signals) -> list[str]:
    """A block's parameters of two or more axes; all of its parameters where none has."""
    own = [name for name in block.tensors if topology.tensors[name].is_parameter and name in signals.weights]
    return [name for name in own if signals.weights[name].ndim > 1] or own


def module_name(member: Member) -> str:
    """Name of the module that has a member's tensor."""
    return member.tensor.rpartition(".")[0]


def dense_noise(key: str, shape: Sequence[int]) -> Tensor:
    """Uniform in [0, 1), float32: a function of the key and the position."""
    return torch.rand(tuple(shape), generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))


def producing_weights(group: ChannelGroup, signals: Signals, criterion: str) -> list[Tensor]:
    """For each weight that makes the channels: [channels, elements]. ConfigurationError when there is none."""
    found = [upcast(weight) for weight in channel_slices(group, signals, "out")]
    if not found:
        raise ConfigurationError(
            error_message(
                f"criterion {criterion!r}", "be used on groups that weights make", f"group {group.name!r} without any"
            )
        )
    return found


def upcast(tensor: Tensor) -> Tensor:
    """In float32, or float64 if it is that already."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def sanitize(scores: Tensor) -> Tensor:
    """In float32; what is not a number is worth nothing."""
    return torch.nan_to_num(scores.detach().float(), nan=0.0, posinf=torch.finfo(torch.float32).max)


def channel_slices(
    group: ChannelGroup, signals: Signals, role: str, of: Mapping[str, Tensor] | None = None
) -> list[Tensor]:
    """For each member of that role: [channels, elements], its values along the channels still alive.

    of: tensors by name with the parameters' shapes (gradients, say); the weights themselves when None.
    """
    source = signals.weights if of is None else of
    return [
        _slice(
            source[member.tensor],
            member.axis,
            signals.where(member.tensor, member.axis, member.index[signals.alive(group)]),
        )
        for member in group.members
        if member.role == role and member.tensor in source
    ]


def _slice(tensor: Tensor, axis: int, where: Tensor) -> Tensor:
    picked = tensor.index_select(axis, where.reshape(-1).to(tensor.device)).movedim(axis, 0)
    return picked.reshape(len(where), -1)


def _missing(criterion: str, signal: str) -> ConfigurationError:
    return ConfigurationError(
        error_message(
            f"criterion {criterion!r}",
            f"be given the signal {signal!r}",
            "signals without it",
            f"Gather it: gather(model, names=({signal!r},), ...).",
        )
    )
