"""Signals: what criteria look at, gathered once on calibration data and shared by all of them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from autoprune.criteria import calibration
from autoprune.criteria.calibration import PROBES, ActivationStatistics, Reading
from autoprune.criteria.kept import KeptChannels, alive_positions
from autoprune.errors import ConfigurationError, fault
from autoprune.task.data import Batch
from autoprune.trace.topology import ChannelGroup, Topology

#: Names of the signals, as criteria ask for them.
SIGNALS = ("weights", "gradients", "activations", "activation_gradients", "hessian")


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
    seed: for criteria that draw at random.
    """

    kept: KeptChannels
    positions: Mapping[tuple[str, int], Tensor]
    weights: Mapping[str, Tensor]
    gradients: Mapping[str, Sequence[Tensor]] | None = None
    activations: Mapping[str, ActivationStatistics] | None = None
    activation_gradients: Mapping[str, Mapping[str, Tensor]] | None = None
    hessian: Mapping[str, Tensor] | None = None
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


def passes(names: Iterable[str]) -> tuple[int, int]:
    """How often gathering these signals sees each calibration sample: by a forward, by a forward and backward.

    A probe of the Hessian counts as one forward and backward more.
    """
    names = set(names)
    backwards = len(names & {"gradients", "activation_gradients"}) > 0
    return int("activations" in names), int(backwards) + (1 + PROBES) * ("hessian" in names)


def gather(
    model: nn.Module,
    names: Sequence[str],
    parent: tuple[Topology, KeptChannels],
    batches: Sequence[Batch],
    loss: Callable[..., Tensor],
    seed: int,
) -> Signals:
    """Gather the named signals on a model; running statistics and gradients of the model stay as they were.

    names: subset of SIGNALS. parent: the dense topology and the channels that `model` still has.
    batches: calibration batches on the model's device.
    """
    weights = {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    topology, kept = parent
    bare = Signals(kept=kept, positions=alive_positions(topology, kept), weights=weights, seed=seed)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    gradients, products = None, None
    if not {"gradients", "activation_gradients"}.isdisjoint(names):
        wanted = trained if "gradients" in names else []
        readings = _readings(topology, bare) if "activation_gradients" in names else {}
        gradients, products = calibration.gradients(model, batches, loss, wanted, readings)
    hessian = None
    if "hessian" in names:
        making = {member.tensor for group in topology.groups for member in group.members if member.role == "out"}
        wanted = [name for name in trained if name in making]
        hessian = calibration.hessian(model, batches, loss, wanted, partial(_signs, topology, bare))
    return replace(
        bare,
        gradients=gradients if "gradients" in names else None,
        activations=calibration.activations(model, batches) if "activations" in names else None,
        activation_gradients=products if "activation_gradients" in names else None,
        hessian=hessian,
    )


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
