"""Criteria for single weights by name: a score for every entry of a weight, for masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from autoprune.criteria.gates import open_probability
from autoprune.criteria.signals import Signals, sanitize, upcast
from autoprune.errors import ConfigurationError, UnknownNameError, error_message
from autoprune.plan.criteria import WEIGHT_CRITERIA

#: Replacement for a divisor of zero.
_TINY = torch.finfo(torch.float64).tiny


def l1(name: str, signals: Signals) -> Tensor:
    """Absolute value of each weight: |w|.

    Source: Han et al., Learning both Weights and Connections for Efficient Neural Networks, 2015.

    Args:
        name: Name of the weight to score.
        signals: Signals of the model.

    Returns:
        Scores, float [shape of the weight]; unit: that of the weights.
    """
    return signals.weights[name].abs()


def random(name: str, signals: Signals) -> Tensor:
    """Uniform random score in [0, 1), a function of the seed, the weight's name and the dense position alone.

    The baseline that every other criterion must beat (Gale et al., 2019).

    Args:
        name: Name of the weight to score.
        signals: Signals of the model.

    Returns:
        Scores, float [shape of the weight].
    """
    return signals.noise(name, name).to(signals.weights[name].device)


def lamp(name: str, signals: Signals) -> Tensor:
    """Square of each weight over the sum of the squares that are not smaller: w^2 / sum over |w'| >= |w| of w'^2.

    Ranks like l1 within a weight; across weights the score is a share, so that one ranking serves all weights.
    Source: Lee et al., Layer-Adaptive Sparsity for the Magnitude-Based Pruning, 2021.

    Args:
        name: Name of the weight to score.
        signals: Signals of the model.

    Returns:
        Scores, float [shape of the weight]; no unit, in [0, 1].
    """
    weight = signals.weights[name]
    squared = weight.double().square().flatten()
    ordered = squared.sort().values
    sums = ordered.flip(0).cumsum(0).flip(0)
    not_smaller = sums[torch.searchsorted(ordered, squared)]  # the first of equal entries: all of them count
    return (squared / not_smaller.clamp(min=_TINY)).reshape(weight.shape)


def taylor_weight(name: str, signals: Signals) -> Tensor:
    """First-order change of the loss when a weight is removed: mean over batches of |g w|.

    Source: Molchanov et al., Importance Estimation for Neural Network Pruning, 2019, for single weights.

    Args:
        name: Name of the weight to score.
        signals: Signals of the model, with "gradients".

    Returns:
        Scores, float [shape of the weight]; unit: that of the loss.

    Raises:
        ConfigurationError: Without the signal "gradients", when the loss does not reach the weight, or when it is
            frozen.
    """
    return torch.stack([product.abs() for product in _products(name, signals, "taylor_weight")]).mean(0)


def fisher(name: str, signals: Signals) -> Tensor:
    """Half the diagonal Fisher information times w^2: mean over batches of (g w)^2 / 2.

    Source: Theis et al., Faster gaze prediction with dense networks and Fisher pruning, 2018.

    Args:
        name: Name of the weight to score.
        signals: Signals of the model, with "gradients".

    Returns:
        Scores, float [shape of the weight]; unit: loss squared.

    Raises:
        ConfigurationError: Without the signal "gradients", when the loss does not reach the weight, or when it is
            frozen.
    """
    return torch.stack([product.square() for product in _products(name, signals, "fisher")]).mean(0) / 2


def snip(name: str, signals: Signals) -> Tensor:
    """Connection sensitivity: |g w|, g of the mean loss over batches.

    Source: Lee et al., SNIP: Single-shot Network Pruning based on Connection Sensitivity, 2019.

    Args:
        name: Name of the weight to score.
        signals: Signals of the model, with "gradients".

    Returns:
        Scores, float [shape of the weight]; unit: that of the loss.

    Raises:
        ConfigurationError: Without the signal "gradients", when the loss does not reach the weight, or when it is
            frozen.
    """
    return torch.stack(_products(name, signals, "snip")).mean(0).abs()


def obd(name: str, signals: Signals) -> Tensor:
    """Second-order change of the loss when a weight is removed: |h w^2 / 2|.

    h is the diagonal of the Hessian, from Hutchinson's estimator with a few probes that depend on the seed.
    Source: LeCun et al., Optimal Brain Damage, 1989; the estimate as in Yao et al., ADAHESSIAN, 2021.

    Args:
        name: Name of the weight to score.
        signals: Signals of the model, with "weight_hessian".

    Returns:
        Scores, float [shape of the weight]; unit: that of the loss.

    Raises:
        ConfigurationError: Without the signal "weight_hessian", or when it does not hold the weight: it holds
            weights of two or more axes that the loss reaches and that are not frozen.
    """
    known = signals.need_weight_hessian("obd")
    if name not in known:
        raise _unreached("obd", name, "second derivatives")
    return (upcast(known[name]) * upcast(signals.weights[name]).square() / 2).abs()


def wanda(name: str, signals: Signals) -> Tensor:
    """Absolute value of each weight times the norm of its input: |w| ||x||.

    ||x|| is the Euclidean norm of the input channel over samples and positions. A convolution uses the norm of its
    whole input at every position of the kernel.
    Source: Sun et al., A Simple and Effective Pruning Approach for Large Language Models, 2024.

    Args:
        name: Name of the weight to score.
        signals: Signals of the model, with "activations".

    Returns:
        Scores, float [shape of the weight]; unit: that of weights times activations.

    Raises:
        ConfigurationError: Without the signal "activations", or when the weight's input cannot be captured, see
            layer_inputs.capture_inputs.
    """
    known = signals.need_activations("wanda")
    if name not in known:
        raise _unwatched("wanda", name)
    statistics = known[name]
    sizes = upcast(signals.weights[name]).abs().movedim(statistics.axis, 0)
    norms = statistics.norms(len(sizes)).T  # [input channels, shares of the rows]
    scores = sizes.reshape(*norms.shape, -1) * norms.to(sizes.device).unsqueeze(2)
    return scores.reshape(sizes.shape).movedim(0, statistics.axis)


def movement(name: str, signals: Signals) -> Tensor:
    """Movement of each weight away from zero in training: S, less the smallest S of the weight.

    S = -sum over steps of rate * g * w, in the fine-tune where there was one, else in a brief training of a copy.
    Source: Sanh et al., Movement Pruning: Adaptive Sparsity by Fine-Tuning, 2020.

    Args:
        name: Name of the weight to score.
        signals: Signals of the model, with "movement".

    Returns:
        Scores, float [shape of the weight]; unit: that of the loss.

    Raises:
        ConfigurationError: Without the signal "movement", or when the weight is not trained.
    """
    known = signals.need_movement("movement")
    if name not in known:
        raise _unreached("movement", name, "movement")
    return known[name] - known[name].min()


def hard_concrete(name: str, signals: Signals) -> Tensor:
    """Probability that the weight's gate is not zero: sigmoid(log alpha - beta log(-gamma / zeta)).

    One gate for each entry of each weight; all are learned together, like the gates of channels, see
    learned.hard_concrete.
    Source: Louizos et al., Learning Sparse Neural Networks through L0 Regularization, 2018.

    Args:
        name: Name of the weight to score.
        signals: Signals of the model, with "weight_gates".

    Returns:
        Scores, float [shape of the weight]; no unit, in (0, 1).

    Raises:
        ConfigurationError: Without the signal "weight_gates", or when the loss does not reach the weight.
    """
    known = signals.need_weight_gates("hard_concrete")
    if name not in known:
        expected = "be used on weights that the loss reaches"
        raise ConfigurationError(error_message("criterion 'hard_concrete'", expected, repr(name)))
    return open_probability(known[name])


def score_weights(name: str, weight: str, signals: Signals) -> Tensor:
    """Score the entries of a weight.

    Args:
        name: Name of a criterion for single weights.
        weight: Name of the weight.
        signals: Signals of the model, with those of `WEIGHT_CRITERIA.signals_for`.

    Returns:
        Scores, float32 of the weight's shape and on its device, >= 0; entries with higher scores stay.

    Raises:
        UnknownNameError: For an unknown criterion or weight.
        ConfigurationError: For a weight that the criterion cannot score.
    """
    function = cast("Callable[[str, Signals], Tensor]", WEIGHT_CRITERIA.find(name).load())
    if weight not in signals.weights:
        raise UnknownNameError("a weight", weight, signals.weights)
    return sanitize(function(weight, signals))


def _products(name: str, signals: Signals, criterion: str) -> list[Tensor]:
    """Multiply gradient and weight, batch by batch, [shape of the weight]."""
    gradients = signals.need_gradients(criterion).get(name)
    if not gradients:
        raise _unreached(criterion, name, "gradients")
    weight = upcast(signals.weights[name])
    return [upcast(gradient) * weight for gradient in gradients]


def _unreached(criterion: str, weight: str, what: str) -> ConfigurationError:
    expected = "be used on weights that the loss reaches and that are not frozen"
    return ConfigurationError(error_message(f"criterion {criterion!r}", expected, f"{weight!r} without {what}"))


def _unwatched(criterion: str, weight: str) -> ConfigurationError:
    remedy = "Take another criterion, or leave this weight alone: layers={'" + weight + "': 0}."
    expected = "be used on weights whose input can be captured"
    return ConfigurationError(error_message(f"criterion {criterion!r}", expected, repr(weight), remedy))
