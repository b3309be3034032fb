"""Branches: what is added to an earlier value can go, wherever the addition stands, with all that serves it alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import SurgeryError
from autoprune.measure.cost import count_multiply_adds, count_parameters
from autoprune.plan.kept import KeptChannels
from autoprune.proof.discover import discover_structure
from autoprune.structure.blocks import DroppableBlock
from autoprune.structure.topology import Topology
from autoprune.surgery.cut import cut
from tests.unit.surgery.helpers import assert_cut_is_mask, stirred
from tests.zoo.registry import build_any


class Parts(nn.Module):
    """Norm, two layers, scale and dropout, which the model around it calls one by one."""

    def __init__(self, width: int = 12, hidden: int = 20, out: int = 0) -> None:
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(width), nn.Sequential(nn.Linear(width, hidden), nn.GELU())
        self.down, self.drop = nn.Linear(hidden, out or width), nn.Dropout(0.1)
        self.gain = nn.Parameter(torch.ones(out or width))


class Net(nn.Module):
    """Layers in between a first and a last one; `add` says what they do with a value."""

    def __init__(self, layers: nn.ModuleList, width: int = 12) -> None:
        super().__init__()
        self.inp, self.layers, self.out = nn.Linear(10, width), layers, nn.Linear(width, 3)

    def add(self, layer: nn.Module, x: Tensor) -> Tensor:
        return x + layer(x)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x)
        for layer in self.layers:
            x = self.add(layer, x)
        return self.out(x)


def proved(model: nn.Module, inputs: Tensor) -> Topology:
    """Its topology; every block is dropped alone and all together, with and without channels, and counted."""
    topology = discover_structure(stirred(model), inputs)
    exact = [block.name for block in topology.blocks if block.exact]
    for dropped in [*((name,) for name in exact), tuple(exact)]:
        assert_cut_is_mask(model, topology, inputs, dropped=dropped, only=(), draws=1)
        assert_cut_is_mask(model, topology, inputs, dropped=dropped, draws=2)
        smaller, cost = cut(model, topology, KeptChannels(groups={}, dropped=dropped)), topology.cost({}, dropped)
        assert cost.multiply_adds == count_multiply_adds(smaller, inputs)
        assert cost.parameters == count_parameters(smaller)
    return topology


def gone(block: DroppableBlock) -> set[str]:
    return {gap.module for gap in block.gaps}


def test_the_addition_stands_in_the_parent() -> None:
    def mlp() -> nn.Module:
        return nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 12))

    topology = proved(Net(nn.ModuleList(mlp() for _ in range(3))), torch.randn(4, 10))
    assert [block.name for block in topology.blocks] == ["layers.0", "layers.1", "layers.2"]
    assert all(block.is_branch and block.repeated for block in topology.blocks)


def test_all_that_serves_a_branch_goes_with_it() -> None:
    class Called(Net):
        def add(self, layer: nn.Module, x: Tensor) -> Tensor:
            assert isinstance(layer, Parts)
            return x + layer.drop(layer.gain * layer.down(layer.mlp(layer.norm(x))))

    topology = proved(Called(nn.ModuleList([Parts(), Parts()])), torch.randn(4, 10))
    assert [block.name for block in topology.blocks] == ["layers.0.mlp", "layers.1.mlp"]
    (first, _) = topology.blocks
    assert gone(first) >= {"layers.0.norm", "layers.0.mlp", "layers.0.down"}
    assert first.needed == {*first.tensors, "layers.0.gain"}, "the gain is a parameter of a module that stays"


def test_what_something_else_reads_stays() -> None:
    class Shared(Net):
        def add(self, layer: nn.Module, x: Tensor) -> Tensor:
            assert isinstance(layer, Parts)
            y = layer.norm(x)
            return x * torch.sigmoid(y) + layer.down(layer.mlp(y))

    topology = proved(Shared(nn.ModuleList([Parts()])), torch.randn(4, 10))
    (block,) = topology.blocks
    assert gone(block) >= {"layers.0.mlp", "layers.0.down"}
    assert "layers.0.norm" not in gone(block)


def test_branches_side_by_side() -> None:
    class Parallel(Net):
        def add(self, layer: nn.Module, x: Tensor) -> Tensor:
            assert isinstance(layer, nn.ModuleList)
            return layer[0](x) + layer[1](x) + x

    pair = nn.ModuleList([nn.Sequential(nn.Linear(12, 7), nn.Tanh(), nn.Linear(7, 12)), nn.Linear(12, 12)])
    topology = proved(Parallel(nn.ModuleList([pair])), torch.randn(4, 10))
    assert [block.name for block in topology.blocks] == ["layers.0.0", "layers.0.1"]


def test_a_branch_that_is_not_zero_with_weights_of_zero() -> None:
    model = Net(nn.ModuleList([nn.Sequential(nn.Linear(12, 12), nn.Sigmoid())]))
    assert discover_structure(stirred(model), torch.randn(4, 10)).blocks == ()


def test_a_value_that_is_written_into_memory_of_another_is_seen() -> None:
    class Written(Net):
        def add(self, layer: nn.Module, x: Tensor) -> Tensor:
            assert isinstance(layer, Parts)
            y = layer.norm(x)
            kept = torch.zeros_like(x)
            kept[:, :12] = y
            return x * kept.tanh() + layer.down(layer.mlp(y))

    (block,) = proved(Written(nn.ModuleList([Parts()])), torch.randn(4, 10)).blocks
    assert "layers.0.norm" not in gone(block)


def test_layers_of_a_transformer_and_their_halves() -> None:
    """A layer is whole what its halves are together, and no choice of its own beside them."""
    layers = nn.ModuleList(
        nn.TransformerEncoderLayer(12, 2, 20, batch_first=True, norm_first=True, dropout=0.0) for _ in range(2)
    )

    class Stack(Net):
        def add(self, layer: nn.Module, x: Tensor) -> Tensor:
            return layer(x)

    model, inputs = Stack(layers), torch.randn(2, 5, 10)
    topology = proved(model, inputs)
    halves = [f"layers.{n}.{half}" for n in (0, 1) for half in ("self_attn", "linear1")]
    assert {block.name for block in topology.blocks} == {"layers.0", "layers.1", *halves}
    whole = tuple(block.name for block in topology.dropped(halves[:2]))
    assert whole == ("layers.0",)
    assert topology.gone(["layers.0"]) == {"layers.0", *halves[:2]} == topology.gone(halves[:2])
    assert (
        topology.cost({}, halves[:2]) == topology.cost({}, ["layers.0"]) == topology.cost({}, ["layers.0", halves[0]])
    )
    first = KeptChannels(groups={}, dropped=(halves[0],))
    both = KeptChannels(groups={}, dropped=("layers.0",))
    again = cut(cut(model, topology, first), topology, both, parent=first)
    assert torch.equal(again(inputs), cut(model, topology, both)(inputs))
    with pytest.raises(SurgeryError, match=r"kept blocks must be among the parent's, but got also layers\.0"):
        cut(cut(model, topology, both), topology, first, parent=both)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("norm_first", [True, False])
def test_torchs_fused_kernel_reads_no_weights_that_are_gone(norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(12, 2, 20, batch_first=True, norm_first=norm_first)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    model, inputs = nn.Sequential(nn.Linear(10, 12), encoder, nn.Linear(12, 3)), torch.randn(2, 5, 10)
    topology = discover_structure(stirred(model), inputs)
    for dropped in (("1.layers.0.self_attn",), ("1.layers.0.linear1",), ("1.layers.0",), ("1.layers.1",)):
        with torch.no_grad():
            smaller = cut(model, topology, KeptChannels(groups={}, dropped=dropped))
            torch.testing.assert_close(smaller(inputs), copy.deepcopy(smaller).train(False)(inputs))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_without_a_branch_is_exported_and_trained() -> None:
    mlps = nn.ModuleList(nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 12)) for _ in range(2))
    model, inputs = Net(mlps).eval(), torch.randn(4, 10)
    smaller = cut(model, discover_structure(model, inputs), KeptChannels(groups={}, dropped=("layers.0",)))
    expected = smaller(inputs)
    assert torch.equal(torch.export.export(smaller, (inputs,)).module()(inputs), expected)
    smaller.train()(inputs).sum().backward()
    assert all(parameter.grad is not None for parameter in smaller.parameters())
    assert torch.equal(copy.deepcopy(smaller)(inputs), expected)


def test_attention_and_feed_forward_of_a_bert() -> None:
    """A norm comes after each addition, so that its branches are blocks and the layer is none."""
    model, inputs = build_any("hf_bert")
    topology = discover_structure(model, inputs)
    exact = [block for block in topology.blocks if block.exact]
    assert [block.name.split("layer.")[1] for block in exact] == [
        *("0.attention.self", "0.intermediate"),
        *("1.attention.self", "1.intermediate"),
    ]
    assert any(module.endswith("0.attention.output.dense") for module in gone(exact[0]))
    assert not any("LayerNorm" in name for block in exact for name in block.tensors)


def test_a_module_of_several_layers_goes_from_all() -> None:
    """ALBERT has one layer that is used again and again."""
    model, inputs = build_any("hf_albert")
    topology = discover_structure(model, inputs)
    names = [block.name.rpartition("albert_layers.0.")[2] for block in topology.blocks]
    assert names == ["attention.dense", "ffn"]
    assert not any(block.repeated for block in topology.blocks)


def test_a_layer_holds_a_branch_that_reads_what_lies_outside_of_it() -> None:
    """As a local layer among global ones is the only one to read the frequencies of its window."""

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.mix, self.mlp = nn.LayerNorm(12), nn.Linear(12, 12), nn.Linear(12, 12)

        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            x = x + self.mix(self.norm(x) * scale)
            return x + self.mlp(x.tanh())

    class Scaled(Net):
        def __init__(self) -> None:
            super().__init__(nn.ModuleList([Layer(), Layer()]))
            self.scales = nn.ParameterList([torch.rand(12), torch.rand(12)])

        def forward(self, x: Tensor) -> Tensor:
            x = self.inp(x)
            for layer, scale in zip(self.layers, self.scales, strict=True):
                x = layer(x, scale.sigmoid())
            return self.out(x)

    model, inputs = Scaled(), torch.randn(4, 10)
    topology = proved(model, inputs)
    branches = ["layers.1.mix", "layers.1.mlp"]
    assert {"layers.1", *branches} <= {block.name for block in topology.blocks}
    assert [block.name for block in topology.dropped(["layers.1", *branches])] == ["layers.1"]
    assert_cut_is_mask(model, topology, inputs, dropped=("layers.1", *branches))


def test_products_that_stay_are_as_long_without_a_branch() -> None:
    """Pooled keys and values could be zeros of one place, but the attention over them was counted over all."""

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.k, self.v = (nn.Conv1d(12, 12, 2, 2, groups=12) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            return (x @ self.k(x.mT) / 3).softmax(-1) @ self.v(x.mT).mT

    class Inline(Net):
        def add(self, layer: nn.Module, x: Tensor) -> Tensor:
            assert isinstance(layer, Pooled)
            return x + (x @ layer.k(x.mT) / 3).softmax(-1) @ layer.v(x.mT).mT

    layers = nn.ModuleList([Pooled()])
    assert [block.name for block in proved(Net(layers), torch.randn(2, 6, 10)).blocks] == ["layers.0"]
    assert proved(Inline(layers), torch.randn(2, 6, 10)).blocks == ()
