"""Signals: the data that criteria score with, gathered once on calibration batches and shared by all criteria."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from autoprune.criteria.calibration import ActivationStatistics
from autoprune.errors import ConfigurationError, error_message
from autoprune.plan.kept import KeptChannels
from autoprune.structure.blocks import DroppableBlock
from autoprune.structure.groups import ChannelGroup, Member
from autoprune.structure.topology import Topology
from autoprune.surgery.positions import kept_indices

#: Names of the signals.
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
    """Data about a model, dense or already cut, for the scoring of its channels, weights and blocks.

    Attributes:
        kept: Channels that the model still has.
        positions: (tensor, axis) -> remaining dense positions, for every axis that was cut.
        weights: Parameters and buffers by name.
        gradients: Name of a parameter -> gradient of the loss, one tensor for each calibration batch.
        activations: Name of a weight -> statistics of its input.
        activation_gradients: Group -> name of a weight that reads it -> float [remaining channels], the mean over
            samples of |sum over positions of x times the gradient of the batch's loss to x|, x being the weight's
            input.
        hessian: Estimated diagonal of the Hessian of the mean loss over batches, for parameters that produce channels.
        weight_hessian: The same for all parameters of two or more axes, with joint probes.
        gates: Group -> log alpha of its hard-concrete gates, float [remaining channels].
        weight_gates: Name of a weight -> log alpha of a gate on each of its entries, float [shape of the weight].
        block_gates: Name of a block -> log alpha of a gate on its addition, float scalar.
        movement: Name of a weight -> minus the sum over training steps of rate * gradient * weight.
        blocks: Name of a block -> 1 less the mean cosine similarity between its input and output.
        block_gradients: Name of a block -> derivative of each batch's loss to a factor on its addition, float
            [batches].
        block_losses: Name of a block -> mean loss without the block's change.
        shapes: Name of a parameter or buffer -> its shape in the dense model.
        seed: Seed of criteria that use random numbers.
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
        """Return the dense channels of a group that the model still has.

        Args:
            group: Group of the dense model.

        Returns:
            Dense channels, int64 [remaining channels].
        """
        return kept_indices(self.kept, group)

    def positions_of(self, tensor: str, axis: int, index: Tensor) -> Tensor:
        """Convert dense positions on an axis to positions in the model.

        An axis that is a grid of two groups has lost some positions with the other group, equally many of every
        channel: they are left out.

        Args:
            tensor: Name of a parameter or buffer.
            axis: Axis of the tensor.
            index: Dense positions [channels, k] of channels that the model still has.

        Returns:
            Positions in the model, int64 [channels, k'].
        """
        alive = self.positions.get((tensor, axis))
        if alive is None:
            return index
        flat = index.reshape(-1)
        where = torch.searchsorted(alive, flat).clamp(max=len(alive) - 1)
        return where[alive[where] == flat].reshape(len(index), -1)

    def need_gradients(self, criterion: str) -> Mapping[str, Sequence[Tensor]]:
        """Return the gradients; ConfigurationError, which says how to gather the signal, without it."""
        if self.gradients is None:
            raise _missing(criterion, "gradients")
        return self.gradients

    def need_activations(self, criterion: str) -> Mapping[str, ActivationStatistics]:
        """Return the statistics of the activations; ConfigurationError, which says how to gather the signal, without
        it.
        """
        if self.activations is None:
            raise _missing(criterion, "activations")
        return self.activations

    def need_activation_gradients(self, criterion: str) -> Mapping[str, Mapping[str, Tensor]]:
        """Return the activations times their gradients; ConfigurationError, which says how to gather the signal,
        without it.
        """
        if self.activation_gradients is None:
            raise _missing(criterion, "activation_gradients")
        return self.activation_gradients

    def need_hessian(self, criterion: str) -> Mapping[str, Tensor]:
        """Return the diagonal of the Hessian; ConfigurationError, which says how to gather the signal, without it."""
        if self.hessian is None:
            raise _missing(criterion, "hessian")
        return self.hessian

    def need_weight_hessian(self, criterion: str) -> Mapping[str, Tensor]:
        """Return the diagonal of the Hessian for single weights; ConfigurationError, which says how to gather the
        signal, without it.
        """
        if self.weight_hessian is None:
            raise _missing(criterion, "weight_hessian")
        return self.weight_hessian

    def need_gates(self, criterion: str) -> Mapping[str, Tensor]:
        """Return the gates of channels; ConfigurationError, which says how to gather the signal, without it."""
        if self.gates is None:
            raise _missing(criterion, "gates")
        return self.gates

    def need_weight_gates(self, criterion: str) -> Mapping[str, Tensor]:
        """Return the gates of single weights; ConfigurationError, which says how to gather the signal, without it."""
        if self.weight_gates is None:
            raise _missing(criterion, "weight_gates")
        return self.weight_gates

    def need_block_gates(self, criterion: str) -> Mapping[str, Tensor]:
        """Return the gates of blocks; ConfigurationError, which says how to gather the signal, without it."""
        if self.block_gates is None:
            raise _missing(criterion, "block_gates")
        return self.block_gates

    def need_movement(self, criterion: str) -> Mapping[str, Tensor]:
        """Return the movement of weights; ConfigurationError, which says how to gather the signal, without it."""
        if self.movement is None:
            raise _missing(criterion, "movement")
        return self.movement

    def need_blocks(self, criterion: str) -> Mapping[str, float]:
        """Return the changes that blocks make; ConfigurationError, which says how to gather the signal, without it."""
        if self.blocks is None:
            raise _missing(criterion, "blocks")
        return self.blocks

    def need_block_gradients(self, criterion: str) -> Mapping[str, Tensor]:
        """Return the gradients to factors on blocks; ConfigurationError, which says how to gather the signal, without
        it.
        """
        if self.block_gradients is None:
            raise _missing(criterion, "block_gradients")
        return self.block_gradients

    def need_block_losses(self, criterion: str) -> Mapping[str, float]:
        """Return the losses without each block; ConfigurationError, which says how to gather the signal, without it."""
        if self.block_losses is None:
            raise _missing(criterion, "block_losses")
        return self.block_losses

    def remaining_entries(self, name: str, values: Tensor) -> Tensor:
        """Select the entries of a dense parameter that the model still has.

        Args:
            name: Name of the parameter.
            values: One value for each entry of the dense parameter.

        Returns:
            The values in the shape of the model's parameter.
        """
        for axis in range(values.ndim):
            if (name, axis) in self.positions:
                values = values.index_select(axis, self.positions[name, axis])
        return values

    def noise(self, key: str, name: str) -> Tensor:
        """Draw uniform noise for the entries of a parameter: a function of seed, key and position in the dense model.

        Args:
            key: Name of the random stream.
            name: Name of the parameter.

        Returns:
            Noise in [0, 1), float32, in the shape of the model's parameter.
        """
        shape = self.shapes.get(name, tuple(self.weights[name].shape))
        return self.remaining_entries(name, dense_noise(f"{self.seed}/{key}", shape))


