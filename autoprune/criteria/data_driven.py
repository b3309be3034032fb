"""Criteria that look at data: gradients and activations on the calibration batches."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from autoprune.criteria.signals import Signals, slices
from autoprune.errors import ConfigurationError, fault
from autoprune.trace.topology import ChannelGroup, Member


def taylor(group: ChannelGroup, signals: Signals) -> Float[Tensor, " channels"]:
    """Squared first-order change of the loss when a channel goes: mean over batches of (sum g w)^2.

    The sum runs over the channel's BatchNorm scale and shift where it has them (the gate behind the
    convolution, the paper's best form), else over the weights and bias that make it.
    Shapes: [channels]; unit: loss squared. Raises ConfigurationError without the signal "gradients".
    Source: Molchanov et al., Importance Estimation for Neural Network Pruning, 2019.
    """
    gradients = signals.need_gradients("taylor")
    trained = [member for member in group.members if member.tensor in gradients]
    norms = {_module(member) for member in trained if member.role == "scale"}
    if norms:
        # Behind a norm its scale and shift are the gate; the bias of the layer before it is none.
        trained = [member for member in trained if _module(member) in norms]
    roles = ("scale", "shift") if norms else ("out", "shift")
    gated = replace(group, members=tuple(trained))
    batches = min((len(gradients[member.tensor]) for member in trained if member.role == roles[0]), default=0)
    if batches == 0:
        raise ConfigurationError(
            fault(
                "criterion 'taylor'",
                "be used on weights that the loss reaches and that are not frozen",
                f"group {group.name!r} without gradients",
            )
        )
    total = torch.zeros(len(signals.alive(group)))
    for number in range(batches):
        of = {name: values[number] for name, values in gradients.items() if len(values) > number}
        weights = {name: signals.weights[name] for name in of}
        change = torch.zeros_like(total)
        for role in roles:
            pairs = zip(slices(gated, signals, role, of), slices(gated, signals, role, weights), strict=True)
            for gradient, weight in pairs:
                change += (gradient.float() * weight.float()).sum(1).cpu()
        total += change.square()
    return total / batches


def _module(member: Member) -> str:
    return member.tensor.rpartition(".")[0]


def mean_activation(group: ChannelGroup, signals: Signals) -> Float[Tensor, " channels"]:
    """Mean absolute value of the channel as the layers that read it see it: mean |x|.

    Shapes: per reader [channels], averaged over readers -> [channels]; unit: that of the activations.
    Raises ConfigurationError without the signal "activations", or when no convolution or linear layer reads it.
    Source: Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient Inference, 2017.
    """
    statistics = signals.need_activations("mean_activation")
    alive = signals.alive(group)
    seen = []
    for member in group.members:
        if member.role == "in" and member.tensor in statistics:
            values = statistics[member.tensor].mean_abs
            # A grouped convolution's weight has one group's input axis; its groups are seen on average.
            values = values.reshape(-1, signals.weights[member.tensor].shape[member.axis]).mean(0)
            where = signals.where(member.tensor, member.axis, member.index[alive]).to(values.device)
            seen.append(values[where].mean(1).cpu())
    if not seen:
        raise ConfigurationError(
            fault("criterion 'mean_activation'", "be used on groups that a layer reads", f"group {group.name!r}")
        )
    return torch.stack(seen).mean(0)
