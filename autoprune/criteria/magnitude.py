"""Criteria that look at the weights alone."""

from __future__ import annotations

import zlib

import torch
from jaxtyping import Float
from torch import Tensor

from autoprune.criteria.signals import Signals, slices
from autoprune.errors import ConfigurationError, fault
from autoprune.trace.topology import ChannelGroup


def l1(group: ChannelGroup, signals: Signals) -> Float[Tensor, " channels"]:
    """Sum of absolute weights of the filters that make a channel: sum |w|.

    Shapes: each making weight [channels, elements] -> [channels]. Unit: that of the weights.
    Source: Li et al., Pruning Filters for Efficient ConvNets, 2017.
    """
    return torch.stack([w.float().abs().sum(1) for w in slices(group, signals, "out")]).sum(0)


def l2(group: ChannelGroup, signals: Signals) -> Float[Tensor, " channels"]:
    """Euclidean norm of the filters that make a channel: sqrt(sum w^2).

    Shapes: each making weight [channels, elements] -> [channels]. Unit: that of the weights.
    Source: He et al., Soft Filter Pruning, 2018.
    """
    return torch.stack([w.float().square().sum(1) for w in slices(group, signals, "out")]).sum(0).sqrt()


def random(group: ChannelGroup, signals: Signals) -> Float[Tensor, " channels"]:
    """Uniform in [0, 1), a function of the seed, the group's name and the dense channel alone.

    Shapes: [channels]. The baseline that any other criterion has to beat (Mittal et al., 2018).
    """
    seed = zlib.crc32(f"{signals.seed}/{group.name}".encode())
    return torch.rand(group.channels, generator=torch.Generator().manual_seed(seed))[signals.alive(group)]


def batch_norm_scale(group: ChannelGroup, signals: Signals) -> Float[Tensor, " channels"]:
    """Absolute scale of the channel's BatchNorms, summed: sum |gamma|.

    Shapes: each scale [channels, 1] -> [channels]. Raises ConfigurationError for a group without a norm.
    Source: Liu et al., Network Slimming, 2017.
    """
    scales = slices(group, signals, "scale")
    if not scales:
        raise ConfigurationError(
            fault("criterion 'bn_scale'", "be used on groups with a norm", f"group {group.name!r} without one")
        )
    return torch.stack([scale.float().abs().mean(1) for scale in scales]).sum(0)
