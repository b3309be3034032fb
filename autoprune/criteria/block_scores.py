"""Scores of residual blocks and layers: one number for each block that can be dropped whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from autoprune.criteria import single_weights
from autoprune.criteria.gates import open_probability
from autoprune.criteria.magnitude import NEARLY_ZERO, TINY
from autoprune.criteria.signals import Signals, block_weights, dense_noise, remaining_blocks, upcast
from autoprune.errors import ConfigurationError, error_message
from autoprune.structure.blocks import DroppableBlock
from autoprune.structure.topology import Topology

#: Weight of the mean |w| in l0: it decides between shares that differ by less.
_TIE = 1e-4


def block_influence(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """Change that a block makes to the tensor that it carries: 1 - mean over positions of cos(input, output).

    Source: Men et al., ShortGPT: Layers in Large Language Models are More Redundant Than You Expect, 2024.

    Args:
        block: Block to score.
        topology: Topology that the block belongs to.
        signals: Signals of the model, with "blocks".

    Returns:
        Score, float scalar; no unit, in [0, 2].

    Raises:
        ConfigurationError: Without the signal "blocks", for a block that the forward does not call, or for a branch
            whose modules are not given the tensor that the branch is added to.
    """
    del topology
    known = signals.need_blocks("block_influence")
    if block.name not in known:
        expected = "be used on blocks that the forward calls with the tensor that they add to"
        raise ConfigurationError(error_message("criterion 'block_influence'", expected, repr(block.name)))
    return torch.tensor(known[block.name])


def added_loss(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """Rise of the loss without the block's change, less the smallest rise of any block.

    Source: the leave-one-out loss, as for layers in Kim et al., Shortened LLaMA: Depth Pruning for Large Language
    Models, 2024.

    Args:
        block: Block to score.
        topology: Topology that the block belongs to.
        signals: Signals of the model, with "block_losses".

    Returns:
        Score, float scalar; unit: that of the loss.

    Raises:
        ConfigurationError: Without the signal "block_losses".
    """
    known = signals.need_block_losses("added_loss")
    there = [known[other.name] for other in remaining_blocks(topology, signals.kept)]
    return torch.tensor(known[block.name] - min(there))


def random(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """Uniform random score in [0, 1), a function of the seed and the block's name alone.

    The baseline that every other criterion must beat (Mittal et al., 2018).

    Args:
        block: Block to score.
        topology: Topology that the block belongs to.
        signals: Signals of the model.

    Returns:
        Score, float scalar.
    """
    del topology
    return dense_noise(f"{signals.seed}/{block.name}", ())


def l1(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """Mean absolute value of the block's weights: mean |w|.

    Source: Li et al., Pruning Filters for Efficient ConvNets, 2017, for blocks.

    Args:
        block: Block to score.
        topology: Topology that the block belongs to.
        signals: Signals of the model.

    Returns:
        Score, float scalar; unit: that of the weights.
    """
    return _joined(block, topology, signals).abs().mean()


def l2(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """Root mean square of the block's weights: sqrt(mean w^2).

    Source: He et al., Soft Filter Pruning, 2018, for blocks.

    Args:
        block: Block to score.
        topology: Topology that the block belongs to.
        signals: Signals of the model.

    Returns:
        Score, float scalar; unit: that of the weights.
    """
    return _joined(block, topology, signals).square().mean().sqrt()


def linf(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """Largest absolute value of the block's weights: max |w|.

    Source: the norm with p = infinity of Li et al., Pruning Filters for Efficient ConvNets, 2017, for blocks.

    Args:
        block: Block to score.
        topology: Topology that the block belongs to.
        signals: Signals of the model.

    Returns:
        Score, float scalar; unit: that of the weights.
    """
    return _joined(block, topology, signals).abs().max()


def l0(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """Share of the block's weights that are not nearly zero: mean of [|w| > 0.001 max |w of the tensor|].

    0.0001 times the mean of |w| / max |w of the tensor| is added: it decides between nearly equal shares, as in dense
    models.
    Source: the connections left in Han et al., Learning both Weights and Connections, 2015, for blocks.

    Args:
        block: Block to score.
        topology: Topology that the block belongs to.
        signals: Signals of the model.

    Returns:
        Score, float scalar; no unit, in [0, 1.0001].
    """
    names = block_weights(block, topology, signals)
    sizes = [upcast(signals.weights[name]).abs().flatten().cpu() for name in names]
    shares = torch.cat([size / size.max().clamp(min=TINY) for size in sizes])
    return (shares > NEARLY_ZERO).to(shares.dtype).mean() + _TIE * shares.mean()


def bn_scale(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """Mean absolute scale of the block's norms: mean |gamma|.

    Source: Liu et al., Network Slimming, 2017, for blocks.

    Args:
        block: Block to score.
        topology: Topology that the block belongs to.
        signals: Signals of the model.

    Returns:
        Score, float scalar; no unit.

    Raises:
        ConfigurationError: For a block without a norm that has a scale.
    """
    there = set(block.tensors).intersection(signals.weights)
    scales = {m.tensor for group in topology.groups for m in group.members if m.role == "scale"}
    # Norms outside all groups are known by their running statistics.
    known = {name for name in there if f"{name.removesuffix('.weight')}.running_var" in there}
    found = sorted(there & (scales | known))
    if not found:
        expected = "be used on blocks with a norm"
        raise ConfigurationError(error_message("criterion 'bn_scale'", expected, f"block {block.name!r} without one"))
    return torch.cat([upcast(signals.weights[name]).flatten().cpu() for name in found]).abs().mean()


def taylor_activation(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """First-order change of the loss when the block's addition is removed: mean over batches of |sum over all of x g|.

    x is the tensor that the block adds, g the gradient of the batch's loss to it.
    Source: Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient Inference, 2017, for blocks.

    Args:
        block: Block to score.
        topology: Topology that the block belongs to.
        signals: Signals of the model, with "block_gradients".

    Returns:
        Score, float scalar; unit: that of the loss.

    Raises:
        ConfigurationError: Without the signal "block_gradients", or when the loss does not reach the block.
    """
    del topology
    return _known(signals.need_block_gradients("taylor_activation"), block, "taylor_activation").abs().mean()


def hard_concrete(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """Probability that the gate on the block's addition is not zero: sigmoid(log alpha - beta log(-gamma / zeta)).

    The gates of all blocks are learned together, like the gates of channels, see learned.hard_concrete.
    Source: Louizos et al., Learning Sparse Neural Networks through L0 Regularization, 2018, for blocks.

    Args:
        block: Block to score.
        topology: Topology that the block belongs to.
        signals: Signals of the model, with "block_gates".

    Returns:
        Score, float scalar; no unit, in (0, 1).

    Raises:
        ConfigurationError: Without the signal "block_gates", or when the loss does not reach the block.
    """
    del topology
    return open_probability(_known(signals.need_block_gates("hard_concrete"), block, "hard_concrete"))


def movement(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """Movement of the block's weights away from zero in training: sum S, less the smallest sum of any block.

    S = -sum over steps of rate * g * w, in a brief training of a copy.
    Source: Sanh et al., Movement Pruning: Adaptive Sparsity by Fine-Tuning, 2020, for blocks.

    Args:
        block: Block to score.
        topology: Topology that the block belongs to.
        signals: Signals of the model, with "movement".

    Returns:
        Score, float scalar; unit: that of the loss.

    Raises:
        ConfigurationError: Without the signal "movement", or when the signal holds no weight of the block.
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
    """First-order change of the loss when the block's weights are removed: mean over batches of |sum g w|.

    Source: Molchanov et al., Importance Estimation for Neural Network Pruning, 2019, for blocks.

    Args:
        block: Block to score.
        topology: Topology that the block belongs to.
        signals: Signals of the model, with "gradients".

    Returns:
        Score, float scalar; unit: that of the loss.

    Raises:
        ConfigurationError: Without the signal "gradients", or when the loss reaches no weight of the block that is
            not frozen.
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

    Source: Theis et al., Faster gaze prediction with dense networks and Fisher pruning, 2018, for blocks.

    Args:
        block: Block to score.
        topology: Topology that the block belongs to.
        signals: Signals of the model, with "gradients".

    Returns:
        Score, float scalar; unit: loss squared.

    Raises:
        ConfigurationError: Without the signal "gradients", or when the loss reaches no weight of the block that is
            not frozen.
    """
    names = _reached(block, topology, signals, signals.need_gradients("fisher"), "fisher")
    return _sum(single_weights.fisher, names, signals)


