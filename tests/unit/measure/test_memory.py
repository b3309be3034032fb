"""Peak memory by hand, and against the peak of torch's allocator."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from autoprune.measure.memory import peak_memory
from autoprune.plan.kept import KeptChannels
from autoprune.surgery.cut import cut
from benchmarks.models import UNet, resnet18
from benchmarks.peak_memory import allocated_peak
from tests.zoo.registry import build, build_any, specimen


class Calls(nn.Module):
    """A function as a model, with a parameter of 4 bytes."""

    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self.function(x)


def bytes_beside_input(function: Callable[[Tensor], object]) -> int:
    """Bytes above the weight and an input of 100 numbers."""
    return peak_memory(Calls(function), torch.ones(100)) - 4 - 400


def kept(x: Tensor) -> Tensor:
    first = x + 1
    second = first * 2
    return second + first


def renamed(x: Tensor) -> Tensor:
    for _ in range(5):
        x = x * 2
    return x


@pytest.mark.parametrize(
    ("function", "numbers"),
    [
        (lambda x: x, 0),
        (lambda x: x + 1, 100),
        (renamed, 200),  # the one that is read and the one that is written; the input is counted already
        (kept, 300),
        (lambda x: x[:50].reshape(5, 10).T, 0),
        (lambda x: (x + 1)[:10], 100),  # a view keeps all of it
        (lambda x: (x + 1)[:10].clone(), 110),
        (lambda x: (x + 1).relu_().mul_(2), 100),
        (lambda x: torch.cat([x, x]), 200),
        (lambda x: (x.double() + 1).float(), 400),  # two of 8 bytes at a time
        (lambda x: x.expand(7, 100), 0),
        (lambda x: {"a": [x + 1, x + 2]}, 200),
        (lambda x: (x.sum(), x.sum()), 2),
    ],
)
def test_lifetimes_by_hand(function: Callable[[Tensor], object], numbers: int) -> None:
    assert bytes_beside_input(function) == 4 * numbers


def test_weights_buffers_and_inputs_count_once() -> None:
    model = nn.Sequential(nn.Linear(10, 10, bias=False), nn.Linear(10, 10, bias=False))
    model[1].weight = model[0].weight
    model.register_buffer("mean", torch.zeros(50))
    assert peak_memory(model, torch.zeros(1, 10)) == 4 * (100 + 50 + 10 + 10 + 10)
    for number, half in enumerate(torch.zeros(60).split(30)):
        model[0].register_parameter(f"half{number}", nn.Parameter(half))
    assert peak_memory(model, torch.zeros(1, 10)) == 4 * (100 + 50 + 60 + 10 + 10 + 10)


def test_inputs_are_counted_and_not_the_data_that_they_are_cut_from() -> None:
    data = torch.zeros(1000, 10)
    model = nn.Linear(10, 5, bias=False)
    assert peak_memory(model, data[:2]) == 4 * (50 + 20 + 10)
    assert peak_memory(Calls(lambda x: (x, x[:1] + 1)), (data[:2],)) == 4 * (1 + 20 + 10)


def test_a_tensor_that_a_module_just_holds_is_counted() -> None:
    table = torch.zeros(100)
    assert bytes_beside_input(lambda x: x[:10] + table[:10]) == 4 * (100 + 10)


def test_a_cycle_of_references_gives_one_number() -> None:
    """Whenever Python happens to collect it."""

    def cyclic(x: Tensor) -> Tensor:
        for _ in range(3):
            x = x + 1
            cycle: list[object] = [x]
            cycle.append(cycle)
        return x

    threshold = gc.get_threshold()
    found = []
    try:
        for count in (1, threshold[0]):
            gc.set_threshold(count)
            found.append(bytes_beside_input(cyclic))
    finally:
        gc.set_threshold(*threshold)
    assert found == [1200, 1200]
    assert gc.isenabled()


def test_what_the_first_call_caches_is_there_before() -> None:
    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))
            self.table: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            y = x + self.weight
            if self.table is None:
                self.table = torch.cat([y, y]).exp()[:100].clone()
            return y + self.table

    model = Caching()
    found = [peak_memory(model, torch.ones(100)) for _ in range(2)]
    assert found == [4 * (1 + 100 + 100 + 100 + 100)] * 2


def test_random_draws_and_modes_do_not_matter() -> None:
    model, inputs = build("vgg")
    state = torch.random.get_rng_state()
    model.train()
    found = peak_memory(model, inputs)
    assert model.training
    assert found == peak_memory(model.eval(), inputs)
    assert torch.equal(state, torch.random.get_rng_state())


def test_narrow_models_need_less() -> None:
    case = specimen("resnet")
    whole = peak_memory(case.model, case.inputs)
    half = KeptChannels(groups={group.name: tuple(range(group.half)) for group in case.topology.groups})
    assert peak_memory(cut(case.model, case.topology, half), case.inputs) < whole


def images(pixels: int) -> Tensor:
    return torch.randn(2, 3, pixels, pixels)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("build_model", "inputs"), [(resnet18, images(160)), (lambda: UNet((16, 32, 64)), images(128))]
)
def test_convolutional_models_agree_with_the_allocator(
    build_model: Callable[[], nn.Module], inputs: Tensor, channels_last: bool
) -> None:
    model, layout = build_model(), torch.channels_last if channels_last else torch.contiguous_format
    model, inputs = model.to(memory_format=layout), inputs.to(memory_format=layout)
    assert peak_memory(model, inputs) == pytest.approx(allocated_peak(model, inputs), rel=0.05)


def test_plain_convolutions_agree_with_the_allocator() -> None:
    """The copies of a convolution are more than the weights and batch norms leave room for."""
    model = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU())
    inputs = images(128)
    assert peak_memory(model, inputs) == pytest.approx(allocated_peak(model, inputs), rel=0.02)


@pytest.mark.parametrize("name", ["sdp_attention", "grouped_query", "relative_bias", "attention_block"])
def test_attention_agrees_with_the_allocator(name: str) -> None:
    model, inputs = build_any(name)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    measured = allocated_peak(model, inputs) - weights
    assert peak_memory(model, inputs) - weights == pytest.approx(measured, rel=0.05)
