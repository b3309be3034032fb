"""Signals: what criteria look at, gathered once on calibration data and shared by all of them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from autoprune.criteria import calibration
from autoprune.criteria.calibration import PROBES, ActivationStatistics, Reading
from autoprune.criteria.gates import PASSES as GATE_PASSES
from autoprune.criteria.gates import Gate, learn
from autoprune.criteria.kept import KeptChannels, alive_positions
from autoprune.criteria.movement import PASSES as MOVEMENT_PASSES
from autoprune.criteria.movement import moved
from autoprune.errors import ConfigurationError, fault
from autoprune.task.data import Batch
from autoprune.trace.topology import Block, ChannelGroup, Member, Topology

#: Names of the signals, as criteria ask for them.
SIGNALS = (
    "weights",
    "gradients",
    "activations",
    "activation_gradients",
    "hessian",
    "weight_hessian",
    "gates",
    "movement",
    "blocks",
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
    movement: name of a weight -> minus the sum over training steps of rate * gradient * weight.
    blocks: name of a block -> 1 less the mean cosine similarity between what enters and what leaves it.
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
    movement: Mapping[str, Tensor] | None = None
    blocks: Mapping[str, float] | None = None
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


def passes(names: Iterable[str]) -> tuple[int, int]:
    """How often gathering these signals sees each calibration sample: by a forward, by a forward and backward.

    A probe of the Hessian counts as one forward and backward more. A movement that is handed over costs nothing: leave
    it out.
    """
    names = set(names)
    trained = int(not names.isdisjoint(("gradients", "activation_gradients")))
    trained += (1 + PROBES) * len(names & {"hessian", "weight_hessian"})
    trained += GATE_PASSES * ("gates" in names) + MOVEMENT_PASSES * ("movement" in names)
    return len(names & {"activations", "blocks"}), trained


def gather(  # noqa: PLR0913  # what only a trainer has to give comes last and has a name
    model: nn.Module,
    names: Sequence[str],
    parent: tuple[Topology, KeptChannels],
    batches: Sequence[Batch],
    loss: Callable[..., Tensor],
    seed: int,
    *,
    movement: Mapping[str, Tensor] | None = None,
) -> Signals:
    """Gather the named signals on a model; running statistics and gradients of the model stay as they were.

    names: subset of SIGNALS. parent: the dense topology and the channels that `model` still has.
    batches: calibration batches on the model's device.
    movement: that of a fine-tune of this model, for its weights as they are now; nothing is trained for it then.
    """
    weights = {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    topology, kept = parent
    shapes = {name: info.shape for name, info in topology.tensors.items()}
    bare = Signals(kept=kept, positions=alive_positions(topology, kept), weights=weights, shapes=shapes, seed=seed)
    source = _Source(model=model, batches=batches, loss=loss, topology=topology, bare=bare)
    gradients, products = source.gradients(names)
    return replace(
        bare,
        gradients=gradients if "gradients" in names else None,
        activations=calibration.activations(model, batches) if "activations" in names else None,
        activation_gradients=products if "activation_gradients" in names else None,
        hessian=source.hessian(source.making()) if "hessian" in names else None,
        weight_hessian=source.hessian(source.weights()) if "weight_hessian" in names else None,
        gates=source.gates() if "gates" in names else None,
        movement=source.movement() if movement is None and "movement" in names else movement,
        blocks=source.blocks() if "blocks" in names else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """What signals are gathered from."""

    model: nn.Module
    batches: Sequence[Batch]
    loss: Callable[..., Tensor]
    topology: Topology
    bare: Signals

    def trained(self) -> list[str]:
        return [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]

    def making(self) -> set[str]:
        """Weights that make channels."""
        return {m.tensor for group in self.topology.groups for m in group.members if m.role == "out"}

    def weights(self) -> set[str]:
        """Parameters of two or more axes, and what else counts as the weights of a block."""
        matrices = {name for name, parameter in self.model.named_parameters() if parameter.ndim > 1}
        return matrices.union(*(block_weights(block, self.topology, self.bare) for block in self.topology.blocks))

    def gradients(self, names: Sequence[str]) -> tuple[dict[str, list[Tensor]], dict[str, dict[str, Tensor]]]:
        if {"gradients", "activation_gradients"}.isdisjoint(names):
            return {}, {}
        wanted = self.trained() if "gradients" in names else []
        readings = _readings(self.topology, self.bare) if "activation_gradients" in names else {}
        return calibration.gradients(self.model, self.batches, self.loss, wanted, readings)

    def hessian(self, of: Set[str]) -> dict[str, Tensor]:
        wanted = [name for name in self.trained() if name in of]
        signs = partial(_signs, self.topology, self.bare)
        return calibration.hessian(self.model, self.batches, self.loss, wanted, signs)

    def gates(self) -> dict[str, Tensor]:
        places = [_gate(group, self.bare) for group in self.topology.groups]
        there = [gate for gate in places if gate.places]
        total = sum(group.channels for group in self.topology.groups)
        noise = partial(_uniform, self.topology, self.bare)
        return learn(self.model, self.batches, self.loss, there, noise, total)

    def movement(self) -> dict[str, Tensor]:
        return moved(self.model, self.batches, self.loss, self.trained())

    def blocks(self) -> dict[str, float]:
        return calibration.block_changes(self.model, self.batches, blocks_left(self.topology, self.bare.kept))


def blocks_left(topology: Topology, kept: KeptChannels) -> list[Block]:
    """Blocks that a model still has: neither dropped nor inside one that is."""
    gone = [topology.block(name) for name in kept.dropped]
    return [block for block in topology.blocks if not any(other.holds(block.name) for other in gone)]


def block_weights(block: Block, topology: Topology, signals: Signals) -> list[str]:
    """A block's parameters of two or more axes; all of its parameters where none has."""
    own = [name for name in block.tensors if topology.tensors[name].is_parameter and name in signals.weights]
    return [name for name in own if signals.weights[name].ndim > 1] or own


