"""Criteria that look at what a brief training finds: gates that close, weights that move."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from autoprune.criteria.gates import open_probability
from autoprune.criteria.signals import Signals, channel_slices, upcast
from autoprune.errors import ConfigurationError, error_message
from autoprune.trace.topology import ChannelGroup


def hard_concrete(group: ChannelGroup, signals: Signals) -> Float[Tensor, " channels"]:
    """Probability that the channel's gate is not zero: sigmoid(log alpha - beta log(-gamma / zeta)).

    The gates of all groups are learned together, on the loss plus a price on open gates, with the weights as they are.
    gamma = -0.1 and zeta = 1.1 are the limits to which the distribution is stretched, beta = 2/3 its temperature.
    Shapes: [channels]; unit: none, in (0, 1). Raises ConfigurationError without the signal "gates", or when the loss
    does not reach the gates.
    Source: Louizos et al., Learning Sparse Neural Networks through L0 Regularization, 2018.
    """
    gates = signals.need_gates("hard_concrete")
    if group.name not in gates:
        expected = "be used on groups that the loss reaches"
        raise ConfigurationError(error_message("criterion 'hard_concrete'", expected, f"group {group.name!r}"))
    return open_probability(gates[group.name]).cpu()


def movement(group: ChannelGroup, signals: Signals) -> Float[Tensor, " channels"]:
    """How far training carries the filters that make a channel away from zero: sum S, less the smallest of the group.

    S = -sum over steps of rate * g * w grows with a weight that moves away from zero and falls with one that moves
    towards it. It is that of the fine-tune where there was one, else of a brief training of a copy.
    Shapes: each making weight [channels, elements] -> [channels]; unit: that of the loss. Raises ConfigurationError
    without the signal "movement", or when no weight that makes the channels is trained.
    Source: Sanh et al., Movement Pruning: Adaptive Sparsity by Fine-Tuning, 2020; lifted to channels.
    """
    found = channel_slices(group, signals, "out", signals.need_movement("movement"))
    if not found:
        expected = "be used on weights that the loss reaches and that are not frozen"
        raise ConfigurationError(
            error_message("criterion 'movement'", expected, f"group {group.name!r} without movement")
        )
    sums = torch.stack([upcast(part).sum(1).cpu() for part in found]).sum(0)
    return sums - sums.min()
