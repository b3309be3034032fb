"""Operators that repeat, reorder, pick and normalise between two layers: which channels are found, and that a cut of
them computes what a mask computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from autoprune.proof.discover import discover_structure
from autoprune.task.data import Inputs
from autoprune.trace.trace import trace
from tests.unit.surgery.helpers import assert_cut_is_mask, stirred
from tests.unit.trace.test_trace import Free, reasons

Between = Callable[[Tensor], Tensor]
FLAT, SEQUENCE, IMAGES = (3, 20), (3, 7, 20), (2, 2, 6, 6)


def linear(between: Between, made: int = 16, read: int = 16) -> Free:
    return Free(lambda m, x: m.b(between(torch.tanh(m.a(x)))), a=nn.Linear(20, made), b=nn.Linear(read, 5))


def images(between: Between, made: int = 8, read: int = 8) -> Free:
    return Free(lambda m, x: m.b(between(torch.tanh(m.a(x)))), a=nn.Conv2d(2, made, 1), b=nn.Conv2d(read, 3, 1))


def assert_groups(model: nn.Module, inputs: Inputs, widths: Mapping[str, int]) -> None:
    """Found, proved, and cut like masked, whatever stays."""
    stirred(model)
    assert trace(model, inputs).widths == widths
    topology = discover_structure(model, inputs)
    assert topology.widths == widths
    assert_cut_is_mask(model, topology, inputs)


ROWS = torch.tensor([2, 0])
TIMES = torch.zeros(3, 2, 1, dtype=torch.int64)


OF_ROWS: Mapping[str, tuple[Between, int, int, tuple[int, ...], int]] = {
    "glu": (lambda x: F.glu(x, -1), 16, 8, FLAT, 8),
    "glu, then a repeat over time": (lambda x: F.glu(x, 1).repeat(1, 2, 1), 16, 16, (3, 8, 20), 16),
    "repeat": (lambda x: x.repeat(1, 2), 8, 16, FLAT, 8),
    "repeat rows": (lambda x: x.repeat(2, 1), 16, 16, FLAT, 16),
    "repeat with a new axis": (lambda x: x.repeat(2, 1, 3), 4, 12, FLAT, 4),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, 1), 8, 16, FLAT, 8),
    "repeat_interleave rows": (lambda x: x.repeat_interleave(2, 0), 16, 16, FLAT, 16),
    "repeat_interleave by counts": (lambda x: x.repeat_interleave(torch.tensor([1, 0, 2]), 0), 16, 16, FLAT, 16),
    "flip": (lambda x: x.flip(1), 16, 16, FLAT, 16),
    "flip and add": (lambda x: x.flip(-1) + x, 16, 16, FLAT, 8),
    "flip rows": (lambda x: x.flip(0, 1), 16, 16, SEQUENCE, 16),
    "roll rows": (lambda x: x.roll(2, 0), 16, 16, FLAT, 16),
    "roll time": (lambda x: x.roll((1, 2), (0, -2)), 16, 16, SEQUENCE, 16),
    "rows": (lambda x: x[ROWS], 16, 16, FLAT, 16),
    "rows by a mask": (lambda x: x[torch.tensor([True, False, True])], 16, 16, FLAT, 16),
    "rows and times": (lambda x: x[ROWS, ROWS], 16, 16, SEQUENCE, 16),
    "rows and times by a mask": (lambda x: x[torch.ones(3, 7, dtype=torch.bool)], 16, 16, SEQUENCE, 16),
    "rows and times apart": (lambda x: x.transpose(1, 2)[ROWS, :, ROWS], 16, 16, SEQUENCE, 16),
    "rows and times apart, later": (
        lambda x: x.permute(2, 0, 1)[:, :, None][:, ROWS, :, ROWS][..., 0],
        16,
        16,
        SEQUENCE,
        16,
    ),
    "times": (lambda x: x[:, None][:, :, ROWS], 16, 16, SEQUENCE, 16),
    "index_select": (lambda x: x.index_select(1, ROWS), 16, 16, SEQUENCE, 16),
    "gather": (lambda x: x.gather(1, TIMES.expand(-1, -1, x.shape[-1])), 16, 16, SEQUENCE, 16),
    "take_along_dim": (lambda x: torch.take_along_dim(x, TIMES, 1), 16, 16, SEQUENCE, 16),
    "sort": (lambda x: x.sort(1).values, 16, 16, SEQUENCE, 16),
    "argsort": (lambda x: x * x.argsort(1), 16, 16, SEQUENCE, 16),
    "topk": (lambda x: x.topk(2, 1).values, 16, 16, SEQUENCE, 16),
    "index_add": (lambda x: torch.zeros_like(x).index_add(0, ROWS, x[:2]), 16, 16, FLAT, 16),
    "index_copy": (lambda x: x.index_copy(1, ROWS, torch.tanh(x[:, :2])), 16, 16, SEQUENCE, 16),
    "index_put": (lambda x: x.index_put((ROWS, ROWS), x[1, :2]), 16, 16, SEQUENCE, 16),
    "index_put a constant": (lambda x: x.index_put((ROWS,), torch.zeros((), dtype=x.dtype)), 16, 16, FLAT, 16),
    "scatter_add": (lambda x: x.scatter_add(1, TIMES.expand(-1, -1, x.shape[-1]), x), 16, 16, SEQUENCE, 16),
    "scatter": (lambda x: x.scatter(1, TIMES.expand(-1, -1, x.shape[-1]), 0.5), 16, 16, SEQUENCE, 16),
    "windows": (lambda x: x.unfold(1, 3, 2).mean(-1), 16, 16, SEQUENCE, 16),
    "triangle of ones": (
        lambda x: (x[:, None] * torch.ones(7, 7, dtype=x.dtype).tril()[..., None]).sum(2),
        16,
        16,
        SEQUENCE,
        16,
    ),
    "triangle of products": (lambda x: (x @ x.transpose(1, 2)).triu() @ x, 16, 16, SEQUENCE, 16),
}


@pytest.mark.parametrize(
    ("between", "made", "read", "shape", "width"),
    OF_ROWS.values(),
    ids=OF_ROWS,
)
def test_rows_of_channels(between: Between, made: int, read: int, shape: tuple[int, ...], width: int) -> None:
    assert_groups(linear(between, made, read), torch.randn(shape), {"a": width})


OF_IMAGES: Mapping[str, tuple[Between, int, int, int]] = {
    "glu": (lambda x: F.glu(x, 1), 8, 4, 4),
    "glu over space": (lambda x: F.glu(x, 2), 8, 8, 8),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), 16, 4, 4),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 3), 2, 18, 2),
    "pixel_shuffle and back": (lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2), 16, 16, 4),
    "channel_shuffle": (lambda x: F.channel_shuffle(x, 2), 8, 8, 4),
    "flip": (lambda x: x.flip(2, 3), 8, 8, 8),
    "roll": (lambda x: x.roll((1, -1), (2, 3)), 8, 8, 8),
    "index": (lambda x: x[..., ROWS, :], 8, 8, 8),
    "repeat": (lambda x: x.repeat(1, 3, 2, 1), 4, 12, 4),
    "im2col": (lambda x: F.unfold(x, 2)[..., None], 3, 12, 3),
    "col2im": (lambda x: F.fold(x.flatten(2), (7, 7), 2), 12, 3, 3),
    "im2col and col2im": (lambda x: F.fold(F.unfold(x, 3, padding=1), (6, 6), 3, padding=1), 8, 8, 8),
}


@pytest.mark.parametrize(
    ("between", "made", "read", "width"),
    OF_IMAGES.values(),
    ids=OF_IMAGES,
)
def test_channels_of_images(between: Between, made: int, read: int, width: int) -> None:
    assert_groups(images(between, made, read), torch.randn(IMAGES), {"a": width})


def test_shuffles_around_grouped_convolutions() -> None:
    layers = {"a": nn.Conv2d(2, 8, 1), "b": nn.Conv2d(8, 8, 1, groups=2), "c": nn.Conv2d(8, 3, 1)}
    model = Free(lambda m, x: m.c(F.channel_shuffle(m.b(torch.relu(F.channel_shuffle(m.a(x), 2))), 2)), **layers)
    assert_groups(model, torch.randn(IMAGES), {"a": 2, "b": 4})
    model.run = lambda m, x: m.c(F.channel_shuffle(m.b(torch.relu(m.a(x))), 2))
    assert_groups(model, torch.randn(IMAGES), {"a": 4, "b": 4})


def test_shuffles_that_couple_every_channel() -> None:
    topology = discover_structure(images(lambda x: F.channel_shuffle(F.channel_shuffle(x, 4), 2)), torch.randn(IMAGES))
    assert topology.widths == {}
    assert reasons(topology, "a") == "has all its channels coupled into one"


def shuffled(x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    return x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)


class Halves(nn.Module):
    """Half of the channels goes on unchanged, the other is made anew, and both are shuffled: ShuffleNetV2."""

    def __init__(self, half: int, units: int) -> None:
        super().__init__()
        self.first = nn.ModuleList(nn.Conv2d(2, half, 1) for _ in range(2))
        self.units = nn.ModuleList(nn.Conv2d(half, half, 1) for _ in range(units))
        self.last = nn.Conv2d(2 * half, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = shuffled(torch.cat([torch.tanh(conv(x)) for conv in self.first], 1))
        for unit in self.units:
            kept, read = x.chunk(2, 1)
            x = shuffled(torch.cat([kept, torch.tanh(unit(read))], 1))
        return self.last(x)


@pytest.mark.parametrize(
    ("half", "units", "sets"),
    [(6, 0, 6), (6, 1, 3), (24, 3, 3), (20, 2, 5), (29, 2, 6), (58, 3, 6)],
)
def test_halves_and_shuffles_leave_sets(half: int, units: int, sets: int) -> None:
    assert_groups(Halves(half, units), torch.randn(2, 2, 2, 2), {"first.0": sets})


def test_every_further_shuffle_doubles_a_set() -> None:
    model, inputs = Halves(8, 5), torch.randn(2, 2, 2, 2)
    assert_groups(model, inputs, {})
    assert reasons(trace(model, inputs), "units.0") == "has all its channels coupled into one"


def test_groups_that_share_a_channel() -> None:
    layers = {"a": nn.Conv2d(2, 5, 1), "b": nn.Conv2d(10, 3, 1), "norm": nn.GroupNorm(2, 10)}
    model = Free(lambda m, x: m.b(m.norm(m.a(x).repeat_interleave(2, 1))), **layers)
    assert_groups(model, torch.randn(IMAGES), {"a": 2})
    layers["b"] = nn.ConvTranspose2d(10, 6, 1, groups=2)
    assert_groups(Free(lambda m, x: m.b(m.a(x).repeat_interleave(2, 1)), **layers), torch.randn(IMAGES), {"a": 2})


def chunks_mixed(x: Tensor) -> Tensor:
    first, second, third = x.chunk(3, 1)
    return torch.cat([first * second, third, second], 1)


@pytest.mark.parametrize(("made", "read", "free"), [(16, 16, 4), (11, 11, 3), (9, 9, 3), (8, 8, 2)])
def test_chunks_of_which_the_last_is_shorter_lose_equally_many(made: int, read: int, free: int) -> None:
    model, inputs = linear(chunks_mixed, made, read), torch.randn(FLAT)
    assert_groups(model, inputs, {"a": free})
    (index,) = [
        member.index for member in discover_structure(model, inputs).group("a").members if member.role == "shift"
    ]
    wide = -(-made // 3)
    assert np.array_equal(index, np.arange(free)[:, None] + np.array([0, wide, 2 * wide]))
    left = [entry for entry in trace(model, inputs).unprunable if entry.module == "a"]
    assert [(entry.channels, entry.reason.partition(" (")[0]) for entry in left] == (
        [] if made == 3 * free else [(made - 3 * free, "is split into parts of unequal width")]
    )


def test_pieces_of_a_width_that_is_written_in_code_stay() -> None:
    model, inputs = linear(lambda x: torch.cat(x.split(6, 1)[::-1], 1)), torch.randn(FLAT)
    assert trace(model, inputs).widths == {"a": 4}
    assert discover_structure(stirred(model), inputs).widths == {}


@pytest.mark.parametrize(
    "between",
    [
        lambda x: x[:, :-2] * x[:, [-2]] + x[:, [-1]],
        lambda x: x[:, :-2] * x[:, -2, None] + x[:, -1:],
        lambda x: x[:, :-2] * x[:, [-1, -2]].sum(1, keepdim=True),
    ],
    ids=["index", "select", "several"],
)
def test_channels_before_those_that_are_picked_from_the_end_are_free(between: Between) -> None:
    assert_groups(linear(between, 16, 14), torch.randn(FLAT), {"a": 14})


@pytest.mark.parametrize(
    "between",
    [
        lambda x: x.repeat(1, 1) / x[:, -1].shape[0],
        lambda x: x * torch.ones_like(x[..., 0])[:, None],
        lambda x: x + x[:, -1].new_zeros(3, 1),
    ],
    ids=["shape", "ones", "zeros"],
)
def test_what_is_picked_for_its_shape_alone_leaves_all_channels_free(between: Between) -> None:
    """Transformers do so, to look up positions for as many words as there are."""
    assert_groups(linear(between, 16, 16), torch.randn(FLAT), {"a": 16})


NUMBERED: Mapping[str, tuple[Between, tuple[int, ...], str]] = {
    "roll": (lambda x: x.roll(2, 1), FLAT, "is rolled by a fixed number of positions"),
    "roll all": (lambda x: x.roll(2), FLAT, "is rolled by a fixed number of positions"),
    "index": (lambda x: x[:, torch.arange(16)], FLAT, "is picked by its number"),
    "index from both ends": (lambda x: x[:, [*range(-8, 0), *range(8)]], FLAT, "is picked by its number"),
    "index from the end": (lambda x: x[:, [*range(-16, 0)]], FLAT, "is picked by its number"),
    "index by a mask": (lambda x: x[:, torch.ones(16, dtype=torch.bool)], FLAT, "is picked by its number"),
    "index_select": (lambda x: x.index_select(-1, torch.arange(16)), FLAT, "is picked by its number"),
    "gather": (lambda x: x.gather(1, torch.arange(16).expand(3, 16)), FLAT, "is picked by its number"),
    "sort": (lambda x: x.sort(-1).values, FLAT, "is ranked or counted over its channels"),
    "argsort": (lambda x: x * x.argsort(), FLAT, "is ranked or counted over its channels"),
    "windows": (lambda x: x.unfold(1, 1, 1).squeeze(-1), FLAT, "is picked by its number"),
    "triu": (lambda x: x.triu(), SEQUENCE, "is masked by its number"),
    "tril": (lambda x: x.tril(), FLAT, "is masked by its number"),
    "topk": (lambda x: x.topk(16).values, FLAT, "is ranked or counted over its channels"),
    "written by index": (lambda x: x.index_add(1, torch.arange(16), x), FLAT, "is picked by its number"),
    "written at places": (lambda x: x.index_put((ROWS, ROWS), x[0, :2]), FLAT, "is picked by its number"),
    "written into zeros": (
        lambda x: x.new_zeros(x.shape).index_add(0, torch.arange(3), x),
        FLAT,
        "is combined with values that no layer makes",
    ),
    "scattered": (lambda x: x.scatter(1, torch.arange(16).expand(3, 16), x), FLAT, "is picked by its number"),
}


@pytest.mark.parametrize(
    ("between", "shape", "reason"),
    NUMBERED.values(),
    ids=NUMBERED,
)
def test_channels_that_are_numbered_stay(between: Between, shape: tuple[int, ...], reason: str) -> None:
    topology = discover_structure(stirred(linear(between)), torch.randn(shape))
    assert topology.widths == {}
    assert reasons(topology, "a").startswith(reason)


def test_a_number_of_channels_in_an_index_is_withdrawn() -> None:
    model, inputs = linear(lambda x: x.gather(1, TIMES.expand(-1, -1, 16))), torch.randn(SEQUENCE)
    assert trace(model, inputs).widths == {"a": 16}
    topology = discover_structure(model, inputs)
    assert topology.widths == {}
    assert "does not run once it is cut (RuntimeError: Size does not match" in reasons(topology, "a")


# Fresh values


class State(nn.Module):
    """Begins with zeros as wide as its number says."""

    def __init__(self, make: Callable[[State, Tensor], Tensor], hidden: int = 16) -> None:
        super().__init__()
        self.make, self.hidden = make, hidden
        self.cell, self.b = nn.GRUCell(20, hidden), nn.Linear(hidden, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.make(self, x)
        for step in x.unbind(1):
            h = self.cell(step, h)
        return self.b(h)


@pytest.mark.parametrize(
    "make",
    [
        lambda m, x: torch.zeros(len(x), m.hidden, dtype=x.dtype),
        lambda m, x: x.new_zeros(len(x), m.hidden),
        lambda m, x: x.new_full((len(x), m.hidden), 0.5),
        lambda m, x: torch.ones(m.hidden, dtype=x.dtype).expand(len(x), -1),
    ],
    ids=["zeros", "new_zeros", "new_full", "ones"],
)
def test_fresh_values_follow_a_number(make: Callable[[State, Tensor], Tensor]) -> None:
    model = State(make)
    assert_groups(model, torch.randn(SEQUENCE), {"cell": 16})
    (group,) = discover_structure(model, torch.randn(SEQUENCE)).groups
    assert [(attribute.module, attribute.name) for attribute in group.attributes] == [("", "hidden")]


def test_fresh_values_of_a_width_that_is_no_number() -> None:
    model = linear(lambda x: torch.zeros(3, 16, dtype=x.dtype) + x)
    topology = discover_structure(model, torch.randn(FLAT))
    assert topology.widths == {}
    assert reasons(topology, "a").startswith("is combined with values that no layer makes (x + y in ")


def test_fresh_channels_beside_others_stay() -> None:
    model = linear(lambda x: torch.cat([x, x.new_zeros(len(x), 4)], 1), 8, 12)
    model.pad = 4
    assert_groups(model, torch.randn(FLAT), {"a": 8})


# Packed sequences

LENGTHS = torch.tensor([7, 4, 2])


class Packed(nn.Module):
    def __init__(self, run: Callable[[Packed, PackedSequence], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.run, self.a = run, nn.Linear(20, 10)
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.run(self, pack_padded_sequence(torch.tanh(self.a(x)), lengths, batch_first=True))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_the_last_state_of_a_packed_sequence(kind: type[nn.RNNBase]) -> None:
    def run(m: Packed, x: PackedSequence) -> Tensor:
        state = m.rnn(x)[1]
        return m.b((state[0] if isinstance(state, tuple) else state)[-1])

    model = Packed(run, rnn=kind(10, 12, batch_first=True), b=nn.Linear(12, 5))
    assert_groups(model, (torch.randn(SEQUENCE), LENGTHS), {"a": 10, "rnn": 12})


def test_a_packed_sequence_that_is_unpacked() -> None:
    def run(m: Packed, x: PackedSequence) -> Tensor:
        return m.c(pad_packed_sequence(PackedSequence(m.b(x.data), x.batch_sizes), batch_first=True)[0])

    model, inputs = Packed(run, b=nn.Linear(10, 12), c=nn.Linear(12, 5)), (torch.randn(SEQUENCE), LENGTHS)
    assert_groups(model, inputs, {"a": 10})
    assert reasons(discover_structure(model, inputs), "b").startswith(
        "passes a packed sequence that is unpacked (pad_packed_sequence in "
    )


# Weights that are computed


class Standardised(nn.Conv2d):
    def __init__(self, *args: int, gain: bool = False, by_hand: bool = False, **options: int) -> None:
        super().__init__(*args, **options)
        self.gain = nn.Parameter(torch.ones(self.out_channels)) if gain else None
        self.by_hand = by_hand

    def forward(self, x: Tensor) -> Tensor:
        if self.by_hand:
            variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True)
            return self._conv_forward(x, (self.weight - mean) * (variance + 1e-6).rsqrt(), self.bias)
        flat = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(flat, None, None, self.gain, training=True, momentum=0.0)
        return self._conv_forward(x, weight.reshape_as(self.weight), self.bias)


class Scaled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * 0.5, self.bias)


def around(layer: nn.Module, *after: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 6, 1), nn.ReLU(), layer, *after, nn.ReLU(), nn.Conv2d(8, 3, 1))


WEIGHT = "2.parametrizations.weight"


@pytest.mark.parametrize(
    ("model", "widths"),
    [
        (lambda: around(Standardised(6, 8, 3)), {"0": 6, "2": 8}),
        (lambda: around(Standardised(6, 8, 3), nn.BatchNorm2d(8)), {"0": 6, "2": 8}),
        (lambda: around(Standardised(6, 8, 3, gain=True)), {"0": 6, "2": 8}),
        (lambda: around(Standardised(6, 8, 3, gain=True, groups=2)), {"0": 3, "2": 4}),
        (lambda: around(Standardised(6, 8, 3, by_hand=True)), {"0": 6, "2": 8}),
        (lambda: around(weight_norm(nn.Conv2d(6, 8, 3))), {"0": 6, WEIGHT: 8}),
        (lambda: around(weight_norm(nn.Conv2d(6, 8, 3, groups=2))), {"0": 3, WEIGHT: 4}),
        (lambda: around(weight_norm(nn.ConvTranspose2d(6, 8, 3))), {"0": 6, WEIGHT: 8}),
    ],
    ids=["std", "std, batch norm", "std, gain", "std, groups", "std by hand", "wn", "wn, groups", "wn transposed"],
)
def test_convolutions_with_a_computed_weight(model: Callable[[], nn.Module], widths: dict[str, int]) -> None:
    assert_groups(model(), torch.randn(IMAGES), widths)


def test_linear_layers_with_a_computed_weight() -> None:
    layers = (nn.Linear(20, 16), nn.ReLU(), weight_norm(nn.Linear(16, 12)), nn.ReLU(), nn.Linear(12, 5))
    assert_groups(nn.Sequential(*layers), torch.randn(FLAT), {"0": 16, WEIGHT: 12})
    layers = (Scaled(20, 16), nn.ReLU(), Scaled(16, 12), nn.ReLU(), nn.Linear(12, 5))
    assert_groups(nn.Sequential(*layers), torch.randn(FLAT), {"0": 16, "2": 12})


@pytest.mark.parametrize(
    ("layer", "place"),
    [
        (
            lambda: spectral_norm(nn.Linear(16, 12)),
            "torch.mv in 2.parametrizations.weight.0",
        ),
        (
            lambda: orthogonal(nn.Linear(16, 12)),
            "torch.tril in 2.parametrizations.weight.0",
        ),
    ],
)
def test_weights_whose_channels_depend_on_each_other(layer: Callable[[], nn.Module], place: str) -> None:
    model = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), layer(), nn.ReLU(), nn.Linear(12, 5))
    topology = discover_structure(stirred(model), torch.randn(FLAT))
    assert WEIGHT not in topology.widths
    why = f"has a weight whose channels are computed of each other, as in spectral_norm ({place})"
    assert reasons(topology, WEIGHT) == why
    assert_cut_is_mask(model, topology, torch.randn(FLAT))


# Norms


@pytest.mark.parametrize(
    "norm",
    [
        nn.LayerNorm(16),
        nn.LayerNorm(16, bias=False),
        nn.LayerNorm(16, elementwise_affine=False),
        nn.RMSNorm(16),
        nn.RMSNorm(16, elementwise_affine=False),
    ],
    ids=str,
)
def test_norms_over_the_last_axis(norm: nn.Module) -> None:
    model = Free(lambda m, x: m.b(torch.relu(m.norm(m.a(x)))), a=nn.Linear(20, 16), norm=norm, b=nn.Linear(16, 5))
    assert_groups(model, torch.randn(SEQUENCE), {"a": 16})


@pytest.mark.parametrize(
    ("norm", "width"),
    [
        (nn.GroupNorm(4, 16), 4),
        (nn.GroupNorm(4, 16, affine=False), 4),
        (nn.GroupNorm(1, 16), 16),
        (nn.GroupNorm(1, 16, affine=False), 16),
        (nn.GroupNorm(16, 16), 16),
        (nn.GroupNorm(16, 16, affine=False), 16),
        (nn.InstanceNorm2d(16), 16),
        (nn.InstanceNorm2d(16, affine=True), 16),
        (nn.InstanceNorm2d(16, track_running_stats=True), 16),
        (nn.BatchNorm2d(16, affine=False), 16),
        (nn.BatchNorm2d(16, track_running_stats=False), 16),
        (nn.BatchNorm2d(16, affine=False, track_running_stats=False), 16),
    ],
    ids=str,
)
def test_norms_of_images(norm: nn.Module, width: int) -> None:
    model = Free(lambda m, x: m.b(torch.relu(m.norm(m.a(x)))), a=nn.Conv2d(2, 16, 3), norm=norm, b=nn.Conv2d(16, 5, 1))
    assert_groups(model, torch.randn(IMAGES), {"a": width})
