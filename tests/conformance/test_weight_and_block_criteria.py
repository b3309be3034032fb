"""Every criterion for single weights and for blocks on models of the zoo: the promises that a score makes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from autoprune.criteria.blocks import score_blocks
from autoprune.criteria.single_weights import score_weights
from autoprune.plan.criteria import BLOCK_CRITERIA, WEIGHT_CRITERIA, block_signals_for, weight_signals_for
from autoprune.plan.maskable import maskable
from autoprune.surgery.cut import cut
from tests.conformance.scoring import dense_signals, gathered_again, orders_of, permute, permuted_signals, signals_on
from tests.zoo.registry import ZOO, random_kept, specimen

ON_WEIGHTS = [(criterion, name) for name in ZOO for criterion in WEIGHT_CRITERIA]
WITH_BLOCKS = ("resnet", "bottleneck_resnet", "resnext", "mobilenet")
ON_BLOCKS = [(criterion, name) for name in WITH_BLOCKS for criterion in BLOCK_CRITERIA]


@pytest.mark.parametrize(("criterion", "name"), ON_WEIGHTS)
def test_weights_finite_not_negative_and_one_for_each_entry(criterion: str, name: str) -> None:
    signals = dense_signals(name)
    assert maskable(specimen(name).topology)
    for weight in maskable(specimen(name).topology):
        found = score_weights(criterion, weight, signals)
        assert found.shape == signals.weights[weight].shape
        assert found.dtype == torch.float32
        assert torch.isfinite(found).all()
        assert (found >= 0).all()
        assert len(set(found.flatten().tolist())) > 1, "scores that are all equal choose nothing"


@pytest.mark.parametrize(("criterion", "name"), ON_WEIGHTS)
def test_weights_the_same_twice(criterion: str, name: str) -> None:
    signals, again = dense_signals(name), gathered_again(name)
    for weight in maskable(specimen(name).topology):
        first = score_weights(criterion, weight, signals)
        assert torch.equal(first, score_weights(criterion, weight, signals)), "of the same signals"
        assert torch.equal(first, score_weights(criterion, weight, again)), "of signals that were gathered again"


@pytest.mark.parametrize(("criterion", "name"), [pair for pair in ON_WEIGHTS if pair[0] != "random"])
def test_scores_move_with_their_weights(criterion: str, name: str) -> None:
    topology = specimen(name).topology
    weights = maskable(specimen(name).topology)
    before: dict[str, Tensor] = {
        weight: score_weights(criterion, weight, dense_signals(name)).clone() for weight in weights
    }
    permute(before, topology, orders_of(topology))
    for weight in weights:
        after = score_weights(criterion, weight, permuted_signals(name))
        torch.testing.assert_close(after, before[weight], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("name", ZOO)
def test_weights_of_a_cut_model(name: str) -> None:
    case = specimen(name)
    kept = random_kept(case.topology, 1)
    signals = signals_on(cut(case.model, case.topology, kept), name, kept, weight_signals_for(WEIGHT_CRITERIA))
    for criterion in WEIGHT_CRITERIA:
        for weight in maskable(specimen(name).topology):
            found = score_weights(criterion, weight, signals)
            assert found.shape == signals.weights[weight].shape
            assert torch.isfinite(found).all()
            assert (found >= 0).all()


@pytest.mark.parametrize(("criterion", "name"), ON_BLOCKS)
def test_blocks_finite_not_negative_one_for_each_and_the_same_twice(criterion: str, name: str) -> None:
    topology = specimen(name).topology
    found = score_blocks(criterion, topology, dense_signals(name))
    assert list(found) == [block.name for block in topology.blocks]
    assert all(0 <= value < float("inf") for value in found.values())
    assert len(set(found.values())) == len(found), "scores that are equal choose nothing"
    assert score_blocks(criterion, topology, dense_signals(name)) == found, "of the same signals"
    assert score_blocks(criterion, topology, gathered_again(name)) == found, "of signals that were gathered again"


@pytest.mark.parametrize(("criterion", "name"), ON_BLOCKS)
def test_the_order_of_channels_is_no_matter_to_a_block(criterion: str, name: str) -> None:
    topology = specimen(name).topology
    before = score_blocks(criterion, topology, dense_signals(name))
    assert score_blocks(criterion, topology, permuted_signals(name)) == pytest.approx(before, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("name", WITH_BLOCKS)
def test_blocks_of_a_cut_model(name: str) -> None:
    case = specimen(name)
    kept = random_kept(case.topology, 1)
    signals = signals_on(cut(case.model, case.topology, kept), name, kept, block_signals_for(BLOCK_CRITERIA))
    for criterion in BLOCK_CRITERIA:
        found = score_blocks(criterion, case.topology, signals)
        assert list(found) == [block.name for block in case.topology.blocks]
        assert all(0 <= value < float("inf") for value in found.values())


@pytest.mark.parametrize("criterion", [*WEIGHT_CRITERIA.values(), *BLOCK_CRITERIA.values()])
def test_the_docstring_says_what_it_is(criterion: object) -> None:
    text = criterion.load().__doc__ or ""  # type: ignore[attr-defined]
    assert "Returns:" in text
    assert "20" in text or "1989" in text, "the year of the paper"
