"""Products of groups of tokens, each with the weights of one expert."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from autoprune.measure.cost import count_multiply_adds
from autoprune.plan.kept import KeptChannels
from autoprune.proof.discover import discover_structure
from autoprune.surgery.cut import cut
from autoprune.surgery.mask import mask
from autoprune.trace.trace import trace
from tests.unit.trace.test_trace import reasons

Product = Callable[[Tensor, Tensor, Tensor], Tensor]


class Grouped(nn.Module):
    """Three experts, their tokens one after the other."""

    def __init__(self, product: Product, wide: int, *, turned: bool) -> None:
        super().__init__()
        self.product, self.turned = product, turned
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 5)
        self.up = nn.Parameter(torch.randn(3, 16, wide) / 4)
        self.down = nn.Parameter(torch.randn(3, *((16, wide) if turned else (wide, 16))) / 4)

    def forward(self, x: Tensor) -> Tensor:
        ends = torch.tensor([2, 3, len(x)], dtype=torch.int32)
        hidden = torch.relu(self.product(torch.tanh(self.a(x)), self.up, ends))
        return self.b(self.product(hidden, self.down.mT if self.turned else self.down, ends))


def kernel(tokens: Tensor, experts: Tensor, ends: Tensor) -> Tensor:
    return torch.nn.functional.grouped_mm(tokens, experts, offs=ends)


@pytest.mark.parametrize(("wide", "sets"), [(24, 3), (20, 5)])
@pytest.mark.parametrize("turned", [False, True])
def test_channels_around_a_grouped_product_go_in_sets_that_it_takes(wide: int, sets: int, *, turned: bool) -> None:
    model, inputs = Grouped(kernel, wide, turned=turned).eval(), torch.randn(6, 8)
    topology = discover_structure(model, inputs)
    assert topology.widths == {"a": 2, "up": sets, "down": 16 if turned else 2}
    positions = topology.group("up").members[0].index
    assert positions.tolist() == torch.arange(wide).view(sets, -1).tolist()
    for kept in ({"a": (1,)}, {"a": (0,), "up": (0, 2)}, {"up": (1,), "down": (1,)}):
        chosen = KeptChannels(groups=kept)
        smaller = cut(model, topology, chosen)
        torch.testing.assert_close(smaller(inputs), mask(model, topology, chosen)(inputs))
        assert topology.cost(chosen.widths).multiply_adds == count_multiply_adds(smaller, inputs)


def test_other_products_of_groups_are_left_alone() -> None:
    class OverTokens(Grouped):
        def forward(self, x: Tensor) -> Tensor:
            x = torch.tanh(self.a(x))
            return self.b(x @ self.product(x.mT, x, torch.tensor([3, 8], dtype=torch.int32))[0])

    topology = trace(OverTokens(kernel, 24, turned=True).eval(), torch.randn(8, 8))
    assert topology.widths == {}
    assert reasons(topology, "a").startswith("passes an operator in a use that is not understood (torch._grouped_mm in")
