"""Residual blocks: which are found, and that a model without them computes what it computes when they are silent."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import ConfigurationError, SurgeryError
from autoprune.measure.cost import count_multiply_adds, count_parameters
from autoprune.plan.kept import KeptChannels
from autoprune.proof.discover import discover_structure
from autoprune.structure.absent import why_none
from autoprune.structure.blocks import Gap
from autoprune.structure.cost import Cost
from autoprune.structure.reasons import INEXACT, NO_EFFECT
from autoprune.structure.topology import Topology
from autoprune.surgery.cut import cut, rebuild
from autoprune.surgery.mask import mask
from autoprune.trace.trace import trace
from tests.unit.surgery.helpers import assert_cut_is_mask, stirred
from tests.zoo.convolutional import Block as BasicBlock
from tests.zoo.convolutional import ResNet

Run = Callable[["Mlp", Tensor], object]


class Mlp(nn.Module):
    """Two layers that give back as many channels as they take; `run` says what becomes of both."""

    def __init__(self, run: Run, width: int = 12, hidden: int = 8) -> None:
        super().__init__()
        self.run, self.norm = run, nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def inner(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.up(x)))

    def forward(self, x: Tensor) -> object:
        return self.run(self, x)


def added_in_place(block: Mlp, x: Tensor) -> Tensor:
    y = block.inner(block.norm(x))
    y += x
    return y


def added_to_a_clone(block: Mlp, x: Tensor) -> Tensor:
    return x.clone().add_(block.inner(block.norm(x)))


def pre_norm(block: Mlp, x: Tensor) -> Tensor:
    return x + block.inner(block.norm(x))


class Stack(nn.Module):
    """Linear, blocks, linear. take: what of a block's output goes to the next; call: how it is called."""

    def __init__(
        self,
        *blocks: nn.Module,
        width: int = 12,
        take: Callable[[object], Tensor] = lambda out: out,  # type: ignore[assignment,return-value]
        call: Callable[[nn.Module, Tensor], object] = lambda block, x: block(x),
    ) -> None:
        super().__init__()
        self.inp, self.out, self.blocks = nn.Linear(10, width), nn.Linear(width, 3), nn.ModuleList(blocks)
        self.take, self.call = take, call

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x)
        for block in self.blocks:
            x = self.take(self.call(block, x))
        return self.out(x)


def names(topology: Topology) -> list[str]:
    return [block.name for block in topology.blocks]


def found(model: nn.Module, inputs: Tensor) -> list[str]:
    """Names of the blocks; each is dropped alone and all together, with and without channels that go too."""
    topology = discover_structure(stirred(model), inputs)
    for dropped in [*((name,) for name in names(topology)), tuple(names(topology))]:
        assert_cut_is_mask(model, topology, inputs, dropped=dropped, only=(), draws=1)
        assert_cut_is_mask(model, topology, inputs, dropped=dropped, draws=3)
    return names(topology)


# What is found


@pytest.mark.parametrize("run", [pre_norm, added_in_place, added_to_a_clone])
def test_blocks_that_add_to_their_input(run: Run) -> None:
    assert found(Stack(Mlp(run), Mlp(run)), torch.randn(4, 10)) == ["blocks.0", "blocks.1"]


