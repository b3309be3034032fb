"""Heads of queries that share a head of keys and values, in one projection with them or not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.proof.discover import discover_structure
from tests.unit.surgery.helpers import assert_cut_is_mask, stirred
from tests.zoo.transformers_hub import HUB

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
HEADS, WIDTH = 4, 3


class Shared(nn.Module):
    """One projection holds the queries, and behind them the one head of keys and of values that they share."""

    def __init__(self, attend: Attend) -> None:
        super().__init__()
        self.attend, self.heads, self.width = attend, HEADS, WIDTH
        self.fused, self.out = nn.Linear(20, (HEADS + 2) * WIDTH), nn.Linear(HEADS * WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        fused = self.fused(x).view(len(x), -1, self.heads + 2, self.width).transpose(1, 2)
        mixed = self.attend(fused[:, :-2], fused[:, [-2]], fused[:, [-1]])
        return self.out(mixed.transpose(1, 2).reshape(len(x), -1, self.heads * self.width))


def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, key.expand_as(query), value.expand_as(query), scale=0.5)


def by_hand(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (query @ key.mT / 2).softmax(-1) @ value


def in_batches(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    query, key, value = (side.expand(len(side), *query.shape[1:]).flatten(0, 1) for side in (query, key, value))
    return (torch.bmm(query, key.mT) / 2).softmax(-1).bmm(value).view(2, -1, *query.shape[1:])


@pytest.mark.parametrize("attend", [fused, by_hand, in_batches])
def test_heads_of_queries_go_without_the_keys_that_they_share(attend: Attend) -> None:
    model, inputs = stirred(Shared(attend)), torch.randn(2, 5, 20)
    topology = discover_structure(model, inputs)
    assert {group.kind: group.channels for group in topology.groups} == {"heads": HEADS, "head_width": WIDTH}
    assert_cut_is_mask(model, topology, inputs)


@pytest.mark.parametrize(("name", "heads"), [("falcon_multi_query", 4), ("falcon_grouped", 2)])
def test_heads_of_falcon(name: str, heads: int) -> None:
    build, inputs = HUB[name]
    found = {group.kind: group.channels for group in discover_structure(build(), inputs()).groups}
    assert found["heads"] == heads