def snip(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """Connection sensitivity of the block's weights: sum |g w|, g of the mean loss over batches.

    Source: Lee et al., SNIP: Single-shot Network Pruning based on Connection Sensitivity, 2019, for blocks.

    Args:
        block: Block to score.
        topology: Topology that the block belongs to.
        signals: Signals of the model, with "gradients".

    Returns:
        Score, float scalar; unit: that of the loss.

    Raises:
        ConfigurationError: Without the signal "gradients", or when the loss reaches no weight of the block that is
            not frozen.
    """
    names = _reached(block, topology, signals, signals.need_gradients("snip"), "snip")
    return _sum(single_weights.snip, names, signals)


def obd(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """Second-order changes of the loss when the block's weights are removed one by one: sum |h w^2 / 2|.

    Source: LeCun et al., Optimal Brain Damage, 1989, for blocks; the estimate as in Yao et al., ADAHESSIAN, 2021.

    Args:
        block: Block to score.
        topology: Topology that the block belongs to.
        signals: Signals of the model, with "weight_hessian".

    Returns:
        Score, float scalar; unit: that of the loss.

    Raises:
        ConfigurationError: Without the signal "weight_hessian", or when the signal holds no weight of the block.
    """
    names = _reached(block, topology, signals, signals.need_weight_hessian("obd"), "obd")
    return _sum(single_weights.obd, names, signals)


def _joined(block: DroppableBlock, topology: Topology, signals: Signals) -> Tensor:
    """Concatenate all entries of the block's weights, [entries]."""
    return torch.cat(
        [upcast(signals.weights[name]).flatten().cpu() for name in block_weights(block, topology, signals)]
    )


def _known(known: Mapping[str, Tensor], block: DroppableBlock, criterion: str) -> Tensor:
    """Look up a block's value in a signal, on the CPU."""
    if block.name not in known:
        expected = "be used on blocks that the loss reaches"
        raise ConfigurationError(error_message(f"criterion {criterion!r}", expected, f"block {block.name!r}"))
    return known[block.name].cpu()


def _reached(
    block: DroppableBlock, topology: Topology, signals: Signals, known: Mapping[str, object], criterion: str
) -> list[str]:
    """List the block's weights that a signal holds; ConfigurationError when there are none."""
    found = [name for name in block_weights(block, topology, signals) if name in known]
    if not found:
        expected = "be used on blocks with weights that the loss reaches and that are not frozen"
        raise ConfigurationError(error_message(f"criterion {criterion!r}", expected, f"block {block.name!r}"))
    return found


def _sum(function: Callable[[str, Signals], Tensor], names: Iterable[str], signals: Signals) -> Tensor:
    return torch.stack([function(name, signals).double().sum().cpu() for name in names]).sum()