def remaining_blocks(topology: Topology, kept: KeptChannels) -> list[DroppableBlock]:
    """List the blocks that a model still has: neither dropped nor part of a dropped block.

    Args:
        topology: Topology of the dense model.
        kept: Channels and blocks that stay.

    Returns:
        The blocks, in the topology's order.
    """
    gone = topology.gone(kept.dropped)
    return [block for block in topology.blocks if block.name not in gone]


def block_weights(block: DroppableBlock, topology: Topology, signals: Signals) -> list[str]:
    """List the weights of a block: its parameters of two or more axes, or all of its parameters where none has two.

    Args:
        block: Block of the topology.
        topology: Topology of the dense model.
        signals: Signals of the model.

    Returns:
        Names of parameters.
    """
    own = [name for name in block.tensors if topology.tensors[name].is_parameter and name in signals.weights]
    return [name for name in own if signals.weights[name].ndim > 1] or own


def module_name(member: Member) -> str:
    """Return the name of the module that has a member's tensor.

    Args:
        member: Member of a group.

    Returns:
        Name of the module; "" for the model itself.
    """
    return member.tensor.rpartition(".")[0]


def dense_noise(key: str, shape: Sequence[int]) -> Tensor:
    """Draw uniform noise: a function of the key and the position.

    Args:
        key: Name of the random stream.
        shape: Shape of the noise.

    Returns:
        Noise in [0, 1), float32.
    """
    return torch.rand(tuple(shape), generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))


def producing_weights(group: ChannelGroup, signals: Signals, criterion: str) -> list[Tensor]:
    """List the weights that produce a group's channels.

    Args:
        group: Any group.
        signals: Signals of the model.
        criterion: Name of the criterion, for the message.

    Returns:
        For each weight its values, float [channels, elements].

    Raises:
        ConfigurationError: When no weight produces the channels.
    """
    found = [upcast(weight) for weight in channel_slices(group, signals, "out")]
    if not found:
        raise ConfigurationError(
            error_message(
                f"criterion {criterion!r}", "be used on groups that weights make", f"group {group.name!r} without any"
            )
        )
    return found


def upcast(tensor: Tensor) -> Tensor:
    """Convert a tensor to float32 unless it is float64.

    Args:
        tensor: Any floating-point tensor.

    Returns:
        The tensor in float32 or float64.
    """
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def sanitize(scores: Tensor) -> Tensor:
    """Convert scores to finite float32; NaN becomes 0, the lowest score.

    Args:
        scores: Scores of any shape.

    Returns:
        The scores, detached.
    """
    return torch.nan_to_num(scores.detach().float(), nan=0.0, posinf=torch.finfo(torch.float32).max)


def channel_slices(
    group: ChannelGroup, signals: Signals, role: str, of: Mapping[str, Tensor] | None = None
) -> list[Tensor]:
    """Slice the tensors of a group's members along the remaining channels.

    Args:
        group: Any group.
        signals: Signals of the model.
        role: Role of the members.
        of: Tensors by name in the shapes of the parameters, such as gradients; the weights when None.

    Returns:
        For each member of that role its values, [channels, elements].
    """
    source = signals.weights if of is None else of
    return [
        _slice(
            source[member.tensor],
            member.axis,
            signals.positions_of(member.tensor, member.axis, torch.from_numpy(member.index)[signals.alive(group)]),
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