def test_transformer_blocks_without_and_with_a_norm_last() -> None:
    """Attention and feed-forward apart, and the layer whole where no norm comes after it."""
    for norm_first, whole in ((True, ["blocks.0"]), (False, [])):
        layer = nn.TransformerEncoderLayer(12, 2, 8, batch_first=True, norm_first=norm_first)
        wanted = [*whole, "blocks.0.self_attn", "blocks.0.linear1"]
        assert found(Stack(layer), torch.randn(2, 5, 10)) == wanted


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attn = nn.LayerNorm(12), nn.MultiheadAttention(12, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return x + self.attn(y, y, y, need_weights=False)[0]


def test_halves_of_a_transformer_block() -> None:
    block = nn.Sequential(Attention(), Mlp(pre_norm))
    assert found(Stack(block), torch.randn(2, 5, 10)) == ["blocks.0", "blocks.0.0", "blocks.0.1"]


def test_basic_blocks_without_a_projection() -> None:
    """Their sum goes through a ReLU, which what they are given went through already."""
    assert found(ResNet(widths=(6, 8), depth=2), torch.randn(2, 1, 8, 8)) == ["blocks.0", "blocks.1", "blocks.3"]


def test_a_relu_that_changes_the_input() -> None:
    """The branch can go, but the block hands on more than its input; what went through a ReLU before is as it was."""
    block = Mlp(lambda block, x: torch.relu(x + block.inner(x)))
    assert found(Stack(block), torch.randn(4, 10)) == ["blocks.0.up"]
    twice = Stack(copy.deepcopy(block), copy.deepcopy(block))
    assert found(twice, torch.randn(4, 10)) == ["blocks.0.up", "blocks.1"]


@pytest.mark.parametrize(
    "run",
    [
        lambda block, x: 0.5 * x + block.inner(x),
        lambda block, x: block.inner(x) - x,
        lambda block, x: x + x + block.inner(x),
        lambda block, x: x + block.inner(x) + 1,
    ],
)
def test_a_branch_beside_more_than_the_input(run: Run) -> None:
    assert found(Stack(Mlp(run)), torch.randn(4, 10)) == ["blocks.0.up"]


def test_a_projection_is_no_block() -> None:
    assert found(Stack(Mlp(lambda block, x: block.inner(x))), torch.randn(4, 10)) == []


def test_blocks_that_return_tuples() -> None:
    first = Stack(Mlp(lambda b, x: (pre_norm(b, x), None)), take=lambda out: out[0])  # type: ignore[index]
    last = Stack(Mlp(lambda b, x: (b.norm(x), pre_norm(b, x))), take=lambda out: out[1])  # type: ignore[index]
    alone = Stack(Mlp(lambda b, x: (pre_norm(b, x),)), take=lambda out: out[-1])  # type: ignore[index]
    for model, position, outputs in ((first, 0, 2), (last, 1, 2), (alone, 0, 1)):
        assert found(model, torch.randn(4, 10)) == ["blocks.0"]
        (block,) = discover_structure(model, torch.randn(4, 10)).blocks
        assert block.gaps == (Gap(module="blocks.0", source=0, position=position, outputs=outputs),)


def test_a_tuple_of_which_more_is_read() -> None:
    for other, block in ((lambda x: x, "blocks.0"), (lambda x: x * 2, "blocks.0.up")):
        made = Mlp(lambda b, x, other=other: (pre_norm(b, x), other(x)))  # type: ignore[misc]
        assert found(Stack(made, take=lambda out: out[0] + out[1]), torch.randn(4, 10)) == [block]  # type: ignore[index]


def test_blocks_called_with_keywords() -> None:
    class Named(Mlp):
        def forward(self, gain: float, x: Tensor) -> object:  # type: ignore[override]
            return x + gain * self.inner(x)

    model = Stack(Named(pre_norm), call=lambda block, x: block(2.0, x=x))
    assert found(model, torch.randn(4, 10)) == ["blocks.0"]
    (block,) = discover_structure(model, torch.randn(4, 10)).blocks
    assert block.gaps[0].source == "x"
    positional = Stack(Named(pre_norm), call=lambda block, x: block(2.0, x))
    assert found(positional, torch.randn(4, 10)) == ["blocks.0"]
    assert discover_structure(positional, torch.randn(4, 10)).blocks[0].gaps[0].source == 1


# Nested, shared, used twice


class Outer(nn.Module):
    """A sum around a layer and a block."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.first, self.inner = nn.Linear(12, 12), Mlp(run)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(self.first(x))


def test_nested_blocks() -> None:
    assert found(Stack(Outer(pre_norm)), torch.randn(4, 10)) == ["blocks.0", "blocks.0.inner"]
    assert found(Stack(Outer(lambda block, x: block.inner(x))), torch.randn(4, 10)) == ["blocks.0"]


def test_a_weight_that_is_in_use_elsewhere() -> None:
    model = Stack(Mlp(pre_norm), Mlp(pre_norm))
    model.blocks[0].down.weight = model.blocks[1].down.weight
    assert found(model, torch.randn(4, 10)) == []
    inside = Stack(Mlp(pre_norm, hidden=12), Mlp(pre_norm))
    inside.blocks[0].down.weight = inside.blocks[0].up.weight
    assert found(inside, torch.randn(4, 10)) == ["blocks.0", "blocks.1"]


def test_a_block_that_is_called_twice() -> None:
    model = Stack(Mlp(pre_norm), Mlp(pre_norm), call=lambda block, x: block(block(x)))
    assert found(model, torch.randn(4, 10)) == ["blocks.0", "blocks.1"]


def test_a_block_under_two_names_counts_as_in_use_elsewhere() -> None:
    block = Mlp(pre_norm)
    assert found(Stack(block, Mlp(pre_norm), block), torch.randn(4, 10)) == ["blocks.1"]


def test_a_block_that_adds_only_at_one_of_its_uses() -> None:
    class Sometimes(Mlp):
        def forward(self, x: Tensor, add: bool = True) -> Tensor:  # type: ignore[override]
            return x + self.inner(x) if add else self.inner(x)

    once = Stack(Sometimes(pre_norm), call=lambda block, x: block(block(x, add=False)))
    assert found(once, torch.randn(4, 10)) == []
    # Here it is added to the input both times.
    both = Stack(Sometimes(pre_norm), call=lambda block, x: block(x) + block(x, add=False))
    assert found(both, torch.randn(4, 10)) == ["blocks.0.up"]


# What is left of the model


def test_nothing_of_a_dropped_block_stays() -> None:
    model = stirred(Stack(Mlp(pre_norm), Mlp(pre_norm)))
    model.by_hand = [model.blocks[0]]
    topology = discover_structure(model, torch.randn(4, 10))
    (gone, stays) = topology.blocks
    assert set(gone.tensors) == {name for name in model.state_dict() if name.startswith("blocks.0.")}
    smaller = cut(model, topology, KeptChannels(groups={}, dropped=(gone.name,)))
    assert set(smaller.state_dict()) == set(model.state_dict()) - set(gone.tensors)
    assert set(stays.tensors) < set(smaller.state_dict())


def test_memory_of_a_dropped_block_is_given_back() -> None:
    """Also where the block holds its layers in a plain list beside."""
    models = [stirred(Stack(Mlp(pre_norm, hidden=77), Mlp(pre_norm))) for _ in range(2)]
    listed = models[1].blocks[0]
    listed.layers = [listed.up, listed.down]
    topologies = [discover_structure(model, torch.randn(4, 10)) for model in models]
    gc.collect()
    # Every look at all objects takes a second, so that both are looked at together.
    before = [weakref.ref(value) for value in gc.get_objects() if type(value) is nn.Parameter and 77 in value.shape]
    gone = KeptChannels(groups={}, dropped=("blocks.0",))
    smaller = [cut(model, topology, gone) for model, topology in zip(models, topologies, strict=True)]
    gc.collect()
    after = [value for value in gc.get_objects() if type(value) is nn.Parameter and 77 in value.shape]
    assert len(after) == len(before) == 6
    stay = [value for model in models for value in model.parameters() if 77 in value.shape]
    assert {id(value) for value in after} == {id(value) for value in stay}
    for model, without in zip(models, smaller, strict=True):
        assert count_parameters(without) < count_parameters(model)


def test_the_model_is_not_touched() -> None:
    model = stirred(Stack(Mlp(pre_norm), Mlp(pre_norm)))
    before, inputs = copy.deepcopy(model), torch.randn(4, 10)
    topology = discover_structure(model, inputs)
    kept = KeptChannels(groups={}, dropped=("blocks.0", "blocks.1"))
    smaller, silenced = cut(model, topology, kept), mask(model, topology, kept)
    with torch.no_grad():
        for tensor in (*smaller.parameters(), *silenced.parameters()):
            tensor.fill_(7)
    assert [type(module) for module in model.modules()] == [type(module) for module in before.modules()]
    assert all(torch.equal(value, before.state_dict()[name]) for name, value in model.state_dict().items())
    assert torch.equal(model(inputs), before(inputs))


def test_values_that_models_look_at_and_the_mode_stay() -> None:
    model = stirred(Stack(Mlp(pre_norm), Mlp(pre_norm)))
    model.blocks[0].kind = "full"
    topology = discover_structure(model, torch.randn(4, 10))
    kept = KeptChannels(groups={}, dropped=("blocks.0",))
    assert cut(model, topology, kept).blocks[0].kind == "full"
    assert [cut(model.train(mode), topology, kept).blocks[0].training for mode in (True, False)] == [True, False]


class Residual(nn.Module):
    """A block that torch.jit.script can compile."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.layer(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_without_a_block_can_be_scripted() -> None:
    model, inputs = nn.Sequential(nn.Linear(9, 12), Residual(), Residual(), nn.Linear(12, 5)).eval(), torch.randn(3, 9)
    smaller = cut(model, discover_structure(model, inputs), KeptChannels(groups={}, dropped=("1",)))
    assert torch.equal(torch.jit.script(smaller)(inputs), smaller(inputs))


class Attended(nn.Module):
    """Attention and a linear layer that torch.jit.script can compile; the additions stand around them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(12)
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
        self.linear = nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.linear(x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("dropped", ["1.attention", "1.linear"])
def test_a_model_without_a_branch_can_be_scripted(dropped: str) -> None:
    model, inputs = nn.Sequential(nn.Linear(9, 12), Attended(), nn.Linear(12, 5)).eval(), torch.randn(3, 4, 9)
    smaller = cut(model, discover_structure(model, inputs), KeptChannels(groups={}, dropped=(dropped,)))
    assert torch.equal(torch.jit.script(smaller)(inputs), smaller(inputs))


def test_a_cut_of_a_cut() -> None:
    model, inputs = stirred(Stack(*(Mlp(pre_norm) for _ in range(3)))), torch.randn(4, 10)
    topology = discover_structure(model, inputs)
    first = KeptChannels(groups={"blocks.1.up": (0, 2, 3, 7), "inp": tuple(range(9))}, dropped=("blocks.0",))
    second = KeptChannels(groups={"blocks.1.up": (2, 7), "inp": (0, 1, 4)}, dropped=("blocks.0", "blocks.2"))
    again = cut(cut(model, topology, first), topology, second, parent=first)
    direct = cut(model, topology, second)
    assert again.state_dict().keys() == direct.state_dict().keys()
    assert torch.equal(again(inputs), direct(inputs))
    with pytest.raises(SurgeryError, match=r"kept blocks must be among the parent's, but got also blocks\.0"):
        cut(cut(model, topology, first), topology, KeptChannels(groups=first.groups), parent=first)


@pytest.mark.parametrize("action", [cut, mask])
def test_an_unknown_block_lists_the_known_ones(action: Callable[..., nn.Module]) -> None:
    model = stirred(Stack(Mlp(pre_norm), Mlp(pre_norm)))
    topology = discover_structure(model, torch.randn(4, 10))
    with pytest.raises(ConfigurationError, match=r"be one of blocks\.0, blocks\.1, but got 'blocks\.7'"):
        action(model, topology, KeptChannels(groups={}, dropped=("blocks.7",)))
    with pytest.raises(ConfigurationError, match=r"'blocks\.7'"):
        topology.cost({}, dropped=["blocks.7"])
    plain = nn.Sequential(nn.Linear(10, 12), nn.Linear(12, 3))
    with pytest.raises(ConfigurationError, match="be one of none"):
        action(plain, discover_structure(plain, torch.randn(4, 10)), KeptChannels(groups={}, dropped=("0",)))


def test_rebuilding_from_weights() -> None:
    model, inputs = stirred(Stack(Mlp(pre_norm), Mlp(pre_norm))), torch.randn(4, 10)
    topology = discover_structure(model, inputs)
    kept = KeptChannels(groups={"blocks.1.up": (1, 2, 6), "inp": (0, 5, 7)}, dropped=("blocks.0",))
    smaller = cut(model, topology, kept)
    with torch.no_grad():
        for parameter in smaller.parameters():
            parameter.add_(0.25)
    weights = copy.deepcopy(smaller.state_dict())
    again = rebuild(model, topology, kept, weights)
    assert again.state_dict().keys() == weights.keys()
    assert torch.equal(again(inputs), smaller(inputs))
    with pytest.raises(SurgeryError, match=r"blocks\.1\.norm\.weight"):
        rebuild(model, topology, kept, {name: t for name, t in weights.items() if name != "blocks.1.norm.weight"})
    with pytest.raises(SurgeryError):
        rebuild(model, topology, KeptChannels(groups=kept.groups), weights)


class Batched(nn.Module):
    """A block with a norm that counts, and buffers that are not stored."""

    def __init__(self) -> None:
        super().__init__()
        self.block = BasicBlock(8, 8)
        self.register_buffer("gain", torch.rand(8, 1, 1) + 0.5, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x) * self.gain


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: Stack(Mlp(pre_norm), Mlp(pre_norm)), (4, 10)),
        (lambda: Stack(nn.Sequential(Attention(), Mlp(pre_norm)), Attention()), (2, 5, 10)),
        (lambda: ResNet(widths=(6, 8), depth=2), (2, 1, 8, 8)),
        (lambda: nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), Batched(), nn.Conv2d(8, 2, 1)), (2, 1, 8, 8)),
    ],
    ids=["mlp", "attention", "resnet", "buffers"],
)
def test_cost_without_blocks(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    model, inputs = stirred(make()), torch.randn(shape)
    topology = discover_structure(model, inputs)
    assert topology.blocks
    for dropped in [*((name,) for name in names(topology)), tuple(names(topology))]:
        for keep in (lambda width: width, lambda width: max(1, width // 3)):
            groups = {name: tuple(range(keep(width))) for name, width in topology.widths.items()}
            kept = KeptChannels(groups=groups, dropped=dropped)
            smaller = cut(model, topology, kept)
            tensors = (*smaller.parameters(), *smaller.buffers())
            assert topology.cost(kept.widths, dropped) == Cost(
                parameters=count_parameters(smaller),
                multiply_adds=count_multiply_adds(smaller, inputs),
                size_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
            )


def test_tracing_alone_gives_outer_before_inner() -> None:
    traced = names(trace(Stack(Outer(pre_norm)), torch.randn(4, 10)))
    assert [name for name in traced if name in ("blocks.0", "blocks.0.inner")] == ["blocks.0", "blocks.0.inner"]


def test_a_branch_that_is_no_block_says_why() -> None:
    """What the branch computes is read beside the addition, so that zeros are not what its weights at zero give."""

    class Read(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inp, self.out = nn.Linear(5, 8), nn.Linear(8, 2)
            self.mlp = nn.Sequential(nn.Linear(8, 8), nn.Softmax(-1))

        def forward(self, x: Tensor) -> Tensor:
            x = self.inp(x)
            return self.out(x + self.mlp(x))

    topology = discover_structure(stirred(Read()), torch.randn(3, 5))
    assert topology.blocks == ()
    ((kind, module, why),) = [(one.kind, one.module, one.why) for one in topology.ineligible if one.kind == "blocks"]
    assert (kind, module, why.kind) == ("blocks", "mlp", INEXACT)
    why = why_none("blocks", topology)
    assert why.startswith("No blocks can go: mlp is no block: leaving it out is not the same as setting its weights to")
    assert "(the outputs differ by" in why


class Biased(nn.Module):
    """Attention that makes a bias for its likes where it is given none: of a table, or of zeros."""

    def __init__(self, *, first: bool) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = 4, nn.Linear(12, 24), nn.Linear(8, 12)
        self.table = nn.Parameter(torch.randn(4, 5, 5)) if first else None

    def forward(self, x: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, -1, 2).permute(2, 0, 3, 1, 4)
        if bias is None:
            bias = torch.zeros(self.heads, 5, 5).to(x) if self.table is None else self.table
        y = (q @ k.mT / 3 + bias).softmax(-1) @ v
        return x + self.out(y.transpose(1, 2).flatten(2)), bias


class SharedBias(nn.Module):
    """As in T5: what the first layer makes is handed from layer to layer."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.head = nn.Linear(10, 12), nn.Linear(12, 3)
        self.layers = nn.ModuleList(Biased(first=number == 0) for number in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x, bias = self.inp(x), None
        for layer in self.layers:
            x, bias = layer(x, bias)
        return self.head(x)


def test_what_a_block_is_given_and_hands_on_is_handed_on_without_it() -> None:
    model, inputs = stirred(SharedBias()), torch.randn(2, 5, 10)
    topology = discover_structure(model, inputs)
    assert [block.name for block in topology.blocks] == ["layers.0.out", "layers.1", "layers.2"]
    assert topology.block("layers.1").gaps == (
        Gap(module="layers.1", source=0, position=0, outputs=2, passes=((1, 1),)),
    )
    assert "heads" in {group.kind for group in topology.groups}
    for dropped in (("layers.1",), ("layers.0.out",), ("layers.1", "layers.2")):
        assert_cut_is_mask(model, topology, inputs, dropped=dropped)


def test_a_block_that_withholds_what_others_read_is_proved_beside_them() -> None:
    """All layers without their bias are right together: none is left that could miss it."""
    model, inputs = stirred(SharedBias()), torch.randn(2, 5, 10)
    traced = trace(model, inputs)
    assert [block.name for block in traced.blocks if block.withholds] == ["layers.0"]
    proved = discover_structure(model, inputs)
    assert proved.blocks and "layers.0" not in [block.name for block in proved.blocks]
    topology = replace(proved, blocks=traced.blocks)
    half = {group.name: tuple(range(group.channels // 2)) for group in proved.groups}
    every = KeptChannels(groups=half, dropped=tuple(block.name for block in traced.blocks))
    torch.testing.assert_close(cut(model, topology, every)(inputs), mask(model, topology, every)(inputs))
    with pytest.raises(RuntimeError, match="must match"):
        cut(model, topology, replace(every, dropped=("layers.0",)))(inputs)


def test_a_block_without_effect_says_so() -> None:
    """A wrong gap in its place would not be seen."""

    class Closed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inp, self.out, self.mlp = nn.Linear(5, 8), nn.Linear(8, 2), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.inp(x)
            return self.out(x + 0.0 * self.mlp(x))

    topology = discover_structure(stirred(Closed()), torch.randn(3, 5))
    assert topology.blocks == ()
    assert [(one.module, one.why.kind) for one in topology.ineligible if one.kind == "blocks"] == [("mlp", NO_EFFECT)]
