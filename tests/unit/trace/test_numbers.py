"""Whole numbers of modules: found inside of what they hold, and changed for one module only."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from autoprune.proof.discover import discover_structure
from autoprune.structure.groups import Member
from autoprune.trace.numbers import nearby_modules, numbers_in, put_number
from autoprune.trace.trace import trace
from tests.zoo.numbers import (
    FactorisedAttention,
    Layers,
    ScaledAttention,
    SeparableAttention,
    SplitBiasAttention,
    StateSpace,
    WindowsByHead,
)

Sizes = namedtuple("Sizes", "heads width")


@dataclass(frozen=True, slots=True)
class Frozen:
    heads: int
    name: str = "x"


class Keeper(nn.Module):
    def __init__(self, shared: object = None) -> None:
        super().__init__()
        self.num_heads, self.ratio, self.flag = 4, 0.5, True
        self.shape, self.sizes = (16, 1, 1), [3, (8, 2)]
        self.named = Sizes(4, 8)
        self.table = OrderedDict({"a.b": 12, 2: 7, "deep": {"x": 5, "deeper": [9]}})
        self.config = SimpleNamespace(heads=4, pad_token_id=3, num_hidden_layers=6, text=SimpleNamespace(width=20))
        self.frozen, self.shared = Frozen(6), shared
        self.layer = nn.Linear(2, 2)


def test_numbers_have_the_name_of_the_place_where_they_lie() -> None:
    assert numbers_in(Keeper()) == {
        "num_heads": 4,
        "shape[0]": 16,
        "shape[1]": 1,
        "shape[2]": 1,
        "sizes[0]": 3,
        "sizes[1][0]": 8,
        "sizes[1][1]": 2,
        "named[0]": 4,
        "named[1]": 8,
        'table["a.b"]': 12,
        "table[2]": 7,
        'table["deep"]["x"]': 5,
        "config.heads": 4,
        "config.text.width": 20,
        "frozen.heads": 6,
    }


@pytest.mark.parametrize("name", numbers_in(Keeper()))
def test_each_can_be_set_and_nothing_else_changes(name: str) -> None:
    keeper = Keeper()
    before = numbers_in(keeper)
    put_number(keeper, name, 99)
    assert numbers_in(keeper) == before | {name: 99}
    assert type(keeper.named) is Sizes
    assert type(keeper.table) is OrderedDict


def test_what_several_modules_hold_is_copied_for_the_one_that_changes() -> None:
    config = SimpleNamespace(heads=4, inner=SimpleNamespace(width=8), other=[1, 2])
    first, second = Keeper(config), Keeper(config)
    put_number(first, "shared.inner.width", 6)
    put_number(first, "shared.heads", 2)
    assert (first.shared.heads, first.shared.inner.width) == (2, 6)  # type: ignore[attr-defined]
    assert second.shared is config
    assert (config.heads, config.inner.width) == (4, 8)
    assert first.shared.other is config.other  # type: ignore[attr-defined]


def test_a_tuple_of_one_number_goes_by_its_own_name_in_older_topologies() -> None:
    norm = nn.LayerNorm(8)
    put_number(norm, "normalized_shape", 5)
    assert norm.normalized_shape == (5,)


@pytest.mark.parametrize("name", ["config.no", "sizes[9]", 'table["no"]', "num_heads.x", "nothing[0]"])
def test_a_number_that_is_not_there_is_not_made(name: str) -> None:
    with pytest.raises((LookupError, AttributeError, TypeError)):
        put_number(Keeper(), name, 3)


def test_modules_around_and_inside_are_near_but_no_lists_and_none_of_torch() -> None:
    model = nn.Module()
    model.blocks = nn.ModuleList([Keeper(), Keeper()])
    model.blocks[0].inner = Keeper()
    modules = dict(model.named_modules())
    assert nearby_modules(modules, "blocks.0") == ("blocks.0.inner",)  # the model itself is torch's own class here
    assert nearby_modules(modules, "blocks.0.inner") == ("blocks.0",)
    assert nearby_modules(dict(Keeper().named_modules()), "") == ()


def members_of(model: nn.Module, tensor: str) -> list[Member]:
    topology = trace(model.eval(), torch.randn(2, 6, 5))
    return [member for group in topology.groups for member in group.members if member.tensor == tensor]


def test_a_bias_that_is_added_in_a_step_of_its_own_is_a_bias() -> None:
    """As for a Linear whose input is transposed."""
    model = Layers(ScaledAttention(16, 2, fixed=False), transposed=True)
    (found,) = {(m.role, m.beside) for m in members_of(model, "layers.0.qkv.bias")}
    assert found == ("shift", ("layers.0.qkv.weight", 0))


def test_biases_that_are_joined_know_which_channels_they_are_added_to() -> None:
    model = Layers(SplitBiasAttention(16, 2))
    places = {
        name: {(m.role, m.beside) for m in members_of(model, f"layers.0.{name}")} for name in ("q_bias", "v_bias")
    }
    assert places == {
        "q_bias": {("shift", ("layers.0.qkv.weight", 0))},
        "v_bias": {("shift", ("layers.0.qkv.weight", 32))},
    }


def test_a_module_that_several_hold_goes_by_its_first_name() -> None:
    model = nn.Module()
    model.first, model.second = nn.Module(), Keeper()
    model.first.shared = model.second.shared = Keeper()
    assert nearby_modules(dict(model.named_modules()), "second") == ("first.shared",)


class Reader(nn.Module):
    """Reads some of the numbers that it holds, one in a method, one in a function, one by its name in a text."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused, self.called, self.given, self.texts = (2, 3), (4, 5), [6], [7], {"a": 8}
        self.plain = 9

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return outside(self, x.reshape(self.used)) + self.inside(x) + len(getattr(self, "texts"))  # noqa: B009

    def inside(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.called[0]


def outside(module: Reader, x: torch.Tensor) -> torch.Tensor:
    return x * module.given[0]


class ReaderOfMore(Reader):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * self.unused[0]


def test_what_a_module_holds_counts_where_its_forward_reads_it() -> None:
    read = {"plain": 9, "used[0]": 2, "used[1]": 3, "called[0]": 6, "given[0]": 7, 'texts["a"]': 8}
    assert numbers_in(Reader()) == read
    assert numbers_in(ReaderOfMore()) == read | {"unused[0]": 4, "unused[1]": 5}


def numbers_of(model: nn.Module) -> dict[str, set[tuple[int, tuple[str, ...]]]]:
    """Names of numbers -> how many positions of which groups."""
    topology = trace(model.eval(), torch.randn(2, 6, 5))
    found = [attribute for group in topology.groups for attribute in group.attributes]
    return {a.name: {(run.positions, run.groups) for run in a.spans} for a in found}


def test_equal_numbers_of_one_list_are_the_lengths_of_parts_in_turn() -> None:
    shared = WindowsByHead(3, (2, 3, 3))
    found = numbers_of(Layers(FactorisedAttention(24, 8, shared), width=24))
    assert [len(found[f"parts[{number}]"]) for number in range(3)] == [1, 1, 1]
    assert found["parts[1]"] != found["parts[2]"]


def test_of_unequal_parts_those_of_a_number_in_the_code_stay() -> None:
    topology = trace(Layers(SeparableAttention(16)).eval(), torch.randn(2, 6, 5))
    (kept,) = [group for group in topology.unprunable if group.module == "layers.0.qkv"]
    assert kept.channels == 1
    assert topology.group("layers.0.qkv").channels == 16


def test_a_number_as_large_as_a_kernel_is_the_width_that_it_is() -> None:
    found = numbers_of(Layers(StateSpace(16)))
    assert found["states"] == {(4, ("layers.0.parts#2",))}
    assert found["rank"] == {(3, ("layers.0.parts",))}


class Windows(nn.Module):
    """Knows how large its images and windows are, as many as its channels and groups."""

    def __init__(self) -> None:
        super().__init__()
        self.img_size, self.window_size, self.groups = (16, 1), 8, 8

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert self.img_size[0] == 16
        return x.reshape(2, 6, self.groups, 2).flip(-1).reshape(2, 6, 16)


def test_what_measures_places_is_no_width() -> None:
    assert set(numbers_of(Layers(Windows()))) == {"groups"}


def test_a_number_is_the_length_of_a_part_though_a_module_inside_has_a_grid_as_wide() -> None:
    """As in SKNet: halves by the number of channels taken, and weights for two ways of as many that are made."""

    class Ways(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ways, self.select = 2, nn.Linear(16, 32)

        def forward(self, x: Tensor) -> Tensor:
            return self.select(x.sum(1)).view(x.shape[0], self.ways, x.shape[2]).softmax(1)

    class Selective(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.taken, self.made = 16, 16
            self.paths, self.ways = nn.ModuleList(nn.Linear(8, 16) for _ in range(2)), Ways()

        def forward(self, x: Tensor) -> Tensor:
            halves = x.split(self.taken // 2, 1)
            made = torch.stack([path(half).tanh() for path, half in zip(self.paths, halves, strict=True)], 1)
            return (made * self.ways(made)).sum(1)

    model = nn.Sequential(nn.Linear(10, 16), Selective(), nn.Linear(16, 3)).eval()
    assert discover_structure(model, torch.randn(4, 10)).widths == {"0": 8, "1.paths.0": 16}