def _gate(group: ChannelGroup, signals: Signals) -> Gate:
    """Where a group's channels are silenced: at the scale and shift of their norms, else at what makes them."""
    there = [member for member in group.members if member.tensor in signals.weights]
    norms = {module_of(member) for member in there if member.role == "scale"}
    if norms:
        there = [member for member in there if module_of(member) in norms]
    roles = ("scale", "shift") if norms else ("out", "shift")
    alive = signals.alive(group)
    places = tuple(
        (member.tensor, member.axis, signals.where(member.tensor, member.axis, member.index[alive]))
        for member in there
        if member.role in roles
    )
    return Gate(group=group.name, channels=len(alive), places=places)


def module_of(member: Member) -> str:
    """Name of the module that has a member's tensor."""
    return member.tensor.rpartition(".")[0]


def _readings(topology: Topology, signals: Signals) -> dict[str, list[Reading]]:
    """Name of a weight -> the groups that it reads."""
    found: dict[str, list[Reading]] = {}
    for group in topology.groups:
        for member in group.members:
            if member.role == "in" and member.tensor in signals.weights:
                where = signals.where(member.tensor, member.axis, member.index[signals.alive(group)])
                size = signals.weights[member.tensor].shape[member.axis]
                found.setdefault(member.tensor, []).append(Reading(group=group.name, where=where, size=size))
    return found


def _signs(topology: Topology, signals: Signals, name: str, number: int) -> Tensor:
    """+1 and -1 by chance, int8: a function of seed, name, number and position in the dense model."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{signals.seed}/{name}/{number}".encode()))
    signs = torch.randint(2, topology.tensors[name].shape, generator=generator, dtype=torch.int8) * 2 - 1
    for axis in range(signs.ndim):
        if (name, axis) in signals.positions:
            signs = signs.index_select(axis, signals.positions[name, axis])
    return signs


def _uniform(topology: Topology, signals: Signals, group: str, step: int) -> Tensor:
    """In [0, 1), [channels alive]: a function of seed, group, step and channel of the dense model."""
    gated = topology.group(group)
    return dense_noise(f"{signals.seed}/{group}/{step}", (gated.channels,))[signals.alive(gated)]


def dense_noise(key: str, shape: Sequence[int]) -> Tensor:
    """Uniform in [0, 1), float32: a function of the key and the position."""
    return torch.rand(tuple(shape), generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))


def making(group: ChannelGroup, signals: Signals, criterion: str) -> list[Tensor]:
    """For each weight that makes the channels: [channels, elements]. ConfigurationError when there is none."""
    found = [wide(weight) for weight in slices(group, signals, "out")]
    if not found:
        raise ConfigurationError(
            fault(
                f"criterion {criterion!r}", "be used on groups that weights make", f"group {group.name!r} without any"
            )
        )
    return found


def wide(tensor: Tensor) -> Tensor:
    """In float32, or float64 if it is that already."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def finite(scores: Tensor) -> Tensor:
    """In float32; what is not a number is worth nothing."""
    return torch.nan_to_num(scores.detach().float(), nan=0.0, posinf=torch.finfo(torch.float32).max)


def slices(group: ChannelGroup, signals: Signals, role: str, of: Mapping[str, Tensor] | None = None) -> list[Tensor]:
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
        fault(
            f"criterion {criterion!r}",
            f"be given the signal {signal!r}",
            "signals without it",
            f"Gather it: gather(model, names=({signal!r},), ...).",
        )
    )
