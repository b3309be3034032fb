"""A topology that was stored cuts and rebuilds as the one that was proved."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from autoprune.codec import to_plain
from autoprune.errors import StorageError
from autoprune.plan.kept import KeptChannels
from autoprune.proof.discover import discover_structure
from autoprune.structure.stored import Positions, Structure
from autoprune.structure.topology import Topology
from autoprune.surgery.cut import cut, rebuild
from tests.unit.surgery.attentions import MIXES, Attention, Model
from tests.unit.surgery.test_blocks import SharedBias
from tests.zoo.registry import ZOO, random_kept, specimen


def read_back(topology: Topology) -> Topology:
    text = json.dumps(to_plain(topology.describe()))
    return Topology.of(Structure.from_json(text, "here"), "here")


@torch.no_grad()
def assert_rebuilt(model: nn.Module, topology: Topology, kept: KeptChannels, inputs: Tensor) -> None:
    """Cut by one, rebuilt by the other from a definition of other weights: the same to the last bit."""
    again = read_back(topology)
    assert again.fingerprint() == topology.fingerprint()
    assert again.cost(kept.widths, kept.dropped) == topology.cost(kept.widths, kept.dropped)
    assert again.describe() == topology.describe()
    measured = cut(model, topology, kept)
    other = cut(model, topology, KeptChannels(groups={}))  # a whole copy
    for parameter in other.parameters():
        parameter.zero_()
    rebuilt = rebuild(other, again, kept, measured.state_dict())
    assert repr(rebuilt) == repr(measured)
    assert [type(module) for module in rebuilt.modules()] == [type(module) for module in measured.modules()]
    assert torch.equal(rebuilt(inputs), measured(inputs))
    for name, tensor in cut(model, again, kept).state_dict().items():
        assert torch.equal(tensor, measured.state_dict()[name]), name


@pytest.mark.parametrize("name", ZOO)
def test_a_stored_topology_rebuilds_any_kept_set(name: str) -> None:
    case = specimen(name)
    for seed in range(3):
        assert_rebuilt(case.model, case.topology, random_kept(case.topology, seed), case.inputs)


class Reader(nn.Module):
    """Two attentions, one of which stays whole; a block that may go; a table that is not stored."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.out = nn.Linear(8, 12), nn.Linear(12, 4)
        self.whole, self.fewer = (nn.MultiheadAttention(12, 3, batch_first=True) for _ in range(2))
        self.block, self.hidden = Residual(), nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 12))
        self.register_buffer("table", torch.linspace(0.5, 1.5, 20), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x)
        x = self.whole(x, x, x, need_weights=False)[0]
        x = self.block(self.fewer(x, x, x, need_weights=False)[0])
        return self.out(self.hidden[2](self.hidden[:2](x) * self.table).mean(1))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.f(x))


@functools.cache
def reader() -> tuple[nn.Module, Topology, Tensor]:
    torch.manual_seed(0)
    model, inputs = Reader().eval(), torch.randn(3, 5, 8)
    return model, discover_structure(model, inputs), inputs


def test_attentions_blocks_and_buffers_come_back() -> None:
    model, topology, inputs = reader()
    heads = next(group.name for group in topology.groups if group.kind == "heads" and "fewer" in group.name)
    assert [block.name for block in topology.blocks if block.exact] == ["block"]
    assert "hidden.0" in topology.widths
    for groups in ({heads: (0, 2)}, {"hidden.0": (1, 3, 4)}, {heads: (1,), "hidden.0": tuple(range(1, 20, 2))}, {}):
        for dropped in ((), ("block",), ("whole",), ("block", "fewer")):
            assert_rebuilt(model, topology, KeptChannels(groups=groups, dropped=dropped), inputs)


@pytest.mark.parametrize("layout", ["separate", "thirds"])
def test_numbers_and_scales_come_back(layout: str) -> None:
    torch.manual_seed(0)
    model, inputs = Model(Attention(layout, MIXES["shape"])).eval(), torch.randn(2, 5, 10)
    topology = discover_structure(model, inputs)
    assert any(group.rescaled for group in topology.groups)
    assert any(group.attributes for group in topology.groups)
    assert_rebuilt(model, topology, random_kept(topology, 1), inputs)


SPREAD: dict[str, Callable[[], Tensor]] = {
    "plain": lambda: torch.arange(7)[:, None],
    "flattened": lambda: torch.arange(12).view(3, 4),
    "head width": lambda: torch.arange(12).view(3, 4).T,
    "backwards": lambda: torch.arange(7).flip(0)[:, None],
    "fused": lambda: torch.arange(24).view(3, 4, 2).permute(1, 0, 2).flatten(1),
    "shuffled": lambda: torch.tensor([[3], [0], [2], [1]]),
    "one": lambda: torch.tensor([[5]]),
}


@pytest.mark.parametrize("index", SPREAD.values(), ids=SPREAD)
def test_positions_come_back(index: Callable[[], Tensor]) -> None:
    positions = Positions.of(index().numpy())
    assert torch.equal(torch.from_numpy(positions.index()), index())
    assert positions.fits(int(index().max()) + 1) == (index().numel() <= int(index().max()) + 1)
    assert not positions.fits(int(index().max()))


def test_what_blocks_hand_on_comes_back() -> None:
    topology = discover_structure(SharedBias(), torch.randn(2, 5, 10))
    assert any(gap.passes for block in topology.blocks for gap in block.gaps)
    assert [block.gaps for block in read_back(topology).blocks] == [block.gaps for block in topology.blocks]


def test_blocks_of_version_1_hand_on_their_input() -> None:
    """Before branches and layers a block was one module, and said which argument it handed on."""
    model, topology, inputs = reader()
    data = to_plain(topology.describe())
    assert isinstance(data, dict)
    old = {"name": "block", "source": 0, "position": None, "outputs": 1, "tensors": ["block.f.weight", "block.f.bias"]}
    text = json.dumps({**data, "version": 1, "blocks": [old]})
    again = Topology.of(Structure.from_json(text, "here"), "here")
    kept = KeptChannels(groups={"hidden.0": (1, 3, 4)}, dropped=("block",))
    assert torch.equal(cut(model, again, kept)(inputs), cut(model, topology, kept)(inputs))
    assert again.blocks[0].exact and not again.blocks[0].is_branch


def test_numbers_of_modules_of_version_2_count_runs() -> None:
    """Before version 3 the spans of a number were called runs."""
    _, topology, _ = reader()
    text = json.dumps(to_plain(topology.describe()))
    assert '"spans": [{"positions"' in text
    old = text.replace('"version": 4', '"version": 2').replace('"spans": [{"positions"', '"runs": [{"positions"')
    again = Topology.of(Structure.from_json(old, "here"), "here")
    assert [group.attributes for group in again.groups] == [group.attributes for group in topology.groups]


def test_a_structure_of_version_3_has_no_costs() -> None:
    _, topology, _ = reader()
    data = json.loads(topology.describe().to_json())
    old = {name: value for name, value in data.items() if name in ("tensors", "groups", "blocks")}
    again = Structure.from_json(json.dumps({**old, "version": 3}))
    assert Topology.of(again).widths == topology.widths
    assert not again.products


def test_a_product_of_no_tensor_is_refused() -> None:
    _, topology, _ = reader()
    data = json.loads(topology.describe().to_json())
    data["products"][0]["weight"] = "elsewhere"
    with pytest.raises(StorageError, match="elsewhere, which is no tensor"):
        Topology.of(Structure.from_json(json.dumps(data)))
