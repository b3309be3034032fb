"""Parts of a model that change nothing: found at once, and those that speak with other weights proved at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from autoprune.plan.kept import KeptChannels
from autoprune.proof.block_proof import block_faults
from autoprune.proof.comparison import EquivalenceCheck
from autoprune.proof.discover import discover_structure
from autoprune.proof.influence import merge_cuts
from autoprune.structure.reasons import NO_EFFECT
from autoprune.structure.topology import Topology

WIDTH = 8


class Idle(nn.Module):
    """Equal layers, beside others that are multiplied by zero."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(5, WIDTH)
        self.layers = nn.Sequential(*(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()) for _ in range(6)))
        self.idle = nn.Sequential(*(nn.Linear(WIDTH, size) for size in (9, 10, 11, 12, 13, WIDTH)))
        for first, second in zip(self.idle[:-1], self.idle[1:], strict=True):
            assert isinstance(first, nn.Linear)
            assert isinstance(second, nn.Linear)
            second.weight = nn.Parameter(torch.randn(second.out_features, first.out_features))
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        out: Tensor = self.head(self.layers(x) + 0.0 * self.idle(x))
        return out


def surveyed() -> tuple[nn.Module, Tensor, Topology]:
    torch.manual_seed(0)
    model, inputs = Idle().eval(), torch.randn(3, 5)
    return model, inputs, discover_structure(model, inputs)


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[KeptChannels]:
    """What each call of a method of Evidence that cuts a model keeps."""
    seen: list[KeptChannels] = []
    method = getattr(EquivalenceCheck, name)

    def noted(self: EquivalenceCheck, topology: Topology, chosen: KeptChannels) -> object:
        seen.append(chosen)
        return method(self, topology, chosen)

    monkeypatch.setattr(EquivalenceCheck, name, noted)
    return seen


def test_many_silent_groups_take_few_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = counted(monkeypatch, "_effect")
    _, _, topology = surveyed()
    idle = {entry.module for entry in topology.unprunable if entry.why.kind == NO_EFFECT}
    assert idle == {f"idle.{number}" for number in range(5)}
    assert {"stem", "layers.0.0"} & topology.widths.keys()
    assert len(looked) == 3 * 4  # draws, and weights: those of the model and three others


def test_silent_parts_among_others_are_told_apart() -> None:
    model, inputs, topology = surveyed()
    groups = {group.name: KeptChannels(groups={group.name: (0,)}) for group in topology.groups}
    bench = EquivalenceCheck.of(model, inputs)
    cuts: dict[tuple[str, str], Sequence[KeptChannels]] = {("group", name): [kept] for name, kept in groups.items()}
    assert bench._silent(topology, cuts) == []
    nothing = KeptChannels(groups={})
    cuts = {("block", "a"): [nothing], **cuts, ("block", "b"): [nothing, nothing]}
    assert bench._silent(topology, cuts) == [("block", "a"), ("block", "b")]


def test_cuts_of_all_parts_at_once() -> None:
    a = [KeptChannels(groups={"a": (number,)}) for number in range(3)]
    b = [KeptChannels(groups={}, dropped=("b",))]
    assert merge_cuts([a, b]) == [KeptChannels(groups={"a": (number,)}, dropped=("b",)) for number in range(3)]
    assert merge_cuts([]) == []


def test_blocks_are_looked_at_together_and_halved_where_one_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs, topology = surveyed()
    layers = [block for block in topology.blocks if not block.exact]
    assert len(layers) == 6
    compared = counted(monkeypatch, "difference")
    bench = EquivalenceCheck.of(model, inputs)
    assert block_faults(topology, layers, bench) == {}
    assert len(compared) == 1
    bench.forget()
    wrong = replace(layers[3], exact=True)  # a mask makes it zero where a cut hands on its input
    blocks = [wrong if block == layers[3] else block for block in layers]
    assert list(block_faults(replace(topology, blocks=tuple(blocks)), blocks, bench)) == [wrong.name]
