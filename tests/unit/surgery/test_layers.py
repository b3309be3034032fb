"""Layers: members of a row of equal modules can go where no addition makes that exact; they run and are counted."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from autoprune.measure.cost import count_multiply_adds, count_parameters
from autoprune.plan.kept import KeptChannels
from autoprune.plan.widths import prunable_blocks
from autoprune.proof.discover import discover_structure
from autoprune.structure.absent import why_none
from autoprune.structure.reasons import NEEDED, NEEDED_ONE, RESHAPING, Reason
from autoprune.structure.topology import Topology
from autoprune.surgery.cut import cut, rebuild
from autoprune.surgery.mask import mask
from autoprune.task.data import Inputs, call
from tests.unit.surgery.helpers import stirred
from tests.zoo.registry import build_any, random_kept


def layers(topology: Topology) -> list[str]:
    return [block.name for block in topology.blocks if block.repeated]


def staying(topology: Topology) -> dict[str, Reason]:
    """Why modules are no layers that can go."""
    return {one.module: one.why for one in topology.ineligible if one.kind == "layers"}


@torch.no_grad()
def counted(model: nn.Module, inputs: Inputs) -> Topology:
    """The topology; any layers go and are counted, with channels too."""
    topology = discover_structure(stirred(model), inputs)
    names = layers(topology)
    assert names
    for size in range(1, len(names) + 1):
        for dropped in itertools.combinations(names, size):
            for kept in (KeptChannels(groups={}, dropped=dropped), random_kept(topology, size)):
                kept = KeptChannels(groups=kept.groups, dropped=dropped)
                smaller = cut(model, topology, kept)
                cost = topology.cost(kept.widths, dropped)
                assert cost.parameters == count_parameters(smaller)
                if min(kept.widths.values(), default=2) > 1:  # a product over one channel is a scaling
                    assert cost.multiply_adds == count_multiply_adds(smaller, inputs)
                again = rebuild(model, topology, kept, smaller.state_dict())
                expected = call(mask(model, topology, kept), inputs)
                torch.testing.assert_close(call(smaller, inputs), expected, atol=1e-4, rtol=1e-3)
                torch.testing.assert_close(call(again, inputs), expected, atol=1e-4, rtol=1e-3)
    return topology


class Convolutions(nn.Module):
    """Equal convolutions one after the other, each with channels of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 6, 3, padding=1), nn.Linear(6, 3)
        self.body = nn.Sequential(*(m for _ in range(3) for m in (nn.Conv2d(6, 6, 3, padding=1), nn.Tanh())))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(torch.relu(self.stem(x))).mean((2, 3)))


def test_equal_convolutions() -> None:
    """Channels that go on one side of a layer that goes become zeros on the other."""
    topology = counted(Convolutions(), torch.randn(3, 1, 5, 5))
    assert layers(topology) == ["body.0", "body.2", "body.4"]
    assert not any(block.exact for block in topology.blocks)
    assert staying(topology)["stem"] == Reason(kind=RESHAPING)
    assert set(topology.widths) == {"stem", "body.0", "body.2", "body.4"}, "channels of each are a choice of their own"


def test_layers_with_a_norm_last() -> None:
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), 2, enable_nested_tensor=False
    )
    model = nn.Sequential(nn.Linear(5, 8), encoder, nn.Linear(8, 3))
    topology = discover_structure(stirred(model), torch.randn(2, 4, 5))
    assert layers(topology) == ["1.layers.0", "1.layers.1"]
    exact = {block.name: block.exact for block in topology.blocks}
    assert exact == {
        **dict.fromkeys(("1.layers.0", "1.layers.1"), False),
        **{f"1.layers.{n}.{half}": True for n in (0, 1) for half in ("self_attn", "linear1")},
    }
    # A layer is more than its halves: the norms go with it.
    assert set(prunable_blocks(topology)) == set(exact)
    assert set(prunable_blocks(topology, kind="layers")) == {"1.layers.0", "1.layers.1"}
    assert topology.gone(["1.layers.0"]) == {"1.layers.0", "1.layers.0.self_attn", "1.layers.0.linear1"}
    halves = ["1.layers.0.self_attn", "1.layers.0.linear1"]
    assert [block.name for block in topology.dropped(halves)] == sorted(halves)


