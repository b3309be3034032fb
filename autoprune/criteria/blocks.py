"""Criteria for residual blocks by name: one score for each block that can be dropped whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from autoprune.criteria import single_weights
from autoprune.criteria.gates import open_probability
from autoprune.criteria.magnitude import NEARLY_ZERO, TINY
from autoprune.criteria.signals import Signals, block_weights, dense_noise, remaining_blocks, sanitize, upcast
from autoprune.errors import ConfigurationError, UnknownNameError, error_message
from autoprune.trace.blocks import DroppableBlock
from autoprune.trace.topology import Topology

#: Weight of the mean |w| in l0: it decides between shares that are as near as this.
_TIE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockCriterion:
    """A score for a block, higher = keep, never negative.

    function: pure, (block, the topology it is of, signals) -> float scalar. signals: names of the signals it needs
    besides the weights.
    The weights of a block are its parameters of two or more axes; norms and biases count only where it has no others.
    """

    function: Callable[[DroppableBlock, Topology, Signals], Tensor]
    signals: tuple[str, ...] = ()


def block_influence(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """How much a block changes what passes through it: 1 - mean over positions of cos(what enters, what leaves).

    Shapes: scalar; unit: none, in [0, 2]. Raises ConfigurationError without the signal "blocks", for a block that the
    forward does not call, or for a branch of which no module is given what it is added to.
    Source: Men et al., ShortGPT: Layers in Large Language Models are More Redundant Than You Expect, 2024.
    """
    del topology
    known = signals.need_blocks("block_influence")
    if block.name not in known:
        expected = "be used on blocks that the forward calls and gives what they add to"
        raise ConfigurationError(error_message("criterion 'block_influence'", expected, repr(block.name)))
    return torch.tensor(known[block.name])


def added_loss(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """How much the loss rises without what the block changes, less the smallest rise of the blocks.

    Shapes: scalar; unit: that of the loss. Raises ConfigurationError without the signal "block_losses".
    Source: the leave-one-out loss, as for layers in Kim et al., Shortened LLaMA: Depth Pruning for Large Language
    Models, 2024.
    """
    known = signals.need_block_losses("added_loss")
    there = [known[other.name] for other in remaining_blocks(topology, signals.kept)]
    return torch.tensor(known[block.name] - min(there))


def random(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """Uniform in [0, 1), a function of the seed and the block's name alone.

    Shapes: scalar. The baseline that any other criterion has to beat (Mittal et al., 2018).
    """
    del topology
    return dense_noise(f"{signals.seed}/{block.name}", ())


def l1(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """Mean absolute value of the block's weights: mean |w|.

    Shapes: scalar; unit: that of the weights.
    Source: Li et al., Pruning Filters for Efficient ConvNets, 2017, for blocks.
    """
    return _joined(block, topology, signals).abs().mean()


def l2(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """Root mean square of the block's weights: sqrt(mean w^2).

    Shapes: scalar; unit: that of the weights.
    Source: He et al., Soft Filter Pruning, 2018, for blocks.
    """
    return _joined(block, topology, signals).square().mean().sqrt()


def linf(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """Largest absolute value of the block's weights: max |w|.

    Shapes: scalar; unit: that of the weights.
    Source: the norm with p = infinity of Li et al., Pruning Filters for Efficient ConvNets, 2017, for blocks.
    """
    return _joined(block, topology, signals).abs().max()


def l0(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """Share of the block's weights that are not nearly zero: mean of [|w| > 0.001 max |w of the tensor|].

    To the share is added 0.0001 times the mean of |w| / max |w of the tensor|: it decides where shares are that near,
    as in dense models.
    Shapes: scalar; unit: none, in [0, 1.0001].
    Source: the connections left in Han et al., Learning both Weights and Connections, 2015, for blocks.
    """
    names = block_weights(block, topology, signals)
    sizes = [upcast(signals.weights[name]).abs().flatten().cpu() for name in names]
    shares = torch.cat([size / size.max().clamp(min=TINY) for size in sizes])
    return (shares > NEARLY_ZERO).to(shares.dtype).mean() + _TIE * shares.mean()


def bn_scale(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """Mean absolute scale of the block's norms: mean |gamma|.

    Shapes: scalar; unit: none. Raises ConfigurationError for a block without a norm that has a scale.
    Source: Liu et al., Network Slimming, 2017, for blocks.
    """
    there = set(block.tensors).intersection(signals.weights)
    scales = {m.tensor for group in topology.groups for m in group.members if m.role == "scale"}
    # Of norms that no group runs through those are known that keep statistics.
    known = {name for name in there if f"{name.removesuffix('.weight')}.running_var" in there}
    found = sorted(there & (scales | known))
    if not found:
        expected = "be used on blocks with a norm"
        raise ConfigurationError(error_message("criterion 'bn_scale'", expected, f"block {block.name!r} without one"))
    return torch.cat([upcast(signals.weights[name]).flatten().cpu() for name in found]).abs().mean()


def taylor_activation(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """First-order change of the loss when what the block adds goes: mean over batches of |sum over all of x g|.

    x is what the block adds, g the gradient of the batch's loss to it.
    Shapes: scalar; unit: that of the loss. Raises ConfigurationError without the signal "block_gradients", or when the
    loss does not reach the block.
    Source: Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient Inference, 2017, for blocks.
    """
    del topology
    return _known(signals.need_block_gradients("taylor_activation"), block, "taylor_activation").abs().mean()


def hard_concrete(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """Probability that the gate on what the block adds is not zero: sigmoid(log alpha - beta log(-gamma / zeta)).

    The gates of all blocks are learned together as those of channels are, see learned.hard_concrete.
    Shapes: scalar; unit: none, in (0, 1). Raises ConfigurationError without the signal "block_gates", or when the loss
    does not reach the block.
    Source: Louizos et al., Learning Sparse Neural Networks through L0 Regularization, 2018, for blocks.
    """
    del topology
    return open_probability(_known(signals.need_block_gates("hard_concrete"), block, "hard_concrete"))


def movement(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """How far training carries the block's weights away from zero: sum S, less the smallest of the blocks.

    S = -sum over steps of rate * g * w, of a brief training of a copy.
    Shapes: scalar; unit: that of the loss. Raises ConfigurationError without the signal "movement", or when it holds no
    weight of the block.
    Source: Sanh et al., Movement Pruning: Adaptive Sparsity by Fine-Tuning, 2020, for blocks.
    """
    known = signals.need_movement("movement")
    _reached(block, topology, signals, known, "movement")
    sums = {
        other.name: sum(float(known[name].double().sum()) for name in names)
        for other in remaining_blocks(topology, signals.kept)
        if (names := [name for name in block_weights(other, topology, signals) if name in known])
    }
    return torch.tensor(sums[block.name] - min(sums.values()))


def taylor_weight(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """First-order change of the loss when the block's weights go: mean over batches of |sum g w|.

    Shapes: scalar; unit: that of the loss. Raises ConfigurationError without the signal "gradients", or when the loss
    reaches no weight of the block that is not frozen.
    Source: Molchanov et al., Importance Estimation for Neural Network Pruning, 2019, for blocks.
    """
    gradients = signals.need_gradients("taylor_weight")
    sums = [
        torch.stack(
            [(upcast(gradient) * upcast(signals.weights[name])).sum().double().cpu() for gradient in gradients[name]]
        )
        for name in _reached(block, topology, signals, gradients, "taylor_weight")
    ]
    batches = min(len(each) for each in sums)
    return torch.stack([each[:batches] for each in sums]).sum(0).abs().mean()


def fisher(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """Half the diagonal Fisher information times w^2, over the block: sum of mean over batches of (g w)^2 / 2.

    Shapes: scalar; unit: loss squared. Raises ConfigurationError as taylor_weight.
    Source: Theis et al., Faster gaze prediction with dense networks and Fisher pruning, 2018, for blocks.
    """
    names = _reached(block, topology, signals, signals.need_gradients("fisher"), "fisher")
    return _sum(single_weights.fisher, names, signals)


def snip(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """Connection sensitivity of the block's weights: sum |g w|, g of the mean loss over batches.

    Shapes: scalar; unit: that of the loss. Raises ConfigurationError as taylor_weight.
    Source: Lee et al., SNIP: Single-shot Network Pruning based on Connection Sensitivity, 2019, for blocks.
    """
    names = _reached(block, topology, signals, signals.need_gradients("snip"), "snip")
    return _sum(single_weights.snip, names, signals)


def obd(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """Second-order changes of the loss when the block's weights go one by one: sum |h w^2 / 2|.

    Shapes: scalar; unit: that of the loss. Raises ConfigurationError without the signal "weight_hessian", or when it
    holds no weight of the block.
    Source: LeCun et al., Optimal Brain Damage, 1989, for blocks; the estimate as in Yao et al., ADAHESSIAN, 2021.
    """
    names = _reached(block, topology, signals, signals.need_weight_hessian("obd"), "obd")
    return _sum(single_weights.obd, names, signals)


BLOCK_CRITERIA: Mapping[str, BlockCriterion] = {
    "block_influence": BlockCriterion(function=block_influence, signals=("blocks",)),
    "added_loss": BlockCriterion(function=added_loss, signals=("block_losses",)),
    "l1": BlockCriterion(function=l1),
    "l2": BlockCriterion(function=l2),
    "linf": BlockCriterion(function=linf),
    "l0": BlockCriterion(function=l0),
    "random": BlockCriterion(function=random),
    "bn_scale": BlockCriterion(function=bn_scale),
    "taylor_weight": BlockCriterion(function=taylor_weight, signals=("gradients",)),
    "taylor_activation": BlockCriterion(function=taylor_activation, signals=("block_gradients",)),
    "fisher": BlockCriterion(function=fisher, signals=("gradients",)),
    "snip": BlockCriterion(function=snip, signals=("gradients",)),
    "obd": BlockCriterion(function=obd, signals=("weight_hessian",)),
    "hard_concrete": BlockCriterion(function=hard_concrete, signals=("block_gates",)),
    "movement": BlockCriterion(function=movement, signals=("movement",)),
}


def block_criterion(name: str) -> BlockCriterion:
    """The criterion for blocks of that name; UnknownNameError lists the known ones."""
    if name not in BLOCK_CRITERIA:
        raise UnknownNameError("a criterion for blocks", name, BLOCK_CRITERIA)
    return BLOCK_CRITERIA[name]


def block_signals_for(names: Iterable[str]) -> tuple[str, ...]:
    """The signals that these criteria for blocks need together, sorted."""
    return tuple(sorted({signal for name in names for signal in block_criterion(name).signals}))


def score_block(name: str, block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """Score of one block that the model still has, float32 scalar, finite and >= 0; higher = keep.

    Raises UnknownNameError for a criterion that there is not, ConfigurationError for a block that it cannot score.
    """
    return sanitize(block_criterion(name).function(block, topology, signals))


def score_blocks(name: str, topology: Topology, signals: Signals) -> dict[str, float]:
    """Name of each block that the model still has -> its score. Raises as score_block."""
    return {
        block.name: float(score_block(name, block, topology, signals))
        for block in remaining_blocks(topology, signals.kept)
    }


def _joined(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """All entries of the block's weights, [entries]."""
    return torch.cat(
        [upcast(signals.weights[name]).flatten().cpu() for name in block_weights(block, topology, signals)]
    )


def _known(known: Mapping[str, Tensor], block: DroppableBlock, criterion: str) -> Tensor:
    """What a signal holds of a block, on the CPU."""
    if block.name not in known:
        expected = "be used on blocks that the loss reaches"
        raise ConfigurationError(error_message(f"criterion {criterion!r}", expected, f"block {block.name!r}"))
    return known[block.name].cpu()


def _reached(
    block: DroppableBlock, topology: Topology, signals: Signals, known: Mapping[str, object], criterion: str
) -> list[str]:
    """The block's weights that a signal holds; ConfigurationError when there are none."""
    found = [name for name in block_weights(block, topology, signals) if name in known]
    if not found:
        expected = "be used on blocks with weights that the loss reaches and that are not frozen"
        raise ConfigurationError(error_message(f"criterion {criterion!r}", expected, f"block {block.name!r}"))
    return found


def _sum(function: Callable[[str, Signals], Tensor], names: Iterable[str], signals: Signals) -> Tensor:
    return torch.stack([function(name, signals).double().sum().cpu() for name in names]).sum()
