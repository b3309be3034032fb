"""Every criterion for single weights and for blocks on models of the zoo: the promises that a score makes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from autoprune.criteria.blocks import score_blocks
from autoprune.criteria.single_weights import score_weights
from autoprune.plan.criteria import BLOCK_CRITERIA, WEIGHT_CRITERIA
from autoprune.plan.maskable import maskable
from autoprune.surgery.cut import cut
from tests.conformance.scoring import (
    dense_signals,
    every_model,
    gathered_again,
    orders_of,
    permute,
    permuted_signals,
    signals_on,
)
from tests.zoo.registry import random_kept, specimen

WITH_BLOCKS = ("resnet", "bottleneck_resnet", "resnext", "mobilenet")
with_blocks = pytest.mark.parametrize("name", WITH_BLOCKS)


def every_score(name: str) -> Iterator[tuple[str, str]]:
    """Every criterion with every weight that can be masked."""
    weights = maskable(specimen(name).topology)
    assert weights
    return itertools.product(WEIGHT_CRITERIA, weights)


@every_model
def test_weights_finite_not_negative_and_one_for_each_entry(name: str) -> None:
    signals = dense_signals(name)
    for criterion, weight in every_score(name):
        found = score_weights(criterion, weight, signals)
        assert found.shape == signals.weights[weight].shape, criterion
        assert found.dtype == torch.float32, criterion
        assert torch.isfinite(found).all(), criterion
        assert (found >= 0).all(), criterion
        assert len(set(found.flatten().tolist())) > 1, f"{criterion}: scores that are all equal choose nothing"


@every_model
def test_weights_the_same_twice(name: str) -> None:
    signals, again = dense_signals(name), gathered_again(name)
    for criterion, weight in every_score(name):
        first = score_weights(criterion, weight, signals)
        assert torch.equal(first, score_weights(criterion, weight, signals)), f"{criterion}, of the same signals"
        assert torch.equal(first, score_weights(criterion, weight, again)), f"{criterion}, of signals gathered again"


@every_model
def test_scores_move_with_their_weights(name: str) -> None:
    topology = specimen(name).topology
    weights = maskable(topology)
    for criterion in WEIGHT_CRITERIA:
        if criterion == "random":
            continue
        before: dict[str, Tensor] = {
            weight: score_weights(criterion, weight, dense_signals(name)).clone() for weight in weights
        }
        permute(before, topology, orders_of(topology))
        for weight in weights:
            after = score_weights(criterion, weight, permuted_signals(name))
            torch.testing.assert_close(
                after, before[weight], rtol=1e-4, atol=1e-9, msg=lambda text, of=criterion: f"{of}: {text}"
            )


@every_model
def test_weights_of_a_cut_model(name: str) -> None:
    case = specimen(name)
    kept = random_kept(case.topology, 1)
    signals = signals_on(cut(case.model, case.topology, kept), name, kept, WEIGHT_CRITERIA.signals_for(WEIGHT_CRITERIA))
    for criterion in WEIGHT_CRITERIA:
        for weight in maskable(specimen(name).topology):
            found = score_weights(criterion, weight, signals)
            assert found.shape == signals.weights[weight].shape
            assert torch.isfinite(found).all()
            assert (found >= 0).all()


@with_blocks
def test_blocks_finite_not_negative_one_for_each_and_the_same_twice(name: str) -> None:
    topology, signals = specimen(name).topology, dense_signals(name)
    for criterion in BLOCK_CRITERIA:
        found = score_blocks(criterion, topology, signals)
        assert list(found) == [block.name for block in topology.blocks], criterion
        assert all(0 <= value < float("inf") for value in found.values()), criterion
        assert len(set(found.values())) == len(found), f"{criterion}: scores that are equal choose nothing"
        assert score_blocks(criterion, topology, signals) == found, f"{criterion}, of the same signals"
        again = score_blocks(criterion, topology, gathered_again(name))
        assert again == found, f"{criterion}, of signals that were gathered again"


@with_blocks
def test_the_order_of_channels_is_no_matter_to_a_block(name: str) -> None:
    topology = specimen(name).topology
    for criterion in BLOCK_CRITERIA:
        before = score_blocks(criterion, topology, dense_signals(name))
        after = score_blocks(criterion, topology, permuted_signals(name))
        assert after == pytest.approx(before, rel=1e-4, abs=1e-9), criterion


@with_blocks
def test_blocks_of_a_cut_model(name: str) -> None:
    case = specimen(name)
    kept = random_kept(case.topology, 1)
    signals = signals_on(cut(case.model, case.topology, kept), name, kept, BLOCK_CRITERIA.signals_for(BLOCK_CRITERIA))
    for criterion in BLOCK_CRITERIA:
        found = score_blocks(criterion, case.topology, signals)
        assert list(found) == [block.name for block in case.topology.blocks]
        assert all(0 <= value < float("inf") for value in found.values())


def test_the_docstring_says_what_it_is() -> None:
    for criterion in (*WEIGHT_CRITERIA.values(), *BLOCK_CRITERIA.values()):
        text = criterion.load().__doc__ or ""
        assert "Returns:" in text, criterion
        assert "20" in text or "1989" in text, f"{criterion}: the year of the paper"
