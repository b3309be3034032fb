"""Gathering of signals: one pass over the calibration batches serves all signals that can share it."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from autoprune.criteria import block_effects, calibration
from autoprune.criteria.calibration import HESSIAN_PARTS, HESSIAN_PARTS_COST, HESSIAN_PROBES, Probes
from autoprune.criteria.gates import GATE_PASSES, Gate, GateNoise, learn_gates
from autoprune.criteria.layer_inputs import InputPositions
from autoprune.criteria.movement import MOVEMENT_PASSES, measure_movement
from autoprune.criteria.signals import SIGNALS, Signals, block_weights, dense_noise, module_name, remaining_blocks
from autoprune.errors import UnknownNameError
from autoprune.plan.kept import KeptChannels
from autoprune.structure.groups import ChannelGroup
from autoprune.structure.topology import Topology
from autoprune.surgery.positions import alive_positions
from autoprune.task.data import Batch

#: Signals that need a forward and backward; the signals of one row share it.
_SLOPES = ({"gradients", "activation_gradients"}, {"block_gradients"})
_GATES = {"gates", "weight_gates", "block_gates"}


def count_passes(names: Iterable[str], blocks: int = 0) -> tuple[int, int]:
    """Count the passes over the calibration batches that gathering takes.

    A probe of the Hessian counts as one more forward and backward, a probe in parts as HESSIAN_PARTS_COST. A movement
    that is handed over costs nothing: leave it out.

    Args:
        names: Names of signals.
        blocks: Number of blocks, each of which takes a forward for "block_losses".

    Returns:
        (forwards, forwards with backward) for each calibration sample.
    """
    names = set(names)
    trained = sum(not names.isdisjoint(together) for together in _SLOPES)
    trained += (1 + HESSIAN_PARTS_COST * HESSIAN_PROBES) * ("hessian" in names) + (1 + HESSIAN_PROBES) * (
        "weight_hessian" in names
    )
    trained += GATE_PASSES * len(names & _GATES) + MOVEMENT_PASSES * ("movement" in names)
    return len(names & {"activations", "blocks"}) + blocks * ("block_losses" in names), trained


def gather_signals(  # noqa: PLR0913  # what only a trainer has to give comes last and has a name
    model: nn.Module,
    names: Sequence[str],
    parent: tuple[Topology, KeptChannels],
    batches: Sequence[Batch],
    loss: Callable[..., Tensor],
    seed: int,
    *,
    movement: Mapping[str, Tensor] | None = None,
) -> Signals:
    """Gather signals on a model; its running statistics and gradients do not change.

    Args:
        model: Dense or cut model.
        names: Names of the signals, a subset of SIGNALS.
        parent: Topology of the dense model, and the channels that the model still has.
        batches: Calibration batches on the model's device.
        loss: Loss of the task.
        seed: Seed of all random numbers.
        movement: Movement of a fine-tune of this model, for its current weights; None trains a copy where "movement" is
            asked for.

    Returns:
        The signals.

    Raises:
        UnknownNameError: For an unknown signal.
        ConfigurationError: For a signal that the model cannot give, such as "hessian" without second derivatives.
    """
    for name in names:
        if name not in SIGNALS:
            raise UnknownNameError("a signal", name, SIGNALS)
    weights = {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    topology, kept = parent
    shapes = {name: info.shape for name, info in topology.tensors.items()}
    base = Signals(kept=kept, positions=alive_positions(topology, kept), weights=weights, shapes=shapes, seed=seed)
    source = _Source(model=model, batches=batches, loss=loss, topology=topology, base=base)
    gradients, products = source.gradients(names)
    return replace(
        base,
        gradients=gradients if "gradients" in names else None,
        activations=calibration.measure_activations(model, batches) if "activations" in names else None,
        activation_gradients=products if "activation_gradients" in names else None,
        hessian=source.hessian(source.producing(), of_channels=True) if "hessian" in names else None,
        weight_hessian=source.hessian(source.weights(), of_channels=False) if "weight_hessian" in names else None,
        gates=source.gates() if "gates" in names else None,
        weight_gates=source.weight_gates() if "weight_gates" in names else None,
        block_gates=source.block_gates() if "block_gates" in names else None,
        movement=source.movement() if movement is None and "movement" in names else movement,
        blocks=source.blocks() if "blocks" in names else None,
        block_gradients=source.block_gradients() if "block_gradients" in names else None,
        block_losses=source.block_losses() if "block_losses" in names else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """Model and data from which signals are gathered."""

    model: nn.Module
    batches: Sequence[Batch]
    loss: Callable[..., Tensor]
    topology: Topology
    base: Signals

    def trained(self) -> list[str]:
        return [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]

    def producing(self) -> set[str]:
        """Weights that produce channels."""
        return {m.tensor for group in self.topology.groups for m in group.members if m.role == "out"}

    def matrices(self) -> dict[str, Tensor]:
        """Parameters of two or more axes."""
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.ndim > 1}

    def weights(self) -> set[str]:
        """Parameters of two or more axes, and other parameters that count as the weights of a block."""
        there = remaining_blocks(self.topology, self.base.kept)
        return set(self.matrices()).union(*(block_weights(block, self.topology, self.base) for block in there))

    def gradients(self, names: Sequence[str]) -> tuple[dict[str, list[Tensor]], dict[str, dict[str, Tensor]]]:
        if {"gradients", "activation_gradients"}.isdisjoint(names):
            return {}, {}
        wanted = self.trained() if "gradients" in names else []
        readings = _readings(self.topology, self.base) if "activation_gradients" in names else {}
        return calibration.measure_gradients(self.model, self.batches, self.loss, wanted, readings)

    def hessian(self, of: Set[str], *, of_channels: bool) -> dict[str, Tensor]:
        """Estimate sums over filters (of_channels) or single entries; docs/criteria.md has the difference."""
        wanted = [name for name in self.trained() if name in of]
        signs = partial(_signs, self.topology, self.base)
        probes = Probes(signs=signs, parts=self._parts() if of_channels else {}, sized=of_channels)
        return calibration.estimate_hessian(self.model, self.batches, self.loss, wanted, probes)

    def _parts(self) -> dict[str, int]:
        """Assign each parameter one of HESSIAN_PARTS parts; neighbours in the dense model are in different parts."""
        known = [name for name, info in self.topology.tensors.items() if info.is_parameter]
        layers = itertools.accumulate(len(self.topology.tensors[name].shape) > 1 for name in known)
        return {name: layer % HESSIAN_PARTS for name, layer in zip(known, layers, strict=True)}

    def gates(self) -> dict[str, Tensor]:
        found = [_gate(group, self.base) for group in self.topology.groups]
        total = sum(group.channels for group in self.topology.groups)
        return self._learned(
            [gate for gate in found if gate.places], partial(_of_channel, self.topology, self.base), total
        )

    def weight_gates(self) -> dict[str, Tensor]:
        found = [Gate(name=name, shape=tuple(w.shape), weight=name) for name, w in self.matrices().items() if w.numel()]
        total = sum(math.prod(self.topology.tensors[gate.name].shape) for gate in found)
        return self._learned(found, lambda name, step: self.base.noise(f"{name}/{step}", name), total)

    def block_gates(self) -> dict[str, Tensor]:
        found = [Gate(name=block.name, block=block) for block in remaining_blocks(self.topology, self.base.kept)]
        return self._learned(found, partial(_of_block, self.base), len(self.topology.blocks))

    def _learned(self, gates: Sequence[Gate], noise: GateNoise, total: int) -> dict[str, Tensor]:
        return learn_gates(self.model, self.batches, self.loss, gates, noise, total)

    def movement(self) -> dict[str, Tensor]:
        return measure_movement(self.model, self.batches, self.loss, self.trained())

    def blocks(self) -> dict[str, float]:
        return block_effects.measure_block_changes(
            self.model, self.batches, remaining_blocks(self.topology, self.base.kept)
        )

    def block_losses(self) -> dict[str, float]:
        there = remaining_blocks(self.topology, self.base.kept)
        return block_effects.measure_block_losses(self.model, self.batches, self.loss, there)

    def block_gradients(self) -> dict[str, Tensor]:
        there = remaining_blocks(self.topology, self.base.kept)
        return block_effects.measure_block_gradients(self.model, self.batches, self.loss, there)


def _gate(group: ChannelGroup, signals: Signals) -> Gate:
    """Place the gates of a group at the scale and shift of its norms, else at the weights that produce its channels."""
    there = [member for member in group.members if member.tensor in signals.weights]
    norms = {module_name(member) for member in there if member.role == "scale"}
    if norms:
        there = [member for member in there if module_name(member) in norms]
    roles = ("scale", "shift") if norms else ("out", "shift")
    alive = signals.alive(group)
    places = tuple(
        (
            member.tensor,
            member.axis,
            signals.positions_of(member.tensor, member.axis, torch.from_numpy(member.index)[alive]),
        )
        for member in there
        if member.role in roles
    )
    return Gate(name=group.name, shape=(len(alive),), places=places)


def _readings(topology: Topology, signals: Signals) -> dict[str, list[InputPositions]]:
    """Map each weight to the groups that it reads."""
    found: dict[str, list[InputPositions]] = {}
    for group in topology.groups:
        for member in group.members:
            if member.role == "in" and member.tensor in signals.weights:
                where = signals.positions_of(
                    member.tensor, member.axis, torch.from_numpy(member.index)[signals.alive(group)]
                )
                size = signals.weights[member.tensor].shape[member.axis]
                found.setdefault(member.tensor, []).append(InputPositions(group=group.name, where=where, size=size))
    return found


def _signs(topology: Topology, signals: Signals, name: str, number: int) -> Tensor:
    """Draw +1 and -1, int8: a function of seed, name, number and position in the dense model."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{signals.seed}/{name}/{number}".encode()))
    signs = torch.randint(2, topology.tensors[name].shape, generator=generator, dtype=torch.int8) * 2 - 1
    return signals.remaining_entries(name, signs)


def _of_channel(topology: Topology, signals: Signals, group: str, step: int) -> Tensor:
    """Draw noise in [0, 1), [remaining channels]: a function of seed, group, step and dense channel."""
    gated = topology.group(group)
    return dense_noise(f"{signals.seed}/{group}/{step}", (gated.channels,))[signals.alive(gated)]


def _of_block(signals: Signals, block: str, step: int) -> Tensor:
    """Draw noise in [0, 1), scalar: a function of seed, block and step."""
    return dense_noise(f"{signals.seed}/{block}/{step}", ())
