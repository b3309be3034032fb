"""A proof reads large weights in part: silenced where it reads them, and a sample where they make many outputs."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.plan.kept import KeptChannels
from autoprune.proof import forwards, partial_reads
from autoprune.proof.comparison import EquivalenceCheck
from autoprune.proof.discover import discover_structure, prove
from autoprune.proof.distance import distance
from autoprune.proof.forwards import Forwards
from autoprune.proof.partial_reads import product, sampled_outputs
from autoprune.surgery.mask import mask
from autoprune.trace.trace import trace


@pytest.fixture(autouse=True)
def _every_matrix_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (partial_reads, forwards):
        monkeypatch.setattr(module, "LARGE", 8)


class Tongue(nn.Module):
    """Words in, a score for each word out, from the same table; every way to read a weight."""

    def __init__(self, words: int = 200) -> None:
        super().__init__()
        self.table, self.norm = nn.Embedding(words, 6), nn.LayerNorm(6)
        self.up, self.down = nn.Linear(6, 10), nn.Linear(10, 6, bias=False)
        self.mix = nn.Parameter(torch.randn(6, 6) / 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.norm(self.table(ids))
        x = x + self.down(torch.relu(self.up(x))) + torch.einsum("btc,cd->btd", x, self.mix.abs())
        return nn.functional.linear(x, self.table.weight)


def _tongue(words: int = 200) -> tuple[Tongue, Tensor]:
    torch.manual_seed(0)
    return Tongue(words).eval(), torch.randint(words, (2, 5))


@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize(
    ("inner", "outer"), [(None, None), ([1, 4], None), (None, [0, 2, 6]), ([0], [5]), ([], [1]), ([2], [])]
)
def test_a_product_in_parts_is_that_with_zeros(
    contiguous: bool, inner: list[int] | None, outer: list[int] | None
) -> None:
    values, weight = torch.randn(3, 5), torch.randn(5, 7) if contiguous else torch.randn(7, 5).t()
    zeros = weight.clone()
    for axis, some in ((0, inner), (1, outer)):
        if some is not None:
            zeros.index_fill_(axis, torch.tensor([p for p in range(weight.shape[axis]) if p not in some]).long(), 0)
    positions = [None if some is None else torch.tensor(some, dtype=torch.int64) for some in (inner, outer)]
    torch.testing.assert_close(product(values, weight, lambda part: part, *positions), values @ zeros)


def test_a_mask_whose_weights_are_read_in_part_gives_the_outputs_of_one_that_copies_them() -> None:
    model, ids = _tongue()
    topology, check = trace(model, ids), EquivalenceCheck.of(model, ids)
    assert {group.name for group in topology.groups} >= {"table", "up"}
    kept = KeptChannels(groups={"table": (0, 3, 4), "up": (1, 5, 6, 9)})
    masked, staying = check._mask(topology, kept)
    assert {"table.weight", "up.weight", "down.weight", "mix"} <= staying.keys()
    assert all(weight.data_ptr() == dict(model.named_parameters())[name].data_ptr() for name, weight in _left(masked))
    outputs = check.forwards.outputs(masked, check.inputs, staying)
    expected = check.forwards.outputs(mask(check.model, topology, kept), check.inputs)
    assert distance(outputs, expected) < 1e-12
    assert distance(check._cut_outputs(topology, kept), expected) < 1e-12


def _left(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, weight) for name, weight in model.named_parameters() if weight.ndim > 1]


def test_outputs_over_many_words_are_sampled_and_those_of_the_cut_alike() -> None:
    model, ids = _tongue()
    topology = trace(model, ids)
    sample = sampled_outputs(topology)["table.weight"]
    assert (sample.axis, len(sample.positions), sample.of) == (0, 12, 200)
    check = EquivalenceCheck.of(model, ids, topology=topology)
    whole = EquivalenceCheck.of(model, ids)
    rest = torch.ones(200, dtype=torch.bool).index_fill_(0, sample.positions, False)
    assert not check.dense[0][..., rest].any()
    torch.testing.assert_close(check.dense[0][..., ~rest], whole.dense[0][..., ~rest])
    kept = KeptChannels(groups={"table": (2,)})  # a table of one column, which is small
    assert check.difference(topology, kept) is None


def test_a_sample_of_outputs_finds_every_shifted_index_map() -> None:
    model, ids = _tongue()
    topology = trace(model, ids)
    for group in topology.groups:
        large = [number for number, member in enumerate(group.members) if member.role == "in" or not number]
        for number in large:
            members = list(group.members)
            members[number] = replace(members[number], index=np.roll(members[number].index, 1, 0))
            wrong = replace(
                topology,
                groups=tuple(replace(g, members=tuple(members)) if g is group else g for g in topology.groups),
            )
            assert group.name not in prove(model, wrong, ids).widths, members[number].tensor


def test_outputs_are_not_sampled_where_zeros_among_them_give_no_numbers() -> None:
    class Shares(Tongue):
        def forward(self, ids: Tensor) -> Tensor:
            scores = super().forward(ids) ** 2
            return scores / scores.flatten(0, 1).sum(0)

    torch.manual_seed(0)
    model, ids = Shares().eval(), torch.randint(200, (2, 5))
    topology = trace(model, ids)
    assert sampled_outputs(topology)
    assert not EquivalenceCheck.of(model, ids, topology=topology).forwards.samples
    assert "table" in discover_structure(model, ids).widths


def test_few_outputs_and_outputs_of_a_group_are_not_sampled() -> None:
    assert not sampled_outputs(trace(*_tongue(words=24)))
    model = nn.Sequential(nn.Linear(4, 100), nn.ReLU(), nn.Linear(100, 3)).eval()
    assert not sampled_outputs(trace(model, torch.randn(2, 4)))


def test_a_weight_that_an_operator_reads_otherwise_is_silenced_there() -> None:
    model = nn.Linear(4, 6, bias=False).eval()
    stays = {"weight": {0: torch.tensor([1, 3]), 1: torch.tensor([0])}}
    with torch.no_grad(), Forwards(math.inf, promotes=True).of(model, stays):
        found = [model.weight.t() * 1.0, model.weight[1:3].abs(), torch.stack([model.weight])]
    zeros = torch.zeros(6, 4, dtype=torch.float64)
    zeros[[1, 3], 0] = model.weight[[1, 3], 0].detach().double()
    for tensor, expected in zip(found, (zeros.t(), zeros[1:3].abs(), zeros[None]), strict=True):
        torch.testing.assert_close(tensor, expected)


def test_a_weight_is_sliced_once_for_cuts_that_keep_the_same_of_it() -> None:
    model, ids = _tongue()
    topology, check = trace(model, ids), EquivalenceCheck.of(model, ids)

    def slices(*kept: KeptChannels) -> list[dict[str, int]]:
        cuts = [check._cut(topology, one) for one in kept]
        return [{name: weight.data_ptr() for name, weight in one.named_parameters()} for one in cuts]

    first, again, other = slices(
        KeptChannels(groups={"table": (0, 3, 4), "up": (1, 5)}),
        KeptChannels(groups={"table": (0, 3, 4), "up": (1, 6)}),
        KeptChannels(groups={"table": (0, 3, 5), "up": (1, 6)}),
    )
    assert first["table.weight"] == again["table.weight"] != other["table.weight"]
    assert first["up.weight"] != again["up.weight"]
    assert first["norm.weight"] != again["norm.weight"], "small ones may be written to"
    kept = KeptChannels(groups={"table": (0, 3, 5), "up": (1, 6)})
    expected = check.forwards.outputs(mask(check.model, topology, kept), check.inputs)
    assert distance(check._cut_outputs(topology, kept), expected) < 1e-12
