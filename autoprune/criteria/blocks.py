"""Criteria for residual blocks by name: one score for each block that can be dropped whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from autoprune.criteria import single_weights
from autoprune.criteria.signals import Signals, block_weights, blocks_left, dense_noise, finite, wide
from autoprune.errors import ConfigurationError, UnknownNameError, fault
from autoprune.trace.topology import Block, Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockCriterion:
    """A score for a block, higher = keep, never negative.

    function: pure, (block, the topology it is of, signals) -> float scalar. signals: names of the signals it needs
    besides the weights.
    The weights of a block are its parameters of two or more axes; norms and biases count only where it has no others.
    """

    function: Callable[[Block, Topology, Signals], Tensor]
    signals: tuple[str, ...] = ()


def block_influence(block: Block, topology: Topology, signals: Signals) -> Tensor:
    """How much a block changes what passes through it: 1 - mean over positions of cos(what enters, what leaves).

    Shapes: scalar; unit: none, in [0, 2]. Raises ConfigurationError without the signal "blocks", or for a block that
    the forward does not call.
    Source: Men et al., ShortGPT: Layers in Large Language Models are More Redundant Than You Expect, 2024.
    """
    del topology
    known = signals.need_blocks("block_influence")
    if block.name not in known:
        expected = "be used on blocks that the forward calls"
        raise ConfigurationError(fault("criterion 'block_influence'", expected, repr(block.name)))
    return torch.tensor(known[block.name])


def random(block: Block, topology: Topology, signals: Signals) -> Tensor:
    """Uniform in [0, 1), a function of the seed and the block's name alone.

    Shapes: scalar. The baseline that any other criterion has to beat (Mittal et al., 2018).
    """
    del topology
    return dense_noise(f"{signals.seed}/{block.name}", ())


def l1(block: Block, topology: Topology, signals: Signals) -> Tensor:
    """Mean absolute value of the block's weights: mean |w|.

    Shapes: scalar; unit: that of the weights.
    Source: Li et al., Pruning Filters for Efficient ConvNets, 2017, for blocks.
    """
    return _joined(block, topology, signals).abs().mean()


def l2(block: Block, topology: Topology, signals: Signals) -> Tensor:
    """Root mean square of the block's weights: sqrt(mean w^2).

    Shapes: scalar; unit: that of the weights.
    Source: He et al., Soft Filter Pruning, 2018, for blocks.
    """
    return _joined(block, topology, signals).square().mean().sqrt()


def taylor_weight(block: Block, topology: Topology, signals: Signals) -> Tensor:
    """First-order change of the loss when the block's weights go: mean over batches of |sum g w|.

    Shapes: scalar; unit: that of the loss. Raises ConfigurationError without the signal "gradients", or when the loss
    reaches no weight of the block that is not frozen.
    Source: Molchanov et al., Importance Estimation for Neural Network Pruning, 2019, for blocks.
    """
    gradients = signals.need_gradients("taylor_weight")
    sums = [
        torch.stack(
            [(wide(gradient) * wide(signals.weights[name])).sum().double().cpu() for gradient in gradients[name]]
        )
        for name in _reached(block, topology, signals, gradients, "taylor_weight")
    ]
    batches = min(len(each) for each in sums)
    return torch.stack([each[:batches] for each in sums]).sum(0).abs().mean()


def fisher(block: Block, topology: Topology, signals: Signals) -> Tensor:
    """Half the diagonal Fisher information times w^2, over the block: sum of mean over batches of (g w)^2 / 2.

    Shapes: scalar; unit: loss squared. Raises ConfigurationError as taylor_weight.
    Source: Theis et al., Faster gaze prediction with dense networks and Fisher pruning, 2018, for blocks.
    """
    names = _reached(block, topology, signals, signals.need_gradients("fisher"), "fisher")
    return _sum(single_weights.fisher, names, signals)


def snip(block: Block, topology: Topology, signals: Signals) -> Tensor:
    """Connection sensitivity of the block's weights: sum |g w|, g of the mean loss over batches.

    Shapes: scalar; unit: that of the loss. Raises ConfigurationError as taylor_weight.
    Source: Lee et al., SNIP: Single-shot Network Pruning based on Connection Sensitivity, 2019, for blocks.
    """
    names = _reached(block, topology, signals, signals.need_gradients("snip"), "snip")
    return _sum(single_weights.snip, names, signals)


def obd(block: Block, topology: Topology, signals: Signals) -> Tensor:
    """Second-order changes of the loss when the block's weights go one by one: sum |h w^2 / 2|.

    Shapes: scalar; unit: that of the loss. Raises ConfigurationError without the signal "weight_hessian", or when it
    holds no weight of the block.
    Source: LeCun et al., Optimal Brain Damage, 1989, for blocks; the estimate as in Yao et al., ADAHESSIAN, 2021.
    """
    names = _reached(block, topology, signals, signals.need_weight_hessian("obd"), "obd")
    return _sum(single_weights.obd, names, signals)


BLOCK_CRITERIA: Mapping[str, BlockCriterion] = {
    "block_influence": BlockCriterion(function=block_influence, signals=("blocks",)),
    "l1": BlockCriterion(function=l1),
    "l2": BlockCriterion(function=l2),
    "random": BlockCriterion(function=random),
    "taylor_weight": BlockCriterion(function=taylor_weight, signals=("gradients",)),
    "fisher": BlockCriterion(function=fisher, signals=("gradients",)),
    "snip": BlockCriterion(function=snip, signals=("gradients",)),
    "obd": BlockCriterion(function=obd, signals=("weight_hessian",)),
}


def block_criterion(name: str) -> BlockCriterion:
    """The criterion for blocks of that name; UnknownNameError lists the known ones."""
    if name not in BLOCK_CRITERIA:
        raise UnknownNameError("a criterion for blocks", name, BLOCK_CRITERIA)
    return BLOCK_CRITERIA[name]


def block_signals_for(names: Iterable[str]) -> tuple[str, ...]:
    """The signals that these criteria for blocks need together, sorted."""
    return tuple(sorted({signal for name in names for signal in block_criterion(name).signals}))


def score_blocks(name: str, topology: Topology, signals: Signals) -> dict[str, float]:
    """Name of each block that the model still has -> its score, finite and >= 0; higher = keep.

    Raises UnknownNameError for a criterion that there is not, ConfigurationError for a block that it can not score.
    """
    function, there = block_criterion(name).function, blocks_left(topology, signals.kept)
    return {block.name: float(finite(function(block, topology, signals))) for block in there}


def _joined(block: Block, topology: Topology, signals: Signals) -> Tensor:
    """All entries of the block's weights, [entries]."""
    return torch.cat([wide(signals.weights[name]).flatten().cpu() for name in block_weights(block, topology, signals)])


def _reached(
    block: Block, topology: Topology, signals: Signals, known: Mapping[str, object], criterion: str
) -> list[str]:
    """The block's weights that a signal holds; ConfigurationError when there are none."""
    found = [name for name in block_weights(block, topology, signals) if name in known]
    if not found:
        expected = "be used on blocks with weights that the loss reaches and that are not frozen"
        raise ConfigurationError(fault(f"criterion {criterion!r}", expected, f"block {block.name!r}"))
    return found


def _sum(function: Callable[[str, Signals], Tensor], names: Iterable[str], signals: Signals) -> Tensor:
    return torch.stack([function(name, signals).double().sum().cpu() for name in names]).sum()
