"""Signals: what criteria look at, gathered once on calibration data and shared by all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autoprune.criteria.kept import KeptChannels, alive_positions
from autoprune.errors import ConfigurationError, fault
from autoprune.task.data import Batch, call, evaluating
from autoprune.trace.topology import ChannelGroup, Topology

#: Names of the signals, as criteria ask for them.
SIGNALS = ("weights", "gradients", "activations")


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationStatistics:
    """Moments of one reading layer's input, per input channel, over batch and positions.

    mean_abs: mean of |x|. mean_square: mean of x squared. Both float [channels].
    """

    mean_abs: Tensor
    mean_square: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """What is known of a model (dense or already cut) when channels are scored.

    kept: channels that the model still has.
    positions: (tensor, axis) -> dense positions that it still has, for every axis that was cut.
    weights: parameters and buffers by name.
    gradients: loss gradient per parameter, one tensor for each calibration batch.
    activations: name of a weight -> statistics of what that weight reads.
    seed: for criteria that draw at random.
    """

    kept: KeptChannels
    positions: Mapping[tuple[str, int], Tensor]
    weights: Mapping[str, Tensor]
    gradients: Mapping[str, Sequence[Tensor]] | None = None
    activations: Mapping[str, ActivationStatistics] | None = None
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
    return Signals(
        kept=kept,
        positions=alive_positions(topology, kept),
        weights=weights,
        gradients=_gradients(model, batches, loss) if "gradients" in names else None,
        activations=_activations(model, batches) if "activations" in names else None,
        seed=seed,
    )


def _gradients(
    model: nn.Module, batches: Sequence[Batch], loss: Callable[[object, object], Tensor]
) -> dict[str, list[Tensor]]:
    """Per batch, in eval mode: the numbers that the model has, not those of one batch's statistics."""
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not parameters:
        return {}
    found: dict[str, list[Tensor]] = {name: [] for name in parameters}
    with evaluating(model):
        for batch in batches:
            value = loss(call(model, batch.inputs), batch.targets)
            for name, gradient in zip(
                parameters, torch.autograd.grad(value, list(parameters.values()), allow_unused=True), strict=True
            ):
                if gradient is not None:
                    found[name].append(gradient)
    return {name: gradients for name, gradients in found.items() if gradients}


@torch.no_grad()
def _activations(model: nn.Module, batches: Sequence[Batch]) -> dict[str, ActivationStatistics]:
    """What convolutions and linear layers read, per input channel."""
    sums: dict[str, tuple[Tensor, Tensor, int]] = {}

    def watch(name: str, channel_axis: int) -> Callable[[nn.Module, tuple[object, ...], Mapping[str, object]], None]:
        def hook(module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
            del module
            x = args[0] if args else kwargs.get("input")
            if not isinstance(x, Tensor):
                return
            flat = x.detach().movedim(channel_axis, 0).flatten(1).float()
            total = (flat.abs().sum(1), flat.square().sum(1), flat.shape[1])
            before = sums.get(name)
            sums[name] = total if before is None else (before[0] + total[0], before[1] + total[1], before[2] + total[2])

        return hook

    handles = []
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            axis = -1 if isinstance(module, nn.Linear) else -module.weight.ndim + 1
            hook = watch(f"{name}.weight" if name else "weight", axis)
            handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
    try:
        with evaluating(model):
            for batch in batches:
                call(model, batch.inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {name: ActivationStatistics(mean_abs=a / n, mean_square=s / n) for name, (a, s, n) in sums.items()}


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
