"""Layers as least-squares problems: the rows are what they multiply, and the solution is the one known by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from autoprune.recovery.least_squares import (
    RIDGES,
    Layer,
    Moments,
    best_change,
    channels_first,
    matrix_of,
    patches,
    refit,
    rows_of,
    select_places,
    unknowns_of,
    weight_of,
)

LAYERS: dict[str, tuple[Layer, tuple[int, ...]]] = {
    "linear": (nn.Linear(5, 3), (4, 5)),
    "linear over tokens": (nn.Linear(5, 3, bias=False), (4, 6, 2, 5)),
    "linear of one vector": (nn.Linear(5, 3), (5,)),
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2), (3, 4, 11)),
    "conv2d without batch": (nn.Conv2d(2, 3, 3, padding=1), (2, 5, 4)),
    "conv2d": (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), bias=False), (2, 4, 7, 5)),
    "conv2d, same": (nn.Conv2d(4, 6, (2, 3), padding="same", dilation=(2, 3)), (2, 4, 7, 5)),
    "conv2d, valid": (nn.Conv2d(4, 6, 3, padding="valid"), (2, 4, 7, 5)),
    "conv2d, reflect": (nn.Conv2d(4, 6, 3, padding=(2, 1), padding_mode="reflect"), (2, 4, 7, 5)),
    "conv2d, circular": (nn.Conv2d(4, 6, 3, padding=(1, 2), padding_mode="circular"), (2, 4, 7, 5)),
    "grouped": (nn.Conv2d(6, 9, 3, padding=1, groups=3), (2, 6, 4, 5)),
    "depthwise": (nn.Conv2d(6, 12, 3, padding=1, groups=6), (2, 6, 4, 5)),
    "conv3d": (nn.Conv3d(2, 3, (1, 2, 3), stride=(1, 2, 1), padding=(0, 1, 1)), (2, 2, 3, 4, 5)),
    "transposed 1d": (nn.ConvTranspose1d(4, 6, 4, stride=3, padding=1, output_padding=2), (2, 4, 5)),
    "transposed 2d": (
        nn.ConvTranspose2d(4, 6, (3, 2), stride=(2, 3), padding=(2, 1), dilation=(1, 2), output_padding=(1, 0)),
        (2, 4, 4, 3),
    ),
    "transposed, more padding than kernel": (nn.ConvTranspose2d(4, 6, 2, padding=2), (2, 4, 6, 7)),
    "transposed, grouped": (nn.ConvTranspose2d(6, 4, 3, stride=2, groups=2), (2, 6, 3, 4)),
    "transposed 3d": (nn.ConvTranspose3d(2, 3, 2, stride=2), (1, 2, 2, 3, 2)),
}


def whole(layer: Layer, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    """What all outputs are made of, all their places, and the outputs [R, outputs]."""
    y = channels_first(layer, layer(x).detach())
    shape = (len(y), *y.shape[2:])
    places = torch.unravel_index(torch.arange(y[:, 0].numel()), shape)
    return patches(layer, channels_first(layer, x), shape[1:]), places, select_places(y, places)


@pytest.mark.parametrize("name", LAYERS)
def test_rows_times_matrix_are_the_outputs(name: str) -> None:
    layer, shape = copy.deepcopy(LAYERS[name])
    layer.double()
    read, places, outputs = whole(layer, torch.randn(shape, dtype=torch.float64))
    rows = rows_of(layer, select_places(read, places))
    assert rows.shape[2] == unknowns_of(layer)
    made = (rows @ matrix_of(layer)).transpose(0, 1).flatten(1)
    torch.testing.assert_close(made + (0 if layer.bias is None else layer.bias), outputs)


@pytest.mark.parametrize("name", LAYERS)
def test_the_weight_of_a_matrix_has_that_matrix(name: str) -> None:
    layer = LAYERS[name][0]
    matrix = torch.randn_like(matrix_of(layer)).float().double()
    other = copy.deepcopy(layer)
    other.weight = nn.Parameter(weight_of(layer, matrix))
    assert other.weight.shape == layer.weight.shape
    assert other.weight.dtype == torch.float32
    torch.testing.assert_close(matrix_of(other), matrix)


@pytest.mark.parametrize(
    "name", [name for name in LAYERS if name not in ("linear of one vector", "conv2d without batch")]
)
def test_lost_weights_are_found_again(name: str) -> None:
    true, shape = copy.deepcopy(LAYERS[name])
    true.double()
    layer = copy.deepcopy(true)
    nn.init.zeros_(layer.weight)
    read, places, outputs = whole(true, torch.randn(60, *shape[1:], dtype=torch.float64))
    assert refit(layer, read, places, outputs)
    torch.testing.assert_close(layer.weight, true.weight, rtol=1e-6, atol=1e-6)
    assert layer.bias is None or torch.allclose(layer.bias, true.bias, atol=1e-6)


def test_moments_and_ridge_by_hand() -> None:
    """Rows [1], [2] lack [2], [4]: X'X = 5, X'R = 10, lack 20. A change of 2 mends all; half of the price halves it."""
    moments = Moments.of(torch.tensor([[[1.0], [2.0]]]).double(), torch.tensor([[[2.0], [4.0]]]).double())
    assert (float(moments.gram), float(moments.cross), moments.residual) == (5, 10, 20)
    assert moments.error(torch.zeros(1, 1, 1).double()) == 20
    assert moments.error(torch.full((1, 1, 1), 2.0).double()) == 0
    assert moments.error(torch.full((1, 1, 1), 1.0).double()) == 5
    assert float(moments.change(0.0)) == pytest.approx(2)
    assert float(moments.change(1.0)) == pytest.approx(1)
    both = moments + moments
    assert (float(both.gram), float(both.cross), both.residual) == (10, 20, 40)


def half(rows: list[list[float]], lacking: list[list[float]]) -> Moments:
    return Moments.of(torch.tensor([rows]).double(), torch.tensor([lacking]).double())


def test_a_change_that_does_worse_on_the_other_half_is_none() -> None:
    up, down = half([[1.0], [2.0]], [[2.0], [4.0]]), half([[1.0], [2.0]], [[-2.0], [-4.0]])
    assert best_change(up, down) is None
    found = best_change(up, up)
    assert found is not None
    assert float(found) == pytest.approx(2, rel=1e-6)


def test_the_ridge_is_the_one_that_does_best_on_the_other_half() -> None:
    """Of two columns that are nearly one, noise in the first half makes a wild change that the second half refutes."""
    torch.manual_seed(0)
    rows = torch.randn(1, 20, 1).double().expand(-1, -1, 2) + 1e-3 * torch.randn(1, 20, 2).double()
    lacking = rows[..., :1] + 0.3 * torch.randn(1, 20, 1).double()
    first, second = Moments.of(rows[:, :10], lacking[:, :10]), Moments.of(rows[:, 10:], lacking[:, 10:])
    errors = [second.error(first.change(ridge)) for ridge in RIDGES]
    assert errors[0] > min(errors)
    chosen = RIDGES[errors.index(min(errors))]
    assert torch.equal(best_change(first, second), (first + second).change(chosen))  # type: ignore[arg-type]


@pytest.mark.parametrize("samples", [8, 9])
def test_a_duplicated_input_gives_its_weight_to_the_one_that_stays(samples: int) -> None:
    """y = 2 a + 3 a' + 5 b + 7 with a' = a. Without a' it is 5 a + 5 b + 7."""
    layer = nn.Linear(2, 1).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[2.0, 5.0]]))
        layer.bias.fill_(7.0)
    x = torch.randn(samples, 2).double()
    wanted = (x * torch.tensor([5.0, 5.0]).double()).sum(1, keepdim=True) + 7
    read, places, _ = whole(layer, x)
    assert refit(layer, read, places, wanted)
    torch.testing.assert_close(layer.weight.detach(), torch.tensor([[5.0, 5.0]]).double(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(layer.bias.detach(), torch.tensor([7.0]).double(), rtol=1e-6, atol=1e-6)


def test_a_lost_constant_goes_into_the_bias_unless_that_is_frozen() -> None:
    for trained in (True, False):
        layer = nn.Linear(3, 2)
        layer.bias.requires_grad_(trained)
        before = copy.deepcopy(layer)
        read, places, outputs = whole(layer, torch.randn(40, 3))
        refit(layer, read, places, outputs + torch.tensor([1.0, -2.0]))
        gained = layer.bias - before.bias
        expected = torch.tensor([1.0, -2.0]) if trained else torch.zeros(2)
        torch.testing.assert_close(gained.detach(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["read", "wanted"])
def test_what_is_not_finite_changes_nothing(value: float, where: str) -> None:
    layer = nn.Linear(3, 2)
    before = copy.deepcopy(layer.state_dict())
    x = torch.randn(40, 3)
    read, places, outputs = whole(layer, x)
    wanted = outputs + 1
    (read if where == "read" else wanted)[11, 1] = value
    assert not refit(layer, read, places, wanted)
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


def test_one_sample_has_no_other_half_and_changes_nothing() -> None:
    layer = nn.Linear(3, 2)
    before = copy.deepcopy(layer.state_dict())
    read, places, outputs = whole(layer, torch.randn(1, 40, 3))
    assert not refit(layer, read, places, outputs + 1)
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


def test_what_is_right_stays() -> None:
    layer = nn.Linear(3, 2).double()
    before = copy.deepcopy(layer.state_dict())
    read, places, outputs = whole(layer, torch.randn(40, 3).double())
    refit(layer, read, places, outputs)
    for name, value in layer.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=1e-12, atol=1e-12)


def test_noise_is_not_learned_from_few_samples() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(50, 1).double()
    before = layer.weight.detach().clone()
    read, places, outputs = whole(layer, torch.randn(20, 50).double())
    noise = torch.randn_like(outputs)
    refit(layer, read, places, outputs + noise)
    fresh = torch.randn(1000, 50).double()
    # A plain least-squares fit would follow the noise: its error on new samples is about that of the noise.
    assert float((fresh @ (layer.weight.detach() - before).mT).square().mean()) < 0.1


def test_a_solution_that_the_type_can_not_hold_is_not_taken() -> None:
    layer = nn.Linear(1, 1, bias=False).half()
    nn.init.ones_(layer.weight)
    read = torch.full((8, 1, 1), 1e-3).half()
    places = torch.arange(8), torch.zeros(8, dtype=torch.int64)
    assert not refit(layer, read, places, torch.full((8, 1), 6e4).half())  # 6e7, and the largest half is 65504
    assert layer.weight.item() == 1
    assert refit(layer, read, places, torch.full((8, 1), 2e-3).half())
    assert layer.weight.item() == pytest.approx(2, rel=2e-3)
    assert layer.weight.dtype == torch.float16
