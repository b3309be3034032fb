"""Every criterion for channels on every model of the zoo: the promises that a score makes."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from autoprune.criteria.gathering import gather_signals
from autoprune.criteria.registry import score
from autoprune.errors import ConfigurationError
from autoprune.plan.criteria import CRITERIA
from autoprune.plan.kept import KeptChannels
from autoprune.structure.groups import ChannelGroup
from autoprune.structure.topology import Topology
from autoprune.surgery.cut import cut
from autoprune.surgery.mask import mask
from tests.conformance.scoring import (
    dense_signals,
    every_model,
    gathered_again,
    orders_of,
    permuted_signals,
    signals_on,
    squared,
)
from tests.slow import slow
from tests.zoo.registry import random_kept, specimen

#: A mean over the positions of a channel: on the mask of a grid those that the other side silenced count too.
MEANS = ("mean_activation", "mean_square_activation", "activation_variance", "apoz")
#: Behind a sigmoid a silenced channel is a half: the weights that read it are zero, and learn.
AWAKE = ("deep_mlp",)
NEEDED = CRITERIA.signals_for(CRITERIA)


def scorable(criterion: str, topology: Topology) -> Iterator[ChannelGroup]:
    for group in topology.groups:
        if not CRITERIA[criterion].lacks(group):
            yield group


def every_score(topology: Topology) -> Iterator[tuple[str, ChannelGroup]]:
    """Every criterion with every group that it can score."""
    for criterion in CRITERIA:
        for group in scorable(criterion, topology):
            yield criterion, group


@functools.cache
def scored(name: str, criterion: str, group: str) -> Tensor:
    """Scores of a group of the dense model, which three tests look at."""
    return score(criterion, specimen(name).topology.group(group), dense_signals(name))


@every_model
def test_finite_not_negative_and_one_for_each_channel(name: str) -> None:
    for criterion, group in every_score(specimen(name).topology):
        found = scored(name, criterion, group.name)
        assert found.shape == (group.channels,), criterion
        assert found.dtype == torch.float32, criterion
        assert torch.isfinite(found).all(), criterion
        assert (found >= 0).all(), criterion
        if criterion == "fpgm" and group.channels == 2:
            continue  # each of a pair is as far from the other
        assert len(set(found.tolist())) > 1, f"{criterion}: scores that are all equal choose nothing"


@every_model
def test_the_same_twice(name: str) -> None:
    signals, again = dense_signals(name), gathered_again(name)
    for criterion, group in every_score(specimen(name).topology):
        first = scored(name, criterion, group.name)
        assert torch.equal(first, score(criterion, group, signals)), f"{criterion}, of the same signals"
        assert torch.equal(first, score(criterion, group, again)), f"{criterion}, of signals that were gathered again"


@every_model
def test_scores_move_with_their_channels(name: str) -> None:
    topology = specimen(name).topology
    orders = orders_of(topology)
    for criterion, group in every_score(topology):
        if criterion == "random":
            continue
        before = scored(name, criterion, group.name)
        after = score(criterion, group, permuted_signals(name))
        torch.testing.assert_close(
            after, before[orders[group.name]], rtol=1e-4, atol=1e-9, msg=lambda text, of=criterion: f"{of}: {text}"
        )


@every_model
@pytest.mark.parametrize("seed", [0, slow(1)])
def test_a_cut_model_scores_like_the_silenced_one(name: str, seed: int) -> None:
    """On a parent the channels still alive get what the dense model gives them once the others are silent."""
    case = specimen(name)
    kept = random_kept(case.topology, seed)
    on_cut = signals_on(cut(case.model, case.topology, kept), name, kept, NEEDED)
    # A mask computes the right outputs where it needs statistics, by way of a second forward and without gradients.
    on_mask = signals_on(
        mask(case.model, case.topology, kept), name, names=() if case.topology.has_statistics else NEEDED
    )
    for criterion in CRITERIA:
        if case.topology.has_statistics and CRITERIA[criterion].signals:
            continue
        if criterion == "movement" and name in AWAKE:
            continue
        for group in scorable(criterion, case.topology):
            found = score(criterion, group, on_cut)
            alive = torch.tensor(kept.groups[group.name])
            assert found.shape == alive.shape
            expected = as_cut(criterion, group, score(criterion, group, on_mask), alive)
            if criterion == "fpgm":
                # A silenced channel is a filter of zeros, as far away as the channel's own norm.
                expected = expected - (group.channels - len(alive)) * score("l2", group, on_mask)[alive]
            if criterion in MEANS and is_grid(case.topology, group.name):
                expected = expected * found.sum() / expected.sum()
            torch.testing.assert_close(
                found, expected, rtol=1e-4, atol=1e-9, msg=lambda text, of=criterion: f"{of}: {text}"
            )


def as_cut(criterion: str, group: ChannelGroup, scores: Tensor, alive: Tensor) -> Tensor:
    """Of the scores on a mask those of the channels alive; movement counts from the smallest of these."""
    expected = scores[alive]
    return expected - expected.min() if criterion == "movement" else expected


def is_grid(topology: Topology, name: str) -> bool:
    """The group is one side of a grid of channels."""
    return any(name in run.groups and len(run.groups) > 1 for runs in topology.spans.values() for run in runs)


@pytest.mark.parametrize("criterion", [name for name, entry in CRITERIA.items() if entry.signals])
def test_a_missing_signal_is_a_configuration_error(criterion: str) -> None:
    case = specimen("resnet")
    bare = gather_signals(case.model, (), (case.topology, KeptChannels.whole(case.topology)), [], squared, 0)
    with pytest.raises(ConfigurationError, match=f"criterion '{criterion}' must be given the signal"):
        score(criterion, case.topology.groups[0], bare)


def test_scoring_changes_no_signal() -> None:
    signals = dense_signals("resnet")
    before = copy.deepcopy(dict(signals.weights))
    for criterion in CRITERIA:
        for group in specimen("resnet").topology.groups:
            score(criterion, group, signals)
        assert all(torch.equal(before[name], tensor) for name, tensor in signals.weights.items()), criterion


def test_the_docstring_says_what_it_is() -> None:
    for criterion, entry in CRITERIA.items():
        text = entry.load().__doc__ or ""
        assert "Returns:" in text, criterion
        assert "20" in text, f"{criterion}: the year of the paper"
