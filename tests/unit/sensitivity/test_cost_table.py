"""The table of costs: stored and read again, with groups tied, and its parts."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import StorageError
from autoprune.records.cost_table import CostTable
from autoprune.search.allocation.cost_model import CostModel, CostPolynomial
from autoprune.structure.cost import STRUCTURE_COSTS
from autoprune.structure.topology import Topology
from autoprune.trace.trace import trace
from tests.zoo.attention import LanguageModel, SDPAttention
from tests.zoo.convolutional import ResNet, mobilenet

#: Name -> model and its inputs.
MODELS: Mapping[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "resnet": lambda: (ResNet(widths=(8, 12, 16), depth=2), torch.randn(2, 1, 8, 8)),
    "mobilenet": lambda: (mobilenet(), torch.randn(2, 1, 8, 8)),
    "attention": lambda: (LanguageModel(SDPAttention), torch.arange(10).view(2, 5)),
}


@functools.cache
def topology_of(name: str) -> Topology:
    model, inputs = MODELS[name]()
    return trace(model.eval(), inputs)


def random_widths(table: CostTable, random: np.random.Generator) -> np.ndarray:
    return np.array([random.integers(1, channels + 1) for channels in table.channels], dtype=np.float64)


@pytest.mark.parametrize("axis", STRUCTURE_COSTS)
@pytest.mark.parametrize("name", ["resnet", "mobilenet"])
def test_a_stored_table_gives_the_costs_of_the_topology(name: str, axis: str) -> None:
    topology = topology_of(name)
    table = CostTable.from_dict(json.loads(json.dumps(CostTable.of(topology).to_dict())))
    assert table == CostTable.of(topology)
    model, random = CostModel.of_table(table, axis), np.random.default_rng(0)
    for _ in range(5):
        widths = random_widths(table, random)
        named = {name: int(width) for name, width in zip(table.names, widths, strict=True)}
        assert model.cost(widths) == getattr(topology.cost(named), axis)
    assert model.dense == getattr(topology.cost({}), axis)


@pytest.mark.parametrize("data", [None, [], {}, {"names": 3}, {"names": ["a"], "channels": [1], "lengths": [{}]}])
def test_something_else_is_no_table(data: object) -> None:
    with pytest.raises(StorageError, match="a table of costs must hold a consistent table"):
        CostTable.from_dict(data)


def test_tied_groups_cost_what_equal_widths_do() -> None:
    table = CostTable.of(topology_of("resnet"))
    first = {channels: table.channels.index(channels) for channels in table.channels}
    leaders = [first[channels] for channels in table.channels]
    tied = table.tied(leaders)
    assert len(tied.names) == 3
    assert tied.channels == (8, 12, 16)
    for axis in STRUCTURE_COSTS:
        alone, together = CostModel.of_table(table, axis), CostModel.of_table(tied, axis)
        for widths in ([3.0, 5.0, 9.0], [8.0, 12.0, 1.0]):
            spread = np.array([widths[tied.channels.index(channels)] for channels in table.channels])
            assert together.cost(np.array(widths)) == alone.cost(spread)


def test_tied_heads_and_their_width_share_an_axis() -> None:
    """An axis that is a grid of two groups, with each of them tied to those of another layer."""
    topology = topology_of("attention")
    table = CostTable.of(topology)
    keys = [(group.kind, group.channels) for group in topology.groups]
    leaders = [keys.index(key) for key in keys]
    assert len(set(leaders)) < len(leaders), "nothing tied would prove nothing"
    assert any(length.grids for length in table.lengths), "no grid would prove nothing"
    tied = table.tied(leaders)
    random = np.random.default_rng(0)
    together, alone = CostModel.of_table(tied, "multiply_adds"), CostModel.of_table(table, "multiply_adds")
    for _ in range(5):
        widths = random_widths(tied, random)
        spread = np.array([widths[sorted(set(leaders)).index(leader)] for leader in leaders])
        assert together.cost(widths) == pytest.approx(alone.cost(spread), rel=1e-12)


def test_a_tie_needs_what_its_neediest_group_does() -> None:
    table = CostTable.of(topology_of("resnet"))
    needy = CostTable(**{**{n: getattr(table, n) for n in table.__slots__}, "least": (1, 5, *table.least[2:])})
    assert needy.tied([0, 0, *range(2, len(table.names))]).least[0] == 5


def test_many_widths_at_once() -> None:
    model, random = CostModel(topology_of("resnet"), "parameters"), np.random.default_rng(1)
    rows = np.array([random_widths(CostTable.of(topology_of("resnet")), random) for _ in range(7)])
    assert model.shares(rows).tolist() == [model.share(row) for row in rows]


@pytest.mark.parametrize("name", MODELS)
def test_a_part_changes_as_the_whole_does(name: str) -> None:
    topology = topology_of(name)
    model, table, random = CostModel(topology, "multiply_adds"), CostTable.of(topology), np.random.default_rng(2)
    for group in range(len(table.names)):
        part, widths = model.part([group]), random_widths(table, random)
        other = widths.copy()
        other[group] = 1 if widths[group] > 1 else 2
        assert float(part.cost(other) - part.cost(widths)) == pytest.approx(model.cost(other) - model.cost(widths))


def test_neighbours_are_those_whose_part_changes() -> None:
    model, table, random = (
        CostModel(topology_of("resnet"), "multiply_adds"),
        CostTable.of(topology_of("resnet")),
        np.random.default_rng(3),
    )

    def saved(group: int, widths: np.ndarray) -> float:
        smaller = np.where(np.arange(len(widths)) == group, 1.0, widths)
        return model.cost(widths) - model.cost(smaller)

    widths = np.maximum(random_widths(table, random), 3.0)
    for group in range(len(table.names)):
        changed = np.where(np.arange(len(widths)) == group, widths - 1, widths)
        moved = [other for other in range(len(widths)) if saved(other, widths) != saved(other, changed)]
        assert set(moved) <= set(model.neighbours(group).tolist())
        assert len(moved) < len(widths)


def test_terms_that_cost_nothing_are_left_out() -> None:
    table = CostTable.of(topology_of("resnet"))
    priced = np.array([term.multiply_adds for term in table.terms])
    assert len(CostPolynomial.of(table, priced).prices) == (priced > 0).sum() < len(priced)