def test_layers_of_a_bert_give_a_tuple_or_not() -> None:
    model, inputs = build_any("hf_bert_classifier")
    topology = discover_structure(model, inputs)
    names = layers(topology)
    assert [name.split("encoder.")[1] for name in names] == ["layer.0", "layer.1"]
    for dropped in (names[:1], names):
        smaller = cut(model, topology, KeptChannels(groups={}, dropped=tuple(dropped)))
        assert topology.cost({}, dropped).multiply_adds == count_multiply_adds(smaller, inputs)


class Numbered(nn.Module):
    """Layers that are told which one they are, give a tuple, and of which the first is looked at."""

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.scale = nn.Linear(8, 8), 2

        def forward(self, x: Tensor, number: int) -> tuple[Tensor, None]:
            return torch.tanh(self.linear(x)) * (number + 1), None

    def __init__(self, reads: bool) -> None:
        super().__init__()
        self.inp, self.out, self.reads = nn.Linear(5, 8), nn.Linear(8, 2), reads
        self.layers = nn.ModuleList(self.Layer() for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x) * self.layers[0].scale
        if self.reads:
            x = x + self.layers[2].linear.weight.mean()
        for number, layer in enumerate(self.layers):
            x = layer(x, number)[0]
        return self.out(x)


def test_layers_that_are_told_their_number_and_give_a_tuple() -> None:
    assert layers(counted(Numbered(reads=False), torch.randn(3, 5))) == [f"layers.{n}" for n in range(4)]


def test_a_layer_without_which_the_model_does_not_run_stays_and_says_why() -> None:
    topology = discover_structure(stirred(Numbered(reads=True)), torch.randn(3, 5))
    assert layers(topology) == ["layers.0", "layers.1", "layers.3"]
    why = staying(topology)["layers.2"]
    assert why.kind == NEEDED
    assert why.text.startswith("cannot go: the model does not run without it (AttributeError")


def test_one_layer_stays_where_the_model_needs_one() -> None:
    class Collected(Convolutions):
        def forward(self, x: Tensor) -> Tensor:
            x, seen = torch.relu(self.stem(x)), []
            for layer in self.body:
                x = layer(x)
                if isinstance(layer, nn.Conv2d):
                    seen.append(x)
            return self.head(torch.stack(seen).mean((0, 3, 4)))

    topology = discover_structure(stirred(Collected()), torch.randn(3, 1, 5, 5))
    assert len(layers(topology)) == 2
    assert Reason(kind=NEEDED_ONE) in staying(topology).values()


def test_queries_keys_and_values_are_no_row() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inp, self.out = nn.Linear(5, 8), nn.Linear(8, 2)
            self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            x = self.inp(x)
            return self.out(torch.softmax(self.q(x) @ self.k(x).transpose(1, 2), -1) @ self.v(x))

    topology = discover_structure(stirred(Attention()), torch.randn(2, 4, 5))
    assert topology.blocks == ()
    why = why_none("layers", topology)
    assert why.startswith("No layers can go: ")
    assert "q, k and 1 more is not one of several equal modules in a row" in why
    assert "each of inp and out gives another shape or type than it takes" in why


def test_one_layer_that_is_used_again_and_again_is_a_whole_stack() -> None:
    model, inputs = build_any("hf_albert")
    assert "in a row" in why_none("layers", discover_structure(model, inputs))


def test_a_layer_that_adds_to_two_values_of_which_one_is_needed() -> None:
    """As in TNT: pixels and patches. What the last layer adds to the pixels nobody reads."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.proj, self.outer = nn.Linear(7, 7), nn.Linear(7, 12), nn.Linear(12, 12)

        def forward(self, pixels: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
            pixels = pixels + self.inner(pixels).tanh()
            patches = patches + self.proj(pixels)
            return pixels, patches + self.outer(patches).tanh()

    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pixels, self.patches, self.out = nn.Linear(10, 7), nn.Linear(7, 12), nn.Linear(12, 3)
            self.layers = nn.ModuleList(Both() for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            pixels = self.pixels(x)
            patches = self.patches(pixels)
            for layer in self.layers:
                pixels, patches = layer(pixels, patches)
            return self.out(patches)

    topology = discover_structure(stirred(Nested()), torch.randn(4, 10))
    last = topology.block("layers.1")
    assert not last.exact
    assert (last.gaps[0].source, last.gaps[0].position) == (1, 1)
