"""Criteria from a brief training: hard-concrete gates and movement of weights."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from autoprune.criteria.gates import open_probability
from autoprune.criteria.signals import Signals, channel_slices, upcast
from autoprune.errors import ConfigurationError, error_message
from autoprune.structure.groups import ChannelGroup


def hard_concrete(group: ChannelGroup, signals: Signals) -> Float[Tensor, " channels"]:
    """Probability that the channel's gate is not zero: sigmoid(log alpha - beta log(-gamma / zeta)).

    The gates of all groups are learned together, on the loss plus a price on open gates, with fixed weights.
    gamma = -0.1 and zeta = 1.1 are the limits of the stretched distribution, beta = 2/3 is its temperature.
    Source: Louizos et al., Learning Sparse Neural Networks through L0 Regularization, 2018.

    Args:
        group: Group to score.
        signals: Signals of the model, with "gates".

    Returns:
        Scores, float [channels]; no unit, in (0, 1).

    Raises:
        ConfigurationError: Without the signal "gates", or when the loss does not reach the gates.
    """
    gates = signals.need_gates("hard_concrete")
    if group.name not in gates:
        expected = "be used on groups that the loss reaches"
        raise ConfigurationError(error_message("criterion 'hard_concrete'", expected, f"group {group.name!r}"))
    return open_probability(gates[group.name]).cpu()


def movement(group: ChannelGroup, signals: Signals) -> Float[Tensor, " channels"]:
    """Movement of a channel's filters away from zero in training: sum S, less the smallest sum of the group.

    S = -sum over steps of rate * g * w grows with a weight that moves away from zero and falls with one that moves
    towards it. It is measured in the fine-tune where there was one, else in a brief training of a copy.
    Source: Sanh et al., Movement Pruning: Adaptive Sparsity by Fine-Tuning, 2020; lifted to channels.

    Args:
        group: Group to score.
        signals: Signals of the model, with "movement".

    Returns:
        Scores, float [channels]; unit: that of the loss.

    Raises:
        ConfigurationError: Without the signal "movement", or when no weight that produces the channels is trained.
    """
    found = channel_slices(group, signals, "out", signals.need_movement("movement"))
    if not found:
        expected = "be used on weights that the loss reaches and that are not frozen"
        raise ConfigurationError(
            error_message("criterion 'movement'", expected, f"group {group.name!r} without movement")
        )
    sums = torch.stack([upcast(part).sum(1).cpu() for part in found]).sum(0)
    return sums - sums.min()
