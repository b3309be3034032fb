"""Criteria that use calibration data: gradients, curvature and activations."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from autoprune.criteria.calibration import ActivationStatistics
from autoprune.criteria.signals import Signals, channel_slices, module_name, upcast
from autoprune.errors import ConfigurationError, error_message
from autoprune.structure.groups import ChannelGroup, Member

#: Weight of the mean |x| in apoz: it decides between shares that differ by less.
_TIE = 1e-4


def taylor(group: ChannelGroup, signals: Signals) -> Float[Tensor, " channels"]:
    """Squared first-order change of the loss when a channel is removed: mean over batches of (sum g w)^2.

    The sum runs over the channel's BatchNorm scale and shift where there is a norm (the gate behind the
    convolution, the paper's best form), else over the weights and bias that produce the channel.
    Source: Molchanov et al., Importance Estimation for Neural Network Pruning, 2019.

    Args:
        group: Group to score.
        signals: Signals of the model, with "gradients".

    Returns:
        Scores, float [channels]; unit: loss squared.

    Raises:
        ConfigurationError: Without the signal "gradients".
    """
    gradients = signals.need_gradients("taylor")
    trained = [member for member in group.members if member.tensor in gradients]
    norms = {module_name(member) for member in trained if member.role == "scale"}
    if norms:
        # The scale and shift of the norm are the gate; the bias of the layer before the norm is not.
        trained = [member for member in trained if module_name(member) in norms]
    gated = replace(group, members=tuple(trained))
    changes = _products(gated, signals, "taylor", ("scale", "shift") if norms else ("out", "shift"))
    return _mean([_sum(change).square() for change in changes])


def taylor_weight(group: ChannelGroup, signals: Signals) -> Float[Tensor, " channels"]:
    """First-order change of the loss when a channel's filters are removed: mean over batches of |sum g w|.

    Neither norms nor biases count, unlike in "taylor".
    Source: Molchanov et al., Importance Estimation for Neural Network Pruning, 2019, without the gate.

    Args:
        group: Group to score.
        signals: Signals of the model, with "gradients".

    Returns:
        Scores, float [channels]; unit: that of the loss.

    Raises:
        ConfigurationError: Without the signal "gradients", or when the loss reaches no weight that produces the
            channels.
    """
    return _mean([_sum(change).abs() for change in _products(group, signals, "taylor_weight")])


def fisher(group: ChannelGroup, signals: Signals) -> Float[Tensor, " channels"]:
    """Half the diagonal Fisher information times w^2, of the filters: mean over batches of sum (g w)^2 / 2.

    Source: Theis et al., Faster gaze prediction with dense networks and Fisher pruning, 2018.

    Args:
        group: Group to score.
        signals: Signals of the model, with "gradients".

    Returns:
        Scores, float [channels]; unit: loss squared.

    Raises:
        ConfigurationError: Without the signal "gradients", or when the loss reaches no weight that produces the
            channels.
    """
    changes = _products(group, signals, "fisher")
    return _mean([_sum([product.square() for product in change]) / 2 for change in changes])


def snip(group: ChannelGroup, signals: Signals) -> Float[Tensor, " channels"]:
    """Connection sensitivity of the filters that produce a channel: sum |g w|, g of the mean loss over batches.

    Source: Lee et al., SNIP: Single-shot Network Pruning based on Connection Sensitivity, 2019.

    Args:
        group: Group to score.
        signals: Signals of the model, with "gradients".

    Returns:
        Scores, float [channels]; unit: that of the loss.

    Raises:
        ConfigurationError: Without the signal "gradients", or when the loss reaches no weight that produces the
            channels.
    """
    total: list[Tensor] = []
    batches = 0
    for products in _products(group, signals, "snip"):
        total = [before + product for before, product in zip(total, products, strict=True)] if total else products
        batches += 1
    return _sum([product.abs() for product in total]) / batches


def obd(group: ChannelGroup, signals: Signals) -> Float[Tensor, " channels"]:
    """Second-order change of the loss when the filters that produce a channel are removed: |sum h w^2 / 2|.

    h is the diagonal of the Hessian, from Hutchinson's estimator with a few probes that depend on the seed.
    Source: LeCun et al., Optimal Brain Damage, 1989; the estimate as in Yao et al., ADAHESSIAN, 2021.

    Args:
        group: Group to score.
        signals: Signals of the model, with "hessian".

    Returns:
        Scores, float [channels]; unit: that of the loss.

    Raises:
        ConfigurationError: Without the signal "hessian", or when the loss reaches no weight that produces the
            channels.
    """
    known = signals.need_hessian("obd")
    curvatures = channel_slices(group, signals, "out", known)
    if not curvatures:
        raise _unreached("obd", group, "second derivatives")
    weights = channel_slices(group, signals, "out", {name: signals.weights[name] for name in known})
    return _sum([upcast(h) * upcast(w).square() / 2 for h, w in zip(curvatures, weights, strict=True)]).abs()


def taylor_activation(group: ChannelGroup, signals: Signals) -> Float[Tensor, " channels"]:
    """First-order change of the loss when a channel is zeroed: mean over samples of |sum over positions of x g|.

    x is the channel at the input of a layer that reads it, g the gradient of the loss to x; averaged over readers.
    Source: Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient Inference, 2017.

    Args:
        group: Group to score.
        signals: Signals of the model, with "activation_gradients".

    Returns:
        Scores, float [channels]; unit: that of the loss.

    Raises:
        ConfigurationError: Without the signal "activation_gradients", or when no convolution or linear layer that
            the loss reaches reads the channels.
    """
    found = signals.need_activation_gradients("taylor_activation").get(group.name, {})
    if not found:
        raise _unread("taylor_activation", group, "and that the loss reaches")
    return _mean([products.cpu() for products in found.values()])


def mean_activation(group: ChannelGroup, signals: Signals) -> Float[Tensor, " channels"]:
    """Mean absolute value of the channel at the inputs of the layers that read it: mean |x|.

    Source: Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient Inference, 2017.

    Args:
        group: Group to score.
        signals: Signals of the model, with "activations".

    Returns:
        Scores, float [channels]; unit: that of the activations.

    Raises:
        ConfigurationError: Without the signal "activations", or when no convolution or linear layer reads the
            channels.
    """
    return _seen(group, signals, "mean_activation", lambda statistics: statistics.mean_abs)


def mean_square_activation(group: ChannelGroup, signals: Signals) -> Float[Tensor, " channels"]:
    """Mean square of the channel at the inputs of the layers that read it: mean x^2.

    Source: the L2 form of the activation criterion of Molchanov et al., 2017.

    Args:
        group: Group to score.
        signals: Signals of the model, with "activations".

    Returns:
        Scores, float [channels]; unit: that of the activations, squared.

    Raises:
        ConfigurationError: Without the signal "activations", or when no convolution or linear layer reads the
            channels.
    """
    return _seen(group, signals, "mean_square_activation", lambda statistics: statistics.mean_square)


def activation_variance(group: ChannelGroup, signals: Signals) -> Float[Tensor, " channels"]:
    """Variance over samples and positions at the inputs of the layers that read the channel: mean (x - mean x)^2.

    A channel that hardly varies can be replaced by a constant. A channel that is read at several places, such as after
    a flatten, has the mean of the variances at these places.
    Source: the standard deviation of activations in Molchanov et al., 2017.

    Args:
        group: Group to score.
        signals: Signals of the model, with "activations".

    Returns:
        Scores, float [channels]; unit: that of the activations, squared.

    Raises:
        ConfigurationError: Without the signal "activations", or when no convolution or linear layer reads the
            channels.
    """
    return _seen(group, signals, "activation_variance", lambda statistics: statistics.variance)


def apoz(group: ChannelGroup, signals: Signals) -> Float[Tensor, " channels"]:
    """One less the average percentage of zeros: share of entries above 0 where layers read the channel.

    Entries below 0 count as zeros, for activations without exact zeros. The share is increased by
    0.0001 m / (1 + m), m = mean |x|, which decides between nearly equal shares, as behind a sigmoid where all are 1.
    Source: Hu et al., Network Trimming, 2016.

    Args:
        group: Group to score.
        signals: Signals of the model, with "activations".

    Returns:
        Scores, float [channels]; no unit, in [0, 1.0001].

    Raises:
        ConfigurationError: Without the signal "activations", or when no convolution or linear layer reads the
            channels.
    """
    share = _seen(group, signals, "apoz", lambda statistics: statistics.positive)
    size = _seen(group, signals, "apoz", lambda statistics: statistics.mean_abs)
    return share + _TIE * size / (1 + size)


def wanda(group: ChannelGroup, signals: Signals) -> Float[Tensor, " channels"]:
    """Weights that read the channel times the norm of their input: sum |w| ||x||.

    The paper scores single weights; here the score is the sum over the weights that read the channel. ||x|| is the
    Euclidean norm
    over samples and positions.
    Source: Sun et al., A Simple and Effective Pruning Approach for Large Language Models, 2024.

    Args:
        group: Group to score.
        signals: Signals of the model, with "activations".

    Returns:
        Scores, float [channels]; unit: that of weights times activations.

    Raises:
        ConfigurationError: Without the signal "activations", or when no convolution or linear layer reads the
            channels.
    """
    alive = signals.alive(group)
    found = []
    for member, statistics in _readers(group, signals, "wanda"):
        weight = upcast(signals.weights[member.tensor]).abs().movedim(member.axis, 0)
        # [input channels, shares of the rows]: each row of a grouped convolution reads the channels of one group.
        norms = statistics.norms(len(weight)).T
        sizes = weight.reshape(len(weight), norms.shape[1], -1).sum(2)
        where = signals.positions_of(member.tensor, member.axis, torch.from_numpy(member.index)[alive]).to(sizes.device)
        found.append((sizes * norms).sum(1)[where].sum(1).cpu())
    return torch.stack(found).sum(0)


def _sum(parts: list[Tensor]) -> Tensor:
    """Sum over weights and their elements: each [channels, elements] -> [channels] on the CPU."""
    return torch.stack([part.sum(1).cpu() for part in parts]).sum(0)


def _mean(each: list[Tensor]) -> Tensor:
    return torch.stack(each).mean(0)


def _products(
    group: ChannelGroup, signals: Signals, criterion: str, roles: Collection[str] = ("out",)
) -> Iterator[list[Tensor]]:
    """Multiply gradients and parameters of the trained members of some roles, batch by batch: [channels, elements].

    Raises ConfigurationError when no member of the first role is trained.
    """
    gradients = signals.need_gradients(criterion)
    first, *_ = roles
    counts = [len(gradients[m.tensor]) for m in group.members if m.role == first and m.tensor in gradients]
    if not counts:
        raise _unreached(criterion, group, "gradients")
    for number in range(min(counts)):
        of = {m.tensor: gradients[m.tensor] for m in group.members if m.role in roles and m.tensor in gradients}
        at = {name: values[number] for name, values in of.items() if len(values) > number}
        weights = {name: signals.weights[name] for name in at}
        yield [
            upcast(gradient) * upcast(weight)
            for role in roles
            for gradient, weight in zip(
                channel_slices(group, signals, role, at), channel_slices(group, signals, role, weights), strict=True
            )
        ]


def _readers(group: ChannelGroup, signals: Signals, criterion: str) -> list[tuple[Member, ActivationStatistics]]:
    """List the members that read the channels, with the statistics of their inputs."""
    known = signals.need_activations(criterion)
    found = [(m, known[m.tensor]) for m in group.members if m.role == "in" and m.tensor in known]
    if not found:
        raise _unread(criterion, group, "")
    return found


def _seen(
    group: ChannelGroup, signals: Signals, criterion: str, moment: Callable[[ActivationStatistics], Tensor]
) -> Tensor:
    """Average a moment of the readers' inputs over a channel's positions and over readers, [channels]."""
    alive = signals.alive(group)
    seen = []
    for member, statistics in _readers(group, signals, criterion):
        # The weight of a grouped convolution has the input axis of one group: average over the groups.
        values = moment(statistics)
        values = values.reshape(-1, signals.weights[member.tensor].shape[member.axis]).mean(0)
        where = signals.positions_of(member.tensor, member.axis, torch.from_numpy(member.index)[alive]).to(
            values.device
        )
        seen.append(values[where].mean(1).cpu())
    return _mean(seen)


def _unreached(criterion: str, group: ChannelGroup, what: str) -> ConfigurationError:
    return ConfigurationError(
        error_message(
            f"criterion {criterion!r}",
            "be used on weights that the loss reaches and that are not frozen",
            f"group {group.name!r} without {what}",
        )
    )


def _unread(criterion: str, group: ChannelGroup, also: str) -> ConfigurationError:
    what = f"be used on groups that a layer reads {also}".strip()
    return ConfigurationError(error_message(f"criterion {criterion!r}", what, f"group {group.name!r}"))
