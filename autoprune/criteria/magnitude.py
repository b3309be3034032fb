"""Criteria that use the weights alone."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from autoprune.criteria.signals import Signals, channel_slices, dense_noise, producing_weights, upcast
from autoprune.errors import ConfigurationError, error_message
from autoprune.structure.groups import ChannelGroup

#: Share of a tensor's largest entry below which l0 counts an entry as zero.
NEARLY_ZERO = 1e-3
#: Replacement for a divisor of zero.
TINY = torch.finfo(torch.float32).tiny


def l1(group: ChannelGroup, signals: Signals) -> Float[Tensor, " channels"]:
    """Sum of absolute weights of the filters that produce a channel: sum |w|.

    Source: Li et al., Pruning Filters for Efficient ConvNets, 2017.

    Args:
        group: Group to score.
        signals: Signals of the model.

    Returns:
        Scores, float [channels]; unit: that of the weights.

    Raises:
        ConfigurationError: For a group that no weight produces.
    """
    return torch.stack([w.abs().sum(1) for w in producing_weights(group, signals, "l1")]).sum(0)


def l2(group: ChannelGroup, signals: Signals) -> Float[Tensor, " channels"]:
    """Euclidean norm of the filters that produce a channel: sqrt(sum w^2).

    Source: He et al., Soft Filter Pruning, 2018.

    Args:
        group: Group to score.
        signals: Signals of the model.

    Returns:
        Scores, float [channels]; unit: that of the weights.

    Raises:
        ConfigurationError: For a group that no weight produces.
    """
    return _squared(group, signals, "l2").sqrt()


def linf(group: ChannelGroup, signals: Signals) -> Float[Tensor, " channels"]:
    """Largest absolute weight of the filters that produce a channel: max |w|.

    Source: the norm with p = infinity of Li et al., Pruning Filters for Efficient ConvNets, 2017.

    Args:
        group: Group to score.
        signals: Signals of the model.

    Returns:
        Scores, float [channels]; unit: that of the weights.

    Raises:
        ConfigurationError: For a group that no weight produces.
    """
    return torch.stack([w.abs().amax(1) for w in producing_weights(group, signals, "linf")]).amax(0)


def l0(group: ChannelGroup, signals: Signals) -> Float[Tensor, " channels"]:
    """Number of entries, not nearly zero, of the filters that produce a channel: #(|w| > 0.001 max |w of the tensor|).

    Half the mean of |w| / max |w of the tensor| over the counted entries, at most 0.5, is added: it decides by L1
    between channels of the same count, as most are in a dense model, and never between others.
    Source: the connections that a neuron has left in Han et al., Learning both Weights and Connections, 2015.

    Args:
        group: Group to score.
        signals: Signals of the model.

    Returns:
        Scores, float [channels]; unit: entries, independent of the tensor's scale.

    Raises:
        ConfigurationError: For a group that no weight produces.
    """
    whole = [signals.weights[m.tensor] for m in group.members if m.role == "out" and m.tensor in signals.weights]
    # A weight of zeros has no entries to count, whatever the divisor.
    peaks = [upcast(tensor).abs().max().clamp(min=TINY) for tensor in whole]
    shares = [w.abs() / peak for w, peak in zip(producing_weights(group, signals, "l0"), peaks, strict=True)]
    counted = [share * (share > NEARLY_ZERO) for share in shares]
    count = torch.stack([share.count_nonzero(1) for share in counted]).sum(0)
    return count + 0.5 * torch.stack([share.sum(1) for share in counted]).sum(0) / count.clamp(min=1)


def fpgm(group: ChannelGroup, signals: Signals) -> Float[Tensor, " channels"]:
    """Sum of the Euclidean distances to the other channels alive: sum over c' of ||w_c - w_c'||.

    The other channels can replace a channel near the geometric median of the group. w_c holds all weights that
    produce the channel, side by side.
    Source: He et al., Filter Pruning via Geometric Median, 2019.

    Args:
        group: Group to score.
        signals: Signals of the model.

    Returns:
        Scores, float [channels]; unit: that of the weights.

    Raises:
        ConfigurationError: For a group that no weight produces.
    """
    # Distances of near neighbours come from products of the whole vectors: float32 has too few digits for them.
    filters = torch.cat([w.cpu().double() for w in producing_weights(group, signals, "fpgm")], 1)
    return torch.cdist(filters, filters).fill_diagonal_(0.0).sum(1)


def lamp(group: ChannelGroup, signals: Signals) -> Float[Tensor, " channels"]:
    """Squared norm over the sum of the squared norms that are not smaller.

    ||w_c||^2 / sum over ||w_c'|| >= ||w_c|| of ||w_c'||^2.

    Ranks like l2 within a group. Across groups the score is a share, which matters where channels of several groups
    are ranked together. The paper scores single weights of a layer; here they are channels of a group.
    Source: Lee et al., Layer-Adaptive Sparsity for the Magnitude-Based Pruning, 2021.

    Args:
        group: Group to score.
        signals: Signals of the model.

    Returns:
        Scores, float [channels]; no unit, in [0, 1].

    Raises:
        ConfigurationError: For a group that no weight produces.
    """
    squared = _squared(group, signals, "lamp")
    not_smaller = (squared.unsqueeze(0) >= squared.unsqueeze(1)).to(squared.dtype) @ squared
    return squared / not_smaller.clamp(min=TINY)


def _squared(group: ChannelGroup, signals: Signals, criterion: str) -> Tensor:
    """Sum the squared weights of each channel, [channels]."""
    return torch.stack([w.square().sum(1) for w in producing_weights(group, signals, criterion)]).sum(0)


def random(group: ChannelGroup, signals: Signals) -> Float[Tensor, " channels"]:
    """Uniform random score in [0, 1), a function of the seed, the group's name and the dense channel alone.

    The baseline that every other criterion must beat (Mittal et al., 2018).

    Args:
        group: Group to score.
        signals: Signals of the model.

    Returns:
        Scores in [0, 1), float [channels].
    """
    return dense_noise(f"{signals.seed}/{group.name}", (group.channels,))[signals.alive(group)]


def batch_norm_scale(group: ChannelGroup, signals: Signals) -> Float[Tensor, " channels"]:
    """Sum of the absolute scales of the channel's BatchNorms: sum |gamma|.

    Source: Liu et al., Network Slimming, 2017.

    Args:
        group: Group to score.
        signals: Signals of the model.

    Returns:
        Scores, float [channels].

    Raises:
        ConfigurationError: For a group without a norm.
    """
    scales = channel_slices(group, signals, "scale")
    if not scales:
        raise ConfigurationError(
            error_message("criterion 'bn_scale'", "be used on groups with a norm", f"group {group.name!r} without one")
        )
    return torch.stack([scale.float().abs().mean(1) for scale in scales]).sum(0)
