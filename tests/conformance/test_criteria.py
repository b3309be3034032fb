"""Every criterion on every model of the zoo: the promises that a score makes."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from autoprune.criteria.kept import KeptChannels
from autoprune.criteria.registry import CRITERIA, score
from autoprune.criteria.signals import SIGNALS, Signals, gather
from autoprune.errors import ConfigurationError
from autoprune.surgery.cut import cut
from autoprune.surgery.mask import mask
from autoprune.task.data import Batch
from autoprune.trace.topology import ChannelGroup, Topology
from tests.zoo.registry import ZOO, random_kept, specimen

EVERY = [(criterion, name) for name in ZOO for criterion in CRITERIA]
#: A mean over the positions of a channel: on the mask of a grid those that the other side silenced count too.
MEANS = ("mean_activation", "mean_square_activation", "activation_variance", "apoz")
WITHOUT_CHANCE = tuple(signal for signal in SIGNALS if signal != "hessian")


def squared(outputs: object, targets: object) -> Tensor:
    assert isinstance(outputs, Tensor)
    return outputs.square().mean()


def signals_on(
    model: nn.Module, name: str, kept: KeptChannels | None = None, names: tuple[str, ...] = SIGNALS
) -> Signals:
    """Signals, all unless named, on two batches of inputs that differ."""
    case = specimen(name)
    inputs = case.inputs, case.inputs.flip(0) * 2 if case.inputs.is_floating_point() else case.inputs.flip(0)
    batches = [Batch(inputs=x, targets=torch.zeros(len(x)), size=len(x)) for x in inputs]
    kept = kept or KeptChannels.whole(case.topology)
    return gather(model, names, (case.topology, kept), batches, squared, 3)


@functools.cache
def dense_signals(name: str) -> Signals:
    return signals_on(specimen(name).model, name)


@functools.cache
def gathered_again(name: str) -> Signals:
    return signals_on(specimen(name).model, name)


def scorable(criterion: str, topology: Topology) -> Iterator[ChannelGroup]:
    for group in topology.groups:
        if not CRITERIA[criterion].needs_norm or any(member.role == "scale" for member in group.members):
            yield group


@pytest.mark.parametrize(("criterion", "name"), EVERY)
def test_finite_not_negative_and_one_for_each_channel(criterion: str, name: str) -> None:
    signals = dense_signals(name)
    for group in scorable(criterion, specimen(name).topology):
        found = score(criterion, group, signals)
        assert found.shape == (group.channels,)
        assert found.dtype == torch.float32
        assert torch.isfinite(found).all()
        assert (found >= 0).all()
        if criterion == "fpgm" and group.channels == 2:
            continue  # each of a pair is as far from the other
        assert len(set(found.tolist())) > 1, "scores that are all equal choose nothing"


@pytest.mark.parametrize(("criterion", "name"), EVERY)
def test_the_same_twice(criterion: str, name: str) -> None:
    signals, again = dense_signals(name), gathered_again(name)
    for group in scorable(criterion, specimen(name).topology):
        first = score(criterion, group, signals)
        assert torch.equal(first, score(criterion, group, signals)), "of the same signals"
        assert torch.equal(first, score(criterion, group, again)), "of signals that were gathered again"


@torch.no_grad()
def permuted(model: nn.Module, group: ChannelGroup, order: Tensor) -> nn.Module:
    """The same function with the group's channels in another order: channel c is what order[c] was."""
    model = copy.deepcopy(model)
    permute({**dict(model.named_parameters()), **dict(model.named_buffers())}, group, order)
    return model


def permute(tensors: Mapping[str, Tensor], group: ChannelGroup, order: Tensor) -> None:
    for member in group.members:
        if member.tensor in tensors:
            tensor = tensors[member.tensor]
            source = tensor.index_select(member.axis, member.index[order].flatten())
            tensor.index_copy_(member.axis, member.index.flatten(), source)


@pytest.mark.parametrize("name", ZOO)
def test_scores_move_with_their_channels(name: str) -> None:
    case = specimen(name)
    for group in case.topology.groups:
        order = torch.randperm(group.channels, generator=torch.Generator().manual_seed(2))
        other = permuted(case.model, group, order)
        torch.testing.assert_close(other(case.inputs), case.model(case.inputs), msg="not the same function")
        # The probes that estimate the curvature are drawn by position: it moves here, and not by chance.
        curvature = {name: tensor.clone() for name, tensor in (dense_signals(name).hessian or {}).items()}
        permute(curvature, group, order)
        signals = replace(signals_on(other, name, names=WITHOUT_CHANCE), hessian=curvature)
        for criterion in CRITERIA:
            if criterion != "random" and group in scorable(criterion, case.topology):
                before, after = score(criterion, group, dense_signals(name)), score(criterion, group, signals)
                torch.testing.assert_close(after, before[order], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("seed", range(2))
def test_a_cut_model_scores_like_the_silenced_one(name: str, seed: int) -> None:
    """On a parent the channels still alive get what the dense model gives them once the others are silent."""
    case = specimen(name)
    kept = random_kept(case.topology, seed)
    on_cut = signals_on(cut(case.model, case.topology, kept), name, kept)
    # A mask computes the right outputs where it needs statistics, by way of a second forward and without gradients.
    on_mask = signals_on(
        mask(case.model, case.topology, kept), name, names=() if case.topology.has_statistics else SIGNALS
    )
    for criterion in CRITERIA:
        if case.topology.has_statistics and CRITERIA[criterion].signals:
            continue
        for group in scorable(criterion, case.topology):
            found = score(criterion, group, on_cut)
            alive = torch.tensor(kept.groups[group.name])
            assert found.shape == alive.shape
            expected = score(criterion, group, on_mask)[alive]
            if criterion == "fpgm":
                # A silenced channel is a filter of zeros, as far away as the channel's own norm.
                expected = expected - (group.channels - len(alive)) * score("l2", group, on_mask)[alive]
            if criterion in MEANS and is_grid(case.topology, group.name):
                expected = expected * found.sum() / expected.sum()
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-9)


def is_grid(topology: Topology, name: str) -> bool:
    """The group is one side of a grid of channels."""
    return any(name in run.groups and len(run.groups) > 1 for runs in topology.runs.values() for run in runs)


@pytest.mark.parametrize("criterion", [name for name, entry in CRITERIA.items() if entry.signals])
def test_a_missing_signal_is_a_configuration_error(criterion: str) -> None:
    case = specimen("resnet")
    bare = gather(case.model, (), (case.topology, KeptChannels.whole(case.topology)), [], squared, 0)
    with pytest.raises(ConfigurationError, match=f"criterion '{criterion}' must be given the signal"):
        score(criterion, case.topology.groups[0], bare)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_scoring_changes_no_signal(criterion: str) -> None:
    signals = dense_signals("resnet")
    before = copy.deepcopy(dict(signals.weights))
    for group in specimen("resnet").topology.groups:
        score(criterion, group, signals)
    assert all(torch.equal(before[name], tensor) for name, tensor in signals.weights.items())


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_docstring_says_what_it_is(criterion: str) -> None:
    text = CRITERIA[criterion].function.__doc__ or ""
    assert "Shapes:" in text
    assert "20" in text, "the year of the paper"
