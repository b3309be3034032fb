"""How much the criteria that draw noise agree with themselves between seeds, on the network of `studies/digits`.

The numbers are those of docs/criteria.md.
"""

from __future__ import annotations

import functools
import itertools

import pytest
import torch
from torch import Tensor, nn

from autoprune.criteria.gathering import gather_signals
from autoprune.criteria.registry import score
from autoprune.criteria.signals import Signals
from autoprune.criteria.single_weights import score_weights
from autoprune.plan.criteria import CRITERIA, WEIGHT_CRITERIA
from autoprune.plan.kept import KeptChannels
from autoprune.plan.maskable import maskable
from autoprune.structure.topology import Topology
from autoprune.task.data import Batch
from autoprune.trace.trace import trace
from studies.digits.study import DigitNet, data

SEEDS = 3


@functools.cache
def trained() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """The network after some ten passes over the scans, and these."""
    torch.manual_seed(0)
    model, (images, targets) = DigitNet(), data()["train"]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    for step in range(140):
        index = (torch.arange(64) + step * 64) % len(images)
        loss = nn.functional.cross_entropy(model(images[index]), targets[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), (images, targets)


@functools.cache
def gathered(signal: str) -> tuple[Topology, list[Signals]]:
    """On 256 scans in four batches."""
    model, (images, targets) = trained()
    topology = trace(model, images[:2])
    start = topology, KeptChannels.whole(topology)
    parts = [slice(first, first + 64) for first in range(0, 256, 64)]
    batches = [Batch(inputs=images[part], targets=targets[part], size=64) for part in parts]
    loss = nn.functional.cross_entropy
    return topology, [gather_signals(model, (signal,), start, batches, loss, seed) for seed in range(SEEDS)]


def agreement(scores: list[Tensor]) -> float:
    """Mean rank correlation (Spearman) of all pairs."""
    ranks = [found.flatten().argsort().argsort().double() for found in scores]
    pairs = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in itertools.combinations(ranks, 2)]
    return float(torch.stack(pairs).mean())


def of_channels(criterion: str) -> float:
    topology, seeds = gathered(CRITERIA[criterion].signals[0])
    found = [agreement([score(criterion, group, signals) for signals in seeds]) for group in topology.groups]
    return sum(found) / len(found)


def of_weights(criterion: str) -> float:
    topology, seeds = gathered(WEIGHT_CRITERIA[criterion].signals[0])
    weights = maskable(topology)
    found = [agreement([score_weights(criterion, name, signals) for signals in seeds]) for name in weights]
    return sum(found) / len(found)


@pytest.mark.parametrize(("criterion", "expected"), [("obd", 0.70), ("hard_concrete", 0.39), ("fisher", 1.0)])
def test_channels_rank_as_alike_as_the_docs_say(criterion: str, expected: float) -> None:
    assert of_channels(criterion) == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize(("criterion", "expected"), [("obd", 0.73), ("hard_concrete", 0.43), ("fisher", 1.0)])
def test_weights_rank_as_alike_as_the_docs_say(criterion: str, expected: float) -> None:
    assert of_weights(criterion) == pytest.approx(expected, abs=0.1)
